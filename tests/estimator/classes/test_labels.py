"""Labels are read as they are meant, or refused: nothing missing, blank, mixed or masked."""

import datetime

import numpy as np
import pandas as pd
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import load_embedded
from diffusion_classifier.backends.base import Conditioning
from diffusion_classifier.errors import InputError, InputValueError
from diffusion_classifier.estimator.classes.labels import alike, read_labels, warn_of_alike
from diffusion_classifier.pruners import NoPruning

NAN, NAT = float("nan"), np.datetime64("NaT")


@pytest.mark.parametrize(
    "y, place",
    [
        (["cat", NAN], r"labels\[1\]=nan"),
        ([None, "cat", "dog"], r"labels\[0\]=None"),
        (["cat", "dog", pd.NaT], r"labels\[2\]=NaT"),
        (["cat", pd.NA], r"labels\[1\]=<NA>"),
        ([1, 2, NAN], r"labels\[2\]=nan"),
        (np.array([1.0, NAN]), r"labels\[1\]=nan"),
        (np.array(["2020-01-01", NAT], dtype="datetime64[D]"), r"labels\[1\]=(nan|None)"),
        (np.array(["cat", np.float32("nan")], dtype=object), r"labels\[1\]=(nan|None)"),
        (pd.Series(["cat", None, "dog"]), r"labels\[1\]=(nan|None)"),
        (pd.Series(["cat", pd.NA], dtype="string"), r"labels\[1\]=<NA>"),
        (pd.Series([1, pd.NA], dtype="Int64"), r"labels\[1\]=<NA>"),
        (pd.Categorical(["cat", None, "dog"]), r"labels\[1\]=nan"),
    ],
)
def test_a_missing_label_is_refused_with_its_place(y, place):
    with pytest.raises(InputValueError, match=rf"{place} is missing"):
        read_labels(y, unique=True)


@pytest.mark.parametrize(
    "y, kinds",
    [
        ([1, "a"], r"labels\[0\]=1 is a number and labels\[1\]='a' a string"),
        (["a", "b", 2.0], r"labels\[0\]='a' is a string and labels\[2\]=2.0 a number"),
        ([True, "a"], r"labels\[0\]=True is a boolean and labels\[1\]='a' a string"),
        ([0, 1, True], r"labels\[0\]=0 is a number and labels\[2\]=True a boolean"),
        (np.array(["a", np.int64(1)], dtype=object), "a string and .* a number"),
    ],
)
def test_labels_of_two_types_are_refused_naming_one_of_each(y, kinds):
    with pytest.raises(InputValueError, match=f"{kinds}.*must all be of one type"):
        read_labels(y, unique=True)


@pytest.mark.parametrize(
    "y, expected",
    [
        (["cat", np.str_("dog")], ["cat", "dog"]),
        ([1, np.int64(2), 3.0], [1, 2, 3]),
        ([True, np.bool_(False)], [True, False]),
        (torch.tensor([3, 8]), [3, 8]),
        (pd.Series(["cat", "dog"], dtype="category"), ["cat", "dog"]),
        (pd.Series(["cat", "dog"], dtype="string"), ["cat", "dog"]),
        (np.ma.array([3, 8]), [3, 8]),
    ],
)
def test_labels_of_one_type_are_kept(y, expected):
    assert read_labels(y, unique=True).tolist() == expected


def test_masked_labels_are_refused():
    masked = np.ma.array([3, 8, 9], mask=[False, True, False])
    with pytest.raises(InputValueError, match=r"labels\[1\] is masked.*drop"):
        read_labels(masked, unique=True)


@pytest.mark.parametrize(
    "y",
    [
        5, object(), "cat", b"cat", {"cat"}, {"cat": 1}, [["a"], ["b", "c"]], [["a", "b"]] * 2,
        [b"cat", b"dog"], [0.5, 0.25], [{}, {}], [object(), object()],
        [datetime.date(2020, 1, 1), "a"], np.array([1 + 2j, 3]),
    ],
)  # fmt: skip
def test_what_is_no_list_of_labels_is_the_callers_mistake(y):
    with pytest.raises(InputError) as error:
        read_labels(y, unique=True)
    assert len(str(error.value)) < 400


