"""Notebook 13's workbench: loading, what is known of the clip that ships, the upload, and what it measures."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from avkit.errors import InputError
from avkit.evaluation import read_rows
from avkit.summary import mixture_means
from avkit.teach import lesson13, lesson13_figures, lesson13_lab
from avkit.teach.samples import find_data
from avkit.video import activity, sample_clip
from avkit.video.writing import Mp4Writer


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    """A second of a wall, with half a second of sound."""
    path = tmp_path_factory.mktemp("wall") / "wall.mp4"
    with Mp4Writer(path, 160, 120) as file:
        for k in range(25):
            file.picture(np.full((120, 160, 3), 90 + k, np.uint8), k / 25)
        file.sound(np.sin(np.arange(8000) / 9))
    return str(path)


def test_sound_is_as_long_as_the_pictures(wall):
    shown = lesson13_lab.load(wall, 0.8)
    assert shown.frames.shape == (20, 120, 160)
    assert shown.sound.shape == (20 * 640,)
    assert shown.sound[2000:6000].abs().max() > 0.5
    assert not shown.sound[9500:].any()
    assert 'aria-label="wall"' in lesson13_lab.play(shown, "wall").html


def test_only_the_clip_that_ships_has_a_truth(wall, tmp_path):
    data = str(find_data("talkers"))
    known = lesson13_lab.known(lesson13_lab.bundled(), data)
    assert known.mouths.shape == (2, 100, 96, 96)
    assert lesson13_lab.known(wall, data) is None
    other = tmp_path / "two_faces.mp4"
    other.write_bytes(b"of the same name")
    assert lesson13_lab.known(str(other), data) is None


def test_gains_are_zero_for_the_mixture_and_large_for_the_voice():
    known = lesson13_lab.known(lesson13_lab.bundled(), str(find_data("talkers")))
    mixture, first = torch.from_numpy(known.mixture), torch.from_numpy(known.voices[0])
    gains = lesson13_lab.gains(torch.stack([mixture, first]), known, 2.0)
    assert gains[0].abs().max() < 1e-3
    assert gains[1, 0] > 40
    assert gains[1, 1] < 0


def test_a_clip_without_a_face_is_refused_with_what_to_do(wall):
    with pytest.raises(InputError, match="choose another clip"):
        lesson13_lab.follow(wall, 1.0)


def test_the_upload_takes_a_video_and_says_so():
    made = lesson13_lab.Upload()
    assert made.path == ""
    file = {"name": "../my video.mp4", "type": "video/mp4", "size": 3, "content": memoryview(b"abc"), "last_modified": datetime.now(UTC)}
    made._take(None)
    assert made.path == ""
    made.button.set_trait("value", (file,))
    assert made.path == str(lesson13_lab.workplace() / "my video.mp4")
    assert (lesson13_lab.workplace() / "my video.mp4").read_bytes() == b"abc"
    assert "my video.mp4" in made.words.value


def test_activity_is_what_the_package_decides_by():
    motion = np.random.default_rng(0).uniform(0, 0.4, 120)
    motion[60:] *= 0.2
    mine, voice = lesson13_lab.activity_of(motion) < 0.18, np.repeat(np.exp(10 * motion), 640)  # goes with the lips
    assert 0 < mine.sum() < 60
    assert np.array_equal(mine, activity.still_lips(motion, voice))


def test_the_tracked_clip_has_two_people_with_the_right_mouths():
    known = lesson13_lab.known(lesson13_lab.bundled(), str(find_data("talkers")))
    for n, crops in enumerate(lesson13_lab.bundled_crops()):
        moves = [(c[:50, 24:76, 18:78] - c[:50, 24:76, 18:78].astype(float).mean(0)).ravel() for c in (crops, *known.mouths)]
        own, other = (np.corrcoef(moves[0], moves[1 + (n + turn) % 2])[0, 1] for turn in (0, 1))
        assert own > other + 0.3


def test_what_the_notebook_says_of_window_and_threshold():
    """Seconds at rest, and when the last rest begins, by window and threshold."""

    def rest(person, around, threshold):
        motion = activity.lip_motion(lesson13_lab.bundled_crops()[person])
        still = lesson13_lab.activity_of(motion, around) < threshold
        starts = np.flatnonzero(np.diff(still.astype(int), prepend=0) == 1) / 25
        return still.sum() / 25, starts

    assert rest(0, 3, 0.18)[0] == 0 and rest(0, 25, 0.26)[0] == 0
    pieces, starts = rest(0, 3, 0.26)
    assert len(starts) == 4 and pieces == pytest.approx(0.7, abs=0.05)
    assert rest(1, 3, 0.18)[1][-1] == pytest.approx(2.24) and rest(1, 25, 0.18)[1][-1] == pytest.approx(2.92)
    assert rest(0, 25, 0.4)[1].tolist() == [pytest.approx(2.52)]
    assert max(rest(person, around, 0.05)[0] for person in (0, 1) for around in (3, 8, 25)) == 0


def test_the_record_is_of_real_clips_and_its_figures_are_drawn():
    record = lesson13_lab.on_real_clips()
    assert record["data"]["synthetic"] is None
    assert max(record["systems"][name]["si_snri"]["mean"] for name in ("rtfs-net-tiny", "iianet-tiny")) < 0
    assert record["systems"]["iianet-tiny"]["si_snri"]["high"] < 0
    drawn = lesson13_figures.draw_carried({"a": (-2.0, -3.0, -1.0), "b": (4.0, 3.0, 5.0)}, "title")
    assert "a -2.0 dB, b 4.0 dB" in drawn.html


def test_the_clip_is_made_of_the_mixture_that_the_network_separates_best():
    rows = read_rows(find_data("results") / "rtfs-net-tiny-on-talkers")
    means = mixture_means(rows, "rtfs-net-tiny", "si_snri")
    assert len(means) == 30 and max(means, key=means.get) == sample_clip.MIXTURE


def test_uneven_pictures_never_begin_in_a_frames_middle():
    """Where they did, rounding would decide which picture is in view."""
    middles = (np.arange(25) + 0.5) / 25
    assert np.abs(np.array(lesson13_lab.UNEVEN)[:, None] - middles[None]).min() > 0.004
    taken = lesson13_lab.numbers_shown(lesson13_lab.uneven_clip())
    times = torch.tensor(lesson13_lab.UNEVEN, dtype=torch.float64)
    assert lesson13.picture_at(times, len(taken)).tolist() == taken
