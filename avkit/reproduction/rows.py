"""The rows of the ledger, made from `ledger.yaml`: what was published, and the one command that measures it again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from avkit.errors import InputError

State = Literal["exact", "different", "other hardware", "same weights", "recipe", "claim"]
STATES = {
    "exact": "recomputed here, and equal as far as the paper prints it",
    "different": "recomputed here, and not the paper's; the note says why",
    "other hardware": "a time, measured here on another machine",
    "same weights": "needs the official checkpoint and the licensed test set; the command gives the expected figure",
    "recipe": "needs licensed data and training; the commands go from raw clips to the table",
    "claim": "a sentence, set against the papers' own tables",
}
CORPORA = {"LRS2-2Mix": "lrs2", "LRS3-2Mix": "lrs3", "VoxCeleb2-2Mix": "vox2"}
SCORES = ("SI-SNRi", "SDRi", "PESQ")
TITLES = {
    "CTCNet": "CTCNet", "rtfs-net-4": "RTFS-Net-4", "rtfs-net-6": "RTFS-Net-6", "rtfs-net-12": "RTFS-Net-12",
    "iianet-fast": "IIANet-fast", "iianet": "IIANet",
}  # fmt: skip
_METRICS = {
    "RTFS": "the paper's SDR is an SNR of zero-mean signals, its PESQ the raw narrow-band score with its arguments swapped",
    "IIANet": "the paper's SDR is BSS-eval's with 512 taps",
}


@dataclass(frozen=True)
class Row:
    """One published number.

    Attributes:
        name: what `avkit reproduce` takes.
        what: in words.
        paper: the published value; None where the paper prints none.
        unit: "M", "G MACs", "dB", "ms", "PESQ" or "" for a claim.
        state: see `STATES`.
        command: the commands that measure it again, one a line.
        code: what the official code gives today, where that is known.
        note: why it differs, or what has to be known to read it.
        how: what computes it here, as (function of `exact`, arguments); None where data or weights are needed.
        corpus: the licensed corpus that it needs, by its short name.
        weights: the official weights that it needs, by their name in `avkit weights`.
    """

    name: str
    what: str
    paper: float | None
    unit: str
    state: State
    command: str
    code: float | None = None
    note: str = ""
    how: tuple[str, tuple] | None = None
    corpus: str = ""
    weights: str = ""


@cache
def published() -> dict[str, Any]:
    """What `ledger.yaml` holds."""
    return yaml.safe_load(Path(__file__).with_name("ledger.yaml").read_text(encoding="utf-8"))


@cache
def all_rows() -> tuple[Row, ...]:
    """Every row, in the ledger's order: sizes, times, ablations' sizes, claims, scores, ablations' scores."""
    from avkit.reproduction.claims import claims

    rows = (*_counts(), *_times(), *_ablation_counts(), *claims(published()), *_scores(), *_ablations())
    names = [row.name for row in rows]
    assert len(set(names)) == len(names), "two rows share a name"
    return rows


def find(name: str) -> Row:
    """The row of a name.

    Raises:
        InputError: there is none; the message names those that begin alike.
    """
    for row in all_rows():
        if row.name == name:
            return row
    near = [row.name for row in all_rows() if row.name.startswith(name.partition(".")[0])][:6]
    raise InputError(
        f"the ledger has no row {name!r}; {'near it: ' + ', '.join(near) if near else 'avkit reproduce --list shows all'}"
    )


def _counts() -> list[Row]:
    rows = []
    for network, counts in published()["counts"].items():
        parameters, macs = counts["parameters"], counts["macs"]
        older = network.startswith("rtfs")
        rows.append(Row(
            f"{network}.parameters", f"{TITLES[network]}: parameters", parameters["paper"], "M",
            "different" if older else "exact", f"avkit reproduce {network}.parameters", parameters["code"],
            "the paper counts the first public code, 739,952; the newest adds 258 of norms and activations" if older
            else "" if parameters["paper"] else "the paper prints no figure of its own for this network",
            ("parameters", (network,)),
        ))  # fmt: skip
        seconds = macs["seconds"]
        rows.append(Row(
            f"{network}.macs", f"{TITLES[network]}: MACs for {seconds} s", macs["paper"], "G MACs",
            "exact" if network == "rtfs-net-4" or macs["paper"] is None else "different",
            f"avkit reproduce {network}.macs", macs["code"], _why_macs(network), ("macs", (network, seconds)),
        ))  # fmt: skip
    return rows


