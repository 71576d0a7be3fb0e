"""One synthetic utterance: two seconds of a talker's speech, the lips that go with it, and its row of the label table.

Everything follows from (seed, utterance id, split). What the talker says is spoken as a passage longer than two seconds
and a window is cut from it, so most utterances begin and end in mid-speech, as cuts from real recordings do.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from avkit.data import mouth, text, visemes, voices
from avkit.data.espeak import Speech, Synthesiser
from avkit.data.mixing import RATE

SECONDS = 2.0
SAMPLES = int(SECONDS * RATE)
FRAMES = int(SECONDS * visemes.FPS)
LEAST_ACTIVITY = {"tr": 0.6, "cv": 0.6, "tt": 0.85}  # share of the two seconds that is speech, where the passage allows
_MARGIN = 0.1  # seconds resampled beyond either end of the window, then dropped

Timed = list[tuple[str, float, float]]


@dataclass(frozen=True)
class Utterance:
    """samples: (32000,) int16 at 16 kHz; frames: (50, 96, 96) uint8 at 25 fps; label: its row of the label table."""

    samples: np.ndarray
    frames: np.ndarray
    label: dict


def generator(seed: int, utterance: str, what: str) -> np.random.Generator:
    """Random numbers for one aspect of one utterance, independent of those for any other."""
    return np.random.default_rng(list(hashlib.sha256(f"{what} {utterance} {seed}".encode()).digest()))


def make_utterance(synthesiser: Synthesiser, seed: int, utterance: str, split: str) -> Utterance:
    """Speak, cut and draw the utterance '{talker}_{number}' of a split."""
    rng = generator(seed, utterance, "speech")
    voice = voices.voice(utterance.split("_")[0])
    pace = voice.words_per_minute * rng.uniform(0.92, 1.1)
    sentences = [text.sentence(rng, split) for _ in range(2)]
    speech = _speak(synthesiser, voice, sentences, pace)
    if speech.length / (speech.rate * voice.stretch) < SECONDS + 0.3:
        sentences.append(text.sentence(rng, split))
        speech = _speak(synthesiser, voice, sentences, pace)
    taken = round((SECONDS + 2 * _MARGIN) * speech.rate * voice.stretch / 60) * 60  # a length with small prime factors
    rate = taken / (SECONDS + 2 * _MARGIN)
    phonemes, words = _timed(speech, rate)
    start = _window(phonemes, LEAST_ACTIVITY[split], rng)
    samples = _cut(speech, start, rate, taken)
    phonemes = [(p, a - start, b - start) for p, a, b in phonemes]
    samples = _with_breath(samples, phonemes, rng)
    phonemes = [("_", -9.0, phonemes[0][1]), *phonemes, ("_", phonemes[-1][2], 9.0)]
    curves = visemes.trajectories(phonemes, FRAMES, reach=rng.uniform(0.03, 0.055))
    face = mouth.draw_face(generator(seed, utterance, "face"))
    label = {
        "id": utterance,
        "split": split,
        "talker": voice.talker,
        "sentences": sentences,
        "words": _inside([(w, a - start, b - start) for w, a, b in words]),
        "phonemes": _inside(phonemes),
        "activity": round(activity(phonemes), 4),
        "voice": {**vars(voice), "words_per_minute": round(pace)},
        "face": face.as_dict(),
        "viseme": visemes.frame_visemes(phonemes, FRAMES).tolist(),
        "curves": {name: (c * 1000).round().astype(int).tolist() for name, c in zip(visemes.CURVES, curves.T, strict=True)},
    }
    return Utterance(samples, mouth.draw(face, curves), label)


def activity(phonemes: Timed) -> float:
    """Share of the two seconds from time 0 during which a phoneme, not a pause, is spoken."""
    spoken = sum(max(0.0, min(b, SECONDS) - max(a, 0.0)) for p, a, b in phonemes if not p.startswith("_"))
    return spoken / SECONDS


def _speak(synthesiser: Synthesiser, voice: voices.Voice, sentences: list[str], pace: float) -> Speech:
    accent = voices.ACCENTS[voice.accent][0]
    return synthesiser.speak(", ".join(sentences), voice.definition(), accent, pace / voice.stretch)


def _timed(speech: Speech, rate: float) -> tuple[Timed, Timed]:
    """Phonemes and words with start and end in seconds of the passage; a word ends with its last phoneme."""
    ends = [sample for _, sample in speech.phonemes[1:]] + [speech.length]
    phonemes = [(p, s / rate, e / rate) for (p, s), e in zip(speech.phonemes, ends, strict=True) if e > s]
    spoken = [(a, b) for p, a, b in phonemes if not p.startswith("_")]
    marks = [sample / rate - 1e-9 for _, sample in speech.words] + [np.inf]
    starts = [min((a for a, _ in spoken if a >= mark), default=np.inf) for mark in marks]
    words = []
    for (word, _), start, following in zip(speech.words, starts, starts[1:], strict=False):
        if start < following:
            words.append((word, start, max(b for a, b in spoken if a < following)))
    return phonemes, words


def _window(phonemes: Timed, least: float, rng: np.random.Generator) -> float:
    """Start of a window of two seconds, drawn among those with enough speech; the fullest if none has enough."""
    last = phonemes[-1][2]
    starts = np.arange(-0.4, max(last - SECONDS + 0.4, 0.0), 0.02)
    spoken = np.array([(a, b) for p, a, b in phonemes if not p.startswith("_")])
    covered = np.minimum(spoken[:, 1], starts[:, None] + SECONDS) - np.maximum(spoken[:, 0], starts[:, None])
    share = covered.clip(0).sum(1) / SECONDS
    good = np.flatnonzero(share >= least)
    return float(starts[rng.choice(good)] if len(good) else starts[share.argmax()])


def _cut(speech: Speech, start: float, rate: float, taken: int) -> np.ndarray:
    """(32000,) float samples of the window, resampled from `rate` to 16 kHz by its Fourier transform."""
    passage = np.frombuffer(speech.samples, dtype="<i2").astype(np.float64)
    first = round((start - _MARGIN) * rate)
    piece = np.zeros(taken)
    low, high = max(first, 0), min(first + taken, len(passage))
    piece[low - first : high - first] = passage[low:high]
    ramp = int(0.5 * _MARGIN * rate)
    fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(ramp) / ramp)
    piece[:ramp] *= fade
    piece[-ramp:] *= fade[::-1]
    out = round((SECONDS + 2 * _MARGIN) * RATE)
    spectrum = np.fft.rfft(piece)[: out // 2 + 1]
    spectrum[0] = 0
    edge = round(_MARGIN * RATE)
    return np.fft.irfft(spectrum, out)[edge : edge + SAMPLES]


def _with_breath(samples: np.ndarray, phonemes: Timed, rng: np.random.Generator) -> np.ndarray:
    """The samples with a soft breath in some pauses, at a level of the talker's choosing, as int16."""
    loudest = np.abs(samples).max()
    pauses = [(max(a, 0.0), min(b, SECONDS)) for p, a, b in phonemes if p.startswith("_")]
    pauses += [(0.0, phonemes[0][1]), (phonemes[-1][2], SECONDS)]
    white, noise = rng.standard_normal(SAMPLES), None
    for start, end in pauses:
        level, breathes = rng.uniform(0.006, 0.03), rng.random() < 0.6
        first, last = int(start * RATE), int(end * RATE)
        if breathes and last - first > 0.12 * RATE:
            noise = _breath(white) if noise is None else noise
            swell = np.sin(np.pi * np.arange(last - first) / (last - first)) ** 2
            samples[first:last] += loudest * level * swell * noise[first:last]
    return np.round(samples * (0.7 * 32767 / max(loudest, 1.0))).astype(np.int16)


def _breath(white: np.ndarray) -> np.ndarray:
    """White noise (32000,) in the band of a breath, with a peak of 1."""
    noise = np.fft.irfft(np.fft.rfft(white) * _breath_band(), SAMPLES)
    return noise / np.abs(noise).max()


@cache
def _breath_band() -> np.ndarray:
    frequency = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    return np.exp(-((np.log2(frequency.clip(1) / 1400) / 1.1) ** 2))


def _inside(timed: Timed) -> list[list]:
    """What overlaps the two seconds, times clipped to them and rounded to 0.1 ms."""
    return [[w, round(max(a, 0.0), 4), round(min(b, SECONDS), 4)] for w, a, b in timed if b > 1e-6 and a < SECONDS]
