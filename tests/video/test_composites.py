"""What can go wrong in a video, each in a composite whose truth is known. Too long for every run, but for the silent face."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from video_scenes import (
    Talk,
    changed,
    crop_correlation,
    improvement,
    person_of,
    placed,
    scene,
    still,
)

import avkit
from avkit.video.composite import Actor, render, write_composite
from avkit.video.writing import Mp4Writer

MODEL = "rtfs-net-tiny"


def run(folder, people, sound, offset=0.0, **settings) -> tuple[dict, list[np.ndarray]]:
    """The report of a composite, and each actor's voice (silence where the actor was not found)."""
    path = write_composite(folder / "x.mp4", people, sound, **settings)
    report = avkit.separate_video(path, folder / "out", model=MODEL, offset=offset, keep=True)
    voices = [
        soundfile.read(folder / "out" / person_of(report, actor)["voice"])[0] for actor in people.actors
    ]
    return report, voices


def crops_of(folder, entry) -> np.ndarray:
    number = entry["name"].removeprefix("person-")
    return np.fromfile(folder / "out" / ".work" / f"mouths-{number}.bin", np.uint8).reshape(-1, 96, 96)


def level(samples: np.ndarray) -> float:
    """Power in dB."""
    return 10 * np.log10(np.mean(np.square(samples)) + 1e-12)


def describe(record, report, people, voices, talk, folder, delay=0.0):
    """Print a composite's figures (`pytest -m soak -rP` shows them), beside what the network makes of the true crops.

    delay: seconds by which the voices come late, because the measured offset was not quite the true one.
    """
    late = round(delay * 16000)
    for i, actor in enumerate(people.actors):
        entry = person_of(report, actor)
        place = placed(entry, actor)
        row = f"{record}: actor {i}, {entry['name']}: overlap mean {place.mean():.2f} least {place.min():.2f}"
        crops = crops_of(folder, entry)
        if len(crops) == len(actor.mouths):
            row += f", crops {crop_correlation(crops, actor.mouths):.2f}"
        if i < 2 and record != "silent":
            voice = voices[i][late:] if late >= 0 else np.concatenate([np.zeros(-late), voices[i]])
            direct = avkit.separate(
                torch.from_numpy(talk.mix).float(), torch.from_numpy(actor.mouths), MODEL
            )[0, 0].numpy()
            here, best = (improvement(v, talk.sources[i], talk.mix) for v in (voice, direct))
            row += f", SI-SNRi {here:.1f} dB (true crops {best:.1f})"
        print(row + f", silent {entry['silent']}, lips with voice {entry['lips_with_voice']:.2f}")


def test_a_silent_face_gives_silence_and_not_the_others_voice(tmp_path):
    talk = Talk(1, 5)
    people = scene([talk.crops[0], still(talk.crops[1], talk.frames)], seed=3)
    report, (speaking, silent) = run(tmp_path, people, talk.sources[0])
    describe("silent", report, people, (speaking, silent), talk, tmp_path)
    entry = person_of(report, people.actors[1])
    assert entry["silent_throughout"]
    assert not person_of(report, people.actors[0])["silent_throughout"]
    assert level(silent) < level(talk.sources[0]) - 60
    assert level(speaking) > level(talk.sources[0]) - 12


@pytest.mark.soak
def test_three_faces_one_silent(tmp_path):
    talk = Talk(2)
    people = scene([talk.crops[0], talk.crops[1], still(talk.crops[1], talk.frames)])
    report, voices = run(tmp_path, people, talk.mix)
    describe("three", report, people, voices, talk, tmp_path)
    assert len(report["people"]) == 3
    assert min(placed(person_of(report, actor), actor).min() for actor in people.actors) > 0.85
    assert [person_of(report, actor)["silent_throughout"] for actor in people.actors] == [False, False, True]
    assert level(voices[2]) < level(talk.mix) - 60


@pytest.mark.soak
def test_a_face_that_turns_away_and_back_stays_one_person(tmp_path):
    talk = Talk(2, 2)
    people = scene(talk.crops)
    t = np.arange(talk.frames)
    turn = 0.75 * np.clip(1 - np.abs(t - 50) / 20, 0, 1)
    people.actors[1] = changed(people.actors[1], turn=turn)
    report, voices = run(tmp_path, people, talk.mix)
    describe("turning", report, people, voices, talk, tmp_path)
    assert len(report["people"]) == 2
    entry = person_of(report, people.actors[1])
    assert placed(entry, people.actors[1])[[0, -1]].min() > 0.85
    assert entry["on_screen"][-1]["stop"] > 3.8


