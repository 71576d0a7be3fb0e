"""Linear probes: what they find on unseen talkers, and that they never see the talkers they are asked about."""

from __future__ import annotations

import pytest
import torch

from avkit import teach
from avkit.errors import DataError, InputError
from avkit.teach import lesson03, lesson03_lab, probes


@pytest.fixture(scope="module")
def clips():
    return probes.load_clips(teach.find_data("talkers"))


def test_clips_hold_what_their_mixtures_play(clips):
    assert len(clips) == len(set(clips.ids)) == 30
    assert clips.frames.shape == (30, 50, 96, 96) and clips.frames.dtype == torch.uint8
    assert clips.voices.shape == (30, 32000) and clips.curves.shape == (30, 50, 6)
    sample = teach.load_sample(teach.find_data("talkers"), 12)
    at = clips.ids.index("t058_00000")  # the second talker of mixture 12
    assert torch.equal(clips.frames[at], sample.lips[1])
    assert lesson03_lab.correlation(clips.voices[at], sample.voices[1]) > 0.999


def test_a_split_without_mixtures_is_refused():
    with pytest.raises(DataError, match="no mixture in split 'xx'"):
        probes.load_clips(teach.find_data("talkers"), "xx")


def test_ridge_finds_a_linear_map_and_shrinks_with_its_weight():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=draw, dtype=torch.float64) * 3 + 1
    y = x @ torch.randn(5, 2, generator=draw, dtype=torch.float64) + 4
    torch.testing.assert_close(probes.ridge(x, y, 0.0)(x), y)
    loose, tight = (probes.ridge(x, y, weight)(x).std() for weight in (0.1, 10.0))
    assert tight < loose < y.std()


def test_held_out_never_fits_on_the_talker_it_answers_for():
    talkers = ["a", "b", "a", "c", "b", "c"]
    x = torch.arange(6.0)[:, None, None].expand(6, 4, 1)
    seen = []

    def fit(features, targets, weight):
        known = set(features.flatten().tolist())
        seen.append(known)
        return lambda new: torch.tensor([float(v in known) for v in new.flatten()]).view(*new.shape[:-1], 1)

    answers = probes.held_out(fit, x, torch.zeros(6, 1), talkers, 1.0)
    assert answers.shape == (6, 4, 1) and not answers.any()
    assert sorted(map(sorted, seen)) == [[0, 1, 2, 4], [0, 2, 3, 5], [1, 3, 4, 5]]
    with pytest.raises(InputError, match="at least as many talkers"):
        probes.held_out(fit, x, torch.zeros(6, 1), ["a"] * 6, 1.0)


def test_explained():
    truth = torch.tensor([1.0, 2.0, 3.0])
    assert probes.explained(truth, truth) == 1
    assert probes.explained(torch.full((3,), 2.0), truth) == 0
    assert probes.explained(truth.flip(0), truth) < 0


def test_moments_are_where_the_labels_have_the_sound(clips):
    for clip, frame in probes.moments(clips, "m").tolist():
        time = (frame + 0.5) / 25
        near = [p for p, start, end in clips.rows[clip]["phonemes"] if start - 0.02 <= time <= end + 0.02]
        assert "m" in map(probes.plain, near)
    assert probes.moments(clips, "no such sound").shape == (0, 2)


def test_tell_apart_needs_features_that_differ(clips):
    """Given the corpus' own curves p and f are told apart, p and m are not: they are drawn from one target."""
    assert probes.tell_apart(clips.curves, clips, "p", "f") > 0.9
    assert probes.tell_apart(clips.curves, clips, "p", "m") < 0.75


def test_homophenes_sound_different(clips):
    groups = lesson03_lab.homophenes(clips.rows)
    assert ("by", "my") in groups and not any("why" in group for group in groups)  # why and y sound alike


def test_late_and_lag_curve_agree_on_the_sign():
    voice = torch.randn(60, generator=torch.Generator().manual_seed(0))
    for shift in (-4, 0, 3):
        curve = lesson03.lag_curve(lesson03_lab.late(voice, shift), voice, 6)
        assert int(curve.argmax()) - 6 == shift and curve.max() > 0.99


def test_a_tilted_picture_is_aligned_again(clips):
    """The least-squares transform of five landmarks brings the crop back, nearly pixel by pixel."""
    from avkit.video import crops

    mouth = clips.frames[0, 20]
    picture, points, centre = lesson03_lab.tilted_picture(mouth)
    a, _ = crops.similarity(torch.stack([points.real, points.imag], -1).numpy())
    back = lesson03_lab.cut(picture, complex(a), centre)
    inner = (slice(10, 86), slice(10, 86))
    careless = lesson03_lab.cut(picture, 1, centre)
    errors = [float((crop[inner].double() - mouth[inner].double()).abs().mean()) for crop in (back, careless)]
    assert errors[0] < 3 and errors[1] > 2 * errors[0]
