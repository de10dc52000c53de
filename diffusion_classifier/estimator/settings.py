"""What ``fit`` saw of the parameters, checked once."""

from __future__ import annotations

from ..backends.base import Backend
from ..errors import InputValueError
from ..noise.variational import VariationalBound


def check_variance(backend: Backend, loss: str) -> None:
    """A ValueError if ``loss="vlb"`` is asked of a network that does not predict a variance."""
    if loss != "vlb":
        return
    if not backend.learned_variance:
        raise InputValueError(
            f'loss="vlb" needs a network that predicts a variance too, as DiT, PixArt and '
            f"DeepFloyd IF do; {backend!r} does not: use loss='l2'."
        )
    VariationalBound(backend.schedule)
