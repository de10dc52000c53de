from .scoring.calibration import *  # noqa: F403  where this module was before
