"""`avkit reproduce`: one row of the ledger measured again, or what is missing for it; all rows with their state."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from avkit.errors import InputError
from avkit.reproduction import records
from avkit.reproduction import rows as ledger
from avkit.reproduction.contrasts import Contrast, contrasts, find, planned
from avkit.reproduction.page import as_json, page, published, shown, table
from avkit.reproduction.queue import MACHINE, Plan, results, work
from avkit.reproduction.rows import COMPUTED, Row
from avkit.reproduction.trends import Trend, judge, pairs, sentence

_EXAMPLE = """examples:
  avkit reproduce --list                       every published number, its state, and what was measured
  avkit reproduce iianet.parameters            one row
  avkit reproduce iianet.time --official DIR   a time, beside the official code's (checkouts of both repositories under DIR)
  avkit reproduce all                          every row that can be computed without data
  avkit reproduce iianet.lrs2.sisnri           says what is missing, and the commands
  avkit reproduce iianet.lrs2.sisnri --from results/iianet-lrs2    makes the record, once that has been evaluated
  avkit reproduce ablations --corpus talkers   six small ablations, 40 runs; stop it whenever you like, the same command goes on
  avkit reproduce trend.q --corpus talkers     one of them, 10 runs
  avkit reproduce --page                       the ledger as a page, beside its records

