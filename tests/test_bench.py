"""`avkit bench`: rows, ratios, the record, and the official code where checkouts are named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from avkit import bench, bench_official, fast
from avkit.bench import Result, main
from avkit.errors import InputError

OFFICIAL = os.environ.get("AVKIT_OFFICIAL")  # a folder with checkouts of both official repositories


def test_a_row_is_timed_compared_and_recorded(tmp_path, capsys):
    record = tmp_path / "bench.json"
    assert main(["iianet-tiny", "--rounds", "1", "--threads", "1", "--seconds", "0.5", "--out", str(record)]) == 0
    printed = capsys.readouterr().out
    assert "allocator: " in printed and "× real time" in printed
    written = json.loads(record.read_text())
    (row,) = written["rows"]
    assert row["row"] == "iianet-tiny" and set(row["times"]) == {"fast", "readable"}
    assert row["errors"]["readable"] < 1e-5
    assert row["ratios"]["readable"]["processor"] > 0
    assert all(size > 0 for size in row["memory"].values())
    assert written["setting"]["threads"] == "1"


def test_a_training_step_is_a_row_too(capsys):
    arguments = ["rtfs-net-tiny:train", "--rounds", "1", "--threads", "1", "--seconds", "0.6", "--no-memory"]
    assert main(arguments) == 0
    assert "rtfs-net-tiny:train" in capsys.readouterr().out


def test_ratios_are_those_of_the_shortest_and_the_median_times():
    result = Result("x", 2.0, {"fast": [1.0, 2.0, 4.0], "readable": [6.0, 3.0, 12.0]})
    assert result.as_dict()["ratios"]["readable"] == {"min/min": 3.0, "median": 3.0}
    assert result.as_dict()["times real time"] == 2.0


def test_several_records_become_one_table_with_ranges(tmp_path, capsys):
    for number, time in enumerate((1.0, 0.8)):
        result = Result("x", 2.0, {"fast": [time], "readable": [3.0], "official": [4.0]}, {}, {"fast": 10, "official": 20})
        (tmp_path / f"{number}.json").write_text(json.dumps({"rows": [result.as_dict()]}))
    assert main(["--read", str(tmp_path / "0.json"), str(tmp_path / "1.json")]) == 0
    assert "| x | official | 800–1000 | 4000 | 4.00–5.00 | 50 % | 2.0–2.5 |" in capsys.readouterr().out


def test_what_is_no_record_or_no_match_is_refused(tmp_path):
    for name, content in (("a", {"rows": []}), ("b", {"rows": [Result("x", 2.0, {"fast": [1.0]}).as_dict()]}), ("c", 7)):
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match="different rows"):
        main(["--read", str(tmp_path / "a"), str(tmp_path / "b")])
    for name in ("c", "nothing"):
        with pytest.raises(InputError, match=f"{name} is no record"):
            main(["--read", str(tmp_path / name)])


@pytest.mark.parametrize("row", ["rtfs-net", "rtfs-net-4:eval", "lip-encoder:train"])
def test_unknown_rows_are_named(row):
    with pytest.raises(InputError, match="no row"):
        main([row])


def test_a_missing_checkout_is_named_with_the_command_that_mends_it(tmp_path):
    with pytest.raises(InputError, match="git clone https://github.com/JusperLee/IIANet"):
        bench_official.build("iianet", tmp_path)


def test_every_row_of_the_standard_run_exists():
    assert [bench._checked(row) for row in bench.ROWS] == list(bench.ROWS)


@pytest.mark.soak
@pytest.mark.skipif(OFFICIAL is None, reason="AVKIT_OFFICIAL names no folder with the official repositories")
@pytest.mark.parametrize("name", ["rtfs-net-4", "iianet", "lip-encoder"])
def test_the_official_code_computes_the_same(name, capsys):
    arguments = [name, "--official", str(Path(OFFICIAL)), "--rounds", "1", "--no-memory", "--seconds", "1"]
    assert main(arguments) == 0
    assert fast.available()
    assert "official" in capsys.readouterr().out
