"""What a check of a corpus found, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from avkit.checkpoints import write_atomically
from avkit.data.checking import FAULTS, KINDS, Fault, Findings
from avkit.data.manifests import SPLITS

EXAMPLES = 3  # of each fault, in the table; report.json has them all

# mixtures of the published corpora, as their papers and lists count them; VoxCeleb2's first two are rounded
PUBLISHED = {
    "lrs2": {"tr": 20000, "cv": 5000, "tt": 3000},
    "lrs3": {"tr": 50000, "cv": 5000, "tt": 3000},
    "vox2": {"tr": 100000, "cv": 10000, "tt": 2965},
}
TITLES = {"lrs2": "LRS2-2Mix", "lrs3": "LRS3-2Mix", "vox2": "VoxCeleb2-2Mix", "grid": "GRID-2Mix"}
_ROUNDED = {("vox2", "tr"), ("vox2", "cv")}


@dataclass(frozen=True)
class Report:
    """The findings of one run of `avkit prepare`.

    findings: of the check; None where there was nothing to check yet. mixed: mixtures made in this run, by split.
    faults and notes hold those of the cutting and mixing as well. cut: clips of which recording and crops are there; None
    where clips were not asked for.
    """

    corpus: str
    command: str
    findings: Findings | None
    mixed: dict[str, int]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    cut: int | None = None

    @property
    def listed(self) -> int:
        """Mixtures in the lists."""
        return sum(len(split.listed) for split in self.findings.splits.values()) if self.findings else 0

    @property
    def usable(self) -> bool:
        """Whether the run left anything behind: mixtures in lists or, where nothing was checked, mixtures or clips made."""
        return self.listed > 0 if self.findings else sum(self.mixed.values()) + (self.cut or 0) > 0

    def as_dict(self) -> dict:
        """All of it, as report.json holds it."""
        splits = {}
        for split, held in self.findings.splits.items() if self.findings else ():
            splits[split] = held.files | {
                "mixtures": held.found,
                "listed": len(held.listed),
                "left_out": held.found - len(held.listed),
                "published": PUBLISHED.get(self.corpus, {}).get(split),
            }
        faults = {
            kind: {"meaning": FAULTS[kind], "count": len(some), "files": [[f.where, f.message] for f in some]}
            for kind, some in _by_kind(self.faults).items()
        }
        return {
            "corpus": self.corpus,
            "command": self.command,
            "cut": self.cut,
            "mixed": self.mixed,
            "splits": splits,
            "utterances": self.findings.utterances if self.findings else 0,
            "faults": faults,
            "notes": list(self.notes),
        }

    def write(self, path: Path) -> None:
        """Write report.json, whole or not at all."""
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"
        write_atomically(path, lambda to: Path(to).write_text(text, encoding="utf-8"))

    def table(self) -> str:
        """What the command prints: counts, faults with their first examples, notes."""
        lines = [] if self.cut is None else [f"cut {self.cut} clips to recordings and mouths"]
        lines += [f"made {count} mixtures of {split}" for split, count in self.mixed.items()]
        if self.findings:
            lines += [*self._counts(), ""]
        if not self.faults:
            lines.append("No faults.")
        for kind, some in _by_kind(self.faults).items():
            lines.append(f"{kind}: {len(some)} {FAULTS[kind]}")
            lines += [f"    {fault.message}" for fault in some[:EXAMPLES]]
            if len(some) > EXAMPLES:
                lines.append(f"    … and {len(some) - EXAMPLES} more in report.json")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def _counts(self) -> list[str]:
        heads = ("split", *KINDS, "listed", "left out", *([TITLES[self.corpus]] if self.corpus in PUBLISHED else []))
        lines = [f"{heads[0]:<6}" + "".join(f"{head:>{max(9, len(head) + 2)}}" for head in heads[1:])]
        for split, held in self.findings.splits.items():
            about = "about " if (self.corpus, split) in _ROUNDED else ""
            cells = [*held.files.values(), len(held.listed), held.found - len(held.listed)]
            if self.corpus in PUBLISHED:
                cells.append(f"{about}{PUBLISHED[self.corpus][split]}")
            widths = [max(9, len(head) + 2) for head in heads[1:]]
            lines.append(f"{split:<6}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)))
        return lines


def count_notes(corpus: str, findings: Findings) -> list[str]:
    """A note for each split that holds another number of mixtures than the published corpus."""
    notes = []
    for split in SPLITS if corpus in PUBLISHED else ():
        if split not in findings.splits:
            continue
        found, wanted = findings.splits[split].found, PUBLISHED[corpus][split]
        rounded = (corpus, split) in _ROUNDED
        if abs(found - wanted) > (0.05 * wanted if rounded else 0):
            about = "about " if rounded else ""
            notes.append(f"{split} holds {found} mixtures; {TITLES[corpus]} has {about}{wanted}.")
    return notes


def _by_kind(faults: Iterable[Fault]) -> dict[str, list[Fault]]:
    """Faults in the order of `FAULTS`, each kind's in the order they were found."""
    kinds: dict[str, list[Fault]] = {kind: [] for kind in FAULTS}
    for fault in faults:
        kinds[fault.kind].append(fault)
    return {kind: some for kind, some in kinds.items() if some}
