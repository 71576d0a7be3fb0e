"""Figures of notebook 07, S³: the complex plane of masks, and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Wedge
from torch import Tensor

from avkit.teach import plots
from avkit.teach.display import Html

FAR = 10.0  # a radius beyond every axis limit, for regions without an end


def _plane(
    axes: Axes, limit: float, title: str = "", labels: tuple[str, str] = ("real", "imaginary")
) -> None:
    """Square axes from −limit to limit with the two axes of the complex plane drawn."""
    axes.axhline(0, color="0.6", lw=0.8, zorder=0)
    axes.axvline(0, color="0.6", lw=0.8, zorder=0)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=title)
    axes.set(xlabel=labels[0], ylabel=labels[1])


def _region(axes: Axes, start: float, stop: float, colour: str, label: str = "") -> None:
    """Shade the directions from `start` to `stop` degrees."""
    axes.add_patch(
        Wedge((0, 0), FAR, start, stop, facecolor=colour, alpha=0.2, lw=0, label=label, zorder=0.5)
    )


def _vector(axes: Axes, end: complex, colour: str, name: str, start: complex = 0j) -> None:
    """An arrow from `start` to `end` with its name beyond its head."""
    style = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}
    axes.annotate("", xy=(end.real, end.imag), xytext=(start.real, start.imag), arrowprops=style, zorder=4)
    along = end - start
    place = end + 0.16 * along / max(abs(along), 1e-9)
    axes.text(place.real, place.imag, name, color=colour, ha="center", va="center", weight="bold", zorder=5)


def _loud(weights: Tensor, below_db: float = 35.0, most: int = 4000) -> Tensor:
    """Indices of at most `most` entries of (N,) powers no more than `below_db` under the loudest, evenly picked."""
    found = (weights > weights.max() * 10 ** (-below_db / 10)).nonzero()[:, 0]
    return found[:: max(1, -(-len(found) // most))]


def _scatter_ratios(axes: Axes, ratios: Tensor, weights: Tensor, colour: str) -> None:
    """Complex ratios of any shape as dots, the loud ones only."""
    chosen = _loud(weights.flatten())
    points = ratios.flatten()[chosen].numpy()
    axes.scatter(points.real, points.imag, s=4, color=colour, alpha=0.45, lw=0, rasterized=True)


def draw_question(ratios: Tensor, weights: Tensor) -> Html:
    """Ideal ratios (T, F) of one voice's bins, with the quarter that a ReLU leaves shaded."""
    fig, axes = plots.figure(4.6, 4.2)
    _region(axes, 0, 90, plots.ORANGE, "what a ReLU lets through")
    _scatter_ratios(axes, ratios, weights, plots.BLUE)
    _plane(axes, 1.8, "the number each bin should be multiplied by")
    axes.legend(loc="lower left")
    return plots.picture(
        fig,
        "Complex plane with thousands of dots, the multiplier that each loud bin of a mixture needs to leave one voice. They "
        "crowd around the real axis from 0 to 1 and spread above and below it; only the upper right quarter is shaded.",
    )


def draw_nearest() -> Html:
    """Two ideal multipliers, one above and one below the real axis, and the nearest point of three kinds of mask."""
    fig, panels = plots.figure(8.4, 3.7, 1, 2, sharey=True)
    for axes, wanted, title in zip(
        panels, (0.7 + 0.6j, 0.7 - 0.6j), ("to be turned left", "to be turned right"), strict=True
    ):
        _region(axes, 0, 90, plots.ORANGE)
        axes.plot([0, FAR], [0, 0], color=plots.GREEN, lw=3, zorder=1)
        quarter = complex(wanted.real, max(wanted.imag, 0))
        axes.plot(wanted.real, wanted.imag, "*", color="black", ms=14, label="ideal g", zorder=6)
        axes.plot(
            wanted.real,
            0,
            "s",
            color=plots.GREEN,
            ms=9,
            label="nearest on the half-line: scales only",
            zorder=4,
        )
        axes.plot(quarter.real, quarter.imag, "o", mfc="none", mec=plots.RED, mew=2, ms=17, zorder=5,
                  label="nearest in the quarter: turns by 0–90°")  # fmt: skip
        axes.plot([wanted.real] * 2, [0, wanted.imag], color=plots.GREEN, ls=":", lw=2)
        _plane(axes, 1.15, title)
    panels[0].legend(loc="lower left", fontsize=8, markerscale=0.6)
    return plots.picture(
        fig,
        "Two planes. Left, the ideal multiplier lies in the shaded quarter, and the mask that may turn hits it; the mask that "
        "only scales stays on the real axis below it. Right, it lies below the axis: both masks end on the axis.",
    )


