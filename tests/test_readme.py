"""What README.md promises: its library example runs as printed, its targets and commands exist."""

import json
import re
from pathlib import Path

import numpy as np
import torch

from avkit import bench, cli
from avkit._extras import EXTRA_OF
from avkit._first_light import bundled_mixture
from avkit.reproduction import rows
from avkit.separation import read_audio

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
NUMBERS = ("none", "one", "two", "three", "four", "five", "six")


def test_the_library_example_runs_as_printed():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    chosen = bundled_mixture()
    frames = torch.from_numpy(np.load(chosen.sources[0].mouth)["data"])[None]
    names = {
        "mixture": read_audio(chosen.audio)[0][None],
        "reference": read_audio(chosen.sources[0].audio)[0][None],
        "frames": frames,
        "lips": torch.randn(1, 512, frames.shape[1]),
    }
    with torch.no_grad():
        exec(example, names)  # noqa: S102 - our own text, run as a reader would
    assert names["voice"].shape == names["estimate"].shape == (1, 1, names["mixture"].shape[-1])


def test_the_table_of_speed_is_the_records_own():
    records = sorted((ROOT / "data_samples/results/speed").glob("run-*.json"))
    assert len(records) == 3
    assert bench.spread(records) in README
    timed = [row for record in records for row in json.loads(record.read_text())["rows"]]
    assert max(error for row in timed for error in row["errors"].values()) < 1e-6  # "less than one part in a million"


def test_the_table_of_the_gpus_speed_is_the_records_own():
    record = ROOT / "data_samples/results/speed/h200.json"
    assert bench.spread([record]) in README
    for row in json.loads(record.read_text())["rows"]:
        errors, ratios = row["errors"], row["ratios"]
        assert errors.get("official", 0.0) < 1e-3
        if "bf16" in errors:  # "move by about 1 % and nothing gets faster"
            assert 0.004 < errors["bf16"] < 0.015 and ratios["bf16"]["min/min"] > 1


def test_the_small_ablations_are_the_records_own():
    words = " ".join(README.split()).replace("−", "-")
    found = sorted((ROOT / "data_samples/results/ledger").glob("trend.*.json"))
    assert f"{NUMBERS[len(found)]} have been run" in words
    for record in map(json.loads, (path.read_text() for path in found)):
        low, high = record["interval"]
        assert f"{record['value']:+.2f} dB [{low:+.2f}, {high:+.2f}]" in words, record["row"]


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|    )make ([a-z]+)", README))
    assert {"lab", "test", "course", "soak", "clean"} <= named <= targets


def test_every_command_and_extra_it_names_exists():
    assert set(re.findall(r"`avkit ([a-z][a-z-]+)`", README)) <= set(cli.COMMANDS)
    assert set(re.findall(r"\.\[([a-z]+)\]", README)) <= {*EXTRA_OF.values(), "all"}


def test_every_file_it_links_or_names_exists():
    named = re.findall(r"\b((?:notebooks|data_samples|tests)/[\w./-]*|LICENSE|environment\.yml)", README)
    assert named
    for name in named:
        assert (ROOT / name.rstrip(".")).exists(), name


def test_the_map_of_the_house_is_complete():
    """Every room of the package has its place in CONTRIBUTING.md, and every place is there."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    house = text[text.index("## The house") : text.index("## Good first changes")]
    named = {name.removeprefix("avkit/").rstrip("/") for name in re.findall(r"`([\w./]+(?:\.py|/))`", house)}
    rooms = {path.name for path in (ROOT / "avkit").iterdir() if not path.name.startswith("_") and path.name != "bundled"}
    assert named - {"", "notebooks", "tests", "tests/notebooks", "lesson00.py"} == rooms
    for name in re.findall(r"`((?:avkit|tests)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_row_that_a_first_change_names_exists():
    (name,) = re.findall(r"ledger row\s+`([\w.-]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert rows.find(name)
