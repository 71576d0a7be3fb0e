"""What stands beside a network in a table: masks that know the answer, and lips that tell less than they
should.

Oracle masks are computed from the clean sources: no network that masks the same transform can be expected
above them. Lip controls change the lips and leave the sound alone: what a score loses is what the network
took from the lips.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avkit.errors import InputError
from avkit.signal import SAMPLE_RATE

COMPLEX_LIMIT = 2.0  # largest magnitude of the complex mask; its phase is left alone
MASKS = ("irm", "psm", "crm")
WINDOWS_MS = (16, 64)
ORACLES = tuple(f"{mask}-{window}ms" for mask in MASKS for window in WINDOWS_MS)

LATEST = 10  # frames; 0.4 s
CONTROLS = ("swapped", "still", "absent", *(f"late-{frames}" for frames in range(1, LATEST + 1)))


# --- oracle masks ---


def ideal_mask(mask: str, sources: Tensor, mixture: Tensor) -> Tensor:
    """The mask that each source's own spectrum prescribes.

    Args:
        mask: "irm", the ideal ratio mask, a source's magnitude over the sum of all sources'; "psm", the
            phase-sensitive mask, the source's projection on the mixture over the mixture's magnitude, cut to
            0 … 1 (Erdogan et al., 2015); "crm", the complex ratio mask, source over mixture, its magnitude
            cut to at most `COMPLEX_LIMIT`.
        sources: (n, F, T) complex spectra.
        mixture: (F, T) complex spectrum.

    Returns:
        (n, F, T), real but for "crm"; 0 where the mixture (for "irm": every source) is silent.

    Raises:
        InputError: an unknown mask.
    """
    tiny = torch.finfo(mixture.real.dtype).tiny
    if mask == "irm":
        magnitude = sources.abs()
        return magnitude / magnitude.sum(0).clamp(min=tiny)
    quotient = sources * mixture.conj() / mixture.abs().square().clamp(min=tiny)
    if mask == "psm":
        return quotient.real.clamp(0, 1)
    if mask == "crm":
        return quotient * (COMPLEX_LIMIT / quotient.abs().clamp(min=tiny)).clamp(max=1)
    raise InputError(f"There is no oracle mask {mask!r}; wanted one of {', '.join(MASKS)}.")


def oracle(name: str, sources: Tensor, mixture: Tensor) -> Tensor:
    """The mixture under an ideal mask of its own sources, with the mixture's phase but for "crm".

    Args:
        name: one of `ORACLES`, "irm-16ms" for example: the mask and the length of the Hann window; the hop is
            a quarter of the window.
        sources: (n, T) at 16 kHz.
        mixture: (T,).

    Returns:
        (n, T) estimates.

    Raises:
        InputError: an unknown name, or fewer samples than half a window.
    """
    if name not in ORACLES:
        raise InputError(f"There is no oracle {name!r}; wanted one of {', '.join(ORACLES)}.")
    mask, _, window_ms = name.removesuffix("ms").partition("-")
    n_fft = SAMPLE_RATE * int(window_ms) // 1000
    length = mixture.shape[-1]
    if length <= n_fft // 2:
        raise InputError(
            f"{length} samples are too few for a window of {n_fft}; wanted more than {n_fft // 2}."
        )
    signals = torch.cat([mixture[None], sources]).double()
    window = torch.hann_window(n_fft, dtype=signals.dtype, device=signals.device)
    spectra = torch.stft(signals, n_fft, n_fft // 4, window=window, return_complex=True)  # (1 + n, F, T)
    masked = ideal_mask(mask, spectra[1:], spectra[0]) * spectra[0]
    return torch.istft(masked, n_fft, n_fft // 4, window=window, length=length).to(mixture.dtype)


# --- lips that tell less ---


def late(frames: Tensor, by: int) -> Tensor:
    """Mouth crops (F, …) that come `by` frames too late; the first frame is held until then."""
    if not 0 <= by:
        raise InputError(f"Lips can be late by 0 frames or more; {by} was given.")
    by = min(by, len(frames))
    return torch.cat([frames[:1].expand(by, *frames.shape[1:]), frames[: len(frames) - by]])


def still(frames: Tensor) -> Tensor:
    """Mouth crops (F, …) that do not move: the middle one throughout. Identity stays, motion goes."""
    return frames[len(frames) // 2].expand_as(frames)


def lip_control(name: str, frames: Tensor) -> Tensor:
    """Mouth crops (F, …) under the control "still" or "late-N".

    Raises:
        InputError: another name; "swapped" and "absent" lips are no change to a talker's own crops.
    """
    if name == "still":
        return still(frames)
    by = name.removeprefix("late-")
    if name not in CONTROLS or not by.isdigit():
        raise InputError(f"{name!r} changes no crops; wanted 'still' or 'late-1' to 'late-{LATEST}'.")
    return late(frames, int(by))
