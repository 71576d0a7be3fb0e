"""The official lists of mixtures: reading, checking and writing them.

Both official repositories describe a split by three JSON files, `{tr,cv,tt}/{mix,s1,s2}.json`. A row of
`mix.json` is `[path, samples]`; a row of `s1.json` and `s2.json` is `[path, mouth path, samples]`; row i of
each belongs to the same mixture. The official scripts write absolute paths. A relative path here is relative
to the corpus root, so that a corpus can be moved as a whole.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from avkit.errors import DataError

SPLITS = ("tr", "cv", "tt")
OPENING = "mouths-opening"  # folder of lips drawn from their opening alone, see `avkit.data.opening`


@dataclass(frozen=True)
class Source:
    """One talker of a mixture: the clean recording, the mouth crops, and the recording's length in samples."""

    audio: Path
    mouth: Path
    samples: int

    @property
    def utterance(self) -> str:
        """The utterance's id, which is what its mouth file is called."""
        return self.mouth.stem

    @property
    def talker(self) -> str:
        """The talker's id; see `talker_of`."""
        return talker_of(self.utterance)


@dataclass(frozen=True)
class Mixture:
    """One mixture of a list: its recording, its length in samples, and its talkers in the order s1, s2, …"""

    audio: Path
    samples: int
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """The mixture's file name without its ending."""
        return self.audio.stem


def mouths_in(mixtures: Iterable[Mixture], folder: str | None) -> list[Mixture]:
    """The mixtures with the mouth crops of the same name in `folder`, beside the folder of the listed ones; None: as listed."""

    def moved(source: Source) -> Source:
        return replace(source, mouth=source.mouth.parent.with_name(folder) / source.mouth.name)

    if folder is None:
        return list(mixtures)
    return [replace(mixture, sources=tuple(map(moved, mixture.sources))) for mixture in mixtures]


def talker_of(utterance: str) -> str:
    """Who speaks in an utterance, as far as its id tells.

    VoxCeleb2 names the person (`id00012`). LRS2 and LRS3 name the video that an utterance was cut from; two
    utterances of one video are taken to be the same talker. The synthetic corpus names its talker in the same
    place.
    """
    match = re.match(r"(id\d{5})_.{11}_\d{5}$", utterance)
    return match.group(1) if match else utterance.rpartition("_")[0] or utterance


def read_manifest(root: str | os.PathLike, split: str) -> list[Mixture]:
    """Read one split's three lists from `root/split/` and pair their rows.

    root: the folder that holds `tr/`, `cv/` and `tt/`; relative paths in the lists start from it.
    split: "tr", "cv" or "tt".

    Rows are paired by file name, in the order of `mix.json`. Whether the files exist is not checked here.
    Raises DataError when a list is missing, is not of the official form, or when the lists do not describe
    the same mixtures.
    """
    root = Path(root)
    if split not in SPLITS:
        raise DataError(
            f"There is no split '{split}'. Known splits: tr (training), cv (validation), tt (test)."
        )
    folder = root / split
    mixtures = _read_rows(folder / "mix.json", 2)
    lists = {"s1": _read_rows(folder / "s1.json", 3), "s2": _read_rows(folder / "s2.json", 3)}
    if (folder / "s3.json").exists():
        lists["s3"] = _read_rows(folder / "s3.json", 3)
    by_name = {key: _by_file_name(rows, folder / f"{key}.json") for key, rows in lists.items()}
    wanted = _by_file_name(mixtures, folder / "mix.json")
    for key, rows in by_name.items():
        _refuse_difference(wanted.keys(), rows.keys(), folder, key)
    return [
        Mixture(
            audio=root / path,
            samples=samples,
            sources=tuple(
                Source(root / row[0], root / row[1], row[2])
                for row in (rows[name] for rows in by_name.values())
            ),
        )
        for name, (path, samples) in wanted.items()
    ]


def write_manifest(
    root: str | os.PathLike, split: str, mixtures: Iterable[Mixture], *, relative: bool = True
) -> None:
    """Write one split's lists in the official form; each file is moved into place once it is complete.

    relative: write paths below `root` relative to it (a path outside `root` stays absolute); False writes the
    absolute paths that the official loaders need.
    """
    root = Path(root)
    mixtures = list(mixtures)

    def shown(path: Path) -> str:
        path = Path(os.path.abspath(path))
        base = Path(os.path.abspath(root))
        return str(path.relative_to(base)) if relative and path.is_relative_to(base) else str(path)

    rows = {"mix": [[shown(mixture.audio), mixture.samples] for mixture in mixtures]}
    for index in range(max((len(mixture.sources) for mixture in mixtures), default=2)):
        sources = [mixture.sources[index] for mixture in mixtures]
        rows[f"s{index + 1}"] = [
            [shown(source.audio), shown(source.mouth), source.samples] for source in sources
        ]
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    for key, content in rows.items():
        temporary = folder / f".{key}.json.{os.getpid()}"
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, folder / f"{key}.json")


def _read_rows(path: Path, width: int) -> list[list]:
    """A list's rows, checked to be [path, samples] (width 2) or [path, mouth path, samples] (width 3)."""
    form = "[path, samples]" if width == 2 else "[path, mouth path, samples]"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"The list {path} does not exist. A corpus root holds tr/, cv/ and tt/, each with mix.json, s1.json "
            f"and s2.json. Give the folder that `avkit corpus` or `avkit prepare` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"The list {path} cannot be read as JSON: {error}. Write it anew with `avkit prepare`."
        ) from None
    if not isinstance(rows, list):
        raise DataError(f"The list {path} holds a {type(rows).__name__}; a list of rows {form} is wanted.")
    for number, row in enumerate(rows):
        *paths, samples = row if isinstance(row, list) and row else [None]
        right = len(paths) == width - 1 and all(isinstance(entry, str) and entry for entry in paths)
        if not (right and isinstance(samples, int) and not isinstance(samples, bool) and samples > 0):
            raise DataError(
                f"Row {number} of {path} is {json.dumps(row)[:200]}; {form} with samples > 0 is wanted."
            )
    return rows


def _by_file_name(rows: list[list], path: Path) -> dict[str, list]:
    named: dict[str, list] = {}
    for row in rows:
        name = re.split(r"[/\\]", row[0])[-1]
        if name in named:
            raise DataError(f"The list {path} names {name} twice. Each mixture may stand in a list once.")
        named[name] = row
    return named


def _refuse_difference(wanted: Iterable[str], found: Iterable[str], folder: Path, key: str) -> None:
    wanted, found = set(wanted), set(found)
    for missing, extra, here, there in ((wanted, found, key, "mix"), (found, wanted, "mix", key)):
        lacking = sorted(missing - extra)
        if lacking:
            raise DataError(
                f"{folder}/{here}.json lacks {len(lacking)} of the files in {there}.json, the first being "
                f"{lacking[0]}. The lists must describe the same mixtures: complete the folders and write the lists anew."
            )
