"""From X to latents: pictures in any form, flattened rows, tables, or what was encoded before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_consistent_length, validate_data
from torch import Tensor

from .backends.base import Backend
from .engine import IMAGES_PER_ENCODING, encode_from
from .error_table import ErrorTable
from .images import load_batch, read_images, read_size
from .labels import read_labels
from .latents import Latents, check_made_by
from .runtime import BatchSize
from .strategies import resolve_backend


class InputMixin:
    """What X is to the estimator."""

    backend_: Backend
    n_features_in_: int

    def encode(self, X: Any) -> Latents:
        """Encode images once, for any number of questions.

        Neither classes nor prompts play a part, so that this needs no ``fit``: encode before
        cross-validation, and no image is decoded or encoded twice.

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
            raise ValueError(
                f"{type(backend).__name__} reads numeric tables, which need no encoding; pass "
                "them as X."
            )
        n_images, encode = self._image_encoder(X, backend)
        batch = BatchSize(IMAGES_PER_ENCODING, backend.device, 1)
        parts: list[Tensor] = []
        with torch.inference_mode():
            while (first := sum(map(len, parts))) < n_images:
                parts.append(encode_from(encode, first, n_images, batch).cpu())
        # Out of inference mode, so that it is an ordinary tensor.
        return Latents(torch.cat(parts), self._picture_settings(backend))

    def _check_X_y(self, X: Any, y: Any, backend: Backend) -> tuple[Any, NDArray]:
        labels = read_labels(y, unique=X is None)
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
        if isinstance(X, Latents):
            check_made_by("these latents were", X.made_by, self._picture_settings(backend))
        elif isinstance(X, ErrorTable):
            pass  # recorded errors of labelled images, to learn from
        elif X is not None and backend.input_kind == "array":
            return validate_data(self, X, labels)
        elif X is not None:
            X = read_images(self._read_columns(X, backend, reset=True))
        if X is not None:
            check_consistent_length(X, labels)
        return X, labels

    def _image_encoder(
        self, X: Any, backend: Backend
    ) -> tuple[int, Callable[[Sequence[int]], Tensor]]:
        """The number of images in X, and a function from their indices to latents."""
        if isinstance(X, Latents):
            check_made_by("these latents were", X.made_by, self._picture_settings(backend))
            return len(X), lambda indices: X.values[list(indices)].to(backend.device)
        if backend.input_kind == "array":
            rows = torch.as_tensor(validate_data(self, X, reset=False))
            return len(rows), lambda indices: backend.encode_images(rows[list(indices)])
        images, size = read_images(self._read_columns(X, backend)), self._image_size(backend)

        def encode(indices: Sequence[int]) -> Tensor:
            return backend.encode_images(load_batch(images, indices, size, self.resize))  # type: ignore[attr-defined]

        return len(images), encode

    def _read_columns(self, X: Any, backend: Backend, *, reset: bool = False) -> Any:
        """Flattened rows as pictures; columns are counted and named as scikit-learn does."""
        rows = None
        if backend.image_shape is not None and getattr(X, "ndim", 0) == 2:
            rows = np.asarray(X)
            rows = rows if rows.dtype.kind in "biuf" else None
        is_table = rows is not None or hasattr(X, "columns")
        if is_table and (reset or hasattr(self, "n_features_in_")):
            validate_data(self, X, reset=reset, skip_check_array=True)
        if rows is None:
            return X
        shape = tuple(backend.image_shape)  # type: ignore[arg-type]
        if rows.shape[1] != math.prod(shape):
            raise ValueError(
                f"X has {rows.shape[1]} columns, but image_shape={shape} of the backend makes "
                f"{math.prod(shape)}; set image_shape to that of the flattened pictures."
            )
        return rows.reshape(-1, *shape)

    def _image_size(self, backend: Backend) -> tuple[int, int] | None:
        size = self.image_size  # type: ignore[attr-defined]
        return backend.image_size if size is None else read_size(size)

    def _picture_settings(self, backend: Backend) -> dict[str, Any]:
        """What latents depend on, in types that JSON knows."""
        size = self._image_size(backend)
        return {
            **backend.identity(),
            "image_size": size and list(size),
            "resize": self.resize,  # type: ignore[attr-defined]
        }

    def _error_settings(self) -> dict[str, Any]:
        """What errors depend on, beside images, prompts and draws."""
        return {**self._picture_settings(self.backend_), "loss": self.loss}  # type: ignore[attr-defined]
