"""Reading the three kinds of file that an item is made of: recordings, mouth crops, and stored lip features."""

from __future__ import annotations

import os
import struct
import tokenize
import wave
import zipfile
import zlib
from pathlib import Path

import numpy as np

from avkit.errors import DataError, MissingPackageError
from avkit.lips import FRAME_SIZE
from avkit.signal import SAMPLE_RATE

SLACK = 5  # frames (0.2 s) by which lips may be too short or too long for their sound

# what wave, NumPy and zipfile raise for damaged bytes, which they trust in many places
_DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_audio(path: str | os.PathLike, start: int = 0, samples: int | None = None) -> np.ndarray:
    """A stretch of a mono 16 kHz recording: int16 where the file is 16-bit PCM, float32 in [-1, 1] otherwise.

    start: first sample; samples: how many (None: to the end). Files other than 16-bit WAV need the soundfile
        package.
    Raises DataError naming the file when it is missing, damaged, too short, or not mono at 16 kHz.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            if file.getsampwidth() != 2:
                return _read_other(path, start, samples)
            _check_format(path, file.getframerate(), file.getnchannels())
            wanted = file.getnframes() - start if samples is None else samples
            file.setpos(min(start, file.getnframes()))
            audio = np.frombuffer(file.readframes(max(wanted, 0)), dtype="<i2")
    except FileNotFoundError:
        raise DataError(f"The recording {path} does not exist, though a list names it.") from None
    except wave.Error:
        return _read_other(path, start, samples)
    except _DAMAGED as error:
        raise DataError(f"The recording {path} cannot be read ({error or 'it ends early'}).") from None
    return _check_length(path, audio, start, wanted)


def as_float(audio: np.ndarray) -> np.ndarray:
    """Samples as float32 in [-1, 1], whichever type they were read in."""
    return audio.astype(np.float32) / 32768 if audio.dtype == np.int16 else audio


def read_mouth(path: str | os.PathLike) -> np.ndarray:
    """A file of mouth crops: (F, 96, 96) uint8 gray, from the key `data` of an .npz file.

    Raises DataError naming the file when it is missing, damaged, or holds something else.
    """
    frames = read_array(path, "mouth crops")
    if (
        frames.dtype != np.uint8
        or frames.ndim != 3
        or frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE)
        or not len(frames)
    ):
        hint = ""
        if frames.shape[-2:] == (120, 120):
            hint = (
                " 120×120 crops come from another, unaligned recipe; they must be cut again from the video."
            )
        raise DataError(
            f"The mouth crops {path} are {frames.shape} {frames.dtype}; (frames, 96, 96) uint8 gray is wanted."
            f"{hint}"
        )
    return frames


def read_features(path: str | os.PathLike) -> np.ndarray:
    """Stored lip features: (K, F, 512) float16, variant 0 from the centre crop, the others from augmented
    crops.

    Raises DataError naming the file when it is missing, damaged, or holds something else.
    """
    features = read_array(path, "lip features")
    if features.dtype != np.float16 or features.ndim != 3 or 0 in features.shape:
        raise DataError(
            f"The lip features {path} are {features.shape} {features.dtype}; (variants, frames, channels) float16 "
            "is wanted. Write them anew with `avkit prepare features`."
        )
    return features


def fit_frames(frames: np.ndarray, count: int, path: str | os.PathLike) -> np.ndarray:
    """Frames (axis 0) brought to `count`: up to 0.2 s too few are padded with the last one, too many trimmed.

    count: as many as the recording lasts, at 25 per second. Raises DataError where the difference is larger.
    """
    if abs(len(frames) - count) > SLACK:
        raise DataError(
            f"The lips {path} have {len(frames)} frames where their recording lasts {count} (25 per second): more "
            "than 0.2 s apart. Cut the crops again from the stretch of video that belongs to the recording."
        )
    if len(frames) < count:
        frames = np.concatenate([frames, np.repeat(frames[-1:], count - len(frames), axis=0)])
    return frames[:count]


def read_array(path: str | os.PathLike, what: str) -> np.ndarray:
    """The array under the key `data` of an .npz file; `what` it should be, for messages.

    Raises DataError naming the file when it is missing, damaged, or holds no such array.
    """
    try:
        content = _data_of(path)
    except FileNotFoundError:
        raise DataError(f"There are no {what} {path}; a list or the command names them.") from None
    except KeyError:
        raise DataError(f"The {what} {path} lack the key 'data'.") from None
    except _DAMAGED as error:
        raise DataError(
            f"The {what} {path} cannot be read as an .npz archive ({error or 'it ends early'})."
        ) from None
    if not isinstance(content, np.ndarray):
        raise DataError(f"The {what} {path} cannot be read: the entry 'data' is no array.")
    return content


def _data_of(path: str | os.PathLike, tries: int = 5) -> np.ndarray:
    """The entry `data` of an .npz file.

    NumPy parses an array's header as Python; where several threads do so at once, some versions of Python 3.11 now and then
    raise SystemError by mistake (python/cpython issue 106905). The file is then read again, `tries` times in all.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["data"]
    except SystemError:
        if tries == 1:
            raise
    return _data_of(path, tries - 1)


def _read_other(path: str | os.PathLike, start: int, samples: int | None) -> np.ndarray:
    """As `read_audio`, for what the standard library does not read."""
    try:
        import soundfile
    except ImportError:
        raise MissingPackageError(
            f"The recording {path} is not 16-bit WAV; reading it needs soundfile: pip install soundfile."
        ) from None
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            _check_format(path, file.samplerate, file.channels)
            wanted = file.frames - start if samples is None else samples
            file.seek(min(start, file.frames))
            audio = file.read(max(wanted, 0), dtype="float32")
    except _DAMAGED as error:  # soundfile's own is a RuntimeError
        raise DataError(f"The recording {path} cannot be read ({error}).") from None
    return _check_length(path, audio, start, wanted)


def _check_format(path: str | os.PathLike, rate: int, channels: int) -> None:
    if rate != SAMPLE_RATE or channels != 1:
        raise DataError(
            f"The recording {path} has {channels} channel(s) at {rate} Hz; one at {SAMPLE_RATE} Hz is "
            f"wanted. Convert it, with `ffmpeg -i IN -ac 1 -ar {SAMPLE_RATE} OUT.wav` for one."
        )


def _check_length(path: str | os.PathLike, audio: np.ndarray, start: int, wanted: int) -> np.ndarray:
    if len(audio) < wanted or wanted <= 0:
        raise DataError(
            f"The recording {Path(path)} ends {max(wanted, 1) - len(audio)} samples too early: {max(wanted, 1)} "
            f"from sample {start} on were wanted. It is cut short, or its list gives a wrong length."
        )
    if audio.dtype == np.float32 and not np.isfinite(audio).all():
        raise DataError(f"The recording {path} holds samples that are not finite.")
    return audio
