"""What can be computed here without data: sizes, times, and what claims come to. Each returns (value, note)."""

from __future__ import annotations

import statistics
import time
from functools import cache

import torch

from avkit.ablations import Count, counts
from avkit.complexity import count_parameters, measure
from avkit.registry import create_model
from avkit.reproduction import claims
from avkit.reproduction.rows import Row, published
from avkit.signal import SAMPLE_RATE, frames_for

Outcome = tuple[float | None, str]


def compute(row: Row) -> Outcome:
    """The value of a row that needs no data, in the row's unit, and what there is to say about it."""
    function, arguments = row.how
    return FUNCTIONS[function](*arguments)


def parameters(network: str) -> Outcome:
    count = count_parameters(create_model(network))
    return count / 1e6, f"{count:,} parameters"


def macs(network: str, seconds: float) -> Outcome:
    total = measure(create_model(network), seconds=seconds, depth=1).macs
    return (
        total / 1e9,
        f"half of the operations that PyTorch's counter sees, the scans by formula; {seconds:g} s",
    )


def timing(network: str, repeats: int = 3) -> Outcome:
    """Median time of one call on 2 s, in ms: on a GPU if there is one, else processor time on the CPU.

    Processor time is what a call takes by the clock on one thread of an idle machine; unlike the clock it does not
    count what other programs do meanwhile.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = create_model(network).eval().to(device)
    mixture = torch.randn(1, 2 * SAMPLE_RATE, device=device)
    lips = torch.randn(1, 512, frames_for(2 * SAMPLE_RATE), device=device)
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = clock()
            model(mixture, lips)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(1000 * (clock() - start))
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"processor time on the CPU, {threads} thread(s)"
    return statistics.median(times[1:]), f"median of {repeats} calls, {where}"


@cache
def _ablation_counts() -> dict[tuple[str, str], Count]:
    return {(count.what, count.unit): count for count in counts()}


def ablation_count(what: str, unit: str) -> Outcome:
    count = _ablation_counts()[what, unit]
    return count.ours, count.why


def claim(name: str) -> Outcome:
    return claims.OUTCOMES[name](published())


FUNCTIONS = {
    "parameters": parameters,
    "macs": macs,
    "time": timing,
    "ablation_count": ablation_count,
    "claim": claim,
}
