"""A voice spoilt in one way at a time, by a chosen amount or until its SI-SNR has a chosen value.

Every function takes sounds (T,) and returns one of the same length; nothing is made louder or quieter beyond the
damage itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from avkit.errors import InputError
from avkit.metrics import si_snr
from avkit.signal import SAMPLE_RATE, rms

Damage = Callable[[float], Tensor]  # amount -> spoilt sound


def late(sound: Tensor, samples: float) -> Tensor:
    """The sound `samples` later, fractions allowed; earlier where negative. What leaves the clip is lost."""
    length = sound.shape[-1]
    spectrum = torch.fft.rfft(
        sound.double(), n=2 * length
    )  # as much silence as sound, so that nothing wraps round
    turns = torch.fft.rfftfreq(2 * length, dtype=torch.float64) * samples
    shifted = torch.fft.irfft(
        spectrum * torch.polar(torch.ones_like(turns), -2 * torch.pi * turns), n=2 * length
    )
    return shifted[:length].to(sound.dtype)


def leak(sound: Tensor, other: Tensor, below_db: float) -> Tensor:
    """The sound with `other` added, `below_db` decibels below the sound's own level."""
    return sound + other * rms(sound) / rms(other) * 10 ** (-below_db / 20)


def hiss(sound: Tensor, below_db: float, seed: int = 0) -> Tensor:
    """The sound with white noise, `below_db` decibels below it."""
    noise = torch.randn(sound.shape, generator=torch.Generator().manual_seed(seed))
    return leak(sound, noise.to(sound.dtype), below_db)


def clipped(sound: Tensor, share: float) -> Tensor:
    """The sound cut off at `share` of its peak, 0 < share ≤ 1."""
    limit = share * float(sound.abs().max())
    return sound.clamp(-limit, limit)


def muffled(sound: Tensor, hertz: float, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """The sound without what lies above `hertz`; between two bins the last one is faded."""
    spectrum = torch.fft.rfft(sound)
    bins = torch.fft.rfftfreq(sound.shape[-1], 1 / sample_rate, dtype=sound.dtype)
    width = sample_rate / sound.shape[-1]
    return torch.fft.irfft(spectrum * ((hertz - bins) / width).clamp(0, 1), n=sound.shape[-1])


def gapped(sound: Tensor, share: float) -> Tensor:
    """The sound with its longest stretch silenced that holds at most `share` of its energy."""
    before = torch.cat([sound.new_zeros(1), sound.square().cumsum(-1)])  # energy of the first n samples
    ends = torch.searchsorted(before, before + share * before[-1], right=True) - 1
    start = int((ends - torch.arange(len(ends))).argmax())
    return torch.cat([sound[:start], torch.zeros_like(sound[start : ends[start]]), sound[ends[start] :]])


def silenced(sound: Tensor, start: float, stop: float, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """The sound with silence from `start` to `stop`, in seconds."""
    first, last = round(start * sample_rate), round(stop * sample_rate)
    return torch.cat([sound[:first], torch.zeros_like(sound[first:last]), sound[last:]])


def spoil_until(damage: Damage, reference: Tensor, db: float, mild: float, severe: float) -> float:
    """The amount at which the damaged sound has an SI-SNR of `db` decibels against `reference`, by bisection.

    Args:
        damage: amount -> sound; the SI-SNR falls from `mild` to `severe` (or crosses `db` once).
        reference: (T,).
        db: the SI-SNR wanted.
        mild, severe: amounts on either side of it.

    Raises:
        InputError: the two amounts do not lie on either side of `db`.
    """
    scores = [float(si_snr(damage(amount), reference)) for amount in (mild, severe)]
    if not scores[1] <= db <= scores[0]:
        raise InputError(
            f"amounts {mild:g} and {severe:g} give SI-SNRs of {scores[0]:.1f} and {scores[1]:.1f} dB; to find {db:g} dB "
            "the first must lie above it and the second below"
        )
    for _ in range(25):
        middle = (mild + severe) / 2
        above = float(si_snr(damage(middle), reference)) > db
        mild, severe = (middle, severe) if above else (mild, middle)
    return (mild + severe) / 2


def at_one_score(sound: Tensor, other: Tensor, db: float = 10.0) -> dict[str, Tensor]:
    """Six ways to spoil a voice (T,), each driven until its SI-SNR is `db`; `other` is the voice that leaks in."""
    ways: dict[str, tuple[Damage, float, float]] = {
        "hiss": (lambda amount: hiss(sound, amount), 60, -20),
        "other voice": (lambda amount: leak(sound, other, amount), 60, -20),
        "clipped": (lambda amount: clipped(sound, amount), 1, 0.001),
        "muffled": (lambda amount: muffled(sound, amount), SAMPLE_RATE / 2, 100),
        "a gap": (lambda amount: gapped(sound, amount), 0.001, 0.999),
        "a moment late": (lambda amount: late(sound, amount), 0, 2),
    }
    return {name: damage(spoil_until(damage, sound, db, *ends)) for name, (damage, *ends) in ways.items()}
