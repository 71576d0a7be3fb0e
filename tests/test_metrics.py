"""Scores against the packages that define them, against values by hand, and at the edges."""

import importlib.util
import math
import subprocess
import sys

import fast_bss_eval
import numpy as np
import pesq as itu
import pystoi
import pytest
import torch
from torchmetrics.functional.audio import (
    scale_invariant_signal_noise_ratio,
    signal_distortion_ratio,
    signal_noise_ratio,
)

from avkit import metrics
from avkit.errors import InputError, MissingPackageError
from avkit.metrics import UndefinedScoreError

RATIOS = ["si_snr", "snr", "sdr"]
ALL = [*RATIOS, "pesq", "stoi", "estoi"]
FLOORS = {"si_snr": -100.0, "snr": 0.0, "sdr": -100.0, "pesq": 1.0427, "stoi": 0.0, "estoi": 0.0}
FLOOR_NB = 1.0168


def voice(seconds=2.0, pitch=120.0, seed=0, sample_rate=16000):
    """(T,) float64: a buzz of gliding pitch in syllables, with a little noise; speech enough for PESQ."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.15 * np.sin(2 * np.pi * 1.3 * time + seed))) / sample_rate
    buzz = sum(np.sin(k * phase) / k for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time + seed) + 0.5, 0, None)
    return torch.from_numpy(0.1 * buzz * syllables + 1e-3 * generator.standard_normal(len(time)))


@pytest.fixture(scope="module")
def pair():
    """Estimates and references, (2, 2, T) float64: two mixtures of two talkers, each with its own error."""
    reference = torch.stack([torch.stack([voice(seed=i), voice(pitch=200.0, seed=i + 5)]) for i in range(2)])
    error = torch.randn(reference.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    level = torch.tensor([0.003, 0.03, 0.01, 0.1])
    return reference + level.reshape(2, 2, 1) * error + 0.1 * reference.flip(1), reference


# --- agreement with other implementations ---


def test_ratios_equal_torchmetrics(pair):
    estimate, reference = pair
    for score, other in [
        (metrics.si_snr, scale_invariant_signal_noise_ratio),
        (metrics.sdr, signal_distortion_ratio),
    ]:
        torch.testing.assert_close(score(estimate, reference), other(estimate, reference), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        metrics.snr(estimate, reference), signal_noise_ratio(estimate, reference, zero_mean=True)
    )


def test_sdr_equals_fast_bss_eval(pair):
    estimate, reference = pair
    for one, other in zip(estimate, reference, strict=True):
        expected, _ = fast_bss_eval.sdr(other.numpy(), one.numpy(), return_perm=True)
        np.testing.assert_allclose(metrics.sdr(one, other).numpy(), expected, atol=1e-6)


def test_sdr_by_projection():
    """The definition itself: least squares on 512 shifts of the reference, over the lengthened signal."""
    generator = torch.Generator().manual_seed(2)
    reference = torch.randn(1500, generator=generator, dtype=torch.float64)
    estimate = torch.randn(1500, generator=generator, dtype=torch.float64) + reference
    shifts = torch.zeros(1500 + 511, 512, dtype=torch.float64)
    for tap in range(512):
        shifts[tap : tap + 1500, tap] = reference
    padded = torch.nn.functional.pad(estimate, (0, 511))
    projection = shifts @ torch.linalg.lstsq(shifts, padded[:, None]).solution[:, 0]
    expected = 10 * torch.log10(projection.square().sum() / (padded - projection).square().sum())
    torch.testing.assert_close(metrics.sdr(estimate, reference), expected)


def test_sdr_forgives_a_filter_and_snr_does_not(pair):
    reference = pair[1].clone()
    reference[..., -20:] = 0
    late = torch.roll(reference, 20, dims=-1)
    assert (metrics.sdr(late, reference) > 40).all()
    assert (metrics.snr(late, reference) < 5).all()


@pytest.mark.parametrize("mode", ["wb", "nb"])
def test_pesq_equals_the_package(pair, mode):
    estimate, reference = pair
    scores = metrics.pesq(estimate, reference, mode=mode)
    expected = [itu.pesq(16000, r.numpy(), e.numpy(), mode) for e, r in zip(*pair_rows(pair), strict=True)]
    np.testing.assert_allclose(scores.flatten().numpy(), expected, atol=1e-6)
    assert scores.unique().numel() == 4, "four different errors must have four different scores"


def pair_rows(pair):
    return [signal.reshape(-1, signal.shape[-1]) for signal in pair]


@pytest.mark.parametrize(("score", "extended"), [("stoi", False), ("estoi", True)])
def test_stoi_equals_the_package(pair, score, extended):
    scores = getattr(metrics, score)(*pair)
    expected = [
        pystoi.stoi(r.numpy(), e.numpy(), 16000, extended) for e, r in zip(*pair_rows(pair), strict=True)
    ]
    np.testing.assert_allclose(scores.flatten().numpy(), expected, atol=1e-12)
    assert scores.unique().numel() == 4


@pytest.mark.parametrize("samples", [31999, 20345, 15003])
@pytest.mark.parametrize("sample_rate", [8000, 10000, 16000])
def test_stoi_equals_the_package_at_other_lengths_and_rates(samples, sample_rate):
    clean, noisy = voice()[-samples:].clone(), voice()[-samples:] + 0.3 * voice(pitch=200.0, seed=4)[-samples:]
    clean[:2000] = 0  # a pause
    for extended, score in ((False, metrics.stoi), (True, metrics.estoi)):
        expected = pystoi.stoi(clean.numpy(), noisy.numpy(), sample_rate, extended)
        assert score(noisy, clean, sample_rate).item() == pytest.approx(expected, abs=1e-12)


def test_estoi_of_half_a_silence_is_the_same_each_time():
    """Where pystoi draws noise, whatever does not vary counts as uncorrelated."""
    clean = voice()
    estimate = clean.clone()
    estimate[12000:] = 0
    first = metrics.estoi(estimate, clean)
    assert torch.equal(first, metrics.estoi(estimate, clean)) and 0.05 < first < 0.6


@pytest.mark.parametrize("name", ["sdr", "stoi", "estoi"])
def test_neighbours_that_share_a_reference_score_as_alone(pair, name):
    estimate, reference = pair_rows(pair)
    signals = estimate[[0, 1, 2, 3, 0]]
    targets = reference[[0, 0, 3, 3, 0]]
    scores = getattr(metrics, name)(signals, targets)
    alone = torch.stack([getattr(metrics, name)(*one) for one in zip(signals, targets, strict=True)])
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-9)


def test_narrow_band_at_8_khz():
    clean = voice(sample_rate=8000)
    noisy = clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    expected = itu.pesq(8000, clean.numpy(), noisy.numpy(), "nb")
    assert metrics.pesq(noisy, clean, mode="nb", sample_rate=8000).item() == pytest.approx(expected, abs=1e-6)


# --- values by hand ---


def test_ratios_by_hand():
    reference = torch.tensor([1.0, 1.0, -1.0, -1.0])
    at_right_angles = torch.tensor([1.0, -1.0, 1.0, -1.0])
    estimate = 3 * reference + 0.5 * at_right_angles  # error 2·ref + 0.5·other: energy 16 + 1
    assert metrics.si_snr(estimate, reference).item() == pytest.approx(10 * math.log10(36), abs=1e-5)
    assert metrics.snr(estimate, reference).item() == pytest.approx(10 * math.log10(4 / 17), abs=1e-5)


def test_raw_pesq_inverts_the_mapping():
    raw = torch.linspace(-0.5, 4.5, 51, dtype=torch.float64)
    mapped = 0.999 + 4 / (1 + torch.exp(-1.4945 * raw + 4.6607))
    torch.testing.assert_close(metrics.raw_pesq(mapped), raw)
    assert metrics.raw_pesq(torch.tensor(2.94, dtype=torch.float64)).item() == pytest.approx(3.08, abs=0.005)


def test_raw_pesq_of_a_perfect_estimate_is_4_5():
    assert metrics.pesq(voice(), voice(), mode="nb-raw").item() == pytest.approx(4.5, abs=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_improvement_is_a_difference_and_broadcasts_the_mixture(pair, name):
    estimate, reference = pair
    mixture = reference.sum(1, keepdim=True)  # (2, 1, T)
    score, improvement = getattr(metrics, name), getattr(metrics, f"{name}_improvement")
    expected = score(estimate, reference) - score(mixture.expand_as(reference), reference)
    torch.testing.assert_close(improvement(estimate, reference, mixture), expected)
    torch.testing.assert_close(
        improvement(mixture.expand_as(reference), reference, mixture), torch.zeros(2, 2).double()
    )


def test_improvement_passes_its_options_on(pair):
    estimate, reference = pair
    mixture = reference.sum(1, keepdim=True)
    narrow = metrics.pesq_improvement(estimate, reference, mixture, mode="nb")
    before = metrics.pesq(mixture.expand_as(reference), reference, mode="nb")
    torch.testing.assert_close(narrow, metrics.pesq(estimate, reference, mode="nb") - before)


# --- shapes, precision, edges ---


@pytest.mark.parametrize("name", ALL)
def test_shape_precision_and_no_gradient(pair, name):
    estimate, reference = (signal.float() for signal in pair)
    scores = getattr(metrics, name)(estimate.requires_grad_(), reference)
    assert scores.shape == (2, 2) and scores.dtype == torch.float32 and not scores.requires_grad
    single = getattr(metrics, name)(estimate[1, 0], reference[1, 0])
    assert single.shape == ()
    torch.testing.assert_close(single, scores[1, 0], rtol=0, atol=1e-5)
    assert getattr(metrics, name)(estimate[:0], reference[:0]).shape == (0, 2)


@pytest.mark.parametrize("name", ALL)
def test_level_is_free(pair, name):
    estimate, reference = pair
    score = getattr(metrics, name)
    expected = score(estimate, reference)
    for gain in (1e-100, 1e-12, 300.0, 1e100):
        torch.testing.assert_close(score(gain * estimate, gain * reference), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_silent_estimate_gets_the_floor(name):
    reference = torch.stack([voice(seed=1), voice(seed=2)])
    for silence in (torch.zeros_like(reference), torch.full_like(reference, 0.1)):
        scores = getattr(metrics, name)(silence, reference)
        torch.testing.assert_close(scores, torch.full((2,), FLOORS[name]).double(), rtol=0, atol=1e-4)


def test_narrow_band_floors():
    silence = torch.zeros_like(voice())
    assert metrics.pesq(silence, voice(), mode="nb").item() == pytest.approx(FLOOR_NB, abs=1e-4)
    assert metrics.pesq(silence, voice(), mode="nb-raw").item() == pytest.approx(-0.5, abs=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_a_silent_reference_is_named(name):
    reference = torch.stack([voice(), torch.zeros(32000)])
    with pytest.raises(UndefinedScoreError, match=r"index \(1,\) is silent"):
        getattr(metrics, name)(torch.stack([voice(), voice()]), reference)
    with pytest.raises(UndefinedScoreError, match="is silent"):
        getattr(metrics, name)(voice(), torch.full((32000,), -0.7))


@pytest.mark.parametrize("name", RATIOS)
def test_a_perfect_estimate_has_100_db(name):
    assert getattr(metrics, name)(voice(), voice()).item() == 100.0


def test_no_trace_of_the_reference_is_minus_100_db():
    reference = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert metrics.si_snr(torch.tensor([1.0, -1.0, 1.0, -1.0]), reference).item() == -100.0


def test_sdr_of_a_pure_tone_is_finite():
    """A tone's 512 shifts span two dimensions: the filter's equations are singular."""
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000).double()
    hiss = torch.randn(16000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert metrics.sdr(tone + 0.1 * hiss, tone).item() == pytest.approx(17, abs=0.5)
    assert -60 < metrics.sdr(hiss, tone).item() < -10


def test_long_input():
    long = voice(seconds=120)
    noisy = long + 0.01 * torch.randn(long.shape, generator=torch.Generator().manual_seed(0))
    for name in ("si_snr", "snr", "sdr", "stoi"):
        assert getattr(metrics, name)(noisy, long).isfinite()


def test_pesq_stops_before_its_library_crashes():
    """At 20 s of the densest utterances the reference code survives; longer is refused."""
    code = (
        "import torch\nfrom avkit import metrics\n"
        "time = torch.arange(320000)\n"
        "bursts = torch.randn(320000) * (time % 6720 < 3360) + 1e-5 * torch.randn(320000)\n"
        "print(metrics.pesq(bursts + 0.01 * torch.randn(320000), bursts).item())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert 1 < float(run.stdout) < 4.7
    with pytest.raises(InputError, match="20 s of speech"):
        metrics.pesq(torch.randn(320001), torch.randn(320001))


def test_pesq_without_speech_is_undefined():
    time = torch.arange(160000)
    clicks = torch.randn(160000, generator=torch.Generator().manual_seed(0)) * (time % 4320 < 320)
    with pytest.raises(UndefinedScoreError, match="no utterance"):
        metrics.pesq(clicks + 0.01 * torch.randn(160000), clicks)


@pytest.mark.parametrize("samples", [2, 100, 6000])
def test_stoi_needs_enough_speech(samples):
    for name in ("stoi", "estoi"):
        with pytest.raises(UndefinedScoreError, match="30 frames"):
            getattr(metrics, name)(voice()[4000 : 4000 + samples], voice(seed=3)[4000 : 4000 + samples])


def test_stoi_counts_only_speech():
    """Two seconds of which a tenth is loud: long enough as a file, too short as speech."""
    reference = voice() * 1e-6
    reference[4000:7000] *= 1e6
    with pytest.raises(UndefinedScoreError, match="30 frames"):
        metrics.stoi(voice(seed=3), reference)


@pytest.mark.parametrize(
    ("estimate", "reference", "said"),
    [
        (torch.ones(2, 8000), torch.ones(2, 8001), "equal shapes"),
        (torch.ones(2, 8000), torch.ones(8000), "equal shapes"),
        (torch.ones(8000, dtype=torch.int16), torch.ones(8000), "floating-point"),
        (np.ones(8000), torch.ones(8000), "floating-point"),
        (torch.ones(2, 0), torch.ones(2, 0), "no sample"),
        (torch.tensor(1.0), torch.tensor(1.0), "no sample"),
        (torch.full((8000,), torch.nan), torch.ones(8000), "estimate holds NaN"),
        (torch.ones(8000), torch.full((8000,), torch.inf), "reference holds NaN or infinite"),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_bad_input_is_named(name, estimate, reference, said):
    with pytest.raises(InputError, match=said):
        getattr(metrics, name)(estimate, reference)


def test_pesq_options_are_checked():
    with pytest.raises(InputError, match="'ultra' is none"):
        metrics.pesq(voice(), voice(), mode="ultra")
    with pytest.raises(InputError, match="8000 Hz"):
        metrics.pesq(voice(), voice(), sample_rate=8000)
    with pytest.raises(InputError, match="44100 Hz"):
        metrics.pesq(voice(), voice(), mode="nb", sample_rate=44100)
    with pytest.raises(InputError, match="0.25"):
        metrics.pesq(voice()[:3999], voice()[:3999])


def test_a_mixture_of_another_shape_is_named(pair):
    estimate, reference = pair
    with pytest.raises(InputError, match="broadcasts"):
        metrics.si_snr_improvement(estimate, reference, torch.randn(3, 1, 32000))


@pytest.mark.parametrize(("name", "package"), [("pesq", "pesq"), ("stoi", "pystoi"), ("estoi", "pystoi")])
def test_a_missing_package_is_named(monkeypatch, name, package):
    find = importlib.util.find_spec
    monkeypatch.setattr("avkit._extras.find_spec", lambda wanted: None if wanted == package else find(wanted))
    with pytest.raises(MissingPackageError, match=f"package {package}.*pip install"):
        getattr(metrics, name)(voice(), voice())
