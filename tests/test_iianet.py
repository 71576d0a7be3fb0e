"""IIANet computes what the official network computes, block by block, and refuses what it cannot take."""

import copy

import pytest
import torch
from parity_fill import (
    inputs,
    load,
    official_shapes,
    official_state_dict,
    record,
    record_calls,
    relative_error,
)

import avkit
from avkit.checkpoints import from_official, to_official
from avkit.complexity import measure
from avkit.errors import CheckpointError, InputError
from avkit.iianet import BottomUp, IIANet, IIANetConfig, InterAMiddle, InterATop, IntraA, TopDown
from avkit.layers import DepthwiseConv1d, DropPath, pool_to
from avkit.losses import negative_si_snr

TOLERANCE = 1e-4
SEPARATION = "separation"


@pytest.fixture(scope="module")
def weights():
    return official_state_dict("IIANet")


def ours_of(outputs: dict, key: str) -> torch.Tensor:
    """Our tensor for one record of a fixture, "official module@call.index…"."""
    official, _, rest = key.partition("@")
    call, *index = (int(number) for number in rest.split("."))
    if official == "sm.audio_blocks.0" or official == "sm.video_blocks.0":
        stream = "audio" if "audio" in official else "video"
        levels, _ = outputs[f"{SEPARATION}.{stream}_bottom_up@{call}"]
        if index[0] == 0:
            return levels[index[1]]
        if index[0] == 1:  # the levels, pooled, before they are summed
            return pool_to(levels[index[1]], levels[-1])
        return outputs[f"{SEPARATION}.{stream}_bottom_up@{call}:input"]
    if official == "sm.audio_blocks.1":
        return (
            outputs[f"{SEPARATION}.audio_top_down@{call}"]
            + outputs[f"{SEPARATION}.audio_bottom_up@{call}:input"]
        )
    if official == "sm.video_blocks.1" and index[0] == 1:
        return outputs[f"{SEPARATION}.inter_middle.{index[1]}.gate@{call}"]
    if official == "sm.video_blocks.1":
        return (
            outputs[f"{SEPARATION}.video_top_down@{call}"]
            + outputs[f"{SEPARATION}.video_bottom_up@{call}:input"]
        )
    if official == "sm.InterA_T":
        return outputs[f"{SEPARATION}.inter_top@{call}"][index[0]]
    names = {
        "encoder": "encoder",
        "ln": "bottleneck.0",
        "bottleneck": "bottleneck",
        "pre_v": "lip_projection",
        "sm.InterA_B_A": f"{SEPARATION}.audio_inter_bottom",
        "sm.InterA_B_V": f"{SEPARATION}.video_inter_bottom",
        "sm": SEPARATION,
        "mask_net": "mask.1",
    }
    return outputs[f"{names[official]}@{call}"]


@pytest.mark.parametrize("case", ["2s", "odd"])
def test_output_and_every_recorded_intermediate_equal_the_official_ones(weights, case):
    fixture = load(f"iianet_{case}")
    model = from_official(weights, "iianet")
    outputs = record_calls(model, lambda name: (name and name.count(".") < 2) or name.endswith(".gate"))
    for stream in ("audio", "video"):
        keep_inputs(
            model.separation.get_submodule(f"{stream}_bottom_up"), f"{SEPARATION}.{stream}_bottom_up", outputs
        )
    with torch.inference_mode():
        output = model(*inputs(case, fixture["shapes"]))
    errors = {"output": relative_error(output, fixture["output"])}
    keys = [key for key in fixture if key not in ("output", "shapes") and not key.endswith(":shape")]
    for key in keys:
        value = ours_of(outputs, key)
        assert list(value.shape) == list(fixture[f"{key}:shape"]), key
        errors[key] = relative_error(record(value), fixture[key])
    assert len(keys) > 250
    worst = max(errors, key=errors.get)
    print(f"\nworst of {len(errors)}: {worst}, {errors[worst]:.1e}; output {errors['output']:.1e}")
    assert errors[worst] < TOLERANCE, worst


