"""Suppression of other libraries' log messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet(progress_bars: bool = True) -> Iterator[None]:
    """Hide log messages of diffusers and transformers below the level of errors.

    With ``progress_bars=False``, hide their progress bars too.
    """
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log
    from huggingface_hub.utils import are_progress_bars_disabled

    with ExitStack() as restore:
        for log in (diffusers_log, transformers_log):
            restore.callback(log.set_verbosity, log.get_verbosity())
            log.set_verbosity_error()
            # transformers also switches the Hub's bars. If the user has turned these off, leave
            # all bars alone, because restoring them would turn the Hub's on.
            hide = not progress_bars and not are_progress_bars_disabled()
            if hide and log.is_progress_bar_enabled():
                restore.callback(log.enable_progress_bar)
                log.disable_progress_bar()
        yield
