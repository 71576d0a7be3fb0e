"""The voice of a long recording, a chunk at a time: the same as `avkit.separate`, wherever a run is taken up again."""

import numpy as np
import pytest
import torch

import avkit
from avkit.video.separating import _Shifted, _weight
from avkit.video.voices import stream_voice


@pytest.fixture(scope="module")
def network():
    return avkit.load_model("rtfs-net-tiny")


@pytest.mark.parametrize(
    "frames", [30, 100, 105, 230]
)  # less than a chunk; one; a little more; a last one that overlaps far
def test_it_is_what_separate_gives(network, frames):
    rng = np.random.default_rng(frames)
    mixture = rng.normal(0, 0.1, frames * 640).astype(np.float32)
    crops = rng.integers(0, 255, (frames, 96, 96), np.uint8)
    whole = avkit.separate(torch.from_numpy(mixture), torch.from_numpy(crops), network)[0, 0].numpy()
    pieces = list(stream_voice(network, mixture, crops))
    assert np.allclose(np.concatenate([piece for piece, _ in pieces]), whole, atol=1e-6)
    for _, position in pieces[-2:-1]:
        rest = np.concatenate([piece for piece, _ in stream_voice(network, mixture, crops, begun=position)])
        assert np.allclose(rest, whole[position:], atol=1e-6)


def test_a_gain_for_the_network_is_taken_back(network):
    rng = np.random.default_rng(0)
    mixture, crops = (
        rng.normal(0, 0.1, 25 * 640).astype(np.float32),
        rng.integers(0, 255, (25, 96, 96), np.uint8),
    )
    (plain, _), (quiet, _) = (
        next(stream_voice(network, m, crops, g)) for m, g in ((mixture, 1.0), (mixture / 8, 8.0))
    )
    assert np.allclose(plain / 8, quiet, atol=1e-5)


def test_sound_is_moved_and_silent_beyond_its_ends():
    sound = np.arange(1, 11, dtype=np.float32)
    assert _Shifted(sound, 3).stretch(0, 10).tolist() == [4, 5, 6, 7, 8, 9, 10, 0, 0, 0]
    assert _Shifted(sound, -2).stretch(0, 4).tolist() == [0, 0, 1, 2]


def test_a_gate_fades_inside_what_it_lets_through():
    heard = [(2000, 6000), (7000, 7100)]
    whole = _weight(heard, 0, 8000)
    assert (whole[:2000] == 0).all()
    assert (whole[6000:7000] == 0).all()
    assert 0 < whole[2000] < 0.01
    assert 0.99 < whole[2639] <= 1
    assert whole[4000] == 1
    assert 0 < whole[5999] < 0.01
    assert 0 < whole[7050] < 0.1  # too short to be heard in full
    blocks = [_weight(heard, n, n + 1600) for n in range(0, 8000, 1600)]
    assert np.allclose(np.concatenate(blocks), whole)
