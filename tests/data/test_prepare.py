"""`avkit prepare`: every planted fault found and named, clean trees clean, lists that load, mixtures byte for byte."""

import hashlib
import json
import shutil
from pathlib import Path

import corpus_trees
import numpy as np
import pytest
import soundfile
import torch
from corpus_trees import AUDIO_FAULTS, CORPORA, MOUTH_FAULTS

from avkit import cli
from avkit.data import mixing
from avkit.data.cache import Cache
from avkit.data.checking import FAULTS, KINDS, Layout, check
from avkit.data.datamodule import EpochLoader
from avkit.data.datasets import ItemSettings, MixingSettings, open_split
from avkit.data.manifests import read_manifest, talker_of
from avkit.data.mixture_list import find_recordings, make_mixtures, read_list, which_split
from avkit.data.prepare import lost_augmentation, main
from avkit.data.reading import read_audio, read_mouth
from avkit.data.report import PUBLISHED
from avkit.errors import DataError, InputError
from avkit.lip_weights import save_lip_encoder
from avkit.lips import LipEncoder, LipEncoderConfig

COUNTS = {"tr": 4, "cv": 2, "tt": 2}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A clean tree of each corpus; tests that spoil one take a copy."""
    folder = tmp_path_factory.mktemp("trees")
    return {corpus: corpus_trees.make(folder / corpus, corpus, COUNTS) for corpus in CORPORA}


@pytest.fixture
def lrs3(trees, tmp_path) -> Layout:
    root = shutil.copytree(trees["lrs3"].root, tmp_path / "lrs3")
    return Layout(root, root / "mouths")


def first_name(layout: Layout, split: str = "tr") -> str:
    return min(path.stem for path in layout.folder(split, "mix").iterdir())


def kinds_of(layout: Layout, corpus: str = "lrs3") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fault in check(layout, corpus).faults:
        found.setdefault(fault.kind, []).append(fault.where)
    return found


# ---------------------------------------------------------------- clean trees


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_clean_tree_is_clean_and_trains(trees, corpus, tmp_path, capsys):
    layout = trees[corpus]
    assert main([corpus, str(layout.root), str(tmp_path), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "No faults." in said and "8 mixtures listed" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["faults"] == {} and report["utterances"] == 16
    for split, count in COUNTS.items():
        assert report["splits"][split] == {
            "mix": count, "s1": count, "s2": count, "mixtures": count, "listed": count, "left_out": 0,
            "published": PUBLISHED[corpus][split],
        }  # fmt: skip
    for mixing_settings in (None, MixingSettings()):
        data = open_split(tmp_path, "tr", ItemSettings(segment=0.4), 0, mixing_settings)
        batch = next(iter(EpochLoader(data, 0, np.arange(4)[None], np.ones((1, 4), np.float32))))
        assert batch["mixture"].shape == (4, 6400) and batch["lips"].shape == (4, 1, 10, 88, 88)
        assert batch["mixture"].abs().amax() <= 0.9 + 1e-4 and batch["targets"].square().mean((1, 2)).min() > 0
    for mixture in read_manifest(tmp_path, "tt"):
        parsed = mixing.parse_name(mixture.name, corpus)
        assert [source.utterance for source in mixture.sources] == [parsed.utt1, parsed.utt2]
        assert talker_of(parsed.utt1) == parsed.utt1.split("_")[0] if corpus == "vox2" else parsed.utt1[:-6]


def test_paths_are_relative_below_out_and_absolute_where_asked(lrs3):
    for flags, absolute in (([], False), (["--absolute"], True)):
        assert main(["lrs3", str(lrs3.root), str(lrs3.root), "--quiet", *flags]) == 0
        rows = json.loads((lrs3.root / "tr/s1.json").read_text())
        assert all(Path(entry).is_absolute() == absolute for row in rows for entry in row[:2])
        assert rows[0][2] == 6400
    moved = lrs3.root.rename(lrs3.root.with_name("elsewhere"))
    with pytest.raises(DataError, match="does not exist"):
        open_split(moved, "tr", ItemSettings(segment=0.4), 0)[(0, 0)]


def test_counts_unlike_the_published_are_a_note_and_no_fault(trees, tmp_path, capsys):
    assert main(["vox2", str(trees["vox2"].root), str(tmp_path), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "note: tr holds 4 mixtures; VoxCeleb2-2Mix has about 100000." in said
    assert "note: tt holds 2 mixtures; VoxCeleb2-2Mix has 2965." in said


def test_the_shipped_talkers_are_clean(repository, tmp_path, capsys):
    assert main(["lrs2", str(repository / "data_samples/talkers"), str(tmp_path), "--quiet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["faults"] == {} and not any("sum of their sources" in note for note in report["notes"])
    for split in report["splits"]:
        mine = {m.name: m.samples for m in read_manifest(tmp_path, split)}
        assert mine == {m.name: m.samples for m in read_manifest(repository / "data_samples/talkers", split)}


# ---------------------------------------------------------------- planted faults


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", AUDIO_FAULTS)
def test_a_bad_recording_is_named_and_its_mixture_left_out(lrs3, fault, kind):
    wanted, spoil = AUDIO_FAULTS[fault]
    name = first_name(lrs3)
    path = lrs3.audio("tr", kind, name)
    spoil(path)
    findings = check(lrs3, "lrs3")
    assert [f.kind for f in findings.faults] == [wanted]
    assert name in findings.faults[0].where and name in findings.faults[0].message
    assert [len(split.listed) for split in findings.splits.values()] == [3, 2, 2]
    assert name not in {mixture.name for mixture in findings.splits["tr"].listed}


@pytest.mark.parametrize("fault", MOUTH_FAULTS)
def test_bad_lips_are_named_and_their_mixture_left_out(lrs3, fault):
    wanted, spoil = MOUTH_FAULTS[fault]
    name = first_name(lrs3)
    path = lrs3.mouth(mixing.parse_name(name, "lrs3").utt2)
    spoil(path)
    findings = check(lrs3, "lrs3")
    assert [(f.kind, f.where) for f in findings.faults] == [(wanted, str(path))]
    assert str(path) in findings.faults[0].message
    assert [len(split.listed) for split in findings.splits.values()] == [3, 2, 2]


def test_the_other_recipes_crops_are_refused_by_name(lrs3, tmp_path, capsys):
    path = lrs3.mouth(mixing.parse_name(first_name(lrs3), "lrs3").utt1)
    MOUTH_FAULTS["120×120"][1](path)
    assert main(["lrs3", str(lrs3.root), str(tmp_path / "out"), "--quiet"]) == 1
    said = capsys.readouterr().out
    assert "120×120 crops: 1 mouth crops of the other, unaligned recipe" in said and str(path) in said


@pytest.mark.parametrize("gone, kind", [("mix", "no mixture"), ("s1", "no source"), ("s2", "no source")])
def test_files_of_one_kind_without_the_others(lrs3, gone, kind):
    name = first_name(lrs3, "cv")
    lrs3.audio("cv", gone, name).unlink()
    findings = check(lrs3, "lrs3")
    assert [f.kind for f in findings.faults] == [kind]
    counts = {key: 2 - (key == gone) for key in KINDS}
    assert findings.splits["cv"].files == counts and findings.splits["cv"].found == 2
    listed = ", ".join(f"{count} in {key}" for key, count in counts.items())
    assert f"cv has more files of one kind than of another: {listed}." in findings.notes


def test_an_utterance_in_two_splits_stays_where_it_is_nearest_to_the_test(lrs3):
    shared = mixing.parse_name(first_name(lrs3, "tt"), "lrs3")
    other = mixing.parse_name(first_name(lrs3, "tr"), "lrs3")
    name = mixing.Mixture(shared.utt1, 1.0, other.utt1, -1.0).name
    for kind in KINDS:
        shutil.copy(lrs3.audio("tr", kind, other.name), lrs3.audio("tr", kind, name))
    findings = check(lrs3, "lrs3")
    assert [(f.kind, f.where) for f in findings.faults] == [("two splits", shared.utt1)]
    assert "stands in tr and tt: its mixtures in tt stay" in findings.faults[0].message
    assert [len(split.listed) for split in findings.splits.values()] == [4, 2, 2]
    assert findings.splits["tr"].found == 5


def test_a_name_of_another_kind(lrs3):
    shutil.copy(lrs3.audio("tr", "mix", first_name(lrs3)), lrs3.audio("tr", "mix", "take_2"))
    findings = check(lrs3, "lrs3")
    assert [f.kind for f in findings.faults] == ["wrong name"] and "take_2" in findings.faults[0].message
    assert findings.splits["tr"].found == 5 and len(findings.splits["tr"].listed) == 4


def test_another_corpus_is_guessed(lrs3, tmp_path, capsys):
    assert cli.main(["prepare", "vox2", str(lrs3.root), str(tmp_path / "out"), "--quiet"]) == 2
    assert "They fit lrs3" in capsys.readouterr().err


def test_what_is_odd_and_yet_usable_is_noted(lrs3):
    names = sorted(path.stem for path in lrs3.folder("tr", "mix").iterdir())
    mixing.write_wav(lrs3.audio("tr", "s1", names[0]), np.zeros(6400, np.int16))
    shutil.copy(lrs3.audio("tr", "mix", names[2]), lrs3.audio("tr", "mix", names[1]))
    (lrs3.folder("tr", "mix") / "list.txt").write_text("no sound")
    (lrs3.folder("tr", "mix") / "._hidden.wav").write_text("another system's leftovers")
    corpus_trees.write_mouth(lrs3.mouth("zzzzzzzzzzz_00001"), 10, np.random.default_rng(0))
    shutil.rmtree(lrs3.root / "audio/wav16k/min/cv")
    findings = check(lrs3, "lrs3")
    assert findings.faults == () and len(findings.splits["tr"].listed) == 4
    notes = "\n".join(findings.notes)
    assert "1 listed mixtures have a source without any sound" in notes and names[0] in notes
    assert "2 listed mixtures are not the sum of their sources" in notes
    assert "1 files that are not .wav, the first being list.txt" in notes
    assert "There is no split cv." in notes
    assert "5 files of mouth crops belong to no mixture" in notes  # one planted, four of the split that went
    assert "6 listed mixtures are shorter than 2 s" in notes


def spoil_everything(layout: Layout) -> dict[str, int]:
    """One fault of each kind that files can have, each in a mixture of its own; returns how many of each kind."""
    names = sorted(path.stem for path in layout.folder("tr", "mix").iterdir())
    planted: dict[str, int] = {}
    for number, (kind, spoil) in enumerate([*AUDIO_FAULTS.values(), *MOUTH_FAULTS.values()]):
        name = names[number]
        if number < len(AUDIO_FAULTS):
            spoil(layout.audio("tr", KINDS[number % 3], name))
        else:
            spoil(layout.mouth(mixing.parse_name(name, "lrs3").utt1))
        planted[kind] = planted.get(kind, 0) + 1
    return planted


def test_all_faults_at_once_and_any_number_of_workers(tmp_path, capsys):
    faults = len(AUDIO_FAULTS) + len(MOUTH_FAULTS)
    layout = corpus_trees.make(tmp_path / "tree", "lrs3", {"tr": faults + 3, "cv": 1})
    planted = spoil_everything(layout)
    results = []
    for workers in (1, 2, 7):
        out = tmp_path / f"out{workers}"
        assert main(["lrs3", str(layout.root), str(out), "--quiet", "--workers", str(workers)]) == 1
        capsys.readouterr()
        report = json.loads((out / "report.json").read_text())
        assert report.pop("command").endswith(f"--workers {workers}")
        results.append([report] + [(out / f"tr/{kind}.json").read_text() for kind in KINDS])
    assert results[0] == results[1] == results[2]
    report = results[0][0]
    assert {kind: fault["count"] for kind, fault in report["faults"].items()} == planted
    assert set(report["faults"]) <= set(FAULTS)
    assert report["splits"]["tr"]["listed"] == 3 and report["splits"]["tr"]["left_out"] == faults
    data = open_split(tmp_path / "out1", "tr", ItemSettings(segment=0.4), 0)
    assert [int(data[(0, row)]["skipped"]) for row in range(len(data))] == [0] * 6


def test_nothing_usable_is_status_2_with_a_report(lrs3, tmp_path, capsys):
    for path in lrs3.root.rglob("*.npz"):
        path.write_bytes(b"")
    assert cli.main(["prepare", "lrs3", str(lrs3.root), str(tmp_path / "out"), "--quiet"]) == 2
    assert "Nothing usable" in capsys.readouterr().err
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["faults"]["unreadable"]["count"] == 16
    assert json.loads((tmp_path / "out/tr/mix.json").read_text()) == []


@pytest.mark.parametrize("arguments, message", [
    (["lrs2", "nowhere", "out"], "There is no folder nowhere"),
    (["lrs2", "empty", "out"], "no mixtures in the official layout"),
    (["lrs2", "tree", "out"], "no folder of mouth crops"),
    (["lrs2", "tree", "out", "--mouths", "gone"], "There is no folder --mouths gone"),
    (["lrs2", "tree", "out", "--seconds", "1"], "--seconds goes with --mix"),
    (["lrs2", "tree", "out", "--variants", "2"], "go with --features"),
    (["features", "empty", "--model", "rtfs-net-tiny"], "holds no lists"),
    (["lrs2", "tree", "out", "--mix", "list.txt"], "for which split"),
    (["lrs2", "tree", "out", "--mix", "tr=list.txt"], "cannot be read"),
])  # fmt: skip
def test_what_cannot_be_done_is_said(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    shutil.rmtree(corpus_trees.make(Path("tree"), "lrs2", {"tr": 1}).mouths)
    assert cli.main(["prepare", *arguments]) == 2
    assert message in capsys.readouterr().err and not Path("out").exists()


# ---------------------------------------------------------------- from a list to audio


def write_list(path: Path, ids: list[str], form: str, corpus: str, seed: int = 0) -> list[mixing.Mixture]:
    chance = np.random.default_rng(seed)
    mixtures, lines = [], ["# a comment", ""]
    for first, second in zip(ids[::2], ids[1::2], strict=True):
        level = mixing.draw_level(chance)
        mixtures.append(mixing.Mixture(first, level, second, -level))
        if form == "paths":
            first, second = (f"main/{u.rpartition('_')[0].replace('_', '/', corpus == 'vox2')}/{u[-5:]}.wav" for u in (first, second))
        lines.append(mixtures[-1].name if form == "names" else f"{first} {level} {second} {-level}")
    path.write_text("\n".join(lines) + "\n")
    return mixtures


def digests(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*.wav"))}


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("form", ["ids", "paths", "names"])
def test_mixtures_follow_from_the_list_alone(tmp_path, corpus, form):
    ids = corpus_trees.make_recordings(tmp_path / "wav", corpus, 6, nested=form == "paths")
    wanted = write_list(tmp_path / "tr.txt", ids, form, corpus)
    entries = read_list(tmp_path / "tr.txt", "tr", corpus)
    assert [entry.mixture for entry in entries] == wanted and [e.name for e in entries] == [m.name for m in wanted]
    recordings = find_recordings(tmp_path / "wav", corpus)
    seen = []
    for run, workers in enumerate((1, 3, 1)):
        layout = Layout(tmp_path / f"out{run}", tmp_path / "mouths")
        made = make_mixtures(layout, entries, recordings, 0.4, workers)
        assert made.counts == {"tr": 3} and made.faults == ()
        seen.append(digests(layout.root))
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == 9
    for mixture in wanted:
        mixed, first, second = (
            soundfile.read(layout.audio("tr", kind, mixture.name), dtype="int16")[0].astype(int) for kind in KINDS
        )
        assert np.array_equal(mixed, first + second) and len(mixed) == 6400
        assert max(abs(x).max() for x in (mixed, first, second)) == pytest.approx(0.9 * 32767, abs=2)
        ratio = 10 * np.log10((first**2).mean() / (second**2).mean())
        assert ratio == pytest.approx(mixture.snr1 - mixture.snr2, abs=0.01)
        original = soundfile.read(recordings[mixture.utt1], dtype="int16")[0][:6400]
        assert np.corrcoef(first, original)[0, 1] > 0.9999


def test_the_command_mixes_checks_and_lists(tmp_path, capsys):
    ids = corpus_trees.make_recordings(tmp_path / "wav", "vox2", 8, nested=True)
    write_list(tmp_path / "mix_2_spk_tr.txt", ids[:4], "paths", "vox2")
    write_list(tmp_path / "held_out.txt", ids[4:], "ids", "vox2")
    arguments = ["vox2", str(tmp_path / "wav"), str(tmp_path / "out"), "--seconds", "0.4", "--quiet", "--mix",
                 str(tmp_path / "mix_2_spk_tr.txt"), f"tt={tmp_path / 'held_out.txt'}"]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "made 2 mixtures of tr" in said and "There are no mouth crops" in said
    assert not (tmp_path / "out/tr").exists()
    for utterance in ids:
        corpus_trees.write_mouth(tmp_path / f"crops/{utterance}.npz", 10, np.random.default_rng(1))
    before = digests(tmp_path / "out")
    assert main([*arguments, "--mouths", str(tmp_path / "crops")]) == 0
    assert digests(tmp_path / "out") == before
    assert [len(read_manifest(tmp_path / "out", split)) for split in ("tr", "tt")] == [2, 2]
    assert json.loads((tmp_path / "out/tr/mix.json").read_text())[0][0].startswith("audio/wav16k/min/tr/mix/id")


def test_recordings_that_will_not_do_are_named(tmp_path):
    ids = corpus_trees.make_recordings(tmp_path / "wav", "lrs3", 12, nested=False)
    write_list(tmp_path / "tr.txt", ids, "ids", "lrs3")
    path = {utterance: tmp_path / "wav" / f"{utterance}.wav" for utterance in ids}
    path[ids[0]].unlink()
    mixing.write_wav(path[ids[2]], np.zeros(12800, np.int16))
    mixing.write_wav(path[ids[4]], np.ones(6399, np.int16))
    AUDIO_FAULTS["44.1 kHz"][1](path[ids[6]])
    AUDIO_FAULTS["a web page"][1](path[ids[9]])
    entries = read_list(tmp_path / "tr.txt", "tr", "lrs3")
    recordings = find_recordings(tmp_path / "wav", "lrs3")
    made = make_mixtures(Layout(tmp_path, tmp_path), entries, recordings, 0.4)
    assert [f.kind for f in made.faults] == ["no recording", "silent", "too short", "wrong rate", "unreadable"]
    assert made.counts == {"tr": 1} and len(list(tmp_path.rglob("min/tr/*/*.wav"))) == 3
    assert set(FAULTS) >= {f.kind for f in made.faults}


@pytest.mark.parametrize("line, message", [
    ("abcdefghijk_00001 1.5 abcdefghijk_00002", "has 3 fields"),
    ("abcdefghijk_00001 1.5 abcdefghij_00002 -1.5", "not end in the id of an utterance of lrs3"),
    ("abcdefghijk_00001 loud abcdefghijk_00002 -1.5", "is not the name of a mixture of lrs3"),
    ("abcdefghijk_00001 nan abcdefghijk_00002 -1.5", "is not the name of a mixture of lrs3"),
    ("abcdefghijk_00001 1 abcdefghijk_00001 -1", "with itself"),
    ("", "is empty"),
])  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line, message):
    good = "abcdefghijk_00001 +1.5 abc_efghijk_00002 -1.5\n" if line else ""
    (tmp_path / "tr.txt").write_text(good + line + "\n")
    with pytest.raises(DataError, match=message) as raised:
        read_list(tmp_path / "tr.txt", "tr", "lrs3")
    assert not line or "Line 2" in str(raised.value)


def test_the_split_of_a_list(tmp_path):
    assert which_split("cv=lists/anything.txt") == ("cv", Path("lists/anything.txt"))
    assert which_split("lists/mix_2_spk_tt.txt") == ("tt", Path("lists/mix_2_spk_tt.txt"))
    for vague in ("lists/attr.txt", "dev=list.txt"):
        with pytest.raises(InputError, match="for which split"):
            which_split(vague)


def test_two_recordings_of_one_id(tmp_path):
    ids = corpus_trees.make_recordings(tmp_path, "lrs2", 1, nested=False)
    corpus_trees.make_recordings(tmp_path, "lrs2", 1, nested=True)
    with pytest.raises(DataError, match=f"both are the utterance {ids[0]}"):
        find_recordings(tmp_path, "lrs2")


# ---------------------------------------------------------------- lip features


def test_features_are_stored_and_what_they_lose_is_said(lrs3, tmp_path, capsys):
    torch.manual_seed(0)
    encoder = save_lip_encoder(tmp_path / "small", LipEncoder(LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))))
    out = tmp_path / "out"
    arguments = ["lrs3", str(lrs3.root), str(out), "--quiet", "--features", str(encoder), "--variants", "3", "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)["features"]
    assert told["written"] == 16 and told["variants"] == 3
    assert "one of 2 random crops" in told["lost"] and "one of 81 places" in told["lost"]
    item = open_split(out, "tr", ItemSettings(segment=0.4, features="small", augment=True), 0)[(0, 0)]
    assert item["lips"].shape == (1, 512, 10)
    assert main(["features", str(out), "--model", str(encoder), "--variants", "3"]) == 0
    assert "of 0 utterances" in capsys.readouterr().out, "those that are there are kept"
    assert main(["features", str(out), "--model", str(encoder), "--name", "one"]) == 0
    said = capsys.readouterr().out
    assert "of 16 utterances" in said and lost_augmentation(1) in said and "centre crop alone" in said
    assert cli.main(["prepare", "features", str(out), "--model", str(encoder), "--variants", "2"]) == 2
    assert "holds features made with" in capsys.readouterr().err


# ---------------------------------------------------------------- reading what is broken

SEVEN = [
    ("mix", AUDIO_FAULTS["cut short"][1]),
    ("mix", Path.unlink),
    ("s1", AUDIO_FAULTS["stereo"][1]),
    ("s2", AUDIO_FAULTS["44.1 kHz"][1]),
    ("mouth", MOUTH_FAULTS["scratched"][1]),
    ("mouth", MOUTH_FAULTS["120×120"][1]),
    ("mouth", MOUTH_FAULTS["6 frames too few"][1]),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Lists of a tree of 28 mixtures, of whose 140 files seven, 5 %, are then broken, each in a way of its own."""
    root = tmp_path_factory.mktemp("broken")
    layout = corpus_trees.make(root, "vox2", {"tr": 28})
    assert main(["vox2", str(root), str(root), "--quiet"]) == 0
    names = sorted(path.stem for path in layout.folder("tr", "mix").iterdir())
    paths = []
    for number, (where, spoil) in enumerate(SEVEN):
        name = names[4 * number + 1]
        path = layout.mouth(mixing.parse_name(name, "vox2").utt1) if where == "mouth" else layout.audio("tr", where, name)
        spoil(path)
        paths.append(path)
    assert len(list(root.rglob("*.wav"))) + len(list(root.rglob("*.npz"))) == 140 - 1
    return root, paths


