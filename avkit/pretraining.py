"""Teaching a small lip encoder to see: visemes and mouth shapes of generated talkers, before any sound is
heard.

The published encoder learnt words of television speakers (LRW); that corpus is licensed. Generated talkers
come with what their mouths do in every frame (`avkit.data.labels`), so a narrow encoder learns to tell that,
and is then frozen, as the published one is.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from avkit.checkpoints import write_atomically
from avkit.data import drawing
from avkit.data.datamodule import BatchData
from avkit.data.labels import read_labels
from avkit.data.reading import fit_frames, read_mouth
from avkit.data.visemes import CURVES, VISEMES
from avkit.learner import Learner
from avkit.lip_weights import save_lip_encoder
from avkit.lips import CROP_SIZE, MEAN, STD, LipEncoder, LipEncoderConfig


class LabelledMouths:
    """Every mouth of a split in memory, with what it does.

    A batch holds `frames` (B, F, 88, 88) uint8, `viseme` (B, F) int64 classes and `curves` (B, F, 6) float32.
    """

    def __init__(
        self, root: Path, split: str, seed: int, augment: bool, device: torch.device | str, threads: int = 8
    ):
        labels = read_labels(root)
        rows = labels.of_split(split)
        count = labels.viseme.shape[1]
        paths = [Path(root) / "mouths" / f"{labels.ids[row]}.npz" for row in rows]
        with ThreadPoolExecutor(threads) as pool:
            mouths = list(pool.map(lambda path: fit_frames(read_mouth(path), count, path), paths))
        self.seed, self.augment, self.device = seed, augment, torch.device(device)
        self.talkers = sorted({labels.talkers[row] for row in rows})
        self.frames = torch.from_numpy(np.stack(mouths)).to(device)
        self.viseme = torch.from_numpy(labels.viseme[rows]).to(device)
        self.curves = torch.from_numpy(labels.curves[rows]).to(device)

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, epoch: int, rows: np.ndarray) -> dict[str, Tensor]:
        """The clips `rows`, cropped and mirrored as the epoch has it."""
        corner, flip, _ = drawing.draw_lips(drawing.generator(self.seed, epoch, 2), len(self), self.augment)
        crops = []
        for row in rows:
            top, left = corner[row, 0]
            crop = self.frames[row, :, top : top + CROP_SIZE, left : left + CROP_SIZE]
            crops.append(crop.flip(-1) if flip[row, 0] else crop)
        index = torch.from_numpy(rows).to(self.device)
        return {"frames": torch.stack(crops), "viseme": self.viseme[index], "curves": self.curves[index]}


class MouthData(BatchData):
    """Mouths of a generated corpus with their labels, all held in memory (461 kB an utterance).

    Args:
        root: a corpus made by `avkit corpus`.
        batch_size: clips of 2 s per step and device.
        augment: random crops and mirroring in training.
        cache: "memory", or "device" for the GPU's.
        seed: of the order and the augmentation (on the command line it follows --seed_everything).
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 16,
        augment: bool = True,
        cache: Literal["memory", "device"] = "memory",
        seed: int = 0,
    ):
        super().__init__(root, batch_size, seed)
        self.augment, self.cache = augment, cache

    def setup(self, stage: str) -> None:
        """Read the labels and all mouths."""
        if self.train is None:
            device = self.trainer.strategy.root_device if self.cache == "device" else "cpu"
            self.train = LabelledMouths(self.root, "tr", self.seed, self.augment, device)
            self.validation = LabelledMouths(self.root, "cv", self.seed, False, device)


