"""Experiments of notebook 10: a trained IIANet with meeting places switched off, lips that tell less, the official network's
recordings, and what a cycle costs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import ModuleType

import torch
from torch import Tensor, nn

from avkit import baselines
from avkit.complexity import Complexity, measure
from avkit.iianet import IIANet, InterATop
from avkit.metrics import si_snr_improvement
from avkit.registry import create_model
from avkit.signal import SAMPLE_RATE, frames_for
from avkit.teach.lesson09_lab import both_voices, correlation, gain, watch_lips
from avkit.teach.samples import Sample

# Lesions ------------------------------------------------------------------------------------------------------------

LESIONS = {  # what is switched off -> in words
    "inter_top": "InterA-T off: no exchange at the top",
    "top_to_sound": "InterA-T: nothing from lips to sound",
    "top_constant": "InterA-T: to the sound, always the same",
    "top_to_lips": "InterA-T: nothing from sound to lips",
    "inter_middle": "InterA-M off: the sound passes as it is",
    "middle_constant": "InterA-M: to the sound, always the same",
    "middle_finest": "InterA-M off at the finest scale alone",
    "middle_coarser": "InterA-M off at the four coarser scales",
    "inter_bottom": "InterA-B: a plain sum x + x₀",
    "x0": "InterA-B: x₀ is left out",
    "both": "InterA-T and InterA-M off",
}
OPENING = ("inter_top", "inter_middle", "inter_bottom")  # what A, B and C of the opening lack


@contextmanager
def without(model: IIANet, part: str) -> Iterator[None]:
    """While it lasts, one of `LESIONS` is switched off; "inter_top", "inter_middle" and "inter_bottom" put in what
    `avkit.ablations` would train with."""
    hooks = [module.register_forward_hook(give) for module, give in _changes(model.separation, part)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _changes(net: nn.Module, part: str) -> list[tuple[nn.Module, Callable]]:
    """Modules, and what each returns instead of its output: give(module, inputs, output)."""
    middle, bottoms = list(net.inter_middle), (net.audio_inter_bottom, net.video_inter_bottom)
    table = {
        "inter_top": [(net.inter_top, _deaf_top(sound=True, lips=True))],
        "top_to_sound": [(net.inter_top, _deaf_top(sound=True))],
        "top_to_lips": [(net.inter_top, _deaf_top(lips=True))],
        "top_constant": [(net.inter_top.audio_update, _held)],
        "inter_middle": [(unit, _first_input) for unit in middle],
        "middle_constant": [(unit.gate, _held) for unit in middle],
        "middle_finest": [(middle[0], _first_input)],
        "middle_coarser": [(unit, _first_input) for unit in middle[1:]],
        "inter_bottom": [(unit, lambda module, inputs, output: inputs[0] + inputs[1]) for unit in bottoms],
        "x0": [(unit, lambda module, inputs, output: module.weigh(inputs[0])) for unit in bottoms],
    }
    return table["inter_top"] + table["inter_middle"] if part == "both" else table[part]


def _first_input(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return inputs[0]


def _held(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """A message (talkers, channels, T) held at its mean over talkers and time: it tells neither of them from the other."""
    return output.mean(dim=(0, 2), keepdim=True).expand_as(output)


def _deaf_top(sound: bool = False, lips: bool = False) -> Callable:
    """InterA-T whose sound, or lips, get nothing from the other stream; each keeps its perceptron."""

    def give(top: InterATop, inputs: tuple, output: tuple) -> tuple | None:
        a, v = inputs
        if v is None:
            return None
        return top.audio_perceptron(a) if sound else output[0], top.video_perceptron(v) if lips else output[1]

    return give


def retrained(data: str | Path) -> dict | None:
    """The record of IIANet trained with InterA-M and without it, in results/ledger beside the corpus; None where it is not."""
    path = Path(data).resolve().parent / "results" / "ledger" / "trend.inter-middle.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def say_retrained(record: Mapping | None) -> str:
    """What that record says, or how to make one."""
    if record is None:
        return (
            "There is no record of the retrained ablation in data_samples/results/ledger. To make it: "
            "avkit reproduce trend.inter-middle"
        )
    with_it, without_it = (mean(pair[side] for pair in record["pairs"]) for side in ("first", "second"))
    told = (
        f"Trained anew, with InterA-M and without it, {record['examples']} examples each and {len(record['pairs'])} pairs of random "
        f"beginnings: {with_it:.1f} and {without_it:.1f} dB SI-SNRi ({record['note']})."
    )
    if without_it < 0.3:
        told += (
            " After so few examples the networks without it have not begun to separate at all: the difference tells how much sooner "
            "InterA-M lets a network learn, not how far apart the two would end."
        )
    return told


# What the lips turn up -----------------------------------------------------------------------------------------------


@torch.no_grad()
def factors(model: IIANet, sample: Sample, features: Tensor) -> list[list[Tensor]]:
    """InterA-M's factors, 1 + σ(W(v)), at the lips' rates: cycle -> scale -> (2, H, V / 2ⁱ)."""
    found: list[list[Tensor]] = [[] for _ in model.separation.inter_middle]

    def note(scale: int) -> Callable:
        return lambda module, inputs, output: found[scale].append(1 + torch.sigmoid(output))

    units = enumerate(model.separation.inter_middle)
    hooks = [unit.gate.register_forward_hook(note(scale)) for scale, unit in units]
    try:
        both_voices(model, sample, features)
    finally:
        for hook in hooks:
            hook.remove()
    return [list(cycle) for cycle in zip(*found, strict=True)]


def order_by_mouth(values: Tensor, mouth: Tensor) -> Tensor:
    """Channels of (H, V) by their correlation with a mouth's opening (V,), lowest first."""
    return correlation(values, mouth).argsort()


