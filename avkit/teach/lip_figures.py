"""Figures of lips: frames, clocks, mouths, the encoder, what its features tell, and how they keep step with a voice."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from avkit.lips import CROP_SIZE, FRAME_SIZE, LipEncoder
from avkit.signal import FRAME_RATE, SAMPLE_RATE
from avkit.teach import plots
from avkit.teach.diagrams import TINTS, Diagram
from avkit.teach.display import Html

_PER_FRAME = SAMPLE_RATE // FRAME_RATE


def _gray(axis, frame: Tensor, title: str = "", limits: tuple[float, float] = (0, 255)) -> None:
    axis.imshow(frame.numpy(), cmap="gray", vmin=limits[0], vmax=limits[1])
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def draw_stream(frames: Tensor, numbers: Sequence[int]) -> Html:
    """Some of (F, 96, 96) uint8 frames, each with the middle of its time and the outline of its centre crop."""
    fig, axes = plots.figure(1.1 * len(numbers), 1.5, 1, len(numbers), squeeze=False)
    rim = (FRAME_SIZE - CROP_SIZE) / 2
    for axis, number in zip(axes[0], numbers, strict=True):
        _gray(axis, frames[number], f"{number}: {1000 * (number + 0.5) / FRAME_RATE:.0f} ms")
        box = Rectangle((rim - 0.5, rim - 0.5), CROP_SIZE, CROP_SIZE, fill=False, ec=plots.YELLOW, lw=1.2)
        axis.add_patch(box)
    alt = f"Frames {numbers[0]} to {numbers[-1]} of a mouth, with their times; a square just inside each rim marks the crop."
    return plots.picture(fig, alt)


def draw_alignment(picture: Tensor, points: Tensor, carelessly: Tensor, aligned: Tensor) -> Html:
    """A tilted picture with its landmarks, and two crops of it."""
    fig, axes = plots.figure(7, 2.8, 1, 3)
    _gray(axes[0], picture, "the camera's picture")
    axes[0].plot(points.real, points.imag, "o", color=plots.YELLOW, mec="black", ms=7)
    _gray(axes[1], carelessly, "96×96 cut out of it")
    _gray(axes[2], aligned, "aligned first, then cut")
    return plots.picture(
        fig,
        "Left, a tilted mouth with five dots for nose and eye corners above it; middle, a crop in which the mouth is tilted and "
        "small; right, the crop after alignment, level and of full size.",
    )


def draw_clock(voice: Tensor, frames: Tensor, chosen: Tensor, first: int, count: int = 4) -> Html:
    """Samples, lip frames and STFT frames on one time axis.

    Args:
        voice: (T,) samples.
        frames: (F, 96, 96) uint8.
        chosen: (T',) the lip frame that each STFT frame takes, hop 128.
        first, count: which lip frames are drawn.
    """
    fig, axes = plots.figure(8, 4.2, 3, 1, sharex=True, height_ratios=[1, 2.2, 0.8])
    start, stop = 1000 * first / FRAME_RATE, 1000 * (first + count) / FRAME_RATE
    part = slice(first * _PER_FRAME, (first + count) * _PER_FRAME)
    axes[0].plot(
        np.arange(part.start, part.stop) * 1000 / SAMPLE_RATE, voice[part].numpy(), color="black", lw=0.6
    )
    axes[0].set(yticks=[], title="640 samples for each lip frame")
    for number in range(first, first + count):
        left, right = 1000 * number / FRAME_RATE, 1000 * (number + 1) / FRAME_RATE
        colour = plots.COLOURS[number % 4]
        middle = (left + right) / 2
        image = frames[number].numpy()
        axes[1].imshow(
            image, cmap="gray", vmin=0, vmax=255, extent=(middle - 13, middle + 13, 0, 1), aspect="auto"
        )
        axes[1].plot([left + 0.5, right - 0.5], [-0.12, -0.12], color=colour, lw=6, solid_capstyle="butt")
        axes[1].text(left + 1, 0.5, f"{number}", va="center")
        for axis in axes:
            axis.axvline(left, color="gray", lw=0.6, ls=":")
        steps = np.flatnonzero(chosen.numpy() == number)
        axes[2].plot(8 * steps, np.zeros(len(steps)), "o", color=colour, ms=9, mec="black")
    axes[1].set(yticks=[], ylim=(-0.3, 1.1), title="lip frames")
    axes[2].set(
        yticks=[], ylim=(-1, 1), xlim=(start - 2, stop + 2), xlabel="time (ms)",
        title="centres of STFT frames, in the colour of the lip frame they take",
    )  # fmt: skip
    return plots.picture(
        fig,
        f"{count} lip frames of 40 ms under their samples. Below, dots every 8 ms for STFT frames: five dots take each lip frame, "
        "the first of them lying 8 ms after the frame's start.",
    )


def draw_mouths(means: Mapping[str, Tensor]) -> Html:
    """The average (96, 96) mouth of each phoneme, all at one mean brightness and one, raised, contrast."""
    fig, axes = plots.figure(1.05 * len(means), 1.5, 1, len(means), squeeze=False)
    for axis, (name, mean) in zip(axes[0], means.items(), strict=True):
        _gray(axis, mean - mean.mean(), name, (-45, 35))
    return plots.picture(
        fig,
        f"The average mouth in the middle of each of {', '.join(means)}: p, b and m are shut alike, the others differ.",
    )


def shapes_inside(encoder: nn.Module, frames: Tensor) -> dict[str, tuple[int, ...]]:
    """The shapes that leave the front end, each stage and the whole of a lip encoder given (B, 1, F, 88, 88) `frames`."""
    parts = {
        "front end": encoder.frontend,
        **{f"stage {i + 1}": part for i, part in enumerate(encoder.stages)},
    }
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str):
        return lambda module, inputs, output: found.update({name: tuple(output.shape)})

    handles = [part.register_forward_hook(note(name)) for name, part in parts.items()]
    with torch.no_grad():
        found["features"] = tuple(encoder(frames).shape)
    for handle in handles:
        handle.remove()
    return found


@functools.cache
def draw_encoder(count: int = 50) -> Html:
    """The published lip encoder as a row of blocks, with the shapes that a clip of `count` frames has between them."""
    shapes = list(shapes_inside(LipEncoder(), torch.zeros(1, 1, 1, CROP_SIZE, CROP_SIZE)).values())
    front, *stages, features = shapes
    sizes = [f"{front[1]}×{count}×\n{front[3]}×{front[4]}"]
    sizes += [f"{channels}×{count}×\n{height}×{width}" for _, channels, height, width in stages]
    sizes.append(f"{features[1]}×{count}")
    notes = ["5 frames\nat a time"] + ["2 blocks"] * len(stages) + ["over pixels"]
    names = ["front end", *(f"stage {number + 1}" for number in range(len(stages))), "mean"]
    sheet = Diagram(106, 22)
    sheet.lips((4.5, 11), (7, 5))
    sheet.label((4.5, 4), f"1×{count}×\n{CROP_SIZE}×{CROP_SIZE}")
    left = 8.5
    for number, (name, note, size) in enumerate(zip(names, notes, sizes, strict=True)):
        box = sheet.box(name, (15.5 + 15 * number, 11), (10, 8), name, note, flow="lips")
        sheet.arrow((left, 11), box.left)
        sheet.label((box.right[0] + 2.5, 4), size)
        left = box.right[0]
    sheet.arrow((left, 11), (left + 5, 11))
    sheet.axes.plot((25.5, 80.5), (17, 17), color=TINTS["lips"][1], lw=2)
    sheet.label((53, 19.2), "the trunk, a ResNet-18: each frame on its own")
    return sheet.picture(
        f"The lip encoder as a row: {count} frames enter a front end that looks at five frames at a time; then four stages of two "
        "blocks each, every frame on its own, with fewer pixels and more channels at each; a mean over pixels leaves 512 numbers "
        "a frame."
    )


def draw_reach(change: Tensor, spoilt: int) -> Html:
    """(F,) how much each feature column changed when one frame was spoilt."""
    fig, axes = plots.figure(7, 2.2)
    near = range(max(0, spoilt - 8), min(len(change), spoilt + 9))
    colours = [plots.ORANGE if number == spoilt else plots.BLUE for number in near]
    axes.bar(list(near), change[list(near)].numpy(), color=colours)
    axes.set(xlabel="column of the features (lip frame)", ylabel="largest change", xticks=list(near))
    touched = torch.nonzero(change).flatten().tolist()
    return plots.picture(
        fig,
        f"Bars at columns {touched[0]} to {touched[-1]} around the spoilt frame {spoilt}; none elsewhere.",
    )


def draw_drift(curves: Mapping[str, Tensor], base: str) -> Html:
    """One feature (F,) of one clip as several states of one encoder give it, less what the state `base` gives."""
    fig, axes = plots.figure(8, 2.6)
    for (name, curve), style, colour in zip(curves.items(), ("-", "--", ":", "-."), plots.COLOURS):
        time = (np.arange(len(curve)) + 0.5) / FRAME_RATE
        axes.plot(time, (curve - curves[base]).numpy(), style, color=colour, label=name)
    spread = float(curves[base].std())
    axes.set(
        xlabel="time (s)",
        ylabel=f"feature, less {base}",
        title=f"(the feature itself has a spread of {spread:.2f})",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    others = ", ".join(name for name in curves if name != base)
    return plots.picture(
        fig, f"One feature over time, less its value when {base}: {others} all leave the zero line."
    )


def draw_probe(scores: Mapping[str, tuple[float, float]], chance: float, truth: Tensor, read: Tensor) -> Html:
    """Scores of a probe on several kinds of features, and one clip's opening as it is and as it is read.

    Args:
        scores: features -> (share of visemes read right, share of the opening's variance explained).
        chance: share of the commonest viseme.
        truth, read: (F,) opening.
    """
    fig, axes = plots.figure(9, 2.8, 1, 3, width_ratios=[1, 1, 1.5])
    for axis, values in zip(axes, zip(*scores.values(), strict=True), strict=False):
        axis.barh(list(scores), values, color=plots.COLOURS[: len(scores)])
        axis.set(xlim=(0, 1), ylim=(len(scores) - 0.5, -0.5))
    axes[0].axvline(chance, color="black", ls="--", lw=1)
    axes[0].set(title="visemes read right", xlabel="(dashed: always the commonest)")
    axes[1].set(title="opening explained", yticks=[])
    time = (np.arange(len(truth)) + 0.5) / FRAME_RATE
    axes[2].plot(time, truth.numpy(), color="black", lw=1.2, label="as drawn")
    axes[2].plot(time, read.numpy(), "--", color=plots.GREEN, label="as read")
    axes[2].set(title="opening of a mouth never seen", xlabel="time (s)", ylim=(-0.15, 1.45))
    axes[2].legend(fontsize=8, loc="upper right", ncols=2)
    words = "; ".join(f"{name} {a:.0%} and {b:.2f}" for name, (a, b) in scores.items())
    return plots.picture(
        fig,
        f"Visemes read right and opening explained: {words}. Right, the opening read follows the drawn one.",
    )


def draw_reading(right: Mapping[int, float], levels: Mapping[str, float]) -> Html:
    """A reader's share of visemes right as it learns, step -> share, beside what others reach, name -> share."""
    fig, axes = plots.figure(8, 2.8)
    axes.plot(list(right), list(right.values()), "o-", color=plots.COLOURS[0], ms=4)
    last = max(right)
    for (name, share), colour in zip(levels.items(), plots.COLOURS[1:], strict=False):
        axes.axhline(share, color=colour, ls="--", lw=1)
        axes.text(1.01 * last, share, f"{name}, {share:.0%}", va="center", fontsize=8, color=colour)
    axes.set(xlabel="training step", ylabel="visemes right", xlim=(0, last), ylim=(0, 0.75), title="talkers never seen")
    words = "; ".join(f"{name} {share:.0%}" for name, share in levels.items())
    return plots.picture(
        fig,
        f"Visemes of talkers never seen that the new encoder names: {right[min(right)]:.0%} at first, {right[last]:.0%} after "
        f"{last} steps. Dashed, for comparison: {words}.",
    )


def draw_pairs(scores: Mapping[str, Mapping[str, float]]) -> Html:
    """How well a probe tells two sounds apart by one frame: group -> {pair: share}."""
    fig, axes = plots.figure(8, 2.6)
    position, ticks, names = 0.0, [], []
    for colour, (group, pairs) in zip((plots.ORANGE, plots.BLUE), scores.items(), strict=True):
        places = [position + index for index in range(len(pairs))]
        axes.bar(places, list(pairs.values()), color=colour, label=group)
        ticks, names = ticks + places, names + list(pairs)
        position += len(pairs) + 0.7
    axes.axhline(0.5, color="black", ls="--", lw=1, label="guessing")
    axes.set_xticks(ticks, names)
    axes.set(ylabel="told apart", ylim=(0, 1.05))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    words = "; ".join(f"{name} {share:.0%}" for pairs in scores.values() for name, share in pairs.items())
    return plots.picture(fig, f"Share of sounds told apart by one frame: {words}.")


def draw_identity(scores: Mapping[str, Mapping[str, float]]) -> Html:
    """Variance explained of things that are not speech: what is asked -> {features: share}; below 0 counts as 0."""
    fig, axes = plots.figure(8, 2.4)
    kinds = list(next(iter(scores.values())))
    for index, kind in enumerate(kinds):
        places = np.arange(len(scores)) + 0.26 * (index - (len(kinds) - 1) / 2)
        values = [max(0.0, row[kind]) for row in scores.values()]
        axes.bar(places, values, 0.24, color=plots.COLOURS[index], label=kind)
        for place, value in zip(places, values, strict=True):
            axes.text(place, value + 0.02, f"{value:.2f}" if value else "≤ 0", ha="center", fontsize=8)
    axes.set_xticks(range(len(scores)), list(scores))
    axes.set(ylabel="variance explained", ylim=(0, 1.15))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    words = "; ".join(
        f"{what}: " + ", ".join(f"{k} {v:.2f}" for k, v in row.items()) for what, row in scores.items()
    )
    return plots.picture(fig, f"Variance explained by a linear probe. {words}.")


def _standard(curve: Tensor) -> np.ndarray:
    curve = curve.double()
    return ((curve - curve.mean()) / curve.std().clamp_min(1e-9)).numpy()


def draw_synchrony(loudness: Tensor, mouths: Mapping[str, Tensor], values: Sequence[float]) -> Html:
    """One voice's loudness (F,) with the opening (F,) of each of several mouths, and their correlations."""
    fig, axes = plots.figure(9, 2.6, 1, len(mouths), sharey=True, squeeze=False)
    time = (np.arange(len(loudness)) + 0.5) / FRAME_RATE
    titles = [f"{title}: {value:.2f}" for title, value in zip(mouths, values, strict=True)]
    for axis, title, opening in zip(axes[0], titles, mouths.values(), strict=True):
        axis.plot(time, _standard(loudness), color=plots.BLUE, label="loudness")
        axis.plot(time, _standard(opening), "--", color=plots.ORANGE, label="opening")
        axis.set(title=title, xlabel="time (s)")
    axes[0, 0].set_ylabel("standardised")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return plots.picture(
        fig, f"A voice's loudness with the opening of several mouths; correlations: {', '.join(titles)}."
    )


def draw_shift(opening: Tensor, loudness: Tensor, curve: Tensor, shift: int, whose: str) -> Html:
    """Opening and loudness over time, and their correlation at every lag; what the explorer shows."""
    fig, axes = plots.figure(9, 2.8, 1, 2, width_ratios=[1.5, 1])
    time = (np.arange(len(loudness)) + 0.5) / FRAME_RATE
    axes[0].plot(time, _standard(loudness), color=plots.BLUE, label="loudness of the voice")
    axes[0].plot(time, _standard(opening), "--", color=plots.ORANGE, label="opening of the mouth")
    axes[0].set(title=f"{whose}, {shift} frames late", xlabel="time (s)", ylim=(-3, 4.6))
    axes[0].legend(fontsize=8, loc="upper right", ncols=2)
    furthest = len(curve) // 2
    lags, best = np.arange(-furthest, furthest + 1), int(curve.argmax()) - furthest
    now = float(curve[furthest])
    axes[1].plot(lags, curve.numpy(), color="black")
    axes[1].plot(0, now, "o", color=plots.RED, ms=9)
    axes[1].axhline(0, color="gray", lw=0.6)
    moves = float(curve.abs().max()) > 0
    found = f"peak at a lag of {best}" if moves else "no peak: nothing moves"
    axes[1].set(
        title=f"as shown: {now:.2f}; {found}", xlabel="lag (frames)", ylabel="correlation", ylim=(-1, 1)
    )
    return plots.picture(
        fig, f"With {whose}, {shift} frames late, loudness and opening correlate at {now:.2f}; {found}."
    )


def draw_lags(
    lags: Sequence[int], own: Tensor, other: Tensor, shifts: Sequence[int], gains: Sequence[float]
) -> Html:
    """Mean correlation at every lag, and what a network makes of lips that are shifted.

    Args:
        lags: of `own` and `other`, the mean correlations with a voice's own mouth and with another's.
        shifts, gains: frames by which lips are late, and the network's mean SI-SNRi in dB.
    """
    fig, axes = plots.figure(8, 4.2, 2, 1, sharex=True)
    axes[0].plot(lags, own.numpy(), "o-", color=plots.BLUE, ms=3, label="own mouth")
    axes[0].plot(lags, other.numpy(), "--", color=plots.ORANGE, label="another mouth")
    axes[0].set(ylabel="correlation")
    axes[0].legend(loc="upper right")
    axes[1].plot(shifts, gains, "s-", color=plots.GREEN)
    axes[1].set(ylabel="SI-SNRi (dB)", xlabel="lips late by (frames of 40 ms)")
    for axis in axes:
        axis.axhline(0, color="gray", lw=0.6)
        axis.axvline(0, color="gray", lw=0.6, ls=":")
    return plots.picture(
        fig,
        "Top, the correlation of a voice with its own mouth peaks where neither is shifted and dips on both sides; with another "
        "mouth it stays near zero. Bottom, the network's gain is highest there too and falls on both sides.",
    )


def draw_matrix(matrix: Tensor) -> Html:
    """(N, N) correlations, mouths down, voices across."""
    fig, axes = plots.figure(4.6, 3.8)
    image = axes.imshow(matrix.numpy(), cmap=plots.COLOUR_MAP, interpolation="nearest")
    axes.set(xlabel="voice", ylabel="mouth")
    fig.colorbar(image, ax=axes, label="correlation")
    return plots.picture(
        fig,
        "Correlation of every mouth with every voice: the diagonal, each mouth with its own voice, is the brightest line.",
    )
