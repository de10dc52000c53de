r"""Images to classify: coloured scenes of real handwritten digits, and folders of the user's own.

A *scene* is a 32 x 32 RGB picture of a handwritten digit in one colour on a background of
another. With ``m`` the digit's ink (1 on the stroke, 0 off it), placed at a random position,

    image = m * foreground + (1 - m) * background + noise,

both colours slightly jittered. One picture therefore has three independent labels (digit,
colour, background), and a zero-shot classifier can be asked for any of them.

The handwriting is the UCI "Optical Recognition of Handwritten Digits" test set that ships
with scikit-learn (1,797 digits of 8 x 8 pixels, by 13 writers; CC BY 4.0).
"""

from __future__ import annotations

import os
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch, check_random_state

from .errors import InputValueError, MissingFileError, NotAFolderError
from .images.files import IMAGE_SUFFIXES, is_image_name

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PALETTE = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (150, 60, 190),
    "white": (240, 240, 240),
    "black": (20, 20, 20),
}
COLOR_NAMES = tuple(PALETTE)
# All that captions of scenes are made of, and so all that the embedded model has read.
CAPTION_WORDS = (
    *("a", "photo", "of", "the", "digit", "number", "handwritten", "on", "background"),
    *(*DIGIT_NAMES, *COLOR_NAMES),
)
SCENE_SIZE = 32  # pixels
GLYPH_SIZE = 24  # pixels that the 8 x 8 digit is enlarged to
Split = Literal["train", "test", "unseen_pairs"]
SPLITS: tuple[Split, ...] = get_args(Split)

Index = TypeVar("Index", int, NDArray[np.integer])


class Handwriting(NamedTuple):
    """Handwritten digits, split between training and testing."""

    glyphs: NDArray[np.float32]  # [1797, 8, 8], ink in [0, 1]
    digits: NDArray[np.int64]  # [1797], what each glyph shows
    train: NDArray[np.intp]  # 70 % of the indices
    test: NDArray[np.intp]  # the other 30 %


class Scenes(NamedTuple):
    """Scenes with their labels as indices into ``DIGIT_NAMES`` and ``COLOR_NAMES``."""

    images: NDArray[np.uint8]  # [n, 32, 32, 3]
    digit: NDArray[np.int64]  # [n]
    color: NDArray[np.int64]  # [n]
    background: NDArray[np.int64]  # [n]


def is_unseen_pair(digit: Index, color: Index) -> bool | NDArray[np.bool_]:
    """Return whether a (digit, colour) pair was kept out of training, as 10 of the 70 pairs were.

    Parameters
    ----------
    digit, color : int or ndarray of int
        Indices into ``DIGIT_NAMES`` and ``COLOR_NAMES``.

    Returns
    -------
    bool or ndarray of bool
    """
    return (3 * digit + 5 * color) % len(COLOR_NAMES) == 0


@lru_cache(maxsize=1)
def handwriting() -> Handwriting:
    """Return all handwritten digits; training and testing share none of them."""
    digits = load_digits()
    train, test = train_test_split(
        np.arange(len(digits.target)), test_size=0.3, stratify=digits.target, random_state=0
    )
    return Handwriting((digits.images / 16.0).astype(np.float32), digits.target, train, test)


def render_scenes(
    glyphs: NDArray[np.float32],
    foreground: NDArray[np.float64],
    background: NDArray[np.float64],
    offset: NDArray[np.float64],
    noise: NDArray[np.float64],
    angle: ArrayLike | None = None,
    zoom: ArrayLike | None = None,
) -> NDArray[np.uint8]:
    """Draw digits as colour scenes.

    Parameters
    ----------
    glyphs : ndarray of shape (n, 8, 8)
        Ink in [0, 1].
    foreground, background : ndarray of shape (n, 3)
        RGB in [0, 1].
    offset : ndarray of shape (n, 2)
        Position of the digit, down and right, from -1 to 1 (the edges of the picture); 0 is the
        centre.
    noise : ndarray of shape (n, 32, 32, 3)
        Added to the picture, in units of its [0, 1] range.
    angle, zoom : ndarray of shape (n,), optional
        Rotation in radians and magnification of the digit. By default 0 and 1.

    Returns
    -------
    ndarray of shape (n, 32, 32, 3), dtype uint8
    """
    n = len(glyphs)
    angle = np.zeros(n) if angle is None else np.asarray(angle)
    zoom = np.ones(n) if zoom is None else np.asarray(zoom)
    # affine_grid maps output to input coordinates, both in [-1, 1]: input = A (output - shift)
    scale = SCENE_SIZE / (GLYPH_SIZE * zoom)
    room = 1.0 - np.minimum(GLYPH_SIZE * zoom / SCENE_SIZE, 1.0)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    shift = np.stack([offset[:, 1] * room, offset[:, 0] * room], 1)
    theta = np.concatenate([linear, -(linear @ shift[:, :, None])], axis=2)
    grid = F.affine_grid(
        torch.as_tensor(theta, dtype=torch.float32),
        [n, 1, SCENE_SIZE, SCENE_SIZE],
        align_corners=False,
    )
    drawn = F.grid_sample(
        torch.as_tensor(glyphs)[:, None], grid, mode="bicubic", align_corners=False
    )
    ink = drawn.clamp(0, 1)[:, 0, :, :, None].numpy()
    picture = ink * foreground[:, None, None] + (1 - ink) * background[:, None, None] + noise
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def sample_scenes(split: Split, n_samples: int, rng: np.random.RandomState) -> Scenes:
    """Draw ``n_samples`` scenes of a split at random."""
    glyphs, digits, train, test = handwriting()
    pool = train if split == "train" else test
    index, color, background = (np.empty(0, np.int64) for _ in range(3))
    while len(index) < n_samples:  # rejection sampling; most candidates of "train" are accepted
        i = rng.choice(pool, size=4 * n_samples + 64)
        f, b = rng.randint(len(COLOR_NAMES), size=(2, len(i)))
        keep = (f != b) & (is_unseen_pair(digits[i], f) == (split == "unseen_pairs"))
        index = np.append(index, i[keep])[:n_samples]
        color = np.append(color, f[keep])[:n_samples]
        background = np.append(background, b[keep])[:n_samples]
    palette = np.array(list(PALETTE.values())) / 255.0

    def paint(which: NDArray[np.int64]) -> NDArray[np.float64]:
        return palette[which] + 0.04 * rng.standard_normal((n_samples, 1))

    images = render_scenes(
        glyphs[index],
        paint(color),
        paint(background),
        rng.uniform(-1, 1, size=(n_samples, 2)),
        0.01 * rng.standard_normal((n_samples, SCENE_SIZE, SCENE_SIZE, 3)),
    )
    return Scenes(images, digits[index], color, background)


