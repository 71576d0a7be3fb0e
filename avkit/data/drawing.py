"""What is drawn by chance in an epoch, all at once and from one seed.

A pair (seed, epoch) gives the order of the items, who speaks with whom, the levels, the stretch of each
recording and the augmentation of the lips; item i reads row i. Nothing depends on which process asks, or on
what was asked before, so a resumed run draws what an unbroken one would, whatever the number of workers or
devices.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from avkit.errors import DataError
from avkit.lips import CROP_SIZE, FRAME_SIZE

HIGHEST_LEVEL = 5.0  # dB; a pair is mixed at +x and -x, x uniform in [0, 5] (LRS2-2Mix)


@dataclass(frozen=True)
class Draws:
    """One epoch of n items, each a mixture of two clips; column 0 is the target where an item has one."""

    clips: np.ndarray  # (n, 2) rows of the table of clips
    mixture: np.ndarray  # (n,) row of the table of mixtures, -1 where the mixture is made here
    start: np.ndarray  # (n, 2) first frame of each clip's stretch
    level: np.ndarray  # (n, 2) dB
    corner: np.ndarray  # (n, 2, 2) top and left of the 88×88 crop, one per clip
    flip: np.ndarray  # (n, 2) whether the crop is mirrored
    variant: np.ndarray  # (n, 2) uniform in [0, 1): which of the stored features

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, rows: np.ndarray | slice) -> Draws:
        """Some of the items, in the order asked for."""
        return Draws(*(getattr(self, field.name)[rows] for field in fields(self)))


def generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """The source of chance of one epoch, a different one for each purpose."""
    return np.random.default_rng((purpose, epoch, seed))


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The epoch's order of `count` items."""
    return generator(seed, epoch, 0).permutation(count)


def draw_pairs(chance: np.random.Generator, count: int, apart: np.ndarray) -> np.ndarray:
    """(count, 2) clips to be mixed: every clip is a first one equally often, the second is uniform among
    those allowed.

    apart: (clips,) integers; two clips of the same number are never mixed.
    Raises DataError when all are the same.
    """
    if np.unique(apart).size < 2:
        raise DataError(
            "Mixing on the fly needs at least two different talkers (or utterances); the lists hold one."
        )
    first = np.concatenate([chance.permutation(len(apart)) for _ in range(-(-count // len(apart)))])[:count]
    second = chance.integers(len(apart), size=count)
    while (same := np.flatnonzero(apart[first] == apart[second])).size:
        second[same] = chance.integers(len(apart), size=same.size)
    return np.stack([first, second], axis=1)


def draw_levels(chance: np.random.Generator, count: int) -> np.ndarray:
    """(count, 2) levels in dB, +x and -x either way round, x uniform in [0, 5]."""
    level = chance.uniform(0, HIGHEST_LEVEL, count) * chance.choice([-1.0, 1.0], count)
    return np.stack([level, -level], axis=1)


def draw_lips(
    chance: np.random.Generator, count: int, augment: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crop corners (count, 2, 2), flips (count, 2) and choices of stored features (count, 2).

    Without augmentation: the centre crop, not mirrored, and variant 0.
    """
    margin = FRAME_SIZE - CROP_SIZE
    if not augment:
        centre = np.full((count, 2, 2), margin // 2)
        return centre, np.zeros((count, 2), bool), np.zeros((count, 2))
    corner = chance.integers(margin + 1, size=(count, 2, 2))
    return corner, chance.random((count, 2)) < 0.5, chance.random((count, 2))


def draw_starts(chance: np.random.Generator, spare: np.ndarray, random: bool) -> np.ndarray:
    """First frames, uniform in 0…spare (inclusive) for each entry of `spare`; or 0, where nothing is random."""
    return chance.integers(spare + 1) if random else np.zeros_like(spare)
