"""Steps of few rows ask for rounds ahead, and change nothing but the number of steps."""

import pytest
import torch

from diffusion_classifier.errors import NonFiniteOutputError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, PairedTestPruner, RacingPruner, StagedPruner
from diffusion_classifier.race import DrawTape, Request, run_race
from diffusion_classifier.race.recorded import RecordedErrors
from diffusion_classifier.race.source import ErrorSource
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.scoring import Scoring

N, P, J = 6, 5, 60
SCHEDULE = NoiseSchedule.flow(100)
NOISE = torch.randn(N, P, J, generator=torch.Generator().manual_seed(0))
ERRORS = 5 + NOISE + 0.4 * torch.arange(P)[None, :, None]
SCORING = Scoring(torch.ones(100).double(), torch.zeros(P).double(), torch.arange(P))


class Counted(ErrorSource):
    """A network whose errors are in a table; notes the rows of each call."""

    n_prompts, rows_wanted, batch_rows, few_rows = P, 256, 32, 0

    def __init__(self, few_rows, errors=ERRORS):
        self.few_rows = few_rows
        self.errors = errors
        self.n_rows, self.n_needed = [], 0

    def evaluate(self, requests):
        found = [self.errors[r.image][r.prompts, r.start : r.start + r.n_draws] for r in requests]
        self.n_rows.append(sum(errors.numel() for errors in found))
        if not all(errors.isfinite().all() for errors in found):
            raise NonFiniteOutputError("NaN")
        return found

    def release(self, image):
        pass


def race(source, pruner, images=range(N)):
    tape = DrawTape(StratifiedSampler(2).rounds(SCHEDULE, 0), pruner.max_draws)
    return {r.image: r for r in run_race(source, tape, pruner, SCORING, images)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for image, result in expected.items():
        assert torch.equal(found[image].active, result.active)
        torch.testing.assert_close(
            found[image].errors, result.errors, rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("images", [[0], range(N)], ids=["one image", "all images"])
@pytest.mark.parametrize(
    "pruner",
    [RacingPruner(max_draws=J), PairedTestPruner(4, max_draws=J, p_value=0.02)],
    ids=lambda pruner: type(pruner).__name__,
)
@pytest.mark.parametrize("few_rows", [40, 10_000])
def test_rounds_ahead_save_calls_and_change_no_result(pruner, few_rows, images):
    plain, ahead = Counted(0), Counted(few_rows)
    assert_same(race(ahead, pruner, images), race(plain, pruner, images))
    assert len(ahead.n_rows) < len(plain.n_rows)
    assert sum(plain.n_rows) <= sum(ahead.n_rows) < 1.35 * sum(plain.n_rows)


def test_the_longer_a_race_the_more_rounds_it_asks_for():
    tied = torch.zeros(N, P, J).normal_(generator=torch.Generator().manual_seed(1))
    source = Counted(10_000, tied)
    race(source, RacingPruner(alpha=1e-6, max_draws=J), [0])
    assert [n // P // 2 for n in source.n_rows] == [2, 2, 2, 2, 3, 3, 4, 5, 6, 1]


def test_no_round_is_asked_for_that_is_sure_to_be_superfluous():
    for pruner in (StagedPruner((8,), (2,), max_draws=20), NoPruning(20)):
        plain, ahead = Counted(0), Counted(10_000)
        assert_same(race(ahead, pruner), race(plain, pruner))
        assert sum(ahead.n_rows) == sum(plain.n_rows)


def test_nan_in_a_superfluous_row_ends_no_race():
    pruner = RacingPruner(max_draws=J)
    expected = race(Counted(0), pruner, [0])
    n_draws = expected[0].errors.shape[1]
    assert n_draws > 8
    broken = ERRORS.clone()
    broken[0, :, n_draws:] = torch.nan
    assert_same(race(Counted(10_000, broken), pruner, [0]), expected)
    broken[0, :, n_draws - 1] = torch.nan
    with pytest.raises(NonFiniteOutputError):
        race(Counted(10_000, broken), pruner, [0])


def test_recorded_errors_make_no_new_ones_ahead():
    pruner = RacingPruner(max_draws=J)
    expected = race(Counted(0), pruner)
    recorded = torch.full((N, P, J), torch.nan)
    for image, result in expected.items():
        recorded[image, :, : result.errors.shape[1]] = result.errors
    network = Counted(10_000)
    assert_same(race(RecordedErrors(recorded, network), pruner), expected)
    assert network.n_rows == []
    recorded[2, 1, 3:] = torch.nan
    assert_same(race(RecordedErrors(recorded, network), pruner), expected)
    assert len(network.n_rows) > 0


def test_what_is_needed_of_a_request_is_its_first_rounds():
    rounds = list(DrawTape(StratifiedSampler(2).rounds(SCHEDULE, 0), 8))
    request = Request(0, torch.arange(3), rounds, n_ahead=4)
    assert request.n_rows == 24
    assert request.without_ahead().rounds == rounds[:2]
    assert request.without_ahead().n_ahead == 0


def test_steps_fill_whole_batches():
    """32 rows a batch, 10 a round: 256 rows are wanted, and 250 fill eight batches better."""
    source = Counted(0)
    race(source, NoPruning(40))
    assert source.n_rows[:4] == [250] * 4
    n_batches = sum(-(-n // 32) for n in source.n_rows)
    assert sum(source.n_rows) / (32 * n_batches) >= 0.95
