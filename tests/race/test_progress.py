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


def make_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def ended(image, n_draws):
    """The result of a race of two prompts."""
    return Result(image, torch.ones(2, n_draws), torch.ones(2))


def test_the_bar_counts_evaluations_and_images(monkeypatch):
    terminal = make_terminal(monkeypatch)
    fitted(verbose=1).predict(X)
    last = terminal.getvalue().rstrip().split("\r")[-1]
    assert "100%" in last and "60/60 evaluations" in last and "5/5 images" in last


def test_the_total_is_estimated_from_the_races_that_ended(monkeypatch):
    terminal = make_terminal(monkeypatch)
    with Progress(4, lambda: 10, 1) as progress:
        progress.add_evaluations(10)
        assert (progress.n_evaluations, progress.total) == (10, 40)
        list(progress.count([ended(0, 3)]))  # 6 evaluations instead of 10
        assert progress.total == 4 * 6
        list(progress.count([ended(1, 5)]))
        assert progress.total == 4 * (6 + 10) / 2
        progress.add_recorded(5)
        assert progress.total == 32 - 5
        progress.add_evaluations(40)
        assert progress.total == 50  # never less than was done
    last = terminal.getvalue().rstrip().split("\r")[-1]
    assert "50/50 evaluations" in last and "<" in last and "2/4 images" in last


def test_a_log_has_one_line_per_tenth_of_the_work(capsys):
    with Progress(100, lambda: 40, 1) as progress:  # races end after a tenth of the budget
        for image in range(100):
            progress.add_evaluations(4)
            list(progress.count([ended(image, 2)]))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert all("\r" not in line and line.startswith("classify: ") for line in lines)
    assert "400/400 evaluations, 100/100 images" in lines[-1] and "100%" in lines[-1]
    half = next(line for line in lines if " 50%" in line)
    assert "200/400 evaluations" in half
    elapsed, left = half.split("[")[1].rstrip("]").split("<")
    assert elapsed == left  # not ten times as much


def test_a_log_tells_how_far_an_interrupted_run_came(capsys):
    with pytest.raises(KeyboardInterrupt), Progress(10, lambda: 10, True) as progress:
        progress.add_evaluations(25)
        raise KeyboardInterrupt
    assert "25/100 evaluations" in capsys.readouterr().err


def test_predictions_in_a_log_are_a_few_lines(capsys):
    fitted(verbose=1).predict(X)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 10 and "60/60 evaluations, 5/5 images" in lines[-1]


@pytest.mark.parametrize("verbose", [0, False, "auto"])
def test_nothing_is_printed_when_silent_or_not_watched(capsys, verbose):
    clf = fitted(verbose=verbose)
    clf.predict_proba(X), clf.errors(X), clf.estimate_cost(3)
    assert capsys.readouterr() == ("", "")


def test_the_default_shows_a_bar_in_a_terminal_only(monkeypatch):
    assert DiffusionClassifier().verbose == "auto"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_watched() and not Progress(2, lambda: 3, "auto").is_shown
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert is_watched() and Progress(2, lambda: 3, "auto").is_shown
    assert not Progress(2, lambda: 3, 0).is_shown


def test_short_work_shows_no_bar_by_default(monkeypatch):
    terminal = make_terminal(monkeypatch)
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
    with pytest.raises(ValueError, match=r"verbose=.* (is not known|must be)"):
        fitted(verbose=verbose).predict(X)
