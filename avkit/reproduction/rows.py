"""The rows of the ledger, made from `ledger.yaml`: what was published, and the one command that measures it again."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from avkit.data.report import PUBLISHED
from avkit.errors import InputError
from avkit.reproduction.contrasts import contrasts, train_argument

State = Literal["exact", "different", "other hardware", "claim", "trend", "same weights", "recipe", "cited"]
STATES = {
    "exact": "recomputed here, and equal as far as the paper prints it (thousands of parameters it cuts off instead of rounding)",
    "different": "recomputed here, and not the paper's; the note says why",
    "other hardware": "a time, measured here on another machine",
    "claim": "a sentence of a README, set against the papers' own tables",
    "trend": "a contrast of an ablation at a small scale: synthetic talkers, tiny networks, paired seeds with an interval",
    "same weights": "needs the official checkpoint and the licensed test set; the command gives the expected figure",
    "recipe": "needs licensed data and training; the commands go from the corpus to the table; not run",
    "cited": "another network's figure, for comparison; avkit does not hold that network",
}
COMPUTED = ("exact", "different", "other hardware", "claim")  # what `avkit reproduce all` computes
CORPORA = {"LRS2-2Mix": "lrs2", "LRS3-2Mix": "lrs3", "VoxCeleb2-2Mix": "vox2"}
SCORES = ("SI-SNRi", "SDRi", "PESQ")
TITLES = {
    "CTCNet": "CTCNet", "rtfs-net-4": "RTFS-Net-4", "rtfs-net-6": "RTFS-Net-6", "rtfs-net-12": "RTFS-Net-12",
    "iianet-fast": "IIANet-fast", "iianet": "IIANet",
}  # fmt: skip
_METRICS = {
    ("RTFS", "SDRi"): "this paper's SDR is an SNR of zero-mean signals: the column snri of `avkit evaluate`",
    (
        "RTFS",
        "PESQ",
    ): "the raw narrow-band score with its arguments swapped; `avkit evaluate` gives pesq_nb_raw, in the right order",
    (
        "IIANet",
        "SDRi",
    ): "BSS-eval's SDR with 512 taps, its arguments swapped for the estimate but not for the mixture; "
    "the column sdri of `avkit evaluate` is the standard one",
    ("IIANet", "PESQ"): "the public code computes no PESQ; compare with pesq_nb_raw of `avkit evaluate`",
}


SMALLER = (
    "hidden=32",
    "rnn_layers=1",
    "window=4",
)  # what RTFS-Net's smaller ablations share, as far as it can be set
IIANET_BLOCKS = {"inter_top": "InterA-T", "inter_middle": "InterA-M", "inter_bottom": "InterA-B", "intra": "IntraA"}
CTCNET_MACS = 167.2  # G for 2 s, as the RTFS-Net paper has them


@dataclass(frozen=True)
class Row:
    """One published number.

    Attributes:
        name: what `avkit reproduce` takes.
        what: in words.
        paper: the published value; None where the paper prints none.
        unit: "M", "G MACs", "K parameters", "G MACs, 2 s", "dB", "ms", "PESQ", "%", "mixtures", or "" for a claim without one.
        state: see `STATES`.
        command: the commands that measure it again, one a line.
        code: what the official code gives today, where that is known.
        note: why it differs, or what has to be known to read it.
        how: what computes it here, as (function of `exact`, arguments); None where data or weights are needed.
        corpus: the licensed corpus that it needs, by its short name.
        weights: the official weights that it needs, by their name in `avkit weights`.
        column: of `avkit evaluate`, that holds what the paper's table has; "" where no evaluation gives it.
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
    column: str = ""


@cache
def published() -> dict[str, Any]:
    """What `ledger.yaml` holds."""
    return yaml.safe_load(Path(__file__).with_name("ledger.yaml").read_text(encoding="utf-8"))


@cache
def all_rows() -> tuple[Row, ...]:
    """Every row, in the ledger's order: what is computed, the small ablations, what needs data, what is cited."""
    from avkit.reproduction.claims import claims

    rows = (
        *_counts(), *_times(), *_ablation_counts(), *claims(published()), *_trends(),
        *_scores(), *_three_talkers(), *_ablations(), *_other_ablations(), *_mixtures(), *_cited(),
    )  # fmt: skip
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
    names = [row.name for row in all_rows()]
    near = difflib.get_close_matches(name, names, 4) or [other for other in names if other.startswith(name.partition(".")[0])][:6]
    raise InputError(
        f"the ledger has no row {name!r}; {'near it: ' + ', '.join(near) if near else 'avkit reproduce --list shows all'}"
    )


