"""Measurements of notebook 14: what drifting batch norms do, and a recipe's first and last steps on the shipped corpus."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from avkit.lips import LipTransform
from avkit.teach.samples import Sample
from avkit.teach.trained import both_voices, gain  # noqa: F401  (for the notebook)


@torch.no_grad()
def voices(model: nn.Module, sample: Sample, lips: nn.Module | None = None) -> Tensor:
    """(2, L): what a network returns for either talker's lips, watched through `lips` or its own lip encoder."""
    features = (lips or model.lips)(LipTransform()(sample.lips))
    return both_voices(model, sample, features)


@torch.no_grad()
def drifted(lips: nn.Module, samples: Sequence[Sample], batches: int) -> nn.Module:
    """A copy of a lip encoder whose batch norms have gone on counting for some batches of frames, as in training.

    Its weights stay as they are. With the usual momentum of 0.1, n batches replace 1 − 0.9ⁿ of what was counted before.
    """
    copied = copy.deepcopy(lips)
    crop = LipTransform(training=True, generator=torch.Generator().manual_seed(0))
    frozen, copied.frozen = copied.frozen, False
    copied.train()
    for number in range(batches):
        copied(crop(samples[number % len(samples)].lips))
    copied.eval()
    copied.frozen = frozen
    return copied


def statistics_moved(before: nn.Module, after: nn.Module) -> float:
    """Mean shift of the batch norms' means, in standard deviations of their channels."""
    norms = [
        (one, other)
        for one, other in zip(before.modules(), after.modules(), strict=True)
        if isinstance(one, nn.modules.batchnorm._BatchNorm)
    ]
    shifts = [((b.running_mean - a.running_mean).abs() / a.running_var.sqrt()).mean() for a, b in norms]
    return float(torch.stack(shifts).mean())


def sides(record: dict) -> tuple[list[float], list[float]]:
    """SI-SNRi in dB of both sides of a contrast, seed by seed, by its record."""
    first, second = ([pair[side] for pair in record["pairs"]] for side in ("first", "second"))
    return first, second


def both_sides(record: dict) -> str:
    """From where to where the seeds of either side lie, and how long the runs took."""
    spans = [f"{min(side):+.2f} to {max(side):+.2f} dB" for side in sides(record)]
    minutes = [run["minutes"] for run in record["runs"]]
    return f"{spans[0]} against {spans[1]}, in runs of {min(minutes):.0f} to {max(minutes):.0f} minutes"


def command(line: str, folder: Path) -> str:
    """Run a command of `avkit` in a folder, in this process, and return what it printed."""
    import shlex

    from avkit.cli import main

    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        main(shlex.split(line)[1:])
    return printed.getvalue().strip()
