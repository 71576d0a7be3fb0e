"""Notebook 01's explorer says in words what its two panels show."""

from __future__ import annotations

import pytest

from avkit.teach import lesson01


@pytest.mark.parametrize(
    "n_fft,overlap,tones,clicks",
    [
        (64, "seven eighths", "one broad band for both tones, which throbs;", "two upright strokes, the clicks."),
        (256, "seven eighths", "one broad band", "two upright strokes, the clicks, close together."),
        (512, "seven eighths", "one broad band for both tones;", "one upright block"),
        (1024, "half", "two level lines", "one upright block"),
        (32, "none", "which throbs", "no stroke at all"),  # both clicks lie where the window is 0
    ],
)
def test_words_of_the_resolution(n_fft, overlap, tones, clicks):
    words = lesson01.render_resolution(n_fft, overlap).text
    assert tones in words and clicks in words, words
