"""The recipes for LRS2, LRS3 and VoxCeleb2: the ledger's own commands, run at toy size on trees named as each corpus is."""

from __future__ import annotations

import json
import shlex

import corpus_trees
import pytest
import torch

from avkit import cli
from avkit.errors import DataError, InputError
from avkit.lip_weights import save_lip_encoder
from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.reproduction import records
from avkit.reproduction.page import measured
from avkit.reproduction.rows import find

IIANET = "{cycles: 2, fusion_cycles: 1, channels: 8, hidden: 16, lip_hidden: 8, levels: 2}"
TOY = {
    "prepare": ["--quiet", "--workers", "1"],
    "train": ["--data.segment", "0.8", "--data.workers", "0", "--data.batch_size", "2", "--trainer.max_epochs", "1",
              "--trainer.accelerator", "cpu", "--trainer.sync_batchnorm", "false"],
    "evaluate": ["--metrics", "si_snr", "snr"],
    "reproduce": [],
}  # fmt: skip


def at_toy_size(line: str, places: dict[str, str], overrides: str) -> list[str]:
    """A line of the ledger with its places filled in, for one process and a tiny network."""
    words = shlex.split(line.replace("--trainer.devices 8 --trainer.strategy ddp", "--trainer.devices 1"))[1:]
    words = [places.get(word, word) for word in words]
    extra = [f"--model.overrides={overrides}"] if words[0] == "train" else []
    return [*words, *TOY[words[0]], *extra]


@pytest.mark.parametrize(
    "name,overrides",
    [("rtfs-net-4.lrs2.sisnri", corpus_trees.RTFS), ("iianet-fast.lrs3.sisnri", IIANET), ("rtfs-net-6.vox2.sdri", corpus_trees.RTFS)],
)
def test_from_a_corpus_to_a_row_of_the_ledger(name, overrides, tmp_path, monkeypatch, capsys):
    row = find(name)
    tree = corpus_trees.make(tmp_path / "tree", row.corpus, {"tr": 2, "cv": 1, "tt": 2}, seconds=0.8)
    torch.manual_seed(0)
    save_lip_encoder(tmp_path / "lips", LipEncoder(LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))))
    monkeypatch.chdir(tmp_path)
    places = {"ROOT": str(tree.root), "LIP_WEIGHTS": "lips"}
    lines = row.command.splitlines()
    assert [line.split()[1] for line in lines] == ["prepare", "train", "evaluate", "reproduce"]
    for line in lines:
        # 1: faults were found, which is so: the tree is smaller than the corpus
        assert cli.main(at_toy_size(line, places, overrides)) in ((0, 1) if "prepare" in line else (0,)), line
    record = records.read(tmp_path / "results" / "ledger")[name]
    summary = json.loads(next((tmp_path / "results").glob("*/summary.json")).read_text())
    assert record["value"] == summary["systems"]["model"][row.column]["mean"]
    assert record["paper"] == row.paper and record["command"] == lines[-1]
    assert record["evaluation"]["data"]["mixtures"] == 2 and record["evaluation"]["command"].startswith("avkit evaluate")
    assert measured(row, {name: record}).endswith("dB")
    assert f"{name}: paper" in capsys.readouterr().out


def test_a_row_without_an_evaluation_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"avkit evaluate MODEL DATA --out"):
        records.from_evaluation(find("iianet.lrs2.sisnri"), tmp_path)
    with pytest.raises(InputError, match="is no score of an evaluation"):
        records.from_evaluation(find("iianet.parameters"), tmp_path)


def test_a_column_that_was_not_computed_is_named(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"systems": {"model": {"si_snri": None}}, "data": {}}))
    with pytest.raises(InputError, match="has no pesq_nb_raw of model"):
        records.from_evaluation(find("iianet.lrs2.pesq"), tmp_path)


def test_columns_are_what_each_paper_calls_by_its_names():
    """RTFS-Net's SDR is an SNR; IIANet's is BSS-eval's; PESQ is raw narrow-band in both tables."""
    assert find("rtfs-net-12.lrs2.sdri").column == "snri" and find("iianet.lrs2.sdri").column == "sdri"
    assert find("iianet.vox2.pesq").column == find("rtfs-net-4.vox2.pesq").column == "pesq_nb_raw"
