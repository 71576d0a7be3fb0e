"""Notebooks as data: their cells by role, the solved form, clean execution, and the order of the course.

Roles are cell tags: `parameters` (the first code cell), `setup` (imports), `exercise` (the stub a reader completes),
`check` (right after it), `solution` (Markdown, folded away in <details>, with the answer in a ```python block) and
`nbval-check-output` (an output that no mode changes).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from avkit.errors import DataError

STUB = "# YOUR CODE HERE"  # the line of a stub that an answer replaces
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_CHECK = re.compile(r"""teach\.check\(\s*["'](\d\d)\.(\w+)["']""")
_SOLUTION = re.compile(r"```python\n(.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class ExerciseCells:
    """Positions of one exercise's cells in its notebook, its key ("01.hann"), and the solution's code."""

    key: str
    stub: int
    check: int
    solution: int
    code: str


def find_notebooks(folder: Path | str | None = None) -> Path:
    """The folder of notebooks: as given, or ./notebooks, or one in a folder above, or beside the package.

    Raises:
        DataError: there is none with a notebook in it.
    """
    package = Path(__file__).resolve().parents[2]
    here = Path.cwd()
    places = [Path(folder)] if folder else [place / "notebooks" for place in (here, *here.parents, package)]
    for place in places:
        if any(place.glob("[0-9][0-9]_*.ipynb")):
            return place.resolve()
    raise DataError(
        f"no notebooks (NN_name.ipynb) in {', '.join(map(str, places))}: run this in a clone of the repository, or "
        "name their folder with --notebooks"
    )


def list_notebooks(folder: Path, names: list[str] | None = None) -> list[Path]:
    """The course's notebooks in reading order; `names` picks some, by number ("01"), stem or file name.

    Raises:
        DataError: a name fits no notebook.
    """
    every = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return every
    chosen = []
    for name in names:
        stem = Path(name).stem
        fitting = [path for path in every if path.stem == stem or path.stem.split("_")[0] == stem]
        if not fitting:
            raise DataError(
                f"no notebook {name!r} in {folder}; there are {', '.join(path.stem for path in every)}"
            )
        chosen += fitting
    return sorted(set(chosen))


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    """Write in one move, so that an interrupted run leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        nbformat.write(notebook, file)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in tags(cell)]


def exercises(notebook: NotebookNode) -> list[ExerciseCells]:
    """Every exercise with a check: a stub, its check right after it, its solution right after that.

    Raises:
        DataError: the three do not follow one another, or a check or solution cannot be read.
    """
    found = []
    for index, cell in enumerate(notebook.cells):
        if "exercise" not in tags(cell):
            continue
        following = notebook.cells[index + 1 : index + 3]
        if [("check" in tags(c), "solution" in tags(c)) for c in following] != [(True, False), (False, True)]:
            raise DataError(f"cell {index}: an exercise is followed by its check, then its solution (tags)")
        check, solution = _CHECK.search(following[0].source), _SOLUTION.search(following[1].source)
        if check is None:
            raise DataError(f'cell {index + 1}: a check cell calls teach.check("NN.name", answer)')
        if solution is None or "<details>" not in following[1].source:
            raise DataError(
                f"cell {index + 2}: a solution is Markdown with a ```python block inside <details>"
            )
        if STUB not in cell.source:
            raise DataError(f"cell {index}: a stub has the line {STUB!r} where the answer goes")
        key = f"{check[1]}.{check[2]}"
        found.append(ExerciseCells(key, index, index + 1, index + 2, solution[1]))
    return found


def solved(notebook: NotebookNode) -> NotebookNode:
    """A copy in which every stub holds its solution."""
    answered = copy.deepcopy(notebook)
    for exercise in exercises(notebook):
        answered.cells[exercise.stub].source = exercise.code
    return answered


def source_hash(notebook: NotebookNode) -> str:
    """Fingerprint of what is executed, to tell whether stored outputs belong to these sources."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Drop what changes from run to run (timings, widget ids) and fill in what exercises and viewers need."""
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(KERNEL),
        language_info=NotebookNode(name="python", file_extension=".py", mimetype="text/x-python"),
        widgets=notebook.metadata.get("widgets", _no_widgets()),
        avkit=NotebookNode(sources=source_hash(notebook)),
    )
    for index, cell in enumerate(notebook.cells):
        keep = {key: cell.metadata[key] for key in ("tags", "nbgrader", "slideshow") if key in cell.metadata}
        cell.metadata = NotebookNode(keep)
        cell.id = f"cell-{index:02d}"
    for exercise in exercises(notebook):
        name = exercise.key.replace(".", "-")
        notebook.cells[exercise.stub].metadata.nbgrader = _nbgrader(name, solution=True)
        notebook.cells[exercise.check].metadata.nbgrader = _nbgrader(f"check-{name}", points=1)
    return _number_widgets(notebook)


def _no_widgets() -> NotebookNode:
    state = {"state": {}, "version_major": 2, "version_minor": 0}
    return nbformat.from_dict({"application/vnd.jupyter.widget-state+json": state})


def _nbgrader(name: str, solution: bool = False, points: int | None = None) -> NotebookNode:
    """nbgrader's own metadata: a cell to be answered, or a locked one that marks it."""
    fields = {"schema_version": 3, "cell_type": "code", "grade_id": name, "solution": solution, "task": False}
    fields |= {"grade": points is not None, "locked": not solution}
    return nbformat.from_dict(fields | ({"points": points} if points is not None else {}))


def _number_widgets(notebook: NotebookNode) -> NotebookNode:
    """Replace the random ids of widget models by numbers in order."""
    text = nbformat.writes(notebook)
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    for number, name in enumerate(state):
        text = text.replace(name, f"{number:032x}")
    return nbformat.reads(text, as_version=4)


def execute(notebook: NotebookNode, folder: Path, cell_seconds: int = 600) -> NotebookNode:
    """Run all cells from top to bottom in a new kernel, in `folder`; a cell that fails or exceeds its time raises."""
    from nbclient import NotebookClient

    clean = copy.deepcopy(notebook)
    for cell in clean.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    clean.metadata.pop("widgets", None)
    client = NotebookClient(
        clean,
        timeout=cell_seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=True,
    )
    return client.execute()


def output_html(notebook: NotebookNode) -> list[str]:
    """Every text/html output, in order."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]


def hidden_errors(notebook: NotebookNode) -> list[str]:
    """Errors that did not stop the run: in outputs, in stored widget state, in an explorer's picture."""
    from avkit.teach.widgets import ERROR_CLASS

    found = [f"output: {html[:500]}" for html in output_html(notebook) if ERROR_CLASS in html]
    for cell in notebook.cells:
        found += [
            f"output: {o.ename}: {o.evalue}" for o in cell.get("outputs", []) if o.output_type == "error"
        ]
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    for model in widgets.get("state", {}).values():
        for output in model.get("state", {}).get("outputs", []):
            if output.get("output_type") == "error":
                found.append(f"widget: {output.get('ename')}: {output.get('evalue')}")
        if ERROR_CLASS in str(model.get("state", {}).get("value", "")):
            found.append(f"widget: {model['state']['value'][:500]}")
    return found
