"""Notebook 06, CAF: its exercises and explorers. Experiments are in `lesson06_lab`, pictures in `lesson06_figures`."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from avkit import baselines, load_model
from avkit.layers import upsample
from avkit.metrics import si_snr_improvement
from avkit.rtfs import RTFSNet
from avkit.signal import FRAME_RATE
from avkit.teach import lesson06_figures as figures
from avkit.teach import lesson06_lab as lab
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake
from avkit.teach.lesson06_lab import fuse
from avkit.teach.players import listen
from avkit.teach.samples import find_data, load_sample
from avkit.teach.widgets import Control, Explorer

NETWORK = "rtfs-net-tiny"  # the trained network that comes with the course

# Exercises ------------------------------------------------------------------------------------------------------


def to_audio_frames(x: Tensor, count: int) -> Tensor:
    """(B, C, V) -> (B, C, count): audio frame t takes lip frame ⌊t·V / count⌋."""
    return x[..., torch.arange(count) * x.shape[-1] // count]


def _whole_repeats(x: Tensor, count: int) -> Tensor:
    return x.repeat_interleave(max(1, count // x.shape[-1]), dim=-1)


def _fixed_step(x: Tensor, count: int) -> Tensor:
    index = torch.arange(count) // max(1, count // x.shape[-1])
    return x[..., index.clamp_max(x.shape[-1] - 1)]


def _played_again(x: Tensor, count: int) -> Tensor:
    return x.repeat(1, 1, math.ceil(count / x.shape[-1]))[..., :count]


def _rounded(x: Tensor, count: int) -> Tensor:
    index = torch.round(torch.arange(count) * x.shape[-1] / count).long()
    return x[..., index.clamp_max(x.shape[-1] - 1)]


def _probe_frames(answer, draw: torch.Generator) -> dict[str, Tensor]:
    lips = torch.randn(2, 3, 50, generator=draw)
    return {
        "50 lip frames and 251 audio frames": answer(lips, 251),
        "50 lip frames and 126 audio frames": answer(lips, 126),
        "7 lip frames and 16 audio frames": answer(lips[..., :7], 16),
    }


def attention_weights(embedded: Tensor, heads: int) -> Tensor:
    """(B, C·h, V), the h heads of a channel side by side -> (B, C, V): mean over heads, softmax over lip frames."""
    return embedded.unflatten(1, (-1, heads)).mean(dim=2).softmax(dim=-1)


def _probe_weights(answer, draw: torch.Generator) -> dict[str, Tensor]:
    return {
        "6 channels, 4 heads, 9 lip frames": answer(2 * torch.randn(2, 24, 9, generator=draw), 4),
        "5 channels, 3 heads, 7 lip frames": answer(2 * torch.randn(2, 15, 7, generator=draw), 3),
    }


def _along_frequency(value: Tensor, key: Tensor, attention: Tensor, gate: Tensor) -> Tensor:
    bins = value[..., 0, :]  # (B, C, F)
    return upsample(attention, bins)[..., None, :] * value + upsample(gate, bins)[..., None, :] * key


def _pooled(value: Tensor, key: Tensor, attention: Tensor, gate: Tensor) -> Tensor:
    frames = value[..., 0]
    pooled = (upsample(attention, frames)[..., None] * value).sum(dim=2, keepdim=True)
    return pooled + upsample(gate, frames)[..., None] * key


def _probe_fuse(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for channels, frames, bins, lip_frames in ((6, 13, 7, 5), (4, 31, 9, 11)):
        value = torch.randn(2, channels, frames, bins, generator=draw)
        key = torch.randn(2, channels, frames, bins, generator=draw).relu()
        attention = torch.randn(2, channels, lip_frames, generator=draw).softmax(dim=-1)
        gate = torch.randn(2, channels, lip_frames, generator=draw)
        name = f"{frames} audio frames, {bins} bins, {lip_frames} lip frames"
        results[name] = answer(value, key, attention, gate)
    return results


EXERCISES = {
    "to_audio_frames": Exercise(
        task="bring lip frames to the audio frames' rate",
        reference=to_audio_frames,
        probe=_probe_frames,
        mistakes=(
            Mistake(
                "whole repeats",
                _whole_repeats,
                "you repeat every lip frame the same whole number of times. 251 is no multiple of 50 and 126 still less: "
                "ask of each audio frame which lip frame it falls into.",
            ),
            Mistake(
                "fixed step",
                _fixed_step,
                "you go on to the next lip frame after the same whole number of audio frames each time, and hold the last one "
                "at the end. With 251 frames this runs a little ahead of the sound, with 126 far ahead.",
            ),
            Mistake(
                "linear",
                lambda x, count: interpolate(x, size=count, mode="linear"),
                "you draw straight lines between lip frames. CAF takes the nearest one as it is: no new values appear.",
            ),
            Mistake(
                "played again",
                _played_again,
                "you play the lips at the audio's rate, again and again, so they are through in a fraction of the clip. "
                "They have to be slowed down to last as long as the sound.",
            ),
            Mistake(
                "rounded",
                _rounded,
                "you round t·V/T to the nearest whole number. Lip frame k covers the time from k to k + 1, so the fraction "
                "is cut off: ⌊t·V/T⌋.",
            ),
        ),
    ),
    "mean_weight": Exercise(
        task="predict the mean weight",
        reference=0.02,
        probe=lambda answer, draw: {"50 lip frames": float(answer)},
        mistakes=(
            Mistake(
                "a sigmoid",
                0.5,
                "you think of a gate between 0 and 1 for each frame, as a sigmoid gives. A softmax shares out one whole "
                "among all the frames.",
            ),
            Mistake(
                "the sum",
                1,
                "1 is what the weights of a channel add up to; the mean is that, shared by 50 frames.",
            ),
            Mistake(
                "over channels",
                1 / 256,
                "you share one whole among the 256 channels. Here each channel has a whole of its own, and shares it out "
                "among its lip frames.",
            ),
            Mistake(
                "audio frames",
                1 / 251,
                "the softmax runs before the weights are stretched to audio frames, so 50 frames share the whole, not 251.",
            ),
            Mistake(
                "heads share too",
                1 / 200,
                "the four heads are averaged before the softmax; they do not share the whole among themselves.",
            ),
        ),
    ),
    "attention_weights": Exercise(
        task="turn embedded lips into attention weights",
        reference=attention_weights,
        probe=_probe_weights,
        mistakes=(
            Mistake(
                "heads first",
                lambda x, heads: x.unflatten(1, (heads, -1)).mean(dim=1).softmax(dim=-1),
                "you average numbers that belong to different channels. Group c of the convolution makes the h outputs c·h, "
                "…, c·h + h − 1, so the heads of one channel are neighbours: view the axis as (C, h).",
            ),
            Mistake(
                "scaled by the root of V",
                lambda x, heads: (x.unflatten(1, (-1, heads)).mean(dim=2) / x.shape[-1] ** 0.5).softmax(
                    dim=-1
                ),
                "you divide by the root of V before the softmax. That root belongs to products of queries and keys, and there "
                "are none here: the norm has set the numbers' spread already.",
            ),
            Mistake(
                "over channels",
                lambda x, heads: x.unflatten(1, (-1, heads)).mean(dim=2).softmax(dim=1),
                "your weights sum to 1 over the channels. Each channel shares out its attention among the lip frames: the "
                "softmax runs over the last axis.",
            ),
            Mistake(
                "softmax before mean",
                lambda x, heads: x.unflatten(1, (-1, heads)).softmax(dim=-1).mean(dim=2),
                "you take a softmax per head and then their mean. Here the heads are averaged first, and one softmax "
                "follows.",
            ),
            Mistake(
                "summed",
                lambda x, heads: x.unflatten(1, (-1, heads)).sum(dim=2).softmax(dim=-1),
                "you add the heads up. Their sum is h times their mean, and the softmax turns h times sharper.",
            ),
            Mistake(
                "no softmax",
                lambda x, heads: x.unflatten(1, (-1, heads)).mean(dim=2),
                "the softmax is missing: the weights of a channel must be positive and sum to 1 over the lip frames.",
            ),
        ),
    ),
    "fuse": Exercise(
        task="add the two paths up",
        reference=fuse,
        probe=_probe_fuse,
        mistakes=(
            Mistake(
                "swapped",
                lambda value, key, attention, gate: fuse(key, value, attention, gate),
                "attention and gate are swapped: attention weighs the values, the gate weighs the (rectified) keys.",
            ),
            Mistake(
                "values twice",
                lambda value, key, attention, gate: fuse(value, value, attention, gate),
                "both of your paths weigh the values. The gate weighs the keys, which have been through a ReLU.",
            ),
            Mistake(
                "along frequency",
                _along_frequency,
                "you stretch the lips along frequency. They tell *when*: stretch them to the T frames, and let every "
                "frequency of a frame have the same weight.",
            ),
            Mistake(
                "not stretched",
                lambda value, key, attention, gate: attention[..., None] * value + gate[..., None] * key,
                "the weights are still at the lips' rate, (B, C, V). Bring both to the sound's T frames first (exercise 1).",
            ),
            Mistake(
                "values passed on",
                lambda value, key, attention, gate: fuse(value, key, attention, gate) + value,
                "you add the values themselves too. CAF has no way around its weights: the sum is of the two weighted paths.",
            ),
            Mistake(
                "multiplied",
                lambda value, key, attention, gate: (
                    fuse(value, 0 * key, attention, gate) * fuse(value, key, 0 * attention, gate)
                ),
                "you multiply the two paths with each other. They are added, so that either can speak alone.",
            ),
            Mistake(
                "pooled over time",
                _pooled,
                "you sum the weighted values over time, as query–key attention would. CAF leaves each value where it is and "
                "only scales it.",
            ),
            Mistake(
                "squashed gate",
                lambda value, key, attention, gate: fuse(value, key, attention, gate.sigmoid()),
                "you put the gate through a sigmoid. CAF uses it as its norm leaves it: it may be larger than 1, or negative.",
            ),
        ),
    ),
}


# Explorers ------------------------------------------------------------------------------------------------------


@functools.cache
def _network() -> RTFSNet:
    return load_model(NETWORK)


SHOWN = ("the first talker's", "the second talker's", "a mouth that stands still")
LINKS = {  # of a channel's gate with the mouth's opening: correlation, as a part of the highest or of the lowest
    "rises with the mouth": 1.0,
    "rises a little": 0.5,
    "neither": 0.0,
    "falls a little": -0.5,
    "falls with the mouth": -1.0,
}
_SAMPLE = 1  # the explorers' mixture


@functools.cache
def _explored() -> tuple[lab.Halfway, Tensor, Tensor]:
    """The mixture in front of CAF with three mouths; their openings, (3, V); each channel's correlation of its gate with the
    mouth, (C,)."""
    data, model = str(find_data("talkers")), _network()
    sample = load_sample(data, _SAMPLE)
    still = baselines.still(sample.lips[0])
    half = lab.halfway(model, sample, torch.cat([sample.lips, still[None]]))
    mouths = lab.openings(data, sample)
    with torch.no_grad():
        links = lab.correlation(model.caf.lip_gate(half.v[:2]), mouths[:, None]).mean(dim=0)
    return half, torch.cat([mouths, baselines.still(mouths[0])[None]]), links


def channel_that(name: str, links: Tensor) -> int:
    """The channel that does best what one of `LINKS` says, by its correlation in `links` (C,)."""
    part = LINKS[name]
    wanted = part * links.max() if part > 0 else -part * links.min()
    return int((links - wanted).abs().argmin())


@torch.no_grad()
def render_gate(channel: str, lips: str) -> Html:
    """One channel of CAF: its gate under the lips chosen, and the sound in it before and after."""
    half, mouths, links = _explored()
    caf, shown = _network().caf, SHOWN.index(lips)
    number = channel_that(channel, links)
    gate = caf.lip_gate(half.v)[shown, number]  # (V,)
    key = caf.key(half.a)[0, number]  # (T, F)
    gated = upsample(gate[None, None], key[None, None, :, 0])[0, 0, :, None] * key
    return figures.draw_gated_channel(key, gate, gated, mouths[shown], f"channel {number}, lips: {lips}")


@functools.cache
def _late(frames: int) -> tuple[Tensor, Tensor, float]:
    """The second talker's output (L,), the late lips it was made with (V, 96, 96), and its SI-SNRi in dB."""
    model, sample = _network(), load_sample(find_data("talkers"), _SAMPLE)
    late = baselines.late(sample.lips[1], frames)
    half = lab.halfway(model, sample, late[None])
    voice = lab.finish(model, half, lab.fuse_with(model.caf, half))[0]
    return voice, late, float(si_snr_improvement(voice, sample.voices[1], sample.mixture))


