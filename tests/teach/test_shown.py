"""Pictures with alt text, spectrograms on one scale, explorers, quizzes, samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from avkit import teach
from avkit.errors import DataError, InputError
from avkit.signal import STFT
from avkit.teach import plots, quizzes, samples
from avkit.teach.widgets import ERROR_CLASS, Control, Explorer, Sliders


def test_picture_carries_its_alt_text():
    fig, axes = teach.figure()
    axes.plot([0, 1])
    shown = teach.picture(fig, 'A line that rises from 0 to 1, called "it".')
    assert 'alt="A line that rises from 0 to 1, called &quot;it&quot;."' in shown.html
    assert "A line that rises" in shown.text


def test_picture_without_words_is_refused():
    with pytest.raises(InputError, match="alt text"):
        teach.picture(teach.figure()[0], "plot")


def test_spectrogram_levels_are_those_of_the_stft():
    wave = torch.randn(3000)
    power = STFT()(wave[None]).square().sum(1)[0]
    np.testing.assert_allclose(plots.spectrogram_db(wave), 10 * power.log10().numpy(), atol=1e-3)


def test_silence_has_a_spectrogram():
    assert np.isfinite(plots.spectrogram_db(torch.zeros(1000))).all()


def test_compared_spectrograms_share_their_limits(monkeypatch):
    seen = []
    draw = plots.draw_spectrogram
    monkeypatch.setattr(
        plots,
        "draw_spectrogram",
        lambda axes, db, limits, *a: seen.append(limits) or draw(axes, db, limits, *a),
    )
    tone = torch.sin(torch.arange(4000) / 5)
    teach.spectrograms({"loud": tone, "faint": 0.01 * tone}, "Two tones of which the second is much fainter.")
    assert len(seen) == 2 and seen[0] == seen[1]


def test_axis_of_a_spectrogram_is_right():
    """A 2 kHz tone appears at 2 kHz, a click at half a second appears there."""
    tone = torch.sin(2 * torch.pi * 2000 * torch.arange(16000) / 16000)
    levels = plots.spectrogram_db(tone)
    _, axes = teach.figure()
    image = plots.draw_spectrogram(axes, levels, (-50, 50))
    left, right, bottom, top = image.get_extent()
    bin_height = (top - bottom) / levels.shape[1]
    assert abs(bottom + (levels[60].argmax() + 0.5) * bin_height - 2.0) < 1e-6
    frame_width = (right - left) / levels.shape[0]
    assert abs(left + (62 + 0.5) * frame_width - 62 * 128 / 16000) < 1e-6


def _explorer(render):
    return Explorer(render, (Control("a", (1, 2, 3), 2), Control("b", ("x", "y"), "x", "letter")))


def test_grid_and_defaults():
    explorer = _explorer(lambda a, b: teach.note(f"{a}{b}"))
    assert explorer.defaults == {"a": 2, "b": "x"}
    assert len(list(explorer.grid())) == 6


def test_control_must_start_in_its_options():
    with pytest.raises(InputError, match="starts at 5"):
        Control("a", (1, 2), 5)


def test_failing_render_is_shown_and_found():
    def render(a, b):
        raise ValueError("no such picture")

    explorer, shown = _explorer(render), []
    sliders = Sliders(explorer)
    sliders.connect(shown.append)
    sliders.sliders["a"].value = 3
    assert ERROR_CLASS in shown[0].html and "no such picture" in shown[0].text


QUESTIONS = [
    {
        "question": "Is 2 < 3?",
        "type": "multiple_choice",
        "answers": [
            {"answer": "yes", "correct": True, "feedback": "By one."},
            {"answer": "no", "correct": False, "feedback": "You read it backwards."},
        ],
    }
] * 2


def test_quiz_scores_and_explains():
    assert quizzes.score(QUESTIONS, [0, None]) == (1, ["Right. By one.", ""])
    assert quizzes.score(QUESTIONS, [1, 0]) == (1, ["No. You read it backwards.", "Right. By one."])


def test_quiz_widgets_keep_the_score():
    made = quizzes.Quiz(QUESTIONS)
    made.choices[0].value = 1
    made.choices[1].value = 0
    assert "1 right of 2 answered" in made.total.value and "backwards" in made.feedback[0].value


def test_quiz_as_text_shows_every_question_and_folds_answers():
    shown = quizzes.render(QUESTIONS)
    assert shown.html.count("Is 2 &lt; 3?") == 2 and shown.html.count("<details>") == 2


@pytest.mark.parametrize(
    "change,words",
    [({"type": "numeric"}, "multiple_choice"), ({"answers": QUESTIONS[0]["answers"][1:]}, "exactly one")],
)
def test_badly_written_questions_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        quizzes.check_questions([{**QUESTIONS[0], **change}])


def test_shipped_sample(repository):
    sample = samples.load_sample(repository / "data_samples" / "talkers", 1)
    assert sample.mixture.shape == (32000,) and sample.voices.shape == (2, 32000)
    assert sample.lips.shape == (2, 50, 96, 96) and sample.lips.dtype == torch.uint8
    torch.testing.assert_close(sample.voices.sum(0), sample.mixture, atol=1e-3, rtol=0)


def test_data_is_found_from_below_and_by_the_variable(tmp_path, monkeypatch):
    (tmp_path / "data_samples" / "mine").mkdir(parents=True)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert samples.find_data("mine") == tmp_path / "data_samples" / "mine"
    monkeypatch.setenv("AVKIT_DATA", str(tmp_path / "data_samples"))
    monkeypatch.chdir("/")
    assert samples.find_data("mine") == tmp_path / "data_samples" / "mine"
    with pytest.raises(DataError, match="AVKIT_DATA"):
        samples.find_data("nowhere")


def test_broken_corpus_is_named(tmp_path):
    with pytest.raises(DataError, match="mix.json is missing"):
        samples.load_sample(tmp_path)
    (tmp_path / "tt").mkdir()
    for part in ("mix", "s1", "s2"):
        (tmp_path / "tt" / f"{part}.json").write_text(json.dumps([["a.wav", "m.npz", 1]]))
    with pytest.raises(DataError, match="no number 4"):
        samples.load_sample(tmp_path, 4)
    with pytest.raises(DataError, match="a.wav"):
        samples.load_sample(tmp_path, 0)
