"""What a trained network makes of a mixture, as notebooks ask for it."""

import pytest
import torch

from avkit.metrics import si_snr
from avkit.teach.samples import find_data, load_sample
from avkit.teach.trained import both_voices, gain


class Louder(torch.nn.Module):
    """Lips are their mean gray; the output is the mixture times that."""

    def lips(self, frames):
        return frames.mean(dim=(1, 3, 4))[:, None]  # (B, 1, F)

    def forward(self, mixture, features):
        return (mixture * features.mean(dim=(1, 2))[:, None])[:, None]


def test_each_voice_comes_from_its_own_talkers_lips():
    sample, model = load_sample(find_data("talkers"), 0), Louder()
    voices = both_voices(model, sample)
    assert voices.shape == (2, len(sample.mixture)) and not torch.equal(*voices)
    swapped = both_voices(model, sample, torch.ones(2, 1, 3) * torch.tensor([2.0, 3.0])[:, None, None])
    assert torch.equal(swapped, torch.stack([2 * sample.mixture, 3 * sample.mixture]))


def test_gain_is_the_mean_of_both_talkers_above_the_mixture():
    sample = load_sample(find_data("talkers"), 0)
    assert gain(2 * sample.mixture.expand(2, -1), sample) == pytest.approx(0, abs=1e-4)
    noisy = sample.voices + 0.01 * torch.randn(sample.voices.shape, generator=torch.Generator().manual_seed(0))
    each = [float(si_snr(voice, own) - si_snr(sample.mixture, own)) for voice, own in zip(noisy, sample.voices, strict=True)]
    assert gain(noisy, sample) == pytest.approx(sum(each) / 2, abs=1e-4) and each[0] != each[1]
