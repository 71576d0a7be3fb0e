"""IIANet's own blocks in their fast form (see `avkit.fast.modules`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avkit.fast import pending
from avkit.fast.functions import Inject, fit_together, fits, nearest
from avkit.fast.modules import FastConvNormAct, FastInjectionSum, is_pointwise, pointwise, slope_of, watched
from avkit.fast.pending import Gates, Pending
from avkit.iianet import BottomUp, InterABottom, InterAMiddle, IntraA, Separation, TopDown
from avkit.layers import Compression, ConvNormAct, GlobalLayerNorm, upsample


class FastIntraA(FastInjectionSum, IntraA):
    """IntraA, and a short way for kernels of one tap: resampling first or last comes to the same but for the norms'
    statistics, in which a coarse position counts as often as it is repeated."""

    def repeated(self, m: Tensor, n: Tensor) -> Tensor:
        """What `forward(m, upsample(n, m))` is, with the convolutions and norms at the size of n."""
        skipped = [part for block in (self.gate, self.embedding) for part in block.modules()]
        if not fit_together(m, n) or m.shape[2] <= n.shape[2] or self.gate.conv.kernel_size != (1,) or watched(self, *skipped):
            return self(m, upsample(n, m))
        counts = torch.bincount(nearest(m.shape[2], n.shape[2]), minlength=n.shape[2]).to(n.dtype)
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


class FastTopDown(TopDown):
    """The expansion is a matrix product, forward and backward."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels (B, H, T / 2ⁱ), finest first -> (B, C, T)."""
        u = self.merged(levels)
        skip = fits(u, self.expansion.weight) and is_pointwise(self.expansion) and not watched(self.expansion)
        return pointwise(self.expansion, u) if skip else self.expansion(u)


