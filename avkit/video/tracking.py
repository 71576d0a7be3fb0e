"""Following faces from frame to frame, through turns and short occlusions, until the shot changes.

Where a face was in the frame before, the gradients look for it again in a small region; where they lose it, a
correlation tracker follows its pixels, and once a second the convolutional detector says whether that still is a face.
Every fifth frame, and every frame while there is no face, the whole picture is searched for new ones. Results go to disk as they come, with a state
from which a run that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avkit.checkpoints import write_atomically
from avkit.signal import FRAME_RATE
from avkit.video import detection
from avkit.video.models import dlib_module
from avkit.video.reading import Video, frames, picture

SEEN, FOLLOWED = (
    1,
    2,
)  # how a frame's box was found: by a detector, with landmarks; by the correlation tracker, without

RECORD = np.dtype(
    [
        ("frame", "<i4"),
        ("track", "<i4"),
        ("state", "u1"),
        ("score", "<f4"),
        ("box", "<f4", (4,)),
        ("landmarks", "<f4", (68, 2)),
    ]
)
IDENTITY = np.dtype([("frame", "<i4"), ("track", "<i4"), ("vector", "<f4", (128,))])

LONGEST = 1280  # pixels along the longer side of the picture that faces are followed in
_SEARCHED = 640  # of the one that is searched for new faces
_TINY = 400  # a picture no longer than this is searched at twice its size
_SEARCH_EVERY = 5  # frames
_SMALL_EVERY = 25  # frames between searches for faces of 40 to 80 pixels
_CONFIRM_AFTER, _CONFIRM_EVERY = (
    12,
    25,
)  # frames without a frontal face until the convolutional detector is asked, and again
_WEAKEST = 5.0  # peak-to-sidelobe ratio below which the correlation tracker has lost its face
_DESCRIBE_AT = (3, 15, 40, 80)  # frames of a track in which its identity is described; then every 150
_CUT, _CUT_RATIO = 14.0, 3.5  # gray levels of mean change that a cut makes, and against the median before
_STATE_EVERY = 10 * FRAME_RATE  # frames between states on disk


@dataclass
class _Live:
    """A track under way; boxes in the pixels of the picture that it is followed in."""

    number: int
    box: np.ndarray
    seen: int = 0  # frames in which a detector saw it
    lost: int = 0  # frames since it was last seen
    last_seen: np.ndarray | None = None  # its box then
    tracker: object = field(default=None, repr=False)

    def as_dict(self) -> dict:
        last = None if self.last_seen is None else self.last_seen.tolist()
        return {
            "number": self.number,
            "box": self.box.tolist(),
            "seen": self.seen,
            "lost": self.lost,
            "last_seen": last,
        }

    @classmethod
    def from_dict(cls, state: dict) -> _Live:
        last = None if state["last_seen"] is None else np.array(state["last_seen"])
        return cls(state["number"], np.array(state["box"]), state["seen"], state["lost"], last)


class Tracker:
    """Turns frames, one after the other, into records of tracks.

    Attributes:
        cuts: frames with which a new shot begins.
    """

    def __init__(self, scale: float = 1.0):
        """scale: what multiplies the pixels of the pictures given to `step` to get those of the records."""
        self.scale = scale
        self.cuts: list[int] = []
        self._live: list[_Live] = []
        self._count = 0
        self._changes: list[float] = []
        self._thumb: np.ndarray | None = None
        self._before: np.ndarray | None = None

    def step(
        self, k: int, gray: np.ndarray, searched: np.ndarray, rgb: Callable[[], np.ndarray]
    ) -> tuple[list[tuple], list[tuple]]:
        """Records (`RECORD`) and descriptions (`IDENTITY`) of frame k, as tuples.

        Args:
            gray: (H, W) uint8 picture that faces are followed in.
            searched: the same, smaller, that is searched for new ones.
            rgb: gives the picture of `gray` in colour; called only where it is needed.
        """
        cut = self._is_cut(searched)
        if cut:
            self.cuts.append(k)
            self._live = []
        found = {track.number: self._follow(track, gray, rgb) for track in self._live}
        self._live = [
            track for track in self._live if track.number in found and found[track.number] is not False
        ]
        self._one_face_each(found)
        if cut or not self._live or k % _SEARCH_EVERY == 0:
            small = cut or self._before is None or k % _SMALL_EVERY == 0 or max(searched.shape) <= _TINY
            found |= self._search(gray, searched, small)
        self._before = gray
        records = [self._record(k, track, found[track.number]) for track in self._live]
        return records, [
            self._described(k, t, found[t.number], rgb) for t in self._live if self._due(t, found[t.number])
        ]

    # ------------------------------------------------------------------------------------------------ one frame's work

    def _is_cut(self, searched: np.ndarray) -> bool:
        """Whether the picture has little to do with the one before."""
        rows, columns = (
            np.linspace(0, len(searched), 37).astype(int),
            np.linspace(0, searched.shape[1], 65).astype(int),
        )
        sums = np.add.reduceat(np.add.reduceat(searched.astype(np.float32), rows[:-1], 0), columns[:-1], 1)
        thumb = sums / np.outer(np.diff(rows).clip(1), np.diff(columns).clip(1))
        before, self._thumb = self._thumb, thumb
        if before is None:
            return False
        change = float(np.abs(thumb - before).mean())
        usual = float(np.median(self._changes)) if self._changes else 0.0
        cut = change > max(_CUT, _CUT_RATIO * usual)
        self._changes = [] if cut else [*self._changes[-11:], change]
        return cut

    def _follow(self, track: _Live, gray: np.ndarray, rgb: Callable) -> detection.Face | None | bool:
        """The face again; None where only the correlation tracker follows it; False where the track ends."""
        face = None
        if track.tracker is None:
            face = detection.find_again(gray, track.box)
        if face is None:
            if track.tracker is None and not self._start(track):
                return False
            strength = track.tracker.update(gray)
            track.box = _of(track.tracker.get_position())
            face = detection.find_again(gray, track.box)
            if face is None and track.last_seen is not None:
                face = detection.find_again(gray, track.last_seen)
            if face is None and not self._goes_on(track, strength, gray, rgb):
                return False
        if face is not None:
            self._saw(track, face)
        return face

    def _start(self, track: _Live) -> bool:
        if self._before is None:  # a run that goes on, in its first frame
            return False
        track.tracker = dlib_module().correlation_tracker()
        track.tracker.start_track(self._before, dlib_module().drectangle(*track.box))
        return True

    def _saw(self, track: _Live, face: detection.Face) -> None:
        track.box = track.last_seen = face.box
        track.seen, track.lost, track.tracker = track.seen + 1, 0, None

    def _goes_on(self, track: _Live, strength: float, gray: np.ndarray, rgb: Callable) -> bool:
        """Whether a track without a frontal face is kept for another frame."""
        track.lost += 1
        centre = (track.box[:2] + track.box[2:]) / 2
        inside = (centre > 0).all() and centre[0] < gray.shape[1] and centre[1] < gray.shape[0]
        if strength < _WEAKEST or not inside:
            return False
        if track.lost < _CONFIRM_AFTER or (track.lost - _CONFIRM_AFTER) % _CONFIRM_EVERY:
            return True
        confirmed = detection.confirm(rgb(), track.box)
        if confirmed is None:
            return False
        track.box = confirmed[0]
        track.tracker.start_track(gray, dlib_module().drectangle(*track.box))
        return True

    def _one_face_each(self, found: dict) -> None:
        """Where two tracks have come upon one face, the one that has seen it longer keeps it and the other ends."""
        for track in sorted(self._live, key=lambda t: t.seen):
            others = [t for t in self._live if t is not track and t.seen >= track.seen]
            if any(detection.overlap(track.box, other.box) > 0.5 for other in others):
                self._live.remove(track)
                found.pop(track.number)

    def _search(self, gray: np.ndarray, searched: np.ndarray, small: bool) -> dict[int, detection.Face]:
        """Faces that no track follows: begins tracks for them."""
        found, ratio = {}, gray.shape[1] / searched.shape[1]
        for box, _ in detection.find_faces(searched, small):
            box = box * ratio
            if any(detection.overlap(box, track.box) > 0.2 for track in self._live):
                continue
            face = detection.find_again(gray, box)
            if face is None:
                continue
            track = _Live(self._count, face.box)
            self._count += 1
            self._saw(track, face)
            self._live.append(track)
            found[track.number] = face
        return found

    def _record(self, k: int, track: _Live, face: detection.Face | None) -> tuple:
        if face is None:
            return k, track.number, FOLLOWED, 0.0, track.box * self.scale, np.zeros((68, 2))
        return k, track.number, SEEN, face.score, face.box * self.scale, face.landmarks * self.scale

    def _due(self, track: _Live, face: detection.Face | None) -> bool:
        return face is not None and (track.seen in _DESCRIBE_AT or track.seen % 150 == 0)

    def _described(self, k: int, track: _Live, face: detection.Face, rgb: Callable) -> tuple:
        return k, track.number, detection.describe(rgb(), face.landmarks)

    # -------------------------------------------------------------------------------------------------- to disk and back

    def state(self) -> dict:
        """What `resume` needs, as JSON."""
        live = [track.as_dict() for track in self._live]
        return {"cuts": self.cuts, "count": self._count, "changes": self._changes, "live": live}

    def resume(self, state: dict, gray: np.ndarray, searched: np.ndarray) -> None:
        """Go on from a state; the pictures are those of the last frame that was given to `step` before it."""
        self.cuts, self._count = state["cuts"], state["count"]
        self._live = [_Live.from_dict(track) for track in state["live"]]
        self._is_cut(searched)
        self._changes, self._before = state["changes"], gray
        for track in self._live:
            if track.lost:
                track.tracker = dlib_module().correlation_tracker()
                track.tracker.start_track(gray, dlib_module().drectangle(*track.box))


def _of(rectangle) -> np.ndarray:
    return np.array([rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom()], np.float64)


def track_faces(
    video: Video, folder: Path, progress: Callable[[int], None] | None = None, stop: int | None = None
) -> None:
    """Follow all faces of a video; goes on where an earlier call in the same folder was stopped.

    Writes `records.bin` (RECORD), `identities.bin` (IDENTITY) and `tracking.json` ({"frames", "cuts", "done": true}).
    progress: called with the number of frames done. stop: the frame to end before (None: follow to the end).
    """
    state_file = folder / "tracking.json"
    state = json.loads(state_file.read_text()) if state_file.is_file() else None
    if state is not None and state["done"]:
        return
    begun = state["frames"] if state else 0
    paths = {"records": folder / "records.bin", "identities": folder / "identities.bin"}
    sizes = {"records": RECORD.itemsize, "identities": IDENTITY.itemsize}
    for name, path in paths.items():  # what came after the state is dropped
        with open(path, "ab") as file:
            file.truncate(state[name] * sizes[name] if state else 0)
    tracker = Tracker()
    counts = {name: state[name] if state else 0 for name in paths}
    last = begun - 1

    def save(done: bool) -> None:
        content = {"frames": last + 1, "done": done, **counts, **tracker.state()}
        write_atomically(state_file, lambda name: Path(name).write_text(json.dumps(content)))

    with open(paths["records"], "ab") as records, open(paths["identities"], "ab") as identities:
        for k, frame in frames(video, max(0, begun - 1)):
            if stop is not None and k >= stop:
                break
            gray, searched = picture(frame, video, LONGEST), picture(frame, video, _SEARCHED)
            tracker.scale = video.width / gray.shape[1]
            if k < begun:
                tracker.resume(state, gray, searched)
                continue
            rows, described = tracker.step(k, gray, searched, _in_colour(frame, video))
            np.array(rows, RECORD).tofile(records)
            np.array(described, IDENTITY).tofile(identities)
            counts["records"] += len(rows)
            counts["identities"] += len(described)
            last = k
            if progress is not None:
                progress(k + 1)
            if (k + 1) % _STATE_EVERY == 0:
                records.flush()
                identities.flush()
                save(done=False)
    save(done=True)


def _in_colour(frame, video: Video) -> Callable[[], np.ndarray]:
    return lambda: picture(frame, video, LONGEST, "rgb24")
