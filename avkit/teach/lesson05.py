"""Notebook 05, attend and restore: its exercises, explorers and figures."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from avkit import load_model
from avkit.registry import find_preset
from avkit.rtfs import TFAttention
from avkit.signal import SAMPLE_RATE
from avkit.teach import lesson05_figures as figures
from avkit.teach import plots, tiles
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake
from avkit.teach.passes import Passes, watch
from avkit.teach.players import listen
from avkit.teach.samples import Sample, find_data, load_sample
from avkit.teach.widgets import Control, Explorer

NETWORK = "rtfs-net-tiny"  # the trained network that comes with the course

INSTRUCTOR = """
**Minutes.** 1 where we are 3 · 2 attention 10 + exercise 7 · 3 what it looks at 6 · 4 cost 5 · 5 the way back 9 + exercises 12 ·
6 the block 4 · 7 repeats 8 + exercise 3 · open exercise 8. With less time, leave out section 4 and the explorer of section 5.

**What people get wrong.**
- They take frequencies, points or channels for tokens. Ask: how many rows has the map, and what does one row read?
- They divide by the root of E. Ask what the length of the two vectors is that are multiplied.
- They believe bright stripes in a map to be important. Section 5 switches attention off and measures; see how much this small
  network loses by it. A picture of attention is not an explanation.
- They enlarge bilinearly in the injection sum, or put a sigmoid on the shift as well.
- They take the gates for the whole story. In our small network the shifts weigh far more, for S³ multiplies the sound by the mask
  at the end. And part of what a gate is worth is a constant: hold each at its own mean, and less is lost than at ½.
- They expect each pass to improve the output a little, as if the passes were steps of an iteration that they have met elsewhere.
  Section 7 shows that early features are written for the next pass and not for S³; a linear translation shows what they know.
  After pass 1 our small network's output is worse than the mixture, and holds more of the other voice than of the wanted one. Let
  the room hear it before anybody explains.
- They multiply the MACs of RTFS-Net-4 by three. The encoder, the bottleneck, CAF and S³ run once.

**Questions to ask.**
- Why does the first pass have the same maps for both talkers? (No lips have been seen.)
- Attention does not know the order of frames; why does that do no harm here? (The scan before it does.)
- The gain of the attention's norm has an entry for each frequency. What can this network therefore not be given? (Another STFT.)
- In passes 2 and 3 two heads read the other voice and two the wanted one. Why may either help? (One shows what has to go, the
  other what has to stay.)
- What comes through where a gate of TF-AR is shut? (The shift, and dᵢ, which is added.)
- Would sharing weights save memory in training? (Weights yes; but the activations of all R passes are kept for the backward
  pass. The paper needed larger GPUs for R = 20, appendix J.)

