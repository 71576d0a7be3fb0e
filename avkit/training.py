"""The command `avkit train`: set a run up, go on where it stopped, and keep what it learnt.

A run is a folder:

- `config.yaml`        every setting, resolved
- `last.ckpt`          from which the run goes on; `best.ckpt`: the best weights so far
- `csv/`, `tensorboard/` curves
- `model/`             what `avkit.load_model` reads, written when the run ends
"""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
import re
import shutil
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avkit._extras import require
from avkit.errors import AvkitError, DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning import Trainer

CONFIGS = files("avkit") / "configs"
OWN_FILES = ("config.yaml", "last.ckpt", "best.ckpt", "run.json", "csv", "tensorboard", "model")

TRAINER_DEFAULTS = {
    "reload_dataloaders_every_n_epochs": 1,  # each epoch's loader begins where the run stands in it
    "num_sanity_val_steps": 0,
    "enable_progress_bar": sys.stdout.isatty(),
    "enable_model_summary": False,
    "log_every_n_steps": 10,
}

EXAMPLES = """\
examples:
  avkit corpus talkers --minutes 20 --seed 0
  avkit train --config lip-encoder-tiny --out runs/lips --data.root talkers
  avkit train --config rtfs-net-tiny --out runs/tiny --data.root talkers --model.lip_encoder runs/lips/model
  avkit train --config rtfs-net-4 --config lrs2 --out runs/lrs2 --data.root lists \\
      --model.lip_encoder LIP_WEIGHTS --trainer.devices 8 --trainer.strategy ddp

The same command again goes on where the run stopped. Several --config files may be given: later ones win. Every
setting can be given on the command line, as --model.NAME, --data.NAME or --trainer.NAME; `--show` lists them with
their values.
"""


def config_names() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(
        path.name.removesuffix(".yaml") for path in CONFIGS.iterdir() if path.name.endswith(".yaml")
    )


