"""From raw clips of one talker each to recordings and mouth crops of equal length, several clips at a time.

    OUT/wav16k/{utt}.wav     mono, 16 kHz, on the pictures' clock
    OUT/mouths/{utt}.npz     key `data`, (frames, 96, 96) uint8, 25 fps, aligned as `avkit.video.crops` says

A recording and its crops begin at the same moment and last equally long, as mixtures need them: 2 s where nothing else is
said. A clip that will not do leaves no file and becomes a fault with a reason. The same command again goes on: clips that are
there are passed over.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from avkit._progress import interval
from avkit._workers import pool
from avkit.checkpoints import write_atomically
from avkit.data import mixing
from avkit.data.checking import Fault, Layout
from avkit.data.reading import SLACK, read_mouth
from avkit.errors import AvkitError, DataError, InputError, MissingPackageError
from avkit.signal import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

SUFFIXES = (".mp4", ".m4v", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm")
RECORDINGS = "wav16k"  # folder of the single talkers' recordings
_SEEN = 0.5  # share of the frames in which a detector must have seen the face


@dataclass(frozen=True)
class Clip:
    """One utterance's video."""

    utterance: str
    path: Path


@dataclass(frozen=True)
class Part:
    """What is taken of each clip: from `start` on, `seconds` long, both multiples of 0.04 s."""

    start: float = 0.0
    seconds: float = 2.0

    def __post_init__(self):
        for name, value, least in (("--start", self.start, 0), ("--seconds", self.seconds, 1)):
            frames = value * FRAME_RATE
            if not frames >= least or abs(frames - round(frames)) > 1e-6:
                raise InputError(f"{name} {value}: wanted a multiple of 0.04, the time of a frame of video.")

    @property
    def first(self) -> int:
        """The first frame."""
        return round(self.start * FRAME_RATE)

    @property
    def frames(self) -> int:
        """How many frames."""
        return round(self.seconds * FRAME_RATE)


def find_clips(folder: Path, corpus: str) -> list[Clip]:
    """Every video below a folder whose path ends in an id of this corpus (`main/6330311066473698535/00011.mp4`), by id.

    Raises DataError when there is none, or when two files claim one id.
    """
    found = mixing.by_utterance(videos_below(folder), folder, corpus)
    if not found:
        raise DataError(
            f"{folder} holds no video whose name is an id of {corpus}. Wanted the folder of raw clips as they were downloaded, "
            f"named {{id}}.mp4 or in folders that make up the id (other endings: {', '.join(SUFFIXES[1:])})."
        )
    return [Clip(utterance, found[utterance]) for utterance in sorted(found)]