def _why_macs(network: str) -> str:
    if network == "iianet":
        return "half of PyTorch's FLOP count gives 17.1 G; the paper's counter gave 18.6 G for the same second"
    if network == "iianet-fast":
        return "the paper says 7 % of CTCNet's, whose 167.2 G are for 2 s; here for 1 s"
    return "" if network == "rtfs-net-4" else "another counter: up to 0.5 % more, which a paper's rounding does not hide"


def _times() -> list[Row]:
    return [
        Row(
            f"{network}.time", f"{TITLES[network]}: time for 2 s on {entry['machine']}", entry["paper"], "ms",
            "other hardware", f"avkit reproduce {network}.time\navkit bench {network} --official DIR",
            note=f"the paper's machine: {entry['machine']}; the lip encoder is left out",
            how=("time", (network,)),
        )
        for network, entry in published()["times"].items()
    ]  # fmt: skip


def _ablation_counts() -> list[Row]:
    """The sizes in RTFS-Net's ablation tables; `avkit.ablations.counts` computes them."""
    rows = []
    for what, unit, paper, name, exact in (
        ("fusion by CAF", "K parameters", 7, "fusion-caf.parameters", True),
        ("fusion by concatenation", "K parameters", 197, "fusion-concatenation.parameters", True),
        ("fusion by CAF", "G MACs, 2 s", 0.083, "fusion-caf.macs", False),
        ("fusion by concatenation", "G MACs, 2 s", 6.4, "fusion-concatenation.macs", True),
        ("blocks that share weights", "K parameters", 739, "blocks-shared.parameters", False),
        ("blocks of their own", "K parameters", 2183, "blocks-unshared.parameters", True),
        *((f"q = {q}", "G MACs, 2 s", paper, f"q-{q}.macs", q == 2)
          for q, paper in enumerate((60.5, 21.9, 12.4, 10.2, 9.7), 1)),
    ):  # fmt: skip
        rows.append(Row(
            name, f"RTFS-Net-4, {what}: {unit}", paper, unit, "exact" if exact else "different",
            f"avkit reproduce {name}", note="", how=("ablation_count", (what, unit)),
        ))  # fmt: skip
    return rows


def _scores() -> list[Row]:
    rows = []
    for network, by_corpus in published()["scores"].items():
        if network == "CTCNet":
            continue
        family = "IIANet" if network.startswith("iianet") else "RTFS"
        for corpus, values in by_corpus.items():
            short = CORPORA[corpus]
            released = f"iianet-{short}" if network == "iianet" else ""
            for score, value in zip(SCORES, values, strict=True):
                rows.append(Row(
                    f"{network}.{short}.{score.lower().replace('-', '')}", f"{TITLES[network]} on {corpus}: {score}", value,
                    "PESQ" if score == "PESQ" else "dB", "same weights" if released else "recipe",
                    _evaluation(released, short) if released else _recipe(network, short),
                    note="" if score == "SI-SNRi" else _METRICS[family], corpus=short, weights=released,
                ))  # fmt: skip
    return rows


def _evaluation(weights: str, corpus: str) -> str:
    return (
        f"avkit weights get {weights}\n"
        f"avkit prepare {corpus} ROOT lists\n"
        f"avkit evaluate {weights} lists --lip-encoder LIP_WEIGHTS --out results/{weights}"
    )


def _recipe(network: str, corpus: str, extra: str = "") -> str:
    return (
        f"avkit prepare {corpus} ROOT lists\n"
        f"avkit train --config {network} --config {corpus} --data.root lists --model.lip_encoder LIP_WEIGHTS "
        f"--trainer.devices 8 --trainer.strategy ddp{extra} --out runs/{network}-{corpus}\n"
        f"avkit evaluate runs/{network}-{corpus}/model lists --out results/{network}-{corpus}"
    )


def _ablations() -> list[Row]:
    rows = []
    for entry in published()["ablations"]:
        small = "D = 32, a one-layer scan in one direction, windows of 4 with stride 2" if entry.get("small") else ""
        for score, value in zip(SCORES, entry["paper"], strict=False):
            rows.append(Row(
                f"{entry['id']}.{score.lower().replace('-', '')}", f"RTFS-Net on LRS2-2Mix, {entry['what']}: {score}",
                value, "dB", "recipe", _recipe("rtfs-net-4", "lrs2", _change(entry["change"])),
                note=f"the paper's smaller network: {small}" if small else "", corpus="lrs2",
            ))  # fmt: skip
    return rows


def _change(change: str) -> str:
    """A change as an argument of `avkit train`: a size of the network, or a block of `avkit.ablations`."""
    if not change:
        return ""
    field, _, value = change.partition("=")
    where = "overrides" if field in ("levels", "repeats") else "changes"
    return f" --model.{where}.{field} {value}"
