"""An interrupted or refused write leaves the earlier table."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import GaussianMixtureBackend
from diffusion_classifier.errors import InputFileError
from diffusion_classifier.pruners import NoPruning

X = np.array([[1.0], [-1.0]])


@pytest.fixture(scope="module")
def table():
    backend = GaussianMixtureBackend([[[-1.0]], [[1.0]]], 1.0)
    clf = DiffusionClassifier(backend, pruner=NoPruning(4), random_state=0).fit(None, [0, 1])
    return clf.errors(X)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_the_earlier_table_is_kept(table, tmp_path, monkeypatch, error):
    def interrupted(rows, file, **options):
        file.write(b"PAR1")
        raise error

    path = tmp_path / "errors.parquet"
    table.to_parquet(path)
    monkeypatch.setattr(pq, "write_table", interrupted)
    expected = KeyboardInterrupt if error is KeyboardInterrupt else InputFileError
    with pytest.raises(expected):
        table.to_parquet(path)
    np.testing.assert_array_equal(ErrorTable.from_parquet(path).errors, table.errors)
    assert [file.name for file in tmp_path.iterdir()] == ["errors.parquet"]


def test_a_link_is_not_followed(table, tmp_path):
    (tmp_path / "notes").write_text("private")
    (tmp_path / "errors.parquet").symlink_to("notes")
    with pytest.raises(InputFileError, match=r"errors\.parquet' is a symbolic link"):
        table.to_parquet(tmp_path / "errors.parquet")
    assert (tmp_path / "notes").read_text() == "private"
