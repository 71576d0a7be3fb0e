"""RTFS-Net's own blocks in their fast form (see `avkit.fast.modules`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avkit.fast import pending
from avkit.fast.functions import (
    FrameNorm,
    Fuse,
    Heads,
    Mask,
    Moments,
    NormAct,
    Overlap,
    Pointwise,
    ScaleAct,
    Taps,
    Windows,
    fit_together,
    fits,
    scale_act,
)
from avkit.fast.modules import (
    FastConvNormAct,
    FastInjectionSum,
    FastReconstruction,
    is_pointwise,
    pointwise,
    slope_of,
    taps_of,
    watched,
)
from avkit.fast.pending import Pending
from avkit.layers import Compression, ConvActNorm, ConvNormAct, GlobalLayerNorm, InjectionSum, upsample
from avkit.rtfs import (
    CAF,
    S3,
    AudioEncoder,
    Bottleneck,
    DualPathScan,
    RTFSBlock,
    RTFSNet,
    TFAttention,
    VisualBlock,
)


class FastAudioEncoder(AudioEncoder):
    """The spectrum in the order that everything after it is written in; PyTorch's comes with channels last."""

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, L) -> E, (B, C, T, F)."""
        spectrum = self.stft(waveform)
        return self.conv(spectrum.contiguous() if fits(spectrum) else spectrum)


class FastBottleneck(Bottleneck):
    """Norm and ReLU in one pass, the convolution as a matrix product."""

    def forward(self, encoded: Tensor) -> Tensor:
        """(B, C, T, F) -> a₀, the same shape."""
        if not fits(encoded, self.conv.weight) or watched(self.norm, self.conv):
            return super().forward(encoded)
        norm = self.norm
        return pointwise(self.conv, NormAct.apply(encoded, Taps(), None, None, norm.weight, norm.bias, norm.eps, 0.0))


class FastDualPathScan(DualPathScan):
    """Norm and windows in one pass, the overlap and the residual in another."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T, F) -> the same shape."""
        if not fits(x) or watched(self.norm, self.fold):
            return super().forward(x)
        y = Windows.apply(x, self.norm.gamma, self.norm.beta, self.norm.eps, self.axis, self.window)
        y = self.rnn(y) @ self.fold.weight.flatten(1)
        return Overlap.apply(y, self.fold.bias, x, self.axis, self.window)


class FastTFAttention(TFAttention):
    """The convolutions of all heads are one matrix product, their activations and norms one pass."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T, F) -> the same shape."""
        kinds = (self.queries, self.keys, self.values)
        blocks = [*(block for kind in kinds for block in kind), self.output]
        if not fits(x, self.output.conv.weight) or watched(*(part for block in blocks for part in block.modules())):
            return super().forward(x)
        if not all(isinstance(slope_of(block.act), Tensor) and is_pointwise(block.conv) for block in blocks):
            return super().forward(x)
        q, k, v = Heads.apply(_all_heads(blocks[:-1], x), self.output.norm.eps, *(t for kind in kinds for t in _norms(kind)))
        attention = torch.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=3)  # (B, heads, T, T)
        heads = (attention @ v).unflatten(3, (-1, x.shape[3])).transpose(2, 3)  # (B, heads, D / heads, T, F)
        y, norm = pointwise(self.output.conv, heads.reshape(x.shape)), self.output.norm
        return FrameNorm.apply(y, self.output.act.weight, norm.gamma, norm.beta, norm.eps, x)


def _all_heads(blocks: list[ConvActNorm], x: Tensor) -> Tensor:
    """The convolutions of all blocks side by side: (B, D, T, F) -> (B, their widths' sum, T, F)."""
    weight = torch.cat([block.conv.weight.flatten(1) for block in blocks])
    bias = torch.cat([block.conv.bias for block in blocks])
    return Pointwise.apply(x.flatten(2), weight, bias, None).unflatten(2, x.shape[2:])


