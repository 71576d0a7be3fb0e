"""Notebook 14, reproducing the papers: its exercises, questions and explorer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats

from avkit.reproduction.trends import paired_interval
from avkit.teach import lesson14_figures as figures
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.quizzes import multiple_choice
from avkit.teach.widgets import Control, Explorer

INSTRUCTOR = """
**Minutes.** Opening 3 · 1 what a number needs 4 · 2 recomputing 5 + exercise 6 · 3 claims 4 + exercise 5 · 4 paper and code 9 + exercise 3 ·
5 small ablations 7 + exercise 8 · 6 with the data 5 · 7 many GPUs 6 + exercise 5 · 8 official weights 3 · questions 5.
With less time, leave out section 6's run and the explorer.

**What people get wrong.**
- They take "reproduced" for "the same number". Let them say first how many digits the paper prints.
- They compare MACs of 1 s with MACs of 2 s, since both tables say "G". Section 3 is for that.
- They believe a plausible cause. The drifting batch norms of section 4 are plausible, and here they do next to nothing.
- They put two error bars side by side and see that they overlap. Paired runs need the interval of the *difference*.
- They halve the number of GPUs and keep everything else. Ask what the optimiser sees.

**Questions to ask.**
- Which rows of the ledger could turn from "recipe" to a measured figure on your own machines? What would it cost?
- A row says 16.0 dB and you measure 15.8. What do you report, and what do you look at first?
- Why is the expected sign written down before the run?

**In the room.** Let each pair choose one row, run its command, and read out what it says. A row that only says what is missing is a
good one: is the list complete?
"""

# Exercises ------------------------------------------------------------------------------------------------------


def agrees(printed: str, value: float) -> bool:
    """Whether a value, rounded to as many decimals as were printed, is what was printed."""
    decimals = len(printed.partition(".")[2])
    return round(value, decimals) == float(printed)


PRINTED = (
    ("21.9", 21.930), ("30.5", 30.614), ("56.4", 56.666), ("3.1", 3.03667), ("18.6", 17.100),
    ("0.739", 0.740210), ("14.1", 14.149), ("14.1", 14.151), ("3.10", 3.14), ("2", 2.4),
    ("21.9", 21.90004),
)  # fmt: skip


def _probe_agrees(answer, draw: torch.Generator) -> dict[str, bool]:
    return {f"{printed} in print and {value:g} here": bool(answer(printed, value)) for printed, value in PRINTED}


def share(macs: float, seconds: float, other_macs: float, other_seconds: float) -> float:
    """The first network's multiplications per second of sound, in per cent of the other's."""
    return 100 * (macs / seconds) / (other_macs / other_seconds)


def _probe_share(answer, draw: torch.Generator) -> dict[str, float]:
    macs = float(10 + torch.rand((), generator=draw))
    return {
        "the same length": answer(30.5, 2.0, 167.2, 2.0),
        "1 s against 2 s": answer(10.75, 1.0, 167.2, 2.0),
        "4 s against 1 s": answer(macs, 4.0, 30.0, 1.0),
    }


def interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of first − second, paired by seed, by Student's t."""
    _, low, high = paired_interval([a - b for a, b in zip(first, second, strict=True)])
    return low, high


T_97_5 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # two-sided 95 %: by the number of seeds


def _spread(first, second, *, quantile=None, ddof=1, root=True, paired=True, shrink=1.0) -> tuple[float, float]:
    """The interval with parts of it changed, for the mistakes."""
    first, second = np.asarray(first), np.asarray(second)
    n = len(first)
    if paired:
        spread = np.std(first - second, ddof=ddof)
    else:
        spread = math.sqrt(np.var(first, ddof=ddof) + np.var(second, ddof=ddof))
    half = (T_97_5[n] if quantile is None else quantile) * spread / (math.sqrt(n) if root else 1)
    half, mean = half / shrink, float((first - second).mean())
    return mean - half, mean + half


def _probe_interval(answer, draw: torch.Generator) -> dict[str, torch.Tensor]:
    results = {}
    for seeds in (5, 3):
        hard = 2 * torch.randn(seeds, generator=draw)
        runs = [(5 + gain + hard + 0.3 * torch.randn(seeds, generator=draw)).tolist() for gain in (0.5, 0.0)]
        results[f"{seeds} seeds"] = torch.tensor([float(end) for end in answer(*runs)])
    return results


