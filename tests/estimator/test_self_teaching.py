"""Learning without images: what the model draws, from how many evaluations, and what it learns."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend, GaussianBackend
from diffusion_classifier.errors import InputValueError, NonFiniteOutputError
from diffusion_classifier.estimator.self_teaching import Artist, draw_lesson, neighbours
from diffusion_classifier.noise import PREDICTION_TYPES, NoiseSchedule
from diffusion_classifier.noise.prediction import expand
from diffusion_classifier.pruners import NoPruning, RacingPruner
from diffusion_classifier.scoring import DrawsCalibrator
from tests.support.other_pipelines import tiny_dit
from tests.support.pipelines import tiny_sd

SHAPE = (1, 2, 3)
SPREAD = 0.1  # standard deviation of each class
COST = 64 * (2 * 25 + 12 * 50)


class Classes:
    """The best predictions of classes N(mean_k, SPREAD^2) of arrays, with a count of rows."""

    def __init__(self, kind="flow", n_classes=4, distance=1.0):
        generator = torch.Generator().manual_seed(0)
        self.kind, self.n_rows = kind, 0
        self.schedule = (
            NoiseSchedule.flow(200)
            if kind == "flow"
            else NoiseSchedule.from_alphas_cumprod(np.cos(np.linspace(0.01, 1.56, 200)) ** 2)
        )
        self.means = distance * torch.randn(n_classes, *SHAPE, generator=generator)

    def __call__(self, z, t, k):
        self.n_rows += len(z)
        alpha, sigma = (expand(level, z).double() for level in self.schedule.at(t))
        variance = alpha**2 * SPREAD**2 + sigma**2
        x = self.means[k] + alpha * SPREAD**2 / variance * (z - alpha * self.means[k])
        eps = (z - alpha * x) / sigma
        return PREDICTION_TYPES[self.kind].target(x, eps, alpha, sigma).float()

    def classifier(self, function=None, **options):
        backend = FunctionBackend(
            function or self,
            schedule=self.schedule,
            prediction_type=self.kind,
            input_kind="array",
            input_shape=SHAPE,
        )
        options = {"random_state": 0, "pruner": RacingPruner(max_draws=60), **options}
        return DiffusionClassifier(backend, **options)

    def fit(self, **options):
        return self.classifier(n_fit_samples=24, **options).fit(None, range(len(self.means)))

    def images(self, n_images):
        """Real images of the classes, and their labels."""
        y = np.arange(n_images) % len(self.means)
        noise = torch.randn(n_images, *SHAPE, generator=torch.Generator().manual_seed(1))
        return (self.means[y] + SPREAD * noise).numpy(), y


@pytest.mark.parametrize("kind", list(PREDICTION_TYPES))
def test_networks_of_all_prediction_types_draw_their_classes(kind):
    network = Classes(kind)
    predictor = network.classifier().fit(None, range(4))._predictor()
    drawn = Artist.of(predictor, 0).draw(np.arange(60) % 4, 1.0).values
    assert drawn.shape == (60, *SHAPE)
    distance = drawn - network.means[np.arange(60) % 4]
    assert float(distance.mean().abs()) < 0.03
    assert float(distance.std()) == pytest.approx(SPREAD, rel=0.25)


def test_guidance_leads_away_from_other_classes():
    network = Classes()
    artist = Artist.of(network.classifier().fit(None, range(4))._predictor(), 0)
    plain, guided = (artist.draw(np.arange(40) % 4, g).values for g in (1.0, 2.0))
    centre = network.means.mean(0)
    assert float((guided - centre).norm()) > 1.5 * float((plain - centre).norm())


@pytest.mark.parametrize(
    ("pipeline", "labels"), [(tiny_sd, ["a cat", "a dog"]), (tiny_dit, [1, 5])]
)
def test_text_and_class_pipelines_teach_themselves(pipeline, labels):
    clf = DiffusionClassifier(pipeline(), n_fit_samples=2, pruner=NoPruning(4), random_state=0)
    clf.fit(None, labels)
    predictor = clf._predictor()
    drawn = Artist.of(predictor, 0).draw(np.array([0, 1]), 2.0)
    assert drawn.values.shape[1:] == clf.encode(predictor.inputs.grey_image()).shape[1:]
    assert torch.isfinite(drawn.values).all()
    assert clf.temperature_ > 0


def test_the_same_seed_teaches_the_same():
    one, same = Classes().fit(), Classes().fit()
    other = Classes().fit(random_state=1)
    X, _ = Classes().images(20)
    np.testing.assert_array_equal(one.predict_proba(X), same.predict_proba(X))
    assert one.pruner_.deviation_ != other.pruner_.deviation_


def test_batches_change_nothing():
    artists = [
        Artist.of(Classes().classifier(batch_size=b).fit(None, range(4))._predictor(), 0)
        for b in ("auto", 3)
    ]
    one, other = (artist.draw(np.arange(8) % 4, 1.5).values for artist in artists)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("n_classes", "n_prompts", "distance", "options"),
    [
        (2, 1, 1.0, {}),
        (10, 1, 1.0, {}),
        (12, 1, 0.001, {}),  # no guidance helps: all are tried
        (12, 1, 0.001, {"sampler": "importance"}),  # learns from a pilot record
        (300, 2, 1.0, {}),
    ],
)
def test_drawing_and_recording_64_images_costs_a_bounded_number_of_evaluations(
    n_classes, n_prompts, distance, options
):
    network = Classes(n_classes=n_classes * n_prompts, distance=distance)
    prompts = {k: list(range(k, n_classes * n_prompts, n_classes)) for k in range(n_classes)}
    clf = network.classifier(n_fit_samples=64, pruner=RacingPruner(), prompts=prompts, **options)
    clf.fit(None, range(n_classes))
    assert COST / 8 < network.n_rows <= COST


def test_few_images_have_as_many_draws():
    network = Classes(n_classes=12, distance=0.001)
    predictor = network.classifier(pruner=RacingPruner()).fit(None, range(12))._predictor()
    lesson = draw_lesson(predictor, 8, 0)
    assert (len(lesson.images), lesson.predictor.pruner.max_draws) == (8, 50)


@pytest.mark.filterwarnings("ignore:the model does not know")
def test_many_classes_are_stood_for_by_neighbours():
    """With prompts that can be compared; class indices are chosen at random."""
    predictor = DiffusionClassifier(random_state=0).fit(None, [f"a {n}" for n in range(30)])
    predictor = predictor._predictor()
    chosen = neighbours(predictor, 12, 0)
    place = torch.cat([v.flatten(1) for v in predictor.condition.tensors.values()], 1).double()
    first = np.random.default_rng(0).permutation(30)[0]
    distance = (place - place[first]).norm(dim=1)
    others = np.setdiff1d(np.arange(30), chosen)
    assert first in chosen and distance[chosen].max() <= distance[others].min()

    predictor = Classes(n_classes=30).classifier().fit(None, range(30))._predictor()
    lesson = draw_lesson(predictor, 24, 0)
    assert len(set(lesson.true_class)) == len(lesson.predictor.setup.classes) == 12
    assert set(lesson.predictor.setup.classes) == set(neighbours(predictor, 12, 0))
    # Column k of the lesson is class classes[k]: the model recognises its drawings.
    table = lesson.predictor.table(lesson.images)
    assert (table.class_losses().argmin(1).numpy() == lesson.true_class).mean() > 0.9


def test_a_model_teaches_itself_what_labels_would_teach_it():
    """Shorter races, the same answers; real images teach the same."""
    network = Classes(n_classes=6, distance=0.25)
    X, _ = network.images(60)
    unlearned = network.classifier().fit(None, range(6))
    labelled = network.classifier(pruner=RacingPruner(max_draws=60, learn_profile=True))
    labelled.fit(*network.images(200))
    taught = network.classifier(n_fit_samples=64).fit(None, range(6))
    cost = [c.errors(X).n_evaluations.mean() for c in (unlearned, labelled, taught)]
    assert cost[2] < 0.5 * cost[0] and cost[2] < 1.3 * cost[1]
    assert (taught.predict(X) == unlearned.predict(X)).mean() >= 0.95


def test_a_model_that_misjudges_its_drawings_is_less_sure():
    """Without agreement the temperature rises above the natural one; it never falls below."""
    exact, doubtful = Classes(), Classes(distance=0.001)

    def careless(z, t, k):
        """Classes that differ by what is no image."""
        return doubtful(z, t, k) + 0.1 * (k[:, None, None, None] + t[0]) % 0.3

    natural = exact.classifier().fit(None, range(4)).temperature_
    for calibrator in ("natural", "temperature", DrawsCalibrator()):
        assert exact.fit(calibrator=calibrator).temperature_ == pytest.approx(natural)
        clf = doubtful.classifier(careless, n_fit_samples=24, calibrator=calibrator)
        assert clf.fit(None, range(4)).temperature_ > 1.5 * natural


def test_given_temperatures_stay_as_they_are():
    assert Classes().fit(calibrator=3.0).temperature_ == pytest.approx(3.0)
    assert Classes().fit(calibrator=None).temperature_ == 1.0


def test_images_are_preferred_to_drawings():
    network = Classes()
    X, y = network.images(20)
    clf = network.classifier(n_fit_samples=24).fit(X, y)
    assert network.n_rows == 0
    assert clf.n_fit_samples == 24


@pytest.mark.parametrize("calibrator", ["natural", "temperature", "temperature-draws"])
def test_what_was_taught_is_saved_and_a_clone_starts_anew(calibrator, tmp_path):
    network = Classes()
    clf = network.fit(calibrator=calibrator)
    clf.save(tmp_path / "taught")
    loaded = DiffusionClassifier.load(tmp_path / "taught", backend=clf.backend)
    X, _ = network.images(10)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert loaded.n_fit_samples == 24 and loaded.calibrator_.unit == "natural"
    fresh = clone(clf)
    assert fresh.n_fit_samples == 24 and not hasattr(fresh, "calibrator_")
    np.testing.assert_array_equal(fresh.fit(None, range(4)).predict_proba(X), clf.predict_proba(X))


def test_rows_of_unknown_length_cannot_be_drawn():
    backend = GaussianBackend([[0.0, 0], [1, 1]], np.eye(2), covariance_type="shared")
    clf = DiffusionClassifier(backend, n_fit_samples=8)
    with pytest.raises(InputValueError, match="does not state how long its rows are"):
        clf.fit(None, ["a", "b"])


def test_a_sampler_of_a_fixed_number_of_draws_is_refused():
    clf = Classes().classifier(n_fit_samples=8, sampler="even", pruner=RacingPruner())
    with pytest.raises(InputValueError, match=r"EvenSampler\(\) cannot stop after the few draws"):
        clf.fit(None, range(4))


def test_one_drawing_is_too_few():
    with pytest.raises(InputValueError, match="n_fit_samples=1 is too few"):
        Classes().classifier(n_fit_samples=1).fit(None, range(4))
    with pytest.raises(InputValueError, match="n_fit_samples"):
        Classes().classifier(n_fit_samples=-1).fit(None, range(4))


def test_a_network_that_returns_nan_is_named():
    network = Classes()
    clf = network.classifier(lambda z, t, k: z * torch.nan, n_fit_samples=4)
    with pytest.raises(NonFiniteOutputError, match="while drawing images"):
        clf.fit(None, range(4))
