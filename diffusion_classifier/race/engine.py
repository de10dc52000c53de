r"""The engine: computes the errors of (image, prompt, draw) rows with the network.

For every row, with ``x`` the image's latent and (t, eps) the draw, for a diffusion model

    z   = alpha_t x + sigma_t eps             once per (image, draw), shared by prompts
    err = loss(network(z, t, condition))      one evaluation

Other generators corrupt images in other ways: :mod:`diffusion_classifier.noise.process`.

A batch mixes rows of many images, prompts and draws; each row picks its ``z`` and condition by
index. The host waits for the device once per step, to read the errors. On a CUDA device, it queues
the next step before that, so that the device works on while the host judges.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ..backends.base import Backend, Conditioning, check_output
from ..errors import InputValueError, NonFiniteOutputError
from ..noise.draws import Draws
from ..noise.prediction import expand, noise_residual
from ..noise.process import Levels, process_of
from ..noise.variational import VariationalBound
from .batches import BatchSize, BatchSizeOption, encode_from, is_fixed
from .memory import memory_of, meter_of, network_memory
from .source import Answer, ErrorSource, Request

_NOISE_CACHE_BYTES = 256 * 2**20


class Engine(ErrorSource):
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
        # Looked up once: a pipeline finds them by a walk through all its modules. A network that is
        # offloaded still computes on this device.
        self._device, self._dtype = backend.device, backend.dtype
        self.condition = condition.to(self._device)
        self.n_prompts = len(condition)
        self.n_images = n_images
        self.loss = loss
        self._network = f"{type(backend).__name__}.forward"  # in messages
        self._process = process_of(backend.prediction_type)
        self._bound = VariationalBound(backend.schedule) if loss == "vlb" else None
        self._encode = encode
        self._on_evaluations = on_evaluations
        self._batch_size = batch_size
        self._stop = Event()
        self._latents: dict[int, Tensor] = {}
        self._is_released = bytearray(n_images)  # decided from records before they were encoded
        self._rounds: dict[Draws, _Drawn] = {}
        self._noise_bytes = 0
        self._shape: torch.Size | None = None  # of every latent
        self._encoding = BatchSize.of_encoder(batch_size)
        self._batch = self._choose_batch()

    def _choose_batch(self) -> BatchSize:
        latent = self.latent(0)
        return BatchSize.of_network(
            self._batch_size,
            self._device,
            latent.numel(),
            compiled=self.backend.compiled,
            memory=network_memory(self.backend, self._device, latent.shape, self.condition),
        )

    def beside(self, backend: Backend, stop: Event) -> Self:
        """Return an engine for the same images with a copy of the network on another device.

        It encodes no images: they have to be adopted. It has no progress to report, and ends with
        :class:`Stopped` before the next batch once ``stop`` is set.
        """
        twin = copy.copy(self)
        twin.backend, twin._stop = backend, stop
        twin._device, twin._dtype = backend.device, backend.dtype
        twin.condition = self.condition.to(twin._device)
        twin._bound = None if self._bound is None else VariationalBound(backend.schedule)
        twin._on_evaluations = lambda n: None
        twin._batch = twin._choose_batch()
        twin._latents, twin._rounds, twin._noise_bytes = {}, {}, 0
        return twin

    def adopt(self, image: int, latent: Tensor) -> None:
        """Take over the latent of an image that another engine encoded."""
        if image not in self._latents:
            self._latents[image] = latent.to(self._device)

    @property
    def rows_wanted(self) -> int:
        return self._batch.rows_wanted

    @property
    def batch_rows(self) -> int:
        return self._batch.rows

    @property
    def few_rows(self) -> int:
        return self._batch.few_rows

    def latent(self, image: int) -> Tensor:
        """Return the latent of an image; the images after it are encoded in the same batch."""
        if image not in self._latents:
            latents = self._encode_from(image)
            self._shape = self._shape or latents.shape[1:]
            if latents.shape[1:] != self._shape:
                raise InputValueError(
                    f"image {image} has a latent of shape {tuple(latents.shape[1:])}, but earlier "
                    f"images have {tuple(self._shape)}; set image_size to resize all images."
                )
            self._process.check(latents, self.backend.schedule, image)
            self._latents |= {
                i: latent
                for i, latent in enumerate(latents, image)
                if i == image or not self._is_released[i]
            }
        return self._latents[image]

    @torch.inference_mode()
    def _encode_from(self, image: int) -> Tensor:
        """Encode a batch of images; the first one alone, if its size says how many fit."""
        if self._shape is None and not is_fixed(self._batch_size) and meter_of(self._device):
            latents = encode_from(self._encode, image, self.n_images, BatchSize(1))
            key = "encode_images", tuple(latents.shape[1:])
            memory = memory_of(self.backend, self._device, *key)
            self._encoding = BatchSize.of_encoder(self._batch_size, memory)
            return latents
        return encode_from(self._encode, image, self.n_images, self._encoding)

    def release(self, image: int) -> None:
        self._latents.pop(image, None)
        self._is_released[image] = True

    @property
    def steps_at_once(self) -> int:
        return 2 if self._device.type == "cuda" else 1

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Compute the errors [A, J] of each request, in float32 on the CPU; see :meth:`begin`."""
        return self.begin(requests)()

    @torch.inference_mode()
    def begin(self, requests: Sequence[Request]) -> Answer:
        """Queue a step on the device; return what waits for its errors.

        Raises
        ------
        NonFiniteOutputError
            By the answer, if the network returns NaN or infinity.
        OutOfMemoryError
            If memory runs out with a single row.
        """
        rows = _Rows.of(requests, self._device)
        noised = self._noise_images(requests)
        errors = torch.cat(list(self._batches(rows, noised)))
        on_cuda = self._device.type == "cuda"
        errors = errors.to("cpu", non_blocking=on_cuda)
        is_copied = torch.cuda.current_stream(self._device).record_event() if on_cuda else None

        def answer() -> list[Tensor]:
            if is_copied is not None:
                is_copied.synchronize()
            self._check_finite(errors, requests)
            self._on_evaluations(len(errors))
            parts = errors.split([request.n_rows for request in requests])
            return [
                part.view(-1, request.n_prompts).T
                for part, request in zip(parts, requests, strict=True)
            ]

        return answer

    def _noise_images(self, requests: Sequence[Request]) -> _Noised:
        """Add noise to the images, for every (image, draw) of the step."""
        x = torch.stack([self.latent(request.image) for request in requests])
        first: dict[Draws, int] = {}  # place of each round's draws among those of the step
        images: list[int] = []
        places: list[int] = []
        n_draws = 0
        for number, request in enumerate(requests):
            for draws in request.rounds:
                if draws not in first:
                    first[draws] = n_draws
                    n_draws += len(draws)
                places.extend(range(first[draws], first[draws] + len(draws)))
            images.extend([number] * request.n_draws)
        rounds = [self._round(draws, x) for draws in first]
        levels = _Drawn(*map(torch.cat, zip(*rounds, strict=True)))
        image, draw = (self._to_device(torch.tensor(index)) for index in (images, places))
        x, noise = x.index_select(0, image), levels.noise.index_select(0, draw)
        alpha, sigma = levels.alpha.index_select(0, draw), levels.sigma.index_select(0, draw)
        t = levels.t.index_select(0, draw)
        z, target = self._process.corrupt(x, noise, Levels(alpha, sigma, t), self._dtype)
        return _Noised(
            z,
            t,
            target,
            levels.scale.index_select(0, draw),
            x if self._bound is not None else None,
        )

    def _round(self, draws: Draws, x: Tensor) -> _Drawn:
        """Return a round's noise and levels on the device; kept there, as all images share it."""
        if draws in self._rounds:
            return self._rounds[draws]
        alpha, sigma = self.backend.schedule.at(draws.timesteps)
        scale = self._process.scale(alpha, sigma).float()
        noise = self._to_device(draws.noise(x.shape[1:])).to(x.dtype)
        levels = _Drawn(
            noise,
            expand(alpha, noise),
            expand(sigma, noise),
            self._to_device(scale),
            self._to_device(draws.timesteps),
        )
        if self._noise_bytes + noise.nbytes <= _NOISE_CACHE_BYTES:
            self._noise_bytes += noise.nbytes
            self._rounds[draws] = levels
        return levels

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _batches(self, rows: _Rows, noised: _Noised) -> Iterator[Tensor]:
        """Yield the errors of all rows, batch by batch."""
        start = 0
        while start < len(rows):
            if self._stop.is_set():
                raise Stopped

            def evaluate(n_rows: int, start: int = start) -> Tensor:
                length = self._batch.next_batch(len(rows) - start, n_rows)
                batch = rows.slice(start, start + length, self._batch.padded(length))
                return self._errors_of(batch, noised)[:length]

            errors = self._batch.attempt(evaluate)
            start += len(errors)
            yield errors

    def _errors_of(self, rows: _Rows, noised: _Noised) -> Tensor:
        """Compute the errors of a batch of rows with one network call."""
        z, t, target, scale, clean = noised.take(rows.pair)
        condition = self.condition[rows.prompt]
        if self._bound is None or clean is None:
            shape = self._process.output_shape(z.shape)
            output = check_output(self.backend.forward(z, t, condition), shape, self._network)
            return self._process.errors(output, target, scale, self.loss)
        both = self.backend.forward_with_variance(z, t, condition)
        output, variance = (check_output(half, z.shape, self._network) for half in both)
        residual = noise_residual(output, target, scale)
        return self._bound.errors(residual, variance, clean, t)

    def _check_finite(self, errors: Tensor, requests: Sequence[Request]) -> None:
        """Raise with the timestep, image and prompt of the first error that is not finite."""
        if bool(errors.isfinite().all()):
            return
        bad = (~errors.isfinite()).nonzero()[:, 0]
        row = int(bad[0])
        bounds = torch.tensor([request.n_rows for request in requests]).cumsum(0)
        number = int(torch.searchsorted(bounds, row, right=True))
        request = requests[number]
        offset = row - (int(bounds[number - 1]) if number else 0)
        timesteps = torch.cat([draws.timesteps for draws in request.rounds])
        timestep = int(timesteps[offset // len(request.prompts)])
        error = NonFiniteOutputError(
            f"the network returned NaN or infinity at timestep {timestep} in {self._dtype} "
            f"(image {request.image}, prompt {int(request.prompts[offset % len(request.prompts)])}"
            f", {len(bad)} of {len(errors)} evaluations). No prediction was made. "
            f"{self._process.advice}"
        )
        error.image = request.image
        raise error


class Stopped(Exception):
    """Raised by an engine that was told to stop because one beside it failed."""


class _Drawn(NamedTuple):
    """Draws of one or more rounds: their noise [J, ...], levels [J, 1, ...], scale and t [J]."""

    noise: Tensor
    alpha: Tensor
    sigma: Tensor
    scale: Tensor
    t: Tensor


class _Noised(NamedTuple):
    """Noisy images and prediction targets, one row per (image, draw)."""

    z: Tensor
    t: Tensor
    target: Tensor
    scale: Tensor
    clean: Tensor | None  # the latents without noise, if the loss needs them

    def take(self, pair: Tensor) -> _Noised:
        """Return the rows of an index tensor."""
        clean = None if self.clean is None else self.clean.index_select(0, pair)
        z, t, target, scale = (part.index_select(0, pair) for part in self[:4])
        return _Noised(z, t, target, scale, clean)


@dataclass(frozen=True)
class _Rows:
    """The (image, draw) index and the prompt index of every row."""

    pair: Tensor
    prompt: Tensor

    @classmethod
    def of(cls, requests: Sequence[Request], device: torch.device) -> _Rows:
        """List all rows of the requests, draw-major within an image."""
        # No operation per request: a step has hundreds of them, of few rows each.
        n_prompts = np.array([request.n_prompts for request in requests])
        n_draws = np.array([request.n_draws for request in requests])
        counts = n_prompts.repeat(n_draws)  # of each pair
        pair = np.arange(len(counts)).repeat(counts)
        first = (n_prompts.cumsum() - n_prompts).repeat(n_draws) - counts.cumsum()
        place = np.arange(len(pair)) + (first + counts)[pair]
        prompts = torch.cat([request.prompts for request in requests])
        rows = torch.from_numpy(pair), prompts.index_select(0, torch.from_numpy(place))
        return cls(*(part.to(device, non_blocking=True) for part in rows))

    def __len__(self) -> int:
        return len(self.pair)

    def slice(self, start: int, stop: int, length: int) -> _Rows:
        """Return rows ``start:stop``, padded to ``length`` with copies of the last row."""
        pair, prompt = self.pair[start:stop], self.prompt[start:stop]
        if length > stop - start:
            padding = length - (stop - start)
            pair = torch.cat([pair, pair[-1:].expand(padding)])
            prompt = torch.cat([prompt, prompt[-1:].expand(padding)])
        return _Rows(pair, prompt)
