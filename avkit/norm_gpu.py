"""Global layer norm (gLN) on an NVIDIA GPU as two Triton kernels, equal to `torch.nn.GroupNorm` with one group.

PyTorch gives each group of a group norm to a single block of threads. gLN has one group for each item, so that a batch of one
keeps one of a GPU's many processors busy while all others wait; there most of both networks' time went. Here all processors
add up parts of an item, and then each reads all parts.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:  # CPU builds of PyTorch come without Triton
    AVAILABLE = False

TILE = 2048  # values that a program works on at a time
MOST_PARTS = 256  # of an item


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `global_norm` takes these: on a GPU, in single precision or below, several values to an item."""
    single = x.dtype != torch.float64 and weight.dtype != torch.float64
    return AVAILABLE and x.is_cuda and single and x.numel() > len(x)


def global_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(B, C, …) -> the same shape, float32: mean and variance over an item, gain `weight` and `bias` (C,) per channel."""
    return _GlobalNorm.apply(x, weight, bias, eps)


class _GlobalNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        batch, channels = x.shape[:2]
        size = x.numel() // batch
        tiles = triton.cdiv(size, TILE)
        each = triton.cdiv(tiles, min(tiles, MOST_PARTS))  # tiles to a part
        parts = triton.cdiv(tiles, each)
        found = torch.empty((batch, parts, 2), device=x.device, dtype=torch.float32)
        moments = torch.empty((batch, 2), device=x.device, dtype=torch.float32)  # mean, 1 / standard deviation
        y = torch.empty(x.shape, device=x.device, dtype=torch.float32)
        with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
            _parts_kernel[(parts, batch)](x, found, size, each, parts, TILE)
            _norm_kernel[(tiles, batch)](
                x, found, weight, bias, moments, y, size, size // channels, each, parts, eps, TILE, MOST_PARTS
            )
        ctx.save_for_backward(x, weight, moments)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, moments = ctx.saved_tensors
        return *backward(grad, x, weight, *moments.unbind(1)), None


def backward(grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias. mean, scale (1 / standard deviation): (B,)."""
    flat_x, flat_grad = x.flatten(2).float(), grad.flatten(2).float()
    mean, scale = mean[:, None], scale[:, None]
    size = x[0].numel()
    grad_sum = flat_grad.sum(2)  # (B, C)
    along = ((flat_grad * flat_x).sum(2) - mean * grad_sum) * scale  # Σ gradient · normalised x, (B, C)
    constant = (grad_sum * weight).sum(1, keepdim=True) / size  # (B, 1)
    slope = (along * weight).sum(1, keepdim=True) / size * scale
    shift = (slope * mean - constant) * scale
    back = torch.addcmul(shift[..., None], flat_x, (-slope * scale)[..., None])
    back = torch.addcmul(back, flat_grad, (scale * weight)[..., None])
    return back.view_as(x).to(x.dtype), along.sum(0).to(weight.dtype), grad_sum.sum(0).to(weight.dtype)


if AVAILABLE:

    @triton.jit
    def _parts_kernel(x, found, size, each, parts, TILE: tl.constexpr):
        """Mean and sum of squared deviations of a part of an item, tile by tile (Chan et al.)."""
        item = tl.program_id(1).to(tl.int64)
        first = tl.program_id(0) * each
        count = 0.0
        mean = 0.0
        squares = 0.0
        for tile in range(each):
            at = (first + tile) * TILE + tl.arange(0, TILE)
            here = at < size
            values = tl.load(x + item * size + at, mask=here, other=0.0).to(tl.float32)
            own_count = tl.minimum(tl.maximum(size - (first + tile) * TILE, 0), TILE).to(tl.float32)
            own_mean = tl.sum(values, 0) / tl.maximum(own_count, 1.0)
            away = tl.where(here, values - own_mean, 0.0)
            total = tl.maximum(count + own_count, 1.0)
            step = own_mean - mean
            squares += tl.sum(away * away, 0) + step * step * count * own_count / total
            mean += step * own_count / total
            count += own_count
        at = found + (item * parts + tl.program_id(0)) * 2
        tl.store(at, mean)
        tl.store(at + 1, squares)

    @triton.jit
    def _norm_kernel(
        x, found, weight, bias, moments, y, size, positions, each, parts, eps, TILE: tl.constexpr, MOST: tl.constexpr
    ):  # fmt: skip
        item = tl.program_id(1).to(tl.int64)
        part = tl.arange(0, MOST)
        there = part < parts
        counts = tl.where(there, tl.minimum(tl.maximum(size - part * each * TILE, 0), each * TILE), 0).to(tl.float32)
        means = tl.load(found + (item * parts + part) * 2, mask=there, other=0.0)
        squares = tl.load(found + (item * parts + part) * 2 + 1, mask=there, other=0.0)
        mean = tl.sum(means * counts, 0) / size
        away = means - mean
        scale = 1.0 / tl.sqrt((tl.sum(squares, 0) + tl.sum(away * away * counts, 0)) / size + eps)
        at = tl.program_id(0) * TILE + tl.arange(0, TILE)
        here = at < size
        values = tl.load(x + item * size + at, mask=here, other=0.0).to(tl.float32)
        channel = at // positions
        gain = tl.load(weight + channel, mask=here, other=0.0).to(tl.float32)
        shift = tl.load(bias + channel, mask=here, other=0.0).to(tl.float32)
        tl.store(y + item * size + at, (values - mean) * scale * gain + shift, mask=here)
        if tl.program_id(0) == 0:
            tl.store(moments + item * 2, mean)
            tl.store(moments + item * 2 + 1, scale)
