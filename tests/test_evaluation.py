"""Evaluation over a small tree in LRS2-2Mix's layout, by networks whose right scores are known."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from avkit import cli, evaluation, fast, metrics, scoring, summary
from avkit.checkpoints import attach_lips, save_model, to_official
from avkit.errors import DataError, InputError, MissingPackageError
from avkit.evaluation import Evaluation, Settings, evaluate, main, read_rows
from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.registry import create_model

FAST = ("si_snr", "snr")
SAMPLES, FRAMES = 16000, 25
DARK, BRIGHT = 60, 200  # mouths of the low and of the high voice
CUT = 1500.0  # Hz; the low voice lies below, the high one above


# --- a small corpus ---


def write_wav(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def band(low, high, seed):
    """Noise between two frequencies, in syllables: (T,), peak 0.3."""
    generator = np.random.default_rng(seed)
    spectrum = np.fft.rfft(generator.standard_normal(SAMPLES))
    hertz = np.fft.rfftfreq(SAMPLES, 1 / 16000)
    spectrum[(hertz < low) | (hertz > high)] = 0
    sound = np.fft.irfft(spectrum, SAMPLES) * (
        1.2 + np.sin(2 * np.pi * 4 * np.arange(SAMPLES) / 16000 + seed)
    )
    return 0.3 * sound / np.abs(sound).max()


def make_corpus(root, mixtures=6, talkers=4):
    """`mixtures` mixtures of a low voice (s1, dark mouth) and a high voice (s2, bright mouth)."""
    rows = {"mix": [], "s1": [], "s2": []}
    table = []
    for number in range(mixtures):
        level = [0.5, 1.5, 3.0][number % 3]
        utterances = [f"low{number % talkers}_{number:05d}", f"high{(number + 1) % talkers}_{number:05d}"]
        name = f"{utterances[0]}_{level}_{utterances[1]}_{-level}"
        sources = [band(200, 1200, number), band(1800, 4000, number + 100)]
        sources = [
            0.4 * x / x.std() * 0.2 * 10 ** (db / 20) for x, db in zip(sources, (level, -level), strict=True)
        ]
        for kind, sound in zip(rows, (sum(sources), *sources), strict=True):
            path = f"audio/wav16k/min/tt/{kind}/{name}.wav"
            write_wav(root / path, sound)
            mouth = [] if kind == "mix" else [f"mouths/{utterances[int(kind[1]) - 1]}.npz"]
            rows[kind].append([path, *mouth, SAMPLES])
        for utterance, brightness in zip(utterances, (DARK, BRIGHT), strict=True):
            (root / "mouths").mkdir(exist_ok=True)
            frames = (
                np.full((FRAMES, 96, 96), brightness, np.uint8)
                + np.arange(FRAMES, dtype=np.uint8)[:, None, None]
            )
            np.savez(root / "mouths" / f"{utterance}.npz", data=frames)
        table.append({"name": name, "split": "tt", "group": "other" if number % 2 else "like pitch"})
    (root / "tt").mkdir()
    for kind, content in rows.items():
        (root / "tt" / f"{kind}.json").write_text(json.dumps(content))
    (root / "mixtures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return root


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus")


# --- networks whose right scores are known ---


class Brightness(nn.Module):
    """A lip encoder whose features are the mean brightness of each frame."""

    def forward(self, frames):  # (B, 1, F, 88, 88) -> (B, 512, F)
        return frames.mean(dim=(1, 3, 4))[:, None].expand(-1, 512, -1)


class Follower(nn.Module):
    """Dark lips: the low band of the mixture; bright ones: the high band; zeros: the mixture as it is."""

    def __init__(self):
        super().__init__()
        self.lips = Brightness()

    def forward(self, mixture, lips):
        spectrum = torch.fft.rfft(mixture)
        low = torch.fft.rfftfreq(mixture.shape[-1], 1 / 16000) < CUT
        tone = lips.mean(dim=(1, 2))[:, None]
        kept = torch.where(tone == 0, torch.ones_like(low), torch.where(tone < 0, low, ~low))
        return torch.fft.irfft(spectrum * kept, mixture.shape[-1])[:, None]


class Deaf(Follower):
    """The low voice, whatever the lips."""

    def forward(self, mixture, lips):
        return super().forward(mixture, -torch.ones_like(lips))


class Nan(Follower):
    def forward(self, mixture, lips):
        return super().forward(mixture, lips) * torch.nan


class Silent(Follower):
    def forward(self, mixture, lips):
        return torch.zeros_like(mixture)[:, None]


class Crash(Follower):
    """Ends its process: what a crash in a compiled library does."""

    def forward(self, mixture, lips):
        os._exit(9)


class BothVoices(nn.Module):
    """An audio-only network: both bands, the high one first, from zeros in place of lips."""

    def __init__(self, voices=2):
        super().__init__()
        self.voices = voices

    def forward(self, mixture, lips):
        assert not lips.any()
        follower = Follower()
        bands = [follower(mixture, torch.full_like(lips, tone)) for tone in (1.0, -1.0)]
        return torch.cat(bands, dim=1)[:, : self.voices]


class Spy(Follower):
    """Keeps the lip features of every call."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, mixture, lips):
        self.seen.append(lips[:, 0].clone())
        return super().forward(mixture, lips)