def draw_scores(
    scores: Mapping[str, float], groups: Mapping[str, str] | None = None, unit: str = "SI-SNR (dB)"
) -> Html:
    """Scores in `unit` as horizontal bars, coloured by the group of each name."""
    groups = groups or {}
    colours = dict(zip(dict.fromkeys(groups.values()), plots.COLOURS))
    fig, axes = plots.figure(7.5, 0.9 + 0.36 * len(scores) + (0.3 if groups else 0))
    names, values = list(scores), list(scores.values())
    bars = axes.barh(names, values, color=[colours.get(groups.get(name), plots.BLUE) for name in names])
    axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    room = 0.1 * (max(0, *values) - min(0, *values))  # for the numbers beside the bars
    axes.set(xlabel=unit, xlim=(min(0, min(values) - room), max(values) + room))
    if colours:
        handles = [Patch(color=colour, label=group) for group, colour in colours.items()]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(colours), fontsize=9)
    words = ", ".join(f"{name} {value:.1f}" for name, value in scores.items())
    return plots.picture(fig, f"Bars of {unit}: {words}.")


def draw_turn(modulus: float, angle: int, encoded: int) -> Html:
    """A mask, what it is multiplied with, and the product, in two planes."""
    mask = modulus * complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    e = complex(math.cos(math.radians(encoded)), math.sin(math.radians(encoded)))
    z = mask * e
    fig, (left, right) = plots.figure(8.4, 4.1, 1, 2)
    _region(left, 0, 90, plots.ORANGE)
    _vector(left, mask, plots.GREEN, "m")
    _plane(left, 2.0, f"mask: length {modulus:g}, angle {angle}°", ("$m^r$", "$m^i$"))
    _region(right, encoded, encoded + 90, plots.ORANGE, "where S³ can take e")
    corner = 90 * (encoded // 90)
    _region(right, corner, corner + 90, plots.SKY, "where a real mask can")
    _vector(right, e, plots.BLUE, "e")
    _vector(right, z, plots.RED, "z")
    turned = (encoded + angle) % 360
    _plane(
        right,
        2.0,
        f"e at {encoded}°  →  z = m·e at {turned}°, length {modulus:g}",
        ("real half", "imaginary half"),
    )
    right.legend(loc="upper right" if encoded > 90 else "lower left", fontsize=8)
    return plots.picture(
        fig,
        f"Left, a mask of length {modulus:g} at {angle} degrees in the shaded upper right quarter. Right, a number of length 1 at "
        f"{encoded} degrees and its product with the mask: length {modulus:g} at {turned} degrees.",
    )


def draw_mask(mask: Tensor) -> Html:
    """A trained mask (B, C, T, F): its points in the plane, and the mean of both parts of each complex channel."""
    real, imag = mask.chunk(2, dim=1)
    pairs = real.shape[1]
    fig, (left, right) = plots.figure(9.5, 3.9, 1, 2, width_ratios=(1, 1.5))
    _region(left, 0, 90, plots.ORANGE)
    everyone = np.random.default_rng(0).permutation(real[:, 0].numel())[:400]
    limit, power = 0.0, (real.square() + imag.square()).sum((0, 2, 3))
    strongest_first = power.argsort(descending=True).tolist()  # so that they differ in colour
    for rank, channel in enumerate(strongest_first):
        x, y = (part[:, channel].flatten()[everyone].numpy() for part in (real, imag))
        open_, colour = (x > 0) | (y > 0), plots.COLOURS[rank % len(plots.COLOURS)]
        left.scatter(x[open_], y[open_], s=9, alpha=0.6, lw=0, color=colour, clip_on=False)
        limit = max(limit, 1.05 * x.max(), 1.05 * y.max())
    _plane(left, limit, "mask: one dot per point and channel", ("$m^r$", "$m^i$"))
    left.set(xlim=(-0.3 * limit, limit), ylim=(-0.3 * limit, limit))
    place = np.arange(pairs)
    right.bar(place - 0.2, real.mean((0, 2, 3)), 0.4, color=plots.BLUE, label="real part")
    right.bar(place + 0.2, imag.mean((0, 2, 3)), 0.4, color=plots.ORANGE, label="imaginary part")
    right.set(title="mean of each part", xlabel="complex channel", xticks=place)
    fig.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=9)
    return plots.picture(
        fig,
        f"Left, points of the trained mask in the complex plane, none outside the upper right quarter. Right, for each of {pairs} "
        "complex channels the mean real and the mean imaginary part of the mask.",
    )


