"""What a training run learns, as Lightning modules: optimiser and schedule; a separation network and its losses."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from avkit.ablations import changes_for, create
from avkit.callbacks import AudioSamples
from avkit.checkpoints import attach_lips, load_model, save_model
from avkit.data.features import check_features
from avkit.errors import CheckpointError, InputError
from avkit.fast.graphs import record_training
from avkit.fast.switch import readable
from avkit.lip_weights import load_lip_encoder
from avkit.lips import MEAN, STD
from avkit.losses import PermutationInvariant, negative_si_snr, negative_snr
from avkit.registry import create_model

RECALIBRATION = 4  # training batches over which an averaged network's batch norms are measured
LOSSES = {"snr": negative_snr, "si-snr": negative_si_snr}


class Learner(L.LightningModule):
    """An optimiser, a schedule and a moving average for a network: what every training run here has.

    All chance in a training step (dropout, drop-path) is seeded from (seed, epoch, batch, device), so that a
    resumed run draws what an unbroken one would. The arguments are those of `Separation`.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        optimizer: str,
        learning_rate: float,
        weight_decay: float,
        schedule: str,
        patience: int,
        warmup: int,
        average: float | None,
        compile: bool,
        seed: int,
    ):
        super().__init__()
        self.network, self.seed = network, seed
        self.optimizer_name, self.learning_rate, self.weight_decay = optimizer, learning_rate, weight_decay
        self.schedule, self.patience, self.warmup = schedule, patience, warmup
        self.decay = average
        self.average = None if average is None else copy.deepcopy(network).requires_grad_(False).eval()
        if compile:
            self.network.compile()
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._plateau_state: dict | None = None

    def trained_network(self) -> torch.nn.Module:
        """What the run is for: the average of the weights where one is kept, else the network."""
        return self.network if self.average is None else self.average

    def estimate(self, network: torch.nn.Module, batch: dict[str, Tensor]) -> Any:
        """What a network makes of a batch; each subclass has its own way."""
        raise NotImplementedError

    def on_validation_start(self) -> None:
        """The average gets batch norms of its own, before it is judged and perhaps kept."""
        if self.average is None:
            return
        batches = self.trainer.datamodule.first_batches(RECALIBRATION)
        inputs = ({key: value.to(self.device) for key, value in batch.items()} for batch in batches)
        recalibrate(self.average, (self.estimate(self.average, batch) for batch in inputs))

    def after_validation(self, loss: float) -> None:
        """Tell the plateau schedule how a validation went; to be called once after each."""
        if self.plateau is not None and not self.trainer.sanity_checking:
            self.plateau.step(loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam or AdamW over the network alone; neither a frozen lip encoder nor the average is trained."""
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.optimizer_name]
        optimizer = kind(self.network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        if self.schedule == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=0.5, patience=self.patience
            )
            if self._plateau_state is not None:
                self.plateau.load_state_dict(self._plateau_state)
        return optimizer

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Seed the step's chance and set its learning rate: both follow from where in the run it stands."""
        first = (
            self.trainer.datamodule.first_batch
            if self.trainer.current_epoch == self.trainer.datamodule.first_epoch
            else 0
        )
        position = (
            self.trainer.current_epoch * 1_000_003 + first + batch_idx
        ) * 1009 + self.trainer.global_rank
        torch.manual_seed((self.seed * 0x9E3779B97F4A7C15 + position) % 2**63)
        optimizer = self.optimizers().optimizer
        if self.schedule != "plateau" or self.trainer.global_step < self.warmup:
            optimizer.param_groups[0]["lr"] = self.learning_rate * self.rate_at(self.trainer.global_step)
        self.log("learning_rate", optimizer.param_groups[0]["lr"], on_step=True)

    def rate_at(self, step: int) -> float:
        """The learning rate after `step` steps, as a share of its highest, plateaus left aside."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule != "cosine":
            return warm
        return warm * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, self._progress(step)))) / 2)

    def _progress(self, step: int) -> float:
        """The share of the run that is over, by whichever limit is nearest."""
        trainer = self.trainer
        shares = [0.0]
        if trainer.max_steps > 0:
            shares.append(step / trainer.max_steps)
        if trainer.max_epochs and trainer.max_epochs > 0:
            batches = trainer.datamodule.batches_per_epoch()
            shares.append(step / (trainer.max_epochs * math.ceil(batches / trainer.accumulate_grad_batches)))
        timer = next((c for c in trainer.callbacks if isinstance(c, L.pytorch.callbacks.Timer)), None)
        if timer is not None and timer.time_remaining() is not None:
            spent = timer.time_elapsed()
            shares.append(trainer.strategy.broadcast(spent / (spent + timer.time_remaining())))
        return max(shares)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser's step, and the average's after it."""
        super().optimizer_step(*args, **kwargs)
        if self.average is None:
            return
        steps = self.trainer.global_step + 1
        decay = min(self.decay, (1 + steps) / (10 + steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
            for mean, now in zip(self.average.buffers(), self.network.buffers(), strict=True):
                mean.copy_(now)

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        """A run that ends by its number of steps ends with a validation."""
        if 0 < self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.plateau is not None:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._plateau_state = checkpoint.get("plateau")


class Separation(Learner):
    """A separation network with its frozen lip encoder, its losses, its optimiser and its schedule.

    Args:
        network: a name of `avkit.list_models()`.
        overrides: fields of that network's configuration to change.
        changes: blocks to exchange for one of the papers' alternatives, as fields of `avkit.ablations.RTFSNetChanges`
            or `IIANetChanges`.
        weights: a folder or bundled name of a trained network of the same configuration, or of its twin without
            lips, to begin with; None begins with random weights.
        lip_encoder: a folder or bundled name with a trained lip encoder; None only where no lips are looked
            at.
        audio_only: zeros instead of lip features; the network then has as many outputs as an item has
            targets.
        train_loss: "snr" or "si-snr", negative, over the best order of the talkers where there are several.
        optimizer: "adamw" or "adam".
        learning_rate: at its highest.
        weight_decay: of the optimiser.
        schedule: "plateau" halves the rate after `patience` validations without progress; "cosine" falls to 1
            % by the end of the run (of max_epochs, max_steps or max_time, whichever is nearest); "constant"
            keeps it.
        patience: for "plateau".
        warmup: steps over which the rate rises from 0.
        average: decay of a moving average of the weights, which is then what is validated and kept; None for
            none.
        compile: compile the network with torch.compile.
        seed: of dropout (on the command line it follows --seed_everything).
        graphs: on one NVIDIA GPU, record the network's passes as CUDA graphs (batches then keep one shape).
    """

    def __init__(
        self,
        network: str,
        overrides: dict[str, Any] | None = None,
        changes: dict[str, Any] | None = None,
        weights: str | None = None,
        lip_encoder: str | None = None,
        audio_only: bool = False,
        train_loss: Literal["snr", "si-snr"] = "snr",
        optimizer: Literal["adamw", "adam"] = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Literal["plateau", "cosine", "constant"] = "plateau",
        patience: int = 10,
        warmup: int = 0,
        average: float | None = None,
        compile: bool = False,
        seed: int = 0,
        graphs: bool = False,
    ):
        if changes:
            model = create(network, changes_for(network, changes), **(overrides or {}))
        else:
            model = create_model(network, **(overrides or {}))
        began = None if weights is None else begin_with(model, weights)
        super().__init__(
            model, optimizer, learning_rate, weight_decay, schedule, patience, warmup, average, compile, seed
        )
        self.began, self.graphs = began, graphs
        self.preset, self.audio_only = network, audio_only
        if lip_encoder is None and not audio_only:
            raise InputError(
                "No lip encoder was named: give --model.lip_encoder a folder with a trained one (make one with "
                "`avkit train --config lip-encoder-tiny --out DIR`, then DIR/model), or train with "
                "--model.audio_only true."
            )
        attach_lips(self, None if lip_encoder is None else load_lip_encoder(lip_encoder))
        self.train_loss = PermutationInvariant(LOSSES[train_loss])
        self.validation_loss = PermutationInvariant(negative_si_snr)
        self._sums = torch.zeros(3, dtype=torch.float64)

    def configure_callbacks(self) -> list[L.Callback]:
        """What a run of this module also reports: what it sounds like."""
        return [AudioSamples()]

    def on_fit_start(self) -> None:
        """Bring the lip encoder to the device, and make sure that stored features are its own."""
        if self.lips is None:
            return
        self.lips.to(self.device)
        data = self.trainer.datamodule
        if data.training_settings.features is not None:
            check_features(data.root, data.training_settings.features, self.lips)

    def embed(self, lips: Tensor) -> Tensor:
        """Features (B·n, 512, F) float of a batch's lips: (B, n, F, 88, 88) uint8, or stored ones (B, n, 512, F)."""
        if self.audio_only:
            frames = lips.shape[2] if lips.dtype == torch.uint8 else lips.shape[3]
            return torch.zeros(len(lips), self.network.config.lip_channels, frames, device=lips.device)
        lips = lips.flatten(0, 1)
        if lips.dtype != torch.uint8:
            return lips.float()
        with torch.no_grad():
            return self.lips(((lips.float() / 255 - MEAN) / STD)[:, None]).float()

    def estimate(self, network: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Estimates and targets (N, n_src, T), and the mixtures (N, T) they came from.

        A network of one output sees each target's lips in turn (N = B · targets), one of several outputs all
        at once.
        """
        mixture, targets = batch["mixture"], batch["targets"]
        if network.config.n_src == 1:
            mixture = mixture.repeat_interleave(targets.shape[1], dim=0)
            targets = targets.flatten(0, 1)[:, None]
        lips = self.embed(batch["lips"])
        if self.graphs and network.training:
            self._record(mixture, lips)
        estimates = network(mixture, lips).float()
        if estimates.shape != targets.shape:
            raise InputError(
                f"{self.preset} gave {estimates.shape[1]} voices where items have {targets.shape[1]} target(s). "
                "A network of two outputs needs --data.both true."
            )
        return estimates, targets, mixture

    def _record(self, mixture: Tensor, lips: Tensor) -> None:
        """Record the network's passes as CUDA graphs, once, for batches of this shape."""
        self.graphs = False
        if self.device.type != "cuda" or self.trainer.world_size > 1 or self.trainer.precision != "32-true":
            raise InputError("--model.graphs true is for one NVIDIA GPU, in 32 bits")
        chance = torch.cuda.get_rng_state(self.device)
        record_training(self.network, mixture, lips)
        torch.cuda.set_rng_state(chance, self.device)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The training loss of a batch."""
        estimates, targets, _ = self.estimate(self.network, batch)
        loss = self.train_loss(estimates, targets)
        self.log(
            "train_loss",
            loss,
            on_step=True,
            on_epoch=False,
            prog_bar=True,
            sync_dist=self.trainer.world_size > 1,
        )
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Adds up the loss and the improvement of a batch; items of weight 0 do not count."""
        estimates, targets, mixture = self.estimate(self.trained_network(), batch)
        losses = self.validation_loss.best_order(estimates, targets)[0].double()
        before = negative_si_snr(mixture[:, None].expand_as(targets), targets).mean(1).double()
        weight = batch["weight"].to(losses).repeat_interleave(len(losses) // len(batch["weight"]))
        self._sums = self._sums.to(losses.device)
        self._sums += torch.stack([(losses * weight).sum(), ((before - losses) * weight).sum(), weight.sum()])

    def on_validation_epoch_start(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Means over all items of all devices, and the plateau schedule's step."""
        loss, improvement, count = self.trainer.strategy.reduce(
            self._sums.to(self.device), reduce_op="sum"
        ).tolist()
        values = {"val_loss": loss / count, "val_si_snr_improvement": improvement / count}
        self.log_dict({key: torch.tensor(value) for key, value in values.items()}, prog_bar=True)
        self.after_validation(values["val_loss"])

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Write the trained network and its lip encoder in the package's format, for `avkit.load_model`.

        A run that began with trained weights says under `began_with` where those came from.
        """
        if self.began is not None:
            provenance = provenance | {"began_with": self.began}
        save_model(folder, self.trained_network(), self.preset, self.lips, provenance)


def recalibrate(network: torch.nn.Module, outputs: Iterable[Any]) -> None:
    """Measure the running statistics of a network's batch norms anew, over some batches and with all else as in evaluation.

    Averaged weights bring forth other activations than the latest ones, whose statistics they were given (Izmailov et al. 2018,
    section 3.2). Much comes of it where a norm sees a constant, as those of RTFS-Net's visual block do in a twin without lips: its
    variance is 0, and whatever the mean lacks is multiplied by 1/√eps. (`torch.optim.swa_utils.update_bn` would put dropout and
    drop-path on meanwhile.)

    outputs: what the network makes of the batches, computed while it is iterated over.
    """
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    modes, momenta = [norm.training for norm in norms], [norm.momentum for norm in norms]
    with torch.no_grad(), readable(network):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
            norm.train()
        for _ in outputs:
            pass
    for norm, mode, momentum in zip(norms, modes, momenta, strict=True):
        norm.train(mode)
        norm.momentum = momentum


def begin_with(network: torch.nn.Module, weights: str) -> dict[str, Any]:
    """Fill a network with the weights of a trained one, and return where those come from.

    Of a twin without lips, which returns several voices, the mask of the first is taken.

    weights: a folder or bundled name that `avkit.load_model` reads.
    Raises CheckpointError where the two networks differ in configuration but for the number of voices.
    """
    trained = load_model(weights, fast=False)
    voices, wanted = trained.config.n_src, network.state_dict()
    given = trained.state_dict()
    if voices > network.config.n_src == 1:
        for key, value in given.items():
            shape = wanted[key].shape if key in wanted else ()
            if shape and value.shape == (voices * shape[0], *shape[1:]):
                given[key] = value[: shape[0]]
    try:
        network.load_state_dict(given)
    except RuntimeError as error:
        first = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise CheckpointError(f"The weights in '{weights}' are those of another network: {first}") from None
    return trained.provenance
