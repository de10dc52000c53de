from .families.base import *  # noqa: F403  old import path
from .families.parts.text import *  # noqa: F403
