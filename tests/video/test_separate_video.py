"""A composite video through the whole of `avkit separate-video` and `avkit faces`, against its truth."""

import json

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from video_scenes import crop_correlation, improvement, person_of, placed, read_report

import avkit
from avkit.cli import main
from avkit.data.reading import read_mouth
from avkit.errors import DataError, InputError
from avkit.video import people, separating, work
from avkit.video.writing import Mp4Writer


def crops_of(entry: dict, out) -> np.ndarray:
    number = entry["name"].removeprefix("person-")
    return np.fromfile(out / ".work" / f"mouths-{number}.bin", np.uint8).reshape(-1, 96, 96)


def test_both_people_are_found_where_they_are(separated):
    assert [entry["name"] for entry in separated.report["people"]] == ["person-1", "person-2"]
    for actor, entry in zip(separated.scene.actors, separated.report["people"], strict=True):
        assert person_of(separated.report, actor) is entry
        assert placed(entry, actor).min() > 0.9
        assert entry["on_screen"][0]["start"] == 0.0
        assert entry["on_screen"][0]["stop"] == 2.0
        assert entry["confidence"] > 0.95


def test_the_crops_move_as_the_true_ones_do(separated):
    for i, entry in enumerate(separated.report["people"]):
        mine, other = (
            crop_correlation(crops_of(entry, separated.out), separated.talk.crops[j]) for j in (i, 1 - i)
        )
        assert mine > 0.55
        assert other < 0.3


def test_each_voice_is_more_its_own_talkers(separated):
    """The network is small and its lips are seen through a portrait here: what is asked is that lips decide."""
    scores = []
    for i, entry in enumerate(separated.report["people"]):
        voice, rate = soundfile.read(separated.out / entry["voice"])
        assert rate == 16000
        assert len(voice) == pytest.approx(32000, abs=200)
        scores.append(improvement(voice, separated.talk.sources[i], separated.talk.mix))
        assert entry["silent"] == []
    assert np.mean(scores) > 1.0


def test_the_voice_is_what_separate_gives_for_the_crops(separated):
    sound = np.fromfile(separated.out / ".work" / "sound.bin", np.float32)
    gain = 0.9 / np.abs(sound).max()  # the level that the network knows
    entry = separated.report["people"][0]
    lips = torch.from_numpy(crops_of(entry, separated.out))
    whole = avkit.separate(torch.from_numpy(sound[:32000] * gain), lips, "rtfs-net-tiny")[0, 0].numpy() / gain
    voice, _ = soundfile.read(separated.out / entry["voice"])
    inside = slice(1000, 30000)  # away from the fades
    assert np.abs(voice[inside] - whole[inside]).max() < 1e-3


def test_the_videos_play_and_hold_the_voices(separated):
    for entry in separated.report["people"]:
        with av.open(str(separated.out / entry["video"])) as file:
            pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
            assert file.streams.video[0].codec_context.name == "h264"
        with av.open(str(separated.out / entry["video"])) as file:
            sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
        assert len(pictures) == 50
        assert len(sound) / 48000 == pytest.approx(2.0, abs=0.1)
        voice, _ = soundfile.read(separated.out / entry["voice"])
        assert np.std(sound) == pytest.approx(np.std(voice), rel=0.1)
        left, top, right, _bottom = (int(v) for v in entry["on_screen"][0]["boxes"][0][1:])
        edge = pictures[0][top, left + 10 : right - 10].astype(float).mean(0)
        assert np.ptp(edge) > 60  # the frame around the face has a colour


def test_every_file_says_that_the_network_knows_synthetic_talkers_only(separated):
    assert "synthetic talkers only" in separated.report["caution"]
    assert read_report(separated.out) == separated.report
    for entry in separated.report["people"]:
        with soundfile.SoundFile(separated.out / entry["voice"]) as file:
            assert "synthetic talkers only" in file.comment
        with av.open(str(separated.out / entry["video"])) as file:
            assert "synthetic talkers only" in file.metadata["comment"]
    with Image.open(separated.out / "overview.png") as picture:
        assert "synthetic talkers only" in picture.text["Comment"]
        assert picture.width == 1200