class FastInterAMiddle(InterAMiddle):
    """The lips' gate, applied and added in one pass."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        """a (B, H, Tᵢ), v (B, D, Vᵢ) -> the shape of a."""
        if not fit_together(a, v) or a.shape[2] < v.shape[2]:
            return super().forward(a, v)
        gate = self.gate(v)
        return Inject.apply(a, gate, torch.zeros_like(gate), a)


class FastSeparation(Separation):
    """The sound's global feature reaches each level without being written out at its size; and where no gradient is wanted,
    the sound's norms are put off and its levels worked on in place, in memory that all cycles share."""

    def forward(self, a0: Tensor, v0: Tensor) -> Tensor:
        """a₀ (B, C, T), v₀ (B, D, V) -> (B, C, T)."""
        if torch.is_grad_enabled() or not fit_together(a0, v0) or not self.is_plain():
            return super().forward(a0, v0)
        room, a, v = Room.of(self, a0), a0, v0
        for cycle in range(self.fusion_cycles + self.audio_cycles):
            if cycle:
                a = self.audio_inter_bottom(a, a0)
            if 0 < cycle < self.fusion_cycles:
                v = self.video_inter_bottom(v, v0)
            a, v = self.cycle_in(room, a, v if cycle < self.fusion_cycles else None)
        return a

    def attend_audio(self, levels: list[Tensor], top: Tensor) -> list[Tensor]:
        """IntraA at every level: (B, H, Tᵢ) each, finest first, and the global feature of the coarsest one's size."""
        pairs = zip(self.audio_intra, levels, strict=True)
        return [
            intra.repeated(level, top) if isinstance(intra, FastIntraA) else intra(level, upsample(top, level))
            for intra, level in pairs
        ]

    def is_plain(self) -> bool:
        """Whether every block of the sound's stream is the network's own and no hook waits inside of it."""
        ups, down = self.audio_bottom_up, self.audio_top_down
        wanted = (
            *((block, FastIntraA) for block in (*self.audio_intra, *down.merge)),
            *((block, FastInterAMiddle) for block in self.inter_middle),
            (ups, BottomUp), (ups.compression, Compression), (ups.projection, FastConvNormAct), (down, FastTopDown),
        )  # fmt: skip
        if any(type(block) is not kind for block, kind in wanted):
            return False
        one_tap = [part for block in self.audio_intra for part in (block.local, block.gate, block.embedding)]
        merges = [part for block in down.merge for part in (block.local, block.gate, block.embedding)]
        if any(part.conv.kernel_size != (1,) or part.conv.bias is not None for part in one_tap):
            return False
        if type(ups.projection.norm) is not GlobalLayerNorm or slope_of(ups.projection.act) is None:
            return False
        inside = (ups, down, self.audio_intra, self.inter_middle)
        return pending.can_be_put_off(*ups.compression, *one_tap, *merges) and not watched(
            *(module for part in inside for module in part.modules())
        )

    def cycle_in(self, room: Room, a: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A fusion cycle, or without lips an audio cycle."""
        ups, middle = self.audio_bottom_up, [None] * len(self.audio_intra)
        levels, a_global = room.climb(ups, a)
        if v is not None:
            v_levels, v_global = self.video_bottom_up(v)
            a_global, v_global = self.inter_top(a_global, v_global)
            v_levels = [intra(level, v_global) for intra, level in zip(self.video_intra, v_levels, strict=True)]
            middle = [pending.dense(inter.gate, level) for inter, level in zip(self.inter_middle, v_levels, strict=True)]
            v = self.video_top_down(v_levels) + v
        else:
            a_global, _ = self.inter_top(a_global, None)
        gates = room.gates(self.audio_intra, levels, a_global, middle)
        u = gates[-1].apply(levels[-1].raw, None)
        for i in reversed(range(len(levels) - 1)):
            block = self.audio_top_down.merge[i]
            local = gates[i].apply(levels[i].raw, block.local)
            gate, embedding = (
                pending.conv(part, u, into) for part, into in zip((block.gate, block.embedding), room.coarse[i], strict=True)
            )
            u = pending.merge(local, gate, embedding, room.halves[i])
        return pointwise(self.audio_top_down.expansion, u, a), v


class Room:
    """Memory for one pass of the sound's stream through its levels, shared by all cycles of one call, and which position of
    a coarser level each position of a finer one reads."""

    def __init__(self, batch: int, hidden: int, sizes: list[int]):
        self.levels = [torch.empty(batch, hidden, size) for size in sizes]
        self.coarse = [(torch.empty_like(level), torch.empty_like(level)) for level in self.levels[1:]]
        self.halves = [pending.positions(*pair) for pair in zip(self.levels, self.levels[1:], strict=False)]
        self.places = [nearest(size, sizes[-1]).int() for size in sizes]
        self.counts = [torch.bincount(places, minlength=sizes[-1]).float() for places in self.places]

    @classmethod
    def of(cls, separation: Separation, a0: Tensor) -> Room:
        """The room that a₀ (B, C, T) needs."""
        sizes = [a0.shape[2]]
        for layer in list(separation.audio_bottom_up.compression)[1:]:
            sizes.append(pending.size_after(layer, 1, sizes[-1])[1])
        return cls(len(a0), separation.audio_bottom_up.projection.conv.out_channels, sizes)

    def climb(self, ups: BottomUp, a: Tensor) -> tuple[list[Pending], Tensor]:
        """Projection and compression: the levels, and the global feature."""
        projection, raw = ups.projection, self.levels[0]
        weight, bias = projection.conv.weight.flatten(1), projection.conv.bias
        torch.baddbmm(bias[:, None], weight.expand(len(a), -1, -1), a.contiguous(), out=raw)
        before = pending.settle(pending.moments_of(raw), raw.shape[2], projection.norm)
        pooled, slope = self.levels[-1], float(slope_of(projection.act))
        levels = [pending.conv(ups.compression[0], raw, raw, pooled, before, slope)]
        for layer, into in zip(list(ups.compression)[1:], self.levels[1:], strict=True):
            levels.append(pending.conv(layer, levels[-1], into, pooled))
        return levels, pending.total(levels)

    def gates(
        self, intra: nn.ModuleList, levels: list[Pending], top: Tensor, middle: list[Pending | None]
    ) -> list[Gates]:
        """IntraA of every level, whose one-tap convolutions and norms come down to a scale and a shift."""
        top, gates = top.contiguous(), []
        for block, level, places, counts, lips in zip(intra, levels, self.places, self.counts, middle, strict=True):
            size = level.raw.shape[2]
            local = pending.settle(level.moments, size, block.local.norm, level.maps, block.local.conv.weight)
            moments = pending.moments_of(top, counts)
            rest = [pending.settle(moments, size, part.norm, None, part.conv.weight) for part in (block.gate, block.embedding)]
            maps = [*local, *rest[0], *rest[1]]
            if lips is None:
                gates.append(Gates(top, places, maps))
            else:
                frames = nearest(size, lips.raw.shape[2]).int()
                gates.append(Gates(top, places, [*maps, *lips.maps], lips.raw, frames))
        return gates


class FastInterABottom(InterABottom):
    """Sum, weights and activation in one pass."""

    def forward(self, x: Tensor, first: Tensor) -> Tensor:
        """Two tensors (B, C, T) -> the same shape."""
        quick = isinstance(self.weigh, FastConvNormAct) and x.shape == first.shape and not watched(self.weigh)
        return self.weigh(x, first) if quick else self.weigh(x + first)


FORMS = {
    IntraA: FastIntraA,
    TopDown: FastTopDown,
    InterAMiddle: FastInterAMiddle,
    InterABottom: FastInterABottom,
    Separation: FastSeparation,
}