What follows the options of an ablation goes to `avkit train` (--data.NAME, --model.NAME, --trainer.NAME). How a machine runs it
(--data.workers N, --model.graphs true on a GPU) leaves the experiment what it is; every other setting makes it another one.
"""
_RAW = """From raw clips and the published lists of mixtures, in place of `avkit prepare {corpus} ROOT lists`:
    avkit prepare {corpus} CLIPS lists --from-videos --workers 8 --mix tr=LIST cv=LIST tt=LIST"""


def main(argv: list[str]) -> int:
    """Entry of `avkit reproduce`; returns 0, or 1 where something is missing."""
    parser = _parser()
    arguments, settings = parser.parse_known_args(argv)
    shipped = arguments.out is None and not records.default_folder().is_dir() and records.SHIPPED.is_dir()
    arguments.out = arguments.out or records.default_folder()
    trend = str(arguments.row).startswith("trend.") or arguments.row == "ablations"
    unknown = [
        part
        for part in settings
        if part.startswith("-") and not part.startswith(("--data.", "--model.", "--trainer."))
    ]
    if unknown or (settings and not trend):
        parser.error(f"unrecognized arguments: {' '.join(unknown or settings)}")
    if arguments.page is not None:
        path = Path(arguments.page) if arguments.page else arguments.out / "README.md"
        records.write_text(path, page(records.read(arguments.out)))
        print(f"Written to {path}.")
        return 0
    if arguments.list or not arguments.row:
        folder = records.SHIPPED if shipped else arguments.out
        found = records.read(folder)
        print(as_json(found) if arguments.json else table(found))
        if not found:
            print(f"There are no records in {folder}; a clone of the repository brings some.", file=sys.stderr)
        return 0
    if trend:
        chosen = (
            contrasts() if arguments.row == "ablations" else (find(arguments.row.removeprefix("trend.")),)
        )
        return _ablations(chosen, arguments, tuple(settings))
    if arguments.results is not None:
        row = ledger.find(arguments.row)
        content = records.from_evaluation(row, arguments.results)
        records.write(arguments.out, content)
        print(f"{row.name}: paper {published(row)[0]}, here {shown(content['value'], row.unit)} ({content['note']})")
        return 0
    everything = [row for row in ledger.all_rows() if row.state in COMPUTED]
    return max(
        _reproduce(row, arguments.out, arguments.official)
        for row in (everything if arguments.row == "all" else [ledger.find(arguments.row)])
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avkit reproduce",
        description="The papers' numbers: what was published, what is measured here, and the command for each.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "row",
        nargs="?",
        metavar="ROW",
        help="a row's name; `all` that can be computed; `ablations` at a small scale",
    )
    add("--list", action="store_true", help="every row with its state")
    add("--json", action="store_true", help="the list as JSON")
    add(
        "--page",
        nargs="?",
        const="",
        metavar="FILE.md",
        help="write the ledger as a page (README.md beside the records)",
    )
    add("--out", type=Path, help=f"folder of the records ({records.default_folder()}; to list: those that ship, where it is missing)")
    add("--from", dest="results", type=Path, metavar="RESULTS", help="make the row's record from an evaluation's folder")
    add("--official", type=Path, metavar="DIR", help="checkouts RTFS-Net and IIANet: times are taken beside the official code's")
    queue = parser.add_argument_group("ablations at a small scale")
    add = queue.add_argument
    add("--corpus", default="talkers", metavar="DIR", help="a corpus that `avkit corpus` made (%(default)s)")
    add(
        "--runs",
        type=Path,
        default=Path("runs/ablations"),
        metavar="DIR",
        help="folder of the runs (%(default)s)",
    )
    add("--processes", type=int, default=1, metavar="N", help="runs at a time, one thread each (1)")
    add("--minutes", type=float, metavar="M", help="end after M minutes; the same command goes on")
    add(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="other seeds than the planned 0 1 2 3 4: for a first try",
    )
    add(
        "--steps",
        type=int,
        help=f"steps of each run ({planned().steps}); fewer are another experiment, for a first try",
    )
    add("--mixtures", type=int, metavar="N", help=f"test mixtures ({planned().test_mixtures})")
    return parser


# ---------------------------------------------------------------------------------------------------------- one row


def _reproduce(row: Row, folder: Path, official: Path | None) -> int:
    if row.how is None:
        print(missing(row))
        return 1
    from avkit.reproduction.exact import compute

    begin = time.perf_counter()
    value, note, measured_code = compute(row, official)
    content = records.record(row, value, note, time.perf_counter() - begin)
    if measured_code is not None:
        content |= {"code": measured_code, "command": f"{content['command']} --official DIR"}
    path = records.write(folder, content)
    here = f"here {note}" if value is None else f"here {shown(value, row.unit)}{f' ({note})' if note else ''}"
    paper, code = published(row, content)
    print(f"{row.name}: {row.what}\n  paper {paper}, official code {code}, {here}")
    if row.note:
        print(f"  {row.note}")
    print(f"  record: {path}")
    return 0


def missing(row: Row) -> str:
    """What a row needs that is not here, and the commands that measure it once it is."""
    head = f"{row.name}: {row.what}; the paper has {published(row)[0]}."
    if row.state == "cited":
        return f"{head}\n  CTCNet is not part of avkit; its code is at https://github.com/JusperLee/CTCNet."
    needs = []
    if row.weights:
        from avkit import weights

        if weights.cached(weights.find(row.weights)) is None:
            needs.append(f"the official weights {row.weights} (`avkit weights get {row.weights}`)")
    needs.append(
        f"the corpus {next(k for k, v in ledger.CORPORA.items() if v == row.corpus)}, which is licensed"
    )
    commands = row.command.splitlines()
    if "LIP_WEIGHTS" in row.command:
        needs.append(
            f"the lip encoder that the networks were trained with ({_lip_weights(row)}; `avkit weights` says where it lies)"
        )
    return "\n".join([
        head,
        f"  Needed: {'; '.join(needs)}.",
        f"  Then, replacing {' and '.join(name for name in ('ROOT', 'LIP_WEIGHTS', 'MIX.wav') if name in row.command)}:",
        *(f"    {line}" for line in commands),
        *([f"  Note: {row.note}."] if row.note else []),
        f"  {_RAW.format(corpus=row.corpus)}",
    ])  # fmt: skip


def _lip_weights(row: Row) -> str:
    return "lip-encoder-iianet" if row.name.startswith("iianet") else "lip-encoder-rtfs-net"


# ------------------------------------------------------------------------------------------ ablations at a small scale


def _ablations(chosen: tuple[Contrast, ...], arguments: argparse.Namespace, settings: tuple[str, ...]) -> int:
    if arguments.processes < 1:
        raise InputError(f"--processes is {arguments.processes}; at least 1 is wanted.")
    given = {
        "seeds": tuple(arguments.seeds or ()),
        "steps": arguments.steps,
        "test_mixtures": arguments.mixtures,
    }
    scale = replace(planned(), **{key: value for key, value in given.items() if value})
    machine, extra = split_settings(settings)
    plan = Plan(chosen, arguments.corpus, scale, extra, machine)

    def record() -> None:
        for contrast in chosen:
            _record(contrast, plan, arguments)

    work(
        plan,
        arguments.runs,
        arguments.processes,
        arguments.minutes,
        lambda line: print(line, flush=True),
        record,
    )
    record()
    return max(_tell(contrast, plan, arguments.runs) for contrast in chosen)


def split_settings(settings: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Settings of `avkit train` that say how a machine runs it, and all others."""
    of_machine, kinds = False, ([], [])
    for part in settings:
        if part.startswith("--"):
            of_machine = part.partition("=")[0] in MACHINE
        kinds[not of_machine].append(part)
    return tuple(kinds[0]), tuple(kinds[1])


