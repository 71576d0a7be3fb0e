"""Scores of notebook 12 taken apart, and sounds that fool them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from avkit.errors import AvkitError
from avkit.metrics import pesq, sdr, si_snr, stoi
from avkit.signal import SAMPLE_RATE, resample
from avkit.teach import damage

# STOI, step by step (Taal and others, 2011) -------------------------------------------------------------------------

STOI_RATE, FRAME, HOP, N_FFT = 10_000, 256, 128, 512
BANDS, LOWEST = 15, 150.0  # third octaves, from 150 Hz
SEGMENT = 30  # frames, 0.384 s
RANGE_DB = 40.0  # frames of the reference fainter than its loudest by more are left out
CLIP_DB = 15.0


def _window() -> Tensor:
    return torch.hann_window(FRAME + 2, periodic=False, dtype=torch.float64)[1:-1]


def _frames(sound: Tensor) -> Tensor:
    """(T,) -> (N, 256), windowed, half overlapping."""
    return sound.unfold(0, FRAME, HOP) * _window()


def _joined(frames: Tensor) -> Tensor:
    """Windowed frames put back together, (N, 256) -> (T,)."""
    sound = frames.new_zeros((len(frames) - 1) * HOP + FRAME)
    for index, frame in enumerate(frames):
        sound[index * HOP : index * HOP + FRAME] += frame
    return sound


def _band_edges() -> list[tuple[int, int]]:
    """First bin of each third octave and the one after its last."""
    bins = torch.arange(N_FFT // 2 + 1) * STOI_RATE / N_FFT
    edges = [LOWEST * 2 ** ((2 * k - 1) / 6) for k in range(BANDS + 1)]
    nearest = [int((bins - edge).abs().argmin()) for edge in edges]
    return list(itertools.pairwise(nearest))


def highest_hertz() -> float:
    """Where STOI's last band ends, in Hz."""
    return _band_edges()[-1][1] * STOI_RATE / N_FFT


