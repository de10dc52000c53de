from .scoring.weighting import *  # noqa: F403  where this module was before
