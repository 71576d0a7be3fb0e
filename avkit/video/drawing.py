"""Boxes and names on pictures, and the overview: who was found where and when, and what was heard of them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from avkit._extras import require
from avkit.checkpoints import write_atomically

COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
)  # Okabe and Ito
_WIDTH, _MARGIN, _LEFT = 1200, 16, 150
_INK, _FAINT, _PAPER = (20, 20, 20), (120, 120, 120), (255, 255, 255)


def colour(number: int) -> tuple[int, int, int]:
    """A person's colour, one that the colour-blind tell apart."""
    return COLOURS[(number - 1) % len(COLOURS)]


@functools.cache
def label(text: str, number: int, size: int = 16) -> np.ndarray:
    """A name on a ground of the person's colour, (h, w, 3) uint8."""
    from PIL import Image, ImageDraw

    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).textbbox((0, 0), text, font=_font(size))
    image = Image.new("RGB", (int(box[2]) + 8, int(box[3]) + 6), colour(number))
    ImageDraw.Draw(image).text((4, 2), text, fill=(0, 0, 0), font=_font(size))
    return np.asarray(image)


@functools.cache
def _font(size: int):
    require("PIL", "Drawing the overview")
    from PIL import ImageFont

    return ImageFont.load_default(size)


def draw_box(rgb: np.ndarray, box: np.ndarray, number: int, text: str) -> None:
    """Frame a face and name it, in place."""
    height, width = rgb.shape[:2]
    left, right = (int(np.clip(round(float(v)), 0, width - 1)) for v in box[[0, 2]])
    top, bottom = (int(np.clip(round(float(v)), 0, height - 1)) for v in box[[1, 3]])
    if right - left < 2 or bottom - top < 2:
        return
    line = max(2, width // 320)
    tone = np.array(colour(number), np.uint8)
    rgb[top : top + line, left:right] = tone
    rgb[max(0, bottom - line) : bottom, left:right] = tone
    rgb[top:bottom, left : left + line] = tone
    rgb[top:bottom, max(0, right - line) : right] = tone
    name = label(text, number)
    y = top - len(name) if top >= len(name) else top
    patch = name[: height - y, : width - left]
    rgb[y : y + len(patch), left : left + patch.shape[1]] = patch


def write_overview(
    path: Path, pictures: list[tuple[float, np.ndarray]], rows: list[dict], seconds: float, notes: list[str]
) -> None:
    """One picture of the whole result, as PNG.

    Args:
        pictures: (seconds, rgb) with boxes drawn in; at most four are shown.
        rows: for each person: "number", "name", "mouths" (up to 8 crops (96, 96)), "seen", "away" and "silent" (lists of (start,
            stop) in seconds), and where it was separated "level" ((n,) 0 … 1 over the whole time), and "words" to say under it.
        seconds: of the whole video.
        notes: lines under everything; also kept in the file's metadata.
    """
    require("PIL", "Drawing the overview")
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    pictures = pictures[:4]
    across = 2 if len(pictures) > 1 else 1
    shown = [
        _scaled(Image.fromarray(rgb), (_WIDTH - (across + 1) * _MARGIN) // across) for _, rgb in pictures
    ]
    tops = [
        max((i.height for i in shown[n : n + across]), default=0) + 24 for n in range(0, len(shown), across)
    ]
    height = sum(tops) + len(rows) * 190 + 40 + 20 * len(notes) + 3 * _MARGIN
    page = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(page)
    y = _MARGIN
    for n, image in enumerate(shown):
        if n and n % across == 0:
            y += tops[n // across - 1]
        x = _MARGIN + (n % across) * (image.width + _MARGIN)
        page.paste(image, (x, y))
        pen.text((x, y + image.height + 2), f"{pictures[n][0]:.1f} s", fill=_FAINT, font=_font(14))
    y += tops[-1] if tops else 0
    for row in rows:
        _draw_person(page, pen, row, y, seconds)
        y += 190
    _draw_clock(pen, y, seconds)
    for n, note in enumerate(notes):
        pen.text((_MARGIN, y + 40 + 20 * n), note, fill=_INK, font=_font(14))
    kept = PngInfo()
    kept.add_text("Comment", " ".join(notes))
    write_atomically(path, lambda name: page.save(name, format="PNG", pnginfo=kept))


def _scaled(image, width: int):
    return image.resize((width, max(1, round(image.height * width / image.width))))


def _draw_person(page, pen, row: dict, y: int, seconds: float) -> None:
    from PIL import Image

    tone = colour(row["number"])
    pen.rectangle([_MARGIN, y, _MARGIN + 10, y + 172], fill=tone)
    pen.text((_MARGIN + 18, y), row["name"], fill=_INK, font=_font(18))
    for n, line in enumerate(row.get("words", [])):
        pen.text((_MARGIN + 18, y + 28 + 18 * n), line, fill=_FAINT, font=_font(13))
    for n, mouth in enumerate(row["mouths"][:8]):
        page.paste(Image.fromarray(mouth), (_LEFT + n * 104, y))
    span = _WIDTH - _LEFT - _MARGIN

    def bar(start: float, stop: float, fill: tuple, top: int, bottom: int) -> None:
        left = _LEFT + span * start / seconds
        pen.rectangle(
            [left, y + top, max(left, _LEFT + span * min(stop, seconds) / seconds), y + bottom], fill=fill
        )

    bar(0, seconds, (235, 235, 235), 102, 112)
    for start, stop in row["seen"]:
        bar(start, stop, tone, 102, 112)
    for start, stop in row.get("away", []):
        bar(start, stop, _FAINT, 104, 110)
    for start, stop in row.get("silent", []):
        bar(start, stop, (250, 225, 225), 116, 172)
    level = row.get("level")
    if level is not None:
        pen.line([_LEFT, y + 144, _LEFT + span, y + 144], fill=(220, 220, 220))
        for n, value in enumerate(
            np.interp(np.linspace(0, len(level) - 1, span), np.arange(len(level)), level)
        ):
            if value > 0.004:
                pen.line([_LEFT + n, y + 144 - 28 * value, _LEFT + n, y + 144 + 28 * value], fill=_INK)


def _draw_clock(pen, y: int, seconds: float) -> None:
    span = _WIDTH - _LEFT - _MARGIN
    step = next((s for s in (0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800) if seconds / s <= 12), 3600)
    for n in range(int(seconds / step) + 1):
        x = _LEFT + span * n * step / seconds
        pen.line([x, y, x, y + 5], fill=_FAINT)
        pen.text((x - 8, y + 7), f"{n * step:g} s", fill=_FAINT, font=_font(12))
