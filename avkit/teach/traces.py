"""Shapes that flow through a network, taken from the network itself while it runs, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from avkit.registry import create_model, find_preset
from avkit.rtfs import RTFSNetConfig
from avkit.signal import SAMPLE_RATE, frames_for

SECONDS = 2.0  # of sound that the printed shapes are for, as in RTFS-Net's tables


@lru_cache(maxsize=8)
def trace(name: str = "rtfs-net-4", seconds: float = SECONDS) -> dict[str, list[tuple[int, ...]]]:
    """The shapes, without the batch, of all tensors that each module of a network gives out.

    The network runs once on noise, with one repeat (one cycle): the others have the same shapes.

    Returns:
        Name of a module -> shapes, in the order in which it returns them; of a module called more than once, those of
        the first call. "mixture" and "lips" are the network's inputs, "" its output.
    """
    config = find_preset(name).config
    once = {"repeats": 1} if isinstance(config, RTFSNetConfig) else {"cycles": 1, "fusion_cycles": 1}
    samples = round(seconds * SAMPLE_RATE)
    with torch.random.fork_rng():  # a figure leaves the caller's random numbers alone
        model = create_model(name, **once).eval()
        mixture, lips = torch.randn(1, samples), torch.randn(1, config.lip_channels, frames_for(samples))
    found = {"mixture": [tuple(mixture.shape[1:])], "lips": [tuple(lips.shape[1:])]}

    def note(module_name: str):
        def hook(module, inputs, output) -> None:
            found.setdefault(module_name, [tuple(tensor.shape[1:]) for tensor in _tensors(output)])

        return hook

    for module_name, module in model.named_modules():
        module.register_forward_hook(note(module_name))
    with torch.no_grad():
        model(mixture, lips)
    return found


def _tensors(output) -> list[Tensor]:
    """The tensors of what a module returned, nested ones included, in their order."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output or () for tensor in _tensors(part)]


def written(shape: Iterable[int]) -> str:
    """(256, 251, 129) -> 256×251×129."""
    return "×".join(f"{size:,}" for size in shape)


def spoken(lit: tuple[str, ...]) -> str:
    return f"Highlighted: {', '.join(lit)}." if lit else "No block is highlighted."


def stacked(shape: tuple[int, ...]) -> str:
    """A shape for a short arrow: where it has three numbers, channels on a line of their own."""
    return written(shape) if len(shape) < 3 else f"{shape[0]:,}×\n{written(shape[1:])}"


def legend(name: str, axes: str) -> str:
    return f"{name}, {SECONDS:g} s of sound:\n{axes}"