**In the room.** Let each pair draw its curve of section 7 on paper before the cell runs, and keep the drawings for the discussion.
"""

# Exercises ------------------------------------------------------------------------------------------------------


def attention_map(q: Tensor, k: Tensor) -> Tensor:
    """(B, E, T, F) twice -> (B, T, T): softmax over frames of q·k / √(E·F), a frame being one token."""
    q, k = (x.transpose(1, 2).flatten(2) for x in (q, k))  # (B, T, E·F)
    return torch.softmax(q @ k.transpose(1, 2) / q.shape[2] ** 0.5, dim=2)


def _mistaken_map(
    q: Tensor, k: Tensor, equation: str = "betf,besf->bts", width=None, dim: int = -1
) -> Tensor:
    products = torch.einsum(equation, q, k)
    return torch.softmax(products / (q.shape[1] * q.shape[3] if width is None else width(q)) ** 0.5, dim=dim)


def _flattened_across(q: Tensor, k: Tensor) -> Tensor:
    """Frames cut from memory as it lies, (B, E, T, F) viewed as (B, T, E·F): the channels of different frames mixed."""
    q, k = (x.reshape(x.shape[0], x.shape[2], -1) for x in (q, k))
    return torch.softmax(q @ k.transpose(1, 2) / q.shape[2] ** 0.5, dim=2)


def _probe_map(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for shape in ((2, 4, 7, 11), (1, 3, 9, 5)):
        q, k = torch.randn(2, *shape, generator=draw)
        results["B, E, T, F = {}, {}, {}, {}".format(*shape)] = answer(q, k)
    return results


def inject(local: Tensor, gate: Tensor, shift: Tensor) -> Tensor:
    """(B, C, T, F), (B, C, t, f), (B, C, t, f) -> (B, C, T, F): local · up(σ(gate)) + up(shift), `up` nearest."""
    size = local.shape[2:]
    return local * interpolate(torch.sigmoid(gate), size=size) + interpolate(shift, size=size)


def _bilinear(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, size=like.shape[2:], mode="bilinear")


def _up(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, size=like.shape[2:])


def _probe_inject(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for fine, coarse in (((13, 21), (6, 10)), ((31, 9), (7, 2))):
        local = torch.randn(2, 3, *fine, generator=draw)
        gate, shift = torch.randn(2, 2, 3, *coarse, generator=draw)
        name = f"{fine[0]} by {fine[1]} points from {coarse[0]} by {coarse[1]}"
        results[name] = answer(local, gate, shift)
    return results


def restore(levels: list[Tensor], g: Tensor, inject_into: list, merge: list) -> Tensor:
    """Levels d₀ … d₍q₋₁₎, finest first, and G -> the finest level's shape (equations 18 and 19)."""
    fused = [unit(level, g) for unit, level in zip(inject_into, levels)]
    u = fused[-1]
    for i in reversed(range(len(merge))):
        u = merge[i](fused[i], u) + levels[i]
    return u


def _mistaken_restore(
    levels: list[Tensor],
    g: Tensor,
    inject_into: list,
    merge: list,
    start="fused",
    add="level",
    order=reversed,
) -> Tensor:
    fused = [unit(level, g) for unit, level in zip(inject_into, levels)]
    starts = {"fused": fused[-1], "global": g, "level": levels[-1], "both": fused[-1] + levels[-1]}
    u = starts[start]
    for i, unit in order(list(enumerate(merge))):
        u = unit(fused[i], u) + {"level": levels[i], "fused": fused[i], "nothing": 0}[add]
    return u


def _swapped_merge(levels: list[Tensor], g: Tensor, inject_into: list, merge: list) -> Tensor:
    return restore(levels, g, inject_into, [lambda m, n, unit=unit: unit(n, m) for unit in merge])


def _merge_neighbours(levels: list[Tensor], g: Tensor, inject_into: list, merge: list) -> Tensor:
    fused = [unit(level, g) for unit, level in zip(inject_into, levels)]
    return merge[0](fused[0], fused[1]) + levels[0]


def _probe_restore(answer, draw: torch.Generator) -> dict[str, Tensor]:
    """With units that can be told apart: each scales its two inputs by numbers of its own."""

    def unit(a: float, b: float):
        return lambda m, n: a * torch.tanh(m) + b * interpolate(n, size=m.shape[2:])

    results = {}
    for sizes in (((12, 9), (6, 4)), ((17, 23), (8, 11), (4, 5))):
        levels = [torch.randn(2, 3, *size, generator=draw) for size in sizes]
        g = torch.randn(2, 3, *sizes[-1], generator=draw)
        into = [unit(1.0 + i, 0.5 - i) for i in range(len(sizes))]
        merge = [unit(2.0 - i, 0.7 + i) for i in range(len(sizes) - 1)]
        results[f"{len(sizes)} levels"] = answer(levels, g, into, merge)
    return results


FOUR, SIX, TWELVE = (
    21.930,
    30.614,
    56.666,
)  # G MACs of RTFS-Net-4, -6, -12 over 2 s; tests hold avkit.complexity to them

