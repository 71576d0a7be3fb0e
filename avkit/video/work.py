"""The working folder of a run: what it belongs to, what is done, how far it is, and whether there is room."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import avkit
from avkit.checkpoints import write_atomically
from avkit.errors import DataError, InputError
from avkit.video.reading import Video
from avkit.video.writing import no_space

FOLDER = ".work"
_FORMAT = 1
_ROOM = {
    "faces": 0.35e6,
    "voices": 1.3e6,
}  # bytes a second of video: working files and results with three people


class Work:
    """A run's working folder, `.work` inside the folder for results.

    Args:
        out: folder for results; made if need be.
        video: the input; working files of another input, or of the same one changed since, are dropped.
        fresh: drop them in any case.
        kind: "faces" or "voices", for the room that is needed.
        quiet: no progress.
    """

    def __init__(self, out: Path, video: Video, fresh: bool, kind: str, quiet: bool = False):
        self.out, self.quiet, self.cpu = Path(out), quiet, {}
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{out} is a file; wanted a folder for the results")
        self.folder = self.out / FOLDER
        self._made = not self.out.exists()
        self._stages: list[str] = []
        with disk(self.out):
            self.folder.mkdir(parents=True, exist_ok=True)
        stat = video.path.stat()
        job = {"avkit": avkit.__version__, "format": _FORMAT, "input": str(video.path.resolve())}
        job |= {"bytes": stat.st_size, "changed": stat.st_mtime_ns}
        if fresh or self.note("job") != job:
            self.forget("*")
        self._check_room(_ROOM[kind] * video.video_stop)
        with disk(self.out):
            self.put("job", job)

    def _check_room(self, wanted: float) -> None:
        free, used = shutil.disk_usage(self.folder).free, sum(p.stat().st_size for p in self.folder.iterdir())
        if free + used < wanted:
            self.leave()
            raise DataError(
                f"{self.out} has {free / 1e6:.0f} MB free, and about {wanted / 1e6:.0f} MB are needed for a video of this length: "
                "free some, or choose another folder"
            )

    def note(self, name: str) -> dict | None:
        """What `put` kept under a name, or None."""
        try:
            return json.loads((self.folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None

    def put(self, name: str, content: dict) -> None:
        """Keep a small record, all of it or nothing."""
        text = json.dumps(content)
        write_atomically(self.folder / f"{name}.json", lambda path: Path(path).write_text(text))

    def forget(self, pattern: str) -> None:
        """Remove working files."""
        for path in self.folder.glob(pattern):
            path.unlink()

    def leave(self, done: bool = False) -> None:
        """Remove the working folder; where nothing came of the run, the folder for results too, if this run made it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._made and not done and self.out.is_dir() and not any(self.out.iterdir()):
            self.out.rmdir()

    # ----------------------------------------------------------------------------------------------------- progress

    def plan(self, *stages: str) -> None:
        """Name the stages to come, in order."""
        self._stages = list(stages)

    def watch(self, stage: str, total: int) -> Callable[[int], None]:
        """A bar with the time left (or, where no terminal is, a line now and then); gives what is called with the number done."""
        from tqdm import tqdm

        number = self._stages.index(stage) + 1
        title = f"{number}/{len(self._stages)} {stage}"
        bar = tqdm(total=total, desc=title, disable=self.quiet or not sys.stderr.isatty(), leave=True)
        began, said, cpu = time.monotonic(), time.monotonic(), time.process_time()
        first: list[int] = []
        spent = (self.note("cpu") or {}).get(stage, 0.0)

        def done(count: int) -> None:
            nonlocal said
            if not first:
                first.append(count - 1)
                bar.initial = count - 1
            bar.update(count - bar.n)
            now = time.monotonic()
            self.cpu[stage] = spent + time.process_time() - cpu
            if count >= total:
                bar.close()
            if not self.quiet and bar.disable and (now - said > 30 or (count >= total and now - began > 1)):
                said = now
                left = (now - began) / max(1, count - first[0]) * max(0, total - count)
                print(f"{title}: {count} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)

        return done

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that may not be written, into an error that says so."""
    try:
        yield
    except Exception as error:
        named = no_space(getattr(error, "errno", None), path)  # FFmpeg's errors carry a number too
        if named is None:
            raise
        raise named from None


def add_place(parser: argparse.ArgumentParser, name: str) -> None:
    """Where results go: `args.out` by its place on the command line, or `args.place` after --out as with other commands.

    Two names, because argparse lets an optional place that was left out overwrite an option of the same name.
    """
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("out", metavar=name, nargs="?", type=Path, help="folder for the results")
    place.add_argument("--out", metavar=name, dest="place", type=Path, help="the same, as other commands have it")
