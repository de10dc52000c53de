"""Locks that a forked process can use."""

from __future__ import annotations

import os
import threading


def fork_safe_lock() -> threading.RLock:
    """A reentrant lock that no child process finds held by a thread it does not have.

    Forking waits until the lock is free. Made once per module: each is known to the process for
    good. No code may hold two of them, or forking could wait for ever.

    Examples
    --------
    >>> lock = fork_safe_lock()
    >>> with lock, lock:
    ...     pass
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock
