r"""ErrorTable: every error that a prediction rests on, kept, and raced again at no cost.

    errors[i, p, j] = loss(eps_j - eps_hat(alpha x_i + sigma eps_j, t_j, prompt p))

NaN marks what was never evaluated because the prompt had been dropped. The errors do not depend
on who else was evaluated, so a table recorded in full (``clf.errors(X, full=True)``) answers
what any pruner and any weighting would have answered on the same draws.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputValueError
from ..noise.draws import Draws
from ..noise.schedule import NoiseSchedule
from ..pruners.base import NoPruning, Pruner
from ..race.loop import run_race
from ..race.source import Request, Result
from ..race.tape import DrawTape
from ..scoring.class_losses import Scoring, check_loss, read_log_prior
from ..scoring.weighting import Weighting
from ..strategies import resolve_strategy
from ..utils.provenance import check_made_by
from ..utils.validation import check_positive_integer
from .certificate import certify

_ROWS_PER_STEP = 2**18  # of a replay; bounds its memory


@dataclass(frozen=True, eq=False)
class ErrorTable:
    """Noise-prediction errors of N images, P prompts and J draws.

    An integer, slice, array of integers or boolean mask picks images, as in an array.

    Attributes
    ----------
    errors : ndarray of shape (N, P, J), dtype float32
        Loss of the noise residual (or bound in nats) summed over dimensions; NaN where not
        evaluated.
    active : ndarray of shape (N, P), dtype bool
        Prompts still in the race at its end.
    timesteps : ndarray of shape (J,), dtype int
    density : ndarray of shape (J,)
        Proposal density of each draw, relative to uniform.
    round_of : ndarray of shape (J,), dtype int
        The round of each draw; rounds are independent.
    antithetic : ndarray of shape (J,), dtype bool
        Draws that are one half of an antithetic pair, next to the other.
    scoring : Scoring
        Weights, priors and classes of prompts that the race went by.
    schedule : NoiseSchedule
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}
    loss : {"l2", "l1", "huber", "vlb"}
    classes : ndarray of shape (K,)
    prompts : tuple of str of length P
    seed : int
        Key of the draws: tables with one seed and sampler share their noise.
    alpha : float, default=nan
        Error probability that the pruner promised; NaN if it promised none.
    made_by : dict or None, default=None
        The network, picture size and loss; None if unknown.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.backends import GaussianBackend
    >>> from diffusion_classifier.pruners import StagedPruner
    >>> backend = GaussianBackend([[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    >>> clf = DiffusionClassifier(backend, weighting="likelihood", random_state=0)
    >>> table = clf.fit([[-1.0], [1.0]], ["left", "right"]).errors([[-2.0], [3.0]], full=True)
    >>> table
    ErrorTable(n_images=2, n_prompts=2, n_classes=2, n_draws=200, n_evaluations=800)
    >>> raced = table.replay(StagedPruner(n_draws=[20], keep=[1]))
    >>> raced.n_evaluations.tolist(), raced.certificate.winner.tolist()
    ([40, 40], ['left', 'right'])
    """

    errors: NDArray[np.float32]
    active: NDArray[np.bool_]
    timesteps: NDArray[np.int64]
    density: NDArray[np.float64]
    round_of: NDArray[np.int64]
    antithetic: NDArray[np.bool_]
    scoring: Scoring
    schedule: NoiseSchedule
    prediction_type: str
    loss: str
    classes: NDArray
    prompts: tuple[str, ...]
    seed: int
    alpha: float = np.nan
    made_by: dict[str, Any] | None = None

    @property
    def shape(self) -> tuple[int]:
        """``(n_images,)``: scikit-learn takes what has a shape by arrays of indices at once."""
        return (len(self),)

    @property
    def class_of(self) -> NDArray[np.int64]:
        """Index into ``classes`` of each prompt's class, of shape (P,)."""
        return self.scoring.class_of.numpy()

    @property
    def n_draws(self) -> NDArray[np.int64]:
        """Draws that each prompt was evaluated on, of shape (N, P)."""
        return (~np.isnan(self.errors)).sum(2)

    @property
    def n_evaluations(self) -> NDArray[np.int64]:
        """Network rows spent on each image, of shape (N,)."""
        return self.n_draws.sum(1)

    @property
    def is_full(self) -> bool:
        """Whether every prompt was evaluated on every draw."""
        return not np.isnan(self.errors).any()

    @property
    def certificate(self) -> np.recarray:
        """How each image's race ended; see :mod:`diffusion_classifier.records.certificate`.

        Returns
        -------
        recarray of shape (N,)
            ``resolved``: one class was left, else the budget was spent; ``alpha``: the total
            error probability promised; ``winner``, ``runner_up``: labels; ``margin``,
            ``standard_error``: the gap between their losses, and its standard error over
            rounds; ``n_draws``: the winner's.
        """
        return certify(self)

    def class_losses(self, scoring: Scoring | None = None) -> Tensor:
        """Losses of every image's classes, [N, K], float64; by default as they were raced."""
        scoring = self.scoring if scoring is None else scoring
        return torch.stack([scoring.class_losses_of(*row) for row in self.rows()])

    def log_posterior(self, scoring: Scoring | None = None) -> Tensor:
        """Log posterior of every image's classes, [N, K]; by default as they were raced."""
        scoring = self.scoring if scoring is None else scoring
        return torch.stack([scoring.log_posterior_of(*row) for row in self.rows()])

    def rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Errors [P, J], timesteps, density and who was left, image by image."""
        timesteps, density = torch.as_tensor(self.timesteps), torch.as_tensor(self.density)
        for errors, active in zip(self.errors, self.active, strict=True):
            yield torch.as_tensor(errors), timesteps, density, torch.as_tensor(active)

    def replay(
        self,
        pruner: str | Pruner | None = None,
        weighting: str | Weighting | None = None,
        *,
        priors: Any = None,
    ) -> ErrorTable:
        """Race the recorded errors again, by the loop that races the network.

        Parameters
        ----------
        pruner : str or Pruner, optional
            None keeps every prompt to the end. A pruner that has learned is used as it is: ask
            nothing of it under other weights or rounds than it learned from. Its budget counts as
            far as draws were recorded.
        weighting : str or Weighting, optional
            By default the one recorded.
        priors : array-like of shape (K,), optional
            By default those recorded.

        Returns
        -------
        ErrorTable
            As ``clf.errors(X)`` would give with these strategies and the same draws.

        Raises
        ------
        ValueError
            If the race needs an error that was not recorded: record with ``full=True``.
        """
        scoring = self.scoring
        if weighting is not None:
            chosen = _resolve("weighting", weighting, Weighting)
            check_loss(chosen, self.loss)
            weights = chosen.weights(self.schedule, self.prediction_type)
            scoring = replace(scoring, weights=weights)
        if priors is not None:
            scoring = replace(scoring, log_prior=read_log_prior(priors, len(self.classes)))
        if pruner is None:
            return self.race(NoPruning(len(self.timesteps)), scoring)
        return self.race(_resolve("pruner", pruner, Pruner), scoring)

    def race(self, pruner: Pruner, scoring: Scoring) -> ErrorTable:
        """``replay`` with all that goes into losses given."""
        budget = check_positive_integer("max_draws", pruner.max_draws)
        tape = DrawTape(self._rounds(), budget)
        results = run_race(_RecordedErrors(self), tape, pruner, scoring, range(len(self)))
        return table_from_results(
            results,
            tape,
            scoring=scoring,
            schedule=self.schedule,
            prediction_type=self.prediction_type,
            loss=self.loss,
            classes=self.classes,
            prompts=self.prompts,
            seed=self.seed,
            alpha=promised_alpha(pruner),
            made_by=self.made_by,
        )

    def _rounds(self) -> Iterator[Draws]:
        """The recorded rounds; a draw's key is its column here, as nobody asks for its noise."""
        starts = np.flatnonzero(np.diff(self.round_of, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(self.round_of)], strict=True):
            yield Draws(
                torch.as_tensor(self.timesteps[start:stop]),
                torch.as_tensor(self.density[start:stop]),
                tuple(range(start, stop)),
                (1,) * (stop - start),
                self.seed,
                bool(self.antithetic[start]),
            )

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write to a file that ``from_parquet`` reads."""
        from .parquet import write_parquet

        write_parquet(self, path)

    @staticmethod
    def from_parquet(path: str | os.PathLike[str]) -> ErrorTable:
        """Read what ``to_parquet`` wrote."""
        from .parquet import read_parquet

        return read_parquet(path)

    def check_matches(
        self,
        classes: NDArray,
        prompts: tuple[str, ...],
        settings: Mapping[str, Any],
        weights: Tensor | None = None,
    ) -> None:
        """Raise a ValueError unless the errors are of these classes, prompts and weights.

        Weights may differ only if nothing was dropped by them. ``settings``: the network, picture
        size and loss that made the errors, if the table knows them.
        """
        if self.prompts != prompts or not np.array_equal(self.classes, classes):
            raise InputValueError(
                f"this ErrorTable holds prompts {self.prompts[:3]}..., but this classifier was "
                f"fitted with {prompts[:3]}...; record errors with this classifier."
            )
        if self.made_by is not None:
            check_made_by("the table was", self.made_by, settings)
        if weights is None or torch.equal(weights, self.scoring.weights) or self.is_full:
            return
        raise InputValueError(
            "this ErrorTable was raced under other weights than this classifier's, and pruned by "
            "them; replay the full table with weighting=clf.weighting_, or ask the table itself: "
            "table.log_posterior()."
        )

    def __len__(self) -> int:
        return len(self.errors)

    def __getitem__(self, index: Any) -> ErrorTable:
        rows = np.atleast_1d(np.arange(len(self))[index])
        return replace(self, errors=self.errors[rows], active=self.active[rows])

    def __repr__(self) -> str:
        n, p, j = self.errors.shape
        return (
            f"ErrorTable(n_images={n}, n_prompts={p}, n_classes={len(self.classes)}, "
            f"n_draws={j}, n_evaluations={int(self.n_evaluations.sum())})"
        )


class _RecordedErrors:
    """A table as error source of a race."""

    rows_wanted = _ROWS_PER_STEP

    def __init__(self, table: ErrorTable) -> None:
        self._errors = torch.as_tensor(table.errors)
        self.n_prompts = len(table.prompts)

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        return [self._look_up(request) for request in requests]

    def _look_up(self, request: Request) -> Tensor:
        first = request.rounds[0].noise_keys[0]
        errors = self._errors[request.image, request.prompts, first : first + request.n_draws]
        missing = errors.isnan().nonzero()
        if len(missing):
            row, draw = missing[0].tolist()
            raise InputValueError(
                f"the error of image {request.image}, prompt {int(request.prompts[row])}, draw "
                f"{first + draw} was not recorded: that prompt had been dropped; record the "
                "table with errors(X, full=True)."
            )
        return errors

    def release(self, image: int) -> None:
        """Nothing is held for an image."""


def _resolve(kind: str, value: Any, base: type) -> Any:
    """A strategy by name, or one that may have learned, as it is."""
    return value if isinstance(value, base) else resolve_strategy(kind, value)


def promised_alpha(pruner: Pruner) -> float:
    """The error probability that a pruner promises, NaN if none."""
    return float(getattr(pruner, "alpha", np.nan))


def table_from_results(results: Iterable[Result], tape: DrawTape, **attributes: Any) -> ErrorTable:
    """Collect the results of a race, in any order, into one table.

    Parameters
    ----------
    results : iterable of Result
        Of images 0 ... N - 1.
    tape : DrawTape
        The draws they took.
    **attributes
        Those of the ErrorTable that results do not tell.

    Returns
    -------
    ErrorTable

    Raises
    ------
    ValueError
        If there are no results.
    """
    found = sorted(results, key=lambda result: result.image)
    if not found:
        raise InputValueError("there are no images to race.")
    most = max(result.errors.shape[1] for result in found)
    first = found[0].errors
    errors = np.full((len(found), len(first), most), np.nan, first.numpy().dtype)
    for row, result in enumerate(found):
        errors[row, :, : result.errors.shape[1]] = result.errors.numpy()
    round_of = tape.round_of[:most].tolist()
    antithetic = [rounds.antithetic for n in round_of if (rounds := tape[n]) is not None]
    return ErrorTable(
        errors=errors,
        active=torch.stack([result.active for result in found]).numpy(),
        timesteps=tape.timesteps[:most].numpy(),
        density=tape.density[:most].numpy(),
        round_of=np.array(round_of),
        antithetic=np.array(antithetic),
        **attributes,
    )
