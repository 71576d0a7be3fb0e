"""A corpus in the official layout, checked file by file: what may be listed, and what is wrong with the rest.

    ROOT/audio/wav16k/min/{tr,cv,tt}/{mix,s1,s2}/{utt1}_{snr1}_{utt2}_{snr2}.wav     mono, 16 kHz
    MOUTHS/{utt}.npz        (ROOT/mouths where nothing else is said); key `data`, (frames, 96, 96) uint8, 25 fps

Every file is read to its end with the functions that training reads with (`avkit.data.reading`), so what passes here
is read there. `Layout` is where files go: whatever cuts recordings and mouths from raw video writes to the paths that
it gives, and nothing else here changes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from avkit._progress import interval
from avkit.data.manifests import SPLITS, Mixture, Source
from avkit.data.mixing import parse_name
from avkit.data.reading import (
    as_float,
    fit_frames,
    read_array,
    read_audio,
    read_mouth,
)
from avkit.errors import DataError, InputError
from avkit.signal import SAMPLE_RATE, SAMPLES_PER_FRAME

KINDS = ("mix", "s1", "s2")

# kind of fault -> what it means
FAULTS = {
    "wrong name": "file names that are not those of a mixture of this corpus",
    "no mixture": "sources without their mixture",
    "no source": "mixtures without one of their sources",
    "no lips": "utterances without mouth crops",
    "no recording": "utterances of a list without a recording",
    "unreadable": "files that are damaged, cut short, or of another kind than their name says",
    "wrong rate": f"recordings that are not at {SAMPLE_RATE} Hz",
    "several channels": "recordings of more than one channel",
    "120×120 crops": "mouth crops of the other, unaligned recipe: cut them again from the video",
    "wrong crops": "mouth crops that are not (frames, 96, 96) uint8",
    "unequal recordings": "mixtures as long as neither or only one of their sources",
    "unequal audio and video": "lips more than 0.2 s longer or shorter than their recording",
    "two splits": "utterances that stand in two splits; the one nearest to the test set keeps them",
    "too short": "recordings shorter than the mixtures to be made of them",
    "silent": "recordings without any sound, which cannot be brought to a level",
    "no sound": "clips of video without a sound track",
    "no face": "clips in which no face is to be seen from beginning to end",
}


@dataclass(frozen=True)
class Fault:
    """Something wrong: its kind (one of `FAULTS`), the file or utterance, and a sentence that says what is the matter."""

    kind: str
    where: str
    message: str


@dataclass(frozen=True)
class Layout:
    """Where a corpus keeps its files. root: the folder above audio/. mouths: the folder of mouth crops."""

    root: Path
    mouths: Path

    def folder(self, split: str, kind: str) -> Path:
        """The folder of a split's mixtures ("mix") or of its first or second talkers ("s1", "s2")."""
        return self.root / "audio" / "wav16k" / "min" / split / kind

    def audio(self, split: str, kind: str, name: str) -> Path:
        """A recording of the mixture `name`."""
        return self.folder(split, kind) / f"{name}.wav"

    def mouth(self, utterance: str) -> Path:
        """An utterance's mouth crops."""
        return self.mouths / f"{utterance}.npz"


@dataclass(frozen=True)
class Split:
    """What a split's folders hold, and what of it was good.

    files: how many of each kind. listed: mixtures without a fault. found: mixtures of which there is any file.
    """

    files: dict[str, int]
    found: int
    listed: tuple[Mixture, ...]


@dataclass(frozen=True)
class Findings:
    """What a check found: split by split, fault by fault, and notes on what is odd and yet usable."""

    splits: dict[str, Split]
    utterances: int
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Recordings:
    """One mixture's recordings: their common length (None where there is none), and what was seen in them."""

    samples: int | None
    faults: tuple[Fault, ...]
    silent: bool = False
    adds_up: bool = True


def spread(work: Callable, items: Iterable, workers: int, what: str, quiet: bool) -> Iterator:
    """`work` of each item, in the items' order, done by `workers` threads; a bar on standard error unless `quiet`."""
    items = list(items)
    pool = ThreadPoolExecutor(workers)
    try:
        yield from tqdm(pool.map(work, items), total=len(items), desc=what, unit="", mininterval=interval(), disable=quiet)
    finally:
        pool.shutdown(cancel_futures=True)


def audio_or_fault(path: Path, samples: int | None = None) -> np.ndarray | Fault:
    """A recording's first `samples` (None: all of them), or what is wrong with it."""
    try:
        return read_audio(path, 0, samples)
    except DataError as error:
        try:
            info = soundfile.info(str(path))
        except (soundfile.LibsndfileError, OSError):
            return Fault("unreadable", str(path), str(error))
        if info.samplerate != SAMPLE_RATE:
            kind = "wrong rate"
        elif info.channels != 1:
            kind = "several channels"
        elif samples is not None and info.frames < samples:
            kind = "too short"
        else:
            kind = "unreadable"
        return Fault(kind, str(path), str(error))


