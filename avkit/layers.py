"""Blocks that both networks share. Shapes: one-dimensional (B, C, T), two-dimensional (B, C, T, F)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, interpolate, pad

from avkit import norm_gpu

POOL = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d}


class GlobalLayerNorm(nn.GroupNorm):
    """gLN: mean and variance over channels and all positions of one item; gain and bias per channel
    (Luo and Mesgarani 2019, Conv-TasNet, section II-D)."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__(1, channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) -> the same shape."""
        if norm_gpu.fits(x, self.weight):
            return norm_gpu.global_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)


class LayerNorm4D(nn.Module):
    """Layer normalisation over those axes along which the gain extends.

    (1, C, 1, 1) normalises each time–frequency point over its channels; (1, C, 1, F) each frame over channels and
    frequencies. The variance is the biased one and `eps` stands inside the root.
    """

    def __init__(self, shape: tuple[int, int, int, int], eps: float = 1e-5):
        super().__init__()
        self.axes = [axis for axis, size in enumerate(shape) if size > 1]
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, F) -> the same shape."""
        mean = x.mean(self.axes, keepdim=True)
        variance = x.var(self.axes, unbiased=False, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.gamma + self.beta


class ConvNormAct(nn.Module):
    """Convolution, then norm, then activation; what is not given is left out."""

    def __init__(self, conv: nn.Module, norm: nn.Module | None = None, act: nn.Module | None = None):
        super().__init__()
        self.conv = conv
        self.norm = norm if norm is not None else nn.Identity()
        self.act = act if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class ConvActNorm(nn.Module):
    """Convolution, then activation, then norm: the order inside RTFS-Net's attention."""

    def __init__(self, conv: nn.Module, act: nn.Module, norm: nn.Module):
        super().__init__()
        self.conv, self.act, self.norm = conv, act, norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.act(self.conv(x)))


class PReLU(nn.PReLU):
    """nn.PReLU with one slope; on a CPU its backward pass costs a fraction of PyTorch's."""

    def forward(self, x: Tensor) -> Tensor:
        if (
            x.is_cuda
            or self.weight.numel() > 1
            or not torch.is_grad_enabled()
            or x.dtype != self.weight.dtype
        ):
            return super().forward(x)
        return _PReLU.apply(x, self.weight)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return torch.prelu(x, slope)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        below = grad * (x < 0)
        return torch.addcmul(grad, below, slope - 1), (below * x).sum().view(1)


class DropPath(nn.Module):
    """Stochastic depth: while training, a whole item of the batch is zeroed with probability `p`, the others are
    scaled by 1 / (1 - p) (Huang et al. 2016)."""

    def __init__(self, p: float = 0.1):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.p
        return x * keep.to(x.dtype) / (1 - self.p)


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Nearest-neighbour resampling of `x` to the positions (all axes after channels) of `like`."""
    size = like.shape[2:]
    return x if x.shape[2:] == size else interpolate(x, size=size, mode="nearest")


def pool_to(x: Tensor, like: Tensor) -> Tensor:
    """Average-pool `x` to the positions of `like`."""
    size = like.shape[2:]
    return x if x.shape[2:] == size else POOL[len(size)](x, size)


class ChannelScale(nn.Conv2d):
    """A depthwise 1×1 convolution: each channel times its own weight, plus its own bias if it has one.

    Written as the product that it is; PyTorch's grouped convolution computes the same more slowly.
    """

    def __init__(self, channels: int, bias: bool = True):
        super().__init__(channels, channels, 1, groups=channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, F) -> the same shape."""
        y = x * self.weight[:, 0]
        return y if self.bias is None else y + self.bias[:, None, None]


