"""At home in scikit-learn: its tools run on images, with the embedded model, and pay once."""

import copy
import gc
import os
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
    permutation_test_score,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from diffusion_classifier import DiffusionClassifier, as_images
from diffusion_classifier.backends import load_embedded, pretrained
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.pruners import NoPruning, StagedPruner
from tests.support.image_examples import Column, Labelled, objects
from tests.support.pipelines import LEVELS, UNSAFE, conditional_unet, saved, stable_diffusion

COLORS = ("blue", "red")


def two_colors(n_images=8):
    """Scenes of red and blue digits, as many of each."""
    scenes = load_scenes("test", n_samples=100)
    index = np.sort(
        np.concatenate([np.flatnonzero(scenes.color == c)[: n_images // 2] for c in COLORS])
    )
    return scenes.images[index], scenes.color[index]


IMAGES, Y = two_colors()
OPTIONS = {"prompts": "a {} digit", "pruner": NoPruning(4), "random_state": 0, "device": "cpu"}
# scikit-learn's ensembles number the classes before they fit.
NUMBERED = {0: "a blue digit", 1: "a red digit"}


@pytest.fixture
def clf():
    return DiffusionClassifier(**OPTIONS)


@pytest.fixture(scope="module")
def latents():
    return DiffusionClassifier(**OPTIONS).encode(IMAGES)


@pytest.fixture
def loads(monkeypatch, empty_model_cache):
    """Origins of the pipelines loaded, from an empty cache on."""
    found = []
    load = pretrained.load_pipeline

    def counted(origin):
        found.append(origin)
        return load(origin)

    monkeypatch.setattr(pretrained, "load_pipeline", counted)
    return found


# ------------------------------------------------------------------ scikit-learn's tools


def test_a_pipeline_ends_in_a_classifier(clf):
    brighten = FunctionTransformer(
        lambda images: np.minimum(images.astype(int) + 1, 255).astype("u1")
    )
    model = Pipeline([("brighten", brighten), ("classify", clf)]).fit(IMAGES, Y)
    assert model.score(IMAGES, Y) == clf.fit(IMAGES, Y).score(brighten.transform(IMAGES), Y) >= 0.75
    model.set_params(classify__pruner__max_draws=2).fit(IMAGES, Y)
    assert model["classify"].errors(IMAGES[:1]).n_draws.tolist() == [[2, 2]]


def test_cross_validation_loads_weights_once_and_scores_the_held_out(clf, loads):
    scores = cross_val_score(clf, IMAGES, Y, cv=2)
    assert [origin.name for origin in loads] == ["embedded"]
    predicted = clf.fit(None, COLORS).predict(IMAGES)
    assert scores.mean() == np.mean(predicted == Y)  # nothing is learned from the other half


def test_a_grid_runs_over_strings_whole_strategies_and_nested_parameters(clf, latents, loads):
    grid = [
        {"weighting": ["uniform", "exponential"], "pruner__max_draws": [2, 4]},
        {"pruner": [StagedPruner((2,), (1,), max_draws=4)], "loss": ["l2", "l1"]},
    ]
    search = GridSearchCV(clf, grid, cv=2).fit(latents, Y)
    assert len(search.cv_results_["params"]) == 6 and len(loads) == 1
    for params, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        alone = clone(clf).set_params(**clone(params, safe=False)).fit(None, COLORS)
        assert score == pytest.approx(alone.score(latents, Y))
    assert search.predict(latents).shape == Y.shape


def test_a_vote_averages_probabilities(clf, latents):
    clf = clf.set_params(prompts=NUMBERED)
    other = clone(clf).set_params(weighting="exponential")
    vote = VotingClassifier([("a", clf), ("b", other)], voting="soft").fit(latents, Y)
    members = [clone(m).fit(None, [0, 1]).predict_proba(latents) for m in (clf, other)]
    np.testing.assert_allclose(vote.predict_proba(latents), np.mean(members, 0))
    assert vote.classes_.tolist() == list(COLORS)


def test_a_stack_learns_from_held_out_probabilities(clf, latents):
    clf = clf.set_params(prompts=NUMBERED)
    stack = StackingClassifier([("d", clf)], LogisticRegression(), cv=2).fit(latents, Y)
    inputs = clf.fit(None, [0, 1]).predict_proba(latents)[:, 1:]
    np.testing.assert_allclose(stack.transform(latents), inputs)
    final = LogisticRegression().fit(inputs, Y)
    np.testing.assert_array_equal(stack.predict(latents), final.predict(inputs))


def test_calibration_keeps_the_order_of_probabilities(clf, latents):
    clf.fit(None, COLORS)
    calibrated = CalibratedClassifierCV(FrozenEstimator(clf), method="temperature", cv=2).fit(
        latents, Y
    )
    before, after = clf.predict_proba(latents), calibrated.predict_proba(latents)
    order = clf.decision_function(latents).argsort()
    assert (np.diff(after[order, 1]) >= -1e-12).all() and after[order[-1], 1] > after[order[0], 1]
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after.sum(1), 1)
    folds = CalibratedClassifierCV(clone(clf), method="sigmoid", cv=2).fit(latents, Y)
    assert len(folds.calibrated_classifiers_) == 2
    assert folds.predict_proba(latents).shape == (8, 2)


def test_a_frozen_classifier_keeps_its_classes(clf, latents):
    frozen = FrozenEstimator(clf.fit(None, ["blue", "green", "red"]))
    frozen.fit(latents, Y)
    assert frozen.classes_.tolist() == ["blue", "green", "red"]
    np.testing.assert_array_equal(frozen.predict(latents), clf.predict(latents))


def test_permuted_labels_score_by_chance(clf, latents):
    score, permuted, p_value = permutation_test_score(
        clf, latents, Y, cv=2, n_permutations=4, random_state=0
    )
    assert score >= 0.75 > permuted.mean()
    assert p_value == (1 + (permuted >= score).sum()) / 5


def test_every_worker_loads_its_own_weights_once(clf, latents, tmp_path):
    def score(estimator, X, y):
        networks = [thing for thing in gc.get_objects() if type(thing) is UNet2DConditionModel]
        with open(tmp_path / str(os.getpid()), "a") as log:
            log.write(f"{[*map(id, networks)]} {id(estimator.backend_.pipeline.unet)}\n")
        return estimator.score(X, y)

    scores = cross_val_score(clf, latents, Y, cv=4, n_jobs=2, scoring=score)
    logs = {path.name: path.read_text().split("\n")[:-1] for path in tmp_path.iterdir()}
    assert str(os.getpid()) not in logs and 1 <= len(logs) <= 2
    assert sum(map(len, logs.values())) == 4
    for lines in logs.values():  # one network, always the same, and none beside it
        (line,) = set(lines)
        loaded, _, used = line.partition(" ")
        assert loaded == f"[{used}]"
    np.testing.assert_array_equal(scores, cross_val_score(clf, latents, Y, cv=4))


def nbytes_of_embeddings(clf):
    prompts = [prompt for of_class in clf.prompts_.values() for prompt in of_class]
    encoded = clf.backend_.encode_classes(prompts, prompts)
    return sum(tensor.nbytes for tensor in encoded.tensors.values())


def test_a_pickle_holds_prompt_embeddings_and_little_else(clf):
    clf.fit(None, COLORS)
    data = pickle.dumps(clf)
    embeddings = nbytes_of_embeddings(clf)
    assert len(data) < embeddings + 50_000
    np.testing.assert_array_equal(
        pickle.loads(data).predict_proba(IMAGES), clf.predict_proba(IMAGES)
    )
    assert clone(clf).fit(None, COLORS).backend_.pipeline is clf.backend_.pipeline


def test_a_pickle_does_not_grow_with_the_network(tmp_path):
    network = conditional_unet(block_out_channels=(64, 256))
    parts = {**stable_diffusion(), "unet": network}
    scheduler = DDIMScheduler(**LEVELS, steps_offset=1, clip_sample=False)
    learning = {"weighting": "fitted", "sampler": "importance", "calibrator": "temperature"}
    with TemporaryDirectory(dir=tmp_path) as folder:  # not kept, as tmp_path is
        saved(StableDiffusionPipeline(**parts, scheduler=scheduler, **UNSAFE), folder)
        assert sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors")) > 50e6
        clf = DiffusionClassifier(folder, pruner=NoPruning(4), device="cpu", **learning)
        clf.fit(IMAGES[:, ::2, ::2], Y)
        embeddings = nbytes_of_embeddings(clf)
        assert len(pickle.dumps(clf)) - embeddings < 150_000
        copies = clone(clf), pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)
        for twin in copies[1:]:
            assert twin.backend_.pipeline is clf.backend_.pipeline
        assert copies[0].backend == folder


# ------------------------------------------------------------------ X


def forms(folder):
    """The same pictures in every form."""
    paths = [folder / f"{i}.png" for i in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    names, pil = [str(path) for path in paths], [Image.fromarray(image) for image in IMAGES]
    first, floats = np.moveaxis(IMAGES, -1, 1), IMAGES / 255
    return {
        "PIL": pil,
        "paths": paths,
        "array of paths": np.array(names),
        "column of paths": np.array(names)[:, None],
        "frame of paths": pd.DataFrame({"file": names}),
        "series of paths": pd.Series(names),
        "series of images": pd.Series(pil),
        "NHWC": IMAGES,
        "NCHW": first,
        "floats": floats,
        "float32 NCHW": np.float32(np.moveaxis(floats, -1, 1)),
        "tensor": torch.from_numpy(first.copy()),
        "float tensor": torch.from_numpy(np.moveaxis(floats, -1, 1).copy()),
        "objects": objects(pil),
        "lazy column": Column(pil),
        "torch data set": as_images(Labelled(pil)),
        "mixed": [pil[0], names[1], IMAGES[2], torch.from_numpy(first[3].copy()), *paths[4:]],
        "rows": IMAGES.reshape(len(IMAGES), -1),
        "rows of floats": pd.DataFrame(floats.reshape(len(IMAGES), -1)),
        "rows of a network": torch.from_numpy(floats.reshape(len(IMAGES), -1)).requires_grad_(),
    }


def test_every_form_of_the_same_pictures_gives_the_same_probabilities(clf, tmp_path):
    clf.set_params(backend=load_embedded(image_shape=(32, 32, 3)), pruner=NoPruning(1))
    clf.fit(None, COLORS)
    expected = clf.predict_proba(IMAGES)
    for name, X in forms(tmp_path).items():
        np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-6, err_msg=name)


def test_flattened_rows_have_features_as_scikit_learn_counts_them(clf):
    rows = pd.DataFrame(IMAGES.reshape(8, -1)).add_prefix("pixel")
    clf.set_params(backend=load_embedded(image_shape=(32, 32, 3)))
    clf.fit(rows, Y)
    assert clf.n_features_in_ == 3072
    assert clf.feature_names_in_[[0, -1]].tolist() == ["pixel0", "pixel3071"]
    np.testing.assert_array_equal(clf.predict_proba(rows), clf.predict_proba(IMAGES))
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(rows.add_prefix("x"))
    with pytest.raises(ValueError, match=r"10 features.*expecting 3072"):
        clf.predict(rows.to_numpy()[:, :10])
    assert not hasattr(clf.fit(IMAGES, Y), "n_features_in_")
    with pytest.raises(
        ValueError, match=r"10 columns, but the backend.s image_shape=\(32, 32, 3\)"
    ):
        clf.predict(rows.to_numpy()[:, :10])


def test_three_grey_rows_in_half_precision_are_three_pictures():
    clf = DiffusionClassifier(load_embedded(image_shape=(32, 32)), pruner=NoPruning(1))
    clf.set_params(random_state=0).fit(None, ["red digit", "blue digit"])
    rows = torch.from_numpy(IMAGES[:3, :, :, 0]) >= 128  # 0 and 1, which any dtype holds
    expected = clf.predict_proba(rows.flatten(1).numpy())
    for dtype in (torch.bool, torch.bfloat16, torch.float16):
        given = rows.flatten(1).to(dtype)
        np.testing.assert_allclose(clf.predict_proba(given), expected, atol=1e-6)


def test_rows_are_refused_without_an_image_shape(clf):
    with pytest.raises(ValueError, match=r"X has shape \(8, 3072\)"):
        clf.fit(IMAGES.reshape(8, -1), Y)


@pytest.mark.parametrize("shape", [3072, (3072,), (32, 32, 3, 1)])
def test_an_image_shape_that_is_none_is_named(clf, shape):
    clf.set_params(backend=load_embedded(image_shape=shape))
    with pytest.raises(ValueError, match=r"image_shape=.* must be \(height, width\), \(height"):
        clf.fit(IMAGES.reshape(8, -1), Y)


def test_sparse_rows_are_refused_with_what_to_do(clf):
    clf.set_params(backend=load_embedded(image_shape=(32, 32, 3)))
    with pytest.raises(TypeError, match=r"X is sparse \(csr_array\); pass X\.toarray\(\)"):
        clf.fit(csr_array(IMAGES.reshape(8, -1)), Y)


def test_a_column_of_paths_has_a_name(clf, tmp_path):
    X = forms(tmp_path)["frame of paths"]
    clf.fit(X, Y)
    assert clf.feature_names_in_.tolist() == ["file"] and clf.n_features_in_ == 1
    assert clf.predict(X.iloc[:2]).shape == (2,)
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(X.rename(columns={"file": "name"}))
    predicted = cross_val_predict(clf, X, Y, cv=2)
    np.testing.assert_array_equal(predicted, clf.fit(None, COLORS).predict(IMAGES))
