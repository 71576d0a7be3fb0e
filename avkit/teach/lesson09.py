"""Notebook 09, IIANet within one stream: its exercises, questions and explorer. Experiments: `lesson09_lab`, pictures:
`lesson09_figures`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from avkit import load_model
from avkit.iianet import IIANet
from avkit.layers import pool_to, upsample
from avkit.signal import SAMPLE_RATE
from avkit.teach import lesson09_figures as figures
from avkit.teach import lesson09_lab as lab
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.players import listen
from avkit.teach.quizzes import multiple_choice
from avkit.teach.samples import Sample, find_data, load_sample
from avkit.teach.widgets import Control, Explorer

NETWORK = "iianet-tiny"  # the trained network that comes with the course
WINDOW, HOP = 16, 4  # samples, of the published network's encoder

INSTRUCTOR = """\
**Minutes.** Opening 4 · questions 4 · 1 two networks 4 · 2 the filter bank 7 · 3 scales 5 + exercise 6 · 4 IntraA 8 + exercises 10 · 5 the way
down 2 + exercise 5 · 6 a whole cycle 4 · 7 what the gates do 7 · 8 how far it sees 5 · open exercise 10. Short of time: leave out the filters' figure and section 7's
explorer.

**What people get wrong.**
- They take "time domain" to mean that nothing is transformed. The encoder *is* a transform, learned, with windows of 1 ms.
- They add up kernels (5 + 5 + 5 …) for the reach. Let them draw one number of scale 2 and mark all samples that it touches.
- "Attention" makes them look for a softmax. There is none in this network; have them name what a gate can do that attention cannot, and the other way round.
- They call the order of resampling and norm a detail. It is one that a loaded checkpoint does not forgive: the outputs differ from the official ones, without any message.
- They read correlation with the voice as "the gate does the separating". Section 7 holds the gates at ½ right after that.
- They take −19.7 dB after cycle 5 for noise. Play it: it is the other talker, and section 8 measures it against both voices.

**Questions to ask.**
- Which of the two networks could you run on a stream, with a delay of 20 ms? (Neither: gLN, and the scans in RTFS-Net, read the whole clip.)
- The mask of IIANet is never negative. How can the output's waves have another phase than the mixture's?
- Why do all five gates of a channel have the same course? (Kernel 1: each is a sigmoid of the same number, scaled and shifted.)
- Where, in this notebook, would a network for a sampling rate of 8 kHz have to change?