def render_late(frames: int) -> Html:
    """The second talker's voice as it comes out when the lips are late."""
    voice, late, gain = _late(frames)
    label = f"output, lips late by {1000 * frames // FRAME_RATE} ms: SI-SNRi {gain:.1f} dB"
    return listen({label: (voice, late.numpy())})


EXPLORERS = {
    "gate": Explorer(
        render_gate,
        (
            Control("channel", tuple(LINKS), "rises with the mouth", "a channel whose gate …"),
            Control("lips", SHOWN, SHOWN[0], "lips"),
        ),
    ),
    "late": Explorer(render_late, (Control("frames", (0, 1, 2, 3, 5, 7, 10), 0, "lips late by (frames)"),)),
}


# For instructors ------------------------------------------------------------------------------------------------

INSTRUCTOR = """\
### For instructors: 06 CAF

**Minutes**: opening 3, sections 1–2 8, section 3 5, section 4 3, sections 5–8 15 (exercises 1–4 on top: 5, 2, 5, 8), section 9 6,
sections 10–11 7, sections 12–13 6, exercise 5 10. Short of time: 1, 3, 6–8, 10, 11.

**Before anything else** let everybody vote: A or B? Keep the tally for section 11. Most vote for B, because "attention" sounds like
what matters.

**What people get wrong**
- *"The gate listens."* It is computed from the lips alone. Ask what changes in the gate if the sound is replaced by silence. (Nothing.)
- *"A gate lies between 0 and 1."* No sigmoid here. Have them find the smallest gate in the explorer.
- *"Attention averages over time."* Nothing is summed; ask for the shape after the product.
- *Heads*: (C, h) or (h, C)? Draw four outputs of group 0 on the board. The same slip ruins a loaded checkpoint silently.
- *Repeating by 5*: right for 250 frames, wrong for 251, and nonsense at 2.52 frames per lip frame.
- *A lesion is an ablation.* It is not: what one network leans on says little about what another could do without it.

**Questions to ask**
- Section 2: where in the network does a concatenation's added number get the chance to select anything? (At the next nonlinearity.)
- Section 3: why does even the true loudness help so little as a gate? What would the gate need? (A frequency axis, or channels.)
- Section 7: what becomes of the attention path in a clip of ten minutes? Would you cut it into chunks, and of which length?
- Section 12: the probe guesses before CAF with an accuracy of *exactly* one half. Why exactly?
- Section 13: would you train with lips shifted at random? What do you gain, what do you lose?

**If the network has been retrained**, figures and printed numbers change; the text holds as long as the assertions do.
"""
