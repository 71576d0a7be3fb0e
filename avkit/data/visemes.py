"""From phonemes to moving lips: viseme targets, blended into six curves at the video's frame rate.

Every phoneme has a target for six properties of the mouth. Targets are blended with dominance functions that reach
before and after their phoneme (the coarticulation model of Cohen and Massaro, 1993), so a rounded vowel shapes the
consonants around it. What a closure needs is not left to the blend: /p b m/ shut the lips and /f v/ bring the lower lip
to the upper teeth for long enough that at least one video frame shows it.

Frame k shows the mouth at time (k + 0.5) / 25 s.
"""

from functools import cache

import numpy as np

FPS = 25
CURVES = ("opening", "width", "rounding", "teeth", "tongue", "tuck")
"""opening: gap between the lips, 0 shut … 1 widest; width: -1 narrow … 1 spread; rounding: 0 … 1, lips pushed forward;
teeth: 0 … 1, how much of them shows; tongue: 0 … 1, its height; tuck: 0 … 1, lower lip under the upper teeth."""

VISEMES = ("sil", "PP", "FF", "TH", "DD", "LL", "KK", "SS", "SH", "RR", "AA", "EH", "IY", "OH", "UW")
"""Classes of the labels, in order: silence; p b m; f v; th; t d n; l; k g ng h; s z; sh ch; r; open vowels; mid
vowels; spread vowels and y; o-like vowels; u-like vowels and w."""

# phoneme shape: viseme, (opening, width, rounding, teeth, tongue), how strongly it holds (opening, width, rounding, inside)
_SHAPES = {
    "sil": ("sil", (0.03, 0.00, 0.00, 0.00, 0.00), (0.6, 0.4, 0.4, 0.5)),
    "p": ("PP", (0.00, 0.00, 0.05, 0.00, 0.05), (1.5, 0.2, 0.2, 0.8)),
    "f": ("FF", (0.10, 0.15, 0.00, 0.85, 0.05), (1.5, 0.4, 0.5, 1.5)),
    "th": ("TH", (0.24, 0.10, 0.00, 0.65, 0.95), (1.1, 0.3, 0.3, 1.6)),
    "t": ("DD", (0.22, 0.15, 0.00, 0.60, 0.50), (0.7, 0.2, 0.2, 0.9)),
    "l": ("LL", (0.34, 0.05, 0.00, 0.35, 0.90), (0.7, 0.2, 0.2, 1.2)),
    "k": ("KK", (0.30, 0.05, 0.00, 0.35, 0.10), (0.4, 0.15, 0.15, 0.6)),
    "h": ("KK", (0.40, 0.00, 0.00, 0.20, 0.10), (0.1, 0.1, 0.1, 0.2)),
    "s": ("SS", (0.13, 0.40, 0.00, 1.00, 0.10), (1.2, 0.5, 0.5, 1.3)),
    "sh": ("SH", (0.24, -0.40, 0.75, 0.90, 0.10), (1.1, 1.0, 1.2, 1.2)),
    "r": ("RR", (0.24, -0.25, 0.50, 0.35, 0.20), (0.7, 0.7, 0.8, 0.8)),
    "w": ("UW", (0.07, -0.80, 1.00, 0.00, 0.00), (1.3, 1.4, 1.5, 1.0)),
    "y": ("IY", (0.22, 0.60, 0.00, 0.60, 0.35), (0.7, 0.7, 0.7, 0.7)),
    "a": ("AA", (0.80, 0.30, 0.00, 0.45, 0.20), (1.6, 0.8, 0.8, 0.9)),
    "aa": ("AA", (1.00, 0.00, 0.00, 0.25, 0.10), (1.8, 0.8, 0.8, 0.9)),
    "uh": ("AA", (0.65, 0.00, 0.00, 0.35, 0.20), (1.4, 0.7, 0.7, 0.8)),
    "e": ("EH", (0.55, 0.40, 0.00, 0.45, 0.30), (1.5, 0.8, 0.8, 0.8)),
    "schwa": ("EH", (0.38, 0.00, 0.05, 0.30, 0.25), (0.4, 0.25, 0.25, 0.5)),
    "er": ("EH", (0.38, -0.15, 0.30, 0.35, 0.25), (1.2, 0.8, 0.9, 0.8)),
    "i": ("IY", (0.34, 0.50, 0.00, 0.50, 0.30), (1.1, 0.7, 0.7, 0.7)),
    "ii": ("IY", (0.24, 0.85, 0.00, 0.65, 0.35), (1.2, 1.0, 1.0, 0.9)),
    "o": ("OH", (0.72, -0.40, 0.55, 0.05, 0.05), (1.5, 1.0, 1.1, 0.9)),
    "oh": ("OH", (0.48, -0.55, 0.80, 0.00, 0.05), (1.4, 1.1, 1.2, 0.9)),
    "u": ("UW", (0.36, -0.40, 0.60, 0.10, 0.10), (0.9, 0.9, 1.0, 0.8)),
    "uu": ("UW", (0.18, -0.75, 0.95, 0.00, 0.05), (1.1, 1.2, 1.4, 0.9)),
}

