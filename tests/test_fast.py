"""The fast form of the networks equals the readable one, falls back where it does not fit, and can be switched off."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import avkit
from avkit import complexity, fast
from avkit.ablations import IIANetChanges, RTFSNetChanges
from avkit.ablations import create as create_ablated
from avkit.fast import native, switch
from avkit.fast.iianet import FastIntraA
from avkit.iianet import InterABottom, IntraA
from avkit.layers import (
    ChannelScale,
    ConvNormAct,
    DepthwiseConv1d,
    GlobalLayerNorm,
    InjectionSum,
    PReLU,
    Reconstruction,
    SameConv2d,
    upsample,
)
from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.rtfs import CAF, S3, AudioEncoder, Bottleneck, DualPathScan, RTFSNetConfig, TFAttention
from avkit.sru import SRU

needs_kernels = pytest.mark.skipif(
    not fast.available() and "CI" not in os.environ, reason=f"no compiled operations: {fast.why_not()}"
)


def perturbed(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter moved away from its default, which would hide mistakes."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return module


def run(module: nn.Module, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output, and the gradients of inputs and parameters for a random gradient of the output."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    module.zero_grad()
    torch.manual_seed(1)
    output = module(*inputs)
    output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output))
    return [output.detach(), *(t.grad for t in inputs), *(p.grad for p in module.parameters())]


def assert_equal_forms(module: nn.Module, *shapes: tuple[int, ...], tolerance: float = 1e-4) -> None:
    """Output and every gradient of both forms agree, relative to the largest entry; a gradient that is zero but for
    rounding is compared with the largest of all."""
    draw = torch.Generator().manual_seed(3)
    inputs = [torch.randn(shape, generator=draw) for shape in shapes]
    quick = fast.use(copy.deepcopy(module))
    assert fast.in_use(quick) and not fast.in_use(module)
    wanted, got = run(module, inputs), run(quick, inputs)
    largest = max(float(t.abs().max()) for t in wanted[1:] if t is not None)
    for number, (a, b) in enumerate(zip(wanted, got, strict=True)):
        assert (a is None) == (b is None), f"result {number}"
        if a is not None:
            scale = float(a.abs().max()) + (1e-3 * largest if number else 0.0)
            assert float((a - b).abs().max()) <= tolerance * scale, f"result {number}, shape {tuple(a.shape)}"


Errors = tuple[float, float, float]


def errors_of_forms(module: nn.Module, *shapes: tuple[int, ...]) -> tuple[Errors, Errors]:
    """Error of the output, median and largest error of the gradients of a whole network's fast form against a float64 run; and
    what rounding can do to them: the largest such errors of its readable form on the inputs as they are and moved by a few
    roundings (where a rectifier's input is 0 but for rounding, gradients jump; some random weights let rounding grow)."""
    draw = torch.Generator().manual_seed(3)
    inputs = [torch.randn(shape, generator=draw) for shape in shapes]
    moved = [[t * (1 + 1e-6 * torch.randn(t.shape, generator=draw)) for t in inputs] for _ in range(5)]
    exact = run(copy.deepcopy(module).double(), [tensor.double() for tensor in inputs])
    largest = max(float(t.abs().max()) for t in exact[1:] if t is not None)

    def error(model: nn.Module, given: list[torch.Tensor]) -> Errors:
        pairs = [(a, b) for a, b in zip(exact, run(model, given), strict=True) if a is not None]
        output, *found = [float((a - b).norm()) / (float(a.norm()) + (1e-3 * largest if i else 0)) for i, (a, b) in enumerate(pairs)]
        return output, sorted(found)[len(found) // 2], max(found)

    quick = fast.use(copy.deepcopy(module))
    return error(quick, inputs), tuple(max(of) for of in zip(*(error(module, given) for given in (inputs, *moved)), strict=True))


def as_exact(ours: Errors, rounding: Errors) -> bool:
    """Whether the fast form is as near to float64 as rounding lets the readable form be, in its output and its gradients."""
    return all(error <= max(1e-4, 3 * allowed) for error, allowed in zip(ours, rounding, strict=True))


def gln(channels: int) -> GlobalLayerNorm:
    return GlobalLayerNorm(channels)


def settled(module: nn.Module) -> nn.Module:
    """A module in eval mode whose batch norms have met data that is neither centred nor scaled."""
    with torch.no_grad():
        for _ in range(3):
            module(3 * torch.randn(2, 6, 11, 13) + 1, torch.randn(2, 12, 4))
    return module.eval()


BLOCKS = {
    "2-D, same": (lambda: ConvNormAct(SameConv2d(6, 6, 4, groups=6, bias=False), gln(6), PReLU()), [(2, 6, 11, 13)]),
    "2-D, halved, even": (lambda: ConvNormAct(nn.Conv2d(6, 6, 4, 2, 1, groups=6), gln(6)), [(2, 6, 12, 14)]),
    "2-D, halved, odd": (lambda: ConvNormAct(nn.Conv2d(6, 6, 4, 2, 1, groups=6), gln(6)), [(3, 6, 11, 17)]),
    "1-D, five taps": (lambda: ConvNormAct(DepthwiseConv1d(7, 5), gln(7), nn.ReLU()), [(2, 7, 33)]),
    "1-D, halved": (lambda: ConvNormAct(DepthwiseConv1d(7, 5, stride=2), gln(7)), [(2, 7, 34)]),
    "1-D, three taps": (lambda: ConvNormAct(DepthwiseConv1d(7, 3, bias=False), gln(7)), [(2, 7, 5)]),
    "1-D, padded by more than its taps": (lambda: ConvNormAct(nn.Conv1d(7, 7, 3, 1, 3, groups=7), gln(7)), [(2, 7, 9)]),
    "1-D, one tap": (lambda: ConvNormAct(DepthwiseConv1d(7, 1, bias=False), gln(7)), [(2, 7, 9)]),
    "long planes": (lambda: ConvNormAct(DepthwiseConv1d(2, 5), gln(2), PReLU()), [(1, 2, 9001)]),
    "1×1": (lambda: ConvNormAct(nn.Conv2d(6, 8, 1), gln(8), PReLU()), [(2, 6, 5, 7)]),
    "1×1 without bias": (lambda: ConvNormAct(nn.Conv1d(6, 8, 1, bias=False), gln(8), nn.ReLU()), [(2, 6, 5)]),
    "wide dense": (lambda: ConvNormAct(nn.Conv1d(6, 8, 3, padding=1), gln(8)), [(2, 6, 5)]),
    "scale": (lambda: ConvNormAct(ChannelScale(6), act=PReLU()), [(2, 6, 11, 14)]),
    "scale, 1-D": (lambda: ConvNormAct(DepthwiseConv1d(6, 1), act=nn.ReLU()), [(2, 6, 11)]),
    "batch norm": (lambda: ConvNormAct(nn.Conv1d(6, 6, 1), nn.BatchNorm1d(6), PReLU()), [(4, 6, 11)]),
    "injection from coarse": (lambda: InjectionSum(6, 4, 2, gln), [(2, 6, 11, 14), (2, 6, 5, 7)]),
    "injection from fine": (lambda: InjectionSum(6, 4, 2, gln), [(2, 6, 5, 7), (2, 6, 11, 14)]),
    "injection, 1-D": (lambda: InjectionSum(6, 3, 1, gln), [(2, 6, 29), (2, 6, 7)]),
    "scan over frequency": (lambda: DualPathScan(6, 3, 4, 8, 2), [(2, 6, 11, 14)]),
    "scan over time": (lambda: DualPathScan(6, 2, 8, 5, 3), [(2, 6, 9, 4)]),
    "attention over time": (lambda: TFAttention(8, 5, 2, 3), [(2, 8, 7, 5)]),
    "attention over time, one head": (lambda: TFAttention(6, 17, 1, 4), [(1, 6, 1, 17)]),
    "scale of a sum": (lambda: InterABottom(6, PReLU()), [(2, 6, 4200), (2, 6, 4200)]),
    "bottleneck": (lambda: Bottleneck(6), [(2, 6, 11, 13)]),
    # A weight before a batch norm has no gradient but for eps: the readable form's is off by 4e-4 of itself.
    "fusion": (lambda: CAF(6, 12, 3), [(2, 6, 11, 13), (2, 12, 4)]),
    "fusion, more lip frames than sound": (lambda: CAF(6, 12, 3), [(1, 6, 5, 3), (1, 12, 9)]),
    "fusion, settled": (lambda: settled(CAF(6, 12, 3)), [(2, 6, 11, 13), (2, 12, 4)]),
    "mask": (lambda: S3(6, 1), [(2, 6, 11, 13), (2, 6, 11, 13)]),
    "mask, two voices": (lambda: S3(6, 2), [(3, 6, 21, 70), (3, 6, 21, 70)]),
    "SRU": (lambda: SRU(24, 16, 3), [(9, 5, 24)]),
    "SRU, one way": (lambda: SRU(24, 24, 2, bidirectional=False), [(7, 3, 24)]),
    "SRU, one step": (lambda: SRU(4, 3, 1), [(1, 2, 4)]),
}


@needs_kernels
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_and_their_gradients_are_equal(name):
    make, shapes = BLOCKS[name]
    torch.manual_seed(0)
    assert_equal_forms(perturbed(make()), *shapes, tolerance=1e-3 if name.startswith("fusion") else 1e-4)


@needs_kernels
def test_reconstruction_adds_its_residuals():
    torch.manual_seed(0)
    module = perturbed(Reconstruction(4, 4, 3, 2, gln))

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, fine, middle, coarse, g):
            return self.inner([fine, middle, coarse], g)

    assert_equal_forms(Joined(), (2, 4, 21, 17), (2, 4, 10, 8), (2, 4, 5, 4), (2, 4, 5, 4))


@needs_kernels
@pytest.mark.parametrize(("fine", "coarse"), [(64, 8), (61, 7), (13, 12), (40, 1)])
def test_intra_attention_counts_each_coarse_position_as_often_as_it_is_repeated(fine, coarse):
    torch.manual_seed(0)
    readable = perturbed(IntraA(6, kernel=1))
    quick = fast.use(copy.deepcopy(readable))
    m, n = torch.randn(2, 6, fine), torch.randn(2, 6, coarse)
    torch.testing.assert_close(quick.repeated(m, n), readable(m, upsample(n, m)), rtol=1e-4, atol=1e-5)


@needs_kernels
def test_training_too_leaves_the_global_feature_coarse(monkeypatch):
    """IntraA's short way at every level of every cycle; nothing is written out at a finer level's size first."""
    model = avkit.create_model("iianet-tiny").train()
    sizes, plain = [], FastIntraA.repeated
    monkeypatch.setattr(FastIntraA, "repeated", lambda *given: sizes.append(given[2].shape[2]) or plain(*given))
    model(torch.randn(1, 8_000), torch.randn(1, 512, 12)).sum().backward()
    separation = model.separation
    cycles = separation.fusion_cycles + separation.audio_cycles
    assert len(sizes) == cycles * len(separation.audio_intra) and len(set(sizes)) == 1


@needs_kernels
@pytest.mark.parametrize("momentum", [0.1, None])
def test_fusion_keeps_running_statistics_as_batch_norm_does(momentum):
    torch.manual_seed(0)
    readable = perturbed(CAF(6, 12, 3))
    for path in (readable.value, readable.key):
        path.norm.momentum = momentum
    quick = fast.use(copy.deepcopy(readable))
    for _ in range(3):
        a, v = 50 + torch.randn(2, 6, 11, 13), torch.randn(2, 12, 4)
        torch.testing.assert_close(quick(a, v), readable(a, v), rtol=1e-4, atol=1e-4)
    for (name, ours), (_, theirs) in zip(quick.named_buffers(), readable.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)


@needs_kernels
def test_what_the_encoder_hands_on_lies_in_the_order_of_its_axes():
    encoder = fast.use(AudioEncoder(RTFSNetConfig(channels=6)))
    assert encoder(torch.randn(2, 3_000)).is_contiguous()


def watched_faces(stem: int, widths: tuple[int, int, int, int]) -> LipEncoder:
    """A frozen lip encoder with norms and slopes that differ from channel to channel."""
    torch.manual_seed(0)
    encoder = LipEncoder(LipEncoderConfig(stem, widths))
    for name, tensor in encoder.state_dict().items():
        if tensor.dim() == 1:
            tensor.add_(0.1 * torch.randn(tensor.shape))
            tensor.abs_() if name.endswith("var") else None
    return encoder


@needs_kernels
@pytest.mark.parametrize(("widths", "batch", "frames"), [((8, 16, 24, 32), 2, 5), ((8, 8, 16, 160), 3, 1), ((64, 32, 130, 7), 1, 7)])
def test_frozen_lip_encoders_are_equal(widths, batch, frames):
    readable = watched_faces(8, widths)
    quick = fast.use(copy.deepcopy(readable))
    x = torch.randn(batch, 1, frames, 88, 88)
    before = x.clone()
    wanted, got = readable(x), quick(x)
    assert fast.in_use(quick) and got.shape == wanted.shape and torch.equal(x, before)
    assert (got - wanted).norm() < 1e-6 * wanted.norm()
    assert torch.equal(fast.use(quick, False)(x), wanted)


@needs_kernels
def test_lip_encoders_that_learn_or_are_watched_take_the_readable_way():
    readable = watched_faces(8, (8, 8, 8, 8))
    quick = fast.use(copy.deepcopy(readable))
    x = torch.randn(1, 1, 3, 88, 88)
    seen = []
    handle = quick.stages[0][0].bn1.register_forward_hook(lambda *given: seen.append(given))
    quick(x)
    handle.remove()
    assert len(seen) == 1
    for encoder in (readable.unfreeze(), quick.unfreeze()):
        encoder(x).sum().backward()
    for ours, theirs in zip(quick.parameters(), readable.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


SIZES = [
    ("rtfs-net-tiny", {}, 12_345),
    ("rtfs-net-4", {"repeats": 2}, 9_000),
    ("rtfs-net-4", {"repeats": 1, "levels": 4}, 8_192),
    ("iianet-tiny", {}, 7_777),
    ("iianet", {"cycles": 3, "fusion_cycles": 2}, 4_001),
]


@needs_kernels
@pytest.mark.parametrize(("name", "overrides", "samples"), SIZES, ids=lambda value: str(value))
@pytest.mark.parametrize("training", [False, True])
def test_networks_and_their_gradients_are_equal(name, overrides, samples, training):
    torch.manual_seed(0)
    model = perturbed(avkit.create_model(name, fast=False, **overrides)).train(training)
    for module in model.modules():  # what drops at random draws other numbers in float64
        if hasattr(module, "p"):
            module.p = 0.0
    ours, rounding = errors_of_forms(model, (2, samples), (2, 512, max(1, samples * 25 // 16_000)))
    assert as_exact(ours, rounding), (ours, rounding)
    assert ours[0] < 1e-4 and rounding[0] < 1e-4, "outputs; these weights and inputs let no rounding grow"


ABLATED = [
    ("rtfs-net-tiny", RTFSNetChanges(reconstruction="plain")),
    ("rtfs-net-tiny", RTFSNetChanges(scan="gru")),
    ("rtfs-net-tiny", RTFSNetChanges(scan="attention", fusion="concatenation", separation="mask")),
    ("rtfs-net-tiny", RTFSNetChanges(blocks="unshared", separation="regression")),
    *(("iianet-tiny", IIANetChanges(**{part: False})) for part in ("inter_top", "inter_middle", "inter_bottom", "intra")),
]
INFERENCE = [*SIZES, ("rtfs-net-tiny", {"levels": 1}, 8_000), ("iianet-tiny", {"levels": 2}, 333)]


def has_put_off_norms(model: nn.Module) -> bool:
    """Whether inference takes the way on which norms are put off."""
    return (model.rtfs_block if hasattr(model, "rtfs_block") else model.separation).is_plain()


def assert_equal_outputs(model: nn.Module, batch: int, samples: int) -> None:
    draw = torch.Generator().manual_seed(samples)
    mixture = torch.randn(batch, samples, generator=draw)
    lips = torch.randn(batch, 512, max(1, samples * 25 // 16_000), generator=draw)
    quick = fast.use(copy.deepcopy(model))
    before = {name: tensor.clone() for name, tensor in quick.state_dict().items()}
    with torch.no_grad():
        wanted, got = model(mixture, lips), quick(mixture, lips)
    with torch.inference_mode():
        again = quick(mixture, lips)
    assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert torch.equal(got, again)
    assert all(torch.equal(before[name], tensor) for name, tensor in quick.state_dict().items())


@needs_kernels
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("name", "overrides", "samples"), INFERENCE, ids=lambda value: str(value))
def test_networks_without_gradients_are_equal(name, overrides, samples, batch):
    torch.manual_seed(0)
    assert has_put_off_norms(avkit.create_model(name, **overrides))
    assert_equal_outputs(perturbed(avkit.create_model(name, fast=False, **overrides)).eval(), batch, samples)


@needs_kernels
@pytest.mark.parametrize(("name", "changes"), ABLATED, ids=lambda value: str(value))
def test_ablated_networks_without_gradients_are_equal(name, changes):
    torch.manual_seed(0)
    model = perturbed(fast.use(create_ablated(name, changes), False)).eval()
    assert_equal_outputs(model, 2, 8_001)


@needs_kernels
@pytest.mark.parametrize("gradients", [False, True])
def test_inputs_may_lie_in_memory_in_any_order(gradients):
    rtfs, iianet = (avkit.create_model(name, fast=False).eval() for name in ("rtfs-net-tiny", "iianet-tiny"))
    draw, sizes = torch.Generator().manual_seed(6), iianet.config
    cases = (
        (rtfs.rtfs_block, [torch.randn(2, 35, 257, rtfs.config.channels, generator=draw).movedim(3, 1)]),
        (iianet.separation, [torch.randn(2, n, c, generator=draw).transpose(1, 2) for n, c in ((99, sizes.channels), (9, sizes.lip_hidden))]),
    )
    for block, inputs in cases:
        assert not any(given.is_contiguous() for given in inputs)
        with torch.set_grad_enabled(gradients):
            wanted, got = block(*inputs), fast.use(copy.deepcopy(block))(*inputs)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", ["rtfs-net-tiny", "iianet-tiny"])
def test_a_hook_on_any_module_sees_as_often_and_keeps_what_it_sees_in_the_readable_form(name, gradients):
    """Also once the network is through: nothing that a hook was given is written over."""
    model = avkit.create_model(name).eval()
    mixture, lips = torch.randn(1, 8_000), torch.randn(1, 512, 12)

    def seen(module: nn.Module) -> list:
        outputs = []
        handle = module.register_forward_hook(lambda _, given, output: outputs.append((given, output)))
        with torch.set_grad_enabled(gradients):
            model(mixture, lips)
        handle.remove()
        return outputs

    with fast.readable(model):
        wanted = {part: seen(module) for part, module in model.named_modules()}
    for part, module in model.named_modules():
        found = seen(module)
        assert len(found) == len(wanted[part]), part
        torch.testing.assert_close(found, wanted[part], rtol=1e-3, atol=1e-3, msg=lambda text, part=part: f"{part}: {text}")


@needs_kernels
@pytest.mark.soak
@pytest.mark.parametrize("trial", range(60))
def test_networks_are_equal_over_many_random_shapes(trial):
    draw = torch.Generator().manual_seed(trial)
    name, overrides, _ = SIZES[trial % len(SIZES)]
    samples = int(torch.randint(8_192, 40_000, (), generator=draw))
    batch = int(torch.randint(1, 4, (), generator=draw))
    torch.manual_seed(trial)
    model = perturbed(avkit.create_model(name, fast=False, **overrides), trial).eval()
    ours, rounding = errors_of_forms(model, (batch, samples), (batch, 512, samples * 25 // 16_000))
    assert as_exact(ours, rounding), (name, samples, batch, ours, rounding)


@needs_kernels
def test_both_forms_share_weights_and_names_and_can_be_exchanged():
    model = avkit.create_model("rtfs-net-tiny")
    assert fast.in_use(model)
    weights = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    fast.use(model, False)
    assert not fast.in_use(model)
    assert weights == {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    assert not fast.in_use(avkit.create_model("rtfs-net-tiny", fast=False))
    assert fast.in_use(copy.deepcopy(fast.use(model)))
    with fast.readable(model):
        assert not fast.in_use(model)
    assert fast.in_use(model)


@needs_kernels
@pytest.mark.parametrize("name", ["rtfs-net-tiny", "iianet-tiny"])
def test_other_dtypes_autocast_and_tracing_take_the_readable_way(name):
    torch.manual_seed(0)
    quick = avkit.create_model(name).eval()
    slow = fast.use(copy.deepcopy(quick), False)
    mixture, lips = torch.randn(1, 8_000), torch.randn(1, 512, 12)
    with torch.no_grad():
        for cast in (lambda x: x.double(), lambda x: x):
            a, b = (cast(copy.deepcopy(m))(cast(mixture), cast(lips)) for m in (quick, slow))
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(quick(mixture, lips), slow(mixture, lips), rtol=0, atol=0)
        exported = torch.export.export(quick, (mixture, lips)).module()
        torch.testing.assert_close(exported(mixture, lips), slow(mixture, lips), rtol=1e-4, atol=1e-5)


@needs_kernels
def test_hooks_see_every_block_that_they_wait_for():
    model = avkit.create_model("rtfs-net-tiny").eval()
    seen = []
    conv = model.rtfs_block.projection.conv
    handle = conv.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    mixture, lips = torch.randn(1, 8_000), torch.randn(1, 512, 12)
    with torch.no_grad():
        watched = model(mixture, lips)
        handle.remove()
        torch.testing.assert_close(model(mixture, lips), watched, rtol=1e-4, atol=1e-5)
    assert len(seen) == model.config.repeats


def test_counts_are_those_of_the_readable_form():
    sizes = [
        complexity.measure(avkit.create_model("rtfs-net-tiny", fast=form), seconds=1.0).macs for form in (True, False)
    ]
    assert sizes[0] == sizes[1] > 0


@needs_kernels
@pytest.mark.parametrize("name", ["rtfs-net-tiny", "iianet-tiny"])
def test_threads_do_not_disturb_each_other(name):
    model = avkit.create_model(name).eval()
    inputs = [(torch.randn(1, 8_000), torch.randn(1, 512, 12)) for _ in range(4)]
    with torch.no_grad():
        wanted = [model(*pair) for pair in inputs]
    got: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        with torch.no_grad():
            for _ in range(3):
                got[number] = model(*inputs[number])

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number, output in enumerate(wanted):
        assert torch.equal(got[number], output)


@needs_kernels
def test_nan_is_not_hidden():
    model = avkit.create_model("rtfs-net-tiny").eval()
    model.rtfs_block.projection.norm.weight.data[0] = float("nan")
    assert model(torch.randn(1, 8_000), torch.randn(1, 512, 12)).isnan().any()


def _in_a_new_process(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_variable_switches_the_kernels_off():
    code = "import avkit; from avkit import fast; print(fast.in_use(avkit.create_model('rtfs-net-tiny')), fast.why_not())"
    assert _in_a_new_process(code, AVKIT_KERNELS="0").split() == ["False", "switched", "off", "by", "AVKIT_KERNELS=0"]


def test_without_a_compiler_networks_stay_readable_and_the_reason_is_said(tmp_path):
    code = "import avkit; from avkit import fast; print(fast.in_use(avkit.create_model('iianet-tiny'))); print(fast.why_not())"
    answer = _in_a_new_process(code, PATH=str(tmp_path), AVKIT_CACHE=str(tmp_path))
    assert answer.startswith("False") and "no C++ compiler" in answer


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "kernels").write_text("a file where the folder should be")
    code = "from avkit import fast; print(fast.why_not())"
    assert str(tmp_path / "kernels") in _in_a_new_process(code, AVKIT_CACHE=str(tmp_path))


@needs_kernels
def test_the_library_follows_its_source_and_processor(monkeypatch):
    name = native._fingerprint("g++")
    monkeypatch.setattr(native, "_processor", lambda: "another one")
    assert native._fingerprint("g++") != name


def test_every_fast_form_is_its_readable_block():
    for readable, quick in switch.FORMS.items():
        assert issubclass(quick, readable)


@needs_kernels
def test_one_sound_with_several_lips_is_broadcast_as_in_the_readable_form():
    """The compiled operations read item by item: an input of one item beside one of two takes the readable way."""
    draw = torch.Generator().manual_seed(5)
    sound = torch.randn(1, 8, 9, 11, generator=draw)
    two = torch.randn(2, 8, 9, 11, generator=draw)
    coarse = torch.randn(2, 8, 4, 5, generator=draw)
    levels = [sound, coarse[:1]]
    cases = [
        (CAF(8, 16, heads=2).eval(), (sound, torch.randn(2, 16, 6, generator=draw))),
        (S3(8, n_src=1), (two, sound)),
        (InjectionSum(8, 4, dims=2, norm=GlobalLayerNorm), (sound, coarse)),
        (Reconstruction(8, 4, levels=2, dims=2, norm=GlobalLayerNorm), (levels, coarse)),
        (InterABottom(8, nn.PReLU()), (sound[..., 0], two[..., 0])),
        (IntraA(8, kernel=1), (sound[..., 0], coarse[..., 0])),
    ]
    for module, inputs in cases:
        quick = fast.use(copy.deepcopy(module))
        assert fast.in_use(quick), type(module).__name__
        with torch.no_grad():
            wanted, got = module(*inputs), quick(*inputs)
        assert len(got) == 2
        torch.testing.assert_close(got, wanted, msg=type(module).__name__)
