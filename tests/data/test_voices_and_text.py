"""Splits of voices and sentences never move, and sentences are what they should be."""

import numpy as np
import pytest

from avkit.data import text, voices


def test_splits_of_talkers_are_fixed_and_large_enough():
    by_split = {split: voices.talkers(split) for split in text.SPLITS}
    assert {split: len(names) for split, names in by_split.items()} == {"tr": 138, "cv": 34, "tt": 28}
    assert len(set().union(*map(set, by_split.values()))) == voices.N_TALKERS
    assert by_split["tt"][:3] == ("t004", "t021", "t025")  # by name alone: no release may move them


def test_a_voice_follows_from_its_name_alone():
    voices.voice.cache_clear()
    first = voices.voice("t017")
    voices.voice.cache_clear()
    assert voices.voice("t017") == first
    assert (first.accent, first.pitch, first.tract) == ("en-us-nyc", 127.2, 0.996)


def test_voices_differ_clearly():
    """No two of the 200 share pitch (within half a semitone), vocal tract (1 per cent) and accent."""
    everyone = [voices.voice(f"t{i:03d}") for i in range(voices.N_TALKERS)]
    pitch = 12 * np.log2([v.pitch for v in everyone])
    tract = np.log([v.tract * v.stretch for v in everyone])
    accents = np.array([v.accent for v in everyone])
    like = (abs(pitch[:, None] - pitch) < 0.5) & (abs(tract[:, None] - tract) < 0.01) & (accents[:, None] == accents)
    np.fill_diagonal(like, False)
    assert (~like.any(1)).sum() >= 150
    assert np.ptp(pitch) > 18  # more than an octave and a half from the lowest to the highest


def test_split_of_a_sentence_is_pinned():
    assert text.split_of("place red by j six now") == "tr"
    shares = [text.split_of(f"sentence {i}") for i in range(4000)]
    assert shares.count("tr") == pytest.approx(3200, abs=100)
    assert shares.count("tt") == pytest.approx(400, abs=80)


@pytest.mark.parametrize("split", text.SPLITS)
def test_sentences_belong_to_their_split_whatever_the_seed(split):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            assert text.split_of(text.sentence(rng, split)) == split


def test_grid_sentences_follow_the_grammar():
    rng = np.random.default_rng(0)
    for _ in range(50):
        words = text.grid_sentence(rng).split()
        assert len(words) == 6 and all(word in choices for word, choices in zip(words, text.GRID, strict=True))


def test_free_sentences_are_complete_and_many():
    rng = np.random.default_rng(0)
    sentences = [text.free_sentence(rng) for _ in range(2000)]
    assert len(set(sentences)) > 1900
    assert not any("{" in s or " a a" in f" {s}" or " a e" in f" {s}" for s in sentences)
    assert {len(s.split()) for s in sentences} <= set(range(4, 16))
