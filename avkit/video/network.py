"""Which network separates a video, by name or file, with its lip encoder, and what must be said about it."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from avkit import weights
from avkit.checkpoints import attach_lips, list_bundled, load_model, load_official
from avkit.errors import CheckpointError, InputError
from avkit.fast import readable_kind
from avkit.iianet import IIANet
from avkit.lips import LipEncoder

AUTOMATIC = "auto"
_REAL = (
    "iianet-lrs2",
    "iianet-lrs3",
    "iianet-vox2",
    "rtfs-net-lrs2",
)  # of `avkit weights`, trained on real faces

SYNTHETIC_CAUTION = (
    "separated by a network that was trained on synthetic talkers only: on real faces and voices its result means nothing. "
    "For real ones: avkit weights get iianet-lrs2, and a lip encoder of your own download "
    "(avkit weights get lip-encoder-iianet says how)"
)
UNKNOWN_CAUTION = "separated by weights of unknown origin: avkit cannot say what they were trained on"


def load_network(model: str | os.PathLike | nn.Module = AUTOMATIC) -> tuple[nn.Module, str, str]:
    """A network with a lip encoder, for one voice per set of lips.

    Args:
        model: "auto" (fetched official weights where they and a lip encoder are on this machine, else the bundled
            "rtfs-net-tiny"), a bundled name, a name of `avkit weights`, a checkpoint's folder, an official file, or a network.

    Returns:
        The network, its name, and the caution that its results must carry ("" for official weights).

    Raises:
        CheckpointError: no such weights, or no lip encoder for them; the message says how to get it.
        InputError: a network that gives several voices without regard to lips.
    """
    if isinstance(model, nn.Module):
        network, name = model, readable_kind(model).__name__
    else:
        name = automatic() if str(model) == AUTOMATIC else str(model)
        network = _named(name)
    if getattr(network, "lips", None) is None:
        raise CheckpointError(
            f"{name} came without a lip encoder, so it cannot read faces. The official networks' encoders are downloads of your "
            "own: avkit weights get lip-encoder-iianet (or lip-encoder-rtfs-net) says where, and takes the file with --from FILE"
        )
    if getattr(network.config, "n_src", 1) != 1:
        raise InputError(
            f"{name} gives {network.config.n_src} voices without regard to lips; wanted one that gives one"
        )
    return network.eval(), name, caution(network, name)


def automatic() -> str:
    """The name that "auto" stands for on this machine."""
    for name in _REAL:
        row = weights.find(name)
        family = "lip-encoder-iianet" if name.startswith("iianet") else "lip-encoder-rtfs-net"
        if weights.cached(row) is not None and weights.cached(weights.find(family)) is not None:
            return name
    return "rtfs-net-tiny"


def _named(name: str) -> nn.Module:
    if name in list_bundled():
        return load_model(name)
    if weights.is_official(name):
        return weights.load(name)
    if Path(name).is_file() and Path(name).suffix not in (".json", ".safetensors"):
        network = load_official(name)
        if isinstance(network, LipEncoder):
            raise CheckpointError(f"{name} holds a lip encoder only; wanted a separation network")
        if network.lips is None:
            family = "lip-encoder-iianet" if isinstance(network, IIANet) else "lip-encoder-rtfs-net"
            encoder = weights.cached(weights.find(family))
            if encoder is not None:
                attach_lips(network, load_official(encoder, "lip-encoder"))
        return network
    return load_model(name)


def caution(network: nn.Module, name: str) -> str:
    """What must be written on everything that a network makes."""
    if name in list_bundled():
        return SYNTHETIC_CAUTION
    return "" if hasattr(network, "official") else UNKNOWN_CAUTION
