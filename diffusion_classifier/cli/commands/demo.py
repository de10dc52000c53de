"""``demo``: a page in the browser on which a picture's race is watched."""

from __future__ import annotations

from typing import Annotated

import typer

from ...backends.resolve import resolve_backend
from ...classifier import DiffusionClassifier
from ..options import (
    Config,
    Device,
    Dtype,
    MaxDraws,
    Model,
    PromptOption,
    Seed,
)
from ..shell import usage


def demo(
    ctx: typer.Context,
    model: Model = None,
    prompt: PromptOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    max_draws: MaxDraws = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
    config: Config = None,
) -> None:
    """Serve a page in the browser: choose or draw a picture, type labels, watch the race."""
    from ...demo import serve  # gradio is optional, and slow to import

    with usage():
        resolve_backend(model, device, dtype)  # kept, so that races need not load it
        clf = DiffusionClassifier(
            model,
            prompts=prompt or None,
            pruner="racing",
            device=device,
            dtype=dtype,
            random_state=seed,
            verbose=0,
        )
        if max_draws is not None:
            clf.set_params(pruner__max_draws=max_draws)
    page = serve(clf, host=host, port=port, open_browser=open_browser, block=False)
    typer.echo(f"{page.local_url} (Ctrl-C ends it)", err=True)
    page.block_thread()
