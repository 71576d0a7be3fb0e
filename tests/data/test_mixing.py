"""Names, levels and audio of mixtures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avkit.data import mixing
from avkit.data.surroundings import reverberate, speech_shaped_noise
from avkit.errors import DataError, InputError

LEVELS = st.floats(0, 5).map(lambda x: round(x, 5))
CHARACTERS = st.sampled_from("abXYZ019-_")
IDS = {
    "lrs2": st.tuples(st.integers(0, 10**19), st.integers(0, 99999)).map(lambda p: f"{p[0]}_{p[1]:05d}"),
    "lrs3": st.tuples(st.text(CHARACTERS, min_size=11, max_size=11), st.integers(0, 99999)).map(
        lambda p: f"{p[0]}_{p[1]:05d}"
    ),
    "vox2": st.tuples(
        st.integers(0, 99999), st.text(CHARACTERS, min_size=11, max_size=11), st.integers(0, 99999)
    ).map(lambda p: f"id{p[0]:05d}_{p[1]}_{p[2]:05d}"),
}


@pytest.mark.parametrize("corpus", IDS)
@given(data=st.data())
def test_names_are_read_back(corpus, data):
    first, second, level = data.draw(IDS[corpus]), data.draw(IDS[corpus]), data.draw(LEVELS)
    mixture = mixing.Mixture(first, level, second, 0.0 - level)
    assert mixing.parse_name(f"/some/where/{mixture.name}.wav", corpus) == mixture


@pytest.mark.parametrize(
    ("name", "utt1", "snr2"),
    [
        ("6330311066473698535_00011_0.53163_6339356267468615354_00010_-0.53163", "6330311066473698535_00011", -0.53163),
        ("t017_00042_1.25_t080_00007_-1.25.wav", "t017_00042", -1.25),
        ("id00017_01dfn2spqyE_00001_2.5_id04276_-_--2Cad-ee_00215_-2.5", "id00017_01dfn2spqyE_00001", -2.5),
        ("0Fi83BHQsMA_00002_3_a_b_c_d_e_f_00010_-3", "0Fi83BHQsMA_00002", -3),
    ],
)
def test_names_of_each_corpus_are_told_apart(name, utt1, snr2):
    mixture = mixing.parse_name(name)
    assert (mixture.utt1, mixture.snr2) == (utt1, snr2)


@pytest.mark.parametrize("name", ["", "t017_00042_1.25_t080_00007", "t017_00042_x_t080_00007_-1.25", "noise.wav"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="not the name of a mixture"):
        mixing.parse_name(name)
    with pytest.raises(InputError, match="Unknown corpus"):
        mixing.parse_name(name, "lrs4")


def _two(rng):
    return (rng.standard_normal((2, 8000)) * [[900], [4000]]).round().astype(np.int16)


@given(level=LEVELS)
def test_levels_peak_and_sum(level):
    mixture, first, second = mixing.mix(*_two(np.random.default_rng(0)), level, -level)
    assert mixture.dtype == first.dtype == np.int16
    np.testing.assert_array_equal(mixture, first + second)
    loudest = max(np.abs(x.astype(int)).max() for x in (mixture, first, second))
    assert loudest == pytest.approx(0.9 * 32767, abs=1.5)
    power = [(x.astype(float) ** 2).mean() for x in (first, second)]
    assert 10 * np.log10(power[0] / power[1]) == pytest.approx(2 * level, abs=0.01)


def test_drawn_levels_are_uniform_up_to_five_decibels():
    rng = np.random.default_rng(0)
    levels = np.array([mixing.draw_level(rng) for _ in range(4000)])
    assert levels.min() >= 0 and levels.max() <= 5
    assert np.histogram(levels, 5, (0, 5))[0] == pytest.approx(800, rel=0.15)


@pytest.mark.parametrize("second", [np.zeros(100), np.ones(99), np.ones((100, 1))])
def test_what_cannot_be_mixed_is_refused(second):
    with pytest.raises(InputError):
        mixing.mix(np.ones(100), second, 1.0, -1.0)


def test_noise_is_in_the_mixture_only_and_at_its_level():
    rng = np.random.default_rng(0)
    mixture, first, second = mixing.mix(
        *_two(rng), 0.0, 0.0, noise=lambda speech: 10 ** (-10 / 20) * speech_shaped_noise(speech, rng)
    )
    speech = first.astype(float) + second
    noise = mixture - speech
    assert 10 * np.log10((speech**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.1)


def test_noise_has_the_spectrum_of_speech():
    rng = np.random.default_rng(0)
    low = np.convolve(rng.standard_normal(32000), np.ones(16) / 16, mode="same")
    spectra = [np.abs(np.fft.rfft(x)) ** 2 for x in (low, speech_shaped_noise(low, rng))]
    shares = [s[: len(s) // 8].sum() / s.sum() for s in spectra]
    assert shares[1] == pytest.approx(shares[0], abs=0.03) and shares[0] > 0.8


def test_reverberation_keeps_the_direct_sound_in_place():
    pytest.importorskip("pyroomacoustics", reason='needs pyroomacoustics: pip install "avkit[room]"')
    click = np.zeros(8000)
    click[1000] = 1.0
    near, far = reverberate([click, click], 0.4, np.random.default_rng(3))
    for heard in (near, far):
        assert heard.shape == click.shape
        assert abs(int(np.abs(heard).argmax()) - 1000) <= 1
        assert (heard[1200:] ** 2).sum() > 1e-3 * (heard**2).sum()


def test_wavs_that_are_not_ours_are_refused(tmp_path):
    import wave

    with wave.open(str(tmp_path / "slow.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0")
    (tmp_path / "text.wav").write_text("no sound")
    for name in ("slow.wav", "text.wav", "absent.wav"):
        with pytest.raises(DataError, match=name):
            mixing.read_wav(tmp_path / name)
    mixing.write_wav(tmp_path / "x.wav", np.arange(-5, 5, dtype=np.int16))
    np.testing.assert_array_equal(mixing.read_wav(tmp_path / "x.wav"), np.arange(-5, 5))
    assert not list(tmp_path.glob("*.part"))
