"""What a network costs: parameters, multiply–accumulates (MACs), time and memory, with a row per module.

How MACs are counted here: half of the floating-point operations that PyTorch's `FlopCounterMode` sees in the readable
form, that is every matrix product and convolution, recurrent ones (SRU's x·W) and attention's two products included;
elementwise work (norms, gates, activations, the STFT) is not counted. The papers count with other tools and over other
lengths: RTFS-Net's table is for 2 s, IIANet's for 1 s (IIANet, table 2), so figures compare only at one length and
with one counter.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avkit.errors import InputError
from avkit.fast import readable, readable_kind
from avkit.layers import ChannelScale, DepthwiseConv1d
from avkit.signal import SAMPLE_RATE, frames_for


@dataclass(frozen=True)
class Row:
    """One module: its parameters (itself and what it holds) and the MACs of all its calls."""

    module: str
    params: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """What `measure` found."""

    params: int
    macs: int
    seconds: float  # length of the mixture measured
    rows: list[Row] = field(repr=False)
    latency: float | None = None  # median seconds of a forward pass, where asked for
    peak_memory: int | None = None  # bytes allocated beyond the weights at the peak, where asked for

    def table(self) -> str:
        """The rows as aligned text."""
        width = max(len(row.module) for row in self.rows)
        lines = [f"{'module':<{width}}  {'parameters':>11}  {'MACs, G':>9}"]
        lines += [f"{row.module:<{width}}  {row.params:>11,}  {row.macs / 1e9:>9.3f}" for row in self.rows]
        return "\n".join(lines)


def measure(
    model: nn.Module, seconds: float = 2.0, depth: int = 2, latency: bool = False, memory: bool = False
) -> Complexity:
    """Count parameters and MACs of one mixture, and if asked its latency and peak memory.

    Args:
        model: an RTFS-Net or IIANet; it is run in eval mode on random input where it lies.
        seconds: length of the mixture.
        depth: how many levels of modules the table shows.
        latency: time five forward passes after a warm-up.
        memory: measure the peak of allocations during a forward pass.
    """
    if seconds <= 0:
        raise InputError(f"seconds is {seconds}; wanted a positive length")
    parameter = next(model.parameters())
    samples = round(seconds * SAMPLE_RATE)
    mixture = torch.randn(1, samples, device=parameter.device, dtype=parameter.dtype)
    lips = torch.randn(1, model.config.lip_channels, frames_for(samples)).to(mixture)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            counter, scalings = FlopCounterMode(display=False, depth=depth), _Scalings(model)
            with readable(model), counter, scalings:  # the counter knows PyTorch's operations, not compiled ones
                model(mixture, lips)
            timing = _time(model, mixture, lips) if latency else None
            peak = _peak_memory(model, mixture, lips) if memory else None
    finally:
        model.train(training)
    total = counter.get_total_flops() // 2 + scalings.under("")
    counts = {name: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items()}
    root = readable_kind(model).__name__
    rows = [
        Row(name, count_parameters(module), _counted(f"{root}.{name}", module, counts) + scalings.under(name))
        for name, module in model.named_modules()
        if name and name.count(".") < depth
    ]
    return Complexity(count_parameters(model), total, seconds, rows, timing, peak)


def _counted(name: str, module: nn.Module, counts: dict[str, int]) -> int:
    """What the counter has for a module; a list of modules, never called itself, has what its modules have."""
    if name in counts:
        return counts[name]
    return sum(_counted(f"{name}.{child}", held, counts) for child, held in module.named_children())


class _Scalings:
    """MACs of depthwise convolutions that are computed as plain products, which PyTorch's counter does not see."""

    def __init__(self, model: nn.Module):
        self.modules = {
            name: m for name, m in model.named_modules() if isinstance(m, (ChannelScale, DepthwiseConv1d))
        }
        self.macs = dict.fromkeys(self.modules, 0)

    def __enter__(self) -> None:
        self.handles = [m.register_forward_hook(self._counter(name)) for name, m in self.modules.items()]

    def __exit__(self, *error) -> None:
        for handle in self.handles:
            handle.remove()

    def _counter(self, name: str):
        def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            if isinstance(module, ChannelScale) or module.by_taps(inputs[0]):
                self.macs[name] += output.numel() * module.weight[0].numel()

        return count

    def under(self, module: str) -> int:
        """MACs of a module and what it holds; "" is the whole network."""
        return sum(n for name, n in self.macs.items() if not module or f"{name}.".startswith(f"{module}."))


def count_parameters(module: nn.Module) -> int:
    """Learnable numbers of a module; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _time(model: nn.Module, *inputs: torch.Tensor, repeats: int = 5) -> float:
    durations = []
    for _ in range(repeats + 1):
        _synchronise(inputs[0])
        start = time.perf_counter()
        model(*inputs)
        _synchronise(inputs[0])
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])


def _synchronise(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _peak_memory(model: nn.Module, *inputs: torch.Tensor) -> int:
    if inputs[0].is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model(*inputs)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        model(*inputs)
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak
