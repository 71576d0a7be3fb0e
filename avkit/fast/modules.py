"""The networks' blocks in their fast form, and the switch between the two forms.

A fast block is its readable block under another class: same weights, same names, another `forward`. Where the compiled
operations do not fit (another device or dtype, autocast, tracing, compilation), it runs the readable one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from avkit.fast.functions import Inject, NormAct, Overlap, ScaleAct, Scan, Taps, Windows, fits
from avkit.fast.native import available
from avkit.iianet import InterAMiddle, IntraA
from avkit.iianet import Separation as IIANetSeparation
from avkit.layers import (
    ConvNormAct,
    GlobalLayerNorm,
    InjectionSum,
    Reconstruction,
    SameConv2d,
    upsample,
)
from avkit.rtfs import DualPathScan
from avkit.sru import SRULayer

COMPILED = {(4, 4), (1, 5), (1, 3), (1, 1)}  # kernels of depthwise convolutions that the library holds


def _slope(act: nn.Module) -> float | Tensor | None:
    """The activation's slope below zero: 1 for none, 0 for ReLU, PReLU's weight; None for any other."""
    if isinstance(act, nn.Identity):
        return 1.0
    if isinstance(act, nn.ReLU):
        return 0.0
    if isinstance(act, nn.PReLU) and act.weight.numel() == 1:
        return act.weight
    return None


def _taps(conv: nn.Module) -> Taps | None:
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
    return Taps(kernel, conv.stride[0], sides, sides)


def _is_pointwise(conv: nn.Module) -> bool:
    """Whether a dense convolution has a single tap, so that it is one matrix product."""
    kinds = isinstance(conv, nn.Conv1d | nn.Conv2d) and conv.groups == 1
    return kinds and set(conv.kernel_size) == {1} and set(conv.stride) == {1} and not any(conv.padding)


def pointwise(conv: nn.Module, x: Tensor, rest: Tensor | None = None) -> Tensor:
    """A convolution with a single tap as one matrix product, plus `rest`: (B, C, …) -> (B, C', …)."""
    flat = x.flatten(2)
    weight = conv.weight.flatten(1).expand(len(x), -1, -1)
    if rest is not None:
        y = torch.baddbmm(rest.flatten(2), weight, flat)
        y = y if conv.bias is None else y + conv.bias[:, None]
    elif conv.bias is not None:
        y = torch.baddbmm(conv.bias[:, None], weight, flat)
    else:
        y = weight @ flat
    return y.unflatten(2, x.shape[2:]) if x.dim() == 4 else y


def _watched(*modules: nn.Module) -> bool:
    """Whether a hook waits on any of these modules: then they must really be called."""
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)


class FastConvNormAct(ConvNormAct):
    """Convolution, gLN and activation in one pass."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) -> (B, C', …)."""
        slope = _slope(self.act)
        if slope is None or not fits(x, self.conv.weight) or _watched(self.conv, self.norm, self.act):
            return super().forward(x)
        taps, bias = _taps(self.conv), self.conv.bias
        if isinstance(self.norm, GlobalLayerNorm):
            gamma, beta, eps = self.norm.weight, self.norm.bias, self.norm.eps
            if taps is not None:
                return NormAct.apply(x, taps, self.conv.weight, bias, gamma, beta, eps, slope)
            y = pointwise(self.conv, x) if _is_pointwise(self.conv) else self.conv(x)
            return NormAct.apply(y, Taps(), None, None, gamma, beta, eps, slope)
        if isinstance(self.norm, nn.Identity) and taps is not None and taps.kernel == (1, 1):
            return ScaleAct.apply(x, self.conv.weight.flatten(), bias, slope)
        return super().forward(x)


class FastInjectionSum(InjectionSum):
    """The gate and the shift stay coarse until the sum, which is one pass."""

    def forward(self, m: Tensor, n: Tensor, rest: Tensor | None = None) -> Tensor:
        """m (B, C, …), n (B, C, …) -> the shape of m; `rest`, of that shape too, is added."""
        if not fits(m, n):
            y = super().forward(m, n)
            return y if rest is None else y + rest
        if m.shape[2:].numel() <= n.shape[2:].numel():
            n = upsample(n, m)
        return Inject.apply(self.local(m), self.gate(n), self.embedding(n), rest)


class FastIntraA(FastInjectionSum, IntraA):
    """IntraA, and a short way for kernels of one tap: resampling first or last comes to the same but for the norms'
    statistics, in which a coarse position counts as often as it is repeated."""

    def repeated(self, m: Tensor, n: Tensor) -> Tensor:
        """What `forward(m, upsample(n, m))` is, with the convolutions and norms at the size of n."""
        skipped = [part for block in (self.gate, self.embedding) for part in block.modules()]
        if not fits(m, n) or m.shape[2] <= n.shape[2] or self.gate.conv.kernel_size != (1,) or _watched(self, *skipped):
            return self(m, upsample(n, m))
        places = upsample(torch.arange(n.shape[2], dtype=torch.float32)[None, None], m).long().flatten()
        counts = torch.bincount(places, minlength=n.shape[2]).to(n.dtype)
        gate, embedding = (_norm_of_repeated(block, n, counts) for block in (self.gate, self.embedding))
        return Inject.apply(self.local(m), gate, embedding, None)


