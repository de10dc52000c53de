"""Texts of users: what a terminal or page can show, and labels between commas."""

from __future__ import annotations

import csv
import unicodedata


def printable(text: str) -> str:
    """Return a text with its control characters escaped, which a terminal would obey.

    >>> printable("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\\\n'
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in ("Cc", "Zl", "Zp")
        else char
        for char in text
    )


def between_commas(text: str) -> list[str]:
    """Return the parts of a text between commas and line ends, without blanks around them.

    Parts that hold commas are in double quotes, as in CSV.

    Raises
    ------
    csv.Error
        If the text cannot be read as CSV.

    Examples
    --------
    >>> between_commas('cat, "fox, red",')
    ['cat', 'fox, red']
    """
    rows = csv.reader(text.splitlines(keepends=True), skipinitialspace=True)
    return [part.strip() for row in rows for part in row if part.strip()]
