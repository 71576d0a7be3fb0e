"""Scores of a separated voice (SI-SNR, SNR, SDR, PESQ, STOI, ESTOI), and their gain over the mixture.

Every function takes the estimate first and the clean reference second, tensors (…, T) of one shape, and
returns (…); work is done in float64 and the result has the estimate's precision and device.
`NAME_improvement` takes the mixture as a third tensor, which may be broadcast over the talkers.

Names. Two different scores are called "SDR" in the literature: here ``snr`` is the zero-mean signal-to-noise
ratio (the "SDR" of RTFS-Net's and CTCNet's tables) and ``sdr`` is BSS-eval's, which forgives any 512-tap
filter of the reference (the "SDR" of IIANet's). PESQ comes as wide-band MOS-LQO, narrow-band MOS-LQO, and the
narrow-band raw score.

At the edges, for every score here:

* NaN or infinite samples, no samples, shapes that differ, integers: `InputError`.
* A silent (constant) reference, or one too short or too faint for the score to be defined:
  `UndefinedScoreError`.
* A silent estimate of a talker who speaks gets the score's floor: −100 dB for SI-SNR and SDR, 1.04 and 1.02
  for PESQ (wide, narrow), 0 for STOI and ESTOI. SNR needs no floor: it is 0 dB. So a network that falls
  silent is not spared.
* Decibels are limited to ±100, which a perfect estimate gets.
* The level is free: samples beyond ±1 are no error, and faint signals (down to 1e-100) score as loud ones do.
* Length is free but for PESQ, at most 20 s (see `pesq`). SDR takes 240 bytes of memory per sample (measured
  at ten minutes).
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from avkit._extras import require
from avkit.errors import InputError
from avkit.intelligibility import Reference, TooShortError

LIMIT_DB = 100.0  # decibels stay within ±LIMIT_DB
FILTER_TAPS = 512  # BSS-eval's distortion filter
PESQ_MAX_SECONDS = 20.0
PESQ_MIN_SECONDS = 0.25


class UndefinedScoreError(InputError):
    """The score does not exist for this reference: it is silent, or too short, or holds no speech."""


# --- shared checks ---


def _checked(estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64, refused when no score could mean anything."""
    for name, signal in (("estimate", estimate), ("reference", reference)):
        if not isinstance(signal, Tensor) or not signal.is_floating_point():
            kind = signal.dtype if isinstance(signal, Tensor) else type(signal).__name__
            raise InputError(f"The {name} is {kind}; scores take floating-point tensors of shape (…, T).")
        if signal.ndim == 0 or signal.shape[-1] == 0:
            raise InputError(f"The {name} has shape {tuple(signal.shape)}: there is no sample to score.")
        if not signal.isfinite().all():
            raise InputError(f"The {name} holds NaN or infinite samples; look for what made them.")
    if estimate.shape != reference.shape:
        raise InputError(
            f"The estimate has shape {tuple(estimate.shape)} and the reference {tuple(reference.shape)}; "
            "scores need equal shapes (…, T). Cut both to one length."
        )
    return estimate.detach().double(), reference.detach().double()


def _is_silent(signal: Tensor) -> Tensor:
    """(…): true where the last axis is constant (up to float32 rounding of an offset)."""
    spread = (signal - signal.mean(-1, keepdim=True)).abs().amax(-1)
    return spread <= 1e-7 * signal.abs().amax(-1)


def _refuse_silent(reference: Tensor) -> None:
    silent = _is_silent(reference)
    if silent.any():
        where = tuple(silent.nonzero()[0].tolist())
        which = "The reference" if silent.all() else f"The reference at index {where}"
        raise UndefinedScoreError(
            f"{which} is silent: nothing can be scored against it. Leave such talkers out, and say how many."
        )


def _decibels(ratio: Tensor) -> Tensor:
    return (10 * torch.log10(ratio)).clamp(-LIMIT_DB, LIMIT_DB)


def _centred_unit(signal: Tensor) -> Tensor:
    """Zero mean and a peak of 1, so that squares neither overflow nor vanish; silence stays silence."""
    signal = signal - signal.mean(-1, keepdim=True)
    return signal / signal.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(signal.dtype).tiny)


