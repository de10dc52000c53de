"""Generators of tokens as classifiers: their probabilities are the posterior."""

import copy
import math
import pickle
import re
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.errors import InputValueError, NonFiniteOutputError
from diffusion_classifier.explaining import explain
from diffusion_classifier.noise import (
    PREDICTION_TYPES,
    PROCESSES,
    GaussianProcess,
    NoiseSchedule,
)
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.testing import check_backend
from tests.support.tokens import N_CLASSES, N_TOKENS, STATES, Joint, by_order

X = STATES.numpy()
LABELS = list(range(N_CLASSES))
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)


def backend_of(function=None, **parameters):
    parameters = {
        "schedule": NoiseSchedule.masking(N_TOKENS),
        "prediction_type": "tokens",
        "input_kind": "array",
        "input_shape": (N_TOKENS,),
    } | parameters
    return FunctionBackend(Joint() if function is None else function, **parameters)


def classifier(backend=None, **parameters):
    parameters = {"pruner": NoPruning(2000), "random_state": 0} | parameters
    return DiffusionClassifier(backend or backend_of(), **parameters).fit(None, LABELS)


@pytest.mark.parametrize("weighting", ["uniform", "likelihood", "native"])
def test_probabilities_are_the_posterior_within_their_sampling_error(weighting):
    joint = Joint()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that "likelihood" weights rest on noise
        clf = classifier(weighting=weighting)
        table = clf.errors(X)
        log_proba = clf.predict_log_proba(table)
    assert clf.temperature_ == pytest.approx(1, rel=1e-9)
    errors = torch.as_tensor(table.errors).double()
    expected = -joint.table.T.log()
    standard_error = errors.std(2) / math.sqrt(errors.shape[2])
    z = (errors.mean(2) - expected) / standard_error
    assert float(z.abs().max()) < 4.5  # 48 of them
    assert float((errors.mean(2) - expected).abs().max()) < 0.2
    truth = joint.posterior().numpy()
    assert np.abs(np.exp(log_proba) - truth).max() < 0.04
    np.testing.assert_array_equal(log_proba.argmax(1), truth.argmax(1))


def test_an_order_of_an_exact_network_gives_the_posterior_with_a_single_draw():
    joint = Joint()
    backend = backend_of(
        lambda z, t, k: by_order(joint, z, k),
        schedule=NoiseSchedule.masking(1),
        prediction_type="ordered_tokens",
        classes=LABELS,
    )
    clf = classifier(backend, pruner=NoPruning(1))
    np.testing.assert_allclose(clf.predict_proba(X), joint.posterior(), rtol=1e-5)
    check_backend(backend, skip=["check_pickle_and_clone"])


def test_a_race_is_as_accurate_as_bayes():
    joint, generator = Joint(), torch.Generator().manual_seed(0)
    y = torch.arange(300) % N_CLASSES
    number = torch.stack([torch.multinomial(joint.table[k], 1, generator=generator) for k in y])
    sample = X[number[:, 0].numpy()]
    bayes = joint.posterior()[number[:, 0]].argmax(1)
    clf = DiffusionClassifier(backend_of(), random_state=0).fit(None, LABELS)
    answers = torch.as_tensor(clf.predict(sample))
    right, best = ((a == y).double().mean().item() for a in (answers, bayes))
    assert best > 0.6
    assert right > best - 0.03


def test_errors_do_not_depend_on_batches_or_company():
    whole = classifier(pruner=NoPruning(8)).errors(X).errors
    single = classifier(pruner=NoPruning(8), batch_size=1).errors(X[3:4]).errors
    np.testing.assert_allclose(single, whole[3:4], rtol=1e-6)


def test_antithetic_draws_reverse_the_order():
    clf = classifier(sampler=StratifiedSampler(antithetic=True), pruner=NoPruning(400))
    errors = torch.as_tensor(clf.errors(X).errors).double()
    z = (errors.mean(2) + Joint().table.T.log()) / (errors.std(2) / 20)
    assert float(z.abs().max()) < 6


def test_records_memory_and_saved_classifiers_work(tmp_path):
    clf = classifier(backend_of(name="joint"), pruner=NoPruning(8), memory=tmp_path / "memory")
    table = clf.errors(X)
    table.to_parquet(tmp_path / "errors.parquet")
    again = ErrorTable.from_parquet(tmp_path / "errors.parquet")
    assert again.prediction_type == "tokens"
    np.testing.assert_array_equal(again.errors, table.errors)
    np.testing.assert_array_equal(clf.errors(X).errors, table.errors)
    clf.save(tmp_path / "saved")
    loaded = DiffusionClassifier.load(tmp_path / "saved", backend=backend_of(name="joint"))
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(
        clone(clf).fit(None, LABELS).predict_proba(X), clf.predict_proba(X)
    )


def test_labelled_images_teach_weights_and_calibration():
    clf = DiffusionClassifier(
        backend_of(), weighting="fitted", calibrator="temperature", random_state=0
    )
    y = Joint().posterior().argmax(1).numpy()
    clf.fit(np.tile(X, (3, 1)), np.tile(y, 3))
    assert clf.score(X, y) > 0.8


