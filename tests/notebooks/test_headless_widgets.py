"""Cells with widgets, run headless again and again: none may hang (2 runs in every test, 50 in `make soak`)."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from avkit.teach import notebooks

SHOWS_WIDGETS = ("teach.explore(", "teach.quiz(")


def _widget_cells(notebook):
    """The notebook cut down to its setup and the lines that display widgets, which need nothing else."""
    small = nbformat.v4.new_notebook(metadata={"kernelspec": notebooks.KERNEL})
    for cell in notebook.cells:
        if cell.cell_type == "code" and "setup" in notebooks.tags(cell):
            small.cells.append(nbformat.v4.new_code_cell(cell.source))
        elif cell.cell_type == "code":
            shows = [line for line in cell.source.splitlines() if line.startswith(SHOWS_WIDGETS)]
            small.cells += [nbformat.v4.new_code_cell(line) for line in shows]
    return small


def test_every_widget_is_among_them(stored):
    """A widget that a loop or a longer expression displays would escape the runs below."""
    calls = sum(cell.source.count(name) for cell in stored.cells if cell.cell_type == "code" for name in SHOWS_WIDGETS)
    shown = sum(cell.source.startswith(SHOWS_WIDGETS) for cell in _widget_cells(stored).cells)
    assert shown == calls


def _run(path, stored, quiet_environment, monkeypatch, times):
    for name, value in quiet_environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(times):
        small = _widget_cells(stored)
        NotebookClient(small, timeout=90, resources={"metadata": {"path": str(path.parent)}}).execute()
        shown = [output for cell in small.cells for output in cell.outputs]
        widgets = [o for o in shown if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
        assert len(widgets) == len(small.cells) - 1
        assert not notebooks.hidden_errors(small)


def test_widget_cells_do_not_hang(path, stored, quiet_environment, monkeypatch):
    _run(path, stored, quiet_environment, monkeypatch, times=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_widget_cells_do_not_hang_in_fifty_runs(path, stored, quiet_environment, monkeypatch):
    _run(path, stored, quiet_environment, monkeypatch, times=50)
