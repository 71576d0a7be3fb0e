"""Figures of notebook 09: learned filters, the scales of two streams, gates, and how far a change travels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from torch import Tensor

from avkit.signal import SAMPLE_RATE, power_spectrogram
from avkit.teach import plots
from avkit.teach.display import Html

_TWO_SIDED = "PuOr_r"  # for numbers of both signs


def draw_slivers(mixture: Tensor, centre: int, samples: Sequence[int]) -> Html:
    """A mixture (L,) around a moment, and how long the pieces of so many samples around it are."""
    half = round(0.75 * max(samples))
    piece = mixture[centre - half : centre + half]
    times = 1000 * (np.arange(len(piece)) - half) / SAMPLE_RATE
    fig, axes = plots.figure(9, 2.9)
    axes.plot(times, piece, color=plots.BLUE, lw=1)
    low, high = float(piece.min()), float(piece.max())
    for row, count in enumerate(samples):
        width, y = 1000 * count / SAMPLE_RATE, low - (row + 1) * 0.16 * (high - low)
        axes.plot((-width / 2, width / 2), (y, y), lw=5, color=plots.RED, solid_capstyle="butt")
        axes.annotate(
            f"scale {row}: {width:g} ms", (width / 2, y), xytext=(6, -3), textcoords="offset points"
        )
    axes.set(xlabel="time (ms)", yticks=[], xlim=(times[0], times[-1]))
    words = ", ".join(f"{1000 * count / SAMPLE_RATE:g}" for count in samples)
    return plots.picture(
        fig,
        f"A few swings of the mixture's waveform, and below it five bars: what one number at each scale has heard, {words} ms.",
    )


def draw_filters(peaks: Tensor, magnitudes: Tensor, filters: Tensor) -> Html:
    """Learned filters: some of their impulse responses, all magnitudes by peak frequency, against evenly spaced bins.

    Args:
        peaks: (N,) kHz, rising.
        magnitudes: (N, bins), in that order.
        filters: (n, window), some of the filters.
    """
    fig, axes = plots.figure(10.5, 3.1, 1, 3, width_ratios=(1, 1.2, 1))
    times = 1000 * np.arange(filters.shape[1]) / SAMPLE_RATE
    for row, taps in enumerate(filters):
        axes[0].plot(times, taps / taps.abs().max() - 2.2 * row, color=plots.BLUE, lw=1)
    axes[0].set(title="some of the filters", xlabel="time (ms)", yticks=[])
    extent = (0, SAMPLE_RATE / 2000, 0, len(peaks))
    image = axes[1].imshow(magnitudes, origin="lower", aspect="auto", extent=extent, cmap=plots.COLOUR_MAP)
    axes[1].set(title="what each lets pass", xlabel="frequency (kHz)", ylabel="filter, by its peak")
    fig.colorbar(image, ax=axes[1], label="magnitude")
    number = np.arange(len(peaks))
    axes[2].plot(number, peaks, color=plots.BLUE, label="learned")
    axes[2].plot(
        number, SAMPLE_RATE / 2000 * number / (len(peaks) - 1), "--", color="black", label="bins of an STFT"
    )
    axes[2].set(title="where they peak", xlabel="filter", ylabel="kHz")
    axes[2].legend()
    return plots.picture(
        fig,
        f"Eight learned filters: rough, some of them short wave packets, others slow swings. Sorted by their peaks, half of them lie below "
        f"{float(peaks.median()):.1f} kHz; half of an STFT's evenly spaced bins lie below 4 kHz.",
        dpi=60,
    )


def draw_views(
    voice: Tensor, encoded: Tensor, order: Tensor, seconds: tuple[float, float], n_fft: int = 512
) -> Html:
    """The same moment of a voice (L,) in an STFT and in a learned filter bank (filters, T), filters in `order`."""
    start, stop = (round(second * SAMPLE_RATE) for second in seconds)
    levels = power_spectrogram(voice, n_fft, n_fft // 2)  # (T, F)
    rows = slice(start * 2 // n_fft, stop * 2 // n_fft)
    level = 10 * levels[rows, : n_fft // 4].clamp_min(1e-10).log10()
    per_sample = encoded.shape[1] / len(voice)
    piece = encoded[order][:, round(start * per_sample) : round(stop * per_sample)]
    fig, axes = plots.figure(10.5, 3.3, 1, 2)
    extent = (*seconds, 0, SAMPLE_RATE / 4000)
    axes[0].imshow(
        level.T,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap=plots.COLOUR_MAP,
        vmin=float(level.max()) - 50,
        interpolation="nearest",
    )
    window = 1000 * n_fft / SAMPLE_RATE
    axes[0].set(title=f"STFT, windows of {window:g} ms: power", xlabel="time (s)", ylabel="frequency (kHz)")
    limit = float(piece.abs().quantile(0.99))
    axes[1].imshow(
        piece,
        origin="lower",
        aspect="auto",
        extent=(*seconds, 0, len(piece)),
        cmap=_TWO_SIDED,
        vmin=-limit,
        vmax=limit,
    )
    axes[1].set(title="s, learned filters: signed numbers", xlabel="time (s)", ylabel="filter, by its peak")
    return plots.picture(
        fig,
        "Left, an STFT of a voice: harmonics lie as lines along time. Right, the same moment behind the learned filters: upright "
        "stripes, one for each pulse of the vocal folds.",
        dpi=60,
    )


def draw_scales(sound: Sequence[Tensor], lips: Sequence[Tensor], seconds: float, channels: int = 24) -> Html:
    """The scales of the sound (C, T / 2ⁱ) and of the lips (D, V / 2ⁱ), finest on top, on one time axis: the channels that move
    most, each less its mean and divided by its spread."""
    fig, axes = plots.figure(11, 5.6, len(sound), 2, sharex=True)
    for column, (title, scales) in enumerate({"sound": sound, "lips": lips}.items()):
        for row, x in enumerate(scales):
            axis = axes[row, column]
            chosen = x[x.std(dim=1).argsort(descending=True)[:channels]]
            chosen = (chosen - chosen.mean(dim=1, keepdim=True)) / chosen.std(dim=1, keepdim=True)
            limit = 2.5
            axis.imshow(
                chosen,
                aspect="auto",
                extent=(0, seconds, 0, channels),
                cmap=_TWO_SIDED,
                vmin=-limit,
                vmax=limit,
                interpolation="nearest",
            )
            axis.set(yticks=[])
            axis.set_title(
                f"{title}, scale {row}: {x.shape[1]} positions, {x.shape[1] / seconds:g} a second", fontsize=9
            )
        axes[-1, column].set_xlabel("time (s)")
    return plots.picture(
        fig,
        f"Five scales of the sound, from {sound[0].shape[1]} positions down to {sound[-1].shape[1]}, beside five of the lips, from "
        f"{lips[0].shape[1]} down to {lips[-1].shape[1]}: each coarser and smoother than the one above.",
        dpi=56,
    )


def draw_gates(gates: Tensor, ahead: Tensor, order: Tensor, title: str) -> Html:
    """IntraA's gates of one scale (H, T'), channels in `order`, below the watched talker's lead (frames,) in dB."""
    fig, axes = plots.figure(9.5, 3.9, 2, 1, height_ratios=(1, 2.6), sharex=True)
    seconds = len(ahead) / 62.5
    times = (np.arange(len(ahead)) + 0.5) * seconds / len(ahead)
    axes[0].plot(times, ahead, color=plots.BLUE)
    axes[0].axhline(0, color="black", lw=0.8)
    axes[0].set(ylabel="lead (dB)", title=title)
    image = axes[1].imshow(
        gates[order],
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, len(gates)),
        cmap=plots.COLOUR_MAP,
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axes[1].set(xlabel="time (s)", ylabel="channel")
    fig.colorbar(image, ax=axes.tolist(), label="gate")
    low, high = float(gates.quantile(0.05)), float(gates.quantile(0.95))
    return plots.picture(
        fig,
        f"{title}: on top by how much the watched talker is the louder; below, the gates of all channels, nine tenths of them "
        f"between {low:.2f} and {high:.2f}.",
        dpi=68,
    )


