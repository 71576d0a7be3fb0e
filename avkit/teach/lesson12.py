"""Notebook 12, evaluation: its exercises and explorer. Records are read in `lesson12_lab`, scores taken apart in
`lesson12_scores`, pictures drawn in `lesson12_figures`."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from avkit.teach import lesson12_figures as figures
from avkit.teach import lesson12_lab as lab
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.lesson12_scores import CLIP_DB, SEGMENT
from avkit.teach.samples import find_data
from avkit.teach.widgets import Control, Explorer

INSTRUCTOR = """
**Minutes.** Opening 4 · 1 one row by hand 4 · 2 the table 5 · 3 how sure is a mean 6 + exercise 8 · 4 which differences are real 10 + exercise 5 · 5 best, median,
worst 5 · 6 what makes a mixture hard 5 · 7 SDR opened 4 · 8 STOI opened 4 + exercise 8 · 9 PESQ opened 4 · 10 every score fooled 6 · open exercise 8.
With less time, leave out what to begin with (end of section 4), section 6 and the sketch of PESQ.

**What people get wrong.**
- They resample mixtures, because the table has one row for each. Ask: if one talker is hard, how many rows does that touch?
- They read overlapping intervals as "no difference". Two systems rise and fall together over the mixtures; the interval of the difference knows.
- They read "holds 0" as "is 0". It says that these mixtures cannot tell.
- They read "+1.3 dB" as 1.3 dB everywhere. By voices it is two to three decibels here and nothing there.
- They take the correlation of a factor with SI-SNRi for that with SI-SNR. Level has opposite signs in the two.
- They believe that a score with "perceptual" in its name hears. Play the whisper of section 10 (STOI) and the tin can (PESQ).

**Questions to ask.**
- Why must the twin be as large and see as many examples? What would be unfair otherwise?
- The twin is given the better order of its outputs. Whom does that favour, and why is it still right?
- Which single number would you print if you had room for one? What would you have to print beside it?
- What would you have to do so that a network trained on SI-SNR gets a better PESQ without separating better?

**In the room.** Let half of the room choose a sound of section 10 by score and the other half by ear, before the names are shown.
"""

# Exercises ------------------------------------------------------------------------------------------------------


def resampled_means(values: np.ndarray, pairs: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(M,) values, (M, 2) numbers of their talkers, (R, K) how often each talker was drawn -> (R,) means. A mixture counts as often as
    the product of its talkers' counts; one of a talker with themselves as often as that talker."""
    weights = _weights(pairs, counts)
    return weights @ values / weights.sum(axis=1)


def _weights(pairs, counts):
    one, other = pairs[:, 0], pairs[:, 1]
    return np.where(one == other, counts[:, one], counts[:, one] * counts[:, other])


def _sum_of_counts(values, pairs, counts):
    weights = counts[:, pairs[:, 0]] + counts[:, pairs[:, 1]]
    return weights @ values / weights.sum(axis=1)


def _squared(values, pairs, counts):
    weights = counts[:, pairs[:, 0]] * counts[:, pairs[:, 1]]
    return weights @ values / weights.sum(axis=1)


def _not_divided(values, pairs, counts):
    return _weights(pairs, counts) @ values / len(values)


def _once(values, pairs, counts):
    weights = _weights(pairs, counts) > 0
    return weights @ values / weights.sum(axis=1)


def _mean_by(weights, values):
    return weights @ values / weights.sum(axis=1)


def _themselves_left_out(values, pairs, counts):
    return _mean_by(np.where(pairs[:, 0] == pairs[:, 1], 0, _weights(pairs, counts)), values)


def _smaller_count(values, pairs, counts):
    return _mean_by(np.minimum(counts[:, pairs[:, 0]], counts[:, pairs[:, 1]]), values)


def _divided_by_all(values, pairs, counts):
    weights = _weights(pairs, counts)
    return weights @ values / weights.sum()


def _probe_resample(answer, draw: torch.Generator) -> dict[str, Tensor]:
    found = {}
    for mixtures, talkers in ((30, 7), (41, 9)):
        values = torch.randn(mixtures, generator=draw).double().numpy()
        pairs = torch.randint(talkers, (mixtures, 2), generator=draw).numpy()
        pairs[0] = 0, 0  # one talker mixed with themselves
        seed = int(torch.randint(10**6, (1,), generator=draw))
        counts = lab.draw_counts(talkers, 20, seed)
        counts = counts[(_weights(pairs, counts) > 0).sum(axis=1) > 2]
        found[f"{mixtures} mixtures of {talkers} talkers"] = torch.as_tensor(np.asarray(answer(values, pairs, counts)))
    return found


