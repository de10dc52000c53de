"""What commands read: lists of files, class names and data sets, also odd ones."""

import io
import os
import threading

import datasets
import pytest
from PIL import Image

from diffusion_classifier.cli.inputs import find_images, read_labelled, read_labels
from diffusion_classifier.cli.options import join_labels
from diffusion_classifier.errors import InputValueError

NAMES = ["cat", "cow", "dog"]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_new_lines_separate_labels():
    assert read_labels("cat\ndog, cow\r\nhen", None) == ["cat", "dog", "cow", "hen"]
    labels = ["two\nlines", "a,b", 'say "a"', "plain"]
    assert read_labels(join_labels(labels), None) == labels


def test_labels_are_read_from_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("cat\ndog\n",), daemon=True)
    writer.start()
    assert read_labels(None, pipe) == ["cat", "dog"]
    writer.join(10)
    with pytest.raises(InputValueError, match="cannot be read: Is a directory"):
        read_labels(None, tmp_path)


def test_files_on_stdin_have_any_name(monkeypatch):
    names = [os.fsdecode(b"caf\xe9.png"), " b.png", "c.png "]
    stdin = io.BytesIO(b"\n".join(map(os.fsencode, names)) + b"\r\n\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stdin, encoding="ascii"))
    assert find_images(["-"]) == names


def test_globs_match_folders_of_images(tmp_path):
    touch(tmp_path, "a/1.png", "a/2.png", "b/3.png", "4.png")
    everything = [str(tmp_path / name) for name in ("4.png", "a/1.png", "a/2.png", "b/3.png")]
    assert find_images([str(tmp_path / "*")]) == everything
    assert find_images([str(tmp_path / "**")]) == everything
    assert find_images([str(tmp_path / "[ab]")]) == everything[1:]


def data(labels, feature, split=None):
    rows = {"image": [Image.new("RGB", (4, 4))] * len(labels), "label": labels}
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    return datasets.Dataset.from_dict(rows, features=features, split=split)


@pytest.mark.parametrize("missing", [-1, None])
def test_rows_without_a_label_are_refused(tmp_path, missing):
    data([0, missing, 2], datasets.ClassLabel(names=NAMES)).save_to_disk(tmp_path / "set")
    with pytest.raises(InputValueError, match=rf"row 1 .* has no label: 'label' is {missing};"):
        read_labelled(None, str(tmp_path / "set"), None)


def test_texts_may_be_missing_too(tmp_path):
    data(["a", "b", None], datasets.Value("string")).save_to_disk(tmp_path / "set")
    with pytest.raises(InputValueError, match=r"row 2 .* has no label: 'label' is None;"):
        read_labelled(None, str(tmp_path / "set"), None, (None, "label"))


def test_all_names_of_a_label_column_are_classes(tmp_path):
    data([0, 2], datasets.ClassLabel(names=NAMES)).save_to_disk(tmp_path / "set")
    found = read_labelled(None, str(tmp_path / "set"), None)
    assert found.classes == found.chosen([1]).classes == NAMES
    assert found.labels.tolist() == ["cat", "dog"]


def test_a_split_that_is_not_there_is_refused(tmp_path):
    for split, place in ((None, "whole"), ("train", "train")):
        data([0, 2], datasets.ClassLabel(names=NAMES), split).save_to_disk(tmp_path / place)
        assert len(read_labelled(None, str(tmp_path / place), None).labels) == 2
        with pytest.raises(InputValueError, match=r"split 'nosuch', cannot be loaded: .* omit"):
            read_labelled(None, str(tmp_path / place), "nosuch")
    assert len(read_labelled(None, str(tmp_path / "train"), "train").labels) == 2
