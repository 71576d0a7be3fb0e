"""Raw clips to recordings, mouths and mixtures: `--from-videos` and `avkit prepare grid`, on composites and on real clips."""

import json
import shutil
from collections import Counter
from itertools import combinations
from pathlib import Path

import av
import corpus_trees
import numpy as np
import pytest
import torch
from video_scenes import MOUTH, Talk

from avkit import cli
from avkit.data import clips, grid, mixing
from avkit.data.clips import Clip, Part, cut_clips
from avkit.data.datasets import ItemSettings, open_split
from avkit.data.manifests import read_manifest, talker_of
from avkit.data.mixture_list import draw_list, read_list, split_of
from avkit.data.reading import read_audio, read_mouth
from avkit.errors import DataError, InputError
from avkit.lip_weights import save_lip_encoder
from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.video.composite import Actor, Scene, sway, write_composite
from avkit.video.writing import Mp4Writer

PART = Part(0.2, 0.8)
CUT = ["--start", "0.2", "--seconds", "0.8", "--quiet", "--workers", "1"]


@pytest.fixture(scope="module")
def talk():
    return Talk(1, 3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, talk):
    """Two clips of 1.2 s with one talker each, and clips that will not do, by name."""
    folder = tmp_path_factory.mktemp("clips")
    found = {}
    for i in (0, 1):
        actor = Actor(i, talk.crops[i][:30], sway(30, 110, 110, 115, i))
        found[f"talker {i}"] = write_composite(
            folder / f"{i}.mp4", Scene([actor], 220, 220), talk.sources[i][: 30 * 640]
        )
    found["no sound"] = write_composite(folder / "mute.mp4", Scene([actor], 220, 220), None)
    found["no face"], found["too short"] = folder / "wall.mp4", folder / "short.mp4"
    for name, frames in (("no face", 30), ("too short", 12)):
        with Mp4Writer(found[name], 160, 120) as file:
            for k in range(frames):
                file.picture(np.full((120, 160, 3), 90 + k, np.uint8), k / 25)
                file.sound(np.sin(np.arange(640) / 9))
    found["silent"] = write_composite(folder / "quiet.mp4", Scene([actor], 220, 220), np.zeros(30 * 640))
    found["unreadable"] = folder / "page.mp4"
    found["unreadable"].write_text("<html>404 Not Found</html>" * 40)
    return found


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of what moves in two rows of crops."""
    a, b = (x[MOUTH].astype(float) for x in (a, b))
    return float(np.corrcoef((a - a.mean(0)).ravel(), (b - b.mean(0)).ravel())[0, 1])


# ------------------------------------------------------------------------------------------------------------ one clip


def test_a_recording_and_its_crops_are_the_clips_own(videos, talk):
    for i in (0, 1):
        samples, crops = clips.read_clip(videos[f"talker {i}"], PART)
        assert (samples.dtype, samples.shape, crops.dtype, crops.shape) == (
            np.int16, (12800,), np.uint8, (20, 96, 96),
        )  # fmt: skip
        truth = talk.sources[i][3200:16000]
        assert np.corrcoef(samples, truth)[0, 1] > 0.98  # AAC in between
        assert alike(crops, talk.crops[i][5:25]) > alike(crops, talk.crops[1 - i][5:25]) + 0.3


def test_crops_are_those_that_the_whole_clip_gives(videos, tmp_path):
    """Following ends some frames after the part; the crops must not notice."""
    from avkit.video.people import find_faces
    from avkit.video.reading import probe

    _, crops = clips.read_clip(videos["talker 0"], Part(0.2, 0.4))
    faces = find_faces(probe(videos["talker 0"]), tmp_path, 0.5, lambda *_: lambda _: None)
    assert np.array_equal(crops, faces.crops(faces.people[0], faces.people[0].stretches[0])[5:15])


def test_of_two_faces_the_larger_is_taken(tmp_path, talk):
    actors = [Actor(i, talk.crops[i][:24], sway(24, x, 120, size, i)) for i, x, size in ((0, 90, 90), (1, 260, 150))]
    path = write_composite(tmp_path / "x.mp4", Scene(actors, 360, 240), talk.mix[: 24 * 640])
    _, crops = clips.read_clip(path, Part(0.0, 0.96))
    assert alike(crops, talk.crops[1][:24]) > alike(crops, talk.crops[0][:24]) + 0.3


@pytest.mark.parametrize(("start", "seconds"), [(0.01, 2.0), (0.0, 0.0), (-0.04, 1.0), (0.0, float("nan")), (0.0, 0.5)])
def test_parts_are_whole_frames(start, seconds):
    with pytest.raises(InputError, match=r"multiple of 0\.04"):
        Part(start, seconds)


# ---------------------------------------------------------------------------------------------------------- many clips


def test_each_clip_that_will_not_do_is_a_row_and_leaves_no_file(videos, tmp_path):
    jobs = [Clip(f"v_{n:05d}", path) for n, path in enumerate(videos.values())]
    there, faults = cut_clips(jobs, tmp_path, PART)
    assert there == ["v_00000", "v_00001"]
    assert {str(videos[f.kind]) for f in faults} == {f.where for f in faults}
    assert {f.kind for f in faults} == {"no sound", "no face", "too short", "silent", "unreadable"}
    assert all(Path(f.where).name in f.message for f in faults)
    assert sorted(p.name for p in (tmp_path / "mouths").iterdir()) == ["v_00000.npz", "v_00001.npz"]
    assert sorted(p.name for p in (tmp_path / "wav16k").glob("*.wav")) == ["v_00000.wav", "v_00001.wav"]
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob(".*"))


def test_workers_change_nothing_and_a_second_run_goes_on(videos, tmp_path, monkeypatch):
    jobs = [Clip(f"v_{i:05d}", videos[f"talker {i}"]) for i in (0, 1)]
    for workers in (1, 2):
        assert cut_clips(jobs, tmp_path / str(workers), PART, workers) == (["v_00000", "v_00001"], [])
    one, two = (tmp_path / "1", tmp_path / "2")
    files = [p.relative_to(one) for p in one.rglob("*") if p.is_file()]
    assert len(files) == 5
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
    done = []
    monkeypatch.setattr(clips, "_cut", lambda clip, _out, _part: done.append(clip.utterance))
    (one / "mouths/v_00001.npz").write_bytes(b"cut short")
    cut_clips(jobs, one, PART)
    assert done == ["v_00001"]
    cut_clips(jobs, one, Part(0.0, 0.8))  # another part: all anew
    assert done == ["v_00001", "v_00000", "v_00001"]


def test_lrs2_from_downloaded_clips_to_lists_that_train(videos, tmp_path, capsys):
    root, out = tmp_path / "mvlrs_v1", tmp_path / "LRS2-2Mix"
    for n, name in enumerate(("talker 0", "talker 1", "no face", "talker 1")):
        folder = root / "main" / f"63303110664736985{n:02d}"
        folder.mkdir(parents=True)
        shutil.copy(videos[name], folder / "00011.mp4")
    names = [f"63303110664736985{n:02d}_00011" for n in range(4)]
    lines = [f"{a} 1.25 {b} -1.25" for a, b in ((names[0], names[1]), (names[1], names[2]))]
    (tmp_path / "mix_2_spk_tr.txt").write_text("\n".join(lines))
    asked = ["prepare", "lrs2", str(root), str(out), "--from-videos", "--mix", str(tmp_path / "mix_2_spk_tr.txt"), *CUT]
    assert cli.main(asked) == 1
    said = capsys.readouterr().out
    assert "cut 2 clips to recordings and mouths" in said
    assert "1 mixtures were not made, because one of their clips would not do" in said
    report = json.loads((out / "report.json").read_text())
    assert (report["cut"], report["mixed"]) == (2, {"tr": 1})
    assert [where for where, _ in report["faults"]["no face"]["files"]] == [str(root / f"main/{names[2][:-6]}/00011.mp4")]
    assert not (out / "mouths" / f"{names[3]}.npz").exists()  # no list names it
    (mixture,) = read_manifest(out, "tr")
    assert mixture.name == f"{names[0]}_1.25_{names[1]}_-1.25"
    item = open_split(out, "tr", ItemSettings(segment=0.8), 0)[(0, 0)]
    assert item["mixture"].shape == (12800,)
    assert item["lips"].shape == (1, 20, 88, 88)


NAMED = {  # a corpus' clips as they are downloaded -> their ids
    "lrs3": ("trainval/0Fi83BHQsMA/000{:02d}.mp4", "0Fi83BHQsMA_000{:02d}"),
    "vox2": ("dev/mp4/id0001{0}/-_21Uxsk56V/00002.mp4", "id0001{0}_-_21Uxsk56V_00002"),
}


@pytest.mark.parametrize("corpus", NAMED)
def test_other_corpora_from_downloaded_clips_to_a_table(corpus, videos, tmp_path, capsys):
    """Raw clips, lists, a step of training, an evaluation: each corpus by its own naming."""
    root, out = tmp_path / "clips", tmp_path / "2Mix"
    folders, names = NAMED[corpus]
    ids = [names.format(n) for n in range(6)]
    for n in range(6):
        (root / folders.format(n)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos[f"talker {n % 2}"], root / folders.format(n))
    for split, (a, b) in {"tr": ids[:2], "cv": ids[2:4], "tt": ids[4:]}.items():
        (tmp_path / f"mix_2_spk_{split}.txt").write_text(f"{a} 2.5 {b} -2.5\n")
    lists = [f"{split}={tmp_path}/mix_2_spk_{split}.txt" for split in ("tr", "cv", "tt")]
    assert cli.main(["prepare", corpus, str(root), str(out), "--from-videos", "--mix", *lists, *CUT]) == 0
    report = json.loads((out / "report.json").read_text())
    assert (report["cut"], report["mixed"], report["faults"]) == (6, {"tr": 1, "cv": 1, "tt": 1}, {})
    (mixture,) = read_manifest(out, "tr")
    assert mixture.name == f"{ids[0]}_2.5_{ids[1]}_-2.5"
    assert len({source.talker for source in mixture.sources}) == (2 if corpus == "vox2" else 1)  # of LRS3, a video's name
    torch.manual_seed(0)
    save_lip_encoder(tmp_path / "lips", LipEncoder(LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))))
    run = ["train", "--config", "rtfs-net-4", "--config", corpus, "--out", str(tmp_path / "run"), "--data.root", str(out)]
    tiny = ["--data.segment=0.8", "--data.batch_size=1", "--data.workers=0", "--trainer.max_epochs=1", "--trainer.devices=1"]
    tiny += ["--trainer.accelerator=cpu", "--trainer.sync_batchnorm=false"]
    assert cli.main([*run, *tiny, f"--model.lip_encoder={tmp_path / 'lips'}", f"--model.overrides={corpus_trees.RTFS}"]) == 0
    table = tmp_path / "table"
    assert cli.main(["evaluate", str(tmp_path / "run/model"), str(out), "--out", str(table), "--metrics", "si_snr"]) == 0
    summary = json.loads((table / "summary.json").read_text())
    assert summary["systems"]["model"]["si_snri"]["mixtures"] == 1


def test_without_a_list_everything_is_cut_and_the_next_command_is_named(videos, tmp_path, capsys):
    root, out = tmp_path / "clips", tmp_path / "out"
    root.mkdir()
    for i in (0, 1):
        shutil.copy(videos[f"talker {i}"], root / f"talker{i}_00001.mp4")
    assert cli.main(["prepare", "lrs2", str(root), str(out), "--from-videos", *CUT]) == 0
    said = capsys.readouterr().out
    assert f"avkit prepare lrs2 {out / 'wav16k'} {out} --mouths {out / 'mouths'}" in said
    splits = {split_of(f"talker{i}") for i in (0, 1)}
    assert splits == {"tr"}
    asked = ["prepare", "lrs2", str(out / "wav16k"), str(out), "--mouths", str(out / "mouths"), "--draw", "tr=5"]
    assert cli.main([*asked, "--seconds", "0.8", "--quiet"]) == 0
    assert len(read_manifest(out, "tr")) == 1
    assert "tr: 1 mixtures instead of 5" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["lrs2", "empty", "out", "--from-videos"], "no video whose name is an id of lrs2"),
    (["grid", "empty", "out"], "holds no clip of GRID"),
    (["grid", "alone", "out", "--draw", "tr=3"], "no two talkers of one split"),
    (["lrs2", "alone", "out", "--start", "0.4"], "--start goes with --from-videos"),
    (["grid", "alone", "out", "--start", "0.43"], "multiple of 0.04"),
])  # fmt: skip
def test_what_cannot_be_done_is_said(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("alone/s6").mkdir(parents=True)
    Path("alone/s6/bbaf2n.mpg").write_bytes(b"")
    assert cli.main(["prepare", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


# ---------------------------------------------------------------------------------------------------------------- GRID


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_grids_names_are_read_however_the_archives_were_unpacked(tmp_path):
    root = touch(tmp_path, "s1/bbaf2n.mpg", "s12/video/mpg_6000/lrwz8p.mpg", "grid/s3/PGIO1A.MPG", "s4/readme.mpg", "sbia1a.mpg",
                 "alignments/s1/bbaf2n.align", "audio_25k/s1/bbaf2n.wav", "s1/._bbaf2n.mpg")  # fmt: skip
    found, notes = grid.find_clips(root)
    assert [clip.utterance for clip in found] == ["s12_lrwz8p", "s1_bbaf2n", "s3_pgio1a"]
    assert "1 videos without a name of GRID's form" in notes[0]
    assert "1 clips outside talkers' folders were passed over" in notes[1]
    alone, _ = grid.find_clips(root / "s1")
    assert [clip.utterance for clip in alone] == ["s1_bbaf2n"]
    touch(root, "again/s1/bbaf2n.mpg")
    with pytest.raises(DataError, match="both are the utterance s1_bbaf2n"):
        grid.find_clips(root)


def test_loose_clips_are_talkers_of_their_own_and_test(tmp_path):
    found, notes = grid.find_clips(touch(tmp_path, "bbaf2n.mpg", "sbia1a.mpg"))
    assert [clip.utterance for clip in found] == ["bbaf2n_bbaf2n", "sbia1a_sbia1a"]
    assert "all of them test" in notes[0]
    assert {grid.split_of(talker_of(clip.utterance)) for clip in found} == {"tt"}


def test_grids_talkers_are_split_once_for_all():
    splits = {f"s{n}": grid.split_of(f"s{n}") for n in range(1, 35)}
    assert Counter(splits.values()) == {"tr": 26, "cv": 4, "tt": 4}
    assert {talker for talker, split in splits.items() if split == "tt"} == {"s1", "s2", "s20", "s22"}


def test_drawn_mixtures_follow_from_the_seed_and_use_everything_evenly():
    names = [f"s{n}_{mixing.format_level(k)}" for n in (6, 8, 9) for k in range(20)]
    first, again, other = (draw_list(list(reversed(names)) if turn else names, "tr", 90, seed) for turn, seed in ((0, 1), (1, 1), (0, 2)))
    assert first == again
    assert first != other
    assert first[:40] == draw_list(names, "tr", 40, 1)
    pairs = [frozenset((e.mixture.utt1, e.mixture.utt2)) for e in first]
    assert len(set(pairs)) == 90
    assert all(len({talker_of(utterance) for utterance in pair}) == 2 for pair in pairs)
    assert set(Counter(utterance for pair in pairs for utterance in pair).values()) == {3}
    levels = [e.mixture.snr1 for e in first]
    assert 0 <= min(levels) < 0.6
    assert 4.4 < max(levels) <= 5
    assert all(e.mixture.snr2 == -e.mixture.snr1 for e in first)


def test_where_there_are_fewer_pairs_all_of_them_are_drawn():
    names = ["s1_a", "s1_b", "s2_a", "s22_a", "s22_b"]
    drawn = draw_list(names, "tt", 1000, 0)
    wanted = {frozenset(p) for p in combinations(names, 2) if talker_of(p[0]) != talker_of(p[1])}
    assert {frozenset((e.mixture.utt1, e.mixture.utt2)) for e in drawn} == wanted
    assert len(drawn) == len(wanted) == 8
    assert draw_list(["s1_a"], "tt", 3, 0) == []


def test_talkers_of_any_corpus_are_split_by_their_names():
    found = Counter(split_of(f"id{n:05d}") for n in range(4000))
    assert 0.88 < found["tr"] / 4000 < 0.92
    assert min(found["cv"], found["tt"]) > 140
    assert split_of("id00012") == split_of("id00012")


def test_a_tree_in_grids_naming_becomes_mixtures_and_trains(videos, tmp_path, capsys):
    root, out = tmp_path / "grid", tmp_path / "GRID-2Mix"
    for n, talker in enumerate(("s1", "s2", "s3", "s4", "s6", "s34")):
        (root / talker).mkdir(parents=True)
        shutil.copy(videos[f"talker {n % 2}"], root / talker / "bbaf2n.mpg")
    shutil.copy(videos["unreadable"], root / "s34" / "sbia1a.mpg")
    asked = ["prepare", "grid", str(root), str(out), "--draw", "tr=2", "cv=2", "tt=2", "--seed", "7", *CUT]
    assert cli.main(asked) == 1
    capsys.readouterr()
    report = json.loads((out / "report.json").read_text())
    assert (report["cut"], report["mixed"]) == (6, {"tr": 1, "cv": 1, "tt": 1})
    assert [where for where, _ in report["faults"]["unreadable"]["files"]] == [str(root / "s34/sbia1a.mpg")]
    talkers = {split: {s.talker for m in read_manifest(out, split) for s in m.sources} for split in ("tr", "cv", "tt")}
    assert talkers == {"tr": {"s6", "s34"}, "cv": {"s3", "s4"}, "tt": {"s1", "s2"}}
    (mixture,) = read_manifest(out, "tt")
    mixed, first, second = (read_audio(path) for path in (mixture.audio, *(s.audio for s in mixture.sources)))
    assert np.array_equal(mixed, first + second)
    assert len(read_mouth(mixture.sources[0].mouth)) == 20
    assert [e.name for e in read_list(out / "mix_2_spk_tt.txt", "tt", "grid")] == [mixture.name]
    assert len(open_split(out, "tr", ItemSettings(segment=0.8), 0)) == 2
    lists = {p: p.read_bytes() for p in out.rglob("*.json") if p.name != "report.json"}
    assert cli.main(asked) == 1
    assert lists == {p: p.read_bytes() for p in lists}


def test_real_grid_clips_become_a_test_set(real_recordings, tmp_path, capsys):
    clip_folder = tmp_path / "three"
    clip_folder.mkdir()
    for path in sorted((real_recordings / "grid").glob("*.mpg"))[:3]:
        shutil.copy(path, clip_folder)
    assert cli.main(["prepare", "grid", str(clip_folder), str(tmp_path), "--quiet", "--workers", "1"]) == 0
    assert "3 mixtures listed" in capsys.readouterr().out
    mixtures = read_manifest(tmp_path, "tt")
    assert {m.samples for m in mixtures} == {32000}
    crops = read_mouth(mixtures[0].sources[0].mouth)
    assert crops.shape == (50, 96, 96)
    with av.open(str(clip_folder / f"{mixtures[0].sources[0].talker}.mpg")) as file:
        assert file.streams.video[0].average_rate == 25
