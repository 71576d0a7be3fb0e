"""Experiments of notebook 06 on the fusion of a trained RTFS-Net: halted, cut, frozen, probed, and watched."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from avkit import baselines
from avkit.data import labels
from avkit.data.visemes import CURVES
from avkit.layers import upsample
from avkit.lips import LipTransform
from avkit.metrics import si_snr_improvement
from avkit.rtfs import CAF, RTFSNet
from avkit.signal import FRAME_RATE, SAMPLE_RATE, STFT
from avkit.teach.display import Html
from avkit.teach.players import listen
from avkit.teach.samples import Sample

SAMPLES_PER_LIP_FRAME = SAMPLE_RATE // FRAME_RATE

# The network, halted in front of its fusion --------------------------------------------------------------------


@dataclass(frozen=True)
class Halfway:
    """RTFS-Net halted in front of its fusion, with one mixture and two pairs of lips.

    Attributes:
        sample: the mixture, its voices, and the lips shown.
        encoded: E, (1, C, T, F).
        a0: what every repeat of the RTFS block is reminded of, (1, C, T, F).
        a: after the first RTFS block, (1, C, T, F); no lips have been seen yet.
        v: the lips after the visual block, (2, 512, V).
    """

    sample: Sample
    encoded: Tensor
    a0: Tensor
    a: Tensor
    v: Tensor


@torch.no_grad()
def halfway(model: RTFSNet, sample: Sample, lips: Tensor | None = None) -> Halfway:
    """Run the network up to CAF; `lips` (2, F, 96, 96) uint8 stand in for the sample's own."""
    encoded = model.encoder(sample.mixture[None])
    a0 = model.bottleneck(encoded)
    return Halfway(
        sample, encoded, a0, model.rtfs_block(a0), watch(model, sample.lips if lips is None else lips)
    )


@torch.no_grad()
def watch(model: RTFSNet, lips: Tensor) -> Tensor:
    """Mouth frames (B, F, 96, 96) uint8 -> (B, 512, F), through lip encoder and visual block."""
    return model.visual_block(model.lips(LipTransform()(lips)))


@torch.no_grad()
def finish(model: RTFSNet, half: Halfway, fused: Tensor) -> Tensor:
    """Run the network from CAF's output (2, C, T, F) to its end: two voices, (2, L)."""
    for _ in range(model.config.repeats - 1):
        fused = model.rtfs_block(fused + half.a0)
    return model.decoder(model.s3(fused, half.encoded), len(half.sample.mixture))[:, 0]


def gains(voices: Tensor, sample: Sample) -> list[float]:
    """SI-SNRi of (2, L) outputs against the two talkers of a mixture, in dB."""
    return si_snr_improvement(voices, sample.voices, sample.mixture.expand_as(voices)).tolist()


def fuse(value: Tensor, key: Tensor, attention: Tensor, gate: Tensor) -> Tensor:
    """value, key (B, C, T, F), attention, gate (B, C, V) -> attention · value + gate · key, (B, C, T, F)."""
    frames = value[..., 0]  # (B, C, T)
    return upsample(attention, frames)[..., None] * value + upsample(gate, frames)[..., None] * key


CHANGES = {
    "whole": lambda w: w,
    "frozen": lambda w: w.mean(-1, keepdim=True).expand_as(w),
    "cut": torch.zeros_like,
}
LESIONS = {  # what is done to the lips' message on the attention path and on the gated path
    "both paths whole": ("whole", "whole"),
    "attention path frozen": ("frozen", "whole"),
    "attention path cut": ("cut", "whole"),
    "gated path frozen": ("whole", "frozen"),
    "gated path cut": ("whole", "cut"),
}


@torch.no_grad()
def fuse_with(caf: CAF, half: Halfway, attention: str = "whole", gate: str = "whole") -> Tensor:
    """CAF with the lips' weights left whole, frozen at their mean over time, or cut (set to 0), (2, C, T, F)."""
    weights = CHANGES[attention](caf.attention_weights(half.v)), CHANGES[gate](caf.lip_gate(half.v))
    return fuse(caf.value(half.a), caf.key(half.a), *weights)


@torch.no_grad()
def path_sizes(caf: CAF, half: Halfway) -> tuple[float, float]:
    """Root mean square of what the attention path and the gated path bring to CAF's sum."""
    paths = fuse_with(caf, half, gate="cut"), fuse_with(caf, half, attention="cut")
    return tuple(float(path.square().mean().sqrt()) for path in paths)


