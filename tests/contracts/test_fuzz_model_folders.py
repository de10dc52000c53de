"""Whatever is in a model's folder, loading it gives a whole network or an error of this package."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_classifier.backends import clear_model_cache
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.errors import InputError
from tests.support.fuzz import FUZZ
from tests.support.pipelines import sample_output, saved, tiny_sd

LOADS = settings(FUZZ, max_examples=40)  # one takes 0.1 to 0.3 s
PLAIN = st.sampled_from(
    [None, True, False, 0, 1, -1, 3, 10**9, 2.5, float("nan"), "", "x", "../unet", [], [1], {}]
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return Path(saved(tiny_sd(), tmp_path_factory.mktemp("original") / "model"))


@pytest.fixture(scope="module")
def expected(original):
    return sample_output(load_backend(original))


def copied(original, tmp_path):
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(original, folder))


def loads_or_refuses(folder):
    """Return the backend; None if an error of the package refuses the folder."""
    clear_model_cache()
    try:
        return load_backend(folder)
    except InputError as error:
        assert len(str(error)) < 2000
        return None


@LOADS
@given(data=st.data())
def test_any_edit_of_the_json_is_loaded_or_refused(original, tmp_path, data):
    folder = copied(original, tmp_path)
    path = data.draw(
        st.sampled_from(sorted(folder.rglob("*config.json")) + [folder / "model_index.json"])
    )
    values = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(values)))
    if data.draw(st.booleans()):
        values[key] = data.draw(PLAIN)
    else:
        del values[key]
    path.write_text(json.dumps(values))
    loads_or_refuses(folder)


@LOADS
@given(data=st.data())
def test_weights_are_whole_or_refused(original, tmp_path, expected, data):
    """A changed header, or a file that is cut off; the values themselves carry no checksum."""
    folder = copied(original, tmp_path)
    path = data.draw(st.sampled_from(sorted(folder.rglob("*.safetensors"))))
    content = bytearray(path.read_bytes())
    n_header = 8 + int.from_bytes(content[:8], "little")
    if data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        content[data.draw(st.integers(0, n_header - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
    backend = loads_or_refuses(folder)
    if backend is not None:  # a space in the header, or the same byte
        torch.testing.assert_close(sample_output(backend), expected)


@LOADS
@given(data=st.data())
def test_missing_and_exchanged_files_are_refused(original, tmp_path, data):
    folder = copied(original, tmp_path)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    other = data.draw(st.sampled_from([None, *files]))
    content = None if other is None else other.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    loads_or_refuses(folder)
