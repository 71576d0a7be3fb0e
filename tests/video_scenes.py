"""Composite videos with known truth, and what is recovered from them compared with it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from avkit.metrics import si_snr
from avkit.video import composite
from avkit.video.composite import Actor, Motion, Scene, sway
from avkit.video.detection import overlap
from avkit.video.tracks import boxes_of

TALKERS = Path(__file__).resolve().parents[1] / "data_samples" / "talkers"
MOUTH = np.s_[:, 24:76, 18:78]  # of the crops: what the drawn mouth covers of a portrait
PLACES = {1: [(320, 170)], 2: [(180, 170), (460, 170)], 3: [(120, 175), (320, 165), (525, 175)]}


def mixtures(count: int) -> list[tuple[str, str, str]]:
    """(mixture, first utterance, second utterance) of test mixtures that come one after the other."""
    names = sorted(path.stem for path in (TALKERS / "audio/wav16k/min/tt/mix").glob("*.wav"))[:count]
    return [(name, *re.fullmatch(r"(t\d+_\d+)_[-\d.]+_(t\d+_\d+)_[-\d.]+", name).groups()) for name in names]


def wav(part: str, name: str) -> np.ndarray:
    return soundfile.read(TALKERS / f"audio/wav16k/min/tt/{part}/{name}.wav")[0]


def mouths(utterance: str) -> np.ndarray:
    return np.load(TALKERS / f"mouths/{utterance}.npz")["data"]


class Talk:
    """Some test mixtures, one after the other: sounds mix, s1, s2 and the crops of both talkers."""

    def __init__(self, count: int, first: int = 0):
        chosen = mixtures(first + count)[first:]
        self.mix = np.concatenate([wav("mix", name) for name, _, _ in chosen])
        self.sources = [np.concatenate([wav(part, name) for name, _, _ in chosen]) for part in ("s1", "s2")]
        self.crops = [np.concatenate([mouths(row[i]) for row in chosen]) for i in (1, 2)]

    @property
    def frames(self) -> int:
        return len(self.crops[0])


def still(crops: np.ndarray, frames: int) -> np.ndarray:
    """A mouth that does not move: the first crop, with the noise of a camera."""
    noise = np.random.default_rng(3).normal(0, 2, (frames, 96, 96))
    return np.clip(crops[:1] + noise, 0, 255).round().astype(np.uint8)


def scene(crops: list[np.ndarray], seed: int = 0, **settings) -> Scene:
    """People side by side, each with their crops."""
    frames = len(crops[0])
    places = PLACES[len(crops)]
    actors = [
        Actor(i, c, sway(frames, x, y, 115, seed + i))
        for i, (c, (x, y)) in enumerate(zip(crops, places, strict=True))
    ]
    return Scene(actors, **settings)


def changed(actor: Actor, **motion) -> Actor:
    """The actor with some of its motion replaced."""
    return replace(actor, motion=Motion(**{**vars(actor.motion), **motion}))


def person_of(report: dict, actor: Actor) -> dict | None:
    """The entry of the person who is at an actor's place most often."""
    return max(report["people"], key=lambda entry: float(placed(entry, actor).mean()), default=None)


def placed(entry: dict, actor: Actor) -> np.ndarray:
    """Overlap of a person's boxes in the report (one a second) with the truth."""
    found = []
    for stretch in entry["on_screen"]:
        for time, *box in stretch["boxes"]:
            truth = composite.true_landmarks(actor, min(round(time * 25), len(actor.mouths) - 1))
            found.append(0.0 if truth is None else float(overlap(np.array(box), boxes_of(truth))))
    return np.array(found)


def crop_correlation(found: np.ndarray, true: np.ndarray) -> float:
    """Correlation of what moves in the mouths of two rows of crops (F, 96, 96): the mean over the two seconds of an utterance is
    taken off first, because a portrait's tones are not the crop's own."""
    clips = []
    for first in range(0, len(true) - 24, 50):
        a, b = (x[first : first + 50][MOUTH].astype(float) for x in (found, true))
        clips.append(np.corrcoef((a - a.mean(0)).ravel(), (b - b.mean(0)).ravel())[0, 1])
    return float(np.mean(clips))


def improvement(voice: np.ndarray, reference: np.ndarray, mixture: np.ndarray) -> float:
    """SI-SNRi in dB."""
    n = min(len(voice), len(reference), len(mixture))
    v, r, m = (torch.from_numpy(np.asarray(x[:n], np.float64)) for x in (voice, reference, mixture))
    return float(si_snr(v, r) - si_snr(m, r))


def read_report(folder: Path, name: str = "report.json") -> dict:
    return json.loads((folder / name).read_text())
