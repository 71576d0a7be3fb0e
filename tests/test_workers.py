"""Worker processes: they end with their parent, and one that ends early is an error in a sentence, not a wait for ever."""

import os
import signal
import subprocess
import sys
import time

import pytest

from avkit._workers import pool
from avkit.errors import DataError

SCRIPT = """
import time
from avkit._workers import pool

{guard}
    with pool(2) as processes:
        list(processes.map(time.sleep, [{seconds}, {seconds}]))
"""


def test_each_computes_on_one_thread_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with pool(1) as processes:
        assert list(processes.map(os.getenv, ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_a_worker_that_dies_is_an_error():
    """As the kernel ends one when memory runs out."""
    with pytest.raises(DataError, match="ended without a word"), pool(1) as processes:
        list(processes.map(os._exit, [9]))


def test_a_script_without_a_guard_ends_and_says_why(tmp_path):
    (tmp_path / "work.py").write_text(SCRIPT.format(guard="if True:", seconds=0))
    ended = subprocess.run([sys.executable, "work.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and 'outside `if __name__ == "__main__":`' in ended.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc, which only Linux has")
def test_no_worker_outlives_a_killed_parent(tmp_path):
    (tmp_path / "work.py").write_text(SCRIPT.format(guard='if __name__ == "__main__":', seconds=600))
    process = subprocess.Popen([sys.executable, "work.py"], cwd=tmp_path)
    workers = []
    while process.poll() is None and len(workers) < 2:
        time.sleep(0.1)
        workers = [pid for pid in _children(process.pid) if "spawn_main" in _line(pid)]
    time.sleep(2)  # until they have begun to wait
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 60
    while any("spawn_main" in _line(pid) for pid in workers):
        assert time.monotonic() < until, "a worker still waits for work"
        time.sleep(0.1)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def _line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""
