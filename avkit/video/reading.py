"""Reading video: frames at 25 per second on the common clock of sound and picture, and the sound on the same clock.

Time 0 is where the file's first stream begins. Frame k of the grid is the picture shown at (k + 0.5) / 25 s, whatever the
file's own frame rate, constant or not; sample n of the sound is heard at n / 16000 s, silence filling what the file leaves
out. Frames are decoded one at a time and never kept.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avkit._extras import require
from avkit.errors import DataError, InputError
from avkit.signal import FRAME_RATE, SAMPLE_RATE

_JUMP = (
    0.02  # seconds by which sound may be off its time stamps before silence is filled in, or samples dropped
)
_SEEK_BACK = 1.0  # seconds to begin decoding before the frame that is wanted

log = logging.getLogger("avkit")


@dataclass(frozen=True)
class Video:
    """What a file holds.

    Attributes:
        path: the file.
        width, height: in square pixels, as displayed (rotation and pixel shape applied).
        rotation: degrees counterclockwise by which stored pictures are turned for display.
        frame_rate: frames per second, on average.
        origin: the file's own time, in seconds, that is time 0 here.
        video_start, video_stop: seconds on the common clock between which there are pictures.
        sample_rate, channels: of the sound; 0 where there is none.
        audio_start: seconds; 0 where there is no sound.
    """

    path: Path
    width: int
    height: int
    rotation: int
    frame_rate: float
    origin: float
    video_start: float
    video_stop: float
    sample_rate: int
    channels: int
    audio_start: float

    @property
    def frames(self) -> int:
        """How many frames the grid of 25 per second has, as far as the file's head tells."""
        return max(1, math.ceil(self.video_stop * FRAME_RATE - 0.5))


def open_container(path: str | os.PathLike):
    """An open PyAV container. Raises DataError for what cannot be opened as video, InputError for a wrong path."""
    require("av", "Reading video")
    import av

    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; wanted a video file")
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; wanted a video file")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, ValueError, OSError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{path} cannot be read as video ({said}): it is damaged, cut short, or no video. If a player shows it, write it "
            f"anew, for one with `ffmpeg -i {path.name} -c:v libx264 -c:a aac new.mp4`"
        ) from None


def probe(path: str | os.PathLike, need_audio: bool = False) -> Video:
    """What a file holds, from its head and its first picture.

    Raises:
        InputError: wrong path; a still picture; no video stream; no sound although `need_audio`.
        DataError: not readable as video.
    """
    with open_container(path) as container:
        if not container.streams.video:
            raise InputError(
                f"{path} holds no pictures, only sound; wanted a video. `avkit separate` takes sound and lips apart"
            )
        stream = container.streams.video[0]
        audio = container.streams.audio[0] if container.streams.audio else None
        if need_audio and audio is None:
            raise InputError(
                f"{path} has no sound, so there is nothing to separate; `avkit faces` finds faces without it"
            )
        first = next(_decoded(container, stream), None)
        if first is None:
            raise DataError(
                f"{path} holds a video stream of which no picture can be decoded: it is damaged or cut short"
            )
        starts = [first.time or 0.0]
        if audio is not None:
            starts.append(float((audio.start_time or 0) * audio.time_base))
        origin = min(starts)
        rate = float(stream.average_rate or stream.guessed_rate or FRAME_RATE)
        width, height = _displayed(first)
        return Video(
            path=Path(path),
            width=width,
            height=height,
            rotation=_rotation(first),
            frame_rate=rate,
            origin=origin,
            video_start=starts[0] - origin,
            video_stop=_stop(container, stream, rate, starts[0]) - origin,
            sample_rate=audio.codec_context.sample_rate if audio is not None else 0,
            channels=audio.codec_context.channels if audio is not None else 0,
            audio_start=starts[1] - origin if audio is not None else 0.0,
        )


def _stop(container, stream, rate: float, start: float) -> float:
    """When the last picture ends, in the file's own time, by its head."""
    if stream.duration:
        return start + float(stream.duration * stream.time_base)
    if stream.frames:
        return start + stream.frames / rate
    if container.duration:
        return start + container.duration / 1e6
    return start + 1 / rate


def _rotation(frame) -> int:
    return round((frame.rotation or 0) / 90) * 90


def _displayed(frame) -> tuple[int, int]:
    """Width and height of a picture as shown: pixels made square, rotation applied."""
    shape = getattr(frame, "sample_aspect_ratio", None)
    width = round(frame.width * float(shape)) if shape and 0.2 < float(shape) < 5 else frame.width
    return (frame.height, width) if _rotation(frame) % 180 else (width, frame.height)


def _decoded(container, stream) -> Iterator:
    """Frames of one stream; packets that cannot be decoded are passed over, with one note at the end."""
    import av

    damaged = 0
    stream.thread_type = "AUTO"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError:  # the file itself ends in the middle
            damaged += 1
            break
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            damaged += 1
    if damaged:
        log.info("%d damaged or missing pieces of the %s stream were passed over", damaged, stream.type)


