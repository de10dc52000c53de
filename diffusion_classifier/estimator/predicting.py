"""Prediction: from images to error tables and log posteriors.

The steps are: read X and encode it (``inputs``), limit the sampler's draws to the pruner's budget
(``race.tape``), compute or look up errors (``race.engine``, ``race.recorded``, ``store.memory``),
race the classes (``race.loop``), and turn errors into log posteriors (``scoring.class_losses``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..backends.base import Conditioning
from ..errors import AllSkippedError, InputValueError, NonFiniteOutputError
from ..pruners.base import Pruner
from ..race.batches import BatchSize, BatchSizeOption
from ..race.engine import Engine
from ..race.loop import run_race
from ..race.progress import Progress, Verbosity
from ..race.recorded import RecordedErrors
from ..race.source import ErrorSource, Result
from ..race.tape import DrawTape
from ..records.compare import comparable_errors
from ..records.setup import RecordSetup, promised_alpha
from ..records.table import ErrorTable
from ..samplers.base import Sampler
from ..scoring.likelihood_check import LikelihoodCheck
from ..store.folder import StoreFolder
from ..store.keys import TapeRecord, network_content, prompt_contents
from ..store.memory import Memory
from ..utils.validation import check_option
from .inputs import ON_ERROR, Inputs

Skipped = list[tuple[int, str]]
MOST_FAILURES = 8  # of the network in a row, for images that are skipped


class Race(NamedTuple):
    """A running race; ``results`` yields images as they are decided.

    ``skipped`` fills up while the race runs: images that cannot be read, and why.
    """

    results: Iterator[Result]
    n_images: int
    tape: DrawTape
    skipped: Mapping[int, str]


@dataclass(frozen=True)
class Predictor:
    """Everything needed to race the images of X.

    Attributes
    ----------
    inputs : Inputs
    condition : Conditioning
        One row per prompt.
    setup : RecordSetup
    sampler : Sampler
    pruner : Pruner
    batch_size : "auto" or int
    verbose : "auto", bool or int
    memory : str, path-like or None
        Folder in which errors are kept.
    check_likelihood : bool
        Whether to warn if the network is too inexact for "likelihood" weights.
    """

    inputs: Inputs
    condition: Conditioning
    setup: RecordSetup
    sampler: Sampler
    pruner: Pruner
    batch_size: BatchSizeOption = "auto"
    verbose: Verbosity = "auto"
    memory: str | os.PathLike[str] | None = None
    check_likelihood: bool = False

    def check(self) -> None:
        """Check, before any work, that predictions are possible.

        Raises
        ------
        InputValueError
            If the batch size or the budget of draws is invalid, or errors of this backend cannot
            be kept.
        """
        if self.memory is not None:
            network_content(self.inputs.backend, self.setup.made_by or {})
        BatchSize.of_network(self.batch_size, self.inputs.backend.device, 1)
        self.max_evaluations()

    def tape(self) -> DrawTape:
        """Make the tape of draws, within the pruner's budget."""
        schedule, seed = self.setup.schedule, self.setup.seed
        return DrawTape.of(self.sampler, schedule, seed, self.pruner.max_draws)

    def max_evaluations(self, tape: DrawTape | None = None) -> int:
        """Return the maximum number of evaluations per image."""
        tape = self.tape() if tape is None else tape
        scoring = self.setup.scoring
        return self.pruner.max_evaluations(
            scoring.n_classes,
            round_sizes=map(len, tape),
            n_prompts=scoring.class_of.bincount().tolist(),
        )

    @contextmanager
    def race(
        self, X: Any, table: ErrorTable | None = None, on_error: str = "raise"
    ) -> Iterator[Race]:
        """Start a race over the images in X; errors found in ``table`` are not recomputed.

        With ``on_error="skip"`` images that cannot be read do not race, and those for which the
        network returns NaN leave the race.
        """
        tape, backend = self.tape(), self.inputs.backend
        with (
            self.inputs.open(X, on_error) as (n_images, encode, skipped, key),
            Progress(n_images, self.max_evaluations(tape), self.verbose) as progress,
            self._memory(tape, key) as memory,
        ):
            source: ErrorSource
            source = engine = Engine(
                backend,
                self.condition,
                encode,
                n_images,
                loss=self.setup.loss,
                batch_size=self.batch_size,
                on_evaluations=progress.add_evaluations,
            )
            if memory is not None:
                source = memory.source(engine, progress.add_recorded)
            if table is not None:
                recorded = comparable_errors(
                    table,
                    self.setup,
                    n_images=n_images,
                    tape=tape,
                    class_by_position=backend.class_by_position,
                )
                source = RecordedErrors(recorded, source, progress.add_recorded)

            def start(images: Iterable[int]) -> Iterator[Result]:
                return run_race(source, tape, self.pruner, self.setup.scoring, images)

            if on_error == "skip":
                results = _skipping(start, n_images, engine, memory, skipped)
            else:
                results = start(range(n_images))
            yield Race(progress.count(results), n_images, tape, skipped)

    def _memory(
        self, tape: DrawTape, key_of: Callable[[int], bytes]
    ) -> AbstractContextManager[Memory | None]:
        """Open the errors that were kept in a folder, if there is one."""
        if self.memory is None:
            return nullcontext()
        backend, setup = self.inputs.backend, self.setup
        return Memory(
            StoreFolder(self.memory),
            network_content(backend, setup.made_by or {}),
            prompt_contents(backend, self.condition, setup.prompts),
            TapeRecord.of(tape, setup.seed),
            key_of,
        )

    def table(self, X: Any, table: ErrorTable | None = None, on_error: str = "raise") -> ErrorTable:
        """Race the images in X and return all errors.

        What is raised on the way, also by Ctrl-C, carries the errors of the images that finished
        before: an ErrorTable, or None, as its attribute ``partial``.
        """
        setup = replace(self.setup, alpha=promised_alpha(self.pruner))
        finished: dict[int, Result] = {}
        race: Race | None = None
        try:
            with self.race(X, table, on_error) as race:
                for result in race.results:
                    finished[result.image] = result
                if len(race.skipped) == race.n_images:
                    raise AllSkippedError(
                        f"no image can be read; the first: {race.skipped[0]}",
                        sorted(race.skipped.items()),
                    )
                skipped = race.skipped.items()
                return ErrorTable.from_results(finished.values(), race.tape, setup, skipped)
        except BaseException as error:
            partial = _finished_part(finished, race, setup, table)
            error.partial = partial  # type: ignore[attr-defined]
            raise

    def log_posterior(self, X: Any, on_error: str = "raise") -> tuple[NDArray[np.float64], Skipped]:
        """Compute log posteriors of images or of an ErrorTable.

        Returns
        -------
        ndarray of shape (N, K)
            NaN for skipped images.
        list of (int, str)
            Skipped images, and the reasons.
        """
        scoring = self.setup.scoring
        check_option("on_error", on_error, ON_ERROR)
        if isinstance(X, ErrorTable):
            X.check_answers(self.setup)
            if X.skipped and on_error == "raise":
                image, reason = X.skipped[0]
                raise InputValueError(
                    f"the table has no errors of {len(X.skipped)} images, first of image {image} "
                    f'({reason}) Pass on_error="skip" for NaN in their place.'
                )
            if self.check_likelihood:
                self._likelihood_check().add_all(X.rows()).warn()
            return X.log_posterior(scoring).numpy(), list(X.skipped)
        check = self._likelihood_check() if self.check_likelihood else None
        with self.race(X, on_error=on_error) as (results, n_images, tape, skipped):
            log_posterior = np.full((n_images, scoring.n_classes), np.nan)
            for result in results:
                row = result.errors, tape.timesteps, tape.density, result.active
                log_posterior[result.image] = scoring.log_posterior_of(*row).numpy()
                if check is not None:
                    check.add(*row)
        if check is not None:
            check.warn()
        return log_posterior, sorted(skipped.items())

    def _likelihood_check(self) -> LikelihoodCheck:
        return LikelihoodCheck(self.setup.schedule, self.setup.scoring)


