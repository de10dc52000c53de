"""Checks of the fields of an error table, whether raced, read from a file or made by hand.

A prompt's errors are those of the first draws of the race, without a gap: NaN follows its last
draw. Every prompt takes at least one draw, and the prompts that are still active at the end of an
image's race have taken all its draws. Answers rely on this, and are NaN or wrong without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputTypeError, InputValueError
from ..scoring.candidates import Candidates
from .setup import RecordSetup

_SHAPES = {  # axes of each array: N images, P prompts, J draws; and its dtype
    "errors": ("NPJ", "f", "float32"),
    "active": ("NP", "b", "bool"),
    "timesteps": ("J", "i", "int64"),
    "density": ("J", "fi", "float64"),
    "round_of": ("J", "i", "int64"),
    "antithetic": ("J", "b", "bool"),
}
_ADVICE = "record the table again, or leave this image out"


def check_table(
    arrays: dict[str, Any],
    setup: RecordSetup,
    skipped: Sequence[tuple[int, str]] = (),
    candidates: Candidates | None = None,
) -> None:
    """Raise unless these fields make an error table.

    Parameters
    ----------
    arrays : dict
        The array fields of an ErrorTable by name.
    setup : RecordSetup
    skipped : sequence of (int, str)
        Images without errors, and why they have none.
    candidates : Candidates, optional
        By default, all classes of every image.

    Raises
    ------
    InputTypeError
        If a field is not an array of the right dtype.
    InputValueError
        If shapes or values are impossible; the message names the first bad entry.
    """
    _check_shapes(arrays, setup)
    _check_draws(arrays, setup.schedule.n_timesteps)
    errors, active = arrays["errors"], arrays["active"]
    missing = np.isnan(errors)
    at = _first(np.isinf(errors))
    if at is not None:
        raise _bad_error(setup, at, f"is {errors[at]}, but errors must be finite")
    at = _first(errors < 0)
    if at is not None and setup.loss != "vlb":  # a bound, whose densities may exceed 1
        problem = f"is {errors[at]}, but errors of loss={setup.loss!r} must not be negative"
        raise _bad_error(setup, at, problem)
    at = _first(missing[:, :, :-1] & ~missing[:, :, 1:])
    if at is not None:
        problem = f"is NaN, but that of draw {at[2] + 1} is not; errors must not have gaps"
        raise _bad_error(setup, at, problem)
    n_draws, is_skipped = (~missing).sum(2), _check_skipped(skipped, len(errors))
    _check_races(n_draws, active, setup, is_skipped, _raced(candidates, setup, len(errors)))


def _raced(candidates: Candidates | None, setup: RecordSetup, n: int) -> NDArray[np.int64]:
    """Return for each prompt [N, P] 0 if its class was no candidate, else the number of those."""
    shape = (n, setup.scoring.n_classes)
    mask = np.ones(shape, bool) if candidates is None else candidates.mask
    if mask.shape != shape:
        raise InputValueError(
            f"candidates are {mask.shape[0]} x {mask.shape[1]}, but there are {n} images and "
            f"{shape[1]} classes."
        )
    return (mask * mask.sum(1, keepdims=True))[:, setup.scoring.class_of.numpy()]


def _check_shapes(arrays: dict[str, Any], setup: RecordSetup) -> None:
    """Raise unless all arrays have their dtypes and agree in their numbers of rows."""
    sizes = {"P": (len(setup.prompts), "prompts of the setup")}
    for name, (axes, kinds, dtype) in _SHAPES.items():
        array = arrays[name]
        good = isinstance(array, np.ndarray) and array.dtype.kind in kinds
        if not good or (kinds == "i" and array.dtype.itemsize < 4):  # torch cannot index by it
            found = getattr(array, "dtype", type(array).__name__)
            raise InputTypeError(f"{name} is of type {found}; give a numpy array of {dtype}.")
        if array.ndim != len(axes):
            raise InputValueError(
                f"{name} has shape {array.shape}, but needs {len(axes)} dimensions: ({axes})."
            )
        for axis, n in zip(axes, array.shape, strict=True):
            known, owner = sizes.setdefault(axis, (n, f"entries of {name}"))
            if n != known:
                raise InputValueError(
                    f"{name} has shape {array.shape}, but there are {known} {owner}; its shape "
                    f"must be ({', '.join(axes)}) for N images, P prompts and J draws."
                )
    if not sizes["J"][0]:
        raise InputValueError("timesteps is empty; an error table needs at least one draw.")


def _check_draws(arrays: dict[str, Any], n_timesteps: int) -> None:
    """Raise unless timesteps, densities, rounds and antithetic pairs are possible."""
    timesteps, density = arrays["timesteps"], arrays["density"]
    round_of, antithetic = arrays["round_of"], arrays["antithetic"]
    steps = np.diff(round_of, prepend=0)
    misnumbered = (steps < 0) | (steps > 1)
    misnumbered[0] = round_of[0] != 0
    unpaired = np.zeros(len(timesteps), bool)
    for start, stop in _rounds(round_of):
        pairs, of_pairs = antithetic[start:stop], timesteps[start:stop]
        odd = pairs.any() and (not pairs.all() or len(pairs) % 2)
        unpaired[start:stop] = odd or (pairs.any() and (of_pairs[::2] != of_pairs[1::2]).any())
    checks = {
        "timesteps": (
            (timesteps < 0) | (timesteps >= n_timesteps),
            f"timesteps run from 0 to {n_timesteps - 1}",
        ),
        "density": (
            ~(np.isfinite(density) & (density > 0)),
            "densities must be positive and finite",
        ),
        "round_of": (
            misnumbered,
            "rounds are numbered 0, 1, 2, ... in the order of the draws",
        ),
        "antithetic": (
            unpaired,
            "antithetic draws come in pairs with the same timestep, through a whole round",
        ),
    }
    for name, (bad, rule) in checks.items():
        at = _first(bad)
        if at is not None:
            raise InputValueError(f"{name}[{at[0]}] is {arrays[name][at]}, but {rule}.")


def _rounds(round_of: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the first and last-plus-one draw of each round."""
    bounds = [0, *(np.flatnonzero(np.diff(round_of)) + 1).tolist(), len(round_of)]
    return list(pairwise(bounds))


