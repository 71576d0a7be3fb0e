"""The experiments of notebook 06: halting and finishing, lesions, delays, the probe, mouths and loudness."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from avkit import baselines, load_model
from avkit.data.labels import read_labels
from avkit.layers import upsample
from avkit.lips import LipTransform
from avkit.teach import lesson06, samples
from avkit.teach import lesson06_lab as lab


@pytest.fixture(scope="module")
def model():
    return load_model("rtfs-net-tiny")


@pytest.fixture(scope="module")
def data(repository):
    return str(repository / "data_samples" / "talkers")


@pytest.fixture(scope="module")
def sample(data):
    return samples.load_sample(data, 1)


@pytest.fixture(scope="module")
def half(model, sample):
    return lab.halfway(model, sample)


def test_halted_and_finished_is_the_whole_network(model, sample, half):
    with torch.no_grad():
        whole = model(sample.mixture.expand(2, -1), model.lips(LipTransform()(sample.lips)))[:, 0]
    torch.testing.assert_close(lab.finish(model, half, lab.fuse_with(model.caf, half)), whole)
    swapped = lab.halfway(model, sample, sample.lips.flip(0))
    torch.testing.assert_close(swapped.v, half.v.flip(0))


def test_lesions_are_what_they_say(model, half):
    caf = copy.deepcopy(model.caf).double()  # where the paths cancel, float32 leaves little but rounding
    half = dataclasses.replace(half, a=half.a.double(), v=half.v.double())
    with torch.no_grad():
        whole = caf(half.a.expand(2, -1, -1, -1), half.v)
        value, key = caf.value(half.a), caf.key(half.a)
        frozen = caf.lip_gate(half.v).mean(-1)[..., None, None] * key
    fused = {name: lab.fuse_with(caf, half, *paths) for name, paths in lab.LESIONS.items()}
    torch.testing.assert_close(fused["both paths whole"], whole)
    torch.testing.assert_close(fused["attention path cut"] + fused["gated path cut"], whole)
    torch.testing.assert_close(
        fused["attention path frozen"] - fused["attention path cut"], (value / 50).expand_as(whole)
    )
    torch.testing.assert_close(fused["gated path frozen"] - fused["gated path cut"], frozen)
    small, large = lab.path_sizes(caf, half)
    assert small == pytest.approx(float(fused["gated path cut"].square().mean().sqrt())) and small < large


def test_delays(model, sample, half, monkeypatch):
    weights = torch.arange(12.0).view(1, 2, 6)
    assert lab._late(weights, 2).tolist() == [[[0, 0, 0, 1, 2, 3], [6, 6, 6, 7, 8, 9]]]
    monkeypatch.setattr(lab, "finish", lambda model, half, fused: fused)
    caf, found = model.caf, lab.late_voices(model, half, 3)
    shown = lab.halfway(model, sample, torch.stack([baselines.late(lips, 3) for lips in sample.lips]))
    with torch.no_grad():
        value, key = caf.value(half.a), caf.key(half.a)
        attention, gate = caf.attention_weights(half.v), caf.lip_gate(half.v)
    torch.testing.assert_close(found["lips late"], lab.fuse_with(caf, shown))
    torch.testing.assert_close(found["gate alone late"], lab.fuse(value, key, attention, lab._late(gate, 3)))
    torch.testing.assert_close(
        found["attention alone late"], lab.fuse(value, key, lab._late(attention, 3), gate)
    )


def test_probe_can_only_guess_before_the_lips(model, data, half):
    other = lab.halfway(model, samples.load_sample(data, 8))
    accuracy = lab.probe(model, [half], [other])
    assert list(accuracy) == [
        "before CAF",
        "after CAF",
        *(f"after block {n}" for n in range(2, model.config.repeats + 1)),
    ]
    assert accuracy["before CAF"] == 0.5
    assert all(0.4 < value < 1 for value in accuracy.values())
    owner, clear = lab.owners(model, half.sample)
    assert owner.shape[1:] == clear.shape == half.a.shape[2:]
    assert (owner.sum(0) == 1).all() and 0.05 < clear.float().mean() < 0.95
    noise = torch.randn(32000)
    louder = dataclasses.replace(half.sample, mixture=noise, voices=torch.stack([noise, 0.1 * noise]))
    owner, _ = lab.owners(model, louder)
    assert owner[0].mean() > 0.99 and owner[1].mean() < 0.01


def test_probe_reads_what_is_there(model, half, monkeypatch):
    """Features that hold the answer give an accuracy of one."""
    owner, _ = lab.owners(model, half.sample)
    answer = owner[:, None].float().expand(-1, 3, -1, -1) + torch.tensor([0.0, 5.0, -1.0]).view(1, 3, 1, 1)
    monkeypatch.setattr(lab, "stages", lambda model, half: {"told": answer})
    assert lab.probe(model, [half], [half]) == {"told": 1.0}


def test_mouths_are_those_of_the_labels(data, sample):
    table, mouths = read_labels(data), lab.openings(data, sample)
    first, second = ("_".join(sample.name.split("_")[place : place + 2]) for place in (0, 3))
    assert mouths.tolist() == [table.curves[table.index(name), :, 0].tolist() for name in (first, second)]


def test_loudness_and_correlation():
    tone = torch.sin(torch.arange(640 * 3) / 5)
    levels = lab.loudness(torch.cat([tone, 0.1 * tone, torch.zeros(640)]))
    assert levels.shape == (7,)
    assert float(levels[1] - levels[4]) == pytest.approx(20, abs=0.1)
    assert float(levels.max() - levels[6]) == pytest.approx(50, abs=1e-4)
    x = torch.randn(4, 9)
    torch.testing.assert_close(lab.correlation(x, 3 * x + 1), torch.ones(4))
    torch.testing.assert_close(lab.correlation(x, -x), -torch.ones(4))
    assert lab.correlation(x, torch.ones(9)).tolist() == [0, 0, 0, 0]


def test_follow_tells_a_gate_from_its_size(data, sample, monkeypatch):
    """A gate of minus the mouth's opening falls with the mouth, and its size rises."""
    mouths = lab.openings(data, sample)
    monkeypatch.setattr(lab, "watch", lambda model, lips: mouths[:, None])
    caf = SimpleNamespace(lip_gate=torch.neg, attention_weights=torch.clone)
    found = lab.follow(SimpleNamespace(caf=caf), data, [sample])
    moves = "own lips shown, own mouth"
    values = [found[path][moves].item() for path in ("gate", "gate's size", "attention")]
    assert values == pytest.approx([-1, 1, 1])


