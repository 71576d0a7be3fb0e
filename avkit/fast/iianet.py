"""IIANet's own blocks in their fast form (see `avkit.fast.modules`)."""

from __future__ import annotations

import torch
from torch import Tensor

from avkit.fast.functions import Inject, fit_together
from avkit.fast.modules import FastConvNormAct, FastInjectionSum, watched
from avkit.iianet import InterABottom, InterAMiddle, IntraA, Separation
from avkit.layers import ConvNormAct, upsample


class FastIntraA(FastInjectionSum, IntraA):
    """IntraA, and a short way for kernels of one tap: resampling first or last comes to the same but for the norms'
    statistics, in which a coarse position counts as often as it is repeated."""

    def repeated(self, m: Tensor, n: Tensor) -> Tensor:
        """What `forward(m, upsample(n, m))` is, with the convolutions and norms at the size of n."""
        skipped = [part for block in (self.gate, self.embedding) for part in block.modules()]
        if not fit_together(m, n) or m.shape[2] <= n.shape[2] or self.gate.conv.kernel_size != (1,) or watched(self, *skipped):
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


class FastInterAMiddle(InterAMiddle):
    """The lips' gate, applied and added in one pass."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        """a (B, H, Tᵢ), v (B, D, Vᵢ) -> the shape of a."""
        if not fit_together(a, v) or a.shape[2] < v.shape[2]:
            return super().forward(a, v)
        gate = self.gate(v)
        return Inject.apply(a, gate, torch.zeros_like(gate), a)


class FastSeparation(Separation):
    """The sound's global feature reaches each level without being written out at its size."""

    def attend_audio(self, levels: list[Tensor], top: Tensor) -> list[Tensor]:
        """IntraA at every level."""
        if not all(isinstance(intra, FastIntraA) for intra in self.audio_intra):
            return super().attend_audio(levels, top)
        return [intra.repeated(level, top) for intra, level in zip(self.audio_intra, levels, strict=True)]


class FastInterABottom(InterABottom):
    """Sum, weights and activation in one pass."""

    def forward(self, x: Tensor, first: Tensor) -> Tensor:
        """Two tensors (B, C, T) -> the same shape."""
        quick = isinstance(self.weigh, FastConvNormAct) and x.shape == first.shape and not watched(self.weigh)
        return self.weigh(x, first) if quick else self.weigh(x + first)


FORMS = {
    IntraA: FastIntraA,
    InterAMiddle: FastInterAMiddle,
    InterABottom: FastInterABottom,
    Separation: FastSeparation,
}
