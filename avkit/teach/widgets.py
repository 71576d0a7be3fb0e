"""Widgets: a pure `render(**controls) -> Html` and, when a kernel runs, sliders that call it.

The picture is an ordinary output of the cell, so its default stays visible where no kernel runs (on GitHub, in
the book, in a saved notebook); moving a slider replaces that output.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from avkit.errors import InputError, MissingPackageError
from avkit.teach.display import Html, note

ERROR_CLASS = "avkit-widget-error"  # what the notebook tests search executed notebooks for


@dataclass(frozen=True)
class Control:
    """One thing to move: its name in `render`, the values it can take, the one it starts at, and its label."""

    name: str
    options: tuple[Any, ...]
    default: Any
    label: str = ""

    def __post_init__(self):
        if self.default not in self.options:
            raise InputError(
                f"control {self.name!r} starts at {self.default!r}, which is not in {self.options}"
            )


@dataclass(frozen=True)
class Explorer:
    """A render function and the controls that make up its grid.

    `render` takes every control by name and returns `Html`; it neither displays nor keeps anything.
    """

    render: Callable[..., Html]
    controls: tuple[Control, ...]

    @property
    def defaults(self) -> dict[str, Any]:
        return {control.name: control.default for control in self.controls}

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of the controls' values."""
        names = [control.name for control in self.controls]
        for values in itertools.product(*(control.options for control in self.controls)):
            yield dict(zip(names, values, strict=True))


def explore(explorer: Explorer) -> None:
    """Display an explorer: its sliders, and below them the default picture, which they replace."""
    from IPython.display import display

    sliders = Sliders(explorer)
    words = ", ".join(control.label or control.name for control in explorer.controls)
    bundle = sliders.box._repr_mimebundle_()
    bundle["text/html"] = f"<em>Run this cell to move: {words}.</em>"
    bundle["text/plain"] = f"[sliders: {words}]"
    display(bundle, raw=True)
    handle = display(explorer.render(**explorer.defaults), display_id=True)
    sliders.connect(handle.update)


class Sliders:
    """The controls of an explorer as ipywidgets; `connect(show)` calls `show` with a new rendering on each move."""

    def __init__(self, explorer: Explorer):
        try:
            import ipywidgets
        except ImportError as error:
            raise MissingPackageError(
                "sliders need ipywidgets; install it with: pip install ipywidgets"
            ) from error
        self.explorer = explorer
        wide = {"description_width": "initial"}
        self.sliders = {
            control.name: ipywidgets.SelectionSlider(
                options=control.options,
                value=control.default,
                description=control.label or control.name,
                style=wide,
                layout={"width": "28em"},
                continuous_update=False,
            )
            for control in explorer.controls
        }
        self.box = ipywidgets.VBox(list(self.sliders.values()))

    def connect(self, show: Callable[[Html], None]) -> None:
        def update(_change) -> None:
            show(render_safely(self.explorer, {name: slider.value for name, slider in self.sliders.items()}))

        for slider in self.sliders.values():
            slider.observe(update, names="value")


def render_safely(explorer: Explorer, values: dict[str, Any]) -> Html:
    """The rendering for these values; an exception becomes a message in its place, for a slider has no cell to fail."""
    try:
        return explorer.render(**values)
    except Exception as error:  # noqa: BLE001 (whatever happened, the reader must see it)
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"This setting failed ({values}): {type(error).__name__}: {error} [{where.name}, line {where.lineno}]"
        return note(text, "#D55E00", ERROR_CLASS)
