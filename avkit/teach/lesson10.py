"""Notebook 10, IIANet between the streams: its exercises, questions and explorers. Experiments: `lesson10_lab`, pictures:
`lesson10_figures`, the moving one: `lesson10_moving`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from avkit import load_model
from avkit.iianet import IIANet
from avkit.layers import upsample
from avkit.teach import dataflow
from avkit.teach import lesson10_figures as figures
from avkit.teach import lesson10_lab as lab
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake
from avkit.teach.lesson06_lab import openings
from avkit.teach.samples import find_data, load_sample
from avkit.teach.widgets import Control, Explorer

NETWORK = "iianet-tiny"  # the trained network that comes with the course

INSTRUCTOR = """\
**Minutes.** Opening 4 · 1 who talks to whom 4 · 2 InterA-T 5 + exercise 8 · 3 InterA-M 5 + exercise 3 · 4 InterA-B 3 · 5 the network 4 + exercise 7 · 6 the official
one 4 · 7 the bill 6 + exercise 5 · 8 the same mixture 5 · 9 switched off 6 · 10 lips that tell less 5 · open exercise 10 · questions 5. Short of time: leave out section 6's trail and the
runtime figure.

**What people get wrong.**
- They update the lips from the *new* sound in InterA-T. It runs, it trains, and no loaded checkpoint gives the official outputs.
- They think a gate can silence. InterA-M's factor lies between 1 and 2: ask by how many decibels the lips can turn a channel up (6), and down (0).
- They let the lips take part in all sixteen cycles, or enter the first one through InterA-B.
- They read "without InterA-M 7 dB are lost" as "InterA-M is worth 7 dB". Others were trained to have it there; put the retrained pair beside it.
- They compare 18.6 G with 21.9 G. One is for 1 s, the other for 2 s.

**Questions to ask.**
- The lips' coarsest scale has two positions a second. What can InterA-T tell the sound, and what not?
- Which of the three places would you keep, if only one could stay, and why is the figure of section 9 not the answer?
- Why does the output become the same for both talkers, bit by bit, when InterA-T and InterA-M are off, though InterA-B and the lips' stream still run?
- What would you measure before you believed "40 % faster"?

**In the room.** Play the whole network, A, B and C, and vote which meeting place is missing where. Come back to the tally in section 9.
"""

# Exercises ------------------------------------------------------------------------------------------------------


def exchange(
    a: Tensor, v: Tensor, gate_a: Callable, update_a: Callable, gate_v: Callable, update_v: Callable
) -> tuple[Tensor, Tensor]:
    """InterA-T's exchange: each stream lets the other in through a gate of its own, both from what they were."""
    seen, heard = interpolate(v, size=a.shape[2]), interpolate(a, size=v.shape[2])
    new_a = a + update_a(seen * torch.sigmoid(gate_a(a)))
    return new_a, v + update_v(heard * torch.sigmoid(gate_v(v)))


def _new_sound_to_lips(a, v, gate_a, update_a, gate_v, update_v):
    a = a + update_a(interpolate(v, size=a.shape[2]) * torch.sigmoid(gate_a(a)))
    return a, v + update_v(interpolate(a, size=v.shape[2]) * torch.sigmoid(gate_v(v)))


def _senders_gate(a, v, gate_a, update_a, gate_v, update_v):
    to_lips = interpolate(torch.sigmoid(gate_a(a)), size=v.shape[2]) * v
    to_sound = interpolate(torch.sigmoid(gate_v(v)), size=a.shape[2]) * a
    return a + update_a(interpolate(to_lips, size=a.shape[2])), v + update_v(
        interpolate(to_sound, size=v.shape[2])
    )


def _no_sigmoid(a, v, gate_a, update_a, gate_v, update_v):
    seen, heard = interpolate(v, size=a.shape[2]), interpolate(a, size=v.shape[2])
    return a + update_a(seen * gate_a(a)), v + update_v(heard * gate_v(v))


def _no_residual(a, v, gate_a, update_a, gate_v, update_v):
    new_a, new_v = exchange(a, v, gate_a, update_a, gate_v, update_v)
    return new_a - a, new_v - v


