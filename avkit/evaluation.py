"""A network's scores on a whole test set: `avkit evaluate MODEL DATA --out DIR`.

DIR receives three files:

- rows.csv: a row per system, mixture and talker, with the columns `avkit.scoring.COLUMNS`; a score that does
  not exist is an empty cell, and the note says why;
- summary.json: means over mixtures (of the mean over both talkers) with 95 % intervals from resampled
  talkers, paired differences (the first system minus each other one), groups, the swap test; and the command,
  versions, checksum of the data, and machine;
- rows.jsonl, the journal: a line per finished mixture, so that the same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from avkit._extras import EXTRA_OF, install_line
from avkit._progress import interval
from avkit._workers import pool
from avkit.baselines import CONTROLS, ORACLES
from avkit.checkpoints import attach_lips, load_model, load_official, weights_digest, write_atomically
from avkit.data.manifests import OPENING, SPLITS, Mixture, read_manifest
from avkit.errors import DataError, InputError, MissingPackageError
from avkit.journal import Journal, finished
from avkit.lip_weights import load_lip_encoder
from avkit.lips import LipEncoder
from avkit.provenance import about_network, provenance
from avkit.scoring import COLUMNS, METRICS, PACKAGES, Systems, score_item
from avkit.summary import as_table, summarise


@dataclass(frozen=True)
class Settings:
    """What to compute. The defaults give every metric and no control."""

    split: str = "tt"
    metrics: tuple[str, ...] = tuple(METRICS)
    oracles: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    limit: int | None = None  # this many mixtures, drawn at random but the same ones each time
    workers: int = 1
    device: str = "cpu"
    reuse: str | os.PathLike | None = None  # folder of another evaluation, for rows that no network has a part in

    def __post_init__(self):
        for given, known, what in (
            (self.metrics, METRICS, "metric"),
            (self.oracles, ORACLES, "oracle"),
            (self.controls, CONTROLS, "control"),
            ((self.split,), SPLITS, "split"),
        ):
            for name in given:
                if name not in known:
                    raise InputError(f"There is no {what} {name!r}; wanted some of {', '.join(known)}.")
        if not self.metrics:
            raise InputError(f"No metric was chosen; wanted some of {', '.join(METRICS)}.")
        if self.limit is not None and self.limit < 1 or self.workers < 1:
            raise InputError(f"limit {self.limit} and workers {self.workers}: both are 1 or more.")
        for name in self.metrics:
            package = PACKAGES.get(name)
            if package and find_spec(package) is None:
                raise MissingPackageError(
                    f"The metric {name} needs the package {package}, which is not installed. Install it: "
                    f"{install_line(EXTRA_OF[package])}; or choose other --metrics."
                )


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returns: rows (dictionaries with keys of `avkit.scoring.COLUMNS`) and their summary."""

    rows: list[dict] = field(repr=False)
    summary: dict = field(repr=False)

    def __str__(self) -> str:
        return as_table(self.summary)


def available_metrics() -> tuple[str, ...]:
    """The metrics whose packages are installed."""
    return tuple(name for name in METRICS if name not in PACKAGES or find_spec(PACKAGES[name]) is not None)


