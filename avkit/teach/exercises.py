"""Exercises: a reader's answer compared with the reference, then with each mistake that is known by name.

An exercise belongs to a notebook's lesson module (`avkit.teach.lesson01`, …) as `EXERCISES = {"name": Exercise(…)}`
and is checked in the notebook by `answer = teach.check("01.name", answer)`: the cell says in words what is right
or wrong and gives back what the notebook goes on with, the reader's answer if it is right and the reference if not.
"""

from __future__ import annotations

import functools
import importlib
import os
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avkit.errors import AvkitError, InputError
from avkit.teach.display import Html, note

STRICT = "AVKIT_STRICT"  # set for marking: an answer that is not right raises, so that its check cell fails
HIDDEN_SEEDS = (101, 102, 103)  # of the inputs that hidden checks draw; a reader's check draws with seed 0
RIGHT, UNSOLVED, WRONG = "right", "unsolved", "wrong"
_NOTHING = "nothing was returned"  # said of a stub
_LOOK = {RIGHT: ("#009E73", "Right."), UNSOLVED: ("#0072B2", "Still to do."), WRONG: ("#D55E00", "Not yet.")}

Results = Mapping[str, Any]  # "what was computed" -> tensor, array or number


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that readers give, and the sentence that names the misconception behind it."""

    name: str
    answer: Any
    hint: str


@dataclass(frozen=True)
class Exercise:
    """What a check needs to know.

    Args:
        task: what to do, in a few words ("cut a signal into frames").
        reference: a right answer, of the same kind as the reader's: function, class, module or value. The notebook
            goes on with it while the reader's is not right.
        probe: `probe(answer, draw)` uses an answer and returns named results to compare, {"what it is": tensor or
            number}; names read well after "for". `draw` is a seeded torch.Generator for inputs: use it, and at least
            two different sizes, so that no answer passes by accident.
        mistakes: wrong answers known by name.
        tolerance: largest accepted error, relative to the largest entry of the reference's result.
    """

    task: str
    reference: Any
    probe: Callable[[Any, torch.Generator], Results]
    mistakes: tuple[Mistake, ...] = ()
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Verdict:
    """`status` is "right", "unsolved" or "wrong"; `text` says why; `mistake` names the one recognised, if any."""

    status: str
    text: str
    mistake: str = ""

    def shown(self) -> Html:
        colour, _ = _LOOK[self.status]
        return note(self.text, colour, f"avkit-check avkit-check-{self.status}")


class NotRight(AvkitError, AssertionError):
    """Raised by `check` under marking, when an answer is not right."""


def letter(answer: Any) -> str:
    """The letter that an answer gives, however it is written: "c", "C", "(c)", "c."."""
    return str(answer).strip("() .").lower()


def find(key: str) -> Exercise:
    """The exercise of a key such as "01.frame_signal".

    Raises:
        InputError: there is no such notebook or no such exercise in it.
    """
    number, _, name = key.partition(".")
    try:
        lesson = importlib.import_module(f"avkit.teach.lesson{number}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"there is no lesson {number!r}; a key looks like '01.frame_signal'; got {key!r}"
        ) from error
    if name not in lesson.EXERCISES:
        raise InputError(f"lesson {number} has no exercise {name!r}; it has {', '.join(lesson.EXERCISES)}")
    return lesson.EXERCISES[name]


def check(key: str, answer: Any, seed: int = 0) -> Any:
    """Check an answer, say in words what is wrong with it, and return what the notebook goes on with.

    Args:
        key: lesson and exercise, "01.frame_signal".
        answer: the reader's function, class or value; a function that still returns None, or the value None,
            counts as not answered yet.
        seed: of the random inputs; another seed gives other inputs.

    Raises:
        NotRight: the answer is not right and the environment variable AVKIT_STRICT is set.
    """
    from IPython.display import display

    exercise = find(key)
    verdict = judge(exercise, answer, seed)
    display(verdict.shown())
    if verdict.status != RIGHT and os.environ.get(STRICT):
        raise NotRight(f"{key}: {verdict.text}")
    return answer if verdict.status == RIGHT else exercise.reference


def mark(key: str, answer: Any, seeds: Sequence[int] = HIDDEN_SEEDS) -> None:
    """A hidden check, as nbgrader runs it: silent for a right answer, else it raises and so fails its cell.

    Raises:
        NotRight: the answer is not right for one of the seeds; the message is what `check` would show.
    """
    verdict = judge_often(find(key), answer, seeds)
    if verdict.status != RIGHT:
        raise NotRight(f"{key}: {verdict.text}")


def judge_often(exercise: Exercise, answer: Any, seeds: Sequence[int]) -> Verdict:
    """The first verdict that is not "right" of those for several seeds, or the last one."""
    for seed in seeds:
        verdict = judge(exercise, answer, seed)
        if verdict.status != RIGHT:
            break
    return verdict


def judge(exercise: Exercise, answer: Any, seed: int = 0) -> Verdict:
    """Compare an answer with the reference and with every known mistake; see `Exercise`."""
    going_on = "The notebook goes on with avkit's version."
    wanted = _run(exercise, exercise.reference, seed)
    if answer is None:
        return Verdict(UNSOLVED, f"Still to do: {exercise.task}. {going_on}")
    try:
        given = _run(exercise, _watched(answer), seed)
    except Exception as error:  # noqa: BLE001 (a reader's code may raise anything)
        if isinstance(error, NotImplementedError) and error.args in ((), (_NOTHING,)):  # PyTorch's have other words
            return Verdict(UNSOLVED, f"Still to do: {exercise.task}. {going_on}")
        if isinstance(answer, str | list | tuple | dict) and isinstance(error, TypeError | ValueError):
            return Verdict(
                WRONG, f"Not yet: one number is asked for; got {answer!r}. {going_on}", "no number"
            )
        for mistake in exercise.mistakes:
            if _stops_alike(exercise, mistake, error, seed):
                return Verdict(WRONG, f"Not yet: {mistake.hint} {going_on}", mistake.name)
        return Verdict(WRONG, f"Not yet. Your code stopped with {_explain(error)} {going_on}", "stopped")
    if all(value is None for value in given.values()):
        return Verdict(UNSOLVED, f"Still to do: {exercise.task}. {going_on}")
    problem = _difference(given, wanted, exercise.tolerance)
    if problem is None:
        return Verdict(RIGHT, f"Right ({exercise.task}). The notebook goes on with yours.")
    for mistake in exercise.mistakes:
        if _same_as(exercise, mistake, given, seed):
            return Verdict(WRONG, f"Not yet: {mistake.hint} {going_on}", mistake.name)
    return Verdict(WRONG, f"Not yet. {problem} {going_on}")


def _watched(answer: Any) -> Any:
    """A function that says so when it returns None, as a stub does; anything else as it is."""
    if not isinstance(answer, types.FunctionType):
        return answer

    @functools.wraps(answer)
    def watched(*arguments, **named):
        result = answer(*arguments, **named)
        if result is None:
            raise NotImplementedError(_NOTHING)
        return result

    return watched


def _run(exercise: Exercise, answer: Any, seed: int) -> dict[str, Any]:
    with torch.no_grad():
        return dict(exercise.probe(answer, torch.Generator().manual_seed(seed)))


def _same_as(exercise: Exercise, mistake: Mistake, given: Results, seed: int) -> bool:
    try:
        return _difference(given, _run(exercise, mistake.answer, seed), exercise.tolerance) is None
    except Exception:  # noqa: BLE001 (a mistake may be one that stops; then it is not this answer, which ran)
        return False


def _stops_alike(exercise: Exercise, mistake: Mistake, error: Exception, seed: int) -> bool:
    """Whether a known mistake stops with the same error as an answer that stopped."""
    try:
        _run(exercise, mistake.answer, seed)
    except Exception as known:  # noqa: BLE001 (a mistake may raise anything)
        return type(known) is type(error) and str(known) == str(error)
    return False


def _explain(error: Exception) -> str:
    """The exception in one sentence, with the line of the reader's code it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "ipykernel" in frame.filename]
    where = f", at the line `{frames[-1].line}`" if frames and frames[-1].line else ""
    return f"{type(error).__name__}: {error}{where}."


