"""Lips: from 96×96 gray mouth crops to the 512 features per frame that both networks take.

The encoder is a 3-D convolutional front end and a ResNet-18 trunk, trained on words and then frozen (Ma et al. 2021).
Frames come as (F, 96, 96) uint8; `LipTransform` crops and normalises them, `LipEncoder` does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avkit.errors import InputError

FRAME_SIZE = 96  # pixels, of a stored mouth crop
CROP_SIZE = 88  # pixels, of what the encoder sees
MEAN, STD = 0.421, 0.165  # of gray values in [0, 1] (official code)


def check_lips(mixture: Tensor, lips: Tensor, lip_channels: int, shortest: int) -> Tensor:
    """Refuse what a network cannot take, in words; return the mixture as (B, L).

    Args:
        mixture: (B, L) or (B, 1, L) samples.
        lips: (B, lip_channels, V) features.
        shortest: fewest samples that the network can take.
    """
    if mixture.dim() == 3 and mixture.shape[1] == 1:
        mixture = mixture[:, 0]
    if mixture.dim() != 2:
        raise InputError(f"mixture has shape {tuple(mixture.shape)}; wanted (B, L) or (B, 1, L) samples at 16 kHz")
    if lips.dim() != 3 or lips.shape[1] != lip_channels:
        raise InputError(
            f"lips have shape {tuple(lips.shape)}; wanted (B, {lip_channels}, V) features: "
            "frames of pixels become features with avkit.LipEncoder"
        )
    if lips.shape[0] != mixture.shape[0]:
        raise InputError(
            f"{mixture.shape[0]} mixtures came with {lips.shape[0]} sets of lips; give one set of lips per mixture"
        )
    if lips.shape[2] == 0:
        raise InputError("lips hold no frames; the network needs at least one")
    if mixture.shape[1] < shortest:
        raise InputError(
            f"the mixture has {mixture.shape[1]} samples; this network needs at least {shortest} "
            f"({shortest / 16000:.2f} s at 16 kHz): pass a longer one, or pad it with zeros"
        )
    return mixture


class LipTransform:
    """Crop to 88×88 and normalise: (F, 96, 96) or (B, F, 96, 96) uint8 -> (1, F, 88, 88) or (B, 1, F, 88, 88) float.

    In training one random crop and one flip with probability 0.5 hold for all frames of a clip; else the centre crop.

    Args:
        training: augment.
        generator: draws the crop and the flip; the default generator where none is given.
    """

    def __init__(self, training: bool = False, generator: torch.Generator | None = None):
        self.training, self.generator = training, generator

    def __call__(self, frames: Tensor) -> Tensor:
        if frames.dtype != torch.uint8:
            raise InputError(
                f"frames are {str(frames.dtype).removeprefix('torch.')}; wanted uint8 gray values 0…255 as stored in a "
                "mouths file (float frames may be scaled in ways that cannot be seen from here)"
            )
        if frames.dim() not in (3, 4) or frames.shape[-2:] != (FRAME_SIZE, FRAME_SIZE):
            hint = ""
            if frames.shape[-2:] == (120, 120):
                hint = "; 120×120 crops come from another, unaligned recipe: cut them again as 96×96"
            raise InputError(
                f"frames have shape {tuple(frames.shape)}; wanted (F, 96, 96) or (B, F, 96, 96) gray mouth crops{hint}"
            )
        if frames.shape[-3] == 0:
            raise InputError("the clip holds no frames")
        top = left = (FRAME_SIZE - CROP_SIZE) // 2
        flip = False
        if self.training:
            margin = FRAME_SIZE - CROP_SIZE + 1
            top, left = torch.randint(margin, (2,), generator=self.generator).tolist()
            flip = bool(torch.rand((), generator=self.generator) < 0.5)
        crop = frames[..., top : top + CROP_SIZE, left : left + CROP_SIZE]
        if flip:
            crop = crop.flip(-1)
        return ((crop.float() / 255 - MEAN) / STD).unsqueeze(-4)


@dataclass(frozen=True)
class LipEncoderConfig:
    """Widths of a lip encoder. The defaults are the published one's (11.2 M parameters)."""

    stem: int = 64  # channels of the 3-D front end
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)  # of the trunk's four stages
    features: int = 512  # numbers per frame; a linear layer brings a narrower trunk there


class FrontEnd(nn.Sequential):
    """Five frames at a time: 3-D convolution, batch norm, PReLU, max-pool. (B, 1, F, H, W) -> (B, C, F, H / 4, W / 4)."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv3d(1, channels, (5, 7, 7), stride=(1, 2, 2), padding=(2, 3, 3), bias=False),
            nn.BatchNorm3d(channels),
            nn.PReLU(channels),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm and per-channel PReLU around a shortcut (He et al. 2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.PReLU(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + shortcut)


class LipEncoder(nn.Module):
    """(B, 1, F, 88, 88) normalised gray -> (B, 512, F).

    Frozen unless `unfreeze()` is called: its parameters ask for no gradient and its batch norms keep their running
    statistics, whoever calls `.train()` on it or on a module that holds it. (In IIANet's public training code they
    drift, and what drifted is not saved.)
    """

    def __init__(self, config: LipEncoderConfig = LipEncoderConfig()):
        super().__init__()
        self.config = config
        self.frozen = True
        self.frontend = FrontEnd(config.stem)
        inputs = (config.stem, *config.widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(before, width, 1 if i == 0 else 2), BasicBlock(width, width, 1))
            for i, (before, width) in enumerate(zip(inputs, config.widths, strict=True))
        )
        same = config.widths[-1] == config.features
        self.projection = nn.Identity() if same else nn.Linear(config.widths[-1], config.features)
        self.freeze()

    def freeze(self) -> LipEncoder:
        """No gradients, batch norms in eval mode for good."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(False)

    def unfreeze(self) -> LipEncoder:
        """Let it learn: for pre-training only."""
        self.frozen = False
        self.requires_grad_(True)
        return self.train(True)

    def train(self, mode: bool = True) -> LipEncoder:
        """As nn.Module.train, but a frozen encoder stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, frames: Tensor) -> Tensor:
        """Raises InputError where the shape is not (B, 1, F, 88, 88) float."""
        if frames.dim() != 5 or frames.shape[1] != 1 or frames.shape[-2:] != (CROP_SIZE, CROP_SIZE):
            raise InputError(
                f"frames have shape {tuple(frames.shape)}; wanted (B, 1, F, 88, 88) normalised gray: "
                "avkit.lips.LipTransform makes it from uint8 crops"
            )
        if not frames.is_floating_point():
            raise InputError(f"frames are {frames.dtype}; wanted normalised floats: see avkit.lips.LipTransform")
        if frames.shape[2] == 0:
            raise InputError("the clip holds no frames")
        y = self.frontend(frames)  # (B, 64, F, 22, 22)
        batch, _, count = y.shape[:3]
        y = y.transpose(1, 2).flatten(0, 1)  # (B·F, 64, 22, 22)
        for stage in self.stages:
            y = stage(y)  # at last (B·F, 512, 3, 3)
        y = self.projection(y.mean(dim=(2, 3)))  # (B·F, 512)
        return y.view(batch, count, -1).transpose(1, 2)
