"""The four ways back from tiles: each is the best of its kind, and exact where it can be."""

import pytest
import torch

from avkit.metrics import si_snr
from avkit.teach import find_data, load_sample, tiles


@pytest.fixture(scope="module")
def magnitudes():
    draw = torch.Generator().manual_seed(0)
    mixed = torch.rand(13, 10, generator=draw) + 0.1
    return mixed, mixed * torch.rand(13, 10, generator=draw)


def test_tile_mean_is_the_mean_of_each_tile_and_of_cut_ones_too():
    x = torch.arange(35.0).view(5, 7)
    means = tiles.tile_mean(x, 3)
    assert means.shape == x.shape
    torch.testing.assert_close(means[:3, :3], x[:3, :3].mean().expand(3, 3))
    torch.testing.assert_close(means[3:, 6:], x[3:, 6:].mean().expand(2, 1))


@pytest.mark.parametrize("tile", [2, 4])
def test_numbers_that_are_constant_over_tiles_are_found(tile):
    draw = torch.Generator().manual_seed(1)
    mixed = torch.rand(16, 12, generator=draw) + 0.1
    gate, shift = (tiles.tile_mean(torch.rand(16, 12, generator=draw), tile) for _ in range(2))
    for way, voice in (("gate", gate * mixed), ("gate and shift", gate * mixed + shift), ("enlarge", shift)):
        torch.testing.assert_close(tiles.restored(mixed, voice, tile)[way], voice, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(tiles.restored(mixed, mixed + shift, tile)["add"], mixed + shift)


def test_more_numbers_fit_better(magnitudes):
    mixed, voice = magnitudes
    error = {way: float((found - voice).norm()) for way, found in tiles.restored(mixed, voice, 4).items()}
    assert error["gate and shift"] <= min(error.values()) + 1e-6
    coarser = tiles.restored(mixed, voice, 8)
    assert all(float((coarser[way] - voice).norm()) > error[way] for way in tiles.WAYS)


def test_single_points_leave_only_the_angles_wrong():
    sample = load_sample(find_data(), 0)
    exact = tiles.sound_of(tiles.spectrum_of(sample.voices[0]).norm(dim=0), sample.mixture)
    found = tiles.ways_back(sample, tile=1)
    torch.testing.assert_close(found["enlarge"][0], exact)
    assert found["add"][1] == pytest.approx(float(si_snr(exact, sample.voices[0])), abs=1e-3)
