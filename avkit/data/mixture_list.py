"""From a list of mixtures to their audio: two utterances, two levels, three WAVs.

A list names a mixture a line, either as the 2Mix corpora name their files,

    6330311066473698535_00011_1.25_6339356267468615354_00010_-1.25

or as their scripts list them: utterance, level in dB, utterance, level in dB, where an utterance is an id or a path that
ends in one:

    main/6330311066473698535/00011.wav 1.25 main/6339356267468615354/00010.wav -1.25

Each recording's first seconds are brought to one power, then to the listed levels, added, and all three scaled together
to a peak of 0.9 (`avkit.data.mixing.mix`). A mixture depends on its line and its two recordings alone: the same bytes in
every run, whatever the number of workers. Empty lines and lines that begin with # are passed over.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avkit.checkpoints import write_atomically
from avkit.data import mixing
from avkit.data.checking import KINDS, Fault, Layout, audio_or_fault, spread
from avkit.data.manifests import SPLITS, talker_of
from avkit.errors import DataError, InputError
from avkit.signal import SAMPLE_RATE, SAMPLES_PER_FRAME


@dataclass(frozen=True)
class Entry:
    """One line of a list: the split it is for, the mixture, and its name with the levels written as the list has them."""

    split: str
    mixture: mixing.Mixture
    name: str


@dataclass(frozen=True)
class Made:
    """How many mixtures were made of each split, what kept others from it, and how many clips are cut (None: none to cut)."""

    counts: dict[str, int]
    faults: tuple[Fault, ...]
    cut: int | None = None


def which_split(argument: str) -> tuple[str, Path]:
    """Split and path from `tr=FILE`, or from a file whose name ends like `mix_2_spk_tr.txt`.

    Raises InputError when neither tells the split.
    """
    split, equals, path = argument.partition("=")
    if equals and split in SPLITS:
        return split, Path(path)
    match = re.search(rf"(?:^|[^a-z])({'|'.join(SPLITS)})$", Path(argument).stem)
    if match is None:
        raise InputError(
            f"--mix {argument}: for which split? Write tr={argument}, cv={argument} or tt={argument}, "
            "or name the file like mix_2_spk_tr.txt."
        )
    return match[1], Path(argument)


def read_list(path: Path, split: str, corpus: str) -> list[Entry]:
    """The mixtures of a list, in its order.

    Raises DataError when the file cannot be read, or names the line that is not a mixture of this corpus.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list of mixtures {path} cannot be read ({error}).") from None
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or line.lstrip().startswith("#"):
            continue
        try:
            name = fields[0] if len(fields) == 1 else _name(fields, corpus)
            entry = Entry(split, mixing.parse_name(name, corpus), Path(name).name.removesuffix(".wav"))
        except InputError as error:
            raise DataError(f"Line {number} of {path}: {error}") from None
        if entry.mixture.utt1 == entry.mixture.utt2:
            raise DataError(f"Line {number} of {path} mixes {entry.mixture.utt1} with itself.")
        entries[entry.name] = entry
    if not entries:
        raise DataError(f"The list of mixtures {path} is empty: wanted lines `utterance level utterance level`.")
    return list(entries.values())


def _name(fields: list[str], corpus: str) -> str:
    if len(fields) != 4:
        raise InputError(f"{' '.join(fields)!r} has {len(fields)} fields; wanted `utterance level utterance level`.")
    parts = []
    for path, level in (fields[:2], fields[2:]):
        utterance = mixing.utterance_of(path, corpus)
        if utterance is None:
            raise InputError(f"{path!r} does not end in the id of an utterance of {corpus}.")
        parts += [utterance, level.removeprefix("+")]
    return "_".join(parts)


# ------------------------------------------------------------------------------------------------- lists of one's own


def split_of(talker: str) -> str:
    """The split of a talker by a hash of the name: nine in ten train, the others validate and test alike; for ever the same."""
    place = int.from_bytes(hashlib.sha256(f"split {talker}".encode()).digest()[:8]) / 2**64
    return "tr" if place < 0.9 else "cv" if place < 0.95 else "tt"


