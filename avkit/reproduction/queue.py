"""The queue of small training runs: each in a process of its own, on one thread, and gone on with after whatever ends it.

A folder of runs holds `VARIANT/seed-N/`, each with the run of `avkit train` (which goes on from its last checkpoint),
`log.txt`, and at its end `result.json`. What has a result is never run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from avkit._workers import end_with_parent, one_thread
from avkit.errors import AvkitError, DataError, InputError
from avkit.reproduction.contrasts import Contrast, Scale, Variant, planned, train_argument

LIPS = "rtfs-net-tiny"  # whose trained, frozen lip encoder every run watches through
EVERY = 50  # optimiser steps between checkpoints
MACHINE = ("--data.workers", "--model.graphs", "--trainer.accelerator")
RESULT, LOG = "result.json", "log.txt"


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Args:
        contrasts: whose variants.
        corpus: folder of a generated corpus, as it is to appear in commands.
        scale: seeds, steps, test mixtures.
        extra: further settings of `avkit train` for every run, which make it another experiment.
        machine: settings that say how a machine runs it (`MACHINE`), and change nothing but rounding.
    """

    contrasts: tuple[Contrast, ...]
    corpus: str
    scale: Scale = field(default_factory=planned)
    extra: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()

    def jobs(self) -> list[Job]:
        """Every run once, whole seed pairs first, one contrast after the other."""
        ordered = {
            (variant, seed): None
            for contrast in self.contrasts
            for seed in self.scale.seeds
            for variant in (contrast.first, contrast.second)
        }
        return [Job(variant, seed, self) for variant, seed in ordered]


@dataclass(frozen=True)
class Job:
    """One run: a variant and a seed."""

    variant: Variant
    seed: int
    plan: Plan

    def folder(self, runs: Path) -> Path:
        return runs / self.variant.name / f"seed-{self.seed}"

    def spec(self) -> dict[str, Any]:
        """All that a run's result follows from, but for the corpus's content, and its command."""
        scale = self.plan.scale
        settings = [
            f"--seed_everything {self.seed}",
            f"--model.lip_encoder {LIPS}",
            f"--model.warmup {scale.warmup}",
            f"--trainer.max_steps {scale.steps}",
            f"--data.items_per_epoch {4 * scale.steps}",
            "--data.validation_items 40",
            "--data.cache none",
        ]
        own = [part for setting in settings for part in setting.split()]
        return {
            "config": self.variant.network,
            "settings": [*own, *self.plan.extra, *train_argument(self.variant.change).split()],
            "corpus": self.plan.corpus,
            "test_mixtures": scale.test_mixtures,
        }

    def result(self, runs: Path) -> dict | None:
        """What the run came to; None while it has not ended.

        Raises InputError where the folder holds a run with other settings.
        """
        path = self.folder(runs) / RESULT
        if not path.exists():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["spec"] != self.spec():
            raise InputError(
                f"{path.parent} was run with other settings ({_differing(found['spec'], self.spec())}). Name another "
                "folder with --runs, or remove that one."
            )
        return found


def _differing(before: dict, now: dict) -> str:
    key = next(key for key in now if before.get(key) != now[key])
    return f"{key}: {before.get(key)!r}, now {now[key]!r}"


# ---------------------------------------------------------------------------------------------------------- one run


def run_one(folder: Path, spec: dict[str, Any], machine: tuple[str, ...] = ()) -> dict:
    """Train a variant, or go on with it, score it on test mixtures, and write and return its result."""
    from avkit.evaluation import Settings, evaluate
    from avkit.reproduction.records import write_text
    from avkit.training import train

    settings = [*spec["settings"], *machine, "--data.root", spec["corpus"]]
    train([spec["config"]], folder, settings, every=EVERY)
    score = Settings(metrics=("si_snr",), limit=spec["test_mixtures"])
    summary = evaluate({"network": folder / "model"}, spec["corpus"], None, score, progress=False).summary
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    result = {
        "spec": spec,
        "si_snri": summary["systems"]["network"]["si_snri"]["mean"],
        "mixtures": summary["data"]["mixtures"],
        "corpus_checksum": summary["data"]["corpus_checksum"],
        "synthetic": summary["data"]["synthetic"],
        "command": shlex.join(["avkit", "train", "--config", spec["config"], *settings]),
        **{key: run[key] for key in ("minutes", "examples", "steps", "device", "torch")},
    }
    write_text(folder / RESULT, json.dumps(result, indent=1) + "\n")
    return result


