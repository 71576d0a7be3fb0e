"""Notebook 01, sound to spectrogram: its exercises and explorers. Its figures are in `lesson01_figures`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from avkit.signal import SAMPLE_RATE, STFT
from avkit.teach import plots
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake
from avkit.teach.widgets import Control, Explorer

# Sounds ---------------------------------------------------------------------------------------------------------


def chirp(start_hz: float, end_hz: float, seconds: float = 1.0, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """A tone that glides from one frequency to the other, (seconds · sample_rate,), amplitude 0.3, soft ends."""
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    phase = 2 * math.pi * (start_hz * time + (end_hz - start_hz) * time**2 / (2 * seconds))
    fade = torch.clamp(torch.minimum(time, seconds - time) / 0.02, max=1)
    return (0.3 * fade * torch.sin(phase)).float()


def tones_and_clicks(tone_gap_hz: float = 60.0, click_gap_s: float = 0.010) -> Tensor:
    """Half a second: two steady tones around 1 kHz, and two clicks in the middle, (8000,)."""
    time = torch.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    sound = 0.2 * torch.sin(2 * math.pi * (1000 - tone_gap_hz / 2) * time)
    sound += 0.2 * torch.sin(2 * math.pi * (1000 + tone_gap_hz / 2) * time)
    for when in (0.25 - click_gap_s / 2, 0.25 + click_gap_s / 2):
        sound[round(when * SAMPLE_RATE)] += 0.9
    return sound


def busiest(voices: Tensor, length: int) -> int:
    """First sample of the stretch of `length` samples in which the quieter of (2, L) voices is loudest."""
    energy = voices.square().unfold(1, length, length).sum(dim=2)  # (2, stretches)
    return int(energy.amin(dim=0).argmax()) * length


def clear_share(voices: Tensor, n_fft: int, hop: int, margin_db: float = 10.0) -> float:
    """Share of the energy of (2, L) voices in STFT points where one is stronger by `margin_db` or more."""
    power = STFT(n_fft, hop)(voices).square().sum(dim=1)  # (2, T, F)
    strong, weak = power.amax(dim=0), power.amin(dim=0)
    clear = strong > 10 ** (margin_db / 10) * weak
    return float(power[:, clear].sum() / power.sum())


# Exercises ------------------------------------------------------------------------------------------------------


def frame_signal(signal: Tensor, length: int, hop: int) -> Tensor:
    """(L,) -> (frames, length): frame t starts at sample t · hop; only whole frames."""
    count = 1 + (signal.shape[-1] - length) // hop
    return torch.stack([signal[t * hop : t * hop + length] for t in range(count)])


def _frame_with_padding(signal: Tensor, length: int, hop: int) -> Tensor:
    count = math.ceil(signal.shape[-1] / hop)
    padded = torch.nn.functional.pad(signal, (0, count * hop + length))
    return torch.stack([padded[t * hop : t * hop + length] for t in range(count)])


def _probe_frames(answer, draw: torch.Generator) -> dict[str, Tensor]:
    long, short = torch.randn(1000, generator=draw), torch.randn(37, generator=draw)
    return {
        "1000 samples, length 256, hop 128": answer(long, 256, 128),
        "37 samples, length 8, hop 3": answer(short, 8, 3),
        "18 samples, length 8, hop 5": answer(short[:18], 8, 5),
    }


def hann(length: int) -> Tensor:
    """The periodic Hann window, (length,): sin²(π n / length)."""
    return torch.sin(math.pi * torch.arange(length) / length) ** 2


def _symmetric_hann(length: int) -> Tensor:
    return torch.sin(math.pi * torch.arange(length) / (length - 1)) ** 2


def _hamming(length: int) -> Tensor:
    return 0.54 - 0.46 * torch.cos(2 * math.pi * torch.arange(length) / length)


def _probe_window(answer, draw: torch.Generator) -> dict[str, Tensor]:
    return {f"length {length}": answer(length) for length in (256, 9, 32)}


def inverse_stft(spectrum: Tensor, window: Tensor, hop: int, length: int) -> Tensor:
    """(T, F) complex, frames centred on multiples of `hop` -> (length,) samples."""
    n_fft = window.shape[0]
    frames = torch.fft.irfft(spectrum, n=n_fft) * window
    sound = torch.zeros((len(frames) - 1) * hop + n_fft)
    weight = torch.zeros_like(sound)
    for t, frame in enumerate(frames):
        sound[t * hop : t * hop + n_fft] += frame
        weight[t * hop : t * hop + n_fft] += window**2
    start = n_fft // 2
    return sound[start : start + length] / weight[start : start + length]


def _overlap_add(
    spectrum: Tensor, window: Tensor, hop: int, length: int, synthesis: int, divide: int, trim: bool = True
):
    """Overlap-add with the window to the power `synthesis`, divided by summed powers `divide` (0: not divided)."""
    n_fft = window.shape[0]
    frames = torch.fft.irfft(spectrum, n=n_fft) * window**synthesis
    sound = torch.zeros((len(frames) - 1) * hop + n_fft)
    weight = torch.zeros_like(sound)
    for t, frame in enumerate(frames):
        sound[t * hop : t * hop + n_fft] += frame
        weight[t * hop : t * hop + n_fft] += window**divide
    start = n_fft // 2 if trim else 0
    if divide == 0:
        return sound[start : start + length]
    return sound[start : start + length] / weight[start : start + length].clamp_min(1e-8)


def _probe_inverse(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for n_fft, hop, length in ((256, 128, 1000), (64, 16, 333)):
        sound, window = torch.randn(length, generator=draw), torch.hann_window(n_fft)
        spectrum = torch.stft(sound, n_fft, hop, window=window, return_complex=True).T
        spectrum = spectrum * torch.rand(
            spectrum.shape, generator=draw
        )  # as a mask leaves it: no longer an STFT
        results[f"window {n_fft}, hop {hop}, {length} samples"] = answer(spectrum, window, hop, length)
    return results


EXERCISES = {
    "heard_hz": Exercise(
        task="predict the frequency of the tone you will hear",
        reference=3000,
        probe=lambda answer, draw: {"the 5 kHz tone": float(answer)},
        mistakes=(
            Mistake(
                "unchanged",
                5000,
                "8000 samples a second cannot hold 5 kHz: the highest frequency they can "
                "carry is half the sample rate, 4 kHz. What does a tone above it turn into?",
            ),
            Mistake(
                "halved",
                2500,
                "the samples that are kept are played at half the rate, so time is not "
                "stretched and the frequency is not halved. Think of the mirror at half the sample rate.",
            ),
            Mistake(
                "clipped",
                4000,
                "a tone above half the sample rate does not stop at 4 kHz: it is mirrored "
                "there, as far below as it was above.",
            ),
            Mistake("kilohertz", 3, "right, if you mean kilohertz; the check wants the number of hertz."),
            Mistake(
                "silent",
                0,
                "the tone does not vanish: every kept sample still carries it, but a lower tone "
                "would give the same samples. Which one?",
            ),
        ),
    ),
    "frame_signal": Exercise(
        task="cut a signal into overlapping frames",
        reference=frame_signal,
        probe=_probe_frames,
        mistakes=(
            Mistake(
                "hop ignored",
                lambda x, length, hop: frame_signal(x, length, length),
                "your frames do not "
                "overlap: each starts where the last one ended, as if the hop were the length.",
            ),
            Mistake(
                "swapped",
                lambda x, length, hop: frame_signal(x, hop, length),
                "length and hop are swapped: "
                "a frame has `length` samples, and the next one starts `hop` samples later.",
            ),
            Mistake(
                "last frame lost",
                lambda x, length, hop: frame_signal(x, length, hop)[:-1],
                "the last whole "
                "frame is missing. A signal of exactly `length` samples holds one frame, not none: count 1 + …",
            ),
            Mistake(
                "exact fit lost",
                lambda x, length, hop: frame_signal(x[:-1], length, hop),
                "a frame that ends exactly with the signal still fits; yours leaves it out.",
            ),
            Mistake(
                "padded",
                _frame_with_padding,
                "there are frames that reach past the end of the signal. Keep "
                "only those that fit; padding comes later, in the STFT itself.",
            ),
            Mistake(
                "transposed",
                lambda x, length, hop: frame_signal(x, length, hop).T,
                "rows and columns are swapped: one row per frame, so the shape is (frames, length).",
            ),
        ),
    ),
    "hann": Exercise(
        task="write the periodic Hann window",
        reference=hann,
        probe=_probe_window,
        mistakes=(
            Mistake(
                "symmetric",
                _symmetric_hann,
                "this is the symmetric Hann window, which returns to zero at its "
                "last sample. The STFT needs the periodic one: its period is `length`, not `length − 1`, so that "
                "copies half a window apart add up to exactly 1.",
            ),
            Mistake(
                "sine",
                lambda n: torch.sin(math.pi * torch.arange(n) / n),
                "this is the sine window, the square root of Hann's: square it.",
            ),
            Mistake(
                "starts at 1",
                lambda n: hann(n).roll(-1),
                "your n runs from 1 to N. It runs from 0 to N − 1: the first sample is 0.",
            ),
            Mistake("hamming", _hamming, "this is Hamming's window: it starts at 0.08. Hann's starts at 0."),
            Mistake(
                "rectangular",
                torch.ones,
                "all ones is the rectangular window, the one whose leaks we want to be rid of.",
            ),
            Mistake(
                "off centre",
                lambda n: 0.5 + 0.5 * torch.cos(2 * math.pi * torch.arange(n) / n),
                "the window is "
                "upside down: it is 1 at its edges and 0 in the middle. The cosine is subtracted.",
            ),
        ),
    ),
    "inverse_stft": Exercise(
        task="go back from the STFT to the samples",
        reference=inverse_stft,
        probe=_probe_inverse,
        mistakes=(
            Mistake(
                "not divided",
                lambda s, w, h, n: _overlap_add(s, w, h, n, 1, 0),
                "the overlapping frames were "
                "windowed twice (once going there, once coming back) and never divided by the sum of the squared "
                "windows, so the loudness ripples with the hop.",
            ),
            Mistake(
                "divided by the window",
                lambda s, w, h, n: _overlap_add(s, w, h, n, 1, 1),
                "each frame carries "
                "the window twice, so the sum to divide by is of the squared windows, not of the windows.",
            ),
            Mistake(
                "not windowed",
                lambda s, w, h, n: _overlap_add(s, w, h, n, 0, 2),
                "the frames are divided by "
                "the sum of squared windows but were windowed only once: multiply each by the window again "
                "before adding.",
            ),
            Mistake(
                "plain sum",
                lambda s, w, h, n: _overlap_add(s, w, h, n, 0, 1),
                "you add the frames as they are and divide by the summed windows. That is right for an untouched STFT; after a "
                "mask it lets through what was put at the frames' edges. Multiply each frame by the window again.",
            ),
            Mistake(
                "padding kept",
                lambda s, w, h, n: _overlap_add(s, w, h, n, 1, 2, False),
                "the result starts "
                "half a window too early: the first n_fft // 2 samples are the reflected padding. Cut them off.",
            ),
        ),
    ),
}
# Overlap-add without a second window is exact too, when the windows add up to 1; the exercise asks for the general form.


# Explorers ------------------------------------------------------------------------------------------------------


def dips(
    n_fft: int, tone_gap_hz: float = 60.0, click_gap_s: float = 0.010, hop: int | None = None
) -> tuple[float, float]:
    """How far, in dB, the power falls between the two tones and between the two clicks, through one window.

    About 3 dB are needed to see two of something. Without `hop` measured with frames so dense that it plays no part.
    """
    hop = hop or max(1, n_fft // 32)
    levels = plots.spectrogram_db(tones_and_clicks(tone_gap_hz, click_gap_s), n_fft, hop)
    time, hertz = np.arange(len(levels)) * hop / SAMPLE_RATE, np.arange(levels.shape[1]) * SAMPLE_RATE / n_fft
    tones = _mean_db(levels[(time > 0.05) & (time < 0.15)], axis=0)
    at_tones = np.interp([1000 - tone_gap_hz / 2, 1000, 1000 + tone_gap_hz / 2], hertz, tones)
    clicks = _mean_db(levels[:, (hertz > 2500) & (hertz < 6000)], axis=1)
    at_clicks = np.interp([0.25 - click_gap_s / 2, 0.25, 0.25 + click_gap_s / 2], time, clicks)
    return tuple(float(min(at[0], at[2]) - at[1]) for at in (at_tones, at_clicks))


def _mean_db(levels: np.ndarray, axis: int) -> np.ndarray:
    return 10 * np.log10((10 ** (levels / 10)).mean(axis=axis))


_HOPS = {"none": 1, "half": 2, "three quarters": 4, "seven eighths": 8}  # overlap -> hops per window
_PANELS = (("the tones", (0.6, 1.4), (0.05, 0.15)), ("the clicks", (2.5, 6), (0.2, 0.3)))  # kHz and seconds shown


def render_resolution(n_fft: int, overlap: str) -> Html:
    """Two tones 60 Hz apart and two clicks 10 ms apart, seen through one window."""
    hop = n_fft // _HOPS[overlap]
    levels = plots.spectrogram_db(tones_and_clicks(), n_fft, hop)
    fig, axes = plots.figure(8, 3.4, 1, 2)
    top = float(levels.max())
    for axis, (title, kilohertz, seconds) in zip(axes, _PANELS, strict=True):
        image = plots.draw_spectrogram(axis, levels, (top - 60, top), title, hop)
        axis.set(ylim=kilohertz, xlim=seconds)
    milliseconds, width = 1000 * n_fft / SAMPLE_RATE, SAMPLE_RATE / n_fft
    fig.suptitle(
        f"window {n_fft} = {milliseconds:g} ms, bins {width:.4g} Hz apart, hop {1000 * hop / SAMPLE_RATE:g} ms",
        fontsize=11,
    )
    fig.colorbar(image, ax=axes.tolist(), label="power (dB)")
    left, right = _seen(levels, n_fft, hop)
    return plots.picture(fig, f"Spectrogram, window of {milliseconds:g} ms, in two parts. Left {left}; right {right}.")


def _seen(levels: np.ndarray, n_fft: int, hop: int) -> tuple[str, str]:
    """What the two panels show, in words: how many lines, and whether they throb; how many strokes, if any."""
    tone_dip, click_dip = dips(n_fft, hop=hop)
    time, hertz = np.arange(len(levels)) * hop / SAMPLE_RATE, np.arange(levels.shape[1]) * SAMPLE_RATE / n_fft
    at_tones, at_clicks = (  # the mean power of what each panel shows, frame by frame
        _mean_db(
            levels[(time >= start) & (time <= end)][:, (hertz >= 1000 * low) & (hertz <= 1000 * high)], axis=1
        )
        for _, (low, high), (start, end) in _PANELS
    )
    tones, clicks = "one broad band for both tones", "one upright block for both clicks"
    if tone_dip > 3:
        tones = "two level lines, the tones"
    elif np.ptp(at_tones) > 6:
        tones += ", which throbs"
    if at_clicks.max() < levels.max() - 60:
        clicks = "no stroke at all: the clicks are lost between frames"
    elif click_dip > 3:
        clicks = "two upright strokes, the clicks" + (", close together" if click_dip < 20 else "")
    return tones, clicks


def window_named(name: str, n_fft: int) -> Tensor:
    """A window by the name the explorer shows."""
    if name == "rectangular":
        return torch.ones(n_fft)
    return torch.hann_window(n_fft, periodic=name == "periodic Hann")


def render_window_sum(window: str, hop_share: str, n_fft: int = 32) -> Html:
    """Shifted windows and their sum."""
    shape = window_named(window, n_fft)
    hop = round(n_fft * {"1/4": 0.25, "1/2": 0.5, "3/4": 0.75, "1": 1.0}[hop_share])
    total = torch.zeros(6 * n_fft)
    fig, axes = plots.figure(8, 2.6)
    for start in range(0, len(total) - n_fft + 1, hop):
        axes.plot(range(start, start + n_fft), shape, color=plots.SKY, lw=1)
        total[start : start + n_fft] += shape
    inside = total[n_fft : 4 * n_fft]
    low, high = float(inside.min()), float(inside.max())
    axes.plot(total, color=plots.RED, lw=2, label="sum")
    verdict = "constant" if high - low < 1e-4 else f"between {low:.2f} and {high:.2f}"
    axes.set(
        title=f"{window}, hop {hop_share} of the window: sum {verdict}",
        xlabel="sample",
        xlim=(n_fft, 4 * n_fft),
    )
    axes.set_ylim(0, 1.1 * max(high, 1))
    axes.legend(loc="lower right")
    return plots.picture(
        fig, f"Shifted copies of the {window} window at a hop of {hop_share}; their sum is {verdict}."
    )


EXPLORERS = {
    "resolution": Explorer(
        render_resolution,
        (
            Control("n_fft", (32, 64, 128, 256, 512, 1024, 2048), 256, "window (samples)"),
            Control("overlap", tuple(_HOPS), "seven eighths"),
        ),
    ),
    "window_sum": Explorer(
        render_window_sum,
        (
            Control("window", ("periodic Hann", "symmetric Hann", "rectangular"), "periodic Hann"),
            Control("hop_share", ("1/4", "1/2", "3/4", "1"), "1/2", "hop / window"),
        ),
    ),
}


INSTRUCTOR = """
**Plan, 70 minutes.** Question and section 1: 10 minutes. Sections 2–3: 10. Windows and the STFT (4–5): 15. What a window
costs (6): 10. Back again (7): 10. Phase (8) and the answer (9): 15. Cut section 8 first if time is short.

**What people get wrong**

- *Aliases*: they expect the 5 kHz tone to vanish or to stay at 4 kHz. Draw the mirror at half the sample rate, then let them
  predict 7 kHz (1 kHz) before going on.
- *Frames*: one too few (the last whole frame), or padded ones. Ask for 8 samples, length 8.
- *Periodic and symmetric windows* look the same in any plot. The sum in section 7 is where the difference shows.
- *The inverse*: dividing by the sum of windows instead of squared windows. Ask how often each sample was multiplied by the window.
- *"Phase does not matter"*: true for the words at 16 ms, false for half a second, and false for SI-SNR. Have them say which claim is meant.

**Questions to ask**

- Which of the three opening pictures can be turned back into sound? (All of them, if the angles are kept.)
- A window of 20 ms: how far apart are its bins, and what can it not tell apart?
- Why would a network that looks along time get by with a short window?
"""
