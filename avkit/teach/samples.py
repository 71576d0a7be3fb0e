"""The recordings a notebook listens to: where they are, and one mixture with its voices and lips."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from avkit.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One mixture of two talkers.

    Attributes:
        name: of the mixture's file, without its ending.
        mixture: (T,) float32 at 16 kHz.
        voices: (2, T), the two talkers as they are in the mixture.
        lips: (2, F, 96, 96) uint8 mouth frames at 25 per second.
        words: what each talker says, as far as the corpus tells ("" where it does not).
    """

    name: str
    mixture: Tensor
    voices: Tensor
    lips: Tensor
    words: tuple[str, str]


def find_data(name: str = "talkers") -> Path:
    """The folder data_samples/NAME: in $AVKIT_DATA, or next to this folder or one above it, or beside the package.

    Raises:
        DataError: it is in none of these places.
    """
    for folder in _places():
        if (folder / name).is_dir():
            return folder / name
    raise DataError(
        f"no folder data_samples/{name} was found from {Path.cwd()} upwards. Run the notebook from a clone of the "
        "repository, or set the environment variable AVKIT_DATA to the folder that holds it"
    )


def _places() -> Iterator[Path]:
    if "AVKIT_DATA" in os.environ:
        yield Path(os.environ["AVKIT_DATA"])
    here = Path.cwd()
    package = Path(__file__).resolve().parents[2]
    for folder in (here, *here.parents, package):
        yield folder / "data_samples"


def count_samples(data: Path | str, split: str = "tt") -> int:
    """How many mixtures a split of a corpus in LRS2-2Mix's layout has."""
    return len(_rows(Path(data), split, "mix"))


def load_sample(data: Path | str, index: int = 0, split: str = "tt") -> Sample:
    """Mixture number `index` of a corpus in LRS2-2Mix's layout, with both voices and both pairs of lips.

    Raises:
        DataError: the corpus has no such split or mixture.
    """
    root = Path(data)
    mixtures = _rows(root, split, "mix")
    if not 0 <= index < len(mixtures):
        raise DataError(f"{root} has {len(mixtures)} mixtures in split {split!r}; there is no number {index}")
    talkers = [_rows(root, split, talker)[index] for talker in ("s1", "s2")]
    voices = torch.stack([_read(root / row[0]) for row in talkers])
    lips = np.stack([np.load(root / row[1])["data"] for row in talkers])
    mixture = root / mixtures[index][0]
    words = _words(root, [Path(row[1]).stem for row in talkers])
    return Sample(mixture.stem, _read(mixture), voices, torch.from_numpy(lips), words)


def _words(root: Path, utterances: list[str]) -> tuple[str, ...]:
    path = root / "labels.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    labels = {label["id"]: label for label in map(json.loads, lines)}
    return tuple(" ".join(word for word, *_ in labels.get(name, {}).get("words", [])) for name in utterances)


def _rows(root: Path, split: str, part: str) -> list[list]:
    path = root / split / f"{part}.json"
    if not path.is_file():
        raise DataError(
            f"{path} is missing; a corpus has tr, cv and tt with mix.json, s1.json and s2.json in each"
        )
    return json.loads(path.read_text())


def _read(path: Path) -> Tensor:
    if not path.is_file():
        raise DataError(f"{path}, which the manifest names, is missing")
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])
