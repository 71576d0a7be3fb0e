"""Still and speaking lips told apart, and sound that is late noticed, on the synthetic talkers' own crops and curves."""

import json

import numpy as np
import pytest
import soundfile
from video_scenes import TALKERS, mixtures, mouths, still

from avkit.video import activity

LABELS = {row["id"]: row for row in map(json.loads, (TALKERS / "labels.jsonl").read_text().splitlines())}


def test_lips_that_speak_move_and_lips_that_do_not_are_still():
    speaking, resting = [], []
    for name in sorted(LABELS)[::4]:
        crops = mouths(name)
        speaking.append(activity.lip_motion(crops))
        rng = np.random.default_rng(len(speaking))  # a face tracker leaves the crop off by a pixel or two
        resting.append(
            activity.lip_motion(
                np.stack([np.roll(c, tuple(rng.integers(-2, 3, 2)), (0, 1)) for c in still(crops, 50)])
            )
        )
    voice = np.random.default_rng(0).normal(size=32000)
    assert not any(activity.still_lips(motion, voice).any() for motion in speaking)
    assert all(activity.still_lips(motion, voice).all() for motion in resting)


def test_a_rest_within_speech_is_found_where_it_is():
    crops = np.concatenate(
        [mouths("t048_00001"), still(mouths("t048_00001")[-1:], 100), mouths("t048_00001")]
    )
    marked = activity.still_lips(activity.lip_motion(crops), np.ones(128000))
    first, last = np.flatnonzero(marked)[[0, -1]]
    assert 50 <= first <= 80
    assert 120 <= last < 150


def test_motion_does_not_depend_on_how_crops_are_read():
    crops = np.concatenate([mouths(name) for name in sorted(LABELS)[:6]])  # 300 frames: more than one piece
    whole = activity.lip_motion(crops)
    assert np.allclose(whole[247:260], activity.lip_motion(crops[200:280])[47:60])


def test_doubtful_lips_are_still_where_no_voice_goes_with_them():
    motion = np.full(100, 0.22) + 0.02 * np.sin(np.arange(100) / 5)
    together = np.repeat(np.exp(100 * (motion - 0.22)), 640) * np.random.default_rng(0).normal(size=64000)
    assert activity.lips_with_voice(motion, together) > 0.8
    assert not activity.still_lips(motion, together).any()
    assert activity.still_lips(motion, np.zeros(64000)).all()


def lips_of(utterance: str) -> np.ndarray:
    return np.array(LABELS[utterance]["curves"]["opening"]) / 4000


def talk(count: int) -> tuple[list, np.ndarray]:
    """(first frame, opening) of both talkers of some mixtures, and the sound."""
    rows = mixtures(count)
    lips = [(50 * n, lips_of(row[i])) for n, row in enumerate(rows) for i in (1, 2)]
    sound = [soundfile.read(TALKERS / f"audio/wav16k/min/tt/mix/{row[0]}.wav")[0] for row in rows]
    return lips, np.concatenate(sound)


@pytest.mark.parametrize("late", [-0.2, 0.0, 0.2])
def test_late_and_early_sound_is_measured(late):
    lips, sound = talk(10)  # twenty seconds
    shift = round(abs(late) * 16000)
    sound = np.concatenate([np.zeros(shift), sound]) if late > 0 else sound[shift:]
    found = activity.measure_offset(lips, sound)
    assert found.clear
    assert found.seconds == pytest.approx(late, abs=0.06)


def test_nothing_is_said_of_sound_that_has_nothing_to_do_with_the_lips():
    lips, _ = talk(5)
    noise = np.random.default_rng(0).normal(size=160000)
    assert not activity.measure_offset(lips, noise).clear
    assert activity.measure_offset(lips[:1], noise) == activity.Offset(None, 0.0, False)


def test_silence_is_no_reason_to_fail():
    assert activity.lips_with_voice(np.ones(50), np.zeros(32000)) == 0.0
    assert np.isfinite(activity.envelope(np.zeros(32000), 25)).all()
    assert len(activity.lip_motion(mouths("t048_00001")[:2])) == 2


def test_levels_are_those_of_forty_milliseconds_wherever_they_lie():
    samples = np.random.default_rng(0).normal(size=61 * 16000) * np.linspace(
        0.1, 1, 61 * 16000
    )  # more than one piece
    level = activity.envelope(samples, 25)
    assert len(level) == 61 * 25
    for k in (0, 700, 1499, 1500, 1524):
        assert level[k] == pytest.approx(
            10 * np.log10(np.mean(samples[640 * k : 640 * (k + 1)] ** 2)), abs=1e-6
        )
