"""Plots: matplotlib figures as pictures that carry alt text, with colour-blind-safe colours.

Spectrograms that are compared are drawn by one `spectrograms` call and so share their decibel limits.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from avkit.errors import InputError
from avkit.signal import SAMPLE_RATE, power_spectrogram
from avkit.teach.display import Html

# Okabe and Ito's colours, which readers with any common colour blindness can tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW)
COLOUR_MAP = "cividis"
SHORTEST_ALT = 20  # characters: below this an alt text says nothing


def figure(width: float = 8.0, height: float = 3.0, rows: int = 1, columns: int = 1, **options):
    """A figure in inches and its axes: one Axes, or an array of them as in `plt.subplots`.

    `options` go to `Figure.subplots` (sharex, sharey, width_ratios, …). The figure belongs to no window, so
    nothing is shown until `picture` makes it one.
    """
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(rows, columns, **options)


def picture(fig: Figure, alt: str, dpi: int = 80) -> Html:
    """A figure as PNG in an <img> with its alt text: one sentence that says what a reader should see in it.

    Raises:
        InputError: the alt text is missing or too short to say anything.
    """
    if len(alt.strip()) < SHORTEST_ALT:
        raise InputError(f"the alt text {alt!r} is too short: say in a sentence what the picture shows")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return Html(
        f'<img alt="{escape(alt)}" style="max-width:100%" src="data:image/png;base64,{data}">',
        f"[picture: {alt}]",
    )


def spectrogram_db(waveform: Tensor, n_fft: int = 256, hop: int = 128) -> np.ndarray:
    """(L,) samples -> (T, F) power in decibels, no floor but that of rounding (−120 dB)."""
    power = power_spectrogram(torch.as_tensor(waveform).float()[None], n_fft, hop)[0]
    return (10 * power.clamp_min(1e-12).log10()).numpy()


def draw_spectrogram(
    axes: Axes,
    levels: np.ndarray,
    limits: tuple[float, float],
    title: str = "",
    hop: int = 128,
    sample_rate: int = SAMPLE_RATE,
):
    """Draw (T, F) decibels on `axes` between the two limits; time in s, frequency in kHz. Returns the image."""
    frames, bins = levels.shape
    half_hop, half_bin = hop / 2 / sample_rate, sample_rate / 4000 / (bins - 1) if bins > 1 else 0
    extent = (
        -half_hop,
        (frames - 1) * hop / sample_rate + half_hop,
        -half_bin,
        sample_rate / 2000 + half_bin,
    )
    image = axes.imshow(
        levels.T,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap=COLOUR_MAP,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )
    axes.set(title=title, xlabel="time (s)", ylabel="frequency (kHz)")
    return image


def spectrograms(
    sounds: Mapping[str, Tensor],
    alt: str,
    n_fft: int = 256,
    hop: int = 128,
    sample_rate: int = SAMPLE_RATE,
    range_db: float = 70.0,
    height: float = 2.6,
) -> Html:
    """Spectrograms side by side on one decibel scale, from the loudest point of all down by `range_db`.

    Args:
        sounds: title -> waveform (L,).
        alt: what a reader should see, in a sentence.
    """
    levels = {title: spectrogram_db(wave, n_fft, hop) for title, wave in sounds.items()}
    top = max(float(level.max()) for level in levels.values())
    limits = (top - range_db, top)
    fig, axes = figure(min(4.2 * len(levels), 12), height, 1, len(levels), squeeze=False, sharey=True)
    for column, (title, level) in enumerate(levels.items()):
        image = draw_spectrogram(axes[0, column], level, limits, title, hop, sample_rate)
        axes[0, column].label_outer()
    fig.colorbar(image, ax=axes[0].tolist(), label="power (dB)")
    return picture(fig, alt)


def waveforms(
    sounds: Mapping[str, Tensor], alt: str, sample_rate: int = SAMPLE_RATE, height: float = 1.4
) -> Html:
    """Waveforms one above the other, on one time axis and one amplitude scale."""
    fig, axes = figure(8, height * len(sounds) + 0.4, len(sounds), 1, squeeze=False, sharex=True, sharey=True)
    for row, (title, wave) in enumerate(sounds.items()):
        wave = torch.as_tensor(wave).numpy()
        axes[row, 0].plot(np.arange(wave.size) / sample_rate, wave, color=COLOURS[row % len(COLOURS)], lw=0.6)
        axes[row, 0].set(title=title, ylabel="amplitude")
        axes[row, 0].margins(x=0)
    axes[-1, 0].set_xlabel("time (s)")
    return picture(fig, alt)
