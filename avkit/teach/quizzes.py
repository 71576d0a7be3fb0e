"""Quick questions, scored in the notebook.

Questions are written in jupyterquiz's format, so they can be shown by it too, for instance in a web book:
{"question": …, "type": "multiple_choice", "answers": [{"answer": …, "correct": bool, "feedback": …}, …]}.
Where no kernel runs, the questions stand as text, each with its answer folded away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from avkit.errors import InputError, MissingPackageError
from avkit.teach.display import Html

# The parts of the course by their notebooks' numbers; each has five questions at its beginning and five at its end.
PARTS = {
    "Sound and sight": ("00", "01", "02", "03"),
    "RTFS-Net, block by block": ("04", "05", "06", "07", "08"),
    "IIANet": ("09", "10"),
    "At work": ("11", "12", "13", "14"),
}
Question = Mapping[str, Any]
_LETTERS = "abcdefgh"


def multiple_choice(text: str, *answers: tuple[str, bool, str]) -> dict[str, Any]:
    """A question; each answer with whether it is right, and feedback that says why."""
    made = [{"answer": answer, "correct": correct, "feedback": why} for answer, correct, why in answers]
    return {"question": text, "type": "multiple_choice", "answers": made}


def check_questions(questions: Sequence[Question]) -> None:
    """Raises InputError unless every question has text, two answers or more, one right one, and feedback for each."""
    for number, question in enumerate(questions, 1):
        answers = question.get("answers", [])
        if question.get("type") != "multiple_choice" or not question.get("question"):
            raise InputError(f"question {number} needs a text and the type 'multiple_choice'")
        if len(answers) < 2 or sum(bool(answer["correct"]) for answer in answers) != 1:
            raise InputError(f"question {number} needs two answers or more, exactly one of them correct")
        if any(not answer.get("feedback") for answer in answers):
            raise InputError(
                f"question {number}: every answer needs feedback that says why it is right or wrong"
            )


def score(questions: Sequence[Question], chosen: Sequence[int | None]) -> tuple[int, list[str]]:
    """Number of right choices, and a sentence for each question.

    Args:
        chosen: index of the chosen answer of each question, or None.
    """
    if len(chosen) != len(questions):
        raise InputError(f"{len(questions)} questions, but {len(chosen)} choices")
    right, words = 0, []
    for question, choice in zip(questions, chosen, strict=True):
        if choice is None:
            words.append("")
            continue
        answer = question["answers"][choice]
        right += bool(answer["correct"])
        words.append(("Right. " if answer["correct"] else "No. ") + answer["feedback"])
    return right, words


def render(questions: Sequence[Question]) -> Html:
    """The questions as text with lettered answers; the right one, and why, is folded away."""
    check_questions(questions)
    html, text = [], []
    for number, question in enumerate(questions, 1):
        answers = question["answers"]
        items = "".join(f"<li>{escape(answer['answer'])}</li>" for answer in answers)
        index = next(i for i, answer in enumerate(answers) if answer["correct"])
        solution = f"{_LETTERS[index]}: {answers[index]['feedback']}"
        html.append(
            f'<p><b>{number}.</b> {escape(question["question"])}</p><ol type="a">{items}</ol>'
            f"<details><summary>Answer</summary>{escape(solution)}</details>"
        )
        text.append(f"{number}. {question['question']}")
    return Html(f'<div class="avkit-quiz">{"".join(html)}</div>', "\n".join(text))


class Quiz:
    """The questions as radio buttons, each with its feedback, and the running score (ipywidgets)."""

    def __init__(self, questions: Sequence[Question]):
        try:
            import ipywidgets
        except ImportError as error:
            raise MissingPackageError(
                "quizzes need ipywidgets; install it with: pip install ipywidgets"
            ) from error
        check_questions(questions)
        self.questions = questions
        self.choices, self.feedback, rows = [], [], []
        for number, question in enumerate(questions, 1):
            options = [(f"{_LETTERS[i]}  {a['answer']}", i) for i, a in enumerate(question["answers"])]
            layout = {"width": "auto"}
            choice = ipywidgets.RadioButtons(options=options, value=None, layout=layout)
            words = ipywidgets.HTML()
            choice.observe(self._update, names="value")
            self.choices.append(choice)
            self.feedback.append(words)
            title = ipywidgets.HTML(f"<b>{number}.</b> {escape(question['question'])}")
            rows += [title, choice, words]
        self.total = ipywidgets.HTML()
        self.box = ipywidgets.VBox([*rows, self.total])
        self._update(None)

    def _update(self, _change) -> None:
        chosen = [choice.value for choice in self.choices]
        right, words = score(self.questions, chosen)
        for place, sentence in zip(self.feedback, words, strict=True):
            place.value = f"<em>{escape(sentence)}</em>"
        done = sum(choice is not None for choice in chosen)
        self.total.value = f"<b>{right} right of {done} answered, {len(self.questions)} questions in all.</b>"


def quiz(questions: Sequence[Question]) -> None:
    """Display quick questions: scored as they are answered, or plain text where no kernel runs."""
    from IPython.display import display

    bundle = Quiz(questions).box._repr_mimebundle_()
    static = render(questions)
    display({**bundle, "text/html": static.html, "text/plain": static.text}, raw=True)
