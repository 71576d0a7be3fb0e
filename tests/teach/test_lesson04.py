"""What notebook 04 reads off the trained scans: gates, half-lives, passes, patches, and networks put back as they were."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import avkit
from avkit.sru import SRULayer
from avkit.teach import lesson04_figures as figures
from avkit.teach import samples


@pytest.fixture(scope="module")
def model():
    return avkit.load_model("rtfs-net-tiny")


@pytest.fixture(scope="module")
def sample():
    return samples.load_sample(samples.find_data("talkers"), 1)


@pytest.fixture(scope="module")
def passes(model, sample):
    return figures.watch(model, sample.mixture, sample.lips[0])


@pytest.mark.parametrize("inputs", [5, 6])
def test_forget_gates_give_the_layer_back(inputs):
    """The outputs recomputed from the gates alone: c from f and U₀, then the second gate and the highway."""
    layer = SRULayer(inputs, 3)
    x = torch.randn(9, 2, inputs)
    with torch.no_grad():
        f = figures.forget_gates(layer, x).unflatten(2, (2, 3))
        products = (x @ layer.weight).unflatten(2, (2, 3, layer.k))  # (L, B, direction, d, product)
        highway = products[..., 3] if layer.k == 4 else x.unflatten(2, (2, 3))
        v_r, b_r = layer.weight_c.view(2, 2, 3)[1], layer.bias.view(2, 2, 3)[1]
        outputs = torch.zeros(9, 2, 2, 3)
        for direction, order in enumerate((range(9), reversed(range(9)))):
            c = torch.zeros(2, 3)
            for t in order:
                u, kept = products[t, :, direction], f[t, :, direction]
                r = torch.sigmoid(u[..., 2] + v_r[direction] * c + b_r[direction])
                c = kept * c + (1 - kept) * u[..., 0]
                outputs[t, :, direction] = r * c + (1 - r) * highway[t, :, direction]
        torch.testing.assert_close(outputs.flatten(2), layer(x))


def test_half_life_of_gates_that_stand_still(model, passes):
    """With no weights but a bias, every cell keeps 0.9: half is left after log ½ / log 0.9 steps."""
    scan = avkit.create_model("rtfs-net-tiny").rtfs_block
    for layer in (*scan.scan_frequency.rnn, *scan.scan_time.rnn):
        for weight in layer.parameters():
            nn.init.zeros_(weight)
        nn.init.constant_(layer.bias, math.log(9))
    still = nn.Module()
    still.rtfs_block = scan
    for life in figures.half_lives(still, passes[0]).values():
        torch.testing.assert_close(
            life, torch.full_like(life, math.log(0.5) / math.log(0.9)), rtol=1e-5, atol=0
        )


def test_passes_are_what_the_scans_did(model, passes):
    assert len(passes) == model.config.repeats
    with torch.no_grad():
        for run in passes:
            levels, g = run.levels, run.g
            assert levels[-1].shape == g.shape
            torch.testing.assert_close(model.rtfs_block.scan_frequency(g), run.after_frequency)
            torch.testing.assert_close(model.rtfs_block.scan_time(run.after_frequency), run.after_time)
    assert not torch.equal(passes[0].g, passes[1].g)


def test_bench_separates_like_the_package(model, sample):
    bench = figures.Bench(model, [sample])
    outputs = bench.separate()
    whole = avkit.separate(bench.mixtures, sample.lips, model=model)[:, 0]
    torch.testing.assert_close(outputs, whole, atol=1e-4, rtol=1e-3)
    assert bench.gain(bench.mixtures) == pytest.approx(0)
    assert bench.gain(outputs) > 0


def test_replaced_puts_back_even_after_an_error(model):
    scan = model.rtfs_block.scan_time
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        figures.replaced(model.rtfs_block, scan_time=nn.Identity()),
    ):
        assert isinstance(model.rtfs_block.scan_time, nn.Identity)
        raise RuntimeError("on purpose")
    assert model.rtfs_block.scan_time is scan


def test_patch_belongs_to_the_voice_that_made_it(sample):
    patch = figures.find_patch(sample.voices)
    assert patch.share > 0.97 and patch.owner in (0, 1)
    turned = figures.find_patch(sample.voices.flip(0))
    assert (turned.frame, turned.bin, turned.owner) == (patch.frame, patch.bin, 1 - patch.owner)
    around = patch.samples(0.5)
    assert around.start >= 0 and around.stop <= len(sample.mixture) and around.stop - around.start == 8000


def test_patches_are_counted(sample):
    right, count = figures.patches_right(sample.voices, sample.voices)
    assert right == count > 10
    assert figures.patches_right(sample.voices, sample.voices.flip(0)) == (0, count)
