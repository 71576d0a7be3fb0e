"""Inference with norms that are put off (see pending.cpp): what the sound's stream of IIANet runs on where no gradient is
wanted. A `Pending` is a tensor as its convolution left it, beside the scale and shift that its norm comes to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from avkit.fast.functions import at, longs, threads
from avkit.fast.native import load
from avkit.layers import ConvNormAct, GlobalLayerNorm

_INT, _FLOAT, _DOUBLE = ctypes.c_int, ctypes.c_float, ctypes.c_double


@dataclass
class Pending:
    """scale · raw + shift: raw (B, C, N), the others (B, C); `moments` (2, B, C) are raw's means and sums of squared
    deviations, `average` (B, C, pooled) its averages over stretches."""

    raw: Tensor
    scale: Tensor
    shift: Tensor
    moments: Tensor
    average: Tensor | None = None

    @property
    def maps(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.shift


def _table(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def moments_of(x: Tensor, counts: Tensor | None = None) -> Tensor:
    """(2, B, C) of x (B, C, N); position n counts `counts[n]` times."""
    moments = torch.empty(2, *x.shape[:2], dtype=torch.float64)
    load().avkit_plane_moments(*longs(x.shape[0] * x.shape[1], x.shape[2]), at(x), at(counts), *map(at, moments), threads())
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


def conv(
    block: ConvNormAct,
    x: Tensor | Pending,
    into: Tensor,
    pooled: int | None = None,
    before: tuple[Tensor, Tensor] | None = None,
    slope: float = 1.0,
) -> Pending:
    """A depthwise convolution of x, and its gLN put off.

    Args:
        x: (B, C, N), or pending.
        into: (B, C, N'), takes the result; x itself where the stride is 1.
        pooled: keep averages over so many stretches.
        before: scale and shift (B, C) of x, and then `slope`, where x is not pending.
    """
    raw = x.raw if isinstance(x, Pending) else x
    scale, shift = x.maps if isinstance(x, Pending) else before or (None, None)
    batch, channels, positions = raw.shape
    moments = torch.empty(2, batch, channels, dtype=torch.float64)
    average = raw.new_empty(batch, channels, pooled) if pooled else None
    sizes = [*longs(batch, channels, positions, into.shape[2], pooled or 0), block.conv.kernel_size[0], block.conv.stride[0]]
    given = [at(raw), at(scale), at(shift), _FLOAT(slope), at(block.conv.weight), at(block.conv.bias)]
    failed = load().avkit_pending_conv(*sizes, *given, at(into), at(average), *map(at, moments), threads())
    assert not failed, block.conv
    return Pending(into, *settle(moments, into.shape[2], block.norm), moments, average)


def dense(block: ConvNormAct, x: Tensor) -> Pending:
    """A convolution of x (B, C, V) by PyTorch, and its gLN put off."""
    raw = block.conv(x).contiguous()
    moments = moments_of(raw)
    return Pending(raw, *settle(moments, raw.shape[2], block.norm), moments)


def total(parts: Sequence[Pending]) -> Tensor:
    """The sum of the parts' averages, (B, C, pooled)."""
    out = torch.empty_like(parts[0].average)
    tables = [_table([getattr(part, name) for part in parts]) for name in ("average", "scale", "shift")]
    sizes = longs(out.shape[0] * out.shape[1], out.shape[2], len(parts))
    load().avkit_pending_sum(*sizes, *tables, at(out), threads())
    return out


@dataclass
class Gates:
    """What IntraA, and InterA-M behind it, do to one level: f = (s·x + o)·σ(s·top + o) + (s·top + o), then
    f·(1 + σ(s·lips + o)). `maps` holds the pairs (s, o) in this order; `lips` (B, C, V) may be None."""

    top: Tensor
    places: Tensor  # (N,), which position of `top` each of x reads
    maps: list[Tensor]
    lips: Tensor | None = None
    frames: Tensor | None = None  # (N,), which of the lips'

    def apply(self, x: Tensor, block: ConvNormAct | None) -> Pending | Tensor:
        """In place: x (B, C, N) becomes f, or the pending result of `block` on f."""
        batch, channels, positions = x.shape
        taps = block.conv.kernel_size[0] if block else 0
        moments = torch.empty(2, batch, channels, dtype=torch.float64)
        frames = self.lips.shape[2] if self.lips is not None else 0
        failed = load().avkit_pending_gates(
            *longs(batch, channels, positions, self.top.shape[2], frames), taps, at(x), at(self.top), at(self.lips),
            at(self.places), at(self.frames), _table(self.maps), at(block.conv.weight if block else None), at(x),
            *map(at, moments), threads(),
        )  # fmt: skip
        assert not failed, block
        return Pending(x, *settle(moments, positions, block.norm), moments) if block else x


def merge(x: Pending, gate: Pending, embedding: Pending, places: Tensor) -> Tensor:
    """In place: x · up(σ(gate)) + up(embedding), (B, C, N); `places` (N,), int32, says which coarse position each reads."""
    batch, channels, positions = x.raw.shape
    sizes = longs(batch, channels, positions, gate.raw.shape[2])
    maps = _table([*x.maps, *gate.maps, *embedding.maps])
    load().avkit_pending_merge(*sizes, at(x.raw), at(gate.raw), at(embedding.raw), at(places), maps, threads())
    return x.raw