def _in_process(folder: str, spec: dict[str, Any], machine: tuple[str, ...]) -> None:
    """What a worker process does: its output goes to the run's log, and it ends when the queue's process ends."""
    end_with_parent()
    with open(Path(folder) / LOG, "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    run_one(Path(folder), spec, machine)


# -------------------------------------------------------------------------------------------------------- the queue


def work(
    plan: Plan,
    runs: Path,
    processes: int = 1,
    minutes: float | None = None,
    say: Callable[[str], None] = print,
    finished: Callable[[], None] = lambda: None,
) -> dict[tuple[str, int], dict]:
    """Run what has no result yet.

    Args:
        plan: what to run.
        runs: folder of the runs.
        processes: runs at a time, each on one thread.
        minutes: end after that long; runs under way are stopped and go on next time.
        say: takes a line of progress.
        finished: called after each run that ended.

    Returns:
        (variant's name, seed) -> result, of every run of the plan that has one.

    Raises:
        DataError: there is no corpus.
        InputError: a run has other settings, or another queue works in the folder.
        AvkitError: a run failed; the message names its log. The runs after it were done all the same.
    """
    if not (Path(plan.corpus) / "tr" / "mix.json").exists():
        raise DataError(
            f"There is no corpus in {plan.corpus!r}. Make one: avkit corpus {plan.corpus} --minutes 600 --seed 0 "
            "(fewer minutes do for a first try)."
        )
    jobs = plan.jobs()
    waiting = [job for job in jobs if job.result(runs) is None]
    say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs have ended before; {len(waiting)} to do in {runs}.")
    failed: list[Job] = []
    with _alone(runs), one_thread():
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        for job, seconds, good in _ended(waiting, runs, processes, deadline):
            if not good:
                failed.append(job)
                continue
            done = sum(job.result(runs) is not None for job in jobs)
            gained = job.result(runs)["si_snri"]
            say(
                f"[{done}/{len(jobs)}] {job.variant.name}, seed {job.seed}: {gained:.2f} dB SI-SNRi after {seconds / 60:.1f} min"
            )
            finished()
    if failed:
        logs = ", ".join(str(job.folder(runs) / LOG) for job in failed)
        raise AvkitError(
            f"{len(failed)} run(s) failed; the reason is at the end of {logs}. The others are kept."
        )
    return results(plan, runs)


def results(plan: Plan, runs: Path) -> dict[tuple[str, int], dict]:
    """(variant's name, seed) -> result, of the plan's runs that have ended."""
    found = {(job.variant.name, job.seed): job.result(runs) for job in plan.jobs()}
    return {key: result for key, result in found.items() if result is not None}


def _ended(
    jobs: Sequence[Job], runs: Path, processes: int, deadline: float | None
) -> Iterator[tuple[Job, float, bool]]:
    """Each run as it ends: the job, its seconds in this process, and whether it has a result."""
    waiting, running = list(jobs), {}
    context = get_context("spawn")
    try:
        while waiting or running:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            while waiting and len(running) < processes:
                job = waiting.pop(0)
                folder = job.folder(runs)
                folder.mkdir(parents=True, exist_ok=True)
                process = context.Process(target=_in_process, args=(str(folder), job.spec(), job.plan.machine))
                process.start()
                running[process.sentinel] = (job, process, time.monotonic())
            for sentinel in connection.wait(list(running), timeout=left):
                job, process, begun = running.pop(sentinel)
                process.join()
                yield job, time.monotonic() - begun, job.result(runs) is not None
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.join(30)
            process.kill()  # one that did not listen; its last checkpoint is whole


@contextlib.contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Only one queue works in a folder at a time; the lock ends with its process, however that ends."""
    runs.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows has no such locks; there two queues are not kept apart
        yield
        return
    with open(runs / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"Another queue is at work in {runs}. Wait for it, or name another folder with --runs."
            ) from None
        yield
