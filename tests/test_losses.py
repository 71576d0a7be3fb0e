"""Losses against values worked out by hand, against torchmetrics, and at the edges where logarithms break."""

import math

import pytest
import torch
from torchmetrics.functional.audio import (
    permutation_invariant_training,
    scale_invariant_signal_noise_ratio,
    signal_noise_ratio,
)

from avkit.errors import InputError
from avkit.losses import PermutationInvariant, negative_si_snr, negative_snr, reorder

LOSSES = [negative_snr, negative_si_snr]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_snr_by_hand():
    reference = torch.tensor([1.0, -1.0, 1.0, -1.0])  # energy 4
    estimate = torch.tensor([1.0, -1.0, 0.5, -0.5])  # error energy 0.5
    assert negative_snr(estimate, reference).item() == pytest.approx(-10 * math.log10(4 / 0.5), abs=1e-5)


def test_snr_sees_the_level_and_si_snr_does_not():
    reference = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert negative_snr(reference / 2, reference).item() == pytest.approx(-10 * math.log10(4), abs=1e-5)
    estimate = reference + torch.tensor([0.1, 0.1, -0.1, -0.1])
    assert negative_si_snr(7 * estimate, reference).item() == pytest.approx(
        negative_si_snr(estimate, reference).item(), abs=1e-4
    )


def test_si_snr_by_hand():
    reference = torch.tensor([1.0, 1.0, -1.0, -1.0])
    at_right_angles = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = negative_si_snr(3 * reference + 0.5 * at_right_angles, reference)  # projection 3·ref: 36 against 1
    assert loss.item() == pytest.approx(-10 * math.log10(36), abs=1e-5)


def test_offsets_do_not_count():
    estimate, reference = noise(3, 400), noise(3, 400, seed=1)
    for loss in LOSSES:
        torch.testing.assert_close(loss(estimate + 5, reference - 2), loss(estimate, reference))


def test_equal_to_torchmetrics():
    reference = noise(3, 2, 4000)
    estimate = 0.7 * reference + 0.3 * noise(3, 2, 4000, seed=1)
    torch.testing.assert_close(
        -negative_snr(estimate, reference), signal_noise_ratio(estimate, reference, zero_mean=True)
    )
    torch.testing.assert_close(
        -negative_si_snr(estimate, reference), scale_invariant_signal_noise_ratio(estimate, reference)
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "case", ["silent reference", "silent estimate", "both silent", "perfect", "constant", "tiny", "huge"]
)
def test_value_and_gradient_are_finite(loss, dtype, case):
    sound, other = noise(2, 1000, dtype=dtype), noise(2, 1000, seed=1, dtype=dtype)
    silence = torch.zeros_like(sound)
    estimate, reference = {
        "silent reference": (sound, silence),
        "silent estimate": (silence, sound),
        "both silent": (silence, silence),
        "perfect": (sound, sound),
        "constant": (silence + 0.3, sound),
        "tiny": (1e-18 * sound, 1e-18 * other),
        "huge": (1e6 * sound, 1e6 * other),
    }[case]
    estimate = estimate.clone().requires_grad_()
    value = loss(estimate, reference)
    value.sum().backward()
    assert value.isfinite().all()
    assert estimate.grad.isfinite().all()


def test_silent_reference_asks_for_silence():
    estimate = noise(1, 1000).requires_grad_()
    negative_snr(estimate, torch.zeros(1, 1000, dtype=torch.float64)).sum().backward()
    step = estimate.detach() - 1e-3 * estimate.grad
    assert step.norm() < estimate.detach().norm()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_against_finite_differences(loss):
    estimate, reference = noise(2, 12).requires_grad_(), noise(2, 12, seed=1)
    assert torch.autograd.gradcheck(lambda signal: loss(signal, reference), estimate)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_src", [1, 2, 3])
def test_permutation_invariant_equals_torchmetrics(loss, n_src):
    reference = noise(5, n_src, 800)
    shuffled = torch.stack([signal[torch.randperm(n_src)] for signal in reference])
    estimate = shuffled + 0.4 * noise(5, n_src, 800, seed=2)
    value, order = PermutationInvariant(loss).best_order(estimate, reference)
    expected, expected_order = permutation_invariant_training(
        estimate, reference, lambda e, r: -loss(e, r), mode="speaker-wise", eval_func="max"
    )
    torch.testing.assert_close(value, -expected)
    assert order.tolist() == expected_order.tolist()
    torch.testing.assert_close(PermutationInvariant(loss)(estimate, reference), -expected.mean())
    torch.testing.assert_close(loss(reorder(estimate, order), reference).mean(1), value)


def test_each_mixture_has_its_own_order():
    reference = noise(2, 2, 500)
    estimate = torch.stack([reference[0], reference[1].flip(0)])
    _, order = PermutationInvariant(negative_si_snr).best_order(estimate, reference)
    assert order.tolist() == [[0, 1], [1, 0]]


def test_three_talkers_in_a_cycle():
    """A cycle is not its own inverse: it tells "estimate of a reference" from the other way round."""
    reference = noise(1, 3, 500)
    estimate = reference[:, [1, 2, 0]]
    _, order = PermutationInvariant().best_order(estimate, reference)
    assert order.tolist() == [[2, 0, 1]]
    torch.testing.assert_close(reorder(estimate, order), reference)


def test_one_talker_is_the_plain_mean():
    estimate, reference = noise(4, 1, 300), noise(4, 1, 300, seed=1)
    torch.testing.assert_close(
        PermutationInvariant()(estimate, reference), negative_snr(estimate, reference).mean()
    )


def test_training_separates_two_outputs():
    """Gradients flow through the chosen order: free outputs move on to the references."""
    reference = noise(1, 2, 200)
    estimate = (0.1 * noise(1, 2, 200, seed=4)).requires_grad_()
    optimiser = torch.optim.Adam([estimate], lr=0.05)
    criterion = PermutationInvariant(negative_snr)
    first = criterion(estimate, reference).item()
    for _ in range(100):
        optimiser.zero_grad()
        criterion(estimate, reference).backward()
        optimiser.step()
    assert criterion(estimate, reference).item() < first - 20


@pytest.mark.parametrize(
    ("estimate", "reference", "said"),
    [
        (torch.ones(2, 10), torch.ones(2, 11), "one shape"),
        (torch.ones(2, 1), torch.ones(2, 1), "at least 2 samples"),
        (torch.ones(2, 10, dtype=torch.int16), torch.ones(2, 10, dtype=torch.int16), "floating-point"),
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_bad_input_is_named(loss, estimate, reference, said):
    with pytest.raises(InputError, match=said):
        loss(estimate, reference)


def test_permutation_invariant_refuses_bad_input():
    with pytest.raises(InputError, match="n_src"):
        PermutationInvariant()(torch.ones(2, 10), torch.ones(2, 10))
    with pytest.raises(InputError, match="without averaging"):
        PermutationInvariant(lambda e, r: negative_snr(e, r).mean())(noise(2, 2, 10), noise(2, 2, 10))
