"""Saving of fitted classifiers to a folder, without the network (the *backbone*).

    classifier.json       parameters, strategies, classes, prompts, the backbone's identity
    tensors.safetensors   prompt embeddings, weights w(t) and all other arrays

Reading runs no code from the folder: it accepts the keys and types that writing emits and nothing
else (:mod:`diffusion_classifier.estimator.saving.format`). A sha256 of each file detects damage. It
does not authenticate: whoever edits a file can compute it again.

A reader sees the earlier save or the new one, whenever the writer is interrupted
(:mod:`diffusion_classifier.estimator.saving.files`).
"""

from .classifier import SavedClassifier, read_classifier, write_classifier
from .files import refusing

__all__ = ["SavedClassifier", "read_classifier", "refusing", "write_classifier"]
