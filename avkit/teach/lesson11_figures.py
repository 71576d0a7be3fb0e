"""Figures of notebook 11, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from avkit.teach import plots
from avkit.teach.display import Html
from avkit.teach.lesson11_bench import Course
from avkit.teach.lesson11_lab import Fading

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def _smooth(values: Sequence[float], width: int) -> np.ndarray:
    """The mean of each value and those before it, `width` at most."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, float)]))
    first = np.maximum(np.arange(len(values)) + 1 - width, 0)
    last = np.arange(len(values)) + 1
    return (sums[last] - sums[first]) / (last - first)


def draw_run(curves: Curves, steps: int, killed: int | None = None, title: str = "") -> Html:
    """A run as it goes on: training loss above, validation below; `killed`: the step at which it was killed."""
    fig, axes = plots.figure(9, 3.6, 1, 2)
    loss_steps, losses = curves.get("train_loss", ([], []))
    axes[0].plot(loss_steps, losses, ".", color=plots.SKY, ms=4, label="a batch")
    if len(losses):
        axes[0].plot(loss_steps, _smooth(losses, 8), color=plots.BLUE, label="mean of eight")
    axes[0].axhline(0, color="black", lw=0.6)
    axes[0].set(title="training loss: negative SNR (dB)", xlabel="step", xlim=(0, steps))
    axes[0].legend(fontsize=8, loc="upper right")
    seen, gains = curves.get("val_si_snr_improvement", ([], []))
    axes[1].plot(seen, gains, "o-", color=plots.RED)
    axes[1].axhline(0, color="black", lw=0.6)
    axes[1].set(title="other voices: SI-SNRi (dB)", xlabel="step", xlim=(0, steps))
    axes[1].set_ylim(min(-0.5, *gains, 0) - 0.2, max(1.0, *gains, 0) + 0.5)
    for axis in axes if killed else ():
        axis.axvline(killed, color="black", ls=":", lw=1)
        axis.text(killed, axis.get_ylim()[1], " killed", va="top", fontsize=8)
    if title:
        fig.suptitle(title, fontsize=10)
    words = f"after {int(seen[-1])} steps {gains[-1]:.1f} dB" if len(seen) else "not validated yet"
    loss = f"the training loss goes from {losses[0]:.1f} to {_smooth(losses, 8)[-1]:.1f} dB" if len(losses) else "no step yet"
    return plots.picture(fig, f"Curves of a training run: {loss}; on other voices, {words}.", dpi=70)


def draw_norms(norms: Mapping[str, Sequence[float]], limit: float) -> Html:
    """Lengths of gradients; what -> one for each batch."""
    fig, axes = plots.figure(8, 0.8 + 0.55 * len(norms))
    for row, (what, values) in enumerate(norms.items()):
        axes.plot(values, np.full(len(values), row), "|", color=plots.COLOURS[row], ms=16)
    axes.axvline(limit, color="black", ls="--", lw=1)
    axes.text(limit, -0.6, f" limit {limit:g}", fontsize=9)
    axes.set(xscale="log", xlabel="length of the gradient", ylim=(len(norms) - 0.4, -0.9))
    axes.set_yticks(range(len(norms)), list(norms))
    shares = ", ".join(f"{what}: {np.mean(np.array(v) > limit):.0%} above the limit" for what, v in norms.items())
    return plots.picture(fig, f"Lengths of gradients, a stroke for each batch; {shares}.")


def draw_courses(found: Mapping[str, Sequence[Course]], marked: int | None = None) -> Html:
    """Trainings of the bench: loss on the left; on the right SI-SNRi on other voices at the end, a mark for each seed."""
    fig, axes = plots.figure(10, 3.6, 1, 2, width_ratios=(1.5, 1))
    for colour, (name, courses) in zip(plots.COLOURS, found.items()):
        mean = np.mean([_smooth(course.losses, 10) for course in courses], axis=0)
        axes[0].plot(mean, color=colour, lw=1.4)
    axes[0].set(xlabel="step", title="training loss (dB), in the colours of the bars")
    if marked is not None:
        axes[0].axvline(marked, color="black", ls=":", lw=1)
    names = list(found)
    words = []
    for row, (colour, name) in enumerate(zip(plots.COLOURS, names)):
        ends = [course.validated[-1][1] for course in found[name]]
        axes[1].barh(row, np.mean(ends), color=colour, height=0.55)
        axes[1].plot(ends, [row] * len(ends), "|", color="black", ms=12)
        words.append(f"{name} {np.mean(ends):.1f} dB")
    axes[1].axvline(0, color="black", lw=0.8)
    axes[1].set_yticks(range(len(names)), names, fontsize=8)
    axes[1].invert_yaxis()
    axes[1].set(xlabel="SI-SNRi on other voices (dB)", title="at the end; a stroke for each seed")
    return plots.picture(fig, f"Training losses of several recipes, and what each reaches on other voices: {', '.join(words)}.")


