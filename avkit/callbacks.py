"""What happens around a run's steps: saving and going on exactly, measuring, reporting, stopping on bad numbers."""

from __future__ import annotations

import math
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger

from avkit.errors import AvkitError, CheckpointError
from avkit.signal import SAMPLE_RATE


class TrainingError(AvkitError):
    """A training run cannot go on."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or not there: written under another name, flushed, then moved into place."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        """Raises CheckpointError when the disk is full; the last good checkpoint is still there then."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
            temporary.unlink(missing_ok=True)
            kept = "The one before it is unharmed: free some space and run the same command again."
            raise CheckpointError(
                f"The checkpoint {path} could not be written ({error}). {kept if path.exists() else ''}"
            ) from error


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt`, from which a run goes on exactly, and `best.ckpt`, the best weights so far.

    `last.ckpt` is written every `every` optimiser steps and after each epoch, validation included. A run that
    goes on from it redoes what came after it, and, on the same machine, arrives at the same weights bit for
    bit. Lightning's own counters are set from the position saved here: an epoch that was interrupted becomes
    one that has fewer batches left.
    """

    def __init__(self, folder: str | os.PathLike, every: int = 200, monitor: str = "val_loss"):
        self.folder, self.every, self.monitor = Path(folder), every, monitor
        self.best, self.best_epoch = math.inf, -1
        self._position: dict[str, Any] = {}

    @property
    def last_path(self) -> Path:
        """Where the run goes on from."""
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        """The weights with the lowest `monitor`."""
        return self.folder / "best.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, **self._position}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put Lightning where the checkpoint was: at the start of what is left of its epoch."""
        state = checkpoint["callbacks"][self.state_key]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        checkpoint.pop("loops", None)
        loop = trainer.fit_loop.epoch_loop
        for progress in (trainer.fit_loop.epoch_progress.total, trainer.fit_loop.epoch_progress.current):
            progress.ready = progress.started = progress.processed = progress.completed = state["epoch"]
        total = loop.batch_progress.total
        total.ready = total.started = total.processed = total.completed = state["batches_in_all"]
        steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.ready = steps.completed = state["steps"]
        loop._batches_that_stepped = state["steps"]
        trainer.datamodule.first_epoch, trainer.datamodule.first_batch = state["epoch"], state["batch"]
        trainer.should_stop = state["stop"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = batch_idx + 1 >= trainer.num_training_batches
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if (
            not last
            and stepped
            and trainer.global_step % self.every == 0
            and math.isfinite(float(outputs["loss"]))
        ):
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights when they are the best so far."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None or not float(value) < self.best:
            return
        self.best, self.best_epoch = float(value), trainer.current_epoch
        trainer.save_checkpoint(self.best_path, weights_only=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        data, progress = trainer.datamodule, trainer.fit_loop.epoch_loop.batch_progress
        epoch = trainer.current_epoch
        done = progress.current.processed + (data.first_batch if epoch == data.first_epoch else 0)
        if done >= data.batches_per_epoch():
            epoch, done = epoch + 1, 0
        self._position = {
            "epoch": epoch,
            "batch": done,
            "batches_in_all": progress.total.processed,
            "steps": trainer.global_step,
            "stop": any(
                x.stopped_epoch or x.wait_count >= x.patience for x in _of_kind(trainer, EarlyStopping)
            ),
        }
        trainer.save_checkpoint(self.last_path)


def _of_kind(trainer: L.Trainer, kind: type[Callback]) -> list:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]


class StopOnBadNumbers(Callback):
    """Ends the run when a loss is not finite, and saves the batch that gave it.

    A loss is looked at one step late, so that a GPU need not be waited for.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self._pending: tuple[torch.Tensor, Any, int, int] | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._check(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._pending = (outputs["loss"].detach(), batch, trainer.global_step, trainer.current_epoch)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        if self._pending is None:
            return
        loss, batch, step, epoch = self._pending
        self._pending = None
        bad = trainer.strategy.reduce(
            (~torch.isfinite(loss)).float(), reduce_op="sum"
        )  # all devices stop together
        if not bad.item():
            return
        if torch.isfinite(loss):
            raise TrainingError(
                f"The loss of step {step} (epoch {epoch}) is not finite on another device, which says more."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"bad-batch-step-{step}.pt"
        torch.save({"batch": batch, "loss": loss, "step": step, "epoch": epoch}, path)
        raise TrainingError(
            f"The loss of step {step} (epoch {epoch}) is {loss.item()}. The batch that gave it is in {path} "
            "(torch.load opens it). Silent targets, a learning rate that is too high and half precision are the "
            "usual causes; the same command goes on from the last checkpoint."
        )


class Speed(Callback):
    """Examples per second, and which share of a step goes to data, forward, backward and the rest.

    Every `every` steps one step is timed with the device waited for at each boundary; the others run freely.
    """

    def __init__(self, every: int = 50):
        self.every = every
        self.examples = (
            0  # that the run has seen, all devices together, whatever was undone by an interruption left out
        )
        self.seconds = 0.0  # that the run has taken, likewise
        self.rate = 0.0
        self.shares: dict[str, float] = {}
        self._times: dict[str, float] = {}
        self._last_end = self._since = time.perf_counter()
        self._count = 0
        self._timed = False
        self._clock = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"examples": self.examples, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.examples, self.seconds = state_dict["examples"], state_dict["seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clock = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_end = self._since = time.perf_counter()
        self._count = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._timed = batch_idx % self.every == self.every - 1 or batch_idx == 1
        if self._timed:
            self._times = {"begin": self._last_end, "data": self._now(pl_module)}

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: torch.Tensor
    ) -> None:
        if self._timed:
            self._times["forward"] = self._now(pl_module)

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._timed:
            self._times["backward"] = self._now(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        size = len(next(iter(batch.values()))) * trainer.world_size
        self.examples += size
        self._count += size
        if self._timed:
            self._times["optimiser"] = self._now(pl_module)
            marks = list(self._times.items())
            whole = max(marks[-1][1] - marks[0][1], 1e-9)
            self.shares = {name: (at - before) / whole for (_, before), (name, at) in pairwise(marks)}
            self.rate = self._count / max(time.perf_counter() - self._since, 1e-9)
            values = {
                "examples_per_second": self.rate,
                **{f"share_{name}": part for name, part in self.shares.items()},
            }
            pl_module.log_dict(
                {key: float(value) for key, value in values.items()}, on_step=True, rank_zero_only=True
            )
        next_is_timed = (batch_idx + 1) % self.every == self.every - 1 or batch_idx == 0
        self._last_end = self._now(pl_module) if next_is_timed else time.perf_counter()

    @staticmethod
    def _now(pl_module: L.LightningModule) -> float:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        return time.perf_counter()


class Report(Callback):
    """A line every so many seconds and at each epoch's end: for logs, notebooks, and plain terminals."""

    def __init__(self, speed: Speed, seconds: float = 20.0):
        self.speed, self.seconds = speed, seconds
        self._last = time.monotonic()
        self._begin = time.monotonic()
        self._skipped: int | torch.Tensor = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin = self._last = time.monotonic()
        data = trainer.datamodule
        parameters = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        self._print(
            trainer,
            f"{parameters:,} parameters on {trainer.world_size} device(s) ({trainer.strategy.root_device.type}, "
            f"{trainer.precision}); {len(data.train)} training items, {data.batches_per_epoch()} batches an epoch, "
            f"{data.validation_count()} validation items.",
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if "skipped" in batch:
            self._skipped = (
                self._skipped + batch["skipped"].sum()
            )  # stays on the device: nothing is waited for
        if time.monotonic() - self._last >= self.seconds:
            self._last = time.monotonic()
            self._print(trainer, self._line(trainer, float(outputs["loss"])))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = time.monotonic()
        metrics = trainer.callback_metrics
        loss = float(metrics.get("train_loss", math.nan))
        validated = ", ".join(
            f"{k} {float(v):.3f}" for k, v in sorted(metrics.items()) if k.startswith("val_")
        )
        self._print(trainer, self._line(trainer, loss) + (f", {validated}" if validated else ""))

    def _line(self, trainer: L.Trainer, loss: float) -> str:
        minutes = (time.monotonic() - self._begin) / 60
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.speed.shares.items())
        skipped = int(self._skipped)
        return (
            f"{minutes:6.2f} min, epoch {trainer.current_epoch}, step {trainer.global_step}: loss {loss:.3f}, "
            f"{self.speed.rate:.1f} examples/s"
            + (f" ({shares})" if shares else "")
            + (f", {skipped} unreadable items passed over" if skipped else "")
        )

    @staticmethod
    def _print(trainer: L.Trainer, text: str) -> None:
        if trainer.is_global_zero:
            print(text, file=sys.stdout, flush=True)


class AudioSamples(Callback):
    """A validation mixture, its target, and what the network makes of it: in TensorBoard, at each validation.

    All three share one gain, so their levels can be compared.
    """

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        board = next((x.experiment for x in trainer.loggers if isinstance(x, TensorBoardLogger)), None)
        if board is None or not trainer.is_global_zero or trainer.sanity_checking:
            return
        item = trainer.datamodule.validation_mixtures[(0, 0)]
        batch = {key: value[None].to(pl_module.device) for key, value in item.items()}
        with torch.no_grad():
            estimate, target, mixture = pl_module.estimate(pl_module.trained_network(), batch)
        gain = 0.9 / float(mixture[0].abs().max().clamp_min(1e-6))
        step = trainer.global_step
        for name, sound in (("mixture", mixture[0]), ("target", target[0, 0]), ("estimate", estimate[0, 0])):
            board.add_audio(f"validation/{name}", (sound * gain).clamp(-1, 1).cpu(), step, SAMPLE_RATE)
