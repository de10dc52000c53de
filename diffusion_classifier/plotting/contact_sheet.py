"""ContactSheet: pictures with their answers, the wrong ones first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..classifier import DiffusionClassifier
from ..errors import InputValueError
from ..images import read_images
from ..images.resize import resize_image
from ..records.table import ErrorTable
from ..utils.constraints import Integers, as_numbers, check
from .answers import check_labels
from .style import BLACK, VERMILION, as_label, new_axes

_SIDE = 96  # most pixels of a picture on the sheet
_ROW, _COLUMN = 1.42, 1.12  # distance of pictures, in pictures
_LONGEST = 13  # characters of a label that fit below a picture


@dataclass(eq=False)
class ContactSheet:
    """Pictures, their predicted labels and what is wrong with them.

    Wrong answers come first, the most confident ones before all, then right ones, the least
    confident first. Wrong ones have a thick frame and a cross.

    Make it with ``from_predictions``, ``from_table`` or ``from_estimator``.

    Attributes
    ----------
    pictures : list of PIL.Image.Image
        Those shown, in order.
    images : ndarray of shape (n,)
        Their indices.
    captions : list of str of length n
        Predicted label with its confidence and, if it is wrong, the true one.
    is_wrong : ndarray of shape (n,), dtype bool
    n_columns : int
        Pictures per row.
    ax_ : matplotlib.axes.Axes
        Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Set by ``plot``.

    Examples
    --------
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.plotting import ContactSheet
    >>> images = load_scenes("test", n_samples=3).images
    >>> sheet = ContactSheet.from_predictions(images, ["a", "b", "a"], ["a", "a", "a"])
    >>> sheet.images.tolist(), sheet.captions
    ([1, 0, 2], ['✗ a\\nis b', 'a', 'a'])
    """

    pictures: list[Image.Image]
    images: NDArray[np.int64]
    captions: list[str]
    is_wrong: NDArray[np.bool_]
    n_columns: int = 8
    ax_: Any = field(default=None, init=False, repr=False)
    figure_: Any = field(default=None, init=False, repr=False)

    @classmethod
    def from_estimator(
        cls, clf: DiffusionClassifier, X: Any, y: Any = None, **options: Any
    ) -> Self:
        """Predict images, and draw them with their answers.

        Parameters
        ----------
        clf : DiffusionClassifier
            Fitted.
        X : images of length n
            See ``DiffusionClassifier.predict``.
        y : array-like of shape (n,), optional
            True labels.
        **options
            Of ``from_predictions``.

        Returns
        -------
        ContactSheet

        Raises
        ------
        InputError, NetworkError
            As ``DiffusionClassifier.errors`` and ``from_predictions`` raise them.
        """
        return cls.from_table(clf.errors(X), X, y, **options)

    @classmethod
    def from_table(cls, table: ErrorTable, X: Any, y: Any = None, **options: Any) -> Self:
        """Draw the images of a table with their answers; skipped images are left out.

        Parameters
        ----------
        table : ErrorTable
        X : images of length n
            Those that the table was recorded on.
        y : array-like of shape (n,), optional
            True labels.
        **options
            Of ``from_predictions``.

        Returns
        -------
        ContactSheet

        Raises
        ------
        InputValueError
            If lengths do not fit, or an image cannot be read.
        """
        pictures = read_images(X)
        if len(pictures) != len(table):
            raise InputValueError(
                f"X holds {len(pictures)} images, but the table {len(table)}; give the images that "
                "it was recorded on."
            )
        kept = np.setdiff1d(np.arange(len(table)), [image for image, _ in table.skipped])
        y = None if y is None else check_labels(y, len(table))[kept]
        proba = table[kept].predict_proba()
        predicted = table.classes[proba.argmax(1)]
        options = {"confidence": proba.max(1), "images": kept} | options
        return cls.from_predictions(pictures[kept], y, predicted, **options)

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        y: Any,
        predicted: ArrayLike,
        *,
        confidence: ArrayLike | None = None,
        images: ArrayLike | None = None,
        n_images: int = 24,
        n_columns: int = 8,
        **options: Any,
    ) -> Self:
        """Draw images with given answers.

        Parameters
        ----------
        X : images of length n
            See ``DiffusionClassifier.predict``. Only those shown are read.
        y : array-like of shape (n,) or None
            True labels. Without them no answer is wrong.
        predicted : array-like of shape (n,)
            Predicted labels.
        confidence : array-like of shape (n,), optional
            Probability of each answer, for the order and the captions.
        images : array-like of shape (n,), optional
            Indices to keep in ``images``; by default 0 to n - 1.
        n_images : int, default=24
            Most images shown.
        n_columns : int, default=8
            Pictures per row.
        **options
            Of ``plot``.

        Returns
        -------
        ContactSheet

        Raises
        ------
        InputValueError
            If lengths do not fit, or an image cannot be read.
        """
        check("n_images", n_images, Integers(1))
        check("n_columns", n_columns, Integers(1))
        source = read_images(X)
        answers = check_labels(predicted, len(source))
        is_wrong = np.zeros(len(source), bool)
        if y is not None:
            y = check_labels(y, len(source))
            is_wrong = y != answers
        sure = np.zeros(len(source))
        if confidence is not None:
            sure = as_numbers("confidence", confidence)
            if sure.shape != (len(source),):
                raise InputValueError(
                    f"confidence has shape {sure.shape}, but must have one value for each of the "
                    f"{len(source)} images."
                )
        order = np.lexsort([np.where(is_wrong, -sure, sure), ~is_wrong])[:n_images]
        captions = []
        for place in order:
            text = _short(answers[place])
            if confidence is not None:
                text += f" ({100 * sure[place]:.0f} %)"
            if is_wrong[place]:
                text = f"✗ {text}\nis {_short(y[place])}"
            captions.append(text)
        places = np.arange(len(source)) if images is None else np.asarray(images)
        sheet = cls(
            [source[int(place)] for place in order],
            places[order],
            captions,
            is_wrong[order],
            n_columns,
        )
        return sheet.plot(**options)

    def plot(self, ax: Any = None) -> Self:
        """Draw the sheet.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            By default those of a new figure.

        Returns
        -------
        ContactSheet
            The display itself, with ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        n_columns = min(self.n_columns, max(1, len(self.pictures)))
        n_rows = -(-len(self.pictures) // n_columns)
        ax = new_axes(ax, (1.2 * _COLUMN * n_columns, 1.2 * _ROW * max(1, n_rows)))
        from matplotlib.patches import Rectangle

        for number, picture in enumerate(self.pictures):
            row, column = divmod(number, n_columns)
            left, top = _COLUMN * column, _ROW * row
            wrong = bool(self.is_wrong[number])
            color = VERMILION if wrong else BLACK
            side = min(_SIDE, max(picture.size))  # small pictures keep their pixels
            thumb = np.asarray(resize_image(picture, (side, side), "pad"))
            ax.imshow(thumb, extent=(left, left + 1, top + 1, top))
            width = 3.0 if wrong else 0.5
            ax.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=color, linewidth=width))
            place = {"ha": "center", "va": "top", "fontsize": 7, "color": color}
            ax.text(left + 0.5, top + 1.05, self.captions[number], **place)
        ax.set(xlim=(-0.05, _COLUMN * n_columns), ylim=(_ROW * max(1, n_rows), -0.05))
        ax.set_aspect("equal")
        ax.set_axis_off()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _short(label: Any) -> str:
    """Write a label so that it fits below a picture."""
    text = as_label(label)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip("\\") + "…"
