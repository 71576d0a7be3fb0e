"""What the notebook tests share: the notebooks, and where they run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avkit.teach import notebooks

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def pytest_generate_tests(metafunc):
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


@pytest.fixture
def stored(path):
    return notebooks.read(path)


@pytest.fixture(scope="session")
def quiet_environment():
    """The environment of a kernel under test: the shipped data, few threads, no colour."""
    data = FOLDER.parent / "data_samples"
    return {
        **os.environ,
        "AVKIT_DATA": str(data),
        "OMP_NUM_THREADS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
