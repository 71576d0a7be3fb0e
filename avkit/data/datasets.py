"""Mixtures as training items: fixed ones as the lists have them, or mixed anew in every epoch.

An item is a dictionary of tensors:

- `mixture` (T,) float32,
- `targets` (n, T) float32: the one target talker (n = 1), or both (n = 2),
- `lips`: of the same talkers, frames (n, F, 88, 88) uint8, cropped and perhaps mirrored, not yet normalised;
  or stored features (n, 512, F) float16,
- `row` () int64: the item's row among the epoch's draws,
- `skipped` () int64: how many bad items were passed over to get here.

T is the segment's length at 16 kHz and F = T / 640: sound and lips are cut together, at a frame's edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avkit.data import drawing
from avkit.data.drawing import Draws
from avkit.data.manifests import Mixture, Source, mouths_in, read_manifest
from avkit.data.reading import as_float, fit_frames, read_audio, read_features, read_mouth
from avkit.errors import DataError, InputError
from avkit.lips import CROP_SIZE
from avkit.signal import SAMPLES_PER_FRAME

PEAK = 0.9  # of mixtures made here, and of their sources: the loudest sample of the three


@dataclass(frozen=True)
class ItemSettings:
    """What an item is. The defaults are the published recipes': the first 2 s, one target talker at a time."""

    segment: float = 2.0  # seconds; a multiple of 0.04. Recordings that are shorter are left out
    start: Literal["first", "random"] = "first"  # where in a longer recording the segment lies
    both: bool = False  # both talkers as targets in one item, instead of one item per target
    augment: bool = False  # random crop and mirroring of the lips
    features: str | None = None  # name of the stored lip features to use; None: frames
    on_bad: Literal["stop", "skip"] = "stop"  # an unreadable file: end with its name, or take the next item
    mouths: str | None = None  # folder of mouth crops beside the listed one; None: those of the lists

    def __post_init__(self):
        if self.mouths is not None and self.features is not None:
            raise InputError(
                f"features {self.features!r} were computed from the listed mouths; mouths {self.mouths!r} are read as frames. "
                "Leave one of the two out."
            )
        if self.frames < 1 or abs(self.segment * 25 - self.frames) > 1e-6:
            raise InputError(
                f"A segment lasts a whole number of frames of 0.04 s; {self.segment} s was given."
            )

    @property
    def frames(self) -> int:
        """Lip frames of an item."""
        return round(self.segment * 25)

    @property
    def samples(self) -> int:
        """Samples of an item."""
        return self.frames * SAMPLES_PER_FRAME


@dataclass(frozen=True)
class MixingSettings:
    """How mixtures are made on the fly."""

    items: int | None = None  # per epoch; None: as many as the fixed mixtures would give
    levels: Literal["drawn", "stored"] = (
        "drawn"  # equal loudness, then +x and -x dB, peak 0.9; or the files' own
    )
    same_talker: bool = False  # whether one talker may be mixed with itself (another utterance)


