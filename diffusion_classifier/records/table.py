r"""ErrorTable: the errors behind predictions, which can be raced again without the network.

    errors[i, p, j] = loss(eps_j - eps_hat(alpha x_i + sigma eps_j, t_j, prompt p))

NaN marks errors that were never evaluated because the prompt had been dropped. An error does not
depend on which other prompts were evaluated. A *full* table (``clf.errors(X, full=True)``: every
prompt on every draw) therefore gives the answers of any pruner and weighting on the same draws.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..errors import InputTypeError, InputValueError
from ..noise.draws import Draws
from ..pruners import NoPruning, Pruner, PrunerName
from ..race.loop import run_race
from ..race.recorded import RecordedErrors
from ..race.source import Result, Start
from ..race.tape import DrawTape
from ..scoring.calibration import NaturalCalibrator
from ..scoring.candidates import Candidates
from ..scoring.class_losses import Scoring, check_loss, read_log_prior
from ..scoring.learned_part import learned_part
from ..scoring.weighting import Weighting, WeightingName
from ..strategies import resolve_strategy
from ..utils.validation import check_positive_integer
from .answers import Answers
from .assemble import collect, join
from .checks import check_table
from .header import PER_DRAW, Header
from .parquet import read_parquet, write_parquet
from .setup import RecordSetup, promised_alpha


@dataclass(frozen=True, eq=False)
class ErrorTable(Answers):
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
    skipped : tuple of (int, str), default=()
        Images without errors, and the reason of each. Their answers are NaN.
    candidates : Candidates or None, default=None
        The classes that each image may have, and what a shortlist said of all classes; None if
        all classes raced. Errors of other classes may be missing.

    Raises
    ------
    InputTypeError, InputValueError
        If the fields do not make a table: shapes or dtypes that do not fit, timesteps out of
        range, densities that are not positive, infinite errors, or NaN before a prompt's last
        draw.

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
    skipped: tuple[tuple[int, str], ...] = ()
    candidates: Candidates | None = None

    def __post_init__(self) -> None:
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        check_table(arrays, *map(arrays.pop, ("setup", "skipped", "candidates")))

    @classmethod
    def from_results(
        cls,
        results: Iterable[Result],
        tape: DrawTape,
        setup: RecordSetup,
        skipped: Iterable[tuple[int, str]] = (),
        candidates: Candidates | None = None,
    ) -> ErrorTable:
        """Collect the results of a race.

        Parameters
        ----------
        results : iterable of Result
            In any order.
        tape : DrawTape
            The draws of the race.
        setup : RecordSetup
        skipped : iterable of (int, str), optional
            Images without a result, and the reason of each.
        candidates : Candidates, optional
            Of these images, and possibly of more.

        Returns
        -------
        ErrorTable
            Of all images up to the last that has a result or was skipped. An image before it that
            has neither counts as skipped.

        Raises
        ------
        InputValueError
            If there are no results.
        """
        made = collect(results, tape, skipped)
        among = None if candidates is None else candidates[: len(made["errors"])]
        return cls(setup=setup, candidates=among, **made)

    @classmethod
    def concatenate(cls, tables: Iterable[ErrorTable]) -> ErrorTable:
        """Join tables of other images, such as those of several runs or machines.

        Parameters
        ----------
        tables : iterable of ErrorTable
            With the same setup, and with the same draws as far as each goes.

        Returns
        -------
        ErrorTable
            The images of the first table, then those of the second, and so on.

        Raises
        ------
        InputTypeError
            If an item is no ErrorTable.
        InputValueError
            If there is none, or one differs; the message names the first difference.

        Examples
        --------
        >>> from diffusion_classifier import DiffusionClassifier, ErrorTable
        >>> from diffusion_classifier.backends import GaussianBackend
        >>> backend = GaussianBackend([[-1.0], [1.0]], [[[1.0]], [[1.0]]])
        >>> clf = DiffusionClassifier(backend, random_state=0).fit([[-1.0], [1.0]], [0, 1])
        >>> parts = [clf.errors([[-2.0]]), clf.errors([[3.0], [0.5]])]
        >>> len(ErrorTable.concatenate(parts))
        3
        """
        parts = list(tables)
        for number, part in enumerate(parts):
            if not isinstance(part, ErrorTable):
                raise InputTypeError(
                    f"tables[{number}] is of type {type(part).__name__}; give ErrorTables."
                )
        if not parts:
            raise InputValueError("there are no tables to concatenate; give at least one.")
        return cls(setup=parts[0].setup, **join(parts))

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

    def results(self) -> Iterator[Result]:
        """Yield the results of all images but those skipped."""
        skipped = dict(self.skipped)
        for image, (errors, _, _, active) in enumerate(self.rows()):
            if image not in skipped:
                yield Result(image, errors, active)

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
            By default the weights of the recorded race. A natural temperature is that of the new
            weights; any other stays as it is.
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
            if scoring.unit != "given":  # a natural temperature follows the weights
                unit = NaturalCalibrator().prepare(chosen, weights, self.schedule, self.loss)
                learned = learned_part(self.scoring, self.schedule, self.loss)
                level = unit.log_temperature_[0] + learned
                scoring = replace(scoring.calibrated(unit), log_temperature=(level, 0.0))
        if priors is not None:
            scoring = replace(scoring, log_prior=read_log_prior(priors, len(self.classes)))
        if pruner is None:
            return self.race(NoPruning(len(self.timesteps)), scoring)
        return self.race(_chosen("pruner", pruner, Pruner), scoring)

    def race(self, pruner: Pruner, scoring: Scoring) -> ErrorTable:
        """Race the recorded errors again under a given scoring; see ``replay``."""
        budget = check_positive_integer("max_draws", pruner.max_draws)
        tape = DrawTape(self._rounds(), budget)
        tape[0]  # taken even if no image needs it
        source = RecordedErrors(torch.as_tensor(self.errors))
        raced = np.setdiff1d(np.arange(len(self)), [image for image, _ in self.skipped])
        start = Start.among(self.candidates, scoring)
        results = run_race(source, tape, pruner, scoring, raced.tolist(), start)
        setup = replace(self.setup, scoring=scoring, alpha=promised_alpha(pruner))
        return ErrorTable.from_results(results, tape, setup, self.skipped, self.candidates)

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
            An existing file is replaced once the new one is complete.

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        InputFileError
            If the file cannot be written.
        """
        per_draw = {name: getattr(self, name) for name in PER_DRAW}
        used = () if self.candidates is None else self.candidates.use
        header = Header(self.setup, per_draw, len(self), self.skipped, *used)
        write_parquet(path, self.errors, self.active, header, self.candidates)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> ErrorTable:
        """Read a table that ``to_parquet`` wrote.

        Rows may be in any order, because each states its image and prompt.

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
        InputFileError
            If there is no such file.
        DamagedFileError
            If it is not an error table, rows are missing, repeated or unknown, or values are
            impossible; the message names the row.
        """
        return read_parquet(path, cls)

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def shape(self) -> tuple[int]:
        """Shape ``(n_images,)``; lets scikit-learn index with a whole array at once."""
        return (len(self),)

    def __getitem__(self, index: Any) -> ErrorTable:
        rows = np.atleast_1d(np.arange(len(self))[index])
        reasons = dict(self.skipped)
        skipped = tuple((i, reasons[r]) for i, r in enumerate(rows.tolist()) if r in reasons)
        errors, active = self.errors[rows], self.active[rows]
        candidates = None if self.candidates is None else self.candidates[rows]
        return replace(self, errors=errors, active=active, skipped=skipped, candidates=candidates)

    def __repr__(self) -> str:
        n, p, j = self.errors.shape
        return (
            f"ErrorTable(n_images={n}, n_prompts={p}, n_classes={len(self.classes)}, "
            f"n_draws={j}, n_evaluations={int(self.n_evaluations.sum())})"
        )


def _chosen(kind: str, value: Any, base: type) -> Any:
    """Return a strategy instance as it is (with what it learned), or make it from its name."""
    return value if isinstance(value, base) else resolve_strategy(kind, value)
