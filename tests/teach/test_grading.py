"""`avkit course grade`: hand-ins of every kind, each marked in a process of its own under limits."""

from __future__ import annotations

import csv

import nbformat
import pytest

from avkit.errors import AvkitError, DataError, InputError
from avkit.teach import exercises, grading, marking, notebooks, versions
from avkit.teach.course import main
from avkit.teach.grading import Limits

HANN = (
    "def hann(length):\n    ramp = torch.arange(length, dtype=torch.float32) / length\n"
    "    return 0.5 - 0.5 * torch.cos(2 * torch.pi * ramp)"
)
SOLUTION = "<details>\n<summary>Solution</summary>\n\n```python\n{}\n```\n</details>"


def _course_notebook():
    """A little notebook with two exercises of lesson 01, and a cell that computes what an answer may use."""
    made = nbformat.v4.new_notebook()

    def add(source, *tags, markdown=False):
        new = nbformat.v4.new_markdown_cell if markdown else nbformat.v4.new_code_cell
        made.cells.append(new(source, metadata={"tags": list(tags)}))

    add("import torch\n\nfrom avkit import teach\n\nfast = False", "parameters", "setup")
    add("def nyquist(rate):\n    return rate / 2\n\n\nmeasured = 3000")
    for name, stub, solution in (
        ("heard_hz", "heard_hz = None\n# YOUR CODE HERE", "heard_hz = 3000"),
        ("hann", "def hann(length):\n    # YOUR CODE HERE\n    ...", HANN),
    ):
        add(stub, "exercise")
        add(f'{name} = teach.check("01.{name}", {name})', "check")
        add(SOLUTION.format(solution), "solution", markdown=True)
    return notebooks.normalise(made)


STUB = "def hann(length):\n    ..."
HAND_INS = {  # student: (answer to heard_hz, answer to hann)
    "stub": (None, None),
    "mixed": ("heard_hz = 5000", HANN),
    "computed": ("heard_hz = measured", "def hann(length):\n    return helper(length)"),
    "defined": ("heard_hz = 2 * nyquist(3000)", "def hann(length):\n    raise ValueError('no idea')"),
    "crash": ("import os\nos._exit(3)", HANN),
    "endless": ("while True:\n    pass", "def hann(length):\n    while True:\n        pass"),
    "large": ("heard_hz = 3000", "def hann(length):\n    return torch.ones(10**9, dtype=torch.float64)[:length]"),
    "cheat": ("heard_hz = 3000\nteach.check = lambda key, answer: answer", "def hann(length):\n    return torch.ones(3)"),
}


def _hand_in(course, first, second):
    made = versions.student(course)
    for cell in made.cells:
        if "exercise" in notebooks.tags(cell):
            answer = first if "heard_hz" in cell.source else second
            cell.source = answer or cell.source
    if second and "helper" in second:  # in a cell of the student's own
        made.cells.insert(2, nbformat.v4.new_code_cell(HANN.replace("def hann", "def helper")))
    return made


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The command itself on the hand-ins above, with short limits; {student: {exercise: row}}, and the totals."""
    pytest.importorskip("nbgrader")
    folder = tmp_path_factory.mktemp("grade")
    course = _course_notebook()
    notebooks.write(course, folder / "notebooks" / "01_little.ipynb")
    for student, answers in HAND_INS.items():
        notebooks.write(_hand_in(course, *answers), folder / "in" / student / "01_little" / "01_little.ipynb")
    notebooks.write(notebooks.solved(course), folder / "in" / "solved.ipynb")  # the notebook itself, no student version
    without = _hand_in(course, "heard_hz = 3000", HANN)
    without.cells = [cell for cell in without.cells if "def hann" not in cell.source]
    notebooks.write(without, folder / "in" / "removed.ipynb")
    (folder / "in" / "broken.ipynb").write_text("{")
    arguments = ["grade", str(folder / "in"), "--out", str(folder / "out"), "--notebooks", str(folder / "notebooks")]
    assert main([*arguments, "--cell-seconds", "3", "--memory-gb", "2", "--jobs", "2"]) == 0
    with (folder / "out" / "marks.csv").open(encoding="utf-8") as file:
        marks = list(csv.DictReader(file))
    with (folder / "out" / "totals.csv").open(encoding="utf-8") as file:
        totals = {row["student"]: row for row in csv.DictReader(file)}
    rows = {}
    for row in marks:
        rows.setdefault(row["student"], {})[row["exercise"]] = row
    return rows, totals


def test_totals(graded):
    percent = {student: float(row["percent"]) for student, row in graded[1].items()}
    assert percent == {
        "stub": 0,
        "solved": 100,
        "mixed": 50,
        "computed": 100,
        "defined": 50,
        "crash": 50,
        "endless": 0,
        "large": 50,
        "cheat": 50,
        "removed": 50,
        "broken": 0,
    }
    assert graded[1]["stub"]["states"] == "2 unsolved"


@pytest.mark.parametrize(
    ("student", "states"),
    {
        "mixed": ("wrong", "right"),
        "defined": ("right", "stopped"),
        "crash": ("crashed", "right"),
        "endless": ("time", "time"),
        "large": ("right", "memory"),
        "cheat": ("right", "wrong"),
        "removed": ("right", "missing"),
    }.items(),
)
def test_states(graded, student, states):
    rows = graded[0][student]
    assert (rows["01.heard_hz"]["state"], rows["01.hann"]["state"]) == states


def test_a_recognised_mistake_is_named_in_words(graded):
    row = graded[0]["mixed"]["01.heard_hz"]
    assert row["mistake"] in {mistake.name for mistake in exercises.find("01.heard_hz").mistakes}
    assert len(row["words"]) > 40 and "goes on with" not in row["words"]
    assert "ValueError" in graded[0]["defined"]["01.hann"]["words"]


def test_what_is_no_notebook_gets_a_row_that_says_so(graded):
    assert graded[0]["broken"][""]["state"] == "unreadable"


def test_an_answer_right_for_the_visible_inputs_alone_is_refused():
    """A check that a reader sees draws with seed 0; an answer that knows those inputs passes it, and is found out."""

    def probe(answer, draw):
        import torch

        return {"the input": answer(torch.randn(3, generator=draw))}

    seen = []

    def learnt(values):
        seen.append(values)
        return seen[0]

    exercise = exercises.Exercise("return the input", lambda values: values, probe)
    assert exercises.judge(exercise, learnt).status == exercises.RIGHT
    assert exercises.judge_often(exercise, learnt, exercises.HIDDEN_SEEDS).status == exercises.WRONG


def test_a_process_that_sleeps_through_its_alarm_is_killed_and_the_rest_marked():
    """A bare `except` swallows the cell's limit: the whole process is stopped, and started again without that answer."""
    course = _course_notebook()
    stubborn = "x = 0\nwhile True:\n    try:\n        while True:\n            x += 1\n    except BaseException:\n        x = 0"
    found = grading.mark(_hand_in(course, stubborn, HANN), course, Limits(5, 1, 4), [1])
    assert (found["01.heard_hz"]["state"], found["01.hann"]["state"]) == ("time", "right")
    assert "after 5 s" in found["01.heard_hz"]["words"]


