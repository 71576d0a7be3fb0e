"""Notebook 00's experiment: with a talker's lips the output is a voice, with lips of nobody in the mixture it is none."""

from __future__ import annotations

import pytest

from avkit import separate
from avkit.metrics import si_snr
from avkit.teach import count_samples, find_data, lesson00, load_sample


@pytest.mark.parametrize("mixture", lesson00.EXPLORERS["whose"].controls[1].options)
def test_only_lips_of_a_talker_bring_a_voice(mixture):
    data = find_data("talkers")
    sample, stranger = (load_sample(data, i) for i in (mixture, (mixture + 11) % count_samples(data)))
    found = {}
    for whose in lesson00.WHOSE:
        voice = separate(sample.mixture, lesson00.lips_of(whose, sample, stranger), model=lesson00._network())[0, 0]
        found[whose] = (si_snr(voice.expand(2, -1), sample.voices) > 0).tolist()
    first, second, still, strange = lesson00.WHOSE
    assert found == {first: [True, False], second: [False, True], still: [False] * 2, strange: [False] * 2}
