"""Notebook 02's helpers: claims that three scores rank in three ways, masks by name, tables that carry their words."""

from __future__ import annotations

import torch

from avkit import metrics
from avkit.baselines import ideal_mask
from avkit.teach import find_data, lesson02, lesson02_figures, load_sample, quizzes


def test_scores_disagree_about_the_claims():
    voice = load_sample(find_data("talkers"), 1).voices[0].double()
    claims = lesson02.claims(voice)
    orders = {
        score: sorted(claims, key=lambda claim: -float(getattr(metrics, score)(claims[claim], voice)))
        for score in ("si_snr", "pesq", "stoi")
    }
    assert {score: "".join(order) for score, order in orders.items()} == {
        "si_snr": "BCA",
        "pesq": "ACB",
        "stoi": "ABC",
    }


def test_masks_by_name():
    draw = torch.Generator().manual_seed(0)
    sources = torch.randn(2, 5, 7, dtype=torch.complex64, generator=draw)
    mixture = sources.sum(0)
    binary = lesson02.mask_named("binary", sources, mixture)
    assert torch.equal(binary.sum(0), torch.ones(5, 7))
    assert torch.equal(binary[0] == 1, sources[0].abs() > sources[1].abs())
    for shown, name in (("ratio", "irm"), ("phase-sensitive", "psm"), ("complex, up to 2", "crm")):
        assert torch.equal(lesson02.mask_named(shown, sources, mixture), ideal_mask(name, sources, mixture))


def test_table_of_scores_in_html_and_words():
    table = lesson02_figures.show_scores({"a < b": {"SI-SNR": -1.25, "STOI": 0.5}}, "title")
    assert "a &lt; b" in table.html and "<td" in table.html and 'scope="row"' in table.html
    assert table.text == "title\na < b: SI-SNR −1.2, STOI 0.50"


def test_questions_are_complete():
    quizzes.check_questions(lesson02.BEFORE)
    assert len(lesson02.BEFORE) == 5