def keep_inputs(module, name, outputs):
    calls = iter(range(100))
    module.register_forward_pre_hook(lambda _, args: outputs.update({f"{name}@{next(calls)}:input": args[0]}))


def test_two_dimensional_and_three_dimensional_mixtures_are_the_same(weights):
    model = from_official(weights, "iianet-fast")
    mixture, lips = inputs("odd", (2, 1601, 4))
    with torch.inference_mode():
        assert torch.equal(model(mixture, lips), model(mixture[:, None], lips))


def test_fast_is_the_same_network_with_ten_cycles(weights):
    fast = from_official(weights, "iianet-fast")
    outputs = record_calls(fast)
    with torch.inference_mode():
        fast(*inputs("odd", (1, 800, 3)))
    assert sum(key.startswith("separation.audio_bottom_up@") for key in outputs) == 10
    assert sum(key.startswith("separation.video_bottom_up@") for key in outputs) == 4
    full = from_official(weights, "iianet")
    assert {k: v.shape for k, v in fast.state_dict().items()} == {
        k: v.shape for k, v in full.state_dict().items()
    }


def test_names_map_both_ways(weights):
    model = from_official(weights, "iianet")
    assert sum(p.numel() for p in model.parameters()) == 3_036_670
    back = to_official(model)
    assert set(back) == set(official_shapes("IIANet"))
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


def test_unknown_missing_and_misshapen_names_are_refused(weights):
    name = "sm.InterA_T.M_wav.conv.weight"
    with pytest.raises(CheckpointError, match=name):
        from_official({k: v for k, v in weights.items() if k != name}, "iianet")
    with pytest.raises(CheckpointError, match="stranger"):
        from_official(weights | {"stranger.weight": torch.zeros(1)}, "iianet")
    with pytest.raises(CheckpointError, match=name):
        from_official(weights | {name: torch.zeros(64, 512, 5)}, "iianet")


def test_gradients_are_those_of_a_float64_run(weights):
    model = from_official(weights, "iianet")
    double = copy.deepcopy(model).double()
    mixture, lips = inputs("odd", (1, 3001, 7))
    gradients = []
    for network, dtype in ((model, torch.float32), (double, torch.float64)):
        network(mixture.to(dtype), lips.to(dtype)).square().mean().backward()
        gradients.append({name: p.grad.double() for name, p in network.named_parameters()})
    largest = max(g.norm() for g in gradients[1].values())
    errors = {}
    for name, exact in gradients[1].items():
        error = (gradients[0][name] - exact).norm()
        if exact.norm() > 1e-9 * largest:
            errors[name] = float(error / exact.norm())
        else:  # zero up to rounding
            assert error < 1e-7 * largest, name
    worst = max(errors, key=errors.get)
    print(
        f"\nworst of {len(errors)} gradients: {worst}, {errors[worst]:.1e}; {len(gradients[1]) - len(errors)} are zero"
    )
    assert errors[worst] < 1e-3, worst


@pytest.mark.parametrize(
    ("name", "seconds", "macs"),
    [
        ("iianet", 2.0, 34.145),
        ("iianet", 1.0, 17.100),
        ("iianet-fast", 2.0, 21.465),
        ("iianet-fast", 1.0, 10.750),
    ],
)
def test_parameters_and_macs_are_the_official_ones(name, seconds, macs):
    counted = measure(avkit.create_model(name).to("meta"), seconds=seconds)  # shapes alone
    assert counted.params == 3_036_670
    assert round(counted.macs / 1e9, 3) == macs


def test_drops_have_a_probability_each_and_leave_evaluation_alone():
    model = avkit.create_model("iianet-tiny", dropout=0.3, drop_path=0.2)
    drops = [m for m in model.modules() if isinstance(m, (DropPath, torch.nn.Dropout))]
    assert sorted(m.p for m in drops) == [0.2, 0.2, 0.3, 0.3]
    mixture, lips = torch.randn(2, 4000), torch.randn(2, 512, 6)
    with torch.no_grad():
        assert not torch.equal(model(mixture, lips), model(mixture, lips))
        model.eval()
        assert torch.equal(model(mixture, lips), model(mixture, lips))
        quiet = model(mixture, lips)
        model.train()
        for drop in drops:
            drop.p = 0.0
        torch.testing.assert_close(model(mixture, lips), quiet)


