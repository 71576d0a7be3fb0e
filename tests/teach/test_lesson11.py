"""Notebook 11's runs, its bench, and what it says of clipping, schedules, devices and denormal numbers; that its five-minute run
learns is measured in the soak tests."""

from __future__ import annotations

import json
import signal
import statistics
import sys

import pytest
import torch
import toy_corpus
from torch import nn

import avkit
from avkit.data.datamodule import MixtureData, training_rows
from avkit.data.drawing import order
from avkit.errors import DataError
from avkit.learner import Separation
from avkit.lip_weights import load_lip_encoder
from avkit.teach import find_data, lesson11, lesson11_record
from avkit.teach import lesson11_bench as bench
from avkit.teach import lesson11_figures as figures
from avkit.teach import lesson11_lab as lab


def test_clip_is_torchs():
    torch.manual_seed(0)
    for scale in (0.01, 10.0):
        weights = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]
        for weight in weights:
            weight.grad = scale * torch.randn_like(weight)
        mine = lesson11.clip([weight.grad.clone() for weight in weights], 2.0)
        nn.utils.clip_grad_norm_(weights, 2.0)
        for one, weight in zip(mine, weights, strict=True):
            torch.testing.assert_close(one, weight.grad)


def test_the_schedule_is_the_trainers():
    learner = Separation("iianet-tiny", schedule="cosine", warmup=7, audio_only=True)
    learner._progress = lambda step: step / 90
    for step in (0, 3, 6, 7, 45, 89):
        assert lesson11.rate_at(step, 90, 0.002, 7) == pytest.approx(0.002 * learner.rate_at(step))


def test_shares_are_the_loaders():
    everything = torch.from_numpy(order(3, 0, 50))
    for rank in range(3):
        theirs = training_rows(seed=3, epoch=0, items=50, batch_size=4, rank=rank, world=3)
        assert torch.equal(lesson11.share(everything, 4, rank, 3), torch.from_numpy(theirs))


def test_what_the_notebook_says_of_an_accident():
    """AdamW: steps a few times as long for a moment, then far shorter for hundreds; gradient descent: one leap. Clipped: neither."""
    calm, shaken = (lesson11.accident("AdamW", factor, "off") for factor in (1, 1000))
    assert shaken[1].max() < 5 * calm[1].max()
    assert shaken[1][80:160].mean() < 0.5 * calm[1][80:160].mean() and shaken[0][-1] > 100 * calm[0][-1]
    assert lesson11.accident("gradient descent", 1000, "off")[1][60] > 100 * lesson11.accident("gradient descent", 1, "off")[1][60]
    clipped = lesson11.accident("AdamW", 1000, "on")
    assert clipped[0][-1] < 2 * lesson11.accident("AdamW", 1, "on")[0][-1]


def test_denormals_are_told_by_their_bits():
    x = torch.tensor([0.0, -0.0, lab.SMALLEST, lab.SMALLEST / 2, -1e-45, 1.0])
    assert lab.count_denormals(x) == 2


def test_a_fading_memory_stays_denormal_unless_flushed():
    before = lab._flushes()
    kept, flushed = (lab.fade(flush, size=256, blocks=12, each=100) for flush in (False, True))
    assert kept.denormal[7] == 0 and kept.denormal[-1] == 1.0 and set(flushed.denormal) == {0.0}
    assert lab._flushes() == before


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return str(toy_corpus.make(tmp_path_factory.mktemp("toy"), {"tr": 8, "cv": 3}, seconds=1.0))


def test_the_best_volume_is_half_the_mixture_or_near(corpus):
    factor, snr = lab.volume_only(corpus)
    assert 0.3 <= factor <= 0.8 and 0 < snr < 6


def test_gradients_are_measured_on_the_runs_own_first_batches(corpus):
    resolved = lab.resolve([lab.NETWORK], lab.settings(corpus, 12))
    data = MixtureData(**resolved["data"]["init_args"])
    data.setup("fit")
    rows = training_rows(seed=0, epoch=0, items=24, batch_size=8, rank=0, world=1)
    found = lab.first_batches(corpus, 12, 2)
    assert len(found) == 2 and resolved["seed_everything"] == 0
    for (mixture, lips, targets), row in zip(found, rows[:2], strict=True):
        batch = data.train.batch(0, row)
        assert torch.equal(mixture, batch["mixture"]) and torch.equal(targets, batch["targets"])
        assert lips.shape == (8, 512, 25)


def test_a_network_that_returns_the_mixture_gains_nothing(corpus):
    class Half(nn.Module):
        def forward(self, mixture, lips):
            return 0.5 * mixture[:, None]

    gain, loudness = lab.validated(network := Half(), corpus, items=2)
    assert gain == pytest.approx(0, abs=1e-4) and loudness == pytest.approx(0.5) and network.training


def test_only_what_was_validated_is_drawn(monkeypatch):
    monkeypatch.setattr(figures.plots, "picture", lambda fig, alt, **how: (fig, alt))
    for seen, gains in (([], []), ([79, 159], [-0.8, 0.4])):
        fig, _ = figures.draw_run({"train_loss": ([0, 1], [0.0, -1.0]), "val_si_snr_improvement": (seen, gains)}, 320)
        assert list(fig.axes[1].lines[0].get_xdata()) == seen


