"""Prediction: from images to error tables and log posteriors.

The steps are: read X and encode it (``inputs``), find the classes that each image may have
(``shortlist``, ``estimator.classes``), limit the sampler's draws to the pruner's budget
(``race.tape``), compute or look up errors (``race.engine``, ``race.recorded``, ``store.memory``),
race the classes (``race.loop``), and turn errors into log posteriors (``scoring.class_losses``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backends.base import Conditioning
from ..callbacks import Callback, RaceStart, watched
from ..errors import AllSkippedError, InputValueError
from ..noise.process import process_of
from ..pruners.base import Pruner
from ..race.batches import BatchSize, BatchSizeOption
from ..race.devices import engine_on
from ..race.loop import run_race
from ..race.progress import Progress, Verbosity
from ..race.recorded import RecordedErrors
from ..race.skipping import skipping
from ..race.source import ErrorSource, Result, Start
from ..race.tape import DrawTape
from ..records.compare import comparable_errors
from ..records.partial import finished_part
from ..records.setup import RecordSetup, promised_alpha
from ..records.table import ErrorTable
from ..samplers.base import Sampler
from ..scoring.candidates import Candidates
from ..scoring.likelihood_check import LikelihoodCheck
from ..shortlist.base import Asked, BaseShortlist, Proposal
from ..store.folder import StoreFolder
from ..store.keys import TapeRecord, network_content, prompt_contents
from ..store.memory import Memory
from ..utils.display import short_repr
from ..utils.validation import check_option
from .classes.candidates import GivenCandidates, answered_among, read_candidates
from .classes.prompts import make_prompts
from .classes.question import Question
from .inputs import ON_ERROR, Inputs
from .states import posterior_of, row_of, state_of

Skipped = list[tuple[int, str]]


class Race(NamedTuple):
    """A running race; ``results`` yields images as they are decided.

    ``skipped`` fills up while the race runs: images that cannot be read, and why.
    """

    results: Iterator[Result]
    n_images: int
    tape: DrawTape
    skipped: Mapping[int, str]
    candidates: Candidates | None


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
    shortlist : BaseShortlist or None
        Proposes the classes that each image races.
    everyone : bool
        Whether all classes race, whatever the candidates.
    callbacks : sequence of Callback
        They are told of every image that races.
    devices : sequence of torch.device
        Devices that share the work, if there are several.
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
    shortlist: BaseShortlist | None = None
    everyone: bool = False
    callbacks: Sequence[Callback] = ()
    devices: Sequence[torch.device] = ()
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

    def max_evaluations(
        self, tape: DrawTape | None = None, candidates: Candidates | None = None
    ) -> int:
        """Return the maximum number of evaluations per image, proposals included."""
        tape = self.tape() if tape is None else tape
        scoring, proposals = self.setup.scoring, 0
        n_classes = scoring.n_classes
        if candidates is not None and not self.everyone:
            n_classes = int(candidates.mask.sum(1).max(initial=1))
        elif self.shortlist is not None and not self.everyone:
            proposals = self.shortlist.max_evaluations(ModelOf(self))
            n_classes = self.shortlist.max_candidates(n_classes)
        return proposals + self.pruner.max_evaluations(
            n_classes,
            round_sizes=map(len, tape),
            n_prompts=scoring.class_of.bincount().tolist(),
        )

    def propose(self, X: Any, on_error: str = "raise") -> tuple[NDArray[np.bool_], Skipped]:
        """Return the candidates [N, K] of all images, and the images that cannot be read."""
        if self.shortlist is None:
            with self.inputs.open(X, on_error) as (n_images, *_):
                return np.ones((n_images, len(self.setup.classes)), bool), []
        candidates, skipped = self.shortlist.candidates(X, ModelOf(self), on_error)
        mask = candidates.mask.copy()
        mask[list(skipped)] = False
        return mask, sorted(skipped.items())

    @contextmanager
    def race(
        self,
        X: Any,
        table: ErrorTable | None = None,
        on_error: str = "raise",
        candidates: GivenCandidates = None,
    ) -> Iterator[Race]:
        """Start a race over the images in X; errors found in ``table`` are not recomputed.

        Each image races the classes in ``candidates``, else those on the shortlist, else all.

        With ``on_error="skip"`` images that cannot be read do not race, and those for which the
        network returns NaN leave the race.
        """
        tape, backend, scoring = self.tape(), self.inputs.backend, self.setup.scoring
        among, unproposed = None, dict[int, str]()
        if candidates is None and self.shortlist is not None:
            among, unproposed = self.shortlist.candidates(X, ModelOf(self), on_error)
        with ExitStack() as stack:
            n_images, encode, skipped, key = stack.enter_context(self.inputs.open(X, on_error))
            skipped.update({i: unproposed[i] for i in unproposed.keys() - skipped.keys()})
            if candidates is not None:
                among = read_candidates(candidates, self.setup.classes, n_images)
            # Makes all rounds of the tape, of which most races need few: only if somebody asks.
            most = cache(partial(self.max_evaluations, tape, among))
            progress = stack.enter_context(Progress(n_images, most, self.verbose))
            begun = RaceStart(n_images, self.setup.classes, most() if self.callbacks else 0)
            watch = stack.enter_context(watched(self.callbacks, begun, skipped))
            memory = stack.enter_context(self._memory(tape, key))
            source: ErrorSource
            source = engine = stack.enter_context(
                engine_on(
                    self.devices,
                    backend,
                    self.condition,
                    encode,
                    n_images,
                    loss=self.setup.loss,
                    batch_size=self.batch_size,
                    on_evaluations=progress.add_evaluations,
                )
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

            on_look = watch.on_look(lambda result: state_of(scoring, result, tape, among))

            def start(images: Iterable[int]) -> Iterator[Result]:
                begin = None if self.everyone else Start.among(among, scoring)
                race = run_race(source, tape, self.pruner, scoring, images, begin, on_look)
                stack.callback(race.close)  # while the memory is open: it keeps steps under way
                return race

            if on_error == "skip":
                results = skipping(start, n_images, engine, memory, skipped)
            else:
                results = start(range(n_images))
            results = watch.each(
                progress.count(results), lambda result: self._answer(result, tape, among)
            )
            yield Race(results, n_images, tape, skipped, among)

    def _answer(self, result: Result, tape: DrawTape, among: Candidates | None) -> Tensor:
        """Return the log posterior [K] of one image."""
        return posterior_of(self.setup.scoring, result, tape, among)

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

    def table(
        self,
        X: Any,
        table: ErrorTable | None = None,
        on_error: str = "raise",
        candidates: GivenCandidates = None,
    ) -> ErrorTable:
        """Race the images in X and return all errors.

        What is raised on the way, also by Ctrl-C, carries the errors of the images that finished
        before: an ErrorTable, or None, as its attribute ``partial``.
        """
        setup = replace(self.setup, alpha=promised_alpha(self.pruner))
        finished: dict[int, Result] = {}
        race: Race | None = None
        try:
            with self.race(X, table, on_error, candidates) as race:
                for result in race.results:
                    finished[result.image] = result
                if len(race.skipped) == race.n_images:
                    raise AllSkippedError(
                        f"no image can be read; the first: {race.skipped[0]}",
                        sorted(race.skipped.items()),
                    )
                skipped = race.skipped.items()
                return ErrorTable.from_results(
                    finished.values(), race.tape, setup, skipped, race.candidates
                )
        except BaseException as error:
            # None before the race began
            error.partial = race and finished_part(  # type: ignore[attr-defined]
                finished, race.tape, setup, race.skipped, race.candidates, table
            )
            raise

    def log_posterior(
        self, X: Any, on_error: str = "raise", candidates: GivenCandidates = None
    ) -> tuple[NDArray[np.float64], Skipped]:
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
            if candidates is not None:
                given = read_candidates(candidates, self.setup.classes, len(X))
                X = answered_among(X, given)
            if (check := self._likelihood_check()) is not None:
                check.add_all(X.rows()).warn()
            return X.log_posterior(scoring).numpy(), list(X.skipped)
        check = self._likelihood_check()
        with self.race(X, None, on_error, candidates) as (results, n_images, tape, skipped, among):
            log_posterior = np.full((n_images, scoring.n_classes), np.nan)
            for result in results:
                log_posterior[result.image] = self._answer(result, tape, among).numpy()
                if check is not None:
                    check.add(*row_of(result, tape))
        if check is not None:
            check.warn()
        return log_posterior, sorted(skipped.items())

    def _likelihood_check(self) -> LikelihoodCheck | None:
        """Return a check of "likelihood" weights; None if none is asked for, or of no noise."""
        if not (self.check_likelihood and process_of(self.setup.prediction_type).predicts_noise):
            return None
        return LikelihoodCheck(self.setup.schedule, self.setup.scoring)


@dataclass(frozen=True)
class ModelOf:
    """What a shortlist may use of a predictor; see :class:`~.shortlist.base.Model`."""

    predictor: Predictor

    @property
    def classes(self) -> NDArray[Any]:
        return self.predictor.setup.classes

    @property
    def log_prior(self) -> Tensor:
        return self.predictor.setup.scoring.log_prior

    def prompts_of(self, labels: Sequence[Any], prompts: Any, template: str) -> list[list[str]]:
        return make_prompts(labels, prompts, template)

    def ask(self, labels: Sequence[Any], prompts: Any) -> Asked:
        backend = self.predictor.inputs.backend
        if not backend.text_conditional:
            raise InputValueError(
                f"{short_repr(backend)} reads no text, so it cannot race the prompts of factors or "
                "nodes; use Shortlist or ClipShortlist."
            )
        question = Question.of(np.unique(np.asarray(labels)), prompts, backend)
        return Asked(list(question.rows), question.class_of, question.condition)

    def race_groups(self, asked: Asked, log_prior: Tensor, X: Any, on_error: str) -> Proposal:
        found = self._of(asked, log_prior).log_posterior(X, on_error)
        return Proposal(*found)

    def survey(self, X: Any, on_error: str, *, read: bool) -> tuple[int, dict[int, str]]:
        return self.predictor.inputs.survey(X, on_error, read=read)

    def cost_of(self, asked: Asked) -> int:
        return self._of(asked, torch.zeros(int(asked.class_of.max()) + 1)).max_evaluations()

    def _of(self, asked: Asked, log_prior: Tensor) -> Predictor:
        """Return the same predictor with other classes and without a shortlist."""
        setup = self.predictor.setup
        scoring = replace(setup.scoring, log_prior=log_prior, class_of=asked.class_of)
        setup = replace(
            setup,
            scoring=scoring,
            classes=np.arange(len(log_prior)),
            prompts=tuple(asked.prompts),
        )
        return replace(
            self.predictor,
            setup=setup,
            condition=asked.condition,
            shortlist=None,
            everyone=False,
            callbacks=(),
        )
