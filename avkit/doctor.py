"""`avkit doctor`: what works on this machine, what is missing, and the command that mends it.

Parts that the networks need are tried, not looked up: a transform is run, a file is written and read back.
Large optional packages are only looked up, so that the answer comes in seconds.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import avkit
from avkit._environment import find_browser
from avkit._extras import checkout, install_line
from avkit.errors import DataError

WORKS, MISSING = "works", "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the report. needed: avkit cannot separate anything without it. remedy: what to type."""

    name: str
    state: str
    detail: str
    needed: bool = False
    remedy: str = ""


def attempt(name: str, trial: Callable[[], str], remedy: str, needed: bool = False) -> Finding:
    """Run `trial`, which returns a detail to show. Whatever it raises makes the part 'missing'."""
    try:
        return Finding(name, WORKS, trial(), needed)
    except Exception as error:  # noqa: BLE001 - the report must go on, whatever is broken
        said = str(error).strip().splitlines() or [type(error).__name__]
        return Finding(name, MISSING, said[0], needed, remedy)


# ------------------------------------------------------------------------------- what the networks need: tried
def try_python() -> str:
    if sys.version_info < (3, 11):  # noqa: UP036 - reached when avkit is copied, not installed
        raise RuntimeError(f"Python {platform.python_version()} is too old: 3.11 or newer is wanted")
    return f"{platform.python_version()}, {platform.system()} {platform.machine()}"


def try_torch() -> str:
    import torch

    wave = torch.sin(torch.arange(4000.0))
    window = torch.hann_window(256)
    spectrum = torch.stft(wave, 256, 128, window=window, return_complex=True)
    error = (torch.istft(spectrum, 256, 128, window=window, length=4000) - wave).abs().max()
    if not error < 1e-4:
        raise RuntimeError(f"an STFT and its inverse differ by {error:.1e}")
    return f"{torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} CPU threads"


def try_torchaudio() -> str:
    import torch

    from avkit._torchaudio import STUBBED, torchaudio

    torchaudio.functional.resample(torch.zeros(1, 800), 8000, 16000)
    how = "its CUDA extension replaced by a stub, resampling tried" if STUBBED else "resampling tried"
    return f"{torchaudio.__version__}, {how}"


def try_numerics() -> str:
    import numpy
    import safetensors.torch
    import scipy.signal
    import torch
    import tqdm
    import yaml

    scipy.signal.get_window("hann", 8)
    safetensors.torch.load(safetensors.torch.save({"a": torch.ones(2)}))
    yaml.safe_load("a: 1")
    modules = (numpy, scipy, yaml, tqdm)
    return ", ".join(f"{module.__name__} {module.__version__}" for module in modules) + ", safetensors"


def try_sound_files() -> str:
    import numpy as np
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(160, dtype="float32"), 16000, format="FLAC")
    file.seek(0)
    soundfile.read(file)
    return f"soundfile {soundfile.__version__} ({soundfile.__libsndfile_version__}), FLAC written and read"


def try_checkpoints() -> str:
    from safetensors import safe_open

    files = sorted(Path(avkit.__file__).parent.glob("**/model.safetensors"))
    if not files:
        raise FileNotFoundError("no trained network came with this copy of avkit")
    for file in files:
        with safe_open(str(file), "pt") as weights:
            next(iter(weights.keys()))
    return ", ".join(file.parent.name for file in files)


# --------------------------------------------------------------------------------------- optional parts
def try_kernels() -> str:
    """The compiled operations, built here if they are not yet, used once."""
    import torch

    from avkit import fast

    if not fast.available():
        raise RuntimeError(fast.why_not())
    model = avkit.create_model("iianet-tiny").eval()
    with torch.no_grad(), fast.readable(copy.deepcopy(model)) as readable:
        inputs = torch.randn(1, 1600), torch.randn(1, 512, 3)
        error = (model(*inputs) - readable(*inputs)).abs().max()
    if not error < 1e-4:
        raise RuntimeError(f"fast and readable form differ by {error:.1e}; switch off with AVKIT_KERNELS=0")
    return "compiled operations, equal to the readable ones"


def installed(*packages: str) -> Callable[[], str]:
    """A trial that looks packages up by their names on PyPI, without importing them."""

    def trial() -> str:
        missing = []
        for package in packages:
            try:
                version(package)
            except PackageNotFoundError:
                missing.append(package)
        if missing:
            raise RuntimeError(f"not installed: {', '.join(missing)}")
        return ", ".join(f"{package} {version(package)}" for package in packages)

    return trial


def try_espeak() -> str:
    import ctypes

    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    return f"eSpeak NG {library.espeak_Info(None).decode()} (GPL-3.0-or-later; used by the corpus generator only)"


def try_pesq() -> str:
    import numpy as np
    import pesq

    tone = np.sin(np.arange(16000) * 0.3).astype("float32")
    pesq.pesq(16000, tone, tone, "wb")
    return f"pesq {version('pesq')}"


def try_video() -> str:
    import av

    from avkit.video import models

    for name in (models.LANDMARKS, models.CNN_DETECTOR, models.IDENTITY):
        models.model_file(name)
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    faces = f"dlib {models.dlib_module().__version__}, landmark model found (research use only)"
    return f"PyAV {av.__version__}, FFmpeg's libavcodec {codec}; {faces}; {installed('pillow')()}"


