"""The voices of the synthetic talkers: 200 eSpeak NG voice definitions of our own, each drawn from its talker's name.

A voice is an accent, a pitch and its range, the length of the vocal tract (a common factor on all formants, and a
change of sampling rate that also moves the consonants), a displacement of each formant, spectral tilt, roughness and
breathiness. The talker's name decides all of it and the split, so a voice is the same under every seed.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

N_TALKERS = 200
ACCENTS = {  # name used in labels -> eSpeak NG's own language file, and how often it is drawn
    "en-us": ("en-US", 0.34),
    "en-gb": ("en", 0.16),
    "en-gb-x-rp": ("en-GB-x-rp", 0.14),
    "en-gb-scotland": ("en-GB-scotland", 0.12),
    "en-gb-x-gbclan": ("en-GB-x-gbclan", 0.08),
    "en-gb-x-gbcwmd": ("en-GB-x-gbcwmd", 0.08),
    "en-us-nyc": ("en-US-nyc", 0.08),
}


@dataclass(frozen=True)
class Voice:
    """One talker's voice: what eSpeak NG is told, and what is done to its output afterwards."""

    talker: str  # 't000' … 't199'
    split: str
    accent: str
    pitch: float  # Hz, the floor of the intonation as heard (after the change of rate)
    range: float  # ratio of the intonation's top to its floor
    tract: float  # factor on all formants
    formants: tuple[float, ...]  # further factor on each of formants 1 … 5
    stretch: float  # eSpeak's output is read at 22050 · stretch Hz, which moves pitch, formants and consonants
    tone: tuple[int, ...]  # Hz, amplitude, Hz, amplitude, …: spectral tilt
    flutter: float
    roughness: int
    breath: tuple[int, ...]  # amplitude of aspiration at each formant
    consonants: int
    words_per_minute: float

    def definition(self) -> str:
        """The lines of an eSpeak NG voice file that follow those of the accent."""
        floor = self.pitch / self.stretch
        lines = [f"pitch {floor:.0f} {floor * self.range:.0f}"]
        widths = 100
        for number, factor in enumerate(self.formants, start=1):
            lines.append(f"formant {number} {100 * self.tract * factor:.0f} 100 {widths}")
        lines.append("tone " + " ".join(map(str, self.tone)))
        lines.append(f"flutter {self.flutter:.0f}")
        lines.append(f"roughness {self.roughness}")
        lines.append(f"consonants {self.consonants} {self.consonants}")
        if any(self.breath):
            lines.append("breath " + " ".join(map(str, self.breath)))
            lines.append("breathw 150 150 200 200 400 400")
        return "\n".join(lines) + "\n"


def talker_split(talker: str) -> str:
    """'tr', 'cv' or 'tt' from a hash of the talker's name alone: about 70, 15 and 15 per cent."""
    share = hashlib.sha256(f"talker {talker}".encode()).digest()[0] / 256
    return "tr" if share < 0.7 else "cv" if share < 0.85 else "tt"


@cache
def voice(talker: str) -> Voice:
    """The voice of talker 't000' … 't199'."""
    rng = np.random.default_rng(list(hashlib.sha256(f"voice {talker}".encode()).digest()))
    names, shares = list(ACCENTS), np.array([share for _, share in ACCENTS.values()])
    accent = names[rng.choice(len(names), p=shares / shares.sum())]
    high = rng.random() < 0.5
    pitch = rng.uniform(150, 235) if high else rng.uniform(72, 140)
    stretch = rng.uniform(1.0, 1.1) if high else rng.uniform(0.91, 1.02)
    tract = rng.uniform(0.99, 1.15) if high else rng.uniform(0.88, 1.04)
    formants = tuple(float(f) for f in np.round(rng.normal(1.0, 0.045, 5).clip(0.9, 1.1), 3))
    tilt = rng.uniform(-1, 1)
    tone = (600, int(170 - 20 * tilt), 1200, int(135 + 15 * tilt), 2500, int(110 + 50 * tilt), 4500, int(105 + 70 * tilt))
    breathy = rng.random() < 0.25
    breath = tuple(int(b) for b in rng.integers(1, [3, 6, 8, 8, 6, 5])) if breathy else (0,)
    return Voice(
        talker=talker,
        split=talker_split(talker),
        accent=accent,
        pitch=round(float(pitch), 1),
        range=round(float(rng.uniform(1.25, 1.65)), 3),
        tract=round(float(tract), 3),
        formants=formants,
        stretch=round(float(stretch), 3),
        tone=tone,
        flutter=round(float(rng.uniform(1, 5)), 1),
        roughness=int(rng.integers(0, 4)),
        breath=breath,
        consonants=int(rng.integers(75, 131)),
        words_per_minute=round(float(rng.uniform(150, 195)), 1),
    )


@cache
def talkers(split: str) -> tuple[str, ...]:
    """Names of the talkers of a split, in order."""
    return tuple(t for t in (f"t{i:03d}" for i in range(N_TALKERS)) if talker_split(t) == split)
