"""`avkit course workshop`: a timetable, notes, notebooks and a letter for a workshop of three or six hours; and
`avkit course room`: which laptops are ready, from the reports that their owners sent.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import avkit
from avkit.errors import DataError, InputError
from avkit.teach import notebooks, versions

LICENCE = "Texts and figures: CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/), avkit contributors. Code: MIT."
NEEDED_PARTS = ("notebooks", "video", "STOI, SDR")  # of `avkit doctor`, beside what every use of avkit needs


@dataclass(frozen=True)
class Slot:
    """A stretch of the timetable.

    Args:
        what: what happens, for a break or talk; or what the instructor does with the notebook.
        notebook: its number, "" for a break or talk.
        sections: numbers of the notebook's sections that are gone through; the others are left out.
        exercises: names of those that everybody does ("hann" of lesson 01).
    """

    minutes: int
    what: str
    notebook: str = ""
    sections: tuple[int, ...] = ()
    exercises: tuple[str, ...] = ()


_WELCOME = Slot(10, "Welcome. Everybody opens notebook 00 and runs all of it. Who cannot, shares a laptop or gets a spare one.")
_LISTEN = Slot(
    25, "Listen, lie to the network, the map. Write the predictions on the board.", "00", (1, 2, 3, 4, 5), ("swapped",)
)
_FUSION = Slot(
    40,
    "Vote on the two wires first. Build both paths, swap a gate, cut the wires.",
    "06",
    (1, 3, 6, 7, 8, 10, 11),
    ("mean_weight", "fuse"),
)
_WHOLE = Slot(20, "Assembled, equal to the official network, counted.", "08", (3, 4, 5), ("longer",))
PLANS = {
    3: (
        _WELCOME,
        _LISTEN,
        Slot(30, "From samples to the plane that is separated.", "01", (3, 4, 5, 6), ("frame_signal", "hann")),
        Slot(15, "Break"),
        Slot(35, "Vote on A, B and C first. Masks, then scores.", "02", (1, 2, 3, 5), ("si_snr",)),
        _FUSION,
        _WHOLE,
        Slot(5, "What was left out, and how to go on alone: notebooks 03, 04, 05 and 07, then those after 08."),
    ),
    6: (
        _WELCOME,
        _LISTEN,
        Slot(
            45,
            "From samples to the plane that is separated, and back.",
            "01",
            (1, 3, 4, 5, 6, 7),
            ("heard_hz", "frame_signal", "hann"),
        ),
        Slot(15, "Break"),
        Slot(
            45,
            "Vote on A, B and C first. Masks, scores, and which output is whose.",
            "02",
            (1, 2, 3, 4, 5),
            ("si_snr", "best_order_loss"),
        ),
        Slot(25, "What lips show, and how they keep step with the sound.", "03", (1, 3, 7, 8), ("lag_curve",)),
        Slot(45, "Lunch"),
        Slot(40, "Compression, and a recurrent unit from scratch.", "04", (2, 3, 5, 6), ("compression", "one_way_sru")),
        Slot(30, "Attention, the block as a whole, and one block used R times.", "05", (2, 6, 7), ("attention_map",)),
        Slot(15, "Break"),
        _FUSION,
        _WHOLE,
        Slot(5, "What was left out, and how to go on alone: notebook 07, then those after 08."),
    ),
}


@dataclass(frozen=True)
class Laptop:
    """One line of the room's table. `state` is ready, or says what is wanting."""

    name: str
    state: str
    avkit: str
    memory: str
    separation: str


