"""Faces in one picture: found anywhere, or found again near where one was, with their 68 landmarks.

Boxes are (left, top, right, bottom) in pixels of the picture they were found in; landmarks (68, 2) likewise, x first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avkit.video.models import cnn_detector, dlib_module, hog_detector, identity_model, landmark_predictor

CHIP_FACE = 100  # pixels across the face where the gradients look for it again; their smallest face is 80
_DETAIL = 2  # landmarks are placed on a picture this much finer, because they come as whole pixels
_AROUND = 2.0  # side of the region searched, in faces
_FIRST = 0.0  # score from which a face that is new is believed
_AGAIN = -0.4  # score from which a face where one was is believed
_OVERLAP = 0.35  # with the place where it was


@dataclass(frozen=True)
class Face:
    """One face: box (4,), score of its detector (higher is surer), landmarks (68, 2)."""

    box: np.ndarray
    score: float
    landmarks: np.ndarray


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (…, 4) and (…, 4), 0 … 1."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    both = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    return shared / np.maximum(both, 1e-9)


def find_faces(gray: np.ndarray, small: bool = False) -> list[tuple[np.ndarray, float]]:
    """Boxes and scores of all frontal faces of at least 80 pixels, or 40 where `small` ones are wanted (four times the work)."""
    gray = np.ascontiguousarray(gray)  # given a view, dlib copies it and reads the copy after its end
    boxes, scores, _ = hog_detector().run(gray, 1 if small else 0, _FIRST)
    return [(_box(box), float(score)) for box, score in zip(boxes, scores, strict=True)]


def find_again(gray: np.ndarray, box: np.ndarray) -> Face | None:
    """The frontal face at about `box`, whatever its size there, or None."""
    chip, place = cut(gray, box, CHIP_FACE * _DETAIL, _AROUND)
    coarse = _halved(chip)
    boxes, scores, _ = hog_detector().run(coarse, 0, _AGAIN)
    if not boxes:
        return None
    expected = (box - np.tile(place.corner, 2)) * place.scale / _DETAIL
    fits = overlap(np.stack([_box(b) for b in boxes]), expected)
    best = int(np.argmax(np.where(fits >= _OVERLAP, np.asarray(scores), -np.inf)))
    if fits[best] < _OVERLAP:
        return None
    return _landmarks(chip, place, _box(boxes[best]) * _DETAIL, float(scores[best]))


def confirm(rgb: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Whether a face, turned away perhaps, is near `box`: its box and confidence by the convolutional network, or None."""
    chip, place = cut(rgb, box, CHIP_FACE, 2.2)
    found = [(place.back(_box(d.rect)), float(d.confidence)) for d in cnn_detector()(chip, 0)]
    found = [(b, score) for b, score in found if overlap(b, box) >= 0.2]
    return max(found, key=lambda pair: pair[1], default=None)


def describe(rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(128,) numbers that tell whose face it is; those of one person are within about 0.6 of each other."""
    low, high = landmarks.min(0), landmarks.max(0)
    chip, place = cut(rgb, np.concatenate([low, high]), 150, 2.0)
    points = (landmarks - place.corner) * place.scale
    dlib = dlib_module()
    outline = dlib.rectangle(*(round(float(v)) for v in (*points.min(0), *points.max(0))))
    shape = dlib.full_object_detection(
        outline, [dlib.point(round(float(x)), round(float(y))) for x, y in points]
    )
    return np.array(identity_model().compute_face_descriptor(chip, shape), np.float32)


# ------------------------------------------------------------------------------------------------------------ regions


@dataclass(frozen=True)
class Place:
    """Where a region was cut: its corner (2,) in the picture, and how much larger it was made."""

    corner: np.ndarray
    scale: float

    def back(self, points: np.ndarray) -> np.ndarray:
        """Points or boxes of the region, (…, 2) or (…, 4), in the picture's pixels."""
        return points / self.scale + np.tile(self.corner, points.shape[-1] // 2)


def cut(picture: np.ndarray, box: np.ndarray, across: int, around: float) -> tuple[np.ndarray, Place]:
    """The square region around a box, resized so that the box is `across` pixels wide; black outside the picture."""
    side = max(float((box[2:] - box[:2]).max()), 4.0)
    half = side * around / 2
    centre = (box[:2] + box[2:]) / 2
    left, top = (int(v) for v in np.floor(centre - half))
    size = max(int(2 * half), 2)
    region = np.zeros((size, size, *picture.shape[2:]), np.uint8)
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    if x0 < x1 and y0 < y1:
        region[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    while size >= 4 * across * around:  # a resize by more than half would skip pixels
        region = _halved(region)
        size = len(region)
    wanted = round(across * around)
    corner = np.array([left, top], float)
    return dlib_module().resize_image(region, wanted, wanted), Place(corner, wanted / (2 * half // 1))


def _halved(picture: np.ndarray) -> np.ndarray:
    """Each 2×2 pixels averaged."""
    height, width = (n // 2 * 2 for n in picture.shape[:2])
    p = picture[:height, :width].astype(np.uint16)
    return ((p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2] + 2) // 4).astype(np.uint8)


def _landmarks(chip: np.ndarray, place: Place, box: np.ndarray, score: float) -> Face:
    dlib = dlib_module()
    shape = landmark_predictor()(chip, dlib.rectangle(*(round(float(v)) for v in box)))
    points = np.array([(p.x, p.y) for p in shape.parts()], np.float64)
    return Face(place.back(box), score, place.back(points))


def _box(rectangle) -> np.ndarray:
    return np.array(
        [rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1], np.float64
    )
