"""Links, pipes and folders in place of saved files are neither read nor written."""

import os

import pytest

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.errors import InputFileError
from tests.support.saved_folders import STATE, TENSORS, copy_saved, written


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return written(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original, tmp_path):
    """A copy of the saved classifier, to edit."""
    return copy_saved(original, tmp_path / "saved")


SPECIAL = {
    "a symbolic link": lambda path, other: path.symlink_to(other),
    "a named pipe": lambda path, other: os.mkfifo(path),
    "a folder": lambda path, other: path.mkdir(),
}


@pytest.mark.parametrize("name", [STATE, TENSORS])
@pytest.mark.parametrize("kind", SPECIAL)
def test_only_regular_files_are_read_and_written(folder, tmp_path, name, kind):
    clf = DiffusionClassifier.load(folder)
    other = tmp_path / "other"
    other.write_bytes((folder / name).read_bytes())
    before = other.read_bytes()
    (folder / name).unlink()
    SPECIAL[kind](folder / name, other)
    for act in (DiffusionClassifier.load, clf.save):
        with pytest.raises(InputFileError, match=f"{name}' is {kind}"):
            act(folder)
    assert other.read_bytes() == before


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_folder_that_is_a_link_is_not_written_to(folder, tmp_path, target):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / target)
    clf = DiffusionClassifier.load(folder)
    with pytest.raises(InputFileError, match="link' is a symbolic link"):
        clf.save(tmp_path / "link")
    assert list((tmp_path / "elsewhere").iterdir()) == [] and not (tmp_path / "nowhere").exists()


def test_a_link_beside_the_saved_files_is_another_file(folder):
    clf = DiffusionClassifier.load(folder)
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(FileExistsError, match="holds other files"):
        clf.save(folder)