def draw_reach(encoded: complex = -0.8 + 0.5j, wanted: complex = 0.1 - 1.2j) -> Html:
    """What one point can become: a pair of channels under a real mask, under S³, and two pairs e and −e under S³."""
    fig, panels = plots.figure(11, 3.9, 1, 3)
    angle = math.degrees(math.atan2(encoded.imag, encoded.real)) % 360
    quadrant = 90 * (angle // 90)
    _region(panels[0], quadrant, quadrant + 90, plots.SKY)
    _plane(panels[0], 1.5, "one pair, real mask")
    _region(panels[1], angle, angle + 90, plots.ORANGE)
    _plane(panels[1], 1.5, "one pair, S³")
    for axes in panels[:2]:
        _vector(axes, encoded, plots.BLUE, "e")
        axes.plot(wanted.real, wanted.imag, "*", color="black", ms=14)
    _region(panels[2], 0, 360, plots.ORANGE)
    ratio = wanted / encoded
    first = complex(max(ratio.real, 0), max(ratio.imag, 0)) * encoded
    second = -complex(max(-ratio.real, 0), max(-ratio.imag, 0)) * encoded
    _vector(panels[2], encoded, plots.BLUE, "e")
    _vector(panels[2], -encoded, plots.BLUE, "−e")
    panels[2].plot([0, first.real], [0, first.imag], color=plots.GREEN, lw=2)
    panels[2].plot(
        [first.real, first.real + second.real], [first.imag, first.imag + second.imag], color=plots.RED, lw=2
    )
    for text, place, colour in (
        ("$m_1 e$", first / 2 - 0.3, plots.GREEN),
        ("$m_2(-e)$", first + second / 2 + 0.62 + 0.1j, plots.RED),
    ):
        panels[2].text(place.real, place.imag, text, color=colour, ha="center", va="center")
    panels[2].plot(wanted.real, wanted.imag, "*", color="black", ms=14)
    _plane(panels[2], 1.5, "two pairs, e and −e, S³")
    return plots.picture(
        fig,
        "Three planes with the same number e and the same target, a star. Under a real mask e stays in its own quadrant; under "
        "S3 it reaches the quarter that begins at e; the star lies outside both. With −e as a second channel the sum reaches it.",
    )


def draw_turns(ratios: Mapping[str, tuple[Tensor, Tensor]]) -> Html:
    """Ratio of output to mixture per bin, with weights, for each of several outputs."""
    fig, panels = plots.figure(4.1 * len(ratios), 4.0, 1, len(ratios), squeeze=False, sharey=True)
    for axes, (name, (values, weights)) in zip(panels[0], ratios.items(), strict=True):
        _scatter_ratios(axes, values, weights, plots.BLUE)
        _plane(axes, 1.8, name)
        axes.label_outer()
    return plots.picture(
        fig,
        f"Complex planes, a dot per loud bin, output over mixture, for {' and '.join(ratios)}: dots above and below the real axis.",
    )


_KINDS = {  # of fitted masks -> marker, line and colour
    "S³": ("o", "-", plots.BLUE),
    "S³ without its ReLU": ("^", "-.", plots.ORANGE),
    "real mask": ("s", "--", plots.GREEN),
}


def draw_curves(curves: Mapping[str, Sequence[float]], level: tuple[str, float]) -> Html:
    """SNR in dB against steps of a fit, for each of `_KINDS`, and one level to compare with."""
    fig, axes = plots.figure(7, 3.0)
    for index, (name, curve) in enumerate(curves.items()):
        marker, line, colour = _KINDS[name]
        steps = range(1, len(curve) + 1)
        axes.plot(
            steps, curve, marker + line, color=colour, ms=5, markevery=(4 * index + 3, 12), lw=2, label=name
        )
    axes.axhline(level[1], color="black", ls=":", label=level[0])
    axes.set(xlabel="step", ylabel="SNR (dB)")
    axes.legend()
    ends = ", ".join(f"{name} {curve[-1]:.0f} dB" for name, curve in curves.items())
    return plots.picture(
        fig, f"SNR of fitted masks against steps: all rise far above {level[0]}; at the end {ends}."
    )


def draw_channels(pairs: Sequence[int], reached: Mapping[str, Sequence[float]]) -> Html:
    """SNR in dB that fitted masks reach with so many complex channels; names are "kind, … ends", with one of `_KINDS`."""
    fig, axes = plots.figure(8.5, 3.3)
    for name, values in reached.items():
        kind, _, ends = name.rpartition(", ")
        marker, line, colour = _KINDS[kind]
        inside = "white" if "random" in ends else colour
        axes.plot(pairs, values, marker + line, color=colour, mfc=inside, mew=1.5, ms=7, lw=1.8, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(pairs, [str(k) for k in pairs])
    axes.set(xlabel="complex channels (pairs)", ylabel="SNR reached (dB)")
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    words = "; ".join(
        f"{name}: {', '.join(f'{v:.0f}' for v in values)} dB" for name, values in reached.items()
    )
    return plots.picture(
        fig, f"SNR that fitted masks reach with {', '.join(map(str, pairs))} complex channels. {words}."
    )
