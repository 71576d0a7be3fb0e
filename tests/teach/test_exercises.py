"""Checks of answers: kind to stubs, exact about right ones, and in words about wrong ones; equal weights for blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from avkit.errors import InputError
from avkit.teach import exercises
from avkit.teach.exercises import RIGHT, UNSOLVED, WRONG, Exercise, Mistake, judge, letter, same_weights


def _double(x):
    return 2 * x


EXERCISE = Exercise(
    task="double a tensor",
    reference=_double,
    probe=lambda answer, draw: {
        "five numbers": answer(torch.randn(5, generator=draw)),
        "two": answer(torch.ones(2)),
    },
    mistakes=(Mistake("squared", lambda x: x * x, "this squares; doubling is adding a number to itself."),),
)


def test_right_answer():
    verdict = judge(EXERCISE, lambda x: x + x)
    assert verdict.status == RIGHT and "goes on with yours" in verdict.text


@pytest.mark.parametrize("answer", [None, lambda x: None])
def test_stub_is_told_kindly(answer):
    verdict = judge(EXERCISE, answer)
    assert verdict.status == UNSOLVED and verdict.text.startswith("Still to do: double a tensor")


def test_stub_of_a_function_with_two_results():
    def probe(answer, draw):
        first, second = answer(torch.ones(2))
        return {"the first": first, "the second": second}

    two = Exercise("return twins", lambda x: (x, x), probe)
    assert judge(two, lambda x: None).status == UNSOLVED
    assert judge(two, lambda x: (x, x)).status == RIGHT


def test_stub_that_raises_not_implemented():
    def answer(x):
        raise NotImplementedError

    assert judge(EXERCISE, answer).status == UNSOLVED


def test_what_pytorch_does_not_implement_is_wrong_and_not_a_stub():
    verdict = judge(EXERCISE, lambda x: torch.complex(x, x).clamp(0, 1))
    assert verdict.status == WRONG and "NotImplementedError: clamp is not supported for complex types" in verdict.text


def test_known_mistake_is_named():
    verdict = judge(EXERCISE, lambda x: x**2)
    assert (verdict.status, verdict.mistake) == (WRONG, "squared") and "this squares" in verdict.text


@pytest.mark.parametrize(
    "answer,words",
    [
        (lambda x: x[:1], r"For five numbers: the shape is \(1,\), it should be \(5,\)"),
        (lambda x: 3 * x, "100% of the entries differ"),
        (lambda x: x / 0, "NaN or infinite"),
        (lambda x: "text", "a str came back, it should be a torch.Tensor"),
        (lambda x: [2 * value for value in x], "a list came back"),
        (lambda x: (2 * x).double(), "float64, they should be torch.float32"),
        (lambda x: x.to(torch.complex64), "complex, they should be real"),
        (lambda x: x.nothing, "AttributeError: 'Tensor' object has no attribute 'nothing'"),
        (lambda x, y: x, "TypeError"),
    ],
)
def test_wrong_answers_in_words(answer, words):
    verdict = judge(EXERCISE, answer)
    assert verdict.status == WRONG
    assert pytest.importorskip("re").search(words, verdict.text), verdict.text


def test_one_wrong_result_of_two_is_enough():
    assert judge(EXERCISE, lambda x: 2 * x if len(x) == 5 else x).status == WRONG


@pytest.mark.parametrize(
    "answer,words",
    [
        (lambda x: -2 * x, "the negative of the one wanted"),
        (lambda x: 4 * x, "twice the one wanted"),
        (lambda x: x, "half of the one wanted"),
    ],
)
def test_a_simple_relation_to_the_right_answer_is_told(answer, words):
    assert words in judge(EXERCISE, answer).text


def test_known_mistake_that_stops_is_named_too():
    rows = Exercise(
        "add up the rows",
        lambda x: x.sum(1),
        lambda answer, draw: {"two rows": answer(torch.randn(2, 3, generator=draw))},
        (Mistake("axis", lambda x: x.sum(2), "there is no axis 2: rows are added along axis 1."),),
    )
    verdict = judge(rows, lambda x: x.sum(2) / 1)
    assert (verdict.status, verdict.mistake) == (WRONG, "axis") and "no axis 2" in verdict.text
    assert judge(rows, lambda x: x.nothing).mistake == "stopped"


def test_predictions_of_the_wrong_kind_are_told_what_is_asked_for():
    number = Exercise("predict a number", 5, lambda answer, draw: {"the number": float(answer)})
    assert "one number is asked for; got [3, 4]" in judge(number, [3, 4]).text
    assert judge(number, "five").status == WRONG and judge(number, "5").status == RIGHT
    assert "7 is too high" in judge(number, 7).text and "-1 is too low" in judge(number, -1).text
    predict = Exercise("predict", "b", lambda answer, draw: {"it": letter(answer)})
    assert "the letter alone" in judge(predict, "about 40 dB").text
    assert judge(predict, "a").text.count("letter") == 0
    assert all(judge(predict, written).status == RIGHT for written in ("b", "B", "(b)", "b.", " b "))


def test_check_gives_back_what_to_go_on_with(monkeypatch, capsys):
    monkeypatch.setattr(exercises, "find", lambda key: EXERCISE)

    def right(x):
        return 2 * x

    assert exercises.check("00.double", right) is right
    assert exercises.check("00.double", lambda x: x) is _double
    assert exercises.check("00.double", None) is _double


def test_marking_raises(monkeypatch):
    monkeypatch.setattr(exercises, "find", lambda key: EXERCISE)
    monkeypatch.setenv(exercises.STRICT, "1")
    with pytest.raises(exercises.NotRight, match="this squares"):
        exercises.check("00.double", lambda x: x**2)
    exercises.check("00.double", _double)


@pytest.mark.parametrize("key,words", [("77.x", "no lesson '77'"), ("01.nothing", "no exercise 'nothing'")])
def test_unknown_exercise(key, words):
    with pytest.raises(InputError, match=words):
        exercises.find(key)


class Block(nn.Module):
    """A convolution, a norm, a gate and an activation with one parameter."""

    def __init__(self, gated: bool = True, scaled: bool = True):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.GroupNorm(1, 3)
        self.act, self.gate = nn.PReLU(), nn.Parameter(torch.ones(3, 1, 1))
        self.gated, self.scaled = gated, scaled

    def forward(self, x):
        y = self.conv(x)
        y = self.norm(y) if self.scaled else nn.functional.group_norm(y, 1)
        return self.act(y) * self.gate if self.gated else self.act(y)


def test_same_weights_make_equal_blocks_equal():
    mine, reference = Block(), Block()
    same_weights(mine, reference)
    x = torch.randn(2, 3, 7, 11)
    torch.testing.assert_close(mine(x), reference(x))
    assert not mine.training and not reference.training


@pytest.mark.parametrize("fault", [{"gated": False}, {"scaled": False}])
def test_same_weights_show_what_defaults_hide(fault):
    """With fresh modules a forgotten gate or norm gain changes nothing; after same_weights it does."""
    mine, reference = Block(**fault), Block()
    mine.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 7, 11)
    torch.testing.assert_close(mine(x), reference(x))
    same_weights(mine, reference)
    assert not torch.allclose(mine(x), reference(x), atol=1e-2)


def test_same_weights_match_by_order_when_names_differ():
    mine = nn.Sequential(nn.Conv1d(4, 6, 1), nn.BatchNorm1d(6))
    reference = nn.ModuleDict({"project": nn.Conv1d(4, 6, 1), "norm": nn.BatchNorm1d(6)})
    same_weights(mine, reference)
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(mine(x), reference["norm"](reference["project"](x)))
    assert not torch.allclose(mine[1].running_mean, torch.zeros(6)) and (mine[1].running_var > 0).all()


def test_same_weights_refuse_another_network():
    with pytest.raises(InputError, match="lacks some, beginning with bias"):
        same_weights(nn.Sequential(nn.Conv1d(4, 6, 1, bias=False)), nn.Conv1d(4, 6, 1))
    with pytest.raises(InputError, match=r"\(6, 4, 3\)"):
        same_weights(nn.Sequential(nn.Conv1d(4, 6, 3)), nn.Conv1d(4, 6, 1))