class Mixtures(Dataset):
    """One split of a corpus; index it with a pair (epoch, row).

    The same pair gives the same item in any process. `clips` are the talkers' recordings, `audio` and
    `mouths` the tables of files that clips and mixtures point into.
    """

    def __init__(self, mixtures: list[Mixture], settings: ItemSettings, seed: int, root: Path):
        self.settings, self.seed, self.root = settings, seed, root
        kept = [m for m in mixtures if min(m.samples, *(s.samples for s in m.sources)) >= settings.samples]
        self.too_short = len(mixtures) - len(kept)
        if not kept:
            raise DataError(
                f"None of the {len(mixtures)} mixtures lasts {settings.segment} s. Choose a shorter segment, or "
                f"check the lengths in the lists under {root}."
            )
        if any(len(mixture.sources) != 2 for mixture in kept):
            raise DataError(
                f"The lists under {root} hold mixtures of three talkers; training takes those of two."
            )
        self.mixtures = kept
        self.clips: list[Source] = self._choose_clips(kept)
        self.mouths = list(dict.fromkeys(clip.mouth for clip in self.clips))
        rows = {mouth: row for row, mouth in enumerate(self.mouths)}
        self.mouth_of = np.array([rows[clip.mouth] for clip in self.clips])
        self.spare = np.array([(clip.samples - settings.samples) // SAMPLES_PER_FRAME for clip in self.clips])
        self.draws = lru_cache(maxsize=2)(self._draw)

    def __getstate__(self) -> dict:
        """Without what was drawn: a worker process that starts afresh (the rule on macOS and Windows) draws it again."""
        return {key: value for key, value in self.__dict__.items() if key != "draws"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.draws = lru_cache(maxsize=2)(self._draw)

    def __len__(self) -> int:
        raise NotImplementedError

    def _choose_clips(self, mixtures: list[Mixture]) -> list[Source]:
        raise NotImplementedError

    def _draw(self, epoch: int) -> Draws:
        raise NotImplementedError

    def mix(self, sources: Tensor, recorded: Tensor | None, level: Tensor) -> tuple[Tensor, Tensor]:
        """Mixture (…, T) and sources (…, 2, T) from what was read (`recorded`: a mixture) and levels (…, 2)."""
        raise NotImplementedError

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, row = key
        draws = self.draws(epoch)
        for skipped in range(len(self)):
            try:
                item = self._read(draws[np.array([(row + skipped) % len(self)])])
            except DataError:
                if self.settings.on_bad == "stop":
                    raise
                continue
            return item | {"row": torch.tensor(row), "skipped": torch.tensor(skipped)}
        raise DataError(
            f"Not one item of {self.root} could be read. The corpus is damaged, or lies somewhere else."
        )

    def _read(self, draws: Draws) -> dict[str, Tensor]:
        """The item of a single row of draws, from its files."""
        settings, targets = self.settings, 2 if self.settings.both else 1
        clips, start = draws.clips[0], draws.start[0]
        sources = torch.stack(
            [self._audio(self.clips[c].audio, s) for c, s in zip(clips, start, strict=True)]
        )
        recorded = None
        if draws.mixture[0] >= 0:
            recorded = self._audio(self.mixtures[draws.mixture[0]].audio, start[0])
        mixture, sources = self.mix(sources, recorded, torch.from_numpy(draws.level[0]).float())
        read = self._frames if settings.features is None else self._features
        lips = torch.stack([read(draws, column) for column in range(targets)])
        return {"mixture": mixture, "targets": sources[:targets], "lips": lips}

    def _audio(self, path: Path, start: int) -> Tensor:
        audio = read_audio(path, int(start) * SAMPLES_PER_FRAME, self.settings.samples)
        return torch.from_numpy(as_float(audio))

    def _frames(self, draws: Draws, column: int) -> Tensor:
        clip, start = self.clips[draws.clips[0, column]], draws.start[0, column]
        frames = fit_frames(read_mouth(clip.mouth), clip.samples // SAMPLES_PER_FRAME, clip.mouth)
        top, left = draws.corner[0, column]
        crop = frames[start : start + self.settings.frames, top : top + CROP_SIZE, left : left + CROP_SIZE]
        return torch.from_numpy(np.ascontiguousarray(crop[..., ::-1] if draws.flip[0, column] else crop))

    def _features(self, draws: Draws, column: int) -> Tensor:
        clip, start = self.clips[draws.clips[0, column]], draws.start[0, column]
        path = feature_path(self.root, self.settings.features, clip.utterance)
        variants = read_features(path)
        variant = choose_variant(draws.variant[:, column], len(variants), self.settings.augment)[0]
        features = fit_frames(variants[variant], clip.samples // SAMPLES_PER_FRAME, path)
        return torch.from_numpy(np.ascontiguousarray(features[start : start + self.settings.frames].T))


class FixedMixtures(Mixtures):
    """The mixtures of the lists as they are: two items each, one per target talker, or one item with both."""

    def __len__(self) -> int:
        return len(self.mixtures) * (1 if self.settings.both else 2)

    def _choose_clips(self, mixtures: list[Mixture]) -> list[Source]:
        return [source for mixture in mixtures for source in mixture.sources]

    def _draw(self, epoch: int) -> Draws:
        settings, count = self.settings, len(self)
        chance = drawing.generator(self.seed, epoch, 1)
        mixture = np.arange(count) // (1 if settings.both else 2)
        target = np.zeros(count, int) if settings.both else np.arange(count) % 2
        clips = np.stack([2 * mixture + target, 2 * mixture + 1 - target], axis=1)
        spare = np.minimum(self.spare[2 * mixture], self.spare[2 * mixture + 1])
        start = drawing.draw_starts(chance, spare, settings.start == "random")
        corner, flip, variant = drawing.draw_lips(chance, count, settings.augment)
        level = np.zeros((count, 2))
        return Draws(clips, mixture, np.stack([start, start], axis=1), level, corner, flip, variant)

    def mix(self, sources: Tensor, recorded: Tensor | None, level: Tensor) -> tuple[Tensor, Tensor]:
        return recorded, sources


class DynamicMixtures(Mixtures):
    """Mixtures made anew in every epoch from the recordings of single talkers in the lists."""

    def __init__(
        self, mixtures: list[Mixture], settings: ItemSettings, seed: int, root: Path, mixing: MixingSettings
    ):
        self.mixing = mixing
        super().__init__(mixtures, settings, seed, root)
        names = [clip.utterance if mixing.same_talker else clip.talker for clip in self.clips]
        self._apart = np.unique(names, return_inverse=True)[1]

    def __len__(self) -> int:
        return self.mixing.items or len(self.mixtures) * (1 if self.settings.both else 2)

    def _choose_clips(self, mixtures: list[Mixture]) -> list[Source]:
        clips = [source for mixture in mixtures for source in mixture.sources]
        if self.mixing.levels == "stored":
            return clips
        longest: dict[str, Source] = {}
        for clip in clips:
            if clip.utterance not in longest or clip.samples > longest[clip.utterance].samples:
                longest[clip.utterance] = clip
        return list(longest.values())

    def _draw(self, epoch: int) -> Draws:
        settings, count = self.settings, len(self)
        chance = drawing.generator(self.seed, epoch, 1)
        clips = drawing.draw_pairs(chance, count, self._apart)
        start = drawing.draw_starts(chance, self.spare[clips], settings.start == "random")
        level = drawing.draw_levels(chance, count)
        corner, flip, variant = drawing.draw_lips(chance, count, settings.augment)
        return Draws(clips, np.full(count, -1), start, level, corner, flip, variant)

    def mix(self, sources: Tensor, recorded: Tensor | None, level: Tensor) -> tuple[Tensor, Tensor]:
        if self.mixing.levels == "stored":
            return sources.sum(-2), sources
        return mix_at_levels(sources, level)


def mix_at_levels(sources: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Sources (…, n, T) brought to equal power, then to `level` (…, n) dB, summed, and all scaled to peak
    0.9.

    Returns the mixture (…, T) and its sources (…, n, T); they add up to it. Silence stays silence.
    """
    power = sources.square().mean(-1, keepdim=True)
    gain = 10 ** (level / 20)[..., None] / power.clamp_min(1e-10).sqrt()
    sources = sources * gain
    mixture = sources.sum(-2)
    peak = torch.maximum(mixture.abs().amax(-1), sources.abs().amax((-1, -2))).clamp_min(1e-10)
    scale = PEAK / peak
    return mixture * scale[..., None], sources * scale[..., None, None]


def choose_variant(uniform: np.ndarray, count: int, augment: bool) -> np.ndarray:
    """Which stored features to use: 0, the centre crop, or in training one of the augmented ones, if any."""
    if not augment or count == 1:
        return np.zeros(len(uniform), int)
    return 1 + (uniform * (count - 1)).astype(int)


def feature_path(root: Path, encoder: str, utterance: str) -> Path:
    """Where the features of an utterance are stored."""
    return Path(root) / "features" / encoder / f"{utterance}.npz"


def open_split(
    root: str | Path, split: str, settings: ItemSettings, seed: int, mixing: MixingSettings | None = None
) -> Mixtures:
    """One split of the corpus at `root`: its fixed mixtures, or, given `mixing`, new ones in every epoch."""
    root = Path(root)
    mixtures = mouths_in(read_manifest(root, split), settings.mouths)
    if mixing is None:
        return FixedMixtures(mixtures, settings, seed, root)
    return DynamicMixtures(mixtures, settings, seed, root, mixing)
