r"""ErrorTable: every error that a prediction rests on, kept.

    errors[i, p, j] = loss(eps_j - eps_hat(alpha x_i + sigma eps_j, t_j, prompt p))

NaN marks what was never evaluated because the prompt had been dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .losses import Scoring
from .race import Result
from .samplers import DrawTape


@dataclass(frozen=True)
class ErrorTable:
    """Noise-prediction errors of N images, P prompts and J draws.

    Attributes
    ----------
    errors : ndarray of shape (N, P, J), dtype float32
        Loss of the noise residual summed over dimensions; NaN where not evaluated.
    class_of : ndarray of shape (P,), dtype int
        Index into ``classes`` of each prompt's class.
    timesteps : ndarray of shape (J,), dtype int
    density : ndarray of shape (J,)
        Proposal density of each draw, relative to uniform.
    active : ndarray of shape (N, P), dtype bool
        Prompts still in the race at its end.
    classes : ndarray of shape (K,)
    prompts : tuple of str of length P
    seed : int
        Key of the draws: tables with one seed and sampler share their noise.
    made_by : dict or None
        The network, picture size and loss; None if unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from diffusion_classifier.error_table import ErrorTable
    >>> table = ErrorTable(
    ...     errors=np.array([[[1.0, 2.0], [3.0, np.nan]]], dtype=np.float32),
    ...     class_of=np.array([0, 1]), timesteps=np.array([10, 20]), density=np.ones(2),
    ...     active=np.array([[True, False]]), classes=np.array(["cat", "dog"]),
    ...     prompts=("a cat", "a dog"), seed=0)
    >>> table.n_draws.tolist(), table.n_evaluations.tolist()
    ([[2, 1]], [3])
    """

    errors: NDArray[np.float32]
    class_of: NDArray[np.int64]
    timesteps: NDArray[np.int64]
    density: NDArray[np.float64]
    active: NDArray[np.bool_]
    classes: NDArray
    prompts: tuple[str, ...]
    seed: int
    made_by: dict[str, Any] | None = None

    @property
    def n_draws(self) -> NDArray[np.int64]:
        """Draws that each prompt was evaluated on, of shape (N, P)."""
        return (~np.isnan(self.errors)).sum(2)

    @property
    def n_evaluations(self) -> NDArray[np.int64]:
        """Network rows spent on each image, of shape (N,)."""
        return self.n_draws.sum(1)

    def class_losses(self, scoring: Scoring) -> Tensor:
        """Losses of every image's classes, [N, K], float64."""
        timesteps, density = torch.as_tensor(self.timesteps), torch.as_tensor(self.density)
        return torch.stack(
            [
                scoring.class_losses_of(torch.as_tensor(row), timesteps, density)
                for row in self.errors
            ]
        )

    def check_matches(self, classes: NDArray, prompts: tuple[str, ...]) -> None:
        """Raise a ValueError unless the errors are of these classes and prompts."""
        if self.prompts != prompts or not np.array_equal(self.classes, classes):
            raise ValueError(
                f"this ErrorTable holds prompts {self.prompts[:3]}..., but this classifier was "
                f"fitted with {prompts[:3]}...; record errors with this classifier."
            )

    def __len__(self) -> int:
        return len(self.errors)

    def __repr__(self) -> str:
        n, p, j = self.errors.shape
        return (
            f"ErrorTable(n_images={n}, n_prompts={p}, n_classes={len(self.classes)}, "
            f"n_draws={j}, n_evaluations={int(self.n_evaluations.sum())})"
        )


def table_from_results(
    results: Iterable[Result],
    n_images: int,
    tape: DrawTape,
    *,
    class_of: NDArray,
    classes: NDArray,
    prompts: tuple[str, ...],
    seed: int,
    made_by: dict[str, Any] | None = None,
) -> ErrorTable:
    """Collect the results of a race, in any order, into one table."""
    found = sorted(results, key=lambda result: result.image)
    most = max(result.errors.shape[1] for result in found)
    errors = np.full((n_images, len(class_of), most), np.nan, found[0].errors.numpy().dtype)
    for row, result in enumerate(found):
        errors[row, :, : result.errors.shape[1]] = result.errors.numpy()
    return ErrorTable(
        errors=errors,
        class_of=class_of,
        timesteps=tape.timesteps[:most].numpy(),
        density=tape.density[:most].numpy(),
        active=torch.stack([result.active for result in found]).numpy(),
        classes=classes,
        prompts=prompts,
        seed=seed,
        made_by=made_by,
    )
