"""Lip features computed once and stored, for training with a frozen encoder where the encoder is too slow to
run each time.

`ROOT/features/NAME/{utterance}.npz` holds (K, F, 512) float16: variant 0 from the centre crop, and K - 1 from
random crops, every other one mirrored. Training on stored features draws among those K - 1 (the centre crop,
where K is 1) instead of one of 81 corners times 2 each time: that much augmentation is lost. `features.json`
beside them says whose features they are.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from avkit.checkpoints import write_atomically
from avkit.data.datasets import feature_path
from avkit.data.manifests import SPLITS, read_manifest
from avkit.data.reading import read_mouth
from avkit.errors import DataError
from avkit.lip_weights import fingerprint
from avkit.lips import CROP_SIZE, FRAME_SIZE, MEAN, STD, LipEncoder


def store_features(
    root: str | os.PathLike,
    encoder: LipEncoder,
    name: str,
    variants: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    splits: Iterable[str] = SPLITS,
    batch: int = 8,
) -> int:
    """Write the features of every utterance that the lists of a corpus name; those that are there already are
    kept.

    root: the corpus. name: of the folder under features/. variants: K, 1 or more. batch: utterances encoded
        at a time.
    Returns how many were written. Raises DataError for an unreadable mouth file, or where the folder holds
    another encoder's features.
    """
    root = Path(root)
    folder = root / "features" / name
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, {"encoder": fingerprint(encoder), "variants": variants, "seed": seed})
    mouths = {
        source.utterance: source.mouth
        for split in splits
        if (root / split / "mix.json").exists()
        for mixture in read_manifest(root, split)
        for source in mixture.sources
    }
    todo = [utterance for utterance in sorted(mouths) if not feature_path(root, name, utterance).exists()]
    encoder = encoder.to(device).eval()
    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(todo), batch):
            some = todo[first : first + batch]
            frames = list(pool.map(lambda utterance: read_mouth(mouths[utterance]), some))
            corners = [_corners(utterance, variants, seed) for utterance in some]
            encoded = _encode(encoder, frames, corners, device)
            list(pool.map(lambda u, f: _save(feature_path(root, name, u), f), some, encoded))
            if first // batch % 50 == 49:
                done = first + len(some)
                rate = done / (time.monotonic() - begin)
                print(
                    f"features of {done} of {len(todo)} utterances, {(len(todo) - done) / rate:.0f} s left",
                    flush=True,
                )
    return len(todo)


def check_features(root: str | os.PathLike, name: str, encoder: LipEncoder) -> None:
    """Raise DataError unless the features under `name` were computed by this very encoder."""
    path = Path(root) / "features" / name / "features.json"
    if not path.exists():
        raise DataError(
            f"There are no lip features {path.parent}. Write them with `avkit prepare features`."
        )
    stored, wanted = json.loads(path.read_text(encoding="utf-8"))["encoder"], fingerprint(encoder)
    if stored != wanted:
        raise DataError(
            f"The lip features {path.parent} were computed by encoder {stored}, and the run names encoder {wanted}. "
            "Name the encoder they came from, or store this one's under another name."
        )


def _claim(folder: Path, settings: dict) -> None:
    path = folder / "features.json"
    if path.exists() and (stored := json.loads(path.read_text(encoding="utf-8"))) != settings:
        raise DataError(
            f"{folder} holds features made with {stored}; {settings} were asked for. Choose another name, or "
            "delete the folder."
        )
    write_atomically(path, lambda to: Path(to).write_text(json.dumps(settings) + "\n", encoding="utf-8"))


def _corners(utterance: str, variants: int, seed: int) -> list[tuple[int, int, bool]]:
    """Top, left and mirroring of each variant's crop; they follow from the utterance's name and the seed."""
    margin = FRAME_SIZE - CROP_SIZE
    chance = np.random.default_rng([seed, *utterance.encode()])
    drawn = chance.integers(margin + 1, size=(variants - 1, 2)).tolist()
    return [(margin // 2, margin // 2, False)] + [
        (top, left, k % 2 == 1) for k, (top, left) in enumerate(drawn)
    ]


@torch.no_grad()
def _encode(
    encoder: LipEncoder,
    frames: list[np.ndarray],
    corners: list[list[tuple[int, int, bool]]],
    device: torch.device | str,
) -> list[np.ndarray]:
    """(K, F, 512) float16 for each utterance; those of one length share a pass."""
    encoded: list[np.ndarray | None] = [None] * len(frames)
    for length in {len(clip) for clip in frames}:
        members = [i for i, clip in enumerate(frames) if len(clip) == length]
        crops = []
        for i in members:
            clip = torch.from_numpy(frames[i]).to(device)
            for top, left, flip in corners[i]:
                crop = clip[:, top : top + CROP_SIZE, left : left + CROP_SIZE]
                crops.append(crop.flip(-1) if flip else crop)
        features = encoder(((torch.stack(crops).float() / 255 - MEAN) / STD)[:, None])
        features = features.transpose(1, 2).to(torch.float16).cpu().numpy()
        for i, part in zip(members, np.split(features, len(members)), strict=True):
            encoded[i] = part
    return encoded


def _save(path: Path, features: np.ndarray) -> None:
    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, data=features)

    write_atomically(path, write)
