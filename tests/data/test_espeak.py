"""Speech with phoneme times, the same bytes for the same request."""

import builtins
import itertools
import time

import numpy as np
import pytest

from avkit.data import voices
from avkit.data.espeak import Synthesiser
from avkit.errors import AvkitError, MissingPackageError

TEXT = "place red by j six now, a small boat moved"


def _say(synthesiser, talker="t003", text=TEXT):
    voice = voices.voice(talker)
    return synthesiser.speak(text, voice.definition(), voices.ACCENTS[voice.accent][0], 170)


def test_speech_is_the_same_whatever_was_said_before():
    breathy = [f"t{i:03d}" for i in range(40) if any(voices.voice(f"t{i:03d}").breath)]  # breath is drawn at random

    def all_of_them(synthesiser):
        return [_say(synthesiser, talker) for talker in ["t003", *breathy]]

    with Synthesiser() as synthesiser:
        alone = all_of_them(synthesiser)
        again = [(_say(synthesiser, "t100", "something else"), all_of_them(synthesiser))[1] for _ in range(3)]
    time.sleep(1.1)  # eSpeak NG would draw flutter from a generator seeded by the clock's seconds
    with Synthesiser() as synthesiser:
        again += [(_say(synthesiser, "t007"), all_of_them(synthesiser))[1]]
    assert len(breathy) > 3 and all(speeches == alone for speeches in again)


def test_words_and_phonemes_come_in_order_and_where_the_sound_is():
    with Synthesiser() as synthesiser:
        speech = _say(synthesiser)
    assert [word for word, _ in speech.words] == TEXT.replace(",", "").split()
    times = [sample for _, sample in speech.phonemes]
    assert times == sorted(times) and times[-1] <= speech.length
    names = [name.lstrip("',") for name, _ in speech.phonemes]
    assert [n for n in names if n in "pbm" and n][:2] == ["p", "b"]
    samples = np.frombuffer(speech.samples, "<i2").astype(float)
    power = [((samples[a:b] ** 2).mean(), n) for (a, b), n in zip(itertools.pairwise(times), names, strict=False) if b > a]
    pauses = [p for p, n in power if n.startswith("_")]
    vowels = [p for p, n in power if n[0] in "aeiouE03IOU@"]
    assert max(pauses) < 0.01 * np.median(vowels)


@pytest.mark.parametrize("sentence", ["he came from the shop for a while", "lay red at a zero now", "most of the time"])
def test_words_that_run_together_are_one_entry_and_none_is_lost(sentence):
    with Synthesiser() as synthesiser:
        words = _say(synthesiser, text=sentence).words
    assert " ".join(word for word, _ in words) == sentence
    assert [sample for _, sample in words] == sorted({sample for _, sample in words})


def test_every_voice_speaks_without_clipping_and_they_differ():
    with Synthesiser() as synthesiser:
        speeches = [_say(synthesiser, f"t{i:03d}", "lay blue at c four again") for i in range(0, 200, 4)]
    assert len({speech.samples for speech in speeches}) == len(speeches)
    assert max(np.abs(np.frombuffer(s.samples, "<i2").astype(int)).max() for s in speeches) < 32767


def test_a_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "espeakng_loader":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r'pip install "avkit\[corpus\]"'):
        Synthesiser()


def test_a_server_that_dies_is_reported():
    with Synthesiser() as synthesiser:
        synthesiser._server.kill()
        synthesiser._server.wait()
        with pytest.raises((AvkitError, BrokenPipeError)):
            _say(synthesiser)
