"""The lip encoder in its fast form, for a frozen encoder (see `avkit.fast.modules`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, pad

from avkit.fast.functions import affine_, fits
from avkit.fast.modules import watched
from avkit.lips import BasicBlock, FrontEnd

WIDE = 128  # channels; above, PyTorch's convolution is faster with channels second, below with channels last


def _settled(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a batch norm in eval mode."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _norm_act(x: Tensor, norm: nn.Module, slope: Tensor, rest: Tensor | None = None) -> Tensor:
    """Batch norm, `rest`, PReLU, in place."""
    return affine_(x, *_settled(norm), slope, rest)


def _frozen(module: nn.Module, x: Tensor) -> bool:
    """Whether the fast way fits: no gradients, running statistics, and no hook that waits."""
    inner = [part for part in module.modules() if part is not module]
    learns = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters()))
    return not (learns or module.training or watched(*inner)) and fits(x, next(module.parameters()))


class FastFrontEnd(FrontEnd):
    """The convolution sees five frames as the five channels of one picture; channels come last in memory."""

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 1, F, H, W) -> (B, C, F, H / 4, W / 4)."""
        if not _frozen(self, frames):
            return super().forward(frames)
        conv, norm, act, _ = self
        depth = conv.kernel_size[0]
        padded = pad(frames[:, 0], (0, 0, 0, 0, depth // 2, depth // 2))
        pictures = padded.unfold(1, depth, 1).flatten(0, 1).movedim(3, 1)  # (B·F, 5, H, W)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        y = conv2d(pictures, conv.weight[:, 0], stride=conv.stride[1:], padding=conv.padding[1:])
        y = max_pool2d(_norm_act(y, norm, act.weight), 3, 2, 1)
        return y.unflatten(0, (len(frames), -1)).transpose(1, 2)


class FastBasicBlock(BasicBlock):
    """Each norm, sum and activation in one pass."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H / stride, W / stride)."""
        if not _frozen(self, x):
            return super().forward(x)
        wide = self.conv1.out_channels > WIDE
        shortcut = x = x.contiguous(memory_format=torch.contiguous_format if wide else torch.channels_last)
        if self.downsample is not None:
            conv, norm = self.downsample
            shortcut = _norm_act(conv(x), norm, torch.ones_like(norm.weight))
        y = _norm_act(self.conv1(x), self.bn1, self.relu1.weight)
        return _norm_act(self.conv2(y), self.bn2, self.relu2.weight, shortcut)


FORMS = {FrontEnd: FastFrontEnd, BasicBlock: FastBasicBlock}
