"""SRU, the simple recurrent unit that scans frequency and time in RTFS-Net (Lei et al. 2018).

`scan` is the recurrence in its readable form: a plain loop over time. Where gradients are wanted, `LoopScan` runs the same
loop with a backward pass written by hand, and on an NVIDIA GPU `avkit.sru_gpu` runs a layer as one kernel; tests hold all
three equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from avkit import sru_gpu


def scan(candidate: Tensor, forget: Tensor, v_forget: Tensor, backward: bool = False) -> Tensor:
    """The one part of an SRU that needs its own past: the cell states.

        f_t = σ(forget_t + v_f · c₍t₋₁₎);   c_t = f_t · c₍t₋₁₎ + (1 − f_t) · candidate_t;   c₍₋₁₎ = 0

    The forget gate sees c₍t₋₁₎, so the steps cannot be run in parallel.

    Args:
        candidate, forget: (L, B, D).
        v_forget: (D,).
        backward: run from the last step to the first.

    Returns:
        (L, B, D): every c_t.
    """
    c = torch.zeros_like(candidate[0])
    cells = [c] * len(candidate)
    for t in _order(len(candidate), backward):
        f = torch.sigmoid(forget[t] + v_forget * c)
        c = f * c + (1 - f) * candidate[t]
        cells[t] = c
    return torch.stack(cells)


def _order(length: int, backward: bool) -> Iterable[int]:
    return reversed(range(length)) if backward else range(length)


class LoopScan(torch.autograd.Function):
    """`scan` with its gradients written out, so that training keeps no graph of small operations."""

    @staticmethod
    def forward(ctx, candidate: Tensor, forget: Tensor, v_forget: Tensor, backward: bool) -> Tensor:
        cells, gates = torch.empty_like(candidate), torch.empty_like(forget)
        c = torch.zeros_like(candidate[0])
        for t in _order(len(candidate), backward):
            torch.addcmul(forget[t], v_forget, c, out=gates[t]).sigmoid_()
            c = torch.lerp(candidate[t], c, gates[t], out=cells[t])
        ctx.save_for_backward(candidate, v_forget, cells, gates)
        ctx.run_backward = backward
        return cells

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_cells: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        candidate, v_forget, cells, gates = ctx.saved_tensors
        grad_candidate, grad_forget = torch.empty_like(cells), torch.empty_like(cells)
        previous = shift(cells, ctx.run_backward)
        carried = torch.zeros_like(cells[0])
        for t in _order(len(cells), not ctx.run_backward):
            grad = carried.add_(grad_cells[t])
            kept = grad * gates[t]
            torch.sub(grad, kept, out=grad_candidate[t])
            torch.sub(previous[t], candidate[t], out=grad_forget[t]).mul_(grad_candidate[t]).mul_(gates[t])
            carried = kept.addcmul_(v_forget, grad_forget[t])
        return grad_candidate, grad_forget, (grad_forget * previous).sum((0, 1)), None


def shift(cells: Tensor, backward: bool) -> Tensor:
    """c₍t₋₁₎ at every step, zeros at the first: (L, B, D) -> (L, B, D)."""
    zero = torch.zeros_like(cells[:1])
    return torch.cat((cells[1:], zero)) if backward else torch.cat((zero, cells[:-1]))


def best_scan(candidate: Tensor, forget: Tensor, v_forget: Tensor, backward: bool) -> Tensor:
    """`scan`, with the hand-written backward pass where the types agree."""
    if candidate.dtype == forget.dtype == v_forget.dtype:
        return LoopScan.apply(candidate, forget, v_forget, backward)
    return scan(candidate, forget, v_forget, backward)


class SRULayer(nn.Module):
    """One layer of SRU, in one or both directions.

        U = x·W;   c by `scan` from U₀ and U₁ + b_f;   r_t = σ(U₂ + v_r · c₍t₋₁₎ + b_r)
        h_t = r_t · c_t + (1 − r_t) · x′_t

    x′ is the layer's input where its width is that of the output, else a fourth product U₃. There is no tanh.

    Args:
        input_size: n, features in.
        hidden_size: d, features out per direction.
        directions: 1 or 2.
    """

    def __init__(self, input_size: int, hidden_size: int, directions: int = 2):
        super().__init__()
        self.hidden_size, self.directions = hidden_size, directions
        width = directions * hidden_size
        self.k = 3 if input_size == width else 4
        self.weight = nn.Parameter(torch.empty(input_size, width * self.k))  # columns: direction, feature, product
        self.weight_c = nn.Parameter(torch.empty(2 * width))  # v_f, then v_r
        self.bias = nn.Parameter(torch.zeros(2 * width))  # b_f, then b_r
        bound = math.sqrt(3 / input_size)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.weight_c, -math.sqrt(1.5), math.sqrt(1.5))

    def forward(self, x: Tensor) -> Tensor:
        """(L, B, n) -> (L, B, directions · d)."""
        by_product = self.weight.unflatten(1, (-1, self.k)).transpose(1, 2).flatten(1)
        together = x @ by_product
        if sru_gpu.fits(x):
            highway = None if self.k == 4 else x
            return sru_gpu.layer(together, highway, self.weight_c, self.bias, self.hidden_size)
        products = together.chunk(self.k, dim=2)  # k of (L, B, directions · d)
        u0, u1, u2 = products[:3]
        highway = products[3] if self.k == 4 else x
        v_f, v_r = self.weight_c.chunk(2)
        b_f, b_r = self.bias.chunk(2)

        u1, u2 = u1 + b_f, u2 + b_r
        outputs = []
        for direction in range(self.directions):
            own = slice(direction * self.hidden_size, (direction + 1) * self.hidden_size)
            backward = direction == 1
            c = best_scan(u0[..., own], u1[..., own], v_f[own], backward)
            r = torch.sigmoid(torch.addcmul(u2[..., own], v_r[own], shift(c, backward)))
            outputs.append(torch.lerp(highway[..., own].to(c.dtype), c, r.to(c.dtype)))
        return torch.cat(outputs, dim=2)


class SRU(nn.Sequential):
    """Layers of SRU, each reading the one before, directions concatenated.

    Args:
        input_size: features in.
        hidden_size: features out per direction.
        layers: how many.
        bidirectional: run both ways (output 2 · hidden_size wide) or forwards only.
    """

    def __init__(self, input_size: int, hidden_size: int, layers: int, bidirectional: bool = True):
        directions = 2 if bidirectional else 1
        widths = [input_size] + [directions * hidden_size] * (layers - 1)
        super().__init__(*(SRULayer(width, hidden_size, directions) for width in widths))