def run(corpus, model=None, out=None, metrics=FAST, audio_only=None, fresh=False, **settings):
    return evaluate(
        {"net": model or Follower()},
        corpus,
        out,
        Settings(metrics=metrics, **settings),
        audio_only=audio_only,
        fresh=fresh,
        progress=False,
    )


def of(result, system, talker=None):
    return [row for row in result.rows if row["system"] == system and talker in (None, row["talker"])]


def save_small(folder):
    """A small untrained network with its lip encoder, as saved on disk."""
    sizes = {"channels": 16, "hidden": 8, "rnn_hidden": 4, "lip_hidden": 8, "repeats": 1}
    lips = LipEncoder(LipEncoderConfig(stem=4, widths=(4, 4, 4, 4)))
    return save_model(folder, create_model("rtfs-net-tiny", **sizes), "rtfs-net-tiny", lips)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    return save_small(tmp_path / "small")


# --- rows ---


def test_rows_hold_the_scores_of_the_metrics(corpus):
    result = run(corpus, metrics=tuple(scoring.METRICS), limit=2)
    row = of(result, "net", 2)[0]
    mixture, reference = (torch.from_numpy(read_wav(corpus, kind, row["mixture"])) for kind in ("mix", "s2"))
    estimate = Follower()(mixture[None].float(), torch.ones(1, 512, FRAMES))[0, 0]
    for name in ("si_snr", "snr", "sdr", "stoi", "estoi"):
        assert row[name] == pytest.approx(
            getattr(metrics, name)(estimate.double(), reference).item(), abs=1e-3
        ), name
    for name in ("si_snr", "snr", "sdr"):
        gain = getattr(metrics, f"{name}_improvement")(estimate.double(), reference, mixture).item()
        assert row[f"{name}i"] == pytest.approx(gain, abs=1e-3), name
    for name, mode in (("pesq_wb", "wb"), ("pesq_nb", "nb"), ("pesq_nb_raw", "nb-raw")):
        assert row[name] == pytest.approx(
            metrics.pesq(estimate.double(), reference, mode).item(), abs=1e-3
        ), name
    assert (
        row["note"] == "" and row["utterance"].startswith("high") and row["speaker"] == row["utterance"][:5]
    )


def read_wav(corpus, kind, name):
    with wave.open(str(corpus / f"audio/wav16k/min/tt/{kind}/{name}.wav")) as file:
        return np.frombuffer(file.readframes(SAMPLES), "<i2") / 32768


def test_every_system_has_a_row_for_each_talker(corpus):
    result = run(
        corpus, oracles=("irm-16ms",), controls=("swapped", "absent"), audio_only={"deaf": BothVoices()}
    )
    systems = ["net", "mixture", "deaf", "irm-16ms", "net (swapped lips)", "net (absent lips)"]
    assert len(result.rows) == 6 * 2 * len(systems)
    assert list(result.summary["systems"]) == systems
    assert [row["system"] for row in result.rows[:12:2]] == systems
    assert [row["talker"] for row in result.rows[:4]] == [1, 2, 1, 2]


def test_the_mixture_improves_by_nothing_and_the_network_by_a_lot(corpus):
    result = run(corpus)
    assert all(row["si_snri"] == 0 and row["snri"] == 0 for row in of(result, "mixture"))
    assert all(row["si_snri"] > 20 for row in of(result, "net"))


