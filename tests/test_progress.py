"""Progress bars where they are not seen on a terminal."""

import io
import time

from tqdm import tqdm

from avkit._progress import interval


class Log(io.StringIO):
    def isatty(self) -> bool:
        return False


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_the_first_and_the_last_of_a_short_bar(monkeypatch):
    drawn = {}
    for kind in (Log, Terminal):
        file = kind()
        monkeypatch.setattr("sys.stderr", file)
        for _ in tqdm(range(40), file=file, mininterval=interval()):
            time.sleep(0.01)
        drawn[kind] = file.getvalue().count("40 [")
    assert drawn[Log] == 2 < drawn[Terminal]
