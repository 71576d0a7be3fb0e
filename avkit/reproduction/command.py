"""`avkit reproduce`: one row of the ledger measured again, or what is missing for it; all rows with their state."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

import avkit
from avkit.errors import AvkitError
from avkit.reproduction import rows as ledger
from avkit.reproduction.rows import STATES, Row

_EXAMPLE = """examples:
  avkit reproduce --list                       every published number, its state, and what was measured
  avkit reproduce iianet.parameters            one row
  avkit reproduce all                          every row that needs no data
  avkit reproduce iianet.lrs2.si-snri          says what is missing, and the commands
  avkit reproduce --page ledger.md             the ledger as a page
"""


def main(argv: list[str]) -> int:
    """Entry of `avkit reproduce`; returns 0, or 1 where something is missing."""
    arguments = _parser().parse_args(argv)
    if arguments.page:
        _write(arguments.page, page(_records(arguments.out)))
        print(f"Written to {arguments.page}.")
        return 0
    if arguments.list or not arguments.row:
        print(_as_json(arguments.out) if arguments.json else table(_records(arguments.out)))
        return 0
    chosen = [row for row in ledger.all_rows() if row.how] if arguments.row == "all" else [ledger.find(arguments.row)]
    return max(_reproduce(row, arguments.out) for row in chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avkit reproduce",
        description="The papers' numbers: what was published, what is measured here, and the command for each.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("row", nargs="?", metavar="ROW", help="a row's name, or `all` that need no data")
    parser.add_argument("--list", action="store_true", help="every row with its state")
    parser.add_argument("--json", action="store_true", help="the list as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="write the ledger as a page")
    parser.add_argument("--out", type=Path, default=_default_folder(), help="folder of the records (%(default)s)")
    return parser


def _default_folder() -> Path:
    return Path("data_samples/results/ledger") if Path("data_samples/results").is_dir() else Path("results/ledger")


# -------------------------------------------------------------------------------------------------------- one row


def _reproduce(row: Row, folder: Path) -> int:
    if row.how is None:
        print(missing(row))
        return 1
    from avkit.reproduction.exact import compute

    begin = time.perf_counter()
    value, note = compute(row)
    record = {
        "row": row.name,
        "value": value,
        "unit": row.unit,
        "note": note,
        "paper": row.paper,
        "code": row.code,
        "command": f"avkit reproduce {row.name}",
        "seconds": round(time.perf_counter() - begin, 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {"avkit": avkit.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }
    _write(folder / f"{row.name}.json", json.dumps(record, indent=1) + "\n")
    print(f"{row.name}: {row.what}\n  paper {_shown(row.paper, row.unit)}, official code {_shown(row.code, row.unit)}, "
          f"here {_shown(value, row.unit)}{f' ({note})' if note else ''}")  # fmt: skip
    if row.note:
        print(f"  {row.note}")
    return 0


def missing(row: Row) -> str:
    """What a row needs that is not here, and the commands that measure it once it is."""
    needs = []
    if row.weights:
        from avkit import weights

        needs += [] if weights.cached(weights.find(row.weights)) else [f"the official weights {row.weights} (`avkit weights get {row.weights}`)"]
    if row.corpus:
        needs.append(f"the corpus {next(k for k, v in ledger.CORPORA.items() if v == row.corpus)}, which is licensed")
    needs.append("the lip encoder that the networks were trained with (`avkit weights` says where it lies)")
    commands = "\n".join(f"    {line}" for line in row.command.splitlines())
    expected = _shown(row.paper, row.unit)
    return (
        f"{row.name}: {row.what}; the paper has {expected}.\n  Needed: {'; '.join(needs)}.\n"
        f"  Then, with ROOT and LIP_WEIGHTS in their places:\n{commands}" + (f"\n  Note: {row.note}." if row.note else "")
    )


# ------------------------------------------------------------------------------------------------------- all rows


def _records(folder: Path) -> dict[str, dict]:
    """The records in a folder by row; those that cannot be read are named and left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            print(f"{path} cannot be read ({error}); measure the row again", file=sys.stderr)
    return found


def _measured(row: Row, records: dict[str, dict]) -> str:
    if row.name in records:
        value = records[row.name]["value"]
        return _shown(value, row.unit) if value is not None else records[row.name]["note"]
    return "not run yet" if row.how else "needs data"


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    digits = {"M": "{:.3f} M", "G MACs": "{:.3f} G", "dB": "{:.1f} dB", "ms": "{:.1f} ms", "%": "{:.1f} %"}
    if unit in digits:
        return digits[unit].format(value)
    return f"{value:.3g}" if unit.startswith("G MACs") else f"{value:,.0f} K" if unit.startswith("K") else f"{value:.2f}"


def table(records: dict[str, dict]) -> str:
    """Every row as text: name, paper, official code, here, state."""
    heads = ("row", "paper", "official code", "here", "state")
    lines = [heads, *(
        (row.name, _shown(row.paper, row.unit), _shown(row.code, row.unit) if row.code else "not stated",
         _measured(row, records), row.state)
        for row in ledger.all_rows()
    )]  # fmt: skip
    widths = [max(len(line[column]) for line in lines if len(line[column]) < 40) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _as_json(folder: Path) -> str:
    records = _records(folder)
    return json.dumps([asdict(row) | {"record": records.get(row.name)} for row in ledger.all_rows()], indent=1)


def page(records: dict[str, dict]) -> str:
    """The ledger in Markdown, by state."""
    about = (
        "Every number of both papers' tables, and what became of it. Made by `avkit reproduce --page`; each row's "
        "command measures it again."
    )
    parts = ["# The ledger", "", about]
    for state, meaning in STATES.items():
        parts += ["", f"## {state.capitalize()}: {meaning}", "", "| row | what | paper | official code | here | note |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        for row in (row for row in ledger.all_rows() if row.state == state):
            note = "; ".join(part for part in (row.note, records.get(row.name, {}).get("note", "")) if part)
            cells = (f"`{row.name}`", row.what, _shown(row.paper, row.unit), _shown(row.code, row.unit),
                     _measured(row, records), note or "as published")  # fmt: skip
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"


def _write(path: Path, text: str) -> None:
    from avkit.checkpoints import write_atomically

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda name: Path(name).write_text(text, encoding="utf-8"))
    except OSError as error:
        raise AvkitError(f"{path} cannot be written: {error}") from None
