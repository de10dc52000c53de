"""Parameters of the classifier: allowed values, wrapped pipelines, strategies that can be tuned."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator

from ..backends.base import Backend
from ..backends.embedded import load_embedded
from ..backends.resolve import wrap_pipeline
from ..callbacks import Callback
from ..errors import InputValueError
from ..images.resize import RESIZE_MODES
from ..scoring.class_losses import LOSS_NAMES, PROMPT_REDUCTIONS
from ..shortlist import BaseShortlist
from ..strategies import KINDS, strategy_to_tune
from ..utils.constraints import (
    MANY,
    Arrays,
    Booleans,
    InstancesOf,
    Integers,
    Options,
    Sequences,
    Table,
)
from ..utils.display import short_repr

_SIDES = Integers(1, 2**16)  # of pictures, in pixels


class ClassifierParameters(BaseEstimator):
    """What scikit-learn's ``set_params`` does, also for strategies that are None or a name."""

    # backend, prompts, strategies, device and dtype are checked where they are read.
    _constraints: ClassVar[Table] = {
        "loss": Options(*LOSS_NAMES),
        "prompt_reduction": Options(*PROMPT_REDUCTIONS, "embedding"),
        "priors": Arrays(0) | None,
        "n_fit_images": Integers(1, 10**9),
        "n_fit_samples": Integers(0, 10**6),
        "image_size": _SIDES | Sequences(_SIDES, length=2) | None,
        "resize": Options(*RESIZE_MODES),
        "batch_size": Options("auto") | Integers(1, MANY),
        "random_state": Integers(0, 2**32 - 1) | InstancesOf(np.random.RandomState) | None,
        "verbose": Options("auto") | Booleans() | Integers(0),
        "shortlist": InstancesOf(BaseShortlist) | None,
        "memory": InstancesOf(str) | InstancesOf(os.PathLike) | None,
        "callbacks": Sequences(InstancesOf(Callback)) | None,
    }

    @property
    def backend(self) -> Any:
        """The noise predictor; a diffusers pipeline is wrapped when it is set."""
        return self.__dict__["backend"]

    @backend.setter
    def backend(self, backend: Any) -> None:
        self.__dict__["backend"] = wrap_pipeline(backend)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also of strategies: ``pruner__alpha`` is ``alpha`` of the pruner.

        Parameters
        ----------
        **params
            Parameters by name. ``<strategy>__<parameter>`` sets one parameter of a strategy. A
            strategy that is None or a name first becomes an instance, the one that ``fit`` would
            make.

        Returns
        -------
        DiffusionClassifier
            The estimator itself.

        Raises
        ------
        ValueError
            Raised by scikit-learn if there is no such parameter.
        InputValueError
            If what should get a parameter has none, such as ``calibrator=None``.

        Examples
        --------
        >>> from diffusion_classifier import DiffusionClassifier
        >>> clf = DiffusionClassifier(weighting="fitted")
        >>> clf.set_params(pruner__alpha=0.1, pruner__max_draws=50).pruner
        RacingPruner(alpha=0.1, max_draws=50)
        """
        own = {name: value for name, value in params.items() if "__" not in name}
        super().set_params(**own)
        nested = {name: value for name, value in params.items() if name not in own}
        for name in nested:
            owner = name.partition("__")[0]
            value = getattr(self, owner, None)
            if owner in KINDS:
                value = strategy_to_tune(owner, value, self._loaded_backend(), self.weighting)
                setattr(self, owner, value)
            if owner in self._get_param_names() and not hasattr(value, "set_params"):
                raise InputValueError(
                    f"{name} cannot be set, because {owner}={short_repr(value)} has no parameters; "
                    f"set {owner} to an instance, also in the same call."
                )
        return super().set_params(**nested)

    def _loaded_backend(self) -> Backend | None:
        """Return the backend, unless it is still to be loaded by its name."""
        if self.backend is None:
            return load_embedded()
        return self.backend if isinstance(self.backend, Backend) else None
