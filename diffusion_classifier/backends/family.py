from .families.base import *  # noqa: F403  where this module was before
from .families.text import *  # noqa: F403
