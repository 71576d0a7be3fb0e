"""Each notebook twice: unsolved by papermill to its end, and solved by nbval, both in fast mode."""

from __future__ import annotations

import subprocess
import sys

import papermill
import pytest

from avkit.teach import exercises, notebooks

CELL_SECONDS = 240


@pytest.fixture
def kernel_environment(quiet_environment, monkeypatch):
    for name, value in quiet_environment.items():
        monkeypatch.setenv(name, value)


def test_unsolved_runs_to_its_end(path, stored, tmp_path, kernel_environment):
    executed = papermill.execute_notebook(
        str(path),
        str(tmp_path / path.name),
        parameters={"fast": True},
        cwd=str(path.parent),
        kernel_name="python3",
        execution_timeout=CELL_SECONDS,
        progress_bar=False,
    )
    assert not notebooks.hidden_errors(executed)
    html = "\n".join(notebooks.output_html(executed))
    count = len(notebooks.exercises(stored))
    assert html.count(f"avkit-check-{exercises.UNSOLVED}") == count
    assert html.count("The notebook goes on with avkit") == count


def test_solved_under_nbval(path, stored, tmp_path, quiet_environment):
    """Strict checks: a solution that its own check refuses fails the run."""
    source, prepared = tmp_path / "solved.ipynb", tmp_path / path.name
    notebooks.write(notebooks.solved(stored), source)
    papermill.execute_notebook(str(source), str(prepared), parameters={"fast": True}, prepare_only=True)
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    command += ["--nbval-cell-timeout", str(CELL_SECONDS), "-q", "--rootdir", str(tmp_path), str(prepared)]
    environment = {**quiet_environment, exercises.STRICT: "1"}
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        command, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_papermill_refuses_nothing_so_names_are_checked(path, stored):
    """Parameters that the tests and `avkit course run` pass must exist in the parameters cell."""
    inferred = papermill.inspect_notebook(str(path))
    assert "fast" in inferred and inferred["fast"]["default"] == "False"
