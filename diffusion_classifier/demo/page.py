"""The page: a picture and labels on one side, the race and the evidence map on the other.

One race runs at a time; others wait in a queue. Run, Enter in the labels and Stop are all of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from ..callbacks import RaceRound
from ..classifier import DiffusionClassifier
from ..errors import DiffusionClassifierError, InputValueError
from .limits import Limits
from .live import Stopped, rounds_of
from .pad import PAD, PAD_SCRIPT, TAKE_DRAWING
from .view import error_html, evidence_html, note_html, race_html

LABELS = "red seven, red one, blue seven, green three, purple eight"  # for the embedded model
MOST_WAITING = 16
_FRAME = 0.1  # seconds between pictures of the race

Shown = tuple[str, str, str]  # race, map and notes, as HTML


def import_gradio() -> Any:
    """Return gradio, which tells nobody that it is used.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            "the demo needs gradio; install it with pip install 'diffusion-classifier[demo]'."
        ) from error
    return gradio


class Races:
    """The races of all visitors.

    Parameters
    ----------
    clf : DiffusionClassifier
        Not fitted: its parameters are those of every race.
    limits : Limits
    """

    def __init__(self, clf: DiffusionClassifier, limits: Limits) -> None:
        self.clf, self.limits = clf, limits
        self._stops: dict[str, threading.Event] = {}

    def stop(self, visitor: str) -> None:
        """Stop the race of a visitor, if one is on."""
        if (stop := self._stops.get(visitor)) is not None:
            stop.set()

    def run(self, visitor: str, upload: str | None, drawing: str, labels: str) -> Iterator[Shown]:
        """Race the labels on a picture; yield what the page shows, again and again."""
        stop = self._stops[visitor] = threading.Event()
        try:
            yield from self._run(upload, drawing, labels, stop)
        except Stopped:
            yield error_html("Stopped."), "", ""
        except (DiffusionClassifierError, ImportError) as error:
            yield error_html(_for_visitors(str(error))), "", ""
        finally:
            stop.set()
            if self._stops.get(visitor) is stop:
                del self._stops[visitor]

    def _run(
        self, upload: str | None, drawing: str, labels: str, stop: threading.Event
    ) -> Iterator[Shown]:
        names = self.limits.labels(labels)
        if not drawing and upload is None:
            raise InputValueError("choose or draw a picture first.")
        image = self.limits.drawing(drawing) if drawing else self.limits.picture(str(upload))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            clf = DiffusionClassifier(**self.clf.get_params(deep=False)).fit(None, names)
        notes = note_html([str(one.message) for one in told if one.category is UserWarning])
        labels_raced = clf.classes_.tolist()
        state: RaceRound | None = None
        dropped: dict[int, int] = {}
        shown = 0.0
        with contextlib.closing(rounds_of(clf, image, stop)) as rounds:
            for state in rounds:
                for k in (~state.active).nonzero()[0].tolist():
                    dropped.setdefault(k, state.n_evaluations)
                if time.monotonic() - shown >= _FRAME:
                    shown = time.monotonic()
                    yield race_html(labels_raced, state, dropped, ended=False), "", notes
        if state is None:
            raise InputValueError("this pruner decides without rounds; there is no race to show.")
        race = race_html(labels_raced, state, dropped, ended=True)
        yield race, "<p class='dc-note'>Computing the evidence map …</p>", notes
        first, second = clf.classes_[(-state.probabilities).argsort(kind="stable")[:2]]
        try:
            yield race, evidence_html(clf, image, first, second), notes
        except InputValueError as error:  # latents without a grid have no map
            yield race, note_html([str(error)]), notes


def _for_visitors(message: str) -> str:
    """Return a message without the number of the only picture."""
    message = re.sub(r"^image 0\b", "the picture", message)
    return message[:1].upper() + message[1:]


def make_page(clf: DiffusionClassifier | None = None, limits: Limits | None = None) -> Any:
    """Make the page.

    Parameters
    ----------
    clf : DiffusionClassifier, optional
        Its parameters are those of every race; it need not be fitted. By default the embedded
        model, with a drawing pad.
    limits : Limits, optional

    Returns
    -------
    gradio.Blocks
        Not launched; :func:`~diffusion_classifier.demo.serve` launches it with its style.

    Raises
    ------
    ImportError
        If gradio is not installed.

    Examples
    --------
    >>> from diffusion_classifier.demo import make_page
    >>> make_page().title
    'diffusion_classifier'
    """
    gr = import_gradio()
    clf = DiffusionClassifier(random_state=0) if clf is None else clf
    limits = Limits() if limits is None else limits
    races, has_pad = Races(clf, limits), clf.backend is None

    def run(upload: Any, drawing: str, labels: str, request: Any) -> Iterator[Shown]:
        yield from races.run(str(request.session_hash), upload, drawing or "", labels or "")

    def stop(request: Any) -> None:
        races.stop(str(request.session_hash))

    for function in (run, stop):
        function.__annotations__["request"] = gr.Request
    with gr.Blocks(title="diffusion_classifier", analytics_enabled=False) as page:
        gr.HTML(
            "<h1>Which label is it?</h1><p>A diffusion model tells which label explains a picture "
            "best. The labels race: those that lose leave early.</p>"
        )
        with gr.Row(equal_height=False):
            with gr.Column():
                with gr.Tabs():
                    if has_pad:
                        with gr.Tab("Draw a digit"):
                            gr.HTML(PAD, js_on_load=PAD_SCRIPT, elem_id="dc-pad")
                    with gr.Tab("Choose a picture"):
                        upload = gr.Image(
                            type="filepath",
                            image_mode=None,
                            sources=["upload", "clipboard"],
                            label="Picture",
                            buttons=[],
                            height=256,
                            elem_id="dc-upload",
                        )
                        # Nothing of a file is read before its bounds are checked.
                        upload.preprocess = lambda data: None if data is None else data.path
                drawing = gr.Textbox(visible=False)
                labels = gr.Textbox(
                    LABELS if has_pad else "",
                    label="Labels, with commas between them",
                    info="Digits and colours in words: all that this small model has read."
                    if has_pad
                    else None,
                    lines=1,
                    max_lines=1,
                    max_length=limits.max_labels * (limits.max_characters + 4),
                    elem_id="dc-labels",
                )
                with gr.Row():
                    go = gr.Button("Run", variant="primary", elem_id="dc-run")
                    halt = gr.Button("Stop", elem_id="dc-stop")
            with gr.Column():
                race = gr.HTML("<p class='dc-note'>The race appears here.</p>", elem_id="dc-race")
                evidence = gr.HTML("", elem_id="dc-evidence")
                notes = gr.HTML("", elem_id="dc-notes")
        options = {
            "fn": run,
            "inputs": [upload, drawing, labels],
            "outputs": [race, evidence, notes],
            "js": TAKE_DRAWING,
            "concurrency_limit": 1,
            "concurrency_id": "race",
            "show_progress": "hidden",
            "trigger_mode": "once",
            "api_visibility": "private",
        }
        go.click(**options)
        labels.submit(**options)
        halt.click(stop, queue=False, show_progress="hidden", api_visibility="private")
        page.unload(stop)
    return page.queue(max_size=MOST_WAITING, api_open=False)
