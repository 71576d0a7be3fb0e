"""Experiments of notebook 08: RTFS-Net counted by hand, compared with recordings of the official network, timed, and cut."""

from __future__ import annotations

import importlib.util
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from avkit.rtfs import RTFSNet, RTFSNetConfig
from avkit.signal import FRAME_RATE, SAMPLE_RATE, frames_for
from avkit.teach.trained import both_voices, gain, watch_lips  # noqa: F401  (for the notebook)

# Counting by hand -------------------------------------------------------------------------------------------------


def scan_macs(length: int, lines: int, channels: int, window: int, hidden: int, layers: int) -> int:
    """MACs of a dual-path scan along an axis of `length` positions, on `lines` lines."""
    steps, both = length - window + 1, 2 * hidden
    first = channels * window * both * 4
    others = (layers - 1) * both * both * 3
    fold = both * channels * window
    return steps * lines * (first + others + fold)


def count_by_hand(
    config: RTFSNetConfig, seconds: float = 2.0, scan: Callable[..., int] = scan_macs
) -> dict[str, int]:
    """MACs of an RTFS-Net by formula, for each part; those of the RTFS block are for all R passes.

    Counted as `avkit.complexity.measure` counts: products of matrices and convolutions, nothing elementwise.

    Args:
        scan: counts a dual-path scan, as `scan_macs`.
    """
    samples = round(seconds * SAMPLE_RATE)
    frames, freqs = 1 + samples // config.hop, config.n_fft // 2 + 1
    c, d, points = config.channels, config.hidden, frames * freqs
    sizes = [(frames >> level, freqs >> level) for level in range(config.levels)]
    t, f = sizes[-1]
    width, e, heads = d // config.attention_heads, config.attention_dim, config.attention_heads
    shape = d, config.window, config.rnn_hidden, config.rnn_layers
    block = {
        "gateway": points * c,
        "projection": points * c * d,
        "compression": sum(a * b for a, b in sizes) * d * 16,
        "scan_frequency": scan(f, t, *shape),
        "scan_time": scan(t, f, *shape),
        "attention": t * f * d * (heads * (2 * e + width) + d) + heads * t * t * f * (e + width),
        "reconstruction": _restore_macs([a * b for a, b in sizes], d, taps=16),
        "expansion": points * d * c,
    }
    once = {
        "encoder": points * 2 * c * 9,
        "bottleneck": points * c * c,
        "visual_block": _visual_macs(config, frames_for(samples)),
        "caf": 2 * points * c + frames_for(samples) * (config.fusion_heads + 1) * config.lip_channels,
        "s3": points * c * c * config.n_src,
        "decoder": points * 2 * c * 9 * config.n_src,
    }
    return once | {f"rtfs_block.{name}": config.repeats * macs for name, macs in block.items()}


def _restore_macs(sizes: list[int], channels: int, taps: int) -> int:
    """Three depthwise convolutions in each injection sum: one at the finer size, two at the coarser."""
    into_levels = sum(size + 2 * sizes[-1] for size in sizes)
    merges = sum(fine + 2 * coarse for fine, coarse in itertools.pairwise(sizes))
    return (into_levels + merges) * channels * taps


def _visual_macs(config: RTFSNetConfig, frames: int) -> int:
    c, d = config.lip_channels, config.lip_hidden
    sizes = [math.ceil(frames / 2**level) for level in range(config.lip_levels)]
    last = sizes[-1]
    attention = last * d * 4 * d + 2 * last * last * d
    feed_forward = last * (d * 2 * d + 2 * d * 3 + 2 * d * d)
    outside = frames * (c + 2 * c * d)  # gateway, projection and expansion
    return outside + sum(sizes) * d * 3 + attention + feed_forward + _restore_macs(sizes, d, taps=3)


# The official network's recorded outputs ---------------------------------------------------------------------------

_AUDIO = "refinement_module.audio_net.blocks"
STATIONS = {  # a place on the way -> (its name in the recordings, the name of our module's call)
    "encoder": ("encoder@0", "encoder@0"),
    "bottleneck": ("audio_bottleneck@0", "bottleneck@0"),
    "RTFS block, pass 1": (f"{_AUDIO}@0", "rtfs_block@0"),
    "visual block": ("refinement_module.video_net.blocks@0", "visual_block@0"),
    "CAF": ("refinement_module.crossmodal_fusion.fusion_module@0.0", "caf@0"),
    "RTFS block, pass 2": (f"{_AUDIO}@1", "rtfs_block@1"),
    "RTFS block, pass 3": (f"{_AUDIO}@2", "rtfs_block@2"),
    "RTFS block, pass 4": (f"{_AUDIO}@3", "rtfs_block@3"),
    "S³": ("mask_generator@0", "s3@0"),
}


ABOUT_RECORDINGS = {
    True: "Recordings of the official network: tests/parity of the repository.",
    False: "The recordings of the official network lie in tests/parity of the repository, which was not found from here, so the "
    "comparison is skipped. It runs in a clone of the repository.",
}


