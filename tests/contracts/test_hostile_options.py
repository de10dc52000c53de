"""Bad values of options: each is an InputError that names the option and the value, at once."""

import inspect
import math
import time
import warnings

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend, GaussianMixtureBackend
from diffusion_classifier.errors import InputError, InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import PRUNERS, ThresholdPruner
from diffusion_classifier.samplers import SAMPLERS, FixedDraws, ImportanceSampler
from diffusion_classifier.scoring import CALIBRATORS, WEIGHTINGS
from diffusion_classifier.utils.display import short_repr
from tests.support.records import make_record

OBJECT = object()
VALUES = [
    None, "x", math.nan, math.inf, -1, 0, 1.5, True, [], {}, 1e30, 10**30, 10**5000, b"", OBJECT,
    [math.nan], ["x"], {1}, 1j, np.array([0.5, 2.0]), np.array("x"), torch.tensor([0.5, math.nan]),
]  # fmt: skip
SCHEDULE = NoiseSchedule.flow(100)
X = np.array([[0.0, 0.0], [0.1, -0.1], [0.0, 0.2], [3.0, 3.0], [3.1, 2.9], [3.0, 3.2]])
Y = np.array([0, 0, 0, 1, 1, 1])
MEANS, VARIANCES = [[[0.0, 0.0]], [[3.0, 3.0]]], 0.1

# What the documentation allows of the values above, by option.
ALLOWED = {
    "antithetic": [True],
    "calibrator": [None, 1.5, 1e30, 10**30],
    "callbacks": [None, []],
    # A scalar makes the components of a mixture isotropic.
    "covariances": [1.5, 1e30, 10**30, 0, np.array([0.5, 2.0])],
    "image_size": [None],
    "learn_profile": [True],
    "memory": [None, "x"],
    "priors": [None, np.array([0.5, 2.0])],
    "prior_images": [0, 1.5, 1e30, 10**30],
    "prior_rounds": [0, 1.5],
    "n_fit_samples": [0],
    "noise": [None, np.array([0.5, 2.0])],
    "prompts": [None],
    "proposal": [None],
    "pruner": [None],
    "random_state": [None, 0],
    "reg_param": [0],
    "robust": [True],
    "FixedDraws.round_size": [None],
    "sampler": [None],
    "schedule": [None],
    "shortlist": [None],
    "stratified": [True],
    "threshold": [None, 0, 1.5, 1e30, 10**30],
    "error": [0],
    "verbose": [0, True, 1e30, 10**30],
    "weighting": [None],
    "weights": [None],
}
STRATEGIES = [
    *((kind, cls) for kind, known in {
        "sampler": {**SAMPLERS, "fixed": FixedDraws},
        "pruner": PRUNERS,
        "weighting": WEIGHTINGS,
        "calibrator": CALIBRATORS,
    }.items() for cls in known.values()),
]  # fmt: skip


def same(a, b):
    """Whether two values are the same, not only equal as True and 1 are."""
    return type(a) is type(b) and (a is b or (np.shape(a) == np.shape(b) and np.all(a == b)))


def options_of(cls):
    return list(inspect.signature(cls).parameters)


def needed(cls):
    """Arguments without which a strategy has to learn, or cannot be made."""
    return {
        FixedDraws: {"timesteps": [10, 90]},
        ImportanceSampler: {"proposal": np.ones(100)},
        ThresholdPruner: {"threshold": 1.0},
    }.get(cls, {})