def test_slow_cells_are_left_out_and_the_cell_at_hand_is_not_blamed(monkeypatch):
    cells = [{"kind": "own", "source": "", "key": ""}, {"kind": "answer", "source": "", "key": "01.hann"}]
    begin = [{"step": "begin", "index": 0}, {"step": "slow", "index": 0}, {"step": "begin", "index": 1}]
    verdict = {"step": "verdict", "key": "01.hann", "state": "right", "words": "", "mistake": ""}
    answers = iter([(begin, True), ([begin[2], verdict, {"step": "done"}], False)])
    jobs = []
    monkeypatch.setattr(grading, "_process", lambda job, seconds: jobs.append(job) or next(answers))
    assert grading._mark_cells(cells, False, Limits(), [1])["01.hann"]["state"] == "right"
    assert [job["skip_cells"] for job in jobs] == [[], [0]]


def test_definitions_leave_out_what_a_cell_computes():
    source = "import os\nx = 1 / 0\n\n\n@cached\ndef f(a):\n    return a\n\n\nclass B:\n    pass"
    kept = marking.definitions(source)
    assert "1 / 0" not in kept and all(part in kept for part in ("import os", "@cached\ndef f", "class B"))
    assert marking.definitions("%timeit 1") == ""


def test_the_instructors_version_has_the_hidden_tests_and_the_students_has_not():
    pytest.importorskip("nbgrader")
    course = _course_notebook()
    code = "\n".join(cell.source for cell in versions.instructor(course).cells)
    assert code.count(versions.BEGIN_TEST) == code.count("teach.mark(") == 2
    assert "teach.mark('01.hann', hann)" in code
    assert "teach.mark" not in "\n".join(cell.source for cell in versions.student(course).cells)
    exercises.mark("01.heard_hz", 3000)
    with pytest.raises(exercises.NotRight, match="01.heard_hz"):
        exercises.mark("01.heard_hz", 5000)


def test_bad_input_is_named(tmp_path):
    with pytest.raises(DataError, match="no notebooks"):
        grading.find_hand_ins(tmp_path)
    with pytest.raises(InputError, match="positive"):
        grading.grade(tmp_path, {}, tmp_path, Limits(seconds=0), [1])
    with pytest.raises(AvkitError, match="did not start"):
        grading.mark(_course_notebook(), _course_notebook(), Limits(memory_gb=0.01), [1])


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_notebook_of_the_course(repository, tmp_path):
    """As it is, 0 %; with its solutions, 100 %."""
    for path in notebooks.list_notebooks(repository / "notebooks"):
        notebooks.write(notebooks.read(path), tmp_path / "in" / "stub" / path.name)
        notebooks.write(notebooks.solved(notebooks.read(path)), tmp_path / "in" / "solved" / path.name)
    sources = {path.stem[:2]: path for path in notebooks.list_notebooks(repository / "notebooks")}
    for row in grading.grade(tmp_path / "in", sources, tmp_path / "out", Limits(), exercises.HIDDEN_SEEDS):
        assert row.percent == (100 if row.student == "solved" else 0), row
