"""Experiments of notebook 11: training runs started, watched, killed and gone on with; gradients and denormal numbers."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avkit.curves import read_curves
from avkit.data.cache import Cache
from avkit.data.corpus import Plan, make_corpus
from avkit.data.datamodule import training_rows
from avkit.data.datasets import ItemSettings, MixingSettings, open_split
from avkit.data.features import store_features
from avkit.errors import DataError, MissingPackageError
from avkit.lip_weights import load_lip_encoder
from avkit.lips import MEAN, STD, LipEncoder, LipTransform
from avkit.losses import negative_snr
from avkit.metrics import si_snr
from avkit.separation import separate
from avkit.signal import SAMPLE_RATE, frames_for
from avkit.teach.samples import Sample

NETWORK = "iianet-tiny"  # trained here: of the small networks the one whose step costs least on a CPU
LIPS = "rtfs-net-tiny"  # whose trained lip encoder serves, frozen
PLAN = Plan(seed=11, tr=160, cv=40, tt=0)  # the notebook's own corpus
FEATURES = "lips"  # name of the stored lip features, under features/ of that corpus
STEPS, BATCH = 320, 8  # of the five-minute run
# Two cycles instead of six and windows of 16 ms instead of 4, so a quarter of the frames: most examples for the time there is.
RUN_OVERRIDES = {"cycles": 2, "fusion_cycles": 2, "window": 256, "filters": 256}

# No dropout and two passes instead of six: a network whose training holds no chance but its data.
SHORT_OVERRIDES = {"cycles": 2, "fusion_cycles": 2, "dropout": 0.0, "drop_path": 0.0}
SHORT_STEPS = 24


# Folders and data -------------------------------------------------------------------------------------------------

_folders: list[tempfile.TemporaryDirectory] = []  # removed when the kernel ends


def workshop() -> Path:
    """A new folder for runs, which goes away with the kernel."""
    _folders.append(tempfile.TemporaryDirectory(prefix="avkit-11-"))
    return Path(_folders[-1].name)


def make_data(folder: Path, shipped: str, fast: bool) -> tuple[str, str]:
    """The corpus to train on, and a sentence on it: made here, or, for a short run and where eSpeak NG is missing, the four
    training mixtures that ship."""
    if fast:
        return shipped, "The quick version trains on the four mixtures that ship."
    try:
        info = make_corpus(folder / "talkers", PLAN, quiet=True)
    except MissingPackageError as missing:
        return shipped, f"{missing}\nUntil then the four training mixtures that ship have to do: expect little of them."
    store_features(folder / "talkers", load_lip_encoder(LIPS), FEATURES)
    words = f"{info['utterances']} utterances of {info['talkers']} synthetic talkers: {PLAN.tr} mixtures to train on"
    return str(folder / "talkers"), f"{words}, {PLAN.cv} with other voices to validate."


# Runs of the package's trainer ------------------------------------------------------------------------------------


def settings(root: str, steps: int, seed: int = 0) -> list[str]:
    """What the five-minute run changes of the configuration `iianet-tiny`: a lighter network and a short run, validated four times.

    Lip features that `make_data` has stored are used; a corpus without them has its frames read.
    """
    return [
        f"--data.root={root}",
        f"--model.lip_encoder={LIPS}",
        f"--model.overrides={_flow(RUN_OVERRIDES)}",
        f"--trainer.max_steps={steps}",
        f"--data.features={_stored(root) or 'null'}",
        f"--data.batch_size={BATCH}",
        f"--data.items_per_epoch={_items_per_epoch(steps)}",
        "--data.validation_items=80",
        "--trainer.log_every_n_steps=1",
        f"--model.warmup={min(40, steps // 4)}",
        "--model.average=0.99",
        f"--seed_everything={seed}",
    ]


def _stored(root: str) -> str | None:
    """The name of the lip features that `make_data` has stored there, if it has."""
    return FEATURES if (Path(root) / "features" / FEATURES).is_dir() else None


def _items_per_epoch(steps: int) -> int:
    return BATCH * -(-steps // 4)  # four epochs, each with a validation


def short_settings(root: str, weights: Path, steps: int = SHORT_STEPS) -> list[str]:
    """A run of few steps from given weights; batches of two items of 0.4 s."""
    return [
        f"--data.root={root}",
        f"--model.lip_encoder={LIPS}",
        f"--model.overrides={_flow(SHORT_OVERRIDES)}",
        f"--model.weights={weights}",
        f"--trainer.max_steps={steps}",
        f"--data.items_per_epoch={2 * steps}",
        "--data.batch_size=2",
        "--data.segment=0.4",
        "--data.validation_items=2",
        "--model.warmup=4",
        "--model.average=null",
    ]


def _flow(values: dict) -> str:
    """A dictionary as YAML on one line."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep what Lightning prints and remarks on out of the notebook; what is printed meanwhile can be read from the result."""
    printed = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    threads = torch.get_num_threads()
    silent = contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO())
    with silent[0], silent[1], warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield printed
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            torch.set_num_threads(threads)


