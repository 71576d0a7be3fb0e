"""On an NVIDIA GPU: the same outputs as on the processor, recorded calls equal plain ones, and what bfloat16 costs."""

import copy
import io

import pytest
import torch
import toy_corpus

import avkit
from avkit.errors import InputError
from avkit.fast.graphs import Recorded, record_training
from avkit.losses import negative_si_snr
from avkit.signal import STFT
from avkit.training import train

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU on this machine")
NETWORKS = ["rtfs-net-tiny", "iianet-tiny", "rtfs-net-4", "iianet"]


@pytest.fixture(autouse=True)
def exact_float32():
    """Convolutions in float32 proper: cuDNN would round their inputs to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def inputs(samples=16000, batch=1, device="cuda"):
    draw = torch.Generator().manual_seed(0)
    frames = avkit.signal.frames_for(samples)
    return [
        (0.1 * torch.randn(batch, samples, generator=draw)).to(device),
        torch.randn(batch, 512, frames, generator=draw).to(device),
    ]


def network(name, device="cuda"):
    torch.manual_seed(0)
    return avkit.create_model(name, fast=False).eval().to(device)


def relative(ours, exact):
    return float((ours.cpu() - exact.cpu()).norm() / exact.cpu().norm())


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gpu_computes_what_the_processor_computes(name):
    with torch.no_grad():
        there = network(name)(*inputs())
        here = network(name, "cpu")(*inputs(device="cpu"))
    assert relative(there, here) < 1e-4


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_a_recorded_call_equals_a_plain_one(name):
    plain = network(name)
    recorded = Recorded(copy.deepcopy(plain))
    with torch.no_grad():
        for samples in (16000, 12345, 16000):
            given = inputs(samples)
            before = recorded(*inputs(samples))
            assert relative(recorded(*given), plain(*given)) < 1e-6
            given[0] *= 0.5
            assert relative(recorded(*given), plain(*given)) < 1e-6
            assert relative(before, plain(*inputs(samples))) < 1e-6, "an earlier result was written over"
        for model in (plain, recorded.network):
            for parameter in model.parameters():
                parameter.mul_(1.01)
        assert relative(recorded(*inputs()), plain(*inputs())) < 1e-6


@needs_gpu
def test_recorded_networks_are_copied_saved_and_trained_like_others():
    recorded = Recorded(network("rtfs-net-tiny"), keep=1)
    with torch.no_grad():
        expected = recorded(*inputs())
        recorded(*inputs(12345))
        assert len(recorded._tapes) == 1
        assert relative(copy.deepcopy(recorded)(*inputs()), expected) < 1e-6
        kept = io.BytesIO()
        torch.save(recorded, kept)
        kept.seek(0)
        assert relative(torch.load(kept, weights_only=False)(*inputs()), expected) < 1e-6
    recorded(*inputs()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in recorded.parameters())


def test_a_recorded_network_on_the_processor_is_the_network():
    plain = network("rtfs-net-tiny", "cpu")
    with torch.no_grad():
        assert torch.equal(Recorded(plain)(*inputs(device="cpu")), plain(*inputs(device="cpu")))
    with pytest.raises(InputError, match="keep is 0"):
        Recorded(plain, keep=0)


def test_what_was_recorded_stays_behind_in_copies():
    recorded = Recorded(network("rtfs-net-tiny", "cpu"), keep=2)
    recorded._tapes["a shape"] = iter(())  # which cannot be copied, as a graph cannot
    again = copy.deepcopy(recorded)
    assert not again._tapes and again.keep == 2 and again.network is not recorded.network
    with torch.no_grad():
        assert torch.equal(again(*inputs(device="cpu")), recorded(*inputs(device="cpu")))


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("is_recorded", [False, True])
def test_bfloat16_costs_little(name, is_recorded, record_property):
    """Autocast's output against float32's, as a signal-to-noise ratio."""
    if "tiny" in name:
        model = avkit.load_model(name, fast=False).eval().cuda()
        model.lips = None
    else:
        model = network(name)
    call = Recorded(model) if is_recorded else model
    with torch.no_grad():
        exact = model(*inputs())
        with torch.autocast("cuda", torch.bfloat16):
            rounded = [call(*inputs()).float() for _ in range(2)][-1]
    snr = float(10 * torch.log10(exact.square().sum() / (exact - rounded).square().sum()))
    print(f"{name}: {snr:.1f} dB")
    record_property("snr", snr)
    assert snr > 20


@needs_gpu
@pytest.mark.parametrize("name", ["rtfs-net-tiny", "iianet-tiny"])
def test_recorded_training_learns_the_same(name):
    """Three steps of plain gradient descent, stochastic parts left out, recorded and not."""
    mixture, lips = inputs(8000, batch=2)
    losses = []
    for is_recorded in (False, True):
        model = network(name)
        for module in model.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        model.train()
        if is_recorded:
            record_training(model, mixture, lips)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        steps = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = negative_si_snr(model(mixture, lips), mixture[:, None].roll(7, -1)).mean()
            loss.backward()
            optimizer.step()
            steps.append(loss.item())
        losses.append(steps)
    assert losses[0][2] != losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)


@needs_gpu
def test_the_trainer_records_its_steps(tmp_path):
    root = toy_corpus.make(tmp_path / "toy", {"tr": 10, "cv": 3}, seconds=0.4)
    trainer = train(
        ["iianet-tiny"], tmp_path / "run",
        f"--data.root {root} --data.segment 0.4 --model.lip_encoder rtfs-net-tiny --trainer.max_steps 4 "
        "--data.cache none --model.graphs true".split(),
    )  # fmt: skip
    assert trainer.global_step == 4
    assert avkit.load_model(tmp_path / "run" / "model")


def test_recorded_training_needs_a_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU on this machine")
    root = toy_corpus.make(tmp_path / "toy", {"tr": 10, "cv": 3}, seconds=0.4)
    settings = f"--data.root {root} --data.segment 0.4 --trainer.max_steps 1 --data.cache none --model.graphs true"
    with pytest.raises(InputError, match="one NVIDIA GPU"):
        train(["rtfs-net-tiny-audio-only"], tmp_path / "run", settings.split())


@pytest.mark.parametrize(("n_fft", "hop", "length"), [(256, 128, 32000), (256, 128, 4063), (256, 64, 5001), (512, 128, 4096)])
def test_overlap_add_is_the_inverse_stft(n_fft, hop, length):
    stft = STFT(n_fft, hop)
    spectrum = torch.view_as_complex(stft(torch.randn(2, length)).permute(0, 3, 2, 1).contiguous())
    exact = torch.istft(spectrum, n_fft, hop, window=stft.window, length=length)
    torch.testing.assert_close(stft._overlap_add(spectrum, stft.window, length), exact, rtol=1e-5, atol=1e-5)