def draw_follow(strength: Tensor) -> Html:
    """(cycles,): how strongly gates move with the watched talker's lead."""
    fig, axes = plots.figure(6.5, 2.6)
    axes.bar(range(1, len(strength) + 1), strength, color=plots.BLUE)
    axes.set(xlabel="cycle", ylabel="mean |correlation|", ylim=(0, None))
    words = ", ".join(f"{float(value):.2f}" for value in strength)
    return plots.picture(
        fig, f"Correlation of the gates with the lead of the talker who is watched, by cycle: {words}."
    )


def draw_cost(seconds: Sequence[float], costs: Mapping[str, Sequence[float]]) -> Html:
    """G MACs against the length of the recording, on logarithmic axes."""
    fig, axes = plots.figure(7, 3)
    for (name, values), colour, mark in zip(costs.items(), plots.COLOURS, "os^", strict=False):
        axes.loglog(seconds, values, mark + "-", color=colour, label=name)
    axes.set(xlabel="length of the recording (s)", ylabel="G MACs")
    axes.set_xticks(list(seconds), [f"{value:g}" for value in seconds])
    axes.minorticks_off()
    axes.legend()
    grown = {name: values[-1] / values[0] for name, values in costs.items()}
    words = ", ".join(f"{name} {value:,.0f} times" for name, value in grown.items())
    return plots.picture(
        fig, f"Cost against length, from {seconds[0]:g} s to {seconds[-1]:g} s it grows: {words}."
    )


