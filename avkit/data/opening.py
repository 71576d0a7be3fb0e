"""Lips that only open and shut: `avkit corpus OUT --opening` draws them beside a finished corpus' own.

    OUT/mouths-opening/{utt}.npz        as OUT/mouths/{utt}.npz, drawn from the curve `opening` alone

Width, rounding, teeth, tongue and the tucked lip stay at 0 throughout; face, head movement, light and noise are those of the
utterance's own frames. A network that is trained and tested on such lips shows what the beat of speech is worth, so its
distance from one that saw whole mouths is what their shapes add.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np

from avkit._workers import pool
from avkit.data import mouth
from avkit.data.corpus import track, write_frames
from avkit.data.labels import read_labels
from avkit.data.manifests import OPENING
from avkit.data.visemes import CURVES
from avkit.errors import DataError


def redraw(row: dict, curves: tuple[str, ...] = CURVES) -> np.ndarray:
    """(50, 96, 96) uint8 frames of an utterance from its row of the label table, curves other than those named left at 0.

    With all six curves these are the frames that the corpus holds.
    """
    values = np.zeros((len(row["viseme"]), len(CURVES)))
    for name in curves:
        values[:, CURVES.index(name)] = row["curves"][name]
    return mouth.draw(mouth.Face(**row["face"]), values / 1000)


def _draw_one(root: Path, compress: bool, row: dict) -> int:
    path = root / OPENING / f"{row['id']}.npz"
    if not path.exists():
        write_frames(path, redraw(row, ("opening",)), compress)
    return 1


def draw_opening(root: Path | str, workers: int | None = None, quiet: bool = False) -> Path:
    """Draw the lips of a finished corpus from their opening alone, those that are not there yet; returns their folder.

    Raises DataError where `root` holds no finished corpus.
    """
    root = Path(root)
    try:
        compress = json.loads((root / "corpus.json").read_text(encoding="utf-8"))["plan"]["compress"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{root} holds no finished corpus ({error!r}): make one with `avkit corpus {root}`.") from error
    rows = read_labels(root).rows
    (root / OPENING).mkdir(exist_ok=True)
    with pool(workers) as processes:
        track(processes.map(partial(_draw_one, root, compress), rows, chunksize=16), len(rows), "drawing", quiet)
    return root / OPENING