# Lips that tell less -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """A mixture and the lip features of both talkers, (2, 512, V), by a network's own encoder."""

    sample: Sample
    features: Tensor


def prepare(model: nn.Module, samples: Sequence[Sample]) -> list[Watched]:
    return [Watched(sample, watch_lips(model, sample.lips)) for sample in samples]


CONDITIONS = ("own", "still", "absent", "the other talker's", "a stranger's")


def lips_for(condition: str, model: nn.Module, mixtures: Sequence[Watched], index: int) -> Tensor:
    """Features (2, 512, V) to show with mixture number `index`; a stranger's are those of the next mixture's talkers."""
    mixed = mixtures[index]
    if condition == "still":
        return watch_lips(model, torch.stack([baselines.still(lips) for lips in mixed.sample.lips]))
    return {
        "own": mixed.features,
        "absent": torch.zeros_like(mixed.features),
        "the other talker's": mixed.features.flip(0),
        "a stranger's": mixtures[(index + 1) % len(mixtures)].features,
    }[condition]


def mean_gain(
    model: nn.Module, mixtures: Sequence[Watched], condition: str = "own", count: int | None = None
) -> float:
    """SI-SNRi in dB against the voices wanted, mean over voices and the first `count` mixtures (None: all of them)."""
    gains = [
        gain(both_voices(model, mixed.sample, lips_for(condition, model, mixtures, index)), mixed.sample)
        for index, mixed in enumerate(mixtures[:count])
    ]
    return sum(gains) / len(gains)


@torch.no_grad()
def gains_against_either(
    model: nn.Module, mixtures: Sequence[Watched], condition: str, count: int | None = None
) -> Tensor:
    """SI-SNRi in dB of each output against the voice wanted and against the other, (2, outputs)."""
    gains = []
    for index, mixed in enumerate(mixtures[:count]):
        outputs = both_voices(model, mixed.sample, lips_for(condition, model, mixtures, index))
        voices, mixture = mixed.sample.voices, mixed.sample.mixture.expand(2, -1)
        either = [si_snr_improvement(outputs, chosen, mixture) for chosen in (voices, voices.flip(0))]
        gains.append(torch.stack(either))
    return torch.cat(gains, dim=1)


def gain_and_sameness(model: nn.Module, mixtures: Sequence[Watched]) -> tuple[float, bool]:
    """`mean_gain` with the talkers' own lips; and whether, in every mixture, both talkers get the same output to the last bit."""
    voices = [both_voices(model, mixed.sample, mixed.features) for mixed in mixtures]
    gains = [gain(pair, mixed.sample) for pair, mixed in zip(voices, mixtures, strict=True)]
    return sum(gains) / len(gains), all(torch.equal(*pair) for pair in voices)


def late_gain(model: nn.Module, mixtures: Sequence[Watched], frames: int) -> float:
    """SI-SNRi in dB with lips that are late by so many frames, mean over voices and mixtures."""
    total = 0.0
    for mixed in mixtures:
        late = torch.stack([baselines.late(lips, frames) for lips in mixed.sample.lips])
        total += gain(both_voices(model, mixed.sample, watch_lips(model, late)), mixed.sample)
    return total / len(mixtures)


# The official network's recorded outputs ---------------------------------------------------------------------------

CYCLE = "cycle {}"


class _FarEnough(Exception):
    """Raised inside a network that need not run to its end."""


