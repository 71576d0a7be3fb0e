"""Notebook 05, attend and restore: its figures, and the small measurements that they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from avkit.signal import SAMPLE_RATE
from avkit.teach import plots, tiles
from avkit.teach.display import Html
from avkit.teach.samples import Sample

SITUATIONS = ("the other alone", "both", "the wanted one alone")
MARKS = ("o", "s", "^", "D")


# The question ---------------------------------------------------------------------------------------------------


def _decibels(magnitudes: Tensor) -> np.ndarray:
    return (20 * magnitudes.clamp_min(1e-6).log10()).numpy()


def draw_question(sample: Sample, tile: int) -> Html:
    """The mixture, one voice with one level per tile, and that voice, on one scale."""
    mixed, voice = (tiles.spectrum_of(sound).norm(dim=0) for sound in (sample.mixture, sample.voices[0]))
    names = ("the mixture", f"the voice, one level per {tile} by {tile} points", "the voice")
    pictures = [_decibels(x) for x in (mixed, tiles.tile_mean(voice, tile), voice)]
    fig, axes = plots.figure(10, 3.2, 1, 3, sharey=True)
    limits = (float(pictures[0].max()) - 60, float(pictures[0].max()))
    for axis, name, levels in zip(axes, names, pictures, strict=True):
        image = plots.draw_spectrogram(axis, levels, limits, name, tiles.HOP)
        axis.set(ylim=(0, 4))
        axis.label_outer()
    fig.colorbar(image, ax=axes.tolist(), label="level (dB)")
    return plots.picture(
        fig,
        "Spectrograms of the mixture, of one voice seen only in coarse tiles, where no harmonics are left, and of the voice "
        "as it is, with its harmonics as fine stripes.",
    )


def tile_sound(sample: Sample, tile: int) -> Tensor:
    """The first voice with one level per tile and the mixture's angles, (L,)."""
    return tiles.ways_back(sample, tile)["enlarge"][0]


# Attention ------------------------------------------------------------------------------------------------------


def frame_levels(voices: Tensor, frames: int) -> Tensor:
    """(2, L) -> (2, frames): each voice's level in dB, from its loudest frame down, at least −60."""
    power = adaptive_avg_pool1d(voices.square()[None], frames)[0]
    return 10 * torch.log10(power / power.amax(dim=1, keepdim=True) + 1e-6)


def draw_levels(axes: Axes, levels: Tensor, seconds: float) -> None:
    """Two voices' levels (2, T) over time as steps."""
    edges = np.linspace(0, seconds, levels.shape[1] + 1)
    for level, colour, name in zip(
        levels, (plots.BLUE, plots.ORANGE), ("wanted voice", "other voice"), strict=True
    ):
        axes.stairs(level.numpy(), edges, color=colour, baseline=None, lw=1.5, label=name)
    axes.set(ylabel="level (dB)", ylim=(-45, 3), xlim=(0, seconds))
    axes.legend(loc="lower right", fontsize=7, ncols=2)


def situations(voices: Tensor, frames: int, apart_db: float = 15.0) -> Tensor:
    """Who is heard in which frame.

    Args:
        voices: (2, L).
        frames: how many frames they are cut into.
        apart_db: how much stronger one voice must be to count as alone.

    Returns:
        (3, 2, frames) of 0 and 1, in the order of SITUATIONS, for either talker being the wanted one.
    """
    power = adaptive_avg_pool1d(voices.square()[None], frames)[0]
    lead = 10 * torch.log10((power + 1e-9) / (power.flip(0) + 1e-9))  # (2, T), of the wanted one
    return torch.stack((lead < -apart_db, lead.abs() <= apart_db, lead > apart_db)).float()


def weight_by_situation(maps: Tensor, kinds: Tensor) -> Tensor:
    """How much attention frames get, in multiples of an equal share, by who is heard in them.

    Args:
        maps: (2, …, T, T), rows sum to 1; first axis: the talker wanted.
        kinds: (3, 2, T), from `situations`.

    Returns:
        (3, …): the mean over both talkers, all rows, and the frames of that kind; NaN where there are none.
    """
    read = maps.mean(dim=-2) * maps.shape[-1]  # (2, …, T)
    return torch.einsum("kbt,b...t->k...", kinds, read) / kinds.sum(dim=(1, 2)).view(
        3, *[1] * (read.dim() - 2)
    )


