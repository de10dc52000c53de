from .families.mmdit import *  # noqa: F403  old import path
