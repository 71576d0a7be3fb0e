"""The map of the course fits the notebooks: nothing in it is typed, and what the command wrote is what it would write."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from matplotlib.textpath import TextPath

from avkit.errors import DataError
from avkit.teach import course_map, notebooks, workshop

HEAD = """# {number} · {title}

**The question.** What?

**Time** {reading} minutes of reading, {exercises} of exercises. **Needs** {needs}. Nothing is downloaded.
"""


def write(folder: Path, number: str, needs: str, title: str = "A title", reading: int = 40, exercises: int = 25) -> Path:
    head = HEAD.format(number=number, title=title, needs=needs, reading=reading, exercises=exercises)
    path = folder / f"{number}_name.ipynb"
    notebooks.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(head)]), path)
    return path


def test_what_is_stored_fits_the_notebooks(repository):
    for path, text in course_map.files(repository / "notebooks").items():
        assert path.read_text(encoding="utf-8") == text, f"out of date: {course_map.COMMAND}"


def test_needs_are_read_from_links_numbers_and_ranges(tmp_path):
    write(tmp_path, "00", "a quiet room, 20 minutes")
    write(tmp_path, "01", "[notebook 00](00_name.ipynb): the sound of it")
    write(tmp_path, "02", "notebooks 00 and 01, and 16 kHz")
    write(tmp_path, "03", "notebooks [00](00_name.ipynb) to [02](02_name.ipynb), and see 07")
    found = course_map.read_course(tmp_path)
    assert [entry.needs for entry in found] == [(), ("00",), ("00", "01"), ("00", "01", "02")]
    assert [(entry.reading, entry.exercises, entry.minutes) for entry in found] == [(40, 25, 65)] * 4
    assert course_map.direct_needs(found) == {"00": (), "01": ("00",), "02": ("01",), "03": ("02",)}


def test_a_need_beside_the_chain_keeps_its_arrow(tmp_path):
    for number, needs in (("00", "nothing"), ("01", "nothing"), ("02", "notebook 00"), ("03", "notebooks 00, 01 and 02")):
        write(tmp_path, number, needs)
    assert course_map.direct_needs(course_map.read_course(tmp_path))["03"] == ("01", "02")


def test_a_notebook_without_minutes_is_named(tmp_path):
    path = write(tmp_path, "00", "nothing")
    broken = notebooks.read(path)
    broken.cells[0].source = broken.cells[0].source.replace("**Time**", "Time")
    notebooks.write(broken, path)
    with pytest.raises(DataError, match=r"00_name.ipynb.*\*\*Time\*\*"):
        course_map.read_course(tmp_path)


def test_the_picture_shows_each_notebook_and_each_arrow(repository):
    entries = course_map.read_course(repository / "notebooks")
    drawn = ElementTree.fromstring(course_map.picture(entries))
    space = "{http://www.w3.org/2000/svg}"
    assert [link.get("href") for link in drawn.iter(f"{space}a")] == [entry.file for entry in entries]
    arrows = [path for path in drawn.iter(f"{space}path") if path.get("marker-end")]
    assert len(arrows) == sum(map(len, course_map.direct_needs(entries).values()))
    assert len(drawn.find(f"{space}desc").text) > 100
    widths = {float(box.get("width")) for box in drawn.iter(f"{space}rect")}
    assert max(widths) == float(drawn.get("width"))


def test_each_line_of_a_box_ends_inside_it(repository):
    """Measured in DejaVu Sans, which is wider than most."""
    drawn = ElementTree.fromstring(course_map.picture(course_map.read_course(repository / "notebooks")))
    space = "{http://www.w3.org/2000/svg}"
    for link in drawn.iter(f"{space}a"):
        box = link.find(f"{space}rect")
        right = float(box.get("x")) + float(box.get("width"))
        for line in link.iter(f"{space}text"):
            words, size = "".join(line.itertext()), float(line.get("font-size"))
            end = float(line.get("x")) + TextPath((0, 0), words, size=size).get_extents().x1
            assert end < right, words


def test_the_page_adds_up(repository):
    entries = course_map.read_course(repository / "notebooks")
    text = course_map.page(entries)
    rows = re.findall(r"^\| \[(\d\d)\]\(\S+\) \|[^|]+\| (\d+) \| (\d+) \|", text, re.MULTILINE)
    assert [row[0] for row in rows] == [entry.number for entry in entries]
    reading, exercises = (sum(int(row[column]) for row in rows) for column in (1, 2))
    assert f"| together | {reading} | {exercises} |" in text
    for link in re.findall(r"\]\(([^)]+\.ipynb)\)", text):
        assert (repository / "notebooks" / link).is_file(), link
    for hours, plan in workshop.PLANS.items():
        minutes = sum(slot.minutes for slot in plan if slot.notebook)
        assert minutes <= 60 * hours and course_map.hours(minutes) in text
    alt = re.search(r"!\[([^\]]+)\]\(course-map.svg\)", text)
    assert alt and alt[1] == course_map.describe(entries)


def test_the_command_writes_and_checks(tmp_path, capsys):
    write(tmp_path, "00", "nothing")
    arguments = ["--notebooks", str(tmp_path)]
    assert course_map.main([*arguments, "--check"]) == 1
    assert course_map.main(arguments) == 0
    assert course_map.main([*arguments, "--check"]) == 0
    write(tmp_path, "01", "notebook 00")
    assert course_map.main([*arguments, "--check"]) == 1
    assert "out of date" in capsys.readouterr().out
