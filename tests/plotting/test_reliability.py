"""Reliability: bins, intervals and the calibration error, and what is drawn of them."""

import numpy as np
import pytest
from scipy.stats import binomtest

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.plotting import ReliabilityDisplay
from tests.support.tables import make_table


def drawn_proba(n=2000, k=5, power=1.0):
    """Probabilities that are true for ``power=1``: labels are drawn from them."""
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.full(k, 0.3), n)
    y = np.array([rng.choice(k, p=row) for row in proba])
    sharp = proba**power
    return y, sharp / sharp.sum(1, keepdims=True)


def test_true_probabilities_lie_on_the_diagonal_and_sharpened_ones_below():
    y, proba = drawn_proba()
    display = ReliabilityDisplay.from_predictions(y, proba, np.arange(5))
    assert display.counts.tolist() == [200] * 10
    low, high = display.accuracy[:, 1:].T
    assert ((low <= display.confidence) & (display.confidence <= high)).sum() >= 8
    assert display.calibration_error < 0.04
    y, proba = drawn_proba(power=3)
    sharp = ReliabilityDisplay.from_predictions(y, proba, np.arange(5))
    assert (sharp.accuracy[:-2, 2] < sharp.confidence[:-2]).all()
    assert sharp.calibration_error > 0.15


def test_bins_of_one_width_and_their_figures():
    proba = np.array([[0.91, 0.09], [0.92, 0.08], [0.45, 0.55], [0.44, 0.56]])
    display = ReliabilityDisplay.from_predictions(
        [0, 1, 1, 1], proba, [0, 1], n_bins=10, strategy="uniform"
    )
    assert display.confidence.tolist() == pytest.approx([0.555, 0.915])
    interval = binomtest(1, 2).proportion_ci(method="wilson")
    assert display.accuracy[1].tolist() == pytest.approx([0.5, interval.low, interval.high])
    assert display.calibration_error == pytest.approx((2 * 0.445 + 2 * 0.415) / 4)


def test_what_is_drawn_is_in_percent_with_intervals():
    y, proba = drawn_proba(300)
    ax = ReliabilityDisplay.from_predictions(y, proba, np.arange(5), n_bins=4).ax_
    (bars,) = ax.containers
    assert len(bars.lines[0].get_xdata()) == 4 and bars.has_yerr
    assert ax.get_xlim() == ax.get_ylim() == (0, 102)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[0] == "calibrated" and legend[1].startswith("300 answers, ECE 0.")
    assert ax.get_xlabel() == "confidence (%)"


def test_tables_of_1_to_1000_classes():
    for n_classes in (1, 2, 1000):
        table, y = make_table(n_images=6, n_classes=n_classes, n_draws=8, skipped=[5])
        display = ReliabilityDisplay.from_table(table, y)
        assert display.counts.sum() == 5
        display.figure_.canvas.draw()


@pytest.mark.parametrize(
    ("y", "proba", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "y holds 2 labels, but there are 1 images"),
        ([0], [[0.5, 0.2, 0.3]], r"proba has shape \(1, 3\)"),
        ([], np.zeros((0, 2)), "at least one"),
        ([0], [[np.nan, 0.5]], "proba"),
    ],
)
def test_what_does_not_fit_is_refused(y, proba, message):
    with pytest.raises(InputValueError, match=message):
        ReliabilityDisplay.from_predictions(y, proba, [0, 1])
