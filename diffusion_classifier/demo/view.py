"""What the page shows, as HTML: the race so far, the evidence map, and what went wrong.

Whatever visitors type passes ``text``, which escapes it.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..callbacks import RaceRound
from ..classifier import DiffusionClassifier
from ..plotting import EvidenceMapDisplay
from ..plotting.style import import_pyplot
from ..utils.text import printable

SHOWN = 20  # classes in the list


def text(value: Any) -> str:
    """Escape a text for HTML; control characters are shown as such.

    Examples
    --------
    >>> text("<b>\\x1b")
    '&lt;b&gt;\\\\x1b'
    """
    return html.escape(printable(str(value)))


def race_html(
    labels: Sequence[Any], state: RaceRound, dropped: dict[int, int], *, ended: bool
) -> str:
    """Write the list of classes, the likeliest first, and a sentence that says how it stands.

    Parameters
    ----------
    labels : sequence of length K
    state : RaceRound
    dropped : dict of int to int
        Evaluations at which a class was seen to be out of the race.
    ended : bool
        Whether this is the answer.
    """
    order = np.argsort(-state.probabilities, kind="stable")
    best, n_in = order[0], int(state.active.sum())
    spent = f"{state.n_evaluations:,} evaluations"
    if ended:
        summary = f"<b>{text(labels[best])}</b>, {state.probabilities[best]:.1%}, after {spent}."
    else:
        summary = f"{n_in} of {len(labels)} still in, {spent} spent."
    rows = "".join(_row(labels, state, dropped, k, ended) for k in order[:SHOWN].tolist())
    rest = len(order) - SHOWN
    more = f"<li class='dc-more'>and {rest} more</li>" if rest > 0 else ""
    return (
        f"<div class='dc-race'><p class='dc-summary' role='status'>{summary}</p>"
        f"<ol>{rows}{more}</ol><p class='dc-note'>Bar: probability. Line: its 95&nbsp;% interval "
        "at this moment.</p></div>"
    )


def _row(
    labels: Sequence[Any], state: RaceRound, dropped: dict[int, int], k: int, ended: bool
) -> str:
    """Write one class of the list."""
    p, low, high = (float(v[k]) for v in (state.probabilities, state.low, state.high))
    if state.active[k]:
        status, kind = ("winner" if ended and state.active.sum() == 1 else "in"), "dc-in"
    else:
        status, kind = f"out at {dropped.get(k, state.n_evaluations):,}", "dc-out"
    return (
        f"<li class='{kind}'><span class='dc-name'>{text(labels[k])}</span>"
        f"<span class='dc-status'>{status}</span>"
        f"<span class='dc-track' aria-hidden='true'><span class='dc-bar' "
        f"style='width:{100 * p:.2f}%'></span><span class='dc-line' "
        f"style='left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%'></span></span>"
        f"<span class='dc-value'>{p:.1%} <small>{low:.1%} to {high:.1%}</small></span></li>"
    )


def evidence_html(clf: DiffusionClassifier, image: Image.Image, a: Any, b: Any) -> str:
    """Draw where the picture speaks for the first class, and where for the second."""
    import_pyplot()  # says what to install
    from matplotlib.figure import Figure  # pyplot's figures belong to the main thread

    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    display = EvidenceMapDisplay.from_estimator(clf, image, a, b, ax=figure.subplots())
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    nats = display.evidence.nats.sum()
    says = f"Map of the evidence for {a} over {b}: {nats:+.3g} nats in all"
    return (
        f"<figure class='dc-map'><img src='{url}' alt='{text(says)}'><figcaption>Blue places "
        f"speak for {text(a)}, orange ones for {text(b)}.</figcaption></figure>"
    )


def error_html(message: str) -> str:
    """Write what went wrong."""
    return f"<p class='dc-error' role='alert'>{text(message)}</p>"


def note_html(messages: Sequence[str]) -> str:
    """Write what a visitor should know of the answer."""
    return "".join(f"<p class='dc-note'>{text(message)}</p>" for message in messages)
