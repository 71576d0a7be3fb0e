"""Notebook 10, IIANet between the streams: its exercises, questions and explorers. Experiments: `lesson10_lab`, pictures:
`lesson10_figures`, the moving one: `lesson10_moving`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from avkit import load_model
from avkit.iianet import IIANet
from avkit.layers import upsample
from avkit.teach import dataflow
from avkit.teach import lesson10_answers as answers
from avkit.teach import lesson10_figures as figures
from avkit.teach import lesson10_lab as lab
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.lesson06_lab import openings
from avkit.teach.quizzes import multiple_choice
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
- They read "without InterA-M 16 dB are lost" as "InterA-M is worth 16 dB". Others were trained to have it there; put the retrained pair beside it.
- They take "off" for the loss of a message alone. Show the bars "always the same": InterA-M held so is as bad as off, so there it is the message.
- They read "InterA-T is hardly missed" as "IIANet does not need it". One network, trained once from a twin without lips, does without; ask what would have to be trained to say more.
- They compare 18.6 G with 21.9 G. One is for 1 s, the other for 2 s.

**Questions to ask.**
- The lips' coarsest scale has two positions a second. What can InterA-T tell the sound, and what not?
- Which of the three places would you keep, if only one could stay, and why is the figure of section 9 not the answer?
- Why does the output become the same for both talkers, bit by bit, when InterA-T and InterA-M are off, though InterA-B and the lips' stream still run?
- What would you measure before you believed "40 % faster"?

**In the room.** Play the whole network, A, B and C, and vote which meeting place is missing where. Come back to the tally in section 9.
"""

# Exercises ------------------------------------------------------------------------------------------------------


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
        reference=answers.exchange,
        probe=_probe_exchange,
        mistakes=(
            Mistake(
                "new sound to the lips",
                answers.new_sound_to_lips,
                "the lips are told of the *new* sound. Both updates start from what the streams were before the exchange.",
            ),
            Mistake(
                "the sender's gate",
                answers.senders_gate,
                "you let the sender decide what it sends. The gate is made from the receiver's features, and multiplies "
                "what comes from the other stream.",
            ),
            Mistake(
                "no sigmoid",
                answers.no_sigmoid,
                "the gates are not squeezed: σ brings them between 0 and 1.",
            ),
            Mistake(
                "nothing kept",
                answers.no_residual,
                "you return what is let in, and lose what was there: the update is *added* to a and to v.",
            ),
            Mistake(
                "new lips to the sound",
                answers.new_lips_to_sound,
                "the sound is told of the *new* lips. Both updates start from what the streams were before the exchange.",
            ),
            Mistake(
                "one way",
                lambda a, v, *layers: (answers.exchange(a, v, *layers)[0], v),
                "the lips come back as they were. At the top the exchange goes both ways: they are told of the sound as well.",
            ),
            Mistake(
                "sigmoid around the product",
                answers.sigmoid_around,
                "the sigmoid squeezes the product. It belongs around the gate alone: M(a) is squeezed, and then multiplies what comes in.",
            ),
            Mistake(
                "straight lines",
                functools.partial(answers.resampled, mode="linear"),
                "you draw straight lines between positions. The arrows stand for the nearest position, interpolate's default.",
            ),
            Mistake(
                "averaged down",
                answers.averaged_down,
                "you average the sound down to the lips' length. The code takes the nearest position in both directions.",
            ),
            Mistake(
                "W left out",
                answers.no_update_layers,
                "what passes the gate has the sender's channels still. W (`update_…`) brings it to the receiver's width before it is added.",
            ),
            Mistake(
                "gates exchanged",
                lambda a, v, ga, wa, gv, wv: answers.exchange(a, v, gv, wa, ga, wv),
                "the two gates are exchanged: the sound's gate is made from the sound, by gate_a, the lips' from the lips, by gate_v.",
            ),
        ),
    ),
    "factor_range": Exercise(
        task="predict by what InterA-M can multiply the sound",
        reference="b",
        probe=lambda answer, draw: {"the factor": letter(answer)},
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
        reference=answers.run_cycles,
        probe=_probe_cycles,
        mistakes=(
            Mistake(
                "InterA-B in the first cycle",
                functools.partial(answers.cycles, first=True),
                "the first cycle works on a₀ and v₀ themselves; InterA-B stands where a *later* cycle begins.",
            ),
            Mistake(
                "inputs forgotten",
                functools.partial(answers.cycles, reminded=False),
                "a later cycle sees only what the one before made. InterA-B is given the first inputs too: bottom_a(a, a0).",
            ),
            Mistake(
                "lips stand still",
                functools.partial(answers.cycles, moving=False),
                "every cycle starts from the lips' first features. A cycle returns new ones, and the next goes on with them.",
            ),
            Mistake(
                "no InterA-B for the sound alone",
                functools.partial(answers.cycles, last=False),
                "the cycles without lips are entered through InterA-B as well: alone(bottom_a(a, a0)).",
            ),
            Mistake(
                "lips to the end",
                answers.lips_to_the_end,
                "the lips take part in every cycle. After `with_lips` cycles they leave, and the sound goes on alone.",
            ),
            Mistake(
                "one cycle more",
                answers.one_cycle_more,
                "one cycle too many has lips: the first, before the loop, is one of them.",
            ),
            Mistake(
                "one cycle less",
                answers.one_cycle_less,
                "one cycle of the sound alone is missing: there are `without_lips` of them after those with lips.",
            ),
            Mistake(
                "plain sum",
                answers.plain_sum,
                "you add a₀ and v₀ yourself. InterA-B also weighs every channel of the sum: call bottom_a(a, a0) and bottom_v(v, v0).",
            ),
            Mistake(
                "InterA-B behind",
                answers.bottom_behind,
                "you put InterA-B behind each cycle of the sound. It stands where a later cycle *begins*: the last cycle's output is returned as it is.",
            ),
            Mistake(
                "lips without InterA-B",
                answers.lips_unreminded,
                "the lips go from cycle to cycle as they are. They are entered through InterA-B too: bottom_v(v, v0).",
            ),
            Mistake(
                "sound first",
                answers.sound_first,
                "you run the cycles of the sound alone first. The lips come in at the beginning, and leave.",
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
            Mistake(
                "six cycles of the sound",
                WITH_12 - WITH_6,
                "that is what *six* cycles of the sound alone cost, the difference of the two networks. Take twice as much off IIANet.",
            ),
            Mistake(
                "one cycle of the sound",
                (WITH_12 - WITH_6) / 6,
                "that is the price of *one* cycle of the sound alone. Twelve of them have to come off IIANet's 34.145 G.",
            ),
            Mistake(
                "in proportion to ten",
                WITH_6 * 4 / 10,
                "you take four tenths of IIANet-fast. A cycle with lips costs more than one of the sound alone, and something runs only "
                "once: subtract what six cycles of the sound cost.",
            ),
        ),
    ),
}


