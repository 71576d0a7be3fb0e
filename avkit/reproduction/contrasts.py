"""The six small ablations as data: what is compared with what, and the sign that was expected before any run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from avkit.errors import InputError


@dataclass(frozen=True)
class Variant:
    """A network with one change, "field=value" as in `ledger.yaml`, or none ("")."""

    network: str
    change: str

    @property
    def name(self) -> str:
        """Also the name of its folder of runs."""
        return f"{self.network}.{self.change.replace('=', '-')}" if self.change else self.network


@dataclass(frozen=True)
class Contrast:
    """Two variants of one network, and what is expected of their difference.

    Attributes:
        id: what `trend.ID` is called after.
        what: the first against the second, in words.
        first, second: the difference is first minus second.
        expected: "+" or "-", its sign as written down beforehand.
        paper: SI-SNRi of both in the paper, in dB (another data set, other sizes); None where it is not quoted here.
        why: the reason for the expectation.
    """

    id: str
    what: str
    first: Variant
    second: Variant
    expected: str
    paper: tuple[float, float] | None
    why: str


@dataclass(frozen=True)
class Scale:
    """How much each run learns from and is scored on: `steps` batches of 4 items of 1 s, `test_mixtures` mixtures."""

    seeds: tuple[int, ...]
    steps: int
    warmup: int
    test_mixtures: int


def _read() -> dict:
    return yaml.safe_load(Path(__file__).with_name("contrasts.yaml").read_text(encoding="utf-8"))


@cache
def contrasts() -> tuple[Contrast, ...]:
    """Every contrast, in the order in which the queue takes them."""
    return tuple(
        Contrast(
            entry["id"],
            entry["what"],
            Variant(entry["network"], entry["first"]),
            Variant(entry["network"], entry["second"]),
            entry["expected"],
            tuple(entry["paper"]) if entry["paper"] else None,
            entry["why"],
        )
        for entry in _read()["contrasts"]
    )


@cache
def planned() -> Scale:
    """The scale that the verdicts are for."""
    data = _read()
    return Scale(tuple(data["seeds"]), data["steps"], data["warmup"], data["test_mixtures"])


def find(name: str) -> Contrast:
    """The contrast of an id. Raises InputError, with the ids there are, where there is none."""
    for contrast in contrasts():
        if contrast.id == name:
            return contrast
    raise InputError(f"there is no contrast {name!r}; there are {', '.join(c.id for c in contrasts())}")


def train_argument(change: str) -> str:
    """A change as an argument of `avkit train`: a size of the network, or a block of `avkit.ablations`; "" for none."""
    if not change:
        return ""
    field, _, value = change.partition("=")
    sizes = ("levels", "repeats", "hidden", "channels", "window", "rnn_layers")
    return f"--model.{'overrides' if field in sizes else 'changes'}.{field} {value}"
