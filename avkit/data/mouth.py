"""Drawing a talker's mouth region: 96×96 gray frames at 25 per second from viseme curves and a face.

A face is drawn at random and knows nothing of the voice. Its skin is painted once as a texture (light, nose, folds,
beard, pores), which every frame moves, scales and pulls down with the jaw; lips, teeth and tongue are painted over it
from six curves (`visemes.CURVES`). Everything works on whole clips at once: positions are functions of a frame and a
column, masks are soft steps between such curves. The texture's warp multiplies small whole numbers that floats hold
exactly and curves are rounded to 1/64 pixel, so frames do not depend on the order in which a machine adds.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SIZE = 96
_TEXTURE = 120  # pixels along one side of the skin texture; the mouth's centre is its centre
_AT_ONCE = 10  # frames, few enough to stay in a processor's cache
_TOP, _BOTTOM = 20, 92  # rows that lips can reach
_NOISE = np.round(np.random.Generator(np.random.PCG64(96)).standard_normal(1 << 19, dtype=np.float32) * 32) / 32


@dataclass(frozen=True)
class Face:
    """What a mouth region looks like, all lengths in pixels of the 96×96 frame, all tones in gray levels 0 … 255."""

    half_width: float  # of the closed, relaxed mouth
    upper: float  # thickness of the upper lip
    lower: float
    bow: float  # depth of the cupid's bow, 0 … 1
    gap: float  # widest opening
    smile: float  # height of the corners over the middle
    skew: float  # how much more one side opens, -1 … 1
    roll: float  # radians
    yaw: float  # how much wider one half looks, -1 … 1
    scale: float
    x: float  # centre
    y: float
    skin: float
    lip: float  # lip's tone against the skin's, in gray levels (negative: darker; lipstick is dark)
    gloss: float
    teeth: float
    inside: float
    tongue: float
    light_x: float  # gray levels from left edge to right edge
    light_y: float
    beard: float  # 0 … 1
    moustache: float  # 0 … 1
    folds: float  # depth of the lines beside the mouth
    pores: float
    softness: float  # pixels over which edges blur
    noise: float  # sensor noise in gray levels
    drift: float  # pixels of head movement
    vigour: float  # factor on the mouth's movements
    seed: int  # of texture and movement

    def as_dict(self) -> dict:
        return dict(vars(self))


def draw_face(rng: np.random.Generator) -> Face:
    """A face at random. All of `Face` is rounded to 1/1000, as the label table stores it."""
    skin = rng.uniform(70, 205)
    lipstick = rng.random() < 0.2
    bearded = rng.random() < 0.3
    tone = -rng.uniform(28, 55) if lipstick else -rng.uniform(8, 32)
    values = {
        "half_width": rng.uniform(23.5, 29.5),
        "upper": rng.uniform(4.0, 8.5),
        "lower": rng.uniform(6.0, 11.0),
        "bow": rng.uniform(0.1, 0.45),
        "gap": rng.uniform(16.0, 21.0),
        "smile": rng.uniform(-2.5, 3.0),
        "skew": rng.normal(0, 0.12),
        "roll": rng.normal(0, 0.05),
        "yaw": rng.normal(0, 0.07),
        "scale": rng.uniform(0.93, 1.07),
        "x": 48 + rng.normal(0, 1.2),
        "y": 47 + rng.normal(0, 1.5),
        "skin": skin,
        "lip": tone * (0.4 + skin / 200),
        "gloss": rng.uniform(5, 30),
        "teeth": min(skin * 0.5 + rng.uniform(85, 125), 235),
        "inside": rng.uniform(12, 40),
        "tongue": rng.uniform(0.5, 0.75) * (40 + 0.7 * skin),
        "light_x": rng.normal(0, 22),
        "light_y": rng.normal(-12, 12),
        "beard": rng.uniform(0.3, 1.0) if bearded else 0.0,
        "moustache": rng.uniform(0.3, 1.0) if bearded and rng.random() < 0.8 else 0.0,
        "folds": rng.uniform(2, 16),
        "pores": rng.uniform(0.5, 4.0),
        "softness": rng.uniform(0.9, 2.2),
        "noise": rng.uniform(0.8, 4.5),
        "drift": rng.uniform(0.2, 1.6),
        "vigour": rng.uniform(0.8, 1.15),
    }
    return Face(**{name: round(float(v), 3) for name, v in values.items()}, seed=int(rng.integers(2**31)))


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a square image, edges repeated."""
    kernel = _kernel(len(image), sigma)
    return kernel @ image @ kernel.T


