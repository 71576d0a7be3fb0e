"""Notebook 13, your own video: its exercises and explorers. What it runs is in `lesson13_lab`, pictures in `lesson13_figures`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avkit.signal import FRAME_RATE
from avkit.teach import lesson13_figures as figures
from avkit.teach import lesson13_lab as lab
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.widgets import Control, Explorer
from avkit.video import activity
from avkit.video.models import dlib_module
from avkit.video.reading import frames, picture, probe

# Exercises ------------------------------------------------------------------------------------------------------


def picture_at(times: Tensor, count: int) -> Tensor:
    """(P,) seconds at which pictures appear -> (count,) number of the picture in view at (k + ½) / 25 s."""
    asked = (torch.arange(count) + 0.5) / FRAME_RATE
    return (torch.searchsorted(times, asked.to(times), right=True) - 1).clamp_min(0)


def _nearest(times: Tensor, count: int) -> Tensor:
    asked = (torch.arange(count) + 0.5) / FRAME_RATE
    return (times[None, :] - asked[:, None]).abs().argmin(dim=1)


def _start_of_frame(times: Tensor, count: int) -> Tensor:
    asked = torch.arange(count) / FRAME_RATE
    return (torch.searchsorted(times, asked.to(times), right=True) - 1).clamp_min(0)


def _next_one(times: Tensor, count: int) -> Tensor:
    asked = (torch.arange(count) + 0.5) / FRAME_RATE
    return torch.searchsorted(times, asked.to(times)).clamp_max(len(times) - 1)


def _one_behind_the_last(times: Tensor, count: int) -> Tensor:
    asked = (torch.arange(count) + 0.5) / FRAME_RATE
    return torch.searchsorted(times, asked.to(times))


def _end_of_frame(times: Tensor, count: int) -> Tensor:
    asked = (torch.arange(count) + 1) / FRAME_RATE
    return (torch.searchsorted(times, asked.to(times), right=True) - 1).clamp_min(0)


def _before_the_first(times: Tensor, count: int) -> Tensor:
    asked = (torch.arange(count) + 0.5) / FRAME_RATE
    return torch.searchsorted(times, asked.to(times), right=True) - 1


def _probe_pictures(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for name, pictures, count, start in (("a shaky 30 a second", 40, 33, 0.0), ("12 a second, the first one late", 15, 30, 0.17)):
        gaps = (0.2 + 1.6 * torch.rand(pictures, generator=draw, dtype=torch.float64)) / (30 if pictures == 40 else 12)
        results[name] = answer(start + gaps.cumsum(0) - gaps[0], count)
    return results


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (left, top, right, bottom), (…, 4) and (…, 4) -> (…)."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b)]
    return shared / (areas[0] + areas[1] - shared)


def _shared(a: Tensor, b: Tensor, clamp: bool = True) -> Tensor:
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    return (sides.clamp_min(0) if clamp else sides).prod(-1)


def _area(box: Tensor) -> Tensor:
    return (box[..., 2:] - box[..., :2]).prod(-1)


def _unclamped(a: Tensor, b: Tensor) -> Tensor:
    shared = _shared(a, b, clamp=False)
    return shared / (_area(a) + _area(b) - shared)


def _as_widths(a: Tensor, b: Tensor) -> Tensor:
    a, b = (torch.cat([box[..., :2], box[..., :2] + box[..., 2:]], -1) for box in (a, b))
    return overlap(a, b)


def _hull(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    return _shared(a, b) / (high - low).prod(-1)


def _probe_overlap(answer, draw: torch.Generator) -> dict[str, Tensor]:
    corner = 100 * torch.rand(2, 12, 2, generator=draw, dtype=torch.float64)
    boxes = torch.cat([corner, corner + 20 + 60 * torch.rand(2, 12, 2, generator=draw, dtype=torch.float64)], -1)
    far = boxes[0, :3] + 400  # apart along both axes
    return {
        "boxes here and there": answer(boxes[0], boxes[1]),
        "one box and itself": answer(boxes[0, 0], boxes[0, 0]),
        "boxes far apart": answer(boxes[0, :3], far),
    }


def smooth(points: Tensor, window: int = 12) -> Tensor:
    """(F, n, 2) -> (F, n, 2): each frame gets the mean over itself and the next 11; the last ones the last whole window's."""
    means = points.unfold(0, window, 1).mean(-1)  # (F − 11, n, 2)
    return means[torch.arange(len(points)).clamp_max(len(means) - 1)]


