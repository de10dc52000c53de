"""Pictures of races, errors and answers, in the style of scikit-learn's displays.

Each display has ``from_table``, ``from_estimator`` or ``from_predictions``, which compute and draw,
``plot(ax=)``, which draws again, and the attributes ``ax_`` and ``figure_``. They need matplotlib,
which the extra ``plot`` installs. docs/pictures.md shows one of each.
"""

from .confusion import ConfusionDisplay
from .contact_sheet import ContactSheet
from .cost import CostAccuracyDisplay
from .evidence import EvidenceMapDisplay
from .race import RaceDisplay
from .reliability import ReliabilityDisplay
from .timesteps import ErrorByTimestepDisplay

__all__ = [
    "ConfusionDisplay",
    "ContactSheet",
    "CostAccuracyDisplay",
    "ErrorByTimestepDisplay",
    "EvidenceMapDisplay",
    "RaceDisplay",
    "ReliabilityDisplay",
]
