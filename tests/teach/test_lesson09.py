"""Notebook 09's experiments on IIANet: what is watched is what flows, counts, lesions, reach, and what gates follow."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import avkit
from avkit.checkpoints import attach_lips
from avkit.complexity import measure
from avkit.iianet import IIANetConfig
from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.teach import lesson09, samples
from avkit.teach import lesson09_lab as lab

SMALL = {"channels": 12, "hidden": 16, "lip_hidden": 8, "filters": 10, "cycles": 4, "fusion_cycles": 2}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = avkit.create_model("iianet-tiny", **SMALL).eval().requires_grad_(False)
    attach_lips(made, LipEncoder(LipEncoderConfig(widths=(4, 4, 8, 8))).eval())
    return made


@pytest.fixture(scope="module")
def sample(repository):
    whole = samples.load_sample(repository / "data_samples" / "talkers", 1)
    short = 640 * 20
    return dataclasses.replace(
        whole, mixture=whole.mixture[:short], voices=whole.voices[:, :short], lips=whole.lips[:, :20]
    )


@pytest.fixture(scope="module")
def features():
    return torch.randn(2, 512, 20)


@pytest.fixture(scope="module")
def seen(model, sample, features):
    return lab.watch(model, sample, features)


def test_what_is_watched_is_what_flows(model, sample, features, seen):
    whole = lab.both_voices(model, sample, features)
    torch.testing.assert_close(lab.read_out(model, seen, seen.sound[-1]), whole)
    again = lab._cycle_outputs(model, seen.a0, seen.v0)
    assert len(again) == len(seen.sound) == len(seen.gates) == 4 and len(seen.lip_levels) == 2
    for x, y in zip(again, seen.sound, strict=True):
        torch.testing.assert_close(x, y)
    for gates, levels in zip(seen.gates, seen.levels, strict=True):
        assert [level.shape[2] for level in levels] == lab.sizes(seen.a0.shape[2], 5)
        assert all(0 <= gate.min() and gate.max() <= 1 for gate in gates)


def test_lips_are_encoded_where_no_features_are_given(model, sample):
    watched = lab.watch_lips(model, sample.lips)
    torch.testing.assert_close(lab.both_voices(model, sample), lab.both_voices(model, sample, watched))


@pytest.mark.parametrize("seconds", [0.7, 1.013])
@pytest.mark.parametrize("changes", [{}, {"window": 16, "levels": 3}])
def test_formulas_count_what_the_counter_counts(seconds, changes):
    small = avkit.create_model("iianet-tiny", **{**SMALL, **changes}, fast=False)
    row = next(row for row in measure(small, seconds).rows if row.module == "separation.audio_intra")
    assert row.macs == 4 * lab.intra_macs(small.config, seconds)
    samples_ = round(16000 * seconds)
    assert lab.frames_of(small.config, samples_) == small.encoder(torch.zeros(1, samples_)).shape[2]


def test_published_numbers_that_the_notebook_names():
    assert lesson09.sliver_lengths() == [32, 48, 80, 144, 272]  # 2, 3, 5, 9, 17 ms
    assert lab.frames_of(IIANetConfig(), 32000) == 8010
    assert lab.sizes(8010, 5)[-1] == 501


def test_lesions_change_the_output_and_leave_nothing_behind(model, sample, features):
    before = lab.both_voices(model, sample, features)
    for part in lab.PARTS:
        with lab.without(model, part):
            assert not torch.allclose(lab.both_voices(model, sample, features), before, rtol=1e-3), part
        torch.testing.assert_close(lab.both_voices(model, sample, features), before)


def test_lesions_are_what_they_are_called(model):
    unit = model.separation.audio_intra[1]
    m, n = torch.randn(2, 16, 30), torch.randn(2, 16, 30)
    with lab.without(model, "gates"):
        torch.testing.assert_close(unit(m, n), 0.5 * unit.local(m) + unit.embedding(n))
    with lab.without(model, "shifts"):
        torch.testing.assert_close(unit(m, n), unit.local(m) * torch.sigmoid(unit.gate(n)))
    with lab.without(model, "steady"):
        held = unit.embedding(n).mean(dim=(0, 2), keepdim=True)
        torch.testing.assert_close(unit(m, n), unit.local(m) * torch.sigmoid(unit.gate(n)) + held)
    with lab.without(model, "intra"):
        assert torch.equal(unit(m, n), m)
    with lab.without(model, "merges"):
        levels = [torch.randn(2, 16, count) for count in (40, 20, 10, 5, 3)]
        top_down = model.separation.audio_top_down
        torch.testing.assert_close(top_down(levels), top_down.expansion(levels[0]))


def test_reach_is_one_where_the_frame_was_exchanged(model, seen):
    curves = lab.reach(model, seen, (300, 500))
    assert curves.shape == (4, seen.a0.shape[2]) and torch.equal(curves[:, 0], torch.ones(4))
    assert lab.width(torch.tensor([1.0, 0.5, 0.02, 0.005, 0, 0, 0, 0, 0, 0])) == 2
    around = lab.spread(model, seen, (400,), span=30)
    assert around["before IntraA"].argmax() in range(28, 33)  # five taps
    assert around["before IntraA"][:25].max() < 0.1 * around["before IntraA"].max()


def test_gates_that_ignore_the_lips_follow_nobody(seen):
    deaf = [[gate[:1].expand(2, -1, -1) for gate in gates] for gates in seen.gates]
    strength, by_level = lab.follow([dataclasses.replace(seen, gates=tuple(deaf))])
    assert strength.max() < 1e-5 and by_level.shape == (4, 5)
    ahead = lab.lead(seen.sample.voices, seen.levels[0][-1].shape[2])
    torch.testing.assert_close(ahead[0], -ahead[1])
    follower = [[ahead[:, None].expand(-1, 16, -1) for _ in gates] for gates in seen.gates]
    strength, _ = lab.follow([dataclasses.replace(seen, gates=tuple(follower))])
    torch.testing.assert_close(strength, torch.ones(4))


def test_responses_find_a_tone():
    times = torch.arange(64) / 16000
    filters = torch.stack([torch.cos(2 * torch.pi * f * times) * torch.hann_window(64) for f in (3000, 1000)])
    peaks, magnitudes = lab.responses(filters)
    assert peaks.tolist() == pytest.approx([1.0, 3.0], abs=0.1) and magnitudes.max() == 1
