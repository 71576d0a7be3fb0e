"""Notebook 08's counts by formula, its lesions, and where it finds the official network's recordings."""

from __future__ import annotations

import pytest
import torch

import avkit
from avkit.complexity import measure
from avkit.teach import lesson08
from avkit.teach import lesson08_lab as lab

SMALL = {"channels": 16, "hidden": 8, "rnn_hidden": 6, "lip_hidden": 8, "lip_heads": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"levels": 1, "repeats": 2},
        {"levels": 2, "n_src": 2, "lip_levels": 3, "fusion_heads": 2},
        {"rnn_layers": 1},
    ],
)
def test_formulas_count_what_the_counter_counts(changes):
    model = avkit.create_model("rtfs-net-tiny", **{**SMALL, **changes})
    counted = measure(model, seconds=1.1)
    macs = {row.module: row.macs for row in counted.rows}
    by_hand = lab.count_by_hand(model.config, seconds=1.1)
    assert by_hand == {part: macs[part] for part in by_hand}
    assert sum(by_hand.values()) == counted.macs


def test_what_the_notebook_says_of_sizes():
    """D changes the parameters most, R not at all, q hardly; the work can grow more than tenfold without them."""
    published, macs = lesson08.sizes_of()
    assert published == 740_210 and round(sum(macs.values()) / 1e9, 3) == 21.930
    changed = {
        (key, value): lesson08.sizes_of(**{key: value})[0]
        for key, value in (("hidden", 32), ("channels", 128), ("levels", 1), ("levels", 3), ("repeats", 12))
    }
    assert min(changed, key=changed.get) == ("hidden", 32) and changed["hidden", 32] < 0.75 * published
    assert changed["repeats", 12] == published and abs(changed["levels", 1] / published - 1) < 0.02
    small, large = lesson08.sizes_of(levels=3)[1], lesson08.sizes_of(levels=1, repeats=12)[1]
    assert sum(large.values()) > 10 * sum(small.values())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return avkit.create_model("rtfs-net-tiny", **SMALL, fast=False).eval().requires_grad_(False)


def test_each_lesion_changes_the_output_and_leaves_nothing_behind(network):
    mixture, lips = torch.randn(2, 12_000), torch.randn(2, 512, 19)
    before = network(mixture, lips)
    for part in lab.CUTS:
        with lab.cut(network, part):
            assert not torch.allclose(network(mixture, lips), before, rtol=1e-3), part
        torch.testing.assert_close(network(mixture, lips), before)


def test_lesions_are_what_they_are_called(network):
    mixture, lips = torch.randn(1, 12_000), torch.randn(1, 512, 19)
    encoded = network.encoder(mixture)
    a0, v = network.bottleneck(encoded), network.visual_block(lips)
    a = network.caf(network.rtfs_block(a0), v)
    for _ in range(network.config.repeats - 1):
        a = network.rtfs_block(a)
    with lab.cut(network, "a0"):
        for _ in range(2):  # the second call starts afresh
            expected = network.decoder(network.s3(a, encoded), 12_000)
            torch.testing.assert_close(network(mixture, lips), expected, atol=1e-5, rtol=1e-4)
    with lab.cut(network, "caf"):
        torch.testing.assert_close(network(mixture, lips), network(mixture, -lips))
    with lab.cut(network, "scan_time"):
        x = torch.randn(1, 8, 20, 33)
        assert torch.equal(network.rtfs_block.scan_time(x), x)


def test_influence_of_a_frame_by_frame_module_is_its_own_frame():
    scale = torch.nn.Conv1d(5, 3, 1).requires_grad_(False)
    found = lab.influence(scale, torch.randn(1, 5, 12))
    assert abs(found - torch.eye(12).numpy()).max() < 1e-6
    wide = torch.nn.Conv1d(5, 3, 3, padding=1).requires_grad_(False)
    found = torch.from_numpy(lab.influence(wide, torch.randn(1, 5, 12)))
    assert (found.diagonal(1) > 0.05).all() and found.triu(2).abs().max() < 1e-6


def test_processor_seconds_name_the_parts_that_are_counted(network):
    spent = lab.processor_seconds(network, seconds=0.8)
    assert set(spent) == set(lab.count_by_hand(network.config)) and min(spent.values()) >= 0


def test_busiest_frame_is_where_both_speak():
    voices = torch.zeros(2, 20 * 640)
    voices[0, 640 * 3 : 640 * 9], voices[1, 640 * 6 : 640 * 14] = 1, 1
    assert lab.busiest_frame(voices, 3) == 6


def test_recordings_are_found_in_the_repository_and_stations_lie_in_them(repository, tmp_path):
    recordings = lab.find_recordings(repository / "data_samples" / "talkers")
    recorded = recordings.load("rtfs_net_4_odd")
    assert all(theirs in recorded for theirs, _ in lab.STATIONS.values())
    assert lab.find_recordings(tmp_path / "data_samples" / "talkers") is not None  # beside the package


def test_without_the_repository_there_are_no_recordings(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "__file__", str(tmp_path / "site" / "avkit" / "teach" / "lesson08_lab.py"))
    assert lab.find_recordings(tmp_path / "data_samples" / "talkers") is None
    assert "skipped" in lab.ABOUT_RECORDINGS[False]
