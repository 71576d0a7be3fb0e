"""Inside a trained RTFS-Net: what its one block is given and what it gives back, pass after pass.

Hooks on the network's modules note what flows there while it separates a mixture; nothing of the network is written
again here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avkit.metrics import si_snr
from avkit.rtfs import RTFSNet
from avkit.separation import separate
from avkit.teach.samples import Sample


@dataclass(frozen=True)
class Passes:
    """One mixture on its way through a trained network, in a batch of two: once with each talker's lips.

    Attributes:
        mixture, voices: (2, L), the same mixture twice, and the voice wanted with each pair of lips.
        encoded: E, (2, C, T, F).
        start: a₀, (2, C, T, F).
        lips: (2, 512, V), the lip features.
        features: one (2, C, T, F) for each pass; the first has been through CAF, the last is what S³ is given.
        to_scan, to_attention: one (2, D, T', F') for each pass, the input of the scan along time and of the attention.
    """

    mixture: Tensor
    voices: Tensor
    encoded: Tensor
    start: Tensor
    lips: Tensor
    features: tuple[Tensor, ...]
    to_scan: tuple[Tensor, ...]
    to_attention: tuple[Tensor, ...]


def watch(model: RTFSNet, sample: Sample) -> Passes:
    """Separate both talkers of a sample and keep what the block saw and gave."""
    block = model.rtfs_block
    watched = {
        "encoded": model.encoder,
        "start": model.bottleneck,
        "lips": model.visual_block,
        "fused": model.caf,
        "block": block,
        "scan": block.scan_time,
        "attention": block.attention,
    }
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in watched}

    def note(name: str) -> Callable:
        return lambda module, inputs, output: seen[name].append((inputs[0], output))

    hooks = [module.register_forward_hook(note(name)) for name, module in watched.items()]
    mixture = sample.mixture.expand(2, -1)
    try:
        separate(mixture, sample.lips, model=model)
    finally:
        for hook in hooks:
            hook.remove()
    (_, encoded), (_, start), (lips, _) = (seen[name][0] for name in ("encoded", "start", "lips"))
    features = (seen["fused"][0][1], *(output for _, output in seen["block"][1:]))
    to_scan, to_attention = (tuple(given for given, _ in seen[name]) for name in ("scan", "attention"))
    return Passes(mixture, sample.voices, encoded, start, lips, features, to_scan, to_attention)


@torch.no_grad()
def read_out(model: RTFSNet, seen: Passes, features: Tensor) -> Tensor:
    """Features (2, C, T, F) through S³ and decoder, whichever pass they come from -> (2, L)."""
    return model.decoder(model.s3(features, seen.encoded), seen.mixture.shape[-1])[:, 0]


def _gains(model: RTFSNet, seen: Passes, features: Tensor, voices: Tensor) -> Tensor:
    return si_snr(read_out(model, seen, features), voices) - si_snr(seen.mixture, voices)


def gain(model: RTFSNet, seen: Passes, features: Tensor, of_other: bool = False) -> float:
    """SI-SNRi in dB of what S³ and decoder make of these features, mean of both talkers.

    With `of_other` it is measured against the voice that was not wanted.
    """
    return float(_gains(model, seen, features, seen.voices.flip(0) if of_other else seen.voices).mean())


def shares(model: RTFSNet, seen: Passes, features: Tensor) -> Tensor:
    """What the energy of the outputs is made of: the wanted voice, the other one, neither; (3,), mean of both talkers.

    The wanted voice gets what it explains by itself, the other what it explains besides (Vincent and others, 2006,
    Performance measurement in blind audio source separation, without their filters). The three sum to 1.
    """
    output, wanted = (x - x.mean(dim=1, keepdim=True) for x in (read_out(model, seen, features), seen.voices))
    other = wanted.flip(0)
    other = other - _along(other, wanted)
    parts = torch.stack([_along(output, wanted), _along(output, other)])  # at right angles
    energy = parts.square().sum(dim=2) / output.square().sum(dim=1)  # (2, 2)
    return torch.stack([*energy, 1 - energy.sum(dim=0)]).mean(dim=1)


def _along(x: Tensor, direction: Tensor) -> Tensor:
    """The multiples of `direction` that come nearest to `x`, row by row, (N, L)."""
    return (x * direction).sum(1, keepdim=True) / direction.square().sum(1, keepdim=True) * direction


@torch.no_grad()
def run_again(model: RTFSNet, seen: Passes) -> Tensor:
    """All passes again from a₀ and the lips, with whatever has been changed in the network -> (2, C, T, F)."""
    return model.separate_features(seen.start, seen.lips)


@torch.no_grad()
def go_on(model: RTFSNet, seen: Passes, more: int) -> list[Tensor]:
    """`more` passes after the last one that the network was trained with: as many (2, C, T, F)."""
    a, further = seen.features[-1], []
    for _ in range(more):
        a = model.rtfs_block(a + seen.start)
        further.append(a)
    return further


@contextmanager
def changed(modules: Iterable[nn.Module], give: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """While it lasts, each of these modules returns `give(its input, its output)` instead of its output."""
    hooks = [m.register_forward_hook(lambda _, inputs, output: give(inputs[0], output)) for m in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def reach(module: nn.Module, x: Tensor, frames: Iterable[int]) -> Tensor:
    """How far along time a change travels through a module.

    Each of `frames` in turn is replaced by the frame a third of the recording away; the change of every output frame
    is measured (2-norm over channels and frequencies) and divided by that of the replaced frame itself.

    Args:
        x: (B, D, T, F), the module's input.

    Returns:
        (T,): the mean over `frames` and the batch, by distance in frames; NaN at distances that never occur.
    """
    count = x.shape[2]
    before, total, times = module(x), torch.zeros(count), torch.zeros(count)
    for frame in frames:
        other = x.clone()
        other[:, :, frame] = x[:, :, (frame + count // 3) % count]
        change = (module(other) - before).norm(dim=(1, 3))  # (B, T)
        change = (change / change[:, frame, None]).mean(dim=0)
        distance = (torch.arange(count) - frame).abs()
        total.index_add_(0, distance, change)
        times.index_add_(0, distance, torch.ones(count))
    return total / times


def fit_translation(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The linear map that turns features into others of the same place best, in the sense of least squares.

    Args:
        pairs: (features, wanted features), both (B, C, T, F).

    Returns:
        (C + 1, C), for `translate`; the last row is the constant.
    """
    squares = products = 0
    for given, wanted in pairs:
        x, y = _with_one(given).flatten(0, 2).double(), wanted.movedim(1, 3).flatten(0, 2).double()
        squares, products = squares + x.T @ x, products + x.T @ y
    ridge = 1e-8 * squares.diagonal().mean() * torch.eye(len(squares), dtype=torch.float64)
    return torch.linalg.solve(squares + ridge, products).float()


def translate(features: Tensor, matrix: Tensor) -> Tensor:
    """(B, C, T, F) and a map from `fit_translation` -> (B, C, T, F)."""
    return (_with_one(features) @ matrix).movedim(3, 1)


def _with_one(features: Tensor) -> Tensor:
    """(B, C, T, F) -> (B, T, F, C + 1), the last entry being 1."""
    last = features.movedim(1, 3)
    return torch.cat((last, torch.ones_like(last[..., :1])), dim=3)
