"""The face part of a video, from file to mouth crops: follow faces, make people of tracks, cut their mouths.

Each stage leaves its result in a working folder and is not done again: a run that was stopped goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avkit.checkpoints import write_atomically
from avkit.errors import DataError, InputError
from avkit.lips import FRAME_SIZE
from avkit.signal import FRAME_RATE
from avkit.video.crops import Aligner
from avkit.video.reading import Video, frames, picture
from avkit.video.tracking import SEEN, track_faces
from avkit.video.tracks import Person, Stretch, Track, boxes_of, find_people, read_tracks

LONGEST = 1920  # pixels along the longer side of the picture that crops are cut from
_PIXELS = FRAME_SIZE * FRAME_SIZE

Progress = Callable[[int], None]


@dataclass
class Faces:
    """What the face part finds.

    Attributes:
        people: in order of appearance.
        left_out: tracks of faces that were in the picture too shortly.
        cuts: frames with which a new shot begins.
        frames: of the grid of 25 per second, in the whole video.
        folder: where the crops lie.
    """

    people: list[Person]
    left_out: list[Track]
    cuts: list[int]
    frames: int
    folder: Path

    @property
    def times(self) -> list[list[list[int]]]:
        """[first, last) frames of each stretch of each person."""
        return [[[stretch.start, stretch.stop] for stretch in person.stretches] for person in self.people]

    def crops(self, person: Person, stretch: Stretch) -> np.ndarray:
        """(F, 96, 96) uint8 of one stretch, memory-mapped."""
        before = sum(len(s.state) for s in person.stretches if s.start < stretch.start)
        shape = (len(stretch.state), FRAME_SIZE, FRAME_SIZE)
        return np.memmap(_crop_file(self.folder, person), np.uint8, "r", before * _PIXELS, shape)

    def rows(self, person: Person) -> list[dict]:
        """When a person is to be seen, for a report: seconds, share of frames with a frontal face, a box a second."""
        out = []
        for stretch in person.stretches:
            boxes = boxes_of(stretch.landmarks[::FRAME_RATE]).round(1)
            times = [(stretch.start + i * FRAME_RATE) / FRAME_RATE for i in range(len(boxes))]
            out.append(
                {
                    "start": stretch.start / FRAME_RATE,
                    "stop": stretch.stop / FRAME_RATE,
                    "confidence": round(float((stretch.state == SEEN).mean()), 3),
                    "score": round(float(stretch.score[stretch.state == SEEN].mean()), 3),
                    "turned_away": [[a / FRAME_RATE, b / FRAME_RATE] for a, b in _unseen(stretch)],
                    "boxes": [[t, *b] for t, b in zip(times, boxes.tolist(), strict=True)],
                }
            )
        return out


def _unseen(stretch: Stretch, shortest: int = 12) -> list[tuple[int, int]]:
    """[first, last) frames of the video in which no frontal face was seen for about half a second or longer."""
    return [
        (stretch.start + a, stretch.start + b) for a, b in runs(stretch.state != SEEN) if b - a >= shortest
    ]


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """[first, last) of the stretches in which a (F,) mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def find_faces(video: Video, folder: Path, shortest: float, watch: Callable[[str, int], Progress]) -> Faces:
    """Stages `faces` and `mouths`: everyone in the video, with mouth crops on disk.

    Args:
        folder: for results; what an earlier call left there is used.
        shortest: seconds that a person must be in the picture.
        watch: called with a stage's name and its number of frames; gives what is called with the number done.

    Raises:
        InputError: a single picture; no face, or none for long enough.
        DataError: pictures stop being readable while there should be many more.
    """
    track_faces(video, folder, watch("faces", video.frames))
    count = json.loads((folder / "tracking.json").read_text())["frames"]
    if count <= 1:
        raise InputError(f"{video.path} holds a single picture; wanted a video of a second or more")
    if count < 0.5 * video.frames and video.frames - count > FRAME_RATE:
        raise DataError(
            f"{video.path} says it lasts {video.video_stop:.1f} s, and only {count / FRAME_RATE:.1f} s of it can be decoded: it is "
            "damaged or cut short"
        )
    tracks, cuts = read_tracks(folder)
    people, left_out = find_people(tracks, min(shortest, 0.5 * count / FRAME_RATE))
    if not people:
        seen = (
            f"a face for {max(len(t.state) for t in left_out) / FRAME_RATE:.1f} s at most"
            if left_out
            else "no face"
        )
        raise InputError(
            f"in {video.path} there is {seen}; wanted at least one, frontal or nearly so, at least 40 pixels wide in a picture "
            f"of 640, for {shortest} s"
        )
    faces = Faces(people, left_out, cuts, count, folder)
    known = folder / "people.json"
    if (
        not known.is_file() or json.loads(known.read_text()) != faces.times
    ):  # crops of other people are of no use
        for path in folder.glob("mouths*"):
            path.unlink()
        write_atomically(known, lambda name: Path(name).write_text(json.dumps(faces.times)))
    cut_mouths(video, people, folder, count, watch)
    return faces


# --------------------------------------------------------------------------------------------------------------- crops


def cut_mouths(
    video: Video, people: list[Person], folder: Path, count: int, watch: Callable[[str, int], Progress]
) -> None:
    """Mouth crops of all people to disk; a stopped call goes on with the frame after the last that all have."""
    done = folder / "mouths.json"
    if done.is_file():
        return
    aligners = {p.number: [Aligner(s.landmarks, s.breaks) for s in p.stretches] for p in people}
    with ExitStack() as stack:
        files = {
            person.number: stack.enter_context(open(_crop_file(folder, person), "ab")) for person in people
        }
        begun = _resume_at(people, files, count)
        progress = watch("mouths", count)
        for k, frame in frames(video, begun):
            present = [(p, i, s) for p in people for i, s in enumerate(p.stretches) if s.start <= k < s.stop]
            if present:
                gray = picture(frame, video, LONGEST)
            for person, index, stretch in present:
                crop = aligners[person.number][index].crop(
                    k - stretch.start, gray, gray.shape[1] / video.width
                )
                crop.tofile(files[person.number])
            progress(k + 1)
    write_atomically(done, lambda name: Path(name).write_text(json.dumps({"frames": count})))


def _crop_file(folder: Path, person: Person) -> Path:
    return folder / f"mouths-{person.number}.bin"


def _resume_at(people: list[Person], files: dict, count: int) -> int:
    """The frame to go on with; files are cut back to what comes before it."""
    frame = count
    for person in people:
        have = os.fstat(files[person.number].fileno()).st_size // _PIXELS
        for stretch in person.stretches:
            if have < len(stretch.state):
                frame = min(frame, stretch.start + have)
                break
            have -= len(stretch.state)
    for person in people:
        before = sum(max(0, min(frame, s.stop) - s.start) for s in person.stretches)
        files[person.number].truncate(before * _PIXELS)
    return frame
