"""The small ablations: the plan, the verdict, and a queue that goes on after it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import toy_corpus

from avkit.ablations import changes_for
from avkit.errors import AvkitError, DataError, InputError
from avkit.lip_weights import save_lip_encoder
from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.registry import create_model
from avkit.reproduction import queue, records
from avkit.reproduction.command import main, split_settings
from avkit.reproduction.contrasts import Scale, contrasts, find, planned, train_argument
from avkit.reproduction.page import page
from avkit.reproduction.queue import Plan
from avkit.reproduction.rows import published
from avkit.reproduction.trends import judge, paired_interval, pairs

SMALL = "{channels: 8, hidden: 8, rnn_hidden: 4, rnn_layers: 1, lip_hidden: 8, lip_heads: 2}"


# ------------------------------------------------------------------------------------------------------- the plan


def test_the_six_contrasts_have_an_expected_sign_and_two_networks_that_exist():
    assert [c.id for c in contrasts()] == ["q", "r", "tf-ar", "s3", "caf", "inter-middle"]
    for contrast in contrasts():
        assert (
            contrast.expected in "+-" and contrast.why and contrast.first.network == contrast.second.network
        )
        assert (contrast.first.change == "") != (contrast.second.change == "")
        for variant in (contrast.first, contrast.second):
            field, _, value = variant.change.partition("=")
            if "overrides" in train_argument(variant.change):
                create_model(variant.network, **{field: int(value)})
            elif field:
                changes_for(variant.network, {field: {"false": False}.get(value, value)})


def test_the_paper_s_figures_are_those_of_the_ledger():
    known = {figure for entry in published()["ablations"] for figure in entry["paper"]}
    known |= {values["LRS2-2Mix"][0] for values in published()["scores"].values()}
    assert all(figure in known for contrast in contrasts() for figure in contrast.paper or ())


def test_every_run_of_the_plan_is_there_once_and_learns_from_as_many_examples():
    jobs = Plan(contrasts(), "talkers").jobs()
    assert (
        len(jobs) == len({(job.variant.name, job.seed) for job in jobs}) == 5 * 8
    )  # two presets, six variants
    for job in jobs:
        settings = " ".join(job.spec()["settings"])
        assert (
            f"--trainer.max_steps {planned().steps}" in settings
            and f"--seed_everything {job.seed} " in settings
        )
    assert [job.seed for job in Plan((find("q"),), "talkers").jobs()] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
    ]  # whole pairs


# ---------------------------------------------------------------------------------------------------- the verdict


def test_interval_is_student_s():
    mean, low, high = paired_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, low, high) == pytest.approx((3.0, 3 - 1.9632432, 3 + 1.9632432))  # t(0.975, 4) · √(2.5 / 5)
    with pytest.raises(InputError, match="at least two"):
        paired_interval([1.0])


@pytest.mark.parametrize(
    "differences,expected,begin",
    [
        ([1.0, 1.2, 0.9, 1.1, 1.0], "+", "reproduced"),
        ([1.0, -1.2, 0.9, -1.1, 1.0], "+", "not reproduced"),
        ([-1.0, -1.2, -0.9, -1.1, -1.0], "+", "the opposite"),
        ([-1.0, -1.2, -0.9, -1.1, -1.0], "-", "reproduced"),
        ([1.0, 1.2, 0.9, 1.1], "+", "undecided"),
    ],
)
def test_reproduced_needs_all_seeds_an_interval_without_zero_and_the_expected_sign(
    differences, expected, begin
):
    assert judge(differences, expected, planned=5).verdict.startswith(begin)
    assert judge(differences, expected, planned=5, as_planned=False).verdict.startswith("a first try")


def test_only_whole_pairs_count():
    contrast = find("r")
    first, second = contrast.first.name, contrast.second.name
    values = {(first, 0): 2.0, (second, 0): 1.5, (first, 1): 2.5, (second, 2): 1.0}
    found = pairs(contrast, {run: {"si_snri": value} for run, value in values.items()})
    assert found == [{"seed": 0, "first": 2.0, "second": 1.5, "difference": 0.5}]


# ------------------------------------------------------------------------------------------------------ the queue


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = toy_corpus.make(tmp_path_factory.mktemp("toy"), {"tr": 6, "cv": 2, "tt": 2}, seconds=0.6)
    torch.manual_seed(0)
    save_lip_encoder(root / "lips", LipEncoder(LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))))
    return root


def arguments(corpus: Path, out: Path, row: str = "trend.r", steps: int = 2) -> list[str]:
    return [row, "--corpus", str(corpus), "--runs", str(out / "runs"), "--out", str(out / "ledger"),
            "--seeds", "0", "1", "--steps", str(steps), "--mixtures", "2", "--data.segment", "0.6",
            "--model.lip_encoder", str(corpus / "lips"), f"--model.overrides={SMALL}"]  # fmt: skip


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs without processes of their own: the same `run_one`, one after the other."""

    def ended(jobs, runs, processes, deadline):
        for job in jobs:
            job.folder(runs).mkdir(parents=True, exist_ok=True)
            queue.run_one(job.folder(runs), job.spec())
            yield job, 1.0, True

    monkeypatch.setattr(queue, "_ended", ended)


