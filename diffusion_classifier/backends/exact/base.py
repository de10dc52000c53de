r"""Exact noise predictors: classes whose densities are Gaussians or Gaussian mixtures.

With ``p(x | c) = sum_m w_cm N(mu_cm, S_cm)`` and ``z = alpha x + sigma eps``, a noised latent is
itself a mixture, of components ``N(alpha mu_cm, V_cm)``, ``V_cm = alpha^2 S_cm + sigma^2 I``, and
the best prediction of its noise is

    E[eps | z, c] = sigma sum_m r_m V_cm^-1 (z - alpha mu_cm),

``r_m`` being the component's posterior probability given z. A Gaussian class has one component.

Latents are the standardised rows of X, so that one noise schedule suits every table. Noise looks
the same in every rotated basis, so matrices are diagonalised beforehand: a covariance that all
classes share by turning the latents themselves, one that is a class's own by turning its rows
before and after. What remains is arithmetic on vectors, in float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ...errors import InputTypeError, InputValueError
from ...noise.prediction import PREDICTION_TYPES
from ...noise.schedule import NoiseSchedule
from ...utils.validation import check_positive_integer
from ..base import Backend, Conditioning
from ..function import class_positions

# Standardised data have variances near 1. Below the first level a direction carries no variance
# worth the name (one row, a constant or collinear feature); such classes get the second added.
NEAR_SINGULAR = 1e-6
ADDED_VARIANCE = 1e-2
_CHUNK_ELEMENTS = 2**16  # of latents: temporaries stay in the cache
_GATHERED_ELEMENTS = 2**20  # of rotations copied per row; beyond, rows are grouped by class


@lru_cache(maxsize=16)
def wide_schedule(n_timesteps: int = 1000) -> NoiseSchedule:
    r"""A variance-preserving schedule for standardised data, wide enough for exact likelihoods.

    ``lambda(u) = 2 + 5/2 log((1 - u) / u)`` with ``u = (t + 1/2) / T``: from 21.0 to -17.0 at
    T = 1000. Draws are then dense where standardised classes differ (log-SNR of about 0 to 6),
    while the "likelihood" weights, which grow as ``exp(|lambda| / 2.5)``, stay below the decay
    ``exp(-|lambda| / 2)`` of the errors' differences at either end.

    Parameters
    ----------
    n_timesteps : int, default=1000

    Returns
    -------
    NoiseSchedule

    Raises
    ------
    ValueError
        If ``n_timesteps`` is not a positive integer.

    Examples
    --------
    >>> wide_schedule()
    NoiseSchedule(n_timesteps=1000, log_snr=21.00..-17.00)
    """
    n_timesteps = check_positive_integer("n_timesteps", n_timesteps)
    u = (torch.arange(n_timesteps, dtype=torch.float64) + 0.5) / n_timesteps
    log_snr = 2 + 2.5 * torch.logit(1 - u)
    return NoiseSchedule(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


class MixtureBackend(Backend):
    """Base of the exact backends: fitted, each class is a mixture of diagonal Gaussians.

    Subclasses set ``classes_`` in ``fit`` and call ``_set_components``.
    """

    input_kind = "array"
    text_conditional = False
    unconditional_prompt = None
    default_template = "{}"
    dtype = torch.float64

    n_timesteps: int
    _schedule: NoiseSchedule | None

    classes_: NDArray
    center_: NDArray[np.float64]
    scale_: NDArray[np.float64]
    means_: Tensor  # [K, M, F], in the basis where its covariance is diagonal
    variances_: Tensor  # [K, M, F], or 1 in place of K or M where all share them
    log_weights_: Tensor  # [K, M]
    latent_rotation_: Tensor | None  # [F, F], from standardised rows to latents
    class_rotations_: Tensor | None  # [K, F, F], from latents to a class's own basis

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule in use: the given one, or a wide one of ``n_timesteps``."""
        return wide_schedule(self.n_timesteps) if self._schedule is None else self._schedule

    @schedule.setter
    def schedule(self, schedule: NoiseSchedule | None) -> None:
        if not (schedule is None or isinstance(schedule, NoiseSchedule)):
            raise InputTypeError(f"schedule={schedule!r} must be a NoiseSchedule or None.")
        self._schedule = schedule

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor parameters; ``schedule`` as it was given, None included."""
        return super().get_params(deep) | {"schedule": self._schedule}

    # --------------------------------------------------------------- fitting

    def _set_components(
        self,
        means: NDArray,
        covariances: NDArray,
        weights: NDArray,
        covariance_type: str,
        *,
        reg_param: float = 0.0,
        center: NDArray | None = None,
        deviation: NDArray | None = None,
    ) -> None:
        """Standardise and diagonalise raw components.

        Means are [K, M, F], weights [K, M], covariances [K, F, F] ("full", M = 1), [F, F]
        ("shared") or broadcastable to the means ("diag"). Data are standardised by ``center``
        and ``deviation`` [F]; by default the model's own, classes being equally likely.
        """
        if center is None or deviation is None:
            center, deviation = total_moments(means, covariances, weights, covariance_type)
        self.center_, constant = center, deviation <= 1e-12 * np.abs(center)
        self.scale_ = np.where(constant, 1.0, deviation)
        means = (means - self.center_) / self.scale_
        rotations = None
        if covariance_type == "diag":
            variances = covariances.reshape((1,) * (3 - covariances.ndim) + covariances.shape)
            # A feature that is constant in all classes tells none from another.
            variances = np.where(constant, 1.0, variances / self.scale_**2)
        else:
            covariances = covariances / np.outer(self.scale_, self.scale_)
            covariances[..., constant, constant] = 1.0
            variances, rotations = np.linalg.eigh(covariances)
            means = means @ rotations
            variances = variances.reshape(-1, 1, means.shape[-1])
        variances = self._lift_near_singular((1 - reg_param) * variances + reg_param)
        self.means_, self.variances_ = torch.as_tensor(means), torch.as_tensor(variances)
        with np.errstate(divide="ignore"):  # a component of weight 0 never takes part
            self.log_weights_ = torch.as_tensor(np.log(weights))
        self.latent_rotation_ = self.class_rotations_ = None
        if covariance_type == "shared":
            self.latent_rotation_ = torch.as_tensor(rotations)
        if covariance_type == "full":
            self.class_rotations_ = torch.as_tensor(rotations)

    def _lift_near_singular(self, variances: NDArray) -> NDArray:
        """Add to variances [K or 1, ..., F] of near-singular covariances, with a warning."""
        lowest = variances.min(-1, keepdims=True)
        if (lowest < -NEAR_SINGULAR).any():
            raise InputValueError(
                f"covariances of {self._owners(lowest < -NEAR_SINGULAR)} have negative "
                f"eigenvalues (down to {lowest.min():.2g} on standardised features); give "
                "positive semi-definite ones."
            )
        singular = lowest < NEAR_SINGULAR
        if singular.any():
            warnings.warn(
                f"covariances of {self._owners(singular)} are near-singular (smallest eigenvalue "
                f"{lowest.min():.2g}): too few rows, or constant or collinear features. "
                f"{ADDED_VARIANCE} was added to their diagonals, on standardised features; "
                "choose the amount yourself with reg_param or with other covariances.",
                UserWarning,
                stacklevel=4,
            )
        return variances + ADDED_VARIANCE * singular

    def _owners(self, flagged: NDArray) -> str:
        """Names of the flagged [K or 1, ...] classes, for messages."""
        if len(flagged) < len(self.classes_):
            return "all classes (they share one)"
        names = self.classes_[flagged.reshape(len(flagged), -1).any(1)].tolist()
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return f"class{'es' * (len(names) > 1)} {', '.join(map(repr, names[:10]))}{more}"

    # --------------------------------------------------------------- the network's interface

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents [B, F], float64, of raw rows [B, F].

        Raises
        ------
        ValueError
            If rows do not have the F features of the classes.
        """
        check_is_fitted(self)
        if images.ndim != 2 or images.shape[1] != len(self.center_):
            raise InputValueError(
                f"rows of shape {tuple(images.shape)} given; the classes have "
                f"{len(self.center_)} features, so expected (n_rows, {len(self.center_)})."
            )
        center, scale = torch.as_tensor(self.center_), torch.as_tensor(self.scale_)
        rows = (images.to("cpu", torch.float64) - center) / scale
        return rows if self.latent_rotation_ is None else rows @ self.latent_rotation_

    def encode_classes(self, labels: Sequence[Any], prompts: Sequence[str]) -> Conditioning:
        """``class_index`` [P]: positions of the labels in ``classes_``; prompts mean nothing."""
        check_is_fitted(self)
        return Conditioning(class_index=class_positions(self.classes_, labels))

    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """The optimal prediction, of type ``prediction_type``, in the dtype of ``z`` [R, F]."""
        index = condition["class_index"]
        alpha, sigma = (level[:, None] for level in self.schedule.at(t))
        latents = z.to(torch.float64)
        noise = self._rotate(latents, index)
        size = max(1, _CHUNK_ELEMENTS // self.means_[0].numel())
        chunks = zip(*(rows.split(size) for rows in (noise, alpha, sigma, index)), strict=True)
        noise = torch.cat([self._noise(*chunk) for chunk in chunks])
        noise = self._rotate(noise, index, back=True)
        return from_noise(noise, latents, alpha, sigma, self.prediction_type).to(z.dtype)

    def _noise(self, z: Tensor, alpha: Tensor, sigma: Tensor, index: Tensor) -> Tensor:
        """E[eps | z, class] of rows [R, F] in their class's basis, levels being [R, 1]."""
        alpha, sigma = alpha[:, None], sigma[:, None]
        residual = torch.addcmul(z[:, None], alpha, self.means_[index], value=-1)  # [R, M, F]
        variance = torch.addcmul(sigma**2, alpha**2, self._variances_of(index))
        pull = residual / variance
        if pull.shape[1] > 1:
            log_joint = self.log_weights_[index] + log_density(residual, variance)
            pull = log_joint.softmax(1)[:, None] @ pull
        return pull[:, 0] * sigma[:, 0]

    def _variances_of(self, index: Tensor | int) -> Tensor:
        return self.variances_ if len(self.variances_) == 1 else self.variances_[index]

    def _rotate(self, rows: Tensor, index: Tensor, *, back: bool = False) -> Tensor:
        """Rows [R, F] into the bases of their classes, or back; as they are if those are one."""
        if self.class_rotations_ is None:
            return rows
        rotations = self.class_rotations_.mT if back else self.class_rotations_
        if rows.numel() * rows.shape[1] <= _GATHERED_ELEMENTS:
            return (rows[:, None] @ rotations[index])[:, 0]
        rotated = torch.empty_like(rows)
        by_class = index.argsort().split(torch.bincount(index, minlength=len(rotations)).tolist())
        for rotation, mine in zip(rotations, by_class, strict=True):
            if len(mine):
                rotated[mine] = rows[mine] @ rotation
        return rotated

    # --------------------------------------------------------------- ground truth

    def log_likelihood(self, X: ArrayLike) -> NDArray[np.float64]:
        """Exact log-density of rows under every class, regularisation included.

        Parameters
        ----------
        X : array-like of shape (N, F)
            Raw rows, as given to ``fit``.

        Returns
        -------
        ndarray of shape (N, K)
            ``log p(x | c)`` in nats, per unit of X.
        """
        latents = self.encode_images(torch.as_tensor(np.asarray(X, dtype=np.float64)))
        columns = []
        for k in range(len(self.classes_)):
            rows = latents if self.class_rotations_ is None else latents @ self.class_rotations_[k]
            density = log_density(rows[:, None] - self.means_[k], self._variances_of(k))
            columns.append(torch.logsumexp(self.log_weights_[k] + density, 1))
        return torch.stack(columns, 1).numpy() - np.log(self.scale_).sum()

    def sample(
        self, n_samples: int, random_state: Any = None
    ) -> tuple[NDArray[np.float64], NDArray]:
        """Rows drawn from the model, classes equally likely.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        X : ndarray of shape (n_samples, F)
        y : ndarray of shape (n_samples,)
            Labels out of ``classes_``.
        """
        check_is_fitted(self)
        rng = check_random_state(random_state)
        n_classes, n_components, n_features = self.means_.shape
        k = torch.as_tensor(rng.randint(n_classes, size=n_samples))
        bounds = self.log_weights_.exp().cumsum(1)[k]
        m = (torch.as_tensor(rng.random_sample(n_samples))[:, None] >= bounds).sum(1)
        m = m.clamp(max=n_components - 1)  # weights may sum to a rounding less than 1
        noise = torch.as_tensor(rng.standard_normal((n_samples, n_features)))
        variances = self.variances_.expand_as(self.means_)[k, m]
        rows = self._rotate(self.means_[k, m] + variances.sqrt() * noise, k, back=True)
        if self.latent_rotation_ is not None:
            rows = rows @ self.latent_rotation_.T
        return rows.numpy() * self.scale_ + self.center_, self.classes_[k.numpy()]


def classes_of(y: Any, means: NDArray) -> NDArray:
    """Sorted labels in y; a ValueError unless there is one for each of the given means."""
    classes = np.unique(y)
    if len(classes) != len(means):
        raise InputValueError(
            f"y names {len(classes)} classes, but means were given for {len(means)}."
        )
    return classes


def total_moments(
    means: NDArray, covariances: NDArray, weights: NDArray, covariance_type: str
) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation [F] of components [K, M, F], classes being equally likely.

    Raises
    ------
    ValueError
        If a variance is negative.
    """
    variances = covariances
    if covariance_type != "diag":
        variances = np.diagonal(covariances, axis1=-2, axis2=-1)
        variances = variances.reshape(-1, 1, means.shape[-1])
    if (variances < 0).any():
        raise InputValueError(f"covariances hold a negative variance, {variances.min():.3g}.")
    share = weights[..., None] / len(means)
    center = (share * means).sum((0, 1))
    return center, np.sqrt((share * (variances + (means - center) ** 2)).sum((0, 1)))


def as_finite(name: str, value: Any, shape: tuple[int | str, ...]) -> NDArray[np.float64]:
    """``value`` as a float64 array; a ValueError unless finite and of ``shape`` (names: any)."""
    array = np.asarray(value, dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        isinstance(wanted, str) or wanted == got
        for wanted, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape)) + "," * (len(shape) == 1)
        raise InputValueError(f"{name} has shape {array.shape}; expected ({wanted}).")
    if not np.isfinite(array).all():
        raise InputValueError(f"{name} holds NaN or infinity.")
    return array


def as_matrices(value: Any, shape: tuple[int | str, ...]) -> NDArray[np.float64]:
    """Covariance matrices of ``shape``; a ValueError unless symmetric."""
    matrices = as_finite("covariances", value, shape)
    if not np.allclose(matrices, matrices.swapaxes(-1, -2)):
        raise InputValueError("covariances must be symmetric matrices.")
    return matrices


def log_density(residual: Tensor, variance: Tensor) -> Tensor:
    """Log of a diagonal Gaussian's density, summed over the last axis."""
    return -0.5 * (residual**2 / variance + (2 * math.pi * variance).log()).sum(-1)


def from_noise(
    noise: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor, prediction_type: str
) -> Tensor:
    """A predicted noise [R, F] as the prediction of another type, given z and levels [R, 1]."""
    if prediction_type == "epsilon":
        return noise
    # Without signal (alpha = 0) any x does: its error then counts nothing.
    x = (z - sigma * noise) / alpha.clamp(min=1e-12)
    return PREDICTION_TYPES[prediction_type].target(x, noise, alpha, sigma)
