"""Progress: what the bar counts, and when it is silent."""

import io
import sys

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.race import Result
from diffusion_classifier.race.progress import Progress, is_watched

X = np.random.default_rng(0).normal(size=(5, 3))


def fitted(**options):
    backend = FunctionBackend(
        lambda z, t, c: z * c[:, None],
        schedule=NoiseSchedule.flow(100),
        classes=["a", "b", "c"],
        input_kind="array",
    )
    options = {"pruner": StagedPruner((4,), (1,), max_draws=8), "random_state": 0, **options}
    return DiffusionClassifier(backend, **options).fit(X, ["a", "b", "c", "a", "b"])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_counts_evaluations_and_images(capsys):
    fitted(verbose=1).predict(X)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "100%" in last and "60/60 evaluations" in last and "5/5 images" in last


def test_time_left_is_that_of_the_evaluations_left(capsys):
    with Progress(4, 10, 1) as progress:
        progress.add_evaluations(10)
        assert (progress.n_evaluations, progress.total) == (10, 40)
        list(
            progress.count([Result(0, torch.ones(2, 3), torch.ones(2))])
        )  # decided early: four evaluations are not needed
        progress.add_recorded(5)
        assert (progress.n_evaluations, progress.total) == (10, 31)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "10/31 evaluations" in last and "<" in last and "1/4 images" in last


@pytest.mark.parametrize("verbose", [0, False, "auto"])
def test_nothing_is_printed_when_silent_or_not_watched(capsys, verbose):
    clf = fitted(verbose=verbose)
    clf.predict_proba(X), clf.errors(X), clf.estimate_cost(3)
    assert capsys.readouterr() == ("", "")


def test_the_default_shows_a_bar_in_a_terminal_only(monkeypatch):
    assert DiffusionClassifier().verbose == "auto"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_watched() and not Progress(2, 3, "auto").is_shown
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert is_watched() and Progress(2, 3, "auto").is_shown
    assert not Progress(2, 3, 0).is_shown


def test_short_work_shows_no_bar_by_default(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fitted(pruner=NoPruning(2)).predict(X)
    assert "evaluations" not in terminal.getvalue()
    fitted(pruner=NoPruning(2), verbose=True).predict(X)
    assert "30/30 evaluations" in terminal.getvalue()


def test_workers_are_silent_by_default(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert not is_watched()


@pytest.mark.parametrize("verbose", ["yes", -1, None, 0.5])
def test_other_values_are_refused(verbose):
    with pytest.raises(ValueError, match=r"verbose=.* is not known"):
        fitted(verbose=verbose).predict(X)
