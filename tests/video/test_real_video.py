"""Real faces whose truth is known: clips of the GRID corpus side by side, and a debate. They lie beside the repository, or not at all."""

from pathlib import Path

import numpy as np
import pytest
from video_scenes import crop_correlation

from avkit.video import activity
from avkit.video.crops import Aligner
from avkit.video.people import find_faces, read_tracks
from avkit.video.reading import frames, picture, probe, write_sound
from avkit.video.tracking import track_faces
from avkit.video.tracks import find_people
from avkit.video.writing import Mp4Writer

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
pytestmark = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"the real clips are not at {REAL}; they are not part of the project"
)


def tracked(path: Path, folder: Path):
    """People of a video, and their crops by person."""
    video = probe(path)
    faces = find_faces(video, folder, 1.0, lambda *_: lambda _: None)
    return faces, [np.concatenate([faces.crops(p, s) for s in p.stretches]) for p in faces.people]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two GRID clips side by side, the sound summed: path, the two clips, their sounds."""
    folder = tmp_path_factory.mktemp("grid")
    clips = sorted((REAL / "grid").glob("*.mpg"))[:6:3]
    videos = [probe(clip) for clip in clips]
    sounds = []
    for n, video in enumerate(videos):
        write_sound(video, folder / f"{n}.bin")
        sounds.append(np.fromfile(folder / f"{n}.bin", np.float32))
    length = min(len(sound) for sound in sounds)
    with Mp4Writer(folder / "pair.mp4", 2 * videos[0].width, videos[0].height, quality=18) as file:
        for (k, left), (_, right) in zip(frames(videos[0]), frames(videos[1]), strict=False):
            halves = [
                picture(frame, video, 640, "rgb24")
                for frame, video in zip((left, right), videos, strict=True)
            ]
            file.picture(np.concatenate(halves, 1), k / 25)
        file.sound(0.5 * (sounds[0][:length] + sounds[1][:length]))
    return folder / "pair.mp4", clips, sounds


@pytest.fixture(scope="module")
def found(pair, tmp_path_factory):
    return tracked(pair[0], tmp_path_factory.mktemp("faces"))


def test_two_real_talkers_side_by_side_are_found_in_their_halves(found):
    faces, _ = found
    assert len(faces.people) == 2
    for person, (low, high) in zip(faces.people, ((0, 360), (360, 720)), strict=True):
        (stretch,) = person.stretches
        assert (stretch.start, len(stretch.state)) == (0, faces.frames)
        assert person.confidence > 0.9
        assert (stretch.landmarks[..., 0] > low).all()
        assert (stretch.landmarks[..., 0] < high).all()


def test_their_crops_are_those_of_the_single_clips(found, pair, tmp_path):
    _, crops = found
    for n, clip in enumerate(pair[1]):
        folder = tmp_path / str(n)
        folder.mkdir()
        track_faces(probe(clip), folder)
        (person,), _ = find_people(read_tracks(folder)[0])
        aligner, video = Aligner(person.stretches[0].landmarks), probe(clip)
        alone = np.stack(
            [aligner.crop(k, picture(frame, video, 1920)) for k, frame in frames(video) if k < len(crops[n])]
        )
        mine = crop_correlation(crops[n][: len(alone)], alone)
        assert mine > 0.8
        print(f"{clip.name}: correlation of what moves {mine:.2f}")


def test_real_lips_go_with_their_own_voice(found, pair):
    _, crops = found
    motion = [activity.lip_motion(c) for c in crops]
    own = [activity.lips_with_voice(motion[n], pair[2][n]) for n in (0, 1)]
    other = [activity.lips_with_voice(motion[n], pair[2][1 - n]) for n in (0, 1)]
    print("lips with their own voice", np.round(own, 2), "with the other's", np.round(other, 2))
    assert min(own) > 0.4
    assert np.mean(own) > np.mean(other)
    assert not any(activity.still_lips(m, pair[2][n]).any() for n, m in enumerate(motion))


def test_real_lips_before_speech_are_still(found, pair):
    """GRID's talkers wait before they speak: those frames, forwards and backwards, are a real silent face."""
    _, crops = found
    for n, c in enumerate(crops):
        level = activity.envelope(pair[2][n], 25)
        begins = int(np.flatnonzero(level > level.max() - 25)[0])
        waiting = c[: max(4, begins - 6)]
        rest = np.concatenate([waiting, waiting[::-1]] * (75 // (2 * len(waiting)) + 1))
        print(
            f"{pair[1][n].name}: {len(waiting)} frames before speech, motion {np.percentile(activity.lip_motion(rest), 90):.2f}"
        )
        assert activity.still_lips(activity.lip_motion(rest), np.ones(len(rest) * 640)).all()


@pytest.mark.soak
def test_a_debate_gives_two_steady_tracks(tmp_path):
    faces, _ = tracked(REAL / "two_speakers.avi", tmp_path)
    assert len(faces.people) == 2
    assert faces.cuts == []
    for person, (low, high) in zip(faces.people, ((0, 640), (640, 1280)), strict=True):
        (stretch,) = person.stretches
        assert (stretch.start, len(stretch.state)) == (0, faces.frames)
        assert person.confidence > 0.95
        middle = stretch.landmarks.mean(1)
        assert (middle[:, 0] > low).all()
        assert (middle[:, 0] < high).all()
        assert np.abs(np.diff(middle, axis=0)).max() < 30  # no jumps
