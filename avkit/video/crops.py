"""Mouth crops as the published lip encoders were trained on: aligned to a mean face, 96×96 gray pixels around the mouth.

Landmarks averaged over 12 frames give the similarity transform that brings the nose and the corners of the eyes to those of
a mean face in a frame of 256×256 pixels; the crop is centred on the mean of the 20 mouth landmarks of the frame itself
(Ma et al. 2021, Towards practical lipreading with distilled and efficient models, and its public preparation of LRW).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.ndimage import map_coordinates

from avkit.lips import FRAME_SIZE

STABLE = (
    33,
    36,
    39,
    42,
    45,
)  # landmarks that speech hardly moves: below the nose, outer and inner corners of the eyes
MEAN_FACE = np.array(
    [[128.87, 137.30], [92.52, 94.37], [112.77, 94.94], [145.53, 94.53], [166.68, 93.57]]
)  # of STABLE
ALIGNED = 256  # pixels, of the mean face's frame
WINDOW = 12  # frames from the present one on over which landmarks are averaged
MOUTH = slice(48, 68)


def similarity(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least-squares similarity transforms that bring landmarks to the mean face.

    Args:
        points: (F, 5, 2), the landmarks STABLE.

    Returns:
        a, b: (F,) complex each; x + iy is brought to a·(x + iy) + b. |a| is the magnification.
    """
    here = points[..., 0] + 1j * points[..., 1]
    there = MEAN_FACE[:, 0] + 1j * MEAN_FACE[:, 1]
    centred = here - here.mean(-1, keepdims=True)
    a = (centred.conj() * (there - there.mean())).sum(-1) / np.maximum((np.abs(centred) ** 2).sum(-1), 1e-9)
    return a, there.mean() - a * here.mean(-1)


def smooth(landmarks: np.ndarray, breaks: tuple[int, ...] = ()) -> np.ndarray:
    """(F, n, 2) landmarks averaged over the present and the next 11 frames; never across a break (the first frame of a new shot).

    Where fewer than 12 frames are left, the last whole window is used, as in the public preparation.
    """
    out = np.empty(landmarks.shape, np.float64)
    for first, last in pieces(len(landmarks), breaks):
        piece = landmarks[first:last].astype(np.float64)
        window = min(WINDOW, len(piece))
        sums = np.concatenate([np.zeros((1, *piece.shape[1:])), piece.cumsum(0)])
        means = (sums[window:] - sums[:-window]) / window
        out[first:last] = means[np.minimum(np.arange(len(piece)), len(means) - 1)]
    return out


def pieces(length: int, breaks: tuple[int, ...]) -> list[tuple[int, int]]:
    """[first, last) of the pieces that breaks cut a length into."""
    edges = [0, *sorted(b for b in breaks if 0 < b < length), length]
    return list(pairwise(edges))


class Aligner:
    """Where each frame's crop lies in its picture.

    Args:
        landmarks: (F, 68, 2) in pixels of the picture.
        breaks: frames with which a new shot begins.
    """

    def __init__(self, landmarks: np.ndarray, breaks: tuple[int, ...] = ()):
        self.a, self.b = similarity(smooth(landmarks[:, STABLE], breaks))
        mouth = landmarks[:, MOUTH].mean(1)
        centre = self.a * (mouth[:, 0] + 1j * mouth[:, 1]) + self.b
        half = FRAME_SIZE // 2
        x = np.round(centre.real).clip(half, ALIGNED - half)
        y = np.round(centre.imag).clip(half, ALIGNED - half)
        self.corner = x - half + 1j * (y - half)  # of the crop in the mean face's frame

    def crop(self, index: int, gray: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """(96, 96) uint8 of one frame.

        gray: (H, W) uint8 picture, `scale` times the size that the landmarks are in.
        """
        grid = np.arange(FRAME_SIZE)
        wanted = self.corner[index] + grid[None, :] + 1j * grid[:, None]
        place = (wanted - self.b[index]) / self.a[index] * scale
        return sample(gray, place.real, place.imag)


def sample(gray: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gray values at (x, y), interpolated linearly; black outside. A picture much larger than the grid is averaged down first."""
    step = np.hypot(x[0, 1] - x[0, 0], y[0, 1] - y[0, 0])
    left, top = (max(0, int(np.floor(v.min())) - 2) for v in (x, y))
    right, bottom = (int(np.ceil(v.max())) + 3 for v in (x, y))
    region = gray[top:bottom, left:right].astype(np.float32)
    x, y = x - left, y - top
    while step >= 2 and min(region.shape) >= 2:
        height, width = (n // 2 * 2 for n in region.shape)
        region = region[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        x, y, step = (x - 0.5) / 2, (y - 0.5) / 2, step / 2
    if not region.size:
        return np.zeros(x.shape, np.uint8)
    values = map_coordinates(region, [y, x], order=1, mode="constant", cval=0.0)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
