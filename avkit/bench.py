"""`avkit bench`: speed, memory and equality of the networks' forms, measured side by side in one run.

Every row times the fast form, the readable form and, with `--official DIR`, the official code, on the same weights and
inputs. Rounds are interleaved, so that a busy moment of the machine falls on all of them; the ratio of the shortest times is
what counts, the ratio of the medians stands beside it, and that of the shortest processor times (all threads together), which
other programs on the machine disturb least. Peak memory is that of a fresh process for each form.

On a GPU (`--device cuda`) the fast form is the network recorded as a CUDA graph, and a form "bf16" is the same under bfloat16
autocast; memory is not measured there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

import avkit
from avkit import fast
from avkit.errors import InputError
from avkit.fast.graphs import Recorded, record_training
from avkit.lips import LipEncoder
from avkit.losses import negative_snr
from avkit.registry import list_models
from avkit.signal import SAMPLE_RATE, frames_for

LIP_ENCODER = "lip-encoder"
OFFICIAL = ("rtfs-net-4", "rtfs-net-6", "rtfs-net-12", "iianet", "iianet-fast", LIP_ENCODER)
ROWS = (
    "rtfs-net-4", "rtfs-net-12", "iianet", "rtfs-net-4:train", "iianet:train", LIP_ENCODER, "rtfs-net-tiny",
    "iianet-tiny",
)  # fmt: skip
TUNABLES = "GLIBC_TUNABLES"

_EXAMPLE = """examples:
  avkit bench                                  fast against readable, every row
  avkit bench iianet rtfs-net-4:train          chosen rows
  avkit bench --official checkouts             against the official code; checkouts/RTFS-Net and checkouts/IIANet are
                                               clones of the two repositories (and: pip install 'avkit[official]')
  avkit bench --read run-1.json run-2.json     one table of several records, with the range of each figure
"""


@dataclass
class Result:
    """One row: times in seconds and peak memory in bytes by form; ratios are another form's over the fast form's."""

    row: str
    seconds: float
    times: dict[str, list[float]]
    processor: dict[str, list[float]] = field(default_factory=dict)  # seconds of all threads together
    memory: dict[str, int] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)  # relative error of a form's output against the fast one's

    def fastest(self, form: str) -> float:
        return min(self.times[form])

    def ratio(self, form: str, middle: Callable[[list[float]], float] = min) -> float:
        return middle(self.times[form]) / middle(self.times["fast"])

    def processor_ratio(self, form: str) -> float:
        return min(self.processor[form]) / min(self.processor["fast"])

    def as_dict(self) -> dict:
        others = [form for form in self.times if form != "fast"]
        ratios = {
            form: {"min/min": self.ratio(form), "median": self.ratio(form, statistics.median)} for form in others
        }
        for form in others if self.processor else ():
            ratios[form]["processor"] = self.processor_ratio(form)
        return {**asdict(self), "ratios": ratios, "times real time": self.seconds / self.fastest("fast")}


def main(argv: list[str]) -> int:
    """Entry of `avkit bench`; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.peak:
        return _print_peak(arguments)
    if arguments.read:
        print(spread(arguments.read))
        return 0
    rows = [_checked(row) for row in arguments.rows or ROWS]
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no NVIDIA GPU here")
    if not fast.available() and arguments.device == "cpu":
        print(f"The compiled operations are not available: {fast.why_not()}.", file=sys.stderr)
    setting = _setting(arguments)
    print("\n".join(f"{key}: {value}" for key, value in setting.items()), flush=True)
    results = []
    for number, row in enumerate(rows, 1):
        print(f"[{number}/{len(rows)}] {row}", file=sys.stderr, flush=True)
        results.append(_measure(row, arguments))
        print(_line(results[-1]), flush=True)
    print(_table(results))
    if arguments.out:
        _write(arguments.out, {"setting": setting, "rows": [result.as_dict() for result in results]})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avkit bench",
        description="Speed, memory and equality of the networks, measured side by side.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"a network, or NETWORK:train ({', '.join(ROWS)})")
    parser.add_argument("--official", type=Path, metavar="DIR", help="checkouts RTFS-Net and IIANet, as the baseline")
    parser.add_argument("--rounds", type=int, default=7, help="how often each form runs, after a warm-up (7)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of PyTorch (2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: an NVIDIA GPU (cpu)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of the mixture (2)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--out", type=Path, help="write the measurements to this JSON file")
    parser.add_argument("--read", type=Path, nargs="+", metavar="JSON", help="measure nothing: show records together")
    parser.add_argument("--peak", nargs=2, metavar=("ROW", "FORM"), help=argparse.SUPPRESS)
    return parser


def _checked(row: str) -> str:
    name, _, kind = row.partition(":")
    if name not in (*list_models(), LIP_ENCODER) or kind not in ("", "train") or row == f"{LIP_ENCODER}:train":
        raise InputError(f"there is no row {row!r}; rows are NETWORK or NETWORK:train with {', '.join(list_models())}, "
                         f"and {LIP_ENCODER}")
    return row