def test_the_command_prints_what_was_found_and_the_caution_first_and_last(
    separated, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(separating, "_run", lambda *_: separated.report)
    assert (
        main(["separate-video", str(separated.path), str(tmp_path / "out"), "--model", "rtfs-net-tiny"]) == 0
    )
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert "synthetic talkers only" in lines[0]
    assert "synthetic talkers only" in lines[-1]
    assert "person-1.mp4" in said.out
    assert "2.0 s" in said.out


# -------------------------------------------------------------------------------------------------------- going on


def test_a_run_that_was_stopped_goes_on_with_the_stage_it_was_in(separated, tmp_path, monkeypatch):
    settings = {"model": "rtfs-net-tiny"}

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(separating, "_voice_stage", stop)
        avkit.separate_video(separated.path, tmp_path, **settings)
    assert {path.name for path in tmp_path.iterdir()} == {".work"}
    with monkeypatch.context() as patch:
        patch.setattr(
            people.track_faces.__globals__["Tracker"], "step", stop
        )  # faces are not looked for again
        report = avkit.separate_video(separated.path, tmp_path, **settings)
    assert not (tmp_path / ".work").exists()
    strip = ("cpu_seconds",)
    assert {k: v for k, v in report.items() if k not in strip} == {
        k: v for k, v in separated.report.items() if k not in strip
    }
    for name in ("person-1.wav", "person-2.wav"):
        assert (tmp_path / name).read_bytes() == (separated.out / name).read_bytes()


def test_following_faces_goes_on_from_its_last_state(separated, tmp_path, monkeypatch):
    from avkit.video import tracking
    from avkit.video.reading import probe

    video = probe(separated.path)
    monkeypatch.setattr(tracking, "_STATE_EVERY", 20)

    def stop(done: int) -> None:
        if done == 33:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tracking.track_faces(video, tmp_path, stop)
    assert json.loads((tmp_path / "tracking.json").read_text())["frames"] == 20
    first = []
    tracking.track_faces(video, tmp_path, first.append)
    assert first[0] == 21
    whole = np.fromfile(separated.out / ".work" / "records.bin", tracking.RECORD)
    assert np.array_equal(np.fromfile(tmp_path / "records.bin", tracking.RECORD), whole)


def test_cutting_mouths_goes_on_where_it_was(separated, tmp_path):
    from avkit.video.reading import probe

    video, source = probe(separated.path), separated.out / ".work"
    tracks, _ = people.read_tracks(source)
    members, _ = people.find_people(tracks)
    for person in members:
        name = f"mouths-{person.number}.bin"
        (tmp_path / name).write_bytes((source / name).read_bytes()[: 96 * 96 * (20 + person.number) + 77])
    counted = []
    people.cut_mouths(video, members, tmp_path, 50, lambda *_: counted.append)
    assert counted[0] == 22  # the frame after the last that both have
    for person in members:
        name = f"mouths-{person.number}.bin"
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()


def test_crops_of_other_people_are_cut_anew(separated, tmp_path):
    """As where a run is stopped and taken up again with another --shortest."""
    from avkit.video.reading import probe

    for path in (separated.out / ".work").glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    called = []

    def watch(stage, _total):
        called.append(stage)
        return lambda _: None

    people.find_faces(probe(separated.path), tmp_path, 1.0, watch)
    assert "mouths" not in called
    (tmp_path / "people.json").write_text("[[[0, 10]]]")
    people.find_faces(probe(separated.path), tmp_path, 1.0, watch)
    assert "mouths" in called


def test_another_video_in_the_same_folder_begins_anew(separated, tmp_path):
    from avkit.video.reading import probe

    video = probe(separated.path)
    work.Work(tmp_path, video, False, "faces", True).put("tracking", {"done": True})
    assert work.Work(tmp_path, video, False, "faces", True).note("tracking")
    assert work.Work(tmp_path, video, True, "faces", True).note("tracking") is None
    (tmp_path / "copy.mp4").write_bytes(separated.path.read_bytes())
    work.Work(tmp_path, video, False, "faces", True).put("tracking", {"done": True})
    assert work.Work(tmp_path, probe(tmp_path / "copy.mp4"), False, "faces", True).note("tracking") is None


# ------------------------------------------------------------------------------------------------------------ faces


def test_the_command_faces_writes_crops_that_separate_reads(separated, tmp_path, capsys):
    assert main(["faces", str(separated.path), str(tmp_path), "--quiet"]) == 0
    assert "person-2: 0.0 to 2.0 s" in capsys.readouterr().out
    report = read_report(tmp_path, "faces.json")
    for entry in report["people"]:
        crops = read_mouth(tmp_path / entry["on_screen"][0]["mouths"])
        assert np.array_equal(crops, crops_of(entry, separated.out))
    assert not list(tmp_path.glob("*.mp4"))
    assert (tmp_path / "overview.png").stat().st_size > 10_000


def test_the_results_place_may_be_named_as_with_other_commands(separated, tmp_path, capsys):
    assert main(["faces", "--out", str(tmp_path / "named"), str(separated.path), "--quiet"]) == 0
    assert (tmp_path / "named/faces.json").is_file()
    for command in ("faces", "separate-video"):
        for places in ([], ["here", "--out", "there"]):
            with pytest.raises(SystemExit):
                main([command, str(separated.path), *places])
    said = capsys.readouterr().err
    assert "is required" in said and "not allowed with" in said


# --------------------------------------------------------------------------------------------------------- bad input


def empty_video(path, frames: int = 30, sound: bool = True):
    with Mp4Writer(path, 160, 120, 16000 if sound else None) as file:
        for k in range(frames):
            file.picture(np.full((120, 160, 3), 90 + k % 60, np.uint8), k / 25)
            if sound:
                file.sound(np.zeros(640))
    return path


def refused(kind: type, match: str, path, out, **settings) -> None:
    with pytest.raises(kind, match=match):
        avkit.separate_video(path, out, model="rtfs-net-tiny", **settings)
    assert not out.exists() or not list(out.iterdir())


def test_a_video_without_a_face_is_refused(tmp_path):
    refused(InputError, "there is no face", empty_video(tmp_path / "x.mp4"), tmp_path / "out")


def test_a_video_of_one_frame_is_refused(tmp_path):
    refused(InputError, "a single picture", empty_video(tmp_path / "x.mp4", 1), tmp_path / "out")


def test_a_still_picture_is_refused(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    refused(InputError, "no sound", tmp_path / "x.png", tmp_path / "out")
    assert main(["faces", str(tmp_path / "x.png"), str(tmp_path / "out")]) == 2


def test_a_video_without_sound_is_refused(tmp_path):
    refused(InputError, "no sound", empty_video(tmp_path / "x.mp4", sound=False), tmp_path / "out")


def test_a_video_that_breaks_off_is_refused(tmp_path):
    path = empty_video(tmp_path / "x.mp4", 200)
    with av.open(str(path)) as whole, av.open(str(tmp_path / "x.mkv"), "w") as copy:
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    content = (tmp_path / "x.mkv").read_bytes()
    (tmp_path / "x.mkv").write_bytes(content[: len(content) // 5])
    refused((DataError, InputError), r"damaged|cut short|no face", tmp_path / "x.mkv", tmp_path / "out")


def test_a_folder_without_room_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    usage = work.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(work.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    refused(DataError, "0 MB free", empty_video(tmp_path / "x.mp4"), tmp_path / "out")


def test_a_disk_that_fills_up_is_told(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(separating, "write_sound", full)
    with pytest.raises(DataError, match="no space is left"):
        avkit.separate_video(empty_video(tmp_path / "x.mp4"), tmp_path / "out", model="rtfs-net-tiny")


def test_an_output_that_is_a_file_and_an_offset_that_is_none_are_refused(tmp_path):
    path = empty_video(tmp_path / "x.mp4")
    with pytest.raises(InputError, match="is a file; wanted a folder"):
        avkit.separate_video(path, path, model="rtfs-net-tiny")
    refused(InputError, "wanted seconds, or 'auto'", path, tmp_path / "out", offset="soon")
    refused(InputError, "at most a minute", path, tmp_path / "out", offset=float("nan"))


@pytest.mark.parametrize("command", ["separate-video", "faces"])
@pytest.mark.parametrize(("name", "said"), [
    ("gone.mp4", "there is no file"),
    ("folder", "is a folder; wanted a video file"),
    ("page.mp4", "cannot be read as video"),
    ("empty.mp4", "cannot be read as video"),
    ("sound.wav", "no pictures"),
    ("cut.mp4", "damaged or cut short"),
])  # fmt: skip
def test_both_commands_name_what_is_no_video_and_leave_nothing(tmp_path, capsys, command, name, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "page.mp4").write_text("<html>404 Not Found</html>" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    soundfile.write(tmp_path / "sound.wav", np.zeros(16000), 16000)
    whole = empty_video(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    assert main([command, str(tmp_path / name), str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_whoever_waits_is_told_how_far_it_is_and_how_long_it_takes(tmp_path, capsys, monkeypatch):
    """Without a terminal: a line every half minute and at a stage's end."""
    from avkit.video.reading import probe

    clock = iter(range(0, 10_000, 20))  # seconds, twenty at every look
    run = work.Work(tmp_path / "out", probe(empty_video(tmp_path / "x.mp4")), False, "faces")
    run.plan("faces", "mouths")
    monkeypatch.setattr(work.time, "monotonic", lambda: next(clock))
    progress = run.watch("mouths", 50)
    for count in range(1, 51):
        progress(count)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 20
    assert lines[0].startswith("2/2 mouths: 2 of 50, about ")
    left = [int(line.split("about ")[1].removesuffix(" s left")) for line in lines]
    assert left[0] > left[-1] == 0
