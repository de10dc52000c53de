"""From X to latents: pictures in any form, flattened rows, tables, or what was encoded before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_consistent_length, validate_data
from torch import Tensor

from ..backends.base import Backend
from ..backends.resolve import resolve_backend
from ..errors import InputValueError
from ..images.latents import Latents
from ..images.loader import PictureLoader
from ..images.picture import to_array
from ..images.resize import RESIZE_MODES, read_size
from ..images.sequence import read_images
from ..race.batches import IMAGES_PER_ENCODING, BatchSize, encode_from
from ..records.table import ErrorTable
from ..scoring.class_losses import LOSS_NAMES, PROMPT_REDUCTIONS
from ..utils.provenance import check_made_by
from ..utils.validation import check_option
from .labels import read_labels


class _CheckedRows(np.ndarray):
    """A table that ``fit`` has checked; its columns have lost their names, which is no mistake."""


class InputMixin:
    """What X is to the estimator."""

    backend_: Backend
    image_size_: tuple[int, int] | None
    loss_: str
    n_features_in_: int
    resize_: str

    def encode(self, X: Any) -> Latents:
        """Encode images once, for any number of questions.

        Neither classes nor prompts play a part, so that this needs no ``fit``: encode before
        cross-validation, and no image is decoded or encoded twice. A fitted classifier encodes
        for its own predictions, with the network and picture size that ``fit`` saw.

        Parameters
        ----------
        X : images of length n
            As for ``predict``.

        Returns
        -------
        Latents
            Accepted in place of X by every method, of this classifier or of any other with the
            same network and picture size. scikit-learn can slice it.

        Raises
        ------
        ValueError
            If the backend reads numeric tables, or an image cannot be read.

        Examples
        --------
        >>> from diffusion_classifier import DiffusionClassifier
        >>> from diffusion_classifier.datasets import load_scenes
        >>> DiffusionClassifier().encode(load_scenes("test", n_samples=3).images)
        Latents(n_images=3, latent_shape=(4, 8, 8))
        """
        backend = getattr(self, "backend_", None)
        if backend is None:
            backend = resolve_backend(self.backend, self.device, self.dtype)  # type: ignore[attr-defined]
        if backend.input_kind != "image":
            raise InputValueError(
                f"{type(backend).__name__} reads numeric tables, which need no encoding; pass "
                "them as X."
            )
        batch = BatchSize(IMAGES_PER_ENCODING, backend.device, 1)
        parts: list[Tensor] = []
        with torch.inference_mode(), self._image_encoder(X, backend) as (n_images, encode):
            while (first := sum(map(len, parts))) < n_images:
                parts.append(encode_from(encode, first, n_images, batch).cpu())
        # Out of inference mode, so that it is an ordinary tensor.
        return Latents(torch.cat(parts), self._picture_settings(backend))

    def _check_X_y(self, X: Any, y: Any, backend: Backend) -> tuple[Any, NDArray]:
        labels = read_labels(y, unique=X is None)
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
        if isinstance(X, Latents):
            advice = "encode the images again, with an unfitted clone(clf) if this one was fitted"
            check_made_by("these latents were", X.made_by, self._picture_settings(backend), advice)
        elif isinstance(X, ErrorTable):
            pass  # recorded errors of labelled images, to learn from
        elif X is not None and backend.input_kind == "array":
            rows, labels = validate_data(self, X, labels)
            return rows.view(_CheckedRows), labels
        elif X is not None:
            X = read_images(self._read_columns(X, backend, reset=True))
        if X is not None:
            check_consistent_length(X, labels)
        return X, labels

    @contextmanager
    def _image_encoder(
        self, X: Any, backend: Backend
    ) -> Iterator[tuple[int, Callable[[Sequence[int]], Tensor]]]:
        """The number of images in X, and a function from their indices to latents."""
        if isinstance(X, Latents):
            advice = "encode the images again"
            check_made_by("these latents were", X.made_by, self._picture_settings(backend), advice)
            yield len(X), lambda indices: X.values[list(indices)].to(backend.device)
        elif backend.input_kind == "array":
            checked = isinstance(X, _CheckedRows)
            table = X if checked else validate_data(self, X, reset=False)
            rows = torch.as_tensor(np.require(table, requirements="W"))  # torch warns of others
            yield len(rows), lambda indices: backend.encode_images(rows[list(indices)])
        else:
            images = read_images(self._read_columns(X, backend))
            with PictureLoader(images, *self._picture_format(backend)) as load:
                yield len(images), lambda indices: backend.encode_images(load(indices))

    def _read_columns(self, X: Any, backend: Backend, *, reset: bool = False) -> Any:
        """Flattened rows as pictures; columns are counted and named as scikit-learn does."""
        rows = None
        if backend.image_shape is not None and getattr(X, "ndim", 0) == 2:
            rows = to_array(X) if isinstance(X, Tensor) else np.asarray(X)
            rows = rows if rows.dtype.kind in "biuf" else None
        is_table = rows is not None or hasattr(X, "columns")
        if is_table and (reset or hasattr(self, "n_features_in_")):
            validate_data(self, X, reset=reset, skip_check_array=True)
        if rows is None:
            return X
        shape: Any = backend.image_shape
        if np.ndim(shape) != 1 or len(shape) not in (2, 3):
            raise InputValueError(
                f"image_shape={shape!r} of the backend must be (height, width), (height, width, "
                "channels) or (channels, height, width)."
            )
        if rows.shape[1] != math.prod(shape):
            raise InputValueError(
                f"X has {rows.shape[1]} columns, but image_shape={tuple(shape)} of the backend "
                f"makes {math.prod(shape)}; set image_shape to that of the flattened pictures."
            )
        return rows.reshape(-1, *shape)

    def _keep_settings(self) -> None:
        """What ``fit`` sees is what ``predict`` uses, whatever ``set_params`` says in between."""
        clf: Any = self
        check_option("prompt_reduction", clf.prompt_reduction, PROMPT_REDUCTIONS)
        self.loss_ = check_option("loss", clf.loss, LOSS_NAMES)
        self.image_size_, self.resize_ = self._chosen_format()

    def _chosen_format(self) -> tuple[tuple[int, int] | None, str]:
        clf: Any = self
        size = None if clf.image_size is None else read_size(clf.image_size)
        return size, check_option("resize", clf.resize, RESIZE_MODES)

    def _picture_format(self, backend: Backend) -> tuple[tuple[int, int] | None, str]:
        """Size of pictures, and how they come to it; by the parameters where nothing is fitted."""
        fitted = hasattr(self, "resize_")
        size, resize = (self.image_size_, self.resize_) if fitted else self._chosen_format()
        return size or backend.image_size, resize

    def _picture_settings(self, backend: Backend) -> dict[str, Any]:
        """What latents depend on, in types that JSON knows."""
        size, resize = self._picture_format(backend)
        return {**backend.identity(), "image_size": size and list(size), "resize": resize}

    def _error_settings(self) -> dict[str, Any]:
        """What errors depend on, beside images, prompts and draws."""
        return {**self._picture_settings(self.backend_), "loss": self.loss_}
