"""Reading the synthetic corpus' two tables: `labels.jsonl`, a row an utterance, and `mixtures.jsonl`, a row a mixture.

A row of `labels.jsonl` is one JSON object:
    id, split, talker     't017_00042', 'tr' | 'cv' | 'tt', 't017'
    sentences             what the passage says; the utterance is a window of two seconds from it
    words, phonemes       [[word or eSpeak NG mnemonic, start, end], …] in seconds from the utterance's start;
                          mnemonics beginning with '_' are pauses; words that run together are one: 'from the'
    activity              share of the two seconds that is speech
    voice                 the settings of `voices.Voice`, with the words per minute of this utterance
    face                  the settings of `mouth.Face`: pose, light, skin, lips, beard, blur, noise, …
    viseme                50 classes, indices into `visemes.VISEMES`
    curves                {opening, width, rounding, teeth, tongue, tuck}: 50 values each, in thousandths
A row of `mixtures.jsonl`: name, split, utt1, snr1, utt2, snr2, group ('same voice' | 'like pitch' | 'other'), and
semitones (the distance of the two voices' pitches).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avkit.data.visemes import CURVES
from avkit.errors import DataError, InputError

LABELS, MIXTURES = "labels.jsonl", "mixtures.jsonl"


@dataclass(frozen=True)
class Labels:
    """The label table of a corpus, utterances in the order of their ids.

    viseme: (U, 50) int64 classes; curves: (U, 50, 6) float32 in the order of `visemes.CURVES`; frame k is at (k + 0.5) / 25 s.
    """

    rows: tuple[dict, ...]
    ids: tuple[str, ...]
    talkers: tuple[str, ...]
    splits: tuple[str, ...]
    viseme: np.ndarray
    curves: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def index(self, utterance: str) -> int:
        """Position of an utterance. Raises `InputError` if the corpus has none of that id."""
        try:
            return self.ids.index(utterance)
        except ValueError:
            raise InputError(f"No utterance {utterance!r} in this corpus of {len(self.ids)}, e.g. {self.ids[0]!r}.") from None

    def of_split(self, split: str) -> np.ndarray:
        """Positions of the utterances of 'tr', 'cv' or 'tt'."""
        return np.flatnonzero(np.array(self.splits) == split)


def _read(root: Path | str, name: str) -> tuple[dict, ...]:
    path = Path(root) / name
    try:
        with open(path, encoding="utf-8") as file:
            return tuple(json.loads(line) for line in file)
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): is {root} a finished corpus made by `avkit corpus`?") from error


def read_labels(root: Path | str) -> Labels:
    """The label table of the corpus in folder `root`. Raises `DataError` if it is missing or damaged."""
    rows = _read(root, LABELS)
    viseme = np.array([row["viseme"] for row in rows], dtype=np.int64)
    curves = np.array([[row["curves"][name] for name in CURVES] for row in rows], dtype=np.float32)
    return Labels(
        rows=rows,
        ids=tuple(row["id"] for row in rows),
        talkers=tuple(row["talker"] for row in rows),
        splits=tuple(row["split"] for row in rows),
        viseme=viseme,
        curves=curves.transpose(0, 2, 1) / 1000,
    )


def read_mixtures(root: Path | str) -> tuple[dict, ...]:
    """Rows of the mixture table of the corpus in folder `root`. Raises `DataError` if it is missing or damaged."""
    return _read(root, MIXTURES)


def read_mouth(root: Path | str, utterance: str) -> np.ndarray:
    """(50, 96, 96) uint8 mouth frames of an utterance. Raises `DataError` if there are none."""
    path = Path(root) / "mouths" / f"{utterance}.npz"
    try:
        with np.load(path) as file:
            return file["data"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): make the corpus again with `avkit corpus`.") from error