EXERCISES = {
    "attention_map": Exercise(
        task="let every frame attend to every frame",
        reference=attention_map,
        probe=_probe_map,
        mistakes=(
            Mistake(
                "scaled by E alone",
                lambda q, k: _mistaken_map(q, k, width=lambda q: q.shape[1]),
                "you divide by the root of E. But a token is a whole frame: the vectors that you multiply have E·F entries, "
                "and it is the root of their length that keeps the spread of q·k at one.",
            ),
            Mistake(
                "scaled by F alone",
                lambda q, k: _mistaken_map(q, k, width=lambda q: q.shape[3]),
                "you divide by the root of F. The vectors that you multiply have all channels of all frequencies, E·F entries.",
            ),
            Mistake(
                "no scale",
                lambda q, k: _mistaken_map(q, k, width=lambda q: 1),
                "the scale is missing. Products of vectors with E·F entries are large, and the softmax turns nearly hard: "
                "divide by the root of E·F.",
            ),
            Mistake(
                "softmax over queries",
                lambda q, k: _mistaken_map(q, k, dim=1),
                "your softmax runs over the frames that ask. Each of them shares out its attention among the frames that "
                "are read, so it is the rows of the map that sum to 1.",
            ),
            Mistake(
                "queries and keys swapped",
                lambda q, k: attention_map(k, q),
                "queries and keys have changed places. Row t belongs to the *query* of frame t, which is compared with the keys "
                "of all frames.",
            ),
            Mistake(
                "frequencies as tokens",
                lambda q, k: _mistaken_map(q, k, "betf,betg->bfg", width=lambda q: q.shape[1] * q.shape[2]),
                "your tokens are frequencies: the map is F by F. Here frames are compared with frames, over all channels "
                "and frequencies: T by T.",
            ),
            Mistake(
                "each frequency for itself",
                lambda q, k: _mistaken_map(q, k, "betf,besf->bfts", width=lambda q: q.shape[1]),
                "you have a map for every frequency. A frame is one token with all its frequencies: there is one map, and "
                "the products are summed over channels and frequencies.",
            ),
            Mistake(
                "flattened across frames",
                _flattened_across,
                "you reshape (B, E, T, F) to (B, T, E·F) without moving the axis of frames first: memory is cut in the wrong "
                "places, and every row mixes channels of different frames. Transpose axes 1 and 2, then flatten.",
            ),
        ),
    ),
    "inject": Exercise(
        task="gate the fine features by the coarse ones, and shift them",
        reference=inject,
        probe=_probe_inject,
        mistakes=(
            Mistake(
                "no sigmoid",
                lambda m, gate, shift: m * _up(gate, m) + _up(shift, m),
                "the sigmoid is missing: a gate lies between 0 (shut) and 1 (open). Yours can turn the sign of the fine "
                "features and blow them up.",
            ),
            Mistake(
                "sigmoid on the shift too",
                lambda m, gate, shift: m * _up(gate.sigmoid(), m) + _up(shift.sigmoid(), m),
                "only the gate passes a sigmoid. The shift may take any value, negative ones too: it writes what the fine "
                "features do not have.",
            ),
            Mistake(
                "gate and shift swapped",
                lambda m, gate, shift: m * _up(shift.sigmoid(), m) + _up(gate, m),
                "gate and shift have changed places: the second argument is multiplied (after its sigmoid), the third is added.",
            ),
            Mistake(
                "enlarged twofold",
                lambda m, gate, shift: (
                    m * interpolate(gate.sigmoid(), scale_factor=2) + interpolate(shift, scale_factor=2)
                ),
                "you enlarge by 2, but 21 points became 10 on the way down, and twice 10 is not 21. Give `interpolate` the size "
                "that is wanted, that of the fine features.",
            ),
            Mistake(
                "bilinear",
                lambda m, gate, shift: m * _bilinear(gate.sigmoid(), m) + _bilinear(shift, m),
                'you enlarge bilinearly. The network takes the nearest neighbour (mode="nearest", the default of '
                "interpolate): every point of a tile gets its tile's number.",
            ),
            Mistake(
                "shift gated too",
                lambda m, gate, shift: (m + _up(shift, m)) * _up(gate.sigmoid(), m),
                "your gate shuts the shift as well. Only the fine features are multiplied by it; the shift is added after that, so "
                "that something can be written where the gate is shut.",
            ),
            Mistake(
                "added",
                lambda m, gate, shift: m + _up(gate.sigmoid(), m) + _up(shift, m),
                "your gate is added. A sum can lift or lower a whole tile, but it cannot shut it: the fine features must be "
                "multiplied by the gate.",
            ),
        ),
    ),
    "restore": Exercise(
        task="put G into every level, then merge the levels from the coarsest up",
        reference=restore,
        probe=_probe_restore,
        mistakes=(
            Mistake(
                "levels not added",
                functools.partial(_mistaken_restore, add="nothing"),
                "the + dᵢ of equation 19 is missing. Without it what the gates shut in a level is gone for good; the paper "
                "calls this residual connection crucial.",
            ),
            Mistake(
                "fused levels added",
                functools.partial(_mistaken_restore, add="fused"),
                "you add fᵢ, the level that G has already been injected into. It is the level itself, dᵢ, that is added.",
            ),
            Mistake(
                "fine and coarse swapped",
                _swapped_merge,
                "your merge gets (coarse, fine). The first argument is the fine one, whose size comes out: merge[i](f[i], u).",
            ),
            Mistake(
                "coarsest level added too",
                functools.partial(_mistaken_restore, start="both"),
                "you add d₍q₋₁₎ to the start. The start is f₍q₋₁₎ alone; only at the finer levels, after merging, is dᵢ added.",
            ),
            Mistake(
                "starts from G",
                functools.partial(_mistaken_restore, start="global"),
                "you start from G. The start is f₍q₋₁₎: the coarsest level after G has been injected into it.",
            ),
            Mistake(
                "starts from the coarsest level",
                functools.partial(_mistaken_restore, start="level"),
                "you start from d₍q₋₁₎, which has heard nothing of G yet. The start is f₍q₋₁₎ = I(d₍q₋₁₎, G).",
            ),
            Mistake(
                "neighbours only",
                _merge_neighbours,
                "you inject f₍i₊₁₎ into level i, as equation 19 is printed. The code injects u₍i₊₁₎, the result of the merge before, so "
                "that every level hears of all coarser ones. (With two levels both are the same.)",
            ),
            Mistake(
                "from the finest down",
                functools.partial(_mistaken_restore, order=list),
                "you merge from the finest level to the coarsest. Start with the coarsest, i = q−2, and end with i = 0, so that "
                "the result has the size of the finest.",
            ),
        ),
    ),
    "macs_of_twelve": Exercise(
        task="predict the MACs of RTFS-Net-12",
        reference=TWELVE,
        probe=lambda answer, draw: {"RTFS-Net-12, in G": float(answer)},
        tolerance=2e-3,
        mistakes=(
            Mistake(
                "three times RTFS-Net-4",
                3 * FOUR,
                "you multiply everything by three. Encoder, bottleneck, visual block, CAF, S³ and decoder run once whatever R "
                "is; only the block is repeated. What does one pass cost?",
            ),
            Mistake(
                "twice RTFS-Net-6",
                2 * SIX,
                "you double RTFS-Net-6, its fixed part too. Encoder, bottleneck, visual block, CAF, S³ and decoder run once; "
                "what do six more passes cost?",
            ),
            Mistake(
                "unchanged",
                FOUR,
                "it is the parameters that stay as they are when one block is used again. Each use must be computed, though.",
            ),
            Mistake(
                "passes alone",
                6 * (SIX - FOUR),
                "this is what twelve passes cost, (30.614 − 21.930) / 2 each. What runs once is to be added.",
            ),
        ),
    ),
}


