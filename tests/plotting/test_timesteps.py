"""Evidence by timestep: means in bins, intervals that count images and draws, names."""

from dataclasses import replace

import numpy as np
import pytest

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.plotting import ErrorByTimestepDisplay
from diffusion_classifier.pruners import StagedPruner
from diffusion_classifier.scoring.candidates import Candidates
from tests.support.tables import T, make_table


def test_the_evidence_of_bins_averages_to_the_difference_of_class_losses():
    table, y = make_table(n_classes=4, n_draws=T)  # each timestep once
    display = ErrorByTimestepDisplay.from_table(table, y, n_bins=10)
    losses = table.class_losses().numpy()
    column = np.searchsorted(table.classes, y)
    own = losses[np.arange(len(y)), column]
    losses[np.arange(len(y)), column] = np.inf
    expected = (losses.min(1) - own).mean()
    assert display.names[0] == "true class over its closest rival"
    assert display.evidence[0].mean() == pytest.approx(expected, rel=1e-5)
    assert display.names[1] == "true class over the mean rival"
    assert display.evidence[1].mean() == pytest.approx(3, abs=0.15)
    assert display.timesteps.tolist() == [4.5 + 10 * k for k in range(10)]
    sigma = (5 + 10 * np.arange(10)) / 100  # the flow's level there
    np.testing.assert_allclose(display.log_snr, 2 * np.log(1 / sigma - 1), atol=0.3)


def test_a_bin_of_one_draw_is_that_of_its_timestep():
    table, _ = make_table(n_images=3, n_classes=2, n_draws=20)
    pair = tuple(table.classes[:2])
    display = ErrorByTimestepDisplay.from_table(table, pairs=[pair], n_bins=T)
    assert np.isfinite(display.evidence[0]).sum() == 20
    for draw, t in enumerate(table.timesteps):
        expected = (table.errors[:, 1, draw] - table.errors[:, 0, draw]).mean()
        assert display.evidence[0, t] == pytest.approx(expected, abs=1e-4)
    assert display.names == ["class 0000 over class 0001"]


def test_intervals_count_what_draws_have_in_common():
    """A difference that all images share on a draw makes intervals as wide as few draws do."""
    table, _ = make_table(n_images=200, n_classes=2, n_draws=40)
    shared = 5 * np.random.default_rng(1).normal(size=40).astype(np.float32)
    table.errors[:, 1] += shared
    pair = tuple(table.classes[:2])
    display = ErrorByTimestepDisplay.from_table(table, pairs=[pair], n_bins=1)
    expected = 1.96 * shared.std(ddof=1) / np.sqrt(40)
    assert display.half_width[0, 0] == pytest.approx(expected, rel=0.1)


def test_one_image_has_the_interval_of_its_draws():
    table, _ = make_table(n_images=1, n_classes=2, n_draws=T)
    display = ErrorByTimestepDisplay.from_table(table, n_bins=2)
    assert display.names == ["answer over its runner-up"]
    for half, bound in ((0, 50), (1, T)):
        inside = (table.timesteps < bound) & (table.timesteps >= bound - 50)
        values = (table.errors[0, 1] - table.errors[0, 0])[inside]
        expected = 1.96 * values.std(ddof=1) / np.sqrt(50)
        assert display.half_width[0, half] == pytest.approx(expected, rel=1e-4)


def test_what_is_drawn_has_names_bands_and_units():
    table, y = make_table(n_draws=T)
    display = ErrorByTimestepDisplay.from_table(table, y, n_bins=10, x="log_snr")
    ax = display.ax_
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == display.names
    x, drawn = ax.get_lines()[1].get_data()
    assert x.tolist() == display.log_snr.tolist() and drawn.tolist() == display.evidence[0].tolist()
    assert len(ax.collections) == 2 and ax.get_ylabel() == "evidence (nats)"
    left, right = ax.get_xlim()
    assert left > right  # noise grows to the right


def test_many_pairs_are_grey_and_counted():
    table, _ = make_table(n_images=20, n_classes=1000, n_draws=20)
    pairs = [(table.classes[k], table.classes[k + 500]) for k in range(500)]
    display = ErrorByTimestepDisplay.from_table(table, pairs=pairs, n_bins=5)
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert len(legend) == 7 and legend[-1] == "494 other pairs"
    assert len(display.ax_.collections) == 6


def test_pruned_tables_and_skipped_images_leave_gaps_only():
    table, y = make_table(n_images=6, n_draws=40, skipped=[2])
    pruned = table.replay(StagedPruner([20], [3], max_draws=40))
    display = ErrorByTimestepDisplay.from_table(pruned, y, n_bins=4)
    assert display.names == ["true class over its closest rival"]
    assert np.isfinite(display.evidence).all()


def test_the_evidence_is_among_the_candidates():
    table, y = make_table(n_images=4, n_classes=5, n_draws=T)
    mask = np.array([[1, 1, 1, 0, 0]] * 3 + [[1, 1, 0, 0, 0]], bool)  # not of image 3: the truth
    errors = np.where(mask[..., None], table.errors, np.nan).astype(np.float32)
    among = replace(table, errors=errors, active=mask, candidates=Candidates(mask))
    display = ErrorByTimestepDisplay.from_table(among, y, n_bins=4)
    gaps = []
    for image in range(3):
        losses = table.errors[image, :3].mean(1)
        gaps.append(np.delete(losses, image).min() - losses[image])
    assert display.evidence[0].mean() == pytest.approx(np.mean(gaps), rel=1e-4)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (["class 0000"] * 11, {}, "y holds 11 labels, but there are 12 images"),
        (["cat"] * 12, {}, r"y\[0\]='cat' is not a class of the table"),
        (None, {"pairs": [("class 0000", "cat")]}, r"pairs\[0\]\[1\]='cat' is not a class"),
        (
            ["class 0000"] * 12,
            {"pairs": [("class 0001", "class 0000")]},
            "no image of 'class 0001' raced both",
        ),
        (None, {"n_bins": 101}, "n_bins=101 must be an integer"),
        (None, {"x": "sigma"}, "x='sigma' is not known"),
    ],
)
def test_what_does_not_fit_is_refused(y, options, message):
    table, _ = make_table()
    with pytest.raises(InputValueError, match=message):
        ErrorByTimestepDisplay.from_table(table, y, **options)


def test_a_single_class_has_no_rivals():
    table, _ = make_table(n_classes=1)
    with pytest.raises(InputValueError, match="against a rival"):
        ErrorByTimestepDisplay.from_table(table)