def _difference(given: Results, wanted: Results, tolerance: float) -> str | None:
    """None when all results agree, else the first disagreement in words."""
    for name, target in wanted.items():
        problem = _disagreement(given[name], target, tolerance)
        if problem is not None:
            return f"For {name}: {problem}"
    return None


def _disagreement(given: Any, target: Any, tolerance: float) -> str | None:
    if isinstance(target, str | bool):
        if isinstance(target, str) and len(target) == 1 and not (len(str(given)) == 1 and str(given).isalpha()):
            return f"answer with the letter alone, in quotes; got {given!r}."
        return None if given == target and type(given) is type(target) else f"{given!r} is not the answer."
    if isinstance(target, Tensor) and not isinstance(given, Tensor):
        return f"a {type(given).__name__} came back, it should be a torch.Tensor."
    try:
        mine = given.detach() if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
        target = target if isinstance(target, Tensor) else torch.as_tensor(np.asarray(target))
    except (TypeError, ValueError, RuntimeError):
        return f"expected numbers, got {type(given).__name__}."
    if mine.shape != target.shape:
        return f"the shape is {tuple(mine.shape)}, it should be {tuple(target.shape)}."
    if mine.is_complex() != target.is_complex():
        kinds = {True: "complex", False: "real"}
        return f"the numbers are {kinds[mine.is_complex()]}, they should be {kinds[target.is_complex()]}."
    if isinstance(given, Tensor) and given.dtype != target.dtype:
        return f"the numbers are of type {given.dtype}, they should be {target.dtype}."
    wide = torch.complex128 if target.is_complex() else torch.float64
    mine, target = mine.to(wide), target.to(wide)
    if not torch.isfinite(torch.view_as_real(mine) if mine.is_complex() else mine).all():
        return "the result holds NaN or infinite numbers."
    if mine.numel() == 0:
        return None
    error, scale = (mine - target).abs(), max(float(target.abs().max()), 1e-12)
    if float(error.max()) <= tolerance * scale:
        return None
    if mine.numel() == 1:
        if mine.is_complex():
            return f"{mine.item():.6g} is not the value wanted."
        return f"{mine.item():.6g} is too {'high' if mine.item() > target.item() else 'low'}."
    for relation, kin in (("the negative of", -target), ("twice", 2 * target), ("half of", target / 2)):
        if float((mine - kin).abs().max()) <= tolerance * scale:
            return f"each entry is {relation} the one wanted."
    share = float((error > tolerance * scale).double().mean())
    return (
        f"the shape {tuple(mine.shape)} is right, but {share:.0%} of the entries differ, by up to "
        f"{float(error.max()):.3g} where the largest should be {scale:.3g}."
    )


