"""What can be computed here without data: sizes, times, and what claims come to."""

from __future__ import annotations

import statistics
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from avkit.ablations import Count, counts
from avkit.complexity import count_parameters, measure
from avkit.registry import create_model
from avkit.reproduction import claims
from avkit.reproduction.rows import Row, published
from avkit.signal import SAMPLE_RATE, frames_for


class Outcome(NamedTuple):
    """A row's value in its unit, what there is to say about it, and the official code's value where it ran beside ours."""

    value: float | None
    note: str
    code: float | None = None


def compute(row: Row, official: Path | None = None) -> Outcome:
    """A row that needs no data; official: holds checkouts of both official repositories, to be timed beside ours."""
    function, arguments = row.how
    return timing(*arguments, official) if function == "time" else FUNCTIONS[function](*arguments)


def parameters(network: str) -> Outcome:
    count = count_parameters(create_model(network))
    return Outcome(count / 1e6, f"{count:,} parameters")


def macs(network: str, seconds: float) -> Outcome:
    total = measure(create_model(network), seconds=seconds, depth=1).macs
    return Outcome(
        total / 1e9,
        f"half of the operations that PyTorch's counter sees, the scans by formula; {seconds:g} s",
    )


def timing(network: str, official: Path | None = None, repeats: int = 3) -> Outcome:
    """Median time of one call on 2 s, in ms: on a GPU if there is one, else processor time on the CPU.

    Processor time is what a call takes by the clock on one thread of an idle machine; unlike the clock it does not
    count what other programs do meanwhile. With `official` the official code takes turns with ours, on the same weights.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if official is None:
        models = [create_model(network)]
    else:
        from avkit import bench_official

        theirs_as_built = bench_official.build(network, official)
        models = [bench_official.ours(theirs_as_built, network), theirs_as_built]
    models = [model.eval().to(device) for model in models]
    mixture = torch.randn(1, 2 * SAMPLE_RATE, device=device)
    lips = torch.randn(1, 512, frames_for(2 * SAMPLE_RATE), device=device)
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = [[] for _ in models]
    with torch.no_grad():
        for _ in range(repeats + 1):
            for model, of_model in zip(models, times, strict=True):
                start = clock()
                model(mixture, lips)
                if device == "cuda":
                    torch.cuda.synchronize()
                of_model.append(1000 * (clock() - start))
    ours, *theirs = (statistics.median(of_model[1:]) for of_model in times)
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"processor time on the CPU, {threads} thread(s)"
    return Outcome(ours, f"median of {repeats} calls, {where}", *theirs)


@cache
def _ablation_counts() -> dict[tuple[str, str], Count]:
    return {(count.what, count.unit): count for count in counts()}


def ablation_count(what: str, unit: str) -> Outcome:
    count = _ablation_counts()[what, unit]
    return Outcome(count.ours, count.why)


def claim(name: str) -> Outcome:
    return Outcome(*claims.OUTCOMES[name](published()))


FUNCTIONS = {
    "parameters": parameters,
    "macs": macs,
    "time": timing,
    "ablation_count": ablation_count,
    "claim": claim,
}