@pytest.mark.soak
def test_a_face_that_leaves_is_silent_afterwards(tmp_path):
    talk = Talk(2, 4)
    people = scene(talk.crops)
    motion = people.actors[1].motion
    x = motion.x + np.clip(np.arange(talk.frames) - 50, 0, None) * 12
    people.actors[1] = changed(people.actors[1], x=x, shown=x < 760)
    report, voices = run(tmp_path, people, talk.mix)
    describe("leaving", report, people, voices, talk, tmp_path)
    entry = person_of(report, people.actors[1])
    assert 2.0 <= entry["on_screen"][-1]["stop"] <= 2.9
    assert level(voices[1][int(3.0 * 16000) :]) < level(talk.mix) - 60
    assert person_of(report, people.actors[0])["on_screen"][0]["stop"] == 4.0


@pytest.mark.soak
def test_a_face_that_is_hidden_for_a_moment_stays_one_person(tmp_path):
    talk = Talk(2, 6)
    people = scene(talk.crops, bars=[(40, 62, 0)])
    report, voices = run(tmp_path, people, talk.mix)
    describe("hidden", report, people, voices, talk, tmp_path)
    assert len(report["people"]) == 2
    assert placed(person_of(report, people.actors[0]), people.actors[0])[[0, -1]].min() > 0.85


@pytest.mark.soak
def test_a_shot_change_is_found_and_people_are_known_again(tmp_path):
    """The second shot shows the same two in other places, larger, before another background."""
    talk = Talk(2, 8)
    before, after = scene(talk.crops, seed=1), scene(talk.crops, seed=5)
    actors, half = [], talk.frames // 2
    late = np.arange(talk.frames) >= half
    for a, b, look in zip(before.actors, reversed(after.actors), (0, 1), strict=True):
        moved = {
            name: np.where(late, getattr(b.motion, name), getattr(a.motion, name))
            for name in ("x", "y", "tilt")
        }
        motion = replace(a.motion, **moved, size=np.where(late, 150.0, 115.0))
        actors.append(Actor(look, a.mouths, motion))
    people = replace(before, actors=actors, background=late.astype(int))
    report, voices = run(tmp_path, people, talk.mix)
    describe("cut", report, people, voices, talk, tmp_path)
    assert report["cuts"] == [half / 25]
    assert len(report["people"]) == 2
    for actor in actors:
        assert placed(person_of(report, actor), actor).min() > 0.8


@pytest.mark.soak
def test_sound_that_is_late_is_noticed_and_moved(tmp_path):
    talk = Talk(6, 10)
    people = scene(talk.crops, seed=2)
    report, voices = run(tmp_path, people, talk.mix, "auto", sound_delay=0.2)
    describe("late", report, people, voices, talk, tmp_path, 0.2 - report["offset"]["applied"])
    assert report["offset"]["measured"] == pytest.approx(0.2, abs=0.06)
    assert report["offset"]["clear"]
    assert report["offset"]["applied"] == report["offset"]["measured"]
    uncorrected = avkit.separate_video(tmp_path / "x.mp4", tmp_path / "out", model=MODEL, keep=True)
    assert uncorrected["offset"]["applied"] == 0.0


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    """A minute and four minutes ($AVKIT_VIDEO_MINUTES, for an hour 60) of one talker, each in a process of its own: memory that
    no file stands behind. (Crops, sound and voices are mapped from files, whose pages the system takes back when it needs them.)
    What grows is a person's place and landmarks in every frame."""
    import json
    import os
    import subprocess
    import sys

    talk = Talk(1)
    people = scene([talk.crops[0]])
    pictures = list(render(people))
    peaks = []
    for minutes in (1, int(os.environ.get("AVKIT_VIDEO_MINUTES", "4"))):
        path = tmp_path / f"{minutes}.mp4"
        with Mp4Writer(path, people.width, people.height) as file:
            for k in range(minutes * 60 * 25):
                file.picture(pictures[k % talk.frames], k / 25)
                file.sound(talk.sources[0][k % talk.frames * 640 :][:640])
        code = (
            "import avkit, avkit.bench, json, sys, threading\n"
            "seen, ended = [], threading.Event()\n"
            "def watch():\n"
            "    while not ended.wait(0.05): seen.append(avkit.bench.process_memory('RssAnon') / 2**20)\n"
            "threading.Thread(target=watch, daemon=True).start()\n"
            "report = avkit.separate_video(sys.argv[1], sys.argv[2], model='rtfs-net-tiny')\n"
            "ended.set()\n"
            "print(json.dumps([max(seen), report['cpu_seconds']]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(tmp_path / f"out{minutes}")],
            capture_output=True,
            text=True,
            check=True,
        )
        peak, cost = json.loads(done.stdout.splitlines()[-1])
        print(f"{minutes} min: {peak:.0f} MB, CPU seconds {cost}")
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 30 + 1.5 * max(0, minutes - 4)