def stripes(maps: Sequence[Tensor]) -> float:
    """Share of the variance of (…, T, T) maps that lies between the frames read, whoever reads them; mean over maps."""
    shares = [(m.mean(-2).var(-1, correction=0) / m.var((-2, -1), correction=0)).mean() for m in maps]
    return float(sum(shares) / len(shares))


def draw_tokens(x: Tensor, frame_map: Tensor, row: int, seconds: float) -> Html:
    """A coarse plane (T, F) with one frame marked, and the map (T, T) with the row that this frame asks with."""
    fig, axes = plots.figure(8.5, 3.2, 1, 2, width_ratios=(1.5, 1))
    frames, freqs = x.shape
    x = x - x.mean(dim=0)
    spread = float(x.abs().quantile(0.99))
    axes[0].imshow(
        x.T.numpy(),
        origin="lower",
        aspect="auto",
        cmap="PuOr",
        vmin=-spread,
        vmax=spread,
        interpolation="nearest",
    )
    axes[0].add_patch(Rectangle((row - 0.5, -0.5), 1, freqs, fc="none", ec="black", lw=2.5))
    axes[0].set(
        title="one of D channels (less its mean over time)",
        xlabel=f"frame ({frames} in {seconds:g} s)",
        ylabel=f"frequency ({freqs})",
    )
    axes[1].imshow(frame_map.numpy(), cmap=plots.COLOUR_MAP, interpolation="nearest", vmin=0)
    axes[1].add_patch(Rectangle((-0.5, row - 0.5), frames, 1, fc="none", ec=plots.RED, lw=2.5))
    axes[1].set(title="one head's map", xlabel="frame that is read", ylabel="frame that asks")
    return plots.picture(
        fig,
        "Left: a plane of frames and frequencies with one whole column framed, which is one token. Right: a square map of "
        "frames against frames with the row of that token framed.",
    )


def draw_reach(curves: Mapping[str, Tensor], frame_seconds: float) -> Html:
    """Name -> (T,), change by distance from the frame that was replaced."""
    fig, axes = plots.figure(7, 2.9)
    for (name, curve), colour, mark in zip(curves.items(), (plots.BLUE, plots.RED), MARKS):
        known = curve.isfinite() & (torch.arange(len(curve)) > 0)
        axes.semilogy(
            (torch.arange(len(curve))[known] * frame_seconds).numpy(),
            curve[known].numpy(),
            mark + "-",
            ms=4,
            color=colour,
            label=name,
        )
    axes.set(
        xlabel="distance from the replaced frame (s)",
        ylabel="change, relative to that\nof the replaced frame",
        ylim=(3e-4, 1),
    )
    axes.legend()
    scan, attention = (curve[curve.isfinite()][1:] for curve in curves.values())
    below = " and is smaller throughout" if bool((attention < scan).all()) else ""
    return plots.picture(
        fig,
        "How much frames change when one frame is replaced, against their distance from it: through the scan the change "
        f"falls with distance, through attention it stays about level{below}.",
    )


