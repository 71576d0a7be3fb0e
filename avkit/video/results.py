"""The last stage: WAV, MP4, overview and report of a separated video, from what lies in the working folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from avkit.checkpoints import write_atomically
from avkit.signal import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avkit.video.drawing import draw_box, write_overview
from avkit.video.people import Faces
from avkit.video.reading import Video, fitted, frames, picture
from avkit.video.tracks import Person, boxes_of
from avkit.video.writing import Mp4Writer

_LONGEST = 1280  # pixels along the longer side of what is written
_BLOCK = SAMPLE_RATE * 10


def write_wav(path: Path, voice: np.ndarray, comment: str) -> None:
    """(T,) float samples as a 16 kHz WAV file, 16 bits, or 32-bit float where they exceed ±1; the comment in its head."""
    import soundfile

    starts = range(0, len(voice), _BLOCK)
    peak = max((float(np.abs(voice[n : n + _BLOCK]).max(initial=0.0)) for n in starts), default=0.0)

    def write(name: str) -> None:
        subtype = "PCM_16" if peak <= 1 else "FLOAT"
        with soundfile.SoundFile(name, "w", SAMPLE_RATE, 1, subtype, format="WAV") as file:
            if comment:
                file.comment = comment
            for n in starts:
                file.write(voice[n : n + _BLOCK])

    write_atomically(path, write)


def write_videos(
    video: Video,
    faces: Faces,
    voices: dict[int, np.ndarray],
    out: Path,
    comment: str,
    progress: Callable[[int], None],
) -> list[tuple[float, np.ndarray]]:
    """One MP4 per person: the video at 25 frames a second, the person's face boxed, the person's voice.

    voices: (T,) float samples by person; without them (`avkit faces`) no video is written.

    Returns:
        Up to four (seconds, picture) with everyone's boxes, for the overview.
    """
    width, height = fitted(video.width, video.height, _LONGEST)
    places = {p.number: _boxes(p, faces.frames, width / video.width) for p in faces.people}
    wanted, kept = _telling_frames(faces), []
    writers: dict[int, Mp4Writer] = {}
    try:
        if voices:
            for person in faces.people:
                writers[person.number] = Mp4Writer(out / f"{person.name}.mp4", width, height, comment=comment)
        for k, frame in frames(video):
            if not writers and k not in wanted:
                progress(k + 1)
                continue
            rgb = picture(frame, video, _LONGEST, "rgb24")
            if k in wanted:
                kept.append((k / FRAME_RATE, _with_boxes(rgb, faces.people, places, k)))
            for person in faces.people:
                if person.number in writers:
                    boxed = _with_boxes(rgb, [person], places, k)
                    writers[person.number].picture(boxed, k / FRAME_RATE)
                    _give_sound(writers[person.number], voices[person.number], k, faces.frames)
            progress(k + 1)
        for number in list(writers):
            writers[number].close()
    finally:
        for writer in writers.values():
            writer.discard()
    return kept


def _give_sound(writer: Mp4Writer, voice: np.ndarray, k: int, count: int) -> None:
    """The sound up to the end of frame k; with the last frame, all that is left (at most 0.2 s)."""
    stop = (k + 1) * SAMPLES_PER_FRAME + (SAMPLES_PER_FRAME * 5 if k == count - 1 else 0)
    piece = voice[writer.given : stop]
    if len(piece):
        writer.sound(np.asarray(piece))


def _boxes(person: Person, count: int, scale: float) -> np.ndarray:
    """(count, 4) boxes, NaN where the person is not to be seen."""
    out = np.full((count, 4), np.nan, np.float32)
    for stretch in person.stretches:
        out[stretch.start : stretch.stop] = boxes_of(stretch.landmarks)[: count - stretch.start] * scale
    return out


def _with_boxes(rgb: np.ndarray, people: list[Person], places: dict[int, np.ndarray], k: int) -> np.ndarray:
    rgb = rgb.copy()
    for person in people:
        box = places[person.number][k]
        if np.isfinite(box).all():
            draw_box(rgb, box, person.number, person.name)
    return rgb


def _telling_frames(faces: Faces) -> set[int]:
    """Four frames spread over the video, in each quarter the one in which most people are to be seen."""
    present = np.zeros(faces.frames, int)
    for person in faces.people:
        for stretch in person.stretches:
            present[stretch.start : stretch.stop] += 1
    edges = np.linspace(0, faces.frames, 5).astype(int)
    chosen = set()
    for first, last in pairwise(edges):
        if last > first:
            apart = np.abs(np.arange(first, last) - (first + last) / 2) / (
                2 * (last - first)
            )  # below 1/2 of a person
            chosen.add(int(first + np.argmax(present[first:last] - apart)))
    return chosen


def write_report(path: Path, report: dict) -> None:
    """The report as JSON."""
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(path, lambda name: Path(name).write_text(text, encoding="utf-8"))


def overview(
    path: Path, faces: Faces, pictures: list, report: dict, voices: dict[int, np.ndarray], notes: list[str]
) -> None:
    """`overview.png`: pictures with boxes, and a row for each person."""
    loudest = max((float(max(v.max(), -v.min())) for v in voices.values()), default=0.0)
    rows = []
    for person, entry in zip(faces.people, report["people"], strict=True):
        row = {
            "number": person.number,
            "name": person.name,
            "mouths": _mouths(faces, person),
            "seen": [(s["start"], s["stop"]) for s in entry["on_screen"]],
            "away": [pair for s in entry["on_screen"] for pair in s["turned_away"]],
            "silent": entry.get("silent", []),
            "words": [f"{100 * person.confidence:.0f} % of frames", "with a frontal face"],
        }
        if person.number in voices:
            row["level"] = _level(voices[person.number], max(loudest, 1e-9))
            row["words"] += ["no speech"] if entry["silent_throughout"] else []
        rows.append(row)
    write_overview(path, pictures, rows, report["seconds"], notes)


def _mouths(faces: Faces, person: Person) -> list[np.ndarray]:
    """Eight crops spread over all that there are."""
    every = [(s, i) for s in person.stretches for i in range(len(s.state))]
    chosen = [every[i] for i in np.linspace(0, len(every) - 1, 8).astype(int)]
    return [np.array(faces.crops(person, stretch)[i]) for stretch, i in chosen]


def _level(voice: np.ndarray, loudest: float) -> np.ndarray:
    """Peaks of about a thousand equal parts, 0 … 1."""
    size = max(1, len(voice) // 1000)
    parts = [float(np.abs(voice[n : n + size]).max()) for n in range(0, len(voice), size)]
    return np.array(parts) / loudest
