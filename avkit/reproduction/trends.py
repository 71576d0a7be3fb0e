"""From paired runs to a verdict: the mean difference over seeds, its interval, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from avkit.errors import InputError
from avkit.reproduction.contrasts import Contrast

LEVEL = 0.95


@dataclass(frozen=True)
class Trend:
    """A paired difference over seeds, in dB, with its 95 % interval (Student's t), and what follows from it."""

    mean: float
    low: float
    high: float
    seeds: int
    verdict: str


def paired_interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences and the ends of its 95 % interval by Student's t with n − 1 degrees of freedom.

    A seed fixes first weights, mixtures and their order for both sides, so what is hard about a seed cancels; what is
    left is taken as normal, which five seeds can neither show nor refute.

    Raises InputError with fewer than two differences: one says nothing about spread.
    """
    if len(differences) < 2:
        raise InputError(
            f"{len(differences)} difference(s) were given; an interval needs at least two seeds."
        )
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1)) * spread / math.sqrt(len(differences))
    return mean, mean - half, mean + half


def judge(differences: Sequence[float], expected: str, planned: int, as_planned: bool = True) -> Trend:
    """What paired differences say about an expected sign.

    "reproduced" needs every planned seed, an interval that excludes 0, and the expected sign.

    Args:
        differences: first minus second in dB, one a seed.
        expected: "+" or "-".
        planned: how many seeds were planned.
        as_planned: whether the runs had the planned steps and mixtures.
    """
    mean, low, high = paired_interval(differences)
    sign = "+" if low > 0 else "-" if high < 0 else ""
    if not as_planned:
        verdict = "a first try, not the planned scale"
    elif len(differences) < planned:
        verdict = f"undecided: {len(differences)} of {planned} seed pairs were run"
    elif not sign:
        verdict = "not reproduced at this scale: the interval holds 0"
    elif sign != expected:
        verdict = "the opposite at this scale: the interval excludes 0, with the other sign"
    else:
        verdict = "reproduced at this scale: the interval excludes 0, with the expected sign"
    return Trend(mean, low, high, len(differences), verdict)


def pairs(contrast: Contrast, results: Mapping[tuple[str, int], dict]) -> list[dict]:
    """The seeds that both sides of a contrast have finished, each with both SI-SNRi and their difference in dB.

    results: (variant's name, seed) -> result of that run.
    """
    found = []
    for variant, seed in sorted(results):
        if variant == contrast.first.name and (contrast.second.name, seed) in results:
            first = results[variant, seed]["si_snri"]
            second = results[contrast.second.name, seed]["si_snri"]
            found.append({"seed": seed, "first": first, "second": second, "difference": first - second})
    return found


def sentence(trend: Trend) -> str:
    """The verdict in one sentence, with its figures."""
    return (
        f"{trend.verdict}; {trend.mean:+.2f} dB [{trend.low:+.2f}, {trend.high:+.2f}] over {trend.seeds} paired seeds, "
        "synthetic talkers"
    )
