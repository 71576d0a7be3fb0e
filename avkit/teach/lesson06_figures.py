"""Figures of notebook 06, CAF."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from torch import Tensor

from avkit.layers import upsample
from avkit.signal import FRAME_RATE, SAMPLE_RATE, power_spectrogram
from avkit.teach import plots
from avkit.teach.display import Html

_MAP, _TWO_SIDED = plots.COLOUR_MAP, "PuOr_r"  # from nothing upwards; and for numbers of both signs


def _lip_times(count: int) -> np.ndarray:
    """Seconds at which lip frames are seen, the middle of each: (count,)."""
    return (np.arange(count) + 0.5) / FRAME_RATE


def _image(axes: Axes, values: Tensor, seconds: float, top: float, **options):
    """(positions, time) as an image over `seconds` and 0 … top."""
    return axes.imshow(
        values.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, top),
        interpolation="nearest",
        **options,
    )


def draw_meeting(a: Tensor, lips: Tensor) -> Html:
    """Features of the sound (C, T, F), one channel of them, above lip features (512, V), on one time axis."""
    detail = a.diff(dim=2).std(dim=(1, 2)) / a.std(dim=(1, 2))  # (C,)
    channel = a[detail.argmax()]  # (T, F)
    channel = channel - channel.mean(dim=0)
    seconds = lips.shape[1] / FRAME_RATE
    fig, axes = plots.figure(10.5, 4.4, 2, 1, sharex=True)
    limit = float(channel.abs().quantile(0.99))
    _image(axes[0], channel.T, seconds, SAMPLE_RATE / 2000, cmap=_TWO_SIDED, vmin=-limit, vmax=limit)
    title = f"sound: one of {a.shape[0]} channels less its mean over time, {a.shape[1]} frames × {a.shape[2]} frequencies"
    axes[0].set(title=title, ylabel="frequency (kHz)")
    order = lips.std(dim=1).argsort(descending=True)[:64]
    limit = float(lips[order].abs().quantile(0.99))
    _image(axes[1], lips[order], seconds, 64, cmap=_TWO_SIDED, vmin=-limit, vmax=limit)
    title = f"lips: the 64 that move most of {lips.shape[0]} features, {lips.shape[1]} frames"
    axes[1].set(title=title, ylabel="feature", xlabel="time (s)")
    return plots.picture(
        fig,
        "Above, one channel of the sound's features: a fine image over time and frequency, both voices in it. Below, lip "
        "features: coarse columns, 25 a second, with no frequency axis at all.",
        dpi=60,
    )


def draw_add_or_multiply(mixture: Tensor, mouth: Tensor) -> Html:
    """A spectrogram as a channel of sound, and the same with a mouth's opening (V,) added and multiplied."""
    power = power_spectrogram(mixture)[:, :65]  # (T, F), up to 4 kHz
    channel = (power / power.max()) ** 0.12  # 0 … 1, faint sounds lifted so that they can be seen
    frames = upsample(mouth[None, None], power[None, None, :, 0])[0, 0]  # (T,)
    seconds = len(mouth) / FRAME_RATE
    fig, axes = plots.figure(10.5, 3.8, 2, 3, sharex=True, height_ratios=(1, 3.4))
    results = {"a channel of the sound": channel, "plus the mouth": channel + frames[:, None]}
    results["times the mouth"] = channel * frames[:, None]
    for column, (title, values) in enumerate(results.items()):
        axes[0, column].set(title=title, ylim=(-0.1, 1.1), yticks=[0, 1])
        image = _image(axes[1, column], values.T, seconds, 4.0, cmap=_MAP, norm=PowerNorm(0.6, 0, 1.8))
        axes[1, column].set_xlabel("time (s)")
        if column:
            axes[0, column].step(_lip_times(len(mouth)), mouth, where="mid", color=plots.RED)
    axes[0, 0].text(0.5, 0.4, "(no lips)", transform=axes[0, 0].transAxes, ha="center")
    axes[0, 0].set_ylabel("mouth")
    axes[1, 0].set_ylabel("frequency (kHz)")
    fig.colorbar(image, ax=axes[1].tolist(), label="value")
    return plots.picture(
        fig,
        "A channel of the sound three times: as it is; plus the mouth's opening, which brightens whole columns and leaves "
        "the pattern in them as it was; times the opening, which blanks columns out where the mouth is shut.",
        dpi=60,
    )


