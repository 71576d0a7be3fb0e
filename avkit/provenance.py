"""Where the figures of an evaluation come from: data, machine, versions, and what trained the networks."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path

from torch import nn

from avkit.intervals import LEVEL, RESAMPLES


def provenance(data: Path, split: str, device: str, found: list[dict], command: str | None, seconds: float) -> dict:
    """The command, versions, machine and data of an evaluation.

    Args:
        data: root of the corpus; split: which of its lists; device: what ran the networks.
        found: results as `avkit.scoring.score_item` gives them.
        command: as typed, None from Python; seconds: what it took.
    """
    read = sorted(f"{result['mixture']} {result['digest']}" for result in found if result["digest"])
    corpus = data / "corpus.json"
    about = json.loads(corpus.read_text(encoding="utf-8")) if corpus.exists() else {}
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "versions": {
            name: _version(name) for name in ("avkit", "torch", "numpy", "pesq", "pystoi")
        },
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "device": device,
        },
        "data": {
            "root": str(data),
            "split": split,
            "mixtures": len(found),
            "unreadable": len(found) - len(read),
            "checksum": hashlib.sha256("\n".join(read).encode()).hexdigest(),
            "corpus_checksum": about.get("checksum"),
            "synthetic": about.get("synthetic"),
        },
        "method": "means over mixtures of the mean over talkers; improvements against the mixture itself; "
        f"{LEVEL:.0%} percentile intervals from {RESAMPLES} resamples of the talkers",
    }


def about_network(model: nn.Module, digest: str) -> dict:
    """Which weights were scored, and what trained them: the run's own account, None where the file has none."""
    return {"weights": digest, "trained": getattr(model, "provenance", None) or None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
