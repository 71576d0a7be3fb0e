"""Training losses: negative SNR, negative SI-SNR, and the choice of the best order of the talkers.

Both losses take the mean away from both signals first, as the published code of RTFS-Net and IIANet does.
RTFS-Net is trained with the negative SNR (its paper says SI-SNR) and validated with the negative SI-SNR.
"""

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor, nn

from avkit.errors import InputError

EPSILON = 1e-8  # energy added above and below; a single sample of one 16-bit step has an energy of 9e-10


def _centred(estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both signals without their means, after the checks that every loss shares."""
    if estimate.shape != reference.shape:
        raise InputError(
            f"The estimate has shape {tuple(estimate.shape)} and the reference {tuple(reference.shape)}; "
            "a loss needs two tensors of one shape (…, T). Cut or stack them alike."
        )
    if estimate.ndim == 0 or estimate.shape[-1] < 2:
        raise InputError(
            f"Signals of shape {tuple(estimate.shape)} are too short: at least 2 samples along the last axis."
        )
    if not (estimate.is_floating_point() and reference.is_floating_point()):
        raise InputError(
            f"The estimate is {estimate.dtype} and the reference {reference.dtype}; "
            "a loss needs floating-point samples: convert with .float() and divide by the full scale."
        )
    return estimate - estimate.mean(-1, keepdim=True), reference - reference.mean(-1, keepdim=True)


def _negative_ratio(signal: Tensor, noise: Tensor) -> Tensor:
    """-10 log10 of the energy of signal over that of noise along the last axis; finite, gradients too."""
    signal_energy = signal.square().sum(-1) + EPSILON
    noise_energy = noise.square().sum(-1) + EPSILON
    return 10 * (torch.log10(noise_energy) - torch.log10(signal_energy))


def negative_snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Negative signal-to-noise ratio of zero-mean signals, in dB: lower is better.

    The level counts: half the reference scores 6 dB at most. With a silent reference the loss still has a
    finite gradient, which asks for silence.

    Args:
        estimate: (…, T) floating-point samples, T ≥ 2.
        reference: the same shape.

    Returns:
        (…) one loss per signal; take ``.mean()`` to train with it.

    Raises:
        InputError: shapes differ, fewer than 2 samples, or integers.
    """
    estimate, reference = _centred(estimate, reference)
    return _negative_ratio(reference, estimate - reference)


def negative_si_snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Negative scale-invariant signal-to-noise ratio of zero-mean signals, in dB: lower is better.

    The estimate is split into its projection on the reference and the rest; the loss is the rest's energy
    over the projection's. Rescaling the estimate changes nothing. (Le Roux et al., "SDR – half-baked or well
    done?", 2019.)

    Args:
        estimate: (…, T) floating-point samples, T ≥ 2.
        reference: the same shape.

    Returns:
        (…) one loss per signal.

    Raises:
        InputError: shapes differ, fewer than 2 samples, or integers.
    """
    estimate, reference = _centred(estimate, reference)
    energy = reference.square().sum(-1, keepdim=True) + EPSILON
    projection = (estimate * reference).sum(-1, keepdim=True) / energy * reference
    return _negative_ratio(projection, estimate - projection)


class PermutationInvariant(nn.Module):
    """A loss under the best order of the estimates: which output belongs to which talker is left to the
    network.

    Every estimate is compared with every reference; of all orders the one with the lowest mean loss is taken,
    for each mixture on its own. With one talker there is one order, and this is the plain mean.

    Args:
        loss: a function of (…, T) estimates and references that returns (…), `negative_snr` for one.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor] = negative_snr):
        super().__init__()
        self.loss = loss

    def extra_repr(self) -> str:
        return getattr(self.loss, "__name__", repr(self.loss))

    def best_order(self, estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest mean loss of each mixture, and the order that gives it.

        Args:
            estimate: (B, n_src, T).
            reference: (B, n_src, T).

        Returns:
            losses (B,) and order (B, n_src), integers: ``estimate[b, order[b, i]]`` belongs to ``reference[b,
            i]``.

        Raises:
            InputError: not three dimensions, shapes differ, or the loss does not return one value per signal.
        """
        if estimate.ndim != 3 or estimate.shape != reference.shape:
            raise InputError(
                f"The estimate has shape {tuple(estimate.shape)} and the reference {tuple(reference.shape)}; "
                "both must be (B, n_src, T), and equal."
            )
        batch, n_src, time = estimate.shape
        pairs = (batch, n_src, n_src, time)  # [b, i, j]: reference i with estimate j
        pairwise = self.loss(estimate[:, None].expand(pairs), reference[:, :, None].expand(pairs))
        if pairwise.shape != pairs[:3]:
            raise InputError(
                f"The loss returned shape {tuple(pairwise.shape)} for signals of shape {pairs}; "
                f"it must keep all but the last axis ({pairs[:3]}), without averaging."
            )
        orders = torch.tensor(list(permutations(range(n_src))), device=estimate.device)  # (n_src!, n_src)
        means = pairwise[:, torch.arange(n_src, device=estimate.device), orders].mean(-1)  # (B, n_src!)
        lowest, index = means.min(dim=1)
        return lowest, orders[index]

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """The batch's mean of each mixture's lowest loss: a scalar. Shapes, errors: see `best_order`."""
        return self.best_order(estimate, reference)[0].mean()


def reorder(estimate: Tensor, order: Tensor) -> Tensor:
    """The estimates (B, n_src, T) in the order (B, n_src) that `PermutationInvariant.best_order` returned."""
    return estimate.gather(1, order[..., None].expand_as(estimate))
