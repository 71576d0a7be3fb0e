"""Notebook 12's records, resampling, ranks, and scores taken apart; what it says of each fooled score."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from avkit import metrics
from avkit.data.labels import read_labels
from avkit.data.mixing import parse_name
from avkit.errors import DataError
from avkit.intervals import Interval, Resampler
from avkit.teach import damage, find_data, lesson12, load_sample
from avkit.teach import lesson12_lab as lab
from avkit.teach import lesson12_scores as taken_apart


@pytest.fixture(scope="module")
def data():
    return str(find_data("talkers"))


@pytest.fixture(scope="module")
def records(data):
    return lab.read_records(data)


@pytest.fixture(scope="module")
def voices(data):
    return load_sample(data, 1).voices.double()


def test_records_are_put_together_without_doubles(records):
    keys = [(row["system"], row["mixture"], row["talker"]) for row in records.rows]
    assert len(set(keys)) == len(keys) and records.networks[0] == lab.FIRST
    assert set(records.systems) == {row["system"] for row in records.rows}
    assert records.systems[: len(records.networks)] == records.networks


def write_record(folder, name, systems, value):
    folder.mkdir(parents=True)
    head = "mixture,talker,speaker,utterance,group,level_db,system,si_snr,si_snri,si_snr_other,note\n"
    rows = [f"m,{k},t{k},u{k},,1.0,{system},{value},{value},0.0,\n" for system in systems for k in (1, 2)]
    (folder / "rows.csv").write_text(head + "".join(rows))
    summary = {"systems": dict.fromkeys(systems), "swap_test": {name: {}}, "command": f"avkit evaluate {name}"}
    (folder / "summary.json").write_text(json.dumps(summary))


def test_two_records_and_one_that_is_still_being_made(tmp_path):
    write_record(tmp_path / "results/other-net-on-talkers", "other-net", ("other-net", "mixture"), 2.0)
    write_record(tmp_path / "results/rtfs-net-tiny-on-talkers", lab.FIRST, (lab.FIRST, "mixture"), 1.0)
    (tmp_path / "results/third-on-talkers").mkdir()
    found = lab.read_records(str(tmp_path / "talkers"))
    assert found.networks == (lab.FIRST, "other-net") and found.systems == (lab.FIRST, "other-net", "mixture")
    assert found.means("mixture") == {"m": 1.0} and found.means("other-net") == {"m": 2.0}
    with pytest.raises(DataError, match="avkit evaluate"):
        lab.read_records(str(tmp_path / "elsewhere" / "talkers"))


def test_resampling_by_hand_is_the_packages(records):
    values, pairs, names = lab.numbered(records, lab.FIRST)
    means = lesson12.resampled_means(values, pairs, lab.draw_counts(len(names)))
    theirs = Resampler(records.talkers()).interval(records.means(lab.FIRST))
    np.testing.assert_allclose(np.quantile(means, (0.025, 0.975)), (theirs.low, theirs.high), atol=1e-3)
    assert np.std(lab.as_if_mixtures(values)) < np.std(means)


def test_talkers_interval_is_too_wide_where_who_speaks_says_nothing(records):
    assert 1.3 < lab.width_if_shuffled(records, lab.FIRST, shuffles=20) < 1.8  # Owen and Eckles: at most √3


def test_more_talkers_decide_what_fifteen_cannot(records):
    for other in (lab.TWIN, "iianet-tiny"):
        few, many = lab.compare(records, lab.FIRST, other), lab.on_more_talkers(lab.FIRST, other)
        assert lab.talkers_needed(few) > few.talkers and not few.excludes_zero
        assert many.talkers > few.talkers and many.excludes_zero
    assert many.talkers > lab.talkers_needed(few)  # of the two networks it was foretold, of the twin it was not


def test_groups_of_voices_make_up_the_whole():
    found = lab.on_more_talkers_by_voices(lab.FIRST, lab.TWIN)
    whole = lab.on_more_talkers(lab.FIRST, lab.TWIN)
    assert set(found) == {"like pitch", "other", "same voice"} and sum(part.mixtures for part in found.values()) == 400
    assert sum(part.mean * part.mixtures for part in found.values()) / 400 == pytest.approx(whole.mean)


def test_stages_are_read_with_what_each_began_with():
    curves, ahead = lab.read_stages()
    assert tuple(curves) == tuple(lab.STAGES.values())
    watching, listening, stages, more = curves.values()
    for examples, gains in (watching, listening):
        assert len(examples) == len(gains) == 12 and (examples[0], examples[-1]) == (4000, 48000)
    for examples, gains in (stages, more):  # from the twin's end on
        assert len(examples) == len(gains) == 6 and gains[0] == listening[1][-1]
        assert (examples[0], examples[1], examples[-1]) == (48000, 52000, 68000)
    means = lab.stages_by_voices()
    assert set(ahead) == set(curves) - {"first without, then with lips"} and set(means) == set(curves)
    for way, interval in ahead.items():
        assert interval.mixtures == 400
        assert interval.mean == pytest.approx(means["first without, then with lips"]["all"] - means[way]["all"])


def test_verdicts_and_how_many_talkers_it_would_take():
    unsure, sure = Interval(1.0, -1.0, 3.0, 30, 15), Interval(-2.0, -3.0, -1.0, 30, 15)
    assert "may be chance" in lab.verdict(unsure, "a", "b") and "b is ahead" in lab.verdict(sure, "a", "b")
    assert lab.talkers_needed(unsure) == 60 and lab.talkers_needed(sure) == 4


def test_ranks_share_ties():
    x = np.array([3.0, 1.0, 3.0, 2.0])
    assert lab._ranks(x).tolist() == [2.5, 0.0, 2.5, 1.0]
    assert lab.rank_correlation(x, np.exp(x)) == pytest.approx(1.0)
    assert lab.rank_correlation(x, -x) == pytest.approx(-1.0)


def test_partial_rank_correlation_takes_out_what_both_share():
    shared, own = np.random.default_rng(0).normal(size=(2, 400))
    x, y = shared + 0.3 * own, shared - 0.3 * own
    assert lab.rank_correlation(x, y) > 0.7 and lab.partial_rank_correlation(x, y, shared) < -0.9


def test_level_makes_a_voice_clean_and_its_gain_small(records, data):
    known = lab.factors(records, data, lab.FIRST)
    assert lab.rank_correlation(known["level"], known["si_snr"]) > 0.3
    assert lab.rank_correlation(known["level"], known["si_snri"]) < 0


def test_stoi_by_hand_is_the_packages(voices):
    pytest.importorskip("pystoi")
    voice, other = voices
    for below in (0, 10):
        estimate = voice + other * 10 ** (-below / 20)
        mine = lesson12.stoi_of_bands(*taken_apart.third_octaves(estimate, voice))
        assert float(mine) == pytest.approx(float(metrics.stoi(estimate, voice)), abs=0.005)


@pytest.mark.parametrize("score", taken_apart.FOOLS)
def test_each_score_is_fooled(voices, score):
    """Fine sounds score low, spoilt ones high, each on its score's own scale."""
    scores = taken_apart.scores_here()
    if score not in scores:
        pytest.skip(f"{score} is not installed")
    middle = {"SI-SNR": 10.0, "SDR": 10.0, "PESQ": 2.0, "STOI": 0.8}[score]
    assert len(taken_apart.FOOLS[score]) == 3
    for name, (ear, make) in taken_apart.FOOLS[score].items():
        sound = make(*voices)
        assert sound.shape == voices[0].shape and sound.isfinite().all()
        value = taken_apart.rate(sound, voices[0], scores)[score]
        assert (value < middle) == (ear == taken_apart.FINE), (name, value)


