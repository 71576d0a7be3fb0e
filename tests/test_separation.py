"""`avkit.separate`: exact up to a chunk, seamless beyond it, bounded in memory, and clear about what it refuses."""

import itertools
import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import avkit
from avkit.checkpoints import attach_lips
from avkit.errors import AvkitError, DataError, InputError
from avkit.lips import LipEncoder, LipEncoderConfig, LipTransform
from avkit.separation import main, plan_chunks, read_audio, separate


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = avkit.create_model("rtfs-net-tiny", repeats=2, channels=16, hidden=8, rnn_hidden=4).eval()
    attach_lips(model, LipEncoder(LipEncoderConfig(stem=4, widths=(4, 4, 4, 4))))
    return model


class Through(nn.Module):
    """Returns the mixture: what a perfect level-keeping network would do with one talker."""

    lips = None

    def __init__(self, n_src: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.n_src, self.longest, self.calls = n_src, 0, 0

    def forward(self, mixture, lips):
        assert lips.shape[2] == round(mixture.shape[1] / 640)
        self.longest = max(self.longest, mixture.shape[1])
        self.calls += 1
        return mixture[:, None].repeat(1, self.n_src, 1)


def test_one_chunk_is_exactly_the_network(model):
    mixture, lips = torch.randn(2, 32000), torch.randn(2, 512, 50)
    with torch.no_grad():
        assert torch.equal(separate(mixture, lips, model), model(mixture, lips))
    assert torch.equal(separate(mixture[:, None], lips, model), separate(mixture, lips, model))
    assert separate(mixture[0], lips[0], model).shape == (1, 1, 32000)


def test_frames_are_encoded_as_one_clip_would_be(model):
    frames = torch.randint(0, 256, (1, 200, 96, 96), dtype=torch.uint8)
    features = model.lips(LipTransform()(frames))
    mixture = torch.randn(1, 200 * 640)
    by_frames = separate(mixture, frames, model, chunk_seconds=3)
    by_features = separate(mixture, features, model, chunk_seconds=3)
    torch.testing.assert_close(by_frames, by_features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 640, 64000, 64001, 100_000, 123_457, 1_600_000])
def test_chunks_cover_everything_and_start_on_frames(samples):
    chunks = plan_chunks(samples, 4, 1)
    assert chunks[0].start == 0 and chunks[-1].stop == samples
    for before, after in itertools.pairwise(chunks):
        assert after.start % 640 == 0
        assert after.start + after.fade <= before.stop
        assert 64000 - 640 < after.stop - after.start <= 64000


def test_seams_leave_no_trace_and_levels_are_kept():
    t = torch.arange(16000 * 30) / 16000
    tone = 0.3 * torch.sin(2 * math.pi * 313 * t)[None]
    out = separate(tone, torch.zeros(1, 512, 750), Through())
    torch.testing.assert_close(out[:, 0], tone, rtol=0, atol=1e-6)


def test_several_voices_keep_their_order_across_chunks():
    class Shuffled(Through):
        def forward(self, mixture, lips):
            super().forward(mixture, lips)
            halves = torch.stack((mixture.clamp_min(0), mixture.clamp_max(0)), dim=1)
            return halves.flip(1) if self.calls % 2 else halves

    mixture = torch.randn(2, 16000 * 13)
    out = separate(mixture, torch.zeros(2, 512, 325), Shuffled(2))
    torch.testing.assert_close(out[:, 1], mixture.clamp_min(0))
    torch.testing.assert_close(out[:, 0], mixture.clamp_max(0))


def test_memory_is_bounded_by_a_chunk():
    network = Through()
    mixture, lips = torch.randn(1, 16000 * 600), torch.randn(1, 512, 15000)
    out = separate(mixture, lips, network)
    assert out.shape == (1, 1, 16000 * 600)
    assert network.longest == 64000 and network.calls == 200


def test_other_sample_rates_come_back_at_their_rate_and_length():
    t = torch.arange(44100 * 2) / 44100
    tone = 0.3 * torch.sin(2 * math.pi * 440 * t)[None]
    out = separate(tone, torch.zeros(1, 512, 50), Through(), sample_rate=44100)
    assert out.shape == (1, 1, 88200)
    torch.testing.assert_close(out[0, 0, 2000:-2000], tone[0, 2000:-2000], rtol=0, atol=2e-3)


def test_silence_gives_silence(model):
    assert separate(torch.zeros(1, 32000), torch.randn(1, 512, 50), model).abs().max() == 0


def test_lips_a_little_off_are_mended_and_far_off_are_refused():
    mixture = torch.randn(1, 32000)
    for frames in (45, 55):
        assert separate(mixture, torch.randn(1, 512, frames), Through()).shape == (1, 1, 32000)
    for frames in (0, 44, 56):
        with pytest.raises(InputError, match="50 frames"):
            separate(mixture, torch.randn(1, 512, frames), Through())


