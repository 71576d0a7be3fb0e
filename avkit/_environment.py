"""What `make` does: set up .venv, find what only tests need, open JupyterLab. Standard library only.

    python3 -m avkit._environment install [--torch auto|cpu|cuda]
    python3 -m avkit._environment browser
    python3 -m avkit._environment interpreter
    python3 -m avkit._environment lab [arguments for JupyterLab]

`install` runs with whatever Python is there and must stay readable to old ones, so that they get an answer.
It leaves a stamp in .venv that names everything it depended on. The same stamp means there is nothing to do; no
stamp, in a .venv that exists, means that the last run was interrupted, and what it left half-written is mended.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TRITON = "3.7.1"  # whose interpreter runs the GPU's kernels in tests where there is no GPU
FIRST_NOTEBOOK = "notebooks/00_listen_first.ipynb"


class SetupError(Exception):
    """The environment cannot be made here; the message says what to do."""


# ---------------------------------------------------------------------------------------------- what is there
def pins(root: Path = ROOT) -> dict:
    """The tested versions, requirement name -> version, as environment.yml lists them."""
    rows = (line.strip()[2:] for line in (root / "environment.yml").read_text().splitlines() if "==" in line)
    return {name: version for name, _, version in (row.partition("==") for row in rows)}


def nvidia_gpu() -> bool:
    """Whether an NVIDIA driver answers on this machine."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    answer = subprocess.run([tool, "-L"], check=False, capture_output=True, text=True)
    return answer.returncode == 0 and "GPU" in answer.stdout


def find_browser() -> str | None:
    """Path of a Chromium or Chrome that starts, or None. (Ubuntu's `chromium-browser` may only point to a snap.)"""
    for name in BROWSERS:
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], check=False, capture_output=True).returncode == 0:
            return path
    return None


