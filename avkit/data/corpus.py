"""The synthetic corpus on disk, in LRS2-2Mix's layout: `avkit corpus OUT --minutes 60 --seed 0`.

    OUT/audio/wav16k/min/{tr,cv,tt}/{mix,s1,s2}/{utt1}_{snr1}_{utt2}_{snr2}.wav    16 kHz, 16 bits, 32000 samples
    OUT/mouths/{utt}.npz                key `data`, (50, 96, 96) uint8, 25 fps
    OUT/{tr,cv,tt}/{mix,s1,s2}.json     manifests; paths relative to OUT
    OUT/labels.jsonl, mixtures.jsonl    tables, see `avkit.data.labels`
    OUT/corpus.json                     command, seed, versions, checksums; written last, so its presence means complete

Work is cut into pieces that depend on nothing but the plan; each leaves a record in OUT/.build when all its files are in
place, so an interrupted run goes on where it stopped and the number of workers changes no byte.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np

from avkit._progress import interval
from avkit._workers import pool
from avkit.data import mixing
from avkit.data.espeak import Synthesiser
from avkit.data.labels import LABELS, MIXTURES, Labels, read_labels, read_mixtures, read_mouth
from avkit.data.mixing import Mixture
from avkit.data.pairing import Pair, plan_split
from avkit.data.surroundings import (
    RT60,
    Surroundings,
    check_range,
    draw_surroundings,
    load_rooms,
    reverberate,
    speech_shaped_noise,
)
from avkit.data.text import SPLITS
from avkit.data.utterance import generator, make_utterance
from avkit.errors import DataError, InputError

__all__ = ["Labels", "Plan", "main", "make_corpus", "read_labels", "read_mixtures", "read_mouth", "verify"]

FORMAT = 1  # raised whenever the same plan would give other bytes
PER_MINUTE = 30  # mixtures of two seconds
LEAST = 30  # mixtures in each split that --minutes gives
_PIECE = 24  # utterances or mixtures done at a time
_KINDS = ("mix", "s1", "s2")


@dataclass(frozen=True)
class Plan:
    """What decides every byte of a corpus.

    tr, cv, tt: mixtures per split. reuse: mixtures that an utterance stands in, about. room: range of reverberation times
    in seconds. noise: range of the level of speech over noise in dB.
    """

    seed: int
    tr: int
    cv: int
    tt: int
    reuse: int = 2
    compress: bool = False
    room: tuple[float, float] | None = None
    noise: tuple[float, float] | None = None

    @staticmethod
    def counts_of_minutes(minutes: float) -> dict[str, int]:
        """Mixtures per split for `minutes` of them, split 80/10/10 with at least 30 each."""
        if not 0 < minutes < 1e6:
            raise InputError(f"--minutes {minutes}: wanted more than 0.")
        total = round(minutes * PER_MINUTE)
        held_out = max(LEAST, round(0.1 * total))
        return {"tr": max(LEAST, total - 2 * held_out), "cv": held_out, "tt": held_out}

    def __post_init__(self) -> None:
        if min(self.tr, self.cv, self.tt) < 0 or self.tr + self.cv + self.tt == 0:
            raise InputError(f"Mixtures per split {self.tr}, {self.cv}, {self.tt}: wanted none negative, not all zero.")
        if self.reuse < 1 or self.seed < 0:
            raise InputError(f"seed {self.seed} and reuse {self.reuse}: wanted seed 0 or more and reuse 1 or more.")
        check_range("room", self.room, *RT60)
        check_range("noise", self.noise, -20, 60)

    def as_dict(self) -> dict:
        """What `corpus.json` keeps of the plan, and a resumed run must agree with."""
        options = {"room": self.room and list(self.room), "noise": self.noise and list(self.noise)}
        return {"format": FORMAT, **asdict(self) | options}

    def surroundings(self, name: str) -> Surroundings:
        """Reverberation and noise of one mixture."""
        return draw_surroundings(self.room, self.noise, generator(self.seed, name, "surroundings"))

    @property
    def mixtures(self) -> int:
        return self.tr + self.cv + self.tt

    def pairs(self) -> tuple[list[tuple[str, str]], list[Pair]]:
        """Utterances as (id, split), and mixtures, of all splits."""
        utterances, pairs = [], []
        for split in SPLITS:
            ids, made = plan_split(split, getattr(self, split), self.seed, self.reuse)
            utterances += [(utterance, split) for utterance in ids]
            pairs += made
        return utterances, pairs

    def bytes_on_disk(self, n_utterances: int) -> int:
        """About how much the finished corpus takes."""
        mouth = 290_000 if self.compress else 461_100
        return self.mixtures * (3 * 64_044 + 700) + n_utterances * (mouth + 4_200)


# ---------------------------------------------------------------- pieces of work, each done whole by one worker

_synthesiser: Synthesiser | None = None  # one a worker process


def _start_worker() -> None:
    global _synthesiser
    _synthesiser = Synthesiser()
    Finalize(_synthesiser, _synthesiser.close, exitpriority=0)  # its process ends, and is counted, with the worker's


def _digest(*arrays: np.ndarray) -> str:
    state = hashlib.sha256()
    for array in arrays:
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def _write_text(path: Path, content: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(content, encoding="utf-8")
    part.replace(path)


def write_frames(path: Path, frames: np.ndarray, compress: bool) -> None:
    """Write mouth crops (F, 96, 96) uint8 as .npz, under a temporary name first, then moved into place."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        (np.savez_compressed if compress else np.savez)(file, data=frames)
    part.replace(path)