def _norm_of_repeated(block: ConvNormAct, n: Tensor, counts: Tensor) -> Tensor:
    """A one-tap convolution and gLN as if position t of n (B, C, T) stood there counts[t] times."""
    y = n * block.conv.weight[:, 0]
    share = counts / (counts.sum() * y.shape[1])
    mean = (y * share).sum((1, 2), keepdim=True)
    variance = ((y - mean).square() * share).sum((1, 2), keepdim=True)
    scale = torch.rsqrt(variance + block.norm.eps) * block.norm.weight[:, None]
    return (y - mean) * scale + block.norm.bias[:, None]


class FastReconstruction(Reconstruction):
    """TF-AR with the residual added in the same pass."""

    def forward(self, levels: list[Tensor], g: Tensor) -> Tensor:
        """Levels (B, C, …), finest first, and G of the coarsest one's size -> the shape of the finest."""
        fused = [inject(level, g) for inject, level in zip(self.inject, levels, strict=True)]
        u = fused[-1]
        for i in reversed(range(len(self.merge))):
            watched = _watched(self.merge[i]) or not isinstance(self.merge[i], FastInjectionSum)
            u = self.merge[i](fused[i], u) + levels[i] if watched else self.merge[i](fused[i], u, levels[i])
        return u


class FastInterAMiddle(InterAMiddle):
    """The lips' gate, applied and added in one pass."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        """a (B, H, Tᵢ), v (B, D, Vᵢ) -> the shape of a."""
        if not fits(a, v) or a.shape[2] < v.shape[2]:
            return super().forward(a, v)
        gate = self.gate(v)
        return Inject.apply(a, gate, torch.zeros_like(gate), a)


class FastIIANetSeparation(IIANetSeparation):
    """The sound's global feature reaches each level without being written out at its size."""

    def attend_audio(self, levels: list[Tensor], top: Tensor) -> list[Tensor]:
        """IntraA at every level."""
        if not all(isinstance(intra, FastIntraA) for intra in self.audio_intra):
            return super().attend_audio(levels, top)
        return [intra.repeated(level, top) for intra, level in zip(self.audio_intra, levels, strict=True)]


class FastSRULayer(SRULayer):
    """Both directions, gates and highway in one pass over time."""

    def forward(self, x: Tensor) -> Tensor:
        """(L, B, n) -> (L, B, directions · d)."""
        if not fits(x, self.weight) or self.hidden_size > 512:
            return super().forward(x)
        by_product = self.weight.unflatten(1, (-1, self.k)).transpose(1, 2).flatten(1)
        highway = x if self.k == 3 else None
        return Scan.apply(x @ by_product, highway, self.weight_c, self.bias, self.hidden_size, self.directions)


class FastDualPathScan(DualPathScan):
    """Norm and windows in one pass, the overlap and the residual in another."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T, F) -> the same shape."""
        if not fits(x) or _watched(self.norm, self.fold):
            return super().forward(x)
        y = Windows.apply(x, self.norm.gamma, self.norm.beta, self.norm.eps, self.axis, self.window)
        y = self.rnn(y) @ self.fold.weight.flatten(1)
        return Overlap.apply(y, self.fold.bias, x, self.axis, self.window)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    ConvNormAct: FastConvNormAct,
    InjectionSum: FastInjectionSum,
    IntraA: FastIntraA,
    Reconstruction: FastReconstruction,
    InterAMiddle: FastInterAMiddle,
    IIANetSeparation: FastIIANetSeparation,
    SRULayer: FastSRULayer,
    DualPathScan: FastDualPathScan,
}


def use(model: nn.Module, fast: bool = True) -> nn.Module:
    """Switch a network's blocks to their fast or their readable form, in place; returns the network.

    Where the compiled operations cannot be had (`avkit.fast.why_not()` says why), nothing is changed.
    """
    if fast and not available():
        return model
    forms = FORMS if fast else {quick: readable for readable, quick in FORMS.items()}
    for module in model.modules():
        module.__class__ = forms.get(type(module), type(module))
    return model


@contextmanager
def readable(model: nn.Module) -> Iterator[nn.Module]:
    """The network with every block in its readable form, until the end of the `with`."""
    quick = [module for module in model.modules() if type(module) in FORMS.values()]
    use(model, False)
    try:
        yield model
    finally:
        for module in quick:
            use(module)


def in_use(model: nn.Module) -> bool:
    """Whether any block of a network has its fast form."""
    return any(type(module) in FORMS.values() for module in model.modules())