def evaluate(
    networks: dict[str, str | os.PathLike | nn.Module],
    data: str | os.PathLike,
    out: str | os.PathLike | None = None,
    settings: Settings | None = None,
    *,
    audio_only: dict[str, str | os.PathLike | nn.Module] | None = None,
    opening: dict[str, str | os.PathLike | nn.Module] | None = None,
    lip_encoder: str | os.PathLike | None = None,
    fresh: bool = False,
    progress: bool = True,
    command: str | None = None,
) -> Evaluation:
    """Score networks, and what stands beside them, on every mixture of a split.

    Args:
        networks: name -> checkpoint or network with ``.lips``; the first one is compared with all others.
        data: root of a corpus in LRS2-2Mix's layout.
        out: folder for rows and summary; None keeps them in memory.
        settings: what to compute; None for every metric whose package is installed.
        audio_only: name -> checkpoint or network that is given no lips and returns every voice.
        opening: name -> checkpoint or network that is given lips drawn from their opening alone (see `avkit.data.opening`).
        lip_encoder: checkpoint or official file, for networks that come without a lip encoder of their own.
        fresh: forget what `out` already holds.
        progress: show a progress bar.
        command: recorded in the summary.

    Raises:
        InputError: a name that stands for nothing, no network, or two of one name.
        DataError: manifests are missing or wrong, `out` holds another evaluation, or nothing could be read.
        CheckpointError: a checkpoint is missing or damaged.
        MissingPackageError: a metric's package is not installed.
    """
    settings = settings or Settings(metrics=available_metrics())
    if not networks:
        raise InputError("No network was given: name at least one checkpoint, or pass a module.")
    mixtures = _chosen(read_manifest(data, settings.split), settings.limit, data)
    groups = _groups(Path(data))
    started = time.monotonic()
    _refuse_what_is_missing(settings, Path(data), bool(opening))
    job = _Job(dict(networks), dict(audio_only or {}), dict(opening or {}), settings, lip_encoder)
    systems = job.load()
    fingerprint = _fingerprint(job, systems, Path(data))
    journal = Journal(out, fingerprint, fresh)
    known = {} if settings.reuse is None else finished(settings.reuse, fingerprint)
    pending = [
        (mixture, groups.get(mixture.name, ""), known.get(mixture.name))
        for mixture in mixtures
        if mixture.name not in journal.done
    ]
    for result in _bar(
        _results(job, systems, pending), len(mixtures), len(mixtures) - len(pending), progress
    ):
        journal.add(result)
    found = [journal.done[mixture.name] for mixture in mixtures]
    rows = [row for result in found for row in result["rows"]]
    if not any(result["digest"] for result in found):
        raise DataError(
            f"None of the {len(found)} mixtures of {data} could be read. The first: {rows[0]['note']}"
        )
    columns = tuple(column for name in METRICS if name in settings.metrics for column in METRICS[name])
    summary = summarise(rows, systems.names, (*networks, *job.opening), columns)
    about = {name: about_network(model, fingerprint["weights"][name]) for name, model in systems.models.items()}
    summary = provenance(Path(data), settings.split, settings.device, found, command, time.monotonic() - started) | {
        "networks": about
    } | summary
    if out is not None:
        _write(Path(out), rows, summary)
    return Evaluation(rows, summary)


def _refuse_what_is_missing(settings: Settings, data: Path, opening: bool) -> None:
    """What would only be found out after the work, or deep inside of it."""
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {settings.device}: PyTorch sees no NVIDIA GPU here; `avkit doctor` says more.")
    try:
        torch.device(settings.device)
    except RuntimeError:
        raise InputError(f"There is no device {settings.device!r}; wanted cpu, cuda or cuda:1 and so on.") from None
    if opening and not (data / OPENING).is_dir():
        raise DataError(f"{data} has no lips drawn from their opening alone; make them: avkit corpus {data} --opening")


def _chosen(mixtures: list[Mixture], limit: int | None, data: str | os.PathLike) -> list[Mixture]:
    """All mixtures, or the first `limit` of a fixed random order: a higher limit keeps the lower's."""
    if not mixtures:
        raise DataError(f"The lists of {data} name no mixture: write them anew with `avkit prepare`.")
    if limit is None or limit >= len(mixtures):
        return mixtures
    kept = np.random.default_rng(0).permutation(len(mixtures))[:limit]
    return [mixtures[index] for index in sorted(kept)]


def _groups(data: Path) -> dict[str, str]:
    """Mixture -> its group, where the corpus has a table of mixtures (the synthetic one has)."""
    from avkit.data.labels import MIXTURES, read_mixtures

    if not (data / MIXTURES).exists():
        return {}
    return {row["name"]: f"voices: {row['group']}" for row in read_mixtures(data)}


# --- work, on one process or several ---


