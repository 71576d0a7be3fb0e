"""Notebook 00's experiment: with a talker's lips the output is that voice; with lips of nobody in the mixture it may be either, or none."""

from __future__ import annotations

import pytest

from avkit import separate
from avkit.data.mixing import parse_name
from avkit.metrics import si_snr
from avkit.teach import count_samples, find_data, lesson00, load_sample

# SI-SNR against (first voice, second voice) above 1 dB, or below: with lips that stand still, with a stranger's
BROUGHT = {
    1: ([False, False], [False, False]),
    4: ([False, False], [False, False]),
    22: ([False, True], [True, False]),
}


@pytest.mark.parametrize("mixture", lesson00.EXPLORERS["whose"].controls[1].options)
def test_lips_of_a_talker_bring_that_voice_and_lips_of_nobody_what_the_notebook_says(mixture):
    data = find_data("talkers")
    sample, stranger = load_sample(data, mixture), lesson00.stranger_to(data, mixture)
    found = {}
    for whose in lesson00.WHOSE:
        voice = separate(sample.mixture, lesson00.lips_of(whose, sample, stranger), model=lesson00._network())[0, 0]
        found[whose] = (si_snr(voice.expand(2, -1), sample.voices) > 1).tolist()
    first, second, still, strange = lesson00.WHOSE
    by_still, by_strange = BROUGHT[mixture]
    assert found == {first: [True, False], second: [False, True], still: by_still, strange: by_strange}


def test_strangers_are_not_in_the_mixture():
    data = find_data("talkers")
    for index in range(count_samples(data)):
        here, there = (talkers(sample) for sample in (load_sample(data, index), lesson00.stranger_to(data, index)))
        assert len(here) in (1, 2) and not here & there


def talkers(sample) -> set[str]:
    names = parse_name(sample.name)
    return {names.utt1.split("_")[0], names.utt2.split("_")[0]}