def _counts() -> list[Row]:
    rows = []
    for network, counts in published()["counts"].items():
        parameters, macs = counts["parameters"], counts["macs"]
        rows.append(Row(
            f"{network}.parameters", f"{TITLES[network]}: parameters", parameters["paper"], "M",
            "different" if parameters["paper"] else "exact", f"avkit reproduce {network}.parameters", parameters["code"],
            _why_parameters(network), ("parameters", (network,)),
        ))  # fmt: skip
        seconds = macs["seconds"]
        rows.append(Row(
            f"{network}.macs", f"{TITLES[network]}: MACs for {seconds} s", macs["paper"], "G MACs",
            "exact" if network == "rtfs-net-4" or macs["paper"] is None else "different",
            f"avkit reproduce {network}.macs", macs["code"], _why_macs(network), ("macs", (network, seconds)),
        ))  # fmt: skip
        if "code_2s" in macs:
            rows.append(Row(
                f"{network}.macs-2s", f"{TITLES[network]}: MACs for 2 s", None, "G MACs", "exact",
                f"avkit reproduce {network}.macs-2s", macs["code_2s"],
                "no paper prints it; equal to the official code, counted alike, so that it can stand beside RTFS-Net's 2 s",
                ("macs", (network, 2)),
            ))  # fmt: skip
    return rows


def _why_parameters(network: str) -> str:
    if network == "iianet":
        return "the official code's network has 3.037 M, which rounds to 3.0; what else the paper counted it does not say"
    if network == "iianet-fast":
        return "the paper prints no figure of its own for this network; equal to the official code"
    return "the paper counts the first public code, 739,952; the newest adds 258 of norms and activations"


def _why_macs(network: str) -> str:
    if network == "iianet":
        return (
            "half of PyTorch's FLOP count gives 17.1 G; the paper's counter gave 18.6 G for the same second"
        )
    if network == "iianet-fast":
        return "the paper says 7 % of CTCNet's, whose 167.2 G are for 2 s; here for 1 s"
    return (
        ""
        if network == "rtfs-net-4"
        else "another counter: up to 0.5 % more, which a paper's rounding does not hide"
    )


def _times() -> list[Row]:
    return [
        Row(
            f"{network}.time", f"{TITLES[network]}: time for 2 s on {entry['machine']}", entry["paper"], "ms",
            "other hardware", f"avkit reproduce {network}.time --official DIR\navkit bench {network} --official DIR",
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
            f"avkit reproduce {name}", how=("ablation_count", (what, unit)),
        ))  # fmt: skip
    return rows


def _column(network: str, score: str) -> str:
    """The column of `avkit evaluate` that holds what a paper calls by this name."""
    sdr = "sdri" if network.startswith("iianet") else "snri"
    return {"SI-SNRi": "si_snri", "SDRi": sdr, "PESQ": "pesq_nb_raw"}[score]


def _with_row(commands: str, name: str) -> str:
    """The commands, and the one that makes a record of the ledger from what they wrote."""
    return f"{commands}\navkit reproduce {name} --from {commands.rsplit('--out ', 1)[1]}"


def _scores() -> list[Row]:
    rows = []
    for network, by_corpus in published()["scores"].items():
        if network == "CTCNet":
            continue
        for corpus, values in by_corpus.items():
            short = CORPORA[corpus]
            released = f"iianet-{short}" if network == "iianet" else ""
            for score, value in zip(SCORES, values, strict=True):
                name = f"{network}.{short}.{score.lower().replace('-', '')}"
                commands = _evaluation(released, short) if released else _recipe(network, short)
                rows.append(Row(
                    name, f"{TITLES[network]} on {corpus}: {score}", value, "PESQ" if score == "PESQ" else "dB",
                    "same weights" if released else "recipe", _with_row(commands, name),
                    note=_score_note(network, short, score), corpus=short, weights=released,
                    column=_column(network, score),
                ))  # fmt: skip
    return rows


def _score_note(network: str, corpus: str, score: str) -> str:
    family = "IIANet" if network.startswith("iianet") else "RTFS"
    notes = [] if score == "SI-SNRi" else [_METRICS[family, score]]
    if network == "iianet" and corpus == "lrs3" and score != "PESQ":
        notes.append(
            "a user of the released weights reports 17.6 (SI-SNRi) and 17.8 dB (SDRi) on this corpus"
        )
    return "; ".join(notes)


def _evaluation(weights: str, corpus: str) -> str:
    return (
        f"avkit weights get {weights}\n"
        f"avkit prepare {corpus} ROOT lists\n"
        f"avkit evaluate {weights} lists --lip-encoder LIP_WEIGHTS --out results/{weights}"
    )


def _recipe(network: str, corpus: str, extra: str = "", run: str = "") -> str:
    run = run or f"{network}-{corpus}"
    return (
        f"avkit prepare {corpus} ROOT lists\n"
        f"avkit train --config {network} --config {corpus} --data.root lists --model.lip_encoder LIP_WEIGHTS "
        f"--trainer.devices 8 --trainer.strategy ddp{extra} --out runs/{run}\n"
        f"avkit evaluate runs/{run}/model lists --out results/{run}"
    )


