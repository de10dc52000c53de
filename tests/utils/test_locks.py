"""Locks and forked processes."""

import os
import signal
import threading

import pytest

from diffusion_classifier.backends.families.parts import autoencoder
from diffusion_classifier.backends.loading import cache
from diffusion_classifier.images import sequence
from diffusion_classifier.utils.locks import fork_safe_lock

PATIENCE = 20  # seconds
LOCKS = {
    "a new one": fork_safe_lock(),
    "of one reader": sequence.ONE_READER,
    "of encoding": autoencoder.ENCODING,
    "of loaded models": cache.LOADING,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("name", LOCKS)
def test_a_process_forked_while_another_thread_holds_a_lock_can_take_it(name):
    lock, held, leave = LOCKS[name], threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            leave.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    threading.Timer(0.1, leave.set).start()  # forking waits for it
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        status = 1
        try:
            status = int(not lock.acquire(timeout=PATIENCE / 2))
        finally:  # never back into the tests
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