def test_tiny_preset_is_small_and_takes_512_wide_lips():
    model = avkit.create_model("iianet-tiny")
    assert 100_000 < sum(p.numel() for p in model.parameters()) < 900_000
    assert model(torch.randn(2, 32000), torch.randn(2, 512, 50)).shape == (2, 1, 32000)


def test_two_voices_out():
    model = avkit.create_model("iianet-tiny", n_src=2)
    assert model(torch.randn(3, 1000), torch.randn(3, 512, 2)).shape == (3, 2, 1000)


@pytest.mark.parametrize("samples", [1, 3, 4, 12, 15, 16, 17, 63, 64, 65, 1000])
@pytest.mark.parametrize("name", ["iianet-fast", "iianet-tiny"])
def test_every_length_comes_back_as_long_and_finite(name, samples):
    model = avkit.create_model(name, cycles=2, fusion_cycles=2, hidden=32).eval()
    with torch.no_grad():
        output = model(torch.randn(1, samples), torch.randn(1, 512, 1))
        assert output.shape == (1, 1, samples) and output.isfinite().all()
        assert not model(torch.zeros(1, samples), torch.randn(1, 512, 1)).any(), "silence gives silence"


def test_encoder_and_decoder_are_aligned():
    """A filter bank of shifted unit pulses passes every sample to the same place, once per overlapping window."""
    model = IIANet(IIANetConfig(filters=16, hidden=8, channels=8))
    with torch.no_grad():
        for conv in (model.encoder.conv, model.decoder.conv):
            conv.weight.copy_(torch.eye(16)[:, None])
        waveform = torch.randn(2, 777)
        torch.testing.assert_close(
            model.decoder(model.encoder(waveform)[:, None], 777), 4 * waveform[:, None]
        )


def test_a_late_cycle_hears_no_lips_but_a_fusion_cycle_does():
    model = avkit.create_model("iianet-tiny").eval()
    a, v = torch.randn(1, 64, 300), torch.randn(1, 32, 12)
    separation = model.separation
    with torch.no_grad():
        heard = [separation.fusion_cycle(a, lips)[0] for lips in (v, v + 1)]
        assert not torch.allclose(*heard)
        video_names = [
            name for name, _ in separation.named_parameters() if "video" in name or "middle" in name
        ]
        for name in video_names:
            separation.get_parameter(name).fill_(torch.nan)
        assert separation.audio_cycle(a).isfinite().all()
        assert separation.fusion_cycle(a, v)[0].isnan().any()


def test_intra_attention_resamples_sound_before_and_lips_after_its_norms():
    intra = IntraA(4, kernel=1)
    with torch.no_grad():
        for p in intra.parameters():
            p.copy_(torch.randn_like(p))
        fine, coarse = torch.randn(1, 4, 7), torch.randn(1, 4, 3)
        before = intra(fine, torch.nn.functional.interpolate(coarse, size=7, mode="nearest"))
        after = intra(fine, coarse)
    assert not torch.allclose(before, after, atol=1e-3)
    w, up = torch.nn.functional.group_norm, lambda x: x[..., [0, 0, 0, 1, 1, 2, 2]]
    local, gate, embedding = (
        w(block.conv.weight[:, 0] * x, 1, block.norm.weight, block.norm.bias, 1e-8)
        for block, x in ((intra.local, fine), (intra.gate, coarse), (intra.embedding, coarse))
    )
    torch.testing.assert_close(after, local * up(gate.sigmoid()) + up(embedding))


