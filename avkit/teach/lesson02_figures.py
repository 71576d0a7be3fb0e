"""Figures and tables of notebook 02, mixtures, masks and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from torch import Tensor

from avkit.signal import SAMPLE_RATE
from avkit.teach import plots
from avkit.teach.display import Html

_STYLES = (("o", plots.BLUE), ("s", plots.ORANGE), ("^", plots.GREEN), ("D", plots.RED), ("v", plots.PURPLE))


# Mixing ---------------------------------------------------------------------------------------------------------


def draw_voices(levels: Mapping[str, Tensor]) -> Html:
    """The two voices (2, L) of each mixture in front of one another, on one scale."""
    fig, axes = plots.figure(10, 2.3, 1, len(levels), squeeze=False, sharey=True)
    for axis, (title, voices) in zip(axes[0], levels.items(), strict=True):
        for voice, name, colour in zip(voices, ("first", "second"), (plots.BLUE, plots.ORANGE), strict=True):
            axis.plot(np.arange(len(voice)) / SAMPLE_RATE, voice, color=colour, lw=0.5, label=f"{name} voice")
        axis.set(title=title, xlabel="time (s)", xlim=(0, len(voice) / SAMPLE_RATE))
    axes[0, 0].set_ylabel("amplitude")
    axes[0, -1].legend(loc="lower right", fontsize=8)
    return plots.picture(
        fig,
        f"Waveforms of two voices in front of one another, {', '.join(levels)}: the second voice shrinks from panel to panel "
        "until it is a thin line.",
    )


# Masks ----------------------------------------------------------------------------------------------------------


def draw_mask(axes, mask: Tensor, title: str, hop: int):
    """One real mask (F, T) on `axes`, 0 dark and 1 bright; what lies above 1 looks like 1. Returns the image."""
    extent = (0, mask.shape[1] * hop / SAMPLE_RATE, 0, SAMPLE_RATE / 2000)
    image = axes.imshow(
        mask.numpy(),
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap="cividis",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axes.set(title=title, xlabel="time (s)", ylabel="frequency (kHz)")
    return image


def draw_masks(masks: Mapping[str, Tensor], hop: int = 64) -> Html:
    """Half a second of masks (F, T) side by side, up to 3 kHz; of complex ones the length."""
    fig, axes = plots.figure(2.9 * len(masks) + 0.8, 2.7, 1, len(masks), squeeze=False, sharey=True)
    for axis, (title, mask) in zip(axes[0], masks.items(), strict=True):
        image = draw_mask(axis, mask.abs().float(), title, hop)
        axis.set(ylim=(0, 3), xlim=(0.9, 1.4))
        axis.label_outer()
    fig.colorbar(image, ax=axes[0].tolist(), label="mask", extend="max")
    return plots.picture(
        fig,
        "Masks of one voice side by side: the binary one dark and bright only, the ratio mask with the same pattern in shades, "
        "the phase-sensitive and the complex one with more contrast.",
    )


def _arrow(
    axes, start: complex, end: complex, colour: str, text: str, shift: tuple[float, float] = (0, 0)
) -> None:
    axes.annotate(
        "",
        xy=(end.real, end.imag),
        xytext=(start.real, start.imag),
        arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0},
    )
    middle = (start + end) / 2
    axes.text(middle.real + shift[0], middle.imag + shift[1], text, color=colour, fontsize=11, weight="bold")


def draw_phasors() -> Html:
    """One point of the plane as arrows: voice, other voice, mixture, and how near two real masks come to the voice."""
    fig, axes = plots.figure(9.5, 3.8, 1, 2)
    cases = (
        ("the voices at an angle", 0.5 * np.exp(1.75j), 1.0 * np.exp(0.1j), (-0.08, 0.05)),
        ("the voices cancel", 1.0 * np.exp(0.35j), 0.55 * np.exp(3.0j), (0.15, -0.03)),
    )
    for axis, (title, voice, other, shift_s) in zip(axes, cases, strict=True):
        mixture = voice + other
        ratio = abs(voice) / (abs(voice) + abs(other))
        best = float(np.real(voice * np.conj(mixture)) / abs(mixture) ** 2)
        _arrow(axis, 0j, voice, plots.BLUE, "S", shift_s)
        _arrow(axis, voice, mixture, plots.ORANGE, "other", (0.0, 0.05))
        _arrow(axis, 0j, mixture, "black", "X", (0.02, -0.11))
        for share, style, colour, name in (
            (ratio, "o", plots.PURPLE, f"ratio mask, {ratio:.2f} X"),
            (best, "D", plots.GREEN, f"nearest point, {best:.2f} X"),
        ):
            point = share * mixture
            axis.plot([point.real, voice.real], [point.imag, voice.imag], ":", color=colour, lw=2)
            axis.plot(point.real, point.imag, style, color=colour, ms=9, label=name)
        axis.axline((0, 0), (mixture.real, mixture.imag), color="gray", lw=0.7, zorder=0)
        axis.set(title=title, xlim=(-0.15, 1.55), ylim=(-0.3, 0.85), aspect="equal", xlabel="real")
        axis.legend(loc="lower right", fontsize=9)
    axes[0].set_ylabel("imaginary")
    return plots.picture(
        fig,
        "Two drawings of arrows. In each the voice S and the other voice add up to the mixture X; the nearest point to S on "
        "the line through X is where a perpendicular from S meets it. It is nearer than the ratio mask's point, and "
        "lies beyond X where the voices cancel.",
    )


def draw_bounds(
    windows: Sequence[int], scores: Mapping[str, Sequence[float]], network: float, window: int
) -> Html:
    """SI-SNR of each ideal mask against the window's length in samples, and a trained network's at its own `window`."""
    fig, axes = plots.figure(8, 3.6)
    milliseconds = [1000 * window / SAMPLE_RATE for window in windows]
    for (name, values), (marker, colour) in zip(scores.items(), _STYLES, strict=False):
        axes.semilogx(milliseconds, values, marker + "-", color=colour, base=2, label=name)
    at = 1000 * window / SAMPLE_RATE
    axes.plot(at, network, "*", color="black", ms=13, label="rtfs-net-tiny, trained")
    axes.set_xticks(milliseconds, [f"{value:g}" for value in milliseconds])
    axes.set(xlabel="window (ms)", ylabel="SI-SNR (dB)", ylim=(0, None))
    axes.minorticks_off()
    axes.grid(axis="y", color="0.9")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return plots.picture(
        fig,
        "SI-SNR of four ideal masks against window length: the complex mask lies far above the phase-sensitive one, which lies "
        "above the binary and the ratio mask; the real masks are best near 64 ms. "
        f"A star marks the trained network, at {at:g} ms.",
    )


# Scores ---------------------------------------------------------------------------------------------------------


def draw_projection() -> Html:
    """An estimate as an arrow, split along and across the reference."""
    fig, axes = plots.figure(7, 2.7)
    reference, estimate = 2.0 + 0j, 1.35 + 0.62j
    along = estimate.real + 0j
    _arrow(axes, 0j, reference, plots.BLUE, "", (0, 0))
    axes.text(1.75, -0.13, "reference", color=plots.BLUE, fontsize=11, weight="bold")
    _arrow(axes, 0j, estimate, "black", "estimate", (-0.42, 0.1))
    _arrow(axes, 0j, along, plots.GREEN, "target", (-0.1, -0.15))
    _arrow(axes, along, estimate, plots.RED, "error", (0.04, 0))
    _arrow(axes, estimate, 1.6 * estimate, "gray", "louder", (0.02, -0.1))
    axes.set(xlim=(-0.1, 2.5), ylim=(-0.25, 1.1), aspect="equal")
    axes.axis("off")
    return plots.picture(
        fig,
        "The estimate as a slanted arrow; its target part lies along the reference, its error part stands upright on it. A "
        "longer estimate makes both longer in the same ratio.",
    )


def draw_delays(samples: Sequence[float], scores: Mapping[str, Sequence[float]]) -> Html:
    """Scores of a perfect voice against how many samples it comes late (or early, left of zero)."""
    fig, axes = plots.figure(8, 3.0)
    for (name, values), (marker, colour) in zip(scores.items(), _STYLES, strict=False):
        axes.plot(samples, values, marker + "-", color=colour, ms=4, lw=1.2, label=name)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(xlabel="samples late (16 of them are a millisecond)", ylabel="dB")
    axes.legend()
    return plots.picture(
        fig,
        "Scores of a shifted voice: SI-SNR falls from 100 dB to below 10 at one sample, to either side; SDR stays high for "
        "later copies and falls for earlier ones.",
    )


def draw_before_after(before: Tensor, after: Tensor) -> Html:
    """SI-SNR of each voice in the mixture and after separation, (mixtures, 2); the louder voice has its own colour."""
    fig, axes = plots.figure(5.6, 3.6)
    louder = before >= before.flip(1)
    for chosen, name, marker, colour in (
        (louder, "louder voice", "o", plots.BLUE),
        (~louder, "quieter voice", "^", plots.ORANGE),
    ):
        axes.plot(before[chosen], after[chosen], marker, color=colour, label=name)
    low, high = float(min(before.min(), after.min())) - 1, float(max(before.max(), after.max())) + 1
    for gain in (0, 5, 10):
        axes.axline((low, low + gain), slope=1, color="gray", lw=0.8, ls="-" if gain == 0 else ":")
        axes.text(high - gain, high + 0.2, f"+{gain} dB" if gain else "no gain", fontsize=8, ha="center")
    axes.set(
        xlabel="SI-SNR in the mixture (dB)",
        ylabel="SI-SNR separated (dB)",
        xlim=(low, high),
        ylim=(low, high),
    )
    axes.legend(loc="lower right")
    return plots.picture(
        fig,
        "SI-SNR of each voice after separation against before: the louder voices start higher; height above the diagonal is "
        "the improvement.",
    )


def show_scores(rows: Mapping[str, Mapping[str, float]], title: str) -> Html:
    """A table, a row for each sound and a column for each score. Decibels with one decimal, the other scores with two."""
    names = list(next(iter(rows.values())))
    places = {name: 2 if name in ("PESQ", "STOI") else 1 for name in names}
    cell = 'style="text-align:right;padding:.1em .8em"'
    head = "".join(f'<th scope="col" {cell}>{escape(name)}</th>' for name in names)
    body, lines = "", [title]
    for label, scores in rows.items():
        numbers = [f"{scores[name]:.{places[name]}f}".replace("-", "−") for name in names]
        cells = "".join(f"<td {cell}>{number}</td>" for number in numbers)
        body += (
            f'<tr><th scope="row" style="text-align:left;padding:.1em .8em">{escape(label)}</th>{cells}</tr>'
        )
        lines.append(
            f"{label}: " + ", ".join(f"{name} {number}" for name, number in zip(names, numbers, strict=True))
        )
    html = (
        f'<table class="avkit-scores" style="border-collapse:collapse"><caption style="text-align:left">{escape(title)}'
        f"</caption><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
    return Html(html, "\n".join(lines))


# Training -------------------------------------------------------------------------------------------------------


def draw_learning(losses: Mapping[str, Sequence[float]]) -> Html:
    """Losses in dB against training steps."""
    fig, axes = plots.figure(7, 2.8)
    for (name, values), (_, colour) in zip(losses.items(), _STYLES, strict=False):
        axes.plot(values, color=colour, label=name)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(xlabel="training step", ylabel="loss: negative SI-SNR (dB)")
    axes.legend()
    last = ", ".join(f"{name} {values[-1]:z.0f} dB" for name, values in losses.items())
    return plots.picture(
        fig, f"Two curves of loss against training steps, starting together; at the end: {last}."
    )


def draw_pairs(pairs: Tensor) -> Html:
    """(2, 2) losses: a row for each reference, a column for each estimate, with its number in each field."""
    fig, axes = plots.figure(3.6, 2.4)
    axes.imshow(pairs.numpy(), cmap="cividis_r")
    middle = float(pairs.min() + pairs.max()) / 2
    for i, j in np.ndindex(2, 2):
        colour = "white" if float(pairs[i, j]) > middle else "black"
        axes.text(j, i, f"{float(pairs[i, j]):.1f}", ha="center", va="center", color=colour, fontsize=13)
    axes.set_xticks([0, 1], ["output 1", "output 2"])
    axes.set_yticks([0, 1], ["voice 1", "voice 2"])
    listed = ", ".join(
        f"voice {i + 1} with output {j + 1} {float(pairs[i, j]):.1f}" for i, j in np.ndindex(2, 2)
    )
    return plots.picture(fig, f"A table of four losses in dB: {listed}.")


def draw_levels(
    mask: Tensor, hop: int, title: str, levels: Sequence[int], before: Tensor, after: Tensor, chosen: int
) -> Html:
    """The first voice's mask, and its SI-SNR before and after masking at each level difference."""
    fig, (left, right) = plots.figure(10, 3.1, 1, 2)
    draw_mask(left, mask.abs().float(), title, hop)
    left.set(ylim=(0, 3), xlim=(0.9, 1.4))
    right.plot(levels, before, "o-", color="gray", label="mixture")
    right.plot(levels, after, "s-", color=plots.BLUE, label="masked")
    index = list(levels).index(chosen)
    low, high = (round(float(scores[index]), 1) for scores in (before, after))  # rounded first: the gain fits the two
    right.annotate(
        "",
        xy=(chosen, high),
        xytext=(chosen, low),
        arrowprops={"arrowstyle": "->", "color": plots.RED, "lw": 2},
    )
    gain = right.text(
        chosen - 0.6, (low + high) / 2, f"{high - low:+.1f} dB", color=plots.RED, va="center", ha="right"
    )
    gain.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    right.set(
        xlabel="first voice over second (dB)",
        ylabel="SI-SNR, first voice (dB)",
        ylim=(-13, 45),
        xlim=(-16, 12),
    )
    right.legend(loc="lower right")
    return plots.picture(
        fig,
        f"{title}, first voice {chosen:+d} dB against the second: SI-SNR {low:z.1f} dB in the mixture, {high:z.1f} dB masked, "
        f"a gain of {high - low:.1f} dB.",
    )
