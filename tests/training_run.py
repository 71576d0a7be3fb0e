"""Runs `avkit train` in a process of its own and kills it, SIGKILL, where it is told to: a helper of
test_training.py.

python training_run.py WHERE [arguments of avkit train]

WHERE: `never`; `step:N` before the N-th step of this process; `validation:N` in the middle of its N-th
validation; `writing:N` in the middle of writing its N-th checkpoint; `after:SECONDS` that long after training
began.
"""

import os
import signal
import sys
import threading

import torch

from avkit import callbacks, learner, training
from avkit.errors import AvkitError


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def count(owner, method: str, wanted: int, then) -> None:
    """Call `then` instead of a method's `wanted`-th call."""
    original, calls = getattr(owner, method), [0]

    def counted(*args, **kwargs):
        calls[0] += 1
        return then(*args, **kwargs) if calls[0] == wanted else original(*args, **kwargs)

    setattr(owner, method, counted)


def half_written(checkpoint, file) -> None:
    file.write(b"half a checkpoint")
    file.flush()
    die()


def prepare(where: str) -> None:
    kind, _, value = where.partition(":")
    if kind == "step":
        count(learner.Separation, "training_step", int(value), lambda *args: die())
    elif kind == "validation":
        count(learner.Separation, "validation_step", 2 * int(value), lambda *args: die())
    elif kind == "writing":
        count(torch, "save", int(value), half_written)
    elif kind == "after":
        start = callbacks.Report.on_train_start

        def timed(self, *args):
            threading.Timer(float(value), die).start()
            return start(self, *args)

        callbacks.Report.on_train_start = timed


if __name__ == "__main__":
    prepare(sys.argv[1])
    try:
        sys.exit(training.main(sys.argv[2:]))
    except AvkitError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
