"""The one place that imports torchaudio: `from avkit._torchaudio import torchaudio`.

torchaudio's Linux wheel holds a small compiled extension that is linked to CUDA. Beside a PyTorch without
CUDA the extension cannot be loaded and `import torchaudio` ends in an OSError (beside a PyTorch for another
CUDA release, in a RuntimeError). avkit uses resampling, spectrograms and the like, which are plain PyTorch and
need no extension. So when, and only when, the ordinary import fails in this way, the extension's module is
replaced by a stub that says "no extension here", as torchaudio's own builds without one do. Then `STUBBED` is
True; forced alignment and the CUDA CTC decoder are refused, and `lfilter` takes its slower path.
"""

from __future__ import annotations

import importlib
import sys
import types

from avkit._extras import install_line
from avkit.errors import MissingPackageError


def _extension_stub() -> types.ModuleType:
    """What `torchaudio._extension` offers to the rest of torchaudio in a build without compiled code."""

    def fail_if_no_align(function):
        def refuse(*args, **kwargs):
            raise RuntimeError(f"torchaudio's {function.__name__} needs its compiled extension, which cannot be "
                               "loaded beside this PyTorch (see avkit/_torchaudio.py)")

        return refuse

    stub = types.ModuleType("torchaudio._extension", "Stands in for the compiled extension.")
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stub._IS_ALIGN_AVAILABLE = False
    stub._load_lib = lambda lib: False
    stub._check_cuda_version = lambda: None
    stub.fail_if_no_align = fail_if_no_align
    return stub


def _forget() -> None:
    """Drop what a failed import of torchaudio left behind."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]


def _load() -> tuple[types.ModuleType, bool]:
    """Import torchaudio. Returns the module, and whether its extension had to be replaced by the stub.

    Raises `MissingPackageError` when torchaudio is not installed, or fails even with the stub.
    """
    try:
        return importlib.import_module("torchaudio"), False
    except ModuleNotFoundError as error:
        if error.name != "torchaudio":
            raise
        raise MissingPackageError(f"torchaudio is not installed. Install it with: {install_line()}") from error
    except (OSError, RuntimeError) as error:
        first = error
    _forget()
    sys.modules["torchaudio._extension"] = _extension_stub()
    try:
        return importlib.import_module("torchaudio"), True
    except Exception as error:  # noqa: BLE001 - a changed layout may fail in any way
        _forget()
        raise MissingPackageError(
            f"torchaudio cannot be imported here ({first}), nor with its compiled extension left out ({error!r}). "
            "avkit knows the layout of torchaudio 2.11. Install that release with: "
            'python -m pip install --no-deps "torchaudio==2.11.*"'
        ) from first


torchaudio, STUBBED = _load()
