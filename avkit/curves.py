"""The curves of a training run, read from its folder while it runs or afterwards."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from avkit.errors import DataError


def read_curves(run: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every logged quantity of the run in folder `run`, such as `train_loss` or `val_loss`: (steps, values),
    each (n,).

    A run that was interrupted has one file for each time it was begun; where they overlap, the later one
    counts.
    Raises DataError when the folder holds no curves.
    """
    files = sorted(
        Path(run).glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1])
    )
    if not files:
        raise DataError(
            f"There are no curves in {run}: no file csv/version_*/metrics.csv. Is it the folder of a run?"
        )
    found: dict[str, dict[int, float]] = {}
    for path in files:
        rows = _complete_rows(path)
        if not rows:
            continue
        begin = min(int(row["step"]) for row in rows)
        for points in found.values():
            for step in [step for step in points if step >= begin]:
                del points[step]
        for row in rows:
            for key, value in row.items():
                if value and key not in ("step", "epoch"):
                    found.setdefault(key, {})[int(row["step"])] = float(value)
    return {
        key: (np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for key, points in found.items()
        if points
    }


def _complete_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file that may still be being written: a last line that is not complete is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    lines = [line for line in lines if line.endswith("\n")]
    return [
        row
        for row in csv.DictReader(lines)
        if row.get("step") and None not in row and None not in row.values()
    ]