def steps_per_epoch(mixtures: int, batch: int, devices: int, accumulate: int) -> int:
    """Optimiser steps of an epoch: two items a mixture, whole batches on every device, gradients of some added up; what is left of the
    batches makes a last step."""
    return -(-(2 * mixtures // (batch * devices)) // accumulate)


def _probe_steps(answer, draw: torch.Generator) -> dict[str, float]:
    return {
        "LRS2-2Mix on 8 GPUs, batches of 4": float(answer(20000, 4, 8, 1)),
        "LRS2-2Mix on 2 GPUs, batches of 4, four added up": float(answer(20000, 4, 2, 4)),
        "LRS3-2Mix on 8 GPUs, batches of 3": float(answer(50000, 3, 8, 1)),
        "LRS2-2Mix on 8 GPUs, batches of 3, four added up": float(answer(20000, 3, 8, 4)),
    }


EXERCISES = {
    "agrees": Exercise(
        task="compare a number with a printed one as far as it is printed",
        reference=agrees,
        probe=_probe_agrees,
        mistakes=(
            Mistake(
                "one per cent",
                lambda printed, value: abs(value / float(printed) - 1) <= 0.01,
                "within one per cent is a different question: it accepts 30.6 for 30.5, and 0.740 for 0.739, where three "
                "digits are printed.",
            ),
            Mistake(
                "equal",
                lambda printed, value: value == float(printed),
                "nothing measured will ever be equal to a rounded number. Round yours to as many decimals as were printed.",
            ),
            Mistake(
                "beginning",
                lambda printed, value: str(value).startswith(printed),
                "this cuts off (comparing first characters does, too) where print is rounded: 3.04 is 3.0 then, but 14.151 is 14.1 as well.",
            ),
            Mistake(
                "trailing zeros lost",
                lambda printed, value: round(value, len(f"{float(printed):g}".partition(".")[2])) == float(printed),
                "3.10 promises two decimals, 3.1 only one. Count the decimals in the text, before it becomes a number.",
            ),
            Mistake(
                "length of the text",
                lambda printed, value: round(value, len(printed)) == float(printed),
                "you round to as many decimals as the text has characters. Count those behind the point only.",
            ),
            Mistake(
                "one decimal",
                lambda printed, value: round(value, 1) == float(printed),
                "you always round to one decimal. 0.739 promises three, 2 none: count them in the text.",
            ),
            Mistake(
                "half of a tenth",
                lambda printed, value: abs(value - float(printed)) < 0.05,
                "within 0.05 is right for one decimal only. How near is near enough depends on how many decimals were printed.",
            ),
            Mistake(
                "text against text",
                lambda printed, value: str(round(value, len(printed.partition(".")[2]))) == printed,
                "you compare texts, and Python writes 2.0 where 2 was printed. Compare numbers: float(printed).",
            ),
            Mistake(
                "no point",
                lambda printed, value: round(value, len(printed.split(".")[1])) == float(printed),
                "a number printed without a point has nothing behind it to split off: `partition` gives an empty text there, `split` stops.",
            ),
        ),
    ),
    "share": Exercise(
        task="compare two costs per second of sound",
        reference=share,
        probe=_probe_share,
        tolerance=1e-6,
        mistakes=(
            Mistake(
                "lengths ignored",
                lambda a, s, b, t: 100 * a / b,
                "this divides the work for one length by the work for another. Divide each by its seconds first.",
            ),
            Mistake(
                "multiplied by the seconds",
                lambda a, s, b, t: 100 * (a * s) / (b * t),
                "work grows with the length, so work per second is the work *divided* by the seconds.",
            ),
            Mistake(
                "upside down",
                lambda a, s, b, t: 100 * (b / t) / (a / s),
                "this says how much the other network costs in per cent of the first; asked is the first in per cent of the other.",
            ),
            Mistake(
                "a fraction",
                lambda a, s, b, t: share(a, s, b, t) / 100,
                "a share of 0.18 is 18 per cent; per cent are asked for, as the README prints them.",
            ),
            Mistake(
                "saved",
                lambda a, s, b, t: 100 - share(a, s, b, t),
                "that is what is *saved*. Asked is the first network's share of the other's work.",
            ),
            Mistake(
                "one of them by the second",
                lambda a, s, b, t: 100 * (a / s) / b,
                "you divide the first network's work by its seconds, and the other's not. Both are to be work per second.",
            ),
            Mistake(
                "rounded",
                lambda a, s, b, t: round(share(a, s, b, t)),
                "right, but rounded: return the number as it is, and round where you print it.",
            ),
        ),
    ),
    "drift": Exercise(
        task="predict what drifted batch norms do",
        reference="c",
        probe=lambda answer, draw: {"the gain afterwards": letter(answer)},
        mistakes=(
            Mistake(
                "broken",
                "a",
                "a plausible fear. But the statistics drift towards those of frames like the ones that the encoder learnt from, "
                "and those are nearly what it holds already.",
            ),
            Mistake(
                "one decibel",
                "b",
                "less than that. Each channel's mean and variance move a little, and the layers after it were trained with the "
                "noise of batch statistics all along.",
            ),
        ),
    ),
    "interval": Exercise(
        task="make the paired interval of a difference",
        reference=interval,
        probe=_probe_interval,
        tolerance=2e-3,
        mistakes=(
            Mistake(
                "not paired",
                lambda a, b: _spread(a, b, paired=False),
                "you add the spreads of both sides, so a seed that is hard for both widens the interval. Take the difference of "
                "each seed first; what is hard about a seed then cancels.",
            ),
            Mistake(
                "normal",
                lambda a, b: _spread(a, b, quantile=1.96),
                "1.96 is for a spread that is known. From five runs it is estimated, and Student's t with 4 degrees of freedom "
                "has 2.776.",
            ),
            Mistake(
                "n instead of n − 1",
                lambda a, b: _spread(a, b, ddof=0),
                "the spread is divided by n; around a mean taken from the same n numbers, n − 1 are free (`ddof=1`).",
            ),
            Mistake(
                "spread of one run",
                lambda a, b: _spread(a, b, root=False),
                "this is where a *single* further difference would lie. The mean of n is more certain by √n.",
            ),
            Mistake(
                "mean and half",
                lambda a, b: (sum(_spread(a, b)) / 2, (_spread(a, b)[1] - _spread(a, b)[0]) / 2),
                "these are the middle and half the width. Return the two ends: middle less half, middle plus half.",
            ),
            Mistake(
                "second less first",
                lambda a, b: _spread(b, a),
                "you subtract the first from the second, so the sign is turned. The interval is that of first − second.",
            ),
            Mistake(
                "ends exchanged",
                lambda a, b: _spread(a, b)[::-1],
                "the ends are exchanged: the lower one comes first.",
            ),
            Mistake(
                "divided by n",
                lambda a, b: _spread(a, b, shrink=len(a) ** 0.5),
                "you divide by n. The spread of a mean falls with the *root* of the number of runs.",
            ),
            Mistake(
                "root of n − 1",
                lambda a, b: _spread(a, b, shrink=((len(a) - 1) / len(a)) ** 0.5),
                "n − 1 belongs into the spread (`ddof=1`). The mean of n runs is more certain by the root of n.",
            ),
            Mistake(
                "quantile of n − 1",
                lambda a, b: _spread(a, b, quantile=T_97_5[len(a) - 1]),
                "the table is by the number of runs n already; it has done the step to n − 1 degrees of freedom for you.",
            ),
            Mistake(
                "smallest and largest",
                lambda a, b: (min(x - y for x, y in zip(a, b)), max(x - y for x, y in zip(a, b))),
                "these are the smallest and the largest difference. They say where single runs fell, not how sure their mean is.",
            ),
            Mistake(
                "lists",
                lambda a, b: (a - b).mean(),
                "lists cannot be subtracted from one another: np.subtract(first, second) takes them seed by seed.",
            ),
        ),
    ),
    "steps_per_epoch": Exercise(
        task="count the optimiser's steps in an epoch",
        reference=steps_per_epoch,
        probe=_probe_steps,
        tolerance=1e-9,
        mistakes=(
            Mistake(
                "one item a mixture",
                lambda m, b, d, a: math.ceil(m // (b * d) / a),
                "each mixture is two items: either talker is the target once.",
            ),
            Mistake(
                "devices forgotten",
                lambda m, b, d, a: math.ceil(2 * m // b / a),
                "every device takes a batch of its own in each step, so a step uses batch · devices items.",
            ),
            Mistake(
                "every batch a step",
                lambda m, b, d, a: 2 * m // (b * d),
                "with gradients added up, only every `accumulate`-th batch is followed by a step of the optimiser.",
            ),
            Mistake(
                "multiplied",
                lambda m, b, d, a: 2 * m // (b * d) * a,
                "you multiply by `accumulate`. Adding gradients up makes *fewer* steps: one for so many batches.",
            ),
            Mistake(
                "parts of a step",
                lambda m, b, d, a: 2 * m / (b * d) / a,
                "there are no parts of a step. Items that fill no whole batch are left out: divide with //. What is left of the batches makes one more "
                "step: round that division up.",
            ),
            Mistake(
                "rounded down",
                lambda m, b, d, a: 2 * m // (b * d) // a,
                "you leave out the batches that fill no whole step at the end of the epoch. They make one last, smaller step: round that "
                "division up.",
            ),
            Mistake(
                "rounded up at once",
                lambda m, b, d, a: math.ceil(2 * m / (b * d * a)),
                "you count items that fill no whole batch on all devices. They are left out: divide with // first, and round up only the "
                "division by `accumulate`.",
            ),
            Mistake(
                "items",
                lambda m, b, d, a: 2 * m,
                "these are the items of an epoch. A step uses batch · devices · accumulate of them.",
            ),
        ),
    ),
}


AFTER = [
    multiple_choice(
        "Your training run was killed in epoch 31 and you give the same command again. What do you get?",
        ("a run that starts anew", False, "only with --fresh; otherwise it goes on from last.ckpt."),
        ("the same weights as an unbroken run, if machine, threads and devices are the same", True,
         "order, mixtures and chance follow from seed, epoch and place in the epoch, not from what ran before."),
        ("other weights, since chance starts anew", False, "all chance is drawn from the position in the run."),
    ),
    multiple_choice(
        "A network scores 15.2 ± 0.6 dB and another 14.9 ± 0.6 dB on the same test mixtures. Which is better?",
        ("neither: the intervals overlap", False, "overlap says little: what makes mixtures hard is common to both."),
        ("the first, by 0.3 dB", False, "that is the estimate; whether its interval leaves out 0 is another matter."),
        ("the paired difference decides; these intervals do not", True,
         "what makes a mixture hard for both networks cancels in the difference."),
    ),
    multiple_choice(
        "A face in your video never moves its lips. What does the network give for this person?",
        ("nothing to rely on: the network was never trained on that, and tends to give another voice", True,
         "still lips carry no sign of who speaks; measure what comes out and say so."),
        ("silence, always", False, "it was trained on speaking targets only, and knows no silent answer."),
        ("the whole mixture, always", False, "it will pick voices by other cues, the louder one for instance."),
    ),
    multiple_choice(
        "A paper's table says PESQ 3.08. Which value can you set beside it?",
        ("any PESQ, it is a standard", False, "the standard has several modes, and code calls them in its own ways."),
        ("one that was computed with the same band, scale and order of arguments", True,
         "wide band, narrow band, raw and MOS-LQO differ by more than the systems do."),
        ("PESQ of the mixture plus the improvement", False, "the scale is not linear, and the modes still differ."),
    ),
    multiple_choice(
        "A contrast over five paired seeds gives +0.4 dB [−0.1, +0.9]. What do you write?",
        ("reproduced: the sign is as expected", False, "without any effect the sign would be the expected one half of the time."),
        ("refuted", False, "0.9 dB is in the interval too; the experiment was too small to refute anything."),
        ("not reproduced at this scale, with the figures", True,
         "the interval holds 0; the sign was as expected, but chance explains it as well."),
    ),
]  # fmt: skip


# Explorer -----------------------------------------------------------------------------------------------------------


def simulate(seeds: int, effect: float, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Made-up results of two variants (dB) over seeds: a spread that both share, 0.3 dB of their own, and an effect."""
    chance = np.random.default_rng(14)
    hard, own = chance.normal(size=20) * shared, 0.3 * chance.normal(size=(2, 20))
    return (5 + effect + hard + own[0])[:seeds], (5 + hard + own[1])[:seeds]


def render_seeds(seeds: int, effect: float, shared: float) -> Html:
    """Simulated runs of two variants, and the intervals of their difference, paired and not."""
    first, second = simulate(seeds, effect, shared)
    mean, low, high = paired_interval(first - second)
    n = len(first)
    spread = math.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / n)
    half = float(stats.t.ppf(0.975, 2 * n - 2)) * spread  # two groups, n − 1 free numbers in each
    unpaired = (mean - half, mean + half)
    return figures.draw_seeds(first, second, (low, high), unpaired, f"{n} seeds, true effect {effect} dB (simulated)")


EXPLORERS = {
    "seeds": Explorer(
        render_seeds,
        (
            Control("seeds", (2, 3, 5, 10, 20), 5, "seeds"),
            Control("effect", (0.0, 0.3, 1.0), 0.3, "true effect (dB)"),
            Control("shared", (0.0, 1.5), 1.5, "spread that both sides share (dB)"),
        ),
    ),
}
