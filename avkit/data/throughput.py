"""How fast items are read, beside how fast a training step uses them up: `python -m avkit.data.throughput ROOT`.

Reads training items as `avkit train` does, from files with 0, 1, 2, … worker processes and from memory, and times whole
training steps (lip encoder, network, loss, gradients, optimiser) on a batch that is there already. Data keeps up
where the first rate is above the second. The files are read once before anything is timed, so what is measured is
unpacking and copying, not the disk: a first epoch from a slow disk takes longer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from avkit.data.cache import Cache
from avkit.data.datamodule import EpochLoader, InMemory, training_rows
from avkit.data.datasets import ItemSettings, MixingSettings, Mixtures, open_split
from avkit.errors import AvkitError, InputError


@dataclass(frozen=True)
class Rate:
    """What was timed, and how many items a second it came to. start: seconds before the first batch was there."""

    what: str
    items_per_second: float
    start: float = 0.0


def time_reading(
    what: str, source: Mixtures | InMemory, batch_size: int, batches: int, seed: int = 0, workers: int = 0
) -> Rate:
    """The rate of `batches` training batches after the first; what comes before the first is `start`.

    Worker processes prefetch while the first batch is awaited: a short run flatters them, so take some tens of batches.
    """
    rows = np.concatenate([training_rows(seed, epoch, len(source), batch_size, 0, 1) for epoch in range(batches + 1)])
    rows = rows[: batches + 1]
    begin = time.perf_counter()
    stream: Iterator = iter(EpochLoader(source, 0, rows, np.ones(rows.shape, np.float32), workers))
    next(stream)
    ready = time.perf_counter()
    for _ in stream:
        pass
    return Rate(what, batches * batch_size / (time.perf_counter() - ready), ready - begin)


def time_steps(network: str, lip_encoder: str, batch: dict[str, Tensor], steps: int) -> Rate:
    """The rate at which training steps of a network use items up: the median of `steps`, after one that is not timed."""
    from avkit.learner import Separation

    learner = Separation(network, lip_encoder=lip_encoder)
    optimizer = learner.configure_optimizers()
    times = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        estimates, targets, _ = learner.estimate(learner.network, batch)
        optimizer.zero_grad()
        learner.train_loss(estimates, targets).backward()
        optimizer.step()
        times.append(time.perf_counter() - begin)
    return Rate(f"training step of {network}", len(batch["mixture"]) / float(np.median(times[1:])))


def measure(args: argparse.Namespace) -> list[Rate]:
    """Every row of the table: files by number of workers, the memory, and a training step."""
    settings = ItemSettings(segment=args.segment, start="random", augment=True, features=args.features)
    data = open_split(args.root, args.split, settings, 0, MixingSettings())
    begin = time.perf_counter()
    cache = Cache(data)
    filling = time.perf_counter() - begin
    rates = [
        time_reading(f"files, {count} workers", data, args.batch_size, args.batches, workers=count)
        for count in args.workers
    ]
    memory = time_reading("memory", cache, args.batch_size, args.batches)
    rates.append(replace(memory, start=memory.start + filling))
    if args.steps:
        batch = cache.batch(0, np.arange(args.batch_size))
        rates.append(time_steps(args.network, args.lip_encoder, batch, args.steps))
    return rates


def _table(rates: list[Rate]) -> str:
    lines = [f"{'':<36}{'items/s':>9}{'start, s':>10}"]
    for rate in rates:
        start = f"{rate.start:10.1f}" if rate.start else ""
        lines.append(f"{rate.what:<36}{rate.items_per_second:>9.1f}{start}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m avkit.data.throughput",
        description="Items read a second, beside how many a training step uses up.",
        epilog="example: python -m avkit.data.throughput data_samples/talkers --split tt",
    )
    parser.add_argument("root", metavar="ROOT", help="a corpus with lists")
    parser.add_argument("--split", default="tr", choices=("tr", "cv", "tt"))
    parser.add_argument("--segment", type=float, default=2.0, help="seconds of an item (2)")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--batches", type=int, default=40, help="read and timed in each row (40)")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="worker processes to try (0 1 2)")
    parser.add_argument("--features", metavar="NAME", help="read these stored lip features instead of frames")
    parser.add_argument("--network", default="rtfs-net-tiny", help="whose training step is timed (rtfs-net-tiny)")
    parser.add_argument("--lip-encoder", default="rtfs-net-tiny", help="the frozen encoder of that step")
    parser.add_argument("--steps", type=int, default=3, help="training steps timed (3); 0 for none")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str]) -> int:
    """Print the table."""
    args = _parser().parse_args(argv)
    if min([args.batch_size, args.batches, *(count + 1 for count in args.workers)]) < 1 or args.steps < 0:
        raise InputError("--batch-size and --batches are at least 1, --workers and --steps at least 0.")
    rates = measure(args)
    where = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine(),
             "torch": torch.__version__}  # fmt: skip
    if args.json:
        print(json.dumps({"rows": [asdict(rate) for rate in rates], **where}))
    else:
        print(_table(rates))
        print(f"{args.segment} s items in batches of {args.batch_size}; {where['threads']} threads on {where['cores']} "
              f"cores, torch {where['torch']}")  # fmt: skip
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AvkitError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
