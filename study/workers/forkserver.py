"""Worker processes of this machine start ready: forked from one that has imported everything.

TensorFlow's import takes seconds of a processor. Here one process, the fork server of Python's own
multiprocessing, pays it once for all workers, also for one that replaces another, while the driver
still reads data and opens the database; and workers share its memory. It has one thread and touches
no device (`study.workers.preloaded`), so its forks are sound. macOS' libraries do not bear forks:
there each worker is a process of its own from the start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

FORKS = sys.platform == "linux"
"""Whether workers are forked here."""

# What Dask gives its workers, but for the first: with Dask's own number they hand freed memory
# back at once, and a training step pays for it.
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def start() -> None:
    """Start the process that workers will be forked from; returns at once, and once is enough."""
    if not FORKS:
        return
    # It cleans up after a driver that was killed, and is to do so without a word. It also lets
    # signals through again, which are held back below.
    with environment({"PYTHONWARNINGS": "ignore:resource_tracker"}):
        resource_tracker.ensure_running()
    forkserver.set_forkserver_preload(["study.workers.preloaded"])
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with deaf_to_ctrl_c(), environment({**ENVIRONMENT, "PYTHONPATH": path}):
        forkserver.ensure_running()


def wait() -> None:
    """Wait until workers can be forked; Ctrl-C ends the wait, before a cluster is half made."""
    process = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    process.start()
    process.join()


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Block SIGINT in the threads and processes that are started inside.

    A terminal sends Ctrl-C to every process in it; the driver alone is to answer.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def environment(added: Mapping[str, str]) -> Iterator[None]:
    """Add these to the environment of processes that are started inside."""
    before = dict(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]
