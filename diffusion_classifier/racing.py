from .pruners.racing import *  # noqa: F403  where this module was before