@torch.no_grad()
def sizes_by_length(model: RTFSNet, samples: Sequence[Sample]) -> dict[int, float]:
    """Seconds of a clip -> root mean square of what the attention path brings to CAF's sum.

    Of 1 second: the samples' first halves. Of 4: two samples in a row.
    """
    halves = [_cut(sample, FRAME_RATE) for sample in samples]
    doubles = [_joined(*pair) for pair in zip(samples[::2], samples[1::2], strict=True)]
    return {
        seconds: sum(path_sizes(model.caf, halfway(model, clip))[0] for clip in clips) / len(clips)
        for seconds, clips in ((1, halves), (2, samples), (4, doubles))
    }


def _cut(sample: Sample, frames: int) -> Sample:
    """The first lip frames of a sample, and the sound that goes with them."""
    length = frames * SAMPLES_PER_LIP_FRAME
    return dataclasses.replace(
        sample,
        mixture=sample.mixture[:length],
        voices=sample.voices[:, :length],
        lips=sample.lips[:, :frames],
    )


def _joined(first: Sample, second: Sample) -> Sample:
    """One sample after the other, with the first one's names."""
    return dataclasses.replace(
        first,
        mixture=torch.cat((first.mixture, second.mixture)),
        voices=torch.cat((first.voices, second.voices), dim=1),
        lips=torch.cat((first.lips, second.lips), dim=1),
    )


def stages(model: RTFSNet, half: Halfway) -> dict[str, Tensor]:
    """Features along the way, (2, C, T, F) each: before CAF, after it, and after each further RTFS block."""
    with torch.no_grad():
        features = fuse_with(model.caf, half)
        found = {"before CAF": half.a.expand_as(features), "after CAF": features}
        for number in range(2, model.config.repeats + 1):
            features = model.rtfs_block(features + half.a0)
            found[f"after block {number}"] = features
    return found


def owners(model: RTFSNet, sample: Sample, margin_db: float = 10.0) -> tuple[Tensor, Tensor]:
    """Whose the points of the network's STFT are: (2, T, F), 1 where the talker is the louder, 0 where the other is; and
    which points, (T, F), count: one voice is `margin_db` above the other and at most 50 dB below its own loudest point."""
    stft = STFT(model.config.n_fft, model.config.hop)
    power = stft(sample.voices).square().sum(dim=1)  # (2, T, F)
    weak, strong = power.sort(dim=0).values
    clear = (strong > 10 ** (margin_db / 10) * weak) & (strong > 1e-5 * power.max())
    return (power == strong).double(), clear


def _points(model: RTFSNet, half: Halfway) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each stage's name, its features at the points that count with a 1 added, (N, C + 1), and whose they are, (N,)."""
    owner, clear = owners(model, half.sample)
    for name, features in stages(model, half).items():
        points = features.double().permute(0, 2, 3, 1)[:, clear].flatten(0, 1)  # both talkers' in turn
        yield name, pad(points, (0, 1), value=1.0), owner[:, clear].flatten()


def probe(model: RTFSNet, fitted: Iterable[Halfway], tried: Iterable[Halfway]) -> dict[str, float]:
    """How often a linear probe tells from the C features of a point alone whether it belongs to the talker watched.

    One probe for each of `stages`, fitted by least squares on some mixtures and tried on others; 0.5 is guessing.
    """
    products: dict[str, Tensor] = {}
    for half in fitted:
        for name, points, owner in _points(model, half):
            products[name] = products.get(name, 0) + points.T @ torch.cat(
                (points, owner[:, None] - 0.5), dim=1
            )
    weights = {name: torch.linalg.lstsq(p[:, :-1], p[:, -1]).solution for name, p in products.items()}
    right: dict[str, list[Tensor]] = {}
    for half in tried:
        for name, points, owner in _points(model, half):
            right.setdefault(name, []).append((points @ weights[name] > 0) == (owner > 0))
    return {name: float(torch.cat(values).double().mean()) for name, values in right.items()}


def hear_wires(model: RTFSNet, sample: Sample, talker: int) -> Html:
    """The mixture, and one talker's voice by the whole network, without the attention path, and without the gated path."""
    half, lesions = halfway(model, sample), {"both wires whole": "both paths whole"}
    lesions |= {"wire A cut": "attention path cut", "wire B cut": "gated path cut"}
    voices = {
        label: finish(model, half, fuse_with(model.caf, half, *LESIONS[lesion]))[talker]
        for label, lesion in lesions.items()
    }
    return listen(
        {"the mixture, and the mouth that is watched": (sample.mixture, sample.lips[talker]), **voices}
    )