# ------------------------------------------------------------------------------------------------------------ pictures


def frames(video: Video, start: int = 0) -> Iterator[tuple[int, object]]:
    """(k, frame) of the grid of 25 per second, from frame `start` on; frame objects are PyAV's (see `picture`).

    Where the video starts late, the grid begins with its first picture. A picture that lasts longer than 1/25 s comes again.
    """
    with open_container(video.path) as container:
        stream = container.streams.video[0]
        if start > 0:
            _seek(container, stream, video.origin + start / FRAME_RATE - _SEEK_BACK)
        k, shown, latest, step = None, None, -1.0, 1 / video.frame_rate
        for frame in _decoded(container, stream):
            time = latest + step if frame.time is None else frame.time - video.origin
            if time <= latest:
                continue
            if k is None:  # the first picture is shown from its time on
                k = max(start, _grid(time))
            while (k + 0.5) / FRAME_RATE < time:
                yield k, shown
                k += 1
            shown, latest = frame, time
            step = float(frame.duration * frame.time_base) if frame.duration else 1 / video.frame_rate
        while shown is not None and (k + 0.5) / FRAME_RATE < latest + step:
            yield k, shown
            k += 1


def _grid(time: float) -> int:
    """The first k with (k + 0.5) / 25 >= time."""
    return max(0, math.ceil(time * FRAME_RATE - 0.5 - 1e-6))


def _seek(container, stream, time: float) -> None:
    """Go to a key frame at or before `time` in the file's own seconds; where that fails, decoding begins at the start."""
    import av

    if time > 0:
        with contextlib.suppress(av.error.FFmpegError):
            container.seek(int(time / stream.time_base), stream=stream, backward=True)


def picture(frame, video: Video, longest: int, pixels: str = "gray") -> np.ndarray:
    """A frame as displayed, its longer side at most `longest` pixels.

    pixels: "gray" for (height, width) uint8, "rgb24" for (height, width, 3). The array is a copy of its own, row after row
    without a gap: FFmpeg pads the rows of a frame, PyAV gives a view of them, and dlib's detector cannot be given views.
    """
    width, height = fitted(video.width, video.height, longest)
    if video.rotation % 180:
        width, height = height, width
    array = frame.reformat(width=width, height=height, format=pixels).to_ndarray()
    return np.rot90(array, video.rotation // 90).copy()


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """Even width and height with the same proportions, the longer side at most `longest`."""
    scale = min(1.0, longest / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


# --------------------------------------------------------------------------------------------------------------- sound


def write_sound(video: Video, path: Path) -> int:
    """Decode the sound to `path` as raw float32 at 16 kHz, channels averaged, sample 0 at time 0. Returns the count.

    Raises:
        DataError: there is a sound stream, and nothing in it can be decoded.
    """
    written = 0
    with open_container(video.path) as container, open(path, "wb") as file:
        for start, samples in _sound(video, container):
            if start > written:
                _write_silence(file, start - written)
                written = start
            samples = samples[max(0, written - start) :]
            samples.tofile(file)
            written += len(samples)
    if written == 0:
        raise DataError(
            f"{video.path} has a sound stream of which nothing can be decoded: it is damaged or cut short"
        )
    return written


def _write_silence(file, count: int) -> None:
    while count > 0:
        block = min(count, 1 << 20)
        np.zeros(block, np.float32).tofile(file)
        count -= block


def _sound(video: Video, container) -> Iterator[tuple[int, np.ndarray]]:
    """(first sample on the common clock, float32 samples at 16 kHz), resampled without a break where the file has none."""
    stream = container.streams.audio[0]
    begun, taken, given, rate, resampler = (
        None,
        0,
        0,
        0,
        None,
    )  # of the stretch without breaks: start in s, samples in, out
    for frame in _decoded(container, stream):
        time = None if frame.time is None else frame.time - video.origin
        expected = None if begun is None else begun + taken / rate
        broken = (
            expected is None
            or frame.sample_rate != rate
            or (time is not None and abs(time - expected) > _JUMP)
        )
        if broken:
            if resampler is not None:
                yield round(begun * SAMPLE_RATE) + given, _mono(resampler.resample(None))
            resampler, rate = _resampler(), frame.sample_rate
            begun = time if time is not None else expected if expected is not None else 0.0
            taken = given = 0
        taken += frame.samples
        frame.pts = None  # the resampler counts by itself
        samples = _mono(resampler.resample(frame))
        yield round(begun * SAMPLE_RATE) + given, samples
        given += len(samples)
    if resampler is not None:
        yield round(begun * SAMPLE_RATE) + given, _mono(resampler.resample(None))


def _resampler():
    import av

    return av.AudioResampler(format="fltp", rate=SAMPLE_RATE)


def _mono(pieces: list) -> np.ndarray:
    """Resampled frames as one float32 array, channels averaged, anything not finite made silent."""
    arrays = [piece.to_ndarray().mean(axis=0) for piece in pieces]
    joined = np.concatenate(arrays) if arrays else np.zeros(0)
    return np.nan_to_num(joined, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