def test_a_long_list_of_repeated_labels_is_shortened():
    with pytest.raises(InputValueError, match="more than once") as error:
        read_labels([f"class {i}" for i in range(10_000)] * 2, unique=True)
    assert len(str(error.value)) < 250


def make(labels, **options):
    clf = DiffusionClassifier(load_embedded(), pruner=NoPruning(2), random_state=0, **options)
    return clf.fit(None, labels)


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u00a0"])
def test_a_blank_label_is_refused_where_a_template_reads_it(blank):
    with pytest.raises(InputValueError, match=r"label .* is blank.*prompts=\{label: prompt\}"):
        make([blank, "red digit"])
    assert make([blank, "x"], prompts={blank: "", "x": "red"}).prompts_[blank] == [""]


def test_labels_that_the_text_encoder_reads_alike_are_named_once():
    labels = ["Zero", "zero", "zero ", "one", "Two", "two", "three"]
    with pytest.warns(UserWarning, match="reads alike") as caught:
        clf = make(labels)
    (message,) = [str(w.message) for w in caught if "reads alike" in str(w.message)]
    assert "'Zero', 'zero', 'zero '" in message and "'Two', 'two'" in message
    assert "'one'" not in message and "'three'" not in message
    probabilities = clf.predict_proba(np.zeros((1, 32, 32, 3), np.uint8))[0]
    order = clf.classes_.tolist()
    assert probabilities[order.index("Zero")] == pytest.approx(probabilities[order.index("zero")])


def test_labels_that_are_read_alike_in_several_templates_are_named_once():
    with pytest.warns(UserWarning, match="reads alike") as caught:
        make(["Zero", "zero", "one"], prompts=["{}", "red {}"])
    (message,) = [str(w.message) for w in caught if "reads alike" in str(w.message)]
    assert message.count("'Zero', 'zero'") == 1


def test_unicode_forms_of_one_word_are_read_alike():
    with pytest.warns(UserWarning, match="reads alike"):
        make(["caf\u00e9", "cafe\u0301", "one"])


def test_labels_that_are_read_differently_pass_in_silence(recwarn):
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    make([f"{color} {digit}" for color in ("red", "green", "blue") for digit in digits])
    make(["red", "green"], prompts={"red": ["red", "a red"], "green": ["green", "green"]})
    assert [str(w.message) for w in recwarn if "alike" in str(w.message)] == []


def test_labels_are_compared_across_batches_of_the_text_encoder():
    colors = ["red", "green", "blue", "white", "black", "yellow", "orange", "purple"]
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
    labels = [f"{color} {digit}" for color in colors for digit in digits] + ["Red Zero"]
    with pytest.warns(UserWarning, match="'Red Zero', 'red zero'") as caught:
        make(labels)
    assert len([w for w in caught if "alike" in str(w.message)]) == 1


def test_equal_class_indices_are_read_alike():
    condition = Conditioning(class_labels=torch.tensor([3, 1, 3, 3]))
    with pytest.warns(UserWarning, match=r"labels 1, 2: prompts such as '3' and '03'"):
        warn_of_alike(condition, ["3", "1", "3", "03"], np.array([1, 0, 1, 2]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_are_alike_up_to_rounding_only(dtype):
    rows = torch.randn(5, 7, 11, dtype=torch.float64)
    rows[3] = rows[0] * (1 + torch.finfo(dtype).eps / 2)
    rows[4] = rows[1] + 0.1 * torch.randn(7, 11)
    masks = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 1], [1, 0]])
    assert alike(Conditioning(states=rows.to(dtype), mask=masks)) == [[0, 3]]
    masks[3, 1] = 0
    assert alike(Conditioning(states=rows.to(dtype), mask=masks)) == []
