"""Shortlists: a cheap proposer names a few classes per image, and only these race."""

from .base import BaseShortlist, recall
from .proposer import Shortlist

__all__ = ["BaseShortlist", "Shortlist", "recall"]