def find_recordings(data: str | Path) -> ModuleType | None:
    """The repository's tests/parity_fill.py, which rebuilds weights and inputs from names and loads what the official
    networks made of them; None where the notebook travels without the repository."""
    places = (Path(data).resolve().parents[1], Path(__file__).resolve().parents[2])
    for path in (place / "tests" / "parity_fill.py" for place in places):
        if path.is_file() and (path.parent / "parity").is_dir():
            spec = importlib.util.spec_from_file_location("parity_fill", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return None


@torch.no_grad()
def trail(recordings: ModuleType, model: nn.Module, case: str = "odd") -> dict[str, float]:
    """Relative error of RTFS-Net-4 at each station of its way, against what was recorded of the official network."""
    recorded = recordings.load(f"rtfs_net_4_{case}")
    calls = recordings.record_calls(model, lambda name: name and "." not in name)
    output = model(*recordings.inputs(case, recorded["shapes"]))
    errors = {
        station: recordings.relative_error(recordings.record(calls[mine]), recorded[theirs])
        for station, (theirs, mine) in STATIONS.items()
    }
    return errors | {"output": recordings.relative_error(output, recorded["output"])}


# What things cost in seconds ---------------------------------------------------------------------------------------


@torch.no_grad()
def processor_seconds(model: RTFSNet, seconds: float = 2.0) -> dict[str, float]:
    """Processor time of a forward pass by part, as `count_by_hand` names them; the second of two passes."""
    parts = {name: module for name, module in model.named_children() if name != "rtfs_block"}
    parts |= {f"rtfs_block.{name}": module for name, module in model.rtfs_block.named_children()}
    spent, started, hooks = dict.fromkeys(parts, 0.0), {}, []

    def start(name: str) -> Callable:
        return lambda module, inputs: started.update({name: time.process_time()})

    def stop(name: str) -> Callable:
        def add(module, inputs, output) -> None:
            spent[name] += time.process_time() - started[name]

        return add

    samples = round(seconds * SAMPLE_RATE)
    inputs = torch.randn(1, samples), torch.randn(1, model.config.lip_channels, frames_for(samples))
    model(*inputs)
    for name, module in parts.items():
        hooks += [module.register_forward_pre_hook(start(name)), module.register_forward_hook(stop(name))]
    try:
        model(*inputs)
    finally:
        _remove(hooks)
    return spent


def _remove(hooks: list[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()


# Lips and voices ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def influence(module: nn.Module, lips: Tensor) -> np.ndarray:
    """How much each frame of a module's output feels a change of each lip frame.

    Each frame in turn is replaced by the one a third of the clip away; the change of every output frame (2-norm over
    channels) is divided by that of the replaced frame itself.

    Args:
        lips: (1, C, V).

    Returns:
        (V, V): changed frame, frame that feels it.
    """
    count = lips.shape[2]
    rows, before = [], module(lips)
    for frame in range(count):
        other = lips.clone()
        other[:, :, frame] = lips[:, :, (frame + count // 3) % count]
        change = (module(other) - before)[0].norm(dim=0)
        rows.append(change / change[frame])
    return torch.stack(rows).numpy()


def busiest_frame(voices: Tensor, frames: int) -> int:
    """The lip frame from which on, for `frames` frames, the quieter of (2, L) voices is loudest."""
    per_frame = SAMPLE_RATE // FRAME_RATE
    energy = voices.square().unfold(1, frames * per_frame, per_frame).sum(dim=2)  # (2, starts)
    return int(energy.amin(dim=0).argmax())


# Lesions of a trained network --------------------------------------------------------------------------------------

CUTS = {  # what is skipped -> (the part that it costs nothing of any more, in words)
    "scan_frequency": "scan along frequency",
    "scan_time": "scan along time",
    "attention": "attention over time",
    "reconstruction": "TF-AR: G is not put back",
    "visual_block": "visual block: lips pass unchanged",
    "caf": "CAF: the sound passes unchanged",
    "a0": "a₀ is not added again",
}


OPENING = ("attention", "visual_block", "scan_time")  # what A, B and C of the opening lack


@contextmanager
def cut(model: RTFSNet, part: str) -> Iterator[None]:
    """While it lasts, one of `CUTS` is skipped: what comes in goes out. "reconstruction" gives its finest level."""
    if part == "a0":
        hooks = _without_second_a0(model)
    else:
        owner = model if hasattr(model, part) else model.rtfs_block

        def give(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            return inputs[0][0] if part == "reconstruction" else inputs[0]

        hooks = [getattr(owner, part).register_forward_hook(give)]
    try:
        yield
    finally:
        _remove(hooks)


def _without_second_a0(model: RTFSNet) -> list[RemovableHandle]:
    """Hooks that take a₀ away again from what every pass but the first is given."""
    first: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple, a0: Tensor) -> None:
        first[:] = [a0]

    def take(module: nn.Module, inputs: tuple) -> tuple | None:
        return None if inputs[0] is first[0] else (inputs[0] - first[0],)

    return [model.bottleneck.register_forward_hook(note), model.rtfs_block.register_forward_pre_hook(take)]


def shares(macs: Mapping[str, int]) -> dict[str, float]:
    """Each of `CUTS`' share of all MACs, from what `count_by_hand` returns."""
    total = sum(macs.values())
    found = {part: macs.get(part, macs.get(f"rtfs_block.{part}", 0)) / total for part in CUTS}
    return found
