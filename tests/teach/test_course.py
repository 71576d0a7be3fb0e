"""`avkit course`: run with its table, store, and the student's and instructor's versions."""

from __future__ import annotations

import json
import re

import nbformat
import pytest

from avkit.errors import DataError
from avkit.teach import notebooks, versions
from avkit.teach.course import main

SOLUTION = "<details>\n<summary>Solution</summary>\n\n```python\n{}\n```\n</details>"


def _notebook(*cells):
    made = nbformat.v4.new_notebook()
    for kind, source, tags in cells:
        new = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        made.cells.append(new(source, metadata={"tags": tags}))
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two little notebooks, the second of which fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    good = _notebook(
        ("code", "fast = False", ["parameters"]),
        ("code", "from avkit import teach\nfrom avkit.teach import lesson01", []),
        ("code", "heard_hz = None\n# YOUR CODE HERE", ["exercise"]),
        ("code", 'heard_hz = teach.check("01.heard_hz", heard_hz)', ["check"]),
        ("markdown", SOLUTION.format("heard_hz = 3000"), ["solution"]),
        ("code", "print('fast', fast)\nteach.explore(lesson01.EXPLORERS['window_sum'])", []),
    )
    bad = _notebook(("code", "fast = False", ["parameters"]), ("code", "1 / 0", []))
    nbformat.write(good, tmp_path / "notebooks" / "01_good.ipynb")
    nbformat.write(bad, tmp_path / "notebooks" / "02_bad.ipynb")
    return tmp_path


def test_run_ends_with_a_table_and_a_status(folder, capsys):
    assert main(["run", "--fast"]) == 1
    printed = capsys.readouterr().out
    assert "[1/2] 01_good.ipynb" in printed
    good = next(line for line in printed.splitlines() if line.startswith("01_good "))
    assert re.search(r"01_good +7 +[\d.]+ +1 +0 +ok", good)
    assert "ZeroDivisionError" in next(line for line in printed.splitlines() if line.startswith("02_bad "))
    record = json.loads((folder / "build" / "course.json").read_text())
    assert record["fast"] and [row["notebook"] for row in record["notebooks"]] == ["01_good", "02_bad"]
    executed = notebooks.read(folder / "build" / "01_good.ipynb")
    assert any("fast True" in str(cell.get("outputs")) for cell in executed.cells)


def test_a_cell_that_never_ends_is_stopped(folder, capsys):
    nbformat.write(_notebook(("code", "while True: pass", [])), folder / "notebooks" / "01_good.ipynb")
    assert main(["run", "01", "--cell-seconds", "3"]) == 1
    assert "Timeout" in capsys.readouterr().out


def test_store_is_repeatable_and_keeps_the_unsolved_outputs(folder, capsys):
    path = folder / "notebooks" / "01_good.ipynb"
    assert main(["store", "01"]) == 0
    first = path.read_bytes()
    assert main(["store", "01"]) == 0
    assert path.read_bytes() == first
    stored = notebooks.read(path)
    assert stored.metadata.avkit.sources == notebooks.source_hash(stored)
    assert "avkit-check-unsolved" in "".join(notebooks.output_html(stored))
    state = stored.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert state
    main(["run", "01"])
    assert path.read_bytes() == first, "run must not touch the notebook"


def test_store_refuses_a_failing_notebook(folder):
    before = (folder / "notebooks" / "02_bad.ipynb").read_bytes()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        main(["store", "02"])
    assert (folder / "notebooks" / "02_bad.ipynb").read_bytes() == before


def test_unknown_notebook(folder):
    with pytest.raises(DataError, match="01_good"):
        main(["run", "07"])


def test_no_notebooks(tmp_path):
    with pytest.raises(DataError, match="--notebooks"):
        main(["run", "--notebooks", str(tmp_path)])


def _stub_and_solution():
    stub = 'def f(x):\n    """Twice."""\n    y = x\n    # YOUR CODE HERE\n    return y'
    solution = 'def f(x):\n    """Twice."""\n    y = x\n    y = 2 * y\n    return y'
    return stub, solution


def test_solution_is_marked_where_the_stub_asks_for_it():
    stub, solution = _stub_and_solution()
    marked = versions._marked(stub, solution)
    assert marked.split("\n")[3:6] == ["    ### BEGIN SOLUTION", "    y = 2 * y", "    ### END SOLUTION"]
    assert marked.replace("    ### BEGIN SOLUTION\n", "").replace("    ### END SOLUTION\n", "") == solution


def test_student_version_is_the_source_without_solutions(repository):
    """nbgrader takes out of the instructor's version exactly what was put in, cell by cell."""
    pytest.importorskip("nbgrader")
    for path in sorted((repository / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        source = notebooks.read(path)
        expected = [cell for cell in source.cells if "solution" not in notebooks.tags(cell)]
        made = versions.student(source)
        assert [cell.source for cell in made.cells] == [cell.source for cell in expected]
        assert not any(cell.get("outputs") for cell in made.cells)
        checks = [cell for cell in made.cells if "check" in notebooks.tags(cell)]
        assert checks and all(
            cell.metadata.nbgrader.checksum and cell.metadata.nbgrader.locked for cell in checks
        )


def test_instructor_version_holds_every_solution(repository):
    for path in sorted((repository / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        source = notebooks.read(path)
        code = "\n".join(cell.source for cell in versions.instructor(source).cells)
        assert code.count(versions.BEGIN) == len(notebooks.exercises(source)) == code.count(versions.END)


def test_exercise_cells_out_of_order_are_named():
    stub, solution = _stub_and_solution()
    made = _notebook(("code", stub, ["exercise"]), ("markdown", SOLUTION.format(solution), ["solution"]))
    with pytest.raises(DataError, match="followed by its check"):
        notebooks.exercises(made)


def test_hidden_errors_are_found():
    made = _notebook(("code", "", []))
    state = {
        "state": {"m": {"state": {"outputs": [{"output_type": "error", "ename": "Boom", "evalue": "x"}]}}}
    }
    made.metadata.widgets = {"application/vnd.jupyter.widget-state+json": state}
    assert "Boom" in notebooks.hidden_errors(made)[0]


def test_every_lesson_has_notes_and_only_instructors_who_ask_get_them(repository, tmp_path):
    for path in notebooks.list_notebooks(repository / "notebooks"):
        text = versions.notes(path.stem[:2])
        assert len(text.splitlines()) >= 8, f"{path.stem}: INSTRUCTOR is missing or thin"
        for part in ("minutes", "get (wrong|stuck)", "questions to ask"):
            assert re.search(part, text, re.IGNORECASE), f"{path.stem}: INSTRUCTOR has no {part}"
        assert not text.startswith("#"), "the heading is added by whoever shows the notes"
    assert main(["instructor", str(tmp_path), "01", "--notes", "--notebooks", str(repository / "notebooks")]) == 0
    made = notebooks.read(next(tmp_path.glob("01_*/*.ipynb")))
    assert notebooks.tags(made.cells[1]) == ["instructor"] and versions.notes("01") in made.cells[1].source
    assert not any("instructor" in notebooks.tags(cell) for cell in versions.student(notebooks.read(path)).cells)
