"""The measured voices: pitch and formants come out where they were put, and the voices lie apart."""

import numpy as np
import pytest

from avkit.data import pairing
from avkit.teach import voices as teach_voices


@pytest.fixture(scope="module")
def measured():
    return teach_voices.measure_voices()


def test_pitch_is_what_the_groups_are_made_from(measured):
    """Voices of like pitch must sound alike: nominal and measured pitch agree within a semitone for nine in ten."""
    apart = [12 * np.log2(m.pitch) - pairing.pitch_of(m.talker) for m in measured]
    assert np.mean(np.abs(apart - np.median(apart)) < 1.0) > 0.9


def test_more_than_a_hundred_voices_lie_apart(measured):
    """More than 100 of the 200 have no other within half a semitone of pitch and 3 per cent of every formant."""
    points = np.array([[np.log2(m.pitch) * 12 / 0.5, *(np.log(m.formants) / 0.03)] for m in measured])
    distance = np.abs(points[:, None] - points).max(-1)
    np.fill_diagonal(distance, np.inf)
    assert (distance.min(1) > 1).sum() > 100
    assert max(m.pitch for m in measured) > 3 * min(m.pitch for m in measured)


@pytest.mark.parametrize("pitch", [90.0, 150.0, 290.0])
def test_pitch_and_formants_of_a_known_sound(pitch):
    """Pulses through resonances at 500, 1500 and 2500 Hz."""
    sound = np.zeros(1024 + 4096)
    sound[np.round(np.arange(0, len(sound), 16000 / pitch)).astype(int)[:-1]] = 1.0
    for centre, width in ((500, 60), (1500, 90), (2500, 120)):
        radius = np.exp(-np.pi * width / 16000)
        a1, a2 = 2 * radius * np.cos(2 * np.pi * centre / 16000), -(radius**2)
        for n in range(2, len(sound)):
            sound[n] += a1 * sound[n - 1] + a2 * sound[n - 2]
    frame = sound[-1024:]
    assert teach_voices.pitch_of_frame(frame) == pytest.approx(pitch, rel=0.03)
    np.testing.assert_allclose(
        teach_voices.formants_of_frame(frame), [500, 1500, 2500], atol=pitch / 2
    )  # a harmonic away at most


def test_noise_has_no_pitch_and_the_figure_shows_every_voice(measured):
    assert np.isnan(teach_voices.pitch_of_frame(np.random.default_rng(0).standard_normal(1024)))
    axes = teach_voices.figure(measured).axes[0]
    assert sum(len(c.get_offsets()) for c in axes.collections) == 200
