"""Names of networks and the configurations they stand for."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from avkit.errors import InputError
from avkit.fast import use as use_fast_form
from avkit.iianet import IIANet, IIANetConfig
from avkit.rtfs import RTFSNet, RTFSNetConfig


@dataclass(frozen=True)
class Preset:
    """A network's class, its configuration, and one line on what it is."""

    network: Callable[..., nn.Module]
    config: RTFSNetConfig | IIANetConfig
    summary: str


# 32 ms windows instead of 16: two drawn talkers are told apart by their harmonics. Three levels of compression instead of
# two: the scans then cost a quarter, which buys more examples in the same time on a CPU.
_RTFS_TINY = RTFSNetConfig(
    repeats=3,
    n_fft=512,
    hop=256,
    channels=32,
    hidden=24,
    levels=3,
    window=8,
    rnn_hidden=32,
    rnn_layers=2,
    lip_hidden=32,
    lip_heads=4,
)

# 4 ms windows every millisecond instead of 1 ms windows four times as often: a quarter of the frames, more filters.
_IIANET_TINY = IIANetConfig(
    cycles=6,
    fusion_cycles=3,
    filters=128,
    window=64,
    channels=64,
    hidden=128,
    lip_hidden=32,
)

PRESETS = {
    "rtfs-net-4": Preset(RTFSNet, RTFSNetConfig(repeats=4), "RTFS-Net, 4 blocks (ICLR 2024)"),
    "rtfs-net-6": Preset(RTFSNet, RTFSNetConfig(repeats=6), "RTFS-Net, 6 blocks (ICLR 2024)"),
    "rtfs-net-12": Preset(RTFSNet, RTFSNetConfig(repeats=12), "RTFS-Net, 12 blocks (ICLR 2024)"),
    "rtfs-net-tiny": Preset(RTFSNet, _RTFS_TINY, "small RTFS-Net for the course's synthetic talkers"),
    "rtfs-net-tiny-audio-only": Preset(
        RTFSNet, dataclasses.replace(_RTFS_TINY, n_src=2), "the same, both voices out, for training without lips"
    ),
    "iianet": Preset(IIANet, IIANetConfig(), "IIANet, 4 + 12 cycles (ICML 2024)"),
    "iianet-fast": Preset(IIANet, IIANetConfig(cycles=10), "IIANet, 4 + 6 cycles (ICML 2024)"),
    "iianet-tiny": Preset(IIANet, _IIANET_TINY, "small IIANet for the course's synthetic talkers"),
    "iianet-tiny-audio-only": Preset(
        IIANet, dataclasses.replace(_IIANET_TINY, n_src=2), "the same, both voices out, for training without lips"
    ),
}


def list_models() -> list[str]:
    """Every name that `create_model` takes, sorted."""
    return sorted(PRESETS)


def find_preset(name: str) -> Preset:
    """The preset of a name. Raises InputError, with the nearest names, where there is none."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(str(name), PRESETS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(list_models())}"
    raise InputError(f"there is no network named {name!r}; {hint}")


def create_model(name: str, *, fast: bool = True, **overrides) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: one of `list_models()`.
        fast: give its blocks their fast form where it can be had (see `avkit.fast`); the readable form computes the same.
        overrides: fields of the network's configuration to change, such as `repeats=6`.

    Raises:
        InputError: unknown name, or unknown field.
    """
    preset = find_preset(name)
    fields = {field.name for field in dataclasses.fields(preset.config)}
    unknown = sorted(set(overrides) - fields)
    if unknown:
        raise InputError(f"{name} has no setting {', '.join(unknown)}; its settings are {', '.join(sorted(fields))}")
    model = preset.network(dataclasses.replace(preset.config, **overrides))
    return use_fast_form(model) if fast else model
