"""`avkit course`: the notebooks executed, and the versions made from them for students and instructors."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from avkit.errors import AvkitError, MissingPackageError
from avkit.teach import notebooks

_EXAMPLE = """examples:
  avkit course run                      every notebook, executed into build/
  avkit course run 01 --fast            one notebook, the quick version that tests run
  avkit course student OUT              the notebooks without solutions, for nbgrader or by hand
  avkit course workshop OUT --hours 3   the kit for a workshop: plan, letter, notes, notebooks
  avkit course room REPORTS             which laptops of a room are ready
  avkit course grade HANDED_IN          hidden checks on every notebook in a folder, marks into CSV files
  avkit course book OUT                 course and API reference as a static site
  avkit course store 01                 execute a notebook and keep its outputs in it (for its author)
"""


@dataclass(frozen=True)
class Row:
    """One notebook in the closing table."""

    notebook: str
    cells: int
    seconds: float
    figures: int
    players: int
    state: str


def main(argv: list[str]) -> int:
    """Entry of `avkit course`; returns the exit status: 0, or 1 if a notebook failed."""
    arguments = _parser().parse_args(argv)
    folder = notebooks.find_notebooks(arguments.notebooks)
    return arguments.action(folder, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avkit course",
        description="The course's notebooks: executed, and derived for students and instructors.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    run = actions.add_parser("run", help="execute notebooks with papermill, and print a table")
    run.add_argument("names", nargs="*", help="numbers or names; all if none is given")
    run.add_argument("--out", type=Path, default=Path("build"), help="folder for the executed copies (build)")
    run.add_argument(
        "--fast", action="store_true", help="the quick version of each notebook, as the tests run it"
    )
    run.add_argument("--cell-seconds", type=int, default=600, help="longest time for one cell (600)")
    run.set_defaults(action=_run)
    for name, text in (
        ("student", "without solutions"),
        ("instructor", "with solutions in place (nbgrader's source form)"),
    ):
        derive = actions.add_parser(name, help=f"write the notebooks {text} into a folder")
        derive.add_argument("out", type=Path, metavar="OUT")
        derive.add_argument("names", nargs="*")
        if name == "instructor":
            derive.add_argument(
                "--notes", action="store_true", help="with notes on each section (not for nbgrader's source folder)"
            )
        derive.set_defaults(action=_derive, version=name)
    _add_workshop(actions)
    _add_grade(actions)
    book = actions.add_parser("book", help="build the course and the API reference as a static site")
    book.add_argument("out", type=Path, metavar="OUT", help="folder of the site; an older book in it is replaced")
    book.add_argument("names", nargs="*", help="numbers or names of notebooks; all if none is given")
    book.set_defaults(action=_book)
    store = actions.add_parser("store", help="execute a notebook as it stands and keep the outputs in it")
    store.add_argument("names", nargs="+")
    store.add_argument("--cell-seconds", type=int, default=600)
    store.set_defaults(action=_store)
    for action in actions.choices.values():
        action.add_argument("--notebooks", help="folder of the notebooks, if not ./notebooks")
    return parser


def _add_workshop(actions: argparse._SubParsersAction) -> None:
    from avkit.teach.workshop import PLANS

    workshop = actions.add_parser("workshop", help="write the kit for a workshop: plan, letter, notes, notebooks")
    workshop.add_argument("out", type=Path, metavar="OUT")
    workshop.add_argument("--hours", type=int, choices=sorted(PLANS), default=3, help="its length, breaks included (3)")
    workshop.add_argument("--start", default="09:00", help="clock time of the beginning (09:00)")
    workshop.set_defaults(action=_workshop)
    room = actions.add_parser("room", help="which laptops are ready, from their reports (avkit doctor --report)")
    room.add_argument("reports", type=Path, metavar="FOLDER", help="with one .json per laptop")
    room.set_defaults(action=_room)


def _workshop(folder: Path, arguments: argparse.Namespace) -> int:
    from avkit.teach import workshop

    written = workshop.write_kit(arguments.hours, folder, arguments.out, arguments.start)
    print(f"{len(written)} files in {arguments.out}; begin with README.md.")
    return 0


def _book(folder: Path, arguments: argparse.Namespace) -> int:
    from avkit.teach import book

    warnings = book.build(folder, arguments.out, arguments.names)
    print(book.report(arguments.out, warnings))
    return 0


def _room(_folder: Path, arguments: argparse.Namespace) -> int:
    from avkit.teach import workshop

    laptops = workshop.read_reports(arguments.reports)
    print(workshop.table(laptops))
    return 0 if all(laptop.state == "ready" for laptop in laptops) else 1


def _add_grade(actions: argparse._SubParsersAction) -> None:
    from avkit.teach.grading import Limits

    usual = Limits()
    grade = actions.add_parser(
        "grade",
        help="mark handed-in notebooks by hidden checks, each in a process of its own",
        description="Marks every notebook below a folder. marks.csv has a row per exercise, totals.csv one per "
        "notebook. Limits guard against accidents; code that means harm needs a container or a machine of its own.",
    )
    grade.add_argument("handed_in", type=Path, metavar="FOLDER", help="with a folder or a file per student")
    grade.add_argument("--out", type=Path, default=Path("build/marks"), help="folder for the tables (build/marks)")
    grade.add_argument("--seconds", type=float, default=usual.seconds, help=f"for one notebook ({usual.seconds:g})")
    grade.add_argument(
        "--cell-seconds", type=float, default=usual.cell_seconds, help=f"for one cell ({usual.cell_seconds:g})"
    )
    grade.add_argument(
        "--memory-gb", type=float, default=usual.memory_gb, help=f"for one notebook, Linux only ({usual.memory_gb:g})"
    )
    grade.add_argument("--jobs", type=int, default=1, help="notebooks marked at a time (1)")
    grade.add_argument("--seeds", type=int, nargs="+", help="of the hidden inputs, if not the usual ones")
    grade.set_defaults(action=_grade)


def _grade(folder: Path, arguments: argparse.Namespace) -> int:
    from avkit.teach import exercises, grading

    sources = {path.stem[:2]: path for path in notebooks.list_notebooks(folder)}
    limits = grading.Limits(arguments.seconds, arguments.cell_seconds, arguments.memory_gb)
    seeds = arguments.seeds or exercises.HIDDEN_SEEDS
    totals = grading.grade(arguments.handed_in, sources, arguments.out, limits, seeds, arguments.jobs)
    print(f"{len(totals)} notebooks marked; marks.csv and totals.csv are in {arguments.out}.")
    return 0


def _run(folder: Path, arguments: argparse.Namespace) -> int:
    paths = notebooks.list_notebooks(folder, arguments.names)
    rows = []
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path.name}", flush=True)
        rows.append(_run_one(path, arguments))
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = arguments.out / "course.json"
    part = record.with_suffix(".part")
    part.write_text(
        json.dumps({"fast": arguments.fast, "notebooks": [asdict(row) for row in rows]}, indent=1) + "\n"
    )
    os.replace(part, record)
    print(_table(rows))
    print(f"Executed copies and course.json are in {arguments.out}.")
    return 0 if all(row.state == "ok" for row in rows) else 1


def _run_one(path: Path, arguments: argparse.Namespace) -> Row:
    try:
        import papermill
    except ImportError as error:
        raise MissingPackageError(
            "executing notebooks needs papermill; install it with: pip install papermill"
        ) from error
    out = arguments.out / path.name
    out.parent.mkdir(parents=True, exist_ok=True)
    start, state = time.perf_counter(), "ok"
    try:
        papermill.execute_notebook(
            str(path),
            str(out),
            parameters={"fast": True} if arguments.fast else {},
            kernel_name="python3",
            language="python",
            cwd=str(path.parent),
            execution_timeout=arguments.cell_seconds,
            progress_bar=sys.stderr.isatty() or {"mininterval": 5},
        )
    except papermill.PapermillExecutionError as error:
        state = f"cell {error.cell_index} failed: {error.ename}"
        print(f"  {path.name}: {error}", file=sys.stderr)
    except Exception as error:  # noqa: BLE001 (a dead kernel or a timeout: name it and go on with the next notebook)
        state = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    seconds = round(time.perf_counter() - start, 1)
    return _row(path, out, seconds, state)


def _row(path: Path, out: Path, seconds: float, state: str) -> Row:
    executed = notebooks.read(out if out.exists() else path)
    html = "".join(notebooks.output_html(executed))
    players, figures = html.count('class="avkit-player"'), html.count("<img ")
    if state == "ok" and notebooks.hidden_errors(executed):
        state = "hidden error in a widget"
    return Row(path.stem, len(executed.cells), seconds, figures, players, state)


def _table(rows: list[Row]) -> str:
    heads = ("notebook", "cells", "seconds", "figures", "players", "state")
    body = [tuple(str(value) for value in asdict(row).values()) for row in rows]
    total = ("total", *(f"{sum(getattr(row, head) for row in rows):g}" for head in heads[1:5]), "")
    lines = [heads, *body, total]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    aligned = [
        "  ".join([line[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(line[1:5], widths[1:5])), line[5]])
        for line in lines
    ]
    return "\n".join(
        [
            "",
            aligned[0],
            "-" * len(aligned[0]),
            *aligned[1:-1],
            "-" * len(aligned[0]),
            aligned[-1].rstrip(),
            "",
        ]
    )


def _derive(folder: Path, arguments: argparse.Namespace) -> int:
    from avkit.teach import versions

    for path in notebooks.list_notebooks(folder, arguments.names):
        target = arguments.out / path.stem / path.name
        if arguments.version == "student":
            made = versions.student(notebooks.read(path))
        else:
            made = versions.instructor(notebooks.read(path))
            if arguments.notes:
                made = versions.with_notes(made, path.stem[:2])
        notebooks.write(made, target)
        print(target)
    return 0


def _store(folder: Path, arguments: argparse.Namespace) -> int:
    for path in notebooks.list_notebooks(folder, arguments.names):
        start = time.perf_counter()
        executed = notebooks.execute(notebooks.read(path), folder, arguments.cell_seconds)
        hidden = notebooks.hidden_errors(executed)
        if hidden:
            raise AvkitError(
                f"{path.name}: a widget stored an error; nothing was written:\n" + "\n".join(hidden)
            )
        notebooks.write(notebooks.normalise(executed), path)
        size = path.stat().st_size / 1e6
        print(f"{path.name}: {len(executed.cells)} cells, {time.perf_counter() - start:.1f} s, {size:.2f} MB")
    return 0