def third_octaves(estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """What STOI compares: both sounds (T,) at 16 kHz as levels in 15 bands, (15, M) each, pauses of the reference left out."""
    sounds = [resample(x.double()[None], SAMPLE_RATE, STOI_RATE)[0] for x in (estimate, reference)]
    frames = [_frames(sound) for sound in sounds]
    energy = 20 * (frames[1].norm(dim=1) + 2.2e-16).log10()
    kept = energy > energy.max() - RANGE_DB
    found = []
    for part in frames:
        power = torch.fft.rfft(_frames(_joined(part[kept])), N_FFT).abs().square()  # (M, 257)
        found.append(torch.stack([power[:, low:high].sum(1).sqrt() for low, high in _band_edges()]))
    return found[0], found[1]


# PESQ, its first half in a sketch -----------------------------------------------------------------------------------


def bark(hertz: Tensor) -> Tensor:
    """Frequencies on Traunmüller's approximation of the Bark scale, on which the ear's bands are equally wide."""
    return 26.81 * hertz / (1960 + hertz) - 0.53


def loudness(sound: Tensor, bands: int = 42) -> Tensor:
    """(T,) -> (frames, bands): power in Bark bands of 32 ms frames, brought to one level, to the power of 0.23.

    A sketch of what PESQ compares: no threshold, no filter of a telephone's receiver, no alignment in time.
    """
    x = sound.double() / sound.double().square().mean().sqrt().clamp_min(1e-9)
    window = torch.hann_window(512, dtype=torch.float64)
    power = torch.stft(x, 512, 256, window=window, return_complex=True).abs().square()  # (F, frames)
    position = bark(torch.arange(257) * SAMPLE_RATE / 512)
    index = (position.clamp(0) / position.max() * bands).long().clamp_max(bands - 1)
    sums = torch.zeros(bands, power.shape[1], dtype=torch.float64).index_add_(0, index, power)
    return sums.pow(0.23).T


# Fooled -------------------------------------------------------------------------------------------------------------


def all_pass(sound: Tensor, milliseconds: float = 3.0, seed: int = 0) -> Tensor:
    """The sound with every frequency delayed a little differently, up to about `milliseconds`; no level is changed."""
    length = 2 * sound.shape[-1]
    spectrum = torch.fft.rfft(sound.double(), n=length)
    knots = torch.randn(24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    delay = torch.nn.functional.interpolate(
        knots[None, None], size=len(spectrum), mode="linear", align_corners=True
    )[0, 0]
    delay = (delay - delay.min()) / (delay.max() - delay.min()) * milliseconds / 1000
    turns = -2 * torch.pi * torch.cumsum(delay, 0) * SAMPLE_RATE / length
    turned = torch.fft.irfft(spectrum * torch.polar(torch.ones_like(turns), turns), n=length)
    return turned[: sound.shape[-1]].to(sound.dtype)


def echo(sound: Tensor, milliseconds: float = 25.0, gain: float = 0.9) -> Tensor:
    """The sound and an echo of it."""
    return sound + gain * damage.late(sound, SAMPLE_RATE * milliseconds / 1000)


def narrow(sound: Tensor, hertz: float = 500.0, taps: int = 511) -> Tensor:
    """The sound through a filter of `taps` taps that lets pass only what lies around a frequency."""
    time = torch.arange(taps, dtype=torch.float64) - taps // 2
    kernel = torch.hann_window(taps, dtype=torch.float64) * torch.cos(2 * torch.pi * hertz * time / SAMPLE_RATE)
    made = torch.nn.functional.conv1d(sound.double()[None, None], kernel.flip(0)[None, None], padding=taps - 1)
    made = made[0, 0, : sound.shape[-1]]
    return (made / made.square().mean().sqrt() * sound.double().square().mean().sqrt()).to(sound.dtype)


def whispered(sound: Tensor, seed: int = 0) -> Tensor:
    """White noise that has the sound's levels in STOI's bands and frames, and nothing else of it: a noise vocoder."""
    noise = torch.randn(sound.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    window = torch.hann_window(256, dtype=torch.float64)
    spectra = [torch.stft(x, 256, 64, window=window, return_complex=True) for x in (sound.double(), noise)]
    hertz = torch.arange(129) * SAMPLE_RATE / 256
    edges = [0.0, *(LOWEST * 2 ** ((2 * k - 1) / 6) for k in range(1, BANDS + 1)), SAMPLE_RATE]
    gains = torch.zeros(129, spectra[0].shape[1], dtype=torch.float64)
    for low, high in itertools.pairwise(edges):
        band = (hertz >= low) & (hertz < high)
        if band.any():
            levels = [x[band].abs().square().sum(0).sqrt() for x in spectra]
            gains[band] = levels[0] / levels[1].clamp_min(1e-9)
    return torch.istft(gains * spectra[1], 256, 64, window=window, length=len(sound)).to(sound.dtype)


def jump(sound: Tensor, milliseconds: float = 40.0) -> Tensor:
    """The second half comes later by some milliseconds, as when a packet of a call is late."""
    half, late = len(sound) // 2, round(SAMPLE_RATE * milliseconds / 1000)
    return torch.cat([sound[:half], torch.zeros_like(sound[:late]), sound[half : len(sound) - late]])


def tilted(sound: Tensor, db_per_octave: float) -> Tensor:
    """The sound with its treble turned down (or up), by so many decibels per octave above 150 Hz."""
    spectrum = torch.fft.rfft(sound.double())
    hertz = torch.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE, dtype=torch.float64).clamp_min(150.0)
    gain = 10 ** (db_per_octave * torch.log2(hertz / 150) / 20)
    made = torch.fft.irfft(spectrum * gain, n=len(sound))
    return (made / made.square().mean().sqrt() * sound.double().square().mean().sqrt()).to(sound.dtype)


WAS = 1.1306, 1.3518  # seconds of "was" in the voice of notebook 12, by the corpus's labels
FINE, SPOILT = "fine", "spoilt"  # what an ear would say

# Score -> name of a sound -> (what an ear says of it, how it is made from a voice and another one).
Maker = Callable[[Tensor, Tensor], Tensor]
FOOLS: dict[str, dict[str, tuple[str, Maker]]] = {
    "SI-SNR": {
        "one sample late": (FINE, lambda v, o: damage.late(v, 1)),
        "each frequency a little late": (FINE, lambda v, o: all_pass(v)),
        "nothing above 2 kHz": (SPOILT, lambda v, o: damage.muffled(v, 2000)),
    },
    "SDR": {
        "an echo after 25 ms": (SPOILT, lambda v, o: echo(v)),
        "only around 500 Hz": (SPOILT, lambda v, o: narrow(v)),
        "a millisecond early": (FINE, lambda v, o: damage.late(v, -16)),
    },
    "PESQ": {
        "a little hiss": (FINE, lambda v, o: damage.hiss(v, 25)),
        "a word is missing": (SPOILT, lambda v, o: damage.silenced(v, *WAS)),
        "no bass, like a tin can": (SPOILT, lambda v, o: tilted(v, 6.0)),
    },
    "STOI": {
        "a whisper of noise": (SPOILT, lambda v, o: whispered(v)),
        "nothing above 4.4 kHz": (SPOILT, lambda v, o: damage.muffled(v, 4400)),
        "a jump of 40 ms": (FINE, lambda v, o: jump(v)),
    },
}


def scores_here() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The scores that can be computed on this machine, by name; SI-SNR always can."""
    found = {}
    for name, score in {"SI-SNR": si_snr, "SDR": sdr, "PESQ": pesq, "STOI": stoi}.items():
        try:
            tone = torch.sin(torch.arange(SAMPLE_RATE, dtype=torch.float64) * 0.3) * torch.linspace(0.1, 1, SAMPLE_RATE)
            score(tone, tone)
        except AvkitError:
            if name in ("SI-SNR",):
                raise
            continue
        found[name] = score
    return found


def rate(estimate: Tensor, reference: Tensor, scores: dict[str, Callable]) -> dict[str, float]:
    """Every score of one sound."""
    return {name: float(score(estimate.double(), reference.double())) for name, score in scores.items()}


def decibels_as_correlation(db: float) -> float:
    """The correlation of two waveforms whose SI-SNR is `db`."""
    return math.sqrt(1 / (1 + 10 ** (-db / 10)))