def stoi_of_bands(estimate: Tensor, reference: Tensor) -> Tensor:
    """Levels (bands, M), M ≥ 30 -> STOI: the mean, over bands and over all stretches of 30 frames, of the correlation between reference
    and estimate, the latter brought to the former's energy and limited."""
    return _stoi_variant(estimate, reference)


def _stoi_variant(
    estimate, reference, scale=True, limit=True, centre=True, whole=False, hop=1, most=1 + 10 ** (CLIP_DB / 20), power=1, pooled=False, mean=True
):
    """STOI with one thing changed, for the mistakes."""
    step = estimate.shape[1] if whole else SEGMENT
    x, y = reference.unfold(1, step, hop), estimate.unfold(1, step, hop)
    if scale:
        y = y * (x.norm(dim=2, keepdim=True) / y.norm(dim=2, keepdim=True).clamp_min(1e-12)) ** power
    if limit:
        y = torch.minimum(y, x * most)
    if centre:
        x, y = x - x.mean(dim=2, keepdim=True), y - y.mean(dim=2, keepdim=True)
    if pooled:
        return (x * y).sum() / (x.norm() * y.norm())
    products = (x * y).sum(dim=2) / (x.norm(dim=2) * y.norm(dim=2)).clamp_min(1e-12)
    return products.mean() if mean else products


def _over_bands(estimate, reference):
    return stoi_of_bands(estimate.mean(dim=0, keepdim=True), reference.mean(dim=0, keepdim=True))


def _probe_stoi(answer, draw: torch.Generator) -> dict[str, Tensor]:
    found = {}
    for bands, frames in ((15, 71), (4, 45)):
        x = torch.rand(bands, frames, generator=draw).double() ** 4
        y = 3 * x + torch.rand(bands, frames, generator=draw).double() ** 8
        y[:, 10] += 20  # a click, which the limit cuts
        x[:, 35] += 6  # and a sound that the estimate lacks
        found[f"{bands} bands and {frames} frames"] = answer(y, x)
    return found


