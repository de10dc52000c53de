"""Shortlists: something cheap names a few classes per image, and only these race.

For many classes a race spends most evaluations before any class is dropped. A shortlist is made by
another classifier (``Shortlist``), by CLIP (``ClipShortlist``), or by a race of the same model over
the values of factors (``FactoredShortlist``) or the nodes of a hierarchy (``HierarchyShortlist``).
"""

from .base import BaseShortlist, recall
from .clip import ClipShortlist
from .groups import FactoredShortlist, HierarchyShortlist
from .proposer import Shortlist

__all__ = [
    "BaseShortlist",
    "ClipShortlist",
    "FactoredShortlist",
    "HierarchyShortlist",
    "Shortlist",
    "recall",
]