def test_levels_are_measured(corpus):
    for row in of(run(corpus), "net"):
        nominal = float(row["mixture"].split("_")[2])
        assert row["level_db"] == pytest.approx(2 * nominal * (1 if row["talker"] == 1 else -1), abs=0.01)


def test_audio_only_outputs_are_put_in_order(corpus):
    result = run(corpus, audio_only={"both": BothVoices()})
    assert all(row["si_snri"] > 20 for row in of(result, "both"))


def test_a_network_with_the_wrong_number_of_voices_is_noted(corpus):
    result = run(corpus, BothVoicesWithLips(), audio_only={"one": BothVoices(voices=1)})
    for system in ("net", "one"):
        assert all("one voice for each pair of lips" in row["note"] for row in of(result, system))
        assert all("si_snr" not in row for row in of(result, system))


class BothVoicesWithLips(Follower):
    def forward(self, mixture, lips):
        return mixture[:, None].expand(-1, 2, -1)


# --- lip controls and the swap test ---


def test_swapped_lips_give_the_other_talker(corpus):
    result = run(corpus, controls=("swapped",))
    for row in of(result, "net (swapped lips)"):
        assert row["si_snr"] < -10 and row["si_snr_other"] > 20
        own = of(result, "net", 3 - row["talker"])
        assert row["si_snr_other"] in [other["si_snr"] for other in own]


@pytest.mark.parametrize(("model", "outputs", "mixtures"), [(Follower(), 1.0, 1.0), (Deaf(), 0.5, 0.0)])
def test_swap_test(corpus, model, outputs, mixtures):
    found = run(corpus, model).summary["swap_test"]["net"]
    assert found["outputs"]["mean"] == outputs
    assert found["mixtures"]["mean"] == mixtures