def test_the_word_that_is_missing_is_the_corpus_s(data, voices):
    """And what the notebook says of it: of the sentence's six pieces only "mushroom" costs more PESQ than the hiss."""
    utterance = parse_name(load_sample(data, 1).name).utt1
    labels = read_labels(data)
    words = {word: ends for word, *ends in labels.rows[labels.index(utterance)]["words"]}
    assert tuple(words["was"]) == taken_apart.WAS and len(words) == 6
    scores = taken_apart.scores_here()
    if "PESQ" not in scores:
        pytest.skip("PESQ is not installed")
    voice = voices[0]
    hiss = float(scores["PESQ"](damage.hiss(voice, 25), voice))
    lost = {word: float(scores["PESQ"](damage.silenced(voice, *ends), voice)) for word, ends in words.items()}
    assert [word for word, value in lost.items() if value < hiss] == ["mushroom"]


def test_an_all_pass_changes_no_level(voices):
    made = taken_apart.all_pass(voices[0])
    window = torch.hann_window(4096, dtype=torch.float64)
    levels = [torch.stft(x, 4096, window=window, return_complex=True).abs().square().sum(1) for x in (made, voices[0])]
    assert float((levels[0].sqrt() - levels[1].sqrt()).norm() / levels[1].sqrt().norm()) < 0.1
    assert float(metrics.si_snr(made, voices[0])) < 0


def test_a_metric_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(lab, "available_metrics", lambda: ("si_snr", "snr", "sdr", "stoi", "estoi"))
    assert "pesq" in lab.missing_metrics() and "avkit doctor" in lab.missing_metrics()