def _frames_or_fault(path: Path) -> int | Fault:
    """How many frames a file of mouth crops holds, or what is wrong with it."""
    if not path.exists():
        return Fault("no lips", str(path), f"There are no mouth crops {path}: cut them from the utterance's video.")
    try:
        return len(read_mouth(path))
    except DataError as error:
        message = str(error)
    try:
        shape = read_array(path, "mouth crops").shape
    except DataError:
        return Fault("unreadable", str(path), message)
    return Fault("120×120 crops" if shape[-2:] == (120, 120) else "wrong crops", str(path), message)


def _recordings(layout: Layout, item: tuple[str, str, frozenset[str]]) -> _Recordings:
    """Read what there is of one mixture. item: split, name, and the kinds of file that exist."""
    split, name, present = item
    paths = {kind: layout.audio(split, kind, name) for kind in KINDS}
    faults, audio = [], {}
    for kind in KINDS:
        if kind in present:
            read = audio_or_fault(paths[kind])
            if isinstance(read, Fault):
                faults.append(read)
            else:
                audio[kind] = read
    if "mix" not in present:
        faults.append(Fault("no mixture", str(paths["mix"]), f"{paths['mix']} is missing; its source is there."))
    else:
        gone = [str(paths[kind]) for kind in KINDS if kind not in present]
        faults += [Fault("no source", path, f"{path} is missing; its mixture is there.") for path in gone]
    if len(audio) < len(KINDS):
        return _Recordings(None, tuple(faults))
    lengths = [len(audio[kind]) for kind in KINDS]
    if len(set(lengths)) > 1:
        message = f"{paths['mix']} has {lengths[0]} samples, and its sources {lengths[1]} and {lengths[2]}."
        return _Recordings(None, (*faults, Fault("unequal recordings", str(paths["mix"]), message)))
    mixed, first, second = (as_float(audio[kind]) for kind in KINDS)
    silent = not (first.any() and second.any())
    return _Recordings(lengths[0], tuple(faults), silent, _adds_up(mixed, first, second))