def draw_spread(curves: Mapping[str, Tensor], frame_ms: float) -> Html:
    """What -> (2·span + 1,), relative change by signed distance in frames."""
    fig, axes = plots.figure(8, 2.8)
    for (name, curve), style, colour in zip(curves.items(), ("--", "-"), plots.COLOURS[:2], strict=True):
        times = frame_ms * (np.arange(len(curve)) - len(curve) // 2)
        axes.semilogy(times, curve, style, color=colour, label=name)
    axes.set(xlabel="distance from the frame that was exchanged (ms)", ylabel="change / mean size of a frame")
    axes.legend(loc="upper right")
    return plots.picture(
        fig,
        "Change of the finest scale around an exchanged frame, on a logarithmic axis. Before IntraA it is large over a few "
        "frames and nearly nothing beyond; after IntraA there is change all around.",
    )


def draw_reach(curves: Tensor, frame_ms: float, limit: float) -> Html:
    """(cycles, T): relative change by distance in frames; dotted, the limit above which it counts."""
    fig, axes = plots.figure(8.5, 3.4)
    count = curves.shape[1] // 2
    times = frame_ms * np.arange(1, count)
    shades = np.linspace(0.15, 0.85, len(curves))
    colours = matplotlib.colormaps[plots.COLOUR_MAP](shades)
    for number, (curve, colour) in enumerate(zip(curves, colours, strict=True), 1):
        axes.loglog(times, curve[1:count], color=colour, lw=2, label=f"after cycle {number}")
    axes.axhline(limit, color="black", ls=":", lw=1)
    axes.set(xlabel="distance from the frame that was exchanged (ms)", ylabel="change / that of the exchanged frame")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return plots.picture(
        fig,
        "Change against distance on logarithmic axes, a curve for each cycle: it falls with distance down to a level floor, "
        f"and later cycles lie above the first one. A dotted line at {limit:g}.",
    )


def draw_bars(gains: Mapping[str, float], what: str = "SI-SNRi (dB)") -> Html:
    """A bar for each name, with its value; the first is the whole network."""
    fig, axes = plots.figure(8, 0.42 * len(gains) + 0.8)
    values = list(gains.values())
    colours = [plots.BLUE] + [plots.ORANGE] * (len(values) - 1)
    bars = axes.barh(range(len(values)), values, 0.62, color=colours)
    axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3, fontsize=9)
    spread = max(0, *values) - min(0, *values)
    axes.set(xlabel=what, xlim=(min(0, *values) - 0.12 * spread, max(0, *values) + 0.12 * spread))
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(values)), list(gains))
    axes.invert_yaxis()
    words = ", ".join(f"{name} {value:.1f}" for name, value in gains.items())
    return plots.picture(fig, f"{what}: {words}.")


def draw_cycles(wanted: Sequence[float], other: Sequence[float], with_lips: int) -> Html:
    """SI-SNRi of what mask and decoder make of the sound after each cycle, against the wanted voice and the other."""
    fig, axes = plots.figure(7.5, 3.4)
    places = range(1, len(wanted) + 1)
    axes.axvspan(0.5, with_lips + 0.5, color=plots.YELLOW, alpha=0.25)
    axes.plot(places, wanted, "o-", color=plots.BLUE, label="against the wanted voice")
    axes.plot(places, other, "s--", color=plots.ORANGE, label="against the other")
    axes.axhline(0, color="black", lw=0.8)
    for place, pair in zip(places, zip(wanted, other, strict=True), strict=True):
        for value, partner in (pair, pair[::-1]):
            up = value >= partner
            axes.annotate(
                f"{value:.1f}",
                (place, value),
                xytext=(0, 6 if up else -7),
                textcoords="offset points",
                ha="center",
                va="bottom" if up else "top",
            )
    axes.margins(y=0.16)
    axes.text(0.6, axes.get_ylim()[0], " lips take part", va="bottom", fontsize=9)
    axes.set(xlabel="read out after cycle", ylabel="SI-SNRi (dB)", xticks=list(places))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    words, others = (", ".join(f"{value:.1f}" for value in gains) for gains in (wanted, other))
    return plots.picture(
        fig,
        f"SI-SNRi read out after each cycle: {words} dB against the wanted voice, {others} dB against the other; the first "
        f"{with_lips} cycles have the lips.",
    )


def order_by_lead(gates: Tensor, ahead: Tensor) -> Tensor:
    """Channels of gates (H, frames) by how they move with a lead (frames,), lowest first."""
    centred = gates - gates.mean(dim=1, keepdim=True)
    return torch.mv(centred, ahead - ahead.mean()).argsort()