def _ablations() -> list[Row]:
    rows = []
    for entry in published()["ablations"]:
        changes = [
            entry["change"],
            *(SMALLER if entry.get("small") else ()),
            *([entry["also"]] if "also" in entry else ()),
        ]
        settings = "".join(f" {train_argument(change)}" for change in changes if change)
        note = (
            "the paper's smaller network has a scan in one direction with stride 2, which is not rebuilt; "
            if entry.get("small")
            else ""
        )
        for score, value in zip(SCORES, entry["paper"], strict=False):
            name = f"{entry['id']}.{score.lower().replace('-', '')}"
            rows.append(Row(
                name, f"RTFS-Net on LRS2-2Mix, {entry['what']}: {score}", value, "dB", "recipe",
                _with_row(_recipe("rtfs-net-4", "lrs2", settings, entry["id"]), name),
                note=(note + (_METRICS["RTFS", score] if score == "SDRi" else "")).removesuffix("; "), corpus="lrs2",
                column=_column("rtfs-net-4", score),
            ))  # fmt: skip
    return rows


def _other_ablations() -> list[Row]:
    """IIANet's: its blocks taken out one at a time. The paper's figures are not quoted here."""
    rows = []
    for field, block in IIANET_BLOCKS.items():
        run = f"iianet-without-{field.replace('_', '-')}"
        commands = _recipe("iianet", "lrs2", f" {train_argument(f'{field}=false')}", run)
        rows.append(Row(
            f"{run}.sisnri", f"IIANet on LRS2-2Mix without {block}: SI-SNRi", None, "dB", "recipe",
            _with_row(commands, f"{run}.sisnri"), note="for the paper's figure see its ablation tables", corpus="lrs2",
            column="si_snri",
        ))  # fmt: skip
    return rows


def _three_talkers() -> list[Row]:
    how = (
        "the lists of `avkit evaluate` name two talkers a mixture, so mixtures of three are separated one by one, each "
        "with the lips of each talker, and scored with avkit.metrics"
    )
    return [
        Row(
            f"rtfs-net-12.three-talkers.{score.lower().replace('-', '')}",
            f"RTFS-Net-12, trained on two talkers, on mixtures of three: {score}", value, "dB", "recipe",
            _recipe("rtfs-net-12", "lrs2").rsplit("\n", 1)[0]
            + "\navkit separate MIX.wav LIPS1.npz LIPS2.npz LIPS3.npz --model runs/rtfs-net-12-lrs2/model --out voices",
            note=how, corpus="lrs2",
        )
        for score, value in zip(SCORES, published()["three_talkers"]["rtfs-net-12"], strict=False)
    ]  # fmt: skip


def _mixtures() -> list[Row]:
    """How many mixtures each corpus has; `avkit prepare` counts a copy and says where it differs."""
    splits = {"tr": "train", "cv": "validate", "tt": "test"}
    return [
        Row(
            f"{short}.mixtures.{split}", f"{corpus}: mixtures to {splits[split]}", float(PUBLISHED[short][split]), "mixtures",
            "recipe", f"avkit prepare {short} ROOT lists",
            note="about as many as that" if short == "vox2" and split != "tt" else "", corpus=short,
        )
        for corpus, short in CORPORA.items()
        for split in splits
    ]  # fmt: skip


def _trends() -> list[Row]:
    return [
        Row(
            f"trend.{contrast.id}", f"{contrast.what}: difference in SI-SNRi, {contrast.first.network}",
            round(contrast.paper[0] - contrast.paper[1], 1) if contrast.paper else None, "dB", "trend",
            "avkit corpus talkers --minutes 600 --seed 0\n"
            f"avkit reproduce trend.{contrast.id} --corpus talkers",
            note=f"expected beforehand: {'positive' if contrast.expected == '+' else 'negative'}, because {contrast.why}",
            how=("trend", (contrast.id,)),
        )
        for contrast in contrasts()
    ]  # fmt: skip


def _cited() -> list[Row]:
    """CTCNet's figures, which the papers compare with."""

    def cited(name: str, what: str, value: float, unit: str) -> Row:
        return Row(f"ctcnet.{name}", f"CTCNet{what}", value, unit, "cited", f"avkit reproduce ctcnet.{name}",
                   note="as the RTFS-Net paper prints it")  # fmt: skip

    rows = [cited("macs", ": MACs for 2 s", CTCNET_MACS, "G MACs")]
    for corpus, values in published()["scores"]["CTCNet"].items():
        for score, value in zip(SCORES, values, strict=True):
            rows.append(cited(f"{CORPORA[corpus]}.{score.lower().replace('-', '')}", f" on {corpus}: {score}", value,
                              "PESQ" if score == "PESQ" else "dB"))  # fmt: skip
    for score, value in zip(SCORES, published()["three_talkers"]["CTCNet"], strict=False):
        rows.append(
            cited(
                f"three-talkers.{score.lower().replace('-', '')}",
                f" on mixtures of three: {score}",
                value,
                "dB",
            )
        )
    return rows
