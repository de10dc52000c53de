"""What a backend's checks share: rows of images, labels and timesteps, and their errors.

A row is an image x, a label's condition c and a draw (t, eps). With the backend's schedule,
``z = alpha_t x + sigma_t eps``, and the error of the row is ``||eps_hat(z, t, c) - eps||^2``, as in
a race; other processes have errors of their own. Checks compare errors, because these are what
classes are told apart by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import Backend, Conditioning
from ..errors import InputValueError
from ..noise import MaskedTokens
from ..noise.process import Corrupted, Levels, process_of

PROMPTS = ("a cat", "a dog", "two eels", "x")
LONG = "a very long prompt, of more words than any other prompt that is beside it here"
SHARES = (0.03, 0.48, 0.97)  # of the way from image to noise, at which errors are compared


class Rows(NamedTuple):
    """Rows of the network: latents, noise, timesteps and conditions."""

    x: Tensor
    eps: Tensor
    t: Tensor
    condition: Conditioning

    def pick(self, index: Any) -> Rows:
        """Return some of the rows."""
        return Rows(self.x[index], self.eps[index], self.t[index], self.condition[index])


@dataclass(frozen=True)
class Subject:
    """A backend and what it is checked with.

    Attributes
    ----------
    backend : Backend
    images : Tensor of shape (B, ...)
        What ``encode_images`` is given.
    labels : tuple
        Labels, which are also the prompts.
    company : str or int
        A label that is encoded beside another one, to see whether that changes.
    """

    backend: Backend
    images: Tensor
    labels: tuple[Any, ...]
    company: Any

    @property
    def timesteps(self) -> list[int]:
        """Timesteps near the image, in the middle and near the noise."""
        n = self.backend.schedule.n_timesteps
        return [int(share * n) for share in SHARES]

    def encode(self, labels: Sequence[Any], backend: Backend | None = None) -> Conditioning:
        """Encode labels as their own prompts."""
        return (backend or self.backend).encode_classes(list(labels), [str(k) for k in labels])

    @cached_property
    def own_rows(self) -> Rows:
        """The rows of the backend itself, encoded once."""
        return self.rows()

    @cached_property
    def own_errors(self) -> Tensor:
        """The errors of the backend itself, [image, label, timestep], computed in one batch."""
        return self.all_errors(self.backend)

    def rows(self, backend: Backend | None = None, labels: Sequence[Any] | None = None) -> Rows:
        """Return a row for every image, label and timestep, in this order."""
        backend, labels = backend or self.backend, self.labels if labels is None else labels
        x, condition = backend.encode_images(self.images.clone()), self.encode(labels, backend)
        i, p, j = torch.cartesian_prod(
            torch.arange(len(x)), torch.arange(len(labels)), torch.arange(len(self.timesteps))
        ).T.to(x.device)
        generator = torch.Generator().manual_seed(0)
        eps = torch.randn(len(SHARES), *x.shape[1:], generator=generator).to(x.device)
        return Rows(x[i], eps[j], torch.tensor(self.timesteps, device=x.device)[j], condition[p])

    def all_errors(self, backend: Backend) -> Tensor:
        """Return errors [image, label, timestep] of a twin, computed in one batch."""
        rows = self.own_rows if backend is self.backend else self.rows(backend)
        errors = row_errors(backend, rows)
        return errors.view(len(self.images), len(self.labels), len(SHARES))


@torch.inference_mode()
def row_errors(backend: Backend, rows: Rows) -> Tensor:
    """Return the errors [R] of rows."""
    process = process_of(backend.prediction_type)
    z, target = corrupted(backend, rows)
    output = backend.forward(z, rows.t.clone(), rows.condition)
    scale = process.scale(*(level.float().to(z.device) for level in backend.schedule.at(rows.t)))
    return process.errors(output, target, scale, "l2")


def corrupted(backend: Backend, rows: Rows) -> Corrupted:
    """Return what the network is given for rows, and its targets."""
    x, eps, t, _ = rows
    process = process_of(backend.prediction_type)
    process.check(x, backend.schedule)
    alpha, sigma = (
        level.float().to(x.device).view(-1, *[1] * (x.ndim - 1)) for level in backend.schedule.at(t)
    )
    return process.corrupt(x, eps, Levels(alpha, sigma, t), backend.dtype)


def require(fact: Any, message: str) -> None:
    """Raise AssertionError with a message unless a fact holds, also under ``python -O``."""
    if not fact:
        raise AssertionError(message)


def require_close(
    found: Tensor, expected: Tensor, message: str, rtol: float = 1e-5, atol: float = 1e-5
) -> None:
    """Raise AssertionError with a message, and the place and size of the largest difference."""
    if found.shape != expected.shape:
        raise AssertionError(
            f"the shapes {tuple(found.shape)} and {tuple(expected.shape)} differ; {message}"
        )
    found, expected = found.double(), expected.double()
    if torch.allclose(found, expected, rtol=rtol, atol=atol, equal_nan=True):
        return
    off = (found - expected).abs() / (atol + rtol * expected.abs())
    place = [int(k) for k in torch.unravel_index(off.nan_to_num(torch.inf).argmax(), off.shape)]
    index = tuple(place)
    got, wanted = found[index].item(), expected[index].item()
    raise AssertionError(f"at {place} is {got:.6g} instead of {wanted:.6g}; {message}")


def make_subject(
    backend: Backend, images: Tensor | None = None, labels: Sequence[Any] | None = None
) -> Subject:
    """Return what a backend is checked with; see ``check_backend``."""
    if labels is None:
        labels = (
            PROMPTS if backend.text_conditional else getattr(backend, "classes", None) or (0, 1)
        )
        labels = labels[:4]
    if images is None:
        shape = backend.input_shape
        if backend.input_kind == "image":
            shape = (3, *(backend.image_size or (16, 16)))
        elif shape is None:
            raise InputValueError(
                "the backend states no input_shape; give images, an array [B, ...] of inputs."
            )
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(2, *shape, generator=generator) * 2 - 1
        tokens = isinstance(process_of(backend.prediction_type), MaskedTokens)
        if tokens and backend.input_kind == "array":
            images = (images > 0).float()  # every vocabulary has tokens 0 and 1
    for name, values in (("labels", labels), ("images", images)):
        if len(values) < 2:
            raise InputValueError(f"{name} has {len(values)} element(s); give at least two.")
    return Subject(backend, images, tuple(labels), LONG if backend.text_conditional else labels[-1])
