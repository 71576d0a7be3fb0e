"""Records of the ledger: a JSON file for each row that was measured, with what made it."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

import avkit
from avkit.errors import AvkitError, DataError, InputError
from avkit.reproduction.rows import Row

SHIPPED = Path(avkit.__file__).parents[1] / "data_samples/results/ledger"  # in a clone of the repository


def default_folder() -> Path:
    """Where records go: data_samples/results/ledger in a clone's top folder, else results/ledger."""
    return (
        Path("data_samples/results/ledger")
        if Path("data_samples/results").is_dir()
        else Path("results/ledger")
    )


def record(row: Row, value: float | None, note: str, seconds: float, **more: Any) -> dict:
    """A row's record: the value in the row's unit, what there is to say, and where it comes from."""
    return {
        "row": row.name,
        "value": value,
        "unit": row.unit,
        "note": note,
        "paper": row.paper,
        "code": row.code,
        "command": row.command.splitlines()[-1] if row.state == "trend" or row.column else f"avkit reproduce {row.name}",
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {
            "avkit": avkit.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        **more,
    }


def from_evaluation(row: Row, results: Path) -> dict:
    """A row's record from what `avkit evaluate --out RESULTS` wrote: the mean of the column that the paper's table has.

    Raises:
        InputError: no evaluation gives this row, or its column was not computed.
        DataError: there is no summary in that folder.
    """
    if not row.column:
        raise InputError(f"{row.name} is no score of an evaluation; its command is: {row.command.splitlines()[-1]}")
    path = results / "summary.json"
    if not path.is_file():
        raise DataError(f"There is no {path}. `avkit evaluate MODEL DATA --out {results}` writes it.")
    summary = json.loads(path.read_text(encoding="utf-8"))
    system, scores = next(iter(summary["systems"].items()))
    found = scores.get(row.column)
    if not found:
        raise InputError(f"{path} has no {row.column} of {system}; evaluate again with the metric that gives it.")
    data = summary["data"]
    ends = "" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
    note = f"{row.column} {found['mean']:.2f}{ends} over {found['mixtures']} mixtures of {data['split']}"
    keys = ("command", "date", "versions", "machine", "data", "method")
    evaluation = {key: summary[key] for key in keys} | {"interval": [found["low"], found["high"]]}
    return record(row, found["mean"], note, summary["seconds"], evaluation=evaluation)


def write(folder: Path, content: dict) -> Path:
    """Write a record into its file, and return the file."""
    path = folder / f"{content['row']}.json"
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def read(folder: Path) -> dict[str, dict]:
    """The records in a folder by row; those that cannot be read are named and left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            print(f"{path} cannot be read ({error}); measure the row again", file=sys.stderr)
    return found


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all. Raises AvkitError where it cannot be written."""
    from avkit.checkpoints import write_atomically

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda name: Path(name).write_text(text, encoding="utf-8"))
    except OSError as error:
        raise AvkitError(f"{path} cannot be written: {error}") from None