def _adds_up(mixed: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    """Whether a mixture is its sources' sum, up to 1 % of its energy."""
    return float(np.square(mixed - first - second).sum()) <= 0.01 * float(np.square(mixed).sum())


def _scan(layout: Layout, notes: list[str]) -> dict[str, dict[str, set[str]]]:
    """Names of the WAVs of each split and kind, splits without any folder left out."""
    found = {}
    for split in SPLITS:
        if not any(layout.folder(split, kind).is_dir() for kind in KINDS):
            continue
        found[split] = {}
        for kind in KINDS:
            folder = layout.folder(split, kind)
            files = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
            others = [name for name in files if not name.endswith(".wav")]
            found[split][kind] = {name.removesuffix(".wav") for name in files if name.endswith(".wav")}
            if others:
                notes.append(f"{folder} holds {len(others)} files that are not .wav, the first being {others[0]}.")
    if not any(names for kinds in found.values() for names in kinds.values()):
        raise DataError(
            f"{layout.root} holds no mixtures in the official layout: wanted WAVs in "
            f"{layout.root}/audio/wav16k/min/tr/mix, …/s1 and …/s2, and likewise for cv and tt. "
            "Give the folder above audio/, or make the mixtures with --mix."
        )
    return found


def _parse(layout: Layout, corpus: str, found: dict) -> tuple[dict[tuple[str, str], tuple[str, str]], list[Fault]]:
    """(split, name) -> the two utterances, for every name that fits; faults for the others."""
    parsed, faults, guesses = {}, [], Counter()
    for split, kinds in found.items():
        for name in sorted(set().union(*kinds.values())):
            try:
                mixture = parse_name(name, corpus)
            except InputError as error:
                kind = next(kind for kind in KINDS if name in kinds[kind])
                faults.append(Fault("wrong name", str(layout.audio(split, kind, name)), str(error)))
                guesses[_other_corpus(name)] += 1
                continue
            parsed[split, name] = (mixture.utt1, mixture.utt2)
    if not parsed:
        likely = guesses.most_common(1)[0][0]
        hint = f" They fit {likely}: `avkit prepare {likely} …`." if likely else ""
        raise DataError(f"None of the {len(faults)} names under {layout.root} is a mixture's of {corpus}.{hint} "
                        f"The first: {faults[0].message}")  # fmt: skip
    return parsed, faults


def _other_corpus(name: str) -> str | None:
    for corpus in ("vox2", "lrs3", "lrs2"):
        try:
            parse_name(name, corpus)
        except InputError:
            continue
        return corpus
    return None


def _shared(parsed: dict[tuple[str, str], tuple[str, str]]) -> tuple[set[tuple[str, str]], list[Fault]]:
    """Mixtures of an utterance that a split nearer to the test set holds too, and a fault for each such utterance."""
    where: dict[str, set[str]] = defaultdict(set)
    for (split, _), utterances in parsed.items():
        for utterance in utterances:
            where[utterance].add(split)
    keeper = {u: max(splits, key=SPLITS.index) for u, splits in where.items()}
    faults = [
        Fault("two splits", utterance, f"{utterance} stands in {' and '.join(sorted(splits, key=SPLITS.index))}: "
              f"its mixtures in {keeper[utterance]} stay, the others are left out.")
        for utterance, splits in sorted(where.items())
        if len(splits) > 1
    ]  # fmt: skip
    return {(split, name) for (split, name), us in parsed.items() if any(keeper[u] != split for u in us)}, faults


def check(layout: Layout, corpus: str, workers: int = 4, quiet: bool = True) -> Findings:
    """Check every file of a corpus. The answer does not depend on the number of workers.

    Args:
        layout: where the files are.
        corpus: "lrs2" (the synthetic talkers too), "lrs3" or "vox2": how utterances are named.
        workers: threads that read files.
        quiet: show no progress.

    Raises:
        DataError: there is nothing in the official layout, no folder of mouths, or not one name is this corpus'.
    """
    notes: list[str] = []
    found = _scan(layout, notes)
    if not layout.mouths.is_dir():
        raise DataError(f"There is no folder of mouth crops {layout.mouths}. Name it with --mouths.")
    parsed, faults = _parse(layout, corpus, found)
    utterances = sorted({utterance for pair in parsed.values() for utterance in pair})
    read = spread(_frames_or_fault, map(layout.mouth, utterances), workers, "reading lips", quiet)
    frames = dict(zip(utterances, read, strict=True))
    items = [
        (split, name, frozenset(kind for kind in KINDS if name in found[split][kind])) for split, name in parsed
    ]
    read = spread(lambda item: _recordings(layout, item), items, workers, "reading recordings", quiet)
    recordings = dict(zip(parsed, read, strict=True))

    faults += [fault for fault in frames.values() if isinstance(fault, Fault)]
    faults += [fault for recording in recordings.values() for fault in recording.faults]
    left_out, shared = _shared(parsed)
    faults += shared
    listed: dict[str, list[Mixture]] = {split: [] for split in found}
    uneven: dict[str, Fault] = {}
    for (split, name), pair in parsed.items():
        recording = recordings[split, name]
        usable = recording.samples is not None and not recording.faults and (split, name) not in left_out
        for utterance in pair:
            fault = _fit(layout.mouth(utterance), frames[utterance], recording.samples)
            usable &= fault is None
            if isinstance(frames[utterance], int) and fault is not None:
                uneven.setdefault(fault.where, fault)
        if usable:
            listed[split].append(_mixture(layout, split, name, pair, recording.samples))
    faults += uneven.values()
    splits = {
        split: Split(
            {kind: len(kinds[kind]) for kind in KINDS}, len(set().union(*kinds.values())), tuple(listed[split])
        )
        for split, kinds in found.items()
    }
    notes += _notes(layout, splits, recordings, set(utterances))
    return Findings(splits, len(utterances), tuple(faults), tuple(notes))


def _fit(mouth: Path, frames: int | Fault, samples: int | None) -> Fault | None:
    """What keeps lips from their recording: their own fault, or a length that training would refuse."""
    if isinstance(frames, Fault) or samples is None:
        return frames if isinstance(frames, Fault) else None
    try:
        fit_frames(np.zeros((frames, 0)), samples // SAMPLES_PER_FRAME, mouth)
    except DataError as error:
        return Fault("unequal audio and video", str(mouth), str(error))
    return None


def _mixture(layout: Layout, split: str, name: str, pair: tuple[str, str], samples: int) -> Mixture:
    sources = (
        Source(layout.audio(split, kind, name), layout.mouth(utterance), samples)
        for kind, utterance in zip(KINDS[1:], pair, strict=True)
    )
    return Mixture(layout.audio(split, "mix", name), samples, tuple(sources))


def _notes(
    layout: Layout, splits: dict[str, Split], recordings: dict[tuple[str, str], _Recordings], used: set[str]
) -> list[str]:
    """What a reader should know, though it is no fault."""
    notes = []
    for split in SPLITS:
        if split not in splits:
            notes.append(f"There is no split {split}.")
        elif len(set((counts := splits[split].files).values())) > 1:
            files = ", ".join(f"{count} in {kind}" for kind, count in counts.items())
            notes.append(f"{split} has more files of one kind than of another: {files}.")
    listed = [(split, m.name) for split, held in splits.items() for m in held.listed]
    silent = [key[1] for key in listed if recordings[key].silent]
    if silent:
        notes.append(f"{len(silent)} listed mixtures have a source without any sound, the first being {silent[0]}; "
                     "scores do not exist for it.")  # fmt: skip
    odd = [key[1] for key in listed if not recordings[key].adds_up]
    if odd:
        notes.append(f"{len(odd)} listed mixtures are not the sum of their sources, the first being {odd[0]}: there is "
                     "noise or reverberation in them, or files of different mixtures share a name.")  # fmt: skip
    short = sum(recordings[key].samples < 2 * SAMPLE_RATE for key in listed)
    if short:
        notes.append(f"{short} listed mixtures are shorter than 2 s, the published segment: training leaves them out "
                     "unless --data.segment is shorter.")  # fmt: skip
    idle = {path.stem for path in layout.mouths.glob("*.npz")} - used
    if idle:
        notes.append(f"{len(idle)} files of mouth crops belong to no mixture, the first being {min(idle)}.npz.")
    return notes
