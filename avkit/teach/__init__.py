"""Everything a notebook shows or checks: players, plots, widgets, exercises, samples.

Each notebook has a lesson module beside these (`lesson01`, …) with its exercises, its explorers and those figures
whose drawing would only be in the reader's way.
"""

from avkit.teach.display import Html, beside, note
from avkit.teach.exercises import Exercise, Mistake, check, mark, same_weights
from avkit.teach.players import listen
from avkit.teach.plots import figure, picture, spectrograms, waveforms
from avkit.teach.quizzes import quiz
from avkit.teach.samples import Sample, count_samples, find_data, load_sample
from avkit.teach.widgets import Control, Explorer, explore

__all__ = [
    "Control",
    "Exercise",
    "Explorer",
    "Html",
    "Mistake",
    "Sample",
    "beside",
    "check",
    "count_samples",
    "explore",
    "figure",
    "find_data",
    "listen",
    "load_sample",
    "mark",
    "note",
    "picture",
    "quiz",
    "same_weights",
    "spectrograms",
    "waveforms",
]
