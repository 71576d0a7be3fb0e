"""`avkit course grade`: handed-in notebooks marked by hidden checks, each in a process of its own, into CSV files.

What is handed in is a student's version (nbgrader's release format) or a filled-in copy of a course notebook, in
any folder layout; nbgrader's own, STUDENT/ASSIGNMENT/NOTEBOOK.ipynb, is one. Answers are found by nbgrader's cell ids,
whatever became of the cells around them. Checks are the course's, never those in the hand-in, and their inputs are
drawn from other seeds than those that a reader sees.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from avkit.errors import AvkitError, DataError, InputError
from avkit.teach import exercises, marking, notebooks

RIGHT, UNSOLVED = exercises.RIGHT, exercises.UNSOLVED
MISSING, CRASHED, UNREADABLE, NOT_REACHED = "missing", "crashed", "unreadable", "not reached"
START_SECONDS = 120  # longest time until a process has imported what it needs


@dataclass(frozen=True)
class Limits:
    """What one hand-in may use.

    Args:
        seconds: for its process as a whole, once PyTorch is imported; a process that is stopped or dies is started
            again without the cell that it died in.
        cell_seconds: for one cell, and for judging one answer.
        memory_gb: of memory that the process allocates, PyTorch's own 0.2 GB or so included (Linux only).
    """

    seconds: float = 180
    cell_seconds: float = 30
    memory_gb: float = 4


@dataclass(frozen=True)
class Mark:
    """One row of marks.csv. `state` is right, wrong, unsolved, stopped, time, memory, crashed, missing, unreadable or
    not reached; `mistake` names the misconception, if it was recognised; `words` say what the student was told or
    should be."""

    student: str
    notebook: str
    exercise: str
    points: float
    of: float
    state: str
    mistake: str = ""
    words: str = ""


@dataclass
class Total:
    """One row of totals.csv: a hand-in. `percent` is of the points of its checked exercises; open questions, which have
    a rubric, are marked by hand."""

    student: str
    notebook: str
    file: str
    points: float
    of: float
    percent: float
    states: str


@dataclass
class _Run:
    """What the processes of one hand-in have found so far."""

    verdicts: dict[str, dict[str, str]] = field(default_factory=dict)
    skip_keys: set[str] = field(default_factory=set)
    skip_cells: set[int] = field(default_factory=set)

    def leave_out(self, indices: set[int], cells: list[dict]) -> None:
        """Run these cells no more, nor any other of the same answers."""
        keys = {cells[index]["key"] for index in indices} - {""}
        self.skip_keys |= keys
        self.skip_cells |= indices | {index for index, cell in enumerate(cells) if cell["key"] in keys}


def find_hand_ins(folder: Path) -> list[tuple[str, Path]]:
    """(student, file) of each notebook below the folder. The student is the first folder below it, or the file's stem.

    Raises:
        DataError: there is no notebook.
    """
    found = []
    for path in sorted(Path(folder).rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") for part in parts):
            found.append((parts[0] if len(parts) > 1 else path.stem, path))
    if not found:
        raise DataError(f"no notebooks (.ipynb) in {folder} or below: give the folder of what was handed in")
    return found


def number_of(notebook: NotebookNode, path: Path) -> str | None:
    """The number ("01") of the course notebook that this is a copy of: by its exercises' ids, else by its name."""
    keys = [_key(cell) for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    numbers = [key[:2] for key in keys if re.match(r"\d\d\.", key)]
    by_name = re.search(r"(?:^|[^\d])(\d\d)_[a-z]", path.stem)
    return numbers[0] if numbers else by_name[1] if by_name else None


def _key(cell: NotebookNode) -> str:
    """The exercise ("01.hann") that nbgrader's id ("01-hann", or "check-01-hann") belongs to; "" if none."""
    name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
    return name.removeprefix("check-").replace("-", ".", 1)


def plan(handed_in: NotebookNode, source: NotebookNode) -> list[dict[str, Any]]:
    """The cells to run, in the hand-in's order, with the course's checks; an answer that is missing has no cell.

    A cell that the course wrote is of the kind `course`: only what it defines is run at first. One that the reader
    wrote or changed is run as it is.
    """
    keys = {exercise.key: source.cells[exercise.check].source for exercise in notebooks.exercises(source)}
    known = {cell.source.strip() for cell in source.cells if cell.cell_type == "code"}
    cells = [_cell(marking.SETUP, cell.source) for cell in notebooks.tagged(source, "setup")]
    answered: set[str] = set()
    checked: set[str] = set()
    for cell in handed_in.cells:
        if cell.cell_type != "code":
            continue
        key, role = _key(cell), cell.metadata.get("nbgrader", {})
        if key in keys and role.get("solution"):
            answered.add(key)
            cells.append(_cell(marking.ANSWER, cell.source, key))
        elif key in keys and role.get("grade"):
            if key in answered - checked:
                cells.append(_cell(marking.CHECK, keys[key], key))
                checked.add(key)
        elif cell.source.strip():
            course = cell.source.strip() in known
            cells.append(_cell(marking.COURSE if course else marking.OWN, cell.source))
    return cells + [_cell(marking.CHECK, keys[key], key) for key in keys if key in answered - checked]


def _cell(kind: str, source: str, key: str = "") -> dict[str, Any]:
    return {"kind": kind, "source": source, "key": key}


def mark(handed_in: NotebookNode, source: NotebookNode, limits: Limits, seeds: Sequence[int]) -> dict[str, dict]:
    """The verdict of each exercise, {key: {"state", "words", "mistake"}}.

    At first only answers, what the reader added, and definitions are run. If an answer then lacks a name, all is run
    again with every cell of the notebook, in fast mode.
    """
    cells = plan(handed_in, source)
    answered = {cell["key"] for cell in cells if cell["kind"] == marking.ANSWER}
    for whole in (False, True):
        found = _mark_cells(cells, whole, limits, seeds)
        if not any("NameError" in verdict["words"] for verdict in found.values()):
            break
    for exercise in notebooks.exercises(source):
        state = NOT_REACHED if exercise.key in answered else MISSING
        words = "The notebook has no cell with this exercise's id." if state == MISSING else ""
        found.setdefault(exercise.key, {"state": state, "words": words, "mistake": ""})
    return found


def _mark_cells(cells: list[dict], whole: bool, limits: Limits, seeds: Sequence[int]) -> dict[str, dict]:
    """Start processes until one comes to its end; each that dies is blamed on the cell it died in."""
    run = _Run()
    for _ in range(2 + len(cells)):
        job = {
            "cells": cells,
            "whole": whole,
            "seeds": list(seeds),
            "cell_seconds": limits.cell_seconds,
            "memory_bytes": int(limits.memory_gb * 1e9),
            "skip_keys": sorted(run.skip_keys),
            "skip_cells": sorted(run.skip_cells),
        }
        lines, timed_out = _process(job, limits.seconds)
        for line in lines:
            if line["step"] == "verdict":
                run.verdicts.setdefault(line["key"], {name: line[name] for name in ("state", "words", "mistake")})
        if lines[-1]["step"] == "done":
            break
        slow = {line["index"] for line in lines if line["step"] == "slow"} if timed_out else set()
        if slow:  # these used the time up, not the cell that was running when it ended
            run.leave_out(slow, cells)
        else:
            _blame(run, cells, lines, timed_out, limits)
    return run.verdicts


def _blame(run: _Run, cells: list[dict], lines: list[dict], timed_out: bool, limits: Limits) -> None:
    """Leave out the cell that a process died in, and write it down if it belongs to an answer."""
    index = [line["index"] for line in lines if line["step"] == "begin"][-1]
    run.leave_out({index}, cells)
    words = (
        f"The process was stopped after {limits.seconds:g} s, in this answer."
        if timed_out
        else "The process died in this answer: it ended Python, or used up the memory."
    )
    state = marking.TIME if timed_out else CRASHED
    if cells[index]["key"]:
        run.verdicts[cells[index]["key"]] = {"state": state, "words": words, "mistake": ""}


def _process(job: dict, seconds: float) -> tuple[list[dict], bool]:
    """Run one marking process in an empty folder; the lines of its report, and whether its time was up."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "job.json").write_text(json.dumps(job))
        (here / "work").mkdir()
        report, log = here / "report.jsonl", here / "log"
        command = [sys.executable, "-m", "avkit.teach.marking", str(here / "job.json"), str(report)]
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                cwd=here / "work",
                env=_environment(here),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
            try:
                timed_out = _wait(process, report, seconds)
            finally:
                _kill(process)
        lines = _lines(report)
        if not any(line["step"] == "begin" for line in lines):
            raise AvkitError(
                f"the marking process did not start within {START_SECONDS} s and "
                f"{job['memory_bytes'] / 1e9:g} GB; --memory-gb gives it more. Its last words:\n{log.read_text()[-2000:]}"
            )
        return lines, timed_out


def _lines(report: Path) -> list[dict]:
    """The report's lines; the last one may have been cut short when the process died."""
    found = []
    for line in report.read_text().splitlines() if report.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _environment(here: Path) -> dict[str, str]:
    """A kernel's environment: the shipped data, one thread, no display, settings of its own."""
    package = str(Path(__file__).resolve().parents[2])
    kept = {name: value for name, value in os.environ.items() if name != exercises.STRICT}
    path = os.pathsep.join(filter(None, (package, kept.get("PYTHONPATH"))))
    data = kept.get("AVKIT_DATA") or str(Path(package) / "data_samples")
    own = {"PYTHONPATH": path, "AVKIT_DATA": data, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    return {**kept, **own, "IPYTHONDIR": str(here / "ipython")}


def _wait(process: subprocess.Popen, report: Path, seconds: float) -> bool:
    """Whether the time is up; it counts from the report's first line on, when all is imported."""
    end = time.monotonic() + START_SECONDS
    while not report.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _kill(process: subprocess.Popen) -> None:
    """The process and whatever it started."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.kill()
    process.wait()


def grade_one(
    student: str, path: Path, sources: dict[str, Path], limits: Limits, seeds: Sequence[int]
) -> list[Mark]:
    """The marks of one hand-in; one row with the state `unreadable` if it is none of the course's notebooks."""
    try:
        handed_in = notebooks.read(path)
        number = number_of(handed_in, path)
    except Exception as error:  # noqa: BLE001 (anything may be handed in under this name)
        return [Mark(student, path.stem, "", 0, 0, UNREADABLE, words=f"{type(error).__name__}: {error}"[:200])]
    if number not in sources:
        words = "No exercise of the course was found in it, and its name has no number of a notebook."
        return [Mark(student, path.stem, "", 0, 0, UNREADABLE, words=words)]
    source = notebooks.read(sources[number])
    points = {e.key: float(source.cells[e.check].metadata.nbgrader.points) for e in notebooks.exercises(source)}
    verdicts = mark(handed_in, source, limits, seeds)
    return [
        Mark(student, sources[number].stem, key, of if verdicts[key]["state"] == RIGHT else 0.0, of, **verdicts[key])
        for key, of in points.items()
    ]


def total(path: Path, folder: Path, marks: Sequence[Mark]) -> Total:
    """The row of totals.csv of one hand-in."""
    got, of = sum(mark.points for mark in marks), sum(mark.of for mark in marks)
    states = [mark.state for mark in marks]
    words = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    name = str(path.relative_to(folder))
    return Total(marks[0].student, marks[0].notebook, name, got, of, round(100 * got / of, 1) if of else 0.0, words)


def grade(
    folder: Path, sources: dict[str, Path], out: Path, limits: Limits, seeds: Sequence[int], jobs: int = 1
) -> list[Total]:
    """Mark every notebook below a folder; write out/marks.csv (a row per exercise) and out/totals.csv (per hand-in).

    Args:
        sources: number ("01") -> the course's notebook.
        seeds: of the hidden inputs; the same seeds give the same marks.
        jobs: how many hand-ins are marked at a time.

    Raises:
        DataError: there is no notebook. InputError: a limit, or the number of jobs, that is not positive.
    """
    if min(limits.seconds, limits.cell_seconds, limits.memory_gb, jobs) <= 0:
        raise InputError(f"limits and jobs must be positive; got {limits} and {jobs} jobs")
    hand_ins = find_hand_ins(folder)
    marks: list[Mark] = []
    totals: list[Total] = []
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda item: grade_one(*item, sources, limits, seeds), hand_ins)
        for (student, path), found in zip(hand_ins, results, strict=True):
            marks += found
            totals.append(total(path, folder, found))
            row = totals[-1]
            print(f"[{len(totals)}/{len(hand_ins)}] {student}, {row.notebook}: {row.percent:g} % ({row.states})", flush=True)
    write_csv(out / "marks.csv", Mark, marks)
    write_csv(out / "totals.csv", Total, totals)
    return totals


def write_csv(path: Path, kind: type, rows: Iterable[Any]) -> None:
    """One row per dataclass instance, with a header, written in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [entry.name for entry in fields(kind)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    os.replace(part, path)