def _mean_of(points: Tensor, first, last) -> Tensor:
    count = len(points)
    return torch.stack([points[max(0, first(k)) : min(count, last(k))].mean(0) for k in range(count)])


def _zeros_behind(points: Tensor) -> Tensor:
    return torch.cat([points, torch.zeros_like(points[:11])]).unfold(0, 12, 1).mean(-1)


def _blocks(points: Tensor) -> Tensor:
    return torch.stack([points[12 * (k // 12) : 12 * (k // 12) + 12].mean(0) for k in range(len(points))])


def _probe_smooth(answer, draw: torch.Generator) -> dict[str, Tensor]:
    return {
        "40 frames": answer(torch.randn(40, 5, 2, generator=draw, dtype=torch.float64)),
        "13 frames": answer(torch.randn(13, 3, 2, generator=draw, dtype=torch.float64)),
    }


EXERCISES = {
    "picture_at": Exercise(
        task="say which picture is in view when",
        reference=picture_at,
        probe=_probe_pictures,
        mistakes=(
            Mistake(
                "counted",
                lambda times, count: torch.arange(count).clamp_max(len(times) - 1),
                "you take the pictures one by one, as if the file had 25 a second. That is how lips run away from their voice.",
            ),
            Mistake(
                "even rate",
                lambda times, count: torch.arange(count) * len(times) // count,
                "you spread the pictures evenly over the frames. The file says when each of them appears; look there.",
            ),
            Mistake(
                "nearest",
                _nearest,
                "you take the picture whose beginning is nearest in time. One that appears a moment later is not in view yet: take the "
                "last one that has appeared.",
            ),
            Mistake(
                "start of the frame",
                _start_of_frame,
                "you ask at k/25 s, where frame k begins. It stands for the time from k/25 to (k + 1)/25: ask in its middle.",
            ),
            Mistake(
                "next picture",
                _next_one,
                "you are one picture ahead: `searchsorted` counts the pictures that have appeared, and the last of them has the number "
                "one below that.",
            ),
            Mistake(
                "next picture, too far at the end",
                _one_behind_the_last,
                "you are one picture ahead, at the end even behind the last one: `searchsorted` counts the pictures that have appeared, and "
                "the last of them has the number one below that.",
            ),
            Mistake(
                "end of the frame",
                _end_of_frame,
                "you ask at (k + 1)/25 s, where frame k ends. It stands for the time from k/25 to (k + 1)/25: ask in its middle.",
            ),
            Mistake(
                "before the first",
                _before_the_first,
                "before the first picture appears your number is −1, which Python reads as the *last* picture. Take picture 0 there.",
            ),
            Mistake(
                "from the first picture",
                lambda times, count: picture_at(times - times[0], count),
                "you count time from the first picture. A file whose picture begins late keeps that lag: sound and lip frames count from 0 s.",
            ),
            Mistake(
                "times, not numbers",
                lambda times, count: times[picture_at(times, count)],
                "these are the times at which the pictures appear. Asked are their numbers, 0, 1, 2, …",
            ),
            Mistake(
                "numbers as floats",
                lambda times, count: picture_at(times, count).double(),
                "the numbers are right, but floats. They are to pick pictures, so they should be integers (torch.int64).",
            ),
        ),
    ),
    "overlap": Exercise(
        task="compute intersection over union",
        reference=overlap,
        probe=_probe_overlap,
        mistakes=(
            Mistake(
                "two negative sides",
                _unclamped,
                "boxes that are apart along both axes have two negative sides, and their product is positive: such boxes seem to share "
                "an area. A side cannot be less than 0.",
            ),
            Mistake(
                "shared counted twice",
                lambda a, b: _shared(a, b) / (_area(a) + _area(b)),
                "the sum of both areas holds the shared part twice. A box with itself must give 1.",
            ),
            Mistake(
                "smaller box",
                lambda a, b: _shared(a, b) / torch.minimum(_area(a), _area(b)),
                "you divide by the smaller box, so a speck inside a face counts as the face. Divide by what the two cover together.",
            ),
            Mistake(
                "widths",
                _as_widths,
                "you read a box as (left, top, width, height). Here it is (left, top, right, bottom).",
            ),
            Mistake(
                "hull",
                _hull,
                "you divide by the smallest box around both. The union leaves out that box's empty corners.",
            ),
            Mistake(
                "not divided",
                _shared,
                "that is the area that both cover, in pixels. Divide it by the area that at least one of them covers.",
            ),
            Mistake(
                "first box",
                lambda a, b: _shared(a, b) / _area(a),
                "you divide by the first box alone, so the result changes when the boxes change places. Divide by what the two cover together.",
            ),
            Mistake(
                "larger box",
                lambda a, b: _shared(a, b) / torch.maximum(_area(a), _area(b)),
                "you divide by the larger box. The union is larger still, unless one box lies inside the other.",
            ),
            Mistake(
                "twice the shared part",
                lambda a, b: 2 * _shared(a, b) / (_area(a) + _area(b)),
                "that is another measure (Dice's): twice the shared part over the sum of both areas. The union counts the shared part once.",
            ),
        ),
    ),
    "after_cut": Exercise(
        task="predict what following by overlap makes of the cut",
        reference="b",
        probe=lambda answer, draw: {"the letter": letter(answer)},
        mistakes=(
            Mistake(
                "it knows the person",
                "a",
                "overlap knows places, not people. Who sits in a place is nothing that two rectangles could tell.",
            ),
            Mistake(
                "new tracks",
                "c",
                "nothing tells the rule that the shot changed: in the very next frame there is a face where a face was, and that is all "
                "it asks for.",
            ),
            Mistake(
                "lost",
                "d",
                "the detector finds both faces in every frame, before and after the cut. The rule has two boxes to go on with.",
            ),
        ),
    ),
    "smooth": Exercise(
        task="average landmarks over twelve frames",
        reference=smooth,
        probe=_probe_smooth,
        mistakes=(
            Mistake(
                "past frames",
                lambda points: _mean_of(points, lambda k: k - 11, lambda k: k + 1),
                "you average over the frames before. The published recipe fills its window from the present frame on: frame k and the "
                "eleven after it.",
            ),
            Mistake(
                "centred",
                lambda points: _mean_of(points, lambda k: k - 6, lambda k: k + 6),
                "your window lies around the frame. That would tremble no more; but the encoder was trained on crops whose window begins "
                "with the frame.",
            ),
            Mistake(
                "centred, five before",
                lambda points: _mean_of(points, lambda k: k - 5, lambda k: k + 7),
                "your window lies around the frame. The published recipe begins it *with* the frame, and the encoder was trained on such crops.",
            ),
            Mistake(
                "shrinking window",
                lambda points: _mean_of(points, lambda k: k, lambda k: k + 12),
                "near the end your window shrinks, and the last frame is not averaged at all. Take the last whole window there.",
            ),
            Mistake(
                "too short",
                lambda points: points.unfold(0, 12, 1).mean(-1),
                "eleven frames are missing at the end: every frame needs a crop. Give the last ones the last whole window.",
            ),
            Mistake(
                "over all points",
                lambda points: smooth(points).mean(dim=1, keepdim=True).expand_as(points),
                "you average the points with one another as well. Each landmark keeps its own mean over time.",
            ),
            Mistake(
                "zeros at the end",
                _zeros_behind,
                "you count frames behind the end as zeros, and the landmarks run towards a corner of the picture. Take the last whole window there.",
            ),
            Mistake(
                "last ones as they are",
                lambda points: torch.cat([smooth(points)[:-11], points[-11:]]),
                "the last eleven frames are not averaged at all, so the crop trembles there. Give them the last whole window.",
            ),
            Mistake(
                "blocks",
                _blocks,
                "you average in blocks of twelve, so the crop stands still and then jumps. Every frame has a window of its own, which begins with it.",
            ),
            Mistake(
                "eleven frames",
                lambda points: smooth(points, 11),
                "your window holds eleven frames: frame k and the *eleven after it* are twelve.",
            ),
            Mistake(
                "front filled",
                lambda points: smooth(points.flip(0)).flip(0),
                "your windows end with the frame, and the first frames share one. It is the other way round: a window begins with its frame, and the last ones share.",
            ),
        ),
    ),
}

# Explorers ------------------------------------------------------------------------------------------------------

SIZES = {"as it is": 1.0, "three quarters": 0.75, "half": 0.5}
_MOMENT = 60  # the frame that the explorer of faces shows


def render_faces(threshold: float, size: str) -> Html:
    """What the detector takes for a face in one picture of the clip that ships."""
    video = probe(lab.bundled())
    gray = next(picture(frame, video, 480) for k, frame in frames(video) if k == _MOMENT)
    height, width = (round(n * SIZES[size]) for n in gray.shape)
    small = dlib_module().resize_image(gray, height, width) if size != "as it is" else gray
    found = lab.detect(np.asarray(small), threshold)
    return figures.draw_boxes({f"size {size}, threshold {threshold:g}": (np.asarray(small), found)})


def render_rest(threshold: float, around: int) -> Html:
    """Which frames of either person count as rest."""
    motion, silent = {}, {}
    for number, crops in enumerate(lab.bundled_crops(), start=1):
        thin = activity.lip_motion(crops)
        thick = lab.activity_of(thin, around)
        motion[f"person {number}"], silent[f"person {number}"] = (thin, thick), thick < threshold
    return figures.draw_rest(motion, silent, threshold, around)


EXPLORERS = {
    "faces": Explorer(
        render_faces,
        (
            Control("threshold", (-1.0, -0.7, -0.4, 0.0, 0.5, 1.0), 0.0, "score that is believed"),
            Control("size", tuple(SIZES), "as it is", "size of the picture"),
        ),
    ),
    "rest": Explorer(
        render_rest,
        (
            Control("threshold", (0.05, 0.1, 0.18, 0.26, 0.4), 0.18, "motion that counts as speech"),
            Control("around", (3, 8, 25), 25, "frames looked at on either side"),
        ),
    ),
}

# For instructors ------------------------------------------------------------------------------------------------

INSTRUCTOR = """\
### For instructors: 13 Your own video

**Minutes**: opening 3, section 1 5 (exercise 1: 6), section 2 5 (exercise 2: 6), section 3 7 (exercise 3: 2), section 4 5 (exercise 4: 6),
sections 5–6 7, section 7 6, sections 8–9 6, section 10 as long as there are videos; exercise 5 15 in small groups. Short of time: 3, 6, 7, 9.

**Before anything else** let everybody write down whose voice is heard at the end of the clip, then play it a second time without the
picture. Keep the answers for section 7.

**What people get wrong**
- *"25 frames a second is 25 frames a second."* Ask what a telephone does in the dark. (It takes fewer pictures.)
- *"A low threshold finds more faces."* It finds more boxes. Have them count the boxes without a face in the explorer.
- *The window of exercise 4* is neither centred nor past. It need not be good; it must be the one that the weights were trained with.
- *"The network should give silence for a silent face."* It was never shown one: both talkers of every training mixture speak.
- *"It worked on the clip, so it will work on my video."* Section 9 has the numbers. Do not let anybody judge by a clip that was chosen.

**Questions to ask**
- Section 1: where does a constant lag come from, and where one that grows? Which of them can be mended afterwards?
- Section 3: the faces in this clip are one portrait altered. Which rule keeps them apart although their descriptions are so alike?
- Section 7: what is lost if the window is made shorter? If the threshold is made higher? Who would notice?
- Section 9: which of the gaps between our talkers and real ones would you close first, and how would you know that it was the right one?

**If somebody brings a video**: settle consent before it is played. Prefer two people who are in the room and agree. No network that ships
gives a real face its voice; the official weights and their lip encoder do, and have to be fetched by each reader.
"""
