"""Notebook 08, RTFS-Net: its exercises, questions, explorer, a count of the whole network by hand, and lesions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from avkit.registry import create_model, find_preset
from avkit.teach import lesson08_figures as figures
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.lesson08_lab import count_by_hand, scan_macs
from avkit.teach.quizzes import multiple_choice
from avkit.teach.widgets import Control, Explorer

INSTRUCTOR = """
**Minutes.** Opening 4 · 1 encoder and bottleneck 6 · 2 visual block 6 · 3 assembling 4 + exercise 8 · 4 the official network 5 ·
5 the bill 8 + exercises 14 · 6 paper and code 3 · 7 one mixture by heart 5 + exercise 5 · 8 what each part is worth 6 · questions 5.
With less time, leave out the visual block's equality and the stopwatch.

**What people get wrong.**
- They call CAF in every pass, or leave a₀ out after the first. Both train and neither is noticed by ear; only the comparison with
  the official network finds them. That is the case for section 4.
- They count one direction of the SRU, or four products in every layer. Let them write down the shape of each matrix first.
- They expect a network for four seconds to have more parameters. Ask: which weight knows how long the sound is?
- They read "SI-SNRi falls by 14 dB without CAF" as "CAF is worth 14 dB". A lesion shows what this network relies on; an ablation retrains.
- They take a falling loss for learning. In section 7 the mean falls without lips as well: one of the voices is learnt by heart for both.

**Questions to ask.**
- Why does S³ multiply E and not a₀? (E is linear in the sound; in a₀ the voices are no longer added.)
- What would you test first if your loss did not fall on one mixture? (The data: are lips and voices in the same order?)
- Which numbers of this notebook depend on the length of the sound, which on the machine, which on neither?
- The table of the paper counts 30.5 G, we 30.614 G. What would have to be printed so that nobody has to guess?