def train(out: Path, changes: Sequence[str], every: int = 200) -> list[str]:
    """`avkit train --config iianet-tiny` in this process; returns the lines that it printed."""
    from avkit import training

    with quiet() as printed:
        training.train([NETWORK], out, list(changes), every=every)
    return printed.getvalue().splitlines()


def resolve(configs: Sequence[str], changes: Sequence[str]) -> dict:
    """Every setting of a command, as `avkit train --show` prints them."""
    import yaml

    from avkit import training

    with quiet():
        return yaml.safe_load(training.resolve(list(configs), list(changes)))


def start(out: Path, changes: Sequence[str], every: int = 200, here: bool = False) -> subprocess.Popen | None:
    """The same command as a process of its own; what it prints is kept in `OUT.log`.

    With `here` it is run in this process, to its end, which spares a short run the start of another; then None comes back.
    """
    if here:
        train(out, changes, every)
        return None
    command = [sys.executable, "-m", "avkit", "train", "--config", NETWORK, "--out", str(out), *changes]
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".log"), "ab") as log:
        return subprocess.Popen([*command, "--every", str(every)], stdout=log, stderr=subprocess.STDOUT)


def saved_step(out: Path) -> int:
    """The optimiser step of the run's last checkpoint; 0 where there is none yet."""
    path = out / "last.ckpt"
    if not path.exists():
        return 0
    return torch.load(path, map_location="cpu", weights_only=True)["global_step"]


def kill_after(process: subprocess.Popen, out: Path, step: int, seconds: float = 200.0) -> int:
    """SIGKILL as soon as the run has saved step `step`; returns the step that its last checkpoint holds.

    Raises DataError when the process ended by itself or did not get there in time.
    """
    end = time.monotonic() + seconds
    while saved_step(out) < step:
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            tail = "\n".join(log_of(out)[-5:])
            raise DataError(f"The run ended before it could be killed at step {step}. Its last lines:\n{tail}")
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise DataError(f"The run was through before the signal came (exit status {process.returncode}).")
    return saved_step(out)


def log_of(out: Path) -> list[str]:
    """The lines that a run of `start` has printed so far."""
    path = out.with_suffix(".log")
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def weights_of(out: Path) -> dict[str, Tensor]:
    """The network's weights in the run's last checkpoint."""
    state = torch.load(out / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}


def watch(process: subprocess.Popen | None, out: Path, draw: Callable, until: int | None = None, pause: float = 3.0) -> None:
    """Show `draw(curves)` again and again while a run goes on, as a curve that grows; stop at step `until`, if given. Without a
    process the run is over, and shown once.

    Raises DataError when the run fails.
    """
    from IPython.display import display

    handle, shown, step = None, -1, -1
    while True:
        over = process is None or process.poll() is not None
        with contextlib.suppress(DataError):
            curves = read_curves(out)
            step = max((int(steps[-1]) for steps, _ in curves.values()), default=-1)
            points = sum(len(steps) for steps, _ in curves.values())  # a validation adds some to a step that was there
            if points > shown:
                shown, picture = points, draw(curves)
                handle = display(picture, display_id=True) if handle is None else handle.update(picture) or handle
        if process is not None and process.returncode:
            raise DataError(f"The run failed (exit status {process.returncode}):\n" + "\n".join(log_of(out)[-8:]))
        if over or until is not None and step >= until:
            return
        time.sleep(pause)


