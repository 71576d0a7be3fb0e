"""A video in, one voice and one video per person out: `avkit.separate_video` and `avkit separate-video`.

Five stages, each of which a stopped run takes up where it was: sound, faces, mouths, voices, files.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from torch import nn

import avkit
from avkit.errors import DataError, InputError
from avkit.signal import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avkit.video import results
from avkit.video.activity import Offset, lip_motion, lips_with_voice, measure_offset, opening, still_lips
from avkit.video.network import AUTOMATIC, load_network
from avkit.video.people import Faces, find_faces, runs
from avkit.video.reading import Video, probe, write_sound
from avkit.video.tracks import Person, Stretch
from avkit.video.voices import stream_voice
from avkit.video.work import Work, add_place, disk

SHORTEST = 1.0  # seconds that a person must be in the picture
_PEAK = 0.9  # of the mixture given to the network, as in the corpora
_FADE = 640  # samples over which a voice begins and ends
_BLOCK = 60 * SAMPLE_RATE  # samples in memory at once


def separate_video(
    path: str | os.PathLike,
    out: str | os.PathLike,
    model: str | os.PathLike | nn.Module = AUTOMATIC,
    offset: str | float = 0.0,
    fresh: bool = False,
    keep: bool = False,
    quiet: bool = True,
) -> dict:
    """One voice (WAV) and one video (MP4) per person in a video, with a report and an overview picture.

    Args:
        path: any video that FFmpeg reads, with sound.
        out: folder for `person-1.wav`, `person-1.mp4`, …, `report.json` and `overview.png`. The same call again goes on where
            the last one was stopped.
        model: see `avkit.video.network.load_network`.
        offset: seconds by which the sound is late (negative: early), or "auto" for what the lips tell where they do so clearly.
        fresh: begin anew, whatever lies in `out`.
        keep: keep the working files, so that another model needs no second search for faces.
        quiet: no progress.

    Returns:
        The report: what `report.json` holds.

    Raises:
        InputError, DataError: the video cannot be separated (no sound, no face, damaged, …), or there is no room; nothing
            half-written is left.
        CheckpointError: no such network, or none that reads faces.
    """
    wanted = _offset(offset)
    video = probe(path, need_audio=True)
    network, name, caution = load_network(model)
    work = Work(Path(out), video, fresh, "voices", quiet)
    work.plan("sound", "faces", "mouths", "voices", "files")
    if caution:
        work.say(f"note: {caution}")
    with disk(work.out):  # a full disk leaves what is done; the same call goes on from there
        try:
            report = _run(video, work, network, name, caution, wanted)
        except (InputError, DataError):  # nothing to go on with
            work.leave()
            raise
    work.put("cpu", work.cpu)
    if not keep:
        work.leave(done=True)
    if caution:
        work.say(f"note: {caution}")
    return report


def _offset(offset: str | float) -> float | None:
    """Seconds, or None for "auto"."""
    if offset == "auto":
        return None
    try:
        seconds = float(offset)
    except (TypeError, ValueError):
        raise InputError(f"offset is {offset!r}; wanted seconds, or 'auto'") from None
    if not abs(seconds) <= 60:
        raise InputError(f"offset is {seconds} s; wanted at most a minute either way")
    return seconds


def _run(video: Video, work: Work, network: nn.Module, name: str, caution: str, wanted: float | None) -> dict:
    samples = _sound_stage(video, work)
    faces = find_faces(video, work.folder, SHORTEST, _watching(work))
    sound = np.memmap(work.folder / "sound.bin", np.float32, "r", shape=(samples,))
    measured = measure_offset(
        [(s.start, opening(s.landmarks)) for p in faces.people for s in p.stretches], sound
    )
    applied = wanted if wanted is not None else measured.seconds if measured.clear else 0.0
    job = {"model": name, "offset": applied, "people": faces.times}
    if work.note("voices-of") != job:
        work.forget("voice-*")
        work.put("voices-of", job)
    mixture = _Shifted(sound, round(applied * SAMPLE_RATE))
    voices, entries = _voice_stage(work, faces, mixture, network)
    report = _report(video, faces, entries, name, caution, measured, applied, work)
    comment = _comment(name, caution)
    for person in faces.people:
        results.write_wav(work.out / f"{person.name}.wav", voices[person.number], comment)
    progress = work.watch("files", faces.frames)
    pictures = results.write_videos(video, faces, voices, work.out, comment, progress)
    notes = [f"{video.path.name}, separated by {name}.", *_wrapped(caution)]
    results.overview(work.out / "overview.png", faces, pictures, report, voices, notes)
    report["cpu_seconds"] = {stage: round(seconds, 1) for stage, seconds in work.cpu.items()}
    results.write_report(work.out / "report.json", report)
    return report


def _watching(work: Work):
    def watch(stage: str, total: int):
        progress = work.watch(stage, total)

        def done(count: int) -> None:
            progress(count)
            if count % 250 == 0:
                work.put("cpu", work.cpu)

        return done

    return watch


def _comment(name: str, caution: str) -> str:
    return f"One voice of a video, separated by avkit {avkit.__version__} with {name}." + (
        f" {caution}." if caution else ""
    )


def _wrapped(text: str, width: int = 150) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


# ---------------------------------------------------------------------------------------------------------------- sound


def _sound_stage(video: Video, work: Work) -> int:
    """The sound as `sound.bin`; returns its number of samples."""
    done = work.note("sound")
    if done is None:
        progress = work.watch("sound", 1)
        with disk(work.out):
            done = {"samples": write_sound(video, work.folder / "sound.bin")}
        progress(1)
        work.put("sound", done)
    return done["samples"]


class _Shifted:
    """Sound moved by a number of samples (later sound is taken for earlier), silent beyond its ends."""

    def __init__(self, sound: np.ndarray, shift: int):
        self._sound, self._shift = sound, shift
        self.samples = len(sound)

    def __len__(self) -> int:
        return self.samples

    def stretch(self, start: int, stop: int) -> np.ndarray:
        """(stop − start,) float32."""
        out = np.zeros(stop - start, np.float32)
        low, high = start + self._shift, stop + self._shift
        first, last = max(low, 0), min(high, self.samples)
        if last > first:
            out[first - low : last - low] = self._sound[first:last]
        return out


class _Part:
    """A stretch of shifted sound that is sliced like an array."""

    def __init__(self, sound: _Shifted, start: int, stop: int):
        self._sound, self._start, self._length = sound, start, stop - start

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self._length)
        return self._sound.stretch(self._start + start, self._start + stop)


# --------------------------------------------------------------------------------------------------------------- voices


def _voice_stage(
    work: Work, faces: Faces, sound: _Shifted, network: nn.Module
) -> tuple[dict[int, np.ndarray], list[dict]]:
    """Everyone's voice over the whole time, silent where they are not to be seen or do not speak, and what the report says."""
    blocks = range(0, len(sound), SAMPLE_RATE * 60)
    peak = max(
        float(np.abs(sound.stretch(n, min(len(sound), n + SAMPLE_RATE * 60))).max(initial=0.0))
        for n in blocks
    )
    gain = _PEAK / peak if peak > 1e-6 else 1.0
    total = sum(person.frames for person in faces.people)
    progress, before = work.watch("voices", total), 0
    voices, entries = {}, []
    for person in faces.people:
        kept = work.note(f"voice-{person.number}")
        path = work.folder / f"voice-{person.number}.bin"
        if kept is None:
            whole = np.memmap(path, np.float32, "w+", shape=(len(sound),))
            said = []
            for index, stretch in enumerate(person.stretches):
                raw = _raw_voice(
                    work, faces, person, index, sound, network, gain, lambda n, b=before: progress(b + n)
                )
                said.append(_gate(whole, raw, faces.crops(person, stretch), stretch))
                before += len(stretch.state)
            whole.flush()
            kept = _entry(faces, person, said)
            work.put(f"voice-{person.number}", kept)
            work.forget(f"voice-{person.number}-*.raw")
            work.put("cpu", work.cpu)
        else:
            before += person.frames
        progress(before)
        voices[person.number] = np.memmap(path, np.float32, "r", shape=(len(sound),))
        entries.append(kept)
    return voices, entries