@dataclass
class _Job:
    """What a worker process needs to know; networks as checkpoints' names or as modules."""

    networks: dict
    audio_only: dict
    opening: dict
    settings: Settings
    lip_encoder: str | os.PathLike | None = None

    def __post_init__(self):
        names = [*self.networks, *self.audio_only, *self.opening]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"Two systems are called {name!r}; give them names that differ.")

    def load(self) -> Systems:
        lips = None if self.lip_encoder is None else load_lip_encoder(self.lip_encoder)

        def ready(model: str | os.PathLike | nn.Module, lips: LipEncoder | None) -> nn.Module:
            model = model if isinstance(model, nn.Module) else _read(model)
            if getattr(model, "lips", None) is None and lips is not None:
                attach_lips(model, lips)
            if getattr(model, "lips", None) is not None:
                model.lips.to(self.settings.device)
            return model.to(self.settings.device)

        return Systems(
            {name: ready(model, lips) for name, model in self.networks.items()},
            {name: ready(model, None) for name, model in self.audio_only.items()},
            self.settings.oracles,
            self.settings.controls,
            {name: ready(model, lips) for name, model in self.opening.items()},
        )


def _read(model: str | os.PathLike) -> nn.Module:
    """A network from its checkpoint, or from an official file of weights."""
    path = Path(model)
    official = path.is_file() and path.suffix not in (".json", ".safetensors")
    return load_official(path) if official else load_model(model)


_worker: tuple[Systems, tuple[str, ...]] | None = None  # of a worker process


def _start_worker(job: _Job) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = job.load(), job.settings.metrics


def _work(mixture: Mixture, group: str, known: dict | None) -> dict:
    return score_item(mixture, *_worker, group, known)


def _results(job: _Job, systems: Systems, pending: list[tuple[Mixture, str, dict | None]]) -> Iterator[dict]:
    """Results as they come, in any order."""
    workers = min(job.settings.workers, len(pending))
    if workers <= 1:
        for mixture, group, known in pending:
            yield score_item(mixture, systems, job.settings.metrics, group, known)
        return
    with pool(workers, partial(_start_worker, job)) as processes:
        waiting = {processes.submit(_work, *item) for item in pending}
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()


def _bar(results: Iterator[dict], total: int, done: int, show: bool) -> Iterator[dict]:
    from tqdm import tqdm

    return tqdm(results, total=total, initial=done, unit="mixture", desc="evaluating", mininterval=interval(), disable=not show)


def _fingerprint(job: _Job, systems: Systems, data: Path) -> dict:
    """What must be equal for rows of two runs to belong together."""
    digest = hashlib.sha256()
    files = [data / job.settings.split / f"{key}.json" for key in ("mix", "s1", "s2")]
    for path in (*files, data / "corpus.json"):
        digest.update(path.read_bytes() if path.exists() else b"")
    return {
        "data": digest.hexdigest(),
        "systems": list(systems.names),
        "weights": {name: weights_digest(*_with_lips(model)) for name, model in systems.models.items()},
        "metrics": sorted(job.settings.metrics),
    }


def _with_lips(model: nn.Module) -> tuple[nn.Module, ...]:
    """A network and, where it has one, its lip encoder."""
    lips = getattr(model, "lips", None)
    return (model,) if lips is None else (model, lips)


# --- what is written ---


def _write(out: Path, rows: list[dict], summary: dict) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    content = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(
        out / "rows.csv", lambda path: Path(path).write_text(text.getvalue(), "utf-8", newline="")
    )
    write_atomically(out / "summary.json", lambda path: Path(path).write_text(content, "utf-8"))


