"""Diagrams of boxes and arrows, drawn by matplotlib: blocks that can be lit up, shapes on the arrows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

from avkit.errors import InputError
from avkit.teach.display import Html
from avkit.teach.plots import YELLOW, picture

# Fill and edge of a pale box, by what flows through it. A lit box is yellow with a thick black edge, in bold: it stands
# out by brightness, line and weight, not by hue alone.
TINTS = {"sound": ("#E8F1F8", "#7C9CB5"), "lips": ("#FBEEDB", "#B79A6B"), "both": ("#EAF4EC", "#82A68B")}
LIT_FILL, LIT_EDGE = YELLOW, "#000000"
INK, PALE_INK, LINE = "#222222", "#555555", "#666666"
FAINT, FAINT_INK = "#CCCCCC", "#8A8A8A"  # what takes no part
UNITS_PER_INCH = 10.0
TITLE_SIZE, NOTE_SIZE, LABEL_SIZE = 11.5, 9.5, 9.5


def lit_names(lit: str | Iterable[str], known: Sequence[str], figure: str) -> tuple[str, ...]:
    """The names to highlight, in the order of the figure.

    Raises:
        InputError: a name that the figure does not have; the message lists those that it has.
    """
    asked = (lit,) if isinstance(lit, str) else tuple(lit)
    unknown = [str(name) for name in asked if name not in known]
    if unknown:
        raise InputError(
            f"{figure} has no block named {', '.join(unknown)}; its blocks are {', '.join(known)}"
        )
    return tuple(name for name in known if name in asked)


@dataclass(frozen=True)
class Box:
    """Where a box lies: its centre, width and height in drawing units (a tenth of an inch)."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x, self.y - self.height / 2


