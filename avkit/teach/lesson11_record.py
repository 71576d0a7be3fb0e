"""What the five-minute run of notebook 11 reaches from three different beginnings: a record for data_samples/results.

    python -m avkit.teach.lesson11_record data_samples/results/five-minute-run/seeds.json

makes the notebook's corpus, trains once for each seed (other random weights, another order and other mixtures), and writes
the gain of each run on validation voices that it never met.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from avkit.checkpoints import write_atomically
from avkit.curves import read_curves
from avkit.teach import lesson11_lab as lab

SEEDS = (0, 1, 2)


def measure(root: str, folder: Path, steps: int, seed: int) -> dict:
    """One run: its gains in dB at each validation, with their steps, and the minutes it took."""
    out = folder / f"seed-{seed}"
    lab.train(out, lab.settings(root, steps, seed))
    at, gains = read_curves(out)["val_si_snr_improvement"]
    minutes = json.loads((out / "run.json").read_text(encoding="utf-8"))["minutes"]
    return {"seed": seed, "steps": at.tolist(), "si_snri": [round(gain, 3) for gain in gains], "minutes": minutes}


def record(root: str, folder: Path, steps: int = lab.STEPS, seeds: tuple[int, ...] = SEEDS, command: str = "") -> dict:
    """Every seed's run, and the mean and spread of the gains at their ends."""
    runs = [measure(root, folder, steps, seed) for seed in seeds]
    ends = [run["si_snri"][-1] for run in runs]
    return {
        "what": "gain in SI-SNR (dB) of the notebook's five-minute run on 80 validation items of synthetic talkers",
        "command": command,
        "settings": lab.settings(root, steps, seeds[0])[1:-1],
        "runs": runs,
        "mean": round(statistics.mean(ends), 3),
        "standard_deviation": round(statistics.stdev(ends), 3) if len(ends) > 1 else None,
        "versions": {name: metadata.version(name) for name in ("avkit", "torch", "lightning")},
        "processors": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def main(argv: list[str]) -> int:
    """Entry of the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m avkit.teach.lesson11_record", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--steps", type=int, default=lab.STEPS, help=f"optimiser steps of a run ({lab.STEPS})")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="avkit-11-") as folder:
        root, words = lab.make_data(Path(folder), "", fast=False)
        print(words, flush=True)
        command = shlex.join(["python", "-m", "avkit.teach.lesson11_record", *argv])
        found = record(root, Path(folder), arguments.steps, command=command)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    write_atomically(arguments.out, lambda path: Path(path).write_text(text, encoding="utf-8"))
    print(f"{found['mean']} dB, standard deviation {found['standard_deviation']}: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
