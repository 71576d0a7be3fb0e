"""Where the papers and their newest public code differ, one by one, with the effect where it can be computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from avkit.registry import create_model
from avkit.signal import STFT

SECONDS = 2


@dataclass(frozen=True)
class Difference:
    """One departure of the code from the paper; `avkit` follows the code.

    Attributes:
        id: a short name.
        network: "RTFS-Net" or "IIANet".
        what: the place.
        paper, code: what either has.
        effect: of doing as the code does, computed here; or why it is not known.
    """

    id: str
    network: str
    what: str
    paper: str
    code: str
    effect: str


@cache
def _network() -> nn.Module:
    with torch.device("meta"):
        return create_model("rtfs-net-4", fast=False)


def parameters_of(*modules: nn.Module) -> int:
    """How many numbers some modules learn."""
    return sum(p.numel() for module in modules for p in module.parameters())


def bottleneck_cost() -> tuple[int, int]:
    """Parameters of RTFS-Net's bottleneck, and its MACs for 2 s."""
    network = _network()
    stft: STFT = network.encoder.stft
    points = (1 + SECONDS * 16000 // stft.hop) * (1 + stft.n_fft // 2)
    return parameters_of(network.bottleneck), network.config.channels**2 * points


def gateway_parameters() -> int:
    """Parameters of the gateways in front of the audio and the visual block."""
    network = _network()
    return parameters_of(network.rtfs_block.gateway, network.visual_block.gateway)


def projection_parameters() -> int:
    """Parameters of norm and activation behind both blocks' projections."""
    network = _network()
    blocks = (network.rtfs_block, network.visual_block)
    return sum(parameters_of(block.projection) - parameters_of(block.projection.conv) for block in blocks)


@cache
def differences() -> tuple[Difference, ...]:
    """Every difference that is known here."""
    return (*_networks(), *_training(), *_figures())


def _networks() -> list[Difference]:
    parameters, macs = bottleneck_cost()
    return [
        Difference("bottleneck", "RTFS-Net", "RTFS-Net, between encoder and first pass", "nothing", "gLN, ReLU, 1×1 convolution",
                   f"{parameters:,} parameters, {macs / 1e9:.2f} G MACs in 2 s"),
        Difference("gateway", "RTFS-Net", "RTFS-Net, entrance of a block", "the projection",
                   "first a depthwise 1×1 convolution with PReLU, whose output is also the residual",
                   f"{gateway_parameters():,} parameters"),
        Difference("projection", "RTFS-Net", "RTFS-Net, projection to D channels", "a 1×1 convolution",
                   "a norm and a PReLU after it, since a later version of the code",
                   f"{projection_parameters():,} parameters: from 739,952 to 740,210"),
        Difference("caf-norm", "RTFS-Net", "RTFS-Net, CAF's audio paths", "global layer norm", "batch norm",
                   "none on size; a batch norm's statistics are fixed after training, a global layer norm's follow each mixture"),
        Difference("attention", "IIANet", "IIANet, what is called attention between the streams", "attention",
                   "gates: a sigmoid of one stream times the other; no queries, keys and values",
                   "the word does not tell the cost: gates grow with the length, attention with its square"),
    ]  # fmt: skip


def _training() -> list[Difference]:
    unknown = "on a trained network not known; {} trains as the paper says".format
    return [
        Difference("loss", "RTFS-Net", "both, training loss", "SI-SNR", "SNR to train, SI-SNR to validate",
                   f"SNR also fixes the level of the output; {unknown('`--config rtfs-net-paper` or `iianet-paper`')}"),
        Difference("schedule", "RTFS-Net", "RTFS-Net, rate halved", "after 5 epochs without progress", "after 10",
                   unknown("`--config rtfs-net-paper`")),
        Difference("lip-encoder", "IIANet", "IIANet, lip encoder while training", "frozen",
                   "weights frozen, but its batch norms keep counting, and what they count is not saved",
                   "next to none on a small network (notebook 14 measures it); not measured on the released weights"),
    ]  # fmt: skip


def _figures() -> list[Difference]:
    return [
        Difference("counter", "RTFS-Net", "RTFS-Net, MACs", "21.9, 30.5, 56.4 G for 2 s", "21.930, 30.614, 56.666 G with PyTorch's counter",
                   "up to 0.5 %"),
        Difference("seconds", "IIANet", "IIANet, MACs", "18.6 G, for 1 s", "17.100 G for 1 s, 34.145 G for 2 s",
                   "RTFS-Net's and CTCNet's figures are for 2 s: side by side, IIANet looks half as expensive as it is"),
        Difference("sdr-rtfs", "RTFS-Net", "RTFS-Net, SDR", "signal-to-distortion ratio", "SNR of zero-mean signals",
                   "about a decibel either way on synthetic mixtures; notebook 14 measures it"),
        Difference("sdr-iianet", "IIANet", "IIANet, SDR", "signal-to-distortion ratio",
                   "BSS-eval's SDR with estimate and reference swapped, but not for the mixture it is compared with",
                   "about a decibel either way on synthetic mixtures; notebook 14 measures it"),
        Difference("pesq", "RTFS-Net", "RTFS-Net, PESQ", "PESQ", "narrow band, raw score, arguments swapped",
                   "a raw 3.08 is about 2.94 on the scale that the pesq package gives; notebook 14 measures it"),
    ]  # fmt: skip