def _like(score: Tensor, estimate: Tensor) -> Tensor:
    return score.to(estimate.dtype)


# --- ratios in decibels ---


def si_snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-noise ratio in dB, of zero-mean signals. (Le Roux et al., 2019.)

    Args:
        estimate: (…, T).
        reference: (…, T).

    Returns:
        (…), within ±100; a silent estimate gets −100.

    Raises:
        InputError: see the module's text.
        UndefinedScoreError: a silent reference.
    """
    signal, target = _checked(estimate, reference)
    _refuse_silent(target)
    silent = _is_silent(signal)
    signal, target = _centred_unit(signal), _centred_unit(target)
    projection = (signal * target).sum(-1, keepdim=True) / target.square().sum(-1, keepdim=True) * target
    ratio = projection.square().sum(-1) / (signal - projection).square().sum(-1)
    return _like(_decibels(ratio).masked_fill(silent, -LIMIT_DB), estimate)


def snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Signal-to-noise ratio in dB, of zero-mean signals: energy of the reference over that of the error.

    Args, returns and errors as `si_snr`, but that the level counts: a silent estimate has 0 dB.
    """
    signal, target = _checked(estimate, reference)
    _refuse_silent(target)
    target = target - target.mean(-1, keepdim=True)
    signal = signal - signal.mean(-1, keepdim=True)
    peak = torch.maximum(signal.abs().amax(-1, keepdim=True), target.abs().amax(-1, keepdim=True))
    error = (signal - target) / peak
    return _like(_decibels((target / peak).square().sum(-1) / error.square().sum(-1)), estimate)


def sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Signal-to-distortion ratio in dB after BSS-eval: any 512-tap filter of the reference counts as signal.

    Means are left in, as BSS-eval does. (Vincent et al., 2006; Scheibler, 2022.) Neighbouring estimates of one reference share
    its part of the work.

    Args, returns and errors as `si_snr`.
    """
    signal, target = _checked(estimate, reference)
    _refuse_silent(target)
    silent = _is_silent(signal)
    scores = [_bss_eval_sdr(rows, clean) for rows, clean in _by_reference(signal, target)]
    scores = torch.cat([*scores, signal.new_zeros(0)]).reshape(silent.shape)
    return _like(scores.masked_fill(silent, -LIMIT_DB), estimate)


def _by_reference(signal: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Neighbouring rows of `signal` (…, T) that have the same reference, as (N, T), with that reference (T,)."""
    time = signal.shape[-1]
    signals, targets = signal.reshape(-1, time), target.reshape(-1, time)
    start = 0
    for row in range(1, len(targets) + 1):
        if row == len(targets) or not torch.equal(targets[row], targets[start]):
            yield signals[start:row], targets[start]
            start = row


def _bss_eval_sdr(signals: Tensor, target: Tensor) -> Tensor:
    """(N,) BSS-eval SDR of (N, T) against one reference (T,), regularised where its shifts depend on each other."""
    tiny = torch.finfo(target.dtype).tiny
    n_fft = 2 ** math.ceil(math.log2(2 * len(target) - 1))

    def spectrum(signal: Tensor) -> Tensor:  # of unit energy; the peak first, so that no square is lost
        signal = signal / signal.abs().amax().clamp(min=tiny)
        return torch.fft.rfft(signal / torch.linalg.vector_norm(signal).clamp(min=1e-6), n_fft)

    clean = spectrum(target)
    own = torch.fft.irfft(clean.real**2 + clean.imag**2, n_fft)[:FILTER_TAPS]
    cross = torch.stack([torch.fft.irfft(clean.conj() * spectrum(row), n_fft)[:FILTER_TAPS] for row in signals])
    lags = torch.arange(FILTER_TAPS, device=own.device)
    matrix = own[(lags[:, None] - lags).abs()]
    scores = torch.full_like(cross[:, 0], torch.nan)
    for load_diag in (0.0, 1e-10):
        try:
            filters = torch.linalg.solve(matrix + load_diag * torch.eye(FILTER_TAPS).to(matrix), cross.T).T
        except torch.linalg.LinAlgError:
            continue
        share = (cross * filters).sum(-1)  # of the estimate's energy that the filtered reference explains
        rest = (1 - share).masked_fill((1 - share).abs() < 1e-10, 0)  # 100 dB and more, or all of it up to rounding
        scores = torch.where(scores.isnan(), _decibels(share / rest), scores)
    return scores.nan_to_num(LIMIT_DB)  # the filter explains all of the estimate, and more by rounding


