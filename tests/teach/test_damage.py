"""Voices spoilt on purpose: each damage does what it says, and by as much as it says."""

from __future__ import annotations

import pytest
import torch

from avkit.errors import InputError
from avkit.metrics import si_snr
from avkit.teach import damage, find_data, load_sample


@pytest.fixture(scope="module")
def voices():
    return load_sample(find_data("talkers"), 1).voices.double()


def test_late_by_whole_samples_is_a_shift(voices):
    voice = voices[0]
    shifted = torch.cat([torch.zeros(7, dtype=voice.dtype), voice[:-7]])
    torch.testing.assert_close(damage.late(voice, 7), shifted, atol=1e-9, rtol=0)
    torch.testing.assert_close(damage.late(voice, -7)[:-7], voice[7:], atol=1e-9, rtol=0)
    assert damage.late(voice.float(), 3).dtype == torch.float32


def test_half_a_sample_twice_is_one():
    tone = torch.sin(2 * torch.pi * 0.05 * torch.arange(2000, dtype=torch.float64))
    tone *= torch.hann_window(2000, dtype=torch.float64)
    twice = damage.late(damage.late(tone, 0.5), 0.5)
    torch.testing.assert_close(twice, damage.late(tone, 1), atol=1e-5, rtol=0)
    expected = torch.sin(2 * torch.pi * 0.05 * (torch.arange(2000) - 0.5))[900:1100]
    assert (damage.late(tone, 0.5)[900:1100] / expected.double()).median() > 0.95


def test_leak_and_hiss_have_the_level_asked_for(voices):
    voice, other = voices
    for added in (damage.leak(voice, other, 14) - voice, damage.hiss(voice, 14) - voice):
        level = 10 * torch.log10(voice.square().mean() / added.square().mean())
        assert float(level) == pytest.approx(14, abs=1e-6)


def test_clipped_and_muffled(voices):
    voice = voices[0]
    assert float(damage.clipped(voice, 0.3).abs().max()) == pytest.approx(0.3 * float(voice.abs().max()))
    torch.testing.assert_close(damage.clipped(voice, 1), voice)
    spectrum = torch.fft.rfft(damage.muffled(voice, 1500)).abs()
    hertz = torch.fft.rfftfreq(len(voice), 1 / 16000)
    assert spectrum[hertz > 1500].max() < 1e-9 * spectrum.max()
    torch.testing.assert_close(spectrum[hertz < 1490], torch.fft.rfft(voice).abs()[hertz < 1490])


def test_gap_is_one_stretch_with_its_share_of_the_energy(voices):
    voice = voices[0] + 1e-4  # no sample is silent by itself
    spoilt = damage.gapped(voice, 0.1)
    gone = spoilt != voice
    where = gone.nonzero()[:, 0]
    assert len(where) == where[-1] - where[0] + 1 and (spoilt[gone] == 0).all()
    share = float(voice[gone].square().sum() / voice.square().sum())
    assert 0.09 < share <= 0.1
    lengths = [
        len(damage.gapped(voice, amount)) - int((damage.gapped(voice, amount) == voice).sum())
        for amount in (0.05, 0.2)
    ]
    assert lengths[0] < len(where) < lengths[1]


def test_silenced_is_silent_there_and_untouched_elsewhere(voices):
    voice = voices[0] + 1e-4  # no sample is silent by itself
    spoilt = damage.silenced(voice, 0.5, 0.75)
    assert (spoilt[8000:12000] == 0).all()
    assert torch.equal(spoilt[:8000], voice[:8000]) and torch.equal(spoilt[12000:], voice[12000:])


def test_all_reach_the_score_asked_for(voices):
    for db in (10.0, 6.0):
        spoilt = damage.at_one_score(*voices, db)
        assert len(spoilt) == 6
        for name, sound in spoilt.items():
            assert float(si_snr(sound, voices[0])) == pytest.approx(db, abs=0.02), name


def test_amounts_on_one_side_are_refused(voices):
    with pytest.raises(InputError, match="must lie above"):
        damage.spoil_until(lambda amount: damage.hiss(voices[0], amount), voices[0], 10, mild=60, severe=40)