def _check_skipped(skipped: Sequence[tuple[int, str]], n_images: int) -> NDArray[np.bool_]:
    """Return which images were skipped, of shape (N,)."""
    mask = np.zeros(n_images, bool)
    for image, _ in skipped:
        if not 0 <= image < n_images or mask[image]:
            raise InputValueError(
                f"skipped names image {image}, but must name each image at most once, and the "
                f"table has {n_images} images."
            )
        mask[image] = True
    return mask


def _check_races(
    n_draws: NDArray[np.int64],
    active: NDArray[np.bool_],
    setup: RecordSetup,
    skipped: NDArray[np.bool_],
    n_raced: NDArray[np.int64],
) -> None:
    """Raise unless each image's race was run to an end, or the image was skipped."""
    at = _first(skipped[:, None] & ((n_draws > 0) | active))
    if at is not None:
        raise InputValueError(
            f"image {at[0]} was skipped, but prompt {at[1]} has errors or is active."
        )
    at = _first(~skipped & ~(active & (n_raced > 0)).any(1))
    if at is not None:
        raise InputValueError(f"image {at[0]} has no active prompt; {_ADVICE}.")
    at = _first((n_draws == 0) & (n_raced > 1) & ~skipped[:, None])  # one candidate has no race
    if at is not None:
        raise _bad_error(setup, (*at, 0), "is missing, but every prompt needs at least one")
    longest = n_draws.max(1, keepdims=True, initial=0)
    at = _first(active & (n_draws < longest))
    if at is not None:
        problem = f"is missing, but an active prompt needs all {longest[at[0], 0]} draws"
        raise _bad_error(setup, (*at, int(n_draws[at])), problem)
    if setup.scoring.races_classes:
        class_of = setup.scoring.class_of.numpy()
        first = np.searchsorted(class_of, class_of)
        at = _first((n_draws != n_draws[:, first]) | (active != active[:, first]))
        if at is not None:
            raise InputValueError(
                f"image {at[0]}: prompt {at[1]} did not take the draws of the other prompts of "
                f"its class, as prompt_reduction='mean' requires; {_ADVICE}."
            )


def _first(bad: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Return the index of the first True entry, or None."""
    if not bad.any():
        return None
    return tuple(int(i) for i in np.unravel_index(bad.argmax(), bad.shape))


def _bad_error(setup: RecordSetup, at: tuple[int, ...], problem: str) -> InputValueError:
    """Make the exception for one error of the table."""
    image, prompt, draw = at
    text = str(setup.prompts[prompt])
    text = text if len(text) <= 60 else text[:57] + "..."
    return InputValueError(
        f"the error of image {image}, prompt {prompt} ({text!r}), draw {draw} {problem}; {_ADVICE}."
    )
