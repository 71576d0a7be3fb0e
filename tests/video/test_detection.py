"""The face detector behind its boundary."""

import numpy as np
import pytest
from video_scenes import Talk

from avkit.video import detection
from avkit.video.composite import Actor, Scene, render, sway


@pytest.mark.parametrize("small", [False, True])
def test_faces_are_the_same_in_a_view_and_in_a_copy(small):
    """dlib, given a view of a larger picture, makes a copy and reads it after it was given back."""
    crops = Talk(1, 1).crops[0][:1]
    rgb = next(iter(render(Scene([Actor(0, crops, sway(1, 110, 110, 115, 0))], 220, 220))))
    gray = rgb.mean(-1).astype(np.uint8)
    (box, score), *others = detection.find_faces(gray, small)
    assert not others and detection.overlap(box, np.array([60, 60, 165, 165])) > 0.6
    for width in (221, 224, 256):
        larger = np.zeros((220, width), np.uint8)
        larger[:, :220] = gray
        for _ in range(4):
            (again, as_sure), *others = detection.find_faces(larger[:, :220], small)
            assert not others and np.array_equal(again, box) and as_sure == score