def try_browser() -> str:
    path = find_browser()
    if path is None:
        raise RuntimeError("no Chromium or Chrome found; only the widgets' tests need one")
    return path


def devices() -> Finding:
    """The devices PyTorch can use; a machine without an accelerator is no fault."""
    try:
        import torch

        found = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            found.append("mps")
        return Finding("devices", WORKS, ", ".join(["cpu", *found]))
    except Exception as error:  # noqa: BLE001
        return Finding("devices", MISSING, f"PyTorch does not answer: {error}")


def examine() -> list[Finding]:
    """Try everything. Takes some seconds, most of them PyTorch's import."""
    base = install_line()
    compiled = f"{install_line('pesq')}    (needs a C compiler; Debian: sudo apt install gcc python3-dev)"
    notebooks = installed("jupyterlab", "ipywidgets", "matplotlib", "papermill")
    reinstall = "git checkout -- avkit" if checkout() else "python -m pip install --force-reinstall avkit"
    return [
        attempt("Python", try_python, "make lab PYTHON=python3.12", needed=True),
        attempt("PyTorch", try_torch, base, needed=True),
        devices(),
        attempt("numerics", try_numerics, base, needed=True),
        attempt("sound files", try_sound_files, base, needed=True),
        attempt("torchaudio", try_torchaudio, base, needed=True),
        attempt("networks", try_checkpoints, reinstall, needed=True),
        attempt("fast form", try_kernels, "sudo apt install g++    (networks work without it, more slowly)"),
        attempt("notebooks", notebooks, install_line("notebooks")),
        attempt("training", installed("lightning", "jsonargparse", "tensorboard"), install_line("train")),
        attempt("corpus", try_espeak, install_line("corpus")),
        attempt("reverberation", installed("pyroomacoustics"), install_line("room")),
        attempt("STOI, SDR", installed("pystoi", "torchmetrics"), install_line("metrics")),
        attempt("PESQ", try_pesq, compiled),
        attempt("video", try_video, install_line("video")),
        attempt("tests", installed("pytest", "pytest-xdist", "nbval", "hypothesis"), install_line("test")),
        attempt("browser", try_browser, "sudo apt install chromium"),
    ]


def report(findings: list[Finding]) -> str:
    """The findings as text: a line each, and under what is missing the command that mends it."""
    lines = [f"avkit {avkit.__version__} in {Path(avkit.__file__).parent}"]
    for finding in findings:
        state = finding.state if finding.state == WORKS else "MISSING" if finding.needed else "missing"
        lines.append(f"  {finding.name:<15}{state:<9}{finding.detail}")
        if finding.remedy:
            lines.append(f"{'':<26}-> {finding.remedy}")
    broken = [finding.name for finding in findings if finding.needed and finding.state == MISSING]
    optional = [finding.name for finding in findings if not finding.needed and finding.state == MISSING]
    if broken:
        lines.append(f"Not ready: {', '.join(broken)}. The commands above mend it.")
    else:
        rest = f" Optional parts that are missing: {', '.join(optional)}." if optional else ""
        lines.append(f"Ready: all that is needed works.{rest}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Print the report. Returns 0 when all that is needed works, 1 when something is missing."""
    parser = argparse.ArgumentParser(
        prog="avkit doctor",
        description="What works here, what is missing, and the command that mends it. "
        "Exit status 0: all that is needed works; 1: something needed is missing.",
        epilog="examples: avkit doctor --json\n          avkit doctor --report my-laptop.json    (to send before a workshop)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report to send: findings, machine, speed")
    arguments = parser.parse_args(argv)
    findings = examine()
    ready = not any(finding.needed and finding.state == MISSING for finding in findings)
    document = {"avkit": avkit.__version__, "ready": ready, "findings": [asdict(f) for f in findings]}
    print(json.dumps(document, indent=2) if arguments.json else report(findings))
    if arguments.report:
        write_report(arguments.report, document)
        print(f"The report is in {arguments.report}.", file=sys.stderr)
    return 0 if ready else 1


def write_report(path: Path, document: dict) -> None:
    """The findings, the machine and how long a separation takes, as JSON, in one move."""
    document = {**document, "machine": machine(), "separation": timed_separation()}
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"the report cannot be written to {path}: {error.strerror}; name another file") from error


def machine() -> dict:
    """System, processor cores, memory and free disk space (GB; memory is None where the system does not say)."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, OSError, ValueError):  # Windows
        memory = None
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return {"system": system, "cores": os.cpu_count(), "memory_gb": memory, "disk_free_gb": free}


def timed_separation() -> dict:
    """Seconds that the small network takes for 2 s of noise, once warm; None and the error where it cannot."""
    try:
        import torch

        model = avkit.load_model("rtfs-net-tiny")
        mixture, lips = torch.randn(1, 32000), torch.zeros(1, 50, 96, 96, dtype=torch.uint8)
        for _ in range(2):
            started = time.perf_counter()
            avkit.separate(mixture, lips, model=model)
            seconds = time.perf_counter() - started
        return {"seconds": round(seconds, 2), "error": ""}
    except Exception as error:  # noqa: BLE001 - the report must be written, whatever is broken
        return {"seconds": None, "error": f"{type(error).__name__}: {error}"}