def _norms(kind: nn.ModuleList) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes (heads,), gains and biases (heads, width, F) of one kind of embedding."""
    gains, biases = (torch.stack([getattr(block.norm, name)[0, :, 0] for block in kind]) for name in ("gamma", "beta"))
    return torch.cat([block.act.weight for block in kind]), gains, biases


class FastRTFSBlock(RTFSBlock):
    """The output's sum in the last matrix product; without gradients, norms are put off and one tensor serves as residual,
    sum and output."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, F) -> the same shape."""
        if not fits(x) or watched(self.expansion):
            return super().forward(x)
        if not torch.is_grad_enabled() and self.is_plain():
            return self.in_place(x.contiguous())
        residual = self.gateway(x)
        levels, g = self.compression(self.projection(residual))
        g = self.attention(self.scan_time(self.scan_frequency(g)))
        return pointwise(self.expansion, self.reconstruction(levels, g), residual)

    def is_plain(self) -> bool:
        """Whether every block outside of scans and attention is the network's own and no hook waits inside of it."""
        gateway, project, down, up = self.gateway, self.projection, self.compression, self.reconstruction
        kinds = (FastConvNormAct, FastConvNormAct, Compression, FastReconstruction)
        if any(type(block) is not kind for block, kind in zip((gateway, project, down, up), kinds, strict=True)):
            return False
        injections = [*up.inject, *up.merge]
        if any(type(block) is not FastInjectionSum for block in injections):
            return False
        convs = [*down, *(part for block in injections for part in (block.local, block.gate, block.embedding))]
        products = is_pointwise(project.conv) and is_pointwise(self.expansion) and type(project.norm) is GlobalLayerNorm
        scales = isinstance(gateway.norm, nn.Identity) and taps_of(gateway.conv) == Taps((1, 1))
        if not (products and scales) or None in (slope_of(gateway.act), slope_of(project.act)):
            return False
        inside = (gateway, project, down, up)
        return pending.can_be_put_off(*convs) and not watched(*(module for part in inside for module in part.modules()))

    def in_place(self, x: Tensor, rest: Tensor | None = None) -> Tensor:
        """The block at x + rest without gradients; both are contiguous. Without a rest x stays as it is, otherwise the output
        takes its place."""
        gate, project, expand = self.gateway.conv, self.projection, self.expansion
        out = scale_act(x, gate.weight.flatten(), gate.bias, float(slope_of(self.gateway.act)), expand.bias, rest)
        residual, weight = out.flatten(2), project.conv.weight.flatten(1)  # the residual, and the last product's bias
        bias = project.conv.bias - weight @ expand.bias
        raw = x.new_empty(len(x), len(weight), *x.shape[2:])
        torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), residual, out=raw.flatten(2))
        before = pending.settle(pending.moments_of(raw), raw[0, 0].numel(), project.norm)
        levels = self.compress(raw, before, float(slope_of(project.act)))
        g = self.attention(self.scan_time(self.scan_frequency(pending.total(levels))))
        u = self.reconstruct(levels, g.contiguous())
        return residual.baddbmm_(expand.weight.flatten(1).expand(len(x), -1, -1), u.flatten(2)).view_as(out)

    def compress(self, raw: Tensor, before: tuple[Tensor, Tensor], slope: float) -> list[Pending]:
        """Every level, pending, with its average at the coarsest one's size; the finest takes the place of `raw`."""
        rooms = [raw]
        for layer in list(self.compression)[1:]:
            rooms.append(raw.new_empty(*raw.shape[:2], *pending.size_after(layer, *rooms[-1].shape[2:])))
        levels: list[Pending] = []
        for layer, room in zip(self.compression, rooms, strict=True):
            given = (raw, room, rooms[-1], before, slope) if room is raw else (levels[-1], room, rooms[-1])
            levels.append(pending.conv(layer, *given))
        return levels

    def reconstruct(self, levels: list[Pending], g: Tensor) -> Tensor:
        """TF-AR on pending levels."""
        u = None
        for i in reversed(range(len(levels))):
            fused = self.inject(self.reconstruction.inject[i], levels[i], g, torch.empty_like(levels[i].raw))
            u = fused if u is None else self.inject(self.reconstruction.merge[i], fused, u, fused, levels[i])
        return u

    @staticmethod
    def inject(
        block: InjectionSum, m: Pending | Tensor, n: Tensor, into: Tensor, rest: Pending | None = None
    ) -> Tensor:
        """I(m, n) + rest; `into` takes the result and may be m. n is not finer than m."""
        gate, embedding = (pending.conv(part, n, torch.empty_like(n)) for part in (block.gate, block.embedding))
        return pending.merge(pending.conv(block.local, m, into), gate, embedding, pending.positions(into, n), rest)