def test_eight_devices_have_eight_colours(monkeypatch):
    monkeypatch.setattr(figures.plots, "picture", lambda fig, alt, **how: fig)
    order = torch.arange(16)
    fig = figures.draw_shares(order, {8: [lesson11.share(order, 1, rank, 8) for rank in range(8)]})
    assert len({patch.get_facecolor() for patch in fig.axes[0].patches}) == 8


def test_bench_items_are_made_as_the_package_makes_them(corpus):
    clips = bench.read_clips(corpus, "tr", load_lip_encoder(lab.LIPS))
    items = bench.fixed_items(clips, torch.tensor([0, 1]))
    assert items.mixture.shape == items.target.shape == (2, 63, 257) and items.lips.shape == (2, 63, 512)
    torch.testing.assert_close(items.mixture[0], items.mixture[1])  # one mixture, both voices wanted
    assert not torch.allclose(items.target[0], items.target[1])
    few = bench.first_mixtures(clips, 3)
    assert torch.equal(few.audio[few.pairs], clips.audio[clips.pairs[:3]])
    draw = torch.Generator().manual_seed(0)
    assert bench.dynamic_items(clips, 5, draw).mixture.shape[0] == 5


def test_the_bench_learns_and_the_same_seed_gives_the_same():
    clips = bench.read_clips(str(find_data("talkers")), "tr", load_lip_encoder(lab.LIPS))
    one, other = (bench.learn(bench.Recipe(mixing="fixed"), clips, clips, 25, seed=1)[1] for _ in range(2))
    assert one.losses == other.losses and len(one.validated) == 4
    assert statistics.mean(one.losses[-8:]) < statistics.mean(one.losses[:8]) - 1
    third = len(one.losses) // 3
    recipe = bench.Recipe(mixing="fixed", clip=None, accident=(third, 1000.0))
    shaken = bench.learn(recipe, clips, None, 25, seed=1)[1]
    assert shaken.norms[third] == pytest.approx(1000 * one.norms[third], rel=1e-3)


def test_a_run_that_fails_says_why(tmp_path):
    process = lab.start(tmp_path / "run", ["--data.root=nowhere", "--model.lip_encoder=rtfs-net-tiny"])
    with pytest.raises(DataError, match=r"(?s)failed|ended before"):
        lab.kill_after(process, tmp_path / "run", step=1)
    assert any("nowhere" in line for line in lab.log_of(tmp_path / "run"))
    with pytest.raises(DataError, match=f"exit status {process.returncode}"):
        lab.watch(process, tmp_path / "run", dict)


def test_killed_and_gone_on(tmp_path, corpus):
    torch.manual_seed(0)
    network = avkit.create_model(lab.NETWORK, **lab.SHORT_OVERRIDES)
    avkit.checkpoints.save_model(tmp_path / "beginning", network, lab.NETWORK)
    changes = lab.short_settings(corpus, tmp_path / "beginning")
    process = lab.start(tmp_path / "run", changes, every=1)
    at = lab.kill_after(process, tmp_path / "run", step=3)
    assert process.returncode == -signal.SIGKILL and 3 <= at < lab.SHORT_STEPS
    lines = lab.train(tmp_path / "run", changes, every=1)
    assert any("Going on from" in line for line in lines)
    assert lab.saved_step(tmp_path / "run") == lab.SHORT_STEPS
    assert lab.weights_of(tmp_path / "run").keys() == network.state_dict().keys()
    curves, sounds = lab.read_board(tmp_path / "run")
    assert "train_loss" in curves and "validation/estimate" in sounds
    drawn = []
    lab.watch(lab.start(tmp_path / "run", changes, every=1, here=True), tmp_path / "run", lambda found: drawn.append(found))
    assert len(drawn) == 1 and drawn[0]["train_loss"][0][-1] == lab.SHORT_STEPS - 1


def test_a_record_of_two_seeds(tmp_path, corpus, monkeypatch):
    calls = []

    def measured(root, folder, steps, seed):
        calls.append(seed)
        return {"seed": seed, "steps": [steps], "si_snri": [1.0 + seed], "minutes": 0.1}

    monkeypatch.setattr(lesson11_record, "measure", measured)
    found = lesson11_record.record(corpus, tmp_path, 10, seeds=(0, 1))
    assert calls == [0, 1] and found["mean"] == 1.5 and found["standard_deviation"] == pytest.approx(0.707, abs=1e-3)
    assert not any(corpus in setting for setting in found["settings"])


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_the_five_minute_run_learns_well_above_its_noise(tmp_path):
    """Three seeds on the notebook's own corpus: each gains on voices that it never met, the mean by far more than the spread."""
    pytest.importorskip("espeakng_loader")
    root, _ = lab.make_data(tmp_path, str(find_data("talkers")), fast=False)
    found = lesson11_record.record(root, tmp_path, command=" ".join(sys.argv))
    ends = [run["si_snri"][-1] for run in found["runs"]]
    assert min(ends) > 0.5 and found["mean"] > 3 * found["standard_deviation"], found


def test_the_record_that_ships_learnt_well_above_its_noise(repository):
    found = json.loads((repository / "data_samples/results/five-minute-run/seeds.json").read_text())
    assert len(found["runs"]) == 3
    assert found["mean"] > 10 * found["standard_deviation"] and found["mean"] > 1
    for run in found["runs"]:
        assert run["si_snri"] == sorted(run["si_snri"]) and run["minutes"] < 5