# --- perception ---


def _row_by_row(estimate: Tensor, reference: Tensor, floor: float, prepare: Callable) -> Tensor:
    """prepare(reference)(estimate), NumPy rows (T,), of each pair; floor where the estimate is silent."""
    signal, target = _checked(estimate, reference)
    _refuse_silent(target)
    scores = []
    for rows, clean in _by_reference(signal.cpu(), target.cpu()):
        score = prepare(clean.numpy())
        scores += [floor if _is_silent(row) else score(row.numpy()) for row in rows]
    return estimate.new_tensor(scores).reshape(estimate.shape[:-1])


def raw_pesq(mos_lqo: Tensor) -> Tensor:
    """The raw P.862 score behind a narrow-band MOS-LQO: the inverse of ITU-T P.862.1's mapping.

    Args:
        mos_lqo: any shape, each within (0.999, 4.999).

    Returns:
        the same shape; raw scores run from −0.5 to 4.5.
    """
    return (4.6607 - torch.log((4.999 - mos_lqo) / (mos_lqo - 0.999))) / 1.4945


# What each mapping of P.862 makes of the lowest raw score, -0.5.
_PESQ_FLOOR = {
    "wb": 0.999 + 4 / (1 + math.exp(-1.3669 * -0.5 + 3.8224)),
    "nb": 0.999 + 4 / (1 + math.exp(-1.4945 * -0.5 + 4.6607)),
}
PESQ_MODES = ("wb", "nb", "nb-raw")


def pesq(estimate: Tensor, reference: Tensor, mode: str = "wb", sample_rate: int = 16000) -> Tensor:
    """Perceptual evaluation of speech quality (ITU-T P.862), by the package ``pesq``.

    Args:
        estimate: (…, T), from 0.25 s to 20 s. (ITU's code keeps 50 utterances and ends the process when there
            are more, which 20 s cannot hold.)
        reference: (…, T), clean speech.
        mode: "wb", wide-band MOS-LQO (P.862.2); "nb", narrow-band MOS-LQO (P.862.1); "nb-raw", narrow-band
            raw score, about 0.14 above MOS-LQO near 3.
        sample_rate: 16000, or 8000 for the narrow-band modes.

    Returns:
        (…): 1.04 … 4.64 ("wb"), 1.02 … 4.55 ("nb"), −0.5 … 4.5 ("nb-raw").

    Raises:
        MissingPackageError: ``pesq`` is not installed.
        InputError: mode, sample rate or length out of bounds; see also the module's text.
        UndefinedScoreError: PESQ finds no utterance in the reference.
    """
    if mode not in PESQ_MODES:
        raise InputError(f"PESQ has the modes {', '.join(PESQ_MODES)}; {mode!r} is none of them.")
    if sample_rate not in ((16000,) if mode == "wb" else (8000, 16000)):
        raise InputError(f"PESQ in mode {mode!r} cannot score {sample_rate} Hz; resample to 16000 Hz.")
    _checked(estimate, reference)
    if not PESQ_MIN_SECONDS <= estimate.shape[-1] / sample_rate <= PESQ_MAX_SECONDS:
        raise InputError(
            f"PESQ scores {PESQ_MIN_SECONDS} to {PESQ_MAX_SECONDS:.0f} s of speech; {estimate.shape[-1]} "
            f"samples at {sample_rate} Hz are {estimate.shape[-1] / sample_rate:.2f} s. Score pieces."
        )
    require("pesq", "The score PESQ")
    import pesq as itu

    band = mode[:2]

    def score(target, signal):
        try:
            return itu.pesq(sample_rate, target, signal, band)
        except itu.NoUtterancesError as error:
            raise UndefinedScoreError(
                "PESQ finds no utterance in the reference: it holds no speech."
            ) from error

    scores = _row_by_row(estimate, reference, _PESQ_FLOOR[band], lambda target: partial(score, target))
    return _like(raw_pesq(scores.double()), estimate) if mode == "nb-raw" else scores


