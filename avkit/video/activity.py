"""Who moves the lips when, whether a voice goes with them, and how late the sound is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, median_filter, uniform_filter1d

from avkit.signal import FRAME_RATE, SAMPLE_RATE

_INNER = ((61, 67), (62, 66), (63, 65))  # upper and lower landmarks of the inner lips
_EYES = (36, 45)  # outer corners


def opening(landmarks: np.ndarray) -> np.ndarray:
    """(F, 68, 2) landmarks -> (F,) height of the mouth's opening in widths between the eyes' outer corners."""
    eyes = np.linalg.norm(landmarks[:, _EYES[0]] - landmarks[:, _EYES[1]], axis=-1)
    gap = np.mean([np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=-1) for a, b in _INNER], axis=0)
    return gap / np.maximum(eyes, 1e-6)


def envelope(samples: np.ndarray, rate: int) -> np.ndarray:
    """(T,) samples at 16 kHz -> level in dB, `rate` values a second, each over 40 ms around its middle, 60 dB below the loudest
    at the least."""
    hop, half = SAMPLE_RATE // rate, SAMPLE_RATE // 50
    count, block = len(samples) // hop, 60 * rate
    power = np.zeros(count)
    for first in range(0, count, block):  # a minute at a time: sums of an hour would need a gigabyte
        middle = np.arange(first, min(count, first + block)) * hop + hop // 2
        begin = max(0, int(middle[0]) - half)
        piece = np.asarray(samples[begin : int(middle[-1]) + half], np.float64)
        sums = np.concatenate([np.zeros(1), np.cumsum(np.square(piece))])
        low, high = (np.clip(middle + side * half - begin, 0, len(piece)) for side in (-1, 1))
        power[first : first + block] = (sums[high] - sums[low]) / np.maximum(high - low, 1)
    floor = max(float(power.max(initial=0.0)) * 1e-6, 1e-12)
    return 10 * np.log10(np.maximum(power, floor))


# ----------------------------------------------------------------------------------------------------------- still lips

_STILL, _DOUBTFUL = (
    0.18,
    0.26,
)  # motion below which lips are still; below which they are where no voice goes with them
_UNRELATED = 0.1  # correlation of lips and voice below which they do not go together
_AROUND = FRAME_RATE  # frames on either side that a decision looks at
_SHORTEST_REST = FRAME_RATE  # frames: shorter rests of the lips belong to speech
_LAG = 3  # frames between the crops that are compared
_ROWS, _COLUMNS = np.arange(24, 72, 2), np.arange(16, 80, 2)  # pixels around the mouth that are compared
_SHIFT = 8  # pixels by which crops are shifted to find what fits


def lip_motion(crops: np.ndarray) -> np.ndarray:
    """How much the mouth changes within 0.12 s, (F, 96, 96) uint8 -> (F,).

    Each crop is laid on the one three frames earlier as well as a shift lets it, so that a head that moves does not
    count; what remains is the mean difference around the mouth in standard deviations of the gray levels there.
    """
    out = np.zeros(len(crops))
    for first in range(0, len(crops), 250):  # so that an hour of crops is never in memory
        low = max(0, first - _LAG)
        piece = gaussian_filter(np.array(crops[low : first + 250], np.float32), (0, 1.5, 1.5))
        if len(piece) > _LAG:
            out[low + _LAG : low + len(piece)] = _misfit(piece[_LAG:], piece[:-_LAG])
    out[:_LAG] = out[_LAG] if len(crops) > _LAG else 0.0
    return out


def _misfit(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(n,) least mean difference over shifts, in standard deviations of `now`; both (n, 96, 96).

    Every second pixel is compared: first at shifts by two pixels, then at those by one around each frame's best.
    """
    here = now[:, _ROWS[:, None], _COLUMNS]
    steps = np.arange(-_SHIFT, _SHIFT + 1, 2)
    shifts = [(down, across) for down in steps for across in steps]
    fits = np.stack(
        [_apart(here, before[:, down + _ROWS[:, None], across + _COLUMNS]) for down, across in shifts]
    )
    best, nearest = fits.min(0), np.array(shifts)[fits.argmin(0)]
    each = np.arange(len(now))[:, None, None]
    for fine in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        down, across = (nearest + fine).T[:, :, None, None]
        best = np.minimum(best, _apart(here, before[each, down + _ROWS[:, None], across + _COLUMNS]))
    return best / np.maximum(here.std((1, 2)), 4.0)


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = a - b
    difference -= difference.mean((1, 2), keepdims=True)
    return np.abs(difference).mean((1, 2))


