"""Two steps under way: the same results, and a device that always has a step to work on."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.callbacks import Callback
from diffusion_classifier.errors import NonFiniteOutputError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner, StagedPruner
from diffusion_classifier.race import DrawTape, Start, run_race
from diffusion_classifier.race.engine import Engine
from diffusion_classifier.race.recorded import RecordedErrors
from diffusion_classifier.race.source import ErrorSource
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.scoring import Scoring

N, P, J = 40, 5, 60
SCHEDULE = NoiseSchedule.flow(100)
NOISE = torch.randn(N, P, J, generator=torch.Generator().manual_seed(0))
ERRORS = 5 + NOISE + 0.4 * torch.arange(P)[None, :, None]
SCORING = Scoring(torch.ones(100).double(), torch.zeros(P).double(), torch.arange(P))
PRUNERS = [RacingPruner(max_draws=J), NoPruning(max_draws=20), StagedPruner((4, 20), (3, 1))]


class Device(ErrorSource):
    """A device that computes a step after it was queued; notes what happens, in this order."""

    n_prompts, rows_wanted, batch_rows, few_rows = P, 64, 16, 8

    def __init__(self, steps_at_once, errors=ERRORS):
        self._steps_at_once, self.errors = steps_at_once, errors
        self.log, self.n_begun = [], 0
        self.released = []

    @property
    def steps_at_once(self):
        return self._steps_at_once

    def begin(self, requests):
        assert len({request.image for request in requests}) == len(requests)
        number = self.n_begun
        self.n_begun += 1
        self.log.append(("begin", number, sum(request.n_rows for request in requests)))

        def answer():
            self.log.append(("answer", number, 0))
            found = [
                self.errors[r.image][r.prompts, r.start : r.start + r.n_draws] for r in requests
            ]
            if not all(errors.isfinite().all() for errors in found):
                raise NonFiniteOutputError("NaN")
            return found

        return answer

    def evaluate(self, requests):
        return self.begin(requests)()

    def release(self, image):
        self.released.append(image)


def race(source, pruner, start=None, on_look=None):
    tape = DrawTape(StratifiedSampler(2).rounds(SCHEDULE, 0), pruner.max_draws)
    return {r.image: r for r in run_race(source, tape, pruner, SCORING, range(N), start, on_look)}


def assert_equal(results, others):
    assert results.keys() == others.keys() == set(range(N))
    for image, result in results.items():
        assert torch.equal(result.active, others[image].active)
        n = min(result.errors.shape[1], others[image].errors.shape[1])
        torch.testing.assert_close(
            result.errors[:, :n], others[image].errors[:, :n], rtol=0, atol=0, equal_nan=True
        )
        assert result.n_evaluations == others[image].n_evaluations


@pytest.mark.parametrize("pruner", PRUNERS, ids=str)
def test_two_steps_under_way_give_the_results_of_one(pruner):
    one, two = Device(1), Device(2)
    assert_equal(race(two, pruner), race(one, pruner))
    assert sorted(two.released) == list(range(N))
    again = Device(2)
    assert_equal(race(RecordedErrors(ERRORS[:, :, :7], again), pruner), race(one, pruner))


def test_the_host_judges_while_the_device_has_another_step_as_long_as_steps_are_full():
    device = Device(2)
    under_way = []

    def on_look(result):
        answered = sum(kind == "answer" for kind, _, _ in device.log)
        under_way.append(device.n_begun - answered)

    race(device, RacingPruner(max_draws=J), on_look=on_look)
    assert [number for kind, number, _ in device.log if kind == "answer"] == list(
        range(device.n_begun)
    )
    assert max(under_way) == 1
    busy = torch.tensor(under_way).double()
    assert busy[: len(busy) // 2].min() == 1 and busy.mean() > 0.7
    # A step that begins while another is under way is full.
    for (kind, *_), (following, _, n_rows) in zip(device.log, device.log[1:], strict=False):
        if kind == following == "begin":
            assert n_rows > 0.75 * Device.rows_wanted


def test_images_decided_from_the_start_and_images_of_one_step_end_too():
    def start(image):
        active = torch.zeros(P, dtype=torch.bool)
        active[: 1 + image % 2] = True
        return Start(active)

    pruner = RacingPruner(max_draws=J)
    assert_equal(race(Device(2), pruner, start), race(Device(1), pruner, start))


def test_nan_among_rounds_ahead_is_asked_for_again_without_them():
    errors = ERRORS.clone()
    errors[-1, :, 8:] = torch.nan
    with pytest.raises(NonFiniteOutputError):
        race(Device(2, errors), NoPruning(max_draws=20))
    errors[-1, :, 8:] = ERRORS[-1, :, 8:]
    errors[-1, :, 50:] = torch.nan
    easy = RacingPruner(0.4, max_draws=J)
    assert_equal(race(Device(2, errors), easy), race(Device(1), easy))


def classifier(calls, pruner=PRUNERS[0], square=False, **options):
    outputs = 0.3 * torch.randn(P, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def network(z, t, condition):
        calls.append(len(z))
        return outputs[condition] + z**2 if square else outputs[condition]

    backend = FunctionBackend(
        network, schedule=SCHEDULE, input_shape=(4, 8, 8), input_kind="array", name="outputs"
    )
    clf = DiffusionClassifier(
        backend, pruner=pruner, batch_size=16, random_state=0, verbose=0, **options
    )
    return clf.fit(None, list(range(P)))


def test_a_classifier_with_two_steps_under_way_gives_the_answers_of_one(monkeypatch, tmp_path):
    X = np.random.default_rng(0).normal(size=(N, 4, 8, 8)).astype(np.float32)
    one, two, calls = [], [], []
    expected = classifier(one).predict_log_proba(X)
    monkeypatch.setattr(Engine, "steps_at_once", property(lambda self: 2))
    np.testing.assert_array_equal(classifier(two).predict_log_proba(X), expected)
    # In the end there are fewer images in a step, and less is asked for ahead.
    assert sum(two) == pytest.approx(sum(one), rel=0.05)
    remembering = classifier(calls, memory=tmp_path / "memory")
    np.testing.assert_array_equal(remembering.predict_log_proba(X), expected)
    calls.clear()
    np.testing.assert_array_equal(remembering.predict_log_proba(X), expected)
    assert not calls


class Rows:
    """Watches engines, and counts rows that are asked for twice."""

    def __init__(self, monkeypatch):
        begin, self.seen, self.n_twice = Engine.begin, set(), 0

        def noted(engine, requests):
            for request in requests:
                draws = range(request.start, request.start + request.n_draws)
                rows = {(request.image, p, d) for p in request.prompts.tolist() for d in draws}
                self.n_twice += len(rows & self.seen)
                self.seen |= rows
            return begin(engine, requests)

        monkeypatch.setattr(Engine, "begin", noted)
        monkeypatch.setattr(Engine, "steps_at_once", property(lambda self: 2))


class Stop(Callback):
    def on_image(self, result):
        raise KeyboardInterrupt


def test_a_memory_keeps_the_step_that_was_under_way_when_a_callback_stopped(monkeypatch, tmp_path):
    X = np.random.default_rng(0).normal(size=(N, 4, 8, 8)).astype(np.float32)
    rows = Rows(monkeypatch)
    options = {"memory": tmp_path / "memory", "pruner": NoPruning(20)}
    with pytest.raises(KeyboardInterrupt):
        classifier([], callbacks=[Stop()], **options).predict(X)
    assert 0 < len(rows.seen) < N * P * 20
    classifier([], **options).predict(X)
    assert len(rows.seen) == N * P * 20 and rows.n_twice == 0


def test_a_memory_keeps_the_steps_beside_one_that_failed(monkeypatch, tmp_path):
    X = np.random.default_rng(0).normal(size=(N, 4, 8, 8)).astype(np.float32)
    X[[5, 17, 30]] = 1e30  # squares overflow
    rows = Rows(monkeypatch)
    clf = classifier([], memory=tmp_path / "memory", pruner=NoPruning(20), square=True)
    labels = clf.predict(X, on_error="skip")
    assert len(labels) == N and [image for image, _ in clf.skipped_] == [5, 17, 30]
    # Only what the three failed steps of 120 rows asked for beside the bad images is lost.
    assert rows.n_twice < 3 * 120
