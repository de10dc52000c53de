"""Parquet files that were sorted, edited, damaged or made up: right answers or clear errors."""

import json
import os
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import (
    DamagedFileError,
    InputFileError,
    MissingFileError,
)
from diffusion_classifier.pruners import StagedPruner

LABELS, MEANS = ["ant", "bee", "cat"], np.array([[-1.0, 0], [1, 0], [0, 1]])
PROMPTS = {"ant": ["a", "an ant"], "bee": "b", "cat": "c"}
X = np.random.default_rng(0).normal(size=(5, 2)) * 2
KEY = b"diffusion_classifier"


@pytest.fixture(scope="module")
def clf():
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    pruner = StagedPruner((4, 8), (2, 1), max_draws=12)
    options = {"prompts": PROMPTS, "pruner": pruner, "random_state": 0}
    return DiffusionClassifier(backend, **options).fit(MEANS, LABELS)


@pytest.fixture(scope="module")
def table(clf):
    return clf.errors(X)


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


def edited(rows, scratch, change=None, header=None):
    """Write rows with other columns or another header, and read them."""
    if change is not None:
        rows = change(rows)
    if header is not None:
        values = json.loads(rows.schema.metadata[KEY])
        header(values)
        rows = rows.replace_schema_metadata({KEY: json.dumps(values)})
    pq.write_table(rows, scratch)
    return ErrorTable.from_parquet(scratch)


def replaced(name, row, value):
    """A function that changes one value of a column."""

    def change(rows):
        values = rows[name].to_pylist()
        values[row] = value
        column = pa.array(values, rows.schema.field(name).type)
        return rows.set_column(rows.column_names.index(name), name, column)

    return change


ORDERS = {
    "reversed": lambda rows: rows.take(list(range(len(rows)))[::-1]),
    "sorted by prompt": lambda rows: rows.sort_by([("prompt", "descending")]),
    "sorted by draws": lambda rows: rows.sort_by(
        [("n_draws", "ascending"), ("image", "ascending")]
    ),
    "shuffled": lambda rows: rows.take(np.random.default_rng(1).permutation(len(rows))),
    "dictionaries": lambda rows: rows.take(list(range(len(rows)))[::-1]).set_column(
        2, "prompt", rows["prompt"].take(list(range(len(rows)))[::-1]).dictionary_encode()
    ),
    "other order of columns": lambda rows: rows.select(rows.column_names[::-1]),
    "another column": lambda rows: rows.append_column("note", pa.array(["x"] * len(rows))),
}


@pytest.mark.parametrize("name", ORDERS)
def test_rows_are_read_by_their_keys(rows, scratch, clf, table, name):
    read = edited(rows, scratch, ORDERS[name])
    np.testing.assert_array_equal(read.errors, table.errors)
    np.testing.assert_array_equal(read.active, table.active)
    np.testing.assert_array_equal(clf.predict_proba(read), clf.predict_proba(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: pa.concat_tables([r, r[7:8]]), r"row 20 \(image 1, prompt 'c'\) repeats"),
        (lambda r: pa.concat_tables([r[:19], r[3:4]]), r"row 19 \(image 0, prompt 'c'\) repeats"),
        (lambda r: pa.concat_tables([r[:6], r[7:]]), "row of image 1, prompt 'b' is missing"),
        (lambda r: r[:-1], "row of image 4, prompt 'c' is missing"),
        (lambda r: r[:-4], "row of image 4, prompt 'a' is missing"),
        (lambda r: r[:0], "row of image 0, prompt 'a' is missing"),
        (lambda r: r[4:], "row of image 0, prompt 'a' is missing"),
        (replaced("image", 3, 10**9), r"row 3 \(image 1000000000, prompt 'c'\) is of an image"),
        (replaced("image", 3, -1), r"row 3 \(image -1, prompt 'c'\) is of an image"),
        (replaced("prompt", 5, "x" * 10**5), r"row 5 \(image 1, prompt 'xxx.*does not list"),
        (replaced("label", 5, "cat"), "row 5 has label 'cat', but its prompt is of 'ant'"),
        (replaced("label", 5, "emu"), "row 5 has label 'emu'"),
        (replaced("active", 5, None), "row 5 has no value in column 'active'"),
        (replaced("errors", 5, None), "row 5 has no value in column 'errors'"),
        (replaced("n_draws", 5, 3), r"row 5 has \d+ errors, but n_draws is 3"),
        (replaced("errors", 5, [1.0] * 13), "row 5 has 13 errors"),
        (replaced("errors", 0, [1.0, np.nan, 1.0, 1.0]), "row 0 has the error nan"),
        (replaced("errors", 0, [1.0, np.inf, 1.0, 1.0]), "row 0 has the error inf"),
        (
            replaced("errors", 0, [1.0, -2.0, 1.0, 1.0]),
            r"draw 1 is -2\.0, but errors of loss='l2' must not be negative",
        ),
        (replaced("errors", 0, [1.0, None, 1.0, 1.0]), "row 0 has the error nan"),
        (lambda r: r.drop_columns(["active"]), "0 columns 'active' instead of one"),
        (lambda r: r.append_column("image", r["image"]), "2 columns 'image' instead of one"),
        (lambda r: r.set_column(0, "image", r["prompt"]), "column 'image' has type 'string'"),
        (
            lambda r: r.set_column(5, "errors", r["errors"].cast(pa.large_list(pa.int64()), False)),
            "column 'errors' has type 'large_list<element: int64>'",
        ),
    ],
)
def test_rows_that_do_not_make_a_table_are_named(rows, scratch, change, message):
    with pytest.raises(DamagedFileError, match=message) as caught:
        edited(rows, scratch, change)
    assert str(scratch) in str(caught.value) and len(str(caught.value)) < len(str(scratch)) + 300