def same_weights(mine: torch.nn.Module, reference: torch.nn.Module, seed: int = 0) -> None:
    """Fill two modules with the same perturbed weights, norms and gates too, and put both in eval mode.

    Defaults hide mistakes (a norm's gain of 1 and bias of 0 never show that they were left out), so every parameter
    and running statistic of `reference` is moved away from its default first. Entries are matched by name where the
    names of both are the same, otherwise by their order; shapes may differ by axes of length 1.

    Raises:
        InputError: the two do not have the same entries; the message names the first that differs.
    """
    draw = torch.Generator().manual_seed(seed)
    theirs, yours = _entries(reference), _entries(mine)
    if set(theirs) != set(yours):
        _refuse_unlike(list(yours.items()), list(theirs.items()))
        yours = dict(zip(theirs, yours.values(), strict=True))
    with torch.no_grad():
        for name, their in theirs.items():
            your = yours[name]
            if _core(your) != _core(their):
                raise InputError(
                    f"{name}: yours has shape {tuple(your.shape)}, avkit's has {tuple(their.shape)}"
                )
            spread = float(their.std()) if their.numel() > 1 and float(their.std()) > 0 else 1.0
            their.add_(0.3 * spread * torch.randn(their.shape, generator=draw))
            if name.endswith("running_var"):
                their.abs_().add_(0.1)
            your.copy_(their.reshape(your.shape))
    mine.eval()
    reference.eval()


def _entries(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and running statistics by name; constants and counters are left alone."""
    buffers = {
        name: value
        for name, value in module.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    }
    return {**dict(module.named_parameters()), **buffers}


def _core(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


def _refuse_unlike(yours: list[tuple[str, Tensor]], theirs: list[tuple[str, Tensor]]) -> None:
    for (your_name, your), (their_name, their) in zip(yours, theirs):
        if _core(your) != _core(their):
            raise InputError(
                f"your {your_name} has shape {tuple(your.shape)} where avkit's block has {their_name} with "
                f"{tuple(their.shape)}; create your layers in the same order and sizes"
            )
    if len(yours) != len(theirs):
        extra = (yours if len(yours) > len(theirs) else theirs)[min(len(yours), len(theirs)) :]
        whose = "your block has more" if len(yours) > len(theirs) else "your block lacks some"
        raise InputError(
            f"your block has {len(yours)} weights, avkit's has {len(theirs)}: {whose}, beginning with "
            f"{extra[0][0]} of shape {tuple(extra[0][1].shape)}"
        )
