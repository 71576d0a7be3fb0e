"""The lip encoder is exact, stays frozen, and its transform refuses what it cannot read."""

import pytest
import torch
from parity_fill import load, normal, official_state_dict, record, record_calls, relative_error

from avkit.checkpoints import from_official, to_official
from avkit.errors import CheckpointError, InputError
from avkit.lips import LipEncoder, LipEncoderConfig, LipTransform

OURS = {"frontend3D": "frontend", "trunk.layer1": "stages.0", "trunk.layer4": "stages.3"}


@pytest.fixture(scope="module", params=["IIANet", "RTFS-Net"])
def weights(request):
    return official_state_dict(f"lip encoder ({request.param} repo)")


@pytest.mark.parametrize("case", ["50f", "13f"])
def test_output_and_intermediates_equal_the_official_ones(weights, case):
    fixture = load(f"lip_encoder_{case}")
    frames = torch.from_numpy(normal(f"mouth/{case}", tuple(fixture["shapes"])).astype("float32"))
    model = from_official(weights, "lip-encoder")
    outputs = record_calls(model)
    with torch.no_grad():
        features = model(frames)
    assert relative_error(features, fixture["output"]) < 1e-4
    for official, ours in OURS.items():
        assert relative_error(record(outputs[f"{ours}@0"]), fixture[f"{official}@0"]) < 1e-4, official
    trunk = features.transpose(1, 2).flatten(0, 1)
    assert relative_error(record(trunk), fixture["trunk@0"]) < 1e-4


def test_names_map_both_ways_and_tcn_is_ignored(weights):
    model = from_official(weights | {"tcn.layer.weight": torch.zeros(3)}, "lip-encoder")
    back = to_official(model)
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    with pytest.raises(CheckpointError, match="frontend3D.0.weight"):
        from_official({k: v for k, v in weights.items() if k != "frontend3D.0.weight"}, "lip-encoder")


def test_batch_norms_stay_frozen_whoever_calls_train():
    parent = torch.nn.ModuleDict({"lips": LipEncoder(LipEncoderConfig(stem=8, widths=(8, 8, 8, 8)))})
    parent.train()
    lips = parent["lips"]
    assert not any(module.training for module in lips.modules())
    before = {name: value.clone() for name, value in lips.state_dict().items()}
    lips(torch.randn(2, 1, 5, 88, 88))
    assert all(torch.equal(before[name], value) for name, value in lips.state_dict().items())
    assert not any(p.requires_grad for p in lips.parameters())
    lips.unfreeze()
    lips(torch.randn(2, 1, 5, 88, 88))
    assert any(not torch.equal(before[name], value) for name, value in lips.state_dict().items())
    lips.freeze()
    parent.train()
    assert not lips.training


def test_narrow_encoder_gives_512_features():
    lips = LipEncoder(LipEncoderConfig(stem=16, widths=(16, 32, 64, 128)))
    assert sum(p.numel() for p in lips.parameters()) < 1_500_000
    assert lips(torch.randn(2, 1, 3, 88, 88)).shape == (2, 512, 3)


def test_transform_crops_centre_and_normalises():
    frames = torch.randint(0, 256, (7, 96, 96), dtype=torch.uint8)
    out = LipTransform()(frames)
    assert out.shape == (1, 7, 88, 88)
    torch.testing.assert_close(out[0], (frames[:, 4:92, 4:92] / 255 - 0.421) / 0.165)


def test_training_transform_moves_all_frames_alike_and_sometimes_flips():
    frames = torch.arange(96 * 96, dtype=torch.int64).remainder(251).to(torch.uint8).view(1, 96, 96).expand(3, -1, -1)
    transform = LipTransform(training=True, generator=torch.Generator().manual_seed(0))
    outs = [transform(frames) for _ in range(40)]
    assert all(torch.equal(out[0, 0], out[0, 2]) for out in outs)
    assert len({out.sum().item() for out in outs}) > 10
    crops = frames[0].unfold(0, 88, 1).unfold(1, 88, 1).flatten(0, 1)
    plain = ((crops.float() / 255 - 0.421) / 0.165).unbind()
    unflipped = sum(any(torch.equal(out[0, 0], crop) for crop in plain) for out in outs)
    assert 5 < unflipped < 35


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (torch.zeros(5, 96, 96), "uint8"),
        (torch.zeros(5, 120, 120, dtype=torch.uint8), "120×120"),
        (torch.zeros(5, 3, 96, 96, 1, dtype=torch.uint8), "wanted"),
        (torch.zeros(0, 96, 96, dtype=torch.uint8), "no frames"),
    ],
)
def test_transform_refuses_in_words(frames, words):
    with pytest.raises(InputError, match=words):
        LipTransform()(frames)
