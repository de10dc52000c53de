r"""ErrorTable: the errors behind predictions, which can be raced again without the network.

    errors[i, p, j] = loss(eps_j - eps_hat(alpha x_i + sigma eps_j, t_j, prompt p))

NaN marks errors that were never evaluated because the prompt had been dropped. An error does not
depend on which other prompts were evaluated. A *full* table (``clf.errors(X, full=True)``: every
prompt on every draw) therefore gives the answers of any pruner and weighting on the same draws.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InputValueError
from ..noise.draws import Draws
from ..noise.prediction import PredictionTypeName
from ..noise.schedule import NoiseSchedule
from ..pruners import NoPruning, Pruner, PrunerName
from ..race.loop import run_race
from ..race.recorded import RecordedErrors
from ..race.source import Result
from ..race.tape import DrawTape
from ..scoring.class_losses import Scoring, check_loss, read_log_prior
from ..scoring.weighting import Weighting, WeightingName
from ..strategies import resolve_strategy
from ..utils.validation import check_positive_integer
from .certificate import certify
from .parquet import PER_DRAW, read_parquet, write_parquet
from .setup import RecordSetup, promised_alpha


@dataclass(frozen=True, eq=False)
class ErrorTable:
    """Noise-prediction errors of N images, P prompts and J draws.

    Returned by ``DiffusionClassifier.errors``. Indexing with an integer, slice, array of integers
    or boolean mask selects images, and always returns an ErrorTable.

    Attributes
    ----------
    errors : ndarray of shape (N, P, J), dtype float32
        Loss of the noise residual, summed over dimensions (in nats for ``loss="vlb"``); NaN where
        not evaluated.
    active : ndarray of shape (N, P), dtype bool
        Prompts still in the race at its end.
    timesteps : ndarray of shape (J,), dtype int
        Timestep of each draw.
    density : ndarray of shape (J,)
        Proposal density of each draw, relative to uniform.
    round_of : ndarray of shape (J,), dtype int
        Round of each draw (the draws taken between two decisions of the pruner). Rounds are
        independent.
    antithetic : ndarray of shape (J,), dtype bool
        Whether a draw belongs to an antithetic pair: two adjacent draws with the same timestep
        and the same noise, once with each sign.
    setup : RecordSetup
        Settings common to all images. Its fields ``scoring``, ``schedule``, ``prediction_type``,
        ``loss``, ``classes``, ``prompts``, ``seed``, ``alpha`` and ``made_by`` are also attributes
        of the table.

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
    setup: RecordSetup

    @classmethod
    def from_results(
        cls, results: Iterable[Result], tape: DrawTape, setup: RecordSetup
    ) -> ErrorTable:
        """Collect the results of a race.

        Parameters
        ----------
        results : iterable of Result
            Results of images 0 ... N - 1, in any order.
        tape : DrawTape
            The draws of the race.
        setup : RecordSetup

        Returns
        -------
        ErrorTable

        Raises
        ------
        InputValueError
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
        return cls(
            errors=errors,
            active=torch.stack([result.active for result in found]).numpy(),
            timesteps=tape.timesteps[:most].numpy(),
            density=tape.density[:most].numpy(),
            round_of=np.array(round_of),
            antithetic=np.array(antithetic),
            setup=setup,
        )

    # ------------------------------------------------------------------ shared settings

    @property
    def scoring(self) -> Scoring:
        """Weights, priors and prompt classes that the race used."""
        return self.setup.scoring

    @property
    def schedule(self) -> NoiseSchedule:
        """The network's noise schedule."""
        return self.setup.schedule

    @property
    def prediction_type(self) -> PredictionTypeName:
        """What the network predicts: "epsilon", "v_prediction", "sample" or "flow"."""
        return self.setup.prediction_type

    @property
    def loss(self) -> str:
        """Loss of the noise residual: "l2", "l1", "huber" or "vlb"."""
        return self.setup.loss

    @property
    def classes(self) -> NDArray[Any]:
        """Class labels, of shape (K,)."""
        return self.setup.classes

    @property
    def prompts(self) -> tuple[str, ...]:
        """The P prompts, in the order of axis 1 of ``errors``."""
        return self.setup.prompts

    @property
    def class_of(self) -> NDArray[np.int64]:
        """Index into ``classes`` of each prompt's class, of shape (P,)."""
        return self.scoring.class_of.numpy()

    @property
    def seed(self) -> int:
        """Key of the draws: tables with the same seed and sampler share their noise."""
        return self.setup.seed

    @property
    def alpha(self) -> float:
        """Bound, promised by the pruner, on the probability of dropping the best class, or NaN."""
        return self.setup.alpha

    @property
    def made_by(self) -> dict[str, Any] | None:
        """Identity of the network, image format and loss; None if unknown."""
        return self.setup.made_by

    # ------------------------------------------------------------------ cost

    @property
    def n_draws(self) -> NDArray[np.int64]:
        """Number of draws that each prompt was evaluated on, of shape (N, P)."""
        return (~np.isnan(self.errors)).sum(2)

    @property
    def n_evaluations(self) -> NDArray[np.int64]:
        """Number of evaluations of each image, of shape (N,)."""
        return self.n_draws.sum(1)

    @property
    def is_full(self) -> bool:
        """Whether every prompt was evaluated on every draw."""
        return not np.isnan(self.errors).any()

    # ------------------------------------------------------------------ answers

    @property
    def certificate(self) -> np.recarray:
        """How each image's race ended; see :mod:`diffusion_classifier.records.certificate`.

        Returns
        -------
        recarray of shape (N,)
            ``resolved``: whether a single class was left at the end; ``alpha``: see
            :class:`RecordSetup`; ``winner``, ``runner_up``: labels; ``margin``,
            ``standard_error``: the difference of their losses, and its standard error over
            rounds; ``n_draws``: the number of draws taken.
        """
        return certify(self.rows(), self.round_of, self.setup)

    def class_losses(self, scoring: Scoring | None = None) -> Tensor:
        """Class losses [N, K] in float64, by default with the scoring of the race."""
        scoring = self.scoring if scoring is None else scoring
        return torch.stack([scoring.class_losses_of(*row) for row in self.rows()])

    def log_posterior(self, scoring: Scoring | None = None) -> Tensor:
        """Log posterior [N, K] of the classes, by default with the scoring of the race."""
        scoring = self.scoring if scoring is None else scoring
        return torch.stack([scoring.log_posterior_of(*row) for row in self.rows()])

    def rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield errors [P, J], timesteps [J], density [J] and active [P] of each image."""
        timesteps, density = torch.as_tensor(self.timesteps), torch.as_tensor(self.density)
        for errors, active in zip(self.errors, self.active, strict=True):
            yield torch.as_tensor(errors), timesteps, density, torch.as_tensor(active)

    def check_answers(self, asked: RecordSetup) -> None:
        """Raise unless a classifier can predict from this table.

        Parameters
        ----------
        asked : RecordSetup
            The classifier's setup.

        Raises
        ------
        InputValueError
            If classes, prompts, the network, the image format or the loss differ, or the table
            was pruned under other weights.
        """
        self.setup.check_answers(asked, under_its_weights=not self.is_full)

    # ------------------------------------------------------------------ racing again

    def replay(
        self,
        pruner: PrunerName | Pruner | None = None,
        weighting: WeightingName | Weighting | None = None,
        *,
        priors: ArrayLike | None = None,
    ) -> ErrorTable:
        """Race the recorded errors again with other strategies, without the network.

        Parameters
        ----------
        pruner : str or Pruner, optional
            None keeps every prompt to the end. A fitted pruner is used unchanged, so replay it
            only under the weights and round size that it was fitted on. Its ``max_draws`` is
            capped by the number of recorded draws.
        weighting : str or Weighting, optional
            By default the weights of the recorded race.
        priors : array-like of shape (K,), optional
            By default the priors of the recorded race.

        Returns
        -------
        ErrorTable
            The table that ``clf.errors(X)`` would return with these strategies and draws.

        Raises
        ------
        InputValueError
            If the race needs an error that was not recorded; record with ``full=True``.
        """
        scoring = self.scoring
        if weighting is not None:
            chosen = _chosen("weighting", weighting, Weighting)
            check_loss(chosen, self.loss)
            weights = chosen.weights(self.schedule, self.prediction_type)
            scoring = replace(scoring, weights=weights)
        if priors is not None:
            scoring = replace(scoring, log_prior=read_log_prior(priors, len(self.classes)))
        if pruner is None:
            return self.race(NoPruning(len(self.timesteps)), scoring)
        return self.race(_chosen("pruner", pruner, Pruner), scoring)

    def race(self, pruner: Pruner, scoring: Scoring) -> ErrorTable:
        """Race the recorded errors again under a given scoring; see ``replay``."""
        budget = check_positive_integer("max_draws", pruner.max_draws)
        tape = DrawTape(self._rounds(), budget)
        source = RecordedErrors(torch.as_tensor(self.errors))
        results = run_race(source, tape, pruner, scoring, range(len(self)))
        setup = replace(self.setup, scoring=scoring, alpha=promised_alpha(pruner))
        return ErrorTable.from_results(results, tape, setup)

    def _rounds(self) -> Iterator[Draws]:
        """Yield the recorded rounds; their noise keys are placeholders, as no noise is needed."""
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

    # ------------------------------------------------------------------ files and indexing

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a file; see :mod:`diffusion_classifier.records.parquet`.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        """
        per_draw = {name: getattr(self, name) for name in PER_DRAW}
        write_parquet(path, self.errors, self.active, per_draw, self.setup)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> ErrorTable:
        """Read a table that ``to_parquet`` wrote.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        ErrorTable

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        InputValueError
            If the file is not an error table.
        """
        return cls(**read_parquet(path))

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def shape(self) -> tuple[int]:
        """Shape ``(n_images,)``; lets scikit-learn index with a whole array at once."""
        return (len(self),)

    def __getitem__(self, index: Any) -> ErrorTable:
        rows = np.atleast_1d(np.arange(len(self))[index])
        return replace(self, errors=self.errors[rows], active=self.active[rows])

    def __repr__(self) -> str:
        n, p, j = self.errors.shape
        return (
            f"ErrorTable(n_images={n}, n_prompts={p}, n_classes={len(self.classes)}, "
            f"n_draws={j}, n_evaluations={int(self.n_evaluations.sum())})"
        )


def _chosen(kind: str, value: Any, base: type) -> Any:
    """Return a strategy instance as it is (with what it learned), or make it from its name."""
    return value if isinstance(value, base) else resolve_strategy(kind, value)
