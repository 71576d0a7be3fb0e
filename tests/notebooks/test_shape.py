"""Every notebook as it is stored: its size and rhythm, its outputs, alt texts and labels, its exercises."""

from __future__ import annotations

import ast
import importlib
import re
import statistics

from avkit.teach import notebooks

MAX_BYTES, MAX_CELLS, MAX_LINES, MAX_MEDIAN = 2_000_000, 60, 40, 8
_IMAGE, _PLAYER = re.compile(r"<img\b[^>]*>"), re.compile(r"<(?:audio|video)\b[^>]*>")


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_size_and_rhythm(path, stored):
    code = _code(stored)
    lines = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in code]
    assert path.stat().st_size < MAX_BYTES
    assert len(stored.cells) <= MAX_CELLS
    assert max(lines) <= MAX_LINES and statistics.median(lines) <= MAX_MEDIAN
    assert len(stored.cells) - len(code) >= len(code) - 2 * len(notebooks.exercises(stored)), (
        "more prose is needed"
    )


def test_no_code_line_needs_scrolling(stored):
    long = [line for cell in _code(stored) for line in cell.source.splitlines() if len(line) > 105]
    assert not long


def test_outputs_are_those_of_one_clean_run(stored):
    counts = [cell.execution_count for cell in _code(stored)]
    assert counts == list(range(1, len(counts) + 1))
    assert stored.metadata.avkit.sources == notebooks.source_hash(stored), (
        "a code cell was changed after the outputs were stored: run `avkit course store` for this notebook"
    )
    assert not notebooks.hidden_errors(stored)
    written = [
        o for cell in _code(stored) for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"
    ]
    assert not written, written


def test_it_carries_its_licence(stored):
    assert "Texts and figures: [CC BY 4.0]" in stored.cells[-1].source + stored.cells[-2].source


def test_widget_metadata_has_state(stored):
    """GitHub refuses to show a notebook without it."""
    assert "state" in stored.metadata.widgets["application/vnd.jupyter.widget-state+json"]


def test_every_picture_has_alt_text(stored):
    images = [tag for html in notebooks.output_html(stored) for tag in _IMAGE.findall(html)]
    assert images
    for tag in images:
        alt = re.search(r'alt="([^"]*)"', tag)
        assert alt and len(alt[1]) >= 20, tag[:200]
    bare = [o for cell in _code(stored) for o in cell.outputs if "image/png" in o.get("data", {})]
    assert not bare, "show figures with teach.picture(fig, alt), which carries its alt text"


def test_every_player_has_a_label_and_lossless_sound(stored):
    html = "\n".join(notebooks.output_html(stored))
    for tag in _PLAYER.findall(html):
        assert re.search(r'aria-label="[^"]+"', tag), tag[:200]
        assert 'src="data:audio/flac;base64,' in tag or 'src="data:video/mp4;base64,' in tag
    assert html.count("<figcaption>") == len(_PLAYER.findall(html))


def test_parameters_come_first(stored):
    first = _code(stored)[0]
    assert {"parameters", "setup"} <= set(notebooks.tags(first))
    assert len(notebooks.tagged(stored, "parameters")) == 1
    assert {"fast", "data"} <= parameter_names(first.source)


def parameter_names(source: str) -> set[str]:
    """Names that the parameters cell assigns at its top level; papermill would only warn of any other."""
    targets = [node.targets for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {target.id for group in targets for target in group if isinstance(target, ast.Name)}


def test_opening_shows_something(stored):
    """The question is asked with sound or picture in the first three cells."""
    shown = "".join(html for cell in stored.cells[:3] if cell.cell_type == "code" for html in _html(cell))
    assert "<img" in shown or "<audio" in shown or "<video" in shown
    head = stored.cells[0].source
    assert all(word in head for word in ("# ", "**The question", "**Time**", "**Needs**"))


def _html(cell):
    return [output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]


def test_three_outputs_that_no_mode_changes(stored):
    cells = notebooks.tagged(stored, "nbval-check-output")
    assert len([cell for cell in cells if cell.outputs]) >= 3


def test_one_exercise_asks_for_a_prediction(stored):
    """Before the cell that answers it is run."""
    asked = [cell.source for cell in stored.cells if cell.cell_type == "markdown"]
    assert any(re.search(r"\*\*Exercise[^*]{0,80}predict", source, re.IGNORECASE) for source in asked)


def test_exercises_are_complete(path, stored):
    """Three to five, at least three with a check; each solution is a full replacement of its stub."""
    lesson = importlib.import_module(f"avkit.teach.lesson{path.stem[:2]}")
    found = notebooks.exercises(stored)
    assert {exercise.key.split(".")[1] for exercise in found} == set(lesson.EXERCISES)
    assert all(exercise.key.startswith(path.stem[:2]) for exercise in found)
    for exercise in found:
        stub = stored.cells[exercise.stub].source
        before = stub.split("\n").index(next(line for line in stub.split("\n") if notebooks.STUB in line))
        head = stub.split("\n")[:before]
        if not stub.startswith(tuple(f"{name} = None" for name in lesson.EXERCISES)):
            assert exercise.code.split("\n")[:before] == head, (
                f"{exercise.key}: the solution starts like its stub"
            )
    open_questions = [cell for cell in stored.cells if "<summary>Rubric</summary>" in cell.source]
    assert len(open_questions) >= 1 and 3 <= len(found) + len(open_questions) <= 6 and len(found) >= 3
