"""Inference with norms that are put off (see pending.cpp): what IIANet's sound and RTFS-Net's blocks run on where no gradient
is wanted. A `Pending` is a tensor as its convolution left it, beside the scale and shift that its norm comes to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avkit.fast.functions import at, longs, nearest, plane_of, threads
from avkit.fast.modules import FastConvNormAct, taps_of, watched
from avkit.fast.native import load
from avkit.layers import ConvNormAct, GlobalLayerNorm

_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double


@dataclass
class Pending:
    """scale · raw + shift: raw (B, C, …), the others (B, C); `moments` (2, B, C) are raw's means and sums of squared
    deviations, `average` its averages over stretches."""

    raw: Tensor
    scale: Tensor
    shift: Tensor
    moments: Tensor
    average: Tensor | None = None

    @property
    def maps(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.shift


def can_be_put_off(*blocks: nn.Module) -> bool:
    """Whether each of these is a depthwise convolution that the library holds, then a gLN and nothing else, and no hook waits."""
    for block in blocks:
        plain = type(block) is FastConvNormAct and type(block.norm) is GlobalLayerNorm and isinstance(block.act, nn.Identity)
        if not plain or taps_of(block.conv) is None or watched(*block.modules()):
            return False
    return True


def _table(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def moments_of(x: Tensor, counts: Tensor | None = None) -> Tensor:
    """(2, B, C) of x (B, C, …); position n of x (B, C, N) counts `counts[n]` times."""
    moments = torch.empty(2, *x.shape[:2], dtype=torch.float64)
    sizes = longs(x.shape[0] * x.shape[1], x.shape[2:].numel())
    load().avkit_plane_moments(*sizes, at(x), at(counts), *map(at, moments), threads())
    return moments


def settle(
    moments: Tensor,
    count: float,
    norm: GlobalLayerNorm,
    of: tuple[Tensor, Tensor] | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scale and shift (B, C) of a gLN behind planes of `count` numbers with these moments; `of`: a scale and shift that
    come before it, `weight`: then those of a convolution with one tap."""
    scale, shift = (torch.empty(moments.shape[1:], dtype=torch.float32) for _ in range(2))
    gain, offset = (None, None) if of is None else of
    given = [at(t) for t in (*moments, gain, offset, weight, norm.weight, norm.bias)]
    sizes = longs(*moments.shape[1:])
    load().avkit_settle(*sizes, _DOUBLE(count), *given, _FLOAT(norm.eps), at(scale), at(shift))
    return scale, shift


def size_after(block: ConvNormAct, height: int, width: int) -> tuple[int, int]:
    """A plane's size behind a depthwise convolution."""
    return taps_of(block.conv).out(height, width)


def conv(
    block: ConvNormAct,
    x: Tensor | Pending,
    into: Tensor,
    pooled: Tensor | None = None,
    before: tuple[Tensor, Tensor] | None = None,
    slope: float = 1.0,
) -> Pending:
    """A depthwise convolution of x, and its gLN put off.

    Args:
        x: (B, C, …), or pending.
        into: takes the result; x itself where sizes stay.
        pooled: keep averages over as many stretches as this tensor has positions.
        before: scale and shift (B, C) of x, and then `slope`, where x is not pending.
    """
    raw, (scale, shift) = (x.raw, x.maps) if isinstance(x, Pending) else (x, before or (None, None))
    moments, taps = torch.empty(2, *raw.shape[:2], dtype=torch.float64), taps_of(block.conv)
    average = None if pooled is None else torch.empty_like(pooled)
    sizes, stretches = (*raw.shape[:2], *plane_of(raw), *plane_of(into)), (0, 0) if pooled is None else plane_of(pooled)
    load().avkit_pending_conv(
        *longs(*sizes), *taps.kernel, taps.stride, *taps.before, *longs(*stretches), at(raw), at(scale), at(shift),
        _FLOAT(slope), at(block.conv.weight), at(block.conv.bias), at(into), at(average), *map(at, moments), threads(),
    )  # fmt: skip
    return Pending(into, *settle(moments, into.shape[2:].numel(), block.norm), moments, average)


def dense(block: ConvNormAct, x: Tensor) -> Pending:
    """A convolution of x (B, C, V) by PyTorch, and its gLN put off."""
    raw = block.conv(x).contiguous()
    moments = moments_of(raw)
    return Pending(raw, *settle(moments, raw.shape[2], block.norm), moments)


def total(parts: Sequence[Pending]) -> Tensor:
    """The sum of the parts' averages."""
    out = torch.empty_like(parts[0].average)
    tables = [_table([getattr(part, name) for part in parts]) for name in ("average", "scale", "shift")]
    sizes = longs(out.shape[0] * out.shape[1], out.shape[2:].numel(), len(parts))
    load().avkit_pending_sum(*sizes, *tables, at(out), threads())
    return out


@dataclass
class Gates:
    """What IntraA, and InterA-M behind it, do to one level: f = (s·x + o)·σ(s·top + o) + (s·top + o), then
    f·(1 + σ(s·lips + o)). `maps` holds the pairs (s, o) in this order; `lips` (B, C, V) may be None."""

    top: Tensor
    places: Tensor  # (N,), int32, which position of `top` each of x reads
    maps: list[Tensor]
    lips: Tensor | None = None
    frames: Tensor | None = None  # (N,), which of the lips'

    def apply(self, x: Tensor, block: ConvNormAct | None) -> Pending | Tensor:
        """In place: x (B, C, N) becomes f, or the pending result of `block` on f."""
        batch, channels, positions = x.shape
        taps = block.conv.kernel_size[0] if block else 0
        moments = torch.empty(2, batch, channels, dtype=torch.float64)
        frames = self.lips.shape[2] if self.lips is not None else 0
        load().avkit_pending_gates(
            *longs(batch, channels, positions, self.top.shape[2], frames), taps, at(x), at(self.top), at(self.lips),
            at(self.places), at(self.frames), _table(self.maps), at(block.conv.weight if block else None),
            *map(at, moments), threads(),
        )  # fmt: skip
        return Pending(x, *settle(moments, positions, block.norm), moments) if block else x


def positions(fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows and which columns of `coarse` those of `fine` read: int32, (H,) and (W,)."""
    rows, columns = (nearest(*pair).int() for pair in zip(plane_of(fine), plane_of(coarse), strict=True))
    return rows, columns


def merge(
    x: Pending, gate: Pending, embedding: Pending, places: tuple[Tensor, Tensor], rest: Pending | None = None
) -> Tensor:
    """In place: x · up(σ(gate)) + up(embedding) + rest, of x's shape (B, C, …); `places`: their `positions`."""
    sizes = longs(*x.raw.shape[:2], *plane_of(x.raw), *plane_of(gate.raw))
    parts = [x, gate, embedding] if rest is None else [x, gate, embedding, rest]
    tensors = [at(x.raw), at(gate.raw), at(embedding.raw), None if rest is None else at(rest.raw), *map(at, places)]
    load().avkit_pending_merge(*sizes, *tensors, _table([one for part in parts for one in part.maps]), threads())
    return x.raw
