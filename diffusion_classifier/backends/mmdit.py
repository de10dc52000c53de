from .families.mmdit import *  # noqa: F403  where this module was before
