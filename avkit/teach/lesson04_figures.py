"""Notebook 04's figures, and what they show of the trained network's scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from avkit.lips import LipTransform
from avkit.metrics import si_snr
from avkit.rtfs import RTFSNet
from avkit.signal import SAMPLE_RATE, power_spectrogram
from avkit.sru import SRULayer, best_scan, shift
from avkit.teach import plots
from avkit.teach.display import Html
from avkit.teach.samples import Sample

QUESTION_FFT, QUESTION_HOP = 512, 256  # the picture of the question: bins 31.25 Hz apart, frames 16 ms apart
PATCH = 13  # points on either side of the patch: what three levels of compression see

# The question ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patch:
    """A square of `PATCH` × `PATCH` points that belongs to one voice while both voices speak.

    Attributes:
        frame, bin: its lower left point.
        owner: 0 or 1, the voice that most of its energy comes from.
        share: of that energy.
    """

    frame: int
    bin: int
    owner: int
    share: float

    @property
    def points(self) -> tuple[slice, slice]:
        """Index of its points in a (T, F) map."""
        return slice(self.frame, self.frame + PATCH), slice(self.bin, self.bin + PATCH)

    def samples(self, seconds: float) -> slice:
        """The stretch of `seconds` around its middle."""
        middle, half = round((self.frame + PATCH / 2) * QUESTION_HOP), round(seconds * SAMPLE_RATE / 2)
        return slice(middle - half, middle + half)


def find_patch(voices: Tensor) -> Patch:
    """The loudest patch between 0.6 and 3 kHz that belongs to one of (2, L) voices alone, in frames where both speak."""
    power = power_spectrogram(voices, QUESTION_FFT, QUESTION_HOP)  # (2, T, F)
    patches = power.unfold(1, PATCH, 1).unfold(2, PATCH, 1).sum(dim=(3, 4))  # (2, T', F')
    frames = power.sum(dim=2).unfold(1, PATCH, 1).sum(dim=2)  # (2, T'): each voice's energy in those frames
    total = patches.sum(dim=0)
    alone = patches.amax(dim=0) > 0.97 * total
    both = frames.amin(dim=0) > 0.3 * frames.amax(dim=0)
    wanted = total * alone * both[:, None]
    wanted[:, :20], wanted[:, 97 - PATCH :] = 0, 0
    wanted[:20], wanted[-20:] = 0, 0  # room for half a second around it
    frame, first = divmod(int(wanted.argmax()), wanted.shape[1])
    owner = int(patches[:, frame, first].argmax())
    return Patch(frame, first, owner, float(patches[owner, frame, first] / total[frame, first]))


def patches_right(voices: Tensor, outputs: Tensor) -> tuple[int, int]:
    """How many patches that belong to one voice have more energy in the output meant for it, and how many there are.

    Args:
        voices, outputs: (2N, L), two rows for each mixture. Patches that do not overlap, no more than 40 dB below the
            mixture's strongest, 97 % of one voice.
    """
    right = count = 0
    for pair, heard in zip(voices.split(2), outputs.split(2), strict=True):
        truth, given = (
            power_spectrogram(pieces, QUESTION_FFT, QUESTION_HOP)
            .unfold(1, PATCH, PATCH)
            .unfold(2, PATCH, PATCH)
            .sum(dim=(3, 4))
            for pieces in (pair, heard)
        )  # (2, patches along time, along frequency)
        total = truth.sum(dim=0)
        clear = (truth.amax(dim=0) > 0.97 * total) & (total > 1e-4 * total.max())
        right += int((truth.argmax(dim=0) == given.argmax(dim=0))[clear].sum())
        count += int(clear.sum())
    return right, count


def draw_question(mixture: Tensor, patch: Patch) -> Html:
    """The patch by itself, and the whole plane with the patch and its frames and bins marked."""
    levels = plots.spectrogram_db(mixture, QUESTION_FFT, QUESTION_HOP)
    limits = (float(levels.max()) - 60, float(levels.max()))
    fig, (left, right) = plots.figure(9, 2.9, 1, 2, width_ratios=(1, 2.6))
    frames, bins = patch.points
    left.imshow(levels[frames, bins].T, origin="lower", cmap=plots.COLOUR_MAP, vmin=limits[0], vmax=limits[1])
    left.set(title="the patch", xticks=[], yticks=[], xlabel="0.2 s", ylabel="0.4 kHz")
    image = plots.draw_spectrogram(right, levels, limits, "where it lies", QUESTION_HOP)
    second, kilohertz = QUESTION_HOP / SAMPLE_RATE, SAMPLE_RATE / QUESTION_FFT / 1000
    x, y, width, height = frames.start * second, bins.start * kilohertz, PATCH * second, PATCH * kilohertz
    right.add_patch(Rectangle((x, y), width, height, fill=False, ec="white", lw=2.5))
    right.add_patch(Rectangle((x, y), width, height, fill=False, ec="black", lw=1))
    for edge in (x, x + width):
        right.axvline(edge, color="white", lw=0.7, ls=":")
    for edge in (y, y + height):
        right.axhline(edge, color="white", lw=0.7, ls=":")
    right.set_ylim(0, 5)
    fig.colorbar(image, ax=right, label="power (dB)")
    return plots.picture(
        fig,
        f"Left, a square patch of {PATCH} by {PATCH} points with a few bright strokes. Right, the mixture's spectrogram up to "
        "5 kHz, in which that patch is a small square.",
    )


# Compression ----------------------------------------------------------------------------------------------------


def draw_pooled(mixture: Tensor, macs: Mapping[int, float], quality: Mapping[int, float]) -> Html:
    """The mixture's spectrogram averaged to the size of G for each q, with cost in G and the paper's SI-SNRi."""
    power = power_spectrogram(mixture)[None]  # (1, T, F)
    fig, axes = plots.figure(11, 2.7, 1, len(macs), sharey=True)
    sizes = []
    for axis, q in zip(axes, macs, strict=True):
        size = [extent // 2 ** (q - 1) for extent in power.shape[1:]]
        pooled = 10 * adaptive_avg_pool2d(power, size)[0].clamp_min(1e-12).log10().T
        top = 10 * float(power.max().log10())
        extent = (0, mixture.shape[0] / SAMPLE_RATE, 0, SAMPLE_RATE / 2000)
        shown = {"origin": "lower", "aspect": "auto", "cmap": plots.COLOUR_MAP, "interpolation": "nearest"}
        image = axis.imshow(pooled, extent=extent, vmin=top - 70, vmax=top, **shown)
        sizes.append(f"{size[0]}×{size[1]}")
        axis.set_title(f"q = {q}: {sizes[-1]}\n{macs[q]:.1f} G, {quality[q]} dB", fontsize=10)
        axis.set_xlabel("time (s)")
    axes[0].set_ylabel("frequency (kHz)")
    fig.colorbar(image, ax=list(axes), label="power (dB)")
    return plots.picture(
        fig, f"A spectrogram averaged to {', '.join(sizes)} points: harmonics blur from the second on."
    )


def draw_sizes(levels: Sequence[Tensor]) -> Html:
    """The levels' planes drawn to scale, side by side, with an arrow from each to the coarsest size."""
    fig, axes = plots.figure(9, 2.8)
    frames, bins = levels[0].shape[2:]
    x, gap = 0.0, 0.22 * frames
    for number, level in enumerate(levels):
        wide, high = level.shape[2:]
        axes.add_patch(Rectangle((x, 0), wide, high, fc=plots.SKY + "55", ec=plots.BLUE, lw=1.5))
        name = f"d{'₀₁₂₃₄'[number]}\n{wide} × {high}"
        axes.text(x + wide / 2, high / 2, name, ha="center", va="center", fontsize=9)
        if number + 1 < len(levels):
            arrow = {"arrowstyle": "->", "lw": 1.4}
            axes.annotate("", (x + wide + gap - 3, 16), (x + wide + 3, 16), arrowprops=arrow)
            axes.text(x + wide + gap / 2, 24, "conv\nstride 2", ha="center", va="bottom", fontsize=8)
        x += wide + gap
    wide, high = levels[-1].shape[2:]
    x += gap
    axes.text(x - gap, high / 2, "all pooled,\nadded:", ha="center", va="center", fontsize=9)
    axes.add_patch(Rectangle((x, 0), wide, high, fc=plots.YELLOW, ec="black", lw=1.5))
    axes.text(x + wide / 2, high / 2, f"G\n{wide} × {high}", ha="center", va="center", fontsize=9)
    axes.set(xlim=(-3, x + wide + 3), ylim=(-3, bins + 3))
    axes.set_aspect(frames / bins)
    axes.axis("off")
    return plots.picture(
        fig,
        f"{len(levels)} planes drawn to scale, each half as wide and high as the one before; G has the smallest one's size.",
    )


