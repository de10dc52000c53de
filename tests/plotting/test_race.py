"""What a picture of a race draws: gaps, intervals, ends and names, for 1 to 1,000 classes."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from scipy.stats import ttest_1samp

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.plotting import RaceDisplay
from diffusion_classifier.pruners import NoPruning, RacingPruner, StagedPruner
from diffusion_classifier.scoring.candidates import Candidates
from tests.support.tables import make_table


def lines(display):
    """Lines of the picture with a name, by that name."""
    return {line.get_label(): line for line in display.ax_.get_lines() if _named(line)}


def _named(artist):
    return not artist.get_label().startswith("_")


def test_gaps_are_mean_paired_differences_with_students_interval():
    table, _ = make_table(n_classes=3, n_draws=24)
    display = RaceDisplay.from_table(table, image=2)
    assert display.labels[0] == "class 0002"
    rival = int(display.labels[1].removeprefix("class "))
    differences = (table.errors[2, 2] - table.errors[2, rival]).astype(float)
    for r in (1, 5):
        rounds = differences[: 4 * (r + 1)].reshape(-1, 4).mean(1)
        assert display.gap[1, r] == pytest.approx(rounds.mean(), abs=1e-5)
        low, high = ttest_1samp(rounds, 0).confidence_interval(0.95)
        assert display.half_width[1, r] == pytest.approx((high - low) / 2, rel=1e-4)
    assert np.isnan(display.half_width[:, 0]).all()
    assert display.evaluations.tolist() == [12, 24, 36, 48, 60, 72]


def test_the_interval_holds_the_true_lead_as_often_as_it_says():
    table, _ = make_table(n_images=400, n_classes=2, n_draws=24)
    shown = [RaceDisplay.from_table(table, image=image) for image in range(0, 400, 20)]
    pyplot.close("all")
    assert np.mean([display.gap[1, -1] for display in shown]) == pytest.approx(-3, abs=0.3)
    inside = [abs(display.gap[1, -1] + 3) <= display.half_width[1, -1] for display in shown]
    assert np.mean(inside) >= 0.8


def test_dropped_classes_end_where_the_race_dropped_them():
    table, _ = make_table(n_draws=60, lead=1.0)
    raced = table.replay(RacingPruner())
    image = int(raced.n_evaluations.argmax())
    display = RaceDisplay.from_table(raced, image=image)
    assert display.evaluations[-1] == raced.n_evaluations[image]
    assert display.dropped.sum() == 10 - raced.active[image].sum()
    columns = [int(label.removeprefix("class ")) for label in display.labels]
    n_rounds = raced.n_draws[image][columns] // 4
    assert np.isfinite(display.gap).sum(1).tolist() == n_rounds.tolist()
    assert sorted(n_rounds[1:], reverse=True) == n_rounds[1:].tolist()  # the longest come first
    named = lines(display)
    for rank in range(1, 5):
        end = display.evaluations[n_rounds[rank] - 1]
        label = f"{display.labels[rank]}, dropped at {end:,}"
        x, y = named[label].get_data()
        assert x[-1] == end and y[-1] == display.gap[rank, n_rounds[rank] - 1]


@pytest.mark.parametrize(("n_classes", "others"), [(1, 0), (2, 0), (5, 0), (10, 5), (1000, 995)])
def test_few_classes_are_named_and_the_others_counted(n_classes, others):
    table, _ = make_table(n_images=2, n_classes=n_classes, n_draws=12)
    pruner = StagedPruner([4], [5], max_draws=12)
    display = RaceDisplay.from_table(table.replay(pruner) if n_classes > 1 else table)
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend[0] == "class 0000 (winner)"
    n_named = min(4, n_classes - 1)
    assert len(legend) == 1 + n_named + bool(others)
    rest = [c for c in display.ax_.collections if isinstance(c, LineCollection) and _named(c)]
    if others:
        assert legend[-1] == f"{others} other classes"
        assert [len(c.get_segments()) for c in rest] == [others]
    low, high = display.ax_.get_ylim()
    assert low < 0 < high
    ends = display.gap[1 : 1 + n_named, -1]
    assert ((low < ends) & (ends < high)).all()
    display.figure_.canvas.draw()


def test_it_draws_into_given_axes_and_races_by_itself():
    figure, ax = pyplot.subplots()
    scene = load_scenes("test", n_samples=1).images
    clf = DiffusionClassifier(pruner=NoPruning(8), calibrator=None, random_state=0)
    clf.fit(None, ["red digit", "white digit"])
    display = RaceDisplay.from_estimator(clf, scene, ax=ax, n_labels=1)
    assert display.ax_ is ax and display.figure_ is figure
    log_odds = np.diff(np.sort(clf.predict_log_proba(scene)[0]))
    assert -display.gap[1, -1] == pytest.approx(log_odds.item(), rel=1e-4)
    assert ax.get_xlabel() == "evaluations" and ax.get_ylabel().endswith("(nats)")
    assert display.plot(n_labels=0).ax_ is not ax


def test_classes_that_were_no_candidates_are_left_out():
    table, _ = make_table(n_images=2, n_classes=6, n_draws=12)
    mask = np.array([[1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]], bool)
    errors = np.where(mask[..., None], table.errors, np.nan).astype(np.float32)
    errors[1] = np.nan  # a single candidate needs no network
    among = replace(table, errors=errors, active=mask, candidates=Candidates(mask))
    display = RaceDisplay.from_table(among)
    assert sorted(display.labels) == ["class 0000", "class 0001", "class 0003"]
    assert display.evaluations.tolist() == [12, 24, 36]
    expected = (table.errors[0, 0] - table.errors[0, 1]).mean()
    assert display.gap[display.labels.index("class 0001"), -1] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(InputValueError, match="It has a single candidate"):
        RaceDisplay.from_table(among, image=1)


def test_images_without_a_race_are_refused():
    table, _ = make_table(n_images=3, skipped=[1])
    with pytest.raises(InputValueError, match=r"image 1 has no race to draw\. it is damaged"):
        RaceDisplay.from_table(table, image=1)
    with pytest.raises(InputValueError, match="image=3 must be an integer"):
        RaceDisplay.from_table(table, image=3)
