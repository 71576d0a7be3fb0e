"""Intervals from resampled talkers: values worked out by hand, and coverage on data whose truth is known."""

import numpy as np
import pytest

from avkit import intervals
from avkit.intervals import Resampler


def drawn(n_talkers, n_mixtures, talker_spread, noise, seed):
    """Mixtures whose score is 10 + both talkers' effects + noise: values and talkers."""
    generator = np.random.default_rng(seed)
    effect = generator.normal(0, talker_spread, n_talkers)
    values, talkers = {}, {}
    for mixture in range(n_mixtures):
        a, b = generator.choice(n_talkers, 2, replace=False)
        values[mixture] = 10 + effect[a] + effect[b] + generator.normal(0, noise)
        talkers[mixture] = (f"t{a}", f"t{b}")
    return values, talkers


def coverage(monkeypatch, resample_talkers, trials=150):
    """Share of intervals that hold the true mean, with 20 talkers who differ as much as mixtures do."""
    monkeypatch.setattr(intervals, "RESAMPLES", 300)
    inside = 0
    for seed in range(trials):
        values, talkers = drawn(20, 200, 1.0, 1.0, seed)
        if not resample_talkers:  # every mixture as if it had talkers of its own
            talkers = {mixture: (str(mixture),) for mixture in talkers}
        found = Resampler(talkers, seed).interval(values)
        inside += found.low <= 10 <= found.high
    return inside / trials


def test_resampled_talkers_hold_the_truth_and_resampled_mixtures_do_not(monkeypatch):
    assert 0.85 < coverage(monkeypatch, True) <= 1.0
    assert coverage(monkeypatch, False) < 0.6


def test_wide_by_at_most_1_7_where_talkers_do_not_matter():
    widths = []
    for seed in range(20):
        values, talkers = drawn(600, 300, 0.0, 1.0, seed)
        found = Resampler(talkers, seed).interval(values)
        widths.append(found.high - found.low)
    exact = 2 * 1.96 / np.sqrt(300)
    assert 1.5 < np.mean(widths) / exact < 1.9


def test_mean_and_counts():
    found = Resampler({"x": ("a", "b"), "y": ("b", "c"), "z": ("d", "d")}).interval(
        {"x": 1.0, "y": 2.0, "z": 6.0}
    )
    assert found.mean == 3.0 and found.mixtures == 3 and found.talkers == 4
    assert 1.0 <= found.low < 3.0 < found.high <= 6.0


def test_equal_values_have_an_interval_of_no_width():
    found = Resampler({"x": ("a", "b"), "y": ("b", "c")}).interval({"x": 2.0, "y": 2.0})
    assert (found.low, found.mean, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found.excludes_zero


def test_a_part_of_the_mixtures():
    talkers = {i: (f"t{i % 5}", f"t{(i + 1) % 5}") for i in range(20)}
    found = Resampler(talkers).interval({i: float(i) for i in range(10)})
    assert found.mean == 4.5 and found.mixtures == 10


def test_one_talker_has_no_interval():
    found = Resampler({"x": ("a", "a"), "y": ("a",)}).interval({"x": 1.0, "y": 2.0})
    assert found.mean == 1.5 and found.low is None and found.high is None and not found.excludes_zero


def test_nothing_has_no_mean():
    assert Resampler({"x": ("a", "b")}).interval({}) is None
    assert Resampler({}).interval({}) is None
    assert Resampler({"x": ("a", "b")}).paired({"x": 1.0}, {}) is None


def test_pairing_finds_what_unpaired_intervals_hide():
    hard, talkers = drawn(20, 100, 3.0, 3.0, seed=1)
    generator = np.random.default_rng(2)
    better = {mixture: value + 0.2 + generator.normal(0, 0.2) for mixture, value in hard.items()}
    resampler = Resampler(talkers)
    one, other = resampler.interval(better), resampler.interval(hard)
    assert one.low < other.high, "unpaired, the intervals overlap"
    difference = resampler.paired(better, hard)
    assert difference.excludes_zero and difference.mean == pytest.approx(0.2, abs=0.06)
    del better[0]
    assert resampler.paired(better, hard).mixtures == 99


def test_the_seed_decides():
    values, talkers = drawn(10, 50, 1.0, 1.0, seed=0)
    assert Resampler(talkers, 3).interval(values) == Resampler(talkers, 3).interval(values)
    assert Resampler(talkers, 3).interval(values) != Resampler(talkers, 4).interval(values)
