"""Accuracy against cost: the figures are those of replayed races, with their intervals."""

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.plotting import CostAccuracyDisplay
from diffusion_classifier.pruners import NoPruning, RacingPruner, StagedPruner
from tests.support.tables import make_table

RACES = {"staged": StagedPruner([8], [3], max_draws=40), "racing": RacingPruner()}


@pytest.fixture(scope="module")
def table_and_labels():
    return make_table(n_images=40, lead=0.4)


def test_figures_are_those_of_the_races(table_and_labels):
    table, y = table_and_labels
    display = CostAccuracyDisplay.from_table(table, y, pruners=RACES)
    assert display.names == ["staged", "racing"]
    for pruner, spent, right in zip(
        RACES.values(), display.evaluations, display.accuracy, strict=True
    ):
        raced = table.replay(pruner)
        hits = table.classes[raced.predict_proba().argmax(1)] == y
        interval = binomtest(int(hits.sum()), 40).proportion_ci(method="wilson")
        assert right.tolist() == pytest.approx([hits.mean(), interval.low, interval.high])
        assert spent[0] == raced.n_evaluations.mean()
        if raced.n_evaluations.std():
            mean = ttest_1samp(raced.n_evaluations, 0).confidence_interval(0.95)
            assert spent[1:].tolist() == pytest.approx([mean.low, mean.high])
    assert 0.1 < display.accuracy[1, 0] < 1


def test_the_line_without_pruning_has_growing_numbers_of_draws(table_and_labels):
    table, y = table_and_labels
    display = CostAccuracyDisplay.from_table(table, y, pruners={})
    assert display.unpruned[:, 0].tolist() == [40, 80, 160, 320, 400]  # 10 classes, rounds of 4
    hits = table.classes[table.replay(NoPruning(16)).predict_proba().argmax(1)] == y
    assert display.unpruned[2, 1] == hits.mean()
    x, drawn = display.ax_.get_lines()[0].get_data()
    assert x.tolist() == display.unpruned[:, 0].tolist()
    assert drawn.tolist() == pytest.approx((100 * display.unpruned[:, 1]).tolist())


def test_what_is_drawn_has_names_units_and_plain_numbers(table_and_labels):
    table, y = table_and_labels
    display = CostAccuracyDisplay.from_table(table, y, pruners=RACES)
    ax = display.ax_
    display.figure_.canvas.draw()
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(legend) == ["no pruning, fewer draws", "racing", "staged"]
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "evaluations per image"
    ticks = [tick.get_text() for tick in ax.get_xticklabels() if tick.get_text()]
    assert "100" in ticks and not any("10^" in tick for tick in ticks)
    heights = [bar.lines[0].get_ydata()[0] for bar in ax.containers]
    assert heights == pytest.approx((100 * display.accuracy[:, 0]).tolist())


def test_skipped_images_are_left_out_and_pruned_tables_refused(table_and_labels):
    table, y = make_table(n_images=5, skipped=[3])
    display = CostAccuracyDisplay.from_table(table, y)
    assert display.names == ["staged", "paired", "racing"]
    assert np.isfinite(display.evaluations).all()
    with pytest.raises(InputValueError, match=r"pruned.*full=True"):
        CostAccuracyDisplay.from_table(table_and_labels[0].replay(RacingPruner()), [0] * 40)
    with pytest.raises(InputValueError, match="y holds 2 labels"):
        CostAccuracyDisplay.from_table(table, y[:2])


def test_a_thousand_classes_are_no_matter():
    table, y = make_table(n_images=4, n_classes=1000, n_draws=8)
    display = CostAccuracyDisplay.from_table(table, y, pruners=RACES)
    assert display.unpruned[:, 0].tolist() == [4000, 8000]
