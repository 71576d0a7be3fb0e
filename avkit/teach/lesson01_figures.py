"""Figures of notebook 01, sound to spectrogram: frames, windows, spectra, and what each costs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from avkit.signal import SAMPLE_RATE
from avkit.teach import plots
from avkit.teach.display import Html


def draw_frames(signal: Tensor, length: int, hop: int, count: int = 4) -> Html:
    """The start of a signal with the first frames marked under it."""
    shown = signal[: (count - 1) * hop + length + hop]
    fig, axes = plots.figure(8, 3.0)
    axes.plot(shown, color="black", lw=0.8)
    depth = float(shown.abs().max())
    for index in range(count):
        y = -depth * (1.35 + 0.42 * index)
        axes.plot(
            [index * hop, index * hop + length],
            [y, y],
            color=plots.COLOURS[index],
            lw=11,
            solid_capstyle="butt",
        )
        axes.text(
            index * hop + length / 2,
            y,
            f"frame {index}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if index != 1 else "black",
        )
    axes.set(xlabel="sample", yticks=[], xlim=(0, len(shown)))
    return plots.picture(
        fig, f"A waveform with {count} frames of {length} samples below it, each {hop} samples later."
    )


def draw_leakage(windows: dict[str, Tensor], frequency_bins: float = 20.5, n_fft: int = 256) -> Html:
    """Spectrum of one tone between two bins, seen through each window."""
    tone = torch.sin(2 * math.pi * frequency_bins * torch.arange(n_fft) / n_fft)
    fig, axes = plots.figure(8, 2.8)
    for index, (name, window) in enumerate(windows.items()):
        power = torch.fft.rfft(tone * window).abs() ** 2
        level = 10 * torch.log10(power / power.max() + 1e-12)
        axes.plot(
            np.arange(n_fft // 2 + 1) * SAMPLE_RATE / n_fft / 1000,
            level,
            color=plots.COLOURS[index],
            label=name,
        )
    axes.set(xlabel="frequency (kHz)", ylabel="level (dB)", ylim=(-110, 5), xlim=(0, 8))
    axes.legend()
    return plots.picture(
        fig,
        "Spectrum of one tone: without a window its energy spreads over all frequencies, with Hann's it stays near 1.28 kHz.",
    )


def draw_clear_shares(lengths: list[int], shares: list[float], chosen: int) -> Html:
    """How much of the energy belongs clearly to one voice, against the window's length."""
    fig, axes = plots.figure(7, 2.8)
    milliseconds = [1000 * length / SAMPLE_RATE for length in lengths]
    axes.semilogx(milliseconds, shares, "o-", color=plots.BLUE, base=2)
    axes.semilogx(
        1000 * chosen / SAMPLE_RATE,
        shares[lengths.index(chosen)],
        "s",
        color=plots.RED,
        ms=9,
        label="RTFS-Net",
    )
    axes.set_xticks(milliseconds, [f"{value:g}" for value in milliseconds])
    axes.set(xlabel="window (ms)", ylabel="clear share")
    axes.minorticks_off()
    axes.legend()
    best = milliseconds[int(np.argmax(shares))]
    return plots.picture(
        fig,
        f"Share of energy that belongs clearly to one voice against window length: it peaks at {best:g} ms.",
    )


def draw_windows(
    sound: Tensor,
    lengths: list[int],
    overlap: int = 4,
    seconds: tuple[float, float] | None = None,
    kilohertz: tuple[float, float] = (0, 8),
    alt: str = "",
) -> Html:
    """One sound through windows of several lengths, each on the scale of its own loudest point.

    Args:
        overlap: hops per window.
        seconds: the stretch of time to show; all of it if not given.
        kilohertz: the range of frequencies to show.
        alt: what a reader should see, if more is shown than strokes and lines.
    """
    fig, axes = plots.figure(4 * len(lengths), 2.8, 1, len(lengths), squeeze=False, sharey=True)
    for axis, length in zip(axes[0], lengths, strict=True):
        hop = length // overlap
        levels = plots.spectrogram_db(sound, length, hop)
        levels -= levels.max()
        image = plots.draw_spectrogram(
            axis, levels, (-60, 0), f"window {1000 * length / SAMPLE_RATE:g} ms", hop
        )
        axis.set(xlim=seconds, ylim=kilohertz)
        axis.label_outer()
    fig.colorbar(image, ax=axes[0].tolist(), label="below loudest (dB)")
    names = " and ".join(f"{1000 * length / SAMPLE_RATE:g} ms" for length in lengths)
    return plots.picture(
        fig,
        alt or f"The same sound through windows of {names}: short ones show vertical strokes, long ones horizontal lines.",
    )


def draw_pulses(voice: Tensor) -> Html:
    """A tenth of a second of the o in "shop", through a short and a long window."""
    return draw_windows(
        voice,
        [64, 1024],
        overlap=16,
        seconds=(1.86, 1.96),
        kilohertz=(0, 4),
        alt="A tenth of a second of one vowel: upright strokes, one for each pulse of the voice, with 4 ms; level lines, its "
        "harmonics, with 64 ms.",
    )


def draw_question(mixture: Tensor) -> Html:
    """The mixture through a very short, a middling and a very long window."""
    return draw_windows(mixture, [32, 1024, 8192])


def draw_spectra(sounds: dict[str, Tensor]) -> Html:
    """Magnitude spectrum and waveform of each sound."""
    fig, axes = plots.figure(8, 1.8 * len(sounds), len(sounds), 2, sharex="col", sharey="col")
    for row, (name, sound) in enumerate(sounds.items()):
        axes[row, 0].plot(np.arange(len(sound)) / SAMPLE_RATE, sound, color=plots.COLOURS[row], lw=0.4)
        axes[row, 0].set_title(f"{name}: waveform")
        hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
        axes[row, 1].plot(hertz / 1000, torch.fft.rfft(sound).abs(), color=plots.COLOURS[row], lw=0.8)
        axes[row, 1].set(title=f"{name}: magnitude spectrum", xlim=(0, 4))
    axes[-1, 0].set_xlabel("time (s)")
    axes[-1, 1].set_xlabel("frequency (kHz)")
    return plots.picture(
        fig, f"Waveforms and magnitude spectra of {' and '.join(sounds)}: the spectra are identical."
    )


def draw_phase_curve(lengths: list[int], scores: dict[str, list[float]]) -> Html:
    """Intelligibility against window length, with one half of the STFT spoilt."""
    fig, axes = plots.figure(7, 2.8)
    milliseconds = [1000 * length / SAMPLE_RATE for length in lengths]
    for index, (name, values) in enumerate(scores.items()):
        axes.semilogx(milliseconds, values, "os"[index] + "-", color=plots.COLOURS[index], base=2, label=name)
    axes.set_xticks(milliseconds, [f"{value:g}" for value in milliseconds])
    axes.set(xlabel="window (ms)", ylabel="STOI")
    axes.minorticks_off()
    axes.legend()
    return plots.picture(
        fig,
        "STOI against window length. With magnitudes kept it is highest near 16 to 32 ms and falls for long windows; "
        "with angles kept it is highest for the longest.",
    )
