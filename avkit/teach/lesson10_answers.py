"""Answers to notebook 10's exercises: the two that are functions, and what readers write in their place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, interpolate

# InterA-T's exchange --------------------------------------------------------------------------------------------------


def exchange(
    a: Tensor, v: Tensor, gate_a: Callable, update_a: Callable, gate_v: Callable, update_v: Callable
) -> tuple[Tensor, Tensor]:
    """InterA-T's exchange: each stream lets the other in through a gate of its own, both from what they were."""
    seen, heard = interpolate(v, size=a.shape[2]), interpolate(a, size=v.shape[2])
    new_a = a + update_a(seen * torch.sigmoid(gate_a(a)))
    return new_a, v + update_v(heard * torch.sigmoid(gate_v(v)))


def new_sound_to_lips(a, v, gate_a, update_a, gate_v, update_v):
    a = a + update_a(interpolate(v, size=a.shape[2]) * torch.sigmoid(gate_a(a)))
    return a, v + update_v(interpolate(a, size=v.shape[2]) * torch.sigmoid(gate_v(v)))


def senders_gate(a, v, gate_a, update_a, gate_v, update_v):
    to_lips = interpolate(torch.sigmoid(gate_a(a)), size=v.shape[2]) * v
    to_sound = interpolate(torch.sigmoid(gate_v(v)), size=a.shape[2]) * a
    return a + update_a(interpolate(to_lips, size=a.shape[2])), v + update_v(
        interpolate(to_sound, size=v.shape[2])
    )


def no_sigmoid(a, v, gate_a, update_a, gate_v, update_v):
    seen, heard = interpolate(v, size=a.shape[2]), interpolate(a, size=v.shape[2])
    return a + update_a(seen * gate_a(a)), v + update_v(heard * gate_v(v))


def no_residual(a, v, gate_a, update_a, gate_v, update_v):
    new_a, new_v = exchange(a, v, gate_a, update_a, gate_v, update_v)
    return new_a - a, new_v - v


def new_lips_to_sound(a, v, gate_a, update_a, gate_v, update_v):
    v = v + update_v(interpolate(a, size=v.shape[2]) * torch.sigmoid(gate_v(v)))
    return a + update_a(interpolate(v, size=a.shape[2]) * torch.sigmoid(gate_a(a))), v


def sigmoid_around(a, v, gate_a, update_a, gate_v, update_v):
    seen, heard = interpolate(v, size=a.shape[2]), interpolate(a, size=v.shape[2])
    return a + update_a(torch.sigmoid(seen * gate_a(a))), v + update_v(torch.sigmoid(heard * gate_v(v)))


def resampled(a, v, gate_a, update_a, gate_v, update_v, mode):
    seen, heard = interpolate(v, size=a.shape[2], mode=mode), interpolate(a, size=v.shape[2], mode=mode)
    new_a = a + update_a(seen * torch.sigmoid(gate_a(a)))
    return new_a, v + update_v(heard * torch.sigmoid(gate_v(v)))


def averaged_down(a, v, gate_a, update_a, gate_v, update_v):
    seen, heard = interpolate(v, size=a.shape[2]), adaptive_avg_pool1d(a, v.shape[2])
    new_a = a + update_a(seen * torch.sigmoid(gate_a(a)))
    return new_a, v + update_v(heard * torch.sigmoid(gate_v(v)))


def no_update_layers(a, v, gate_a, update_a, gate_v, update_v):
    seen, heard = interpolate(v, size=a.shape[2]), interpolate(a, size=v.shape[2])
    return a + seen * torch.sigmoid(gate_a(a)), v + heard * torch.sigmoid(gate_v(v))


# The cycles -----------------------------------------------------------------------------------------------------------


def run_cycles(
    a0: Tensor,
    v0: Tensor,
    fuse: Callable,
    alone: Callable,
    bottom_a: Callable,
    bottom_v: Callable,
    with_lips: int,
    without_lips: int,
) -> Tensor:
    """The first cycle on the inputs themselves, the others through InterA-B; the last ones without lips."""
    a, v = fuse(a0, v0)
    for _ in range(with_lips - 1):
        a, v = fuse(bottom_a(a, a0), bottom_v(v, v0))
    for _ in range(without_lips):
        a = alone(bottom_a(a, a0))
    return a


def cycles(
    a0,
    v0,
    fuse,
    alone,
    bottom_a,
    bottom_v,
    with_lips,
    without_lips,
    first=False,
    reminded=True,
    moving=True,
    last=True,
):
    """The run with one thing changed, for the mistakes."""
    a, v = fuse(bottom_a(a0, a0), bottom_v(v0, v0)) if first else fuse(a0, v0)
    for _ in range(with_lips - 1):
        a, new_v = fuse(bottom_a(a, a0 if reminded else 0 * a0), bottom_v(v, v0 if reminded else 0 * v0))
        v = new_v if moving else v0
    for _ in range(without_lips):
        a = alone(bottom_a(a, a0 if reminded else 0 * a0) if last else a)
    return a


def lips_to_the_end(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    return run_cycles(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips + without_lips, 0)


def one_cycle_more(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    return run_cycles(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips + 1, without_lips)


def one_cycle_less(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    return run_cycles(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips - 1)


def plain_sum(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    return run_cycles(a0, v0, fuse, alone, torch.add, torch.add, with_lips, without_lips)


def lips_unreminded(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    return run_cycles(a0, v0, fuse, alone, bottom_a, lambda v, first: v, with_lips, without_lips)


def sound_first(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    a, v = alone(a0), v0
    for _ in range(without_lips - 1):
        a = alone(bottom_a(a, a0))
    for _ in range(with_lips):
        a, v = fuse(bottom_a(a, a0), bottom_v(v, v0))
    return a


def bottom_behind(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    a = run_cycles(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, 0)
    for _ in range(without_lips):
        a = bottom_a(alone(a), a0)
    return a
