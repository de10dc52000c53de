"""The scenes are what their labels say, held-out handwriting is held out, folders are read."""

import numpy as np
import pytest
from PIL import Image

from diffusion_classifier import datasets
from diffusion_classifier.datasets import (
    COLOR_NAMES,
    DIGIT_NAMES,
    PALETTE,
    is_unseen_pair,
    load_image_folder,
    load_scenes,
    render_scenes,
    sample_scenes,
)

COLORS = np.array(list(PALETTE.values()), dtype=float)


def nearest_color(rgb):
    """Names of the palette colours nearest to ``rgb`` [n, 3]."""
    distance = np.linalg.norm(np.asarray(rgb, float)[:, None] - COLORS, axis=2)
    return np.array(COLOR_NAMES)[distance.argmin(1)]


def render(glyph, **changes):
    """One white digit on black, centred, without noise."""
    given = {
        "foreground": np.ones((1, 3)),
        "background": np.zeros((1, 3)),
        "offset": np.zeros((1, 2)),
        "noise": np.zeros((1, 32, 32, 3)),
    }
    return render_scenes(np.asarray(glyph, np.float32)[None], **(given | changes))[0]


def ink_box(picture):
    """First and last row, first and last column of the stroke."""
    ink = picture[:, :, 0] > 127
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("split", datasets.SPLITS)
def test_scenes_are_rgb_pictures_with_three_labels(split):
    scenes = load_scenes(split, n_samples=50)
    assert scenes.images.shape == (50, 32, 32, 3)
    assert scenes.images.dtype == np.uint8
    for labels, names in (
        (scenes.digit, DIGIT_NAMES),
        (scenes.color, COLOR_NAMES),
        (scenes.background, COLOR_NAMES),
    ):
        assert labels.shape == (50,)
        assert labels.dtype.kind == "U"
        assert set(labels) <= set(names)
    assert (scenes.color != scenes.background).all()
    assert "handwritten digit" in scenes.DESCR


def test_the_background_label_is_the_colour_of_the_corners():
    scenes = load_scenes("test", n_samples=100)
    corners = np.median(scenes.images[:, [0, 0, -1, -1], [0, -1, 0, -1]], axis=1)
    assert (nearest_color(corners) == scenes.background).all()


def test_the_colour_label_is_the_colour_of_the_stroke():
    scenes = load_scenes("test", n_samples=100)
    background = COLORS[[COLOR_NAMES.index(name) for name in scenes.background]]
    pixels = scenes.images.reshape(100, -1, 3).astype(float)
    farthest = np.linalg.norm(pixels - background[:, None], axis=2).argsort(1)[:, -20:]
    stroke = np.median(np.take_along_axis(pixels, farthest[:, :, None], 1), axis=1)
    assert (nearest_color(stroke) == scenes.color).mean() >= 0.97


def test_ten_of_seventy_pairs_are_unseen_one_per_digit():
    digit, color = np.indices((10, 7))
    unseen = is_unseen_pair(digit, color)
    assert unseen.sum() == 10
    assert (unseen.sum(1) == 1).all()
    assert is_unseen_pair(0, 0)
    assert not is_unseen_pair(0, 1)


@pytest.mark.parametrize("split", datasets.SPLITS)
def test_unseen_pairs_appear_in_their_own_split_only(split):
    _, digit, color, _ = sample_scenes(split, 300, np.random.RandomState(0))
    assert (is_unseen_pair(digit, color) == (split == "unseen_pairs")).all()


def test_held_out_handwriting_is_never_trained_on():
    glyphs, labels, train, test = datasets.handwriting()
    assert len(train) + len(test) == len(glyphs) == 1797
    assert not set(train) & set(test)
    assert len(test) == 540
    assert (np.bincount(labels[test]) > 50).all()


@pytest.mark.parametrize("split", datasets.SPLITS)
def test_each_split_draws_from_its_own_handwriting(split, monkeypatch):
    glyphs = np.concatenate([np.zeros((10, 8, 8)), np.ones((10, 8, 8))]).astype(np.float32)
    labels = np.tile(np.arange(10), 2)
    fake = (glyphs, labels, np.arange(10), np.arange(10, 20))
    monkeypatch.setattr(datasets, "handwriting", lambda: fake)
    scenes = load_scenes(split, n_samples=30)
    centre = nearest_color(np.median(scenes.images[:, 14:18, 14:18].reshape(30, -1, 3), axis=1))
    expected = scenes.background if split == "train" else scenes.color
    assert (centre == expected).all()


