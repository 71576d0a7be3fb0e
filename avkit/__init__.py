"""avkit: audio-visual speech separation, to learn, to reproduce, and to build on.

The names below are the public face; each is imported from its own module on first use, so `import avkit` is quick.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "create_model": "registry",
    "list_models": "registry",
    "load_model": "checkpoints",
    "separate": "separation",
    "separate_video": "video.separating",
    "LipEncoder": "lips",
}
_MODULES = ("checkpoints", "complexity", "data", "evaluation", "losses", "metrics", "signal", "teach", "training")

__all__ = sorted((*_PUBLIC, *_MODULES, "__version__"))  # noqa: PLE0605


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"avkit.{_PUBLIC[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"avkit.{name}")
    raise AttributeError(f"module 'avkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