def _probe_exchange(answer: Callable, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for wide, narrow, frames, lip_frames in ((6, 4, 13, 3), (5, 3, 29, 7)):
        a, v = (
            torch.randn(2, wide, frames, generator=draw),
            torch.randn(2, narrow, lip_frames, generator=draw),
        )
        down, up = torch.randn(narrow, wide, generator=draw), torch.randn(wide, narrow, generator=draw)
        linear = [
            functools.partial(torch.einsum, "oi,bit->bot", matrix)
            for matrix in (down, up, up.roll(1), down.roll(1))
        ]
        new_a, new_v = answer(a, v, *linear)
        results |= {
            f"{frames} and {lip_frames} positions, sound": new_a,
            f"{frames} and {lip_frames} positions, lips": new_v,
        }
    return results


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


def _cycles(
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


def _lips_to_the_end(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    return run_cycles(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips + without_lips, 0)


def _one_cycle_more(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips, without_lips):
    return run_cycles(a0, v0, fuse, alone, bottom_a, bottom_v, with_lips + 1, without_lips)


def _probe_cycles(answer: Callable, draw: torch.Generator) -> dict[str, Tensor]:
    a0, v0, weight = (torch.randn(2, 3, 5, generator=draw) for _ in range(3))

    def fuse(a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(a * weight) + a * torch.sigmoid(v), torch.tanh(v + 0.5 * a)

    def alone(a: Tensor) -> Tensor:
        return torch.tanh(a * weight) + 0.5 * a

    def bottom_a(x: Tensor, first: Tensor) -> Tensor:
        return 0.7 * (x + first) - 0.1

    def bottom_v(x: Tensor, first: Tensor) -> Tensor:
        return torch.relu(0.9 * (x + first))

    counts = ((4, 6), (3, 3), (1, 2))
    return {
        f"{n} cycles with lips and {m} without": answer(a0, v0, fuse, alone, bottom_a, bottom_v, n, m)
        for n, m in counts
    }


WITH_12, WITH_6 = 34.145, 21.465  # G MACs for 2 s of IIANet and IIANet-fast, as the notebook counts them
FOUR_CYCLES = WITH_12 - 12 * (WITH_12 - WITH_6) / 6


EXERCISES = {
    "exchange": Exercise(
        task="let sound and lips tell each other",
        reference=exchange,
        probe=_probe_exchange,
        mistakes=(
            Mistake(
                "new sound to the lips",
                _new_sound_to_lips,
                "the lips are told of the *new* sound. Both updates start from what the streams were before the exchange.",
            ),
            Mistake(
                "the sender's gate",
                _senders_gate,
                "you let the sender decide what it sends. The gate is made from the receiver's features, and multiplies "
                "what comes from the other stream.",
            ),
            Mistake(
                "no sigmoid",
                _no_sigmoid,
                "the gates are not squeezed: σ brings them between 0 and 1.",
            ),
            Mistake(
                "nothing kept",
                _no_residual,
                "you return what is let in, and lose what was there: the update is *added* to a and to v.",
            ),
        ),
    ),
    "factor_range": Exercise(
        task="predict by what InterA-M can multiply the sound",
        reference="b",
        probe=lambda answer, draw: {"the factor": str(answer).strip().lower()},
        mistakes=(
            Mistake(
                "a mask",
                "a",
                "that is the gate alone. The sound itself is added once more: a + g · a = (1 + g) · a.",
            ),
            Mistake(
                "any number",
                "c",
                "CAF's gate leaves a norm and may be anything; here a sigmoid stands behind the norm.",
            ),
            Mistake(
                "signs too",
                "d",
                "a sigmoid gives nothing below zero, and the sound is added to it: no sign can turn.",
            ),
        ),
    ),
    "run_cycles": Exercise(
        task="run the cycles in their order",
        reference=run_cycles,
        probe=_probe_cycles,
        mistakes=(
            Mistake(
                "InterA-B in the first cycle",
                functools.partial(_cycles, first=True),
                "the first cycle works on a₀ and v₀ themselves; InterA-B stands where a *later* cycle begins.",
            ),
            Mistake(
                "inputs forgotten",
                functools.partial(_cycles, reminded=False),
                "a later cycle sees only what the one before made. InterA-B is given the first inputs too: bottom_a(a, a0).",
            ),
            Mistake(
                "lips stand still",
                functools.partial(_cycles, moving=False),
                "every cycle starts from the lips' first features. A cycle returns new ones, and the next goes on with them.",
            ),
            Mistake(
                "no InterA-B for the sound alone",
                functools.partial(_cycles, last=False),
                "the cycles without lips are entered through InterA-B as well: alone(bottom_a(a, a0)).",
            ),
            Mistake(
                "lips to the end",
                _lips_to_the_end,
                "the lips take part in every cycle. After `with_lips` cycles they leave, and the sound goes on alone.",
            ),
            Mistake(
                "one cycle more",
                _one_cycle_more,
                "one cycle too many has lips: the first, before the loop, is one of them.",
            ),
        ),
    ),
    "four_cycles": Exercise(
        task="predict the work of an IIANet without cycles of the sound alone",
        reference=FOUR_CYCLES,
        probe=lambda answer, draw: {"four cycles": float(answer)},
        tolerance=2e-3,
        mistakes=(
            Mistake(
                "in proportion",
                WITH_12 * 4 / 16,
                "you take a quarter of sixteen cycles. A cycle with lips costs more than one of the sound alone, and something "
                "runs only once: subtract what twelve cycles of the sound alone cost.",
            ),
            Mistake(
                "ten cycles taken off",
                WITH_12 - 10 * (WITH_12 - WITH_6) / 6,
                "you take ten cycles off. Sixteen cycles less the four with lips leave twelve of the sound alone.",
            ),
            Mistake(
                "IIANet-fast",
                WITH_6,
                "that is IIANet-fast, which still has six cycles of the sound alone.",
            ),
            Mistake(
                "four cycles of the sound",
                4 * (WITH_12 - WITH_6) / 6,
                "that is what four cycles of the sound *alone* cost. The four that are left have lips, and encoder, mask and "
                "decoder have to run as well.",
            ),
        ),
    ),
}


# Questions after the part ---------------------------------------------------------------------------------------


def _question(text: str, *answers: tuple[str, bool, str]) -> dict:
    made = [{"answer": answer, "correct": correct, "feedback": why} for answer, correct, why in answers]
    return {"question": text, "type": "multiple_choice", "answers": made}


AFTER = [
    _question(
        "One number at the coarsest of five scales (kernels of 5) has heard 65 frames. What would a sixth scale hear?",
        ("70", False, "that adds a whole kernel of finest frames; its steps are 16 frames long."),
        ("129", True, "4 steps of 16 frames more: 65 + 64."),
        ("130", False, "the reach is not doubled; steps are: 65 + 4 · 16."),
    ),
    _question(
        "What does IntraA have in common with query–key–value attention?",
        (
            "weights that depend on the input decide what passes",
            True,
            "and that is all: no query meets a key, nothing is summed over other places.",
        ),
        ("a softmax over positions", False, "there is none; every position has a gate of its own."),
        ("a cost that grows with the square of the length", False, "it grows in proportion to the length."),
    ),
    _question(
        "Which of these exchanges between the streams is nowhere in IIANet's code?",
        ("lips to sound at the top", False, "InterA-T does that."),
        ("lips to sound at every scale", False, "InterA-M does that."),
        (
            "lips to sound at the bottom",
            True,
            "InterA-B weighs each stream's output and its first input; the two streams do not meet there.",
        ),
    ),
    _question(
        "CAF's gate and InterA-M's factor both multiply the sound. What can only CAF's do?",
        (
            "turn a channel off",
            True,
            "it leaves a norm and may be zero or negative; InterA-M's factor is at least 1.",
        ),
        ("follow the mouth 25 times a second", False, "InterA-M's finest scale does so too."),
        ("differ from channel to channel", False, "both have a number for each channel."),
    ),
    _question(
        "A trained network loses 7 dB when a part is switched off. A network trained without that part is 0.2 dB worse. What is the part worth?",
        (
            "7 dB",
            False,
            "that is how much this network leans on it, since the rest was trained to have it there.",
        ),
        (
            "about 0.2 dB, as far as one training of each can tell",
            True,
            "the retrained comparison answers the question; several seeds would say how sure that is.",
        ),
        (
            "something between",
            False,
            "the two numbers answer different questions; there is nothing to average.",
        ),
    ),
]


# Explorers ----------------------------------------------------------------------------------------------------------

_SAMPLE = 1  # the explorer's mixture
SHOWN = ("the first talker's", "the second talker's")


@functools.cache
def network() -> IIANet:
    return load_model(NETWORK)


def render_cycle(cycle: int) -> Html:
    """IIANet in one of its cycles: who takes part, and where the streams meet."""
    return dataflow.iianet(cycle=cycle - 1, name=NETWORK)


@functools.cache
def _explored() -> tuple[list[list[Tensor]], Tensor]:
    """InterA-M's factors in the trained network, and both mouths' openings (2, V)."""
    data = find_data("talkers")
    sample = load_sample(data, _SAMPLE)
    features = lab.watch_lips(network(), sample.lips)
    return lab.factors(network(), sample, features), openings(str(data), sample)


def render_factors(cycle: int, scale: int, lips: str) -> Html:
    """InterA-M's factors at one scale under the lips shown, below the mouth's opening."""
    found, mouths = _explored()
    talker = SHOWN.index(lips)
    factors = found[cycle - 1][scale][talker]  # (H, V / 2ⁱ)
    stretched = upsample(factors[None], mouths[None])[0]
    order = lab.order_by_mouth(stretched, mouths[talker])
    return figures.draw_factors(
        stretched, mouths[talker], order, f"cycle {cycle}, scale {scale}, {lips} lips"
    )


EXPLORERS = {
    "cycle": Explorer(render_cycle, (Control("cycle", (1, 2, 3, 4, 5, 6), 2, "cycle"),)),
    "factors": Explorer(
        render_factors,
        (
            Control("cycle", (1, 2, 3), 2, "cycle"),
            Control("scale", (0, 1, 2, 4), 0, "scale"),
            Control("lips", SHOWN, SHOWN[0], "lips shown"),
        ),
    ),
}