@pytest.mark.parametrize(
    ("mixture", "lips", "words"),
    [
        (torch.zeros(1, 0), torch.zeros(1, 512, 0), "empty"),
        (torch.full((1, 32000), float("nan")), torch.zeros(1, 512, 50), "NaN"),
        (torch.zeros(1, 32000), torch.full((1, 512, 50), float("inf")), "NaN"),
        (torch.zeros(1, 32000, dtype=torch.int16), torch.zeros(1, 512, 50), "32768"),
        (torch.zeros(2, 32000), torch.zeros(1, 512, 50), "one set each"),
        (torch.zeros(1, 2, 32000), torch.zeros(1, 512, 50), "channels"),
        (torch.zeros(1, 32000), torch.zeros(1, 50, 96, 96), "uint8"),
        (torch.zeros(1, 32000), torch.zeros(1, 50, 120, 120, dtype=torch.uint8), "96, 96"),
        (torch.zeros(1, 32000), torch.zeros(1, 50, 96, 96, dtype=torch.uint8), "lip encoder"),
        (torch.zeros(1, 32000), torch.zeros(1, 512, 50, dtype=torch.int64), "uint8 frames or float"),
    ],
)
def test_what_cannot_be_separated_is_refused_in_words(mixture, lips, words):
    with pytest.raises(InputError, match=words):
        separate(mixture, lips, Through())


def check_any_input(case, network):
    """A named error or a finite answer of the promised shape; never anything else."""
    shape, frames, rate, seed, kind, odd = case
    generator = torch.Generator().manual_seed(seed)
    mixture = torch.randn(shape, generator=generator) * 10.0 ** (seed % 9 - 6)
    if odd == "nan" and mixture.numel():
        mixture.view(-1)[seed % mixture.numel()] = float("nan")
    elif odd == "int":
        mixture = mixture.int()
    elif odd == "double":
        mixture = mixture.double()
    elif odd == "half":
        mixture = mixture.half()
    batch = 1 if len(shape) == 1 else shape[0]
    if kind == "frames":
        lips = torch.randint(0, 256, (batch, frames, 96, 96), generator=generator, dtype=torch.uint8)
    elif kind == "float frames":
        lips = torch.rand((batch, frames, 96, 96), generator=generator)
    elif kind == "narrow":
        lips = torch.randn((batch, 64, frames), generator=generator)
    else:
        lips = torch.randn((batch, 512, frames), generator=generator)
    try:
        out = separate(mixture, lips, network, sample_rate=rate, chunk_seconds=0.4, overlap_seconds=0.08)
    except AvkitError as error:
        assert len(str(error)) > 20
        return
    assert out.shape == (batch, 1, shape[-1])
    assert out.isfinite().all()


samples = st.one_of(st.integers(0, 30_000), st.sampled_from([0, 1, 639, 640, 641, 2560, 6400, 6401, 16000]))
cases = st.tuples(
    st.one_of(
        samples.map(lambda n: (n,)),
        st.tuples(st.integers(0, 3), samples),
        st.tuples(st.integers(1, 2), st.integers(0, 2), samples),
    ),
    st.integers(0, 50),
    st.sampled_from([16000, 16000, 16000, 8000, 44100, 999, -1]),
    st.integers(0, 10_000),
    st.sampled_from(["features", "features", "features", "frames", "float frames", "narrow"]),
    st.sampled_from(["plain", "plain", "plain", "nan", "int", "double", "half"]),
).map(lambda case: (case[0], fitting(case), *case[2:]))


def fitting(case) -> int:
    """Lip frames that mostly fit the sound, so that not every case ends at that check."""
    shape, frames, rate = case[:3]
    return round(shape[-1] / rate * 25) if case[3] % 4 and rate >= 8000 else frames


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(case=cases)
def test_any_input_gives_a_named_error_or_a_finite_answer(case, model):
    check_any_input(case, model)


@pytest.mark.soak
@pytest.mark.timeout(0)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases)
def test_ten_thousand_inputs(case, model):
    check_any_input(case, model)


def test_an_hour_needs_little_more_than_its_result():
    network = Through()
    seconds = 3600
    mixture = torch.zeros(1, 16000 * seconds)
    tracemalloc.start()
    out = separate(mixture, torch.zeros(1, 1, 1).expand(1, 512, 25 * seconds), network)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.shape[2] == mixture.shape[1] and network.longest <= 64000
    assert peak < 50e6  # Python's own objects; tensors are bounded by `longest`


def separated(minutes: float) -> dict:
    """What long_recording.py says of a recording of so many minutes, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("long_recording.py")), str(minutes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    "minutes", [0.5, *(pytest.param(m, marks=[pytest.mark.soak, pytest.mark.timeout(0)]) for m in (10, 60))]
)
def test_a_long_recording_needs_the_memory_of_a_short_one(minutes):
    """With the network that ships: little more than the result and one chunk's work, whatever the length; the soak prints it."""
    found = separated(minutes)
    print(found)
    assert found["recording_seconds"] == 60 * minutes
    assert found["peak_mb"] - found["before_mb"] < 1.5 * found["result_mb"] + 150
    assert minutes < 10 or found["processor_seconds"] < found["recording_seconds"]


def test_command_writes_voices_and_a_report(tmp_path, model, monkeypatch):
    from avkit import separation

    monkeypatch.setattr(separation, "_named_model", lambda name: model)
    soundfile.write(tmp_path / "mix.wav", 0.1 * np.random.default_rng(0).standard_normal((48000 * 2, 2)), 48000)
    np.savez(tmp_path / "lips.npz", data=np.zeros((50, 96, 96), np.uint8))
    assert main([str(tmp_path / "mix.wav"), str(tmp_path / "lips.npz"), "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "mix.json").read_text())
    voice, rate = read_audio(report["voices"][0]["voice"])
    assert rate == 48000 and len(voice) == 96000


def test_command_names_files_it_cannot_read(tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"not sound")
    for name in ("noise.wav", "absent.wav"):
        with pytest.raises(DataError, match=name):
            main([str(tmp_path / name), str(tmp_path / "lips.npz"), "--out", str(tmp_path)])
