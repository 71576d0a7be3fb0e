"""SRU's recurrence as one Triton kernel each way, equal to `avkit.sru.scan`.

A plain loop launches several small kernels per time step; here every (item, channel) lane is one thread's loop over
time, so that a scan costs one launch. The arithmetic is float32 whatever the inputs' type.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:  # CPU builds of PyTorch come without Triton; `avkit.sru.scan` serves there
    AVAILABLE = False

LANES = 128  # lanes per program


def scan(candidate: Tensor, forget: Tensor, v_forget: Tensor, backward: bool = False) -> Tensor:
    """As `avkit.sru.scan`, for CUDA tensors: (L, B, D), (L, B, D), (D,) -> (L, B, D) float32."""
    if backward:
        return _Scan.apply(candidate.flip(0), forget.flip(0), v_forget).flip(0)
    return _Scan.apply(candidate, forget, v_forget)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, candidate: Tensor, forget: Tensor, v_forget: Tensor) -> Tensor:
        candidate, forget, v_forget = candidate.contiguous(), forget.contiguous(), v_forget.contiguous()
        length, batch, width = candidate.shape
        cells = torch.empty(candidate.shape, device=candidate.device, dtype=torch.float32)
        grid = (triton.cdiv(batch * width, LANES),)
        with torch.cuda.device(candidate.device):
            _forward_kernel[grid](candidate, forget, v_forget, cells, length, batch * width, width, LANES)
        ctx.save_for_backward(candidate, forget, v_forget, cells)
        return cells

    @staticmethod
    def backward(ctx, grad_cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        candidate, forget, v_forget, cells = ctx.saved_tensors
        length, batch, width = candidate.shape
        grad_candidate, grad_forget = torch.empty_like(candidate), torch.empty_like(forget)
        grad_v = torch.empty((batch, width), device=candidate.device, dtype=torch.float32)
        grid = (triton.cdiv(batch * width, LANES),)
        with torch.cuda.device(candidate.device):
            _backward_kernel[grid](
                candidate,
                forget,
                v_forget,
                cells,
                grad_cells.contiguous(),
                grad_candidate,
                grad_forget,
                grad_v,
                length,
                batch * width,
                width,
                LANES,
            )
        return grad_candidate, grad_forget, grad_v.sum(dim=0).to(v_forget.dtype)


if AVAILABLE:

    @triton.jit
    def _forward_kernel(candidate, forget, v_forget, cells, length, lanes, width, LANES: tl.constexpr):
        lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
        inside = lane < lanes
        v = tl.load(v_forget + lane % width, mask=inside, other=0.0).to(tl.float32)
        c = tl.zeros((LANES,), dtype=tl.float32)
        for t in range(length):
            at = t.to(tl.int64) * lanes + lane
            x = tl.load(candidate + at, mask=inside, other=0.0).to(tl.float32)
            f = tl.sigmoid(tl.load(forget + at, mask=inside, other=0.0).to(tl.float32) + v * c)
            c = x + f * (c - x)
            tl.store(cells + at, c, mask=inside)

    @triton.jit
    def _backward_kernel(
        candidate,
        forget,
        v_forget,
        cells,
        grad_cells,
        grad_candidate,
        grad_forget,
        grad_v,
        length,
        lanes,
        width,
        LANES: tl.constexpr,
    ):
        lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
        inside = lane < lanes
        v = tl.load(v_forget + lane % width, mask=inside, other=0.0).to(tl.float32)
        carried = tl.zeros((LANES,), dtype=tl.float32)
        v_sum = tl.zeros((LANES,), dtype=tl.float32)
        for step in range(length):
            t = length - 1 - step
            at = t.to(tl.int64) * lanes + lane
            x = tl.load(candidate + at, mask=inside, other=0.0).to(tl.float32)
            previous = tl.load(cells + at - lanes, mask=inside & (t > 0), other=0.0)
            f = tl.sigmoid(tl.load(forget + at, mask=inside, other=0.0).to(tl.float32) + v * previous)
            grad = tl.load(grad_cells + at, mask=inside, other=0.0).to(tl.float32) + carried
            gate = grad * (previous - x) * f * (1 - f)
            tl.store(grad_candidate + at, grad * (1 - f), mask=inside)
            tl.store(grad_forget + at, gate, mask=inside)
            v_sum += gate * previous
            carried = grad * f + gate * v
        tl.store(grad_v + lane, v_sum, mask=inside)