def without_count(values):
    del values["n_images"]  # as in files of earlier releases


def test_files_without_a_count_of_images_miss_no_row(rows, scratch, table):
    assert len(edited(rows, scratch, header=without_count)) == 5
    far = replaced("image", 3, 10**9)
    with pytest.raises(DamagedFileError, match="row of image 0, prompt 'c' is missing"):
        edited(rows, scratch, far, without_count)
    with pytest.raises(DamagedFileError, match="row of image 2, prompt 'a' is missing"):
        edited(rows, scratch, lambda r: pa.concat_tables([r[:8], r[12:]]), without_count)


def put(*path_and_value):
    """A function that changes one value of a header."""
    *path, last, value = path_and_value

    def change(values):
        for key in path:
            values = values[key]
        values[last] = value

    return change


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


HEADERS = [
    (put("n_images", 10**9), "row of image 5, prompt 'a' is missing"),
    (put("n_images", 4), r"row 16 \(image 4, prompt 'a'\) is of an image"),
    (put("n_images", -1), "header.n_images=-1 must be an integer >= 0"),
    (put("timesteps", 3, 1000), r"timesteps\[3\] is 1000, but timesteps run from 0 to 999"),
    (put("timesteps", 3, 1.5), r"header.timesteps\[3\]=1.5"),
    (put("timesteps", []), "row 0 has 4 errors, but .* the table has 0 draws"),
    (put("density", 2, 0), r"density\[2\] is 0"),
    (put("density", 2, -1.0), r"density\[2\] is -1"),
    (put("density", 2, np.nan), r"header.density\[2\]=nan"),
    (put("density", 2, None), r"header.density\[2\]=None"),
    (put("round_of", 0, 7), r"round_of\[0\] is 7"),
    (put("antithetic", 0, True), r"antithetic\[0\] is True"),
    (put("scoring", "weights", 3, np.inf), r"header.scoring.weights\[3\]=inf"),
    (put("scoring", "log_prior", [0.0]), "3 classes, but scoring has 1"),
    (put("scoring", "class_of", [0, 1, 2, 3]), "class_of of scoring must"),
    (put("scoring", "reduction", "magic"), "reduction='magic' is not known"),
    (put("scoring", "log_temperature", [0.0]), "1 coefficients of the temperature"),
    (put("scoring", "extra", 1), "header.scoring has an unknown key 'extra'"),
    (put("schedule", "sigma", 0, 0.0), r"sigma\[0\] = 0 must be positive"),
    (put("schedule", {}), "header.schedule has no 'alpha'"),
    (put("schedule", []), "header.schedule="),
    (put("prompts", ["a"] * 4), "prompt 'an ant'.*does not list|belongs"),
    (put("prompts", "abcd"), "header.prompts="),
    (put("classes", ["ant", "bee", "bee"]), "holds a label twice"),
    (put("classes_dtype", "<U1000000"), "header.classes=.* does not have dtype"),
    (put("classes_dtype", "V1000000000"), "header.classes=.* does not have dtype"),
    (put("classes_dtype", "i8"), "header.classes=.* does not have dtype"),
    (put("loss", "l3"), "loss='l3' is not known"),
    (put("seed", "0"), "header.seed='0'"),
    (put("seed", 10**30), "header.seed=10000"),
    (put("alpha", "x"), "header.alpha='x'"),
    (put("made_by", nested(50)), "header.made_by has more than 20 levels"),
    (put("skipped", {"0": "gone"}), "image 0 was skipped, but prompt 0 has errors"),
    (put("skipped", {"x": "gone"}), "header.skipped has 'x'"),
    (put("custom_pipeline", "evil"), "header has an unknown key 'custom_pipeline'"),
    (lambda values: values.pop("seed"), "header has no 'seed'"),
]