# eSpeak NG mnemonic without stress -> shapes in order (two for a glide); longest known beginning wins
_PHONEMES = {
    "_": "sil", "p": "p", "b": "p", "m": "p", "f": "f", "v": "f", "T": "th", "D": "th", "t": "t", "d": "t", "n": "t",
    "*": "t", "l": "l", "L": "l", "k": "k", "g": "k", "N": "k", "x": "k", "?": "h", "h": "h", "H": "h", "Q": "k", "s": "s",
    "z": "s", "S": "sh", "Z": "sh", "tS": "sh", "dZ": "sh", "r": "r", "R": "r", "w": "w", "W": "w", "j": "y", ";": "y",
    "a": "a", "a#": "schwa", "aa": "a", "A": "aa", "A@": "aa", "0": "aa", "V": "uh", "E": "e", "e": "e", "e@": "e schwa",
    "3": "er", "@": "schwa", "@-": "schwa", "@L": "schwa l", "I": "i", "i": "ii", "i@": "ii schwa", "I2": "i", "I#": "i",
    "O": "o", "O2": "o", "O@": "o", "o": "oh", "o@": "o schwa", "U": "u", "U@": "u schwa", "u": "uu", "u:": "uu",
    "eI": "e ii", "aI": "aa ii", "aI@": "aa schwa", "aI3": "aa er", "aU": "aa uu", "aU@": "aa schwa", "OI": "o ii",
    "oU": "oh uu", "t#": "t", "t2": "t", "0#": "schwa", "E#": "e", "E2": "e", "y": "uu", "Y": "uu",
}  # fmt: skip
_SIZES = sorted({len(name) for name in _PHONEMES}, reverse=True)


@cache
def shapes_of(phoneme: str) -> tuple[str, ...]:
    """Names of the mouth shapes that an eSpeak NG phoneme passes through: one, or two for a glide.

    Stress marks are ignored; an unknown phoneme is read as the longest known beginning of its name, else as a schwa.
    """
    name = phoneme.lstrip("',%=|") or "_"
    for size in _SIZES:
        if name[:size] in _PHONEMES:
            return tuple(_PHONEMES[name[:size]].split())
    return ("schwa",)


def viseme_of(shape: str) -> int:
    """Index into `VISEMES` of a mouth shape's class."""
    return VISEMES.index(_SHAPES[shape][0])


def segments(phonemes: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Mouth shapes with start and end in seconds from phonemes with start and end; glides are split in the middle."""
    out = []
    for name, start, end in phonemes:
        shapes = shapes_of(name)
        for i, shape in enumerate(shapes):
            step = (end - start) / len(shapes)
            out.append((shape, start + i * step, start + (i + 1) * step))
    return out


def frame_times(n_frames: int) -> np.ndarray:
    """(n_frames,) times in seconds that the frames show: (k + 0.5) / 25."""
    return (np.arange(n_frames) + 0.5) / FPS


def frame_visemes(phonemes: list[tuple[str, float, float]], n_frames: int) -> np.ndarray:
    """(n_frames,) index into `VISEMES` of what is spoken at each frame's time; 0 where nothing is."""
    out = np.zeros(n_frames, dtype=np.int64)
    times = frame_times(n_frames)
    for shape, start, end in segments(phonemes):
        out[(times >= start) & (times < end)] = viseme_of(shape)
    return out


def _pull(times: np.ndarray, centres: np.ndarray, halves: np.ndarray, reach: float) -> np.ndarray:
    """(times, segments) dominance of each segment: flat over most of it, then falling off over `reach` seconds."""
    outside = np.maximum(np.abs(times[:, None] - centres) - 0.6 * halves, 0.0)
    return np.exp(-((outside / reach) ** 1.3))


def _plateau(times: np.ndarray, start: float, end: float, least: float, ramp: float) -> np.ndarray:
    """1 from start to end (widened to `least` seconds), falling to 0 over `ramp` seconds on either side."""
    centre, half = (start + end) / 2, max(end - start, least) / 2
    distance = np.maximum(np.abs(times - centre) - half, 0.0) / ramp
    return 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, 1.0))


def trajectories(
    phonemes: list[tuple[str, float, float]],
    n_frames: int,
    reach: float = 0.06,
    lead: float = 0.02,
) -> np.ndarray:
    """(n_frames, 6) curves in the order of `CURVES`, rounded to 1/1000.

    Args:
        phonemes: (eSpeak mnemonic, start, end) in seconds from the first frame's start; those outside may be included
            and should be, for what comes just before and after shapes the lips too.
        n_frames: how many frames.
        reach: seconds over which a neighbour's pull falls off: more is mumbled, less is clear.
        lead: seconds by which lips come before the sound.
    """
    parts = segments(phonemes) or [("sil", 0.0, n_frames / FPS)]
    times = frame_times(n_frames) + lead
    starts = np.array([p[1] for p in parts])
    ends = np.array([p[2] for p in parts])
    targets = np.array([_SHAPES[p[0]][1] for p in parts])
    strength = np.array([_SHAPES[p[0]][2] for p in parts])[:, [0, 1, 2, 3, 3]]
    centres, halves = (starts + ends) / 2, (ends - starts) / 2
    near = _pull(times, centres, halves, reach)[:, :, None]
    far = _pull(times, centres, halves, 1.7 * reach)[:, :, None]  # the lips' form begins earlier than the jaw
    pull = np.concatenate([near, far, far, near, near], axis=2) * strength + 1e-9
    curves = np.zeros((n_frames, len(CURVES)))
    curves[:, :5] = (pull * targets).sum(1) / pull.sum(1)
    for shape, start, end in parts:
        if shape == "p":
            shut = _plateau(times - lead, start, end, least=0.05, ramp=0.05)
            curves[:, 0] *= 1.0 - shut
        elif shape == "f":
            tucked = _plateau(times - lead, start, end, least=0.05, ramp=0.06)
            curves[:, 5] = np.maximum(curves[:, 5], tucked)
            curves[:, 0] += tucked * (np.minimum(curves[:, 0], 0.12) - curves[:, 0])
    low = np.array([0, -1, 0, 0, 0, 0])
    return np.round(curves.clip(low, 1), 3)