def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows of a rows.csv (or of the folder that holds it): scores as floats, None for empty cells."""
    path = Path(path)
    path = path / "rows.csv" if path.is_dir() else path
    texts = {"mixture", "speaker", "utterance", "group", "system", "note"}
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {
                key: value
                if key in texts
                else None
                if value == ""
                else int(value)
                if key == "talker"
                else float(value)
                for key, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


# --- the command ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avkit evaluate",
        description="Score a network on every mixture of a test set. The same command again continues a run.",
        epilog="example: avkit evaluate rtfs-net-tiny data_samples/talkers --out results --oracles",
    )
    add = parser.add_argument
    add(
        "model", metavar="MODEL", help="a bundled checkpoint's name, a folder, or an official file of weights"
    )
    add("data", metavar="DATA", help="root of a corpus in LRS2-2Mix's layout")
    add("--out", required=True, metavar="DIR", help="folder for rows.csv, summary.json and the journal")
    add("--split", default="tt", choices=SPLITS, help="which lists to use (tt)")
    add(
        "--also",
        action="append",
        default=[],
        metavar="MODEL",
        help="one more network in the same tables; may be repeated",
    )
    add("--audio-only", action="append", default=[], metavar="MODEL",
        help="a network without lips, given the better order of its outputs; may be repeated")  # fmt: skip
    add("--opening", action="append", default=[], metavar="MODEL",
        help="a network given lips drawn from their opening alone (`avkit corpus DATA --opening`); may be repeated")  # fmt: skip
    add("--lip-encoder", metavar="FILE", help="for networks without one: a checkpoint or an official file")
    add(
        "--oracles",
        nargs="*",
        metavar="NAME",
        help=f"masks that know the answer: {', '.join(ORACLES)}; no NAME: all",
    )
    add("--controls", nargs="*", metavar="NAME",
        help="lips that tell less: swapped (the other talker's), still, absent (zeros), late-1 to late-10 "
             "(frames); no NAME: all")  # fmt: skip
    add("--metrics", nargs="+", metavar="NAME",
        help=f"{', '.join(METRICS)} (those whose packages are installed); pesq is slow")  # fmt: skip
    add("--limit", type=int, metavar="N", help="N mixtures only, a random choice that is always the same")
    add("--workers", type=int, default=1, metavar="N", help="processes (1)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, … (cpu)")
    add("--reuse", metavar="DIR",
        help="rows of the mixture and of oracles from this evaluation of the same data with the same metrics")  # fmt: skip
    add("--fresh", action="store_true", help="start anew, whatever DIR holds")
    add("--json", action="store_true", help="print the summary as JSON instead of a table")
    return parser


def _named(paths: list[str]) -> dict[str, str]:
    """Checkpoints under the name of their folder or file."""
    names = {}
    for path in paths:
        name = Path(path).stem if Path(path).is_file() else Path(path).resolve().name
        if name in names:
            raise InputError(
                f"Two networks are called {name!r}; rename a folder, so that rows can be told apart."
            )
        names[name] = path
    return names


def main(argv: list[str]) -> int:
    """The command `avkit evaluate`. Returns its exit status."""
    args = _parser().parse_args(argv)
    metrics = available_metrics() if args.metrics is None else tuple(args.metrics)
    left_out = [] if args.metrics else [name for name in METRICS if name not in metrics]
    if left_out:
        names = ", ".join(left_out)
        print(f"Left out, as their packages are not installed: {names}. See `avkit doctor`.", file=sys.stderr)
    settings = Settings(
        split=args.split,
        metrics=metrics,
        oracles=_all_if_empty(args.oracles, ORACLES),
        controls=_all_if_empty(args.controls, CONTROLS),
        limit=args.limit,
        workers=args.workers,
        device=args.device,
        reuse=args.reuse,
    )
    result = evaluate(
        _named([args.model, *args.also]),
        args.data,
        args.out,
        settings,
        audio_only=_named(args.audio_only),
        opening=_named(args.opening),
        lip_encoder=args.lip_encoder,
        fresh=args.fresh,
        command=shlex.join(["avkit", "evaluate", *argv]),
    )
    if args.json:
        print(json.dumps(result.summary, indent=1, ensure_ascii=False))
        return 0
    about = result.summary["data"]
    print(f"{about['mixtures']} mixtures of {about['root']} ({about['split']})")
    if about["synthetic"]:
        print(f"Synthetic talkers: {about['synthetic']}")
    print(f"\n{result}\n")
    if about["unreadable"]:
        print(f"{about['unreadable']} mixtures could not be read; their rows say why.")
    for system, count in result.summary["rows_with_notes"].items():
        if count:
            note = next(row["note"] for row in result.rows if row["system"] == system and row["note"])
            print(f"{count} rows of {system} have a note. The first: {note}")
    print(f"{Path(args.out) / 'rows.csv'} and summary.json written")
    return 0


def _all_if_empty(given: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    return () if given is None else tuple(given) or known
