"""Notebook 14's measurements: drifting batch norms, commands run in place, simulated seeds, and what its text says."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.reproduction.rows import all_rows, find
from avkit.reproduction.trends import paired_interval
from avkit.teach import lesson14, lesson14_figures, samples
from avkit.teach import lesson14_lab as lab


@pytest.fixture(scope="module")
def talkers(repository):
    return repository / "data_samples" / "talkers"


def test_drifting_moves_statistics_and_nothing_else(talkers):
    torch.manual_seed(0)
    lips = LipEncoder(LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))).freeze()
    before = {name: tensor.clone() for name, tensor in lips.state_dict().items()}
    moved = lab.drifted(lips, [samples.load_sample(talkers, 0, "tr")], batches=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lips.state_dict().items())
    changed = {name for name, tensor in moved.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.split(".")[-1].startswith(("running", "num_batches")) for name in changed)
    assert lab.statistics_moved(lips, moved) > 0 == lab.statistics_moved(lips, lips)
    assert not moved.training and moved.frozen


def test_a_command_runs_where_it_is_told_and_gives_back_what_it_printed(tmp_path):
    printed = lab.command("avkit reproduce claim.caf-1.3-percent --out here", tmp_path)
    assert "0.083 of 6.4 G MACs" in printed and (tmp_path / "here" / "claim.caf-1.3-percent.json").exists()


def test_simulated_seeds_are_the_same_each_time_and_pairing_takes_out_what_is_shared():
    first, second = lesson14.simulate(5, 0.3, 1.5)
    again, _ = lesson14.simulate(5, 0.3, 1.5)
    assert np.array_equal(first, again)
    without = np.subtract(*lesson14.simulate(5, 0.3, 0.0))
    np.testing.assert_allclose(first - second, without, atol=1e-12)
    assert lesson14.interval(first, second) == pytest.approx(paired_interval(without)[1:])


def test_what_the_notebook_says_of_the_simulated_intervals():
    """What is shared pairing takes out; where nothing is, it costs degrees of freedom. 0.3 dB needs 20 seeds."""

    def intervals(seeds, shared):
        shown = lesson14.render_seeds(seeds, 0.3, shared).text
        found = re.search(r"paired interval (\S+) to (\S+), not paired (\S+) to (\S+)\.\]", shown).groups()
        return np.array(found, float).reshape(2, 2)

    for seeds in (2, 3, 5, 10, 20):
        (paired, unpaired), (paired_too, wide) = (np.ptp(intervals(seeds, shared), axis=1) for shared in (0.0, 1.5))
        assert paired > unpaired and paired_too < wide
        assert (intervals(seeds, 1.5)[0, 0] > 0) == (seeds == 20)
    assert np.ptp(intervals(2, 0.0), axis=1) == pytest.approx((12, 2.9), abs=0.1)


def test_both_sides_of_a_record():
    record = {"pairs": [{"seed": k, "first": 1.5 + k, "second": -0.1 - k} for k in (0, 1)], "runs": [{"minutes": 4.4}, {"minutes": 9.6}]}
    assert lab.sides(record) == ([1.5, 2.5], [-0.1, -1.1])
    assert lab.both_sides(record) == "+1.50 to +2.50 dB against -1.10 to -0.10 dB, in runs of 4 to 10 minutes"


def test_what_the_notebook_says_of_the_seven_per_cent():
    fast, full = find("iianet-fast.macs").code, find("iianet.macs")
    assert 100 * fast * full.paper / full.code / 167.2 == pytest.approx(7.0, abs=0.05)


def test_wall_of_tiles_counts_every_row_and_every_record():
    rows = all_rows()
    shown = lesson14_figures.draw_ledger(rows, {"iianet.macs": {}})
    assert f"A wall of {len(rows)} tiles" in shown.text and "1 have a dot" in shown.text


def test_contrasts_with_a_record_show_it():
    row = find("trend.r")
    shown = lesson14_figures.draw_contrasts([row], {"trend.r": {"interval": [0.1, 0.5], "value": 0.3}})
    assert "measured here: three passes of the block instead of one +0.30 dB" in shown.text
    assert "none of them has been run" in lesson14_figures.draw_contrasts([row], {}).text