def find_config(name_or_path: str | Path) -> list[Path]:
    """The files of a configuration: a path, or a name from avkit/configs, after those it builds on (its line
    `base: NAME`).

    Raises InputError where there is no such file or name.
    """
    named = Path(str(CONFIGS / f"{name_or_path}.yaml"))
    path = Path(name_or_path) if Path(name_or_path).is_file() else named
    if not path.is_file():
        near = difflib.get_close_matches(str(name_or_path), config_names(), n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(
            f"There is no configuration '{name_or_path}', neither a file nor one that comes with the package.{hint} There are "
            f"{', '.join(config_names())}."
        )
    base = re.search(r"^base: *([^ #\n]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    if base is None:
        return [path]
    beside = path.parent / base.group(1)
    return find_config(beside if beside.is_file() else base.group(1)) + [path]


def summary_of(name: str) -> str:
    """The first line of a configuration that comes with the package, which says what it is."""
    return (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def build_parser() -> argparse.ArgumentParser:
    """The command's own arguments; everything else is Lightning's and the configuration's."""
    listed = "\n".join(f"  {name:<26}{summary_of(name)}" for name in config_names())
    parser = argparse.ArgumentParser(
        prog="avkit train",
        description="Train a network, or go on where a run stopped.",
        epilog=f"configurations:\n{listed}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="append", required=True, metavar="NAME-OR-PATH", help="what to train, and how"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder")
    parser.add_argument(
        "--fresh", action="store_true", help="delete what an earlier run left in DIR, and start anew"
    )
    parser.add_argument("--show", action="store_true", help="print the resolved settings, and do nothing")
    parser.add_argument(
        "--every", type=int, default=200, metavar="STEPS", help="optimiser steps between checkpoints"
    )
    return parser


def main(argv: list[str]) -> int:
    """Run the command. Returns 0 when the run has ended, by whichever limit."""
    arguments, settings = build_parser().parse_known_args(argv)
    require("lightning", "Training")
    require("jsonargparse", "Training")
    if arguments.show:
        print(resolve(arguments.config, settings))
        return 0
    if arguments.out is None:
        raise InputError("A run needs a folder: add --out DIR.")
    train(arguments.config, arguments.out, settings, fresh=arguments.fresh, every=arguments.every)
    return 0


def resolve(configs: list[str | Path], settings: list[str]) -> str:
    """Every setting of a run as YAML."""
    cli = _command_line(configs, settings)
    return cli.parser.dump(cli.config, skip_none=False)


def train(
    configs: list[str | Path], out: Path, settings: list[str] = (), fresh: bool = False, every: int = 200
) -> Trainer:
    """Train, or go on with the run in `out`, and write `out/model` when it has ended.

    configs: names or files, later ones win. settings: command-line overrides such as
        "--model.learning_rate=1e-4".
    fresh: delete what an earlier run left. every: optimiser steps between checkpoints.
    Raises InputError when the settings differ from those the run began with, in what would change its result.
    """
    import torch

    from avkit.callbacks import Checkpoints

    out = Path(out)
    rank_zero = _rank() == 0
    if fresh and rank_zero:
        _clear(out)
    prepare_processor()
    _quieten()
    cli = _command_line(configs, list(settings), out=out, every=every)
    resolved = cli.parser.dump(cli.config, skip_none=False)
    _refuse_partial_epochs(cli.trainer)
    checkpoints = next(callback for callback in cli.trainer.callbacks if isinstance(callback, Checkpoints))
    resuming = checkpoints.last_path.exists() and not (fresh and not rank_zero)
    if resuming:
        _refuse_changes(out / "config.yaml", resolved)
    if rank_zero:
        out.mkdir(parents=True, exist_ok=True)
        for half_written in out.glob(".*.ckpt.*"):  # by a run that was killed
            half_written.unlink()
        _write(out / "config.yaml", resolved)
        print(f"Going on from {checkpoints.last_path}." if resuming else f"A new run in {out}.", flush=True)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    checkpoint = str(checkpoints.last_path) if resuming else None
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    if cli.trainer.is_global_zero:
        _finish(cli, out, checkpoints, configs, list(settings))
    cli.trainer.strategy.barrier("finished")
    return cli.trainer


def prepare_processor() -> None:
    """Settings for training on a CPU, and what they are, said.

    Denormal numbers become zero: they make some processors ten times slower, and a trained network may hold
    them. Threads: as many as there are cores for this process, unless OMP_NUM_THREADS says otherwise, shared
    by the processes of a machine.
    """
    import torch

    flushed = torch.set_flush_denormal(True)
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    if _rank() == 0:
        told = "flushed to zero" if flushed else "kept (this processor cannot flush them)"
        print(f"CPU: {torch.get_num_threads()} thread(s), denormal numbers {told}.", flush=True)


def _command_line(configs: list[str | Path], settings: list[str], out: Path | None = None, every: int = 200):
    """Lightning's command line with this package's defaults; makes model, data and trainer, given an `out`."""
    import lightning as L
    from lightning.pytorch.cli import LightningCLI

    from avkit.callbacks import AtomicCheckpointIO

    class CommandLine(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.add_argument("--base", type=str, help="the configuration that a file builds on")
            parser.link_arguments("seed_everything", "model.init_args.seed")
            parser.link_arguments("seed_everything", "data.init_args.seed")

        def parse_arguments(self, parser, args):
            self.config = parser.parse_args(args)

        def instantiate_classes(self):
            if out is not None:
                super().instantiate_classes()

        def instantiate_trainer(self, **kwargs):
            given = self.config_init.trainer
            kwargs["callbacks"] = [*_as_list(given.get("callbacks")), *_callbacks(out, every)]
            kwargs["plugins"] = [*_as_list(given.get("plugins")), AtomicCheckpointIO()]
            kwargs["default_root_dir"] = str(out)
            if given.get("logger") is None:
                kwargs["logger"] = _loggers(out)
            return super().instantiate_trainer(**kwargs)

    found = [path for name in configs for path in find_config(name)]
    if not any(re.search("^model:", path.read_text(encoding="utf-8"), re.MULTILINE) for path in found):
        named = " and ".join(str(name) for name in configs)
        raise InputError(
            f"{named} is data alone, without a network; give a network's configuration before it: --config rtfs-net-4 --config {configs[0]}"
        )
    arguments = [part for path in found for part in ("--config", str(path))]
    try:
        return CommandLine(
            model_class=L.LightningModule,
            datamodule_class=L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            args=arguments + settings,
            run=False,
            parser_kwargs={"exit_on_error": False, "prog": "avkit train"},
        )
    except Exception as error:
        own = next((link for link in _chain(error) if isinstance(link, AvkitError)), None)
        if own is not None:
            raise own from None
        if type(error).__name__ in ("ArgumentError", "NSKeyError"):
            raise InputError(f"The settings do not fit: {_in_short(str(error))}") from None
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _in_short(message: str) -> str:
    """What the parser says of a setting, without what it says of the classes around it."""
    found = re.search(r"Problem with given class_path [^\n]*\n(.*?)\n *- Expected", message, re.DOTALL)
    part = re.match(r'Parser key "(\w+)"', message)
    return f"--{part[1]}: {' '.join(found[1].split())}" if found and part else message


def _callbacks(out: Path, every: int) -> list:
    """What every run has beside the callbacks that its configuration names."""
    from lightning.pytorch.callbacks import RichProgressBar

    from avkit.callbacks import Checkpoints, Report, Speed, StopOnBadNumbers

    speed = Speed()
    callbacks = [StopOnBadNumbers(out), speed, Report(speed), Checkpoints(out, every)]
    return callbacks + [RichProgressBar()] * sys.stdout.isatty()


def _loggers(out: Path) -> list:
    """Curves as CSV (a file for each time the run is begun; see `avkit.curves`) and for TensorBoard."""
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    return [CSVLogger(out, name="csv"), TensorBoardLogger(out, name="tensorboard", version="")]


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _quieten() -> None:
    """Keep Lightning from remarking on what is meant here: frozen modules, short epochs, its services."""
    import lightning.pytorch  # noqa: F401 - which sets its level when it is first imported

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*in eval mode at the start.*",
        ".*smaller than the logging interval.*",
        ".*treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def _rank() -> int:
    """This process's place among all of a run, before Lightning has set itself up."""
    return next(
        (int(os.environ[name]) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), 0
    )


def _clear(out: Path) -> None:
    for path in [*(out / name for name in OWN_FILES), *out.glob("bad-batch-step-*.pt")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    from avkit.checkpoints import write_atomically

    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def _refuse_changes(stored: Path, resolved: str) -> None:
    """A run goes on with the model and data settings it began with."""
    import yaml

    if not stored.exists():
        return
    before, now = yaml.safe_load(stored.read_text(encoding="utf-8")), yaml.safe_load(resolved)
    free = {"workers", "cache", "root", "lip_encoder", "compile", "graphs"}
    changed = []
    for part in ("model", "data"):
        old, new = (config[part].get("init_args", {}) for config in (before, now))
        changed += [
            f"{part}.{key}: {old.get(key)!r} became {new.get(key)!r}"
            for key in sorted({*old, *new} - free)
            if old.get(key) != new.get(key)
        ]
    if before.get("seed_everything") != now.get("seed_everything"):
        changed.append(
            f"seed_everything: {before.get('seed_everything')} became {now.get('seed_everything')}"
        )
    if changed:
        raise InputError(
            f"The run in {stored.parent} began with other settings ({'; '.join(changed)}). Give the same command "
            "to go on, --fresh to start anew, or another --out."
        )


def _refuse_partial_epochs(trainer: Trainer) -> None:
    """An epoch that is cut short, or validated in its middle, could not be gone on with exactly."""
    if trainer.limit_train_batches != 1.0 or trainer.val_check_interval != 1.0:
        raise InputError(
            "limit_train_batches and val_check_interval cut epochs in pieces, which a run that goes on exactly "
            "cannot have. Choose an epoch's length with --data.items_per_epoch; each ends with a validation."
        )


def _finish(cli, out: Path, checkpoints, configs: list[str | Path], settings: list[str]) -> None:
    """Write `out/model` from the best weights, with where they come from."""
    import torch

    from avkit.callbacks import Speed

    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    speed = next(callback for callback in trainer.callbacks if isinstance(callback, Speed))
    device = trainer.strategy.root_device
    provenance = {
        "command": " ".join(["avkit train", *(f"--config {Path(name).stem}" for name in configs), *settings]),
        "seed": cli.config.seed_everything,
        "data": data_checksum(Path(data.root)),
        "minutes": round(speed.seconds / 60, 2),
        "examples": speed.examples,
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
        checkpoints.monitor: checkpoints.best if checkpoints.best_epoch >= 0 else None,
        "validation": _validation(out),
    }
    _write(out / "run.json", json.dumps(provenance, indent=2) + "\n")
    if checkpoints.best_path.exists():
        best = torch.load(checkpoints.best_path, map_location="cpu", weights_only=True)
        model.on_load_checkpoint(best)
        model.load_state_dict(best["state_dict"])
    model.save(out / "model", provenance)
    print(
        f"Wrote {out / 'model'} ({checkpoints.monitor} {checkpoints.best:.3f}, epoch {checkpoints.best_epoch}).",
        flush=True,
    )


def _validation(out: Path) -> dict[str, list]:
    """How each validation came out: quantity -> [step, value] pairs, so that one sees whether the curve was flat at the end."""
    from avkit.curves import read_curves

    try:
        curves = read_curves(out)
    except DataError:  # a run of another logger's
        return {}
    return {
        name: [[int(step), round(float(value), 3)] for step, value in zip(*curve, strict=True)]
        for name, curve in curves.items()
        if name.startswith("val_")
    }


def data_checksum(root: Path) -> str | None:
    """The checksum that a generated corpus carries in its corpus.json; None for any other corpus."""
    path = root / "corpus.json"
    return json.loads(path.read_text(encoding="utf-8")).get("checksum") if path.exists() else None
