"""From records of tracked faces to people: gaps filled, tracks of one person joined across shots, the rest left out.

Two tracks belong to one person where one goes on at the place where the other broke off, or where their identity descriptions
are alike; never where both are in the picture at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avkit.signal import FRAME_RATE
from avkit.video.detection import overlap
from avkit.video.tracking import FOLLOWED, IDENTITY, RECORD, SEEN

_SHORTEST = 8  # frames with a frontal face that a track must have
_WEAKEST = 0.0  # mean score of its frontal faces
_GAP = 25  # frames without a track after which a face at the same place may be the same track
_STRANGER = 0.7  # distance of descriptions from which two faces are never joined
_SAME = 0.5  # distance up to which faces in different places and shots are taken for one person
_BRIDGED = 5  # frames between two tracks of a person that are spoken through
_REACH = 4  # frames before a face was found during which it was there already: new faces are searched for every fifth frame
_MARGIN = 0.12  # by which a box goes beyond the landmarks, as a share of their extent


@dataclass
class Track:
    """One face without interruption, frame by frame from `start` on.

    Attributes:
        state: (F,) SEEN where a detector saw it and FOLLOWED where not; score: (F,) of the detector.
        landmarks: (F, 68, 2) in pixels of the video, those of FOLLOWED frames carried over from their neighbours.
        identity: (128,) or None.
    """

    start: int
    state: np.ndarray
    score: np.ndarray
    landmarks: np.ndarray
    identity: np.ndarray | None

    @property
    def stop(self) -> int:
        return self.start + len(self.state)

    @property
    def boxes(self) -> np.ndarray:
        return boxes_of(self.landmarks)


@dataclass
class Stretch:
    """A time during which a person is in the picture without a break; fields as in `Track`.

    breaks: frames, counted from `start`, with which a new shot begins.
    """

    start: int
    state: np.ndarray
    score: np.ndarray
    landmarks: np.ndarray
    breaks: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + len(self.state)


@dataclass
class Person:
    """Someone in the video: a number from 1 on, and when they are to be seen."""

    number: int
    stretches: list[Stretch]

    @property
    def name(self) -> str:
        return f"person-{self.number}"

    @property
    def frames(self) -> int:
        return sum(len(stretch.state) for stretch in self.stretches)

    @property
    def confidence(self) -> float:
        """Share of the frames in which a detector saw the face and its landmarks were placed, 0 … 1."""
        return float(np.mean(np.concatenate([s.state for s in self.stretches]) == SEEN))


def boxes_of(landmarks: np.ndarray) -> np.ndarray:
    """(…, 68, 2) landmarks -> (…, 4) boxes around them, with a margin."""
    low, high = landmarks.min(-2), landmarks.max(-2)
    margin = _MARGIN * (high - low)
    return np.concatenate([low - margin, high + margin], -1)


def read_tracks(folder: Path) -> tuple[list[Track], list[int]]:
    """The tracks that `track_faces` left in a folder, gaps filled and doubtful ones left out, and the cuts between shots."""
    cuts = json.loads((folder / "tracking.json").read_text())["cuts"]
    records = _mapped(folder / "records.bin", RECORD)
    identities = _mapped(folder / "identities.bin", IDENTITY)
    pieces = []
    for number in np.unique(records["track"]):
        piece = records[records["track"] == number]
        seen = np.flatnonzero(piece["state"] == SEEN)
        piece = piece[seen[0] : seen[-1] + 1]
        described = identities["vector"][identities["track"] == number]
        pieces.append((piece, described.mean(0) if len(described) else None))
    tracks = [_filled(records, identity) for records, identity in _joined(pieces, cuts)]
    tracks = [track for track in tracks if _believable(track)]
    return _reached_back(tracks, cuts), cuts


def _mapped(path: Path, kind: np.dtype) -> np.ndarray:
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)


def _joined(pieces: list[tuple], cuts: list[int]) -> list[tuple]:
    """Pieces where one goes on, within a second and without a cut between, where another broke off."""
    chains: list[list] = []
    for records, identity in sorted(pieces, key=lambda piece: piece[0]["frame"][0]):
        best = None
        for chain in chains:
            last = chain[0][-1]
            gap = records["frame"][0] - last["frame"]
            cut = any(last["frame"] < c <= records["frame"][0] for c in cuts)
            near = overlap(last["box"].astype(float), records["box"][0].astype(float))
            if not cut and 0 < gap <= _GAP and near > 0.2 and _distance(chain[1], identity) < _STRANGER:
                best = chain if best is None or last["frame"] > best[0][-1]["frame"] else best
        if best is None:
            chains.append([records, identity])
        else:
            best[0] = np.concatenate([best[0], records])
            best[1] = _mean(best[1], identity)
    return [tuple(chain) for chain in chains]


def _distance(a: np.ndarray | None, b: np.ndarray | None) -> float:
    return 0.0 if a is None or b is None else float(np.linalg.norm(a - b))


def _mean(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    return b if a is None else a if b is None else (a + b) / 2


def _filled(records: np.ndarray, identity: np.ndarray | None) -> Track:
    """A track with every frame: landmarks that were not measured are those of the neighbours in time, moved with the box."""
    start, count = int(records["frame"][0]), int(records["frame"][-1] - records["frame"][0]) + 1
    at = records["frame"] - start
    seen = records["state"] == SEEN
    frames = np.arange(count)
    boxes = np.stack([np.interp(frames, at, records["box"][:, i]) for i in range(4)], -1)
    landmarks = np.empty((count, 68, 2), np.float32)
    landmarks[at[seen]] = records["landmarks"][seen]
    state, score = np.full(count, FOLLOWED, np.uint8), np.zeros(count, np.float32)
    state[at[seen]], score[at[seen]] = SEEN, records["score"][seen]
    missing = np.flatnonzero(state != SEEN)
    if len(missing):
        known = at[seen]
        after = np.searchsorted(known, missing)
        left, right = known[after - 1], known[after]
        share = ((missing - left) / (right - left))[:, None, None]

        def within(index: np.ndarray) -> np.ndarray:
            corner, size = boxes[index, None, :2], boxes[index, None, 2:] - boxes[index, None, :2]
            return (landmarks[index] - corner) / size

        relative = (1 - share) * within(left) + share * within(right)
        size = boxes[missing, None, 2:] - boxes[missing, None, :2]
        landmarks[missing] = relative * size + boxes[missing, None, :2]
    return Track(start, state, score, landmarks, identity)


def _believable(track: Track) -> bool:
    seen = track.state == SEEN
    return int(seen.sum()) >= _SHORTEST and float(track.score[seen].mean()) >= _WEAKEST


def _reached_back(tracks: list[Track], cuts: list[int]) -> list[Track]:
    """Tracks begun up to four frames earlier, held still, where the shot had begun then: so long a face may go unnoticed."""
    out = []
    for track in tracks:
        shot = max([0, *(cut for cut in cuts if cut <= track.start)])
        reach = min(_REACH, track.start - shot)
        fill = {"state": FOLLOWED, "score": 0.0}
        front = {name: np.full(reach, value, getattr(track, name).dtype) for name, value in fill.items()}
        out.append(
            Track(
                track.start - reach,
                np.concatenate([front["state"], track.state]),
                np.concatenate([front["score"], track.score]),
                np.concatenate([np.repeat(track.landmarks[:1], reach, 0), track.landmarks]),
                track.identity,
            )
        )
    return out


# -------------------------------------------------------------------------------------------------------------- people


def find_people(tracks: list[Track], shortest: float = 1.0) -> tuple[list[Person], list[Track]]:
    """People, in order of appearance and from left to right, and the tracks of faces seen too shortly.

    shortest: seconds that a person must be in the picture in all.
    """
    groups = [[i] for i in range(len(tracks))]
    apart = _distances(tracks)
    while True:
        pairs = [
            (apart[np.ix_(a, b)].mean(), i, j)
            for i, a in enumerate(groups)
            for j, b in enumerate(groups[:i])
            if np.isfinite(apart[np.ix_(a, b)]).all()
        ]
        if not pairs or min(pairs)[0] > _SAME:
            break
        _, i, j = min(pairs)
        groups[j] += groups.pop(i)
    people, left_out = [], []
    for group in groups:
        members = sorted((tracks[i] for i in group), key=lambda track: track.start)
        if sum(len(track.state) for track in members) < shortest * FRAME_RATE:
            left_out += members
        else:
            people.append(members)
    people.sort(key=lambda members: (members[0].start // FRAME_RATE, members[0].boxes[0, 0]))
    return [Person(n, _stretches(members)) for n, members in enumerate(people, start=1)], left_out


def _distances(tracks: list[Track]) -> np.ndarray:
    """Between all pairs: of their descriptions; infinite where both are to be seen at once or one has no description."""
    apart = np.full((len(tracks), len(tracks)), np.inf)
    for i, a in enumerate(tracks):
        for j, b in enumerate(tracks[:i]):
            together = min(a.stop, b.stop) - max(a.start, b.start)
            if together <= _REACH and a.identity is not None and b.identity is not None:
                apart[i, j] = apart[j, i] = _distance(a.identity, b.identity)
    return apart


def _stretches(members: list[Track]) -> list[Stretch]:
    """Tracks of one person, those with at most five frames between them made one."""
    out: list[Stretch] = []
    for track in members:
        state, score, landmarks = track.state, track.score, track.landmarks
        if out and track.start < out[-1].stop:  # what was reached back for may overlap
            late = out[-1].stop - track.start
            state, score, landmarks = state[late:], score[late:], landmarks[late:]
        start = track.stop - len(state)
        if not len(state):
            continue
        if not out or start - out[-1].stop > _BRIDGED:
            out.append(Stretch(start, state, score, landmarks, ()))
            continue
        before, gap = out[-1], start - out[-1].stop
        out[-1] = Stretch(
            before.start,
            np.concatenate([before.state, np.full(gap, FOLLOWED, np.uint8), state]),
            np.concatenate([before.score, np.zeros(gap, np.float32), score]),
            np.concatenate([before.landmarks, np.repeat(before.landmarks[-1:], gap, 0), landmarks]),
            (*before.breaks, start - before.start),
        )
    return out