**In the room.** Play the slivers first, from the shortest on, and let hands go up when somebody knows who speaks, and again when somebody knows a word.
"""

# Exercises ------------------------------------------------------------------------------------------------------


def frames_heard(level: int, kernel: int) -> int:
    """How many encoder frames reach one number of a scale: kernel + (kernel − 1) · (2^level − 1)."""
    count, step = kernel, 1
    for _ in range(level):
        count, step = count + (kernel - 1) * step, 2 * step
    return count


def _probe_heard(answer: Callable, draw: torch.Generator) -> dict[str, int]:
    pairs = ((0, 5), (1, 5), (4, 5), (2, 3), (6, 3))
    return {f"scale {level} with kernels of {kernel}": answer(level, kernel) for level, kernel in pairs}


def attend(levels: Sequence[Tensor], top: Tensor, intra: Sequence[Callable]) -> list[Tensor]:
    """IntraA at every scale: the global feature resampled to the scale's length, then the scale's own block."""
    return [
        block(level, interpolate(top, size=level.shape[2]))
        for block, level in zip(intra, levels, strict=True)
    ]


def _probe_attend(answer: Callable, draw: torch.Generator) -> dict[str, Tensor]:
    """Blocks that can be told apart, and that see the mean of what they are given, as a norm does."""
    results = {}
    for counts in ((23, 12, 6), (41, 21, 11, 6)):
        levels = [torch.randn(2, 3, count, generator=draw) for count in counts]
        top = torch.randn(2, 3, counts[-1] - 2, generator=draw)
        blocks = [_block(1.0 + index, 0.5 - index) for index in range(len(counts))]
        for index, tensor in enumerate(answer(levels, top, blocks)):
            results[f"{len(counts)} scales, scale {index}"] = tensor
    return results


def _block(scale: float, shift: float) -> Callable:
    def intra(local: Tensor, coarse: Tensor) -> Tensor:
        centred = coarse - coarse.mean(dim=2, keepdim=True)
        return scale * local * torch.sigmoid(upsample(centred, local)) + shift * upsample(centred, local)

    return intra


def _not_resampled(levels, top, intra):
    return [block(level, top) for block, level in zip(intra, levels, strict=True)]


def _straight_lines(levels, top, intra):
    pairs = zip(intra, levels, strict=True)
    return [block(level, interpolate(top, size=level.shape[2], mode="linear")) for block, level in pairs]


def _swapped(levels, top, intra):
    return [block(interpolate(top, size=x.shape[2]), x) for block, x in zip(intra, levels, strict=True)]


def _one_block(levels, top, intra):
    return attend(levels, top, [intra[0]] * len(levels))


def _handed_on(levels, top, intra):
    found = []
    for block, level in zip(intra, levels, strict=True):
        top = block(level, interpolate(top, size=level.shape[2]))
        found.append(top)
    return found


def descend(levels: Sequence[Tensor], merges: Sequence[Callable]) -> Tensor:
    """u = the coarsest scale, then u ← merge_i(scale i, u) down to the finest."""
    u = levels[-1]
    for i in reversed(range(len(merges))):
        u = merges[i](levels[i], u)
    return u


def _wrong_way_down(levels, merges, add=False, order=reversed, swap=False, start=-1):
    u = levels[start]
    for i in order(range(len(merges) + start + 1)):
        u = merges[i](u, levels[i]) if swap else merges[i](levels[i], u)
        u = u + levels[i] if add else u
    return u


def _one_too_few(levels, merges):
    u = levels[-1]
    for i in range(len(merges) - 1, 0, -1):
        u = merges[i](levels[i], u)
    return u


def _probe_descend(answer: Callable, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for counts in ((23, 12, 6), (41, 21, 11, 6)):
        levels = [torch.randn(2, 3, count, generator=draw) for count in counts]
        merges = [_block(1.0 + index, 0.5 - index) for index in range(len(counts) - 1)]
        results[f"{len(counts)} scales"] = answer(levels, merges)
    return results


EXERCISES = {
    "frames_heard": Exercise(
        task="count the frames that reach one number of a scale",
        reference=frames_heard,
        probe=_probe_heard,
        tolerance=1e-9,
        mistakes=(
            Mistake(
                "kernels added",
                lambda level, kernel: kernel * (level + 1),
                "you add a whole kernel at every scale. The windows of neighbouring numbers overlap: a further convolution "
                "adds kernel − 1 steps, and its steps are those of the scale below it.",
            ),
            Mistake(
                "same step everywhere",
                lambda level, kernel: kernel + level * (kernel - 1),
                "you count as if every scale had the frames of the finest. From scale 1 on, neighbours are two encoder frames "
                "apart, then four, then eight.",
            ),
            Mistake(
                "one step too far",
                lambda level, kernel: kernel + (kernel - 1) * (2 ** (level + 1) - 2),
                "your steps are twice too long: the convolution that makes scale i walks over scale i − 1, whose numbers "
                "are 2^(i − 1) frames apart.",
            ),
            Mistake(
                "doubled",
                lambda level, kernel: kernel * 2**level,
                "you double the whole reach at each scale. Only the step doubles; a convolution adds kernel − 1 of them.",
            ),
            Mistake(
                "scale 0 counted twice",
                lambda level, kernel: kernel + (kernel - 1) * 2**level,
                "you are one scale too far. Scale 0 hears the kernel alone; scale i adds kernel − 1 steps of 2^(i − 1) frames, so all steps "
                "together make 2^level − 1.",
            ),
            Mistake(
                "steps, not frames",
                lambda level, kernel: (kernel - 1) * 2**level,
                "that is the way from the first frame to the last, in steps. The frames at both ends count: there is one frame more "
                "than there are steps between them.",
            ),
            Mistake(
                "in samples",
                lambda level, kernel: (frames_heard(level, kernel) - 1) * HOP + WINDOW,
                "you have gone on to samples. Asked is how many *encoder frames* have a part in the number; the cell below turns "
                "them into milliseconds.",
            ),
        ),
    ),
    "same_order": Exercise(
        task="predict when the order of resampling and norm makes no difference",
        reference="c",
        probe=lambda answer, draw: {"the two orders": letter(answer)},
        mistakes=(
            Mistake(
                "never a difference",
                "a",
                "the convolution has one tap, so *it* does not mind. But a norm follows, whose mean and variance are taken over "
                "all positions: a position that is repeated more often than another counts more.",
            ),
            Mistake(
                "always a difference",
                "b",
                "with one tap and every position repeated equally often, mean and variance stay what they were: then "
                "both orders agree.",
            ),
            Mistake(
                "only without resampling",
                "d",
                "equal lengths are one case in which both orders agree, but not the only one. What does a mean become when every "
                "number is written down three times?",
            ),
        ),
    ),
    "attend": Exercise(
        task="let the global feature gate every scale",
        reference=attend,
        probe=_probe_attend,
        mistakes=(
            Mistake(
                "not resampled",
                _not_resampled,
                "you hand the coarse feature over as it is. In the sound's stream it is brought to the scale's length first, so "
                "that the block's norms count its positions as often as they are repeated.",
            ),
            Mistake(
                "straight lines",
                _straight_lines,
                "you draw straight lines between coarse positions. IIANet repeats them (nearest neighbour).",
            ),
            Mistake(
                "swapped",
                _swapped,
                "local and global are swapped: the scale is what is gated, the global feature makes gate and shift.",
            ),
            Mistake(
                "one block for all",
                _one_block,
                "you use the same block at every scale. Each scale has one of its own: intra[i].",
            ),
            Mistake(
                "coarse to fine",
                lambda levels, top, intra: attend(levels, top, list(intra)[::-1]),
                "the blocks are in the wrong order: intra[0] belongs to the finest scale, as levels[0] does.",
            ),
            Mistake(
                "handed on",
                _handed_on,
                "you give each scale what the scale before returned. Every scale is given the global feature itself: in IntraA no scale "
                "hears of another.",
            ),
        ),
    ),
    "descend": Exercise(
        task="go from the coarsest scale to the finest",
        reference=descend,
        probe=_probe_descend,
        mistakes=(
            Mistake(
                "levels added",
                lambda levels, merges: _wrong_way_down(levels, merges, add=True),
                "you add each scale once more, as RTFS-Net's TF-AR does (+ dᵢ). IIANet does not.",
            ),
            Mistake(
                "upwards",
                lambda levels, merges: _wrong_way_down(levels, merges, order=list),
                "you go from fine to coarse. Start with the coarsest scale and end with the finest, so that the result has "
                "its length.",
            ),
            Mistake(
                "swapped",
                lambda levels, merges: _wrong_way_down(levels, merges, swap=True),
                "local and global are swapped: the finer scale is what is gated, u makes gate and shift.",
            ),
            Mistake(
                "coarsest left out",
                lambda levels, merges: _wrong_way_down(levels, merges, start=-2),
                "the coarsest scale is missing: it is where u starts.",
            ),
            Mistake(
                "merges in the wrong order",
                lambda levels, merges: descend(levels, list(merges)[::-1]),
                "the merges are in the wrong order: merges[i] belongs to scale i, so the last one comes first.",
            ),
            Mistake(
                "neighbours only",
                lambda levels, merges: merges[0](levels[0], levels[1]),
                "you merge scale 0 with scale 1 as it was. What is handed down is u, the *result* of the merge above, which holds all "
                "coarser scales.",
            ),
            Mistake(
                "one merge too few",
                _one_too_few,
                "your loop ends one scale too early: range(…) leaves its end out. The last merge is that with scale 0.",
            ),
        ),
    ),
}


# Questions before the part --------------------------------------------------------------------------------------


BEFORE = [
    multiple_choice(
        "A convolution of 16 taps with a stride of 4 runs over a waveform at 16 kHz. How many outputs a second has each filter?",
        ("1,000", False, "that would be a stride of 16, windows side by side."),
        ("4,000", True, "one every 4 samples."),
        ("16,000", False, "that would be a stride of 1."),
    ),
    multiple_choice(
        "RTFS-Net multiplies its mask with E and not with what the blocks work on. Why does the same hold for any mask?",
        (
            "what is masked must be a sum over the voices",
            True,
            "a share of it is then a share of the sound; E is linear in the sound, and so is any filter bank.",
        ),
        (
            "what is masked must be positive",
            False,
            "E is not positive, nor are the outputs of a filter bank.",
        ),
        (
            "the mask must be as large as the waveform",
            False,
            "it is as large as what it multiplies, whatever that is.",
        ),
    ),
    multiple_choice(
        "I(m, n) = W₁(m) · σ(W₂(n)) + W₃(n). What can the gate do that the shift cannot?",
        (
            "take a detail of m away",
            True,
            "a factor near zero silences what is there; a sum leaves it in.",
        ),
        ("bring in something that m does not hold", False, "that is what the shift does."),
        ("move a detail to another time", False, "neither can: both work at the place where they are."),
    ),
    multiple_choice(
        "Self-attention over T frames and a gate for each of T frames: how do their costs grow with T?",
        ("both in proportion to T", False, "attention compares every frame with every other."),
        ("attention with T², the gate with T", True, "T × T products against T."),
        ("both with T²", False, "a gate is one number per channel and frame; it compares nothing."),
    ),
    multiple_choice(
        "In RTFS-Net the lips come in once, after the first pass. What would you expect of a network in which they come in again and again?",
        (
            "more chances to use them, at a price in work and parameters",
            True,
            "what that buys is a question for an experiment; notebook 10 looks at it.",
        ),
        (
            "better separation, necessarily",
            False,
            "nothing guarantees it: features that are normalised and mixed again may drown, or may not need, a reminder.",
        ),
        (
            "nothing, since the lips are the same each time",
            False,
            "the lips are, but the sound that they meet is not.",
        ),
    ),
]


# Slivers ------------------------------------------------------------------------------------------------------------


def sliver_lengths(levels: int = 5, kernel: int = 5) -> list[int]:
    """Samples that one number of each scale has heard before any cycle, in the published network."""
    return [(frames_heard(level, kernel) - 1) * HOP + WINDOW for level in range(levels)]


def loud_moment(sound: Tensor, margin: int = 2000) -> int:
    """The sample around which a sound (L,) is loudest for 20 ms."""
    power = pool_to(sound.square()[None, None], sound.new_empty(1, 1, len(sound) // 320))[0, 0]
    return min(max(int(power.argmax()) * 320 + 160, margin), len(sound) - margin)


def slivers(sample: Sample) -> Html:
    """The mixture at a loud moment, as long as each scale has heard; to see and, between silences, to hear."""
    centre, lengths = loud_moment(sample.mixture), sliver_lengths()
    sounds = {}
    for level, count in enumerate(lengths):
        piece = sample.mixture[centre - count // 2 : centre + count // 2]
        label = f"scale {level}: {1000 * count / SAMPLE_RATE:g} ms"
        sounds[label] = torch.cat([torch.zeros(3200), piece, torch.zeros(3200)])
    return figures.draw_slivers(sample.mixture, centre, lengths) + listen(
        sounds | {"all of it: 2 s": sample.mixture}
    )


# Explorer -----------------------------------------------------------------------------------------------------------

_SAMPLE = 1  # the explorer's mixture
WHOSE = ("the first talker's", "the second talker's")


@functools.cache
def network() -> IIANet:
    return load_model(NETWORK)


@functools.cache
def _explored() -> lab.Cycles:
    return lab.watch(network(), load_sample(find_data("talkers"), _SAMPLE))


def render_gates(cycle: int, level: int, lips: str) -> Html:
    """The gates of all channels at one scale in one cycle, below the lead of the talker who is watched."""
    seen, talker = _explored(), WHOSE.index(lips)
    gates = seen.gates[cycle - 1][level][talker]  # (H, T / 2ⁱ)
    ahead = lab.lead(seen.sample.voices, seen.levels[0][-1].shape[2])[talker]
    coarse = pool_to(gates[None], ahead[None, None])[0]
    order = figures.order_by_lead(coarse, ahead)
    return figures.draw_gates(coarse, ahead, order, f"cycle {cycle}, scale {level}, {lips} lips")


EXPLORERS = {
    "gates": Explorer(
        render_gates,
        (
            Control("cycle", (1, 2, 4, 6), 6, "cycle"),
            Control("level", (0, 2, 4), 4, "scale"),
            Control("lips", WHOSE, WHOSE[0], "lips shown"),
        ),
    ),
}