def draw_list(utterances: list[str], split: str, count: int, seed: int) -> list[Entry]:
    """Mixtures of two talkers drawn at random, in the order drawn; fewer than `count` where there are no more pairs.

    Utterances are used as evenly as can be, no two mixtures hold the same pair, levels are +x and −x dB with x uniform in
    [0, 5]. Given the same utterances, split and seed the answer is the same.
    """
    rng = np.random.default_rng(list(hashlib.sha256(f"mixtures {split} {seed}".encode()).digest()))
    names = sorted(utterances)
    _, talker = np.unique([talker_of(name) for name in names], return_inverse=True)
    used, open_, partners = np.zeros(len(names), int), np.ones(len(names), bool), [set() for _ in names]
    entries: list[Entry] = []
    while len(entries) < count and open_.any():
        first = _least_used(used, open_, rng)
        free = talker != talker[first]
        free[list(partners[first])] = False
        if not free.any():
            open_[first] = False
            continue
        second = _least_used(used, free, rng)
        partners[first].add(second)
        partners[second].add(first)
        used[[first, second]] += 1
        level = mixing.draw_level(rng)
        mixture = mixing.Mixture(names[first], level, names[second], -level)
        entries.append(Entry(split, mixture, mixture.name))
    return entries


def _least_used(used: np.ndarray, among: np.ndarray, rng: np.random.Generator) -> int:
    """One of the least used where `among` is true, drawn at random."""
    least = np.flatnonzero(among & (used == used[among].min()))
    return int(least[rng.integers(len(least))])


def write_list(path: Path, entries: list[Entry]) -> None:
    """Write mixtures as a list that `read_list` reads: their names, one a line."""
    text = "".join(f"{entry.name}\n" for entry in entries)
    write_atomically(path, lambda to: Path(to).write_text(text, encoding="utf-8"))


# -------------------------------------------------------------------------------------------------- from list to audio


def find_recordings(folder: Path, corpus: str) -> dict[str, Path]:
    """Utterance id -> recording, for every WAV and FLAC below a folder whose path ends in an id of this corpus.

    This is where recordings come in, whoever cut them from video: as `{id}.wav`, or in folders as the corpora ship them.
    Raises DataError when there is none, or when two files claim one id.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))
    found = mixing.by_utterance(paths, folder, corpus)
    if not found:
        raise DataError(
            f"{folder} holds no recording whose name is an id of {corpus}. --mix wants ROOT to be the folder of single "
            "talkers' WAVs, named {id}.wav or in folders that make up the id."
        )
    return found


def make_mixtures(
    layout: Layout,
    entries: list[Entry],
    recordings: dict[str, Path],
    seconds: float = 2.0,
    workers: int = 4,
    quiet: bool = True,
) -> Made:
    """Write the three WAVs of every entry under `layout.root`; a mixture whose recordings will not do is left out.

    seconds: how much of each recording, from its beginning; a multiple of 0.04. workers: threads.
    Raises InputError for another length.
    """
    samples = round(seconds * SAMPLE_RATE)
    if samples < SAMPLES_PER_FRAME or samples % SAMPLES_PER_FRAME:
        raise InputError(f"--seconds {seconds}: wanted a multiple of 0.04, the time of a frame of video.")
    for split in dict.fromkeys(entry.split for entry in entries):
        for kind in KINDS:
            layout.folder(split, kind).mkdir(parents=True, exist_ok=True)

    def work(entry: Entry) -> Fault | None:
        return _make(layout, entry, recordings, samples)

    done = list(spread(work, entries, workers, "mixing", quiet))
    counts = dict.fromkeys(dict.fromkeys(entry.split for entry in entries), 0)
    for entry, fault in zip(entries, done, strict=True):
        counts[entry.split] += fault is None
    faults = {(fault.kind, fault.where): fault for fault in done if fault is not None}
    return Made(counts, tuple(faults.values()))


def _make(layout: Layout, entry: Entry, recordings: dict[str, Path], samples: int) -> Fault | None:
    """Make one mixture; returns what kept it from being made."""
    m, sources = entry.mixture, []
    for utterance in (m.utt1, m.utt2):
        if utterance not in recordings:
            return Fault("no recording", utterance, f"There is no recording of {utterance}, which {entry.name} names.")
        read = audio_or_fault(recordings[utterance], samples)
        if isinstance(read, Fault):
            return read
        if not np.any(read):
            return Fault("silent", str(recordings[utterance]), f"{recordings[utterance]} begins with {samples} zeros.")
        sources.append(read)
    for kind, audio in zip(KINDS, mixing.mix(*sources, m.snr1, m.snr2), strict=True):
        mixing.write_wav(layout.audio(entry.split, kind, entry.name), audio)
    return None