def draw_rates(schedules: Mapping[str, Callable[[int], float]], steps: int) -> Html:
    """Learning rates over the steps of a run."""
    fig, axes = plots.figure(7, 2.4)
    for colour, (name, rate) in zip(plots.COLOURS, schedules.items()):
        axes.plot([rate(step) for step in range(steps)], color=colour, label=name)
    axes.set(xlabel="step", ylabel="learning rate", yscale="log")
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return plots.picture(fig, f"Learning rate over {steps} steps: {', '.join(schedules)}.")


def draw_fading(kept: Fading, flushed: Fading) -> Html:
    """Time of a multiplication while a memory fades, denormal numbers kept and flushed to zero."""
    fig, axes = plots.figure(8, 2.8)
    axes.plot(kept.steps, np.array(kept.seconds) * 1e6, "o-", color=plots.RED, ms=4, label="denormal numbers kept")
    axes.plot(flushed.steps, np.array(flushed.seconds) * 1e6, "s-", color=plots.BLUE, ms=4, label="flushed to zero")
    axes.set(xlabel="multiplications by 0.9 so far", ylabel="time of one (µs)", yscale="log")
    axes.legend(fontsize=9)
    slower = max(kept.seconds) / min(kept.seconds)
    return plots.picture(
        fig,
        f"Time of one multiplication of a fading memory. Where its numbers have become denormal, it takes up to {slower:.0f} times as "
        "long and stays so; with flushing it does not change.",
    )


def draw_board(curves: Curves, names: Sequence[str]) -> Html:
    """Some of a run's curves as TensorBoard has them."""
    fig, axes = plots.figure(10, 2.4, 1, len(names), squeeze=False)
    for axis, name in zip(axes[0], names):
        axis.plot(*curves[name], "o-", color=plots.ORANGE, ms=3, lw=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step")
    return plots.picture(fig, f"Curves read from the files that TensorBoard shows: {', '.join(names)}.", dpi=70)


def draw_shares(order: torch.Tensor, devices: Mapping[int, Sequence[torch.Tensor]]) -> Html:
    """Which item goes to which device; number of devices -> for each device its (steps, batch) items."""
    place = {int(item): index for index, item in enumerate(order)}
    fig, axes = plots.figure(9, 0.9 * len(devices) + 0.6, len(devices), 1, squeeze=False, sharex=True)
    colours = (*plots.COLOURS, "#666666")  # one for each of eight devices
    for row, (count, shares) in enumerate(devices.items()):
        axis = axes[row, 0]
        for device, share in enumerate(shares):
            colour = colours[device % len(colours)]
            ink = "black" if colour in (plots.ORANGE, plots.SKY, plots.YELLOW) else "white"
            for step, items in enumerate(share):
                for item in items.tolist():
                    axis.add_patch(_square(place[item], colour))
                    axis.text(place[item], 0, str(step), ha="center", va="center", fontsize=8, color=ink)
        axis.set(xlim=(-0.6, len(order) - 0.4), ylim=(-0.6, 0.6), yticks=[], title=f"{count} device(s)")
    axes[-1, 0].set_xlabel("place in the epoch's order (colour: device; number: step)")
    return plots.picture(
        fig,
        f"The items of an epoch in their order, coloured by device, for {', '.join(map(str, devices))} devices: the steps hold "
        "the same items each time.",
    )


def _square(x: float, colour: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.46, -0.5), 0.92, 1, color=colour)


def draw_accident(paths: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], at: int, title: str) -> Html:
    """Loss and distance from the goal of small problems with one gradient that is far too long; name -> (steps,)."""
    fig, axes = plots.figure(10, 3.0, 1, 2)
    for (colour, style), (name, losses) in zip(
        ((plots.BLUE, "-"), (plots.RED, "--")), paths.items(), strict=True
    ):
        axes[0].plot(losses, style, color=colour, label=name)
        axes[1].plot(weights[name], style, color=colour, label=name)
    for axis in axes:
        axis.axvline(at, color="black", ls=":", lw=1)
        axis.set(xlabel="step", yscale="log")
    axes[0].set_title(f"loss; {title}", fontsize=10)
    axes[1].set_title("length of the step that the weights take", fontsize=10)
    axes[0].legend(fontsize=9)
    ends = ", ".join(f"{name} {values[-1]:.2g}" for name, values in paths.items())
    peaks = ", ".join(f"{name} {values.max():.2g}" for name, values in paths.items())
    return plots.picture(fig, f"{title}. Highest loss: {peaks}; loss at the end: {ends}.")
