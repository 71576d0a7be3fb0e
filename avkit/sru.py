"""SRU, the simple recurrent unit that scans frequency and time in RTFS-Net (Lei et al. 2018).

The recurrence below is the readable one: a plain loop over time. On a GPU `avkit.sru_gpu` runs the same recurrence as
one kernel; tests hold the two equal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def scan(candidate: Tensor, forget: Tensor, v_forget: Tensor) -> Tensor:
    """The one part of an SRU that needs its own past: the cell states.

        f_t = σ(forget_t + v_f · c₍t₋₁₎);   c_t = f_t · c₍t₋₁₎ + (1 − f_t) · candidate_t;   c₍₋₁₎ = 0

    The forget gate sees c₍t₋₁₎, so the steps cannot be run in parallel.

    Args:
        candidate, forget: (L, B, D).
        v_forget: (D,).

    Returns:
        (L, B, D): every c_t.
    """
    c = torch.zeros_like(candidate[0])
    cells = []
    for x_t, f_t in zip(candidate.unbind(0), forget.unbind(0), strict=True):
        f = torch.sigmoid(f_t + v_forget * c)
        c = x_t + f * (c - x_t)
        cells.append(c)
    return torch.stack(cells)


def flip_backward(x: Tensor, directions: int) -> Tensor:
    """Reverse time for the second direction of (L, B, directions, …), so that both run forwards."""
    return x if directions == 1 else torch.stack((x[:, :, 0], x[:, :, 1].flip(0)), dim=2)


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
        self.weight = nn.Parameter(torch.empty(input_size, width * self.k))
        self.weight_c = nn.Parameter(torch.empty(2 * width))  # v_f, then v_r
        self.bias = nn.Parameter(torch.zeros(2 * width))  # b_f, then b_r
        bound = math.sqrt(3 / input_size)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.weight_c, -math.sqrt(1.5), math.sqrt(1.5))

    def forward(self, x: Tensor) -> Tensor:
        """(L, B, n) -> (L, B, directions · d)."""
        length, batch, _ = x.shape
        shape = (length, batch, self.directions, self.hidden_size)
        u = (x @ self.weight).view(*shape, self.k)  # (L, B, directions, d, k)
        highway = u[..., 3] if self.k == 4 else x.view(shape)
        v_f, v_r = self.weight_c.view(2, -1)
        b_f, b_r = self.bias.view(2, -1)

        parts = flip_backward(torch.stack((u[..., 0], u[..., 1], u[..., 2], highway), dim=-1), self.directions)
        u0, u1, u2, highway = parts.flatten(2, 3).unbind(-1)  # (L, B, directions · d) each
        c = _scan_for(x)(u0, u1 + b_f, v_f)
        previous = torch.cat((torch.zeros_like(c[:1]), c[:-1]))
        r = torch.sigmoid(u2 + v_r * previous + b_r)
        h = highway + r * (c - highway)
        return flip_backward(h.view(shape), self.directions).flatten(2)


def _scan_for(x: Tensor):
    """The recurrence that fits where `x` lies: one kernel on an NVIDIA GPU with Triton, the plain loop elsewhere."""
    if x.is_cuda:
        from avkit import sru_gpu

        if sru_gpu.AVAILABLE:
            return sru_gpu.scan
    return scan


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
