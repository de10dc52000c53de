"""Whatever is in a Parquet file, reading it gives the table or an error of this package."""

import json
from contextlib import suppress

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import InputError
from diffusion_classifier.pruners import StagedPruner
from tests.support.fuzz import FUZZ

KEY = b"diffusion_classifier"


@pytest.fixture(scope="module")
def table():
    means = np.array([[-1.0, 0], [1, 0], [0, 1]])
    clf = DiffusionClassifier(
        GaussianBackend(means, np.eye(2), covariance_type="shared"),
        prompts={"ant": ["a", "an ant"], "bee": "b", "cat": "c"},
        pruner=StagedPruner((4, 8), (2, 1), max_draws=12),
        random_state=0,
    )
    X = np.random.default_rng(0).normal(size=(5, 2)) * 2
    return clf.fit(means, ["ant", "bee", "cat"]).errors(X)


@pytest.fixture(scope="module")
def file(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "table.parquet"
    table.to_parquet(path)
    return path


@pytest.fixture(scope="module")
def rows(file):
    return pq.read_table(file)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") / "edited.parquet"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def read_or_refused(scratch, table):
    """A table with the same errors, or an error of ours."""
    try:
        read = ErrorTable.from_parquet(scratch)
    except InputError as error:
        assert str(scratch) in str(error)
        return None
    with suppress(InputError):  # weights or temperatures too large for an answer
        assert np.isfinite(read.log_posterior().numpy()).all()
    return read


@FUZZ
@given(data=st.data())
def test_any_edit_of_rows_gives_the_table_or_an_error(rows, scratch, table, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=15, max_size=25))
    shuffled = data.draw(st.permutations(range(len(rows))))
    pq.write_table(rows.take(data.draw(st.sampled_from([chosen, shuffled]))), scratch)
    read = read_or_refused(scratch, table)
    if read is not None:
        np.testing.assert_array_equal(read.errors, table.errors)


@FUZZ
@given(data=st.data())
def test_any_edit_of_the_header_gives_a_table_or_an_error(rows, scratch, table, data):
    values = json.loads(rows.schema.metadata[KEY])
    inside = data.draw(st.sampled_from([values, values["scoring"], values["schedule"]]))
    key = data.draw(st.sampled_from(sorted(inside)))
    if isinstance(inside[key], list) and data.draw(st.booleans()):
        inside[key] = list(inside[key])
        inside[key][data.draw(st.integers(0, len(inside[key]) - 1))] = data.draw(JSON)
    else:
        inside[key] = data.draw(JSON)
    pq.write_table(rows.replace_schema_metadata({KEY: json.dumps(values)}), scratch)
    read_or_refused(scratch, table)


@FUZZ
@given(data=st.data())
def test_any_damage_gives_a_table_or_an_error(file, scratch, table, data):
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        content[start : start + len(patch)] = patch[: len(content) - start]
    scratch.write_bytes(content[: data.draw(st.integers(0, 2 * len(content)))])
    read_or_refused(scratch, table)
