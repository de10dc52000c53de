r"""The engine: computes the errors of (image, prompt, draw) rows with the network.

For every row, with ``x`` the image's latent and (t, eps) the draw,

    z   = alpha_t x + sigma_t eps             once per (image, draw), shared by prompts
    err = loss(network(z, t, condition))      one evaluation

A batch mixes rows of many images, prompts and draws; each row picks its ``z`` and condition by
index. The host synchronises with the device once per step, to read the errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..backends.base import Backend, Conditioning, check_output
from ..errors import InputValueError, NonFiniteOutputError
from ..noise.draws import Draws
from ..noise.prediction import PREDICTION_TYPES, expand, noise_errors, noise_residual
from ..noise.variational import VariationalBound
from .batches import BatchSize, BatchSizeOption, encode_from
from .source import Request

_NOISE_CACHE_BYTES = 256 * 2**20


class Engine:
    """Error source that evaluates the network.

    Parameters
    ----------
    backend : Backend
    condition : Conditioning
        One row per prompt.
    encode : callable
        ``encode(indices)`` returns the latents [n, ...] of the images with these indices.
    n_images : int
    loss : {"l2", "l1", "huber", "vlb"}
    batch_size : "auto" or int
    on_evaluations : callable, optional
        Called with the number of evaluations after every step.
    """

    def __init__(
        self,
        backend: Backend,
        condition: Conditioning,
        encode: Callable[[Sequence[int]], Tensor],
        n_images: int,
        *,
        loss: str = "l2",
        batch_size: BatchSizeOption = "auto",
        on_evaluations: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.backend = backend
        self.condition = condition.to(backend.device)
        self.n_prompts = len(condition)
        self.n_images = n_images
        self.loss = loss
        self._network = f"{type(backend).__name__}.forward"  # in messages
        self._bound = VariationalBound(backend.schedule) if loss == "vlb" else None
        self._encode = encode
        self._on_evaluations = on_evaluations
        self._latents: dict[int, Tensor] = {}
        self._is_released = bytearray(n_images)  # decided from records before they were encoded
        self._noise: dict[Draws, Tensor] = {}
        self._shape: torch.Size | None = None  # of every latent
        self._encoding = BatchSize.of_encoder(batch_size)
        n_elements = self.latent(0).numel()
        self._batch = BatchSize.of_network(batch_size, backend.device, n_elements)

    @property
    def rows_wanted(self) -> int:
        return self._batch.rows_wanted

    @torch.inference_mode()
    def latent(self, image: int) -> Tensor:
        """Return the latent of an image; the images after it are encoded in the same batch."""
        if image not in self._latents:
            latents = encode_from(self._encode, image, self.n_images, self._encoding)
            self._shape = self._shape or latents.shape[1:]
            if latents.shape[1:] != self._shape:
                raise InputValueError(
                    f"image {image} has a latent of shape {tuple(latents.shape[1:])}, but earlier "
                    f"images have {tuple(self._shape)}; set image_size to resize all images."
                )
            self._latents |= {
                i: latent
                for i, latent in enumerate(latents, image)
                if i == image or not self._is_released[i]
            }
        return self._latents[image]

    def release(self, image: int) -> None:
        self._latents.pop(image, None)
        self._is_released[image] = True

    @torch.inference_mode()
    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Compute the errors [A, J] of each request, in float32 on the CPU.

        Raises
        ------
        NonFiniteOutputError
            If the network returns NaN or infinity.
        OutOfMemoryError
            If memory runs out with a single row.
        """
        rows = _Rows.of(requests, self.backend.device)
        noised = self._noise_images(requests)
        errors = torch.cat(list(self._batches(rows, noised))).cpu()
        self._check_finite(errors, rows, requests)
        self._on_evaluations(len(errors))
        parts = errors.split([request.n_rows for request in requests])
        return [
            part.view(request.n_draws, len(request.prompts)).T
            for part, request in zip(parts, requests, strict=True)
        ]

    def _noise_images(self, requests: Sequence[Request]) -> _Noised:
        """Add noise to the images, for every (image, draw) of the step."""
        device = self.backend.device
        kind = PREDICTION_TYPES[self.backend.prediction_type]
        z, target, scales, times, clean = [], [], [], [], []
        for request in requests:
            x = self.latent(request.image)
            for draws in request.rounds:
                alpha, sigma = self.backend.schedule.at(draws.timesteps)
                scales.append(kind.scale(alpha, sigma))
                times.append(draws.timesteps)
                noise = self._noise_of(draws, x.shape).to(x.dtype)
                alpha, sigma = expand(alpha, noise), expand(sigma, noise)
                z.append(alpha * x + sigma * noise)
                target.append(kind.target(x.expand_as(noise), noise, alpha, sigma))
                if self._bound is not None:
                    clean.append(x.expand_as(noise))
        return _Noised(
            torch.cat(z),
            torch.cat(times).to(device, non_blocking=True),
            torch.cat(target),
            torch.cat(scales).float().to(device, non_blocking=True),
            torch.cat(clean) if clean else None,
        )

    def _noise_of(self, draws: Draws, shape: torch.Size) -> Tensor:
        """Return a round's noise on the device; cached there, as all images share it."""
        if draws not in self._noise:
            noise = draws.noise(shape).to(self.backend.device, non_blocking=True)
            held = sum(tensor.nbytes for tensor in self._noise.values())
            if held + noise.nbytes > _NOISE_CACHE_BYTES:
                return noise
            self._noise[draws] = noise
        return self._noise[draws]

    def _batches(self, rows: _Rows, noised: _Noised) -> Iterator[Tensor]:
        """Yield the errors of all rows, batch by batch."""
        start = 0
        while start < len(rows):

            def evaluate(n_rows: int, start: int = start) -> Tensor:
                stop = min(start + n_rows, len(rows))
                batch = rows.slice(start, stop, self._batch.padded(stop - start))
                return self._errors_of(batch, noised)[: stop - start]

            errors = self._batch.attempt(evaluate)
            start += len(errors)
            yield errors

    def _errors_of(self, rows: _Rows, noised: _Noised) -> Tensor:
        """Compute the errors of a batch of rows with one network call."""
        pair = rows.pair
        z, t = noised.z[pair].to(self.backend.dtype), noised.t[pair]
        condition = self.condition[rows.prompt]
        target, scale = noised.target[pair], noised.scale[pair]
        if self._bound is None or noised.clean is None:
            output = check_output(self.backend.forward(z, t, condition), z.shape, self._network)
            return noise_errors(output, target, scale, self.loss)
        both = self.backend.forward_with_variance(z, t, condition)
        output, variance = (check_output(half, z.shape, self._network) for half in both)
        residual = noise_residual(output, target, scale)
        return self._bound.errors(residual, variance, noised.clean[pair], t)

    def _check_finite(self, errors: Tensor, rows: _Rows, requests: Sequence[Request]) -> None:
        """Raise with the timestep, image and prompt of the first error that is not finite."""
        bad = (~errors.isfinite()).nonzero()[:, 0]
        if not len(bad):
            return
        row = int(bad[0])
        bounds = torch.tensor([request.n_rows for request in requests]).cumsum(0)
        number = int(torch.searchsorted(bounds, row, right=True))
        request = requests[number]
        offset = row - (int(bounds[number - 1]) if number else 0)
        timesteps = torch.cat([draws.timesteps for draws in request.rounds])
        timestep = int(timesteps[offset // len(request.prompts)])
        error = NonFiniteOutputError(
            f"the network returned NaN or infinity at timestep {timestep} in {self.backend.dtype} "
            f"(image {request.image}, prompt {int(request.prompts[offset % len(request.prompts)])}"
            f", {len(bad)} of {len(errors)} evaluations). No prediction was made. "
            'Try dtype="bfloat16" or dtype="float32", and check the images and the weights.'
        )
        error.image = request.image
        raise error


class _Noised(NamedTuple):
    """Noisy images and prediction targets, one row per (image, draw)."""

    z: Tensor
    t: Tensor
    target: Tensor
    scale: Tensor
    clean: Tensor | None  # the latents without noise, if the loss needs them


@dataclass(frozen=True)
class _Rows:
    """The (image, draw) index and the prompt index of every row."""

    pair: Tensor
    prompt: Tensor

    @classmethod
    def of(cls, requests: Sequence[Request], device: torch.device) -> _Rows:
        """List all rows of the requests, draw-major within an image."""
        pairs, prompts, first = [], [], 0
        for request in requests:
            pairs.append(
                torch.arange(first, first + request.n_draws).repeat_interleave(len(request.prompts))
            )
            prompts.append(request.prompts.repeat(request.n_draws))
            first += request.n_draws
        return cls(*(torch.cat(parts).to(device, non_blocking=True) for parts in (pairs, prompts)))

    def __len__(self) -> int:
        return len(self.pair)

    def slice(self, start: int, stop: int, length: int) -> _Rows:
        """Return rows ``start:stop``, padded to ``length`` with copies of the last row."""
        index = torch.arange(start, start + length, device=self.pair.device).clamp(max=stop - 1)
        return _Rows(self.pair[index], self.prompt[index])
