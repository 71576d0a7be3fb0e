"""The notebooks as an instructor and as a student gets them, in nbgrader's format.

One source, the notebook in notebooks/: from it `instructor` makes what nbgrader calls the source version (each stub
holds its solution, and each check cell a hidden test, between nbgrader's marks), and `student` what it calls the release
version (nbgrader's own preprocessors take solutions and hidden tests out again). A student's notebook is the source
without its folded solutions.

To mark with `avkit course grade`, nothing is to be set up. To mark with nbgrader and its gradebook: `avkit course instructor
source`, then in nbgrader_config.py `c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE"}`, `nbgrader
generate_assignment NAME`, `nbgrader autograde NAME`: an answer that is not right on hidden inputs fails its check cell.
"""

from __future__ import annotations

import ast
import copy
import importlib
import re

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from avkit.errors import MissingPackageError
from avkit.teach import notebooks

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_TEST, END_TEST = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"


def notes(number: str) -> str:
    """The instructor's notes of a lesson: minutes per section, what people get wrong, questions to ask; "" if none."""
    try:
        lesson = importlib.import_module(f"avkit.teach.lesson{number}")
    except ModuleNotFoundError:
        return ""
    text = getattr(lesson, "INSTRUCTOR", "").strip()
    return re.sub(r"\A#+ .*\n+", "", text)  # whoever shows them gives them a heading


def with_notes(notebook: NotebookNode, number: str) -> NotebookNode:
    """The notebook with the lesson's instructor notes below its title, in a cell tagged `instructor`."""
    text = notes(number)
    if text:
        cell = new_markdown_cell(f"## For the instructor\n\n{text}", metadata={"tags": ["instructor"]})
        cell.id = "instructor-notes"
        notebook.cells.insert(1, cell)
    return notebook


def instructor(notebook: NotebookNode) -> NotebookNode:
    """Solutions and hidden tests in their places, between nbgrader's marks; folded solutions and outputs are dropped.

    The result goes into nbgrader's folder `source/ASSIGNMENT/`. (nbgrader would hand a note for instructors on to the
    students, so those are added apart, by `with_notes`.)
    """
    made = copy.deepcopy(notebook)
    for exercise in notebooks.exercises(notebook):
        made.cells[exercise.stub].source = _marked(notebook.cells[exercise.stub].source, exercise.code)
        made.cells[exercise.check].source = _tested(notebook.cells[exercise.check].source)
    made.cells = [cell for cell in made.cells if "solution" not in notebooks.tags(cell)]
    return _without_outputs(made)


def _marked(stub: str, solution: str) -> str:
    """The stub with the solution's own lines, marked, in place of the line that asks for them."""
    lines, answer = stub.split("\n"), solution.split("\n")
    place = next(index for index, line in enumerate(lines) if notebooks.STUB in line)
    before, after = lines[:place], lines[place + 1 :]
    answer = answer[len(before) :] if answer[: len(before)] == before else answer
    answer = answer[: -len(after)] if after and answer[-len(after) :] == after else answer
    indent = lines[place][: lines[place].index("#")]
    return "\n".join([*before, indent + BEGIN, *answer, indent + END, *after])


def _tested(check: str) -> str:
    """A check cell that first judges the same answer on hidden inputs."""
    calls = [node for node in ast.walk(ast.parse(check)) if isinstance(node, ast.Call)]
    (call,) = (node for node in calls if ast.unparse(node.func) == "teach.check")
    key, answer = (ast.unparse(argument) for argument in call.args[:2])
    return "\n".join([BEGIN_TEST, f"teach.mark({key}, {answer})", END_TEST, check])


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    return notebook


def student(notebook: NotebookNode) -> NotebookNode:
    """What `nbgrader generate_assignment` makes of the instructor's version: stubs, locked and fingerprinted checks.

    Raises:
        MissingPackageError: nbgrader is not installed.
    """
    try:
        from nbgrader import preprocessors
    except ImportError as error:
        raise MissingPackageError(
            "student versions are made by nbgrader; install it with: pip install nbgrader"
        ) from error
    made, resources = instructor(notebook), {}
    steps = (
        preprocessors.LockCells(),
        preprocessors.ClearSolutions(code_stub={"python": notebooks.STUB}),
        preprocessors.ClearOutput(),
        preprocessors.CheckCellMetadata(),
        preprocessors.ComputeChecksums(),
        preprocessors.ClearHiddenTests(),
        preprocessors.ComputeChecksums(),
    )
    for step in steps:
        made, resources = step.preprocess(made, resources)
    return made
