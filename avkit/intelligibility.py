"""STOI and ESTOI of many estimates of one talker, whose own part of the work is done once.

The definitions are those of the package ``pystoi`` (Taal et al., 2011; Jensen and Taal, 2016), whose resampler and
third-octave bands are used; a test holds both scores equal to it. One difference: against 0/0 in ESTOI, pystoi adds noise of
2e-16, here a band or a frame without any variation counts as uncorrelated, so that the same input has the same score each time.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from avkit._extras import require

RATE = 10000  # Hz, at which both scores are defined
FRAME, HOP, FFT = 256, 128, 512  # samples
BANDS, LOWEST = 15, 150  # third-octave bands, centre of the first one in Hz
SEGMENT = 30  # frames (384 ms) that are compared at a time
DYNAMIC = 40  # dB below the loudest frame of the reference, from which on a frame is a pause
CLIP = 1 + 10 ** (15 / 20)  # STOI: an estimate's band counts up to −15 dB of signal to distortion
_EPS = np.finfo(float).eps


class TooShortError(ValueError):
    """Fewer than `SEGMENT` frames of the reference are speech."""


class Reference:
    """A clean signal (T,) at `sample_rate` Hz, ready to score estimates against.

    Raises TooShortError where it holds too little speech to be scored.
    """

    def __init__(self, clean: np.ndarray, sample_rate: int):
        self.sample_rate = sample_rate
        frames = self._frames(clean)
        with np.errstate(divide="ignore"):
            level = 20 * np.log10(np.linalg.norm(frames, axis=1) + _EPS)
        self._spoken = level > level.max(initial=-np.inf) - DYNAMIC
        if self._spoken.sum() <= SEGMENT:  # one frame is lost at the joint of the kept ones
            raise TooShortError
        self._segments = _segments(_bands(frames[self._spoken]))

    def _frames(self, signal: np.ndarray) -> np.ndarray:
        """(frames, 256) windowed frames of a signal (T,) whose peak is brought to 1."""
        require("pystoi", "The score STOI")
        from pystoi.utils import resample_oct

        signal = signal / np.abs(signal).max()
        if self.sample_rate != RATE:
            signal = resample_oct(signal, RATE, self.sample_rate)
        return _windowed(signal)

    def segments(self, estimate: np.ndarray) -> np.ndarray:
        """(segments, 15, 30) band envelopes of an estimate (T,), pauses of the reference left out."""
        return _segments(_bands(self._frames(estimate)[self._spoken]))

    def stoi(self, estimate: np.ndarray) -> float:
        """Mean correlation of the band envelopes, segment by segment, with the estimate's level fitted and clipped."""
        clean, found = self._segments, self.segments(estimate)
        found = found * (_norm(clean) / (_norm(found) + _EPS))
        found = np.minimum(found, CLIP * clean)
        found, clean = _centred(found, 2), _centred(clean, 2)
        product = found / (_norm(found) + _EPS) * (clean / (_norm(clean) + _EPS))
        return float(product.sum() / (len(clean) * BANDS))

    def estoi(self, estimate: np.ndarray) -> float:
        """Mean inner product of the segments' spectra, after rows and columns are normalised."""
        product = _both_ways(self._segments) * _both_ways(self.segments(estimate))
        return float(product.sum() / SEGMENT / len(product))


def _windowed(signal: np.ndarray) -> np.ndarray:
    """(frames, 256): Hann windows every 128 samples; as in pystoi the last whole one is left out."""
    count = max(0, -(-(len(signal) - FRAME) // HOP))
    if count == 0:
        return np.zeros((0, FRAME))
    return sliding_window_view(signal, FRAME)[::HOP][:count] * np.hanning(FRAME + 2)[1:-1]


def _bands(frames: np.ndarray) -> np.ndarray:
    """(15, frames − 1) third-octave envelopes of the signal that the kept frames add up to."""
    from pystoi.utils import thirdoct

    joined = np.zeros((len(frames) + 1) * HOP)
    joined[: -HOP] += frames[:, :HOP].ravel()
    joined[HOP:] += frames[:, HOP:].ravel()
    power = np.abs(np.fft.rfft(_windowed(joined), FFT)) ** 2
    return np.sqrt(thirdoct(RATE, FFT, BANDS, LOWEST)[0] @ power.T)


def _segments(bands: np.ndarray) -> np.ndarray:
    """(15, frames) -> (frames − 29, 15, 30), a segment ending at each frame."""
    return sliding_window_view(bands, SEGMENT, axis=1).transpose(1, 0, 2)


def _norm(x: np.ndarray, axis: int = 2) -> np.ndarray:
    return np.sqrt(np.square(x).sum(axis, keepdims=True))


def _centred(x: np.ndarray, axis: int) -> np.ndarray:
    return x - x.mean(axis, keepdims=True)


def _both_ways(segments: np.ndarray) -> np.ndarray:
    """Rows (bands over time), then columns (spectra), each of zero mean and unit norm; zeros where nothing varies."""
    for axis in (2, 1):
        segments = _centred(segments, axis)
        norm = _norm(segments, axis)
        segments = np.divide(segments, norm, out=np.zeros_like(segments), where=norm > _EPS)
    return segments
