"""Locks that a forked process can use."""

from __future__ import annotations

import os
import threading


def fork_safe_lock() -> threading.RLock:
    """Make a reentrant lock that is free in a newly forked child process.

    Forking waits until the lock is free. Make one lock per module, at import: its fork handlers
    stay registered until the process ends. Code must never hold two such locks at once, or
    forking could deadlock.

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
