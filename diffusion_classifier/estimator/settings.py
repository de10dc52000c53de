"""What ``fit`` saw of the settings that errors depend on, checked once.

Latents depend on the network and on how pictures come to their size; errors also depend on the
loss. ``made_by`` puts these in types that JSON knows, so that latents and recorded errors of one
network are never taken for those of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

from ..backends.base import Backend
from ..errors import InputValueError
from ..images.resize import RESIZE_MODES, ResizeMode, read_size
from ..noise.variational import VariationalBound
from ..scoring.class_losses import LossName
from ..utils.validation import check_option


@dataclass(frozen=True)
class PictureFormat:
    """The size that pictures are brought to, and how.

    Attributes
    ----------
    image_size : tuple of (int, int) or None
        Height and width in pixels; None if they are the model's own.
    resize : {"crop", "pad", "squash"}
    """

    image_size: tuple[int, int] | None
    resize: ResizeMode

    @classmethod
    def of(cls, image_size: Any, resize: Any) -> Self:
        """The format that the estimator's parameters of these names ask for.

        Raises
        ------
        InputValueError
            If either is not a known value.
        """
        check_option("resize", resize, RESIZE_MODES)
        return cls(None if image_size is None else read_size(image_size), cast(ResizeMode, resize))

    def size_for(self, backend: Backend) -> tuple[int, int] | None:
        """Height and width in pixels; None if pictures keep their own."""
        return self.image_size or backend.image_size

    def made_by(self, backend: Backend) -> dict[str, Any]:
        """What latents depend on, beside the pictures."""
        size = self.size_for(backend)
        return {**backend.identity(), "image_size": size and list(size), "resize": self.resize}


def errors_made_by(backend: Backend, pictures: PictureFormat, loss: LossName) -> dict[str, Any]:
    """What errors depend on, beside images, prompts and draws."""
    return {**pictures.made_by(backend), "loss": loss}


def check_variance(backend: Backend, loss: str) -> None:
    """Refuse ``loss="vlb"`` for a network that does not predict a variance.

    Raises
    ------
    InputValueError
        If it does not, or its schedule has no variational bound.
    """
    if loss != "vlb":
        return
    if not backend.learned_variance:
        raise InputValueError(
            f'loss="vlb" needs a network that also predicts a variance, as DiT, PixArt and '
            f"DeepFloyd IF do; {backend!r} does not: use loss='l2'."
        )
    VariationalBound(backend.schedule)
