"""Each exercise's triple: the stub fails kindly, the solution passes, named wrong answers are refused by name."""

from __future__ import annotations

import importlib

import pytest

from avkit.teach import exercises, notebooks

LESSONS = sorted(
    {path.stem[6:] for path in (notebooks.Path(exercises.__file__).parent).glob("lesson[0-9][0-9].py")}
)
CASES = [
    (f"{number}.{name}", mistake)
    for number in LESSONS
    for name, exercise in importlib.import_module(f"avkit.teach.lesson{number}").EXERCISES.items()
    for mistake in exercise.mistakes
]


def _verdicts(stored, monkeypatch):
    """Run setup, stubs and checks only; the verdict of each exercise by key."""
    found = {}

    def check(key, answer, seed=0):
        found[key] = exercises.judge(exercises.find(key), answer, seed)
        return answer if found[key].status == exercises.RIGHT else exercises.find(key).reference

    monkeypatch.setattr("avkit.teach.check", check)
    names: dict = {"__name__": "__main__"}
    for cell in stored.cells:
        if {"setup", "exercise", "check"} & set(notebooks.tags(cell)):
            exec(compile(cell.source, "cell", "exec"), names)  # noqa: S102
    return found


def test_stub_fails_kindly(stored, monkeypatch):
    for key, verdict in _verdicts(stored, monkeypatch).items():
        assert verdict.status == exercises.UNSOLVED, (key, verdict)
        assert "goes on with avkit's" in verdict.text


@pytest.mark.parametrize("seed", [0, 7])
def test_solution_passes(stored, monkeypatch, seed):
    for key, verdict in _verdicts(notebooks.solved(stored), monkeypatch).items():
        assert verdict.status == exercises.RIGHT, (key, verdict)


@pytest.mark.parametrize("key,mistake", CASES, ids=[f"{key}: {mistake.name}" for key, mistake in CASES])
def test_named_mistake_is_refused_by_name(key, mistake):
    verdict = exercises.judge(exercises.find(key), mistake.answer, seed=3)
    assert verdict.status == exercises.WRONG
    assert verdict.mistake == mistake.name and mistake.hint in verdict.text
    assert len(mistake.hint) > 40


@pytest.mark.parametrize("number", LESSONS)
def test_each_exercise_names_at_least_one_mistake(number):
    lesson = importlib.import_module(f"avkit.teach.lesson{number}")
    assert all(exercise.mistakes for exercise in lesson.EXERCISES.values())
