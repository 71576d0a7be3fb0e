"""Figures of notebook 12, evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from avkit.intervals import Interval
from avkit.teach import plots
from avkit.teach.display import Html


def draw_forest(found: Mapping[str, Interval], label: str, marked: Sequence[str] = ()) -> Html:
    """Means with their intervals, one below the other; `marked` ones in another colour."""
    fig, axes = plots.figure(9, 0.34 * len(found) + 0.9)
    words = []
    for row, (name, interval) in enumerate(found.items()):
        colour = plots.RED if name in marked else plots.BLUE
        low = interval.mean if interval.low is None else interval.low
        high = interval.mean if interval.high is None else interval.high
        axes.plot([low, high], [row, row], color=colour, lw=3, alpha=0.6)
        axes.plot(interval.mean, row, "o", color=colour)
        words.append(f"{name} {interval.mean:.1f} [{low:.1f}, {high:.1f}]")
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(found)), list(found), fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return plots.picture(fig, f"{label}, mean and 95 % interval: {'; '.join(words)}.", dpi=72)


def draw_resamples(found: Mapping[str, np.ndarray], mean: float, label: str) -> Html:
    """Histograms of means of resamples, the middle 95 % of each in a bar below it."""
    fig, axes = plots.figure(8, 3.2, len(found), 1, squeeze=False, sharex=True)
    words = []
    for row, (name, means) in enumerate(found.items()):
        axis = axes[row, 0]
        axis.hist(means, bins=40, color=plots.COLOURS[row], alpha=0.75)
        low, high = np.quantile(means, (0.025, 0.975))
        axis.axvspan(low, high, color=plots.COLOURS[row], alpha=0.2)
        axis.axvline(mean, color="black", lw=1)
        axis.set(title=f"{name}: 95 % within [{low:.2f}, {high:.2f}]", yticks=[])
        words.append(f"{name} from {low:.2f} to {high:.2f}")
    axes[-1, 0].set_xlabel(label)
    return plots.picture(fig, f"How the mean varies over resamples: {'; '.join(words)}.", dpi=70)


def draw_pairs(first: np.ndarray, second: np.ndarray, names: tuple[str, str]) -> Html:
    """Two systems on the same mixtures: one point each, and the differences beside."""
    fig, axes = plots.figure(9, 3.4, 1, 2, width_ratios=(1, 1.3))
    low, high = min(first.min(), second.min()) - 1, max(first.max(), second.max()) + 1
    axes[0].plot([low, high], [low, high], color="black", lw=0.8)
    axes[0].plot(second, first, "o", color=plots.BLUE, ms=5)
    axes[0].set(xlabel=f"{names[1]} (dB)", ylabel=f"{names[0]} (dB)", xlim=(low, high), ylim=(low, high))
    difference = np.sort(first - second)
    axes[1].bar(range(len(difference)), difference, color=np.where(difference > 0, plots.BLUE, plots.ORANGE))
    axes[1].axhline(0, color="black", lw=0.8)
    axes[1].set(xlabel="mixture, sorted", ylabel="difference (dB)", title=f"mean {difference.mean():.2f} dB")
    return plots.picture(
        fig,
        f"SI-SNRi of {names[0]} against {names[1]}, a point for each mixture: {(difference > 0).mean():.0%} of the points lie above the "
        f"diagonal; the mean difference is {difference.mean():.2f} dB.",
        dpi=72,
    )


def draw_stages(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Html:
    """Validations of one network trained in several ways, over the examples that it has seen."""
    fig, axes = plots.figure(8.5, 3.6)
    words = []
    for (way, (examples, gains)), marker in zip(curves.items(), "osD^", strict=True):
        axes.plot(examples / 1000, gains, marker=marker, ms=5, label=way)
        span = f"{gains[0]:.1f} dB after {examples[0] / 1000:.0f} thousand, {gains[-1]:.1f} dB after {examples[-1] / 1000:.0f}"
        words.append(f"{way}: {span}")
    axes.set(xlabel="examples of one second (thousands)", ylabel="SI-SNRi of the validation items (dB)", ylim=(0, None))
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return plots.picture(fig, f"The gain of one small network against the examples it has seen: {'; '.join(words)}.", dpi=72)


def draw_scatter(x: np.ndarray, y: np.ndarray, labels: tuple[str, str], r: float) -> Html:
    """A factor against a score, a point for each output."""
    fig, axes = plots.figure(6, 3.2)
    axes.plot(x, y, "o", color=plots.BLUE, ms=5, alpha=0.8)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=f"rank correlation {r:+.2f}")
    return plots.picture(
        fig, f"{labels[1]} against {labels[0]}, a point for each of {len(x)} outputs; rank correlation {r:+.2f}."
    )


def draw_factors(found: Mapping[str, tuple[float, float, float]], names: Mapping[str, str], score: str) -> Html:
    """Rank correlations of factors with a score, with intervals."""
    fig, axes = plots.figure(8.5, 0.4 * len(found) + 0.9)
    words = []
    for row, (name, (r, low, high)) in enumerate(found.items()):
        sure = low > 0 or high < 0
        axes.plot([low, high], [row, row], color=plots.BLUE if sure else "gray", lw=3, alpha=0.6)
        axes.plot(r, row, "o" if sure else "x", color=plots.BLUE if sure else "gray")
        words.append(f"{names[name]} {r:+.2f} [{low:+.2f}, {high:+.2f}]")
    axes.axvline(0, color="black", lw=0.8)
    axes.set(xlim=(-1, 1), xlabel=f"rank correlation with {score} (cross and gray: the interval holds 0)")
    axes.set_yticks(range(len(found)), [names[name] for name in found], fontsize=9)
    axes.invert_yaxis()
    return plots.picture(fig, f"What goes with {score}: {'; '.join(words)}.", dpi=72)


def draw_filter(reference: Tensor, estimate: Tensor, shaped: Tensor, sample_rate: int, alt: str) -> Html:
    """A short stretch of an estimate, the reference, and the reference through the best filter."""
    fig, axes = plots.figure(9, 2.8)
    time = np.arange(len(reference)) / sample_rate * 1000
    axes.plot(time, reference, color="black", lw=0.8, ls=":", label="reference")
    axes.plot(time, estimate, color=plots.BLUE, lw=1.6, label="estimate")
    axes.plot(time, shaped, color=plots.RED, lw=1, ls="--", label="reference, filtered to fit")
    axes.set(xlabel="time (ms)", ylabel="amplitude")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3, frameon=False)
    return plots.picture(fig, alt)


def draw_bands(reference: Tensor, estimate: Tensor, segment: tuple[int, int], band: int) -> Html:
    """What STOI compares: levels (15, M) of both sounds, and one band in one segment."""
    fig, axes = plots.figure(10.5, 3.0, 1, 3, width_ratios=(1.2, 1.2, 1))
    top = float(reference.max())
    for axis, values, name in ((axes[0], reference, "reference"), (axes[1], estimate, "estimate")):
        image = axis.imshow(values.numpy() ** 0.5, origin="lower", aspect="auto", cmap=plots.COLOUR_MAP, vmin=0, vmax=top**0.5)
        axis.axvspan(*segment, color="white", alpha=0.25)
        axis.set(title=name, xlabel="frame", ylabel="third octave")
    fig.colorbar(image, ax=axes[1], label="root of the level")
    for values, colour, name in ((reference, "black", "reference"), (estimate, plots.RED, "estimate")):
        axes[2].plot(range(*segment), values[band, slice(*segment)], color=colour, label=name)
    axes[2].set(title=f"band {band}, the bright segment", xlabel="frame")
    axes[2].legend(fontsize=8)
    return plots.picture(
        fig,
        "Levels of reference and estimate in fifteen bands over time, and beside them one band in one segment of thirty frames: the two lines "
        "whose correlation STOI takes.",
        dpi=66,
    )


def draw_loudness(reference: Tensor, others: Mapping[str, Tensor], scores: Mapping[str, float]) -> Html:
    """Loudness (frames, bands) of a reference, and what others have too much or too little of it."""
    count = 1 + len(others)
    fig, axes = plots.figure(3.6 * count, 2.8, 1, count, sharey=True)
    image = axes[0].imshow(reference.T, origin="lower", aspect="auto", cmap=plots.COLOUR_MAP)
    axes[0].set(title="clean voice: loudness", xlabel="frame", ylabel="band (half a Bark each)")
    fig.colorbar(image, ax=axes[0])
    limit = max(float((other - reference).abs().quantile(0.99)) for other in others.values())
    for axis, (name, other) in zip(axes[1:], others.items(), strict=True):
        image = axis.imshow((other - reference).T, origin="lower", aspect="auto", cmap="PuOr_r", vmin=-limit, vmax=limit)
        pesq = f", PESQ {scores[name]:.2f}" if name in scores else ""
        axis.set(title=f"{name}{pesq}", xlabel="frame")
        axis.locator_params(axis="x", nbins=4)
    fig.colorbar(image, ax=axes[-1], label="too much (+), too little (−)")
    words = "; ".join(f"{name} differs by {float((other - reference).abs().mean()):.2f} on average" for name, other in others.items())
    return plots.picture(fig, f"Loudness by frame and band of half a Bark, and what spoilt sounds have more or less of: {words}.", dpi=66)


def draw_fools(rated: Mapping[str, Mapping[str, tuple[str, Mapping[str, float]]]], ranges: Mapping[str, tuple[float, float]]) -> Html:
    """Each score's fools: where the score puts them (0 worst, 1 best of its range), coloured by what an ear says."""
    fig, axes = plots.figure(9, 0.42 * sum(len(found) for found in rated.values()) + 0.8)
    row, ticks, words = 0, [], []
    for score, found in rated.items():
        low, high = ranges[score]
        for name, (ear, values) in found.items():
            place = min(max((values[score] - low) / (high - low), 0), 1)
            fine = ear == "fine"
            axes.barh(row, place, color=plots.SKY if fine else plots.RED, height=0.7, hatch="" if fine else "//", edgecolor="white")
            axes.text(place + 0.01, row, f"{values[score]:.2f}", va="center", fontsize=8)
            ticks.append(f"{score}: {name}")
            words.append(f"{name} ({ear}) has {score} {values[score]:.1f}")
            row += 1
        axes.axhline(row - 0.5, color="black", lw=0.5)
    axes.set_yticks(range(row), ticks, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.12), xlabel="place in the score's range (blue: an ear says fine; red, hatched: spoilt)")
    return plots.picture(fig, f"Sounds that fool a score: {'; '.join(words)}.", dpi=72)
