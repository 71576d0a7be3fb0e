"""Figures of notebook 14: the ledger as a wall of tiles, deviations, differences, scores by name, paired runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from matplotlib.patches import Patch, Rectangle

from avkit.reproduction.differences import Difference
from avkit.reproduction.rows import STATES, Row
from avkit.teach import plots
from avkit.teach.display import Html

_COLOURS = dict(zip(STATES, (plots.GREEN, plots.ORANGE, plots.SKY, plots.PURPLE, plots.BLUE, plots.YELLOW,
                             "#dddddd", "#888888"), strict=True))  # fmt: skip
_WIDE = 23  # tiles in a line


def draw_ledger(rows: Sequence[Row], measured: Mapping[str, dict]) -> Html:
    """A tile for each row, coloured by its state; a dot where something was measured here."""
    fig, axes = plots.figure(9, 3.4)
    for place, row in enumerate(rows):
        x, y = place % _WIDE, -(place // _WIDE)
        axes.add_patch(Rectangle((x, y), 0.9, 0.9, color=_COLOURS[row.state]))
        if row.name in measured:
            axes.plot(x + 0.45, y + 0.45, "o", color="black", markersize=4)
    counted = Counter(row.state for row in rows)
    handles = [Patch(color=_COLOURS[state], label=f"{state} ({counted[state]})") for state in STATES]
    axes.legend(handles=handles, ncol=4, loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False)
    axes.set(xlim=(0, _WIDE), ylim=(-(len(rows) - 1) // _WIDE, 1), aspect="equal")
    axes.axis("off")
    done = sum(row.name in measured for row in rows)
    words = ", ".join(f"{counted[state]} {state}" for state in STATES)
    alt = f"A wall of {len(rows)} tiles, one for each published number, coloured by state: {words}; {done} have a dot."
    return plots.picture(fig, alt)


def draw_deviations(deviations: Mapping[str, float], agree: Mapping[str, bool]) -> Html:
    """Per cent by which what was recomputed differs from print; filled where it agrees as far as is printed."""
    fig, axes = plots.figure(8, 0.36 * len(deviations) + 1)
    for place, (name, value) in enumerate(deviations.items()):
        colour = plots.GREEN if agree[name] else plots.ORANGE
        axes.barh(place, value, color=colour if agree[name] else "none", edgecolor=colour, hatch="" if agree[name] else "///")
        axes.annotate(f"{value:+.2f} %", (value, place), (5 if value >= 0 else -5, 0), textcoords="offset points",
                      ha="left" if value >= 0 else "right", va="center", fontsize=9)  # fmt: skip
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(deviations)), list(deviations))
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set(xlabel="recomputed against printed (%)", title="filled: agrees as far as the paper prints; hatched: does not")
    words = ", ".join(f"{name} {value:+.2f} %" for name, value in deviations.items())
    return plots.picture(fig, f"Bars of how far recomputed sizes differ from the printed ones: {words}.")


def show_differences(differences: Sequence[Difference]) -> Html:
    """Where paper and code differ, as a table."""
    heads = ("", "the paper has", "the code has", "effect")
    cells = [(d.what, d.paper, d.code, d.effect) for d in differences]
    head = "".join(f'<th style="text-align:left">{escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(text)}</td>' for text in row) + "</tr>" for row in cells
    )
    return Html(f"<table><tr>{head}</tr>{body}</table>", "\n".join(" | ".join(row) for row in cells))


def draw_scores(scores: Mapping[str, Sequence[float]], unit: str) -> Html:
    """One line a score, one dot a mixture, joined by a thin line: the same outputs under different names."""
    fig, axes = plots.figure(8, 0.5 * len(scores) + 1)
    for values in zip(*scores.values(), strict=True):
        axes.plot(values, range(len(scores)), color="gray", lw=0.7, zorder=1)
    for place, (name, values) in enumerate(scores.items()):
        axes.plot(values, [place] * len(values), "o", color=plots.BLUE, alpha=0.6)
        axes.plot(np.mean(values), place, "|", color="black", markersize=22)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.set(xlabel=unit, title="a dot for each mixture, joined by a gray line; black: the mean")
    axes.grid(axis="x", alpha=0.3)
    words = ", ".join(f"{name} {np.mean(values):.2f}" for name, values in scores.items())
    return plots.picture(fig, f"Scores of the same outputs by name, a thin line through each mixture's dots; means in {unit}: {words}.")


def draw_seeds(first: np.ndarray, second: np.ndarray, paired: tuple, unpaired: tuple, title: str) -> Html:
    """Runs of two variants joined by seed, and two intervals of their difference beside them."""
    fig, (left, right) = plots.figure(8.5, 2.8, 1, 2, width_ratios=(1, 1.4))
    for a, b in zip(second, first, strict=True):
        left.plot([0, 1], [a, b], "o-", color=plots.BLUE, lw=1, markersize=4)
    left.set_xticks([0, 1], ["without", "with"])
    left.set(ylabel="SI-SNRi (dB)", xlim=(-0.3, 1.3), title=title)
    mean = float((first - second).mean())
    for place, (name, ends) in enumerate({"paired": paired, "not paired": unpaired}.items()):
        right.plot(ends, [place, place], lw=3, color=plots.GREEN if ends[0] > 0 or ends[1] < 0 else plots.ORANGE)
        right.plot(mean, place, "o", color="black")
        right.annotate(f"[{ends[0]:+.2f}, {ends[1]:+.2f}]", (mean, place), (0, 8), textcoords="offset points", ha="center")
    right.axvline(0, color="black", lw=0.8)
    right.set_yticks([0, 1], ["paired", "not paired"])
    right.set(xlabel="difference (dB), 95 % interval", ylim=(1.6, -0.6))
    alt = (
        f"{title}: mean difference {mean:+.2f} dB; paired interval {paired[0]:+.2f} to {paired[1]:+.2f}, "
        f"not paired {unpaired[0]:+.2f} to {unpaired[1]:+.2f}."
    )
    return plots.picture(fig, alt)


def draw_contrasts(rows: Sequence[Row], measured: Mapping[str, dict]) -> Html:
    """The paper's difference of each small ablation, and what was measured at the small scale with its interval."""
    fig, axes = plots.figure(8, 0.5 * len(rows) + 1.4)
    shown: list[str] = []
    for place, row in enumerate(rows):
        if row.paper is not None:
            axes.plot(row.paper, place, "D", color=plots.ORANGE, label="paper, LRS2-2Mix" if place == 0 else None)
        if row.name in measured:
            low, high = measured[row.name]["interval"]
            axes.plot([low, high], [place + 0.15] * 2, color=plots.BLUE, lw=3)
            told = {"label": None if shown else "small networks, with 95 % interval"}
            axes.plot(measured[row.name]["value"], place + 0.15, "o", color="black", markersize=4, **told)
            shown.append(f"{row.what.partition(':')[0]} {measured[row.name]['value']:+.2f} dB")
        else:
            axes.annotate("not run", (0, place), (8, 0), textcoords="offset points", va="center", color="#555555")
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(rows)), [row.what.partition(":")[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.set(xlabel="difference in SI-SNRi (dB)", title="expected: positive, in every line")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)  # below: a measured point may lie anywhere
    paper = ", ".join(f"{row.what.partition(':')[0]} {row.paper:+.1f} dB" for row in rows if row.paper is not None)
    here = f"measured here: {', '.join(shown)}" if shown else "none of them has been run here"
    return plots.picture(fig, f"Six contrasts with the paper's differences ({paper}); {here}.")


def draw_work(work: Mapping[str, float]) -> Html:
    """Operations of a whole training, in 10¹⁸."""
    fig, axes = plots.figure(8, 0.4 * len(work) + 1)
    bars = axes.barh(range(len(work)), [value / 1e18 for value in work.values()], color=plots.BLUE)
    axes.bar_label(bars, [f"{value / 1e18:.1f}" for value in work.values()], padding=3)
    axes.set_yticks(range(len(work)), list(work))
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="operations (10¹⁸)", title="the longest training that the recipe allows, LRS2-2Mix")
    words = ", ".join(f"{name} {value / 1e18:.1f}" for name, value in work.items())
    return plots.picture(fig, f"Bars of the operations of a whole training in units of 10 to the 18: {words}.")