def test_inter_attention_at_the_top_updates_both_streams_from_the_old_sound():
    block = InterATop(IIANetConfig(hidden=8, lip_hidden=4)).eval()
    seen = []
    block.video_update.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    a, v = torch.randn(1, 8, 10), torch.randn(1, 4, 3)
    with torch.no_grad():
        new_a, new_v = block(a, v)
        alone, nothing = block(a, None)
        old = torch.nn.functional.interpolate(a, size=3, mode="nearest")
        torch.testing.assert_close(seen[0], old * block.video_gate(v).sigmoid())
        torch.testing.assert_close(alone, block.audio_perceptron(a))
    assert new_a.shape == a.shape and new_v.shape == v.shape and nothing is None
    assert not torch.allclose(new_a, alone)


def test_inter_attention_in_the_middle_only_turns_up():
    block = InterAMiddle(IIANetConfig(hidden=8, lip_hidden=4))
    a, v = torch.randn(1, 8, 10), torch.randn(1, 4, 3)
    ratio = block(a, v) / a
    assert (ratio > 1).all() and (ratio < 2).all()


def test_top_down_merges_from_the_coarsest_and_adds_no_level_again():
    up, down = BottomUp(3, 8, kernel=5, levels=3, act=torch.nn.PReLU()), TopDown(3, 8, levels=3)
    levels, _ = up(torch.randn(2, 3, 21))
    assert [level.shape[-1] for level in levels] == [21, 11, 6]
    u = down.merge[0](levels[0], down.merge[1](levels[1], levels[2]))
    torch.testing.assert_close(down(levels), down.expansion(u))


def test_tiny_learns_one_mixture():
    torch.manual_seed(0)
    time = torch.arange(4000) / 16000
    tones = torch.stack(
        [
            (2 * torch.pi * f * time).sin() * (1 + (2 * torch.pi * b * time).sin())
            for f, b in ((440, 8), (610, 12))
        ]
    )
    mixture, lips = tones.sum(0).expand(2, -1), torch.randn(2, 512, 6)
    model = avkit.create_model("iianet-tiny")
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(20):
        loss = negative_si_snr(model(mixture, lips)[:, 0], tones).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 8, "the lips tell which of two tones is wanted"


@pytest.mark.parametrize(
    ("mixture", "lips", "words"),
    [
        ((2, 2, 16000), (2, 512, 25), "wanted"),
        ((16000,), (1, 512, 25), "wanted"),
        ((2, 16000), (2, 256, 25), "512"),
        ((2, 16000), (1, 512, 25), "one set of lips per mixture"),
        ((2, 16000), (2, 512, 0), "no frames"),
        ((2, 0), (2, 512, 3), "0 samples"),
    ],
)
def test_bad_shapes_are_named(mixture, lips, words):
    with pytest.raises(InputError, match=words):
        avkit.create_model("iianet-tiny")(torch.randn(mixture), torch.randn(lips))


@pytest.mark.parametrize("setting", [{"window": 18}, {"levels": 1}, {"fusion_cycles": 0}, {"cycles": 3}])
def test_sizes_that_make_no_network_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting)).removeprefix("fusion_")):
        IIANetConfig(**setting)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 4000])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_convolution_summed_by_taps_is_the_convolution(kernel, stride, frames, bias):
    layer = DepthwiseConv1d(6, kernel, stride, bias)
    assert layer.by_taps(torch.empty(1, 6, frames)) == (kernel == 1 or frames < 4000)
    x = torch.randn(2 if frames < 4000 else 1, 6, frames, requires_grad=True)
    weights = [x, *layer.parameters()]
    expected = torch.nn.functional.conv1d(x, layer.weight, layer.bias, stride, kernel // 2, groups=6)
    torch.testing.assert_close(layer(x), expected)
    signal = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((y * signal).sum(), weights) for y in (layer(x), expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_macs_are_the_same_however_a_depthwise_convolution_is_computed():
    on_cpu = measure(avkit.create_model("iianet-tiny"), seconds=0.5)
    shapes_alone = measure(avkit.create_model("iianet-tiny").to("meta"), seconds=0.5)
    assert on_cpu.macs == shapes_alone.macs and on_cpu.rows == shapes_alone.rows
