"""The race over recorded errors: plain loops per image must say the same."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from sklearn.base import clone

from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, Pruner, RacingPruner, StagedPruner
from diffusion_classifier.race import DrawTape, Start, run_race
from diffusion_classifier.race.source import ErrorSource
from diffusion_classifier.samplers import EvenSampler, FixedDraws, StratifiedSampler
from diffusion_classifier.scoring import Scoring

SCHEDULE = NoiseSchedule.flow(100)
N, P, J = 7, 6, 40
ERRORS = torch.rand(N, P, J, generator=torch.Generator().manual_seed(0)) + 0.1 * torch.arange(
    P
).view(1, P, 1)


class Recorded(ErrorSource):
    """Errors from a table, by position of the draw; notes what it was asked."""

    n_prompts = P
    rows_wanted, batch_rows, few_rows = 1, 1, 0

    def __init__(self, rows_wanted, tape):
        self.rows_wanted = rows_wanted
        self.tape = tape
        self.n_rows = []
        self.released = []

    def evaluate(self, requests):
        self.n_rows.append(sum(request.n_rows for request in requests))
        return [self._errors(request) for request in requests]

    def _errors(self, request):
        starts = {}
        for number in range(len(self.tape.round_of.unique())):
            starts[self.tape[number]] = int((self.tape.round_of < number).sum())
        draws = [starts[d] + k for d in request.rounds for k in range(len(d))]
        return ERRORS[request.image][request.prompts][:, draws]

    def release(self, image):
        assert image not in self.released
        self.released.append(image)


class HalvingPruner(Pruner):
    """Drops the worse half after every round."""

    def __init__(self, max_draws=J):
        self.max_draws = max_draws

    def select(self, contributions, active, round_of, class_of=None):
        means = contributions.mean(2).masked_fill(~active, torch.inf)
        keep = (active.sum(1) + 1) // 2
        ranks = means.argsort(dim=1, stable=True).argsort(dim=1)
        return active & (ranks < keep[:, None])


def scoring(reduction="best", class_of=range(P)):
    class_of = torch.tensor(class_of)
    n_classes = int(class_of.max()) + 1
    return Scoring(torch.ones(100).double(), torch.zeros(n_classes).double(), class_of, reduction)


def race(pruner, sampler, rows_wanted, scores, images=range(N), start=None):
    tape = DrawTape(sampler.rounds(SCHEDULE, 0), pruner.max_draws)
    source = Recorded(rows_wanted, tape)
    results = {r.image: r for r in run_race(source, tape, pruner, scores, images, start)}
    return results, source


def plain_race(image, pruner, sampler, scores, active=None):
    """One image, one round after the other, asking the pruner after each."""
    active = torch.ones(P, dtype=torch.bool) if active is None else active
    errors = torch.full((P, 0), torch.nan)
    times, round_of = torch.zeros(0, dtype=int), torch.zeros(0, dtype=int)
    for number, draws in enumerate(islice(sampler.rounds(SCHEDULE, 0), J)):
        if errors.shape[1] >= pruner.max_draws:
            break
        stop = min(errors.shape[1] + len(draws), pruner.max_draws)
        block = ERRORS[image][:, errors.shape[1] : stop].clone()
        times = torch.cat([times, draws.timesteps[: block.shape[1]]])
        round_of = torch.cat([round_of, torch.full((block.shape[1],), number)])
        block[~active] = torch.nan
        errors = torch.cat([errors, block], 1)
        contributions = scores.contributions(errors[None], times, torch.ones(len(times)))
        class_of = None if scores.races_classes else scores.class_of
        kept = pruner.select(contributions, scores.contenders(active[None]), round_of, class_of)
        active = scores.prompts(kept)[0]
        if scores.decided(active):
            break
    return errors, active


PRUNERS = [
    NoPruning(J),
    NoPruning(7),
    StagedPruner((8,), (3,), max_draws=20),
    StagedPruner((4, 12), (4, 1), max_draws=30),
    HalvingPruner(),
    RacingPruner(alpha=0.3, max_draws=37),
]
SAMPLERS = [
    StratifiedSampler(4),
    StratifiedSampler(2, antithetic=True),
    EvenSampler((10, 40)),
    FixedDraws(list(range(J)), round_size=3),
]
TEMPERED = replace(scoring("mixture", [0, 0, 1, 1, 2, 2]), log_temperature=(-1.0, 0.3))
SCORINGS = {
    "classes": scoring(),
    "prompts": replace(TEMPERED, log_temperature=(-1.0, 0.0)),
    "temperature of draws": TEMPERED,
    "mean": scoring("mean", [0, 0, 1, 1, 1, 2]),
}


@pytest.mark.parametrize("pruner", PRUNERS, ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("scores", SCORINGS.values(), ids=SCORINGS)
@pytest.mark.parametrize("rows_wanted", [1, 50, 10_000])
def test_racing_side_by_side_equals_racing_alone(pruner, sampler, scores, rows_wanted):
    if isinstance(sampler, StratifiedSampler) and sampler.antithetic and pruner.max_draws % 2:
        pruner = clone(pruner).set_params(max_draws=pruner.max_draws - 1)  # pairs are not split
    results, source = race(pruner, sampler, rows_wanted, scores)
    assert sorted(results) == sorted(source.released) == list(range(N))
    for image in range(N):
        errors, active = plain_race(image, pruner, sampler, scores)
        assert torch.equal(results[image].active, active)
        torch.testing.assert_close(results[image].errors, errors, rtol=0, atol=0, equal_nan=True)


def test_images_can_come_in_any_order_and_company():
    forward, _ = race(HalvingPruner(), StratifiedSampler(4), 60, scoring())
    backward, _ = race(HalvingPruner(), StratifiedSampler(4), 60, scoring(), reversed(range(N)))
    alone, _ = race(HalvingPruner(), StratifiedSampler(4), 60, scoring(), [3])
    for image in range(N):
        assert torch.equal(forward[image].active, backward[image].active)
    assert torch.equal(forward[3].errors.nan_to_num(-1), alone[3].errors.nan_to_num(-1))


def test_steps_are_full_whatever_the_number_of_survivors():
    _, source = race(StagedPruner((4,), (2,), max_draws=40), StratifiedSampler(4), 48, scoring())
    assert sum(source.n_rows) == N * (4 * P + 36 * 2)
    assert source.n_rows[:12] == [48] * 12  # the last image cannot fill its steps alone
    _, source = race(NoPruning(40), StratifiedSampler(4), 96, scoring(), images=[0])
    assert source.n_rows == [96, 96, 48]  # one image fills steps with several rounds


def test_evaluations_are_counted_by_what_was_evaluated():
    results, source = race(HalvingPruner(), StratifiedSampler(4), 50, scoring())
    assert sum(r.n_evaluations for r in results.values()) == sum(source.n_rows)
    assert results[0].n_evaluations == 4 * (6 + 3 + 2)


@pytest.mark.parametrize("pruner", PRUNERS, ids=str)
@pytest.mark.parametrize("scores", SCORINGS.values(), ids=SCORINGS)
@pytest.mark.parametrize("rows_wanted", [1, 50, 10_000])
def test_an_image_may_start_with_few_prompts_and_priors_of_its_own(pruner, scores, rows_wanted):
    generator = torch.Generator().manual_seed(1)
    classes = torch.rand(N, scores.n_classes, generator=generator) < 0.6
    classes[:, 0] |= ~classes.any(1)
    classes[2] = torch.arange(scores.n_classes) == 1  # decided before it begins
    log_priors = torch.randn(N, scores.n_classes, generator=generator).double().log_softmax(1)
    starts = [Start(classes[i][scores.class_of], log_priors[i]) for i in range(N)]
    sampler = StratifiedSampler(4)
    results, source = race(pruner, sampler, rows_wanted, scores, start=starts.__getitem__)
    assert sorted(results) == sorted(source.released) == list(range(N))
    assert results[2].errors.shape == (P, 0)
    assert torch.equal(results[2].active, scores.class_of == 1)
    for image in set(range(N)) - {2}:
        own = replace(scores, log_prior=log_priors[image])
        start = starts[image].active
        if bool(scores.decided(start)):
            assert results[image].n_evaluations == 0
            continue
        errors, active = plain_race(image, pruner, sampler, own, start)
        assert torch.equal(results[image].active, active)
        torch.testing.assert_close(results[image].errors, errors, rtol=0, atol=0, equal_nan=True)
    assert sum(source.n_rows) == sum(result.n_evaluations for result in results.values())