# Questions after the part ---------------------------------------------------------------------------------------


AFTER = [
    multiple_choice(
        "One number at the coarsest of five scales (kernels of 5) has heard 65 frames. What would a sixth scale hear?",
        ("70", False, "that adds a whole kernel of finest frames; its steps are 16 frames long."),
        ("129", True, "4 steps of 16 frames more: 65 + 64."),
        ("130", False, "the reach is not doubled; steps are: 65 + 4 · 16."),
    ),
    multiple_choice(
        "What does IntraA have in common with query–key–value attention?",
        (
            "weights that depend on the input decide what passes",
            True,
            "and that is all: no query meets a key, nothing is summed over other places.",
        ),
        ("a softmax over positions", False, "there is none; every position has a gate of its own."),
        ("a cost that grows with the square of the length", False, "it grows in proportion to the length."),
    ),
    multiple_choice(
        "Which of these exchanges between the streams is nowhere in IIANet's code?",
        ("lips to sound at the top", False, "InterA-T does that."),
        ("lips to sound at every scale", False, "InterA-M does that."),
        (
            "lips to sound at the bottom",
            True,
            "InterA-B weighs each stream's output and its first input; the two streams do not meet there.",
        ),
    ),
    multiple_choice(
        "CAF's gate and InterA-M's factor both multiply the sound. What can only CAF's do?",
        (
            "turn a channel off",
            True,
            "it leaves a norm and may be zero or negative; InterA-M's factor is at least 1.",
        ),
        ("follow the mouth 25 times a second", False, "InterA-M's finest scale does so too."),
        ("differ from channel to channel", False, "both have a number for each channel."),
    ),
    multiple_choice(
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