**In the room.** Play A, B and C at the start, take a vote which part is missing where, and come back to it in section 8.
"""

# Exercises ------------------------------------------------------------------------------------------------------


def separate_features(a0: Tensor, v: Tensor, rtfs_block: Callable, caf: Callable, repeats: int) -> Tensor:
    """a = CAF(RTFS(a₀), v), then R − 1 times a = RTFS(a + a₀)."""
    a = caf(rtfs_block(a0), v)
    for _ in range(repeats - 1):
        a = rtfs_block(a + a0)
    return a


def _without_a0(a0, v, rtfs_block, caf, repeats):
    a = caf(rtfs_block(a0), v)
    for _ in range(repeats - 1):
        a = rtfs_block(a)
    return a


def _one_pass_more(a0, v, rtfs_block, caf, repeats):
    return separate_features(a0, v, rtfs_block, caf, repeats + 1)


def _caf_every_time(a0, v, rtfs_block, caf, repeats):
    a = caf(rtfs_block(a0), v)
    for _ in range(repeats - 1):
        a = caf(rtfs_block(a + a0), v)
    return a


def _caf_before_later(a0, v, rtfs_block, caf, repeats):
    a = rtfs_block(a0)
    for _ in range(repeats - 1):
        a = rtfs_block(caf(a, v) + a0)
    return a


def _caf_last(a0, v, rtfs_block, caf, repeats):
    a = rtfs_block(a0)
    for _ in range(repeats - 1):
        a = rtfs_block(a + a0)
    return caf(a, v)


def _residual(a0, v, rtfs_block, caf, repeats):
    a = caf(rtfs_block(a0), v)
    for _ in range(repeats - 1):
        a = a + rtfs_block(a + a0)
    return a


def _caf_first(a0, v, rtfs_block, caf, repeats):
    a = rtfs_block(caf(a0, v))
    for _ in range(repeats - 1):
        a = rtfs_block(a + a0)
    return a


def _a0_outside(a0, v, rtfs_block, caf, repeats):
    a = caf(rtfs_block(a0), v)
    for _ in range(repeats - 1):
        a = rtfs_block(a) + a0
    return a


def _probe_separate(answer, draw: torch.Generator) -> dict[str, Tensor]:
    a0, v, weight = (torch.randn(2, 3, 5, generator=draw) for _ in range(3))

    def block(x: Tensor) -> Tensor:
        return torch.tanh(x * weight) + 0.5 * x

    def fuse(a: Tensor, lips: Tensor) -> Tensor:
        return a * torch.sigmoid(lips) + lips.square()

    return {f"R = {repeats}": answer(a0, v, block, fuse, repeats) for repeats in (4, 2, 1)}


def _scan(
    length, lines, channels, window, hidden, layers, *, steps=None, directions=2, later=3, fold=1
) -> int:
    """The count with parts of it changed, for the mistakes."""
    steps = length - window + 1 if steps is None else steps
    width = directions * hidden
    first, others = channels * window * width * 4, (layers - 1) * width * width * later
    return steps * lines * (first + others + fold * 2 * hidden * channels * window)


def _fold(length, lines, channels, window, hidden, layers) -> int:
    return (length - window + 1) * lines * 2 * hidden * channels * window


def _probe_scan(answer, draw: torch.Generator) -> dict[str, Tensor]:
    sizes = {
        "the scan along time of RTFS-Net-4": (125, 64, 64, 8, 32, 4),
        "20 positions, 3 lines, 5 channels, windows of 4": (20, 3, 5, 4, 6, 2),
    }
    return {name: torch.tensor(answer(*size), dtype=torch.float64) for name, size in sizes.items()}


EXERCISES = {
    "separate_features": Exercise(
        task="put the blocks in their order",
        reference=separate_features,
        probe=_probe_separate,
        mistakes=(
            Mistake(
                "a0 forgotten",
                _without_a0,
                "the later passes see only what the pass before made. Each of them is given the sum with a₀, so that the sound "
                "as it came is never forgotten.",
            ),
            Mistake(
                "one pass more",
                _one_pass_more,
                "the block runs once too often: the pass before CAF is one of the R, so R − 1 follow.",
            ),
            Mistake(
                "CAF in every pass",
                _caf_every_time,
                "you fuse after every pass. In RTFS-Net the lips come in once, after the first.",
            ),
            Mistake(
                "CAF before every later pass",
                _caf_before_later,
                "you fuse before each later pass. In RTFS-Net the lips come in once, after the first pass; a₀ is added to what "
                "CAF made.",
            ),
            Mistake(
                "CAF last",
                _caf_last,
                "you fuse at the very end. In RTFS-Net the lips come in after the first pass, so that all later ones can use them.",
            ),
            Mistake(
                "old a added too",
                _residual,
                "you add what the block returns to what it was given. The block has a residual of its own inside; its output *is* "
                "the next a.",
            ),
            Mistake(
                "CAF before the first pass",
                _caf_first,
                "you fuse before the first pass; the sound passes the block once by itself, and then meets the lips.",
            ),
            Mistake(
                "a0 added behind the block",
                _a0_outside,
                "a₀ is added to what the block is *given*, not to what it gives back.",
            ),
        ),
    ),
    "scan_macs": Exercise(
        task="count the multiplications of a scan",
        reference=scan_macs,
        probe=_probe_scan,
        tolerance=1e-9,
        mistakes=(
            Mistake(
                "one step per position",
                lambda *s: _scan(*s, steps=s[0]),
                "windows of 8 on an axis of N positions leave N − 7 steps, not N.",
            ),
            Mistake(
                "one step short",
                lambda *s: _scan(*s, steps=s[0] - s[3]),
                "count the windows: one can begin at the first position, and the last ends at the last; that is N − window + 1 "
                "of them, one more than yours.",
            ),
            Mistake(
                "windows side by side",
                lambda *s: _scan(*s, steps=s[0] // s[3]),
                "you lay the windows side by side. With stride 1 a new one begins at every position, as long as it fits.",
            ),
            Mistake(
                "later layers read one direction",
                lambda *s: _scan(*s, later=1.5),
                "your later layers read `hidden` features. The layer before them ran both ways, so each step hands on "
                "2 · hidden.",
            ),
            Mistake(
                "fold at every position",
                lambda *s: _scan(*s) + (s[3] - 1) * s[1] * 2 * s[4] * s[2] * s[3],
                "you run the transposed convolution over the positions. It is the *steps*' features that it multiplies, and "
                "there are fewer steps than positions.",
            ),
            Mistake(
                "one direction",
                lambda *s: _scan(*s, directions=1),
                "the SRU runs in both directions: each product is 2 · hidden wide, and so is what the next layer reads.",
            ),
            Mistake(
                "four products everywhere",
                lambda *s: _scan(*s, later=4),
                "only the first layer needs a fourth product. Later layers are as wide as their input, which then serves as "
                "the highway itself: three products.",
            ),
            Mistake(
                "wide input everywhere",
                lambda *s: scan_macs(*s[:5], 1) + (s[5] - 1) * (scan_macs(*s[:5], 1) - _fold(*s)),
                "you count the first layer for all. Only the first reads channels · window numbers; later ones read 2 · hidden.",
            ),
            Mistake(
                "fold forgotten",
                lambda *s: _scan(*s, fold=0),
                "the transposed convolution that brings the steps back to positions is missing.",
            ),
            Mistake(
                "operations",
                lambda *s: 2 * scan_macs(*s),
                "this counts a multiplication and its addition as two. A MAC is both together.",
            ),
        ),
    ),
    "longer": Exercise(
        task="predict parameters and MACs for twice the length",
        reference="b",
        probe=lambda answer, draw: {"4 s instead of 2 s": letter(answer)},
        mistakes=(
            Mistake(
                "exactly twice",
                "a",
                "nearly everything does double. But one part of the block compares every frame with every other: four times as "
                "many pairs for twice the frames.",
            ),
            Mistake(
                "four times",
                "c",
                "attention alone grows with the square, and it is a small part of the bill. Scans and convolutions do a fixed "
                "amount of work for each frame.",
            ),
            Mistake(
                "more parameters",
                "d",
                "which weight would know how long the sound is? Convolutions, scans and attention use the same weights at "
                "every frame.",
            ),
        ),
    ),
    "shared_db": Exercise(
        task="predict the best that one output can do for two voices",
        reference=10 * math.log10(2),
        probe=lambda answer, draw: {"the shared output": float(answer)},
        tolerance=0.02,
        mistakes=(
            Mistake(
                "the mixture itself",
                0.0,
                "0 dB is what the untouched mixture scores: the whole of the other voice is error. Half of the mixture is "
                "better.",
            ),
            Mistake(
                "half the amplitude",
                20 * math.log10(2),
                "half of the other voice is left, which alone would make 6 dB. But half of the wanted voice is missing as well, "
                "and that is error too: two errors of a quarter of the energy each.",
            ),
            Mistake(
                "one voice for both",
                -10 * math.log10(2),
                "−3 dB is what a voice scores when the output is the *other* voice: error of both energies. The question is "
                "what serves both alike.",
            ),
        ),
    ),
}


AFTER = [
    multiple_choice(
        "The scan along time is to see further for the same price. Which change does it?",
        (
            "more hidden features in the SRU",
            False,
            "a larger memory, at a higher price; its reach is set by its gates.",
        ),
        (
            "one more level of compression",
            True,
            "each step then stands for twice as long a stretch, and there are a quarter as many points to scan.",
        ),
        ("a larger R", False, "every further pass costs as much as the first."),
    ),
    multiple_choice(
        "TF-AR puts coarse knowledge G back into a fine level d by I(d, G). What would be lost if G were only added?",
        ("G could no longer be enlarged", False, "enlarging is the same in both cases."),
        ("the gradient would not reach G", False, "it passes through a sum at least as well."),
        (
            "G could no longer switch points of d off",
            True,
            "the gate multiplies what is fine by a number between 0 and 1, point by point; a sum cannot silence anything.",
        ),
    ),
    multiple_choice(
        "The same mixture is given twice, with the lips of either talker. Up to where are all features of RTFS-Net the same?",
        (
            "up to the input of CAF",
            True,
            "encoder, bottleneck and the first pass of the RTFS block see the sound alone; the lips join at CAF.",
        ),
        (
            "up to the output of the encoder",
            False,
            "neither the bottleneck nor the first pass has seen any lips either.",
        ),
        (
            "up to the mask",
            False,
            "then S³ alone would have to tell the talkers apart, and it sees no lips at all.",
        ),
    ),
    multiple_choice(
        "S³ multiplies the mask with E. Why not with a₀, which is where the separation started?",
        ("a₀ has other channels", False, "both have 256 channels and the same frames and frequencies."),
        (
            "E is a linear image of the sound: the E of a mixture is the sum of its voices' E",
            True,
            "so a share of E is a share of the sound. The norm and the ReLU of the bottleneck destroy that.",
        ),
        (
            "a₀ has no real and imaginary parts",
            False,
            "neither has, really: halves of channels are taken as such by definition.",
        ),
    ),
    multiple_choice(
        "Two papers state 21.9 G and 18.6 G MACs. What must you know before you call one network cheaper?",
        (
            "the number of parameters",
            False,
            "that is another cost; RTFS-Net-4 and -12 have the same and differ by a factor of 2.6.",
        ),
        ("the graphics card", False, "that matters for seconds, not for a count of multiplications."),
        (
            "the length of sound and the counter of each",
            True,
            "one is for 2 s and the other for 1 s, and tools differ in whether they see recurrences and attention.",
        ),
    ),
]


# Explorer -----------------------------------------------------------------------------------------------------------

PUBLISHED_GAIN = {  # (R, q) -> SI-SNRi on LRS2-2Mix in dB (paper, tables 1, 6 and 8), all with C = 256 and D = 64
    (4, 1): 14.7,
    (4, 2): 14.1,
    (4, 3): 12.8,
    (6, 2): 14.6,
    (12, 2): 14.9,
}


@functools.cache
def sizes_of(**changes: int) -> tuple[int, dict[str, int]]:
    """Parameters of RTFS-Net-4 with some settings changed, and its MACs for 2 s by part."""
    with torch.device("meta"):
        model = create_model("rtfs-net-4", **changes)
    return sum(p.numel() for p in model.parameters()), count_by_hand(model.config)


def render_sizes(repeats: int, levels: int, hidden: int, channels: int) -> Html:
    """What an RTFS-Net of these sizes costs, beside RTFS-Net-4."""
    params, macs = sizes_of(repeats=repeats, levels=levels, hidden=hidden, channels=channels)
    published = find_preset("rtfs-net-4").config
    standard = (hidden, channels) == (published.hidden, published.channels)
    gained = PUBLISHED_GAIN.get((repeats, levels)) if standard else None
    return figures.draw_sizes(params, macs, sizes_of()[1], gained)


EXPLORERS = {
    "sizes": Explorer(
        render_sizes,
        (
            Control("repeats", (4, 6, 12), 4, "repeats R"),
            Control("levels", (1, 2, 3), 2, "levels q"),
            Control("hidden", (32, 64), 64, "channels inside D"),
            Control("channels", (128, 256), 256, "channels C"),
        ),
    ),
}
