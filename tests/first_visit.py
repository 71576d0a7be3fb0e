"""A newcomer's first visit, played from a fresh clone and timed: `python tests/first_visit.py FOLDER [--video FILE] [--tests]`.

Clone, `make lab` (environment, first separation, JupyterLab), the first notebook run in a browser, an exercise answered wrongly and
then rightly, a training run on talkers made for it, and the voices of a video; with --tests, `make test` at the end. What each
command printed is kept in FOLDER/log.txt, how long each step took in FOLDER/visit.json. Needs Chromium and playwright, which
`make test` brings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from lab_driver import answer_first, chromium, free_port, open_notebook, own_places, run_all, wait_for

from avkit._environment import find_browser


class Visit:
    """Steps with their names, what they took, and what they showed."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.folder, self.clone, self.steps = folder, folder / "avkit", []
        inherited = ("AVKIT", "PYTHON", "VIRTUAL_ENV", "JUPYTER", "OMP_", "MALLOC_", "GLIBC_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(inherited)}
        self.environment |= own_places(folder)

    @contextlib.contextmanager
    def step(self, name: str):
        """Times what is inside; a dict to put what was seen into."""
        seen, begin = {}, time.monotonic()
        print(f"{name} …", flush=True)
        yield seen
        seconds = round(time.monotonic() - begin, 1)
        self.steps.append({"step": name, "seconds": seconds, **seen})
        print(f"  {seconds} s  {seen or ''}", flush=True)

    def run(self, *command: str) -> str:
        """Run a command in the clone, as typed in a terminal there; what it printed."""
        ended = subprocess.run(
            command, cwd=self.clone, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        with open(self.folder / "log.txt", "a") as log:
            log.write(f"$ {' '.join(command)}\n{ended.stdout}\n")
        assert ended.returncode == 0, f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout[-3000:]}"
        return ended.stdout

    @contextlib.contextmanager
    def lab(self):
        """`make lab` until JupyterLab answers; its address, with a place for a notebook's name."""
        port = free_port()
        options = f"--port {port} --ServerApp.port_retries=0 --IdentityProvider.token=visit --no-browser --expose-app-in-browser"
        path = self.folder / "lab.txt"
        with open(path, "w") as log:
            server = subprocess.Popen(
                ["make", "lab", f"JUPYTER={options}"], cwd=self.clone, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            with self.step("make lab, until JupyterLab answers") as seen:
                wait_for(f"http://127.0.0.1:{port}/api?token=visit", server, path, 1800)
                seen["gains"] = re.findall(r"SI-SNRi +(\S+ dB)", path.read_text())
            yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}?reset&token=visit"
        finally:
            os.killpg(server.pid, 15)
            server.wait()
            with open(self.folder / "log.txt", "a") as log:
                log.write(f"$ make lab\n{path.read_text()}\n")


def in_the_browser(visit: Visit, address: str, browser: str) -> None:
    """The first notebook, and the first exercise of the second."""
    with visit.step("first notebook: open, run all cells") as seen, chromium(browser) as page:
        open_notebook(page, address, "00_listen_first.ipynb")
        run_all(page, 600)
        seen["players"], seen["pictures"] = page.locator("audio, video").count(), page.locator(".jp-OutputArea img").count()
    with visit.step("first exercise of notebook 01, wrong and then right") as seen, chromium(browser) as page:
        open_notebook(page, address, "01_sound_to_spectrogram.ipynb")
        run_all(page, 600)
        said = answer_first(page, "heard_hz", {"2500": "wrong", "3000": "right"})
        seen |= {status: text.split("\n")[0][:80] for status, text in said.items()}


def in_the_terminal(visit: Visit, video: Path, tests: bool) -> None:
    """A training run, what it learned, the voices of a video, and the tests."""
    avkit = ".venv/bin/avkit"
    with visit.step("two minutes of talkers, 200 steps of training, evaluation") as seen:
        visit.run(avkit, "corpus", "talkers", "--minutes", "2")
        visit.run(
            avkit, "train", "--config", "rtfs-net-tiny", "--out", "runs/first", "--data.root", "talkers",
            "--model.lip_encoder", "rtfs-net-tiny", "--trainer.max_steps", "200",
        )  # fmt: skip
        visit.run(avkit, "evaluate", "runs/first/model", "talkers", "--out", "runs/first/test", "--metrics", "si_snr")
        summary = json.loads((visit.clone / "runs/first/test/summary.json").read_text())
        seen["si_snri"] = round(summary["systems"]["model"]["si_snri"]["mean"], 2)
    with visit.step("the voices of a video") as seen:
        seen["video"] = video.name
        visit.run(avkit, "separate-video", str(video), "build/video")
        seen["files"] = len(list((visit.clone / "build/video").rglob("*.*")))
    if tests:
        with visit.step("make test") as seen:
            seen["result"] = visit.run("make", "test").strip().splitlines()[-1].strip("= ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--video", type=Path, default=REPOSITORY / "data_samples/video/two_faces.mp4")
    parser.add_argument("--tests", action="store_true", help="run `make test` at the end")
    args = parser.parse_args()
    visit = Visit(args.folder.resolve())
    with visit.step("git clone"):
        subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(visit.clone)], check=True)
    with visit.lab() as address:
        in_the_browser(visit, address, find_browser())
    in_the_terminal(visit, args.video.resolve(), args.tests)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=visit.clone, capture_output=True, text=True, check=True).stdout.strip()
    record = {
        "command": "python tests/first_visit.py FOLDER" + " --tests" * args.tests,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "steps": visit.steps,
    }
    (visit.folder / "visit.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{visit.folder / 'visit.json'}: every step ended well")


if __name__ == "__main__":
    main()
