"""Arithmetic of the benchmarks: intervals, calibration error, tables, exact errors, answers."""

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:  # their names are too plain to stay
        if (
            getattr(sys.modules[name], "__file__", None)
            and BENCHMARKS in sys.modules[name].__file__
        ):
            del sys.modules[name]


def test_intervals_cover_the_mean_and_widen_with_clusters(load):
    report = load("report")
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 50)
    values = rng.normal(size=20)[clusters] + 0.1 * rng.normal(size=1000)
    mean, low, high = report.interval(np.mean, values)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(1000), rel=0.15)
    _, low, high = report.interval(np.mean, values, clusters=clusters)
    by_cluster = values.reshape(20, 50).mean(1)
    assert high - low == pytest.approx(2 * 1.96 * by_cluster.std() / np.sqrt(20), rel=0.15)


def test_calibration_error_is_the_mean_gap_of_confidence_and_accuracy(load):
    report = load("report")
    confidence = np.array([0.91, 0.92, 0.31, 0.32])
    right = np.array([True, False, False, False])
    expected = (abs(1.83 - 1) + 0.63) / 4
    assert report.calibration_error(confidence, right) == pytest.approx(expected)
    assert report.calibration_error(np.ones(3), np.ones(3, bool)) == 0


def test_figures_of_probabilities_are_finite_where_a_probability_underflows(load):
    log_proba = np.array([np.log([0.75, 0.25]), [-800.0, 0.0]])
    figures = load("report").probability_figures(log_proba, np.array([0, 0]))
    assert figures["log_loss"].tolist() == pytest.approx([-np.log(0.75), 800.0])
    assert figures["brier"].tolist() == pytest.approx([2 * 0.25**2, 2.0])
    assert figures["confidence"].tolist() == pytest.approx([0.75, 1.0])
    assert figures["right"].tolist() == [True, False]


def test_tables_show_figures_intervals_and_inverses(load):
    rows = {("a", "b"): {"x": [0.5, 0.25, 0.75], "y": 0.05}}
    columns = {"share": ("x", "{:.0%}"), "of full": ("y", "1/{:.0f}")}
    assert load("report").as_table(("k", "l"), columns, rows) == [
        "| k | l | share | of full |",
        "|---|---|---|---|",
        "| a | b | 50% (25% to 75%) | 1/20 |",
    ]


def test_errors_of_a_thousand_classes_by_matrix_products_are_the_backends(load):
    mixture = load("mixture")
    backend = mixture.make_backend()
    tape, noise = mixture.take_draws(backend, mixture.SAMPLERS["uniform"], seed=0)
    x, _ = backend.sample(1, random_state=0)
    (latent,) = backend.encode_images(torch.as_tensor(x))
    errors = mixture.full_errors(backend, latent, tape.timesteps[:6], noise[:6])
    assert errors.shape == (1000, 6)
    mixture.check_errors(backend, latent, tape.timesteps[:6], noise[:6], errors)
    scoring = mixture.Scoring(
        torch.ones(backend.schedule.n_timesteps).double(), mixture.LOG_PRIOR, torch.arange(1000)
    )
    few = mixture.StagedPruner((2, 4), (500, 10), max_draws=6)
    # 1,000 classes take 2 draws, 500 and then 10 two more
    tape = mixture.DrawTape(mixture.SAMPLERS["uniform"].rounds(backend.schedule, 0), 6)
    answer, spent = mixture.race(errors, tape, few, scoring)
    assert spent == 2 * (1000 + 500 + 10)
    assert answer == int(errors.mean(1).argmin())


def test_simulated_problems_have_the_winner_they_say(load):
    promise = load("promise")
    for name, problem in promise.PROBLEMS.items():
        rng = np.random.default_rng(0)
        contributions = problem(rng, 400)
        lead = (contributions[:, 1:].mean(2) - contributions[:, :1].mean(2)).mean(0)
        spread = contributions.mean(2).std(0).max() / np.sqrt(400)
        assert (lead > -4 * spread).all(), name


def test_the_shipped_proposal_can_be_learned_again():
    proposal = importlib.util.spec_from_file_location(
        "embedded_proposal", Path(BENCHMARKS).parent / "examples" / "embedded_proposal.py"
    )
    module = importlib.util.module_from_spec(proposal)
    proposal.loader.exec_module(module)
    learned = module.learn_proposal("digit", n_scenes=4, n_draws=16, seed=0)
    assert learned.shape == (1000,)
    assert learned.mean().item() == pytest.approx(1)
    assert learned[:500].mean() > 2 * learned[800:].mean()
