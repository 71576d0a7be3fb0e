"""Notebook 13's figures: boxes, tracks, landmarks, crops, and when lips are at rest."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle
from torch import Tensor

from avkit.signal import FRAME_RATE
from avkit.teach import plots
from avkit.teach.display import Html
from avkit.video.crops import MOUTH, STABLE

STYLES = ("-", "--", ":", "-.")


def _gray(axis, picture: np.ndarray, title: str = "") -> None:
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def draw_boxes(pictures: Mapping[str, tuple[np.ndarray, list[tuple[np.ndarray, float]]]]) -> Html:
    """Pictures with the boxes found in them and their scores."""
    fig, axes = plots.figure(4.3 * len(pictures), 2.7, 1, len(pictures), squeeze=False)
    counts = []
    for axis, (title, (gray, found)) in zip(axes[0], pictures.items(), strict=True):
        _gray(axis, gray, title)
        axis.set(xlim=(-0.5, gray.shape[1] - 0.5), ylim=(gray.shape[0] - 0.5, -0.5))
        for (left, top, right, bottom), score in found:
            colour = plots.ORANGE if score >= 0 else plots.SKY
            style = "-" if score >= 0 else "--"
            axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=2, ls=style))
            axis.text(left, top - 3, f"{score:.1f}", color="black", fontsize=8, bbox={"fc": colour, "ec": "none", "pad": 1})
        counts.append(f"{title}: {len(found)} boxes")
    alt = "A picture with a box and a score at each place that was taken for a face; " + "; ".join(counts) + "."
    return plots.picture(fig, alt)


def draw_overlaps(pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], values: Sequence[float]) -> Html:
    """Pairs of boxes and their intersection over union."""
    fig, axes = plots.figure(2.1 * len(pairs), 2.2, 1, len(pairs), squeeze=False)
    for axis, (name, boxes), value in zip(axes[0], pairs.items(), values, strict=True):
        for (left, top, right, bottom), colour, style in zip(boxes, (plots.BLUE, plots.ORANGE), ("-", "--"), strict=True):
            axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=2, ls=style))
        axis.set(xlim=(-0.5, 4.5), ylim=(4.5, -0.5), aspect="equal", xticks=[], yticks=[])
        axis.set_title(f"{name}\n{value:.2f}", fontsize=9)
    words = ", ".join(f"{name} {value:.2f}" for name, value in zip(pairs, values, strict=True))
    return plots.picture(fig, f"Pairs of boxes, each with its intersection over union: {words}.")


def draw_tracks(tracks: Sequence[Mapping[int, Tensor]], cuts: Sequence[int], title: str) -> Html:
    """Where the middle of each track's box is from left to right, over time; cuts as dotted lines."""
    fig, axis = plots.figure(8, 2.6)
    for number, track in enumerate(tracks):
        times = [k / FRAME_RATE for k in track]
        middles = [float(box[0] + box[2]) / 2 for box in track.values()]
        colour, style = plots.COLOURS[number % len(plots.COLOURS)], STYLES[number % len(STYLES)]
        axis.plot(times, middles, color=colour, ls=style, lw=2.5, label=f"track {number + 1}")
    for cut in cuts:
        axis.axvline(cut / FRAME_RATE, color="black", lw=1, ls=":")
        axis.text(cut / FRAME_RATE, axis.get_ylim()[1], " cut", va="top", fontsize=9)
    axis.set(xlabel="time (s)", ylabel="place, left to right (px)", title=title)
    axis.legend(loc="center right")
    spans = "; ".join(f"track {n + 1} from {min(t) / FRAME_RATE:.1f} to {(max(t) + 1) / FRAME_RATE:.1f} s" for n, t in enumerate(tracks))
    return plots.picture(fig, f"Horizontal place of each tracked face over time: {spans}; cuts at {[c / FRAME_RATE for c in cuts]} s.")


def draw_distances(apart: np.ndarray, names: Sequence[str]) -> Html:
    """A matrix of distances between faces, with its numbers."""
    fig, axis = plots.figure(5.2, 3.2)
    image = axis.imshow(apart, cmap=plots.COLOUR_MAP, vmin=0, vmax=max(0.7, float(apart.max())))
    for i, j in np.ndindex(*apart.shape):
        dark = apart[i, j] < 0.35
        axis.text(j, i, f"{apart[i, j]:.2f}", ha="center", va="center", color="white" if dark else "black", fontsize=9)
    axis.set_xticks(range(len(names)), range(1, len(names) + 1), fontsize=8)
    axis.set_xlabel("track")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    fig.colorbar(image, ax=axis, label="distance")
    rows = "; ".join(f"{name}: {', '.join(f'{v:.2f}' for v in row)}" for name, row in zip(names, apart, strict=True))
    return plots.picture(fig, f"Distances between the descriptions of the tracks' faces. {rows}.")


def draw_landmarks(gray: np.ndarray, landmarks: Sequence[np.ndarray]) -> Html:
    """68 landmarks on each face: the stable five as large dots, the mouth's twenty as crosses."""
    fig, axes = plots.figure(3.2 * len(landmarks), 3.2, 1, len(landmarks), squeeze=False)
    for axis, points in zip(axes[0], landmarks, strict=True):
        _gray(axis, gray)
        axis.plot(*points.T, ".", color=plots.SKY, ms=4)
        axis.plot(*points[MOUTH].T, "x", color=plots.YELLOW, ms=5)
        axis.plot(*points[list(STABLE)].T, "o", color=plots.ORANGE, mec="black", ms=8)
        (left, top), (right, bottom) = points.min(0), points.max(0)
        rim = 0.2 * (right - left)
        axis.set(xlim=(left - rim, right + rim), ylim=(bottom + rim, top - 1.5 * rim))
    return plots.picture(
        fig,
        "Faces with 68 dots along jaw, brows, nose, eyes and lips; five large dots at the eyes' corners and below the nose, crosses "
        "on the lips.",
    )


