"""Notebook 04: right answers to its exercises, and the wrong ones that have a name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from avkit.rtfs import DualPathScan

# Compression ----------------------------------------------------------------------------------------------------


class Compression(nn.Module):
    """q levels of depthwise 4×4 convolutions with gLN, and their sum at the coarsest size (section 3.2.1)."""

    def __init__(self, channels: int, levels: int):
        super().__init__()
        self.levels = nn.ModuleList()
        for level in range(levels):
            stride, after = (2, 1) if level else (1, 2)
            pad = nn.ZeroPad2d((1, after, 1, after))
            conv = nn.Conv2d(channels, channels, 4, stride, groups=channels)
            self.levels.append(nn.Sequential(pad, conv, nn.GroupNorm(1, channels)))

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, D, T, F) -> the levels, finest first, and G."""
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found, self.merge(found)

    def merge(self, found: list[Tensor]) -> Tensor:
        """The levels -> G."""
        return sum(adaptive_avg_pool2d(level, found[-1].shape[2:]) for level in found)


class AllFromInput(Compression):
    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        found = [level(x) for level in self.levels]
        return found, self.merge(found)


class LevelsLast(Compression):
    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        found, g = super().forward(x)
        return g, found


def merging(merge) -> type[Compression]:
    """Compression whose levels are merged in another way."""
    return type("Compression", (Compression,), {"merge": lambda self, found: merge(found)})


# SRU ------------------------------------------------------------------------------------------------------------


class OneWaySRU(nn.Module):
    """One layer of SRU in one direction, as a loop; weights laid out as in `avkit.sru.SRULayer` with directions=1.

    Args:
        inputs: n, features in; another number than `hidden`.
        hidden: d, features out.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, 4 * hidden))
        self.weight_c = nn.Parameter(torch.zeros(2 * hidden))
        self.bias = nn.Parameter(torch.zeros(2 * hidden))

    def forward(self, x: Tensor) -> Tensor:
        """(L, B, n) -> (L, B, d)."""
        u0, u1, u2, u3 = (x @ self.weight).unflatten(2, (-1, 4)).unbind(3)
        v_f, v_r = self.weight_c.chunk(2)
        b_f, b_r = self.bias.chunk(2)
        c, outputs = self.start(u0), []
        for t in range(len(x)):
            c, h = self.step(c, u0[t], u1[t] + b_f, u2[t] + b_r, u3[t], v_f, v_r)
            outputs.append(h)
        return torch.stack(outputs)

    def start(self, u0: Tensor) -> Tensor:
        """The memory before the first step."""
        return torch.zeros_like(u0[0])

    def step(self, c, candidate, forget, reset, highway, v_f, v_r) -> tuple[Tensor, Tensor]:
        """One step: the memory before it -> the memory and the output after it, (B, d) each."""
        f = torch.sigmoid(forget + v_f * c)
        r = torch.sigmoid(reset + v_r * c)
        c = f * c + (1 - f) * candidate
        return c, r * c + (1 - r) * highway


def stepping(step) -> type[OneWaySRU]:
    """OneWaySRU with another step."""
    return type("OneWaySRU", (OneWaySRU,), {"step": lambda self, *numbers: step(*numbers)})


def tanh(c, candidate, forget, reset, highway, v_f, v_r):
    f, r = torch.sigmoid(forget + v_f * c), torch.sigmoid(reset + v_r * c)
    c = f * c + (1 - f) * candidate
    return c, r * torch.tanh(c) + (1 - r) * highway


def tanh_candidate(c, candidate, forget, reset, highway, v_f, v_r):
    f, r = torch.sigmoid(forget + v_f * c), torch.sigmoid(reset + v_r * c)
    c = f * c + (1 - f) * torch.tanh(candidate)
    return c, r * c + (1 - r) * highway


def blind_gates(c, candidate, forget, reset, highway, v_f, v_r):
    f, r = torch.sigmoid(forget), torch.sigmoid(reset)
    c = f * c + (1 - f) * candidate
    return c, r * c + (1 - r) * highway


def forget_swapped(c, candidate, forget, reset, highway, v_f, v_r):
    f, r = torch.sigmoid(forget + v_f * c), torch.sigmoid(reset + v_r * c)
    c = f * candidate + (1 - f) * c
    return c, r * c + (1 - r) * highway


def highway_swapped(c, candidate, forget, reset, highway, v_f, v_r):
    f, r = torch.sigmoid(forget + v_f * c), torch.sigmoid(reset + v_r * c)
    c = f * c + (1 - f) * candidate
    return c, r * highway + (1 - r) * c


def reset_late(c, candidate, forget, reset, highway, v_f, v_r):
    f = torch.sigmoid(forget + v_f * c)
    c = f * c + (1 - f) * candidate
    r = torch.sigmoid(reset + v_r * c)
    return c, r * c + (1 - r) * highway


def memory_alone(c, candidate, forget, reset, highway, v_f, v_r):
    f = torch.sigmoid(forget + v_f * c)
    c = f * c + (1 - f) * candidate
    return c, c


def no_highway(c, candidate, forget, reset, highway, v_f, v_r):
    f, r = torch.sigmoid(forget + v_f * c), torch.sigmoid(reset + v_r * c)
    c = f * c + (1 - f) * candidate
    return c, r * c


class StartsFull(OneWaySRU):
    def start(self, u0: Tensor) -> Tensor:
        return u0[0]


# The scan -------------------------------------------------------------------------------------------------------


class OtherAxis(DualPathScan):
    def __init__(self, channels: int, axis: int, *sizes: int):
        super().__init__(channels, 5 - axis, *sizes)


class NoResidual(DualPathScan):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x


class ResidualNormed(DualPathScan):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x + self.norm(x)


class ScanInParts(DualPathScan):
    """`DualPathScan` in steps, each of which a subclass gets wrong."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).movedim(self.axis, 3)
        batch, channels, other, _ = y.shape
        y = self.windows(self.lines(y).unfold(2, self.window, 1))
        y = self.fold(self.scanned(y).permute(1, 2, 0)).view(batch, other, channels, -1)
        return y.transpose(1, 2).movedim(3, self.axis) + x

    def lines(self, y: Tensor) -> Tensor:
        """(B, D, other, N) -> (B·other, D, N)."""
        return y.transpose(1, 2).flatten(0, 1)

    def windows(self, y: Tensor) -> Tensor:
        """(B·other, D, steps, window) -> (steps, B·other, D·window)."""
        return y.permute(2, 0, 1, 3).flatten(2)

    def scanned(self, y: Tensor) -> Tensor:
        """(steps, B·other, D·window) -> (steps, B·other, 2·hidden)."""
        return self.rnn(y)


class LinesReshaped(ScanInParts):
    def lines(self, y: Tensor) -> Tensor:
        return y.reshape(-1, y.shape[1], y.shape[3])


class OffsetFirst(ScanInParts):
    def windows(self, y: Tensor) -> Tensor:
        return y.permute(2, 0, 3, 1).flatten(2)


class ScansTheBatch(ScanInParts):
    def scanned(self, y: Tensor) -> Tensor:
        return self.rnn(y.transpose(0, 1)).transpose(0, 1)
