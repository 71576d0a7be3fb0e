"""What a trained network makes of one of the course's mixtures: lip features, both voices, and what they gain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avkit.lips import LipTransform
from avkit.metrics import si_snr_improvement
from avkit.teach.samples import Sample


@torch.no_grad()
def watch_lips(model: nn.Module, frames: Tensor) -> Tensor:
    """Mouth frames (B, F, 96, 96) uint8 -> (B, 512, F) lip features, by a trained network's own lip encoder."""
    return model.lips(LipTransform()(frames))


@torch.no_grad()
def both_voices(model: nn.Module, sample: Sample, features: Tensor | None = None) -> Tensor:
    """(2, L): what a network returns for either talker's lips; `features` (2, 512, V) spare their encoding."""
    features = watch_lips(model, sample.lips) if features is None else features
    return model(sample.mixture.expand(2, -1), features)[:, 0]


def gain(voices: Tensor, sample: Sample) -> float:
    """SI-SNRi in dB of (2, L) voices, mean of both."""
    return float(si_snr_improvement(voices, sample.voices, sample.mixture.expand(2, -1)).mean())
