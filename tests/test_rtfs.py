"""RTFS-Net computes what the official network computes, and refuses what it cannot take."""

import copy

import pytest
import torch
from parity_fill import inputs, load, official_state_dict, record, record_calls, relative_error
from torch.func import functional_call

import avkit
from avkit.checkpoints import from_official, to_official
from avkit.complexity import measure
from avkit.errors import CheckpointError, InputError
from avkit.layers import ChannelScale, PReLU
from avkit.rtfs import DualPathScan, compressed_size
from avkit.sru import LoopScan, SRULayer, scan

TOLERANCE = 1e-4
AUDIO = "refinement_module.audio_net.blocks"
OURS = {  # official module of a fixture -> ours
    "encoder": "encoder",
    "audio_bottleneck": "bottleneck",
    f"{AUDIO}.projection": "rtfs_block.projection",
    f"{AUDIO}.downsample_layers.0": "rtfs_block.compression.0",
    f"{AUDIO}.downsample_layers.1": "rtfs_block.compression.1",
    f"{AUDIO}.globalatt.0": "rtfs_block.scan_frequency",
    f"{AUDIO}.globalatt.1": "rtfs_block.scan_time",
    f"{AUDIO}.globalatt.2": "rtfs_block.attention",
    f"{AUDIO}.fusion_layers.0": "rtfs_block.reconstruction.inject.0",
    f"{AUDIO}.fusion_layers.1": "rtfs_block.reconstruction.inject.1",
    f"{AUDIO}.concat_layers.0": "rtfs_block.reconstruction.merge.0",
    AUDIO: "rtfs_block",
    "refinement_module.video_net.blocks": "visual_block",
    "refinement_module.crossmodal_fusion.fusion_module": "caf",
    "mask_generator": "s3",
}


@pytest.fixture(scope="module")
def weights():
    return official_state_dict("RTFS-Net")


@pytest.mark.parametrize(("repeats", "case"), [(4, "2s"), (4, "odd"), (6, "2s"), (12, "2s"), (12, "odd")])
def test_output_equals_the_official_networks(weights, repeats, case):
    fixture = load(f"rtfs_net_{repeats}_{case}")
    model = from_official(weights, f"rtfs-net-{repeats}")
    with torch.no_grad():
        output = model(*inputs(case, fixture["shapes"]))
    assert output.shape == fixture["output"].shape
    assert relative_error(output, fixture["output"]) < TOLERANCE


@pytest.mark.parametrize("case", ["2s", "odd"])
def test_every_recorded_intermediate_equals_the_official_one(weights, case):
    fixture = load(f"rtfs_net_4_{case}")
    model = from_official(weights, "rtfs-net-4")
    outputs = record_calls(model)
    before_mask = []
    model.s3.register_forward_pre_hook(lambda module, args: before_mask.append(args[0]))
    with torch.no_grad():
        model(*inputs(case, fixture["shapes"]))
    outputs["separation@0"] = before_mask[0]
    checked = 0
    for key, recorded in fixture.items():
        if key in ("output", "shapes") or key.endswith((":shape", "@0.1")):  # @0.1: the lips, returned as they came
            continue
        official, call = key.removesuffix(".0").rsplit("@", 1) if key.endswith(".0") else key.rsplit("@", 1)
        ours = "separation" if official == "refinement_module" else OURS[official]
        value = outputs[f"{ours}@{call}"]
        assert list(value.shape) == list(fixture[f"{key}:shape"]), key
        assert relative_error(record(value), recorded) < TOLERANCE, key
        checked += 1
    assert checked == len([key for key in fixture if key.endswith(":shape") and "@0.1" not in key])


def test_names_map_both_ways(weights):
    model = from_official(weights, "rtfs-net-4")
    back = to_official(model)
    for name, tensor in weights.items():
        assert torch.equal(back[name], tensor), name
    constants = set(back) - set(weights)
    assert len(constants) == 9 and all(name.endswith(("scale_x", "pos_enc.pe")) for name in constants)
    again = from_official(back, "rtfs-net-4")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


def test_unknown_missing_and_misshapen_names_are_refused(weights):
    name = "decoder.decoder.weight"
    with pytest.raises(CheckpointError, match=name):
        from_official({k: v for k, v in weights.items() if k != name}, "rtfs-net-4")
    with pytest.raises(CheckpointError, match="stranger"):
        from_official(weights | {"stranger.weight": torch.zeros(1)}, "rtfs-net-4")
    with pytest.raises(CheckpointError, match=name):
        from_official(weights | {name: torch.zeros(2, 2, 3, 3)}, "rtfs-net-4")
    with pytest.raises(CheckpointError, match="scale_x"):
        scale = f"{AUDIO}.globalatt.0.rnn.rnn_lst.0.scale_x"
        from_official(weights | {scale: torch.full((1,), 2.0)}, "rtfs-net-4")
    without_counters = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    from_official(without_counters, "rtfs-net-4")


@pytest.mark.parametrize(("name", "macs"), [("rtfs-net-4", 21.930), ("rtfs-net-6", 30.614), ("rtfs-net-12", 56.666)])
def test_parameters_and_macs_are_the_official_ones(name, macs):
    counted = measure(avkit.create_model(name), seconds=2.0)
    assert counted.params == 740_210
    assert round(counted.macs / 1e9, 3) == macs


def test_macs_of_the_scan_agree_with_a_count_by_hand():
    model = avkit.create_model("rtfs-net-4", repeats=1)
    row = next(r for r in measure(model, depth=2).rows if r.module == "rtfs_block.scan_time")
    steps, lanes = 125 - 7, 64
    first = steps * lanes * (64 * 8) * (2 * 32 * 4)  # x·W of the first layer: four products
    others = 3 * steps * lanes * 64 * (2 * 32 * 3)  # three layers of three products
    fold = steps * lanes * 64 * 64 * 8  # transposed convolution
    assert row.macs == first + others + fold


