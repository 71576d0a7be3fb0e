"""The two official networks from checkouts of their repositories, for side-by-side measurement.

The repositories' own code runs unchanged. What it imports besides PyTorch and is not needed for the networks (timm,
thop, pytorch_lightning) is replaced by stand-ins while it is imported; RTFS-Net's recurrence needs the package `sru`,
which compiles itself when it is first imported and wants `ninja` and a C++ compiler for that.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import yaml
from torch import Tensor, nn

from avkit.checkpoints import from_official
from avkit.errors import InputError, MissingPackageError
from avkit.layers import DropPath

FOLDERS = {"rtfs-net": "RTFS-Net", "iianet": "IIANet", "lip-encoder": "IIANet"}  # checkout's folder under DIR


def build(name: str, folder: Path) -> nn.Module:
    """An official network with random weights, in training mode as it is built.

    Args:
        name: "rtfs-net-4", "-6", "-12", "iianet", "iianet-fast" or "lip-encoder".
        folder: holds the checkouts RTFS-Net and IIANet.

    Raises:
        InputError: a checkout is missing.
        MissingPackageError: `sru` is not installed.
    """
    family = "rtfs-net" if name.startswith("rtfs-net") else "lip-encoder" if name == "lip-encoder" else "iianet"
    root = Path(folder).resolve() / FOLDERS[family]
    if not root.is_dir():
        raise InputError(
            f"{root} is missing; get it with: git clone https://github.com/"
            f"{'spkgyk/RTFS-Net' if family == 'rtfs-net' else 'JusperLee/IIANet'} {root}"
        )
    if family == "rtfs-net":
        return _rtfs_net(root, name.rpartition("-")[2])
    with _imports(root, "look2hear"), contextlib.redirect_stdout(io.StringIO()):
        if family == "lip-encoder":
            return importlib.import_module("look2hear.videomodels.resnet_videomodel").ResNetVideoModel()
        settings = yaml.safe_load((root / "configs" / "LRS2-IIANet.yml").read_text())["audionet"]["audionet_config"]
        if name == "iianet-fast":
            settings["num_blocks"] = 10
        return importlib.import_module("look2hear.models.IIANet").IIANet(sample_rate=16_000, **settings)


def _rtfs_net(root: Path, blocks: str) -> nn.Module:
    if importlib.util.find_spec("sru") is None:
        raise MissingPackageError("the official RTFS-Net needs sru; install it with: pip install sru ninja")
    settings = yaml.safe_load((root / "config" / f"lrs2_RTFSNet_{blocks}_layer.yaml").read_text())
    with _imports(root, "src"), contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module("src.models").AVNet(print_macs=False, **settings["audionet"])


@contextlib.contextmanager
def _imports(root: Path, package: str) -> Iterator[None]:
    """The repository importable and its unneeded requirements replaced, as long as the `with` lasts."""
    timm, layers = types.ModuleType("timm.models"), types.ModuleType("timm.models.layers")
    layers.DropPath = lambda drop_prob=0.0: DropPath(drop_prob)
    thop, lightning = types.ModuleType("thop"), types.ModuleType("pytorch_lightning")
    thop.profile, lightning.LightningModule, lightning.__version__ = None, nn.Module, "0"
    names = {
        "timm": types.ModuleType("timm"),
        "timm.models": timm,
        "timm.models.layers": layers,
        "thop": thop,
        "pytorch_lightning": lightning,
    }
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]


def ours(official: nn.Module, name: str) -> nn.Module:
    """avkit's network with the official one's weights."""
    state: dict[str, Tensor] = dict(official.state_dict())
    return from_official(state, name)
