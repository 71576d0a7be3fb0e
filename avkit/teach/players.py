"""Players: sounds and talking mouths to listen to, labelled, lossless, at one stated gain.

Nothing is normalised in secret: all sounds of one `listen` call are multiplied by the same factor, which is
printed with them and is 1 unless that would clip.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from fractions import Fraction
from html import escape

import numpy as np
import soundfile
import torch
from torch import Tensor

from avkit.errors import InputError, MissingPackageError
from avkit.signal import FRAME_RATE, SAMPLE_RATE
from avkit.teach.display import Html, beside

Sound = Tensor | np.ndarray
Clip = tuple[Sound, Tensor | np.ndarray]  # a waveform and its (F, H, W) uint8 mouth frames
SYNC_SECONDS = 0.04  # lips and sound of one clip may differ in length by one frame


def listen(
    sounds: Mapping[str, Sound | Clip], sample_rate: int = SAMPLE_RATE, gain: float | None = None
) -> Html:
    """Players for sounds that are compared, all at one gain.

    Args:
        sounds: label -> waveform (T,), or label -> (waveform, mouth frames (F, H, W) uint8 at 25 per second),
            which becomes one clip with its lips in step.
        sample_rate: of every waveform, in Hz.
        gain: factor for all of them; by default 1, or what brings the highest peak to 0.98 if it is above 1.

    Raises:
        InputError: no sound, no label, a waveform that is not one-dimensional and finite, a gain that would
            clip, or frames whose length differs from the sound's by more than 40 ms.
    """
    if not sounds:
        raise InputError("listen() got no sounds; give it a dictionary of label: waveform")
    split = {label: sound if isinstance(sound, tuple) else (sound, None) for label, sound in sounds.items()}
    waveforms = {label: _as_waveform(label, sound) for label, (sound, _) in split.items()}
    peak = max(float(np.abs(wave).max()) for wave in waveforms.values())
    if gain is None:
        gain = 1.0 if peak <= 1 else 0.98 / peak
    if gain * peak > 1:
        raise InputError(
            f"a gain of {gain:g} would clip: the highest peak is {peak:.3g}; use at most {1 / peak:.3g}"
        )
    pieces = []
    for label, (_, frames) in split.items():
        wave = waveforms[label] * gain
        make = _audio if frames is None else _clip
        pieces.append(
            make(
                label,
                wave,
                sample_rate,
                *(() if frames is None else (_as_frames(label, frames, wave, sample_rate),)),
            )
        )
    words = f"gain ×{gain:.3g}" if len(pieces) == 1 else f"one gain for all: ×{gain:.3g}"
    caption = Html(f'<p class="avkit-gain" style="margin:0;font-size:90%">{words}</p>', f"({words})")
    return beside(*pieces) + caption


def _as_waveform(label: str, sound: Sound) -> np.ndarray:
    if not label.strip():
        raise InputError("every player needs a label that says what is heard")
    wave = torch.as_tensor(sound).detach().cpu().float().numpy()
    if wave.ndim != 1 or wave.size == 0:
        raise InputError(
            f"{label!r} has shape {tuple(wave.shape)}; a player takes one waveform of shape (T,)"
        )
    if not np.isfinite(wave).all():
        raise InputError(f"{label!r} holds NaN or infinite samples and cannot be played")
    return wave


def _as_frames(label: str, frames: Tensor | np.ndarray, wave: np.ndarray, sample_rate: int) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 3 or frames.dtype != np.uint8:
        raise InputError(f"{label!r}: lips are (F, H, W) uint8 frames; got {frames.shape} {frames.dtype}")
    difference = len(frames) / FRAME_RATE - wave.size / sample_rate
    if abs(difference) > SYNC_SECONDS + 1e-9:
        raise InputError(
            f"{label!r}: {len(frames)} frames last {len(frames) / FRAME_RATE:.2f} s and the sound "
            f"{wave.size / sample_rate:.2f} s; they must agree within {SYNC_SECONDS * 1000:.0f} ms"
        )
    return frames


def _pcm(wave: np.ndarray) -> np.ndarray:
    return np.round(wave * 32767).astype(np.int16)


def flac(wave: np.ndarray, sample_rate: int) -> bytes:
    """(T,) float in [-1, 1] -> a FLAC file (16 bits per sample)."""
    buffer = io.BytesIO()
    soundfile.write(buffer, _pcm(wave), sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def movie(wave: np.ndarray, frames: np.ndarray, sample_rate: int, zoom: int = 2) -> bytes:
    """A waveform and its (F, H, W) uint8 frames -> one MP4 file: lossless FLAC sound, H.264 (or VP9) picture.

    Both tracks start at time 0, frame i is shown from i / 25 s on, so they are in step wherever they are played.
    """
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("showing lips needs PyAV; install it with: pip install av") from error
    codec, options = (
        ("libx264", {"crf": "26"}) if "libx264" in av.codecs_available else ("libvpx-vp9", {"crf": "38"})
    )
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream(codec, rate=FRAME_RATE, options=options)
        video.width, video.height, video.pix_fmt = (zoom * frames.shape[2], zoom * frames.shape[1], "yuv420p")
        video.thread_count = 1  # the same bytes on every run
        audio = container.add_stream("flac", rate=sample_rate, layout="mono")
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.repeat(zoom, 0).repeat(zoom, 1), format="gray8")
            picture.pts, picture.time_base = index, Fraction(1, FRAME_RATE)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(_pcm(wave)[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts = sample_rate, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return buffer.getvalue()


def _audio(label: str, wave: np.ndarray, sample_rate: int) -> Html:
    source = "data:audio/flac;base64," + base64.b64encode(flac(wave, sample_rate)).decode()
    return _figure("audio", "", label, source, "sound")


def _clip(label: str, wave: np.ndarray, sample_rate: int, frames: np.ndarray) -> Html:
    source = "data:video/mp4;base64," + base64.b64encode(movie(wave, frames, sample_rate)).decode()
    return _figure("video", f' width="{2 * frames.shape[2]}"', label, source, "clip, lips and sound")


def _figure(tag: str, size: str, label: str, source: str, kind: str) -> Html:
    words = escape(label)
    return Html(
        f'<figure class="avkit-player" style="margin:.3em 0"><figcaption>{words}</figcaption>'
        f'<{tag} controls preload="auto"{size} aria-label="{words}" src="{source}">'
        f"(run this cell to play the {kind})</{tag}></figure>",
        f"[{kind}: {label}]",
    )
