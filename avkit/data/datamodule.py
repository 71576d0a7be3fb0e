"""Batches for Lightning: the same ones whatever the number of workers, and from any batch of an epoch on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avkit.data import drawing
from avkit.data.cache import Cache
from avkit.data.datasets import ItemSettings, MixingSettings, Mixtures, open_split
from avkit.errors import InputError


class InMemory(Protocol):
    """A split whose batches are made at once."""

    def batch(self, epoch: int, rows: np.ndarray) -> dict[str, Tensor]:
        """The items `rows` of an epoch, collated."""

    def __len__(self) -> int:
        """Items of an epoch."""


class EpochLoader:
    """One epoch's batches on one device, read by worker processes or taken from a cache.

    source: a dataset indexed by (epoch, row), or one in memory. rows: (batches, batch size) rows of the
    epoch. weight: the same shape, 1 for an item that counts and 0 for one that only fills a batch up. Worker
    processes start with the first batch.
    """

    def __init__(
        self,
        source: Dataset | InMemory,
        epoch: int,
        rows: np.ndarray,
        weight: np.ndarray,
        workers: int = 0,
        pin_memory: bool = False,
    ):
        self.source, self.epoch, self.rows, self.weight = source, epoch, rows, weight
        self.workers, self.pin_memory = workers, pin_memory

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch, weight in zip(self._batches(), self.weight, strict=True):
            yield batch | {"weight": torch.from_numpy(weight)}

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        if not isinstance(self.source, Dataset):
            return (self.source.batch(self.epoch, rows) for rows in self.rows)
        return iter(
            DataLoader(
                self.source,
                batch_sampler=[[(self.epoch, int(row)) for row in rows] for rows in self.rows],
                num_workers=self.workers,
                pin_memory=self.pin_memory,
                generator=torch.Generator(),  # DataLoader draws from it, not from the training's chance
            )
        )


def training_rows(seed: int, epoch: int, items: int, batch_size: int, rank: int, world: int) -> np.ndarray:
    """(batches, batch_size) rows of an epoch for one of `world` devices, a share of each global batch.

    The epoch's order is cut into batches of batch_size · world; what does not fill the last one is left out.
    So two devices with a batch of 2 each take the steps that one device takes with a batch of 4.
    """
    whole = batch_size * world
    if items < whole:
        raise InputError(
            f"An epoch has {items} items and a batch {whole} ({batch_size} on each of {world} device(s)). Take a "
            "smaller batch_size, or more data."
        )
    order = drawing.order(seed, epoch, items)[: items // whole * whole]
    return order.reshape(-1, world, batch_size)[:, rank]


def evaluation_rows(items: int, batch_size: int, rank: int, world: int) -> tuple[np.ndarray, np.ndarray]:
    """(batches, batch_size) rows for one of `world` devices, and their weights.

    Over all devices each item counts once. Every device gets the same number of batches; what is missing at
    the end is filled up with items of weight 0.
    """
    whole = batch_size * world
    padded = -(-items // whole) * whole
    rows, weight = np.minimum(np.arange(padded), items - 1), (np.arange(padded) < items).astype(np.float32)
    return rows.reshape(-1, world, batch_size)[:, rank], weight.reshape(-1, world, batch_size)[:, rank]


class BatchData(L.LightningDataModule):
    """Batches of two splits, the training ones from wherever in an epoch a resumed run goes on.

    A subclass fills `train` and `validation` in `setup`.
    """

    def __init__(self, root: str, batch_size: int, seed: int, workers: int = 0):
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; at least 1 is wanted.")
        self.root, self.batch_size, self.seed, self.workers = Path(root), batch_size, seed, workers
        self.train: Dataset | InMemory | None = None
        self.validation: Dataset | InMemory | None = None
        self.validation_items: int | None = None
        self.first_epoch, self.first_batch = 0, 0  # where a resumed run goes on

    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch on one device."""
        return len(self.train) // (self.batch_size * self.trainer.world_size)

    def validation_count(self) -> int:
        """Items of a validation, over all devices: all of the split's, or as many as `validation_items` allows."""
        items = len(self.validation)
        return min(self.validation_items or items, items)

    def train_dataloader(self) -> EpochLoader:
        """The current epoch's batches, from where a resumed run goes on. Asked for in every epoch."""
        epoch = self.trainer.current_epoch
        rank, world = self.trainer.global_rank, self.trainer.world_size
        rows = training_rows(self.seed, epoch, len(self.train), self.batch_size, rank, world)
        if epoch == self.first_epoch:
            rows = rows[self.first_batch :]
        return self._loader(self.train, epoch, rows, np.ones(rows.shape, np.float32))

    def first_batches(self, count: int) -> EpochLoader:
        """Up to `count` training batches of epoch 0, the same ones on every device and whenever asked for."""
        rows = training_rows(self.seed, 0, len(self.train), self.batch_size, rank=0, world=1)[:count]
        return self._loader(self.train, 0, rows, np.ones(rows.shape, np.float32))

    def val_dataloader(self) -> EpochLoader:
        """The validation items, each counted once over all devices."""
        items, wanted = len(self.validation), self.validation_count()
        rows, weight = evaluation_rows(
            wanted, self.batch_size, self.trainer.global_rank, self.trainer.world_size
        )
        return self._loader(self.validation, 0, rows * items // wanted, weight)

    def _loader(
        self, source: Dataset | InMemory, epoch: int, rows: np.ndarray, weight: np.ndarray
    ) -> EpochLoader:
        pin = self.trainer.strategy.root_device.type == "cuda"
        return EpochLoader(source, epoch, rows, weight, self.workers, pin)


class MixtureData(BatchData):
    """Training and validation mixtures of a corpus in LRS2-2Mix's layout.

    Args:
        root: the folder with tr/ and cv/ lists, as `avkit corpus` and `avkit prepare` write it.
        batch_size: items per step and device.
        mixing: "fixed" trains on the mixtures of the lists, "dynamic" mixes their talkers anew each epoch.
        items_per_epoch: for dynamic mixing; None means two for each mixture of the lists.
        levels: for dynamic mixing; "drawn" means equal loudness, then +x and -x dB with x uniform in [0, 5],
            and peak 0.9; "stored" adds the recordings up as they are (as IIANet's code does).
        same_talker: for dynamic mixing; whether a talker may be mixed with itself (another utterance).
        segment: seconds of each item, a multiple of 0.04; shorter recordings are left out.
        start: where in longer training recordings the segment lies; validation takes the first.
        both: both talkers as targets of one item (permutation-invariant training) instead of one at a time.
        augment: random crops and mirroring of the lips in training.
        features: name under features/ of stored lip features to read instead of frames.
        mouths: folder of mouth crops to read in place of the listed one, such as "mouths-opening"; None: as listed.
        on_bad: an unreadable file ends the run ("stop"), or the next item takes its place, counted ("skip").
        cache: "none" reads files when needed; "memory" and "device" hold the corpus in RAM or on the GPU.
        workers: processes that read files, where nothing is cached.
        seed: of all chance in the data (on the command line it follows --seed_everything).
        validation_items: use only so many validation items, evenly spread over the list; None: all of them.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 4,
        mixing: Literal["fixed", "dynamic"] = "fixed",
        items_per_epoch: int | None = None,
        levels: Literal["drawn", "stored"] = "drawn",
        same_talker: bool = False,
        segment: float = 2.0,
        start: Literal["first", "random"] = "first",
        both: bool = False,
        augment: bool = True,
        features: str | None = None,
        on_bad: Literal["stop", "skip"] = "stop",
        cache: Literal["none", "memory", "device"] = "none",
        workers: int = 0,
        seed: int = 0,
        validation_items: int | None = None,
        mouths: str | None = None,
    ):
        super().__init__(root, batch_size, seed, workers)
        self.cache, self.validation_items = cache, validation_items
        shared = {"segment": segment, "both": both, "features": features, "on_bad": on_bad, "mouths": mouths}
        self.training_settings = ItemSettings(**shared, start=start, augment=augment)
        self.validation_settings = ItemSettings(**shared)
        self.mixing = MixingSettings(items_per_epoch, levels, same_talker) if mixing == "dynamic" else None

    def setup(self, stage: str) -> None:
        """Read the lists, and with a cache the files."""
        if self.train is not None:
            return
        self.train = open_split(self.root, "tr", self.training_settings, self.seed, self.mixing)
        self.validation = open_split(self.root, "cv", self.validation_settings, self.seed)
        if self.cache != "none":
            device = self.trainer.strategy.root_device if self.cache == "device" else "cpu"
            self.train, self.validation = Cache(self.train, device), Cache(self.validation, device)

    @property
    def validation_mixtures(self) -> Mixtures:
        """The validation split, cached or not."""
        return self.validation.data if isinstance(self.validation, Cache) else self.validation
