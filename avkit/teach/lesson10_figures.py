"""Figures of notebook 10: what the lips turn up, what parts cost, comparisons of two networks, lips that tell less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from avkit.signal import FRAME_RATE
from avkit.teach import plots
from avkit.teach.display import Html


def draw_factors(factors: Tensor, mouth: Tensor, order: Tensor, title: str) -> Html:
    """InterA-M's factors of one scale (H, V), channels in `order`, below a mouth's opening (V,)."""
    fig, axes = plots.figure(9.5, 3.8, 2, 1, height_ratios=(1, 2.6), sharex=True)
    seconds = len(mouth) / FRAME_RATE
    axes[0].step((np.arange(len(mouth)) + 0.5) / FRAME_RATE, mouth, where="mid", color=plots.RED)
    axes[0].set(ylabel="mouth", ylim=(-0.1, 1.1), title=title)
    image = axes[1].imshow(
        factors[order],
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, len(factors)),
        cmap=plots.COLOUR_MAP,
        vmin=1,
        vmax=2,
        interpolation="nearest",
    )
    axes[1].set(xlabel="time (s)", ylabel="channel")
    fig.colorbar(image, ax=axes.tolist(), label="factor")
    low, high = float(factors.quantile(0.05)), float(factors.quantile(0.95))
    return plots.picture(
        fig,
        f"{title}: the mouth's opening, and below it by what each channel of the sound is multiplied; nine tenths of the factors "
        f"lie between {low:.2f} and {high:.2f}.",
        dpi=68,
    )


def draw_moves(moves: Sequence[float]) -> Html:
    """By how much InterA-M's factors change over time, scale by scale."""
    fig, axes = plots.figure(6, 2.5)
    axes.bar(range(len(moves)), moves, color=plots.ORANGE)
    axes.set(xlabel="scale (0 is the finest)", ylabel="spread over time", xticks=range(len(moves)))
    words = ", ".join(f"{value:.3f}" for value in moves)
    return plots.picture(
        fig,
        f"Standard deviation over time of InterA-M's factors, from the finest scale to the coarsest: {words}.",
    )


def draw_trail(trails: Mapping[str, Mapping[str, float]]) -> Html:
    """Relative errors along the network, on a logarithmic scale; what is below 1e-9 is drawn there."""
    fig, axes = plots.figure(9.5, 3.3)
    for index, (name, errors) in enumerate(trails.items()):
        mark = "os"[index % 2] + "-"
        axes.semilogy(
            list(errors),
            [max(error, 1e-9) for error in errors.values()],
            mark,
            color=plots.COLOURS[index],
            label=name,
        )
    axes.axhline(1e-4, color="black", lw=0.8, ls="--")
    axes.text(max(map(len, trails.values())) - 1, 1.5e-4, "limit of the tests", fontsize=9, ha="right")
    axes.tick_params(axis="x", labelrotation=60)
    axes.set(ylabel="relative error")
    axes.legend(loc="upper left")
    return plots.picture(
        fig,
        "Relative error against the official network at every station: encoder, bottleneck, each cycle, output. The right network "
        "stays below 1e-6; the one with a mistake does so through cycle 1, and is wrong from cycle 2 on.",
    )


def _panels(
    names: Sequence[str], columns: Mapping[str, Sequence[float]], forms: str | Sequence[str], alt: str
) -> Html:
    """Horizontal bars side by side, one panel a column, with values at their ends."""
    fig, panels = plots.figure(9, 0.36 * len(names) + 1.1, 1, len(columns), sharey=True, squeeze=False)
    forms = [forms] * len(columns) if isinstance(forms, str) else forms
    for axes, (title, values), colour, form in zip(
        panels[0], columns.items(), plots.COLOURS, forms, strict=False
    ):
        bars = axes.barh(range(len(names)), values, color=colour)
        axes.bar_label(bars, [f"{value:{form}}" for value in values], padding=3, fontsize=9)
        room = 0.25 * (max(0, *values) - min(0, *values))
        axes.set(title=title, xlim=(min(0, *values) - room * (min(values) < 0), max(0, *values) + room))
        axes.axvline(0, color="black", lw=0.8)
        axes.set_xticks([])
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].invert_yaxis()
    return plots.picture(fig, alt)


def draw_parts(costs: Mapping[str, tuple[int, float]]) -> Html:
    """Part -> (parameters, G MACs in a cycle), as bars."""
    columns = {
        "parameters (K)": [params / 1e3 for params, _ in costs.values()],
        "G MACs in a cycle with lips, 2 s": [macs for _, macs in costs.values()],
    }
    largest = max(costs, key=lambda part: costs[part][1])
    alt = f"Bars of each part's parameters and work in one cycle. {largest} has the most of both; IntraA and InterA-M do little work."
    return _panels(list(costs), columns, (",.1f", ".3f"), alt)


