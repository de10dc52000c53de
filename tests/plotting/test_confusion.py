"""Confusion matrices: counts, and which classes keep a row of their own."""

import numpy as np
import pytest
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.plotting import ConfusionDisplay
from tests.support.tables import make_table


def test_counts_are_scikit_learns():
    table, y = make_table(n_images=60, n_draws=8, lead=1.0)
    display = ConfusionDisplay.from_table(table, y)
    predicted = table.classes[table.predict_proba().argmax(1)]
    expected = confusion_matrix(y, predicted, labels=table.classes)
    assert isinstance(display, ConfusionMatrixDisplay)
    np.testing.assert_array_equal(display.confusion_matrix, expected)
    assert 0 < np.trace(expected) < 60
    assert display.text_ is not None  # counts are written into cells
    ticks = [tick.get_text() for tick in display.ax_.get_xticklabels()]
    assert ticks == table.classes.tolist()


@pytest.mark.filterwarnings("ignore:A single label")
@pytest.mark.parametrize("n_classes", [1, 2, 21, 1000])
def test_the_most_confused_classes_are_shown_and_the_others_added_up(n_classes):
    table, y = make_table(n_images=50, n_classes=n_classes, n_draws=8)
    y = y.copy()
    y[7] = y[2 % len(y)]  # two answers that the table gets wrong
    y[8] = y[3 % len(y)]
    display = ConfusionDisplay.from_table(table, y, max_classes=5)
    counts = display.confusion_matrix
    assert counts.sum() == 50 and len(counts) == min(n_classes, 6)
    predicted = table.classes[table.predict_proba().argmax(1)]
    assert np.trace(counts) >= (predicted == y).sum()
    if n_classes > 5:
        assert display.display_labels[-1] == f"{n_classes - 5} other classes".replace(
            "1 other classes", "1 other class"
        )
        for image in (7, 8):
            assert {y[image], predicted[image]} <= set(display.display_labels)
    display.figure_.canvas.draw()


def test_labels_that_the_classifier_does_not_know_have_rows_too():
    table, y = make_table(n_images=6, n_classes=3, skipped=[0])
    y = y.astype(object)
    y[4] = "zebra"
    display = ConfusionDisplay.from_table(table, y, include_values=False)
    assert display.display_labels[-1] == "zebra" and display.confusion_matrix[-1].sum() == 1
    assert display.confusion_matrix.sum() == 5
    assert display.text_ is None
    with pytest.raises(InputValueError, match="y holds 5 labels"):
        ConfusionDisplay.from_table(table, y[:5])