class Diagram:
    """A sheet of `width` × `height` units, ten to the inch, to put boxes, operators and arrows on.

    Args:
        lit: names of the boxes to highlight; the others are drawn pale.
    """

    def __init__(self, width: float, height: float, lit: Sequence[str] = ()):
        self.figure = Figure(figsize=(width / UNITS_PER_INCH, height / UNITS_PER_INCH), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
        self.axes.axis("off")
        self.lit = tuple(lit)
        self.faint: set[str] = set()
        self.boxes: dict[str, FancyBboxPatch] = {}  # patches by name, a repeated block as "name#2"
        self.labels: list = []  # texts on the sheet, outside boxes
        self.inside: list = []  # (text, patch) of what stands in a box

    def fade(self, names: Iterable[str]) -> None:
        """From now on draw these boxes faint, for what takes no part."""
        self.faint |= set(names)

    def is_faint(self, name: str) -> bool:
        """Whether a box is drawn faint: it was faded, and is not lit."""
        return name in self.faint and name not in self.lit

    def box(
        self,
        name: str,
        at: tuple[float, float],
        size: tuple[float, float],
        title: str,
        note: str = "",
        flow: str = "sound",
        lit: bool | None = None,
    ) -> Box:
        """A block, centred at `at`: a title and, smaller, a note below it. `flow` (sound, lips, both) picks the tint.

        It is lit where its name is among the sheet's lit ones, or as `lit` says.
        """
        box = Box(*at, *size)
        bright = name.partition("#")[0] in self.lit if lit is None else lit
        faint = self.is_faint(name.partition("#")[0]) and not bright
        fill, edge = (LIT_FILL, LIT_EDGE) if bright else ("#FFFFFF", FAINT) if faint else TINTS[flow]
        patch = FancyBboxPatch(
            (box.x - box.width / 2, box.y - box.height / 2),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.9",
            facecolor=fill,
            edgecolor=edge,
            linewidth=3 if bright else 1.2,
            linestyle=(0, (3, 2)) if faint else "-",
            zorder=3,
        )
        self.axes.add_patch(patch)
        self.boxes[name] = patch
        ink = LIT_EDGE if bright else FAINT_INK if faint else INK
        weight = "bold" if bright else "normal"
        lines = 1 + title.count("\n"), 1 + note.count("\n")
        middle = box.y + (0.72 * lines[1] + 0.1 if note else 0)
        self._inside(patch, box.x, middle, title, size=TITLE_SIZE, color=ink, weight=weight)
        if note:
            under = box.y - 0.86 * lines[0] - 0.1
            self._inside(
                patch,
                box.x,
                under,
                note,
                size=NOTE_SIZE,
                color=LIT_EDGE if bright else FAINT_INK if faint else PALE_INK,
            )
        return box

    def _inside(self, patch: FancyBboxPatch, x: float, y: float, text: str, **style) -> None:
        spacing = 1.25 if "$" in text else 1.15  # formulas stand higher than words
        made = self.axes.text(x, y, text, ha="center", va="center", zorder=4, linespacing=spacing, **style)
        self.inside.append((made, patch))

    def operator(self, at: tuple[float, float], sign: str) -> Box:
        """A small circle that adds (+), multiplies (×) or the like."""
        box = Box(*at, 3.2, 3.2)
        patch = FancyBboxPatch(
            (box.x - 0.1, box.y - 0.1),
            0.2,
            0.2,
            boxstyle="circle,pad=1.45",
            facecolor="white",
            edgecolor=INK,
            linewidth=1.2,
            zorder=3,
        )
        self.axes.add_patch(patch)
        self._inside(patch, box.x, box.y, sign, size=13, color=INK)
        return box

    def arrow(self, *points: tuple[float, float], lit: bool = False, faint: bool = False) -> None:
        """A line through the points, with a head at the last one; thick and black, or faint."""
        path = np.array(points, dtype=float)
        colour, width = (LIT_EDGE, 2.6) if lit else (FAINT if faint else LINE, 1.3)
        tip = path[-1].copy()
        along = (tip - path[-2]) / np.linalg.norm(tip - path[-2])
        across = np.array((-along[1], along[0]))
        length, half = (1.9, 0.85) if lit else (1.5, 0.6)
        path[-1] = tip - 0.8 * length * along  # the line ends inside its head
        corners = (tip, tip - length * along + half * across, tip - length * along - half * across)
        self.axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor="none", zorder=2))
        self.axes.plot(*path.T, color=colour, lw=width, zorder=2, solid_joinstyle="round")

    def dot(self, at: tuple[float, float], faint: bool = False) -> None:
        """A dot where two lines are joined; lines that only cross have none."""
        self.axes.plot(*at, "o", ms=4.5, color=FAINT if faint else LINE, zorder=2)

    def label(
        self,
        at: tuple[float, float],
        text: str,
        align: str = "center",
        size: float = LABEL_SIZE,
        color: str = INK,
    ) -> None:
        """Words on the sheet; `align` is what of them lies at `at`: center, left or right."""
        made = self.axes.text(
            *at, text, ha=align, va="center", fontsize=size, color=color, zorder=5, linespacing=1.2
        )
        self.labels.append(made)

    def waveform(
        self, at: tuple[float, float], size: tuple[float, float], voices: int, flow: str = "sound"
    ) -> Box:
        """A little drawing of sound: one voice, or a thicker mixture of two."""
        box = Box(*at, *size)
        t = np.linspace(-1, 1, 160)
        wave = np.sin(38 * t) * (0.35 + 0.65 * np.cos(2.2 * t) ** 2)
        if voices > 1:
            wave = 0.62 * wave + 0.5 * np.sin(61 * t + 1) * (0.5 + 0.5 * np.sin(3 * t))
        self.axes.plot(
            box.x + t * box.width / 2, box.y + wave * box.height / 2, color=TINTS[flow][1], lw=1.1, zorder=3
        )
        return box

    def lips(self, at: tuple[float, float], size: tuple[float, float]) -> Box:
        """A little drawing of a mouth."""
        box = Box(*at, *size)
        t = np.linspace(-1, 1, 60)
        upper, lower = (1 - t**2) * (0.62 + 0.22 * np.cos(2 * np.pi * t)), -(1 - t**2)
        gap = 0.28 * (1 - t**2)
        xs = box.x + t * box.width / 2
        fill, edge = "#E8B98F", "#8A5A2B"
        for outer, inner in ((upper, gap), (lower, -gap)):
            self.axes.fill_between(
                xs,
                box.y + inner * box.height / 2,
                box.y + outer * box.height / 2,
                facecolor=fill,
                edgecolor=edge,
                zorder=3,
            )
        return box

    def picture(self, alt: str) -> Html:
        """The sheet as a picture with its alt text."""
        return picture(self.figure, alt, dpi=80)
