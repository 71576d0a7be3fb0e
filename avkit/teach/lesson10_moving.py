"""A moving picture of two networks at work: which stream talks to which, and when."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from avkit.registry import find_preset
from avkit.teach import plots
from avkit.teach.display import Html

SOUND, LIPS = 1.0, 0.0  # heights of the two lanes
STEP_MS, ROUNDS = 900, 5


def draw_step(step: int, rtfs: str = "rtfs-net-12", iianet: str = "iianet") -> Figure:
    """Step number `step` (from 0) of both networks: passes of the RTFS block above, cycles of IIANet below."""
    config = find_preset(iianet).config
    repeats = find_preset(rtfs).config.repeats
    fig = Figure(figsize=(8.6, 4.3), facecolor="white")
    fig.subplots_adjust(left=0.08, right=0.99, bottom=0.07, top=0.93, hspace=0.42)
    above, below = fig.subplots(2, 1)
    _lanes(above, f"{rtfs}: {repeats} passes", repeats, [0], config.cycles, step)
    _lanes(
        below,
        f"{iianet}: {config.cycles} cycles",
        config.cycles,
        range(config.fusion_cycles),
        config.cycles,
        step,
    )
    if step == 0:
        _say(above, step, "CAF: lips → sound")
    elif step >= repeats:
        _say(above, step, "finished")
    else:
        _say(above, step, "the sound alone")
    words = (
        "InterA-T: lips ↔ sound;  InterA-M: lips → sound"
        if step < config.fusion_cycles
        else "the sound alone"
    )
    _say(below, step, words)
    return fig


def _lanes(axes: Axes, title: str, count: int, meetings: Iterable[int], width: int, step: int) -> None:
    """Two lanes with a box for each step of each stream; boxes that have run are filled, the one at work is yellow."""
    meetings = set(meetings)
    lips_end = max(meetings) + 1
    for lane, end, colour in ((SOUND, count, plots.BLUE), (LIPS, lips_end, plots.ORANGE)):
        axes.plot((-0.8, end - 0.6), (lane, lane), color="#BBBBBB", lw=1, zorder=1)
        for place in range(end):
            now = place == step
            face = plots.YELLOW if now else colour if place < step else "white"
            axes.plot(
                place,
                lane,
                "s",
                ms=15 if now else 12,
                mfc=face,
                mec="black" if now else colour,
                mew=2 if now else 1,
                zorder=3,
            )
    both_ways = len(meetings) > 1  # InterA-T talks in both directions, CAF and InterA-M in one
    for place in meetings:
        now, passed = place == step, place < step
        style = {"lw": 3 if now else 1.2, "color": "black" if now else "#777777" if passed else "#CCCCCC"}
        if both_ways:
            _arrow(axes, place - 0.17, "<->", style)
        _arrow(axes, place + (0.17 if both_ways else 0), "->", style)
    axes.set(xlim=(-1, width - 0.3), ylim=(-0.95, 1.6), yticks=[SOUND, LIPS], xticks=range(width))
    axes.set_yticklabels(["sound", "lips"])
    axes.set_xticklabels([str(place + 1) for place in range(width)])
    axes.set_title(title, loc="left", fontsize=11)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)


def _arrow(axes: Axes, x: float, kind: str, style: dict) -> None:
    """From the lips' lane up to the sound's."""
    axes.annotate(
        "",
        (x, SOUND - 0.22),
        (x, LIPS + 0.22),
        arrowprops={"arrowstyle": kind, "shrinkA": 0, "shrinkB": 0, **style},
    )


def _say(axes: Axes, step: int, words: str) -> None:
    axes.text(0.99, 0.02, f"step {step + 1}: {words}", transform=axes.transAxes, ha="right", fontsize=11)


def describe(rtfs: str = "rtfs-net-12", iianet: str = "iianet") -> str:
    """The moving picture in words."""
    config, repeats = find_preset(iianet).config, find_preset(rtfs).config.repeats
    return (
        f"A moving picture in {config.cycles} steps. {rtfs}: lips and sound meet once, after the first of {repeats} passes, and only "
        f"the sound is told; the rest is the sound alone. {iianet}: in the first {config.fusion_cycles} of {config.cycles} cycles "
        "InterA-T tells either stream of the other and InterA-M tells the sound of the lips; then the lips leave, and the sound "
        f"goes on alone for {config.cycles - config.fusion_cycles} cycles."
    )


def moving_picture(rtfs: str = "rtfs-net-12", iianet: str = "iianet", dpi: int = 72) -> Html:
    """All steps one after the other as an animated GIF, shown a few times over, that stops at its last step."""
    frames = []
    for step in range(find_preset(iianet).config.cycles):
        canvas = FigureCanvasAgg(draw_step(step, rtfs, iianet))
        canvas.figure.set_dpi(dpi)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        frames.append(image.quantize(32, dither=Image.Dither.NONE))
    buffer, durations = io.BytesIO(), [2 * STEP_MS] + [STEP_MS] * (len(frames) - 2) + [4 * STEP_MS]
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=ROUNDS, optimize=True
    )
    alt = describe(rtfs, iianet)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Html(
        f'<img alt="{escape(alt)}" style="max-width:100%" src="data:image/gif;base64,{data}">',
        f"[moving picture: {alt}]",
    )
