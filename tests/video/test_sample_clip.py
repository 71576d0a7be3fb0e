"""The video that ships: what its description says, and the same again from its command."""

import json

import numpy as np
import pytest

from avkit.errors import DataError
from avkit.video import composite, sample_clip
from avkit.video.reading import frames, picture, probe, write_sound


@pytest.fixture(scope="module")
def known(repository):
    return sample_clip.truth(repository / "data_samples/talkers")


def test_it_is_small_and_what_its_description_says(repository, known, tmp_path):
    folder = repository / "data_samples/video"
    video, said = probe(folder / "two_faces.mp4"), json.loads((folder / "two_faces.json").read_text())
    assert (folder / "two_faces.mp4").stat().st_size < 300_000
    assert (video.width, video.height, video.frames) == (480, 270, said["frames"])
    assert "NASA, public domain" in said["synthetic"]
    count = write_sound(video, tmp_path / "sound.bin")
    sound = np.fromfile(tmp_path / "sound.bin", np.float32)
    assert abs(count - len(known.mixture)) < 2000
    assert np.corrcoef(sound[: len(known.mixture)], known.mixture[:count])[0, 1] > 0.97


def test_its_command_makes_it_again(repository, known):
    """Not byte for byte, because encoders differ: picture by picture."""
    video = probe(repository / "data_samples/video/two_faces.mp4")
    wanted = {0, 49, 50, 99}
    drawn = {k: rgb for k, rgb in enumerate(composite.render(known.scene)) if k in wanted}
    stored = {k: picture(frame, video, 480, "rgb24") for k, frame in frames(video) if k in wanted}
    for k in wanted:
        assert np.abs(drawn[k].astype(float) - stored[k]).mean() < 4


def test_the_truth_adds_up(known):
    assert np.array_equal(known.mixture, known.voices.sum(0))
    assert not known.voices[1, 32000:].any()
    assert known.mouths.shape == (2, 100, 96, 96)
    assert np.abs(np.diff(known.mouths[1, 50:].astype(float), axis=0)).mean() < 3  # at rest


def test_another_corpus_is_refused(tmp_path):
    for split in ("tr", "cv", "tt"):
        (tmp_path / split).mkdir()
        for kind in ("mix", "s1", "s2"):
            (tmp_path / split / f"{kind}.json").write_text("[]")
    with pytest.raises(DataError, match="lacks the test mixture"):
        sample_clip.truth(tmp_path)