@torch.no_grad()
def late_voices(model: RTFSNet, half: Halfway, frames: int) -> dict[str, Tensor]:
    """Both voices, (2, L), with the lips late by so many frames, and with CAF's gate or its attention weights alone late."""
    caf, sample = model.caf, half.sample
    value, key = caf.value(half.a), caf.key(half.a)
    attention, gate = caf.attention_weights(half.v), caf.lip_gate(half.v)
    v = watch(model, torch.stack([baselines.late(lips, frames) for lips in sample.lips]))
    weights = {
        "lips late": (caf.attention_weights(v), caf.lip_gate(v)),
        "gate alone late": (attention, _late(gate, frames)),
        "attention alone late": (_late(attention, frames), gate),
    }
    return {name: finish(model, half, fuse(value, key, *pair)) for name, pair in weights.items()}


def _late(weights: Tensor, frames: int) -> Tensor:
    """Weights (B, C, V) that come late; the first ones are held until then."""
    return baselines.late(weights.movedim(2, 0), frames).movedim(0, 2)


# Mouths and loudness, at 25 per second --------------------------------------------------------------------------

_label_table = functools.lru_cache(maxsize=2)(labels.read_labels)
_mixture_table = functools.lru_cache(maxsize=2)(labels.read_mixtures)


def openings(data: str, sample: Sample) -> Tensor:
    """Gap between the lips of both talkers, (2, 50), 0 shut … 1 widest: the curves that their mouths were drawn by."""
    table = _label_table(data)
    row = next(row for row in _mixture_table(data) if row["name"] == sample.name)
    curves = [table.curves[table.index(row[which]), :, CURVES.index("opening")] for which in ("utt1", "utt2")]
    return torch.stack([torch.from_numpy(curve) for curve in curves])


def loudness(voices: Tensor) -> Tensor:
    """Level of (…, L) sound in each lip frame, (…, L // 640) in dB, at most 50 dB below the loudest frame."""
    power = voices.unfold(-1, SAMPLES_PER_LIP_FRAME, SAMPLES_PER_LIP_FRAME).square().mean(dim=-1)
    levels = 10 * power.clamp_min(1e-12).log10()
    return levels.maximum(levels.amax(dim=-1, keepdim=True) - 50)


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation along the last axis; 0 where one of the two does not change."""
    x, y = (z - z.mean(dim=-1, keepdim=True) for z in (x, y))
    return (x * y).sum(dim=-1) / (x.norm(dim=-1) * y.norm(dim=-1)).clamp_min(1e-9)


def by_hand(sample: Sample, curves: Tensor) -> Tensor:
    """The mixture turned up and down by each of two curves (2, V): one gate for every frequency, (2, L)."""
    stft = STFT()
    spectrum = stft(sample.mixture[None])  # (1, 2, T, F)
    gate = upsample(curves[:, None], spectrum[:, 0, None, :, 0])[..., None]  # (2, 1, T, 1)
    return stft.inverse(gate * spectrum, len(sample.mixture))


@torch.no_grad()
def follow(model: RTFSNet, data: str, samples: Sequence[Sample]) -> dict[str, dict[str, Tensor]]:
    """How the gate, its size (the sign left out) and the attention weights move with a talker's mouth and voice when own,
    other's or still lips are shown: path -> what -> (C,) correlations, mean over talkers and mixtures."""
    caf = model.caf
    paths = {"gate": caf.lip_gate, "gate's size": lambda v: caf.lip_gate(v).abs()}
    paths["attention"] = caf.attention_weights
    found: dict[str, dict[str, Tensor]] = {path: {} for path in paths}
    for sample in samples:
        mouths, levels = openings(data, sample)[:, None], loudness(sample.voices)[:, None]  # (2, 1, V)
        own = watch(model, sample.lips)
        still = watch(model, torch.stack([baselines.still(lips) for lips in sample.lips]))
        for path, weigh in paths.items():
            moves = {
                "own lips shown, own mouth": correlation(weigh(own), mouths),
                "own lips shown, own voice": correlation(weigh(own), levels),
                "other's lips shown, own mouth": correlation(weigh(own.flip(0)), mouths),
                "still lips shown, own mouth": correlation(weigh(still), mouths),
            }
            for what, value in moves.items():
                found[path][what] = found[path].get(what, 0) + value.mean(dim=0)
    count = len(samples)
    return {path: {what: value / count for what, value in moves.items()} for path, moves in found.items()}