def draw_maps(maps: Mapping[str, Tensor], alt: str, columns: int = 4) -> Html:
    """(T, F) maps side by side over the same two seconds and 8 kHz, each on the scale of its own spread."""
    rows = -(-len(maps) // columns)
    fig, axes = plots.figure(
        2.75 * columns, 2.5 * rows, rows, columns, squeeze=False, sharex=True, sharey=True
    )
    for axis, (title, values) in zip(axes.flat, maps.items(), strict=False):
        centre, spread = float(values.mean()), 2.5 * float(values.std())
        shown = {"origin": "lower", "aspect": "auto", "interpolation": "nearest", "cmap": "viridis"}
        limits = {"vmin": centre - spread, "vmax": centre + spread}
        axis.imshow(values.T, extent=(0, 2, 0, SAMPLE_RATE / 2000), **shown, **limits)
        axis.set_title(title, fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency (kHz)")
    return plots.picture(fig, alt)


# How far a point's influence goes -------------------------------------------------------------------------------


def draw_reach(maps: Mapping[str, Tensor], frame: int, frequency: int) -> Html:
    """For each block a (T, F) map of how much every output moved when one input point did, on a scale of decades."""
    fig, axes = plots.figure(10.5, 2.7, 1, len(maps), sharey=True)
    shares = []
    for axis, (title, moved) in zip(axes, maps.items(), strict=True):
        levels = (moved / moved.max()).clamp_min(1e-12).log10()
        levels[moved == 0] = float("nan")
        image = axis.imshow(levels.T, origin="lower", aspect="auto", cmap="viridis", vmin=-8, vmax=0)
        axis.plot(frame, frequency, "s", mfc="none", mec=plots.RED, ms=7, mew=1.5)
        share = float((moved > 0).double().mean())
        shares.append(f"{title} {share:.1%}")
        axis.set_title(f"{title}\nmoves {share:.1%} of the map", fontsize=9.5)
        axis.set_xlabel("frame of G")
    axes[0].set_ylabel("row of G")
    fig.colorbar(image, ax=list(axes), label="moved, log₁₀")
    return plots.picture(
        fig, f"Where outputs move when one point is touched; share of the map: {'; '.join(shares)}."
    )


# Memory ---------------------------------------------------------------------------------------------------------


def draw_memories(signal: Tensor, memories: Mapping[str, Tensor], seconds: float, title: str) -> Html:
    """A signal (T,) that lasts `seconds`, and what memories of it hold at each step, one below the other."""
    fig, axes = plots.figure(8, 1.15 * len(memories) + 0.6, len(memories), 1, sharex=True, squeeze=False)
    time = np.arange(len(signal)) * seconds / len(signal)
    for axis, (name, memory), colour in zip(axes[:, 0], memories.items(), plots.COLOURS, strict=False):
        axis.fill_between(time, signal, color="0.85", label=title)
        axis.plot(time, memory, color=colour, lw=1.8, label=name)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
        axis.set_ylabel("RMS")
        axis.margins(x=0)
    axes[-1, 0].set_xlabel("time (s)")
    names = ", ".join(memories)
    return plots.picture(
        fig, f"{title} over time, and memories of it ({names}): the more is kept, the slower they move."
    )


def draw_windows(positions: int, window: int) -> Html:
    """Which positions each step of a scan sees."""
    fig, axes = plots.figure(8, 2.2)
    for step in range(positions - window + 1):
        axes.barh(step, window, left=step - 0.5, height=0.7, color=plots.COLOURS[step % 6], alpha=0.75)
        axes.text(step + window / 2 - 0.5, step, f"step {step}", ha="center", va="center", fontsize=9)
    axes.set(
        xlim=(-0.5, positions - 0.5),
        xticks=range(positions),
        yticks=[],
        xlabel="position along the scanned axis",
    )
    axes.invert_yaxis()
    for edge in range(positions):
        axes.axvline(edge - 0.5, color="white", lw=1)
    return plots.picture(
        fig,
        f"{positions - window + 1} steps, each covering {window} positions and starting one later than the last.",
    )


# The trained scans ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """What one application of the RTFS block did; all tensors have the batch first unless said otherwise.

    Attributes:
        levels: d₀ … d₍q₋₁₎.
        g: (B, D, T', F') as compression left it.
        after_frequency, after_time: G after either scan.
        inputs: for "frequency" and "time", what each SRU layer read, (steps, lines, features).
    """

    levels: list[Tensor]
    g: Tensor
    after_frequency: Tensor
    after_time: Tensor
    inputs: dict[str, list[Tensor]] = field(default_factory=dict)


def watch(model: RTFSNet, mixture: Tensor, lips: Tensor) -> list[Pass]:
    """Run a network on one mixture (L,) with one pair of lips (F, 96, 96) and keep what its scans did in each pass."""
    block, seen = model.rtfs_block, {}
    modules = {"compression": block.compression, "frequency": block.scan_frequency, "time": block.scan_time}
    for name in ("frequency", "time"):
        modules |= {(name, number): layer for number, layer in enumerate(modules[name].rnn)}

    def keep(name):
        return lambda module, inputs, output: seen.setdefault(name, []).append((inputs[0], output))

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            model(mixture[None], lip_features(model, lips[None]))
    finally:
        for hook in hooks:
            hook.remove()
    layers = range(len(block.scan_time.rnn))
    return [
        Pass(
            *seen["compression"][number][1],
            seen["frequency"][number][1],
            seen["time"][number][1],
            {name: [seen[name, layer][number][0] for layer in layers] for name in ("frequency", "time")},
        )
        for number in range(len(seen["time"]))
    ]


def lip_features(model: RTFSNet, lips: Tensor) -> Tensor:
    """(B, F, 96, 96) uint8 frames -> (B, 512, F)."""
    with torch.no_grad():
        return model.lips(LipTransform()(lips))


def change(before: Tensor, after: Tensor) -> float:
    """Root mean square of what a block added, over that of what it was given."""
    return float((after - before).norm() / before.norm())


def draw_changes(run: Pass) -> Html:
    """Per point of G, the size over channels of G itself and of what either scan added, in decibels below the largest."""
    maps = {
        "G before the scans": run.g,
        "added by the frequency scan": run.after_frequency - run.g,
        "added by the time scan": run.after_time - run.after_frequency,
    }
    levels = {title: 10 * x[0].square().mean(dim=0).clamp_min(1e-12).log10() for title, x in maps.items()}
    top = max(float(level.max()) for level in levels.values())
    fig, axes = plots.figure(10.5, 2.6, 1, 3, sharey=True)
    for axis, (title, level) in zip(axes, levels.items(), strict=True):
        shown = {"origin": "lower", "aspect": "auto", "interpolation": "nearest", "cmap": plots.COLOUR_MAP}
        image = axis.imshow(level.T, extent=(0, 2, 0, SAMPLE_RATE / 2000), vmin=top - 40, vmax=top, **shown)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("time (s)")
    axes[0].set_ylabel("frequency (kHz)")
    fig.colorbar(image, ax=list(axes), label="power (dB)")
    return plots.picture(
        fig,
        "Three maps on one scale: the compressed features, what the frequency scan adds, what the time scan adds.",
    )


def forget_gates(layer: SRULayer, x: Tensor) -> Tensor:
    """(L, B, n) inputs of a layer -> f_t of each cell, (L, B, directions · d), in the order of positions."""
    by_product = layer.weight.unflatten(1, (-1, layer.k)).transpose(1, 2).flatten(1)
    u0, u1 = (x @ by_product).chunk(layer.k, dim=2)[:2]
    v_f, b_f = layer.weight_c.chunk(2)[0], layer.bias.chunk(2)[0]
    gates = []
    for direction in range(layer.directions):
        own = slice(direction * layer.hidden_size, (direction + 1) * layer.hidden_size)
        before = (u1 + b_f)[..., own]
        cells = best_scan(u0[..., own], before, v_f[own], direction == 1)
        gates.append(torch.sigmoid(before + v_f[own] * shift(cells, direction == 1)))
    return torch.cat(gates, dim=2)


def half_lives(model: RTFSNet, run: Pass) -> dict[str, Tensor]:
    """Per SRU layer, for each cell the steps after which half of its memory is left at the mean pace of its gate.

    That pace is the mean of log f over all steps and lines: half-life = log ½ / mean log f. Shortest first.
    """
    lives = {}
    for name, scan in (("frequency", model.rtfs_block.scan_frequency), ("time", model.rtfs_block.scan_time)):
        for number, (layer, x) in enumerate(zip(scan.rnn, run.inputs[name], strict=True)):
            with torch.no_grad():
                pace = forget_gates(layer, x).double().clamp(1e-12, 1 - 1e-12).log().mean(dim=(0, 1))
            lives[f"{name} scan, layer {number + 1}"] = (np.log(0.5) / pace).sort().values
    return lives


def step_of(model: RTFSNet) -> tuple[float, float]:
    """One step of the scans: hertz along frequency, seconds along time."""
    config, thinned = model.config, 2 ** (model.config.levels - 1)
    return SAMPLE_RATE / config.n_fft * thinned, config.hop / SAMPLE_RATE * thinned


def draw_half_lives(
    lives: Mapping[str, Tensor], untrained: Mapping[str, Tensor], model: RTFSNet, steps: Mapping[str, int]
) -> Html:
    """Half-life of every cell, shortest first, one panel for each axis, with those of a network of random weights in grey.

    Args:
        lives, untrained: from `half_lives`, for the trained network and for the random one.
        steps: each scan's length.
    """
    hertz, seconds = step_of(model)
    fig, axes = plots.figure(9, 3.0, 1, 2, sharey=True)
    units = {"frequency": f"1 step = {hertz:g} Hz", "time": f"1 step = {1000 * seconds:g} ms"}
    for axis, name in zip(axes, units, strict=True):
        chosen = {title: life for title, life in lives.items() if title.startswith(name)}
        for number, (title, life) in enumerate(chosen.items()):
            share = (np.arange(len(life)) + 0.5) / len(life)
            label = None if number else "random weights, each layer"
            axis.semilogy(share, untrained[title], color="0.65", lw=1.2, label=label)
            axis.semilogy(
                share, life, "osD^"[number % 4] + "-", ms=3, color=plots.COLOURS[number], label=title
            )
        axis.axhline(steps[name], color="black", lw=0.8, ls="--")
        axis.text(0.02, steps[name] * 1.25, "length of the scan", fontsize=8)
        axis.set(title=f"along {name} ({units[name]})", xlabel="share of cells", ylim=(0.05, 3000))
        axis.legend(fontsize=8, loc="lower right")
    axes[0].set_ylabel("half-life (steps)")
    longest = ", ".join(
        f"{title} {float(life[-1]):.0f} (random {float(untrained[title][-1]):.0f})"
        for title, life in lives.items()
    )
    return plots.picture(
        fig,
        f"Half-life of each memory cell, sorted, on a logarithmic scale, trained and, in grey, random. Longest in steps: {longest}.",
    )


@contextmanager
def replaced(owner: nn.Module, **modules: nn.Module) -> Iterator[None]:
    """Within `with replaced(block, scan_time=other)`, `block.scan_time` is `other`; afterwards it is what it was."""
    kept = {name: getattr(owner, name) for name in modules}
    try:
        for name, module in modules.items():
            setattr(owner, name, module)
        yield
    finally:
        for name, module in kept.items():
            setattr(owner, name, module)


class Bench:
    """Mixtures with both talkers' lips, ready for a network to be tried on again and again."""

    def __init__(self, model: RTFSNet, samples: Sequence[Sample]):
        self.model = model
        self.mixtures = torch.cat([sample.mixture.expand(2, -1) for sample in samples])  # (2N, T)
        self.voices = torch.cat([sample.voices for sample in samples])  # (2N, T)
        self.features = torch.cat([lip_features(model, sample.lips) for sample in samples])  # (2N, 512, F)

    def separate(self) -> Tensor:
        """(2N, T): every talker's voice, as the network has it now."""
        with torch.no_grad():
            return self.model(self.mixtures, self.features)[:, 0]

    def gain(self, outputs: Tensor) -> float:
        """Mean SI-SNR improvement of (2N, T) outputs in dB."""
        return float((si_snr(outputs, self.voices) - si_snr(self.mixtures, self.voices)).mean())


def draw_restarts(gains: Mapping, window: int) -> Html:
    """Mean SI-SNRi against how many steps a scan runs before it starts afresh.

    Args:
        gains: dB for "as trained" and for (name of the scan, steps between restarts).
    """
    fig, axes = plots.figure(7.5, 2.9)
    words = []
    for number, name in enumerate(("frequency", "time")):
        curve = {key[1]: gain for key, gain in gains.items() if key[0] == name}
        label = f"{name} scan restarted"
        axes.semilogx(
            *zip(*curve.items(), strict=True),
            "os"[number] + "-",
            color=plots.COLOURS[number],
            base=2,
            label=label,
        )
        words.append(f"{name} from {curve[min(curve)]:.1f} to {curve[max(curve)]:.1f} dB")
    axes.axhline(gains["as trained"], color="black", lw=1, ls="--", label="as trained, never restarted")
    axes.set_xticks(list(curve), [f"{steps}\n({steps + window - 1})" for steps in curve])
    axes.minorticks_off()
    axes.set(xlabel="steps between restarts (positions they span)", ylabel="SI-SNRi (dB)")
    axes.legend(fontsize=8)
    return plots.picture(
        fig,
        f"SI-SNRi against the steps between restarts, from {min(curve)} to {max(curve)}: {'; '.join(words)}.",
    )


def draw_bars(gains: Mapping[str, float]) -> Html:
    """Mean SI-SNRi of each variant of the network."""
    fig, axes = plots.figure(7, 0.42 * len(gains) + 0.7)
    colours = [plots.BLUE] + [plots.ORANGE] * (len(gains) - 1)
    shown = {name: round(value, 1) + 0.0 for name, value in gains.items()}  # 0.0, never -0.0
    axes.barh(list(shown), list(shown.values()), color=colours)
    axes.bar_label(axes.containers[0], [f"{value:.1f}" for value in shown.values()], padding=3)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    axes.margins(x=0.12)
    axes.set_xlabel("SI-SNRi (dB)")
    words = ", ".join(f"{name} {value:.1f} dB" for name, value in shown.items())
    return plots.picture(fig, f"Mean gain over the mixture: {words}.")