# The loop by hand -------------------------------------------------------------------------------------------------


def encode(lips: LipEncoder, batch: dict[str, Tensor]) -> Tensor:
    """Lip features (B, 512, F) of a batch's first talkers, by a frozen encoder; features that the batch holds stay as they are."""
    if batch["lips"].dtype != torch.uint8:
        return batch["lips"][:, 0].float()
    with torch.no_grad():
        return lips(((batch["lips"][:, 0].float() / 255 - MEAN) / STD)[:, None])


def first_batches(root: str, steps: int, count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The first batches of the run that `settings` describes, as (mixture, lip features, targets)."""
    item = ItemSettings(segment=1.0, start="random", augment=True, features=_stored(root))
    items = _items_per_epoch(steps)
    split = Cache(open_split(root, "tr", item, seed=0, mixing=MixingSettings(items, same_talker=True)))
    order, lips = training_rows(seed=0, epoch=0, items=items, batch_size=BATCH, rank=0, world=1), load_lip_encoder(LIPS)
    batches = [split.batch(0, rows) for rows in order[:count]]
    return [(batch["mixture"], encode(lips, batch), batch["targets"]) for batch in batches]


def gradient_norms(network: nn.Module, batches: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[float]:
    """The length of the gradient of the loss for each (mixture, lips, targets), all weights taken as one vector; dropout is at
    work, as in training."""
    norms = []
    network.train()
    for mixture, lips, targets in batches:
        network.zero_grad()
        negative_snr(network(mixture, lips), targets).mean().backward()
        norms.append(float(nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])))
    network.zero_grad()
    return norms


@torch.no_grad()
def gain(network: nn.Module, sample: Sample) -> tuple[Tensor, float]:
    """Both voices of a sample (2, T), and the mean of their SI-SNRi in dB."""
    voices = separate(sample.mixture.expand(2, -1), sample.lips, model=network)[:, 0]
    before = si_snr(sample.mixture.expand(2, -1), sample.voices)
    return voices, float((si_snr(voices, sample.voices) - before).mean())


@torch.no_grad()
def validated(network: nn.Module, root: str, items: int = 16) -> tuple[float, float]:
    """A network on validation items: (mean SI-SNRi in dB, how loud its output is beside the mixture, as a ratio of root mean squares)."""
    split = open_split(root, "cv", ItemSettings(segment=1.0, features=_stored(root)), seed=0)
    lips, mode, gains, loudness = load_lip_encoder(LIPS), network.training, [], []
    network.eval()
    for index in range(min(items, len(split))):
        batch = {name: value[None] for name, value in split[0, index].items()}
        mixture, target = batch["mixture"], batch["targets"][:, 0]
        voice = network(mixture, encode(lips, batch))[:, 0]
        gains.append(float(si_snr(voice, target) - si_snr(mixture, target)))
        loudness.append(float(voice.norm() / mixture.norm()))
    network.train(mode)
    return sum(gains) / len(gains), sum(loudness) / len(loudness)


def volume_only(root: str, items: int = 40) -> tuple[float, float]:
    """The best that turning the mixture's volume can do on validation items: (factor, mean SNR in dB), one factor for all."""
    split = open_split(root, "cv", ItemSettings(segment=1.0), seed=0)
    rows = [split[0, index] for index in range(min(items, len(split)))]
    mixtures, voices = torch.stack([r["mixture"] for r in rows]), torch.stack([r["targets"][0] for r in rows])
    found = [(factor, float(-negative_snr(factor * mixtures, voices).mean())) for factor in torch.arange(0.1, 1.01, 0.05).tolist()]
    return max(found, key=lambda pair: pair[1])


def read_record(data: str) -> dict | None:
    """The record of the five-minute run with three seeds (`lesson11_record`), if it lies beside the data."""
    path = Path(data).parent / "results" / "five-minute-run" / "seeds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


# Denormal numbers -------------------------------------------------------------------------------------------------

SMALLEST = torch.finfo(torch.float32).tiny  # the smallest float32 that is not denormal


def count_denormals(x: Tensor) -> int:
    """How many entries are not 0 but smaller than a normal float32 can be; told from the bits, so that no setting of the
    processor hides them."""
    bits = x.detach().float().contiguous().view(torch.int32) & 0x7FFFFFFF
    return int(((bits > 0) & (bits < 0x00800000)).sum())


@dataclass(frozen=True)
class Fading:
    """A memory as it fades, block of steps by block: seconds per step and share of denormal entries at the block's end."""

    steps: list[int]  # at the end of each block
    seconds: list[float]
    denormal: list[float]


def fade(flush: bool, size: int = 30_000, decay: float = 0.9, blocks: int = 30, each: int = 50) -> Fading:
    """Multiply a state by `decay` over and over, as a recurrence does in silence, and time it.

    The fastest of three passes counts, in processor time where its clock is fine enough, so that other programs do not. The
    processor's setting is left as it was found.
    """
    found = Fading([each * (block + 1) for block in range(blocks)], [float("inf")] * blocks, [0.0] * blocks)
    fine = time.get_clock_info("thread_time").resolution < 1e-5
    clock = time.thread_time if fine else time.perf_counter
    before = _flushes()
    torch.set_flush_denormal(flush)
    for _ in range(3):
        state = torch.rand(size, generator=torch.Generator().manual_seed(0)) + 0.5
        for block in range(blocks):
            begin = clock()
            for _ in range(each):
                state.mul_(decay)
            found.seconds[block] = min(found.seconds[block], (clock() - begin) / each)
            found.denormal[block] = count_denormals(state) / size
    torch.set_flush_denormal(before)
    return found


@torch.no_grad()
def denormals_inside(network: nn.Module, sample: Sample, seconds: float = 2.0) -> dict[str, tuple[int, int]]:
    """Denormal numbers among all that a network's modules give out for so many seconds: what it hears -> (denormal, all of them)."""
    speech = sample.mixture[: round(seconds * SAMPLE_RATE)]
    half = speech.clone()
    half[len(half) // 4 :] = 0
    lips, counts = network.lips(LipTransform()(sample.lips[:1, : frames_for(len(speech))])), {}
    heard = {"speech": speech, "silence": torch.zeros_like(half), "speech that breaks off": half}
    found = [0, 0]

    def note(module, inputs, output) -> None:
        if isinstance(output, Tensor):
            found[0] += count_denormals(output)
            found[1] += output.numel()

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    before = _flushes()
    torch.set_flush_denormal(False)
    for what, sound in heard.items():
        found[:] = 0, 0
        network(sound[None], lips)
        counts[what] = found[0], found[1]
    torch.set_flush_denormal(before)
    for hook in hooks:
        hook.remove()
    return counts


def _flushes() -> bool:
    """Whether this thread makes denormal results zero at present."""
    return float(torch.tensor([SMALLEST]) * 0.5) == 0.0


# TensorBoard ------------------------------------------------------------------------------------------------------


def read_board(out: Path) -> tuple[dict[str, tuple[list[int], list[float]]], dict[str, list[bytes]]]:
    """What a run has written for TensorBoard: curves, name -> (steps, values), and sounds, name -> WAV files in order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    board = EventAccumulator(str(out / "tensorboard"), size_guidance={"audio": 0, "scalars": 0})
    board.Reload()
    tags = board.Tags()
    curves = {}
    for name in tags["scalars"]:
        events = board.Scalars(name)
        curves[name] = ([event.step for event in events], [event.value for event in events])
    return curves, {name: [event.encoded_audio_string for event in board.Audio(name)] for name in tags["audio"]}


def open_board(folder: Path) -> None:
    """TensorBoard in the notebook, reading every run below `folder`; its server ends with the kernel's machine."""
    from tensorboard import notebook

    notebook.start(f"--logdir {folder}")