def _utterances(root: Path, plan: Plan, piece: tuple[int, list[tuple[str, str]]]) -> int:
    number, items = piece
    record = root / ".build" / f"utterances_{number:06d}.json"
    if not record.exists():
        done = []
        for utterance, split in items:
            made = make_utterance(_synthesiser, plan.seed, utterance, split)
            mixing.write_wav(root / ".build" / f"{utterance}.wav", made.samples)
            write_frames(root / "mouths" / f"{utterance}.npz", made.frames, plan.compress)
            done.append({"mouth": _digest(made.frames), "label": made.label})
        _write_text(record, json.dumps(done))
    return len(items)


def mixture_paths(split: str, name: str) -> dict[str, str]:
    """Paths of a mixture's three WAVs, relative to the corpus, by 'mix', 's1', 's2'."""
    return {kind: f"audio/wav16k/min/{split}/{kind}/{name}.wav" for kind in _KINDS}


def _mixed(root: Path, plan: Plan, mixture: Mixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sources = [mixing.read_wav(root / ".build" / f"{utterance}.wav") for utterance in (mixture.utt1, mixture.utt2)]
    around, rng = plan.surroundings(mixture.name), generator(plan.seed, mixture.name, "room and noise")
    if around.rt60 is not None:
        sources = reverberate(sources, around.rt60, rng)
    noise = None
    if around.noise_db is not None:

        def noise(speech: np.ndarray) -> np.ndarray:
            return 10 ** (-around.noise_db / 20) * speech_shaped_noise(speech, rng)

    return mixing.mix(*sources, mixture.snr1, mixture.snr2, noise)


def _mixtures(root: Path, plan: Plan, piece: tuple[int, list[Pair]]) -> int:
    number, pairs = piece
    record = root / ".build" / f"mixtures_{number:06d}.json"
    if not record.exists():
        done = {}
        for pair in pairs:
            mixed, name = _mixed(root, plan, pair.mixture), pair.mixture.name
            for path, samples in zip(mixture_paths(pair.split, name).values(), mixed, strict=True):
                mixing.write_wav(root / path, samples)
            done[name] = _digest(*mixed)
        _write_text(record, json.dumps(done))
    return len(pairs)


# ---------------------------------------------------------------- the whole


def _pieces(items: list) -> list[tuple[int, list]]:
    return [(n, items[start : start + _PIECE]) for n, start in enumerate(range(0, len(items), _PIECE))]


def track(counts: Iterable[int], total: int, what: str, quiet: bool) -> None:
    """Wait for work that reports how many items are done, with a progress bar unless `quiet`."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="", smoothing=0.05, mininterval=interval(), disable=quiet) as bar:
        for count in counts:
            bar.update(count)


def _prepare(root: Path, plan: Plan) -> bool:
    """Make the folders; True if this very corpus is already complete. Raises `DataError` if another one is in the way."""
    wanted = plan.as_dict()
    for path in (root / "corpus.json", root / ".build" / "plan.json"):
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))["plan"]
            if {"room": None, "noise": None} | found != wanted:
                raise DataError(f"{root} holds another corpus (plan {found}, asked {wanted}): "
                                "choose another folder or remove that one.")  # fmt: skip
            if path.name == "corpus.json":
                return True
    folders = [root / ".build", root / "mouths"]
    for split in SPLITS:
        folders += [root / split, *(root / "audio" / "wav16k" / "min" / split / kind for kind in _KINDS)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    _write_text(root / ".build" / "plan.json", json.dumps({"plan": wanted}))
    return False


def make_corpus(root: Path | str, plan: Plan, workers: int | None = None, command: str = "", quiet: bool = False) -> dict:
    """Make the corpus that `plan` describes in folder `root`, or finish it; returns the content of `corpus.json`.

    Raises:
        DataError: `root` holds another corpus, or the disk has too little room.
        MissingPackageError: espeakng-loader is not installed.
    """
    root = Path(root)
    if _prepare(root, plan):
        return json.loads((root / "corpus.json").read_text(encoding="utf-8"))
    utterances, pairs = plan.pairs()
    needed = plan.bytes_on_disk(len(utterances)) + 64_100 * len(utterances)
    free = shutil.disk_usage(root).free
    if not quiet:
        print(f"{len(pairs)} mixtures of 2 s from {len(utterances)} utterances: about "
              f"{plan.bytes_on_disk(len(utterances)) / 1e6:,.0f} MB in {root} ({needed / 1e6:,.0f} MB while at work; "
              f"{free / 1e9:,.1f} GB free)", flush=True)  # fmt: skip
    if needed > free:
        raise DataError(f"The corpus needs {needed / 1e9:.1f} GB and {root} has {free / 1e9:.1f} GB free: "
                        "ask for fewer minutes or choose another disk.")  # fmt: skip
    with Synthesiser() as synthesiser:  # fails here, with one clear message, rather than in every worker
        espeak_version = synthesiser.version
    started, spent = time.perf_counter(), _processor_seconds()
    with pool(workers, _start_worker) as processes:
        for work, items, what in ((_utterances, utterances, "speaking and drawing"), (_mixtures, pairs, "mixing")):
            track(processes.map(partial(work, root, plan), _pieces(items)), len(items), what, quiet)
    info = _finish(root, plan, pairs, command, espeak_version)
    if not quiet:
        seconds = time.perf_counter() - started
        print(f"Done in {seconds:,.1f} s, {2 * len(pairs) / seconds:,.0f} times real time; "
              f"{_processor_seconds() - spent:,.1f} s of processor time.")  # fmt: skip
    return info


def _processor_seconds() -> float:
    """Of this process and of those it started that have ended."""
    return sum(os.times()[:4])


def _jsonl(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _finish(root: Path, plan: Plan, pairs: list[Pair], command: str, espeak_version: str) -> dict:
    """Tables, manifests and corpus.json from the pieces' records; then the records are removed."""
    records = sorted((root / ".build").glob("utterances_*.json"))
    made = [row for path in records for row in json.loads(path.read_text(encoding="utf-8"))]
    made.sort(key=lambda row: row["label"]["id"])
    audio = {}
    for path in sorted((root / ".build").glob("mixtures_*.json")):
        audio |= json.loads(path.read_text(encoding="utf-8"))
    pairs = sorted(pairs, key=lambda pair: (SPLITS.index(pair.split), pair.mixture.name))
    tables = {LABELS: _jsonl([row["label"] for row in made]),
              MIXTURES: _jsonl([pair.row() | plan.surroundings(pair.mixture.name).row() for pair in pairs])}  # fmt: skip
    for name, content in tables.items():
        _write_text(root / name, content)
    _write_manifests(root, pairs)
    info = {
        "command": command,
        "synthetic": "eSpeak NG speech and drawn lips: no real person's voice or face",
        "plan": plan.as_dict(),
        "utterances": len(made),
        "talkers": len({row["label"]["talker"] for row in made}),
        "versions": {"avkit": _version("avkit"), "espeak-ng": espeak_version, "numpy": np.__version__,
                     "python": platform.python_version(), "machine": platform.machine()},
        "checksum": _checksums(audio, {row["label"]["id"]: row["mouth"] for row in made}, tables),
    }  # fmt: skip
    _write_text(root / "corpus.json", json.dumps(info, indent=1) + "\n")
    shutil.rmtree(root / ".build")
    return info


def _write_manifests(root: Path, pairs: list[Pair]) -> None:
    for split in SPLITS:
        rows: dict[str, list] = {kind: [] for kind in _KINDS}
        for pair in (p for p in pairs if p.split == split):
            m, paths = pair.mixture, mixture_paths(split, pair.mixture.name)
            rows["mix"].append([paths["mix"], 32000])
            rows["s1"].append([paths["s1"], f"mouths/{m.utt1}.npz", 32000])
            rows["s2"].append([paths["s2"], f"mouths/{m.utt2}.npz", 32000])
        for kind, content in rows.items():
            _write_text(root / split / f"{kind}.json", json.dumps(content, indent=1) + "\n")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


# ---------------------------------------------------------------- checksums


def _checksums(audio: dict[str, str], mouths: dict[str, str], tables: dict[str, str]) -> dict[str, str]:
    """One SHA-256 each over all audio, all mouths and both tables; files' own digests are ordered by name."""

    def over(digests: dict[str, str]) -> str:
        return hashlib.sha256("".join(f"{k} {v}\n" for k, v in sorted(digests.items())).encode()).hexdigest()

    return {
        "audio": over(audio),
        "mouths": over(mouths),
        "labels": over({name: hashlib.sha256(content.encode()).hexdigest() for name, content in tables.items()}),
    }


def _audio_digest(root: Path, item: tuple[str, str]) -> tuple[str, str]:
    split, name = item
    return name, _digest(*(mixing.read_wav(root / path) for path in mixture_paths(split, name).values()))


def _mouth_digest(root: Path, utterance: str) -> tuple[str, str]:
    return utterance, _digest(read_mouth(root, utterance))


def verify(root: Path | str, expected: Path | str | None = None, workers: int | None = None) -> dict[str, bool]:
    """Recompute a corpus' checksums from its files and compare: {'audio', 'mouths', 'labels'} -> equal or not.

    Args:
        root: a finished corpus.
        expected: a JSON file with an entry `checksum`, such as data_samples/frozen_test.json; None for its own corpus.json.
    """
    root = Path(root)
    path = Path(expected) if expected else root / "corpus.json"
    try:
        wanted = json.loads(path.read_text(encoding="utf-8"))["checksum"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} holds no checksums ({error!r}): name the corpus.json of a finished corpus.") from error
    mixtures = [(row["split"], row["name"]) for row in read_mixtures(root)]
    utterances = list(read_labels(root).ids)
    with pool(workers) as processes:
        audio = dict(processes.map(partial(_audio_digest, root), mixtures, chunksize=16))
        mouths = dict(processes.map(partial(_mouth_digest, root), utterances, chunksize=16))
    tables = {name: (root / name).read_text(encoding="utf-8") for name in (LABELS, MIXTURES)}
    found = _checksums(audio, mouths, tables)
    return {part: found[part] == wanted.get(part) for part in found}


# ---------------------------------------------------------------- command line


def _mixture_counts(value: str) -> dict[str, int]:
    counts = dict.fromkeys(SPLITS, 0)
    try:
        for part in value.split(","):
            split, number = part.split("=")
            if split not in counts:
                raise ValueError(split)
            counts[split] = int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not like tr=4,cv=4,tt=30") from None
    return counts


def _pair(value: str) -> tuple[float, float]:
    try:
        low, high = map(float, value.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not two numbers like 0.2,0.6") from None
    return low, high


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avkit corpus",
        description="Make a corpus of synthetic talkers, in LRS2-2Mix's layout. The same command again resumes.",
        epilog="example: avkit corpus talkers --minutes 60 --seed 0",
    )
    parser.add_argument("out", metavar="OUT", help="folder of the corpus")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--minutes", type=float, default=60, help="total time of mixtures of 2 s, split 80/10/10 (60)")
    size.add_argument("--mixtures", type=_mixture_counts, metavar="tr=N,cv=N,tt=N", help="mixtures per split instead")
    size.add_argument("--verify", nargs="?", const="", metavar="FILE",
                      help="make nothing: compare OUT's files with the checksums in FILE (its own corpus.json)")  # fmt: skip
    size.add_argument("--opening", action="store_true",
                      help="make no corpus: draw the mouths of the finished OUT once more from their opening alone")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="decides every byte; splits of voices and sentences never change")
    parser.add_argument("--workers", type=int, default=None, help="processes (one a core); changes no byte")
    parser.add_argument("--reuse", type=int, default=2, help="mixtures that each utterance stands in, about (2)")
    parser.add_argument("--compress", action="store_true", help="compress the mouths: slower, about 60 %% of the size")
    parser.add_argument("--room", type=_pair, metavar="LOW,HIGH", help="reverberation times in seconds, e.g. 0.2,0.6 (none)")
    parser.add_argument("--noise", type=_pair, metavar="LOW,HIGH",
                        help="speech-shaped noise in the mixture, dB of speech over noise, e.g. 0,15 or --noise=-5,5 (none)")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def main(argv: list[str]) -> int:
    """The command `avkit corpus`; exit status 1 when --verify finds a difference."""
    args = _parser().parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers {args.workers}: wanted at least 1.")
    if args.verify is not None:
        equal = verify(args.out, args.verify or None, args.workers)
        print(json.dumps(equal))
        return 0 if all(equal.values()) else 1
    if args.opening:
        from avkit.data.opening import draw_opening

        print(f"{draw_opening(args.out, args.workers, args.quiet)}: complete.")
        return 0
    counts = args.mixtures or Plan.counts_of_minutes(args.minutes)
    plan = Plan(args.seed, **counts, reuse=args.reuse, compress=args.compress, room=args.room, noise=args.noise)
    if plan.room:
        load_rooms()  # a missing package is told before any work
    info = make_corpus(args.out, plan, args.workers, shlex.join(["avkit", "corpus", *argv]), args.quiet)
    if not args.quiet:
        print(f"{args.out}: {plan.mixtures} mixtures, {info['utterances']} utterances, {info['talkers']} talkers; complete.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
