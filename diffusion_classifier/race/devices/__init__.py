"""Several devices in one process: copies of the network, between which each step is divided."""

from .copies import copy_to
from .engines import Engines, engine_on

__all__ = ["Engines", "copy_to", "engine_on"]