def _finished_part(
    finished: Mapping[int, Result],
    race: Race | None,
    setup: RecordSetup,
    earlier: ErrorTable | None,
) -> ErrorTable | None:
    """Make the table of a race that did not end; None if no image finished.

    Images of an earlier table of the same race count as finished.
    """
    if race is None:
        return None
    results = dict(finished)
    is_same = earlier is not None and earlier.setup.difference(setup) is None
    if earlier is not None and is_same and len(earlier.timesteps) <= race.tape.n_draws:
        results = {result.image: result for result in earlier.results()} | results
    results = {image: result for image, result in results.items() if image not in race.skipped}
    if not results:
        return None
    skipped = [item for item in race.skipped.items() if item[0] < max(results)]
    return ErrorTable.from_results(results.values(), race.tape, setup, skipped)


def _skipping(
    start: Callable[[Iterable[int]], Iterator[Result]],
    n_images: int,
    engine: Engine,
    memory: Memory | None,
    skipped: dict[int, str],
) -> Iterator[Result]:
    """Race all images but those that cannot be read or make the network return NaN.

    When the network fails for an image, those beside it in the race begin again. If it fails for
    many in a row, the network is at fault, and its error is raised.
    """
    left = set(range(n_images))
    n_failures = 0  # since the last result
    while True:
        try:
            for result in start(_readable(sorted(left - skipped.keys()), engine, memory, skipped)):
                left.remove(result.image)
                n_failures = 0
                yield result
            return
        except NonFiniteOutputError as error:
            n_failures += 1
            if error.image is None or n_failures > MOST_FAILURES:
                raise
            skipped[error.image] = str(error)
            _release(error.image, engine, memory)


def _readable(
    images: Iterable[int], engine: Engine, memory: Memory | None, skipped: Mapping[int, str]
) -> Iterator[int]:
    """Yield the images that can be read, when it is their turn to race."""
    for image in images:
        # An image of which there are errors has been encoded before.
        is_known = memory is not None and bool(memory.known(image).numel())
        if not is_known:
            engine.latent(image)  # reads it, and those that follow
        if image not in skipped:
            yield image
        else:
            _release(image, engine, memory)


def _release(image: int, engine: Engine, memory: Memory | None) -> None:
    engine.release(image)
    if memory is not None:
        memory.release(image)
