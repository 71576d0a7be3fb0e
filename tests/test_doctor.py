"""`avkit doctor`: its findings, its exit status, and that a broken part is named with what mends it."""

import json
import subprocess
import sys

import pytest

from avkit import doctor
from avkit.doctor import MISSING, WORKS, Finding


@pytest.fixture(scope="module")
def whole_report() -> tuple[int, dict]:
    """Exit status and JSON of the real command in this environment."""
    command = [sys.executable, "-m", "avkit", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def test_here_everything_works(whole_report):
    status, document = whole_report
    missing = [finding for finding in document["findings"] if finding["state"] != WORKS]
    assert [finding["name"] for finding in missing if finding["name"] != "browser"] == []
    assert document["ready"] is True
    assert status == 0


def test_each_finding_is_complete(whole_report):
    for finding in whole_report[1]["findings"]:
        assert set(finding) == {"name", "state", "detail", "needed", "remedy"}
        assert finding["detail"]
        assert bool(finding["remedy"]) == (finding["state"] == MISSING)


def test_what_the_networks_need_is_marked_as_needed(whole_report):
    needed = {finding["name"] for finding in whole_report[1]["findings"] if finding["needed"]}
    assert needed == {"Python", "PyTorch", "numerics", "sound files", "torchaudio", "networks"}


def broken(text: str):
    def trial() -> str:
        raise RuntimeError(text)

    return trial


def test_something_needed_that_is_broken_gives_status_1(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "try_sound_files", broken("no libsndfile\nsecond line"))
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    assert "MISSING  no libsndfile\n" in said
    assert "second line" not in said
    assert "Not ready: " in said
    assert "sound files" in said.partition("Not ready: ")[2]


def test_something_optional_that_is_broken_is_named_and_forgiven(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "try_pesq", broken("not built"))
    findings = doctor.examine()
    pesq = next(finding for finding in findings if finding.name == "PESQ")
    assert (pesq.state, pesq.needed) == (MISSING, False)
    assert "[pesq]" in pesq.remedy
    assert "C compiler" in pesq.remedy
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("PyTorch", WORKS, "2", True), pesq])
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    assert "Optional parts that are missing: PESQ." in said
    assert pesq.remedy in said


def test_a_package_that_is_not_installed_is_named():
    finding = doctor.attempt("x", doctor.installed("torch", "no-such-package-anywhere"), "mend")
    assert finding == Finding("x", MISSING, "not installed: no-such-package-anywhere", False, "mend")


def test_a_copy_without_networks_is_not_ready(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.avkit, "__file__", str(tmp_path / "avkit" / "__init__.py"))
    finding = doctor.attempt("networks", doctor.try_checkpoints, "mend", needed=True)
    assert finding.state == MISSING
    assert "no trained network" in finding.detail


def test_a_checkpoint_cut_short_is_found(monkeypatch, tmp_path):
    folder = tmp_path / "avkit" / "checkpoints_bundled" / "some-network"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{}")
    monkeypatch.setattr(doctor.avkit, "__file__", str(tmp_path / "avkit" / "__init__.py"))
    assert doctor.attempt("networks", doctor.try_checkpoints, "mend", needed=True).state == MISSING