# A trained network, watched -------------------------------------------------------------------------------------


def attention_maps(attention: TFAttention, x: Tensor) -> Tensor:
    """(B, D, T, F) -> (B, heads, T, T), the maps of avkit's attention."""
    pairs = zip(attention.queries, attention.keys, strict=True)
    return torch.stack([attention_map(query(x), key(x)) for query, key in pairs], dim=1)


@functools.cache
def _watched(index: int) -> tuple[Sample, Passes, list[Tensor]]:
    """A mixture, what the trained network does with it, and its maps for the first talker's lips, one for each pass."""
    model, sample = load_model(NETWORK), load_sample(find_data("talkers"), index)
    seen = watch(model, sample)
    with torch.no_grad():
        maps = [attention_maps(model.rtfs_block.attention, x[:1])[0] for x in seen.to_attention]
    return sample, seen, maps


# Explorers ------------------------------------------------------------------------------------------------------


def render_query(second: float, passing: int) -> Html:
    """Which frames the frame at one moment reads, in each head of one pass, below the levels of both voices."""
    sample, _, maps = _watched(1)
    shown = maps[passing - 1]  # (heads, T, T)
    heads, frames = shown.shape[:2]
    seconds = sample.mixture.shape[-1] / SAMPLE_RATE
    query = min(int(second / seconds * frames), frames - 1)
    fig, axes = plots.figure(8, 3.4, 2, 1, sharex=True, height_ratios=(1, 1.3))
    figures.draw_levels(axes[0], figures.frame_levels(sample.voices, frames), seconds)
    image = axes[1].imshow(
        (shown[:, query] * frames).numpy(),
        aspect="auto",
        extent=(0, seconds, heads + 0.5, 0.5),
        cmap=plots.COLOUR_MAP,
        vmin=0,
        vmax=8,
        interpolation="nearest",
    )
    for axis in axes:
        axis.axvspan(query * seconds / frames, (query + 1) * seconds / frames, ec=plots.RED, fc="none", lw=2)
    axes[1].set(yticks=range(1, heads + 1), ylabel="head", xlabel="time (s)")
    fig.colorbar(image, ax=axes[1], label="× equal share", extend="max")
    best = ", ".join(f"{seconds * (int(row.argmax()) + 0.5) / frames:.1f}" for row in shown[:, query])
    return plots.picture(
        fig,
        f"Pass {passing}: the frame at {second:g} s, framed in red, reads most from the frames at {best} s "
        f"(heads 1 to {heads}); above, the level of each voice over time.",
    )


