"""RiskControlledPruner: the share of images that lose the answer of all draws."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import FunctionBackend, GaussianBackend
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import RacingPruner, RiskControlledPruner
from tests.support.records import make_record

ROUND, J = 2, 40
ONES = torch.ones(100, dtype=torch.float64)


def images(n, seed, n_classes=6, easy=1.0):
    """Errors of n images that differ in difficulty and noise; heavy tails, shared by classes."""
    rng = np.random.default_rng(seed)
    gaps = np.sort(easy * rng.gamma(1.5, 1.0, (n, n_classes)), 1)
    gaps -= gaps[:, :1]
    noise = rng.standard_t(4, (n, n_classes, J)) + rng.standard_t(4, (n, 1, J))
    noise *= rng.lognormal(0, 0.5, (n, 1, 1))
    order = rng.permuted(np.tile(np.arange(n_classes), (n, 1)), axis=1)
    errors = np.take_along_axis(gaps[..., None] + noise, order[..., None], 1)
    return torch.as_tensor(errors).float().double()  # a record is float32


def record_of(errors, **changes):
    """A record that labels each image with the answer of all draws."""
    rounds = torch.arange(errors.shape[2]) // ROUND
    return make_record(errors, errors.mean(2).argmin(1), **{"round_of": rounds} | changes)


def race(pruner, errors):
    """Whether each image lost the answer of all its draws, and its evaluations."""
    n, p, j = errors.shape
    active, spent = torch.ones(n, p, dtype=torch.bool), torch.zeros(n)
    for stop in range(ROUND, j + 1, ROUND):
        racing = active.sum(1) > 1
        spent += ROUND * active.sum(1) * racing
        seen = errors[..., :stop].where(active[..., None], torch.nan)
        kept = pruner.select(seen, active, torch.arange(stop) // ROUND)
        active = kept.where(racing[:, None], active)
    best = errors.mean(2)
    lost = best.masked_fill(~active, torch.inf).argmin(1) != best.argmin(1)
    return lost, spent


@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_the_expected_share_of_lost_answers_is_at_most_the_risk(risk):
    """Over many draws of fitted and raced images; and little of the risk is left unused."""
    shares = []
    for seed in range(120):
        fitted, raced = images(160, seed).split(110)
        pruner = RiskControlledPruner(risk, max_draws=J).learn(record_of(fitted), ONES)
        shares.append(float(race(pruner, raced)[0].double().mean()))
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) - 2.6 * error <= risk  # not refuted at 1 %
    assert np.mean(shares) + 2.6 * error >= 0.6 * risk


@pytest.mark.parametrize("risk", [0.02, 0.1, 0.5])
def test_few_of_the_images_that_chose_the_threshold_lose_their_answer(risk):
    """The threshold keeps (lost + 1) / (n + 1) <= risk, with no more room than a single image."""
    errors = images(80, seed=1)
    pruner = RiskControlledPruner(risk, max_draws=J).learn(record_of(errors), ONES)
    chose = torch.randperm(80, generator=torch.Generator().manual_seed(0))[20:]
    worst = torch.stack([worst_statistic(errors[i], pruner.deviation_**2) for i in chose])
    above = int((worst > pruner.threshold_).sum())
    assert above == int(risk * 61) - 1
    assert int(race(pruner, errors[chose])[0].sum()) <= above


def worst_statistic(errors, variance):
    """The largest moderated t of the winner against any rival after any round, by a plain loop."""
    rounds = errors.view(len(errors), -1, ROUND).mean(2)
    winner, worst = int(errors.mean(1).argmin()), torch.tensor(0.0, dtype=torch.float64)
    for stop in range(1, rounds.shape[1] + 1):
        for rival in range(len(errors)):
            d = rounds[winner, :stop] - rounds[rival, :stop]
            moderated = (4 * variance + ((d - d.mean()) ** 2).sum()) / (4 + stop - 1)
            worst = torch.maximum(worst, d.mean() / (moderated / stop).sqrt())
    return worst


def test_it_is_cheaper_than_a_race_with_a_promise_for_each_image():
    fitted, raced = images(400, seed=2, easy=2).split(200)
    record = record_of(fitted)
    lost, spent = race(RiskControlledPruner(max_draws=J).learn(record, ONES), raced)
    by_race, dear = race(RacingPruner(max_draws=J).learn(record, ONES), raced)
    assert spent.mean() <= 0.7 * dear.mean()
    assert by_race.sum() <= lost.sum() <= 0.1 * len(raced)


def test_a_clear_loser_is_dropped_after_one_round():
    errors = images(100, seed=3)
    pruner = RiskControlledPruner(max_draws=J).learn(record_of(errors), ONES)
    first = errors[:1, :, :ROUND].clone()
    first[0, 1] = first[0].min() + 1000
    kept = pruner.select(first, torch.ones(1, 6, dtype=torch.bool), torch.zeros(ROUND).long())
    assert not kept[0, 1]
    assert kept[0].any()


def test_a_race_beyond_the_record_drops_nothing_more():
    pruner = RiskControlledPruner(max_draws=200).learn(record_of(images(100, seed=3)), ONES)
    assert pruner.n_draws_ == J
    errors = torch.tensor([0.0, 1e6]).double()[:, None].expand(1, 2, J + ROUND)
    active, rounds = torch.ones(1, 2, dtype=torch.bool), torch.arange(J + ROUND) // ROUND
    assert pruner.select(errors[..., :J], active, rounds[:J]).tolist() == [[True, False]]
    assert pruner.select(errors, active, rounds).all()


def test_a_record_longer_than_the_budget_is_cut():
    errors = images(120, seed=4)
    cut = RiskControlledPruner(max_draws=20).learn(record_of(errors), ONES)
    short = RiskControlledPruner(max_draws=20).learn(record_of(errors[..., :20]), ONES)
    assert (cut.threshold_, cut.deviation_, cut.n_draws_) == (
        short.threshold_, short.deviation_, 20
    )  # fmt: skip


def test_weights_and_priors_count():
    """The threshold is learned from the contributions that select sees."""
    errors = images(100, seed=5)
    timesteps = torch.arange(J) % 100
    weights = torch.linspace(0.5, 2, 100, dtype=torch.float64)
    prior = torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1]).double().log()
    record = record_of(errors, log_prior=prior)
    learned = RiskControlledPruner(max_draws=J).learn(record, weights)
    contributions = errors.float().double() * weights[timesteps] - prior[:, None]
    same = RiskControlledPruner(max_draws=J).learn(record_of(contributions), ONES)
    assert learned.threshold_ == pytest.approx(same.threshold_, rel=1e-4)
    assert learned.deviation_ == pytest.approx(same.deviation_, rel=1e-4)


def test_what_cannot_be_learned_from_is_refused():
    errors = images(60, seed=6)
    few = r"at least 25 images.* but the record has 24"
    with pytest.raises(InputValueError, match=few):  # 6 for the deviation, 19 for the threshold
        RiskControlledPruner(0.05, max_draws=J).learn(record_of(errors[:24]), ONES)
    assert RiskControlledPruner(0.05, max_draws=J).learn(record_of(errors[:25]), ONES).threshold_
    with pytest.raises(InputValueError, match="2 rounds"):
        RiskControlledPruner().learn(record_of(errors[..., :ROUND]), ONES)
    with pytest.raises(InputValueError, match="constant"):
        RiskControlledPruner().learn(record_of(torch.ones(60, 2, J)), ONES)


def test_an_unfitted_pruner_says_what_to_do():
    assert RiskControlledPruner().needs_record
    clf = DiffusionClassifier(
        FunctionBackend(lambda z, t, c: z, schedule=NoiseSchedule.flow(100)),
        pruner="risk_controlled",
    )
    with pytest.raises(InputValueError, match=r"fit\(X, y\)"):
        clf.fit(None, [0, 1]).predict(np.zeros((1, 4, 4, 3)))
    with pytest.raises(InputValueError, match=r"fit\(X, y\)"):
        RiskControlledPruner().next_look(0)
    with pytest.raises(InputValueError, match=r"fit\(X, y\)"):
        RiskControlledPruner().select(
            torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool), torch.arange(4)
        )


def test_rounds_of_another_size_are_refused():
    pruner = RiskControlledPruner(max_draws=J).learn(record_of(images(60, seed=7)), ONES)
    with pytest.raises(InputValueError, match=r"rounds of 2 draws, but .* rounds of 4"):
        pruner.select(
            torch.zeros(1, 2, 8), torch.ones(1, 2, dtype=torch.bool), torch.arange(8) // 4
        )


@pytest.fixture(scope="module")
def classifier():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    X = rng.normal(size=(120, 4)) + 1.5 * np.eye(3, 4)[y]
    clf = DiffusionClassifier(
        GaussianBackend(schedule=NoiseSchedule.flow(100)),
        pruner=RiskControlledPruner(0.1, max_draws=40),
        random_state=0,
    )
    return clf.fit(X, y), X, y


def test_fit_learns_the_threshold_and_saves_it(classifier, tmp_path):
    clf, X, _ = classifier
    full = clf.errors(X, full=True)
    cheap = clf.errors(X)
    lost = clf.predict(cheap) != clf.predict(full)
    assert lost.mean() <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / len(X))
    assert cheap.n_evaluations.mean() < 0.5 * full.n_evaluations.mean()
    clf.save(tmp_path / "saved")
    again = DiffusionClassifier.load(tmp_path / "saved")
    assert vars(again.pruner_) == vars(clf.pruner_)
    assert isinstance(full, ErrorTable)
    assert np.array_equal(again.predict(full), clf.predict(full))


def test_the_certificate_promises_nothing_for_each_image(classifier):
    clf, X, _ = classifier
    assert np.isnan(clf.errors(X[:5]).certificate.alpha).all()