def test_the_same_seed_gives_the_same_scenes_and_another_seed_others():
    first, again, other = (load_scenes("test", 20, random_state=s) for s in (3, 3, 4))
    assert (first.images == again.images).all()
    assert (first.digit == again.digit).all()
    assert (first.images != other.images).any()


def test_a_random_state_moves_on_between_calls():
    rng = np.random.RandomState(0)
    first, second = load_scenes("test", 5, rng), load_scenes("test", 5, rng)
    assert (first.images == load_scenes("test", 5, 0).images).all()
    assert (first.images != second.images).any()


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'valid' is not known; use one of train, test, unseen_"):
        load_scenes("valid")


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, True, None, "5", float("nan"), float("inf")])
def test_a_number_of_samples_that_is_no_positive_integer_is_refused(n_samples):
    with pytest.raises(ValueError, match=r"n_samples=.* must be a positive integer"):
        load_scenes(n_samples=n_samples)


def test_numpy_integers_count_samples():
    assert len(load_scenes(n_samples=np.int64(2)).images) == 2


def test_a_full_square_of_ink_is_drawn_24_pixels_wide_in_the_centre():
    assert ink_box(render(np.ones((8, 8)))) == (4, 27, 4, 27)


@pytest.mark.parametrize(
    ("offset", "box"),
    [
        ((-1, 0), (0, 23, 4, 27)),
        ((1, 0), (8, 31, 4, 27)),
        ((0, 1), (4, 27, 8, 31)),
        ((0.5, -0.5), (6, 29, 2, 25)),
    ],
)
def test_offset_moves_the_digit_down_and_right_by_its_free_room(offset, box):
    assert ink_box(render(np.ones((8, 8)), offset=np.array([offset]))) == box


def test_zoom_magnifies_the_digit():
    assert ink_box(render(np.ones((8, 8)), zoom=np.array([0.5]))) == (10, 21, 10, 21)


def test_angle_turns_the_digit():
    bar = np.zeros((8, 8))
    bar[3:5] = 1
    assert ink_box(render(bar)) == (13, 18, 4, 27)
    assert ink_box(render(bar, angle=np.array([np.pi / 2]))) == (4, 27, 13, 18)


def test_noise_is_added_and_the_picture_clipped():
    noise = np.zeros((1, 32, 32, 3))
    noise[0, 0, 0], noise[0, 0, 1] = 0.2, -1
    picture = render(np.zeros((8, 8)), noise=noise)
    assert picture[0, 0].tolist() == [51, 51, 51]
    assert picture[0, 1].tolist() == [0, 0, 0]


@pytest.fixture
def folder(tmp_path):
    """Two classes: cat/{1.png, deep/2.JPG}, "big dog"/{3.webp}; and files to be left out."""
    for name in ("cat/1.png", "cat/deep/2.JPG", "big dog/3.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "stray.png").touch()
    for name in ("cat/notes.txt", "cat/.hidden.png", "cat/.thumbs/4.png", ".git/5.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "cat" / "folder.png").mkdir()
    return tmp_path


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_folder_per_class_gives_paths_labels_and_classes(folder, kind):
    bunch = load_image_folder(kind(folder))
    relative = ["big dog/3.webp", "cat/1.png", "cat/deep/2.JPG"]
    assert bunch.paths == [str(folder / name) for name in relative]
    assert bunch.labels.tolist() == ["big dog", "cat", "cat"]
    assert bunch.classes == ["big dog", "cat"]


def test_classes_come_in_the_order_scikit_learn_gives_them(tmp_path):
    for name in ("a", "a-b", "B", "a b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name / "0.png")
    bunch = load_image_folder(tmp_path)
    assert bunch.classes == np.unique(bunch.labels).tolist() == ["B", "a", "a b", "a-b"]


def test_a_folder_that_is_missing_or_a_file_is_named(folder):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_image_folder(folder / "nowhere")
    with pytest.raises(NotADirectoryError, match=r"stray\.png is a file"):
        load_image_folder(folder / "stray.png")


def test_a_folder_without_class_folders_is_refused(folder):
    with pytest.raises(ValueError, match="deep has no sub-folders"):
        load_image_folder(folder / "cat" / "deep")


def test_a_class_folder_without_images_is_named(folder):
    (folder / "emu").mkdir()
    with pytest.raises(ValueError, match="emu holds no images"):
        load_image_folder(folder)