def draw_budget(rows: Mapping[str, Sequence[float]]) -> Html:
    """Network -> (parameters in M, G MACs, processor seconds, MB)."""
    titles = ("parameters (M)", "G MACs", "processor time (s)", "peak memory (MB)")
    columns = {title: [values[place] for values in rows.values()] for place, title in enumerate(titles)}
    words = "; ".join(
        f"{name} {v[0]:.2f} M, {v[1]:.1f} G, {v[2]:.2f} s, {v[3]:.0f} MB" for name, v in rows.items()
    )
    return _panels(
        list(rows),
        columns,
        ".3g",
        f"For two seconds of sound, parameters, MACs, processor time and peak memory: {words}.",
    )


def draw_pairs(first: Sequence[float], second: Sequence[float], names: tuple[str, str]) -> Html:
    """SI-SNRi of every voice under one network against the other."""
    fig, axes = plots.figure(4.6, 4.2)
    ends = min(*first, *second) - 1, max(*first, *second) + 1
    axes.plot(ends, ends, "--", color="black", lw=1)
    axes.plot(first, second, "o", color=plots.BLUE, mec="white")
    axes.set(
        xlabel=f"{names[0]}, SI-SNRi (dB)",
        ylabel=f"{names[1]}, SI-SNRi (dB)",
        xlim=ends,
        ylim=ends,
        aspect="equal",
    )
    above = sum(y > x for x, y in zip(first, second, strict=True))
    return plots.picture(
        fig,
        f"Each point a voice: its gain under {names[0]} against that under {names[1]}; {above} of {len(first)} points lie above the "
        "diagonal.",
    )


def draw_lesions(left: Mapping[str, float], whole: float) -> Html:
    """SI-SNRi that is left under each lesion, beside the whole network."""
    fig, axes = plots.figure(8.6, 0.4 * len(left) + 1)
    names, values = ["whole network", *left], [whole, *left.values()]
    bars = axes.barh(range(len(values)), values, 0.62, color=[plots.BLUE] + [plots.ORANGE] * len(left))
    axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3, fontsize=9)
    spread = max(0, *values) - min(0, *values)
    axes.set(xlabel="SI-SNRi (dB)", xlim=(min(0, *values) - 0.12 * spread, max(0, *values) + 0.12 * spread))
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(values)), names)
    axes.invert_yaxis()
    words = ", ".join(f"{name} {value:.1f} dB" for name, value in zip(names, values, strict=True))
    return plots.picture(fig, f"SI-SNRi that is left: {words}.")


def draw_late(shifts: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Html:
    """SI-SNRi against the lips' delay in frames, a curve for each network."""
    fig, axes = plots.figure(7.2, 2.9)
    times = [1000 * shift / FRAME_RATE for shift in shifts]
    for (name, values), mark, colour in zip(curves.items(), ("o-", "s--"), plots.COLOURS[:2], strict=True):
        axes.plot(times, values, mark, color=colour, label=name)
    axes.axhline(0, color="black", lw=0.8)
    for place, pair in zip(times, zip(*curves.values(), strict=True), strict=True):
        for value in pair:
            up = value == max(pair)
            side = {"xytext": (5, 3 if up else -3), "va": "bottom" if up else "top", "fontsize": 8}
            axes.annotate(f"{value:.1f}", (place, value), textcoords="offset points", **side)
    axes.margins(x=0.08, y=0.14)
    axes.set(xlabel="lips late by (ms)", ylabel="SI-SNRi (dB)")
    axes.legend()
    delays = ", ".join(f"{place:.0f}" for place in times)
    words = "; ".join(
        f"{name} " + ", ".join(f"{value:.1f}" for value in values) for name, values in curves.items()
    )
    return plots.picture(fig, f"SI-SNRi in dB with lips late by {delays} ms: {words}.")


def draw_conditions(gains: Mapping[str, Mapping[str, float]]) -> Html:
    """Network -> kind of lips -> SI-SNRi, as bars."""
    names = list(next(iter(gains.values())))
    columns = {f"{network}, SI-SNRi (dB)": list(values.values()) for network, values in gains.items()}
    words = "; ".join(
        f"{network}: " + ", ".join(f"{name} {value:.1f}" for name, value in values.items())
        for network, values in gains.items()
    )
    return _panels(
        [f"{name} lips" for name in names], columns, ".1f", f"SI-SNRi in dB by whose lips are shown. {words}."
    )