def test_sizes_by_length(model, data, sample, half):
    """Of two seconds what `path_sizes` says; of one and of four, sound and lips are of one length."""
    other = samples.load_sample(data, 8)
    sizes = lab.sizes_by_length(model, [sample, other])
    both = [lab.path_sizes(model.caf, stopped)[0] for stopped in (half, lab.halfway(model, other))]
    assert sizes[2] == pytest.approx(sum(both) / 2)
    assert list(sizes) == [1, 2, 4] and sizes[1] > sizes[2] > sizes[4]
    cut, joined = lab._cut(sample, 25), lab._joined(sample, other)
    assert torch.equal(cut.voices, sample.voices[:, :16000]) and torch.equal(cut.lips, sample.lips[:, :25])
    assert torch.equal(joined.mixture[32000:], other.mixture) and torch.equal(joined.lips[:, 50:], other.lips)
    assert joined.voices.shape == (2, 64000) and len(cut.mixture) == 16000


def test_channels_are_chosen_by_what_the_explorer_says():
    links = torch.tensor([-0.6, -0.5, 0.01, -0.28, -0.55, 0.2, 0.4])
    assert [lesson06.channel_that(name, links) for name in lesson06.LINKS] == [6, 5, 2, 3, 0]


def test_a_gate_of_one_by_hand_changes_nothing(sample):
    gated = lab.by_hand(sample, torch.ones(2, 50))
    torch.testing.assert_close(gated, sample.mixture.expand(2, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("lips,audio", [(50, 251), (50, 126), (9, 23), (7, 16), (5, 13), (11, 31)])
def test_whole_number_arithmetic_takes_the_frames_that_caf_takes(lips, audio):
    """The sizes that the notebook and its checks use; at some others PyTorch's own rounding takes the neighbour."""
    x = torch.randn(2, 3, lips)
    assert torch.equal(lesson06.to_audio_frames(x, audio), upsample(x, torch.empty(2, 3, audio)))
