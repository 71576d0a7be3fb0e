"""IIANet computes what the official network computes, block by block, and refuses what it cannot take."""

import copy

import pytest
import torch
from parity_fill import inputs, load, official_shapes, official_state_dict, record, record_calls, relative_error

import avkit
from avkit.checkpoints import from_official, to_official
from avkit.errors import CheckpointError, InputError
from avkit.iianet import BottomUp, IIANet, IIANetConfig, InterAMiddle, InterATop, IntraA, TopDown
from avkit.layers import DropPath, pool_to

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
        return outputs[f"{SEPARATION}.audio_top_down@{call}"] + outputs[f"{SEPARATION}.audio_bottom_up@{call}:input"]
    if official == "sm.video_blocks.1" and index[0] == 1:
        return outputs[f"{SEPARATION}.inter_middle.{index[1]}.gate@{call}"]
    if official == "sm.video_blocks.1":
        return outputs[f"{SEPARATION}.video_top_down@{call}"] + outputs[f"{SEPARATION}.video_bottom_up@{call}:input"]
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
    outputs = record_calls(model)
    for stream in ("audio", "video"):
        keep_inputs(model.separation.get_submodule(f"{stream}_bottom_up"), f"{SEPARATION}.{stream}_bottom_up", outputs)
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
    assert {k: v.shape for k, v in fast.state_dict().items()} == {k: v.shape for k, v in full.state_dict().items()}


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
    print(f"\nworst of {len(errors)} gradients: {worst}, {errors[worst]:.1e}; {len(gradients[1]) - len(errors)} are zero")
    assert errors[worst] < 1e-3, worst
