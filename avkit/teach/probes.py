"""Probes: what can be read off features by a linear map, judged on talkers that the map has not seen.

A probe's answer says what lies near the surface of the features, not what a network makes of them (Alain and Bengio,
2016, Understanding intermediate layers using linear classifier probes).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
from torch import Tensor, nn

from avkit.data.labels import read_labels, read_mouth
from avkit.data.visemes import FPS
from avkit.errors import DataError, InputError
from avkit.lips import LipTransform

Fit = Callable[[Tensor, Tensor, float], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Clips:
    """Utterances of a split, each with its lips, its voice, and what the corpus knows of it.

    Attributes:
        ids, talkers: names, one of each per utterance.
        frames: (N, F, 96, 96) uint8.
        voices: (N, T) float32 at 16 kHz.
        visemes: (N, F) classes, indices into `avkit.data.visemes.VISEMES`.
        curves: (N, F, 6) float64, in the order of `avkit.data.visemes.CURVES`; the first is the opening.
        rows: the utterances' rows of the label table (`avkit.data.labels`).
    """

    ids: tuple[str, ...]
    talkers: tuple[str, ...]
    frames: Tensor
    voices: Tensor
    visemes: Tensor
    curves: Tensor
    rows: tuple[dict, ...]

    def __len__(self) -> int:
        return len(self.ids)


def load_clips(data: Path | str, split: str = "tt") -> Clips:
    """Every utterance of a split that a mixture speaks, in the order of the label table.

    Raises:
        DataError: the corpus has no labels, or none of its mixtures speaks an utterance of that split.
    """
    root, labels = Path(data), read_labels(data)
    spoken = {}
    for part in ("s1", "s2"):
        path = root / split / f"{part}.json"
        rows = json.loads(path.read_text()) if path.is_file() else []
        spoken.update({Path(mouth).stem: root / sound for sound, mouth, _ in rows})
    chosen = [i for i in labels.of_split(split) if labels.ids[i] in spoken]
    if not chosen:
        raise DataError(f"{root} has no mixture in split {split!r}; a corpus has the splits tr, cv and tt")
    ids = tuple(labels.ids[i] for i in chosen)
    return Clips(
        ids=ids,
        talkers=tuple(labels.talkers[i] for i in chosen),
        frames=torch.stack([torch.from_numpy(read_mouth(root, name)) for name in ids]),
        voices=torch.stack(
            [torch.from_numpy(soundfile.read(spoken[name], dtype="float32")[0]) for name in ids]
        ),
        visemes=torch.from_numpy(labels.viseme[chosen]),
        curves=torch.from_numpy(labels.curves[chosen]).double(),
        rows=tuple(labels.rows[i] for i in chosen),
    )


def encode(encoder: nn.Module, frames: Tensor) -> Tensor:
    """(N, F, 96, 96) uint8 -> (N, F, 512) float64 features of a lip encoder, a clip at a time."""
    transform = LipTransform()
    with torch.no_grad():
        return torch.cat([encoder(transform(clip)[None]) for clip in frames]).transpose(1, 2).double()


def ridge(x: Tensor, y: Tensor, weight: float) -> Callable[[Tensor], Tensor]:
    """Least squares from (N, C) features to (N, K) targets with a penalty: the map that was fitted, (…, C) -> (…, K).

    Features are standardised; `weight` penalises squared coefficients beside the mean squared error.
    """
    mean, spread, centre = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    z = (x - mean) / spread
    square = z.T @ z / len(z) + weight * torch.eye(z.shape[1], dtype=z.dtype)
    solution = torch.linalg.solve(square, z.T @ (y - centre) / len(z))
    return lambda new: (new - mean) / spread @ solution + centre


def held_out(fit: Fit, x: Tensor, y: Tensor, talkers: Sequence[str], weight: float, folds: int = 3) -> Tensor:
    """Answers for every clip by a map that was fitted on clips of other talkers.

    Args:
        fit: as `ridge`.
        x: (N, F, C) features.
        y: (N, F, K) targets, or (N, K) where they hold for a whole clip.
        talkers: N names; all clips of one talker are held out together.
        weight: given to `fit`.

    Returns:
        (N, F, K).

    Raises:
        InputError: there are fewer talkers than folds.
    """
    names = sorted(set(talkers))
    if len(names) < folds:
        raise InputError(f"{folds} folds need at least as many talkers; there are {len(names)}")
    target = y if y.dim() == 3 else y[:, None].expand(-1, x.shape[1], -1)
    fold = torch.tensor([names.index(name) % folds for name in talkers])
    answers = torch.zeros_like(target)
    for number in range(folds):
        out = fold == number
        read = fit(x[~out].flatten(0, 1), target[~out].flatten(0, 1), weight)
        answers[out] = read(x[out])
    return answers


def explained(answers: Tensor, truth: Tensor) -> float:
    """Share of the variance of `truth` that `answers` explain: 1 is perfect, 0 as good as always saying its mean."""
    truth = truth.expand_as(answers)
    return float(1 - (answers - truth).square().mean() / (truth - truth.mean()).square().mean())


def plain(phoneme: str) -> str:
    """An eSpeak NG phoneme without its stress marks."""
    return phoneme.lstrip("',%=|")


def moments(clips: Clips, phoneme: str) -> Tensor:
    """(M, 2) clip and frame of the middle of every utterance of a phoneme, stress aside."""
    found = [
        (clip, int((start + end) / 2 * FPS))
        for clip, row in enumerate(clips.rows)
        for name, start, end in row["phonemes"]
        if plain(name) == phoneme
    ]
    count = clips.frames.shape[1]
    return torch.tensor([pair for pair in found if pair[1] < count]).reshape(-1, 2)


def tell_apart(
    x: Tensor, clips: Clips, first: str, second: str, weight: float = 1.0, folds: int = 5
) -> float:
    """How often a ridge on features of one frame tells two phonemes apart, on talkers it has not seen.

    Args:
        x: (N, F, C) features.
        first, second: phonemes.

    Returns:
        The mean of both phonemes' hit rates: 0.5 is guessing.
    """
    at = [moments(clips, first), moments(clips, second)]
    place = torch.cat(at)
    truth = torch.cat([torch.full((len(at[0]), 1), -1.0), torch.full((len(at[1]), 1), 1.0)]).to(x.dtype)
    talkers = [clips.talkers[clip] for clip in place[:, 0]]
    features = x[place[:, 0], place[:, 1]][:, None]
    answers = held_out(_balanced, features, truth, talkers, weight, folds)[:, 0]
    hits = (answers > 0) == (truth > 0)
    return float((hits[: len(at[0])].double().mean() + hits[len(at[0]) :].double().mean()) / 2)


def _balanced(x: Tensor, y: Tensor, weight: float) -> Callable[[Tensor], Tensor]:
    """A ridge on targets −1 and 1 whose answers are around 0, whichever of the two is commoner."""
    read = ridge(x, y, weight)
    middle = (read(x[y[:, 0] < 0]).mean() + read(x[y[:, 0] > 0]).mean()) / 2
    return lambda new: read(new) - middle
