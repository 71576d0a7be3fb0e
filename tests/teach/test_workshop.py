"""The workshop kit: plans that add up and name what exists, notebooks that can be handed out, a room's reports."""

from __future__ import annotations

import importlib
import json
import re

import pytest

import avkit
from avkit import doctor
from avkit.errors import DataError, InputError
from avkit.teach import notebooks, versions, workshop
from avkit.teach.course import main

HOURS = sorted(workshop.PLANS)


@pytest.fixture
def paths(repository):
    return {path.stem[:2]: path for path in notebooks.list_notebooks(repository / "notebooks")}


@pytest.mark.parametrize("hours", HOURS)
def test_minutes_add_up_and_nobody_sits_too_long(hours):
    slots = workshop.PLANS[hours]
    assert sum(slot.minutes for slot in slots) == 60 * hours
    sitting = 0
    for slot in slots:
        sitting = 0 if slot.what in ("Break", "Lunch") else sitting + slot.minutes
        assert sitting <= 100


@pytest.mark.parametrize("hours", HOURS)
def test_sections_and_exercises_exist_and_go_together(hours, paths):
    for slot in workshop.PLANS[hours]:
        if not slot.notebook:
            continue
        assert set(slot.sections) <= set(workshop.sections(paths[slot.notebook])) and slot.sections
        lesson = importlib.import_module(f"avkit.teach.lesson{slot.notebook}")
        assert set(slot.exercises) <= set(lesson.EXERCISES)
        for exercise in slot.exercises:
            assert _section_of(f"{slot.notebook}.{exercise}", paths[slot.notebook]) in slot.sections


def _section_of(key, path):
    source, section = notebooks.read(path), 0
    (place,) = (found.stub for found in notebooks.exercises(source) if found.key == key)
    for cell in source.cells[:place]:
        for number in re.findall(r"^## (\d+) ", cell.source if cell.cell_type == "markdown" else "", re.MULTILINE):
            section = int(number)
    return section


def test_the_plan_says_when_and_what(paths):
    text = workshop.plan(3, paths, "13:30")
    rows = [line for line in text.splitlines() if re.match(r"\| \d\d:\d\d", line)]
    assert rows[0].startswith("| 13:30 | 10 |") and rows[-1].startswith("| 16:30 |")
    assert any("4 Windows" in row and "`hann`" in row and "(not: 1, 2, 7, 8, 9)" in row for row in rows)
    assert "CC BY 4.0" in text


def test_the_kit_is_complete(tmp_path, repository, capsys):
    pytest.importorskip("nbgrader")
    assert main(["workshop", str(tmp_path / "kit"), "--hours", "6", "--notebooks", str(repository / "notebooks")]) == 0
    assert "begin with README.md" in capsys.readouterr().out
    kit = tmp_path / "kit"
    names = {path.name for path in (repository / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    assert {path.name for path in (kit / "student").iterdir()} == names
    assert {path.name for path in (kit / "instructor").iterdir()} == names
    for name in ("README.md", "plan.md", "before.md", "notes.md"):
        assert "CC BY 4.0" in (kit / name).read_text()
    notes = (kit / "notes.md").read_text()
    for slot in workshop.PLANS[6]:
        assert not slot.notebook or versions.notes(slot.notebook) in notes
    made = notebooks.read(kit / "student" / "01_sound_to_spectrogram.ipynb")
    code = "\n".join(cell.source for cell in made.cells)
    assert "<summary>Solution" not in code and "teach.mark" not in code and not any(c.get("outputs") for c in made.cells)
    solved = notebooks.read(kit / "instructor" / "01_sound_to_spectrogram.ipynb")
    assert versions.BEGIN in "\n".join(cell.source for cell in solved.cells)
    assert notebooks.tags(solved.cells[1]) == ["instructor"]
    for link in re.findall(r"\]\(([^)h][^)]*)\)", (kit / "plan.md").read_text()):
        assert (kit / link).is_file()


def test_bad_input_is_named(paths, tmp_path):
    with pytest.raises(InputError, match="3, 6 hours"):
        workshop.write_kit(4, tmp_path, tmp_path)
    with pytest.raises(InputError, match="09:00"):
        workshop.plan(3, paths, "25:00")
    with pytest.raises(DataError, match="needs notebook 06"):
        workshop.plan(3, {number: path for number, path in paths.items() if number != "06"})
    with pytest.raises(DataError, match="avkit doctor --report"):
        workshop.read_reports(tmp_path)


# ------------------------------------------------------------------------------------------------- the room
def _report(folder, name, **changes):
    works = {"name": "PyTorch", "state": "works", "detail": "2", "needed": True, "remedy": ""}
    report = {
        "avkit": avkit.__version__,
        "ready": True,
        "findings": [works],
        "machine": {"system": "Linux", "cores": 4, "memory_gb": 8.2, "disk_free_gb": 50.0},
        "separation": {"seconds": 0.31, "error": ""},
    }
    (folder / f"{name}.json").write_text(json.dumps(report | changes))


def _missing(name, remedy, needed=False):
    return {"name": name, "state": "missing", "detail": "not there", "needed": needed, "remedy": remedy}


def test_the_room_says_who_is_ready_and_what_mends_the_rest(tmp_path, repository, capsys):
    _report(tmp_path, "ada")
    _report(tmp_path, "bo", findings=[_missing("video", "pip install av"), _missing("PESQ", "apt install gcc")])
    _report(tmp_path, "cy", avkit="0.0.1")
    _report(tmp_path, "di", separation={"seconds": None, "error": "RuntimeError: no"})
    (tmp_path / "ed.json").write_text("[]")
    arguments = ["room", str(tmp_path), "--notebooks", str(repository / "notebooks")]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    line = {name: next(row for row in printed.splitlines() if row.startswith(name)) for name in ("ada", "bo", "cy", "di", "ed")}
    assert line["ada"].endswith("ready") and "8 GB" in line["ada"] and "0.3 s" in line["ada"]
    assert line["bo"].endswith("video: pip install av"), "PESQ is not needed in a workshop"
    assert "0.0.1 instead of" in line["cy"] and "RuntimeError: no" in line["di"] and "not a report" in line["ed"]
    assert printed.rstrip().endswith("1 of 5 laptops are ready.")
    assert printed.index("bo ") < printed.index("ada "), "those who need help come first"
    for name in ("bo", "cy", "di", "ed"):
        (tmp_path / f"{name}.json").unlink()
    assert main(arguments) == 0


def test_doctors_own_report_is_read_as_ready(tmp_path, monkeypatch, capsys):
    """The parts that a workshop needs are findings of doctor, by these names; the report says nothing of its owner."""
    names = {finding.name for finding in doctor.examine()}
    assert set(workshop.NEEDED_PARTS) <= names
    works = [doctor.Finding(name, doctor.WORKS, "yes", True) for name in sorted(names)]
    monkeypatch.setattr(doctor, "examine", lambda: works)
    assert doctor.main(["--report", str(tmp_path / "ada.json")]) == 0
    (laptop,) = workshop.read_reports(tmp_path)
    assert (laptop.name, laptop.state) == ("ada", "ready") and laptop.separation.endswith(" s")
    report = json.loads((tmp_path / "ada.json").read_text())
    assert set(report) == {"avkit", "ready", "findings", "machine", "separation"}
    assert set(report["machine"]) == {"system", "cores", "memory_gb", "disk_free_gb"}
    with pytest.raises(DataError, match="name another file"):
        doctor.main(["--report", str(tmp_path / "nowhere" / "ada.json")])
