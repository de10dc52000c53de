"""Whatever is in a saved folder, loading it gives a classifier or an error of this package."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.errors import DiffusionClassifierError, InputError
from tests.support.fuzz import FUZZ
from tests.support.saved_folders import (
    STATE,
    TENSORS,
    X,
    copy_saved,
    edit,
    put,
    read_state,
    read_tensors,
    written,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return written(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original, tmp_path):
    return copy_saved(original, tmp_path)


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(
        ["", "l2", "tensor", "embedded", "<U4", "RacingPruner", "\0", "../..", "é\ud800"]
    )
)
JSON = st.recursive(
    PLAIN,
    lambda items: (
        st.lists(items, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tensor", "array", "tuple", "dict", "items", "dtype", "class", "x"]),
            items,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def all_places(value, path=()):
    """Paths of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from all_places(item, (*path, key))


def loads_or_refuses(folder):
    """Load, and predict if that succeeds; only errors of the package may occur."""
    try:
        clf = DiffusionClassifier.load(folder)
    except InputError as error:
        assert len(str(error)) < 2000
        return
    with suppress(DiffusionClassifierError):
        assert np.isfinite(clf.predict_log_proba(X[:1])).all()


@FUZZ
@given(data=st.data())
def test_any_edit_of_the_json_is_read_or_refused(folder, original, data):
    state = read_state(original)
    places = sorted(all_places(state), key=str)
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
        with suppress(LookupError, TypeError):  # inside what the first edit replaced
            put(state, place, data.draw(JSON | st.just(...)))
    edit(folder, state)
    loads_or_refuses(folder)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]


@FUZZ
@given(data=st.data())
def test_any_edit_of_the_tensors_is_read_or_refused(folder, original, data):
    tensors = read_tensors(original)
    name = data.draw(st.sampled_from(sorted(tensors)))
    shape = data.draw(st.lists(st.integers(0, 4), max_size=4))
    fill = data.draw(st.sampled_from([0, 1, -1, 1e300, float("nan"), float("inf"), -float("inf")]))
    dtype = data.draw(st.sampled_from(DTYPES))
    if data.draw(st.booleans()):
        shape = tensors[name].shape
    tensors[name] = torch.full(tuple(shape), fill, dtype=torch.float64).to(dtype)
    edit(folder, read_state(original), tensors)
    loads_or_refuses(folder)


@FUZZ
@given(data=st.data())
def test_any_edit_of_the_bytes_is_read_or_refused(folder, original, data):
    name = data.draw(st.sampled_from([STATE, TENSORS]))
    content = bytearray((original / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 3000) - 1))
        content[at] = data.draw(st.integers(0, 255))
    edit(folder, read_state(original), bytes(content) if name == TENSORS else None)
    if name == STATE:
        (folder / STATE).write_bytes(content)
    loads_or_refuses(folder)
