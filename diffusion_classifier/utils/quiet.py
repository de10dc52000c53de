"""Keeps other libraries' logs off the screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet(progress_bars: bool = True) -> Iterator[None]:
    """Keep diffusers' and transformers' own logs, below errors, off the screen.

    With ``progress_bars=False`` their progress bars too.
    """
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log
    from huggingface_hub.utils import are_progress_bars_disabled

    with ExitStack() as restore:
        for log in (diffusers_log, transformers_log):
            restore.callback(log.set_verbosity, log.get_verbosity())
            log.set_verbosity_error()
            # transformers switches the Hub's bars along with its own: if the user has those off,
            # switching them back on afterwards would be wrong.
            hide = not progress_bars and not are_progress_bars_disabled()
            if hide and log.is_progress_bar_enabled():
                restore.callback(log.enable_progress_bar)
                log.disable_progress_bar()
        yield
