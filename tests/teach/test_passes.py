"""Looking inside a trained network: what is noted is what flowed, changes last as long as asked, maps are found."""

import dataclasses

import pytest
import torch

import avkit
from avkit.teach import find_data, load_sample, passes


@pytest.fixture(scope="module")
def model():
    return avkit.load_model("rtfs-net-tiny")


@pytest.fixture(scope="module")
def sample():
    return load_sample(find_data(), 1)


@pytest.fixture(scope="module")
def seen(model, sample):
    return passes.watch(model, sample)


def test_what_is_noted_is_what_flowed(model, sample, seen):
    output = avkit.separate(seen.mixture, sample.lips, model=model)[:, 0]
    assert len(seen.features) == len(seen.to_attention) == len(seen.to_scan) == model.config.repeats
    torch.testing.assert_close(passes.read_out(model, seen, seen.features[-1]), output)
    torch.testing.assert_close(passes.run_again(model, seen), seen.features[-1])
    with torch.no_grad():
        torch.testing.assert_close(model.rtfs_block(seen.features[-2] + seen.start), seen.features[-1])
        torch.testing.assert_close(model.rtfs_block.scan_time(seen.to_scan[0]), seen.to_attention[0])
    assert not any(module._forward_hooks for module in model.modules())


def test_going_on_applies_the_block_again(model, seen):
    first, second = passes.go_on(model, seen, 2)
    with torch.no_grad():
        torch.testing.assert_close(model.rtfs_block(first + seen.start), second)


def test_other_voice_is_told_from_the_wanted_one(model, seen):
    """The features of one talker, put in the other's place, gain against the voice that was not wanted."""
    wanted = seen.features[-1]
    exchanged = wanted.flip(0)
    gains = passes.gain(model, seen, wanted), passes.gain(model, seen, wanted, of_other=True)
    assert gains[0] > 3 and gains[1] < -3
    assert passes.gain(model, seen, exchanged, of_other=True) == pytest.approx(gains[0], abs=1e-3)
    assert passes.gain(model, seen, exchanged) == pytest.approx(gains[1], abs=1e-3)


def test_shares_of_the_energy(model, seen, monkeypatch):
    """Of outputs made by hand: a voice at twice the other's strength, and noise that is neither."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(seen.voices.shape[1], 3, generator=draw).double()
    pure = torch.linalg.qr(noise - noise.mean(dim=0))[0].T  # three signals at right angles, mean 0
    voices, noise = pure[:2], pure[2]
    made = torch.stack((2 * voices[0] + voices[1] + 1, 3 * noise + 4 * voices[0]))
    monkeypatch.setattr(passes, "read_out", lambda model, seen, features: features)
    here = dataclasses.replace(seen, voices=voices)
    expected = torch.tensor([[4, 1, 0], [0, 16, 9]]).double() / torch.tensor([[5], [25]]).double()
    torch.testing.assert_close(passes.shares(model, here, made), expected.mean(0), atol=1e-6, rtol=0)


def test_shares_of_a_trained_network(model, seen):
    own, exchanged = (passes.shares(model, seen, f) for f in (seen.features[-1], seen.features[-1].flip(0)))
    for parts in (own, exchanged):
        assert float(parts.sum()) == pytest.approx(1) and parts.min() >= 0
    assert own[0] > 0.5 > own[1] and exchanged[1] > 0.5 > exchanged[0]


def test_a_change_lasts_as_long_as_asked(model, seen):
    attention = model.rtfs_block.attention
    with passes.changed([attention], lambda given, _: given):
        torch.testing.assert_close(attention(seen.to_attention[0]), seen.to_attention[0])
        changed = passes.run_again(model, seen)
    assert not torch.allclose(changed, seen.features[-1])
    torch.testing.assert_close(passes.run_again(model, seen), seen.features[-1])


def test_reach_of_a_moving_average():
    average = torch.nn.AvgPool2d((3, 1), stride=1, padding=(1, 0))
    x = torch.randn(2, 4, 20, 5, generator=torch.Generator().manual_seed(0))
    reach = passes.reach(average, x, frames=(8, 10))
    torch.testing.assert_close(reach[:3], torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    assert reach[:12].isfinite().all() and reach[12:].isnan().all()


def test_translation_finds_a_linear_map():
    draw = torch.Generator().manual_seed(0)
    given, matrix = torch.randn(2, 3, 6, 5, generator=draw), torch.randn(4, 3, generator=draw)
    wanted = passes.translate(given, matrix)
    by_hand = torch.einsum("bctf,cd->bdtf", given, matrix[:3]) + matrix[3][:, None, None]
    torch.testing.assert_close(wanted, by_hand)
    found = passes.fit_translation([(given, wanted), (given[:1], wanted[:1])])
    torch.testing.assert_close(found, matrix, atol=1e-4, rtol=1e-4)