def videos_below(folder: Path) -> list[Path]:
    """Every file below a folder with the ending of a video; hidden ones are left out."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def cut_clips(
    clips: list[Clip], out: Path, part: Part, workers: int = 1, quiet: bool = True
) -> tuple[list[str], list[Fault]]:
    """Write the recording and the crops of every clip; the files do not depend on the number of workers.

    Args:
        clips: each with one talker; where several faces are to be seen from beginning to end, the largest is taken.
        out: gets `wav16k/` and `mouths/`.
        part: what is taken of each clip. Files in `out` that were cut with another part are cut anew.
        workers: processes.
        quiet: show no progress.

    Returns:
        The utterances that are there now, and a fault for each clip that would not do.
    """
    for name in (RECORDINGS, "mouths"):
        (out / name).mkdir(parents=True, exist_ok=True)
    note = out / RECORDINGS / "cut.json"
    wanted = {"start": part.start, "seconds": part.seconds}
    keep = note.is_file() and json.loads(note.read_text()) == wanted
    write_atomically(note, lambda path: Path(path).write_text(json.dumps(wanted)))
    jobs = [(clip, out, part) for clip in clips if not (keep and _there(clip, out, part))]
    results = tqdm(_spread(jobs, workers), total=len(jobs), desc="cutting clips", unit="", mininterval=interval(), disable=quiet)
    faults = [fault for fault in results if fault is not None]
    failed = {fault.where for fault in faults}
    return [clip.utterance for clip in clips if str(clip.path) not in failed], faults


def _spread(jobs: list[tuple], workers: int) -> Iterator[Fault | None]:
    if workers == 1 or len(jobs) < 2:
        yield from itertools.starmap(_cut, jobs)
        return
    with pool(workers) as processes:
        yield from processes.map(_cut, *zip(*jobs, strict=True))


def _paths(clip: Clip, out: Path) -> tuple[Path, Path]:
    return out / RECORDINGS / f"{clip.utterance}.wav", Layout(out, out / "mouths").mouth(clip.utterance)


def _there(clip: Clip, out: Path, part: Part) -> bool:
    """Whether an earlier run cut this clip."""
    recording, mouth = _paths(clip, out)
    try:
        with wave.open(str(recording), "rb") as file:
            samples = file.getnframes()
        return samples == part.frames * SAMPLES_PER_FRAME and len(read_mouth(mouth)) == part.frames
    except (OSError, EOFError, wave.Error, DataError):
        return False


def _cut(clip: Clip, out: Path, part: Part) -> Fault | None:
    """Cut one clip; returns what kept it from being cut."""
    recording, mouth = _paths(clip, out)
    for path in (recording, mouth):
        path.unlink(missing_ok=True)
    try:
        samples, crops = read_clip(clip.path, part)
    except _ClipError as error:
        return Fault(error.kind, str(clip.path), str(error))
    except MissingPackageError:
        raise
    except AvkitError as error:
        return Fault("unreadable", str(clip.path), str(error))

    def write(name: str) -> None:
        with open(name, "wb") as file:
            np.savez_compressed(file, data=crops)

    write_atomically(mouth, write)
    mixing.write_wav(recording, samples)
    return None


class _ClipError(DataError):
    """A clip can be read, and yet will not do: `kind` as in `checking.FAULTS`."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def read_clip(path: Path, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """A clip's sound, (T,) int16 at 16 kHz, and its talker's mouth crops, (T / 640, 96, 96) uint8.

    Raises DataError or InputError for what cannot be read, is too short, has no sound, or shows no face from beginning to end.
    """
    from avkit.video.reading import probe, write_sound

    video = probe(path)
    if not video.sample_rate:
        raise _ClipError("no sound", f"{path} has no sound: find the file that has, or put the two together.")
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "sound.bin"
        write_sound(video, sound)
        first, last = (n * SAMPLES_PER_FRAME for n in (part.first, part.first + part.frames))
        samples = np.fromfile(sound, np.float32)[first:last]
        if len(samples) < last - first:
            raise _ClipError("too short", f"{path} lasts, in its sound, {_upto(part, len(samples) / SAMPLE_RATE)}.")
        if not samples.any():
            raise _ClipError("silent", f"{path} has a sound track in which nothing is to be heard.")
        crops = _crops(video, Path(folder), part)
    return np.round(samples.clip(-1, 1) * 32767).astype(np.int16), crops


def _upto(part: Part, seconds: float) -> str:
    wanted = f"{part.seconds:g} s" + (f" from {part.start:g} s on" if part.start else "")
    return f"{part.start + seconds:.2f} s, too little for {wanted}"


def _crops(video, folder: Path, part: Part) -> np.ndarray:
    """(frames, 96, 96): of the person who is to be seen throughout, the largest where there are several."""
    from avkit.video.crops import WINDOW, Aligner
    from avkit.video.people import LONGEST
    from avkit.video.reading import frames, picture
    from avkit.video.tracking import track_faces

    stop = part.first + part.frames + WINDOW - 1  # landmarks are averaged over the frames that follow
    track_faces(video, folder, stop=stop)
    landmarks, breaks = _landmarks(video, folder, part)
    aligner = Aligner(landmarks, breaks)
    crops = []
    for k, frame in frames(video, part.first):
        if k >= part.first + part.frames:
            break
        gray = picture(frame, video, LONGEST)
        crops.append(aligner.crop(k - part.first, gray, gray.shape[1] / video.width))
    return np.stack(crops + crops[-1:] * (part.frames - len(crops)))


def _landmarks(video, folder: Path, part: Part) -> tuple[np.ndarray, tuple[int, ...]]:
    """(F, 68, 2) of the talker from the part's first frame on, as far as faces were followed, and the cuts in it."""
    from avkit.video.tracking import SEEN
    from avkit.video.tracks import boxes_of, find_people, read_tracks

    known = json.loads((folder / "tracking.json").read_text())["frames"]
    wanted = np.arange(part.first, min(part.first + part.frames, known))
    if len(wanted) < part.frames - SLACK:
        raise _ClipError("too short", f"{video.path} lasts, in its pictures, {_upto(part, len(wanted) / FRAME_RATE)}.")
    tracks, cuts = read_tracks(folder)
    people, left_out = find_people(tracks, 0.0)
    best, seen_most = None, 0
    for person in people:
        at = np.concatenate([np.arange(s.start, s.stop) for s in person.stretches])
        state = np.concatenate([s.state for s in person.stretches])
        points = np.concatenate([s.landmarks for s in person.stretches])
        inside = np.isin(at, wanted)
        seen_most = max(seen_most, int(inside.sum()))
        if len(wanted) - inside.sum() > SLACK or (state[inside] == SEEN).mean() < _SEEN:
            continue
        size = float((boxes_of(points[inside])[:, 2:] - boxes_of(points[inside])[:, :2]).prod(-1).mean())
        if best is None or size > best[0]:
            best = size, at, points
    if best is None:
        whom = f"a face for {seen_most / FRAME_RATE:.2f} s at most" if people or left_out else "no face"
        raise _ClipError(
            "no face",
            f"{video.path} shows {whom} between {part.start:g} and {part.start + part.seconds:g} s; wanted one throughout, frontal "
            "or nearly so, at least 40 pixels wide.",
        )
    _, at, points = best
    every = np.arange(part.first, known)
    nearest = np.abs(every[:, None] - at[None, :]).argmin(1)
    return points[nearest], tuple(cut - part.first for cut in cuts if cut > part.first)

