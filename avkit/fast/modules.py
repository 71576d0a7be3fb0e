"""The blocks that both networks share in their fast form.

A fast block is its readable block under another class: same weights, same names, another `forward`. Where the compiled
operations do not fit (another device or dtype, autocast, tracing, compilation), it runs the readable one.
"""

from __future__ import annotations

from torch import Tensor, nn

from avkit.fast.functions import Inject, NormAct, Pointwise, ScaleAct, Scan, Taps, fit_together, fits
from avkit.layers import (
    ConvNormAct,
    GlobalLayerNorm,
    InjectionSum,
    Reconstruction,
    SameConv2d,
    upsample,
)
from avkit.sru import SRULayer

COMPILED = {(4, 4), (1, 5), (1, 3), (1, 1)}  # kernels of depthwise convolutions that the library holds


def slope_of(act: nn.Module) -> float | Tensor | None:
    """The activation's slope below zero: 1 for none, 0 for ReLU, PReLU's weight; None for any other."""
    if isinstance(act, nn.Identity):
        return 1.0
    if isinstance(act, nn.ReLU):
        return 0.0
    if isinstance(act, nn.PReLU) and act.weight.numel() == 1:
        return act.weight
    return None


def taps_of(conv: nn.Module) -> Taps | None:
    """The geometry of a depthwise convolution that the library holds, else None."""
    if not isinstance(conv, nn.Conv1d | nn.Conv2d) or not conv.in_channels == conv.out_channels == conv.groups:
        return None
    kernel = conv.kernel_size if conv.weight.dim() == 4 else (1, *conv.kernel_size)
    if kernel not in COMPILED or any(size != 1 for size in conv.dilation) or len(set(conv.stride)) > 1:
        return None
    if isinstance(conv, SameConv2d):
        return Taps(kernel, 1, tuple((k - 1) // 2 for k in kernel), tuple(k // 2 for k in kernel))
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return None
    sides = conv.padding if conv.weight.dim() == 4 else (0, *conv.padding)
    if any(side >= taps for side, taps in zip(sides, kernel, strict=True) if side):
        return None
    return Taps(kernel, conv.stride[0], sides, sides)


def is_pointwise(conv: nn.Module) -> bool:
    """Whether a dense convolution has a single tap, so that it is one matrix product."""
    kinds = isinstance(conv, nn.Conv1d | nn.Conv2d) and conv.groups == 1
    return kinds and set(conv.kernel_size) == {1} and set(conv.stride) == {1} and not any(conv.padding)


def pointwise(conv: nn.Module, x: Tensor, rest: Tensor | None = None) -> Tensor:
    """A convolution with a single tap as one matrix product, plus `rest`: (B, C, …) -> (B, C', …)."""
    y = Pointwise.apply(x.flatten(2), conv.weight.flatten(1), conv.bias, None if rest is None else rest.flatten(2))
    return y.unflatten(2, x.shape[2:]) if x.dim() == 4 else y


def watched(*modules: nn.Module) -> bool:
    """Whether a hook waits on any of these modules: then they must really be called."""
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)


class FastConvNormAct(ConvNormAct):
    """Convolution, gLN and activation in one pass."""

    def forward(self, x: Tensor, rest: Tensor | None = None) -> Tensor:
        """(B, C, …) -> (B, C', …); `rest`, of the shape of x, is added to it first."""
        slope = slope_of(self.act)
        if slope is None or not fits(x, self.conv.weight) or watched(self.conv, self.norm, self.act):
            return super().forward(x if rest is None else x + rest)
        taps, bias = taps_of(self.conv), self.conv.bias
        if isinstance(self.norm, nn.Identity) and taps is not None and taps.kernel == (1, 1):
            return ScaleAct.apply(x, rest, self.conv.weight.flatten(), bias, slope)
        x = x if rest is None else x + rest
        if isinstance(self.norm, GlobalLayerNorm):
            gamma, beta, eps = self.norm.weight, self.norm.bias, self.norm.eps
            if taps is not None:
                return NormAct.apply(x, taps, self.conv.weight, bias, gamma, beta, eps, slope)
            y = pointwise(self.conv, x) if is_pointwise(self.conv) else self.conv(x)
            return NormAct.apply(y, Taps(), None, None, gamma, beta, eps, slope)
        return super().forward(x)


class FastInjectionSum(InjectionSum):
    """The gate and the shift stay coarse until the sum, which is one pass."""

    def forward(self, m: Tensor, n: Tensor, rest: Tensor | None = None) -> Tensor:
        """m (B, C, …), n (B, C, …) -> the shape of m; `rest`, of that shape too, is added."""
        if not fit_together(m, n, rest):
            y = super().forward(m, n)
            return y if rest is None else y + rest
        if m.shape[2:].numel() <= n.shape[2:].numel():
            n = upsample(n, m)
        return Inject.apply(self.local(m), self.gate(n), self.embedding(n), rest)


class FastReconstruction(Reconstruction):
    """TF-AR with the residual added in the same pass."""

    def forward(self, levels: list[Tensor], g: Tensor) -> Tensor:
        """Levels (B, C, …), finest first, and G of the coarsest one's size -> the shape of the finest."""
        fused = [inject(level, g) for inject, level in zip(self.inject, levels, strict=True)]
        u = fused[-1]
        for i in reversed(range(len(self.merge))):
            seen = watched(self.merge[i]) or not isinstance(self.merge[i], FastInjectionSum)
            u = self.merge[i](fused[i], u) + levels[i] if seen else self.merge[i](fused[i], u, levels[i])
        return u


class FastSRULayer(SRULayer):
    """Both directions, gates and highway in one pass over time."""

    def forward(self, x: Tensor) -> Tensor:
        """(L, B, n) -> (L, B, directions · d)."""
        if not fits(x, self.weight) or self.hidden_size > 512:
            return super().forward(x)
        by_product = self.weight.unflatten(1, (-1, self.k)).transpose(1, 2).flatten(1)
        highway = x if self.k == 3 else None
        return Scan.apply(x @ by_product, highway, self.weight_c, self.bias, self.hidden_size, self.directions)