def test_pictures_become_tokens_by_a_tokenizer():
    backend = backend_of(
        input_kind="image",
        input_shape=(1, 2, 2),
        encode=lambda images: (images > 0).float().flatten(1),
    )
    pictures = (X.reshape(-1, 2, 2) * 255).astype(np.uint8)
    few = NoPruning(8)
    np.testing.assert_array_equal(
        classifier(backend, pruner=few).predict_proba(pictures),
        classifier(pruner=few).predict_proba(X),
    )


def test_evidence_of_a_grid_of_tokens_adds_up():
    clf = classifier(backend_of(input_shape=(1, 2, 2)), pruner=NoPruning(64))
    nats, _ = explain(clf, X[3].reshape(1, 2, 2), 0, 1)
    mean = clf.errors(X[3:4].reshape(1, 1, 2, 2), full=True).errors[0].astype(float).mean(1)
    assert nats.shape == (2, 2)
    assert nats.sum() == pytest.approx((mean[1] - mean[0]).item(), rel=1e-5)


def test_check_backend_accepts_a_generator_of_tokens_and_finds_a_leak():
    check_backend(backend_of(classes=LABELS))

    def leaky(z, t, k):
        return Joint()(z, t, k) + torch.arange(2) * z.double().mean()

    with pytest.raises(AssertionError, match="check_batches"):
        check_backend(backend_of(leaky, classes=LABELS), skip=["check_pickle_and_clone"])


def test_what_does_not_apply_to_tokens_is_refused():
    for loss in ("l1", "huber", "vlb"):
        with pytest.raises(InputValueError, match=f"loss='{loss}' is a loss of predicted noise"):
            classifier(loss=loss)
    with pytest.raises(InputValueError, match='weighting="exponential" weighs noisy pictures'):
        classifier(weighting="exponential")
    with pytest.raises(InputValueError, match="no solver that draws images"):
        classifier(n_fit_samples=8)
    with pytest.raises(InputValueError, match=r"token 0 of image 1 is 0\.5"):
        classifier().predict(X[:2] + [[0, 0, 0, 0], [0.5, 0, 0, 0]])
    with pytest.raises(InputValueError, match="has 4 tokens, but the schedule has 9 levels"):
        classifier(backend_of(schedule=NoiseSchedule.masking(9))).predict(X)
    with pytest.raises(InputValueError, match=r"noise would weight.*masking\(4\)"):
        classifier(backend_of(schedule=NoiseSchedule.flow(4))).predict(X)
    for n_tokens in (0, -1, 2.5, True, "4"):
        with pytest.raises(InputValueError, match="n_tokens"):
            NoiseSchedule.masking(n_tokens)
    with pytest.raises(NonFiniteOutputError, match=r"image 2.*the length of the logits' last axis"):
        classifier(pruner=NoPruning(8)).predict([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 2]])


def test_tokens_that_encode_returns_are_not_rounded():
    def classified(dtype):
        backend = backend_of(
            encode=lambda images: images[:, 0, 0, :N_TOKENS].gt(0).to(dtype),
            input_kind="image",
            input_shape=None,
            image_size=(4, 4),
        )
        return classifier(backend, pruner=NoPruning(8)).predict_proba(PICTURES)

    np.testing.assert_array_equal(classified(torch.int64), classified(torch.float32))
    with pytest.raises(InputValueError, match=r"tokens in torch\.bfloat16.*return torch\.int64"):
        classified(torch.bfloat16)


def test_memory_refuses_a_process_that_it_cannot_tell_from_others(monkeypatch, tmp_path):
    class Doubled(GaussianProcess):
        pass

    monkeypatch.setitem(PROCESSES, "mine", Doubled(PREDICTION_TYPES["flow"]))
    backend = backend_of(
        lambda z, t, k: z, prediction_type="mine", schedule=NoiseSchedule.flow(10), name="mine"
    )
    with pytest.raises(InputValueError, match="cannot tell the process Doubled"):
        classifier(backend, memory=tmp_path).predict(X)


def test_a_process_of_ones_own_has_a_name(monkeypatch):
    class Doubled(GaussianProcess):
        def terms(self, output, target, scale, loss):
            return 2 * super().terms(output, target, scale, loss)

    monkeypatch.setitem(PROCESSES, "doubled", Doubled(PREDICTION_TYPES["flow"]))
    errors = {}
    for kind in ("flow", "doubled"):
        backend = backend_of(
            lambda z, t, k: z * (1 + k[:, None]),
            schedule=NoiseSchedule.flow(10),
            prediction_type=kind,
        )
        errors[kind] = classifier(backend, pruner=NoPruning(8)).errors(X).errors
    np.testing.assert_allclose(errors["doubled"], 2 * errors["flow"], rtol=1e-6)


def test_a_stated_variance_of_noise_is_refused_at_fit():
    with pytest.raises(InputValueError, match=r"learned_variance=True states.*predicts none"):
        classifier(backend_of(learned_variance=True))


class Absolute(GaussianProcess):
    """A flow whose errors are absolute values, whatever the loss."""

    def terms(self, output, target, scale, loss):
        return super().terms(output, target, scale, "l1")