def use_alone(kind, strategy):
    """Use a strategy as the race and ``fit`` do."""
    if kind == "sampler":
        next(strategy.rounds(SCHEDULE, seed=0))
    elif kind == "pruner":
        contributions = torch.arange(12.0, dtype=torch.float64).view(1, 3, 4)
        active = torch.ones(1, 3, dtype=torch.bool)
        strategy.select(contributions, active, torch.arange(4) // 2)
        strategy.max_evaluations(3)
    elif kind == "weighting":
        strategy.learn(make_record(torch.rand(4, 2, 20), [0, 1, 0, 1]))
        strategy.weights(SCHEDULE, "flow")


def fit(**options):
    options = {"backend": GaussianBackend(schedule=SCHEDULE), "random_state": 0} | options
    return DiffusionClassifier(**options).fit(X, Y)


def shown(value):
    """Texts of which a message about a value has one: the value, an item, or it as a float."""
    yield short_repr(value)
    for item in np.ravel(np.asarray(value, dtype=object)):
        yield short_repr(item)
        if isinstance(item, int | float) and abs(item) < 1e300:
            yield str(float(item))


def complaint_about(use, name, value):
    """The message with which a value is refused, or None; slow and unclear errors fail here."""
    start = time.process_time()
    message = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(value)
    except InputError as error:
        message = str(error)
        assert name in message and len(message) < 400
        assert any(text in message for text in shown(value)), message
    assert time.process_time() - start < 0.5, "it took too long"
    return message


def assert_only_the_allowed_pass(use, name, *, owner="", values=VALUES):
    allowed = ALLOWED.get(f"{owner}.{name}", ALLOWED.get(name, []))
    for value in values:
        message = complaint_about(use, name, value)
        passes = any(same(value, good) for good in allowed)
        assert (message is None) == passes, f"{name}={short_repr(value)}: {message}"


@pytest.mark.parametrize(
    "kind, cls, name",
    [
        pytest.param(kind, cls, name, id=f"{cls.__name__}-{name}")
        for kind, cls in STRATEGIES
        for name in options_of(cls)
    ],
)
def test_a_bad_option_of_a_strategy_is_named(kind, cls, name):
    assert_only_the_allowed_pass(
        lambda value: use_alone(kind, cls(**needed(cls) | {name: value})),
        name,
        owner=cls.__name__,
        values=VALUES[1:] if name in needed(cls) else VALUES,  # None: to be learned
    )
    if name != "noise":
        bad = {"weighting": "x", "sampler": -1, "pruner": "x"}[kind]
        message = complaint_about(
            lambda v: fit(**{kind: cls(**needed(cls) | {name: v})}), name, bad
        )
        assert message is not None


@pytest.mark.parametrize("name", [n for n in options_of(DiffusionClassifier) if n != "backend"])
def test_a_bad_option_of_the_classifier_is_named(name):
    assert_only_the_allowed_pass(lambda value: fit(**{name: value}), name)


def test_a_bad_backend_is_named_and_shown_in_short():
    class Long:
        def __repr__(self):
            return "x" * 10**6

    for value in [*VALUES[1:], Long()]:
        with pytest.raises(InputError) as error:
            DiffusionClassifier(value).fit(None, ["a", "b"])
        assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", options_of(GaussianBackend))
def test_a_bad_option_of_gaussian_classes_is_named(name):
    given = {"means": [[0.0, 0.0], [3.0, 3.0]], "covariances": [np.eye(2), np.eye(2)]}

    def use(value):
        GaussianBackend(**given | {name: value}).fit(X, Y)

    if name in given:  # of the other form, but complete
        for value in VALUES:
            assert complaint_about(use, name, value) is not None
    else:
        assert_only_the_allowed_pass(use, name)


@pytest.mark.parametrize("name", options_of(GaussianMixtureBackend))
def test_a_bad_option_of_gaussian_mixtures_is_named(name):
    given = {"means": MEANS, "covariances": VARIANCES}

    def use(value):
        GaussianMixtureBackend(**given | {name: value}).fit(None, [0, 1])

    assert_only_the_allowed_pass(use, name)


@pytest.mark.parametrize(
    "priors, complaint",
    [
        ([1, 0], r"priors=\[1, 0\] must be 2 positive numbers"),
        ([1, -1], r"priors\[1\]=-1.0 must be finite and at least 0"),
        ([1, math.nan], r"priors\[1\]=nan"),
        ([math.inf, 1], r"priors\[0\]=inf"),
        ([1, 2, 3], r"priors=\[1, 2, 3\] must be 2 positive"),
        ([[1, 2]], r"priors=\[\[1, 2\]\] must be 2 positive"),
        (["1", "2"], r"priors=\['1', '2'\] must be finite numbers"),
        ([10**400, 1], r"priors=.* must be finite numbers"),
        ([True, False], r"priors=\[True, False\] must be finite numbers"),
        (np.ma.array([1.0, 2.0], mask=[True, False]), "must be finite numbers"),
        ({0: 1, 1: 2}, r"priors=\{0: 1, 1: 2\} must be finite numbers"),
    ],
)
def test_impossible_priors_are_refused(priors, complaint):
    with pytest.raises(InputValueError, match=complaint):
        fit(priors=priors)


@pytest.mark.parametrize(
    "priors, share",
    [([1e308, 1e308], 0.5), ([1e308, 1e-308], 1.0), ([5e-324, 5e-324], 0.5), ([3, 1], 0.75)],
)
def test_priors_of_any_size_count_by_their_ratio(priors, share):
    clf = fit(priors=priors)
    log_prior = clf.errors(X[:1]).scoring.log_prior
    assert math.exp(log_prior[0]) == pytest.approx(share)
    assert log_prior.isfinite().all()


def test_budgets_that_would_hang_are_refused_and_large_ones_are_not():
    for name in ("none", "racing", "paired", "staged"):
        pruner = PRUNERS[name](max_draws=10**7)
        with pytest.raises(
            InputValueError, match="max_draws=10000000 must be an integer from 1 to"
        ):
            fit(pruner=pruner)
        PRUNERS[name](max_draws=5000).max_evaluations(3)
    assert fit(pruner=PRUNERS["none"](max_draws=8.0)).errors(X[:1]).n_draws.max() == 8
