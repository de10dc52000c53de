"""The server of the demo: this machine only, unless told otherwise, and no other host is asked."""

from __future__ import annotations

import os
import socket
from typing import Any

from ..classifier import DiffusionClassifier
from .limits import Limits
from .page import import_gradio, make_page

HOST, PORT = "127.0.0.1", 7860
_OLD_AFTER = 600  # seconds after which uploaded files are deleted

STYLE = """
.gradio-container {max-width: 1100px !important; margin: 0 auto !important}
#dc-pad canvas {width: 256px; height: 256px; touch-action: none; cursor: crosshair;
  border: 1px solid var(--border-color-primary); border-radius: 6px}
#dc-pad p {display: flex; flex-wrap: wrap; gap: .4em 1em; align-items: center; margin: .5em 0}
#dc-pad select, #dc-pad button {color: var(--body-text-color); padding: .25em .5em;
  background: var(--input-background-fill); border: 1px solid var(--border-color-primary);
  border-radius: 4px}
#dc-pad :focus-visible, button:focus-visible {outline: 2px solid #0072B2; outline-offset: 2px}
.dc-race ol {list-style: none; margin: 0; padding: 0}
.dc-race li {display: grid; grid-template-columns: minmax(0, 1fr) 10.5em; gap: 0 .8em;
  padding: .35em 0; border-bottom: 1px solid var(--border-color-primary)}
.dc-name {font-weight: 600; overflow-wrap: anywhere; min-width: 0}
.dc-out .dc-name {font-weight: 400}
.dc-status {text-align: right}
.dc-status, .dc-note, .dc-value small {color: var(--body-text-color); opacity: .75}
.dc-value {white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums}
.dc-track {position: relative; height: .7em; align-self: center; border-radius: 3px;
  background: var(--border-color-primary)}
.dc-bar {position: absolute; inset: 0 auto 0 0; background: #0072B2; border-radius: 3px}
.dc-out .dc-bar {background: #999999}
.dc-line {position: absolute; top: calc(50% - 1px); height: 2px; min-width: 2px;
  background: #D55E00}
.dc-summary {font-size: 1.15em; overflow-wrap: anywhere}
.dc-note {font-size: .9em; overflow-wrap: anywhere}
.dc-error {border-left: 4px solid #D55E00; padding: .4em .8em; overflow-wrap: anywhere}
#dc-labels span {color: var(--body-text-color)}
.dc-map {margin: .8em 0} .dc-map img {max-width: 100%; border-radius: 6px; background: white}
"""


def serve(
    clf: DiffusionClassifier | None = None,
    *,
    host: str = HOST,
    port: int = PORT,
    limits: Limits | None = None,
    open_browser: bool = False,
    block: bool = True,
) -> Any:
    """Serve the demo until Ctrl-C.

    Parameters
    ----------
    clf : DiffusionClassifier, optional
        See :func:`~diffusion_classifier.demo.make_page`.
    host : str, default="127.0.0.1"
        Address to listen on. "0.0.0.0" lets other machines in.
    port : int, default=7860
        0 takes a free one.
    limits : Limits, optional
    open_browser : bool, default=False
    block : bool, default=True
        Whether to return only when the server ends.

    Returns
    -------
    gradio.Blocks
        The page; ``close()`` ends its server, whose address is ``local_url``.

    Raises
    ------
    ImportError
        If gradio is not installed.
    OSError
        If the port is taken.
    """
    gr = import_gradio()
    limits = Limits() if limits is None else limits
    page = make_page(clf, limits)
    page.delete_cache = (_OLD_AFTER, _OLD_AFTER)
    sans, mono = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    page.launch(
        server_name=host,
        server_port=port or _free_port(host),
        share=False,
        inbrowser=open_browser,
        prevent_thread_lock=not block,
        quiet=True,
        footer_links=[],
        max_file_size=limits.max_bytes,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        theme=gr.themes.Default(font=sans, font_mono=mono),
        css=STYLE,
    )
    return page


def _free_port(host: str) -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])