def load_scenes(
    split: Split = "train",
    n_samples: int = 1000,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """Make coloured scenes of real handwritten digits, with three labels each.

    The embedded model (:class:`~diffusion_classifier.DiffusionClassifier` without a backend)
    was trained on the ``"train"`` split only. It has seen neither the handwritten digits of
    ``"test"`` and ``"unseen_pairs"`` nor the (digit, colour) pairs of ``"unseen_pairs"``.

    Parameters
    ----------
    split : {"train", "test", "unseen_pairs"}, default="train"
        ``"test"``: digits kept out of training, in (digit, colour) pairs that training has.
        ``"unseen_pairs"``: the same digits, in the pairs kept out of training (one in seven).
    n_samples : int, default=1000
        Number of scenes.
    random_state : int, RandomState instance or None, default=0
        Seed of the choice of digits, colours, positions and noise.

    Returns
    -------
    sklearn.utils.Bunch
        ``images`` : ndarray of shape (n_samples, 32, 32, 3), dtype uint8;
        ``digit``, ``color``, ``background`` : ndarrays of str of shape (n_samples,);
        ``DESCR`` : str.

    Raises
    ------
    InputValueError
        If ``split`` is not one of the three or ``n_samples`` is not a positive integer.

    Notes
    -----
    Handwriting: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits",
    UCI Machine Learning Repository, 1998, CC BY 4.0, as shipped with scikit-learn.

    Examples
    --------
    >>> from diffusion_classifier.datasets import load_scenes
    >>> scenes = load_scenes("test", n_samples=3)
    >>> scenes.images.shape
    (3, 32, 32, 3)
    >>> sorted(set(scenes.color) - set(scenes.background)) != []
    True
    """
    if split not in SPLITS:
        raise InputValueError(f"split={split!r} is not known; use one of {', '.join(SPLITS)}.")
    if isinstance(n_samples, bool) or not isinstance(n_samples, Integral) or n_samples < 1:
        raise InputValueError(f"n_samples={n_samples!r} must be a positive integer.")
    images, digit, color, background = sample_scenes(
        split, int(n_samples), check_random_state(random_state)
    )
    return Bunch(
        images=images,
        digit=np.array(DIGIT_NAMES)[digit],
        color=np.array(COLOR_NAMES)[color],
        background=np.array(COLOR_NAMES)[background],
        DESCR=__doc__,
    )


def load_image_folder(path: str | os.PathLike[str]) -> Bunch:
    """List the images and labels of a folder that holds one sub-folder per class.

    A folder without sub-folders can be passed as X directly: ``clf.predict("folder")``.

    Parameters
    ----------
    path : str or path-like
        A folder whose sub-folders are named after the classes and hold their images, at any
        depth. Hidden files and files without an image suffix are ignored.

    Returns
    -------
    sklearn.utils.Bunch
        ``paths`` : list of str, sorted within each class; ``labels`` : ndarray of str of shape
        (n_images,), the class folder of each path; ``classes`` : list of str, sorted.

    Raises
    ------
    MissingFileError
        If ``path`` does not exist.
    NotAFolderError
        If ``path`` is a file.
    InputValueError
        If it has no class folders, or a class folder holds no image.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from PIL import Image
    >>> from diffusion_classifier.datasets import load_image_folder
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (root / name).mkdir()
    ...     Image.new("RGB", (8, 8)).save(root / name / "0.png")
    >>> load_image_folder(root).labels.tolist()
    ['cat', 'dog']
    """
    root = Path(path)
    if not root.exists():
        raise MissingFileError(f"{root} does not exist; give a folder with one folder per class.")
    if not root.is_dir():
        raise NotAFolderError(f"{root} is a file; give a folder with one folder per class.")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputValueError(f"{root} has no sub-folders; it should hold one folder per class.")
    paths: list[str] = []
    labels: list[str] = []
    for folder in folders:
        found = sorted(
            str(p)
            for p in folder.rglob("*")
            if is_image_name(p)
            and p.is_file()
            and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        )
        if not found:
            raise InputValueError(
                f"class folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); "
                "add some or remove the folder."
            )
        paths += found
        labels += [folder.name] * len(found)
    return Bunch(paths=paths, labels=np.array(labels), classes=[f.name for f in folders])
