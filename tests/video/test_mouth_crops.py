"""Alignment to the mean face, smoothing over 12 frames, and sampling."""

import numpy as np
import pytest

from avkit.video import crops


def face(
    x: float = 0.0, y: float = 0.0, scale: float = 1.0, angle: float = 0.0, mouth: float = 0.0
) -> np.ndarray:
    """(68, 2) landmarks whose stable points are the mean face's, moved; the mouth is a ring around (130, 157 + mouth)."""
    points = np.full((68, 2), 100.0)
    points[list(crops.STABLE)] = crops.MEAN_FACE
    turns = np.arange(20) * 2 * np.pi / 20
    points[crops.MOUTH] = np.stack([130 + 22 * np.cos(turns), 157 + mouth + 9 * np.sin(turns)], -1)
    cos, sin = np.cos(angle), np.sin(angle)
    return scale * points @ np.array([[cos, sin], [-sin, cos]]) + [x, y]


@pytest.mark.parametrize(
    "move", [{}, {"x": 300, "y": -20}, {"scale": 2.5}, {"angle": 0.4, "scale": 0.5, "x": 70, "y": 90}]
)
def test_stable_points_come_to_the_mean_face(move):
    points = face(**move)[None]
    a, b = crops.similarity(points[:, crops.STABLE])
    back = a[0] * (points[0, :, 0] + 1j * points[0, :, 1]) + b[0]
    assert np.allclose(np.stack([back.real, back.imag], -1), face(), atol=1e-6)
    assert abs(a[0]) == pytest.approx(1 / move.get("scale", 1.0))


def test_a_crop_is_the_same_wherever_the_face_is():
    rng = np.random.default_rng(0)
    from scipy.ndimage import gaussian_filter

    ground = gaussian_filter(rng.normal(128, 400, (800, 800)), 8).clip(0, 255)
    rows, columns = np.mgrid[0:800, 0:800]
    crop = []
    for move in (
        {"x": 40, "y": 60},
        {"x": 240, "y": 120, "scale": 1.5, "angle": 0.2},
        {"x": 90, "y": 30, "scale": 2.6},
    ):
        points = face(**move)
        a, b = (v[0] for v in crops.similarity(points[None, crops.STABLE]))
        aligned = a * (columns + 1j * rows) + b  # the picture that shows the same face there
        gray = crops.sample(ground.astype(np.uint8), aligned.real + 200, aligned.imag + 200)
        crop.append(crops.Aligner(points[None].repeat(3, 0)).crop(1, gray).astype(float))
    assert crop[0].shape == (96, 96)
    for other in crop[1:]:
        assert np.abs(crop[0] - other).mean() < 4


def test_the_crop_is_centred_on_this_frames_mouth_within_the_aligned_frame():
    landmarks = np.stack([face(mouth=m) for m in (0.0, 6.0, 0.0)])
    corner = crops.Aligner(landmarks).corner
    assert corner[0] == pytest.approx(130 - 48 + 1j * (157 - 48))
    assert corner[1] == pytest.approx(130 - 48 + 1j * (163 - 48))
    assert (
        crops.Aligner(face(mouth=90)[None]).corner[0].imag == 256 - 96
    )  # as far down as the frame of the mean face goes


def test_landmarks_are_averaged_over_this_and_eleven_more_frames():
    landmarks = np.arange(30.0)[:, None, None] * np.ones((30, 68, 2))
    out = crops.smooth(landmarks)[:, 0, 0]
    assert np.allclose(out[:19], np.arange(19) + 5.5)
    assert np.allclose(out[19:], 18 + 5.5)  # the last whole window


def test_no_average_crosses_a_cut():
    landmarks = np.concatenate([np.zeros((20, 68, 2)), np.full((20, 68, 2), 100.0)])
    assert set(np.unique(crops.smooth(landmarks, (20,)))) == {0.0, 100.0}
    assert len(np.unique(crops.smooth(landmarks))) > 2


def test_outside_the_picture_a_crop_is_black():
    crop = crops.Aligner(face(x=-120)[None]).crop(0, np.full((256, 256), 200, np.uint8))
    assert crop[:, :30].max() == 0
    assert crop[40, 90] == 200