@pytest.mark.parametrize(("header", "message"), HEADERS)
def test_headers_are_read_through_a_closed_list(rows, scratch, header, message):
    with pytest.raises(DamagedFileError, match=message) as caught:
        edited(rows, scratch, header=header)
    assert len(str(caught.value)) < len(str(scratch)) + 400


@pytest.mark.parametrize("text", [b"{", b"[]", b"[" * 10**5, b"null", b"\xff\xfe", b'{"a":' * 5000])
def test_headers_that_are_no_object_are_refused(rows, scratch, text):
    pq.write_table(rows.replace_schema_metadata({KEY: text}), scratch)
    with pytest.raises(DamagedFileError, match="header"):
        ErrorTable.from_parquet(scratch)


def test_a_label_or_text_cannot_fill_the_memory(rows, scratch):
    n, text = 200_000, "x" * 20_000  # 4 GB, if every row held its text
    values = json.loads(rows.schema.metadata[KEY])
    columns = {
        "image": np.arange(n),
        "label": pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([text])),
        "prompt": pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([text])),
        "active": np.ones(n, bool),
        "n_draws": np.ones(n, int),
        "errors": pa.LargeListArray.from_arrays(np.arange(n + 1), np.ones(n, np.float32)),
    }
    metadata = {KEY: json.dumps(values | {"n_images": n // 4})}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), scratch)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    with pytest.raises(DamagedFileError, match="does not list"):
        ErrorTable.from_parquet(scratch)
    assert tracemalloc.get_traced_memory()[1] < 2e8 and pa.total_allocated_bytes() - before < 2e8
    tracemalloc.stop()


def test_a_table_much_larger_than_its_file_is_refused(rows, scratch):
    n, n_draws = 60_000, 9_000  # 4 GB of errors
    values = json.loads(rows.schema.metadata[KEY])
    values["n_images"] = n // 4
    for name in ("timesteps", "density", "round_of", "antithetic"):
        values[name] = {"density": [1.0], "antithetic": [False]}.get(name, [0]) * n_draws
    columns = {
        "image": np.repeat(np.arange(n // 4), 4),
        "label": pa.array(["ant", "ant", "bee", "cat"] * (n // 4)),
        "prompt": pa.array(["a", "an ant", "b", "c"] * (n // 4)),
        "active": np.ones(n, bool),
        "n_draws": np.ones(n, int),
        "errors": pa.LargeListArray.from_arrays(np.arange(n + 1), np.ones(n, np.float32)),
    }
    metadata = {KEY: json.dumps(values)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), scratch)
    with pytest.raises(DamagedFileError, match="4,320,000,000 bytes of memory"):
        ErrorTable.from_parquet(scratch)


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(InputFileError, match=r"pipe\.parquet is no file"):
        ErrorTable.from_parquet(tmp_path / "pipe.parquet")
    with pytest.raises(InputFileError, match="is no file"):
        ErrorTable.from_parquet(tmp_path)
    with pytest.raises(MissingFileError, match=r"gone\.parquet does not exist"):
        ErrorTable.from_parquet(tmp_path / "gone.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(DamagedFileError, match=r"text\.parquet cannot be read as an ErrorTable"):
        ErrorTable.from_parquet(tmp_path / "text.parquet")


def test_a_damaged_error_is_noticed(file, scratch, table):
    content = bytearray(file.read_bytes())
    at = content.index(table.errors[2, 1, :2].tobytes())
    content[at] ^= 1  # the last bit of one error
    scratch.write_bytes(content)
    with pytest.raises(DamagedFileError, match="cannot be read"):
        ErrorTable.from_parquet(scratch)


def test_skipped_images_come_back(scratch, table):
    errors, active = table.errors.copy(), table.active.copy()
    errors[3], active[3] = np.nan, False
    made = ErrorTable(**{**vars(table), "errors": errors, "active": active, "skipped": ((3, "x"),)})
    made.to_parquet(scratch)
    read = ErrorTable.from_parquet(scratch)
    assert read.skipped == ((3, "x"),)
    np.testing.assert_array_equal(read.errors, errors)