class FastVisualBlock(VisualBlock):
    """The output's sum in the last matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 512, V) -> the same shape."""
        if not fits(x) or watched(self.expansion):
            return super().forward(x)
        residual = self.gateway(x)
        levels, g = self.compression(self.projection(residual))
        g = self.feed_forward(self.attention(g))
        return pointwise(self.expansion, self.reconstruction(levels, g), residual)


class FastCAF(CAF):
    """Each audio path is an affine map per channel, its batch norm folded in; both paths, gates and sum are one pass."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        """a (B, C, T, F), v (B, 512, V) -> (B, C, T, F)."""
        paths = (self.value, self.key)
        skipped = [module for path in paths for module in path.modules()]
        if not fit_together(a, v) or watched(*skipped) or uses_batch(self.value.norm) != uses_batch(self.key.norm):
            return super().forward(a, v)
        frames = a[..., 0]  # (B, C, T): the positions that lip features are resampled to
        attention, gate = upsample(self.attention_weights(v), frames), upsample(self.lip_gate(v), frames)
        mean, variance = Moments.apply(a) if uses_batch(self.value.norm) else (a.new_zeros(a.shape[1]), None)
        maps = [row for path in paths for row in _folded(path, mean, variance, a.numel() // a.shape[1])]
        return Fuse.apply(a, attention, gate, torch.stack(maps), mean)


def uses_batch(norm: nn.BatchNorm2d) -> bool:
    """Whether a batch norm takes its statistics from the batch."""
    return norm.training or norm.running_mean is None


def _folded(path: ConvNormAct, mean: Tensor, variance: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """What weights and batch norm make together: scale and shift (C,) of the input's deviation from `mean`.

    Args:
        mean, variance: the input's, over `count` numbers per channel; or zeros and None for the running statistics.
    """
    weight, norm = path.conv.weight.flatten(), path.norm
    if variance is None:
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return weight * scale, norm.bias - norm.running_mean * scale
    variance = variance * weight.square()
    if norm.training and norm.running_mean is not None:
        _keep(norm, mean.detach() * weight.detach(), variance.detach() * (count / (count - 1)))
    return weight * norm.weight * torch.rsqrt(variance + norm.eps), norm.bias


@torch.no_grad()
def _keep(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """The running statistics go a step towards a batch's mean and unbiased variance, as nn.BatchNorm2d has it."""
    norm.num_batches_tracked += 1
    step = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, step)
    norm.running_var.lerp_(variance, step)


class FastS3(S3):
    """Activation, matrix product, and rectified mask times encoding, each in one pass."""

    def forward(self, a: Tensor, encoded: Tensor) -> Tensor:
        """Features (B, C, T, F) and the encoder's output E of the same shape -> z, (B, n_src, C, T, F)."""
        if not fit_together(a, encoded) or self.act.weight.numel() > 1 or watched(self.act, self.conv):
            return super().forward(a, encoded)
        active = ScaleAct.apply(a, None, a.new_ones(a.shape[1]), None, self.act.weight)
        return Mask.apply(pointwise(self.conv, active).unflatten(1, (-1, a.shape[1])), encoded)


class FastRTFSNet(RTFSNet):
    """Without gradients, one tensor goes through all repeats."""

    def separate_features(self, a0: Tensor, lips: Tensor) -> Tensor:
        """a₀ (B, C, T, F) and lips (B, 512, V) -> the features that S³ turns into a mask, (B, C, T, F)."""
        block, caf = self.rtfs_block, self.caf
        plain = type(block) is FastRTFSBlock and type(caf) is FastCAF and not watched(block, block.expansion, caf)
        if torch.is_grad_enabled() or not (plain and fits(a0) and block.is_plain()):
            return super().separate_features(a0, lips)
        v, a0 = self.visual_block(lips), a0.contiguous()
        a = caf(block(a0), v).contiguous()  # a tensor that nobody else holds
        for _ in range(self.config.repeats - 1):
            a = block.in_place(a, a0)
        return a


FORMS = {
    RTFSNet: FastRTFSNet,
    AudioEncoder: FastAudioEncoder,
    Bottleneck: FastBottleneck,
    DualPathScan: FastDualPathScan,
    TFAttention: FastTFAttention,
    RTFSBlock: FastRTFSBlock,
    VisualBlock: FastVisualBlock,
    CAF: FastCAF,
    S3: FastS3,
}