# -------------------------------------------------------------------------------------------------- the kit
def write_kit(hours: int, folder: Path, out: Path, start: str = "09:00") -> list[Path]:
    """Write the kit: README, plan, letter, notes, and every notebook for students and for the instructor.

    Args:
        hours: a length there is a plan for. folder: of the course's notebooks. start: clock time, "HH:MM".

    Raises:
        InputError: no plan for these hours, or `start` is no time of day. DataError: a notebook or section that the
            plan names is not there.
    """
    if hours not in PLANS:
        raise InputError(f"there are plans for {', '.join(map(str, PLANS))} hours; got {hours}")
    paths = {path.stem[:2]: path for path in notebooks.list_notebooks(folder)}
    texts = {
        "README.md": _readme(hours),
        "plan.md": plan(hours, paths, start),
        "before.md": _letter(),
        "notes.md": _notes(PLANS[hours]),
    }
    written = [_write(out / name, text) for name, text in texts.items()]
    for number, path in paths.items():
        source = notebooks.read(path)
        for name, made in (
            ("student", versions.student(source)),
            ("instructor", versions.with_notes(versions.instructor(source), number)),
        ):
            notebooks.write(made, out / name / path.name)
            written.append(out / name / path.name)
    return written


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text.strip() + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def sections(path: Path) -> dict[int, str]:
    """The numbered sections of a notebook: number -> title."""
    cells = [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown"]
    found = re.findall(r"^## (\d+) (.+)$", "\n".join(cells), re.MULTILINE)
    return {int(number): title for number, title in found}


def plan(hours: int, paths: dict[str, Path], start: str = "09:00") -> str:
    """The timetable in Markdown, with clock times, the sections' titles, and what is left out."""
    minute = _minute(start)
    lines = [f"# Workshop of {hours} hours", "", "| from | minutes | | sections | exercises |", "|---|---|---|---|---|"]
    for slot in PLANS[hours]:
        lines.append(_row(slot, minute, paths))
        minute += slot.minutes
    lines += [f"| {_clock(minute)} | | End | | |", "", _HOW, "", LICENCE]
    return "\n".join(lines)


_HOW = """## How to run it

- **Run all, then talk.** At the start of each notebook everybody chooses *Run > Run All Cells*: an exercise that is still
  open does not stop it, and sections that are left out will have been run.
- Sections without a number here are read at home. An exercise that is not listed is left open: the notebook goes on
  with the package's version.
- An exercise takes as long as the slowest third needs; then show the solution in the instructor's notebook, and go on.
- Keep ten minutes in hand. If there are none left, drop the last section of each notebook, not the exercises.
- The evening after: `avkit course grade FOLDER` marks what was handed in."""


def _row(slot: Slot, minute: int, paths: dict[str, Path]) -> str:
    if not slot.notebook:
        return f"| {_clock(minute)} | {slot.minutes} | {slot.what} | | |"
    if slot.notebook not in paths:
        raise DataError(f"the plan needs notebook {slot.notebook}, which is not among {', '.join(sorted(paths))}")
    titles = sections(paths[slot.notebook])
    if not set(slot.sections) <= set(titles):
        raise DataError(f"{paths[slot.notebook].name} has sections {sorted(titles)}; the plan names {slot.sections}")
    listed = "<br>".join(f"{number} {titles[number]}" for number in slot.sections)
    left_out = ", ".join(str(number) for number in titles if number not in slot.sections)
    name = paths[slot.notebook].stem
    what = f"[{name}](student/{name}.ipynb): {slot.what}"
    return (
        f"| {_clock(minute)} | {slot.minutes} | {what} | {listed}{f'<br>(not: {left_out})' if left_out else ''} | "
        f"{', '.join(f'`{exercise}`' for exercise in slot.exercises)} |"
    )


def _minute(start: str) -> int:
    found = re.fullmatch(r"(\d\d?):(\d\d)", start)
    if not found or int(found[1]) > 23 or int(found[2]) > 59:
        raise InputError(f"a time of day looks like 09:00; got {start!r}")
    return 60 * int(found[1]) + int(found[2])


def _clock(minute: int) -> str:
    return f"{minute // 60 % 24:02d}:{minute % 60:02d}"


def _readme(hours: int) -> str:
    return f"""# Kit for a workshop of {hours} hours

- `plan.md`: the timetable, with clock times.
- `before.md`: the letter to those who will come. Send it a week before.
- `notes.md`: for each notebook of the plan, what people get wrong and which questions to ask. Read it the day before.
- `student/`: the notebooks without solutions or outputs. Hand these out.
- `instructor/`: the same with solutions in place, and notes below each title.

**A week before** send `before.md`. Each participant sends back one file; put them into a folder, say `reports`, and let

    avkit course room reports

say who is ready and what the others have to mend. **The day before** run the notebooks of the plan once from
`instructor/` on the projector's machine, with its loudspeakers. **Afterwards** collect the students' notebooks in a folder,
one folder per person, and let `avkit course grade FOLDER` mark them.

{LICENCE}"""


def _letter() -> str:
    return f"""# Before the workshop

Please do this at home, on a good line: it fetches some gigabytes. Bring headphones and a charged laptop.

1. Get a clone of the repository and set it up: `make lab` on Linux; on Windows and macOS the lines under
   "Without make" in README.md. In the terminal you should see a first separation, or "Ready".
2. In the clone's folder, write a report of what works, under your name:

       .venv/bin/avkit doctor --report my-name.json        (Windows: .venv\\Scripts\\avkit)

   It says which version of avkit and Python you have, which parts work, how many processor cores and how much memory
   there are, and how long a separation of two seconds takes. It is a text file; read it before you send it.
3. Send it to us. If something is missing, the same command has printed the line that mends it.
4. Put the folder `student` that you were given into the clone's folder, and open it there: the notebooks find their
   sounds in the clone (`data_samples`).

{LICENCE}"""


def _notes(slots: Sequence[Slot]) -> str:
    parts = ["# Notes for the instructor"]
    for slot in slots:
        if slot.notebook:
            chosen = ", ".join(map(str, slot.sections))
            parts.append(f"## {slot.notebook}: {slot.minutes} minutes, sections {chosen}\n\n{slot.what}")
            parts.append(f"Minutes below are those of the whole notebook.\n\n{versions.notes(slot.notebook)}")
    return "\n\n".join([*parts, LICENCE])


# ------------------------------------------------------------------------------------------------- the room
def read_reports(folder: Path) -> list[Laptop]:
    """The laptops whose `avkit doctor --report` files lie in a folder, in order of their names.

    Raises:
        DataError: there is no report in it.
    """
    paths = sorted(Path(folder).rglob("*.json"))
    if not paths:
        raise DataError(f"no reports (.json) in {folder}: each laptop writes one with avkit doctor --report NAME.json")
    return [laptop(path) for path in paths]


def laptop(path: Path) -> Laptop:
    """One report, judged by what the notebooks of a workshop need."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        broken = list(_wanting(report["findings"]))
        machine, separation = report["machine"], report["separation"]
        memory = f"{machine['memory_gb']:.0f} GB" if machine["memory_gb"] else "?"
        seconds = f"{separation['seconds']:.1f} s" if separation["seconds"] is not None else "failed"
        version = str(report["avkit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Laptop(path.stem, f"not a report of avkit doctor ({type(error).__name__}: {error})", "?", "?", "?")
    if separation["seconds"] is None and not broken:
        broken = [f"separation: {separation['error']}"]
    if version != avkit.__version__:
        broken.insert(0, f"avkit {version} instead of {avkit.__version__}: git pull, then make lab")
    return Laptop(path.stem, "; ".join(broken) or "ready", version, memory, seconds)


def _wanting(findings: Iterable[dict]) -> Iterable[str]:
    """What keeps a laptop from the workshop: the part, and the command that mends it."""
    for finding in findings:
        needed = finding["needed"] or finding["name"] in NEEDED_PARTS
        if needed and finding["state"] != "works":
            yield f"{finding['name']}: {finding['remedy']}"


def table(laptops: Sequence[Laptop]) -> str:
    """The room as text: those who are not ready first."""
    wanting = [entry for entry in laptops if entry.state != "ready"]
    rows = [("laptop", "avkit", "memory", "2 s in", "state")]
    for entry in (*wanting, *(entry for entry in laptops if entry.state == "ready")):
        rows.append((entry.name, entry.avkit, entry.memory, entry.separation, entry.state))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]) for row in rows]
    return "\n".join([*lines, "", f"{len(laptops) - len(wanting)} of {len(laptops)} laptops are ready."])
