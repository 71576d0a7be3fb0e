"""Signals: the STFT as RTFS-Net uses it, its inverse, resampling, mixing down, and levels.

Everything here works on float tensors whose last axis is time, in samples; sample rates are in hertz.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, pad

from avkit.errors import InputError

SAMPLE_RATE = 16_000  # Hz, of both networks
FRAME_RATE = 25  # lip frames per second, of both networks
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE  # 640


class STFT(nn.Module):
    """Short-time Fourier transform with real and imaginary parts as two channels, and its inverse.

    A periodic Hann window, frames centred on multiples of `hop` with the signal reflected at both ends, no
    normalisation (RTFS-Net, section 3.1; the published networks use 256 and 128 samples at 16 kHz).

    Args:
        n_fft: length of window and transform, in samples.
        hop: step between frames, in samples.
    """

    def __init__(self, n_fft: int = 256, hop: int = 128):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    @property
    def n_freqs(self) -> int:
        """Frequency bins, F = n_fft / 2 + 1."""
        return self.n_fft // 2 + 1

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, L) samples -> (B, 2, T, F) with T = 1 + L // hop; channel 0 is real, channel 1 imaginary.

        Raises:
            InputError: the signal is too short to be reflected (L must exceed n_fft / 2 samples).
        """
        if waveform.shape[-1] <= self.n_fft // 2:
            raise InputError(
                f"the signal has {waveform.shape[-1]} samples; an STFT with a {self.n_fft}-sample window needs "
                f"more than {self.n_fft // 2} to reflect at its ends: pass a longer signal"
            )
        spectrum = torch.stft(  # (B, F, T), complex; in float32 also under autocast
            waveform.float() if waveform.dtype in (torch.float16, torch.bfloat16) else waveform,
            self.n_fft,
            self.hop,
            window=self.window.to(waveform.dtype if waveform.dtype == torch.float64 else torch.float32),
            return_complex=True,
        )
        return torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (B, 2, T, F)

    def inverse(self, spectrogram: Tensor, length: int) -> Tensor:
        """(B, 2, T, F) -> (B, length) samples, by windowed overlap-add."""
        if spectrogram.dtype in (torch.float16, torch.bfloat16):
            spectrogram = spectrogram.float()
        spectrum = torch.view_as_complex(spectrogram.permute(0, 3, 2, 1).contiguous())  # (B, F, T)
        window = self.window.to(spectrogram.dtype)
        if spectrum.is_cuda:  # torch.istft looks at the window's sum from the CPU, for which the GPU would have to wait
            return self._overlap_add(spectrum, window, length)
        return torch.istft(spectrum, self.n_fft, self.hop, window=window, length=length)

    def _overlap_add(self, spectrum: Tensor, window: Tensor, length: int) -> Tensor:
        """What torch.istft does, in three steps: (B, F, T) complex -> (B, length)."""
        frames = torch.fft.irfft(spectrum, self.n_fft, dim=1) * window[:, None]  # (B, n_fft, T)
        weights = window.square()[None, :, None].expand(1, -1, frames.shape[2])
        total = self.n_fft + self.hop * (frames.shape[2] - 1)

        def add_up(pieces: Tensor) -> Tensor:
            return fold(pieces, (1, total), (1, self.n_fft), stride=(1, self.hop)).flatten(1)

        start = self.n_fft // 2
        end = min(start + length, total)
        waveform = add_up(frames)[:, start:end] / add_up(weights)[:, start:end]
        return pad(waveform, (0, length - (end - start)))


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate of (…, T) audio by windowed-sinc interpolation (torchaudio's, with its defaults).

    Args:
        waveform: (…, T) float.
        from_rate, to_rate: in Hz, both positive.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise InputError(f"sample rates are positive numbers of hertz; got {from_rate} and {to_rate}")
    if from_rate == to_rate:
        return waveform
    from avkit._torchaudio import torchaudio

    return torchaudio.functional.resample(waveform, int(from_rate), int(to_rate))


def to_mono(waveform: Tensor) -> Tensor:
    """(channels, T) -> (T,): the mean of the channels; (T,) passes through."""
    return waveform if waveform.dim() == 1 else waveform.mean(dim=0)


def rms(waveform: Tensor) -> Tensor:
    """Root mean square over time, (…, T) -> (…)."""
    return waveform.square().mean(dim=-1).sqrt()


def scale_to_db(waveform: Tensor, db: float) -> Tensor:
    """Multiply by a gain given in decibels."""
    return waveform * 10 ** (db / 20)


def to_db(power: Tensor, floor_db: float = -100.0) -> Tensor:
    """10·log10 of a power, never below `floor_db`, so that silence stays finite."""
    return 10 * power.clamp_min(10 ** (floor_db / 10)).log10()


def power_spectrogram(waveform: Tensor, n_fft: int = 256, hop: int = 128) -> Tensor:
    """|STFT|² of (…, L) audio -> (…, T, F)."""
    flat = waveform.reshape(-1, waveform.shape[-1])
    spectrogram = STFT(n_fft, hop).to(waveform.device)(flat).square().sum(dim=1)
    return spectrogram.reshape(*waveform.shape[:-1], *spectrogram.shape[1:])


def duration(samples: int, sample_rate: int = SAMPLE_RATE) -> float:
    """Seconds in a number of samples."""
    return samples / sample_rate


def frames_for(samples: int, sample_rate: int = SAMPLE_RATE) -> int:
    """Lip frames that belong to a number of audio samples: 25 per second, rounded up."""
    return math.ceil(samples * FRAME_RATE / sample_rate)