def test_training_data_stops_with_each_broken_file_named(broken):
    root, paths = broken
    data = open_split(root, "tr", ItemSettings(segment=0.4), 0)
    named = set()
    for row in range(len(data)):
        try:
            _ = data[(0, row)]
        except DataError as error:
            named |= {path for path in paths if path.name in str(error)}
    assert named == set(paths)
    with pytest.raises(DataError, match="|".join(path.name for path in paths)):
        Cache(data)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_data_passes_over_them_and_counts(broken, workers):
    """Bad recordings cost both items of their mixture, bad lips the item of their talker: 4 · 2 + 3 rows of 56."""
    root, _ = broken
    data = open_split(root, "tr", ItemSettings(segment=0.4, on_bad="skip"), 0)
    rows = np.arange(len(data)).reshape(-1, 4)
    batches = list(EpochLoader(data, 0, rows, np.ones(rows.shape, np.float32), workers))
    skipped = torch.cat([batch["skipped"] for batch in batches])
    assert (skipped > 0).sum() == 4 * 2 + 3
    assert all(torch.isfinite(batch["mixture"]).all() for batch in batches)
    cached = Cache(data)
    assert torch.equal(cached.batch(0, np.arange(len(data)))["skipped"], skipped)


def test_new_mixtures_pass_over_them_too(broken):
    root, _ = broken
    data = open_split(root, "tr", ItemSettings(segment=0.4, on_bad="skip"), 0, MixingSettings())
    skipped = torch.stack([data[(0, row)]["skipped"] for row in range(len(data))])
    assert 0 < (skipped > 0).sum() < len(data) / 2
    assert torch.equal(Cache(data).batch(0, np.arange(len(data)))["skipped"], skipped)


