"""The compiled operations as differentiable functions of contiguous float32 CPU tensors.

Each keeps only its inputs (and two numbers per item where it normalises) for the backward pass.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import interpolate

from avkit.fast.native import load

_LONG, _FLOAT = ctypes.c_int64, ctypes.c_float


@dataclass(frozen=True)
class Taps:
    """A depthwise convolution's geometry; `kernel` (0, 0) stands for none."""

    kernel: tuple[int, int] = (0, 0)
    stride: int = 1
    before: tuple[int, int] = (0, 0)  # zeros before each axis
    after: tuple[int, int] = (0, 0)

    def out(self, height: int, width: int) -> tuple[int, int]:
        """Sizes after the convolution."""
        if self.kernel == (0, 0):
            return height, width
        sizes = zip((height, width), self.kernel, self.before, self.after, strict=True)
        return tuple((size + before + after - taps) // self.stride + 1 for size, taps, before, after in sizes)


def at(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


def longs(*numbers: int) -> list[ctypes.c_int64]:
    return [_LONG(number) for number in numbers]


def plane_of(x: Tensor) -> tuple[int, int]:
    """Height and width of (B, C, T) or (B, C, T, F)."""
    return (1, x.shape[2]) if x.dim() == 3 else (x.shape[2], x.shape[3])


class NormAct(torch.autograd.Function):
    """Depthwise convolution (or none), gLN, activation: (B, C, …) -> (B, C, …)."""

    @staticmethod
    def forward(ctx, x, taps: Taps, weight, bias, gamma, beta, eps: float, slope):
        x = x.contiguous()
        height, width = plane_of(x)
        out_height, out_width = taps.out(height, width)
        shape = (*x.shape[:2], out_width) if x.dim() == 3 else (*x.shape[:2], out_height, out_width)
        out, mean, rstd = x.new_empty(shape), x.new_empty(len(x)), x.new_empty(len(x))
        ctx.sizes = (*x.shape[:2], height, width, out_height, out_width)
        ctx.taps, ctx.slope = taps, slope if isinstance(slope, float) else float(slope)
        arguments = [at(tensor) for tensor in (x, weight, bias, gamma, beta)]
        load().avkit_norm_forward(
            *_geometry(ctx), *arguments, _FLOAT(eps), _FLOAT(ctx.slope), *(at(t) for t in (out, mean, rstd)), threads()
        )
        ctx.save_for_backward(x, weight, bias, gamma, beta, mean, rstd)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = grad.contiguous()
        x, weight, bias, gamma, beta, mean, rstd = ctx.saved_tensors
        learnt = ctx.needs_input_grad[7]
        dx, dgamma, dbeta = torch.empty_like(x), torch.empty_like(gamma), torch.empty_like(beta)
        dweight, dbias = (None if t is None else torch.empty_like(t) for t in (weight, bias))
        dslope = x.new_empty(1) if learnt else None
        load().avkit_norm_backward(
            *_geometry(ctx),
            *(at(t) for t in (x, weight, bias, gamma, beta, mean, rstd)),
            _FLOAT(ctx.slope),
            *(at(t) for t in (grad, dx, dweight, dbias, dgamma, dbeta, dslope)),
            threads(),
        )
        return dx, None, dweight, dbias, dgamma, dbeta, None, dslope


def _geometry(ctx) -> list:
    (top, left), (high, wide) = ctx.taps.before, ctx.taps.kernel
    return [*longs(*ctx.sizes), high, wide, ctx.taps.stride, top, left]


def threads() -> int:
    return torch.get_num_threads()


class ScaleAct(torch.autograd.Function):
    """Each channel of x + rest times its weight, plus its bias, then the activation: (B, C, …) -> the same shape.
    `rest` and `bias` may be None."""

    @staticmethod
    def forward(ctx, x, rest, weight, bias, slope):
        x, rest = x.contiguous(), None if rest is None else rest.contiguous()
        out = torch.empty_like(x)
        ctx.sizes = longs(*x.shape[:2], x.shape[2:].numel())
        ctx.slope = _FLOAT(slope if isinstance(slope, float) else float(slope))
        tensors = [at(t) for t in (x, rest, weight, bias, None)]
        load().avkit_scale_forward(*ctx.sizes, *tensors, ctx.slope, at(out), threads())
        ctx.save_for_backward(x, rest, weight, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = grad.contiguous()
        x, rest, weight, bias = ctx.saved_tensors
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        dbias = None if bias is None else torch.empty_like(bias)
        dslope = x.new_empty(1) if ctx.needs_input_grad[4] else None
        given, wanted = ([at(t) for t in tensors] for tensors in ((x, rest, weight, bias), (grad, dx, dweight, dbias, dslope)))
        load().avkit_scale_backward(*ctx.sizes, *given, ctx.slope, *wanted, threads())
        return dx, None if rest is None else dx, dweight, dbias, dslope


def scale_act(
    x: Tensor, weight: Tensor, bias: Tensor | None, slope: float, after: Tensor, rest: Tensor | None = None
) -> Tensor:
    """Without gradients, activation((x + rest) · weight + bias) + after, channel by channel: (B, C, …) -> the same shape;
    in place of x where there is a rest."""
    out, sizes = torch.empty_like(x) if rest is None else x, longs(*x.shape[:2], x.shape[2:].numel())
    tensors = [at(t) for t in (x, rest, weight, bias, after)]
    load().avkit_scale_forward(*sizes, *tensors, _FLOAT(slope), at(out), threads())
    return out


def affine_(x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, rest: Tensor | None = None) -> Tensor:
    """Each channel scaled and shifted, `rest` added, then the activation with a slope per channel, in place and without
    gradients: x and `rest` (N, C, H, W), in memory with channels second or last, the others (C,)."""
    last = not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    x, rest = x.contiguous(memory_format=layout), None if rest is None else rest.contiguous(memory_format=layout)
    sizes = [*longs(*x.shape[:2], x.shape[2:].numel()), int(last)]
    load().avkit_affine(*sizes, *(at(t) for t in (x, rest, scale, shift, slope)), threads())
    return x


class Moments(torch.autograd.Function):
    """Mean and biased variance of each channel over batch and positions: (B, C, …) -> (C,), (C,)."""

    @staticmethod
    def forward(ctx, x):
        x = x.contiguous()
        sizes = longs(*x.shape[:2], x.shape[2:].numel())
        mean, variance = x.new_empty(x.shape[1]), x.new_empty(x.shape[1])
        load().avkit_moments(*sizes, *(at(t) for t in (x, mean, variance)), threads())
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, dmean, dvariance):
        x, mean = ctx.saved_tensors
        count = x.numel() / x.shape[1]
        weight = 2 * dvariance / count
        return ScaleAct.apply(x, None, weight, dmean / count - weight * mean, 1.0)


class Fuse(torch.autograd.Function):
    """CAF's two audio paths: value_gate · (s_v · d + o_v) + key_gate · ReLU(s_k · d + o_k), d = a − centre, for a
    (B, C, T, F), gates (B, C, T), `maps` (4, C): s_v, o_v, s_k, o_k, and centre (C,)."""

    @staticmethod
    def forward(ctx, a, value_gate, key_gate, maps, centre):
        tensors = [t.contiguous() for t in (a, value_gate, key_gate, maps, centre)]
        ctx.sizes, out = longs(*a.shape), torch.empty_like(tensors[0])
        load().avkit_fuse_forward(*ctx.sizes, *(at(t) for t in (*tensors, out)), threads())
        ctx.save_for_backward(*tensors)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad, saved = grad.contiguous(), ctx.saved_tensors
        gradients = [torch.empty_like(t) for t in saved[:4]]
        load().avkit_fuse_backward(*ctx.sizes, *(at(t) for t in (*saved, grad, *gradients)), threads())
        (s_v, _, s_k, _), (_, do_v, _, do_k) = saved[3], gradients[3]
        return *gradients, -(do_v * s_v + do_k * s_k)


class Mask(torch.autograd.Function):
    """S³: ReLU(mask) times the encoding as complex numbers, mask (B, S, C, T, F), encoding (B, C, T, F), halves of C real
    and imaginary -> the shape of the mask, in its place where no gradient is wanted."""

    @staticmethod
    def forward(ctx, mask, encoded):
        mask, encoded = mask.contiguous(), encoded.contiguous()
        kept = any(ctx.needs_input_grad)  # otherwise the product takes the place of the mask
        ctx.sizes, out = longs(*mask.shape[:2], encoded[0].numel() // 2), torch.empty_like(mask) if kept else mask
        load().avkit_mask_forward(*ctx.sizes, *(at(t) for t in (mask, encoded, out)), threads())
        ctx.save_for_backward(mask, encoded)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad, (mask, encoded) = grad.contiguous(), ctx.saved_tensors
        gradients = torch.empty_like(mask), torch.empty_like(encoded)
        load().avkit_mask_backward(*ctx.sizes, *(at(t) for t in (mask, encoded, grad, *gradients)), threads())
        return gradients


class Pointwise(torch.autograd.Function):
    """W·x + bias + rest as one matrix product: x (B, C, N), W (C', C), bias (C',) or None, rest (B, C', N) or None."""

    @staticmethod
    def forward(ctx, x, weight, bias, rest):
        x = x.contiguous()
        weights = weight.expand(len(x), -1, -1)
        ctx.save_for_backward(x, weight)
        if rest is None:
            return torch.bmm(weights, x) if bias is None else torch.baddbmm(bias[:, None], weights, x)
        return torch.baddbmm(rest, weights, x) if bias is None else (rest + bias[:, None]).baddbmm_(weights, x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias, for_rest = ctx.needs_input_grad
        dx = torch.bmm(weight.t().expand(len(x), -1, -1), grad) if for_x else None
        dweight = torch.bmm(grad, x.transpose(1, 2)).sum(0) if for_weight else None
        return dx, dweight, grad.sum((0, 2)) if for_bias else None, grad if for_rest else None


def nearest(size: int, coarse: int) -> Tensor:
    """Which of `coarse` positions each of `size` reads, as nearest-neighbour interpolation has it."""
    places = torch.arange(coarse, dtype=torch.float64)
    return interpolate(places[None, None], size=size, mode="nearest")[0, 0].long()


class Inject(torch.autograd.Function):
    """local · up(σ(gate)) + up(embedding) + rest; gate and embedding coarse, `rest` may be None."""

    @staticmethod
    def forward(ctx, local, gate, embedding, rest):
        local, gate, embedding = local.contiguous(), gate.contiguous(), embedding.contiguous()
        rest = None if rest is None else rest.contiguous()
        fine, coarse = plane_of(local), plane_of(gate)
        maps = [nearest(*pair) for pair in zip(fine, coarse, strict=True)]
        out = torch.empty_like(local)
        ctx.sizes = (local.shape[0] * local.shape[1], *fine, *coarse)
        tensors = [at(t) for t in (*maps, local, gate, embedding, rest, out)]
        load().avkit_inject_forward(*longs(*ctx.sizes), *tensors, threads())
        ctx.save_for_backward(local, gate, *maps)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = grad.contiguous()
        local, gate, rows, columns = ctx.saved_tensors
        dlocal, dgate, dembedding = torch.empty_like(local), torch.empty_like(gate), torch.empty_like(gate)
        tensors = [at(t) for t in (rows, columns, local, gate, grad, dlocal, dgate, dembedding)]
        load().avkit_inject_backward(*longs(*ctx.sizes), *tensors, threads())
        return dlocal, dgate, dembedding, grad if ctx.needs_input_grad[3] else None


class Heads(torch.autograd.Function):
    """Activation and norm of groups of channels, frame by frame (see frames.cpp): x (B, C, T, F), for each of the `kinds` a
    slope (heads,), a gain and a bias (heads, width, F) -> for each (B, heads, T, width · F)."""

    @staticmethod
    def forward(ctx, x, eps: float, *kinds):
        x, kinds = x.contiguous(), [t.contiguous() for t in kinds]
        ctx.eps, ctx.sizes, outs, first = _FLOAT(eps), [], [], 0
        for slope, gamma, beta in zip(*(kinds[i::3] for i in range(3)), strict=True):
            heads, width, freqs = gamma.shape
            out = x.new_empty(len(x), heads, x.shape[2], width * freqs)
            sizes = [*longs(*x.shape[:2], first, heads, width, *x.shape[2:]), 1]
            given = [at(t) for t in (x, slope, gamma, beta)]
            load().avkit_frames_forward(*sizes, *given, ctx.eps, None, at(out), threads())
            first += heads * width
            ctx.sizes.append(sizes)
            outs.append(out)
        ctx.save_for_backward(x, *kinds)
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        x, *kinds = ctx.saved_tensors
        dx, found = torch.empty_like(x), [torch.empty_like(t) for t in kinds]
        for i, (sizes, grad) in enumerate(zip(ctx.sizes, grads, strict=True)):
            (slope, gamma, _), wanted = kinds[3 * i : 3 * i + 3], found[3 * i : 3 * i + 3]
            grad = grad.contiguous()
            given = [at(x), at(slope), at(gamma), ctx.eps, at(grad), at(dx), *map(at, wanted)]
            load().avkit_frames_backward(*sizes, *given, threads())
        return dx, None, *found


class FrameNorm(torch.autograd.Function):
    """Activation and norm of each frame over channels and frequencies, plus `rest`: x and rest (B, C, T, F), slope (1,), gain
    and bias (1, C, 1, F) -> (B, C, T, F)."""

    @staticmethod
    def forward(ctx, x, slope, gamma, beta, eps: float, rest):
        x, rest, out = x.contiguous(), rest.contiguous(), torch.empty_like(x)
        ctx.sizes, ctx.eps = [*longs(*x.shape[:2], 0, 1, *x.shape[1:]), 0], _FLOAT(eps)
        given = [at(t) for t in (x, slope, gamma, beta)]
        load().avkit_frames_forward(*ctx.sizes, *given, ctx.eps, at(rest), at(out), threads())
        ctx.save_for_backward(x, slope, gamma)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad, (x, slope, gamma) = grad.contiguous(), ctx.saved_tensors
        found = [torch.empty_like(t) for t in (x, slope, gamma, gamma)]
        given = [at(x), at(slope), at(gamma), ctx.eps, at(grad)]
        load().avkit_frames_backward(*ctx.sizes, *given, *map(at, found), threads())
        return *found, None, grad


class Windows(torch.autograd.Function):
    """Each point normalised over its channels, then windows along an axis (2 or 3) with stride 1:
    (B, C, T, F) -> (N − window + 1, B · other, C · window)."""

    @staticmethod
    def forward(ctx, x, gamma, beta, eps: float, axis: int, window: int):
        x = x.contiguous()
        ctx.sizes, ctx.eps = [*longs(*x.shape), axis, _LONG(window)], _FLOAT(eps)
        out = x.new_empty(x.shape[axis] - window + 1, len(x) * x.shape[5 - axis], x.shape[1] * window)
        load().avkit_windows_forward(*ctx.sizes, *(at(t) for t in (x, gamma, beta)), ctx.eps, at(out), threads())
        ctx.save_for_backward(x, gamma)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = grad.contiguous()
        x, gamma = ctx.saved_tensors
        dx, parts = torch.empty_like(x), x.new_empty(grad.shape[1], 2, x.shape[1])
        tensors = [at(t) for t in (grad, dx, parts)]
        load().avkit_windows_backward(*ctx.sizes, at(x), at(gamma), ctx.eps, *tensors, threads())
        dgamma, dbeta = parts.sum(0)
        return dx, dgamma.view_as(gamma), dbeta.view_as(gamma), None, None, None


class Overlap(torch.autograd.Function):
    """The way back: windows added where they overlap, plus a bias per channel, plus `rest` (B, C, T, F)."""

    @staticmethod
    def forward(ctx, windows, bias, rest, axis: int, window: int):
        windows, rest = windows.contiguous(), rest.contiguous()
        ctx.sizes, ctx.shape = [*longs(*rest.shape), axis, _LONG(window)], windows.shape
        out = torch.empty_like(rest)
        load().avkit_overlap_forward(*ctx.sizes, *(at(t) for t in (windows, bias, rest, out)), threads())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = grad.contiguous()
        dwindows = grad.new_empty(ctx.shape)
        load().avkit_overlap_backward(*ctx.sizes, at(grad), at(dwindows), threads())
        return dwindows, grad.sum((0, 2, 3)), grad, None, None


class Scan(torch.autograd.Function):
    """One layer of SRU behind its matrix product: (L, B, k · W) products, and x (L, B, W) for k = 3, -> (L, B, W)."""

    @staticmethod
    def forward(ctx, products, x, weight_c, bias, hidden: int, directions: int):
        products = products.contiguous()
        length, items = products.shape[:2]
        width = directions * hidden
        k = products.shape[2] // width
        x = x.contiguous() if k == 3 else None
        cells, out = products.new_empty(length, items, width), products.new_empty(length, items, width)
        ctx.sizes = [*longs(length, items, hidden), directions, k]
        tensors = [at(t) for t in (products, x, weight_c, bias, cells, out)]
        load().avkit_sru_forward(*ctx.sizes, *tensors, threads())
        ctx.save_for_backward(products, x, weight_c, bias, cells)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = grad.contiguous()
        products, x, weight_c, bias, cells = ctx.saved_tensors
        directions, hidden = ctx.sizes[3], ctx.sizes[2].value
        dproducts, dx = torch.empty_like(products), None if x is None else torch.empty_like(x)
        parts = products.new_empty(directions, products.shape[1], 4, hidden)
        tensors = [at(t) for t in (products, x, weight_c, bias, cells, grad, dproducts, dx, parts)]
        load().avkit_sru_backward(*ctx.sizes, *tensors, threads())
        v_f, v_r, b_f, b_r = parts.sum(1).transpose(0, 1).flatten(1)  # each (W,)
        return dproducts, dx, torch.cat((v_f, v_r)), torch.cat((b_f, b_r)), None, None


def fits(*tensors: Tensor | None) -> bool:
    """Whether the compiled operations take these: float32 on a CPU, not empty, outside of tracing."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    given: Sequence[Tensor] = [tensor for tensor in tensors if tensor is not None]
    return all(t.device.type == "cpu" and t.dtype == torch.float32 and t.numel() > 0 for t in given)


def fit_together(*tensors: Tensor | None) -> bool:
    """Whether `fits`, and all hold as many items: the compiled operations read item by item and do not broadcast."""
    return fits(*tensors) and len({len(tensor) for tensor in tensors if tensor is not None}) == 1
