"""Errors kept in a folder by what they are, so that none is computed twice.

An error depends on the image, the prompt, the draw and the network, and on nothing else. With
``DiffusionClassifier(memory=folder)`` errors are looked up by these four before the network is
asked, and what it computes is added. Another label set, budget, pruner, weighting, fold or process
finds what is there.
"""

from .store import ErrorStore, StoreInfo, Verification

__all__ = ["ErrorStore", "StoreInfo", "Verification"]