def test_controls_change_what_the_network_sees(corpus):
    spy = Spy()
    run(corpus, spy, limit=1, controls=("swapped", "still", "absent", "late-4"))
    own, still, absent, late = spy.seen  # swapped lips need no further call
    assert own.shape == (2, FRAMES) and (own.diff(dim=1) > 0).all()
    assert own[0].mean() < 0 < own[1].mean()
    torch.testing.assert_close(still, own[:, FRAMES // 2, None].expand(2, FRAMES))
    assert not absent.any()
    torch.testing.assert_close(late[:, 4:], own[:, :-4])
    torch.testing.assert_close(late[:, :4], own[:, :1].expand(2, 4))


def test_absent_lips_leave_this_network_with_the_mixture(corpus):
    result = run(corpus, controls=("absent",))
    assert all(abs(row["si_snri"]) < 1e-3 for row in of(result, "net (absent lips)"))


# --- files and outputs that are no good ---


def test_broken_files_become_rows_that_say_so(corpus, tmp_path):
    names = [json.loads((corpus / "tt" / "mix.json").read_text())[i][0] for i in range(3)]
    (corpus / names[0]).write_bytes((corpus / names[0]).read_bytes()[:9000])
    (corpus / names[1].replace("/mix/", "/s2/")).unlink()
    mouth = json.loads((corpus / "tt" / "s1.json").read_text())[2][1]
    content = (corpus / mouth).read_bytes()
    (corpus / mouth).write_bytes(content[:100])
    out = tmp_path / "out"
    result = run(corpus, out=out, controls=("swapped",))
    by_name = {Path(name).stem: [r for r in result.rows if r["mixture"] == Path(name).stem] for name in names}
    cut, gone, mouthless = by_name.values()
    assert all("si_snr" not in row and "ends" in row["note"] for row in cut)
    assert all("si_snr" not in row and "does not exist" in row["note"] for row in gone)
    noted = {(row["system"], row["talker"]) for row in mouthless if "cannot be read" in row["note"]}
    assert noted == {("net", 1), ("net (swapped lips)", 2)}
    assert result.summary["data"]["unreadable"] == 2
    assert result.summary["systems"]["net"]["si_snr"]["mixtures"] == 3
    assert result.summary["systems"]["mixture"]["si_snr"]["mixtures"] == 4
    assert result.summary["rows_with_notes"]["net"] == 5
    (corpus / mouth).write_bytes(content)  # mended: the next run takes it up
    assert run(corpus, out=out, controls=("swapped",)).summary["systems"]["net"]["si_snr"]["mixtures"] == 4


def test_wrong_lips_are_named(corpus):
    mouths = [row[1] for row in json.loads((corpus / "tt" / "s1.json").read_text())]
    np.savez(corpus / mouths[0], data=np.zeros((FRAMES, 120, 120), np.float32))
    np.savez(corpus / mouths[1], data=np.zeros((FRAMES - 9, 96, 96), np.uint8))
    notes = [row["note"] for row in of(run(corpus), "net", 1)][:2]
    assert "120×120" in notes[0] and "0.2 s" in notes[1]


def test_nothing_readable_is_an_error(corpus):
    for path in (corpus / "audio").rglob("mix/*.wav"):
        path.unlink()
    with pytest.raises(DataError, match="None of the 6 mixtures"):
        run(corpus)


def test_a_silent_talker_has_no_score(corpus):
    row = json.loads((corpus / "tt" / "s2.json").read_text())[0]
    write_wav(corpus / row[0], np.zeros(SAMPLES))
    result = run(corpus)
    first, second = of(result, "net", 1)[0], of(result, "net", 2)[0]
    assert second["si_snr"] is None and "is silent" in second["note"]
    assert second["level_db"] is None and first["si_snr"] > 20
    assert result.summary["systems"]["net"]["si_snr"]["mixtures"] == 5


def test_outputs_without_sense_are_noted(corpus):
    assert all("NaN" in row["note"] and "si_snr" not in row for row in of(run(corpus, Nan()), "net"))
    for row in of(run(corpus, Silent(), metrics=("si_snr", "snr", "estoi")), "net"):
        assert "silent" in row["note"]
        assert row["si_snr"] == -100 and row["estoi"] == 0


def test_a_bug_in_a_network_is_not_swallowed(corpus):
    class Buggy(Follower):
        def forward(self, mixture, lips):
            raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        run(corpus, Buggy())


# --- the summary ---


def test_means_are_over_mixtures_of_the_mean_over_talkers(corpus):
    result = run(corpus)
    per_mixture = summary.mixture_means(result.rows, "net", "si_snri")
    first = of(result, "net")[:2]
    assert per_mixture[first[0]["mixture"]] == pytest.approx((first[0]["si_snri"] + first[1]["si_snri"]) / 2)
    found = result.summary["systems"]["net"]["si_snri"]
    assert found["mean"] == pytest.approx(np.mean(list(per_mixture.values())))
    assert found["low"] < found["mean"] < found["high"]
    assert found["talkers"] == 8 and found["mixtures"] == 6


def test_groups(corpus):
    groups = run(corpus).summary["groups"]
    counts = {name: found["net"]["si_snri"]["mixtures"] for name, found in groups.items()}
    assert counts == {
        "voices: like pitch": 3,
        "voices: other": 3,
        "levels 0 to 2 dB apart": 2,
        "levels 2 to 5 dB apart": 2,
        "levels 5 dB apart or more": 2,
        "louder talker": 6,
        "softer talker": 6,
    }
    louder, softer = (
        groups[name]["mixture"]["si_snr"]["mean"] for name in ("louder talker", "softer talker")
    )
    assert louder > 0 > softer


def test_differences_are_paired(corpus):
    result = run(corpus)
    found = result.summary["differences"]["mixture"]["si_snr"]
    assert found["mean"] == pytest.approx(result.summary["systems"]["net"]["si_snri"]["mean"])
    assert found["low"] > 0


def test_provenance(corpus, tmp_path):
    result = run(corpus, out=tmp_path / "out")
    again = run(corpus)
    assert result.summary["data"]["checksum"] == again.summary["data"]["checksum"]
    mouth = json.loads((corpus / "tt" / "s1.json").read_text())[2][1]
    np.savez(corpus / mouth, data=np.full((FRAMES, 96, 96), 61, np.uint8))
    assert run(corpus).summary["data"]["checksum"] != again.summary["data"]["checksum"]
    assert result.summary["versions"]["torch"] and result.summary["machine"]["processors"]


def test_limit_is_a_fixed_choice_that_grows(corpus):
    few, more = ({row["mixture"] for row in run(corpus, limit=n).rows} for n in (2, 4))
    assert len(few) == 2 and len(more) == 4 and few < more
    assert {row["mixture"] for row in run(corpus, limit=2).rows} == few
    listed = [Path(row[0]).stem for row in json.loads((corpus / "tt" / "mix.json").read_text())]
    assert few != set(listed[:2]), "neighbours in the list share talkers: a choice must spread"
    assert [row["mixture"] for row in run(corpus, limit=4).rows[::4]] == [
        name for name in listed if name in more
    ]


def test_equal_lips_are_run_once(corpus):
    spy = Spy()
    result = run(corpus, spy, limit=1, controls=("absent",))
    assert [len(lips) for lips in spy.seen] == [2, 1]
    assert len(of(result, "net (absent lips)")) == 2


def test_rows_without_a_network_can_be_reused(corpus, tmp_path, monkeypatch):
    """Mixture and oracle rows come from the other evaluation, and no oracle is computed again but for changed sound."""
    chosen = {"metrics": ("si_snr", "stoi"), "oracles": ("irm-16ms", "psm-16ms")}
    first = run(corpus, Deaf(), tmp_path / "first", **chosen)
    whole = run(corpus, **chosen)
    asked = []
    oracle = scoring.baselines.oracle
    monkeypatch.setattr(scoring.baselines, "oracle", lambda *given: asked.append(given[0]) or oracle(*given))
    assert run(corpus, reuse=tmp_path / "first", **chosen).rows == whole.rows
    assert run(corpus, reuse=tmp_path / "first", workers=2, **chosen).rows == whole.rows
    assert asked == [] and first.rows != whole.rows
    row = json.loads((corpus / "tt" / "s2.json").read_text())[0]
    write_wav(corpus / row[0], band(1800, 4000, 7))
    mended = run(corpus, reuse=tmp_path / "first", **chosen)
    assert asked == ["irm-16ms", "psm-16ms"] and mended.rows == run(corpus, **chosen).rows


def test_a_network_of_opening_lips_reads_their_folder(corpus, tmp_path):
    """Here the other folder holds dark mouths only: what follows them gives the low voice, whoever is asked for."""
    out = tmp_path / "out"
    settings = Settings(metrics=FAST)
    with pytest.raises(DataError, match="avkit corpus .* --opening"):
        evaluate({"net": Follower()}, corpus, out, settings, opening={"beat": Follower()}, progress=False)
    (corpus / "mouths-opening").mkdir()
    without = evaluate({"net": Follower()}, corpus, out, settings, opening={"beat": Follower()}, progress=False)
    assert all("mouths-opening" in row["note"] for row in of(without, "beat"))
    assert all(row["si_snri"] > 20 for row in of(without, "net"))
    for path in (corpus / "mouths").iterdir():
        np.savez(corpus / "mouths-opening" / path.name, data=np.full((FRAMES, 96, 96), DARK, np.uint8))
    found = evaluate({"net": Follower()}, corpus, out, settings, opening={"beat": Follower()}, progress=False)
    assert all(row["si_snri"] > 20 for row in of(found, "beat", 1))
    assert all(row["si_snr"] < 0 for row in of(found, "beat", 2))
    assert found.summary["swap_test"]["beat"]["mixtures"]["mean"] == 0
    assert list(found.summary["systems"]) == ["net", "mixture", "beat"]


@pytest.mark.parametrize(("device", "told"), [("cdua", "no device 'cdua'"), ("cuda", "no NVIDIA GPU")])
def test_a_device_that_is_not_there_is_named(corpus, device, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=told):
        run(corpus, device=device)


def test_the_summary_says_which_weights_were_scored_and_what_trained_them(corpus):
    network = Follower()
    network.provenance = {"command": "avkit train", "examples": 3}
    about = evaluate({"net": network, "other": Follower()}, corpus, settings=Settings(metrics=FAST), progress=False).summary
    assert about["networks"]["net"]["trained"] == network.provenance and about["networks"]["other"]["trained"] is None
    assert len(about["networks"]["net"]["weights"]) >= 12


def test_differences_are_paired_within_groups_too(corpus):
    found = run(corpus, controls=("swapped",)).summary
    for group, systems in found["groups"].items():
        for other, columns in found["differences_by_group"][group].items():
            means = [systems[name]["si_snri"]["mean"] for name in (next(iter(systems)), other)]
            assert columns["si_snri"]["mean"] == pytest.approx(means[0] - means[1], abs=1e-6), (group, other)
    assert "mixture" in found["differences_by_group"]["louder talker"]


def test_what_cannot_be_reused_is_named(corpus, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        run(corpus, reuse=tmp_path / "nothing")
    run(corpus, out=tmp_path / "first", metrics=("snr",))
    with pytest.raises(DataError, match="other metrics"):
        run(corpus, reuse=tmp_path / "first")


# --- files, several processes, interruptions ---


def test_what_is_written_is_what_is_returned(corpus, tmp_path):
    out = tmp_path / "out"
    result = run(corpus, out=out)
    for written, row in zip(read_rows(out), result.rows, strict=True):
        for key in scoring.COLUMNS:
            value = row.get(key)
            assert written[key] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), (
                key
            )
    assert json.loads((out / "summary.json").read_text()) == result.summary
    with open(out / "rows.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == scoring.COLUMNS
    assert not list(out.glob(".*"))


def test_two_workers_write_what_one_does(corpus, tmp_path):
    one = run(corpus, out=tmp_path / "one", oracles=("psm-16ms",))
    two = run(corpus, out=tmp_path / "two", oracles=("psm-16ms",), workers=2)
    assert (tmp_path / "one" / "rows.csv").read_text() == (tmp_path / "two" / "rows.csv").read_text()
    assert one.summary["systems"] == two.summary["systems"]


def test_a_crash_in_a_worker_is_named(corpus, tmp_path):
    with pytest.raises(DataError, match="worker process ended"):
        run(corpus, Crash(), tmp_path / "out", workers=2)


def test_an_interrupted_run_continues(corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    whole = run(corpus)
    monkeypatch.setattr(evaluation, "score_item", limited_to(3))
    with pytest.raises(KeyboardInterrupt):
        run(corpus, out=out)
    assert not (out / "rows.csv").exists()
    with open(out / "rows.jsonl", "a") as file:
        file.write('{"mixture": "half a li')
    monkeypatch.setattr(evaluation, "score_item", limited_to(3))  # three remain, and no more
    assert run(corpus, out=out).rows == whole.rows
    monkeypatch.setattr(evaluation, "score_item", limited_to(0))  # nothing remains
    assert run(corpus, out=out).rows == whole.rows
    with pytest.raises(KeyboardInterrupt):
        run(corpus, out=out, fresh=True)


def limited_to(count):
    """`score_item` that is interrupted after `count` mixtures."""
    left = [count]

    def score_item(*arguments):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return scoring.score_item(*arguments)

    return score_item


def test_killed_and_started_again(corpus, checkpoint, tmp_path):
    """SIGKILL between two mixtures, on two processes; it ends with the rows of an unbroken run."""
    common = ["--metrics", "si_snr", "stoi"]
    command = [sys.executable, "-m", "avkit", "evaluate", str(checkpoint), str(corpus), *common,
               "--workers", "2", "--out", str(tmp_path / "out")]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    journal = tmp_path / "out" / "rows.jsonl"
    try:
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_bytes().count(b"\n") > 1:
                break
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = journal.read_bytes().count(b"\n") - 1
    assert before >= 1
    for out in ("out", "whole"):  # on one process now: the number of workers changes nothing
        assert main([str(checkpoint), str(corpus), *common, "--out", str(tmp_path / out)]) == 0
    assert (tmp_path / "out" / "rows.csv").read_text() == (tmp_path / "whole" / "rows.csv").read_text()


def test_another_evaluation_in_the_folder_is_refused(corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out=out)
    with pytest.raises(DataError, match=r"metrics differ.*--fresh"):
        run(corpus, out=out, metrics=("si_snr",))
    with pytest.raises(DataError, match="systems differ"):
        run(corpus, out=out, oracles=("irm-16ms",))
    torch.manual_seed(0)
    weighty = Follower()
    weighty.weight = nn.Parameter(torch.randn(3))
    with pytest.raises(DataError, match="weights differ"):
        run(corpus, weighty, out)
    run(corpus, out=out, metrics=("si_snr",), fresh=True)
    assert "snr" not in read_row_values(out)


def read_row_values(out):
    """Columns of rows.csv that hold a score."""
    return {key for row in read_rows(out) for key, value in row.items() if isinstance(value, float)}


# --- the command ---


def test_command(corpus, checkpoint, tmp_path, capsys):
    out = tmp_path / "results"
    (corpus / "corpus.json").write_text(json.dumps({"synthetic": "drawn and spoken by a program"}))
    arguments = [str(checkpoint), str(corpus), "--out", str(out), "--limit", "3",
                 "--metrics", "si_snr", "snr", "stoi",
                 "--controls", "swapped", "still", "--oracles"]  # fmt: skip
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for wanted in (
        "SI-SNRi",
        "STOI",
        "small (swapped lips)",
        "crm-64ms",
        "swap test",
        "by group",
        "Synthetic talkers: drawn",
    ):
        assert wanted in text, wanted
    found = json.loads((out / "summary.json").read_text())
    assert found["command"].startswith("avkit evaluate ") and "--limit 3" in found["command"]
    assert len(found["systems"]) == 10 and found["data"]["mixtures"] == 3
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["systems"] == found["systems"]


def test_command_compares_networks(corpus, checkpoint, tmp_path, capsys):
    other, second = checkpoint.rename(tmp_path / "first"), save_small(tmp_path / "second")
    arguments = ["--metrics", "si_snr", "--limit", "2", "--out", str(tmp_path / "out")]
    assert main([str(other), str(corpus), "--also", str(second), *arguments]) == 0
    assert "first, less that of" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "out" / "summary.json").read_text())["swap_test"]) == {
        "first",
        "second",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics", "mos"], "no metric 'mos'"),
        (["--controls", "late-11"], "no control 'late-11'"),
        (["--oracles", "ibm"], "no oracle 'ibm'"),
        (["--limit", "0"], "1 or more"),
        (["--workers", "0"], "1 or more"),
        (["--split", "cv"], "cv/mix.json does not exist"),
    ],
)
def test_command_says_what_is_wrong(corpus, checkpoint, tmp_path, capsys, arguments, said):
    assert (
        cli.main(["evaluate", str(checkpoint), str(corpus), "--out", str(tmp_path / "out"), *arguments]) == 2
    )
    assert said in capsys.readouterr().err


