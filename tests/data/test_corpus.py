"""The corpus on disk: layout, groups, the same bytes however it is made, and clear refusals."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from avkit.data import corpus, labels, mixing, pairing, text, voices
from avkit.data.corpus import Plan, main, make_corpus, verify
from avkit.errors import DataError, InputError, MissingPackageError

SMALL = Plan(seed=5, tr=30, cv=0, tt=12)
SMALL_ARGUMENTS = ["--mixtures", "tr=30,cv=0,tt=12", "--seed", "5"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small") / "corpus"
    make_corpus(root, SMALL, workers=2, quiet=True)
    return root


def _files(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "corpus.json"
    }


def test_layout_is_that_of_lrs2_2mix(small):
    for split, count in {"tr": 30, "cv": 0, "tt": 12}.items():
        rows = {kind: json.loads((small / split / f"{kind}.json").read_text()) for kind in ("mix", "s1", "s2")}
        assert {kind: len(r) for kind, r in rows.items()} == dict.fromkeys(rows, count)
        for mix, first, second in zip(*rows.values(), strict=True):
            mixture = mixing.parse_name(mix[0], "lrs2")
            assert mix == [f"audio/wav16k/min/{split}/mix/{mixture.name}.wav", 32000]
            assert first == [mix[0].replace("/mix/", "/s1/"), f"mouths/{mixture.utt1}.npz", 32000]
            assert second == [mix[0].replace("/mix/", "/s2/"), f"mouths/{mixture.utt2}.npz", 32000]
            sounds = [mixing.read_wav(small / row[0]) for row in (mix, first, second)]
            assert {s.shape for s in sounds} == {(32000,)}
            np.testing.assert_array_equal(sounds[0], sounds[1] + sounds[2])
            for row in (first, second):
                frames = np.load(small / row[1])["data"]
                assert frames.shape == (50, 96, 96) and frames.dtype == np.uint8
    assert not (small / ".build").exists() and not list(small.rglob("*.part"))


def test_worker_count_and_run_change_no_byte(small, tmp_path):
    make_corpus(tmp_path / "again", SMALL, workers=1, quiet=True)
    assert _files(tmp_path / "again") == _files(small)


def test_another_seed_says_other_things(small, tmp_path):
    make_corpus(tmp_path / "other", Plan(seed=6, tr=0, cv=0, tt=4), workers=1, quiet=True)
    sentences = [{s for row in labels.read_labels(r).rows for s in row["sentences"]} for r in (small, tmp_path / "other")]
    assert not sentences[0] & sentences[1]


def test_a_killed_run_resumes_to_the_same_bytes(small, tmp_path):
    root = tmp_path / "corpus"
    command = [sys.executable, "-m", "avkit.data.corpus", str(root), *SMALL_ARGUMENTS, "--workers", "1", "--quiet"]
    process = subprocess.Popen(command)
    while process.poll() is None and not list(root.glob(".build/utterances_*.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (root / "corpus.json").exists(), "it ended before it could be killed"
    record = next(iter(root.glob(".build/utterances_*.json")))
    before = record.stat().st_mtime_ns
    done = [root / "mouths" / f"{row['label']['id']}.npz" for row in json.loads(record.read_text())]
    drawn = [path.stat().st_mtime_ns for path in done]
    with pytest.raises(DataError, match="holds another corpus"):
        main([str(root), "--mixtures", "tr=30,cv=0,tt=13", "--seed", "5", "--quiet"])
    assert record.stat().st_mtime_ns == before
    assert main([str(root), *SMALL_ARGUMENTS, "--workers", "2", "--quiet"]) == 0
    assert [path.stat().st_mtime_ns for path in done] == drawn  # not made twice
    assert _files(root) == _files(small)


def test_a_finished_corpus_is_left_alone(small, capsys):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert main([str(small), *SMALL_ARGUMENTS]) == 0
    assert "complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_compression_changes_the_size_only(small, tmp_path):
    plan = Plan(seed=5, tr=0, cv=0, tt=12)
    plain, packed = (make_corpus(tmp_path / str(c), Plan(**{**plan.__dict__, "compress": c}), 2, quiet=True) for c in (0, 1))
    assert plain["checksum"] == packed["checksum"]
    sizes = [sum(p.stat().st_size for p in (tmp_path / d / "mouths").iterdir()) for d in ("0", "1")]
    assert sizes[1] < 0.85 * sizes[0]


def test_verify_finds_a_changed_sample_frame_and_label(small, tmp_path, capsys):
    assert main([str(small), "--verify"]) == 0
    assert json.loads(capsys.readouterr().out) == {"audio": True, "mouths": True, "labels": True}
    root = tmp_path / "copy"
    shutil.copytree(small, root)
    wav = next((root / "audio").rglob("s1/*.wav"))
    content = bytearray(wav.read_bytes())
    content[-1] ^= 1
    wav.write_bytes(content)
    assert verify(root) == {"audio": False, "mouths": True, "labels": True}
    mouth = next((root / "mouths").iterdir())
    frames = np.load(mouth)["data"].copy()
    frames[3, 40, 40] ^= 1
    np.savez(mouth, data=frames)
    assert verify(root)["mouths"] is False
    with open(root / labels.LABELS, "a") as file:
        file.write((root / labels.LABELS).read_text().splitlines()[0] + "\n")
    assert main([str(root), "--verify", str(small / "corpus.json"), "--workers", "1"]) == 1
    mouth.unlink()
    with pytest.raises(DataError, match=mouth.name):
        verify(root)
    with pytest.raises(DataError, match="checksum"):
        verify(small, small / labels.LABELS)


def test_minutes_are_split_80_10_10_with_thirty_at_least():
    assert Plan.counts_of_minutes(60) == {"tr": 1440, "cv": 180, "tt": 180}
    assert Plan.counts_of_minutes(1) == {"tr": 30, "cv": 30, "tt": 30}
    assert sum(Plan.counts_of_minutes(600).values()) == 18000


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_groups_are_what_they_say(seed):
    ids, pairs = pairing.plan_split("tt", 300, seed, reuse=2)
    counts = {group: sum(p.group == group for p in pairs) for group in pairing.GROUPS}
    assert counts == {"same voice": 50, "like pitch": 100, "other": 150}
    talkers = set()
    for pair in pairs:
        one, two = (u.split("_")[0] for u in (pair.mixture.utt1, pair.mixture.utt2))
        talkers |= {one, two}
        apart = abs(pairing.pitch_of(one) - pairing.pitch_of(two))
        assert pair.mixture.utt1 != pair.mixture.utt2
        assert (one == two) == (pair.group == "same voice")
        assert {"same voice": apart == 0, "like pitch": apart <= 1.5, "other": apart > 1.5}[pair.group]
        assert 0 <= pair.mixture.snr1 <= 5 and pair.mixture.snr2 == -pair.mixture.snr1
    assert len(talkers) >= 20
    assert len({frozenset((p.mixture.utt1, p.mixture.utt2)) for p in pairs}) == 300
    uses = np.unique([u for p in pairs for u in (p.mixture.utt1, p.mixture.utt2)], return_counts=True)[1]
    assert len(ids) == 300 and uses.max() <= 5


@pytest.mark.parametrize("count", [1, 2, 4, 30])
@pytest.mark.parametrize("split", text.SPLITS)
@pytest.mark.parametrize("reuse", [1, 2, 4])
def test_small_splits_can_be_planned(count, split, reuse):
    ids, pairs = pairing.plan_split(split, count, 0, reuse)
    assert len(pairs) == count and len({p.mixture.name for p in pairs}) == count
    assert {u for p in pairs for u in (p.mixture.utt1, p.mixture.utt2)} == set(ids)
    assert {u.split("_")[0] for u in ids} <= set(voices.talkers(split))


def test_labels_say_what_was_said(small):
    table = labels.read_labels(small)
    assert table.viseme.shape == (len(table), 50) and table.curves.shape == (len(table), 50, 6)
    assert table.curves.dtype == np.float32 and table.curves[..., 0].min() >= 0 and abs(table.curves).max() <= 1
    assert len(table.of_split("tt")) == 12 and len(table.of_split("cv")) == 0
    for i, row in enumerate(table.rows):
        assert voices.talker_split(row["talker"]) == row["split"]
        assert all(text.split_of(sentence) == row["split"] for sentence in row["sentences"])
        said, words = " , ".join(row["sentences"]).split(), " ".join(w for w, _, _ in row["words"]).split()
        said = [w for w in said if w != ","]
        assert any(said[k : k + len(words)] == words for k in range(len(said)))
        times = [t for _, a, b in row["phonemes"] for t in (a, b)]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= 2
        assert row["activity"] >= (0.8 if row["split"] == "tt" else 0.5)
        assert table.index(row["id"]) == i
    with pytest.raises(InputError, match="t999_00000"):
        table.index("t999_00000")
    with pytest.raises(DataError, match="avkit corpus"):
        labels.read_labels(small / "mouths")


def test_test_talkers_speak_most_of_the_time(probe_corpus):
    rows = labels.read_labels(probe_corpus).rows
    assert min(row["activity"] for row in rows if row["split"] == "tt") >= 0.8
    assert min(row["activity"] for row in rows if row["split"] == "tr") < 0.8  # training hears more pauses


def test_test_talkers_are_heard_most_of_the_time(small):
    """At least 80 per cent of 20 ms steps lie within 50 dB of the loudest; closures are short."""
    for row in labels.read_mixtures(small):
        if row["split"] == "tt":
            for kind in ("s1", "s2"):
                samples = mixing.read_wav(small / corpus.mixture_paths("tt", row["name"])[kind]).astype(float)
                power = (samples.reshape(-1, 320) ** 2).mean(1)
                assert (power > 1e-5 * power.max()).mean() >= 0.8, row["name"]


def test_rooms_and_noise_are_drawn_noted_and_kept(tmp_path):
    pytest.importorskip("pyroomacoustics", reason='needs pyroomacoustics: pip install "avkit[room]"')
    arguments = ["--mixtures", "tr=0,cv=0,tt=4", "--seed", "2", "--room", "0.2,0.4", "--noise", "5,10", "--quiet"]
    for workers in "12":
        assert main([str(tmp_path / workers), *arguments, "--workers", workers]) == 0
    assert _files(tmp_path / "1") == _files(tmp_path / "2")
    for row in labels.read_mixtures(tmp_path / "1"):
        assert 0.2 <= row["rt60"] <= 0.4 and 5 <= row["noise_db"] <= 10
        mix, one, two = (
            mixing.read_wav(tmp_path / "1" / p).astype(float) for p in corpus.mixture_paths("tt", row["name"]).values()
        )
        level = 10 * np.log10(((one + two) ** 2).mean() / ((mix - one - two) ** 2).mean())
        assert level == pytest.approx(row["noise_db"], abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--minutes", "0"], "minutes"),
        (["--minutes", "nan"], "minutes"),
        (["--workers", "0"], "workers"),
        (["--seed", "-1"], "seed"),
        (["--reuse", "0"], "reuse"),
        (["--mixtures", "tr=0,cv=0,tt=0"], "not all zero"),
        (["--room", "0.6,0.2"], "--room"),
        (["--noise=-50,0"], "--noise"),
    ],
)
def test_bad_arguments_are_named(arguments, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint):
        main([str(tmp_path / "x"), *arguments])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("value", ["tr=1", "tr=a,cv=1,tt=1", "train=3", "5"])
def test_mixture_counts_that_cannot_be_read(value, tmp_path, capsys):
    if value == "tr=1":
        assert corpus._mixture_counts(value) == {"tr": 1, "cv": 0, "tt": 0}
        return
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--mixtures", value])
    assert "tr=4,cv=4,tt=30" in capsys.readouterr().err


def test_too_little_disk_is_said_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(corpus.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(DataError, match="GB free"):
        main([str(tmp_path / "x"), "--minutes", "5"])
    assert "MB" in capsys.readouterr().out  # announced first
    assert not list((tmp_path / "x" / "mouths").iterdir())


def test_announced_disk_use_is_right(small):
    used = sum(path.stat().st_size for path in small.rglob("*") if path.is_file())
    assert SMALL.bytes_on_disk(len(labels.read_labels(small))) == pytest.approx(used, rel=0.03)


def test_missing_speech_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingPackageError, match=r"avkit\[corpus\]"):
        main([str(tmp_path / "x"), "--minutes", "1", "--quiet"])


def test_corpus_can_be_imported_without_the_speech_package():
    code = "import sys; sys.modules['espeakng_loader'] = None; import avkit.data.corpus; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"  # workers start fast and fork small


def test_the_shipped_talkers_are_whole_and_remade_by_their_command(repository, tmp_path):
    shipped = repository / "data_samples" / "talkers"
    assert all(verify(shipped, workers=2).values())
    plan = json.loads((shipped / "corpus.json").read_text())["plan"]
    plan.pop("format")
    again = make_corpus(tmp_path / "again", Plan(**plan), workers=2, quiet=True)
    assert again["checksum"] == json.loads((shipped / "corpus.json").read_text())["checksum"]
    assert sum(p.stat().st_size for p in shipped.rglob("*") if p.is_file()) < 25e6


@pytest.mark.soak
def test_the_frozen_test_set_is_remade_by_its_command(repository, tmp_path):
    frozen = json.loads((repository / "data_samples" / "frozen_test.json").read_text())
    arguments = frozen["command"].split()[3:]
    assert main([str(tmp_path / "frozen"), *arguments]) == 0
    assert main([str(tmp_path / "frozen"), "--verify", str(repository / "data_samples" / "frozen_test.json")]) == 0
    rows = labels.read_mixtures(tmp_path / "frozen")
    assert len(rows) >= 300 and len({u.split("_")[0] for r in rows for u in (r["utt1"], r["utt2"])}) >= 20
