"""Worker processes that start afresh, compute on one thread each, and end with the process that asked for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from avkit.errors import DataError

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def end_with_parent() -> None:
    """In a worker: end as soon as the parent has ended, even by SIGKILL, instead of waiting for work for ever."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _start(initializer: Callable | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the pool in order
    end_with_parent()
    if initializer:
        initializer()


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes that are started here compute on one thread each: they read it as they start."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update({name: "1" for name in _THREADS})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def pool(workers: int | None, initializer: Callable | None = None) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, one a core unless told otherwise; they are spawned, whatever threads this process runs.

    Raises:
        DataError: a worker ended without a word.
    """
    executor = ProcessPoolExecutor(workers or os.cpu_count() or 1, multiprocessing.get_context("spawn"), _start, (initializer,))
    try:
        with one_thread():
            yield executor
    except BrokenProcessPool:
        raise DataError(
            "A worker process ended without a word: for want of memory, perhaps (fewer workers need less, and one shows where it happens), or because a script "
            'begins this work outside `if __name__ == "__main__":`. What is finished is kept; the same command goes on from there.'
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)
