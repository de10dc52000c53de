"""Fitted classifiers on the Hugging Face Hub: the files that ``save`` writes, and a model card.

    classifier.json, tensors.safetensors   what ``DiffusionClassifier.save`` writes
    README.md                              a model card, :mod:`diffusion_classifier.hub.card`

Nothing else is uploaded, and only the first two are downloaded: no pickle, no code, and no weights
of the network, which is loaded from its own place. What comes from the Hub passes the same checks
as a folder that :meth:`DiffusionClassifier.load` reads.
"""

from .card import model_card
from .pull import from_hub
from .push import push_to_hub

__all__ = ["from_hub", "model_card", "push_to_hub"]
