"""From phonemes to curves to frames."""

import numpy as np
import pytest

from avkit.data import mouth, visemes
from avkit.data.visemes import CURVES, FPS, VISEMES


def _spoken(names: str, each: float = 0.1, start: float = 0.3):
    return [(name, start + i * each, start + (i + 1) * each) for i, name in enumerate(names.split())]


def _curve(phonemes, name, **options):
    return visemes.trajectories(phonemes, 50, **options)[:, CURVES.index(name)]


@pytest.mark.parametrize("stop", ["p", "b", "m"])
@pytest.mark.parametrize("length", [0.03, 0.06, 0.1])
@pytest.mark.parametrize("offset", np.arange(0, 0.04, 0.008))
def test_closures_close_whatever_surrounds_them(stop, length, offset):
    """A closure shorter than a frame still shows in one, between two of the widest vowels."""
    start = 0.8 + offset
    phonemes = [("A:", 0.3, start), (stop, start, start + length), ("A:", start + length, 1.6)]
    opening = _curve(phonemes, "opening")
    times = visemes.frame_times(50)
    assert opening[abs(times - start - length / 2).argmin()] < 0.02
    assert opening.max() > 0.9


@pytest.mark.parametrize("fricative", ["f", "v"])
def test_lip_touches_teeth(fricative):
    phonemes = [("A:", 0.3, 0.8), (fricative, 0.8, 0.88), ("A:", 0.88, 1.5)]
    frame = abs(visemes.frame_times(50) - 0.84).argmin()
    assert _curve(phonemes, "tuck")[frame] > 0.95
    assert _curve(phonemes, "opening")[frame] <= 0.13
    assert _curve(phonemes, "teeth")[frame] > 0.5
    assert _curve(phonemes, "tuck")[:15].max() == 0


def test_neighbours_shape_a_consonant_before_and_after():
    """The s of 'soo' is rounder than that of 'see', as is the s after 'oo': anticipation and carry-over."""
    frame = abs(visemes.frame_times(50) - 0.97).argmin()
    before = {v: _curve([("s", 0.9, 1.0), (v, 1.0, 1.3)], "rounding")[frame] for v in ("u:", "i:")}
    after = {v: _curve([(v, 0.6, 0.93), ("s", 0.93, 1.05)], "rounding")[frame] for v in ("u:", "i:")}
    assert before["u:"] > before["i:"] + 0.1
    assert after["u:"] > after["i:"] + 0.1
    clear, mumbled = (_curve(_spoken("s u: s i: s"), "width", reach=r) for r in (0.02, 0.08))
    assert np.ptp(clear) > np.ptp(mumbled)


def test_lips_come_before_the_sound():
    phonemes = [("_", 0, 1.0), ("A:", 1.0, 1.5), ("_", 1.5, 9)]
    early = _curve(phonemes, "opening", lead=0.08)
    assert np.argmax(early > 0.5) < np.argmax(_curve(phonemes, "opening", lead=0.0) > 0.5)


def test_classes_are_those_spoken_at_the_frames_times():
    found = visemes.frame_visemes(_spoken("p 'aI s w"), 50)
    times = visemes.frame_times(50)
    expected = {0.34: "PP", 0.42: "AA", 0.46: "IY", 0.54: "SS", 0.66: "UW", 0.02: "sil", 1.9: "sil"}
    for time, name in expected.items():
        assert VISEMES[found[abs(times - time).argmin()]] == name
    assert times[0] == 0.5 / FPS


def test_every_phoneme_of_the_voices_is_known(probe_corpus):
    """None falls through to the schwa that unknown names are read as."""
    from avkit.data.labels import read_labels

    known = sorted(visemes._PHONEMES, key=len, reverse=True)
    names = {p.lstrip("',%=|") for row in read_labels(probe_corpus).rows for p, _, _ in row["phonemes"]}
    assert len(names) > 40
    assert not [n for n in names if not any(n.startswith(k) for k in known)]
    assert visemes.shapes_of("§") == ("schwa",) and visemes.shapes_of("'aI") == ("aa", "ii")


def _face(seed: int) -> mouth.Face:
    return mouth.draw_face(np.random.default_rng(seed))


def _still(seed: int, **values: float) -> np.ndarray:
    """(96, 96) frame of a face with one curve setting."""
    curves = np.array([[values.get(name, 0.0) for name in CURVES]])
    return mouth.draw(_face(seed), curves)[0].astype(float)


def test_frames_follow_from_face_and_curves():
    curves = np.random.default_rng(0).random((50, 6))
    frames = mouth.draw(_face(0), curves)
    assert frames.shape == (50, 96, 96) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, mouth.draw(_face(0), curves))
    assert (frames != mouth.draw(_face(1), curves)).mean() > 0.9


@pytest.mark.parametrize("seed", range(12))
def test_an_open_mouth_is_dark_inside_and_a_shut_one_is_not(seed):
    face = _face(seed)
    y, x = round(face.y + 0.3 * face.gap), round(face.x)
    spot = np.s_[y - 2 : y + 3, x - 4 : x + 5]
    shut, wide = _still(seed)[spot].mean(), _still(seed, opening=1.0)[spot].mean()
    assert wide < shut - 15


@pytest.mark.parametrize("seed", range(12))
def test_teeth_show_only_between_open_lips(seed):
    face = _face(seed)
    spot = np.s_[round(face.y) - 1 : round(face.y) + 6, round(face.x) - 6 : round(face.x) + 7]
    bare, toothy = _still(seed, opening=0.5)[spot].max(), _still(seed, opening=0.5, teeth=1.0)[spot].max()
    assert toothy > bare + 15
    difference = abs(_still(seed, teeth=1.0) - _still(seed))
    assert np.sort(difference.ravel())[-40:].mean() < 20  # shut lips hide them


def test_rounding_narrows_and_spreading_widens():
    """Width of the dark line between the lips."""

    def width(**values):
        frames = [_still(seed, opening=0.35, **values) for seed in range(8)]
        return np.mean([(f < np.median(f) - 25)[44:60].any(0).sum() for f in frames])

    assert width(rounding=1.0, width=-0.8) + 5 < width() < width(width=1.0) - 1


def test_the_mouth_stands_where_real_crops_have_it():
    faces = [_face(seed) for seed in range(300)]
    widths = np.array([2 * f.half_width * f.scale for f in faces])
    assert 47 < np.quantile(widths, 0.05) and np.quantile(widths, 0.95) < 62
    assert np.mean([f.x for f in faces]) == pytest.approx(48, abs=0.5)
    assert 0.2 < np.mean([f.beard > 0 for f in faces]) < 0.4
    assert np.ptp([f.skin for f in faces]) > 120
