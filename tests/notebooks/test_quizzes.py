"""Five quick questions before and after each part of the course, shown where they belong."""

from __future__ import annotations

import importlib
import re

import pytest

from avkit.teach import notebooks, quizzes

_SHOWN = re.compile(r"^teach\.quiz\(lesson\.(\w+)(?:\[\"(\w+)\"\])?\)", re.MULTILINE)


def _shown(path):
    """(position, questions) of each quiz of a notebook; position 0 is its first cell, 1 its last."""
    stored, lesson = notebooks.read(path), importlib.import_module(f"avkit.teach.lesson{path.stem[:2]}")
    for index, cell in enumerate(stored.cells):
        for name, key in _SHOWN.findall(cell.source):
            questions = getattr(lesson, name)
            yield index / len(stored.cells), questions[key] if key else questions


@pytest.mark.parametrize("part", quizzes.PARTS)
def test_each_part_begins_and_ends_with_five_questions(part, repository):
    """A part that is not whole yet is looked at as far as it goes."""
    every = notebooks.list_notebooks(repository / "notebooks")
    paths = [path for path in every if path.stem[:2] in quizzes.PARTS[part]]
    found = {path.stem[:2]: list(_shown(path)) for path in paths}
    for _, questions in (quiz for group in found.values() for quiz in group):
        quizzes.check_questions(questions)
        assert len(questions) == 5
    if set(found) == set(quizzes.PARTS[part]):
        *before, last = quizzes.PARTS[part]
        assert any(found[number] for number in before), "no questions before the last notebook"
        assert any(place > 0.8 for place, _ in found[last]), "no questions at the end of the last notebook"


def test_right_answers_stand_at_several_places(path):
    """Who always picks the same letter learns nothing, and should not score five of five."""
    for _, questions in _shown(path):
        places = {next(i for i, answer in enumerate(q["answers"]) if answer["correct"]) for q in questions}
        assert len(questions) < 4 or len(places) > 1, [q["question"] for q in questions]


def test_the_parts_are_the_whole_course(repository):
    numbers = [number for part in quizzes.PARTS.values() for number in part]
    assert numbers == [f"{number:02d}" for number in range(15)]
    assert {path.stem[:2] for path in notebooks.list_notebooks(repository / "notebooks")} <= set(numbers)
