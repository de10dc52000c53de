"""Constraints say what a parameter may be, and what is wrong with a value, in one sentence."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.utils.constraints import (
    MANY,
    Arrays,
    Booleans,
    InstancesOf,
    Integers,
    Options,
    Reals,
    Sequences,
    as_numbers,
    check,
    check_parameters,
)
from diffusion_classifier.utils.display import short_repr


@pytest.mark.parametrize(
    "constraint, good, bad, allowed",
    [
        (
            Integers(1),
            [1, 2.0, np.int64(3), 10**400 // 10**395],
            [0, 1.5, True],
            "a positive integer",
        ),
        (Integers(0), [0, np.uint8(7)], [-1, math.nan, "1"], "an integer >= 0"),
        (Integers(1, MANY), [1, MANY], [MANY + 1, 1e30], "an integer from 1 to 100000"),
        (
            Reals(0),
            [0, 0.5, 1e300, Fraction(1, 2)],
            [-1e-9, math.inf, None],
            "a finite number >= 0",
        ),
        (Reals(-math.inf), [-1e300, 0], [math.inf, math.nan], "a finite number"),
        (Reals(0, 1, "neither"), [0.5], [0, 1, 1.0, True], "a number > 0 and < 1"),
        (Reals(0, 1, "left"), [0, 0.999], [1], "a number >= 0 and < 1"),
        (Reals(0, 1, "right"), [1e-9, 1], [0, 1.001], "a number > 0 and <= 1"),
        (Reals(0, 1), [0, 1], [-0.1, 2], "a number >= 0 and <= 1"),
        (Booleans(), [True, False, np.True_], [0, 1, "yes", None], "True or False"),
        (InstancesOf(dict), [{}], [None, []], "a dict"),
        (Integers(1) | None, [None, 3], [0, "x"], "a positive integer or None"),
        (
            Options("auto") | Booleans() | Integers(0),
            ["auto", True, 3],
            ["x", None, -1, np.array(["auto"])],
            "'auto', True or False or an integer >= 0",
        ),
        (
            Sequences(Integers(1), length=2),
            [(1, 2), [3, 4], np.array([5, 6]), torch.tensor([7, 8]), range(1, 3)],
            [[1], {1, 2}, "12", 3, {1: 2, 3: 4}],
            "a list or tuple of length 2, each item a positive integer",
        ),
    ],
)
def test_a_constraint_allows_what_it_says(constraint, good, bad, allowed):
    for value in good:
        check("p", value, constraint)
    for value in bad:
        with pytest.raises(InputValueError) as error:
            check("p", value, constraint)
        assert str(error.value) == f"p={short_repr(value)} must be {allowed}."


def test_an_unknown_option_is_told_the_known_ones():
    for value in ("l3", None, [], {}, np.array("l2"), b"l2"):
        with pytest.raises(InputValueError) as error:
            check("loss", value, Options("l1", "l2"))
        expected = f"loss={short_repr(value)} is not known; use one of 'l1', 'l2'."
        assert str(error.value) == expected
    check("normalize", None, Options(None, "unconditional"))


def test_the_wrong_item_of_a_sequence_or_array_is_named():
    for constraint in (Sequences(Integers(1)), Sequences(Integers(1)) | None):
        with pytest.raises(InputValueError, match=r"^stages\[1\]=0 must be a positive integer\.$"):
            check("stages", [5, 0, -1], constraint)
    for constraint in (Arrays(0), Arrays(0) | None):
        complaint = r"^noise\[1, 0\]=-2.0 must be finite and at least 0\.$"
        with pytest.raises(InputValueError, match=complaint):
            check("noise", [[0, 1], [-2, math.nan]], constraint)


@pytest.mark.parametrize(
    "value, expected",
    [
        ([1, 2.5], [1, 2.5]),
        (torch.tensor([1, 2], dtype=torch.bfloat16), [1, 2]),
        (torch.ones(2, requires_grad=True), [1, 1]),
        (np.array([1, Fraction(1, 4)], dtype=object), [1, 0.25]),
        (np.ma.array([1.0, 2.0]), [1, 2]),
        ([], []),
    ],
)
def test_numbers_are_read_as_float64(value, expected):
    numbers = as_numbers("p", value)
    assert numbers.dtype == np.float64 and numbers.tolist() == expected


@pytest.mark.parametrize(
    "value",
    [None, "1", ["1"], [True], {}, [[1], [2, 3]], 1j, [10**400], np.ma.array([1.0], mask=[True])],
)
def test_what_is_no_number_is_not_read_as_one(value):
    with pytest.raises(InputValueError, match=r"^p=.* must be finite numbers"):
        as_numbers("p", value)


def test_an_instance_is_checked_against_the_table_of_its_class():
    class Strategy:
        _constraints = {"alpha": Reals(0, 1), "size": Integers(1)}  # noqa: RUF012
        alpha, size = 0.5, 2

    strategy = Strategy()
    check_parameters(strategy)
    check_parameters(object())  # a class without a table allows anything
    strategy.size = "x"
    with pytest.raises(InputValueError, match=r"^size='x' must be a positive integer"):
        check_parameters(strategy)


def test_reprs_are_short_whatever_the_value():
    class Rude:
        def __repr__(self):
            raise RuntimeError

    class Long:
        def __repr__(self):
            return "line\n" * 10**5

    values = [Rude(), Long(), "x" * 10**6, list(range(10**5)), 10**5000, {i: i for i in range(999)}]
    values += [torch.nn.Sequential(*[torch.nn.Linear(1, 1) for _ in range(99)]), np.eye(300)]
    for value in values:
        text = short_repr(value)
        assert len(text) <= 100 and "\n" not in text
    assert short_repr(Rude()) == "<Rude>" or "Rude" in short_repr(Rude())
