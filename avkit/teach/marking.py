"""The process that marks one handed-in notebook: `python -m avkit.teach.marking JOB REPORT`, started by `grading`.

It runs what a reader wrote, cell by cell, under limits of time and memory, and in place of each check judges the
answer on hidden inputs. After every step a line of JSON goes into the report, so that whoever started the process
knows how far it came even if the reader's code kills it.

The limits guard against accidents (endless loops, arrays too large, crashes). They are no wall against malice: the
code runs as the user who marks, with that user's files.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows: only the time limit of the whole process holds there
    resource = None

ANSWER, CHECK, COURSE, OWN, SETUP = "answer", "check", "course", "own", "setup"  # kinds of cells in a job
TIME, MEMORY, STOPPED = "time", "memory", "stopped"  # states beside those of `exercises.Verdict`
MAX_FILE_BYTES = 64_000_000
_DEFINES = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_NO_MEMORY = ("MemoryError", "can't allocate memory", "not enough memory")


class TooLong(BaseException):
    """A cell or a check took longer than it may. Not an Exception, so that a judge does not take it for an answer."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TooLong in this thread once the seconds are over (where the system has SIGALRM)."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_signal, _frame):
        raise TooLong(f"stopped after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory(size: int) -> None:
    """At most `size` bytes of memory of its own, and no file over 64 MB, for this process. Linux only."""
    if resource is not None and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))


def definitions(source: str) -> str:
    """What a cell of the course defines (functions, classes, imports), without what it computes."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic
        return ""
    return "\n\n".join(ast.unparse(node) for node in body if isinstance(node, _DEFINES))


class Marker:
    """Runs a job's cells in one namespace, and writes what it finds to the report."""

    def __init__(self, job: dict[str, Any], report: Path):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        from avkit import teach
        from avkit.teach import exercises

        self.job, self.report, self.teach, self.exercises = job, report, teach, exercises
        self.judge = exercises.judge_often  # kept here: a reader's cell may assign to the module's name
        settings = Config()
        settings.HistoryManager.enabled = False
        self.shell = InteractiveShell.instance(config=settings)
        self.failed: dict[str, tuple[str, str]] = {}  # key -> (state, words) of answers whose cell did not run through

    def say(self, **line: Any) -> None:
        with self.report.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def run(self) -> None:
        self.say(step="ready")
        for index, cell in enumerate(self.job["cells"]):
            self.say(step="begin", index=index)
            if cell["kind"] == CHECK:
                self.check(cell, skipped=cell["key"] in self.job["skip_keys"])
            elif index not in self.job["skip_cells"]:
                failure = self.cell(cell)
                if failure and failure[0] == TIME:
                    self.say(step="slow", index=index)
        self.say(step="done")

    def cell(self, cell: dict[str, Any]) -> tuple[str, str] | None:
        """Run a reader's or the course's cell; what stopped it, which counts only for an answer."""
        source = cell["source"]
        if cell["kind"] == COURSE and not self.job["whole"]:
            source = definitions(source)
        failure = self.execute(source)
        if cell["kind"] == SETUP and self.job["whole"]:
            self.shell.user_ns["fast"] = True
        if failure and cell["kind"] == ANSWER:
            self.failed[cell["key"]] = failure
        return failure

    def execute(self, source: str) -> tuple[str, str] | None:
        """Run a cell's source; None, or the state and the words of what stopped it."""
        try:
            with at_most(self.job["cell_seconds"]):
                done = self.shell.run_cell(source, store_history=False, silent=True)
            error = done.error_before_exec or done.error_in_exec
        except BaseException as raised:  # noqa: BLE001 (a limit that strikes between two of the shell's own steps)
            error = raised
        if error is None:
            return None
        return _state(error), f"The cell stopped with {type(error).__name__}: {error}"

    def check(self, cell: dict[str, Any], skipped: bool) -> None:
        """Run the course's own check cell, with a `teach.check` that judges on hidden inputs and reports."""
        key, names = cell["key"], self.shell.user_ns
        reference = self.exercises.find(key).reference

        def check(_key: str, answer: Any, seed: int = 0) -> Any:
            state, words, mistake = self.verdict(key, answer)
            self.say(step="verdict", key=key, state=state, words=words, mistake=mistake)
            return answer if state == self.exercises.RIGHT else reference

        for name in {node.id for node in ast.walk(ast.parse(cell["source"])) if isinstance(node, ast.Name)}:
            names.setdefault(name, None)  # an answer whose cell did not run through
        names["teach"] = self.teach
        self.teach.check = (lambda *_, **__: reference) if skipped else check
        exec(compile(cell["source"], "check", "exec"), names)  # noqa: S102 (the course's own cell)

    def verdict(self, key: str, answer: Any) -> tuple[str, str, str]:
        """State, words and the name of the mistake of one answer."""
        if key in self.failed:
            return *self.failed[key], ""
        try:
            with at_most(self.job["cell_seconds"]):
                found = self.judge(self.exercises.find(key), answer, self.job["seeds"])
        except TooLong as error:
            return TIME, f"The answer was {error}.", ""
        except BaseException as error:  # noqa: BLE001 (sys.exit in an answer, say)
            return _state(error), f"The answer stopped with {type(error).__name__}: {error}", ""
        words = re.sub(r"The notebook goes on with (avkit's version|yours)\.", "", found.text).strip()
        if found.mistake != "stopped":
            return found.status, words, found.mistake
        return (MEMORY if any(sign in words for sign in _NO_MEMORY) else STOPPED), words, ""


def _state(error: BaseException) -> str:
    if isinstance(error, TooLong):
        return TIME
    words = f"{type(error).__name__}: {error}"
    return MEMORY if any(sign in words for sign in _NO_MEMORY) else STOPPED


def main(arguments: list[str]) -> None:
    job = json.loads(Path(arguments[0]).read_text())
    limit_memory(job["memory_bytes"])
    Marker(job, Path(arguments[1])).run()


if __name__ == "__main__":
    main(sys.argv[1:])
