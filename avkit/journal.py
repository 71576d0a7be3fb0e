"""The record of an evaluation under way: what is finished survives whatever ends the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

from avkit.checkpoints import write_atomically
from avkit.errors import DataError


class Journal:
    """Finished mixtures, a line of JSON each, under a first line that says which evaluation they belong to.

    A line that was cut short is dropped, and so are mixtures with files that could not be read: they are
    tried again.
    """

    def __init__(self, out: str | os.PathLike | None, fingerprint: dict, fresh: bool):
        self.done: dict[str, dict] = {}
        self.path = None if out is None else Path(out) / "rows.jsonl"
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() and not fresh else []
        if lines:
            self._check(json.loads(lines[0]), fingerprint)
            results = [json.loads(line) for line in lines[1:]]
            self.done = {result["mixture"]: result for result in results if result["readable"]}
        content = "".join(json.dumps(entry) + "\n" for entry in (fingerprint, *self.done.values()))
        write_atomically(self.path, lambda path: Path(path).write_text(content, encoding="utf-8"))

    def _check(self, found: dict, wanted: dict) -> None:
        differing = sorted(key for key in wanted.keys() | found.keys() if found.get(key) != wanted.get(key))
        if differing:
            raise DataError(
                f"{self.path.parent} holds another evaluation (its {', '.join(differing)} differ). "
                "Choose another --out, or give --fresh to start anew there."
            )

    def add(self, result: dict) -> None:
        """Keep one mixture's result; it has the keys "mixture" and "readable"."""
        self.done[result["mixture"]] = result
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")


def finished(folder: str | os.PathLike, fingerprint: dict) -> dict[str, dict]:
    """Mixture -> what an evaluation of the same data with the same metrics found, whichever networks it compared.

    Raises DataError where `folder` holds no journal, or one of other data or metrics.
    """
    path = Path(folder) / "rows.jsonl"
    try:
        first, *lines = path.read_bytes().split(b"\n")[:-1]
    except (OSError, ValueError):
        raise DataError(f"{path} does not exist or is empty: name the --out of an evaluation that was begun.") from None
    found = json.loads(first)
    differing = [key for key in ("data", "metrics") if found.get(key) != fingerprint[key]]
    if differing:
        raise DataError(
            f"{folder} is an evaluation of other {' and '.join(differing)}: its rows cannot be reused. Give the same "
            "data and --metrics, or leave out --reuse."
        )
    results = [json.loads(line) for line in lines]
    return {result["mixture"]: result for result in results if result["readable"]}