def test_a_contrast_runs_and_becomes_a_record_and_a_line_of_the_page(
    corpus, tmp_path, capsys, in_this_process
):
    contrast = find("tf-ar")
    assert main(arguments(corpus, tmp_path, "trend.tf-ar")) == 0
    found = records.read(tmp_path / "ledger")["trend.tf-ar"]
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1] and len(found["runs"]) == 4
    assert found["examples"] == 8 and found["steps"] == 2 and found["synthetic"] and found["expected"] == "+"
    assert found["verdict"] == "a first try, not the planned scale"
    assert found["value"] == pytest.approx(sum(p["difference"] for p in found["pairs"]) / 2, abs=1e-3)
    assert any("--model.changes.reconstruction plain" in run["command"] for run in found["runs"])
    assert "`trend.tf-ar`" in page({"trend.tf-ar": found}) and "a first try" in page({"trend.tf-ar": found})
    results = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(results) == 4 and contrast.second.name in {path.parts[-3] for path in results}
    assert main(arguments(corpus, tmp_path, "trend.tf-ar")) == 0  # nothing is run again
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == results
    assert "4 of 4 runs have ended before" in capsys.readouterr().out
    with pytest.raises(InputError, match="other settings"):
        main(arguments(corpus, tmp_path, "trend.tf-ar", steps=3))


def test_without_a_corpus_the_command_that_makes_one_is_named(tmp_path):
    with pytest.raises(DataError, match="avkit corpus .* --minutes 600 --seed 0"):
        main(["trend.q", "--corpus", str(tmp_path / "none"), "--runs", str(tmp_path)])


def test_two_queues_do_not_work_in_one_folder(corpus, tmp_path):
    plan = Plan((find("q"),), str(corpus), Scale((0,), 1, 1, 1))
    with queue._alone(tmp_path), pytest.raises(InputError, match="Another queue"):
        queue.work(plan, tmp_path)


def test_a_failed_run_is_named_with_its_log(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "_ended", lambda jobs, runs, processes, deadline: [(jobs[0], 1.0, False)])
    plan = Plan((find("q"),), str(corpus), Scale((0,), 1, 1, 1))
    with pytest.raises(AvkitError, match=r"1 run\(s\) failed.*seed-0.log\.txt"):
        queue.work(plan, tmp_path, say=lambda line: None)


@pytest.mark.soak
def test_a_queue_that_was_killed_goes_on_where_it_stopped(corpus, tmp_path):
    """SIGKILL after the first result, in the middle of the second run; its processes end with it."""
    steps = 160
    command = [sys.executable, "-m", "avkit", "reproduce", *arguments(corpus, tmp_path, steps=steps)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    begun = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    runs = tmp_path / "runs"
    deadline = time.monotonic() + 300
    while len(list(runs.rglob("last.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    done = {path: path.read_text() for path in runs.rglob("result.json")}
    assert len(done) == 1
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0, again.stderr
    assert f"1 of 4 runs have ended before; 3 to do in {runs}" in again.stdout
    assert all(path.read_text() == text for path, text in done.items())
    logs = "".join(path.read_text() for path in runs.rglob("log.txt"))
    assert "Going on from" in logs and len(list(runs.rglob("result.json"))) == 4
    record = json.loads((tmp_path / "ledger" / "trend.r.json").read_text())
    assert record["steps"] == steps and len(record["pairs"]) == 2


@pytest.mark.soak
def test_a_queue_ends_at_its_time_and_says_what_is_left(corpus, tmp_path):
    command = [sys.executable, "-m", "avkit", "reproduce", *arguments(corpus, tmp_path, steps=100_000)]
    command[-1:-1] = ["--minutes", "1"]
    begun = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 1 and "2 seed pair(s) are still to be run" in ended.stdout, ended.stderr
    assert 55 < time.monotonic() - begun < 200
    assert list(tmp_path.rglob("log.txt")) and not list(tmp_path.rglob("result.json"))


def test_how_a_machine_runs_it_is_no_part_of_the_experiment():
    given = ("--model.graphs", "true", "--data.workers=2", "--model.learning_rate", "0.1", "--trainer.accelerator", "cpu")
    machine, extra = split_settings(given)
    assert machine == ("--model.graphs", "true", "--data.workers=2", "--trainer.accelerator", "cpu")
    assert extra == ("--model.learning_rate", "0.1")
    assert split_settings(("--trainer.devices", "2"))[0] == (), "two devices see twice as many items a step"
    plans = [Plan((find("q"),), "talkers", extra=extra, machine=kind) for kind in ((), machine)]
    assert plans[0].jobs()[0].spec() == plans[1].jobs()[0].spec()
