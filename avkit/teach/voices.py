"""How far the synthetic voices lie apart: pitch and formants measured from their sound, and a figure of them.

`python -m avkit.teach.voices voices.png` speaks two sentences with each of the 200 voices and draws the figure.
"""

import sys
from dataclasses import dataclass

import numpy as np

from avkit.data import voices
from avkit.data.espeak import Synthesiser

_SENTENCES = (
    "place red by j six now, my brother found a yellow umbrella",
    "lay blue at q two again, our teacher wore a purple shirt",
)
_RATE = 16000


@dataclass(frozen=True)
class Measured:
    """One voice: median pitch in Hz, and the medians of its first three formants in Hz over voiced sound."""

    talker: str
    pitch: float
    formants: tuple[float, float, float]


def pitch_of_frame(frame: np.ndarray, low: float = 60.0, high: float = 420.0) -> float:
    """Pitch in Hz of a (1024,) frame at 16 kHz by autocorrelation; nan where it is not voiced."""
    window = np.hanning(len(frame))
    weight = np.fft.irfft(np.abs(np.fft.rfft(window, 4 * len(frame))) ** 2)
    product = np.fft.irfft(np.abs(np.fft.rfft(window * (frame - frame.mean()), 4 * len(frame))) ** 2)
    lags = np.arange(int(_RATE / high), int(_RATE / low))
    score = product[lags] / weight[lags] / max(product[0] / weight[0], 1e-9)
    peaks = lags[1:-1][
        (score[1:-1] >= score[:-2]) & (score[1:-1] > score[2:]) & (score[1:-1] > 0.85 * score.max())
    ]
    return float(_RATE / peaks[0]) if len(peaks) and score.max() > 0.5 else float("nan")


def formants_of_frame(frame: np.ndarray) -> np.ndarray:
    """(3,) first three formants in Hz of a frame at 16 kHz by linear prediction; nan where fewer are found."""
    x = np.append(frame[0], frame[1:] - 0.95 * frame[:-1]) * np.hamming(len(frame))
    order = 16
    r = np.correlate(x, x, "full")[len(x) - 1 : len(x) + order]
    lags = np.abs(np.arange(order)[:, None] - np.arange(order))
    roots = np.roots(np.append(1.0, -np.linalg.solve(r[lags] + 1e-6 * r[0] * np.eye(order), r[1:])))
    roots = roots[roots.imag > 0]
    frequency, width = np.angle(roots) * _RATE / (2 * np.pi), -np.log(np.abs(roots)) * _RATE / np.pi
    found = np.sort(frequency[(width < 500) & (frequency > 150)])[:3]
    return found if len(found) == 3 else np.full(3, np.nan)


def measure(samples: np.ndarray) -> tuple[float, tuple[float, float, float]]:
    """Median pitch and formants in Hz over the voiced frames of (T,) samples at 16 kHz."""
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(samples, dtype=float), 1024)[::800]
    frames = frames[(frames**2).mean(1) > 0.05 * (frames**2).mean(1).max()]
    pitch = np.array([pitch_of_frame(frame) for frame in frames])
    formants = np.array([formants_of_frame(frame) for frame in frames[np.isfinite(pitch)]])
    return float(np.nanmedian(pitch)), tuple(float(f) for f in np.nanmedian(formants, axis=0))


def measure_voices() -> list[Measured]:
    """Pitch and formants of the 200 voices, from two sentences each."""
    out = []
    with Synthesiser() as synthesiser:
        for i in range(voices.N_TALKERS):
            voice = voices.voice(f"t{i:03d}")
            accent = voices.ACCENTS[voice.accent][0]
            pieces = []
            for sentence in _SENTENCES:
                speech = synthesiser.speak(sentence, voice.definition(), accent, 165 / voice.stretch)
                x = np.frombuffer(speech.samples, "<i2").astype(float)
                times = np.arange(int(len(x) / (speech.rate * voice.stretch) * _RATE)) / _RATE
                pieces.append(np.interp(times * speech.rate * voice.stretch, np.arange(len(x)), x))
            out.append(Measured(voice.talker, *measure(np.concatenate(pieces))))
    return out


def figure(measured: list[Measured]):
    """Scatter of pitch against the geometric mean of formants 1 to 3, marked by split."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7, 4.2), layout="constrained")
    axes = fig.add_subplot()
    for split, marker, colour in (("tr", "o", "#0072B2"), ("cv", "s", "#E69F00"), ("tt", "^", "#D55E00")):
        chosen = [m for m in measured if voices.talker_split(m.talker) == split]
        mean = [float(np.exp(np.mean(np.log(m.formants)))) for m in chosen]
        axes.scatter(
            [m.pitch for m in chosen],
            mean,
            22,
            marker=marker,
            color=colour,
            label=f"{split}: {len(chosen)} voices",
        )
    axes.set(xscale="log", xlabel="pitch (Hz)", ylabel="geometric mean of formants 1–3 (Hz)")
    axes.set_xticks([80, 100, 130, 170, 220, 300], ["80", "100", "130", "170", "220", "300"])
    axes.minorticks_off()
    axes.set_title("The synthetic voices, measured from their sound")
    axes.legend()
    return fig


if __name__ == "__main__":
    found = measure_voices()
    figure(found).savefig(sys.argv[1], dpi=110)
    pitches = [m.pitch for m in found]
    means = [float(np.exp(np.mean(np.log(m.formants)))) for m in found]
    print(f"{len(found)} voices: pitch {min(pitches):.0f} to {max(pitches):.0f} Hz, "
          f"mean of formants {min(means):.0f} to {max(means):.0f} Hz")  # fmt: skip
