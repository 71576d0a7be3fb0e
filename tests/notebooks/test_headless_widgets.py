"""Cells with widgets, run headless again and again: none may hang (2 runs in every test, 50 in `make soak`)."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from avkit.teach import notebooks

SHOWS_WIDGETS = ("teach.explore(", "teach.quiz(")


def _widget_cells(notebook):
    """The notebook cut down to its setup and the cells that display widgets and need nothing else."""
    small = nbformat.v4.new_notebook(metadata={"kernelspec": notebooks.KERNEL})
    for cell in notebook.cells:
        lines = cell.source.strip().splitlines()
        alone = len(lines) == 1 and lines[0].startswith(SHOWS_WIDGETS)
        if cell.cell_type == "code" and ("setup" in notebooks.tags(cell) or alone):
            small.cells.append(nbformat.v4.new_code_cell(cell.source))
    return small


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
