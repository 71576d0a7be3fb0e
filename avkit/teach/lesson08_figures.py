"""Figures of notebook 08: what RTFS-Net costs, part by part, and what each part is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from avkit.teach import plots
from avkit.teach.display import Html

PARAMS, MACS, SECONDS, GAIN = plots.BLUE, plots.ORANGE, plots.GREEN, plots.SKY  # one colour for each quantity

GROUPS = {  # bars of the explorer -> parts, as `count_by_hand` names them
    "encoder, decoder": ("encoder", "decoder"),
    "bottleneck, S³": ("bottleneck", "s3"),
    "block: 1×1 convolutions": ("rtfs_block.gateway", "rtfs_block.projection", "rtfs_block.expansion"),
    "block: down and up": ("rtfs_block.compression", "rtfs_block.reconstruction"),
    "block: scans": ("rtfs_block.scan_frequency", "rtfs_block.scan_time"),
    "block: attention": ("rtfs_block.attention",),
    "visual block, CAF": ("visual_block", "caf"),
}


def grouped(macs: Mapping[str, float]) -> list[float]:
    """Sums over `GROUPS`."""
    return [sum(macs[part] for part in parts) for parts in GROUPS.values()]


def draw_sizes(
    params: int, macs: Mapping[str, int], standard: Mapping[str, int], gained: float | None
) -> Html:
    """G MACs by group of parts; outlined behind them those of RTFS-Net-4."""
    total = sum(macs.values()) / 1e9
    here, there = (np.array(grouped(counts)) / 1e9 for counts in (macs, standard))
    fig, axes = plots.figure(8, 3)
    places = np.arange(len(GROUPS))
    axes.barh(places, here, 0.55, color=MACS, label="these sizes")
    axes.barh(places, there, 0.8, facecolor="none", edgecolor="black", label="RTFS-Net-4")
    axes.set_yticks(places, list(GROUPS))
    axes.invert_yaxis()
    quality = f"paper: {gained} dB SI-SNRi on LRS2-2Mix" if gained else "not in the paper's tables"
    axes.set(xlabel="G MACs for 2 s", title=f"{params:,} parameters, {total:.1f} G MACs; {quality}")
    axes.legend(loc="lower right")
    alt = f"Bars of cost by part: {params:,} parameters and {total:.1f} G MACs in all; {quality}."
    return plots.picture(fig, alt)


def _bars(
    names: Sequence[str],
    columns: Mapping[str, Sequence[float]],
    colours: Sequence[str],
    units: Sequence[str],
    words: str,
    alt: str,
) -> Html:
    """Horizontal bars side by side, one panel a column, with their values written at their ends."""
    fig, panels = plots.figure(8.5, 0.34 * len(names) + 1.1, 1, len(columns), sharey=True)
    for axes, (title, values), colour, unit in zip(panels, columns.items(), colours, units, strict=True):
        bars = axes.barh(range(len(names)), values, color=colour)
        room = 0.3 * (max(0, *values) - min(0, *values))  # for the figures at the bars' ends
        axes.bar_label(bars, [f"{value:{words}}{unit}" for value in values], padding=3, fontsize=9)
        axes.set(title=title, xlim=(min(0, *values) - room * (min(values) < 0), max(0, *values) + room))
        axes.axvline(0, color="black", lw=0.8)
        axes.set_xticks([])
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    return plots.picture(fig, alt)


def draw_bill(params: Mapping[str, int], macs: Mapping[str, int]) -> Html:
    """Shares of parameters and of MACs by part."""
    names = list(macs)
    shown = [name.replace("rtfs_block.", "block: ").replace("_", " ") for name in names]
    spent = {
        "share of parameters": [100 * params[name] / sum(params.values()) for name in names],
        "share of MACs": [100 * macs[name] / sum(macs.values()) for name in names],
    }
    largest = max(names, key=lambda name: macs[name])
    alt = (
        "Bars of each part's share of parameters and of MACs. The two scans lead both; the visual block has many parameters "
        f"and next to no MACs. The largest share of MACs is that of {largest}."
    )
    return _bars(shown, spent, (PARAMS, MACS), ("%", "%"), ".1f", alt)


def draw_clock(macs: Mapping[str, int], seconds: Mapping[str, float], name: str) -> Html:
    """Shares of a network's MACs and of its processor time by group."""
    counted, timed = grouped(macs), grouped(seconds)
    spent = {
        f"{name}: share of MACs": [100 * value / sum(counted) for value in counted],
        "share of processor time": [100 * value / sum(timed) for value in timed],
    }
    alt = f"Bars of each group's share of the MACs of {name} and of its measured processor time, which differ from group to group."
    return _bars(list(GROUPS), spent, (MACS, SECONDS), ("%", "%"), ".1f", alt)