class Reader(nn.Module):
    """A lip encoder and a linear layer on its features, which must therefore hold what is asked for."""

    def __init__(self, config: LipEncoderConfig):
        super().__init__()
        self.encoder = LipEncoder(config).unfreeze()
        self.head = nn.Linear(config.features, len(VISEMES) + len(CURVES))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, 88, 88) uint8 -> logits of the visemes (B, F, 15) and curves (B, F, 6)."""
        features = self.encoder(((frames.float() / 255 - MEAN) / STD)[:, None])  # (B, 512, F)
        answers = self.head(features.transpose(1, 2)).float()
        return answers[..., : len(VISEMES)], answers[..., len(VISEMES) :]


class VisemeReader(Learner):
    """Learns an encoder by telling each frame's viseme and the six curves of its mouth; judged on talkers
    never seen.

    Args:
        stem, widths: channels of the encoder; see `avkit.lips.LipEncoderConfig`.
        curve_weight: of the curves' mean squared error beside the visemes' cross-entropy.
        optimizer, learning_rate, weight_decay, schedule, patience, warmup, average, compile, seed: as for
            `Separation`.
    """

    def __init__(
        self,
        stem: int = 16,
        widths: tuple[int, int, int, int] = (16, 32, 64, 128),
        curve_weight: float = 10.0,
        optimizer: Literal["adamw", "adam"] = "adamw",
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        schedule: Literal["plateau", "cosine", "constant"] = "cosine",
        patience: int = 10,
        warmup: int = 0,
        average: float | None = None,
        compile: bool = False,
        seed: int = 0,
    ):
        reader = Reader(LipEncoderConfig(stem=stem, widths=tuple(widths)))
        super().__init__(
            reader, optimizer, learning_rate, weight_decay, schedule, patience, warmup, average, compile, seed
        )
        self.curve_weight = curve_weight
        self.record: dict[str, Any] = {}

    def estimate(self, network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and curves of a batch of clips."""
        return network(batch["frames"])

    def losses(self, logits: Tensor, curves: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """(B,) cross-entropy plus weighted squared error, each averaged over a clip's frames."""
        entropy = cross_entropy(logits.flatten(0, 1), batch["viseme"].flatten(), reduction="none")
        error = mse_loss(curves, batch["curves"], reduction="none").mean(-1)
        return entropy.view(error.shape).mean(1) + self.curve_weight * error.mean(1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The mean loss of a batch."""
        loss = self.losses(*self.estimate(self.network, batch), batch).mean()
        self.log(
            "train_loss",
            loss,
            on_step=True,
            on_epoch=False,
            prog_bar=True,
            sync_dist=self.trainer.world_size > 1,
        )
        return loss

    def on_validation_epoch_start(self) -> None:
        classes, curves = len(VISEMES), len(CURVES)
        self._confusion = torch.zeros(classes, classes, dtype=torch.float64, device=self.device)
        self._curves = torch.zeros(
            3, curves, dtype=torch.float64, device=self.device
        )  # error², sum, sum of squares
        self._sums = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Counts right and wrong answers; clips of weight 0 do not count."""
        logits, curves = self.estimate(self.trained_network(), batch)
        weight = batch["weight"].to(logits).double()
        self._sums += torch.stack(
            [(self.losses(logits, curves, batch).double() * weight).sum(), weight.sum()]
        )
        classes = len(VISEMES)
        pairs = (batch["viseme"] * classes + logits.argmax(-1)).flatten()
        each = weight[:, None].expand(batch["viseme"].shape).flatten()
        self._confusion += torch.bincount(pairs, each, minlength=classes**2).view(classes, classes)
        truth = batch["curves"].double()
        parts = torch.stack([(curves.double() - truth).square(), truth, truth.square()])
        self._curves += torch.einsum("kbfc,b->kc", parts, weight)

    def on_validation_epoch_end(self) -> None:
        """Accuracy, chance, the confusion matrix, and how much of each curve's variance is explained."""
        reduce = self.trainer.strategy.reduce
        confusion, curves, sums = (
            reduce(x, reduce_op="sum") for x in (self._confusion, self._curves, self._sums)
        )
        frames = confusion.sum()
        variance = curves[2] - curves[1].square() / frames
        explained = 1 - curves[0] / variance.clamp_min(1e-9)
        loss, accuracy = float(sums[0] / sums[1]), float(confusion.trace() / frames)
        self.record = {
            "accuracy": round(accuracy, 4),
            "chance": round(float(confusion.sum(1).max() / frames), 4),
            "visemes": list(VISEMES),
            "confusion": confusion.long().tolist(),
            "explained_variance": dict(zip(CURVES, (round(v, 4) for v in explained.tolist()), strict=True)),
        }
        values = {"val_loss": loss, "val_accuracy": accuracy, "val_explained": float(explained.mean())}
        self.log_dict({key: torch.tensor(value) for key, value in values.items()}, prog_bar=True)
        self.after_validation(loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["record"] = self.record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.record = checkpoint["record"]

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Write the encoder for `--model.lip_encoder`, and beside it `visemes.json`: what it can tell, class
        by class.

        Rows of the confusion matrix are true classes, columns are answers.
        """
        save_lip_encoder(folder, self.trained_network().encoder, provenance)
        record = self.record | {
            "talkers": self.trainer.datamodule.validation.talkers,
            "provenance": provenance,
        }
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(
            Path(folder) / "visemes.json", lambda path: Path(path).write_text(text, encoding="utf-8")
        )