def draw_tremble(turns: Mapping[str, np.ndarray]) -> Html:
    """The tilt of the alignment over time, in degrees, for landmarks taken one by one and averaged."""
    fig, axis = plots.figure(8, 2.4)
    for (name, turn), colour, style, width in zip(turns.items(), (plots.ORANGE, plots.BLUE), ("-", "-"), (1, 2.5), strict=True):
        axis.plot(np.arange(len(turn)) / FRAME_RATE, turn, color=colour, ls=style, lw=width, label=name)
    axis.set(xlabel="time (s)", ylabel="tilt (degrees)")
    axis.legend()
    return plots.picture(fig, "Tilt of the alignment over time: it trembles with landmarks of single frames and is smooth with averaged ones.")


def draw_crops(rows: Mapping[str, np.ndarray], numbers: Sequence[int]) -> Html:
    """Rows of crops (F, 96, 96), the same frames of each."""
    fig, axes = plots.figure(1.05 * len(numbers) + 1.0, 1.1 * len(rows) + 0.2, len(rows), len(numbers), squeeze=False)
    for row, (name, crops) in enumerate(rows.items()):
        for axis, number in zip(axes[row], numbers, strict=True):
            _gray(axis, crops[number], f"{number / FRAME_RATE:.1f} s" if row == 0 else "")
        axes[row, 0].text(-0.12, 0.5, name.replace(", ", ",\n"), transform=axes[row, 0].transAxes, ha="right", va="center", fontsize=9)
    return plots.picture(fig, f"Mouth crops of {len(numbers)} moments, in rows: {', '.join(rows)}.")


def draw_rest(
    motion: Mapping[str, tuple[np.ndarray, np.ndarray]], silent: Mapping[str, np.ndarray], threshold: float, around: int
) -> Html:
    """How lips move (thin), the same over some frames around (thick), the threshold, and what is taken for rest (shaded).

    motion: name -> (motion (F,), activity (F,)); silent: name -> (F,) bool; around: frames on either side.
    """
    fig, axes = plots.figure(8, 1.9 * len(motion), len(motion), 1, squeeze=False, sharex=True, sharey=True)
    said = []
    for axis, (name, (thin, thick)) in zip(axes[:, 0], motion.items(), strict=True):
        times = np.arange(len(thin)) / FRAME_RATE
        axis.plot(times, thin, color=plots.SKY, lw=0.8, label="against 3 frames earlier")
        axis.plot(times, thick, color=plots.BLUE, lw=2.5, label=f"within {around} frames around")
        axis.axhline(threshold, color=plots.RED, ls="--", lw=1.2, label="threshold")
        axis.fill_between(times, 0, 1, where=silent[name], color=plots.ORANGE, alpha=0.35, transform=axis.get_xaxis_transform())
        axis.set(title=name, ylabel="motion")
        said.append(f"{name} at rest for {silent[name].sum() / FRAME_RATE:.1f} s")
    axes[0, 0].legend(fontsize=8, loc="upper right")
    axes[-1, 0].set_xlabel("time (s)")
    return plots.picture(fig, f"Motion of lips over time, {around} frames on either side, with a threshold of {threshold:g}; shaded where they rest: {', '.join(said)}.")


def draw_carried(systems: Mapping[str, tuple[float, float, float]], title: str) -> Html:
    """Bars of SI-SNRi with their intervals: name -> (mean, low, high) in dB."""
    fig, axis = plots.figure(8, 0.5 * len(systems) + 1.0)
    for row, (mean, low, high) in enumerate(systems.values()):
        axis.barh(row, mean, color=plots.BLUE if mean >= 0 else plots.ORANGE, height=0.6)
        axis.plot([low, high], [row, row], color="black", lw=1.5)
        axis.text(max(high, 0) + 0.2, row, f"{mean:.1f}", va="center", fontsize=9)
    axis.set_yticks(range(len(systems)), systems)
    axis.invert_yaxis()
    axis.axvline(0, color="black", lw=0.8)
    axis.margins(x=0.12)
    axis.set(xlabel="SI-SNRi (dB)", title=title)
    words = ", ".join(f"{name} {mean:.1f} dB" for name, (mean, *_) in systems.items())
    return plots.picture(fig, f"SI-SNRi on mixtures of real talkers: {words}.")


def show_overview(folder: Path | str, width: int = 900) -> Html:
    """The picture `overview.png` that a run left in a folder."""
    from PIL import Image

    with Image.open(Path(folder) / "overview.png") as image:
        small = image.convert("RGB").resize((width, round(image.height * width / image.width)))
        words = image.text.get("Comment", "")
    buffer = io.BytesIO()
    small.quantize(96).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    alt = f"Overview of a separated video: pictures with boxed faces, then a row for each person with crops, times and level. {words}"
    return Html(f'<img alt="{escape(alt)}" style="max-width:100%" src="data:image/png;base64,{data}">', f"[picture: {alt}]")
