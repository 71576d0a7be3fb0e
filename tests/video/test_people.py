"""Tracks from records: gaps, cuts, and who is one person."""

import json

import numpy as np
import pytest

from avkit.video.tracking import FOLLOWED, IDENTITY, RECORD, SEEN
from avkit.video.tracks import boxes_of, find_people, read_tracks

ANNA, BERT = np.zeros(128), np.r_[1.0, np.zeros(127)]


class Records:
    """What tracking leaves in a folder, piece by piece."""

    def __init__(self):
        self.rows, self.identities = [], []

    def add(self, track, first, last, x, identity=None, unseen=(), score=1.0):
        for k in range(first, last):
            landmarks = np.tile([x + 50 + 0.5 * k, 150.0], (68, 1)) + np.linspace(-40, 40, 68)[:, None]
            state = FOLLOWED if k in unseen else SEEN
            seen = state == SEEN
            box = [x + 0.5 * k, 100, x + 100 + 0.5 * k, 200]
            self.rows.append((k, track, state, score * seen, box, landmarks * seen))
        if identity is not None:
            self.identities.append((first, track, identity))
        return self

    def tracks(self, folder, cuts=()):
        np.array(sorted(self.rows, key=lambda row: row[:2]), RECORD).tofile(folder / "records.bin")
        np.array(self.identities, IDENTITY).tofile(folder / "identities.bin")
        (folder / "tracking.json").write_text(json.dumps({"cuts": list(cuts)}))
        return read_tracks(folder)[0]


def test_frames_without_a_face_are_filled_from_their_neighbours(tmp_path):
    (track,) = Records().add(0, 10, 60, 100, unseen=range(30, 40)).tracks(tmp_path)
    assert (track.start, track.stop) == (6, 60)  # four frames back: it was searched for every fifth
    assert (track.state[24:34] == FOLLOWED).all()
    middle = track.landmarks[4:].mean(1)[:, 0]  # moves by half a pixel a frame, unseen or not
    assert np.allclose(np.diff(middle), 0.5, atol=1e-3)


def test_what_was_followed_at_either_end_without_a_face_is_dropped(tmp_path):
    (track,) = Records().add(0, 0, 60, 100, unseen=range(45, 60)).tracks(tmp_path)
    assert track.stop == 45


def test_a_short_occlusion_is_bridged_and_a_cut_is_not(tmp_path):
    records = Records().add(0, 0, 30, 100, ANNA).add(1, 45, 90, 100, ANNA)
    (track,) = records.tracks(tmp_path)
    assert (track.start, track.stop) == (0, 90)
    assert (track.state[30:45] == FOLLOWED).all()
    assert len(records.tracks(tmp_path, cuts=[40])) == 2


def test_another_face_at_the_same_place_is_another_track(tmp_path):
    assert len(Records().add(0, 0, 30, 100, ANNA).add(1, 40, 90, 100, BERT).tracks(tmp_path)) == 2


def test_specks_are_left_out(tmp_path):
    records = Records().add(0, 0, 60, 100).add(1, 10, 15, 400).add(2, 0, 60, 700, score=-0.2)
    assert len(records.tracks(tmp_path)) == 1


def test_one_person_in_two_shots_is_one_person_and_two_at_once_are_two(tmp_path):
    records = Records().add(0, 0, 50, 400, ANNA).add(1, 0, 50, 100, BERT)
    records.add(2, 50, 100, 400, BERT + 0.01).add(3, 50, 100, 100, ANNA + 0.01)
    people, _ = find_people(records.tracks(tmp_path, cuts=[50]))
    assert [p.name for p in people] == ["person-1", "person-2"]
    assert [len(p.stretches) for p in people] == [1, 1]
    bert, anna = people  # from left to right
    assert bert.stretches[0].breaks == anna.stretches[0].breaks == (50,)
    assert bert.stretches[0].landmarks[0, :, 0].mean() < 200 < bert.stretches[0].landmarks[60, :, 0].mean()


def test_two_alike_who_are_in_the_picture_at_once_are_never_joined(tmp_path):
    people, _ = find_people(Records().add(0, 0, 50, 400, ANNA).add(1, 0, 50, 100, ANNA).tracks(tmp_path))
    assert len(people) == 2


def test_who_goes_and_comes_back_has_two_stretches(tmp_path):
    people, _ = find_people(Records().add(0, 0, 50, 100, ANNA).add(1, 120, 170, 500, ANNA).tracks(tmp_path))
    assert [(s.start, s.stop) for s in people[0].stretches] == [(0, 50), (116, 170)]
    assert people[0].confidence == pytest.approx(100 / 104)


def test_faces_seen_too_shortly_are_named_and_not_made_people(tmp_path):
    people, left_out = find_people(
        Records().add(0, 0, 50, 100).add(1, 0, 20, 500).tracks(tmp_path), shortest=1.0
    )
    assert len(people) == 1
    assert [len(track.state) for track in left_out] == [20]


def test_boxes_enclose_the_landmarks():
    landmarks = np.random.default_rng(0).uniform(0, 100, (3, 68, 2))
    boxes = boxes_of(landmarks)
    assert (boxes[:, None, :2] <= landmarks).all()
    assert (boxes[:, None, 2:] >= landmarks).all()