@lru_cache(maxsize=4)
def _kernel(size: int, sigma: float) -> np.ndarray:
    """(size, size) rows of weights that blur along one axis."""
    steps = np.arange(size)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / max(sigma, 0.3)) ** 2)
    return kernel / kernel.sum(1, keepdims=True)


def _beard(face: Face, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darkening by beard and moustache, 0 … about 90 gray levels."""
    if not face.beard and not face.moustache:
        return np.zeros((_TEXTURE, _TEXTURE))
    hair = 0.62 + 0.38 * _smooth(rng.standard_normal((_TEXTURE, _TEXTURE)), 0.45) / 0.6
    chin = 1 / (1 + np.exp(-(np.hypot(x / 1.25, y - 2) - 23) / 2.2)) / (1 + np.exp(-(y - 3 + 0.1 * np.abs(x)) / 3.0))
    lip = np.exp(-(((y + 15 - 0.012 * x**2 * 0.8) / 5.0) ** 4)) / (1 + np.exp((np.abs(x) - 27) / 2.5))
    return (0.28 * face.skin + 15) * np.maximum(face.beard * chin, face.moustache * lip) * hair.clip(0, 1.3)


def _skin(face: Face) -> np.ndarray:
    """(120, 120) texture in whole gray levels: everything but the mouth itself."""
    rng = np.random.default_rng(face.seed)
    axis = np.arange(_TEXTURE) - (_TEXTURE - 1) / 2
    across, down = axis[None, :], axis[:, None]
    x = across * np.cos(face.roll) + down * np.sin(face.roll)
    y = -across * np.sin(face.roll) + down * np.cos(face.roll)
    x = x * (1 + face.yaw * np.tanh(x / 20))
    tone = 0.35 + face.skin / 250  # features show less on dark skin

    def spot(cx: float, cy: float, wx: float, wy: float) -> np.ndarray:
        return np.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2)

    image = face.skin + face.light_x * x / SIZE + face.light_y * y / SIZE
    image = image + tone * (22 * spot(0, -38, 9, 9) - 26 * spot(-12, -33, 4, 6) - 26 * spot(12, -33, 4, 6))
    image = image - tone * 70 * (spot(-6.5, -30, 3.2, 1.9) + spot(6.5, -30, 3.2, 1.9)) - tone * 18 * spot(0, -28, 11, 2.2)
    image = image + tone * (7 * spot(-4, -17, 1.8, 8) + 7 * spot(4, -17, 1.8, 8) - 9 * spot(0, -18, 2.6, 8))
    image = image - tone * 26 * spot(0, face.lower + 7, 15, 4) + tone * 12 * spot(0, face.lower + 21, 14, 8)
    fold = np.abs(x) - (17 + 0.3 * (y + 30) + 0.006 * (y + 30).clip(0) ** 2)
    image = image - tone * face.folds * np.exp(-((fold / 3.5) ** 2)) * spot(0, -8, 60, 24)
    image = image + tone * 7 * (spot(-38, -12, 14, 20) + spot(38, -12, 14, 20)) - tone * 14 * spot(0, 60, 60, 16)
    for side in (-1, 1):
        image = image - tone * 9 * spot(side * (face.half_width + 2.5), 0.5 - face.smile, 3.2, 4.5)
    blotches = _smooth(rng.standard_normal((_TEXTURE, _TEXTURE)), 5.0) * 25
    image = image + face.pores * (rng.standard_normal(image.shape) + 0.5 * blotches) - _beard(face, x, y, rng)
    for _ in range(rng.integers(0, 4)):
        image = image - tone * rng.uniform(10, 45) * spot(rng.uniform(-45, 45), rng.uniform(-40, 45), *rng.uniform(0.8, 1.8, 2))
    return np.round(_smooth(image, 0.45 * face.softness)).clip(0, 255).astype(np.float32)


def _place(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (F, 96) in the texture as whole rows or columns and what remains, in 64ths."""
    fixed = np.round(position.clip(0, _TEXTURE - 1.02) * 64).astype(np.int64)
    return fixed // 64, (fixed % 64).astype(np.float32)


def _warp(texture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(F, 96, 96) texture seen at row and column positions (F, 96) each, interpolated linearly.

    Columns first, on the transposed texture, then rows: either way whole lines are picked, which memory likes.
    """
    lines = np.ascontiguousarray(texture.T)
    column, part = _place(columns)
    across = _interpolate(lines, column, part)  # (F, 96, 120): frames, columns, the texture's rows
    across = np.ascontiguousarray(across.transpose(0, 2, 1)).reshape(-1, SIZE)
    row, part = _place(rows)
    image = _interpolate(across, row + _TEXTURE * np.arange(len(rows))[:, None], part)
    image *= np.float32(2**-12)
    return image


def _interpolate(lines: np.ndarray, first: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(F, 96, n) 64 times what lies `part` 64ths of the way from line `first` to the next, both (F, 96)."""
    out = np.empty((*first.shape, lines.shape[1]), dtype=np.float32)
    for start in range(0, len(first), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        near = np.take(lines, first[some], axis=0, out=out[some], mode="clip")
        change = np.take(lines, first[some] + 1, axis=0, mode="clip")
        change -= near
        change *= part[some, :, None]
        near *= np.float32(64)
        near += change
    return out


def _movement(face: Face, n_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Slow head movement over (n_frames,): x, y in pixels, scale, roll in radians, light (a factor)."""
    t = np.arange(n_frames) / 25

    def wander(size: float) -> np.ndarray:
        rate, phase, weight = rng.uniform(0.15, 1.4, 3), rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.3, 1.0, 3)
        return size * (weight[:, None] * np.sin(2 * np.pi * rate[:, None] * t + phase[:, None])).sum(0) / 1.5

    d = face.drift
    shake = rng.normal(0, 0.12, (2, n_frames))  # what a face tracker leaves from frame to frame
    x, y = face.x + wander(d) + shake[0], face.y + wander(0.8 * d) + shake[1]
    return x, y, face.scale * (1 + wander(0.012 * d)), face.roll + wander(0.012 * d), 1 + wander(0.008)


@dataclass(frozen=True)
class _Shape:
    """Heights over columns, each (F, 96) in pixels: borders of the lips from above to below, and what lies between."""

    top: np.ndarray
    upper: np.ndarray  # lower edge of the upper lip
    lower: np.ndarray  # upper edge of the lower lip
    bottom: np.ndarray
    teeth: np.ndarray  # lower edge of the upper teeth
    lower_teeth: np.ndarray  # upper edge of the lower teeth
    tongue: np.ndarray  # upper edge of the tongue
    across: np.ndarray  # -1 … 1 from corner to corner
    columns: np.ndarray  # (96,) which columns of the image these are

    def between(self, columns: slice) -> "_Shape":
        """Some of the columns."""
        return _Shape(**{name: value[..., columns] for name, value in vars(self).items()})


def _shape(face: Face, curves: np.ndarray, x: np.ndarray, y: np.ndarray, scale: np.ndarray, roll: np.ndarray) -> _Shape:
    opening, width, rounding, teeth, tongue, tuck = (c[:, None] for c in curves.T)
    opening, scale = np.minimum(opening * face.vigour, 1.05), scale[:, None]
    half = face.half_width * scale * (1 + face.vigour * (0.13 * width - 0.2 * rounding - 0.05 * opening))
    offset = np.arange(SIZE) - x[:, None]
    u = offset / (half * (1 + face.yaw * np.sign(offset)))
    inside = (1 - u**2).clip(0)
    middle = y[:, None] + np.tan(roll)[:, None] * offset - face.smile * (u**2).clip(0, 1.2) + 0.6 * np.cos(5 * u) * (1 - opening)
    gap = face.gap * scale * opening * (1 - 0.2 * rounding)
    hole = (1 - (u / (0.92 - 0.12 * rounding)) ** 2).clip(0) ** (0.75 - 0.15 * rounding) * (1 + face.skew * u)
    upper = middle - 0.26 * gap * hole
    lower = middle + 0.74 * gap * hole
    full = 1 + 0.25 * rounding - 0.12 * opening - 0.2 * (opening < 0.02)
    bow = 1 - face.bow * np.exp(-((u / 0.16) ** 2)) + 0.15 * np.exp(-(((np.abs(u) - 0.3) / 0.2) ** 2))
    top = upper - face.upper * scale * full * inside**0.75 * bow
    low = lower + face.lower * scale * full * inside**0.6 * (1 - 0.5 * tuck)
    skull = middle - 0.26 * gap + scale * (1.0 + 6.5 * teeth + 1.5 * tuck - 4.5 * u**2)  # teeth do not follow the lip
    skull = np.where(tongue > 0.75, np.minimum(skull, middle + 0.1 * gap), skull)  # a high tongue covers their edge
    skull = np.minimum(skull, lower + gap - 1)  # a shut mouth shows none
    below = lower - scale * (teeth * (4.0 - 3.0 * tuck) - 1.0 - 2.0 * u**2) * (tongue < 0.8)
    below = np.maximum(below, lower - gap + 1)
    rise = lower - gap * (0.2 + 0.6 * tongue) * (1 - (u / 0.7) ** 2).clip(0) ** 0.5 + 0.5
    beyond = 4.0 * (np.abs(u) >= 1)  # no lips outside the corners
    top, low = top + beyond, low - beyond
    heights = (np.round(v * 64) / 64 for v in (top, upper, lower, low, skull, below, rise, u))
    return _Shape(*heights, columns=np.arange(SIZE, dtype=np.float32))


def _reach(face: Face, shape: _Shape) -> tuple[slice, slice]:
    """Rows (of those that lips can reach) and columns outside of which no mask of this clip's mouth is above 0."""
    within = np.abs(shape.across) <= 1  # rounded, so that the last sliver of a lip may be at 1
    columns = np.flatnonzero(within.any(0))
    blur = 0.5 * face.softness + 1.0
    top = np.minimum(shape.top, shape.upper)[within].min() - blur
    bottom = np.maximum(shape.bottom, shape.lower)[within].max() + blur
    return (
        slice(max(int(np.floor(top)), _TOP), max(min(int(np.ceil(bottom)) + 1, _BOTTOM), _TOP + 1)),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def _between(rows: np.ndarray, upper: np.ndarray, lower: np.ndarray, sharp: np.float32) -> np.ndarray:
    """(F, rows, 96) soft mask, 0 … 1, of what lies below `upper` and above `lower`, both (F, 96)."""
    mask = rows - upper.astype(np.float32)[:, None]
    np.minimum(mask, lower.astype(np.float32)[:, None] - rows, out=mask)
    mask *= sharp
    mask += np.float32(0.5)
    return np.clip(mask, 0, 1, out=mask)


def _lay(image: np.ndarray, mask: np.ndarray, tone: np.ndarray | np.float32) -> None:
    """Cover `image` with `tone` where `mask` says so, in place."""
    change = tone - image
    change *= mask
    image += change


def _lips(face: Face, shape: _Shape, rows: np.ndarray, grain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tones (F, rows, 96) of the upper and the lower lip: shaded round, with creases and a gloss."""
    base = np.float32(face.skin + face.lip)
    light = np.float32(face.light_x / SIZE) * (shape.columns - 48)
    creases = np.round((light + grain) * 64).astype(np.float32) / 64

    def part(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        share = rows - top.astype(np.float32)[:, None]
        share *= (np.round(4096 / np.maximum(bottom - top, 1.0)) / 4096).astype(np.float32)[:, None]
        return share  # 0 at the lip's upper edge, 1 at its lower edge

    above = part(shape.top, shape.upper)
    upper = np.float32(-12) * above
    upper += (base + creases)[:, None] - np.float32(4)
    below = part(shape.lower, shape.bottom)
    lower = below * (np.float32(1) - below)
    lower *= np.float32(3.2 * face.gloss)
    lower -= np.float32(9) * below
    lower += (base + creases)[:, None] - np.float32(2)
    return upper, lower


def _mouth(face: Face, shape: _Shape, image: np.ndarray, grain: np.ndarray) -> None:
    """Paint lips, teeth and tongue into `image` (F, 96, 96), in place; grain (F, 96): of the lips' skin."""
    reached, columns = _reach(face, shape)
    shape, grain, image = shape.between(columns), grain[:, columns], image[:, reached, columns]
    rows = np.arange(reached.start, reached.stop, dtype=np.float32)[:, None]
    sharp = np.float32(1 / face.softness)
    seam = (shape.upper + shape.lower) / 2
    upper, lower = _lips(face, shape, rows, grain)
    _lay(image, _between(rows, shape.top, seam, sharp), upper)
    _lay(image, _between(rows, seam, shape.bottom, sharp), lower)
    line = np.where(np.abs(shape.across) < 0.97, 0.35, -3.0)  # a shut mouth keeps a thin dark line, corner to corner
    hole = _between(rows, shape.upper - line, shape.lower + line, sharp)
    inner = np.full_like(image, face.inside)
    width = np.abs(shape.across)
    ivory = face.teeth * (1 - 0.45 * width.clip(0, 1) ** 2) - 9 * (np.cos(26 * shape.across) > 0.86)
    ivory = np.round(ivory)[:, None].astype(np.float32)
    _lay(inner, _between(rows, shape.lower_teeth, shape.lower + 2, sharp), ivory * np.float32(0.82))
    _lay(inner, _between(rows, shape.tongue, shape.lower + 2, sharp * np.float32(0.5)), np.float32(face.tongue))
    _lay(inner, _between(rows, shape.upper - 9, shape.teeth, sharp), ivory)
    _lay(image, hole, inner)


def draw(face: Face, curves: np.ndarray) -> np.ndarray:
    """(F, 96, 96) uint8 frames of a face whose mouth follows `curves` (F, 6), in the order of `visemes.CURVES`."""
    n_frames = len(curves)
    rng = np.random.default_rng([face.seed, 1])
    x, y, scale, roll, light = _movement(face, n_frames, rng)
    shape = _shape(face, np.asarray(curves, dtype=np.float64), x, y, scale, roll)
    jaw = 0.74 * face.gap * face.vigour * curves[:, 0] * scale
    pixel = np.arange(SIZE)
    down, across = pixel - y[:, None], pixel - x[:, None]
    step = ((down / scale[:, None] + 14) / 42).clip(0, 1)
    centre = (_TEXTURE - 1) / 2
    row = centre + down / scale[:, None] - jaw[:, None] * (3 - 2 * step) * step**2
    pull = (0.07 * curves[:, 1] - 0.1 * curves[:, 2])[:, None] * np.exp(-((across / 34) ** 2))
    image = _warp(_skin(face), row, centre + across / scale[:, None] * (1 - pull))
    grain = rng.standard_normal(64) * 3.0 * (0.4 + face.skin / 250)
    grain = np.interp(shape.across * 26 + 32, np.arange(64), grain)
    _mouth(face, shape, image, grain)
    light = np.round(light * 1024).astype(np.float32) / np.float32(1024)
    amount, pixels = np.float32(face.noise), SIZE * SIZE
    frames = np.empty(image.shape, dtype=np.uint8)
    for i, start in enumerate(rng.integers(0, len(_NOISE) - pixels, n_frames)):
        image[i] *= light[i]
        image[i] += amount * _NOISE[start : start + pixels].reshape(SIZE, SIZE)
        image[i] += np.float32(0.5)
        frames[i] = np.clip(image[i], 0, 255, out=image[i])
    return frames
