"""Contact sheets: the order of pictures, their frames and captions."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.plotting import ContactSheet
from tests.support.tables import make_table

X = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.full((1, 6, 9, 3), 30, np.uint8)
Y = ["a", "b", "a", "b", "a", "b", "a", "b"]
PREDICTED = ["a", "a", "a", "b", "b", "b", "a", "b"]
SURE = [0.9, 0.6, 0.5, 0.8, 0.7, 0.4, 1.0, 0.95]


def test_wrong_answers_come_first_and_the_surest_of_them_before_all():
    sheet = ContactSheet.from_predictions(X, Y, PREDICTED, confidence=SURE)
    assert sheet.images.tolist() == [4, 1, 5, 2, 3, 0, 7, 6]
    assert sheet.is_wrong.tolist() == [True] * 2 + [False] * 6
    assert sheet.captions[:3] == ["✗ b (70 %)\nis a", "✗ a (60 %)\nis b", "b (40 %)"]
    assert [picture.getpixel((0, 0))[0] for picture in sheet.pictures[:2]] == [120, 30]


def test_frames_tell_wrong_answers_without_colour_and_pictures_do_not_overlap():
    sheet = ContactSheet.from_predictions(X, Y, PREDICTED, n_columns=3)
    frames = [patch for patch in sheet.ax_.patches if isinstance(patch, Rectangle)]
    assert [frame.get_linewidth() > 1 for frame in frames] == sheet.is_wrong.tolist()
    corners = np.array([frame.get_xy() for frame in frames])
    assert len(np.unique(corners[:, 0])) == 3 and len(np.unique(corners[:, 1])) == 3
    assert (np.diff(np.unique(corners[:, 0])) > 1).all()
    assert (np.diff(np.unique(corners[:, 1])) > 1.3).all()  # room for two lines of text
    for frame, image in zip(frames, sheet.ax_.images, strict=True):
        (x, y), extent = frame.get_xy(), image.get_extent()
        assert tuple(extent) == (x, x + 1, y + 1, y)
    texts = [text.get_text() for text in sheet.ax_.texts]
    assert texts == sheet.captions


def test_captions_fit_below_their_pictures():
    long = [f"a very long description of class {k}" for k in range(8)]
    sheet = ContactSheet.from_predictions(X, long, long[::-1], confidence=[1.0] * 8)
    sheet.figure_.canvas.draw()
    scale = sheet.ax_.transData.transform([[0, 0], [1.12, 0]])
    widest = max(text.get_window_extent().width for text in sheet.ax_.texts)
    assert widest <= scale[1, 0] - scale[0, 0]


@pytest.mark.parametrize("n_classes", [1, 2, 1000])
def test_tables_show_their_answers_and_leave_out_skipped_images(n_classes):
    table, y = make_table(n_images=8, n_classes=n_classes, n_draws=8, skipped=[2])
    sheet = ContactSheet.from_table(table, X, y, n_images=5)
    assert len(sheet.pictures) == 5 and 2 not in sheet.images
    proba = table.predict_proba()
    for image, caption in zip(sheet.images, sheet.captions, strict=True):
        label = table.classes[proba[image].argmax()]
        assert f"{label} ({100 * proba[image].max():.0f} %)" in caption


def test_without_labels_the_least_sure_come_first_and_lengths_must_fit():
    sheet = ContactSheet.from_predictions(X, None, PREDICTED, confidence=SURE, n_images=2)
    assert sheet.images.tolist() == [5, 2] and not sheet.is_wrong.any()
    table, y = make_table(n_images=7)
    with pytest.raises(InputValueError, match="X holds 8 images, but the table 7"):
        ContactSheet.from_table(table, X, y)
    with pytest.raises(InputValueError, match="confidence has shape"):
        ContactSheet.from_predictions(X, Y, PREDICTED, confidence=[0.5])
