"""Settings at ``fit`` that latents and errors depend on.

Latents depend on the network and on how images are resized; errors also depend on the loss.
``made_by`` describes these settings in JSON types. Latents and error tables store the description,
so that a classifier with another network or other settings refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from ..backends.base import Backend
from ..errors import InputValueError
from ..images.resize import RESIZE_MODES, ResizeMode, read_size
from ..noise.prediction import PREDICTION_TYPES
from ..noise.process import GaussianProcess, Process, process_of
from ..noise.variational import VariationalBound
from ..utils.display import short_repr
from ..utils.validation import check_option


@dataclass(frozen=True)
class PictureFormat:
    """Image size and resizing mode.

    Attributes
    ----------
    image_size : tuple of (int, int) or None
        Height and width in pixels; None for the model's own.
    resize : {"crop", "pad", "squash"}
    """

    image_size: tuple[int, int] | None
    resize: ResizeMode

    @classmethod
    def of(cls, image_size: Any, resize: Any) -> Self:
        """Make a PictureFormat from the estimator's parameters of these names.

        Raises
        ------
        InputValueError
            If either value is invalid.
        """
        check_option("resize", resize, RESIZE_MODES)
        return cls(None if image_size is None else read_size(image_size), cast(ResizeMode, resize))

    def size_for(self, backend: Backend) -> tuple[int, int] | None:
        """Return height and width in pixels; None if images keep their size."""
        return self.image_size or backend.image_size

    def made_by(self, backend: Backend, network: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Describe what latents depend on, apart from the images.

        ``network`` is the backend's identity, which takes time, if the caller has it already.
        """
        size = self.size_for(backend)
        network = backend.identity() if network is None else network
        return {**network, "image_size": size and list(size), "resize": self.resize}


def check_variance(backend: Backend, loss: str) -> None:
    """Check that a network supports a loss.

    Raises
    ------
    InputValueError
        If ``loss="vlb"`` and the network predicts no variance, or its schedule has no variational
        bound; if its process computes errors of its own, which the bound would leave out; or if the
        network predicts no noise, and the loss is not the default or a variance is stated.
    """
    process = process_of(backend.prediction_type)
    if backend.learned_variance and not process.predicts_noise:
        raise InputValueError(
            f"learned_variance=True states that {short_repr(backend)} also predicts the variance "
            f"of noise, but prediction_type={backend.prediction_type!r} predicts none; leave "
            "learned_variance=False. Logits need one number for each token of the vocabulary."
        )
    if loss != "l2" and not process.predicts_noise:
        raise InputValueError(
            f"loss={loss!r} is a loss of predicted noise, but this network predicts none; leave "
            'loss="l2", its default. The error of tokens is their negative log probability.'
        )
    if loss != "vlb":
        return
    if not backend.learned_variance:
        raise InputValueError(
            f'loss="vlb" needs a network that also predicts a variance, as DiT, PixArt and '
            f"DeepFloyd IF do; {short_repr(backend)} does not, so use loss='l2'."
        )
    own = [name for name in _OF_BOUND if not _is_inherited(process, name)]
    if own:
        raise InputValueError(
            f'loss="vlb" computes errors by a formula of its own, without {own[0]} of '
            f"{type(process).__name__}, the process {backend.prediction_type!r}; leave "
            f'loss="l2", or choose one of {", ".join(map(repr, PREDICTION_TYPES))} as '
            "prediction_type."
        )
    VariationalBound(backend.schedule)


# Of GaussianProcess: what the bound rests on, or computes itself.
_OF_BOUND = ("corrupt", "scale", "terms", "errors")


def _is_inherited(process: Process, name: str) -> bool:
    return getattr(type(process), name) is getattr(GaussianProcess, name)
