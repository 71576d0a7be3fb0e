"""What every test shares: one thread per process, the browser, and real recordings where there are some."""

import os
import sys

# Before torch is imported, here and in every process that a test starts: two test processes on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def subnormal_numbers():
    """Training flushes them to zero for the whole process; the next test finds arithmetic as it should be."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout that is tested."""
    return ROOT


@pytest.fixture(scope="session")
def browser() -> str:
    """Path of a Chromium that starts. Without one the test skips, but in CI (CI=true) it fails."""
    from avkit._environment import find_browser

    path = find_browser()
    if path is None and os.environ.get("CI") == "true":
        pytest.fail("CI must have a browser: install Debian's package chromium")
    if path is None:
        pytest.skip("no Chromium found (Debian: sudo apt install chromium)")
    return path


@pytest.fixture(scope="session")
def real_recordings() -> Path:
    """A folder of real talking faces, which cannot ship: $AVKIT_REAL, else ../shared/real beside the checkout."""
    folder = Path(os.environ.get("AVKIT_REAL") or ROOT.parent / "shared" / "real")
    if not folder.is_dir():
        pytest.skip("no real recordings here: name their folder in AVKIT_REAL")
    return folder