def _raw_voice(work, faces, person, index, sound, network, gain, progress) -> np.ndarray:
    """What the network gives for one stretch, from disk as far as it is there."""
    stretch = person.stretches[index]
    start, stop = (min(k * SAMPLES_PER_FRAME, len(sound)) for k in (stretch.start, stretch.stop))
    path = work.folder / f"voice-{person.number}-{index}.raw"
    if stop - start < max(getattr(network, "shortest", 1), SAMPLES_PER_FRAME * 5):
        return np.zeros(stop - start, np.float32)
    crops = faces.crops(person, stretch)[: -(-(stop - start) // SAMPLES_PER_FRAME)]
    begun = _whole_pieces(path, stop - start)
    if begun < stop - start:
        with open(path, "ab") as file:
            file.truncate(begun * 4)
            for piece, position in stream_voice(network, _Part(sound, start, stop), crops, gain, begun):
                piece.astype(np.float32).tofile(file)
                file.flush()
                progress(min(len(stretch.state), position // SAMPLES_PER_FRAME))
    return np.memmap(path, np.float32, "r", shape=(stop - start,))


def _whole_pieces(path: Path, samples: int) -> int:
    """Samples on disk up to the last position at which `stream_voice` can go on."""
    from avkit.separation import plan_chunks

    have = path.stat().st_size // 4 if path.is_file() else 0
    chunks = plan_chunks(samples)
    positions = [0, *(chunk.start for chunk in chunks[1:]), chunks[-1].stop]
    return max(position for position in positions if position <= have)


def _gate(whole: np.ndarray, raw: np.ndarray, crops: np.ndarray, stretch: Stretch) -> dict:
    """Put one stretch's voice in its place, muted where the lips are still. Returns what was decided."""
    motion = lip_motion(crops)
    still = still_lips(motion, raw)
    offset = stretch.start * SAMPLES_PER_FRAME
    heard = [(a * SAMPLES_PER_FRAME, min(b * SAMPLES_PER_FRAME, len(raw))) for a, b in runs(~still)]
    for first in range(0, len(raw), _BLOCK):
        last = min(len(raw), first + _BLOCK)
        whole[offset + first : offset + last] = raw[first:last] * _weight(heard, first, last)
    silent = [[(stretch.start + a) / FRAME_RATE, (stretch.start + b) / FRAME_RATE] for a, b in runs(still)]
    return {
        "silent": silent,
        "motion": float(np.percentile(motion, 90)),
        "lips_with_voice": lips_with_voice(motion, raw),
        "frames": len(motion),
        "still": int(still.sum()),
    }


def _weight(heard: list[tuple[int, int]], first: int, last: int) -> np.ndarray:
    """(last − first,) weights of samples: 1 within the stretches that are heard, with edges of 40 ms inside them, else 0."""
    out = np.zeros(last - first, np.float32)
    for start, stop in heard:
        low, high = max(start, first), min(stop, last)
        if low < high:
            t = np.arange(low, high)
            near = np.minimum(np.minimum(t - start, stop - 1 - t) + 0.5, _FADE) / _FADE
            out[low - first : high - first] = (1 - np.cos(np.pi * near)) / 2
    return out


def _entry(faces: Faces, person: Person, said: list[dict]) -> dict:
    frames = np.array([part["frames"] for part in said], float)
    weights = frames / frames.sum()
    return {
        "name": person.name,
        "voice": f"{person.name}.wav",
        "video": f"{person.name}.mp4",
        "confidence": round(person.confidence, 3),
        "on_screen": faces.rows(person),
        "silent": [pair for part in said for pair in part["silent"]],
        "silent_throughout": all(part["still"] == part["frames"] for part in said),
        "lip_motion": round(float(weights @ [part["motion"] for part in said]), 3),
        "lips_with_voice": round(float(weights @ [part["lips_with_voice"] for part in said]), 3),
    }


# --------------------------------------------------------------------------------------------------------------- report


def _report(
    video: Video,
    faces: Faces,
    entries: list,
    name: str,
    caution: str,
    measured: Offset,
    applied: float,
    work: Work,
) -> dict:
    shape = {"width": video.width, "height": video.height, "frame_rate": video.frame_rate}
    return {
        "video": str(video.path),
        "caution": caution,
        "model": name,
        "avkit": avkit.__version__,
        "seconds": faces.frames / FRAME_RATE,
        **shape,
        "sound": {
            "sample_rate": video.sample_rate,
            "channels": video.channels,
            "starts": round(video.audio_start, 3),
        },
        "offset": {
            "measured": measured.seconds,
            "clarity": round(measured.clarity, 2),
            "clear": measured.clear,
            "applied": applied,
        },
        "cuts": [cut / FRAME_RATE for cut in faces.cuts],
        "people": entries,
        "left_out": [
            {
                "start": t.start / FRAME_RATE,
                "stop": t.stop / FRAME_RATE,
                "box": t.boxes[len(t.state) // 2].round(1).tolist(),
            }
            for t in faces.left_out
        ],
    }


def main(argv: list[str]) -> int:
    """`avkit separate-video`."""
    parser = argparse.ArgumentParser(
        prog="avkit separate-video",
        description="One voice (WAV) and one video (MP4) per person in a video, a report (JSON) and an overview (PNG). The same "
        "command again goes on where it was stopped.",
        epilog="example: avkit separate-video debate.mp4 voices",
    )
    parser.add_argument("video", metavar="IN", help="any video that FFmpeg reads, with sound")
    add_place(parser, "OUT_DIR")
    parser.add_argument(
        "--model",
        metavar="NAME",
        default=AUTOMATIC,
        help="bundled name, name of `avkit weights`, checkpoint's folder or official file (auto: official weights and their lip "
        "encoder where they were fetched, else the bundled network, which knows synthetic talkers only)",
    )
    parser.add_argument(
        "--offset",
        metavar="SECONDS",
        default="0",
        help="how late the sound is, or auto: what the lips tell (0: reported only)",
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of going on")
    parser.add_argument(
        "--keep", action="store_true", help="keep working files: another --model is then quicker"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    args = parser.parse_args(argv)
    out = args.out or args.place
    report = separate_video(args.video, out, args.model, args.offset, args.fresh, args.keep, args.quiet)
    print(summary(report, out))
    return 0


def summary(report: dict, out: Path) -> str:
    """The report in words."""
    lines = []
    for person in report["people"]:
        seen = sum(s["stop"] - s["start"] for s in person["on_screen"])
        silent = sum(stop - start for start, stop in person["silent"])
        heard = (
            "no speech"
            if person["silent_throughout"]
            else f"silent for {silent:.1f} s"
            if silent
            else "speaks"
        )
        lines.append(f"{out / person['video']}  in the picture for {seen:.1f} s, {heard}")
    offset = report["offset"]
    if offset["applied"]:
        lines.append(f"The sound was moved by {-offset['applied']:+.2f} s.")
    elif offset["clear"] and abs(offset["measured"]) > 0.045:
        late = "late" if offset["measured"] > 0 else "early"
        lines.append(
            f"The sound seems to be {abs(offset['measured']):.2f} s {late}; --offset auto corrects that "
            f"(--offset {offset['measured']} likewise)."
        )
    lines.append(f"{out / 'report.json'}, {out / 'overview.png'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
