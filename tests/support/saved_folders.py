"""Saved classifiers, edited by someone who knows the format and computes the sums again."""

import hashlib
import json

import numpy as np
from safetensors.torch import load, save

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.pruners import RacingPruner

STATE, TENSORS = "classifier.json", "tensors.safetensors"
RNG = np.random.default_rng(0)
Y = np.array(["left", "middle", "right"] * 20)
X = RNG.normal(size=(60, 2)) + 4 * np.unique(Y, return_inverse=True)[1][:, None]


def written(folder):
    """Save a classifier with most of what can be saved: learned strategies, tensors, arrays."""
    clf = DiffusionClassifier(
        GaussianBackend(n_timesteps=50),
        sampler="importance",
        pruner=RacingPruner(max_draws=16, learn_profile=True),
        weighting="fitted",
        calibrator="temperature-draws",
        priors=np.array([1.0, 2.0, 3.0]),
        prompts={"left": ["l", "L"], "middle": "m", "right": "r"},
        n_fit_images=20,
        random_state=0,
    )
    clf.fit(X, Y).save(folder)
    return folder


def read_state(folder):
    return json.loads((folder / STATE).read_text())


def read_tensors(folder):
    return load((folder / TENSORS).read_bytes())


def edit(folder, state=None, tensors=None):
    """Write another state, other tensors (a dict, or bytes), or both."""
    state = dict(read_state(folder) if state is None else state)
    content = tensors if isinstance(tensors, bytes) else None
    if content is None:
        content = (folder / TENSORS).read_bytes() if tensors is None else save(tensors)
    state.pop("sha256", None)
    (folder / TENSORS).write_bytes(content)
    sums = {
        TENSORS: hashlib.sha256(content).hexdigest(),
        STATE: hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest(),
    }
    (folder / STATE).write_text(json.dumps({**state, "sha256": sums}))


def put(state, path, value):
    """Replace the value at a path of keys and positions; ``...`` as value removes it."""
    *parents, last = path
    for key in parents:
        state = state[key]
    if value is ...:
        del state[last]
    else:
        state[last] = value


def copy_saved(original, target):
    """Copy a saved classifier to a new folder, to edit it."""
    target.mkdir(exist_ok=True)
    for file in original.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target
