"""How estimators look in a notebook, and values in messages."""

from __future__ import annotations

import reprlib
from typing import Any

LONGEST_REPR = 100  # characters

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = _REPR.maxdict = 6


class DocumentedMixin:
    """Show each parameter's documentation in the HTML representation.

    scikit-learn shows a parameter's text only beside a link to the class's page, so a link is
    given that leads nowhere. The two attributes are its documented interface for other packages.
    """

    _doc_link_module = "diffusion_classifier"
    _doc_link_template = "#{estimator_name}"


class PlainText(str):
    """Text that is printed without quotes."""

    def __repr__(self) -> str:
        return str(self)


def short_repr(value: Any) -> str:
    """Return the repr of a value on one line of at most 100 characters, for messages.

    Examples
    --------
    >>> short_repr("cat"), short_repr(list(range(9)))
    ("'cat'", '[0, 1, 2, 3, 4, 5, ...]')
    >>> short_repr("x" * 10**6)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'"
    """
    try:
        text = " ".join(_REPR.repr(value).split())
    except Exception:  # whatever a user's __repr__ raises
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST_REPR else text[: LONGEST_REPR - 3] + "..."
