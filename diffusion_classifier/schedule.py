from .noise.schedule import *  # noqa: F403  where this module was before