# ------------------------------------------------------------------------------------------------------- what is run


def _forms(name: str, official: Path | None, device: str, train: bool) -> dict[str, nn.Module]:
    """The network in each form, all with the same weights, where it is to run."""
    forms = {form: model.to(device) for form, model in _forms_on_cpu(name, official, device == "cpu").items()}
    if device != "cpu" and not train:
        forms["fast"] = Recorded(forms["fast"])
        forms = {"fast": forms["fast"], "bf16": Bfloat16(Recorded(_copy(forms["readable"], name, False).to(device))), **forms}
    return forms


class Bfloat16(nn.Module):
    """A network under bfloat16 autocast."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            return self.network(*inputs).float()


def _forms_on_cpu(name: str, official: Path | None, compiled: bool) -> dict[str, nn.Module]:
    if official is not None and name in OFFICIAL:
        from avkit import bench_official

        torch.manual_seed(0)
        theirs = bench_official.build(name, official)
        readable = bench_official.ours(theirs, name)
    else:
        torch.manual_seed(0)
        theirs, readable = None, LipEncoder() if name == LIP_ENCODER else avkit.create_model(name)
    fast.use(readable, False)
    forms = {"fast": _copy(readable, name, compiled), "readable": readable}
    return forms | ({"official": theirs} if theirs is not None else {})


def _copy(readable: nn.Module, name: str, compiled: bool) -> nn.Module:
    made = LipEncoder() if name == LIP_ENCODER else avkit.create_model(name, fast=False)
    made.load_state_dict(readable.state_dict())
    return fast.use(made, compiled)


def _inputs(name: str, seconds: float, device: str) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    samples = round(seconds * SAMPLE_RATE)
    frames = frames_for(samples)
    if name == LIP_ENCODER:
        return (torch.randn(1, 1, frames, 88, 88, generator=draw).to(device),)
    mixture, lips = 0.1 * torch.randn(1, samples, generator=draw), torch.randn(1, 512, frames, generator=draw)
    return mixture.to(device), lips.to(device)


def _task(model: nn.Module, inputs: tuple[Tensor, ...], train: bool, recorded: bool = False) -> Callable[[], Tensor]:
    """One call, or one step of training (SNR loss and Adam), as a function that returns the output.

    recorded: the step's passes as CUDA graphs."""
    if not train:
        model.eval()

        def call() -> Tensor:
            with torch.no_grad():
                return model(*inputs)

        return call
    model.train()
    if recorded:
        record_training(model, *inputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # every step starts from the same weights
    target = inputs[0][:, None].roll(100, -1)

    def step() -> Tensor:
        optimizer.zero_grad()
        output = model(*inputs)
        output = output[:, None] if output.dim() == 2 else output
        negative_snr(output, target).mean().backward()
        optimizer.step()
        return output.detach()

    return step


def _measure(row: str, arguments: argparse.Namespace) -> Result:
    name, _, kind = row.partition(":")
    inputs, gpu, train = _inputs(name, arguments.seconds, arguments.device), arguments.device != "cpu", kind == "train"
    forms = _forms(name, arguments.official, arguments.device, train)
    outputs = {form: _task(model, inputs, False)() for form, model in forms.items()}
    tasks = {form: _task(model, inputs, train, gpu and form == "fast") for form, model in forms.items()}
    result = Result(row, arguments.seconds, {form: [] for form in tasks}, {form: [] for form in tasks})
    wanted = outputs.pop("fast").flatten()
    for form, output in outputs.items():
        result.errors[form] = float((output.flatten() - wanted).norm() / wanted.norm())
    for form, model in forms.items():
        model.train(train)
        for _ in range(3 if gpu else 1):
            tasks[form]()
    for _ in range(arguments.rounds):
        for form, task in tasks.items():
            _settle(arguments.device)
            start, spent = time.perf_counter(), time.process_time()
            task()
            _settle(arguments.device)
            result.times[form].append(time.perf_counter() - start)
            result.processor[form].append(time.process_time() - spent)
    if not arguments.no_memory and not gpu:
        result.memory = {form: _peak(row, form, arguments) for form in tasks}
    return result


def _settle(device: str) -> None:
    """Wait for what a GPU has not ended yet."""
    if device != "cpu":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------------------------------------------------------ memory


def _peak(row: str, form: str, arguments: argparse.Namespace) -> int:
    """What one run of a form adds to the resident memory of a fresh process, in bytes."""
    command = [sys.executable, "-m", "avkit", "bench", "--peak", row, form, "--seconds", str(arguments.seconds)]
    command += ["--threads", str(arguments.threads)]
    command += ["--official", str(arguments.official)] if arguments.official else []
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"measuring the memory of {row}, {form}, failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout.split()[-1])


def _print_peak(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    row, form = arguments.peak
    name, _, kind = row.partition(":")
    model = _forms(name, arguments.official, "cpu", kind == "train")[form]
    task = _task(model, _inputs(name, arguments.seconds, "cpu"), kind == "train")
    torch.ones(64, 64) @ torch.ones(64, 64)  # threads and libraries are there before the count begins
    before = process_memory("VmRSS")
    task()
    task()
    print(max(0, process_memory("VmHWM") - before))
    return 0


def process_memory(which: str) -> int:
    """Bytes of this process that are resident now (VmRSS, or RssAnon: without files), or were at most since it began (VmHWM;
    getrusage's figure would include what the process that started this one had). On Linux."""
    found = re.search(rf"^{which}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024


# ------------------------------------------------------------------------------------------------------------ report


def _setting(arguments: argparse.Namespace) -> dict[str, str]:
    return {
        "processor": f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "device": torch.cuda.get_device_name(arguments.device) if arguments.device != "cpu" else "the processor",
        "threads": str(arguments.threads),
        "PyTorch": torch.__version__,
        "allocator": f"{platform.libc_ver()[0]} {platform.libc_ver()[1]}, {TUNABLES}={os.environ.get(TUNABLES, '')!r}",
        "compiled operations": fast.why_not() or "yes",
        "mixture": f"{arguments.seconds:g} s, batch 1, float32; denormals flushed to zero",
        "rounds": str(arguments.rounds),
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "OpenMP": os.environ.get("OMP_WAIT_POLICY", "waits as its library does"),
        "command": _command(arguments),
    }


def _command(arguments: argparse.Namespace) -> str:
    """The command that measures this again; folders of this machine are not named."""
    parts = ["avkit bench", *arguments.rows, *(["--official DIR"] if arguments.official else [])]
    parts += [f"--rounds {arguments.rounds} --threads {arguments.threads} --seconds {arguments.seconds:g}"]
    parts += [f"--device {arguments.device}"] if arguments.device != "cpu" else []
    return " ".join([*parts, *(["--no-memory"] if arguments.no_memory else [])])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _line(result: Result) -> str:
    times = ", ".join(f"{form} {_ms(min(values))} ms" for form, values in result.times.items())
    errors = ", ".join(f"{form} {error:.1e}" for form, error in result.errors.items())
    return f"  {result.row}: {times}; output against the fast form's: {errors}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds > 0.03 else f"{1000 * seconds:.1f}"


def _table(results: list[Result]) -> str:
    """Ratios against the fast form, and its speed and memory."""
    heads = ("row", "against", "fast (ms)", "other (ms)", "min/min", "median", "processor", "memory", "error", "× real time")
    lines = [heads]
    for result in results:
        for form in [form for form in result.times if form != "fast"]:
            memory = f"{result.memory['fast'] / result.memory[form]:.0%}" if result.memory.get(form) else "–"
            lines.append((
                result.row,
                form,
                _ms(result.fastest("fast")),
                _ms(result.fastest(form)),
                f"{result.ratio(form):.2f}",
                f"{result.ratio(form, statistics.median):.2f}",
                f"{result.processor_ratio(form):.2f}",
                memory,
                f"{result.errors[form]:.0e}",
                f"{result.seconds / result.fastest('fast'):.1f}",
            ))  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    aligned = ["  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
               for line in lines]  # fmt: skip
    return "\n".join(["", aligned[0], "-" * len(aligned[0]), *aligned[1:], ""])


def spread(records: list[Path]) -> str:
    """A Markdown table of several records of the same rows: each figure, or the lowest and the highest that was measured.

    The baseline is the official code where a record has it, otherwise the readable form.

    Raises:
        InputError: a file is no record of `avkit bench`, or the records' rows differ.
    """
    runs = [_rows_of(path) for path in records]
    if any(list(run) != list(runs[0]) for run in runs):
        raise InputError("the records hold different rows: " + "; ".join(", ".join(run) for run in runs))
    lines = ["| row | against | fast (ms) | other (ms) | times as fast (min/min) | memory | × real time |", "|---" * 7 + "|"]
    for row in runs[0]:
        found = [run[row] for run in runs]
        form = "official" if "official" in found[0]["times"] else "readable"
        lines.append(
            f"| {row} | {form} "
            f"| {_range([min(r['times']['fast']) for r in found], _ms)} "
            f"| {_range([min(r['times'][form]) for r in found], _ms)} "
            f"| {_range([r['ratios'][form]['min/min'] for r in found], '.2f')} "
            f"| {_range([100 * r['memory']['fast'] / r['memory'][form] for r in found if r['memory'].get(form)], '.0f', ' %')} "
            f"| {_range([r['times real time'] for r in found], '.1f')} |"
        )
    return "\n".join(lines)


def _rows_of(path: Path) -> dict[str, dict]:
    try:
        return {row["row"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} is no record of avkit bench ({error})") from error


def _range(values: list[float], how: str | Callable[[float], str], unit: str = "") -> str:
    if not values:
        return "–"
    low, high = (format(value, how) if isinstance(how, str) else how(value) for value in (min(values), max(values)))
    return (low if low == high else f"{low}–{high}") + unit


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    print(f"Written to {path}.")
