"""The ledger: every row has a state and a command, what needs no data is recomputed, the rest says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from avkit.cli import COMMANDS
from avkit.errors import InputError
from avkit.registry import create_model
from avkit.reproduction import records
from avkit.reproduction import rows as ledger
from avkit.reproduction.claims import OUTCOMES
from avkit.reproduction.command import main, missing
from avkit.reproduction.page import page, table
from avkit.reproduction.page import published as published_text
from avkit.reproduction.rows import COMPUTED, CORPORA, SCORES, STATES, all_rows, find, published

ROWS = all_rows()


def test_every_row_says_what_it_is_in_which_state_and_by_which_command():
    for row in ROWS:
        assert row.what and row.state in STATES, row.name
        for line in row.command.splitlines():
            program, command, *_ = line.split()
            assert program == "avkit" and command in COMMANDS, row.name
        assert row.how or row.corpus or row.state == "cited", (
            f"{row.name} is neither computed nor waiting for a corpus"
        )


def test_every_published_figure_has_a_row():
    values = [row.paper for row in ROWS]
    for network, by_corpus in published()["scores"].items():
        for corpus, figures in by_corpus.items():
            for score, figure in zip(SCORES, figures, strict=True):
                name = f"{network.lower()}.{CORPORA[corpus]}.{score.lower().replace('-', '')}"
                assert find(name).paper == figure
    for group in ("three_talkers", "times"):
        for entry in published()[group].values():
            assert all(
                figure in values for figure in (entry if isinstance(entry, list) else [entry["paper"]])
            )
    for entry in published()["ablations"]:
        assert find(f"{entry['id']}.sisnri").paper == entry["paper"][0]
    assert find("lrs2.mixtures.tt").paper == 3000 and find("vox2.mixtures.tt").paper == 2965
    assert sum(row.state == "same weights" for row in ROWS) == 9  # IIANet's three corpora and three scores
    assert {row.unit for row in ROWS} >= {"dB", "PESQ", "ms", "M", "G MACs"}


COUNTED = [
    row for row in ROWS if row.code and row.name != "rtfs-net-12.macs"
]  # tests/test_rtfs.py counts that one


@pytest.mark.parametrize("row", COUNTED, ids=lambda row: row.name)
def test_sizes_are_those_of_the_official_code(row, tmp_path):
    assert main([row.name, "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / f"{row.name}.json").read_text())
    assert record["value"] == pytest.approx(row.code, abs=5e-4)
    rounded = abs(record["value"] - row.paper) <= 0.05 + 1e-9 if row.paper else True
    if row.unit == "G MACs":
        assert (row.state == "exact") == rounded, row.name
    assert record["command"] == f"avkit reproduce {row.name}" and record["versions"]["torch"]


def test_a_time_stands_beside_the_official_code_s(tmp_path, monkeypatch, capsys):
    """With checkouts given; a make-believe official network that calls ours twice takes twice as long."""
    from avkit import bench_official

    class Twice(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, mixture, lips):
            self.network(mixture, lips)
            return self.network(mixture, lips)

    monkeypatch.setattr(bench_official, "build", lambda name, folder: Twice(create_model(name)))
    monkeypatch.setattr(bench_official, "ours", lambda official, name: official.network)
    assert main(["rtfs-net-4.time", "--official", str(tmp_path), "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "rtfs-net-4.time.json").read_text())
    assert record["code"] > 1.3 * record["value"] and record["command"].endswith("--official DIR")
    assert f"official code {record['code']:.1f} ms" in capsys.readouterr().out
    (line,) = (line for line in page({record["row"]: record}).splitlines() if "`rtfs-net-4.time`" in line)
    assert f"| {record['code']:.1f} ms | {record['value']:.1f} ms |" in line


def test_sizes_of_ablations_are_computed(tmp_path, capsys):
    assert main(["fusion-caf.parameters", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "fusion-caf.parameters.json").read_text())["value"] == pytest.approx(7.936)
    assert "paper 7 K" in capsys.readouterr().out


def test_the_papers_figures_keep_their_digits():
    shown = {name: published_text(find(name))[0] for name in ("iianet.time", "q-2.macs", "blocks-unshared.parameters", "ctcnet.macs")}
    assert list(shown.values()) == ["110.11 ms", "21.9 G", "2,183 K", "167.2 G"]
    assert published_text(find("rtfs-net-12.vox2.pesq"))[0] == "3.00" and published_text(find("q-5.sisnri"))[0] == "11.0 dB"
    assert published_text(find("iianet-without-intra.sisnri"))[0] == "not quoted here"


def test_a_difference_says_by_how_much_and_a_text_stands_once():
    lines = page(records.read(SHIPPED)).splitlines()
    (macs,) = (line for line in lines if line.startswith("| `rtfs-net-6.macs`"))
    assert "30.614 G (+0.4 %)" in macs
    (claim,) = (line for line in lines if line.startswith("| `claim.rtfs-beats-ctcnet`"))
    assert claim.count("RTFS-Net-6") == 1


@pytest.mark.parametrize(("wrong", "right"), [("iianet.lrs2.sisnr", "iianet.lrs2.sisnri"), ("rtfs4.macs", "rtfs-net-4.macs")])
def test_a_misspelt_row_is_guessed(wrong, right):
    with pytest.raises(InputError, match=rf"near it: .*\b{right}\b"):
        find(wrong)


def test_the_list_finds_the_shipped_records_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--list"]) == 0
    assert "30.614 G" in capsys.readouterr().out
    for named in ("empty", "missing"):  # a folder that was asked for is the one that is read
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main(["--list", "--out", named]) == 0
        assert f"no records in {named}" in capsys.readouterr().err


def test_claims_come_to_what_the_tables_say():
    tables = published()
    value, note = OUTCOMES["rtfs_beats_ctcnet"](tables)
    ahead, behind = note.split("; not ahead by ")
    assert value is None and "SI-SNRi on LRS2-2Mix" in ahead and "SDRi on LRS2-2Mix" in ahead
    assert (
        "PESQ on LRS2-2Mix" in behind
        and "SI-SNRi on LRS3-2Mix" in behind
        and "SI-SNRi on VoxCeleb2-2Mix" in behind
    )
    assert OUTCOMES["caf_share"](tables)[0] == pytest.approx(1.3, abs=0.05)
    assert OUTCOMES["fast_gain"](tables)[0] == pytest.approx(0.8)


def test_a_row_that_needs_weights_and_data_says_so(capsys):
    assert main(["iianet.lrs2.si-snri".replace("si-snri", "sisnri")]) == 1
    printed = capsys.readouterr().out
    assert "iianet-lrs2" in printed and "LRS2-2Mix, which is licensed" in printed and "16.0 dB" in printed
    assert "avkit evaluate iianet-lrs2" in printed


def test_ablations_name_the_change_to_train_with():
    assert "--model.changes.fusion concatenation" in missing(find("fusion-concatenation.sisnri"))
    assert "--model.overrides.levels 3" in missing(find("q-3.sisnri"))


def test_the_list_has_no_empty_cell(tmp_path):
    lines = table({}).splitlines()
    assert len(lines) == len(ROWS) + 1
    for row in json.loads(_printed_json(tmp_path)):
        assert row["name"] and row["what"] and row["state"] and row["command"]
    assert "|  |" not in page({})
    cells = [
        cell.strip()
        for line in page({}).splitlines()
        if line.startswith("|")
        for cell in line.split("|")[1:-1]
    ]
    assert len([cell for cell in cells if not cell]) == 1  # the head of the differences' first column


def _printed_json(folder) -> str:
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["--list", "--json", "--out", str(folder)]) == 0
    return text.getvalue()


def test_the_page_is_made_from_the_records(tmp_path):
    assert main(["iianet.parameters", "--out", str(tmp_path)]) == 0
    assert main(["--page", str(tmp_path / "ledger.md"), "--out", str(tmp_path)]) == 0
    assert "3.037 M" in (tmp_path / "ledger.md").read_text()


def test_unknown_rows_are_named_with_those_near(tmp_path):
    with pytest.raises(InputError, match=r"iianet\.parameters"):
        find("iianet.params")


def test_changes_in_the_ledger_exist():
    from avkit.ablations import changes_for

    for entry in ledger.published()["ablations"]:
        field, _, value = entry["change"].partition("=")
        if field and field not in ("levels", "repeats"):
            changes_for("rtfs-net-4", {field: value})


# ------------------------------------------------------------------------------------------- the records that ship

SHIPPED = Path(__file__).parents[2] / "data_samples" / "results" / "ledger"


def test_the_shipped_page_is_made_from_the_shipped_records():
    assert (SHIPPED / "README.md").read_text(encoding="utf-8") == page(records.read(SHIPPED))


def test_every_row_that_needs_no_data_has_a_record_with_its_provenance():
    found = records.read(SHIPPED)
    for row in ROWS:
        if row.state in COMPUTED:
            record, timed = found[row.name], row.state == "other hardware"  # a time stands beside the official code's
            assert record["paper"] == row.paper and record["unit"] == row.unit
            assert record["code"] > 0 if timed else record["code"] == row.code
            assert record["command"] == f"avkit reproduce {row.name}" + " --official DIR" * timed
            assert record["date"] and record["machine"]
            if row.code:
                assert record["value"] == pytest.approx(row.code, abs=5e-4)
    assert set(found) <= {row.name for row in ROWS}


def test_what_is_called_exact_agrees_with_the_paper_as_far_as_it_prints():
    for name, record in records.read(SHIPPED).items():
        row = find(name)
        if row.state == "exact" and row.paper:
            scale = 10 ** len(f"{row.paper:g}".partition(".")[2])
            rounded, cut = round(record["value"] * scale), int(record["value"] * scale)  # the paper cuts thousands off
            assert round(row.paper * scale) in ((rounded, cut) if row.unit == "K parameters" else (rounded,)), name


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["iianet.parameters", "--data.root", "x"])
    assert "--data.root" in capsys.readouterr().err
