"""Four ways back from a coarse picture to a fine one, each with the best numbers there are.

The coarse picture: a voice's magnitudes in the STFT plane, known only as one or two numbers for each tile of, say, 4 by 4
points. The fine picture at hand is the mixture's. As the voice is known, every number can be the best of its kind
(least squares); what remains is what the way itself cannot do.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from avkit.metrics import si_snr
from avkit.signal import STFT
from avkit.teach.samples import Sample

WAYS = ("enlarge", "add", "gate", "gate and shift")
N_FFT, HOP = 512, 256  # rtfs-net-tiny's STFT


def tile_mean(x: Tensor, tile: int) -> Tensor:
    """(T, F) -> (T, F): every point holds the mean over its tile; tiles at the far edges may be smaller."""
    means = avg_pool2d(x[None, None], tile, ceil_mode=True, count_include_pad=False)[0, 0]
    enlarged = means.repeat_interleave(tile, dim=0).repeat_interleave(tile, dim=1)
    return enlarged[: x.shape[0], : x.shape[1]]


def restored(mixed: Tensor, voice: Tensor, tile: int) -> dict[str, Tensor]:
    """A voice's magnitudes, restored from the mixture's and from numbers that are the same all over a tile.

    enlarge: e;  add: mixed + e;  gate: g · mixed with 0 ≤ g ≤ 1;  gate and shift: g · mixed + e. What would be
    negative is set to 0.

    Args:
        mixed, voice: (T, F) magnitudes.
        tile: points along either side of a tile.

    Returns:
        Way -> (T, F).
    """
    mean = functools.partial(tile_mean, tile=tile)
    gate = (mean(mixed * voice) / mean(mixed * mixed).clamp_min(1e-9)).clamp(0, 1)
    spread = (mean(mixed * mixed) - mean(mixed) ** 2).clamp_min(1e-9)
    slope = ((mean(mixed * voice) - mean(mixed) * mean(voice)) / spread).clamp(0, 1)
    shift = mean(voice) - slope * mean(mixed)
    found = (mean(voice), mixed + mean(voice - mixed), gate * mixed, slope * mixed + shift)
    return {way: levels.clamp_min(0) for way, levels in zip(WAYS, found, strict=True)}


def spectrum_of(sound: Tensor) -> Tensor:
    """(L,) -> (2, T, F), real and imaginary parts."""
    return STFT(N_FFT, HOP)(sound[None])[0]


def sound_of(magnitudes: Tensor, mixture: Tensor) -> Tensor:
    """Magnitudes (T, F) with the angles of the mixture (L,) -> (L,)."""
    spectrum = spectrum_of(mixture)
    turned = spectrum / spectrum.norm(dim=0).clamp_min(1e-8) * magnitudes
    return STFT(N_FFT, HOP).inverse(turned[None], len(mixture))[0]


@torch.no_grad()
def ways_back(sample: Sample, tile: int, talker: int = 0) -> dict[str, tuple[Tensor, float]]:
    """Way -> (the sound it leads to (L,), its SI-SNR in dB against the voice)."""
    voice = sample.voices[talker]
    mixed = spectrum_of(sample.mixture).norm(dim=0)
    found = restored(mixed, spectrum_of(voice).norm(dim=0), tile)
    sounds = {way: sound_of(magnitudes, sample.mixture) for way, magnitudes in found.items()}
    return {way: (sound, float(si_snr(sound, voice))) for way, sound in sounds.items()}
