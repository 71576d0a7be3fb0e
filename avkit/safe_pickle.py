"""Reading files made by `torch.save` without running what they hold.

A pickle may name any function of any module and have it called while it is read. Here nothing is ever imported on a
file's word: tensors and plain containers are rebuilt, every other class or function becomes an inert `Placeholder`, and a
file that names what no weights need (a shell, `eval`, the file system) is refused by that name.
"""

from __future__ import annotations

import _compat_pickle
import contextlib
import io
import pickle
import tarfile
import types
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from avkit.errors import CheckpointError

MAX_BYTES = 4 * 2**30  # of everything in one file, uncompressed

# A file that names one of these was made to do something to its reader.
_FORBIDDEN_MODULES = {
    *(
        "os",
        "posix",
        "nt",
        "sys",
        "subprocess",
        "commands",
        "pty",
        "shutil",
        "socket",
        "ctypes",
        "webbrowser",
    ),
    *("importlib", "imp", "runpy", "code", "pip", "timeit", "bdb", "pdb", "cProfile", "profile"),
}
_FORBIDDEN_NAMES = {
    *("io.open", "_io.open", "builtins.open", "builtins.eval", "builtins.exec", "builtins.execfile"),
    *("builtins.compile", "builtins.input", "builtins.__import__", "builtins.breakpoint"),
}


class Placeholder:
    """Stands for an object of a class that was not imported: `args` it was made with, `state` it was given."""

    official_class = ""

    def __new__(cls, *args, **kwargs):
        self = object.__new__(cls)
        self.args, self.state, self.items = args, None, []
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        self.items.append(value)

    def extend(self, values: list) -> None:
        self.items.extend(values)

    def __repr__(self) -> str:
        return f"<{self.official_class}, not imported>"


class _Rebuild:
    """One of PyTorch's functions that rebuild a tensor, in a wrapper that a pickle can call but not alter."""

    __slots__ = ("_function",)

    def __init__(self, function):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args):
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function takes no state")

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("a function takes no attributes")


_ALLOWED = {
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "torch.Size": torch.Size,
    **{
        f"torch._utils.{name}": _Rebuild(getattr(torch._utils, name))
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    },
    **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
}


class _Unpickler(pickle.Unpickler):
    """Python's unpickler with one door: `find_class` looks names up here and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if full in _ALLOWED:
            return _ALLOWED[full]
        if full in _FORBIDDEN_NAMES or module.partition(".")[0] in _FORBIDDEN_MODULES:
            raise CheckpointError(
                f"the file names {full}, which no file of weights needs; nothing was run. Do not trust the file: "
                "delete it, and get the weights from where their authors publish them"
            )
        return type(name.rpartition(".")[2], (Placeholder,), {"official_class": full, "__module__": __name__})


def _load(file, **settings) -> Any:
    return _Unpickler(file, **settings).load()


def _loads(data, **settings) -> Any:
    return _load(io.BytesIO(data), **settings)


_MODULE = types.SimpleNamespace(Unpickler=_Unpickler, load=_load, loads=_loads, __name__="safe_pickle")


def read(file: Path | io.BytesIO, label: str) -> Any:
    """What a file made by `torch.save` holds, on the CPU.

    PyTorch's own reader of weights is tried first. What it refuses is read again with placeholders for the classes that
    it does not know.

    Args:
        file: a path, or the bytes of one file.
        label: how to call the file in messages.

    Raises:
        CheckpointError: not such a file, cut short, too large, of a form that cannot be read safely (TorchScript, the
            tar files of PyTorch before 0.1.10), or one that names something dangerous.
    """
    with damage_named(label), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle protocols that PyTorch does not write itself
        _refuse_other_forms(file)
        try:
            _rewind(file)
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            _rewind(file)
            return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_MODULE)


@contextlib.contextmanager
def damage_named(label: str) -> Iterator[None]:
    """Whatever a damaged file raises inside becomes a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{label}: {error}") from None
    except Exception as error:  # noqa: BLE001  a damaged archive or pickle may raise anything
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{label} cannot be read as PyTorch weights ({reason}); it may be damaged or cut short: get it again"
        ) from None


def _rewind(file: Path | io.BytesIO) -> None:
    if not isinstance(file, Path):
        file.seek(0)


def _refuse_other_forms(file: Path | io.BytesIO) -> None:
    _rewind(file)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            check_size(archive.infolist())
            if any(Path(name).name == "constants.pkl" for name in archive.namelist()):
                raise CheckpointError("this is a TorchScript program, not weights, and is not run")
        return
    _rewind(file)
    if tarfile.is_tarfile(file):
        raise CheckpointError("this is a tar file; unpack it and give the weights inside")


def check_size(members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that would unpack to more than MAX_BYTES."""
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise CheckpointError(f"the archive unpacks to {total:,} bytes; at most {MAX_BYTES:,} are read")
