"""Experiments of notebook 09 inside a trained IIANet: what its scales hold, what its gates do, how far a change travels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avkit.iianet import IIANet, IIANetConfig
from avkit.layers import InjectionSum, pool_to, upsample
from avkit.rtfs import RTFSNetConfig
from avkit.signal import SAMPLE_RATE
from avkit.teach.lesson06_lab import correlation
from avkit.teach.lesson08_lab import count_by_hand
from avkit.teach.samples import Sample
from avkit.teach.trained import both_voices, gain, watch_lips  # noqa: F401  (for the notebook)

# Watching -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cycles:
    """One mixture on its way through a trained IIANet, in a batch of two: once with each talker's lips.

    Attributes:
        sample: the mixture and its voices.
        s: the encoder's output, (2, filters, T).
        a0, v0: what the separation is given, (2, C, T) and (2, D, V).
        sound: what each cycle returns of the sound, (2, C, T) each.
        levels, lip_levels: of each cycle, the scales after bottom-up, finest first; those of the lips only where they take part.
        gates: of each cycle, IntraA's gates in the sound by level, each (2, H, T / 2ⁱ) between 0 and 1.
    """

    sample: Sample
    s: Tensor
    a0: Tensor
    v0: Tensor
    sound: tuple[Tensor, ...]
    levels: tuple[list[Tensor], ...]
    lip_levels: tuple[list[Tensor], ...]
    gates: tuple[list[Tensor], ...]


@torch.no_grad()
def watch(model: IIANet, sample: Sample, features: Tensor | None = None) -> Cycles:
    """Separate both talkers of a sample and keep what flows through the cycles; `features` as for `both_voices`."""
    net, seen = model.separation, {}
    watched = {"s": model.encoder, "a0": model.bottleneck, "v0": model.lip_projection}
    watched |= {"up": net.audio_bottom_up, "lips_up": net.video_bottom_up, "down": net.audio_top_down}
    watched |= {f"gate{level}": intra.gate for level, intra in enumerate(net.audio_intra)}

    def note(name: str) -> Callable:
        return lambda module, inputs, output: seen.setdefault(name, []).append((inputs[0], output))

    hooks = [module.register_forward_hook(note(name)) for name, module in watched.items()]
    try:
        both_voices(model, sample, features)
    finally:
        _remove(hooks)
    cycles = range(model.config.cycles)
    pairs = zip(seen["up"], seen["down"], strict=True)
    return Cycles(
        sample=sample,
        s=seen["s"][0][1],
        a0=seen["a0"][0][1],
        v0=seen["v0"][0][1],
        sound=tuple(down + given for (given, _), (_, down) in pairs),
        levels=tuple(levels for _, (levels, _) in seen["up"]),
        lip_levels=tuple(levels for _, (levels, _) in seen["lips_up"]),
        gates=tuple(
            [torch.sigmoid(seen[f"gate{level}"][cycle][1]) for level in range(model.config.levels)]
            for cycle in cycles
        ),
    )


def _remove(hooks: Iterable) -> None:
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def read_out(model: IIANet, seen: Cycles, a: Tensor) -> Tensor:
    """The sound after some cycle (2, C, T), through mask and decoder as if it were the last -> (2, L)."""
    mask = model.mask(a).unflatten(1, (model.config.n_src, -1))
    return model.decoder(mask * seen.s[:, None], len(seen.sample.mixture))[:, 0]


# How far a change travels ------------------------------------------------------------------------------------------


@torch.no_grad()
def reach(model: IIANet, seen: Cycles, frames: Sequence[int]) -> Tensor:
    """By how much what a cycle returns changes when one frame of a₀ is exchanged, by distance from that frame.

    Each of `frames` in turn is replaced by the one a third of the clip away; the change of every frame of the sound
    after each cycle is measured (2-norm over channels).

    Returns:
        (cycles, T): mean over `frames`, both sides and both talkers, divided by the change at distance 0; NaN at distances
        that never occur.
    """
    count = seen.a0.shape[2]
    total, times = torch.zeros(model.config.cycles, count), torch.zeros(count)
    for frame in frames:
        a0 = seen.a0.clone()
        a0[:, :, frame] = seen.a0[:, :, (frame + count // 3) % count]
        after = _cycle_outputs(model, a0, seen.v0)
        change = torch.stack(
            [(x - y).norm(dim=1).mean(dim=0) for x, y in zip(after, seen.sound, strict=True)]
        )
        distance = (torch.arange(count) - frame).abs()
        total.index_add_(1, distance, change)
        times.index_add_(0, distance, torch.ones(count))
    curves = total / times
    return curves / curves[:, :1]


@torch.no_grad()
def spread(model: IIANet, seen: Cycles, frames: Sequence[int], span: int = 80) -> dict[str, Tensor]:
    """How the finest scale of the first cycle changes around a frame of a₀ that is exchanged, before and after IntraA.

    Returns:
        what -> (2·span + 1,), by distance −span … span in frames, relative to the mean norm of a frame.
    """
    count, curves = seen.a0.shape[2], {"before IntraA": 0, "after IntraA": 0}
    untouched = _finest_scale(model, seen.a0, seen.v0)
    for frame in frames:
        a0 = seen.a0.clone()
        a0[:, :, frame] = seen.a0[:, :, (frame + count // 3) % count]
        for name, x, y in zip(curves, _finest_scale(model, a0, seen.v0), untouched, strict=True):
            change = (x - y).norm(dim=1).mean(dim=0) / y.norm(dim=1).mean()
            curves[name] = curves[name] + change[frame - span : frame + span + 1] / len(frames)
    return curves


def _finest_scale(model: IIANet, a0: Tensor, v0: Tensor) -> tuple[Tensor, Tensor]:
    """The sound's finest scale in the first cycle, (B, H, T), before and after its IntraA."""
    net = model.separation
    levels, top = net.audio_bottom_up(a0)
    top, _ = net.inter_top(top, net.video_bottom_up(v0)[1])
    return levels[0], net.audio_intra[0](levels[0], upsample(top, levels[0]))


