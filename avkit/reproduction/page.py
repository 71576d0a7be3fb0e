"""The ledger as text: a table for the terminal, JSON, and a page in Markdown, all made from rows and records."""

from __future__ import annotations

import json
from dataclasses import asdict

from avkit.reproduction import rows as ledger
from avkit.reproduction.differences import differences
from avkit.reproduction.rows import STATES, Row

_DIGITS = {
    "M": "{:.3f} M", "G MACs": "{:.3f} G", "dB": "{:.1f} dB", "ms": "{:.1f} ms", "%": "{:.1f} %",
    "K parameters": "{:,.1f} K", "G MACs, 2 s": "{:.3g} G", "mixtures": "{:,.0f}",
}  # fmt: skip
_ABOUT = (
    "Every number of both papers' tables, and what became of it: what the paper prints, what the official code computes "
    "today, what was measured here. Made from the records beside it by `avkit reproduce --page`; `avkit reproduce ROW` "
    "measures a row again, or says what is missing for it."
)


def shown(value: float | None, unit: str, without: str = "none") -> str:
    """A value with its unit; `without` where there is none."""
    return without if value is None else _DIGITS.get(unit, "{:.2f}").format(value)


def published(row: Row, record: dict | None = None) -> tuple[str, str]:
    """What the paper prints for a row, with its digits, and what the official code gives (in the record: beside ours)."""
    code = row.code if row.code is not None else (record or {}).get("code")
    if row.paper is None:
        paper = {"trend": "not quoted here", "recipe": "not quoted here", "claim": "in words"}.get(row.state, "not printed")
    elif row.unit in ("dB", "PESQ"):  # tables of scores keep their zeros
        paper = shown(row.paper, row.unit)
    else:
        paper = f"{row.paper:,g}{_DIGITS[row.unit].partition('}')[2]}"
    return paper, shown(code, row.unit, "not stated")


def measured(row: Row, records: dict[str, dict]) -> str:
    """What was measured here, or why nothing was."""
    if row.name in records:
        found = records[row.name]
        if row.state == "trend":
            low, high = found["interval"]
            return f"{found['value']:+.2f} dB [{low:+.2f}, {high:+.2f}]"
        if row.state == "different":
            return f"{shown(found['value'], row.unit)} ({100 * (found['value'] / row.paper - 1):+.1f} %)"
        return found["note"] if found["value"] is None else shown(found["value"], row.unit)
    if row.state == "cited":
        return "not rebuilt"
    return "not run" if row.how else "not run: needs data"


def table(records: dict[str, dict]) -> str:
    """Every row as text: name, paper, official code, here, state."""
    heads = ("row", "paper", "official code", "here", "state")
    lines = [heads, *(
        (row.name, *published(row, records.get(row.name)), measured(row, records), row.state) for row in ledger.all_rows()
    )]  # fmt: skip
    widths = [
        max(len(line[column]) for line in lines if len(line[column]) < 40) for column in range(len(heads))
    ]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_json(records: dict[str, dict]) -> str:
    """Every row with all that is known of it."""
    return json.dumps(
        [asdict(row) | {"record": records.get(row.name)} for row in ledger.all_rows()], indent=1
    )


def page(records: dict[str, dict]) -> str:
    """The ledger in Markdown, by state, and where paper and code differ."""
    parts = ["# The ledger", "", _ABOUT]
    for state, meaning in STATES.items():
        parts += ["", f"## {state.capitalize()}: {meaning}", "",
                  "| row | what | paper | official code | here | note |", "|---|---|---|---|---|---|"]  # fmt: skip
        parts += [_line(row, records) for row in ledger.all_rows() if row.state == state]
    parts += ["", "## Where paper and code differ", "", "`avkit` follows the newest official code.", "",
              "| | paper | code | effect |", "|---|---|---|---|"]  # fmt: skip
    parts += [_cells((d.what, d.paper, d.code, d.effect)) for d in differences()]
    return "\n".join(parts) + "\n"


def _line(row: Row, records: dict[str, dict]) -> str:
    record = records.get(row.name, {})
    told = "" if record.get("value", 0) is None else record.get("note", "")  # where there is no value the note stands for it
    note = "; ".join(part for part in (row.note, told, _cut_off(row, record)) if part)
    return _cells(
        (f"`{row.name}`", row.what, *published(row, records.get(row.name)), measured(row, records), note or "as published")
    )


def _cut_off(row: Row, record: dict) -> str:
    """A word on a paper's thousands where they are ours cut off, and would not be ours rounded."""
    value = record.get("value") if row.unit == "K parameters" else None
    cut = value is not None and int(value) == row.paper != round(value)
    return "the paper cuts figures off: 739,952 is its 739 K" if cut else ""


def _cells(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
