"""The papers' alternatives: what RTFS-Net and IIANet were compared with, block by block.

Nothing here is needed to run either network. `RTFSNetChanges` and `IIANetChanges` say which blocks to exchange, `create`
builds a preset with them. How deep RTFS-Net compresses (q = 1…5) and how often it repeats (R) are settings of the network
itself: `create_model("rtfs-net-4", levels=3, repeats=6)`.

Where the public code holds an alternative, the one here is the same function of the same shapes; where only the paper
names it, the docstring says what was chosen. `counts` sets our parameters and MACs beside the papers'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import torch
from torch import Tensor, nn

from avkit.complexity import measure
from avkit.errors import InputError
from avkit.fast import use as use_fast_form
from avkit.iianet import IIANet, IIANetConfig, IntraA
from avkit.layers import ConvNormAct, GlobalLayerNorm, upsample
from avkit.registry import create_model, find_preset
from avkit.rtfs import CAF, DualPathScan, RTFSBlock, RTFSNet, RTFSNetConfig, SelfAttention

# ------------------------------------------------------------------------------------- RTFS-Net: instead of the SRU


class RecurrentScan(nn.Module):
    """PyTorch's RNN, GRU or LSTM where the SRU stood: as wide, as deep, in both directions."""

    def __init__(self, kind: type[nn.RNNBase], inputs: int, hidden: int, layers: int):
        super().__init__()
        self.rnn = kind(inputs, hidden, layers, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """(steps, batch, inputs) -> (steps, batch, 2·hidden)."""
        return self.rnn(x)[0]


class AttentionScan(nn.Module):
    """Self-attention over the unfolded windows: the layer of the visual block, as wide as a window.

    Positions count along the scanned axis. (In the public code, whose layer expects the batch first and here gets it
    second, they count along the batch.)
    """

    def __init__(self, inputs: int, heads: int = 8, dropout: float = 0.1):
        super().__init__()
        self.attention = SelfAttention(inputs, heads, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(steps, batch, inputs) -> the same shape."""
        return self.attention(x.permute(1, 2, 0)).permute(2, 0, 1)


_RECURRENT = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def exchange_scan(scan: DualPathScan, kind: str, channels: int, config: RTFSNetConfig) -> None:
    """Put another scan where a DualPathScan has its SRU."""
    inputs = channels * config.window
    if kind == "attention":
        scan.rnn = AttentionScan(inputs)
        scan.fold = nn.ConvTranspose1d(inputs, channels, config.window)
    else:
        scan.rnn = RecurrentScan(_RECURRENT[kind], inputs, config.rnn_hidden, config.rnn_layers)


# ------------------------------------------------------------------------- RTFS-Net: instead of TF-AR, CAF and S³


class PlainReconstruction(nn.Module):
    """Without TF-AR: the global feature and every level are brought to the finest size and added. (The paper does not
    say what stood in TF-AR's place; this is the least that can.)"""

    def forward(self, levels: list[Tensor], g: Tensor) -> Tensor:
        """Levels (B, D, …), finest first, and G of the coarsest one's size -> the shape of the finest."""
        return sum((upsample(level, levels[0]) for level in levels[1:]), levels[0]) + upsample(g, levels[0])


class ConcatenationFusion(nn.Module):
    """Instead of CAF, CTCNet's way: lips resampled, laid beside the sound, and mixed by one convolution with gLN."""

    def __init__(self, channels: int, lip_channels: int):
        super().__init__()
        self.mix = ConvNormAct(nn.Conv2d(channels + lip_channels, channels, 1), GlobalLayerNorm(channels))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        """a (B, C, T, F), v (B, 512, V) -> (B, C, T, F)."""
        lips = upsample(v, a[..., 0])[..., None].expand(-1, -1, -1, a.shape[3])  # (B, 512, T, F)
        return self.mix(torch.cat((a, lips), dim=1))


class Regression(nn.Module):
    """Instead of S³: the features themselves are decoded, and the encoding is not used."""

    def forward(self, a: Tensor, encoded: Tensor) -> Tensor:
        """Features (B, C, T, F) -> (B, 1, C, T, F)."""
        return a[:, None]


class RealMask(nn.Module):
    """Instead of S³: a mask from the same layers, multiplied number by number."""

    def __init__(self, channels: int, n_src: int):
        super().__init__()
        self.act = nn.PReLU()
        self.conv = nn.Conv2d(channels, n_src * channels, 1)

    def mask(self, a: Tensor) -> Tensor:
        """(B, C, T, F) -> (B, n_src·C, T, F)."""
        return torch.relu(self.conv(self.act(a)))

    def forward(self, a: Tensor, encoded: Tensor) -> Tensor:
        """Features (B, C, T, F) and the encoder's output of the same shape -> z, (B, n_src, C, T, F)."""
        return self.mask(a).unflatten(1, (-1, a.shape[1])) * encoded[:, None]


class GatedMask(RealMask):
    """The same, with a gate after it: tanh of one 1×1 convolution times the sigmoid of another."""

    def __init__(self, channels: int, n_src: int):
        super().__init__(channels, n_src)
        self.output = nn.Conv2d(n_src * channels, n_src * channels, 1)
        self.gate = nn.Conv2d(n_src * channels, n_src * channels, 1)

    def mask(self, a: Tensor) -> Tensor:
        """(B, C, T, F) -> (B, n_src·C, T, F)."""
        mask = super().mask(a)
        return torch.tanh(self.output(mask)) * torch.sigmoid(self.gate(mask))


class UnsharedRTFSNet(RTFSNet):
    """R audio blocks with weights of their own, in place of one block used R times."""

    def __init__(self, config: RTFSNetConfig):
        super().__init__(config)
        self.rtfs_block = nn.ModuleList(RTFSBlock(config) for _ in range(config.repeats))

    def separate_features(self, a0: Tensor, lips: Tensor) -> Tensor:
        """a₀ (B, C, T, F) and lips (B, 512, V) -> (B, C, T, F)."""
        first, *others = self.rtfs_block
        a = self.caf(first(a0), self.visual_block(lips))
        for block in others:
            a = block(a + a0)
        return a


# ------------------------------------------------------------------------------------------------- IIANet: without …


class NoExchange(nn.Module):
    """Without InterA-T: neither stream hears of the other at the top; each keeps its perceptron."""

    def __init__(self, audio_perceptron: nn.Module, video_perceptron: nn.Module):
        super().__init__()
        self.audio_perceptron, self.video_perceptron = audio_perceptron, video_perceptron

    def forward(self, a: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """a (B, H, T'), v (B, D, V') or None -> the same shapes."""
        return self.audio_perceptron(a), None if v is None else self.video_perceptron(v)


class NoLips(nn.Module):
    """Without InterA-M: the sound goes on as it is."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        """a (B, H, Tᵢ), v (B, D, Vᵢ) -> a."""
        return a


class Sum(nn.Module):
    """Without InterA-B, two tensors of one shape are added; without IntraA, a fine one (B, C, T) and a coarse one that is
    resampled to it. (The public code holds neither case.)"""

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """-> the shape of the first."""
        return fine + upsample(coarse, fine)


# --------------------------------------------------------------------------------------------- saying what to change


def _check_literals(changes: RTFSNetChanges | IIANetChanges) -> None:
    for name, hint in get_type_hints(type(changes)).items():
        known = get_args(hint) or (True, False)
        if getattr(changes, name) not in known:
            raise InputError(
                f"{name} is {getattr(changes, name)!r}; wanted one of {', '.join(map(repr, known))}"
            )


@dataclass(frozen=True)
class RTFSNetChanges:
    """What stands in an RTFS-Net; the defaults are the published network's."""

    scan: Literal["sru", "rnn", "gru", "lstm", "attention"] = "sru"
    reconstruction: Literal["tf-ar", "plain"] = "tf-ar"
    fusion: Literal["caf", "concatenation"] = "caf"
    separation: Literal["s3", "regression", "mask", "gated-mask"] = "s3"
    blocks: Literal["shared", "unshared"] = "shared"

    def __post_init__(self):
        _check_literals(self)

    def build(self, config: RTFSNetConfig) -> RTFSNet:
        """An RTFS-Net of this configuration with the changes made, random weights."""
        model = RTFSNet(config) if self.blocks == "shared" else UnsharedRTFSNet(config)
        for block in [module for module in model.modules() if isinstance(module, RTFSBlock)]:
            if self.scan != "sru":
                exchange_scan(block.scan_frequency, self.scan, config.hidden, config)
                exchange_scan(block.scan_time, self.scan, config.hidden, config)
            if self.reconstruction == "plain":
                block.reconstruction = PlainReconstruction()
        if self.fusion == "concatenation":
            model.caf = ConcatenationFusion(config.channels, config.lip_channels)
        if self.separation == "regression" and config.n_src != 1:
            raise InputError(f"regression decodes one voice; n_src is {config.n_src}")
        if self.separation != "s3":
            sizes = () if self.separation == "regression" else (config.channels, config.n_src)
            model.s3 = {"regression": Regression, "mask": RealMask, "gated-mask": GatedMask}[self.separation](
                *sizes
            )
        return model


@dataclass(frozen=True)
class IIANetChanges:
    """Which attention blocks an IIANet has; the published network has all."""

    inter_top: bool = True
    inter_middle: bool = True
    inter_bottom: bool = True
    intra: bool = True

    def __post_init__(self):
        _check_literals(self)

    def build(self, config: IIANetConfig) -> IIANet:
        """An IIANet of this configuration with the changes made, random weights."""
        model = IIANet(config)
        separation = model.separation
        if not self.inter_top:
            top = separation.inter_top
            separation.inter_top = NoExchange(top.audio_perceptron, top.video_perceptron)
        if not self.inter_middle:
            separation.inter_middle = nn.ModuleList(NoLips() for _ in range(config.levels))
        if not self.inter_bottom:
            separation.audio_inter_bottom, separation.video_inter_bottom = Sum(), Sum()
        if not self.intra:
            for name, module in list(separation.named_modules()):
                if isinstance(module, IntraA):
                    separation.set_submodule(name, Sum())
        return model


def create(name: str, changes: RTFSNetChanges | IIANetChanges, **overrides) -> nn.Module:
    """A preset with blocks exchanged, random weights; `model.changes` says which.

    Args:
        name: a name that `avkit.create_model` takes, of the family that the changes are for.
        changes: what to exchange.
        overrides: fields of the network's configuration, as for `avkit.create_model`.

    Raises:
        InputError: unknown name or field, or changes for the other family.
    """
    plain = create_model(name, **overrides)
    family = RTFSNet if isinstance(changes, RTFSNetChanges) else IIANet
    if not isinstance(plain, family):
        raise InputError(
            f"{name} is an {type(plain).__name__}; {type(changes).__name__} is for {family.__name__}"
        )
    model = use_fast_form(changes.build(plain.config))
    model.changes = changes
    return model


def changes_for(name: str, settings: Mapping[str, Any]) -> RTFSNetChanges | IIANetChanges:
    """The changes that a mapping such as {"fusion": "concatenation"} names, for the family of a preset.

    Raises:
        InputError: unknown preset, unknown setting, or a value that it cannot take.
    """
    kind = RTFSNetChanges if find_preset(name).network is RTFSNet else IIANetChanges
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"{name} has no part {', '.join(unknown)} to change; wanted some of {', '.join(known)}")
    return kind(**settings)


# ------------------------------------------------------------------------------------------- beside the papers' tables


@dataclass(frozen=True)
class Count:
    """A number of a paper's table beside ours, both in `unit`."""

    what: str
    unit: Literal["K parameters", "G MACs, 2 s"]
    paper: float
    ours: float
    why: str = ""  # where they do not agree


def counts() -> list[Count]:
    """Every size that RTFS-Net's ablation tables give, counted here. Takes some seconds.

    The paper cuts figures off where others round (739,952 parameters are its 739 K). IIANet's ablations come without
    sizes.
    """
    caf, concatenation = CAF(256, 512, heads=4), ConcatenationFusion(256, 512)
    unshared = create("rtfs-net-4", RTFSNetChanges(blocks="unshared"))
    positions = 251 * 129  # frames and frequencies in 2 s
    rows = [
        Count("fusion by CAF", "K parameters", 7, _parameters(caf) / 1e3),
        Count("fusion by concatenation", "K parameters", 197, _parameters(concatenation) / 1e3),
        Count("fusion by CAF", "G MACs, 2 s", 0.083, _fusion_macs(positions, 2 * 256) / 1e9,
              "ours are convolutions alone; ten operations on each of 256·251·129 numbers make 0.083 G"),
        Count("fusion by concatenation", "G MACs, 2 s", 6.4, _fusion_macs(positions, 256 * (256 + 512)) / 1e9),
        Count("blocks that share weights", "K parameters", 739, _parameters(create_model("rtfs-net-4")) / 1e3,
              "258 parameters of norms and activations came in after the paper"),
        Count("blocks of their own", "K parameters", 2183, _parameters(unshared) / 1e3,
              "645 parameters of norms and activations came in after the paper"),
    ]  # fmt: skip
    why = {
        1: "2.6 G of ours are the attention's two products over 251 frames",
        3: "another counter: 1 % less",
        4: "another counter: 2 % less",
        5: "another counter: 2 % less",
    }
    for q, paper in enumerate((60.5, 21.9, 12.4, 10.2, 9.7), start=1):
        rows.append(Count(f"q = {q}", "G MACs, 2 s", paper, _macs_of_four(q) / 1e9, why.get(q, "")))
    return rows


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _macs_of_four(levels: int) -> int:
    """MACs of RTFS-Net-4 over 2 s, from one pass with a single block: the other three cost the same again."""
    one = measure(create_model("rtfs-net-4", levels=levels, repeats=1), seconds=2.0, depth=1)
    return one.macs + 3 * next(row.macs for row in one.rows if row.module == "rtfs_block")


def _fusion_macs(positions: int, per_position: int) -> int:
    """MACs of a fusion's convolutions on the sound; those on 50 lip frames are under 1 % and left out."""
    return positions * per_position
