"""A layer of SRU as one Triton kernel each way, equal to what `avkit.sru.SRULayer` does step by step.

A plain loop launches several small kernels per time step. Here every (item, feature) lane is one thread's loop over time, the
second direction's lanes run from the last step to the first, gates and highway are worked out in the same pass: a layer costs
one launch. Several steps are read before the first of them is used. The arithmetic is float32 whatever the inputs' type.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:  # CPU builds of PyTorch come without Triton; `avkit.sru.scan` serves there
    AVAILABLE = False

LANES = 32  # lanes per program: one warp, so that a small layer still spreads over the whole GPU


def fits(x: Tensor) -> bool:
    """Whether `layer` takes a layer's input: on a GPU, in single precision or below."""
    return AVAILABLE and x.is_cuda and x.dtype != torch.float64


def layer(products: Tensor, highway: Tensor | None, weight_c: Tensor, bias: Tensor, hidden_size: int) -> Tensor:
    """What follows the product in `avkit.sru.SRULayer`: cell states, gates and highway.

    Args:
        products: (L, B, k · W), the k products one after the other; W = directions · hidden_size.
        highway: (L, B, W), the layer's input where k is 3; None where the fourth product serves.
        weight_c: (2 · W,), v_f then v_r. bias: (2 · W,), b_f then b_r.
        hidden_size: features per direction; those after the first so many run backwards in time.

    Returns:
        (L, B, W) float32.
    """
    return _Layer.apply(products, highway, weight_c, bias, hidden_size)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, products, highway, weight_c, bias, hidden_size: int) -> Tensor:
        products, weight_c, bias = products.contiguous(), weight_c.contiguous(), bias.contiguous()
        has_highway = highway is not None
        highway = highway.contiguous() if has_highway else products
        (length, batch), width = products.shape[:2], len(bias) // 2
        cells = torch.empty((length, batch, width), device=products.device, dtype=torch.float32)
        outputs = torch.empty_like(cells)
        sizes = (length, batch * width, width, products.shape[2], hidden_size, has_highway, LANES)
        with _device_of(products):
            _forward_kernel[_grid(sizes)](
                products, highway, weight_c, bias, cells, outputs, *sizes, num_warps=1
            )
        ctx.save_for_backward(products, highway, weight_c, bias, cells)
        ctx.sizes = sizes
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        products, highway, weight_c, bias, cells = ctx.saved_tensors
        _, lanes, width, _, _, has_highway, _ = ctx.sizes
        grad_products = torch.empty_like(products)
        grad_highway = torch.empty_like(highway) if has_highway else grad_products
        sums = torch.empty((4, lanes // width, width), device=products.device, dtype=torch.float32)
        with _device_of(products):
            _backward_kernel[_grid(ctx.sizes)](
                products, highway, weight_c, bias, cells, grad.contiguous(), grad_products, grad_highway, sums,
                *ctx.sizes, num_warps=1,
            )  # fmt: skip
        totals = sums.sum(dim=1)  # v_f, v_r, b_f, b_r
        grad_c, grad_bias = totals[:2].flatten().to(weight_c.dtype), totals[2:].flatten().to(bias.dtype)
        return grad_products, grad_highway if has_highway else None, grad_c, grad_bias, None


def _grid(sizes: tuple) -> tuple[int]:
    return (triton.cdiv(sizes[1], LANES),)


def _device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


if AVAILABLE:
    # One lane is item b's feature w. Its four numbers of a step: candidate u₀, forget u₁, reset u₂, and the highway, which is
    # u₃ or the layer's input.

    @triton.jit
    def _read(products, highway, step, length, lanes, width, columns, turn, HIGHWAY: tl.constexpr, lane, inside):
        w = lane % width
        t = tl.where(w < turn, step, length - 1 - step).to(tl.int64)
        here = inside & (step < length)
        at = products + t * (lanes // width) * columns + (lane // width) * columns + w
        u0 = tl.load(at, mask=here, other=0.0).to(tl.float32)
        u1 = tl.load(at + width, mask=here, other=0.0).to(tl.float32)
        u2 = tl.load(at + 2 * width, mask=here, other=0.0).to(tl.float32)
        if HIGHWAY:
            x = tl.load(highway + t * lanes + lane, mask=here, other=0.0).to(tl.float32)
        else:
            x = tl.load(at + 3 * width, mask=here, other=0.0).to(tl.float32)
        return u0, u1, u2, x, t, here

    @triton.jit
    def _step(c, u0, u1, u2, x, t, here, v_f, v_r, b_f, b_r, cells, outputs, lanes, lane):
        f = tl.sigmoid(u1 + b_f + v_f * c)
        r = tl.sigmoid(u2 + b_r + v_r * c)
        c = u0 + f * (c - u0)
        tl.store(cells + t * lanes + lane, c, mask=here)
        tl.store(outputs + t * lanes + lane, x + r * (c - x), mask=here)
        return c

    @triton.jit
    def _forward_kernel(
        products, highway, weight_c, bias, cells, outputs,
        length, lanes, width, columns, turn, HIGHWAY: tl.constexpr, LANES: tl.constexpr,
    ):  # fmt: skip
        lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
        inside = lane < lanes
        w = lane % width
        v_f = tl.load(weight_c + w, mask=inside, other=0.0).to(tl.float32)
        v_r = tl.load(weight_c + width + w, mask=inside, other=0.0).to(tl.float32)
        b_f = tl.load(bias + w, mask=inside, other=0.0).to(tl.float32)
        b_r = tl.load(bias + width + w, mask=inside, other=0.0).to(tl.float32)
        c = tl.zeros((LANES,), dtype=tl.float32)
        for s in range(0, length, 4):
            a0, a1, a2, a3, at, ah = _read(products, highway, s, length, lanes, width, columns, turn, HIGHWAY, lane, inside)
            b0, b1, b2, b3, bt, bh = _read(products, highway, s + 1, length, lanes, width, columns, turn, HIGHWAY, lane, inside)
            c0, c1, c2, c3, ct, ch = _read(products, highway, s + 2, length, lanes, width, columns, turn, HIGHWAY, lane, inside)
            d0, d1, d2, d3, dt, dh = _read(products, highway, s + 3, length, lanes, width, columns, turn, HIGHWAY, lane, inside)
            c = _step(c, a0, a1, a2, a3, at, ah, v_f, v_r, b_f, b_r, cells, outputs, lanes, lane)
            c = _step(c, b0, b1, b2, b3, bt, bh, v_f, v_r, b_f, b_r, cells, outputs, lanes, lane)
            c = _step(c, c0, c1, c2, c3, ct, ch, v_f, v_r, b_f, b_r, cells, outputs, lanes, lane)
            c = _step(c, d0, d1, d2, d3, dt, dh, v_f, v_r, b_f, b_r, cells, outputs, lanes, lane)

    @triton.jit
    def _read_back(cells, grad_outputs, s, t, lanes, width, turn, length, lane, here):
        back = tl.where(lane % width < turn, -lanes, lanes)
        c = tl.load(cells + t * lanes + lane, mask=here, other=0.0)
        before = tl.load(cells + t * lanes + lane + back, mask=here & (s > 0), other=0.0)
        g = tl.load(grad_outputs + t * lanes + lane, mask=here, other=0.0).to(tl.float32)
        return c, before, g

    @triton.jit
    def _step_back(
        carried, sum_vf, sum_vr, sum_bf, sum_br, u0, u1, u2, x, t, here, c, before, g, v_f, v_r, b_f, b_r,
        grad_products, grad_highway, lanes, width, columns, HIGHWAY: tl.constexpr, lane,
    ):  # fmt: skip
        f = tl.sigmoid(u1 + b_f + v_f * before)
        r = tl.sigmoid(u2 + b_r + v_r * before)
        reset = g * (c - x) * r * (1 - r)
        grad_c = tl.where(here, carried + g * r, carried)
        forget = tl.where(here, grad_c * (before - u0) * f * (1 - f), 0.0)
        reset = tl.where(here, reset, 0.0)
        at = grad_products + t * (lanes // width) * columns + (lane // width) * columns + lane % width
        tl.store(at, grad_c * (1 - f), mask=here)
        tl.store(at + width, forget, mask=here)
        tl.store(at + 2 * width, reset, mask=here)
        if HIGHWAY:
            tl.store(grad_highway + t * lanes + lane, g * (1 - r), mask=here)
        else:
            tl.store(at + 3 * width, g * (1 - r), mask=here)
        carried = tl.where(here, grad_c * f + forget * v_f + reset * v_r, carried)
        return carried, sum_vf + forget * before, sum_vr + reset * before, sum_bf + forget, sum_br + reset

    @triton.jit
    def _backward_kernel(
        products, highway, weight_c, bias, cells, grad_outputs, grad_products, grad_highway, sums,
        length, lanes, width, columns, turn, HIGHWAY: tl.constexpr, LANES: tl.constexpr,
    ):  # fmt: skip
        lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
        inside = lane < lanes
        w = lane % width
        v_f = tl.load(weight_c + w, mask=inside, other=0.0).to(tl.float32)
        v_r = tl.load(weight_c + width + w, mask=inside, other=0.0).to(tl.float32)
        b_f = tl.load(bias + w, mask=inside, other=0.0).to(tl.float32)
        b_r = tl.load(bias + width + w, mask=inside, other=0.0).to(tl.float32)
        carried = tl.zeros((LANES,), dtype=tl.float32)
        v0, v1, v2, v3 = carried, carried, carried, carried
        for back in range(0, length, 2):
            s = length - 1 - back
            a0, a1, a2, a3, at, ah = _read(products, highway, s, length, lanes, width, columns, turn, HIGHWAY, lane, inside)
            ac, ab, ag = _read_back(cells, grad_outputs, s, at, lanes, width, turn, length, lane, ah)
            q = s - 1
            b0, b1, b2, b3, bt, bh = _read(products, highway, q, length, lanes, width, columns, turn, HIGHWAY, lane, inside & (q >= 0))
            bc, bb, bg = _read_back(cells, grad_outputs, q, bt, lanes, width, turn, length, lane, bh)
            carried, v0, v1, v2, v3 = _step_back(
                carried, v0, v1, v2, v3, a0, a1, a2, a3, at, ah, ac, ab, ag, v_f, v_r, b_f, b_r,
                grad_products, grad_highway, lanes, width, columns, HIGHWAY, lane,
            )  # fmt: skip
            carried, v0, v1, v2, v3 = _step_back(
                carried, v0, v1, v2, v3, b0, b1, b2, b3, bt, bh, bc, bb, bg, v_f, v_r, b_f, b_r,
                grad_products, grad_highway, lanes, width, columns, HIGHWAY, lane,
            )  # fmt: skip
        tl.store(sums + lane, v0, mask=inside)
        tl.store(sums + lanes + lane, v1, mask=inside)
        tl.store(sums + 2 * lanes + lane, v2, mask=inside)
        tl.store(sums + 3 * lanes + lane, v3, mask=inside)
