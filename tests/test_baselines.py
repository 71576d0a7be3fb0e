"""Oracle masks and lip controls."""

import pytest
import torch

from avkit import baselines, metrics
from avkit.baselines import COMPLEX_LIMIT, CONTROLS, ORACLES, ideal_mask, late, lip_control, oracle, still
from avkit.errors import InputError


def spectra(seed=0):
    """Two sources (2, F, T) and their mixture (F, T), complex."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(2, 5, 7, dtype=torch.complex128, generator=generator)
    return sources, sources.sum(0)


def voices(seconds=1.0):
    """Two buzzes (2, T) that overlap in time and frequency."""
    time = torch.arange(int(16000 * seconds)) / 16000
    rows = []
    for pitch, rate in ((110.0, 3.0), (173.0, 4.0)):
        tone = sum(torch.sin(2 * torch.pi * k * pitch * time) / k for k in range(1, 30))
        rows.append(0.1 * tone * (1 + torch.sin(2 * torch.pi * rate * time)))
    return torch.stack(rows)


def test_ratio_masks_share_out_the_mixture():
    sources, mixture = spectra()
    mask = ideal_mask("irm", sources, mixture)
    torch.testing.assert_close(mask.sum(0), torch.ones(5, 7, dtype=torch.float64))
    assert mask[0, 0, 0].item() == pytest.approx(
        (sources[0, 0, 0].abs() / (sources[0, 0, 0].abs() + sources[1, 0, 0].abs())).item()
    )


def test_phase_sensitive_mask_by_hand():
    mixture = torch.tensor([[1.0 + 0j, 2j, 1.0 + 0j, 1.0 + 0j]])
    source = torch.tensor([[[0.5 + 9j, 1.0 + 1j, -1.0 + 0j, 3.0 + 0j]]])
    expected = torch.tensor([[[0.5, 0.5, 0.0, 1.0]]])  # cut below 0 and above 1
    torch.testing.assert_close(ideal_mask("psm", source, mixture), expected)


def test_complex_mask_restores_the_source_but_where_it_is_cut():
    sources, mixture = spectra()
    mask = ideal_mask("crm", sources, mixture)
    free = (sources / mixture).abs() <= COMPLEX_LIMIT
    assert free.any() and not free.all()
    torch.testing.assert_close((mask * mixture)[free], sources[free])
    assert mask.abs().max() <= COMPLEX_LIMIT + 1e-9
    torch.testing.assert_close(mask.angle(), (sources / mixture).angle())  # the phase is never cut


@pytest.mark.parametrize("mask", baselines.MASKS)
def test_masks_of_silence_are_finite(mask):
    sources, mixture = spectra()
    sources[:, 0] = 0
    mixture[0] = 0
    mixture[1] = 0  # sources that cancel
    found = ideal_mask(mask, sources, mixture)
    assert torch.isfinite(found.abs()).all()
    assert not found[:, 0].any()


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("samples", [16000, 12345])
def test_oracles_improve_every_voice(name, samples):
    sources = voices()[:, :samples]
    mixture = sources.sum(0)
    estimates = oracle(name, sources, mixture)
    assert estimates.shape == sources.shape and estimates.dtype == sources.dtype
    assert (metrics.si_snr_improvement(estimates, sources, mixture) > 3).all()


def test_what_knows_more_scores_more():
    sources = voices()
    mixture = sources.sum(0)
    for window in baselines.WINDOWS_MS:
        ratio, phase, complex_ = (
            metrics.snr(oracle(f"{mask}-{window}ms", sources, mixture), sources).mean()
            for mask in ("irm", "psm", "crm")
        )
        assert ratio < phase < complex_


def test_oracle_of_one_voice_alone_is_that_voice():
    sources = voices()
    sources[1] = 0
    for name in ORACLES:
        estimates = oracle(name, sources, sources[0])
        torch.testing.assert_close(estimates, sources, rtol=0, atol=1e-6)


def test_windows_are_as_long_as_they_say():
    """Half a window must fit: 128 samples for 16 ms, 512 for 64 ms."""
    sources = voices()
    oracle("irm-16ms", sources[:, :129], sources[0, :129])
    oracle("irm-64ms", sources[:, :513], sources[0, :513])
    for name, samples in (("irm-16ms", 128), ("irm-64ms", 512)):
        with pytest.raises(InputError, match=f"wanted more than {samples}"):
            oracle(name, sources[:, :samples], sources[0, :samples])


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="irm-16ms"):
        oracle("irm-32ms", voices(), voices()[0])
    with pytest.raises(InputError, match="irm, psm, crm"):
        ideal_mask("ibm", *spectra())
    for name in ("swapped", "absent", "late-11", "late-0", "late", "early-1"):
        with pytest.raises(InputError, match="late-10"):
            lip_control(name, torch.zeros(50, 96, 96))


def test_late_lips_hold_the_first_frame():
    frames = torch.arange(6)[:, None, None].expand(6, 2, 2)
    assert late(frames, 2)[:, 0, 0].tolist() == [0, 0, 0, 1, 2, 3]
    assert late(frames, 0)[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert late(frames, 9)[:, 0, 0].tolist() == [0] * 6
    with pytest.raises(InputError, match="-1 was given"):
        late(frames, -1)


def test_still_lips_do_not_move():
    frames = torch.arange(6)[:, None, None].expand(6, 2, 2)
    assert still(frames)[:, 0, 0].tolist() == [3] * 6


def test_controls_by_name():
    frames = torch.arange(50)[:, None, None].expand(50, 2, 2)
    for name in CONTROLS[3:]:
        torch.testing.assert_close(lip_control(name, frames), late(frames, int(name[5:])))
    assert CONTROLS[-1] == "late-10" and len(CONTROLS) == 13
    torch.testing.assert_close(lip_control("still", frames), still(frames))
