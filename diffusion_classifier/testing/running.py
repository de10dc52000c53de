"""Run named checks of a subject, and say which one failed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import InputValueError
from ..utils.quiet import quiet


def run_checks(checks: Sequence[Callable[..., None]], skip: Sequence[str], subject: Any) -> None:
    """Run the checks of a subject, but for those whose names are to be skipped.

    Raises
    ------
    AssertionError
        If a check fails or raises another exception. The message begins with the check's name.
    InputValueError
        If ``skip`` names no check.
    """
    names = [check.__name__ for check in checks]
    skip = [skip] if isinstance(skip, str) else list(skip)
    for name in skip:
        if name not in names:
            raise InputValueError(f"skip={name!r} is no check; the checks are {', '.join(names)}.")
    for check in checks:
        if check.__name__ not in skip:
            run_check(check, subject)


def run_check(check: Callable[..., None], subject: Any) -> None:
    """Run a check; whatever it raises becomes an AssertionError that begins with its name."""
    try:
        with warnings.catch_warnings(), quiet(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # of the long prompt beside others
            check(subject)
    except AssertionError as error:
        raise AssertionError(f"{check.__name__}: {error}") from error
    except Exception as error:
        raise AssertionError(
            f"{check.__name__}: the backend raised {type(error).__name__}: {error}"
        ) from error