def draw_maps(maps: Sequence[Tensor], levels: Tensor, seconds: float) -> Html:
    """The (heads, T, T) maps of every pass on one scale, and below them the levels of both voices (2, T)."""
    rows, heads = len(maps), len(maps[0])
    fig, axes = plots.figure(
        9.5, 1.75 * rows + 1.2, rows + 1, heads, sharex=True, height_ratios=[1.6] * rows + [1]
    )
    for row, shown in enumerate(maps):
        for head, frame_map in enumerate(shown):
            image = axes[row, head].imshow(
                (frame_map * frame_map.shape[0]).numpy(),
                extent=(0, seconds, seconds, 0),
                aspect="auto",
                cmap=plots.COLOUR_MAP,
                vmin=0,
                vmax=8,
                interpolation="nearest",
            )
            axes[row, head].set(title=f"head {head + 1}" if row == 0 else "")
            axes[row, head].tick_params(labelleft=head == 0)
        axes[row, 0].set_ylabel(f"pass {row + 1}\nasking (s)")
    for head in range(heads):
        draw_levels(axes[-1, head], levels, seconds)
        axes[-1, head].set(xlabel="read (s)", ylabel="level (dB)" if head == 0 else "")
        axes[-1, head].tick_params(labelleft=head == 0)
        axes[-1, head].get_legend().remove()
    fig.legend(
        *axes[-1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(levels), fontsize=8
    )
    fig.colorbar(image, ax=axes[:-1].ravel().tolist(), label="× equal share", extend="max")
    return plots.picture(
        fig,
        f"Attention maps of one mixture, {rows} passes by {heads} heads, frames that ask against frames that are read; "
        f"{stripes(maps):.0%} of what varies in them is upright stripes, moments that all frames read alike. Below them the levels "
        "of both voices.",
    )


def draw_situations(weights: Tensor) -> Html:
    """(3, passes, heads): attention in multiples of an equal share, by who speaks in the frame that is read."""
    _, passes, heads = weights.shape
    fig, axes = plots.figure(8.5, 2.9)
    places = np.arange(passes * heads)
    for kind, name in enumerate(SITUATIONS):
        colour = (plots.ORANGE, plots.GREEN, plots.BLUE)[kind]
        axes.plot(
            places + 0.15 * (kind - 1),
            weights[kind].flatten().numpy(),
            MARKS[kind],
            color=colour,
            label=name,
            ms=6,
        )
    axes.axhline(1, color="black", lw=0.8)
    for edge in range(heads, passes * heads, heads):
        axes.axvline(edge - 0.5, color="grey", lw=0.8, ls=":")
    names = [
        f"{head + 1}\npass {row + 1}" if head == 0 else f"{head + 1}"
        for row in range(passes)
        for head in range(heads)
    ]
    axes.set_xticks(places, names)
    axes.set(xlabel="head", ylabel="× equal share", ylim=(0, None))
    axes.legend(
        title="who is heard in the frame read",
        ncols=3,
        fontsize=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
    )
    most = int(weights[0].flatten().argmax())
    return plots.picture(
        fig,
        f"Attention on three kinds of frames for {passes * heads} heads. Frames with the other voice alone get most in head "
        f"{most % heads + 1} of pass {most // heads + 1}, {float(weights[0].max()):.1f} times an equal share.",
    )


# Cost -----------------------------------------------------------------------------------------------------------


def draw_cost(seconds: Sequence[float], costs: Mapping[str, Sequence[float]]) -> Html:
    """What one pass costs in G MACs against the length of the recording, on logarithmic axes."""
    fig, axes = plots.figure(7, 3)
    for (name, values), colour, mark in zip(costs.items(), plots.COLOURS[:4], MARKS):
        axes.loglog(seconds, values, mark + "-", ms=4, color=colour, label=name)
    axes.set_xticks(seconds, [f"{value:g}" for value in seconds])
    axes.minorticks_off()
    axes.set(xlabel="length of the mixture (s)", ylabel="G MACs, one pass")
    axes.legend(fontsize=8)
    return plots.picture(
        fig,
        "Cost of one pass against length: scan and embeddings rise in proportion to it, the attention's products "
        "with its square, and overtake both for long mixtures.",
    )


# The way back ---------------------------------------------------------------------------------------------------


def draw_ways(sizes: Sequence[int], scores: Mapping[str, Sequence[float]]) -> Html:
    """SI-SNR of each way back against the size of the tiles."""
    fig, axes = plots.figure(7, 3)
    for (way, values), colour, mark in zip(
        scores.items(), (plots.ORANGE, plots.GREEN, plots.BLUE, plots.RED), MARKS
    ):
        axes.plot(range(len(sizes)), values, mark + "-", color=colour, label=way)
    axes.set_xticks(range(len(sizes)), [f"{size} by {size}" for size in sizes])
    axes.set(xlabel="points per tile", ylabel="SI-SNR (dB)")
    axes.legend(loc="lower left")
    return plots.picture(
        fig,
        "SI-SNR of four ways back against the size of the tiles: all fall as tiles grow; enlarging and adding fall fast, "
        "gating keeps most.",
    )


def draw_injection(parts: Mapping[str, Tensor], channels: tuple[int, int], seconds: float) -> Html:
    """The steps of an injection sum, title -> (C, T, F), for two of its channels.

    Args:
        channels: one whose fine picture counts, and one whose gate is shut over most of what is drawn.
    """
    fig, axes = plots.figure(11, 5.2, len(channels), len(parts), sharex=True, sharey=True)
    for axis, title in zip(axes[0], parts, strict=True):
        axis.set_title(title)
    for row, channel in zip(axes, channels, strict=True):
        for axis, (title, steps) in zip(row, parts.items(), strict=True):
            gate, values = title == "gate", steps[channel]
            spread = float(values.abs().quantile(0.99))
            image = axis.imshow(
                values.T.numpy(),
                origin="lower",
                aspect="auto",
                extent=(0, seconds, 0, SAMPLE_RATE / 2000),
                cmap=plots.COLOUR_MAP if gate else "PuOr",
                vmin=0 if gate else -spread,
                vmax=1 if gate else spread,
                interpolation="nearest",
            )
            axis.set(ylim=(0, 4))
            fig.colorbar(image, ax=axis, shrink=0.85)
        row[0].set_ylabel(f"channel {channel}\nfrequency (kHz)")
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    return plots.picture(
        fig,
        f"An injection sum in four pictures: the fine local one, the gate and the shift in coarse tiles, and local times gate plus "
        f"shift. In channel {channels[0]} the sum is fine again; in channel {channels[1]}, whose gate is shut over most of the picture, "
        "it looks like the coarse shift.",
    )


def draw_parts(gains: Mapping[str, float]) -> Html:
    """SI-SNRi of the trained network with one part switched off at a time."""
    fig, axes = plots.figure(7, 0.5 + 0.42 * len(gains))
    axes.barh(list(gains), list(gains.values()), color=[plots.BLUE] + [plots.ORANGE] * (len(gains) - 1))
    axes.bar_label(axes.containers[0], fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    axes.margins(x=0.12)
    axes.set_xlabel("SI-SNRi (dB)")
    values = ", ".join(f"{name} {value:.1f} dB" for name, value in gains.items())
    return plots.picture(fig, f"SI-SNRi of the trained network as it is and with one part changed: {values}.")


# Repeats --------------------------------------------------------------------------------------------------------

# RTFS-Net on LRS2-2Mix: repeats, SI-SNRi in dB, G MACs over 2 s (the paper's tables 1 and 8)
PUBLISHED = ((4, 14.1, 21.9), (6, 14.6, 30.5), (12, 14.9, 56.4), (16, 15.2, 73.7), (20, 15.4, 90.9))


def draw_published() -> Html:
    """What more repeats bought in the paper."""
    repeats, gains, macs = zip(*PUBLISHED, strict=True)
    fig, axes = plots.figure(6.5, 2.8)
    axes.plot(macs, gains, "o-", color=plots.BLUE)
    for r, x, y in zip(repeats, macs, gains, strict=True):
        axes.annotate(f"R = {r}", (x, y), xytext=(4, -12), textcoords="offset points", fontsize=9)
    axes.set(xlabel="G MACs for 2 s", ylabel="SI-SNRi (dB)", xlim=(10, 105), ylim=(13.8, 15.6))
    axes.set_title("LRS2-2Mix, as published; the same number of parameters throughout", fontsize=10)
    return plots.picture(
        fig,
        "Published SI-SNRi against MACs: 14.1 dB for R = 4, 14.6 for 6, 14.9 for 12, 15.2 for 16 and 15.4 for 20; the first "
        "passes added buy most.",
    )


def draw_passes(wanted: Sequence[float], other: Sequence[float], translated: Sequence[float]) -> Html:
    """SI-SNRi of what is read out after each pass.

    Args:
        wanted, other: as it is, against the wanted voice and against the other; also for passes beyond those trained.
        translated: for the passes trained, after translation for S³, against the wanted voice.
    """
    trained, count = len(translated), len(wanted)
    fig, axes = plots.figure(9, 3.2)
    axes.axvspan(trained + 0.5, count + 0.6, color="0.93", lw=0, label="passes it was not trained for")
    axes.plot(range(1, count + 1), other, "^:", color=plots.RED, label="as it is, against the other voice")
    axes.plot(range(1, trained + 1), translated, "s-", color=plots.ORANGE, label="translated for S³")
    axes.plot(range(1, count + 1), wanted, "o-", color=plots.BLUE, label="as it is, against the wanted voice")
    axes.axhline(0, color="black", lw=0.8)
    axes.text(count + 0.58, 0, "mixture", va="bottom", ha="right", fontsize=8)
    axes.set_xticks(range(1, count + 1))
    axes.set(xlabel="passes of the block", ylabel="SI-SNRi (dB)", xlim=(0.7, count + 0.6))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    read, wrong, better = (", ".join(f"{x:.1f}" for x in values) for values in (wanted, other, translated))
    return plots.picture(
        fig,
        f"SI-SNRi after passes 1 to {count}, read out as it is: {read} dB against the wanted voice, {wrong} dB against the other; "
        f"after passes 1 to {trained} translated for S³: {better} dB.",
    )
