"""State of a pipeline's networks: what model they are, and what was done to them since."""

from .changes import changes, networks, weights_now
from .configs import hash_configs
from .usable import check_usable

__all__ = ["changes", "check_usable", "hash_configs", "networks", "weights_now"]