def draw_channels(stft: Tensor, encoded: Tensor, hop: int) -> Html:
    """The magnitude of an STFT (2, T, F), and of the three learned channels of E, (C, T, F), taken as complex, that are
    least like it: their levels in decibels correlate least with its own."""
    real, imaginary = encoded.chunk(2)
    learned = real.square() + imaginary.square()  # (C / 2, T, F)
    power = torch.cat((stft.square().sum(0, keepdim=True), learned)).flatten(1)
    levels = (power / power.amax(dim=1, keepdim=True).clamp_min(1e-12)).clamp_min(1e-6).log10()
    unlike = torch.corrcoef(levels)[0, 1:].argsort()[:3].tolist()
    panels = {"STFT": stft.square().sum(0)} | {f"E, channel {index}": learned[index] for index in unlike}
    fig, axes = plots.figure(11, 2.6, 1, len(panels), sharey=True)
    for axis, (title, power) in zip(axes, panels.items(), strict=True):
        levels = 10 * (power / power.max()).clamp_min(1e-12).log10().numpy()
        image = plots.draw_spectrogram(axis, levels, (-60, 0), title, hop)
        axis.label_outer()
    fig.colorbar(image, ax=axes.tolist(), label="below loudest (dB)")
    return plots.picture(
        fig,
        "The spectrogram of a mixture, and the three learned channels of its encoding that are least like it: still the same "
        "picture, differently weighed and smeared.",
    )


def draw_influence(matrices: Mapping[str, np.ndarray]) -> Html:
    """(V, V) matrices, changed frame by frame that feels it, on one scale from 0 to 1."""
    fig, axes = plots.figure(4 * len(matrices) + 1, 3.4, 1, len(matrices), sharey=True)
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        image = axis.imshow(matrix, cmap=plots.COLOUR_MAP, vmin=0, vmax=1, interpolation="nearest")
        axis.set(title=title, xlabel="lip frame that feels it")
        axis.label_outer()
    axes[0].set_ylabel("lip frame that was changed")
    fig.colorbar(image, ax=axes.tolist(), label="change, relative")
    return plots.picture(
        fig,
        "Two matrices of lip frames. At the gateway only the diagonal is bright: a frame feels itself. After the whole visual "
        "block there is light all around the diagonal.",
    )


def draw_trail(trails: Mapping[str, Mapping[str, float]]) -> Html:
    """Relative errors along the network, on a logarithmic scale."""
    fig, axes = plots.figure(8.5, 3.2)
    for index, (name, errors) in enumerate(trails.items()):
        axes.semilogy(
            list(errors), list(errors.values()), "os"[index % 2] + "-", color=plots.COLOURS[index], label=name
        )
    axes.axhline(1e-4, color="black", lw=0.8, ls="--")
    axes.text(len(errors) - 1, 1.5e-4, "limit of the tests", fontsize=9, ha="right")
    axes.tick_params(axis="x", labelrotation=30)
    axes.set(ylabel="relative error")
    axes.legend(loc="upper left")
    return plots.picture(
        fig,
        "Relative error against the official network at ten stations. The right network stays near 1e-6; the one with a mistake "
        "does so up to the first station behind the mistake, and is wrong from there on.",
    )


def draw_memory(curves: Mapping[str, Tensor], limit: float) -> Html:
    """SNR of both voices, (steps, 2), over training steps, for each kind of lips."""
    fig, axes = plots.figure(8.5, 3, 1, len(curves), sharey=True)
    for axis, (title, values) in zip(axes, curves.items(), strict=True):
        for voice, (name, style) in enumerate((("first voice", "-"), ("second voice", "--"))):
            axis.plot(values[:, voice], style, color=plots.COLOURS[voice], label=name)
        axis.axhline(limit, color="black", lw=0.8, ls=":")
        axis.set(title=title, xlabel="step")
    axes[0].text(len(values) - 1, limit - 1, "best for both alike", fontsize=9, ha="right", va="center")
    axes[0].set_ylabel("SNR (dB)")
    axes[0].legend()
    return plots.picture(
        fig,
        "SNR of two voices while one mixture is learnt. With their own lips both rise far above the limit; with lips that are the "
        "same for both, at most one of them does.",
    )


def draw_worth(names: Sequence[str], cost: Sequence[float], gains: Sequence[float], whole: float) -> Html:
    """What each part costs (share of MACs), beside the SI-SNRi that is left without it."""
    spent = {
        "share of all MACs": [100 * value for value in cost],
        f"SI-SNRi without it (whole: {whole:.1f} dB)": list(gains),
    }
    kept, lost = names[int(np.argmax(gains))], names[int(np.argmin(gains))]
    alt = (
        f"Bars: each part's share of the MACs, and the gain without it. The whole network gains {whole:.1f} dB. The least is lost "
        f"without {kept}, the most without {lost}."
    )
    return _bars(list(names), spent, (MACS, GAIN), ("%", " dB"), ".1f", alt)
