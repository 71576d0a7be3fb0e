"""Who moves the lips when, whether a voice goes with them, and how late the sound is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avkit.signal import FRAME_RATE, SAMPLE_RATE
from avkit.video.tracking import SEEN

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
    hop, half = SAMPLE_RATE / rate, SAMPLE_RATE // 50
    sums = np.concatenate([np.zeros(1), np.cumsum(np.square(samples, dtype=np.float64))])
    middle = ((np.arange(int(len(samples) / hop)) + 0.5) * hop).astype(int)
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half, len(samples))
    power = (sums[high] - sums[low]) / np.maximum(high - low, 1)
    floor = max(float(power.max(initial=0.0)) * 1e-6, 1e-12)
    return 10 * np.log10(np.maximum(power, floor))