class _PadSame:
    """Zeros so that stride 1 keeps every size; an even kernel gets one less before than after. (`padding="same"`
    computes the same and warns about even kernels.)"""

    def forward(self, x: Tensor) -> Tensor:
        sides = [((k - 1) // 2, k // 2) for k in reversed(self.kernel_size)]
        return super().forward(pad(x, [side for pair in sides for side in pair]))


class SameConv2d(_PadSame, nn.Conv2d):
    """(B, C, T, F) -> (B, C', T, F)."""


class DepthwiseConv1d(nn.Conv1d):
    """A convolution of every channel with its own taps, an odd number: (B, C, T) -> (B, C, ⌈T / stride⌉).

    On a CPU a single tap is the product that it is, and small inputs are summed tap by tap: PyTorch's convolution takes
    small inputs channel by channel, which is slower.
    """

    SMALL = 20_480  # numbers; up to here PyTorch goes channel by channel

    def __init__(self, channels: int, kernel: int, stride: int = 1, bias: bool = True):
        super().__init__(channels, channels, kernel, stride, (kernel - 1) // 2, groups=channels, bias=bias)

    def by_taps(self, x: Tensor) -> bool:
        """Whether this input is summed tap by tap."""
        return x.device.type == "cpu" and (self.kernel_size == (1,) or x.numel() <= self.SMALL)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, ⌈T / stride⌉)."""
        if not self.by_taps(x):
            return super().forward(x)
        (taps,), (stride,), (side,) = self.kernel_size, self.stride, self.padding
        x = pad(x, (side, side)) if side else x
        last = (x.shape[2] - taps) // stride * stride  # where the last window begins
        y = None if self.bias is None else self.bias[:, None]
        for tap in range(taps):
            seen, weight = x[:, :, tap : tap + last + 1 : stride], self.weight[:, :, tap]
            y = seen * weight if y is None else torch.addcmul(y, seen, weight)
        return y


def depthwise_conv(dims: int, channels: int, kernel: int, stride: int = 1, bias: bool = True) -> nn.Module:
    """A depthwise convolution along one axis or two, "same" for a stride of 1."""
    if dims == 1:
        return DepthwiseConv1d(channels, kernel, stride, bias)
    if stride == 1:
        return SameConv2d(channels, channels, kernel, groups=channels, bias=bias)
    return nn.Conv2d(
        channels, channels, kernel, stride, padding=(kernel - 1) // 2, groups=channels, bias=bias
    )


def depthwise(dims: int, channels: int, kernel: int, norm: type[nn.Module]) -> ConvNormAct:
    """A depthwise "same" convolution without bias, then a norm."""
    return ConvNormAct(depthwise_conv(dims, channels, kernel, bias=False), norm(channels))


class InjectionSum(nn.Module):
    """I(m, n) of RTFS-Net, section 3.2.2: coarse features `n` gate and shift fine features `m`.

        I(m, n) = W₁(m) · up(σ(W₂(n))) + up(W₃(n))

    Each W is a depthwise convolution with a norm; `up` is nearest-neighbour. Where `m` is the larger, `n` passes its
    convolutions at its own size and is resampled after them; otherwise it is resampled first.

    Args:
        channels: C of both inputs.
        kernel: taps of each depthwise convolution, along every axis.
        dims: 1 for (B, C, T), 2 for (B, C, T, F).
        norm: a norm's class, called with `channels`.
    """

    def __init__(self, channels: int, kernel: int, dims: int, norm: type[nn.Module]):
        super().__init__()
        self.local = depthwise(dims, channels, kernel, norm)
        self.gate = depthwise(dims, channels, kernel, norm)
        self.embedding = depthwise(dims, channels, kernel, norm)

    def forward(self, m: Tensor, n: Tensor) -> Tensor:
        """m (B, C, …), n (B, C, …) -> the shape of m."""
        if m.shape[2:].numel() <= n.shape[2:].numel():
            n = upsample(n, m)
        gate = upsample(torch.sigmoid(self.gate(n)), m)
        return self.local(m) * gate + upsample(self.embedding(n), m)


class Compression(nn.ModuleList):
    """The levels d₀ … d₍q₋₁₎: depthwise convolutions with a norm, the first at full size, each later one halving
    every axis (RTFS-Net, section 3.2.1)."""

    def __init__(self, channels: int, kernel: int, levels: int, dims: int, norm: type[nn.Module]):
        super().__init__(
            ConvNormAct(depthwise_conv(dims, channels, kernel, stride=2 if level else 1), norm(channels))
            for level in range(levels)
        )

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, C, …) -> the levels, finest first, and their sum G, pooled to the coarsest one's size."""
        levels = []
        for layer in self:
            x = layer(x)
            levels.append(x)
        return levels, sum(pool_to(level, levels[-1]) for level in levels)


class Reconstruction(nn.Module):
    """TF-AR: the global feature G is injected into every level, then the levels are merged from the coarsest up
    (RTFS-Net, section 3.2.2):  fᵢ = I(dᵢ, G);  u = f₍q₋₁₎;  u ← I′ᵢ(fᵢ, u) + dᵢ for i = q−2 … 0."""

    def __init__(self, channels: int, kernel: int, levels: int, dims: int, norm: type[nn.Module]):
        super().__init__()
        self.inject = nn.ModuleList(InjectionSum(channels, kernel, dims, norm) for _ in range(levels))
        self.merge = nn.ModuleList(InjectionSum(channels, kernel, dims, norm) for _ in range(levels - 1))

    def forward(self, levels: list[Tensor], g: Tensor) -> Tensor:
        """Levels (B, C, …), finest first, and G of the coarsest one's size -> the shape of the finest."""
        fused = [inject(level, g) for inject, level in zip(self.inject, levels, strict=True)]
        u = fused[-1]
        for i in reversed(range(len(self.merge))):
            u = self.merge[i](fused[i], u) + levels[i]
        return u