def test_macs_of_the_attention_agree_with_a_count_by_hand():
    model = avkit.create_model("rtfs-net-4", repeats=1)
    row = next(r for r in measure(model, depth=2).rows if r.module == "rtfs_block.attention")
    frames, freqs = 125, 64
    projections = frames * freqs * 64 * (4 * (4 + 4 + 16) + 64)
    products = 4 * frames * frames * freqs * (4 + 16)  # q·k over E·F features, attention·v over D/4·F
    assert row.macs == projections + products


def test_sru_layer_follows_its_equations_step_by_step():
    torch.manual_seed(0)
    layer = SRULayer(5, 3, directions=2).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(7, 2, 5, dtype=torch.float64)
    out = layer(x)
    u = (x @ layer.weight).view(7, 2, 2, 3, 4)
    v, b = layer.weight_c.view(2, 2, 3), layer.bias.view(2, 2, 3)
    for direction, order in ((0, range(7)), (1, reversed(range(7)))):
        c = torch.zeros(2, 3, dtype=torch.float64)
        for t in order:
            u0, u1, u2, u3 = u[t, :, direction].unbind(-1)
            f = torch.sigmoid(u1 + v[0, direction] * c + b[0, direction])
            r = torch.sigmoid(u2 + v[1, direction] * c + b[1, direction])
            c = f * c + (1 - f) * u0
            h = r * c + (1 - r) * u3
            torch.testing.assert_close(out[t, :, 3 * direction : 3 * direction + 3], h)


@pytest.mark.parametrize("backward", [False, True])
def test_the_hand_written_scan_equals_the_readable_one_and_so_do_its_gradients(backward):
    torch.manual_seed(0)
    shapes = ((5, 2, 3), (5, 2, 3), (3,))
    leaves = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    torch.testing.assert_close(LoopScan.apply(*leaves, backward), scan(*leaves, backward))
    assert torch.autograd.gradcheck(lambda *x: LoopScan.apply(*x, backward), leaves)
    torch.testing.assert_close(scan(*leaves, True), scan(leaves[0].flip(0), leaves[1].flip(0), leaves[2]).flip(0))


def test_scaling_and_rectifying_equal_the_modules_they_stand_for():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    scale, rectify = ChannelScale(6).double(), PReLU().double()
    torch.testing.assert_close(scale(x), torch.nn.Conv2d.forward(scale, x))
    torch.testing.assert_close(rectify(x), torch.prelu(x, rectify.weight))
    assert torch.autograd.gradcheck(lambda x, slope: functional_call(rectify, {"weight": slope}, x), (x, rectify.weight))


def test_gradients_are_those_of_a_float64_run(weights):
    model = from_official(weights, "rtfs-net-4")
    double = copy.deepcopy(model).double()
    mixture, lips = inputs("odd", (1, 8000, 13))
    gradients = []
    for network, dtype in ((model, torch.float32), (double, torch.float64)):
        network(mixture.to(dtype), lips.to(dtype)).square().mean().backward()
        gradients.append({name: p.grad.double() for name, p in network.named_parameters()})
    largest = max(g.norm() for g in gradients[1].values())
    for name, exact in gradients[1].items():
        error = (gradients[0][name] - exact).norm()
        assert error < 1e-3 * exact.norm() or error < 1e-7 * largest, name


def test_tiny_preset_is_small_and_takes_512_wide_lips():
    model = avkit.create_model("rtfs-net-tiny")
    assert 100_000 < sum(p.numel() for p in model.parameters()) < 250_000
    assert model(torch.randn(2, 32000), torch.randn(2, 512, 50)).shape == (2, 1, 32000)


def test_shortest_mixture_passes_and_a_shorter_one_is_refused():
    model = avkit.create_model("rtfs-net-tiny").eval()
    lips = torch.randn(1, 512, 5)
    with torch.no_grad():
        assert model(torch.randn(1, model.shortest), lips).isfinite().all()
        with pytest.raises(InputError, match=str(model.shortest)):
            model(torch.randn(1, model.shortest - 1), lips)


@pytest.mark.parametrize(
    ("mixture", "lips", "words"),
    [
        ((2, 2, 16000), (2, 512, 25), "wanted"),
        ((2, 16000), (2, 256, 25), "512"),
        ((2, 16000), (1, 512, 25), "one set of lips per mixture"),
        ((2, 16000), (2, 512, 0), "no frames"),
    ],
)
def test_bad_shapes_are_named(mixture, lips, words):
    with pytest.raises(InputError, match=words):
        avkit.create_model("rtfs-net-tiny")(torch.randn(mixture), torch.randn(lips))


def test_configuration_typos_are_refused():
    with pytest.raises(InputError, match="repeat"):
        avkit.create_model("rtfs-net-4", repeat=3)
    with pytest.raises(InputError, match="rtfs-net-4"):
        avkit.create_model("rtfs-net4")


def test_dual_path_scan_needs_a_whole_window_and_keeps_odd_shapes():
    block = DualPathScan(8, axis=2, window=8, rnn_hidden=4, rnn_layers=2)
    x = torch.randn(2, 8, 11, 5)
    assert block(x).shape == x.shape


def test_compressed_size_is_what_the_convolutions_leave():
    model = avkit.create_model("rtfs-net-4", levels=3)
    for size in (129, 128, 65):
        _, g = model.rtfs_block.compression(torch.randn(1, 64, 40, size))
        assert g.shape[-1] == compressed_size(size, 3)
