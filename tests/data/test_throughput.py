"""The table of reading speeds: its rows, and rates that follow from what was timed."""

import json
import time

import corpus_trees
import numpy as np
import pytest
import torch

from avkit.data import throughput
from avkit.data.checking import check
from avkit.data.manifests import write_manifest
from avkit.errors import InputError
from avkit.lip_weights import save_lip_encoder
from avkit.lips import LipEncoder, LipEncoderConfig


class Slow:
    """A source that takes 20 ms a batch."""

    def __len__(self):
        return 8

    def batch(self, epoch, rows):
        time.sleep(0.02)
        return {"row": torch.from_numpy(rows)}


def test_a_rate_is_items_over_time():
    rate = throughput.time_reading("slow", Slow(), batch_size=2, batches=10)
    assert 0 < rate.items_per_second <= 2 / 0.02, "a batch of two cannot come faster than its 20 ms"
    assert rate.start >= 0.02


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    layout = corpus_trees.make(folder / "tree", "lrs2", {"tr": 4}, seconds=0.8)
    write_manifest(folder, "tr", check(layout, "lrs2").splits["tr"].listed)
    torch.manual_seed(0)
    save_lip_encoder(folder / "lips", LipEncoder(LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))))
    return folder


def test_the_table(root, capsys):
    arguments = [str(root), "--segment", "0.8", "--batch-size", "2", "--batches", "3", "--workers", "0", "1", "--steps", "1",
                 "--lip-encoder", str(root / "lips"), "--json"]  # fmt: skip
    assert throughput.main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["what"] for row in told["rows"]] == [
        "files, 0 workers", "files, 1 workers", "memory", "training step of rtfs-net-tiny",
    ]  # fmt: skip
    assert all(np.isfinite(row["items_per_second"]) and row["items_per_second"] > 0 for row in told["rows"])
    assert throughput.main([*arguments[:-1], "--steps", "0"]) == 0
    said = capsys.readouterr().out
    assert "memory" in said and "0.8 s items in batches of 2" in said and "training step" not in said


def test_impossible_sizes_are_refused(root):
    with pytest.raises(InputError, match="at least 1"):
        throughput.main([str(root), "--batches", "0"])
