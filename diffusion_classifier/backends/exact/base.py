r"""Exact noise prediction for classes whose densities are Gaussians or Gaussian mixtures.

If ``p(x | c) = sum_m w_cm N(mu_cm, S_cm)``, the noised latent ``z = alpha x + sigma eps`` follows a
mixture with components ``N(alpha mu_cm, V_cm)``, ``V_cm = alpha^2 S_cm + sigma^2 I``. The noise
prediction with the least mean squared error is

    E[eps | z, c] = sigma sum_m r_m V_cm^-1 (z - alpha mu_cm),

where ``r_m`` is the posterior probability of component m given z. A Gaussian class has one
component.

Latents are the standardised rows of X, so that one noise schedule suits every table. Rotations
leave the distribution of the noise unchanged, so ``fit`` diagonalises the covariances. If all
classes share one covariance, the latents themselves are rotated; if each class has its own, rows
are rotated into the basis of their class and back. ``forward`` then needs only elementwise
arithmetic, which it does in float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ...errors import InputTypeError, InputValueError
from ...noise.prediction import PREDICTION_TYPES, PredictionTypeName
from ...noise.schedule import NoiseSchedule
from ...utils.constraints import MANY, Integers, Options, Table, check
from ...utils.display import short_repr
from ..base import Backend, Conditioning
from .parameters import as_finite, class_positions, hash_learned, total_moments

# Standardised data have variances near 1. A covariance with an eigenvalue below NEAR_SINGULAR (one
# row, constant or collinear features) gets ADDED_VARIANCE added to its diagonal.
NEAR_SINGULAR = 1e-6
ADDED_VARIANCE = 1e-2
N_TIMESTEPS = Integers(1, MANY)
_CHUNK_ELEMENTS = 2**16  # latent elements per chunk, so that temporaries fit the CPU cache
_GATHERED_ELEMENTS = 2**20  # rotation elements copied per row; beyond, rows are grouped by class


def wide_schedule(n_timesteps: int = 1000) -> NoiseSchedule:
    r"""Make a variance-preserving schedule that is wide enough for exact likelihoods.

    The log-SNR is ``lambda(u) = 2 + 5/2 log((1 - u) / u)`` with ``u = (t + 1/2) / T``, from 21.0
    to -17.0 for T = 1000. Many timesteps then lie where standardised classes differ (log-SNR of
    about 0 to 6). At both ends, the "likelihood" weights grow as ``exp(|lambda| / 2.5)``, slower
    than the differences between the classes' errors decay, ``exp(-|lambda| / 2)``.

    Parameters
    ----------
    n_timesteps : int, default=1000
        At most 100,000.

    Returns
    -------
    NoiseSchedule

    Raises
    ------
    InputValueError
        If ``n_timesteps`` is not a positive integer or is too large.

    Examples
    --------
    >>> wide_schedule()
    NoiseSchedule(n_timesteps=1000, log_snr=21.00..-17.00)
    """
    check("n_timesteps", n_timesteps, N_TIMESTEPS)
    return _wide_schedule(int(n_timesteps))


@lru_cache(maxsize=16)
def _wide_schedule(n_timesteps: int) -> NoiseSchedule:
    u = (torch.arange(n_timesteps, dtype=torch.float64) + 0.5) / n_timesteps
    log_snr = 2 + 2.5 * torch.logit(1 - u)
    return NoiseSchedule(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


class MixtureBackend(Backend):
    """Base of the exact backends: K classes, each a mixture of M Gaussians over F features.

    ``fit`` of a subclass sets ``classes_`` and passes raw components to ``_set_components``.
    """

    input_kind = "array"
    text_conditional = False
    unconditional_prompt = None
    default_template = "{}"
    dtype = torch.float64

    _constraints: ClassVar[Table] = {
        "n_timesteps": N_TIMESTEPS,
        "prediction_type": Options(*PREDICTION_TYPES),
    }

    classes_: NDArray
    center_: NDArray[np.float64]
    scale_: NDArray[np.float64]
    means_: Tensor  # [K, M, F], in the basis where the component's covariance is diagonal
    variances_: Tensor  # [K, M, F], with 1 in place of K or M if all share them
    log_weights_: Tensor  # [K, M]
    latent_rotation_: Tensor | None  # [F, F], from standardised rows to latents
    class_rotations_: Tensor | None  # [K, F, F], from latents to the basis of each class

    def __init__(
        self,
        means: ArrayLike | None,
        covariances: ArrayLike | None,
        *,
        covariance_type: str,
        n_timesteps: int,
        schedule: NoiseSchedule | None,
        prediction_type: PredictionTypeName,
    ) -> None:
        self.means = means
        self.covariances = covariances
        self.covariance_type = covariance_type
        self.n_timesteps = n_timesteps
        self.schedule = schedule
        self.prediction_type = prediction_type

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule in use: the given one, or ``wide_schedule(n_timesteps)``."""
        return wide_schedule(self.n_timesteps) if self._schedule is None else self._schedule

    @schedule.setter
    def schedule(self, schedule: NoiseSchedule | None) -> None:
        if not (schedule is None or isinstance(schedule, NoiseSchedule)):
            raise InputTypeError(
                f"schedule={short_repr(schedule)} must be a NoiseSchedule or None."
            )
        self._schedule = schedule

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor parameters, with ``schedule`` as given (possibly None)."""
        return super().get_params(deep) | {"schedule": self._schedule}

    # --------------------------------------------------------------- fitting

    def _read_means(self, y: Any, shape: tuple[str, ...]) -> NDArray:
        """Set ``classes_`` from y and return the given means, one row per class."""
        means = as_finite("means", self.means, shape)
        self.classes_ = np.unique(y)
        if len(self.classes_) != len(means):
            raise InputValueError(
                f"y names {len(self.classes_)} classes, but means were given for {len(means)}; "
                "give one row of means per class."
            )
        return means

    def _set_components(
        self,
        means: NDArray,
        covariances: NDArray,
        weights: NDArray,
        *,
        reg_param: float = 0.0,
        center: NDArray | None = None,
        deviation: NDArray | None = None,
    ) -> None:
        """Standardise and diagonalise raw components.

        Means are [K, M, F] and weights [K, M]. Covariances are [K, F, F] ("full", M = 1), [F, F]
        ("shared") or broadcastable to the means ("diag"). Data are standardised by ``center``
        and ``deviation`` [F], by default those of the mixture of all classes with equal priors.
        """
        if center is None or deviation is None:
            center, deviation = total_moments(means, covariances, weights, self.covariance_type)
        self.center_, constant = center, deviation <= 1e-12 * np.abs(center)
        self.scale_ = np.where(constant, 1.0, deviation)
        means = (means - self.center_) / self.scale_
        rotations = None
        if self.covariance_type == "diag":
            variances = covariances.reshape((1,) * (3 - covariances.ndim) + covariances.shape)
            # A feature that is constant in all classes does not distinguish them.
            variances = np.where(constant, 1.0, variances / self.scale_**2)
        else:
            covariances = covariances / np.outer(self.scale_, self.scale_)
            covariances[..., constant, constant] = 1.0
            variances, rotations = np.linalg.eigh(covariances)
            means = means @ rotations
            variances = variances.reshape(-1, 1, means.shape[-1])
        variances = self._lift_near_singular((1 - reg_param) * variances + reg_param)
        self.means_, self.variances_ = torch.as_tensor(means), torch.as_tensor(variances)
        with np.errstate(divide="ignore"):  # a weight of 0 has log weight -inf
            self.log_weights_ = torch.as_tensor(np.log(weights))
        self.latent_rotation_ = self.class_rotations_ = None
        if self.covariance_type == "shared":
            self.latent_rotation_ = torch.as_tensor(rotations)
        if self.covariance_type == "full":
            self.class_rotations_ = torch.as_tensor(rotations)

    def _lift_near_singular(self, variances: NDArray) -> NDArray:
        """Raise the variances [K or 1, ..., F] of near-singular covariances, with a warning."""
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
                "to choose the amount yourself, set reg_param or give other covariances.",
                UserWarning,
                stacklevel=4,
            )
        return variances + ADDED_VARIANCE * singular

    def _owners(self, flagged: NDArray) -> str:
        """List the flagged [K or 1, ...] classes, for messages."""
        if len(flagged) < len(self.classes_):
            return "all classes (they share one)"
        names = self.classes_[flagged.reshape(len(flagged), -1).any(1)].tolist()
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return f"class{'es' * (len(names) > 1)} {', '.join(map(repr, names[:10]))}{more}"

    def fingerprint(self) -> str:
        return hash_learned(vars(self))

    # --------------------------------------------------------------- the network's interface

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode raw rows [B, F] as latents [B, F], float64.

        Raises
        ------
        InputValueError
            If rows do not have the F features of the classes.
        NotFittedError
            If ``fit`` was not called.
        """
        check_is_fitted(self)
        if images.ndim != 2 or images.shape[1] != len(self.center_):
            raise InputValueError(
                f"rows have shape {tuple(images.shape)}, but the classes have "
                f"{len(self.center_)} features; expected (n_rows, {len(self.center_)})."
            )
        center, scale = torch.as_tensor(self.center_), torch.as_tensor(self.scale_)
        rows = (images.to("cpu", torch.float64) - center) / scale
        return rows if self.latent_rotation_ is None else rows @ self.latent_rotation_

    def encode_classes(self, labels: Sequence[Any], prompts: Sequence[str]) -> Conditioning:
        """Return ``class_index`` [P], the labels' positions in ``classes_``; ignore prompts.

        Raises
        ------
        InputValueError
            If a label is not one of ``classes_``.
        NotFittedError
            If ``fit`` was not called.
        """
        check_is_fitted(self)
        return Conditioning(class_index=class_positions(self.classes_, labels))

    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """Return the optimal prediction of type ``prediction_type`` in the dtype of ``z`` [R, F].

        Timesteps ``t`` are [R], and ``condition`` holds R class positions.
        """
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
        """Return E[eps | z, c] for rows [R, F] in the basis of their class and levels [R, 1]."""
        alpha, sigma = alpha[:, None], sigma[:, None]
        residual = torch.addcmul(z[:, None], alpha, self.means_[index], value=-1)  # [R, M, F]
        variance = torch.addcmul(sigma**2, alpha**2, self._variances_of(index))
        pull = residual / variance
        if pull.shape[1] > 1:
            log_joint = self.log_weights_[index] + log_density(residual, variance)
            pull = log_joint.softmax(1)[:, None] @ pull
        return pull[:, 0] * sigma[:, 0]

    def _variances_of(self, index: Tensor | int) -> Tensor:
        """Return the variances of the indexed classes, or those that all classes share."""
        return self.variances_ if len(self.variances_) == 1 else self.variances_[index]

    def _rotate(self, rows: Tensor, index: Tensor, *, back: bool = False) -> Tensor:
        """Rotate rows [R, F] into the bases of their classes, or back.

        Rows are returned unchanged if all classes have the same basis.
        """
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
        """Compute the exact log-density of rows under every class, with regularised covariances.

        Parameters
        ----------
        X : array-like of shape (N, F)
            Raw rows, as given to ``fit``.

        Returns
        -------
        ndarray of shape (N, K)
            ``log p(x | c)`` in nats, where the density is per unit of X.

        Raises
        ------
        InputValueError
            If rows do not have the F features of the classes.
        NotFittedError
            If ``fit`` was not called.
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
        """Draw rows and labels from the model, with equal class probabilities.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        X : ndarray of shape (n_samples, F)
            Raw rows, in the units of the data given to ``fit``.
        y : ndarray of shape (n_samples,)
            Their labels, from ``classes_``.

        Raises
        ------
        NotFittedError
            If ``fit`` was not called.
        """
        check_is_fitted(self)
        rng = check_random_state(random_state)
        n_classes, n_components, n_features = self.means_.shape
        k = torch.as_tensor(rng.randint(n_classes, size=n_samples))
        bounds = self.log_weights_.exp().cumsum(1)[k]
        m = (torch.as_tensor(rng.random_sample(n_samples))[:, None] >= bounds).sum(1)
        m = m.clamp(max=n_components - 1)  # rounding may leave the sum of weights below 1
        noise = torch.as_tensor(rng.standard_normal((n_samples, n_features)))
        variances = self.variances_.expand_as(self.means_)[k, m]
        rows = self._rotate(self.means_[k, m] + variances.sqrt() * noise, k, back=True)
        if self.latent_rotation_ is not None:
            rows = rows @ self.latent_rotation_.T
        return rows.numpy() * self.scale_ + self.center_, self.classes_[k.numpy()]


def log_density(residual: Tensor, variance: Tensor) -> Tensor:
    """Return the log-density of diagonal Gaussians, summed over the features (last axis)."""
    return -0.5 * (residual**2 / variance + (2 * math.pi * variance).log()).sum(-1)


def from_noise(
    noise: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor, prediction_type: PredictionTypeName
) -> Tensor:
    """Convert a noise prediction [R, F] to another type, given z and the levels [R, 1]."""
    if prediction_type == "epsilon":
        return noise
    # Without signal (alpha = 0) x is arbitrary, because its error has weight 0.
    x = (z - sigma * noise) / alpha.clamp(min=1e-12)
    return PREDICTION_TYPES[prediction_type].target(x, noise, alpha, sigma)