def as_function(z, t, k):
    return z * (1 + k[:, None])


@pytest.fixture
def absolute(monkeypatch):
    """A backend with a process of its own, named as long as a test runs."""
    monkeypatch.setitem(PROCESSES, "absolute", Absolute(PREDICTION_TYPES["flow"]))
    return backend_of(as_function, schedule=NoiseSchedule.flow(10), prediction_type="absolute")


def test_a_pickled_backend_takes_its_process_along(absolute, monkeypatch):
    expected = classifier(absolute, pruner=NoPruning(8)).errors(X).errors
    pickled = pickle.dumps(absolute)
    monkeypatch.delitem(PROCESSES, "absolute")  # as in a new Python process
    loaded = pickle.loads(pickled)
    np.testing.assert_array_equal(
        classifier(loaded, pruner=NoPruning(8)).errors(X).errors, expected
    )
    assert type(PROCESSES["absolute"]) is Absolute
    assert "_own_process" not in vars(loaded)
    del loaded.prediction_type  # of a backend that is not loaded yet
    assert vars(copy.copy(loaded)) == vars(loaded)


@pytest.mark.slow
def test_workers_of_joblib_know_a_process_of_ones_own(absolute):
    clf = DiffusionClassifier(absolute, pruner=NoPruning(8), random_state=0)
    y = np.arange(len(X)) % 2
    alone, together = (
        cross_val_score(clf, X.astype(float), y, cv=2, n_jobs=n, error_score="raise")
        for n in (1, 2)
    )
    np.testing.assert_array_equal(alone, together)


def test_an_unknown_process_is_named_with_what_to_do(absolute, monkeypatch, tmp_path):
    table = classifier(absolute, pruner=NoPruning(8)).errors(X)
    table.to_parquet(tmp_path / "errors.parquet")
    monkeypatch.delitem(PROCESSES, "absolute")
    what_to_do = r"'absolute' is not known.*import the module that sets PROCESSES\['absolute'\]"
    with pytest.raises(InputValueError, match=what_to_do):
        ErrorTable.from_parquet(tmp_path / "errors.parquet")
    with pytest.raises(InputValueError, match=what_to_do):
        table.replay(weighting="native")
    with pytest.raises(InputValueError, match=what_to_do):
        clone(absolute)


@pytest.mark.parametrize("name", ["corrupt", "scale", "terms", "errors"])
def test_the_variational_bound_does_not_leave_out_part_of_a_process(name, monkeypatch):
    own = type("Mine", (GaussianProcess,), {name: lambda self, *args: None})
    schedule = NoiseSchedule.from_alphas_cumprod(np.linspace(0.99, 0.1, 10))
    for kind, process in {"mine": own, "same": type("Same", (GaussianProcess,), {})}.items():
        monkeypatch.setitem(PROCESSES, kind, process(PREDICTION_TYPES["epsilon"]))
    backends = {
        kind: backend_of(
            lambda z, t, k: torch.cat([z * (1 + k[:, None]), 0 * z], 1),
            schedule=schedule,
            prediction_type=kind,
            learned_variance=True,
        )
        for kind in ("mine", "same", "epsilon")
    }
    with pytest.raises(InputValueError, match=f'without {name} of Mine.*loss="l2", or choose'):
        classifier(backends["mine"], loss="vlb")
    same, epsilon = (
        classifier(backends[kind], loss="vlb", pruner=NoPruning(8)).errors(X).errors
        for kind in ("same", "epsilon")
    )
    np.testing.assert_array_equal(same, epsilon)


def test_every_block_of_the_page_on_tokens_runs(capsys):
    page = Path(__file__).parents[2] / "docs" / "tokens.md"
    names: dict = {}
    kinds, before = [], dict(PROCESSES)
    try:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
            exec(block, names)
            kinds.append(names["clf"].backend_.prediction_type)
    finally:
        PROCESSES.clear()
        PROCESSES.update(before)
    assert kinds == ["tokens", "tokens", "absolute flow"]
    answers, temperature = re.match(r"\[(.*?)\] ([\d.]+)", capsys.readouterr().out).groups()
    assert set(answers.split()) <= {"'cat'", "'dog'"}
    assert float(temperature) == pytest.approx(1, rel=1e-9)


def test_the_example_and_the_benchmark_train_continue_and_write_a_page(
    tmp_path, monkeypatch, capsys
):
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    main = runpy.run_path(str(root / "benchmarks" / "tokens.py"))["main"]
    page = tmp_path / "page.md"
    few = ["--n-images", "8", "--draws", "1", "2", "--folder", str(tmp_path)]
    main(["--steps", "2", "--only", "tokens", *few])
    main(["--steps", "2", *few, "--output", str(page)])
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (\d+) \|", page.read_text("utf-8"), re.M)
    assert [row[1:] for row in rows if row[1] != "race"] == [
        ("1 draws", "10"),
        ("2 draws", "20"),
    ] * 2
    assert capsys.readouterr().out.count("digits-tokens: step 2 of 2") == 1  # then it was read
