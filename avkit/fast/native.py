"""The compiled operations: built once with the C++ compiler that is there, kept in a cache, loaded by ctypes.

They are optional: without a compiler, or with AVKIT_KERNELS=0, everything runs in its readable form. The library is plain
C++ without PyTorch's headers, so building takes seconds and fits every PyTorch; it shares PyTorch's OpenMP threads.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
HEADERS = ("common.h", "depthwise.h")
SOURCES = ("norms.cpp", "maps.cpp", "scans.cpp", "frames.cpp", "pending.cpp")
SWITCH = "AVKIT_KERNELS"  # "0": never use the compiled operations
COMPILE = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-fopenmp", "-fPIC", "-Wno-unknown-pragmas"]


class Unavailable(Exception):
    """The compiled operations cannot be had here; the message says why and what would mend it."""


def cache_folder() -> Path:
    """Where built libraries are kept: $AVKIT_CACHE, or the user's cache folder."""
    base = os.environ.get("AVKIT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "avkit"
    return Path(base) / "kernels"


@functools.cache
def load() -> ctypes.CDLL:
    """The library, built if it is not in the cache. Raises Unavailable."""
    if os.environ.get(SWITCH) == "0":
        raise Unavailable(f"switched off by {SWITCH}=0")
    if sys.platform != "linux":
        raise Unavailable(f"compiled operations are built on Linux only, this is {sys.platform}")
    compiler = shutil.which("g++") or shutil.which("clang++")
    path = cache_folder() / f"avkit-{_fingerprint(compiler)}.so"
    if not path.exists():
        if compiler is None:
            raise Unavailable("there is no C++ compiler; on Debian or Ubuntu: apt install g++")
        _build(compiler, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"{path} does not load: {error}; delete it to have it built again") from error


def available() -> bool:
    """Whether the compiled operations are there, building them if need be."""
    return why_not() is None


def why_not() -> str | None:
    """Why the compiled operations are not there, or None if they are."""
    try:
        load()
    except Unavailable as error:
        return str(error)
    return None


def _fingerprint(compiler: str | None) -> str:
    """Source, flags, compiler and processor: a home folder may be shared by machines that differ."""
    texts = [(FOLDER / name).read_text() for name in (*HEADERS, *SOURCES)]
    parts = [*texts, *COMPILE, str(compiler), platform.machine(), _processor(), str(_openmp())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _openmp() -> Path | None:
    """The OpenMP library that PyTorch brings; a second one beside it would have threads of its own."""
    folders = (Path(torch.__file__).parent / "lib", Path(torch.__file__).parents[1] / "torch.libs")
    return next((path for folder in folders for path in sorted(folder.glob("libgomp*.so*"))), None)


def _build(compiler: str, path: Path) -> None:
    """Compile to a temporary name and move: an interrupted build leaves nothing, two at a time do no harm."""
    openmp = _openmp()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            linked = Path(folder) / path.name
            compiled = [str(Path(folder) / f"{name}.o") for name in SOURCES]
            for name, target in zip(SOURCES, compiled, strict=True):
                _run([compiler, *COMPILE, "-c", str(FOLDER / name), "-o", target])
            threads = [str(openmp), f"-Wl,-rpath,{openmp.parent}"] if openmp else ["-fopenmp"]
            _run([compiler, "-shared", *compiled, "-o", str(linked), *threads])
            os.replace(linked, path)
    except OSError as error:
        raise Unavailable(f"{path.parent} cannot be written: {error}") from error


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise Unavailable(f"{Path(command[0]).name} failed: {lines[0]}")