def check_python() -> None:
    """Refuse a Python that is too old or cannot make virtual environments, with the line that mends it."""
    version = ".".join(map(str, sys.version_info[:2]))
    if tuple(sys.version_info[:2]) < (3, 11):
        raise SetupError(f"avkit needs Python 3.11 or newer, and {sys.executable} is {version}. "
                         "Name a newer one: make lab PYTHON=python3.12")
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            "This Python cannot make virtual environments: Debian and Ubuntu keep that part in a package of its "
            f"own. Install it and run make again:\n\n    {'' if is_root() else 'sudo '}apt install python3-venv\n\n"
            f"(for a Python beside the system's own: python{version}-venv)"
        )


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def stamp(root: Path, torch: str) -> str:
    """A digest of all that an environment depends on: when it changes, `install` runs again."""
    parts = [str(root), sys.version, torch]
    parts += [(root / name).read_text() for name in ("pyproject.toml", "environment.yml", "avkit/_environment.py")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------- installing
class Installer:
    """Makes and mends one .venv."""

    def __init__(self, root: Path, torch: str):
        self.root, self.torch = root, torch
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.stamp = self.venv / "avkit-ready.json"
        self.log = self.venv / "install.log"

    def run(self) -> None:
        """Bring .venv to the state that the stamp names. Does nothing, at once, when it is there already."""
        wanted = {"digest": stamp(self.root, self.torch)}
        found = self.read_stamp()
        retry_pesq = found.get("pesq") == "failed" and found.get("compiler") != compiler()
        if found.get("digest") == wanted["digest"] and self.answers("-c", "import pip") and not retry_pesq:
            return
        print("Setting up .venv. The first time takes some minutes; later starts take seconds.", flush=True)
        started = time.monotonic()
        self.stamp.unlink(missing_ok=True)
        self.make_venv()
        self.install_torch()
        self.install_rest()
        wanted.update(pesq=self.install_pesq(), compiler=compiler())
        partial = self.stamp.with_suffix(".part")
        partial.write_text(json.dumps(wanted))
        os.replace(partial, self.stamp)
        print(f"  .venv is ready after {time.monotonic() - started:.0f} s", flush=True)

    def read_stamp(self) -> dict:
        try:
            return json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return {}

    def answers(self, *arguments: str) -> bool:
        """Whether the environment's own Python runs `arguments` without error."""
        try:
            command = [str(self.python), *arguments]
            return subprocess.run(command, check=False, capture_output=True).returncode == 0
        except OSError:
            return False

    def make_venv(self) -> None:
        same = f"import sys; sys.exit(sys.version != {sys.version!r})"
        if self.answers("-c", same) and self.answers("-m", "pip", "--version"):
            mended = mend(self.venv)
            if mended:
                print(f"  An earlier set-up was interrupted; {', '.join(mended)} will be installed again.")
            return
        self.step("making .venv", [sys.executable, "-m", "venv", "--clear", str(self.venv)])

    def install_torch(self) -> None:
        """PyTorch by itself: from its CPU index unless a GPU is there. The ordinary install goes on either way."""
        wanted = f"torch=={pins(self.root)['torch']}"
        version = "import sys, importlib.metadata as m; v = m.version('torch'); "
        cpu = self.torch == "cpu" or (self.torch == "auto" and not nvidia_gpu())
        if not cpu:
            if self.answers("-c", version + "sys.exit(not v.endswith('+cpu'))"):
                self.pip("removing the CPU build of PyTorch", "uninstall", "--yes", "torch")
            self.pip("PyTorch with CUDA, and torchaudio", "install", wanted)
        elif sys.platform == "linux" and not self.answers("-c", version + "sys.exit(not v.endswith('+cpu'))"):
            arguments = ("--upgrade", "--no-deps", "--retries", "0", "--timeout", "15", "--index-url", CPU_INDEX)
            if not self.pip("PyTorch for CPUs", "install", *arguments, wanted, needed=False):
                print("    PyTorch's CPU index did not answer; the ordinary build is installed instead.")
        self.pip("torchaudio", "install", "--no-deps", f"torchaudio=={pins(self.root)['torchaudio']}")

    def install_rest(self) -> None:
        """avkit and all its parts but pesq, at the tested versions; where those do not fit, in avkit's ranges."""
        constraints = self.venv / "tested-versions.txt"
        rows = [f"{name.partition('[')[0]}=={version}" for name, version in pins(self.root).items()]
        constraints.write_text("\n".join(rows) + "\n")
        everything = ("install", "-e", f"{self.root}[all]")
        label = "avkit, Jupyter, Lightning and the rest"
        if not self.pip(label, *everything, "-c", str(constraints), needed=False):
            print("    The tested versions do not fit this Python; trying the newest that avkit allows.")
            self.pip(label, *everything)

    def install_pesq(self) -> str:
        """pesq is compiled here, so it has a call of its own that may fail. Returns 'installed' or 'failed'."""
        if self.pip("pesq (compiled here)", "install", f"pesq=={pins(self.root)['pesq']}", needed=False):
            return "installed"
        print("    PESQ scores will not be available; all else is. It needs a C compiler and Python's headers:\n"
              f"    {'' if is_root() else 'sudo '}apt install gcc python3-dev    and then make again")
        return "failed"

    def pip(self, label: str, *arguments: str, needed: bool = True) -> bool:
        return self.step(label, [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments], needed)

    def step(self, label: str, command: list, needed: bool = True) -> bool:
        """Run one command, its output to the log and the seconds to the terminal. False where it failed."""
        started = time.monotonic()
        stop = threading.Event()
        ticker = threading.Thread(target=tick, args=(label, started, stop), daemon=True)
        self.venv.mkdir(exist_ok=True)
        ticker.start()
        try:
            done = subprocess.run(
                command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        finally:
            stop.set()
            ticker.join()
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
        outcome = "" if done.returncode == 0 else "  failed" if needed else "  not possible here"
        print(f"\r  {label:<44} {time.monotonic() - started:5.0f} s{outcome}", flush=True)
        if done.returncode and needed:
            errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")] or ["(no message)"]
            raise SetupError("\n".join(errors) + f"\nThe whole output is in {self.log}. Run make again to go on.")
        return done.returncode == 0


def tick(label: str, started: float, stop: threading.Event) -> None:
    """Count the seconds of a step on a terminal until told to stop."""
    while sys.stdout.isatty() and not stop.wait(1.0):
        print(f"\r  {label:<44} {time.monotonic() - started:5.0f} s", end="", flush=True)


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def mend(venv: Path) -> list:
    """Unregister packages that an interrupted pip left incomplete, so that pip installs them again.

    pip copies a package's files one by one, its metadata last but for the RECORD of all files: a package without
    RECORD, or one whose RECORD names a file that is not there, was cut off. Returns the names.
    """
    mended = []
    for site in venv.glob("lib/python*/site-packages"):
        for leftover in site.glob("~*"):  # what pip had moved aside
            shutil.rmtree(leftover, ignore_errors=True)
        for info in sorted(site.glob("*.dist-info")):
            if not complete(info):
                shutil.rmtree(info)
                mended.append(info.name.partition("-")[0])
    return mended


def complete(info: Path) -> bool:
    """Whether every file is there that a .dist-info folder's RECORD lists (byte code aside)."""
    try:
        rows = (info / "RECORD").read_text().splitlines()
    except OSError:
        return False
    names = (row.rpartition(",")[0].rpartition(",")[0].strip('"') for row in rows)
    return (info / "METADATA").is_file() and all(
        (info.parent / name).exists() for name in names if name and not name.endswith(".pyc")
    )


def install(torch: str, root: Path = ROOT) -> None:
    """Set up root/.venv; a second call at the same time waits for the first."""
    check_python()
    import fcntl  # not on Windows, where README.md has the pip commands instead

    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        Installer(root, torch).run()
    finally:
        os.close(folder)


# --------------------------------------------------------------------------------------------- browser and lab
def install_browser() -> None:
    """Find a browser for the widgets' tests; as root on Debian, install Chromium. Never fails: the tests decide."""
    if find_browser():
        return
    if not is_root() or shutil.which("apt-get") is None:
        print("No Chromium found: the browser tests will be skipped (Debian: sudo apt install chromium).")
        return
    print("Installing Chromium for the browser tests.", flush=True)
    silent = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        subprocess.run(["apt-get", *arguments], check=False, stdout=subprocess.DEVNULL, env=silent)
    if not find_browser():
        print("Chromium could not be installed here: the browser tests will say so.")


def install_interpreter(root: Path = ROOT) -> None:
    """Triton in a folder that only the tests of the GPU's kernels look into. Never fails: the tests decide."""
    folder = root / ".venv" / "interpreter"
    whole = folder / f"triton-{TRITON}.dist-info" / "RECORD"  # pip writes it last
    if whole.is_file() or sys.platform != "linux" or nvidia_gpu():
        return
    print("Fetching Triton, whose interpreter tries the GPU's kernels without a GPU (about 200 MB).", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--retries", "1"]
    subprocess.run([*command, "--target", str(folder), f"triton=={TRITON}"], check=False, stderr=subprocess.DEVNULL)
    if not whole.is_file():
        print("Triton could not be fetched here: the tests that want it will say so.")


def lab_command(arguments: list, root_user: bool, display: bool) -> list:
    """JupyterLab's command line for this machine."""
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}"]
    command += [f"--LabApp.default_url=/lab/tree/{FIRST_NOTEBOOK}", "--log-level=WARN"]
    if root_user:
        command.append("--allow-root")
    if root_user or not display:
        command.append("--no-browser")
    return command + arguments


def open_lab(arguments: list) -> None:
    """Become JupyterLab on the first notebook."""
    display = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    command = lab_command(arguments, is_root(), display)
    if "--no-browser" in command:
        print("Starting JupyterLab; Ctrl-C twice ends it. Open in a browser:", flush=True)
    os.chdir(ROOT)
    os.execv(command[0], command)


def main(argv: list | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m avkit._environment", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("install").add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto")
    actions.add_parser("browser")
    actions.add_parser("interpreter")
    actions.add_parser("lab")
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.action != "lab":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if arguments.action == "install":
            install(arguments.torch)
        elif arguments.action == "browser":
            install_browser()
        elif arguments.action == "interpreter":
            install_interpreter()
        else:
            open_lab(rest)
    except SetupError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