@torch.no_grad()
def trail(
    recordings: ModuleType, model: nn.Module, case: str = "odd", cycles: int | None = None
) -> dict[str, float]:
    """Relative error of an IIANet at each station of its way, against what was recorded of the official network.

    The model's modules bear the names of `avkit.iianet.IIANet`. With `cycles` it is stopped after so many of them, and the
    stations behind are left out.
    """
    recorded, net, seen = recordings.load(f"iianet_{case}"), model.separation, {}

    def note(name: str) -> Callable:
        def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            seen.setdefault(name, []).append((inputs[0], output))
            if name == "down" and len(seen[name]) == cycles:
                raise _FarEnough

        return keep

    watched = {
        "encoder": model.encoder,
        "bottleneck": model.bottleneck,
        "lip projection": model.lip_projection,
    }
    watched |= {"up": net.audio_bottom_up, "down": net.audio_top_down, "separation": net}
    hooks = [module.register_forward_hook(note(name)) for name, module in watched.items()]
    output = None
    try:
        output = model(*recordings.inputs(case, recorded["shapes"]))
    except _FarEnough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    given = zip(seen["up"], seen["down"], strict=True)
    ours = {name: seen[name][0][1] for name in ("encoder", "bottleneck", "lip projection")}
    ours |= {CYCLE.format(number): down + up for number, ((up, _), (_, down)) in enumerate(given, 1)}
    if output is not None:
        ours |= {"separation": seen["separation"][0][1]}
    theirs = {
        "encoder": "encoder@0",
        "bottleneck": "bottleneck@0",
        "lip projection": "pre_v@0",
        "separation": "sm@0",
    }
    errors = {
        name: recordings.relative_error(
            recordings.record(value),
            recorded[theirs.get(name) or f"sm.audio_blocks.1@{int(name.split()[1]) - 1}"],
        )
        for name, value in ours.items()
    }
    return errors if output is None else errors | {"output": recordings.relative_error(output, recorded["output"])}


# What things cost ----------------------------------------------------------------------------------------------------


def count(name: str, seconds: float, depth: int = 1, **changes: int) -> Complexity:
    """`avkit.complexity.measure` of a preset with some settings changed, without numbers in it: nothing is computed."""
    with torch.device("meta"):
        model = create_model(name, fast=False, **changes)
    return measure(model, seconds, depth)


def cycle_macs(name: str, seconds: float = 2.0) -> dict[str, float]:
    """G MACs of what runs once, of a cycle with lips, and of a cycle of the sound alone, by counting three networks."""
    one, two, longer = (
        count(name, seconds, cycles=cycles, fusion_cycles=fusion).macs / 1e9
        for cycles, fusion in ((1, 1), (2, 2), (2, 1))
    )
    return {"once": 2 * one - two, "a cycle with lips": two - one, "a cycle of the sound alone": longer - one}


PARTS = {  # boxes of the dataflow figure, sound and lips taken together
    "InterA-B": ("audio_inter_bottom", "video_inter_bottom"),
    "bottom-up": ("audio_bottom_up", "video_bottom_up"),
    "InterA-T": ("inter_top",),
    "IntraA": ("audio_intra", "video_intra"),
    "InterA-M": ("inter_middle",),
    "top-down": ("audio_top_down", "video_top_down"),
}


def part_costs(name: str, seconds: float = 2.0) -> dict[str, tuple[int, float]]:
    """Parameters, and G MACs in one cycle with lips, of each of `PARTS`."""
    rows = {row.module: row for row in count(name, seconds, depth=2, cycles=2, fusion_cycles=2).rows}
    calls = {"InterA-B": 1}  # not in the first cycle; all others run twice
    return {
        part: (
            sum(rows[f"separation.{module}"].params for module in modules),
            sum(rows[f"separation.{module}"].macs for module in modules) / 1e9 / calls.get(part, 2),
        )
        for part, modules in PARTS.items()
    }


@dataclass(frozen=True)
class Runtime:
    """What a network needs for some seconds of sound on this machine: processor seconds of a forward pass (the second of two),
    and the peak of what it allocates beyond weights and inputs, in MB."""

    params: int
    macs: int
    seconds: float
    megabytes: float


@torch.no_grad()
def runtime(name: str, seconds: float = 2.0) -> Runtime:
    """Count, time and weigh a network with random weights; neither weights nor sound change any of it."""
    model, samples = create_model(name).eval(), round(seconds * SAMPLE_RATE)
    inputs = torch.randn(1, samples), torch.randn(1, model.config.lip_channels, frames_for(samples))
    model(*inputs)
    start = time.process_time()
    model(*inputs)
    spent = time.process_time() - start
    with _quiet():
        counted = measure(model, seconds, memory=True)
    return Runtime(counted.params, counted.macs, spent, counted.peak_memory / 1e6)


@contextmanager
def _quiet() -> Iterator[None]:
    """While it lasts, what compiled code writes to the terminal (PyTorch's profiler says when it starts) is dropped."""
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    with open(os.devnull, "w") as nowhere:
        try:
            for stream in kept:
                os.dup2(nowhere.fileno(), stream)
            yield
        finally:
            for stream, copy in kept.items():
                os.dup2(copy, stream)
                os.close(copy)