def draw_reach(changes: dict[str, Tensor]) -> Html:
    """How much features change in each lip frame (V,) when a single frame of the video is exchanged."""
    fig, axes = plots.figure(8, 1.5 * len(changes) + 0.5, len(changes), 1, squeeze=False, sharex=True)
    for row, (title, change) in enumerate(changes.items()):
        axes[row, 0].bar(range(len(change)), change / change.max(), color=plots.COLOURS[row])
        axes[row, 0].set(title=title, ylabel="change", yscale="log", ylim=(1e-4, 2))
    axes[-1, 0].set_xlabel("lip frame")
    return plots.picture(
        fig,
        "How much each lip frame's features change when one video frame is exchanged: the lip encoder's in that frame and two "
        "to either side, the visual block's in all frames, most near the one exchanged.",
    )


def draw_clock(count: int, rates: dict[str, tuple[int, int]]) -> Html:
    """Which lip frame each of the first audio frames takes; rates: title -> (audio frames, lip frames) of a clip."""
    fig, axes = plots.figure(8, 1.1 * len(rates) + 0.6, len(rates), 1, squeeze=False, sharex=True)
    for row, (title, (audio, lips)) in enumerate(rates.items()):
        taken = torch.arange(count) * lips // audio
        for t, k in enumerate(taken.tolist()):
            ink = "white" if k % 2 == 0 else "black"
            axes[row, 0].add_patch(Rectangle((t - 0.46, -0.5), 0.92, 1, color=plots.COLOURS[k % 2]))
            axes[row, 0].text(t, 0, str(k), ha="center", va="center", fontsize=9, color=ink)
        axes[row, 0].set(title=title, xlim=(-0.6, count - 0.4), ylim=(-0.55, 0.55), yticks=[])
        axes[row, 0].set_xticks(range(0, count, 5))
    axes[-1, 0].set_xlabel("audio frame (number in the square: lip frame)")
    return plots.picture(
        fig,
        "A row of audio frames with the number of the lip frame that each takes: at 125 frames a second a lip frame serves "
        "five (the first one six), at 62.5 a second three or two.",
    )


def draw_gates(gate: Tensor, attention: Tensor, mouth: Tensor, level: Tensor, order: Tensor) -> Html:
    """Both gates (C, V) by channel and lip frame, above them the mouth (V,) and the voice's level (V,) in dB.

    order: (C,) channels from the bottom up.
    """
    seconds, channels = len(mouth) / FRAME_RATE, len(order)
    fig, axes = plots.figure(10.5, 4.6, 2, 2, sharex=True, height_ratios=(1, 2.6))
    limit = float(gate.abs().quantile(0.99))
    spread = attention * attention.shape[1]
    panels = (
        ("gate (gated path)", gate, {"cmap": _TWO_SIDED, "vmin": -limit, "vmax": limit}, "gate"),
        (
            "attention weight × V",
            spread,
            {"cmap": _MAP, "vmin": 0, "vmax": float(spread.quantile(0.99))},
            "times the mean",
        ),
    )
    for column, (title, weights, options, label) in enumerate(panels):
        above = axes[0, column]
        above.plot(_lip_times(len(mouth)), mouth, color=plots.RED, label="mouth's opening")
        above.plot(_lip_times(len(level)), (level - level.min()) / (level.max() - level.min()), color="black", lw=0.8,
                   ls="--", label="voice's level")  # fmt: skip
        above.set(ylim=(-0.05, 1.7), yticks=[0, 1])
        image = _image(axes[1, column], weights[order], seconds, channels, **options)
        axes[1, column].set(title=title, xlabel="time (s)")
        fig.colorbar(image, ax=axes[1, column], label=label)
    axes[0, 1].legend(loc="upper right", fontsize=8, ncols=2)
    axes[1, 0].set_ylabel("channel, sorted")
    return plots.picture(
        fig,
        "Above, the mouth's opening and the level of the voice over time. Below, by channel, gates and attention weights: in a "
        "few rows at the top the gate rises when the mouth opens, in most rows it falls.",
        dpi=70,
    )


def draw_correlations(found: dict[str, dict[str, Tensor]]) -> Html:
    """Correlation of each channel's lip weights with mouth and voices; path -> what -> (C,)."""
    fig, axes = plots.figure(11, 3.4, 1, len(found), squeeze=False, sharey=True)
    looks = (("o", plots.RED), ("s", "black"), ("^", plots.SKY), ("x", plots.PURPLE))
    for column, (path, moves) in enumerate(found.items()):
        order = next(iter(moves.values())).argsort()
        for (marker, colour), (what, values) in zip(looks, moves.items(), strict=True):
            axes[0, column].plot(values[order], marker, color=colour, ms=4, ls="none", label=what)
        axes[0, column].axhline(0, color="black", lw=0.6)
        title = "gates" if path == "gate" else f"{path} weights"
        axes[0, column].set(title=title, xlabel="channel, sorted", ylim=(-1, 1))
    axes[0, 0].set_ylabel("correlation")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return plots.picture(
        fig,
        "Correlation of each channel's gate and attention weights, sorted: with the talker's own mouth they run from strongly "
        "negative to strongly positive (most gates' are negative), with the own voice likewise; for the other talker's lips, "
        "and for lips that stand still, they stay near zero.",
    )