@functools.cache
def _ways_back(tile: int) -> dict[str, tuple[Tensor, float]]:
    return tiles.ways_back(load_sample(find_data("talkers"), 1), tile)


def render_way_back(way: str, tile: int) -> Html:
    """One voice restored from tiles in one way: to see, hear and score."""
    sample = load_sample(find_data("talkers"), 1)
    sound, score = _ways_back(tile)[way]
    label = f"{way}, tiles of {tile} by {tile}: SI-SNR {score:.1f} dB"
    alt = f"Spectrograms: the voice restored from tiles of {tile} by {tile} points by way of '{way}', and the voice itself."
    shown = {label: sound, "the voice": sample.voices[0]}
    return listen({label: sound}) + plots.spectrograms(shown, alt, tiles.N_FFT, tiles.HOP)


_PASSES = tuple(range(1, find_preset(NETWORK).config.repeats + 1))

EXPLORERS = {
    "query": Explorer(
        render_query,
        (
            Control(
                "second", (0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9), 0.9, "frame that asks, at (s)"
            ),
            Control("passing", _PASSES, _PASSES[-1], "pass"),
        ),
    ),
    "way_back": Explorer(
        render_way_back,
        (Control("way", tiles.WAYS, "add", "way back"), Control("tile", (2, 4, 8), 4, "points along a tile")),
    ),
}
