"""Shortlists in saved classifiers: a proposer of another library is not saved, and is given again.

A ``Shortlist`` is saved with None for its proposer, since loading one would run that library's
code.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from ...errors import InputValueError
from ...shortlist import BaseShortlist, ClipShortlist, Shortlist
from ...shortlist.groups import GroupShortlist

Attributes = dict[str, Any]


def without_proposer(shortlist: BaseShortlist | None) -> BaseShortlist | None:
    """Return what is saved of a shortlist."""
    if not isinstance(shortlist, Shortlist):
        return shortlist
    twin = copy.copy(shortlist)
    twin.proposer = None
    if hasattr(twin, "proposer_"):
        del twin.proposer_
    return twin


def with_proposer(parameters: Attributes, fitted: Attributes, proposer: Any, folder: Any) -> None:
    """Give the shortlists of a loaded classifier their proposer, in place.

    Raises
    ------
    InputTypeError, InputValueError
        If there is none but one is needed, or it has other classes, or none is needed.
    """
    pair = parameters.get("shortlist"), fitted.get("shortlist_")
    lacking = [shortlist for shortlist in pair if isinstance(shortlist, Shortlist)]
    if not lacking and proposer is not None:
        raise InputValueError(
            f"{folder} was saved without a Shortlist, so it takes no proposer; leave it out."
        )
    if lacking and proposer is None:
        raise InputValueError(
            f"{folder} was saved with a Shortlist whose proposer the folder does not hold; pass "
            "it: load(folder, proposer=...)."
        )
    for shortlist in lacking:
        shortlist.proposer = proposer
    if isinstance(pair[1], Shortlist):
        pair[1].adopt(proposer, fitted["classes_"])


def check_shortlist(shortlist: BaseShortlist | None, n_classes: int) -> None:
    """Raise an InputValueError if a fitted shortlist is of another number of classes."""
    numbers = []
    if isinstance(shortlist, ClipShortlist):
        numbers.append(len(getattr(shortlist, "text_features_", ())))
    if isinstance(shortlist, GroupShortlist):
        numbers += [len(groups.members) for groups in getattr(shortlist, "groups_", ())] or [0]
    for number in numbers:
        if number != n_classes:
            raise InputValueError(
                f"fitted.shortlist_ is of {number} classes, but there are {n_classes}."
            )


def cast_shortlist(shortlist: Any, cast: Any) -> None:
    """Cast the conditions of a shortlist as those of the classes are, in place."""
    if isinstance(shortlist, GroupShortlist):
        shortlist.groups_ = [
            replace(groups, condition=cast(groups.condition)) for groups in shortlist.groups_
        ]