def test_prepare_drops_them_and_training_reads_on(broken, tmp_path, capsys):
    root, paths = broken
    assert main(["vox2", str(root), str(tmp_path), "--quiet"]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["splits"]["tr"]["listed"] == 21 and report["splits"]["tr"]["left_out"] == 7
    named = "".join(message for fault in report["faults"].values() for _, message in fault["files"])
    assert all(path.name in named for path in paths)
    data = open_split(tmp_path, "tr", ItemSettings(segment=0.4), 0)
    assert all(data[(0, row)]["skipped"] == 0 for row in range(42))


def test_damaged_bytes_never_surprise_the_reader(trees, tmp_path):
    """Random damage to a file either passes unnoticed or is a DataError's business, never another exception."""
    layout, chance = trees["lrs2"], np.random.default_rng(7)
    name = first_name(layout)
    originals = [layout.audio("tr", "mix", name), layout.mouth(mixing.parse_name(name, "lrs2").utt1)]
    refused = 0
    for original in originals:
        content = np.frombuffer(original.read_bytes(), np.uint8)
        for trial in range(150):
            damaged = content.copy()
            low = 0 if trial % 2 else max(0, len(content) - 400)  # the head, or an archive's directory
            where = low + chance.integers(0, min(200, len(content) - low), size=3)
            damaged[where] = chance.integers(0, 256, size=3)
            if trial % 5 == 0:
                damaged = damaged[: chance.integers(len(damaged))]
            path = tmp_path / original.name
            path.write_bytes(damaged.tobytes())
            refused += _refused(path)
    assert refused > 100


def _refused(path: Path) -> bool:
    try:
        (read_audio if path.suffix == ".wav" else read_mouth)(path)
    except DataError as error:
        assert path.name in str(error)
        return True
    return False
