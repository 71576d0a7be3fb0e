"""Intervals for means over a test set, from resampled talkers.

Mixtures are no independent draws: a talker who is hard to separate is hard in every mixture. What varies from
one test set to the next is who is in it, so each resample draws talkers, with replacement, and holds a
mixture as often as its talkers were drawn (the product of their counts). Such intervals hold where talkers
matter, and err on the wide side, by a factor of up to 1.7, where only mixtures differ (Owen and Eckles,
"Bootstrapping data arrays of arbitrary order", 2012). With ten talkers or fewer they are somewhat too narrow,
as percentile intervals of few draws are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over mixtures with the ends of its 95 % interval.

    ``low`` and ``high`` are None where fewer than two talkers leave nothing to resample.
    """

    mean: float
    low: float | None
    high: float | None
    mixtures: int
    talkers: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low is not None and (self.low > 0 or self.high < 0)


class Resampler:
    """The same 2000 resamples of a test set's talkers for every mean taken over it, or over a part of it.

    Args:
        talkers: mixture -> who speaks in it; a talker mixed with themselves counts once.
        seed: of the resampling.
    """

    def __init__(self, talkers: Mapping[Hashable, Sequence[str]], seed: int = 0):
        self._members = {mixture: sorted(set(names)) for mixture, names in talkers.items()}
        self._row = {mixture: row for row, mixture in enumerate(talkers)}
        names = sorted({name for members in self._members.values() for name in members})
        column = {name: i for i, name in enumerate(names)}
        draws = np.zeros((RESAMPLES, 0), dtype=int)  # how often each talker is in each resample
        if names:
            chances = np.full(len(names), 1 / len(names))
            draws = np.random.default_rng(seed).multinomial(len(names), chances, RESAMPLES)
        weights = [draws[:, [column[name] for name in members]].prod(1) for members in self._members.values()]
        self._weights = np.array(weights, dtype=np.float32).reshape(len(weights), RESAMPLES)

    def interval(self, values: Mapping[Hashable, float]) -> Interval | None:
        """The mean of one value per mixture and its 95 % percentile interval; None without values.

        ``values`` may cover a part of the mixtures.
        """
        if not values:
            return None
        data = np.array(list(values.values()), dtype=float)
        talkers = len({name for mixture in values for name in self._members[mixture]})
        if talkers < 2:
            return Interval(float(data.mean()), None, None, len(data), talkers)
        weights = self._weights[[self._row[mixture] for mixture in values]]
        total = weights.sum(0)
        drawn = total > 0  # a resample without any of these mixtures has no mean
        means = (data @ weights)[drawn] / total[drawn]
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(data.mean()), float(low), float(high), len(data), talkers)

    def paired(self, first: Mapping[Hashable, float], second: Mapping[Hashable, float]) -> Interval | None:
        """The mean of first − second over the mixtures that both have, and its interval.

        Pairing takes out what makes a mixture hard for both systems, so that differences far smaller than
        either system's own interval can be told from 0.
        """
        return self.interval({key: first[key] - second[key] for key in first if key in second})