def still_lips(motion: np.ndarray, voice: np.ndarray) -> np.ndarray:
    """(F,) True where no speech can come from these lips: they hardly move for a second or more around.

    Lips that move a little are taken for still where the voice that was separated for them does not go with them.

    Args:
        motion: (F,) of `lip_motion`.
        voice: (T,) samples at 16 kHz of the voice separated for them.
    """
    frames = np.arange(len(motion))
    active = np.array([np.percentile(motion[max(0, k - _AROUND) : k + _AROUND + 1], 90) for k in frames])
    still = (active < _STILL) | ((active < _DOUBTFUL) & (lips_with_voice(motion, voice) < _UNRELATED))
    rests = np.zeros_like(still)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        rests[first:last] = last - first >= min(_SHORTEST_REST, len(still))
    return rests


def lips_with_voice(motion: np.ndarray, voice: np.ndarray) -> float:
    """Correlation of how much lips move with how loud a voice is, both smoothed over 0.2 s; 0 where either is constant."""
    level = envelope(voice, FRAME_RATE)
    count = min(len(level), len(motion))
    if count < 5:
        return 0.0
    a, b = (uniform_filter1d(x[:count], 5, mode="nearest") for x in (motion, level))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 1e-9 else 0.0


# ----------------------------------------------------------------------------------------------- sound and picture apart

_RATE = 100  # values a second at which lips and sound are compared
_FARTHEST = 50  # of those: sound is looked for up to half a second early or late
_LEAST = 4.0  # seconds of lips without which nothing is said
_CLEAR = 2.8  # robust standard deviations by which the best offset must stand out


@dataclass(frozen=True)
class Offset:
    """How late the sound is, in seconds (negative: early), as far as lips tell.

    Attributes:
        seconds: of the best fit; None where there are too few lips.
        clarity: how far the best fit stands out, in robust standard deviations over all offsets.
        clear: whether that is enough to go by.
    """

    seconds: float | None
    clarity: float
    clear: bool


def measure_offset(lips: list[tuple[int, np.ndarray]], sound: np.ndarray) -> Offset:
    """Compare how lips open with how the sound swells, everyone's together, over offsets up to half a second.

    Args:
        lips: (first frame, opening (F,)) of each stretch with lips.
        sound: (T,) samples at 16 kHz, the mixture.
    """
    total, fits, level = 0.0, np.zeros(2 * _FARTHEST + 1), _rise(envelope(sound, _RATE))
    for start, curve in lips:
        ratio = _RATE // FRAME_RATE
        times = (np.arange(ratio * len(curve)) + 0.5) / ratio - 0.5
        smooth = median_filter(curve, 3, mode="nearest")
        change = _rise(np.interp(times, np.arange(len(curve)), np.log(smooth + 0.03)))
        for n in range(len(fits)):
            begin = start * ratio + n - _FARTHEST
            low, high = max(0, -begin), min(len(change), len(level) - begin)
            if high - low >= _RATE // 2:
                fits[n] += len(change) * _correlation(change[low:high], level[begin + low : begin + high])
        total += len(curve) / FRAME_RATE
    if total < _LEAST:
        return Offset(None, 0.0, False)
    best = int(fits.argmax())
    middle = np.median(fits)
    spread = 1.4826 * np.median(np.abs(fits - middle)) + 1e-9
    clarity = float((fits[best] - middle) / spread)
    return Offset((best - _FARTHEST) / _RATE, clarity, clarity >= _CLEAR)


def _rise(curve: np.ndarray) -> np.ndarray:
    return np.gradient(uniform_filter1d(curve, 8)) if len(curve) > 1 else curve


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12))