def test_command_names_a_missing_model_and_two_of_one_name(corpus, checkpoint, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["evaluate", "no-such-network", str(corpus), *out]) == 2
    assert "no-such-network" in capsys.readouterr().err
    assert cli.main(["evaluate", str(checkpoint), str(corpus), "--also", str(checkpoint), *out]) == 2
    assert "Two networks are called 'small'" in capsys.readouterr().err
    assert cli.main(["evaluate", str(checkpoint), str(corpus), "--audio-only", str(checkpoint), *out]) == 2
    assert "Two systems are called 'small'" in capsys.readouterr().err


def test_a_network_without_a_lip_encoder_is_refused(corpus):
    with pytest.raises(InputError, match="--audio-only"):
        run(corpus, BothVoices())


def test_official_files(corpus, tmp_path):
    """A network from an official file of weights, its lip encoder from another."""
    torch.manual_seed(0)
    network, encoder = create_model("rtfs-net-4").eval(), LipEncoder()
    weights, lips = tmp_path / "best_model.pth", tmp_path / "lips.pth.tar"
    arguments = {"refinement_module": {"audio_params": {"repeats": 4}}}
    torch.save({"state_dict": to_official(network), "model_name": "AVNet", "model_args": arguments}, weights)
    torch.save({"model_state_dict": to_official(encoder)}, lips)
    few = Settings(metrics=("si_snr",), limit=1)
    with pytest.raises(InputError, match="--lip-encoder"):
        evaluate({"net": weights}, corpus, settings=few, progress=False)
    read = evaluate({"net": weights}, corpus, settings=few, lip_encoder=lips, progress=False)
    attach_lips(network, fast.use(encoder))  # the form that a file is read into
    assert read.rows == evaluate({"net": network}, corpus, settings=few, progress=False).rows
    assert read.rows[0]["si_snr"] is not None


def test_missing_packages(corpus, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None if name in ("pesq", "pystoi") else True)
    with pytest.raises(MissingPackageError, match="package pesq.*pip install"):
        Settings(metrics=("si_snr", "pesq"))
    assert main([str(checkpoint), str(corpus), "--limit", "1", "--out", str(tmp_path / "out")]) == 0
    assert "Left out, as their packages are not installed: pesq, stoi, estoi" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["systems"]["small"].keys() == {
        "si_snr", "si_snri", "snr", "snri", "sdr", "sdri",
    }  # fmt: skip


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "example: avkit evaluate" in capsys.readouterr().out


def test_text_of_an_evaluation_is_its_table(corpus):
    result = run(corpus)
    assert isinstance(result, Evaluation) and str(result) == summary.as_table(result.summary)