def draw_gated_channel(key: Tensor, gate: Tensor, gated: Tensor, mouth: Tensor, title: str) -> Html:
    """One channel: gate and mouth (V,) over time, and the rectified sound (T, F) before and after the gate."""
    seconds = len(gate) / FRAME_RATE
    fig, axes = plots.figure(10.5, 3.0, 1, 3, width_ratios=(1.3, 1, 1.1))
    axes[0].plot(_lip_times(len(gate)), gate, color=plots.BLUE, label="gate")
    axes[0].plot(_lip_times(len(mouth)), mouth, color=plots.RED, ls="--", label="mouth's opening")
    axes[0].axhline(0, color="black", lw=0.6)
    axes[0].set(title=title, xlabel="time (s)", xlim=(0, seconds))
    axes[0].legend(loc="best", fontsize=8)
    limit = float(key.quantile(0.99))
    for axis, values, name in ((axes[1], key, "sound, rectified"), (axes[2], gated, "times the gate")):
        image = _image(axis, values.T, seconds, SAMPLE_RATE / 2000, cmap=_TWO_SIDED, vmin=-limit, vmax=limit)
        axis.set(title=name, xlabel="time (s)", ylabel="frequency (kHz)")
    axes[2].set_ylabel("")
    fig.colorbar(image, ax=axes[2], label="value")
    low, high = float(gate.min()), float(gate.max())
    words = (
        f"{title}: the gate runs between {low:.2f} and {high:.2f}; beside it the channel before and after it."
    )
    return plots.picture(fig, words, dpi=68)


def draw_lesions(found: dict[str, list[float]]) -> Html:
    """SI-SNRi of every output under each lesion: points, and their mean as a bar."""
    fig, axes = plots.figure(8, 0.45 * len(found) + 0.8)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    for row, (name, values) in enumerate(found.items()):
        colour = plots.BLUE if row == 0 else plots.SKY if "attention" in name else plots.ORANGE
        axes.barh(row, means[name], color=colour, height=0.6)
        axes.plot(values, [row] * len(values), "|", color="black", ms=8)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xlabel("SI-SNRi (dB): bar the mean, strokes the single outputs")
    words = ", ".join(f"{name} {value:.1f} dB" for name, value in means.items())
    return plots.picture(fig, f"Gain over the mixture: {words}.")


def draw_probe(accuracy: dict[str, float]) -> Html:
    """Share of time–frequency points that a linear probe assigns to the right talker, stage by stage."""
    fig, axes = plots.figure(7, 2.6)
    names, values = list(accuracy), [100 * value for value in accuracy.values()]
    axes.plot(values, "o-", color=plots.BLUE)
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.0f} %", (place, value), xytext=(0, 8), textcoords="offset points", ha="center"
        )
    axes.axhline(50, color="black", ls=":", lw=1)
    axes.set(ylabel="right (%)", ylim=(45, 105), xlim=(-0.4, len(values) - 0.6))
    axes.set_xticks(range(len(names)), names)
    words = ", ".join(f"{name} {value:.0f} %" for name, value in zip(names, values, strict=True))
    return plots.picture(fig, f"A linear probe tells whose a point is: {words}; 50 % is guessing.")


def draw_late(shifts: list[int], curves: dict[str, list[float]]) -> Html:
    """SI-SNRi when lips, or a part of CAF's weights, are late by frames; what is late -> one value per shift."""
    fig, axes = plots.figure(8, 3.2)
    milliseconds = [1000 * shift / FRAME_RATE for shift in shifts]
    looks = (("o-", plots.BLUE), ("^--", plots.RED), ("s-", plots.SKY), ("x:", "black"))
    for (look, colour), (name, values) in zip(looks, curves.items(), strict=True):
        label = "lips late, against the other voice" if name == "the other voice" else name
        axes.plot(milliseconds, values, look, color=colour, ms=5, label=label)
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel="late by (ms)", ylabel="SI-SNRi (dB)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    ends = ", ".join(f"{name} from {values[0]:.1f} to {values[-1]:.1f} dB" for name, values in curves.items())
    return plots.picture(fig, f"SI-SNRi from 0 to {milliseconds[-1]:.0f} ms: {ends}.")
