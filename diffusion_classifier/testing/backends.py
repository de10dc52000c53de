"""``check_backend``: what a backend of your own must do, as scikit-learn's ``check_estimator``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..backends import Backend
from ..backends.base import describe
from ..errors import InputTypeError
from .checks import BACKEND_CHECKS
from .running import run_checks
from .subject import make_subject


def check_backend(
    backend: Backend,
    *,
    images: Tensor | None = None,
    labels: Sequence[Any] | None = None,
    skip: Sequence[str] = (),
) -> None:
    """Check that a backend of your own does what a classifier relies on.

    Checks run in the order of ``diffusion_classifier.testing.BACKEND_CHECKS``:

    - ``check_schedule``: the schedule runs from image to noise; the prediction type is known.
    - ``check_latents``: images give finite float32 latents, the same in every batch.
    - ``check_conditions``: one condition per label, picked and joined as rows.
    - ``check_company``: errors of a label do not depend on the labels encoded with it, within 1e-5.
    - ``check_batches``: a batch equals its rows one by one, within 1e-5.
    - ``check_order``: errors follow the order of rows and labels.
    - ``check_labels_matter``: errors differ between labels.
    - ``check_inputs_unchanged``: nothing is changed in place.
    - ``check_precision``: half precision changes errors by at most 0.5 % (float16) or 5 %
      (bfloat16), where the network is a module in float32.
    - ``check_nan``: NaN is not hidden.
    - ``check_pickle_and_clone``: pickles and clones give the same errors.

    Parameters
    ----------
    backend : Backend
        A fitted one, if it learns.
    images : Tensor of shape (B, 3, H, W) or (B, ...), default=None
        Two or more inputs of ``encode_images``: pictures in [-1, 1], or arrays. None: two random
        ones of the backend's ``input_shape`` or ``image_size``, else of 16 x 16 pixels.
    labels : sequence of at least two, default=None
        Labels, which are also the prompts. None: four prompts; for backends that read class
        indices the first four of ``classes``, or 0 and 1.
    skip : sequence of str, default=()
        Names of checks to leave out, for example "check_pickle_and_clone" of a network that is
        defined in a notebook.

    Raises
    ------
    AssertionError
        If a check fails. The message begins with the check's name and says what to do.
    InputTypeError
        If ``backend`` is not a Backend.
    InputValueError
        If ``skip`` names no check, there are fewer than two labels or images, or arrays have no
        ``input_shape`` and ``images`` is None.

    Examples
    --------
    >>> import torch
    >>> from diffusion_classifier.backends import FunctionBackend
    >>> from diffusion_classifier.noise import NoiseSchedule
    >>> from diffusion_classifier.testing import check_backend
    >>> flow = NoiseSchedule.flow(1000)
    >>> def network(z, t, class_index):
    ...     return z * (1 + class_index[:, None, None, None])
    >>> backend = FunctionBackend(network, schedule=flow, prediction_type="flow")
    >>> check_backend(backend, skip=["check_pickle_and_clone"])
    >>> def leaky(z, t, class_index):  # rows see each other
    ...     return network(z - z.mean(0), t, class_index)
    >>> try:
    ...     check_backend(FunctionBackend(leaky, schedule=flow, prediction_type="flow"))
    ... except AssertionError as error:
    ...     print(str(error)[:14])
    check_batches:
    """
    if not isinstance(backend, Backend):
        raise InputTypeError(
            f"backend is {describe(backend)}; give a Backend, such as FunctionBackend(network, "
            "schedule=...), or check a pipeline with check_family."
        )
    run_checks(BACKEND_CHECKS, skip, make_subject(backend, images, labels))