EXERCISES = {
    "resampled_means": Exercise(
        task="compute the means of resamples of talkers",
        reference=resampled_means,
        probe=_probe_resample,
        mistakes=(
            Mistake(
                "sum of counts",
                _sum_of_counts,
                "you add the two talkers' counts. A mixture is there once for each way to pick its two talkers among those drawn: with one "
                "drawn twice and the other three times, six times; and not at all if one of them was not drawn.",
            ),
            Mistake(
                "squared",
                _squared,
                "a talker mixed with themselves (another sentence) is one person: such a mixture counts as often as that talker was drawn, "
                "not as often squared.",
            ),
            Mistake(
                "not divided",
                _not_divided,
                "you divide by the number of mixtures. In a resample some are there several times and some not at all: divide by the sum of "
                "the weights.",
            ),
            Mistake(
                "only once",
                _once,
                "you ask only whether a mixture is there. One whose talkers were drawn twice counts twice or more: that is what makes it a "
                "drawing with replacement.",
            ),
            Mistake(
                "one talker alone",
                lambda values, pairs, counts: _mean_by(counts[:, pairs[:, 0]], values),
                "you count the first talker alone. A mixture takes two: it is there only if the second talker was drawn as well.",
            ),
            Mistake(
                "themselves left out",
                _themselves_left_out,
                "mixtures of a talker with themselves are lost: they count as often as that talker was drawn.",
            ),
            Mistake(
                "the smaller count",
                _smaller_count,
                "you take the smaller of the two counts. Two drawings of one talker and three of the other make six pairs, not two.",
            ),
            Mistake(
                "one number",
                lambda values, pairs, counts: resampled_means(values, pairs, counts).mean(),
                "you have averaged over the resamples. Their spread is what is wanted: return one mean for each.",
            ),
            Mistake(
                "divided by all weights",
                _divided_by_all,
                "you divide by the weights of all resamples together. Each resample has a sum of its own: sum(axis=1).",
            ),
        ),
    ),
    "overlapping": Exercise(
        task="predict what two intervals that overlap allow to be said",
        reference="c",
        probe=lambda answer, draw: {"your prediction": letter(answer)},
        mistakes=(
            Mistake(
                "no difference",
                "a",
                "both intervals are wide because some *mixtures* are harder than others, and they are harder for both systems. That part cancels "
                "when you subtract mixture by mixture.",
            ),
            Mistake(
                "real",
                "b",
                "a higher mean alone says nothing: with other talkers it might have come out the other way round.",
            ),
            Mistake(
                "half",
                "d",
                "a rule of thumb for independent groups. These two were scored on the same mixtures, and their scores rise and fall together.",
            ),
        ),
    ),
    "stoi_of_bands": Exercise(
        task="compute STOI from levels in bands",
        reference=stoi_of_bands,
        probe=_probe_stoi,
        mistakes=(
            Mistake(
                "not limited",
                lambda estimate, reference: _stoi_variant(estimate, reference, limit=False),
                "the limit is missing: where the estimate is far too loud it is cut to (1 + 10^(15/20)) times the reference, so that one click "
                "does not spoil a whole stretch.",
            ),
            Mistake(
                "not scaled",
                lambda estimate, reference: _stoi_variant(estimate, reference, scale=False),
                "the estimate is not brought to the reference's energy (stretch by stretch, band by band) before it is limited.",
            ),
            Mistake(
                "not centred",
                lambda estimate, reference: _stoi_variant(estimate, reference, centre=False),
                "the means are still in. Levels are all positive, so without taking the mean away nearly everything correlates.",
            ),
            Mistake(
                "the whole clip",
                lambda estimate, reference: _stoi_variant(estimate, reference, whole=True),
                "you correlate over the whole clip at once. STOI looks at every stretch of 30 frames (0.38 s) on its own: *short-time*.",
            ),
            Mistake(
                "bands mixed",
                _over_bands,
                "you average the bands first. Each band is correlated on its own, and the correlations are averaged.",
            ),
            Mistake(
                "exchanged",
                lambda estimate, reference: stoi_of_bands(reference, estimate),
                "reference and estimate are exchanged: the estimate is the one that is brought to the other's energy and limited by it.",
            ),
            Mistake(
                "side by side",
                lambda estimate, reference: _stoi_variant(estimate, reference, hop=SEGMENT),
                "your stretches lie side by side. They begin at every frame: unfold(1, 30, 1), so that neighbours share 29 frames.",
            ),
            Mistake(
                "limit without the 1",
                lambda estimate, reference: _stoi_variant(estimate, reference, most=10 ** (CLIP_DB / 20)),
                "your limit is 10^(15/20) times the reference. It is 1 + 10^(15/20): an error 15 dB above the reference, and the reference itself.",
            ),
            Mistake(
                "decibels by ten",
                lambda estimate, reference: _stoi_variant(estimate, reference, most=1 + 10 ** (CLIP_DB / 10)),
                "you turn decibels into a ratio by 10^(dB/10), which is for energies. Levels are root mean squares: 10^(15/20).",
            ),
            Mistake(
                "scaled by energies",
                lambda estimate, reference: _stoi_variant(estimate, reference, power=2),
                "you scale by the ratio of the energies. Levels are amplitudes: they take the ratio's root, that of the norms.",
            ),
            Mistake(
                "one correlation",
                lambda estimate, reference: _stoi_variant(estimate, reference, pooled=True),
                "you add up all stretches and bands before you divide, so loud ones decide. Each stretch of each band has a correlation of its own; STOI is their mean.",
            ),
            Mistake(
                "not averaged",
                lambda estimate, reference: _stoi_variant(estimate, reference, mean=False),
                "these are the correlations of all bands and stretches. STOI is their mean, one number.",
            ),
        ),
    ),
}


# Explorer ---------------------------------------------------------------------------------------------------------

SCORES = {"si_snr": "SI-SNR (dB)", "si_snri": "SI-SNRi (dB)"}


@functools.cache
def _known() -> dict[str, np.ndarray]:
    data = str(find_data("talkers"))
    records = lab.read_records(data)
    return lab.factors(records, data, records.networks[0])


def render_hard(factor: str, score: str) -> Html:
    """One factor against one score of the first network, a point for each output."""
    column = next(key for key, words in SCORES.items() if words == score)
    name = next(key for key, words in lab.FACTORS.items() if words == factor)
    x, y = _known()[name], _known()[column]
    return figures.draw_scatter(x, y, (factor, score), lab.rank_correlation(x, y))


EXPLORERS = {
    "hard": Explorer(
        render_hard,
        (
            Control("factor", tuple(lab.FACTORS.values()), lab.FACTORS["level"], "factor"),
            Control("score", tuple(SCORES.values()), SCORES["si_snr"], "score"),
        ),
    )
}
