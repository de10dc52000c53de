from .samplers.importance import *  # noqa: F403  where this module was before
