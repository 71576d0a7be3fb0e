"""Writing MP4: H.264 pictures and AAC sound that every common player shows, complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from avkit._extras import require
from avkit.errors import DataError
from avkit.signal import FRAME_RATE, SAMPLE_RATE

SOUND_RATE = (
    48_000  # Hz, of the AAC track: its encoder's delay is then 21 ms in players that do not make up for it
)
_TICKS = 90_000  # per second, of picture time stamps


def no_space(number: int | None, path: Path) -> DataError | None:
    """The error to raise where an error's number says that a disk is full or may not be written to; else None."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"no space is left for {path}; free some, or choose another folder, and give the same command again"
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DataError(f"{path} may not be written ({os.strerror(number)}); choose another folder")
    return None


class Mp4Writer:
    """An MP4 file that appears under its name only when it is complete; a context manager.

    Args:
        path: the file.
        width, height: even numbers of pixels.
        sample_rate: of the sound given to `sound`; None for a silent file.
        channels: how often that sound is repeated.
        comment: kept in the file's metadata.
        rotation: degrees counterclockwise that a player is told to turn the pictures by.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        sample_rate: int | None = SAMPLE_RATE,
        channels: int = 1,
        comment: str = "",
        rotation: int = 0,
        quality: int = 23,
    ):
        require("av", "Writing video")
        import av

        self.path, self._channels = Path(path), channels
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".part")
        os.close(handle)
        self._part = Path(name)
        self._container = av.open(name, "w", format="mp4", options={"movflags": "+faststart"})
        self._container.metadata["comment"] = comment
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        options = {"preset": "veryfast", "crf": str(quality)} if codec == "libx264" else {"qscale": "4"}
        self._pictures = self._container.add_stream(codec, rate=FRAME_RATE, options=options)
        self._pictures.width, self._pictures.height, self._pictures.pix_fmt = width, height, "yuv420p"
        self._pictures.codec_context.time_base = Fraction(1, _TICKS)
        if rotation:
            self._pictures.set_display_rotation(rotation)
        self._sounds = self._resampler = None
        if sample_rate is not None:
            layout = "mono" if channels == 1 else "stereo"
            self._sounds = self._container.add_stream("aac", rate=SOUND_RATE, layout=layout)
            size = self._sounds.codec_context.frame_size or 1024
            self._resampler = av.AudioResampler(
                format="fltp", layout=layout, rate=SOUND_RATE, frame_size=size
            )
            self.given, self._sample_rate, self._layout = 0, sample_rate, layout

    def picture(self, rgb: np.ndarray, time: float) -> None:
        """Show (height, width, 3) uint8 from `time` seconds on; times increase."""
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame.pts, frame.time_base = round(time * _TICKS), Fraction(1, _TICKS)
        self._mux(self._pictures.encode(frame))

    def sound(self, samples: np.ndarray, start: int | None = None) -> None:
        """Append (T,) float samples; `start` is the time of the first one, in samples, where the sound begins late."""
        import av

        if start is not None:
            self.given = start
        block = np.tile(samples.astype(np.float32).clip(-1, 1), (self._channels, 1))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts = self._sample_rate, self.given
        frame.time_base = Fraction(1, self._sample_rate)
        self.given += block.shape[1]
        for piece in self._resampler.resample(frame):
            self._mux(self._sounds.encode(piece))

    def _mux(self, packets: list) -> None:
        for packet in packets:
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._mux(self._pictures.encode(None))
        if self._sounds is not None:
            for piece in self._resampler.resample(None):
                self._mux(self._sounds.encode(piece))
            self._mux(self._sounds.encode(None))
        self._container.close()
        os.chmod(self._part, 0o644)
        os.replace(self._part, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the file if it was not finished by `close`."""
        if self._part.exists():
            with contextlib.suppress(OSError):  # what could not be written is removed anyway
                self._container.close()
            self._part.unlink(missing_ok=True)
