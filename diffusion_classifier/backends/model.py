"""Which model a pipeline is: what was read when a backend was made of it, and changes since."""

from __future__ import annotations

from typing import Any, NamedTuple

from .families.base import Family
from .families.parts.checks import check_components, check_scheduler
from .state import changes, check_usable, hash_configs, networks, weights_now


class ModelState(NamedTuple):
    """What identifies a model besides its name.

    Attributes
    ----------
    config_sha256 : str
        Hash of the configurations and changes.
    changes : str
        What was done to the networks, such as adapters; empty if nothing was.
    """

    config_sha256: str
    changes: str


class PipelineModel:
    """A pipeline, its family, and what was read from it.

    Parameters
    ----------
    family : Family
    pipeline : diffusers.DiffusionPipeline

    Attributes
    ----------
    prediction_type : str
    schedule : NoiseSchedule
        Both as the scheduler told when this was made; users may replace it to sample images.
    """

    def __init__(self, family: Family, pipeline: Any) -> None:
        self.family, self.pipeline = family, pipeline
        self.prediction_type = family.prediction_type(pipeline)
        self.schedule = family.schedule(pipeline)
        self._as_read = {"scheduler": dict(pipeline.scheduler.config)}
        self._weights = weights_now(pipeline, family.components)
        self._dropped: dict[str, str] = {}  # changes of text encoders that were dropped, by name

    def check(self) -> None:
        """Raise InputValueError if the pipeline cannot be used as it is now."""
        family, pipeline = self.family, self.pipeline
        check_components(family, pipeline, family.text_encoders)
        check_scheduler(family, pipeline, self.prediction_type, self.schedule)
        for name, network in networks(pipeline, family.components):
            check_usable(name, network)

    def state(self) -> ModelState:
        """Describe the pipeline as it is now."""
        family, pipeline = self.family, self.pipeline
        found = changes(pipeline, family.components, self._weights)
        for name, dropped in self._dropped.items():
            if getattr(pipeline, name) is None:
                found[name] = dropped
        text = "; ".join(f"{name}: {of}" for name, of in sorted(found.items()))
        parts = [name for name in family.components if name not in family.text_encoders]
        configs = {name: getattr(pipeline, name) for name in parts} | self._as_read
        return ModelState(hash_configs(configs | ({"": {"changes": text}} if text else {})), text)

    def fingerprint(self, place: Any) -> str:
        """Tell the networks from all others, by their weights as read; changes are in ``state``.

        The place they were loaded from counts only if weights were not there, as those of text
        encoders that are loaded while prompts are encoded.
        """
        weights = {name: sample and sample.digest() for name, sample in self._weights.items()}
        missing = [name for name in self.family.text_encoders if name not in weights]
        return f"{weights}" + (f" without {missing}, from {place}" if missing else "")

    def drop_text_encoders(self) -> None:
        """Free the text encoders' memory, and keep what identifies them."""
        names = self.family.text_encoders
        self._dropped = changes(self.pipeline, names, self._weights)
        for name in names:
            setattr(self.pipeline, name, None)
