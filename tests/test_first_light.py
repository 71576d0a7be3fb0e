"""The first separation of `make lab`, with the network and the mixture that ship."""

import json
import re
import subprocess
import sys

import pytest
import torch

from avkit import _first_light
from avkit.metrics import si_snr
from avkit.separation import read_audio

STEPS = (
    "git clone",
    "make lab, until JupyterLab answers",
    "first notebook: open, run all cells",
    "first exercise of notebook 01, wrong and then right",
    "two minutes of talkers, 200 steps of training, evaluation",
    "the voices of a video",
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder that was written and the lines that were printed."""
    out = tmp_path_factory.mktemp("first") / "light"
    return out, _first_light.separate_first(out).splitlines()


def test_both_talkers_come_out_better_than_they_went_in(shown):
    gains = [float(value) for value in re.findall(r"SI-SNRi +([+-][\d.]+) dB", "\n".join(shown[1]))]
    assert len(gains) == 2
    assert min(gains) > 3


def test_the_figures_are_those_of_the_files_written(shown):
    out, lines = shown
    mixture, _ = read_audio(out / "mixture.wav")
    for number, source in enumerate(_first_light.bundled_mixture().sources, start=1):
        talker, _ = read_audio(source.audio)
        voice, rate = read_audio(out / f"talker_{number}.wav")
        assert rate == 16000
        row = next(line for line in lines if line.startswith(f"  talker {number}:"))
        before, after, gain = map(float, re.findall(r"([+-]?\d+\.\d+) dB", row))
        assert float(si_snr(mixture, talker)) == pytest.approx(before, abs=0.02)
        assert float(si_snr(voice, talker)) == pytest.approx(after, abs=0.02)
        assert gain == pytest.approx(after - before, abs=0.011)
        assert str(out / f"talker_{number}.wav") in row


def test_each_voice_is_nearer_to_its_own_talker(shown):
    out, _ = shown
    sources = _first_light.bundled_mixture().sources
    talkers = torch.stack([read_audio(source.audio)[0] for source in sources])
    voices = torch.stack([read_audio(out / f"talker_{number}.wav")[0] for number in (1, 2)])
    own, other = si_snr(voices, talkers), si_snr(voices, talkers.flip(0))
    assert (own > other).all()


def test_without_a_network_it_ends_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(_first_light, "NETWORK", "no-such-network")
    assert _first_light.main([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("The first separation did not work: ")
    assert "no-such-network" in said


@pytest.mark.soak
def test_a_first_visit_from_a_fresh_clone(repository, tmp_path):
    """Environment, first notebook in a browser, an exercise, a training run, a video: see tests/first_visit.py."""
    command = [sys.executable, str(repository / "tests/first_visit.py"), str(tmp_path / "visit")]
    visited = subprocess.run(command, capture_output=True, text=True, check=False)
    assert visited.returncode == 0, visited.stdout + visited.stderr
    steps = json.loads((tmp_path / "visit/visit.json").read_text())["steps"]
    assert [step["step"] for step in steps] == list(STEPS)


def test_the_record_of_a_first_visit_is_whole(repository):
    """Every step of the record that ships, in order, each with its time and what it showed."""
    record = json.loads((repository / "data_samples/results/first-visit.json").read_text())
    steps = record["steps"]
    assert [step["step"] for step in steps if step["step"] != "make test"] == list(STEPS)
    lab, notebook, exercise = steps[1:4]
    assert len(lab["gains"]) == 2 and all(gain.startswith("+") for gain in lab["gains"])
    assert notebook["players"] > 3 and notebook["pictures"] > 3
    assert exercise["wrong"].startswith("Not yet") and exercise["right"].startswith("Right")
    readme = (repository / "README.md").read_text()
    whole = sum(step["seconds"] for step in steps if step["step"] != "make test")
    for what, seconds in (("`make lab`, until JupyterLab answers", lab["seconds"]), ("a whole first visit", whole)):
        assert re.search(rf"\| {re.escape(what)}[^|]*\| {seconds // 60:.0f} min {seconds % 60:.0f} s \|", readme), seconds
