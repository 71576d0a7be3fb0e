"""Lips drawn from their opening alone: the same face and the same beat, nothing else of the mouth's shape."""

import json

import numpy as np
import pytest

from avkit.data import corpus, manifests
from avkit.data.datasets import ItemSettings, open_split
from avkit.data.labels import read_labels, read_mouth
from avkit.data.opening import draw_opening, redraw
from avkit.data.visemes import CURVES
from avkit.errors import DataError, InputError


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("opening") / "corpus"
    corpus.make_corpus(root, corpus.Plan(seed=5, tr=4, cv=0, tt=4), workers=1, quiet=True)
    return root


def test_the_label_table_redraws_the_corpus(small):
    for row in read_labels(small).rows:
        np.testing.assert_array_equal(redraw(row), read_mouth(small, row["id"]))


def test_only_the_opening_counts(small):
    row = next(row for row in read_labels(small).rows if max(row["curves"]["rounding"]) > 300)
    changed = row | {"curves": {name: row["curves"][name] if name == "opening" else [7] * 50 for name in CURVES}}
    np.testing.assert_array_equal(redraw(row, ("opening",)), redraw(changed, ("opening",)))
    assert (redraw(row, ("opening",)) != redraw(row)).any()
    shut = row | {"curves": row["curves"] | {"opening": [0] * 50}}
    assert (redraw(shut, ("opening",)) != redraw(row, ("opening",))).any()


def test_command_draws_what_is_missing(small, capsys):
    assert corpus.main([str(small), "--opening", "--workers", "1", "--quiet"]) == 0
    assert "mouths-opening: complete" in capsys.readouterr().out
    paths = sorted((small / "mouths-opening").iterdir())
    assert [path.name for path in paths] == sorted(path.name for path in (small / "mouths").iterdir())
    row = read_labels(small).rows[0]
    np.testing.assert_array_equal(np.load(paths[0])["data"], redraw(row, ("opening",)))
    before = paths[1].stat().st_mtime_ns, paths[0].read_bytes()
    paths[0].unlink()
    draw_opening(small, workers=1, quiet=True)
    assert (paths[1].stat().st_mtime_ns, paths[0].read_bytes()) == before
    assert corpus.verify(small, workers=1) == {"audio": True, "mouths": True, "labels": True}


def test_training_reads_them(small):
    draw_opening(small, workers=1, quiet=True)
    listed, other = (open_split(small, "tr", ItemSettings(mouths=mouths), 0) for mouths in (None, manifests.OPENING))
    for one, two in ((listed[0, row], other[0, row]) for row in range(len(listed))):
        assert (one["mixture"] == two["mixture"]).all() and (one["lips"] != two["lips"]).any()
    with pytest.raises(InputError, match="Leave one of the two out"):
        ItemSettings(mouths=manifests.OPENING, features="abc")


def test_no_corpus_is_named(tmp_path):
    with pytest.raises(DataError, match="no finished corpus"):
        draw_opening(tmp_path)
    (tmp_path / "corpus.json").write_text(json.dumps({"plan": {}}))
    with pytest.raises(DataError, match="no finished corpus"):
        draw_opening(tmp_path)
