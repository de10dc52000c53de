"""Reading of X: images in any form, flattened images, numeric tables, latents and error tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_consistent_length, validate_data
from torch import Tensor

from ..backends.base import Backend
from ..errors import InputValueError
from ..images.latents import Latents
from ..images.loader import PictureLoader
from ..images.picture import to_array, unmasked
from ..images.sequence import read_images
from ..race.batches import IMAGES_PER_ENCODING, BatchSize, encode_from
from ..records.table import ErrorTable
from ..store.keys import array_key, picture_key
from ..utils.provenance import check_made_by
from ..utils.validation import check_option
from .classes.labels import read_labels
from .settings import PictureFormat

_PROBE_SIDE = 64  # pixels, for models without a fixed image size

OnError = Literal["raise", "skip"]
ON_ERROR: tuple[str, ...] = get_args(OnError)


class _CheckedRows(np.ndarray):
    """Table that ``fit`` has checked; its type avoids a warning about missing column names."""


class OpenImages(NamedTuple):
    """Images that are ready to be encoded.

    Attributes
    ----------
    n_images : int
    encode : callable
        Maps n indices to latents [n, ...]; those of a skipped image mean nothing.
    skipped : dict of int to str
        Images that cannot be read, and why. It is complete for the images encoded so far, and
        empty unless they are to be skipped.
    key : callable
        Maps an index to a hash of what is encoded: the resized picture, the row or the latent.
    """

    n_images: int
    encode: Callable[[Sequence[int]], Tensor]
    skipped: dict[int, str]
    key: Callable[[int], bytes]


@dataclass(frozen=True)
class Inputs:
    """Reader of the X passed to one estimator.

    Attributes
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set and checked.
    backend : Backend
    pictures : PictureFormat
    """

    estimator: BaseEstimator
    backend: Backend
    pictures: PictureFormat

    def check(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """Check X and y of ``fit``; the returned X can be indexed with an array.

        Raises
        ------
        InputValueError
            If X cannot be read, or X and y differ in length.
        """
        labels = read_labels(y, unique=X is None)
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self.estimator).pop(name, None)
        if isinstance(X, Latents):
            advice = "encode the images again, with an unfitted clone(clf) if this one was fitted"
            self._check_latents(X, advice)
        elif isinstance(X, ErrorTable):
            pass  # recorded errors of labelled images, from which strategies learn
        elif X is not None and self.backend.input_kind == "array":
            rows, labels = self._read_arrays(X, labels)
            return rows.view(_CheckedRows), labels
        elif X is not None:
            X = read_images(self._read_columns(X, reset=True))
        if X is not None:
            check_consistent_length(X, labels)
        return X, labels

    @contextmanager
    def open(self, X: Any, on_error: str = "raise") -> Iterator[OpenImages]:
        """Open the images in X; inside the block, files are decoded ahead of the network.

        Raises
        ------
        InputError
            If X cannot be read. With ``on_error="raise"`` also if an image cannot: files without
            an image's header raise before the block is entered, damaged ones when they are encoded.
        """
        skip = check_option("on_error", on_error, ON_ERROR) == "skip"
        with self._encoder(X, skip) as images:
            if skip:
                encode = _skipping_non_finite(images.encode, images.skipped)
                images = images._replace(encode=encode)
            yield images

    @contextmanager
    def _encoder(self, X: Any, skip: bool) -> Iterator[OpenImages]:
        """Open the images in X; those in files that cannot be read are skipped already."""
        backend = self.backend
        if isinstance(X, Latents):
            self._check_latents(X, "encode the images again")
            yield OpenImages(
                len(X),
                lambda indices: X.values[list(indices)].to(backend.device),
                {},
                lambda i: array_key(X.values[i], "latent"),
            )
        elif backend.input_kind == "array":
            table = X if isinstance(X, _CheckedRows) else self._read_arrays(X, finite=not skip)[0]
            # torch warns about arrays that are not writable, and refuses reversed ones.
            rows = torch.as_tensor(np.require(table, requirements=["C", "W"]))
            yield OpenImages(
                len(rows),
                lambda indices: backend.encode_images(rows[list(indices)]),
                {},
                lambda i: array_key(rows[i], "row"),
            )
        else:
            images = read_images(self._read_columns(X), check=not skip)
            if not skip:
                images.check_files()
            size = self.pictures.size_for(backend)
            with PictureLoader(images, size, self.pictures.resize, skip=skip) as load:
                yield OpenImages(
                    len(images),
                    lambda indices: backend.encode_images(load(indices)),
                    load.skipped,
                    lambda i: picture_key(load.pictures([i])[0]),
                )

    def survey(self, X: Any, on_error: str, *, read: bool) -> tuple[int, dict[int, str]]:
        """Return the number of images in X, and those to be skipped, with the reasons.

        The latter are known only if all images are read. Pictures are decoded, but not encoded.
        """
        with torch.inference_mode(), self.open(X, on_error) as images:
            is_picture = self.backend.input_kind == "image" and not isinstance(X, Latents)
            everything = range(images.n_images if read else 0)
            for first in everything[:: 1 if is_picture else IMAGES_PER_ENCODING]:
                if is_picture:
                    images.key(first)
                else:  # encoding finds values that are not finite
                    images.encode(everything[first : first + IMAGES_PER_ENCODING])
            return images.n_images, dict(images.skipped)

    def encode(self, X: Any) -> Latents:
        """Encode all images in X; the latents are in main memory.

        Raises
        ------
        InputValueError
            If the backend reads numeric tables, or an image cannot be read.
        """
        if self.backend.input_kind != "image":
            raise InputValueError(
                f"{type(self.backend).__name__} reads numeric tables, which need no encoding; pass "
                "them as X."
            )
        batch = BatchSize(IMAGES_PER_ENCODING, padded_to_full=True)
        parts: list[Tensor] = []
        with torch.inference_mode(), self.open(X) as images:
            while (first := sum(map(len, parts))) < images.n_images:
                parts.append(encode_from(images.encode, first, images.n_images, batch).cpu())
        # Concatenate outside inference mode to get an ordinary tensor.
        return Latents(torch.cat(parts), self.pictures.made_by(self.backend))

    def grey_image(self) -> NDArray[Any]:
        """Make an X of one grey image, for timing the network."""
        if self.backend.input_kind == "array":
            return np.zeros((1, *(self.backend.input_shape or (self.estimator.n_features_in_,))))
        height, width = self.pictures.size_for(self.backend) or (_PROBE_SIDE, _PROBE_SIDE)
        return np.full((1, height, width, 3), 128, np.uint8)

    def _check_latents(self, latents: Latents, advice: str) -> None:
        """Raise if latents were made by another network or with another image format."""
        settings = self.pictures.made_by(self.backend)
        check_made_by("these latents were", latents.made_by, settings, advice)

    def _read_arrays(self, X: Any, y: Any = None, *, finite: bool = True) -> tuple[Any, Any]:
        """Check numeric arrays as scikit-learn does; ``y`` are the labels of ``fit``.

        Rows [N, F] have their columns counted. Arrays [N, ...] are read as they are, for a backend
        with an ``input_shape``.

        Raises
        ------
        InputValueError
            If X has more axes than the backend reads, or masked values.
        """
        X = unmasked(X, "X")
        X = to_array(X) if isinstance(X, Tensor) else X
        shape = getattr(X, "shape", ())
        if len(shape) <= 2:
            if y is not None:
                return validate_data(self.estimator, X, y)
            rows = validate_data(self.estimator, X, reset=False, ensure_all_finite=finite)
            return rows, None
        if self.backend.input_shape is None:
            raise InputValueError(
                f"X has shape {shape}, but {type(self.backend).__name__} reads rows (n, features); "
                f"pass X.reshape(len(X), -1), or a backend with input_shape={shape[1:]}."
            )
        if y is not None:
            check_consistent_length(X, y)
        return check_array(X, allow_nd=True, ensure_all_finite=finite, input_name="X"), y

    def _read_columns(self, X: Any, *, reset: bool = False) -> Any:
        """Reshape flattened images, and check column names and counts as scikit-learn does."""
        X, rows = unmasked(X, "X"), None
        if self.backend.image_shape is not None and getattr(X, "ndim", 0) == 2:
            rows = to_array(X) if isinstance(X, Tensor) else np.asarray(X)
            rows = rows if rows.dtype.kind in "biuf" else None
        is_table = rows is not None or hasattr(X, "columns")
        if is_table and (reset or hasattr(self.estimator, "n_features_in_")):
            validate_data(self.estimator, X, reset=reset, skip_check_array=True)
        if rows is None:
            return X
        shape: Any = self.backend.image_shape
        if np.ndim(shape) != 1 or len(shape) not in (2, 3):
            raise InputValueError(
                f"the backend's image_shape={shape!r} must be (height, width), (height, width, "
                "channels) or (channels, height, width)."
            )
        if rows.shape[1] != math.prod(shape):
            raise InputValueError(
                f"X has {rows.shape[1]} columns, but the backend's image_shape={tuple(shape)} "
                f"has {math.prod(shape)} values; set image_shape to the shape of your images."
            )
        return rows.reshape(-1, *shape)


def _skipping_non_finite(
    encode: Callable[[Sequence[int]], Tensor], skipped: dict[int, str]
) -> Callable[[Sequence[int]], Tensor]:
    """Wrap an encoder to skip images whose latents have NaN or infinity, which become numbers."""

    def encode_finite(indices: Sequence[int]) -> Tensor:
        latents = encode(indices)
        if not isinstance(latents, Tensor) or len(latents.shape) == 0:
            return latents  # the race says what is wrong with it
        is_good = latents.isfinite().reshape(len(latents), -1).all(1).tolist()
        for image, good in zip(indices, is_good, strict=False):
            if not good:
                skipped[image] = f"image {image} has NaN or infinite values; remove or fix it."
        return latents if all(is_good) else torch.nan_to_num(latents)

    return encode_finite