def _stoi(estimate: Tensor, reference: Tensor, sample_rate: int, name: str) -> Tensor:
    require("pystoi", "The score STOI")

    def prepare(target):
        try:
            return getattr(Reference(target, sample_rate), name)
        except TooShortError:
            raise UndefinedScoreError(
                f"STOI needs 30 frames (0.4 s) in which the reference is within 40 dB of its loudest; "
                f"{len(target)} samples at {sample_rate} Hz do not hold them."
            ) from None

    return _row_by_row(estimate, reference, 0.0, prepare)


def stoi(estimate: Tensor, reference: Tensor, sample_rate: int = 16000) -> Tensor:
    """Short-time objective intelligibility, as the package ``pystoi`` has it. (Taal et al., 2011.)

    Args:
        estimate: (…, T), at least 0.4 s of speech once pauses are left out.
        reference: (…, T), clean speech.
        sample_rate: in Hz; other rates than 10 kHz are resampled inside.

    Returns:
        (…), 1 for a perfect estimate, around 0 for one that has nothing to do with the reference.

    Raises:
        MissingPackageError: ``pystoi`` is not installed.
        InputError: see the module's text.
        UndefinedScoreError: a silent reference, or too little speech in it.
    """
    return _stoi(estimate, reference, sample_rate, "stoi")


def estoi(estimate: Tensor, reference: Tensor, sample_rate: int = 16000) -> Tensor:
    """Extended STOI, which sees how noise fluctuates. (Jensen and Taal, 2016.) As `stoi` otherwise."""
    return _stoi(estimate, reference, sample_rate, "estoi")


# --- improvements over the mixture ---


def _improvement(score: Callable, estimate: Tensor, reference: Tensor, mixture: Tensor, **options) -> Tensor:
    try:
        mixture = mixture.expand_as(reference)
    except RuntimeError as error:
        raise InputError(
            f"The mixture has shape {tuple(mixture.shape)}, the reference {tuple(reference.shape)}; "
            "the mixture must have that shape or one that broadcasts to it: (B, 1, T) to (B, n_src, T)."
        ) from error
    return score(estimate, reference, **options) - score(mixture, reference, **options)


def si_snr_improvement(estimate: Tensor, reference: Tensor, mixture: Tensor) -> Tensor:
    """SI-SNR of the estimate less that of the mixture, in dB: "SI-SNRi". Shapes and errors as in `si_snr`."""
    return _improvement(si_snr, estimate, reference, mixture)


def snr_improvement(estimate: Tensor, reference: Tensor, mixture: Tensor) -> Tensor:
    """SNR of the estimate less that of the mixture, in dB. Shapes and errors as in `snr`."""
    return _improvement(snr, estimate, reference, mixture)


def sdr_improvement(estimate: Tensor, reference: Tensor, mixture: Tensor) -> Tensor:
    """BSS-eval SDR of the estimate less that of the mixture, in dB. Shapes and errors as in `sdr`."""
    return _improvement(sdr, estimate, reference, mixture)


def pesq_improvement(
    estimate: Tensor, reference: Tensor, mixture: Tensor, mode: str = "wb", sample_rate: int = 16000
) -> Tensor:
    """PESQ of the estimate less that of the mixture. Arguments and errors as in `pesq`."""
    return _improvement(pesq, estimate, reference, mixture, mode=mode, sample_rate=sample_rate)


def stoi_improvement(
    estimate: Tensor, reference: Tensor, mixture: Tensor, sample_rate: int = 16000
) -> Tensor:
    """STOI of the estimate less that of the mixture. Arguments and errors as in `stoi`."""
    return _improvement(stoi, estimate, reference, mixture, sample_rate=sample_rate)


def estoi_improvement(
    estimate: Tensor, reference: Tensor, mixture: Tensor, sample_rate: int = 16000
) -> Tensor:
    """ESTOI of the estimate less that of the mixture. Arguments and errors as in `estoi`."""
    return _improvement(estoi, estimate, reference, mixture, sample_rate=sample_rate)