def _record(contrast: Contrast, plan: Plan, arguments: argparse.Namespace) -> None:
    """Write a contrast's record, from the seed pairs that are complete; with fewer than two there is none."""
    found = results(plan, arguments.runs)
    paired = pairs(contrast, found)
    if len(paired) < 2:
        return
    trend = _judged(contrast, paired, plan)
    runs = [
        (variant, pair["seed"]) for pair in paired for variant in (contrast.first.name, contrast.second.name)
    ]
    one = found[runs[0]]
    row = ledger.find(f"trend.{contrast.id}")
    content = records.record(
        row, round(trend.mean, 4), sentence(trend), 60 * sum(found[run]["minutes"] for run in runs),
        synthetic=True,
        expected=contrast.expected,
        interval=[round(trend.low, 4), round(trend.high, 4)],
        verdict=trend.verdict,
        method="difference of SI-SNRi on the same test mixtures, paired by seed; 95 % interval by Student's t over seeds",
        examples=one["examples"], steps=one["steps"], test_mixtures=one["mixtures"], corpus_checksum=one["corpus_checksum"],
        pairs=[{key: round(value, 4) for key, value in pair.items()} for pair in paired],
        runs=[{"variant": run[0], "seed": run[1],
               **{key: found[run][key] for key in ("si_snri", "minutes", "device", "command")}} for run in runs],
    )  # fmt: skip
    records.write(arguments.out, content)


def _judged(contrast: Contrast, paired: list[dict], plan: Plan) -> Trend:
    as_planned = not plan.extra and replace(plan.scale, seeds=planned().seeds) == planned()
    return judge([pair["difference"] for pair in paired], contrast.expected, len(planned().seeds), as_planned)


def _tell(contrast: Contrast, plan: Plan, runs: Path) -> int:
    """Print what is known of a contrast; 1 while seed pairs are missing."""
    paired = pairs(contrast, results(plan, runs))
    lines = [f"trend.{contrast.id}: {contrast.what}; expected {contrast.expected}"]
    lines += [
        f"  seed {p['seed']}: {p['first']:.2f} and {p['second']:.2f} dB, {p['difference']:+.2f}"
        for p in paired
    ]
    if len(paired) > 1:
        lines.append(f"  {sentence(_judged(contrast, paired, plan))}")
    open_ = len(plan.scale.seeds) - len(paired)
    if open_:
        lines.append(f"  {open_} seed pair(s) are still to be run; the same command goes on.")
    print("\n".join(lines))
    return int(open_ > 0)
