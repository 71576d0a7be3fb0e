"""Each explorer's render over its whole grid: pure, quick, with alt text, and different where a control moves."""

from __future__ import annotations

import importlib
import re

import pytest

from avkit.teach.display import Html
from avkit.teach.notebooks import Path
from avkit.teach.widgets import ERROR_CLASS, Sliders

LESSONS = sorted(
    path.stem[6:] for path in (Path(__file__).parents[2] / "avkit/teach").glob("lesson[0-9][0-9].py")
)
CASES = [
    (number, name)
    for number in LESSONS
    for name in getattr(importlib.import_module(f"avkit.teach.lesson{number}"), "EXPLORERS", {})
]


def _explorer(number, name):
    return importlib.import_module(f"avkit.teach.lesson{number}").EXPLORERS[name]


def _words(html: str) -> str:
    """All but the embedded data: a network's output may differ in its last bit from run to run."""
    return re.sub(r"base64,[^\"]+", "base64", html)


@pytest.mark.parametrize("number,name", CASES)
def test_whole_grid(number, name):
    explorer = _explorer(number, name)
    renderings = {}
    for values in explorer.grid():
        rendered = explorer.render(**values)
        assert isinstance(rendered, Html) and ERROR_CLASS not in rendered.html
        for image in re.findall(r"<img\b[^>]*>", rendered.html):
            assert re.search(r'alt="[^"]{20,}"', image)
        renderings[tuple(values.values())] = rendered.html
    assert len(renderings) <= 100
    for control in explorer.controls:  # each control does something
        seen = {
            renderings[tuple({**explorer.defaults, control.name: option}.values())]
            for option in control.options
        }
        assert len(seen) > 1, control.name
    defaults = explorer.defaults
    again = _words(explorer.render(**defaults).html)
    assert again == _words(renderings[tuple(defaults.values())]), "the same values, another picture"


@pytest.mark.parametrize("number,name", CASES)
def test_moving_a_slider_shows_the_new_picture(number, name):
    explorer = _explorer(number, name)
    sliders, shown = Sliders(explorer), []
    sliders.connect(shown.append)
    control = explorer.controls[0]
    other = next(option for option in control.options if option != control.default)
    sliders.sliders[control.name].value = other
    moved = explorer.render(**{**explorer.defaults, control.name: other})
    assert [_words(piece.html) for piece in shown] == [_words(moved.html)]
    assert shown[0].html != explorer.render(**explorer.defaults).html
