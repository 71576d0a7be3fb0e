"""Notebook 07's masks on bins, and what it reads off a mask and an output, on numbers that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from avkit.teach import lesson07 as lesson
from avkit.teach import lesson07_figures as figures
from avkit.teach.exercises import RIGHT, WRONG, judge
from avkit.teach.samples import Sample


@pytest.fixture
def sample():
    voices = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    lips = torch.zeros(2, 6, 96, 96, dtype=torch.uint8)
    return Sample("noise", voices.sum(0), voices, lips, ("", ""))


def test_ratio_times_mixture_is_the_voice(sample):
    voices, mixture = lesson.spectra(sample)
    assert voices.shape == (2, *mixture.shape) == (2, 16, 257)
    torch.testing.assert_close(lesson.ideal_ratio(voices, mixture) * mixture, voices, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(lesson.to_sound(voices, 4000), sample.voices, atol=1e-5, rtol=1e-4)


def test_ratio_of_silence_is_zero():
    silent = torch.zeros(3, 5, dtype=torch.complex64)
    assert (lesson.ideal_ratio(silent.expand(2, 3, 5), silent) == 0).all()


def test_masks_have_the_parts_they_may_have(sample):
    voices, mixture = lesson.spectra(sample)
    masks = {kind: lesson.bin_mask(kind, voices, mixture) for kind in lesson.MASKS}
    assert not masks["ratio"].is_complex() and not masks["phase-sensitive"].is_complex()
    quarter, free = masks["turns by 0–90°"], masks["complex, up to 2"]
    assert (quarter.real >= 0).all() and (quarter.imag >= 0).all()
    assert (free.real < 0).any() and (free.imag < 0).any() and float(free.abs().max()) <= 2 + 1e-5
    inside = (free.real >= 0) & (free.imag >= 0)
    torch.testing.assert_close(quarter[inside], free[inside])


def test_scores_rise_with_what_a_mask_may_do(sample):
    scores = [score.mean() for score in lesson.bin_scores(sample).values()]
    assert len(scores) == 4 and scores == sorted(scores)


def test_kinds_of_angle_by_hand():
    real, imag = torch.tensor([0.0, 1.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    mask = torch.stack((real, imag)).view(1, 2, 1, 4)
    assert list(lesson.kinds_of_angle(mask).values()) == [0.25] * 4


def test_angles_by_hand():
    """Three channels: one on a ray of 45° (and once silent), one at 0° and 90° with weights 1 : 3, one shut."""
    real = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    imag = torch.tensor([[1.0, 2.0, 0.0], [0.0, 3**0.5, 0.0], [0.0, 0.0, 0.0]])
    both, mean, spread = lesson.angles(torch.cat((real, imag)).view(1, 6, 1, 3))
    assert both.tolist() == pytest.approx([2 / 3, 0, 0])
    assert mean.tolist() == pytest.approx([45, 67.5, 0])
    assert spread.tolist() == pytest.approx([0, (0.25 * 67.5**2 + 0.75 * 22.5**2) ** 0.5, 0], abs=1e-3)


def test_turn_of_a_scaled_and_of_a_negated_mixture(sample):
    for factor in (0.5, -2.0):
        ratios, weights = lesson.turned(factor * sample.mixture, sample.mixture)
        loud = weights > weights.max() * 1e-3
        torch.testing.assert_close(ratios[loud], torch.full_like(ratios[loud], factor), atol=1e-3, rtol=0)


def test_angles_of_the_mixture_on_its_own_magnitudes_give_it_back(sample):
    given = torch.stack((sample.mixture, -sample.mixture))  # the sign is an angle: it is lost
    back = lesson.with_angles_of(given, sample.mixture)
    torch.testing.assert_close(back, sample.mixture.expand(2, -1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shift", [5 + 5j, torch.tensor(5 + 5j)])
def test_a_mask_of_another_shape_is_told_so(shift):
    """Right in value, for any number may be added to both masks, but one mask is a bare number."""
    two_masks = lesson.EXERCISES["two_masks"]
    verdict = judge(two_masks, lambda wanted: (wanted + shift, shift))
    assert verdict.status == WRONG and "second mask" in verdict.text
    assert "the shape is (), it should be (5, 7)" in verdict.text
    assert judge(two_masks, lambda wanted: (wanted + 9 + 9j, 0 * wanted + 9 + 9j)).status == RIGHT


def test_three_kinds_of_fitted_mask_look_different():
    looks = figures._KINDS.values()
    assert all(len(set(part)) == 3 for part in zip(*looks, strict=True))
    curves = {kind: [1.0, 2.0] for kind in figures._KINDS}
    assert "all rise far above it" in figures.draw_curves(curves, ("it", 0.0)).text
    reached = {f"{kind}, {ends} ends": [1.0] for kind in figures._KINDS for ends in ("trained", "random")}
    assert all(f"{name}: 1 dB" in figures.draw_channels((1,), reached).text for name in reached)