def _cycle_outputs(model: IIANet, a0: Tensor, v0: Tensor) -> list[Tensor]:
    """The sound after each cycle, (B, C, T) each."""
    net, outputs = model.separation, []
    a, v = net.fusion_cycle(a0, v0)
    outputs.append(a)
    for _ in range(net.fusion_cycles - 1):
        a, v = net.fusion_cycle(net.audio_inter_bottom(a, a0), net.video_inter_bottom(v, v0))
        outputs.append(a)
    for _ in range(net.audio_cycles):
        a = net.audio_cycle(net.audio_inter_bottom(a, a0))
        outputs.append(a)
    return outputs


def width(curve: Tensor, share: float = 0.01) -> int:
    """Frames to either side at which a curve of `reach` is still above `share`, counted."""
    return int((curve[1 : len(curve) // 2] > share).sum())


# What gates follow -------------------------------------------------------------------------------------------------


def lead(voices: Tensor, frames: int) -> Tensor:
    """By how many decibels each of two voices is above the other in each of so many frames, (2, frames), −30 … 30."""
    power = pool_to(voices.square()[:, None], voices.new_empty(1, 1, frames))[:, 0] + 1e-7
    levels = 10 * power.log10()
    return (levels - levels.flip(0)).clamp(-30, 30)


def follow(seen: Iterable[Cycles]) -> tuple[Tensor, Tensor]:
    """How IntraA's gates move with who speaks: correlation with the watched talker's lead, cycle by cycle.

    A gate that knows nothing of the lips has the same course whoever is watched, while the lead turns its sign: over both
    talkers its mean correlation is exactly 0.

    Returns:
        (cycles,) and (cycles, levels): |mean correlation| over talkers and mixtures, mean over the channels of all levels and
        of each level.
    """
    total, count = 0, 0
    for cycles in seen:
        ahead = lead(cycles.sample.voices, cycles.levels[0][-1].shape[2])[:, None]  # (2, 1, T')
        moves = [
            torch.stack([correlation(pool_to(gate, ahead), ahead).mean(dim=0) for gate in gates])
            for gates in cycles.gates
        ]
        total, count = total + torch.stack(moves), count + 1  # (cycles, levels, H)
    strength = (total / count).abs().mean(dim=2)
    return strength.mean(dim=1), strength


# Lesions ------------------------------------------------------------------------------------------------------------

PARTS = {  # what is switched off -> in words
    "gates": "gates stay at ½",
    "shifts": "shifts are 0",
    "steady": "shifts stay at their mean",
    "intra": "IntraA: each scale stays as it is",
    "merges": "the way down: the finest scale alone",
}


@contextmanager
def without(model: IIANet, part: str) -> Iterator[None]:
    """While it lasts, one of `PARTS` is switched off in the sound's stream: in IntraA at every scale, or on the way down.

    "steady" holds each channel's shift at its mean over time and both talkers.
    """
    net = model.separation
    units: Sequence[InjectionSum] = list(net.audio_intra)
    if part == "gates":
        hooks = [
            unit.gate.register_forward_hook(lambda m, inputs, output: torch.zeros_like(output))
            for unit in units
        ]
    elif part == "shifts":
        hooks = [
            unit.embedding.register_forward_hook(lambda m, inputs, output: torch.zeros_like(output))
            for unit in units
        ]
    elif part == "steady":
        hooks = [unit.embedding.register_forward_hook(_held) for unit in units]
    elif part == "intra":
        hooks = [_passing(unit) for unit in units]
    else:
        hooks = [_passing(unit) for unit in net.audio_top_down.merge]
    try:
        yield
    finally:
        _remove(hooks)


def _held(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output.mean(dim=(0, 2), keepdim=True).expand_as(output)


def _passing(unit: nn.Module):
    """From now on a unit returns its first input, the fine one."""
    return unit.register_forward_hook(lambda module, inputs, output: inputs[0])


# The learned filters -----------------------------------------------------------------------------------------------


def responses(filters: Tensor, bins: int = 128) -> tuple[Tensor, Tensor]:
    """Filters (N, window) -> their peak frequencies in kHz, rising, (N,), and magnitudes (N, bins), each with peak 1."""
    spectrum = torch.fft.rfft(filters, n=2 * bins - 2).abs()
    spectrum = spectrum / spectrum.amax(dim=1, keepdim=True)
    peaks, order = (spectrum.argmax(dim=1) * SAMPLE_RATE / 1000 / (2 * bins - 2)).sort()
    return peaks, spectrum[order]


# Counting by hand --------------------------------------------------------------------------------------------------


def frames_of(config: IIANetConfig, samples: int) -> int:
    """Frames that IIANet's encoder makes of so many samples."""
    hop = config.window // 4
    rest = config.window - (hop + samples) % config.window
    return (samples + rest + 2 * (config.window - hop)) // hop + 1


def sizes(count: int, levels: int) -> list[int]:
    """Positions at each scale of a stream, finest first: each has half as many as the one before, rounded up."""
    found = [count]
    for _ in range(levels - 1):
        found.append(math.ceil(found[-1] / 2))
    return found


def intra_macs(config: IIANetConfig, seconds: float) -> int:
    """MACs of IntraA at all scales of the sound in one cycle: three depthwise convolutions of one tap at each."""
    frames = sizes(frames_of(config, round(seconds * SAMPLE_RATE)), config.levels)
    return 3 * config.hidden * sum(frames)


def attention_macs(seconds: float) -> int:
    """MACs of RTFS-Net-4's attention in one pass of its block, by notebook 08's formula."""
    config = RTFSNetConfig()
    return count_by_hand(config, seconds)["rtfs_block.attention"] // config.repeats
