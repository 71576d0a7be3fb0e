"""A whole split held in memory, the GPU's if there is room: batches come from a few indexing operations.

Audio is kept as 16-bit integers, lips as 8-bit pixels or 16-bit features: 64 kB of sound and 461 kB of frames
(or 51 kB per variant of features) for each 2-s recording.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from avkit.data.datasets import Mixtures, choose_variant, feature_path
from avkit.data.reading import fit_frames, read_audio, read_features, read_mouth
from avkit.errors import DataError
from avkit.lips import CROP_SIZE
from avkit.signal import SAMPLES_PER_FRAME


class Cache:
    """The recordings and lips of a split in memory. `batch` gives what collated items of the split would be.

    data: the split. device: where the tensors live. threads: how many files are read at a time.
    Raises DataError for the first unreadable file, or, where the split skips bad items, drops them and counts
    them.
    """

    def __init__(self, data: Mixtures, device: torch.device | str = "cpu", threads: int = 8):
        self.data, self.device = data, torch.device(device)
        clips = data.clips
        recorded = [mixture.audio for mixture in data.mixtures] if data.draws(0).mixture[0] >= 0 else []
        self._threads = threads
        audio = self._read([clip.audio for clip in clips] + recorded, read_audio)
        lengths = dict(zip((clip.mouth for clip in clips), (clip.samples for clip in clips), strict=True))
        features = data.settings.features
        if features is None:
            lips = self._read(
                data.mouths,
                lambda path: fit_frames(read_mouth(path), lengths[path] // SAMPLES_PER_FRAME, path),
            )
        else:
            lips = self._read(data.mouths, lambda path: self._variants(path, lengths[path], features))
        self.audio, self.audio_at, bad_audio = self._flat(audio, np.zeros(1, np.int16))
        self.lips, self.lips_at, bad_lips = self._flat(lips, next((l for l in lips if l is not None), None))
        self.bad_audio, self.bad_mixture = bad_audio[: len(clips)], bad_audio[len(clips) :]
        self.bad_lips = bad_lips[data.mouth_of]
        self.skipped_files = int(bad_audio.sum() + bad_lips.sum())
        self._replacement = lru_cache(maxsize=2)(self._find_replacement)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def bytes(self) -> int:
        """Memory that the split takes."""
        return self.audio.nbytes + self.lips.nbytes

    def batch(self, epoch: int, rows: np.ndarray) -> dict[str, Tensor]:
        """The items `rows` of an epoch, collated: the tensors of `avkit.data.datasets`, the batch in front."""
        data, settings = self.data, self.data.settings
        chosen, skipped = (part[rows] for part in self._replacement(epoch))
        draws = data.draws(epoch)[chosen]
        at = self.audio_at[draws.clips] + draws.start * SAMPLES_PER_FRAME
        sources = self._stretch(at)
        recorded = None
        if draws.mixture[0] >= 0:
            first = self.audio_at[len(data.clips) + draws.mixture] + draws.start[:, 0] * SAMPLES_PER_FRAME
            recorded = self._stretch(first)
        mixture, sources = data.mix(sources, recorded, torch.from_numpy(draws.level).float().to(self.device))
        targets = 2 if settings.both else 1
        lips_at = self.lips_at[data.mouth_of[draws.clips]] + draws.start
        pick = self._frames if settings.features is None else self._features
        lips = torch.stack([pick(draws, lips_at, column) for column in range(targets)], dim=1)
        return {
            "mixture": mixture,
            "targets": sources[:, :targets],
            "lips": lips,
            "row": torch.from_numpy(rows),
            "skipped": torch.from_numpy(skipped),
        }

    def _stretch(self, at: np.ndarray) -> Tensor:
        """Segments (…, T) float32 that begin at the samples `at` (…)."""
        index = torch.from_numpy(at).to(self.device)[..., None]
        audio = self.audio[index + torch.arange(self.data.settings.samples, device=self.device)]
        return audio.float() / 32768 if audio.dtype == torch.int16 else audio

    def _frames(self, draws, at: np.ndarray, column: int) -> Tensor:
        """(B, F, 88, 88) uint8."""
        crops = []
        for first, (top, left), flip in zip(
            at[:, column], draws.corner[:, column], draws.flip[:, column], strict=True
        ):
            frames = self.lips[
                first : first + self.data.settings.frames, top : top + CROP_SIZE, left : left + CROP_SIZE
            ]
            crops.append(frames.flip(-1) if flip else frames)
        return torch.stack(crops)

    def _features(self, draws, at: np.ndarray, column: int) -> Tensor:
        """(B, 512, F) float16."""
        variant = choose_variant(draws.variant[:, column], self.lips.shape[1], self.data.settings.augment)
        frames = torch.from_numpy(at[:, column]).to(self.device)[:, None]
        frames = frames + torch.arange(self.data.settings.frames, device=self.device)
        return self.lips[frames, torch.from_numpy(variant).to(self.device)[:, None]].transpose(1, 2)

    def _variants(self, path, samples: int, encoder: str) -> np.ndarray:
        """(F, variants, 512): frames first, as the flat table needs them."""
        path = feature_path(self.data.root, encoder, path.stem)
        return fit_frames(read_features(path).transpose(1, 0, 2), samples // SAMPLES_PER_FRAME, path)

    def _read(self, paths: list, read: Callable) -> list[np.ndarray | None]:
        """Every file's content, None for a bad one where bad ones are skipped."""

        def careful(path):
            try:
                return read(path)
            except DataError:
                if self.data.settings.on_bad == "stop":
                    raise
                return None

        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(careful, paths))

    def _flat(
        self, arrays: list[np.ndarray | None], like: np.ndarray | None
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """One tensor on the device, where each array begins in it, and which arrays are missing."""
        if like is None:
            raise DataError(f"Not one lip file of {self.data.root} could be read. Is the corpus complete?")
        missing = np.array([array is None for array in arrays])
        if any(array is not None and array.dtype == np.float32 for array in arrays):
            arrays = [
                array / np.float32(32768) if array is not None and array.dtype == np.int16 else array
                for array in arrays
            ]
        present = [array for array in arrays if array is not None] or [like]
        if len({array.shape[1:] for array in present}) > 1:
            raise DataError(
                f"Stored features under {self.data.root} have different numbers of variants: write them anew."
            )
        lengths = [0 if array is None else len(array) for array in arrays]
        begin = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        return torch.from_numpy(np.concatenate(present)).to(self.device), begin, missing

    def _find_replacement(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """For each row of an epoch, the row to read (itself or the next good one), and how many are passed over."""
        draws = self.data.draws(epoch)
        targets = 2 if self.data.settings.both else 1
        bad = self.bad_audio[draws.clips].any(1) | self.bad_lips[draws.clips[:, :targets]].any(1)
        if self.bad_mixture.size:
            bad |= self.bad_mixture[draws.mixture]
        rows = np.arange(len(draws))
        if bad.all():
            raise DataError(f"Not one item of {self.data.root} could be read. Is the corpus complete?")
        chosen = rows.copy()
        while (still := bad[chosen]).any():
            chosen[still] = (chosen[still] + 1) % len(rows)
        return chosen, (chosen - rows) % len(rows)
