r"""Learning without images: the model draws its own, and so knows their labels.

    x_i ~ p(x | c_i), by a deterministic solver of 25 steps with guidance g,
    errors of x_i recorded as those of labelled images in ``fit(X, y)``.

Images drawn without guidance (g = 1) can be less clear than real ones, so that the model itself
does not recognise them. A few images are therefore drawn at rising g, until it agrees with its own
drawings. An image takes 25 evaluations to draw, or 50 with guidance, and at most 12 prompts times
50 draws to record. What those few images took is saved on draws. Of more than 12 classes, one at
random and those whose encoded prompts are nearest stand for all; of more prompts, the first of each
class.

Limits: drawings are typical of what the model knows, and it recognises them better than real
images. Races become shorter, but a poor model does not find out that it is often wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backends.base import Backend, Conditioning, check_output
from ..errors import InputValueError, NonFiniteOutputError
from ..images.latents import Latents
from ..noise.draws import keyed_noise
from ..noise.prediction import PREDICTION_TYPES
from ..noise.solver import N_STEPS, draw_latents
from ..pruners.base import NoPruning
from ..race.batches import BatchSize, BatchSizeOption
from ..samplers.stratified import StratifiedSampler
from ..utils.display import short_repr
from .predicting import Predictor

MOST_PROMPTS = 12
N_DRAWS = 50
USUAL_IMAGES = 64  # fewer may cost as much, because the search for a guidance costs the same
GUIDANCES = (1.0, 1.5, 2.0, 3.0)
_PILOT_IMAGES, _PILOT_DRAWS = 16, 8
_AGREEMENT = 15 / 16  # of the pilot images, recognised by the model, at which guidance is enough
_DRAWN = 2**31  # added to the seed, so that drawings share no noise with the draws of predictions


class Lesson(NamedTuple):
    """Images that a model drew, to learn from.

    Attributes
    ----------
    images : Latents
    true_class : ndarray of shape (N,), dtype int
    predictor : Predictor
        Of the classes that were drawn.
    guidance : float
    agreement : float
        Share of the pilot images at this guidance that the model recognised.
    """

    images: Latents
    true_class: NDArray[Any]
    predictor: Predictor
    guidance: float
    agreement: float


def draw_lesson(predictor: Predictor, n_images: int, seed: int) -> Lesson:
    """Let a model draw images for strategies to learn from.

    Parameters
    ----------
    predictor : Predictor
        Unweighted.
    n_images : int
        At least 2.
    seed : int
        Seed of the images and of the choice of classes.

    Raises
    ------
    InputValueError
        If the network predicts no noise, there is a single image to draw, the shape of latents is
        not known, or the sampler has a fixed number of draws.
    NonFiniteOutputError
        If the network returns NaN or infinity.
    """
    kind = predictor.inputs.backend.prediction_type
    if kind not in PREDICTION_TYPES:
        raise InputValueError(
            f"prediction_type={kind!r} has no solver that draws images; set n_fit_samples=0, or "
            "fit with labelled images."
        )
    if n_images < 2:
        raise InputValueError(
            f"n_fit_samples={n_images} is too few to learn from; give 0 for none, or at least 2."
        )
    n_classes = min(predictor.setup.scoring.n_classes, MOST_PROMPTS, n_images)
    predictor = among(predictor, neighbours(predictor, n_classes, seed), MOST_PROMPTS // n_classes)
    artist, n_prompts = Artist.of(predictor, seed), len(predictor.setup.prompts)
    pilot = np.arange(min(n_images, _PILOT_IMAGES)) % n_classes
    sampler = StratifiedSampler() if predictor.sampler.needs_record else predictor.sampler
    quick = replace(predictor, sampler=sampler, pruner=NoPruning(_PILOT_DRAWS))
    try:
        quick.tape()
    except InputValueError as error:
        raise InputValueError(
            f"sampler={short_repr(sampler)} cannot stop after the few draws that drawn images are "
            "recorded with; use another sampler, or set n_fit_samples=0."
        ) from error
    found: list[tuple[float, float]] = []
    spent = 0
    for guidance in GUIDANCES:
        table = quick.table(artist.draw(pilot, guidance))
        spent += len(pilot) * _evaluations_to_draw(guidance) + int(table.n_evaluations.sum())
        agreement = float((table.class_losses().argmin(1).numpy() == pilot).mean())
        found.append((agreement, guidance))
        if agreement >= _AGREEMENT:
            break
    agreement, guidance = max(found, key=lambda pair: pair[0])
    to_draw = _evaluations_to_draw(guidance)
    budget = max(n_images, USUAL_IMAGES) * (to_draw + MOST_PROMPTS * N_DRAWS) - spent
    n_draws = (budget // n_images - to_draw) // n_prompts
    true_class = np.arange(n_images) % n_classes
    return Lesson(
        artist.draw(true_class, guidance),
        true_class,
        replace(predictor, pruner=NoPruning(min(N_DRAWS, n_draws, predictor.pruner.max_draws))),
        guidance,
        agreement,
    )


def _evaluations_to_draw(guidance: float) -> int:
    """Number of evaluations per image; with guidance a step takes two."""
    return N_STEPS * (1 if guidance == 1 else 2)


@dataclass(frozen=True)
class Artist:
    """Draws images of classes.

    Attributes
    ----------
    backend : Backend
    condition : Conditioning
        One row per prompt.
    class_of : Tensor of shape (P,)
    shape : torch.Size
        Shape of a latent.
    made_by : dict
        What latents depend on.
    seed : int
    batch_size : "auto" or int
    """

    backend: Backend
    condition: Conditioning
    class_of: Tensor
    shape: torch.Size
    made_by: dict[str, Any]
    seed: int
    batch_size: BatchSizeOption = "auto"

    @classmethod
    def of(cls, predictor: Predictor, seed: int) -> Artist:
        """Make the artist of a predictor's classes."""
        inputs = predictor.inputs
        try:
            grey = inputs.grey_image()
        except AttributeError:
            raise InputValueError(
                f"{short_repr(inputs.backend)} does not state how long its rows are, so it cannot "
                "draw any; set n_fit_samples=0, or give a backend with an input_shape."
            ) from None
        with torch.inference_mode(), inputs.open(grey) as images:
            shape = images.encode([0]).shape[1:]
        return cls(
            inputs.backend,
            predictor.condition.to(inputs.backend.device),
            predictor.setup.scoring.class_of,
            shape,
            inputs.pictures.made_by(inputs.backend),
            seed,
            predictor.batch_size,
        )

    def draw(self, true_class: NDArray[Any], guidance: float) -> Latents:
        """Draw an image of each of the classes [N]; the i-th one always starts with one noise."""
        batch = BatchSize.of_network(
            self.batch_size, self.backend.device, self.shape.numel(), compiled=False
        )
        prompts, others = self._prompts(true_class), list(self._others(true_class))
        parts: list[Tensor] = []
        while (first := sum(map(len, parts))) < len(true_class):

            def attempt(n_rows: int, first: int = first) -> Tensor:
                rows = slice(first, min(first + n_rows, len(true_class)))
                return self._draw(rows, prompts[rows], [other[rows] for other in others], guidance)

            parts.append(batch.attempt(attempt))
        return Latents(torch.cat(parts), self.made_by)

    def _draw(self, rows: slice, prompts: Tensor, others: list[Tensor], guidance: float) -> Tensor:
        """Draw the images of some rows, in one batch."""
        backend, condition, null = self.backend, self.condition[prompts], self._null()
        source, step = f"{type(backend).__name__}.forward", iter(others)
        noise = [
            keyed_noise(self.seed + _DRAWN, i, self.shape) for i in range(rows.start, rows.stop)
        ]

        def output(z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
            return check_output(backend.forward(z, t, condition), z.shape, source).float()

        def predict(z: Tensor, t: int) -> Tensor:
            z, times = z.to(backend.dtype), torch.full((len(z),), t, device=z.device)
            under, other = output(z, times, condition), next(step)
            if guidance == 1:
                return under
            away = self.condition[other] if null is None else null[torch.zeros_like(other)]
            base = output(z, times, away)
            return base + guidance * (under - base)

        with torch.inference_mode():
            start = torch.stack(noise).to(backend.device)
            drawn = draw_latents(predict, start, backend.schedule, backend.prediction_type).cpu()
        if not bool(drawn.isfinite().all()):
            raise NonFiniteOutputError(
                f"the network returned NaN or infinity while drawing images in {backend.dtype}. "
                'Try dtype="bfloat16" or dtype="float32", or set n_fit_samples=0.'
            )
        return drawn.clone()

    def _null(self) -> Conditioning | None:
        """Encode the unconditional prompt, if the network has one."""
        prompt = self.backend.unconditional_prompt
        if prompt is None:
            return None
        return self.backend.encode_classes([prompt], [prompt]).to(self.backend.device)

    def _prompts(self, true_class: NDArray[Any]) -> Tensor:
        """Choose the prompt of each image; those of a class take turns."""
        chosen, n_drawn = [], np.zeros(int(self.class_of.max()) + 1, int)
        for label in true_class.tolist():
            own = (self.class_of == label).nonzero()[:, 0]
            chosen.append(int(own[n_drawn[label] % len(own)]))
            n_drawn[label] += 1
        return torch.tensor(chosen)

    def _others(self, true_class: NDArray[Any]) -> Iterator[Tensor]:
        """Yield, for each step, a prompt of another class for each image.

        Guidance leads away from them if the network has no unconditional prompt.
        """
        rng = np.random.default_rng((self.seed, _DRAWN))
        class_of = self.class_of.numpy()
        for _ in range(N_STEPS):
            keys = rng.random((len(true_class), len(class_of)))
            keys[class_of == true_class[:, None]] = -1
            yield torch.as_tensor(keys.argmax(1))


def neighbours(predictor: Predictor, n_classes: int, seed: int) -> list[int]:
    """Choose classes that are hard to tell apart: one at random, and the nearest to it.

    Distances are those of the encoded prompts. Class indices have none: they are chosen at random.
    """
    scoring = predictor.setup.scoring
    order = np.random.default_rng(seed).permutation(scoring.n_classes)
    if n_classes < scoring.n_classes:
        first = torch.searchsorted(scoring.class_of, torch.arange(scoring.n_classes))
        encoded = predictor.condition[first].tensors.values()
        numbers = [part.flatten(1).double().cpu() for part in encoded if part.is_floating_point()]
        if numbers:
            place = torch.cat(numbers, 1)
            order = (place - place[order[0]]).square().sum(1).argsort(stable=True).numpy()
    return sorted(order[:n_classes].tolist())


def among(predictor: Predictor, classes: list[int], n_prompts: int) -> Predictor:
    """Return the predictor of some of the classes, with the first prompts of each."""
    setup, scoring = predictor.setup, predictor.setup.scoring
    class_of = scoring.class_of
    place = torch.arange(len(class_of)) - torch.searchsorted(class_of, class_of)  # in its class
    kept = torch.isin(class_of, torch.tensor(classes)) & (place < n_prompts)
    number = torch.full((scoring.n_classes,), -1)
    number[classes] = torch.arange(len(classes))
    setup = replace(
        setup,
        scoring=replace(
            scoring,
            log_prior=scoring.log_prior[classes].log_softmax(0),
            class_of=number[class_of[kept]],
        ),
        classes=setup.classes[classes],
        prompts=tuple(p for p, is_kept in zip(setup.prompts, kept, strict=True) if is_kept),
    )
    return replace(predictor, setup=setup, condition=predictor.condition[kept], shortlist=None)
