"""Experiments of notebook 12: records of evaluations read, talkers resampled, and what makes a mixture hard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avkit import load_model
from avkit.baselines import oracle
from avkit.checkpoints import list_bundled, whole_training
from avkit.data.labels import read_labels, read_mixtures
from avkit.errors import DataError
from avkit.evaluation import Settings, available_metrics, evaluate, read_rows
from avkit.intervals import RESAMPLES, Interval, Resampler
from avkit.scoring import control_name
from avkit.separation import separate
from avkit.summary import mixture_means, talkers_of
from avkit.teach.samples import Sample, count_samples, find_data, load_sample

TWIN = "rtfs-net-tiny-audio-only"  # as large as rtfs-net-tiny, trained on as many examples, without lips
FIRST = "rtfs-net-tiny"


# Records ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Records:
    """What `avkit evaluate` has written about the shipped test split: all rows, and who is who."""

    rows: list[dict]
    networks: tuple[str, ...]  # trained networks that follow lips, the first one first
    systems: tuple[str, ...]  # everything in the table
    commands: dict[str, str]  # folder -> the command that made it

    def means(self, system: str, column: str = "si_snri") -> dict[str, float]:
        """Mixture -> the mean of a column over both talkers."""
        return mixture_means(self.rows, system, column)

    def of(self, system: str) -> list[dict]:
        """The rows of one system."""
        return [row for row in self.rows if row["system"] == system]

    def talkers(self) -> dict[str, tuple[str, ...]]:
        """Mixture -> its two talkers."""
        return talkers_of(self.rows)


def read_records(data: str) -> Records:
    """Every record of an evaluation on `data` that lies beside it, in results/*-on-talkers, put together.

    What two records have in common (the mixture, the oracle masks) is taken from the first; that of `rtfs-net-tiny` is the first.
    Raises DataError where there is none.
    """
    folders = [path.parent for path in (Path(data).parent / "results").glob(f"*-on-{Path(data).name}/summary.json")]
    folders = sorted(folder for folder in folders if (folder / "rows.csv").is_file())
    folders.sort(key=lambda folder: not folder.name.startswith(FIRST))
    if not folders:
        raise DataError(
            f"no record of an evaluation beside {data}; make one: avkit evaluate {FIRST} {data} --out "
            f"{Path(data).parent / 'results' / (FIRST + '-on-' + Path(data).name)}"
        )
    rows, systems, networks, commands = [], [], [], {}
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        found = read_rows(folder)
        new = [name for name in summary["systems"] if name not in systems]
        rows += [row for row in found if row["system"] in new]
        systems += new
        networks += [name for name in summary["swap_test"] if name not in networks]
        commands[folder.name] = summary["command"]
    return Records(rows, tuple(networks), tuple(_ordered(systems, networks)), commands)


def _ordered(systems: Sequence[str], networks: Sequence[str]) -> list[str]:
    """Networks, their rivals, the mixture, networks with other lips, oracles."""

    def place(name: str) -> int:
        if name in networks:
            return 0
        if name == "mixture":
            return 2
        return 3 if name.endswith("lips)") else 4 if name.endswith("ms") else 1

    return sorted(systems, key=place)


def trained(records: Records) -> dict[str, nn.Module]:
    """The networks of the records that come with the package: name -> network with its lip encoder."""
    return {name: load_model(name) for name in records.networks if name in list_bundled()}


def again(records: Records, data: str, count: int, metrics: tuple[str, ...] = ("si_snr", "snr")) -> list[dict]:
    """Rows of the first network, the twin and one oracle, computed anew for `count` mixtures."""
    settings = Settings(metrics=metrics, oracles=("irm-16ms",), limit=count)
    twin = {TWIN: TWIN} if TWIN in records.systems else {}
    return evaluate({FIRST: FIRST}, data, None, settings, audio_only=twin, progress=False).rows


def differences(rows: Sequence[dict], records: Records, column: str = "si_snri") -> list[float]:
    """How far each row lies from the record's row of the same system, mixture and talker."""
    known = {(row["system"], row["mixture"], row["talker"]): row[column] for row in records.rows}
    return [abs(row[column] - known[row["system"], row["mixture"], row["talker"]]) for row in rows]


def missing_metrics() -> str:
    """A sentence on scores that cannot be computed here, or "" where all can."""
    left = [name for name in ("pesq", "stoi", "sdr") if name not in available_metrics()]
    if not left:
        return ""
    return (
        f"Not installed here: {', '.join(left)}. Records still show these scores; what is computed anew leaves them out. "
        "`avkit doctor` says what to install."
    )


# Intervals --------------------------------------------------------------------------------------------------------


def draw_counts(talkers: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each talker is in each resample, (resamples, talkers): as many draws as there are talkers."""
    return np.random.default_rng(seed).multinomial(talkers, np.full(talkers, 1 / talkers), resamples)


def numbered(records: Records, system: str, column: str = "si_snri") -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Means of a system's mixtures (M,), the numbers of their two talkers (M, 2), and the talkers' names in order."""
    means, talkers = records.means(system, column), records.talkers()
    names = sorted({name for pair in talkers.values() for name in pair})
    number = {name: index for index, name in enumerate(names)}
    pairs = np.array([[number[name] for name in talkers[mixture]] for mixture in means])
    return np.array(list(means.values())), pairs, names


def as_if_mixtures(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of resamples that draw mixtures as if they had nothing to do with each other, (resamples,)."""
    draw = np.random.default_rng(seed)
    return values[draw.integers(0, len(values), (resamples, len(values)))].mean(axis=1)


def width_if_shuffled(records: Records, system: str, shuffles: int, seed: int = 0) -> float:
    """How many times as wide the interval from resampled talkers is as that from resampled mixtures, on average over shuffles of the
    values over the mixtures: what the first overestimates where who speaks says nothing."""
    resampler, means, draw = Resampler(records.talkers()), records.means(system), np.random.default_rng(seed)
    ratios = []
    for _ in range(shuffles):
        values = draw.permutation(list(means.values()))
        wide = resampler.interval(dict(zip(means, values, strict=True)))
        ratios.append((wide.high - wide.low) / np.ptp(np.quantile(as_if_mixtures(values), (0.025, 0.975))))
    return float(np.mean(ratios))


def on_more_talkers(first: str, second: str, column: str = "si_snri") -> Interval:
    """The mean of first − second with its interval, by the record of the frozen test set."""
    return Interval(**_summary(f"{first}-on-frozen")["differences"][second][column])


def on_more_talkers_by_voices(first: str, second: str, column: str = "si_snri") -> dict[str, Interval]:
    """The same within each group of voices, by how alike the two are: "like pitch", "other", "same voice"."""
    groups = _summary(f"{first}-on-frozen")["differences_by_group"]
    return {group: Interval(**groups[name][second][column]) for group, name in _voices(groups).items()}


def _summary(record: str) -> dict:
    return json.loads((find_data("results") / record / "summary.json").read_text(encoding="utf-8"))


def _voices(groups: Mapping[str, dict]) -> dict[str, str]:
    return {name.removeprefix("voices: "): name for name in groups if name.startswith("voices: ")}


STAGES = {  # networks of one size in the record iianet-two-stages -> what each was trained on
    "iianet-one-run": "with lips from the beginning",
    "iianet-tiny-audio-only": "without lips",
    "iianet-two-stages": "first without, then with lips",
    "iianet-twin-more": "without lips, for as long",
}


def read_stages() -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Interval]]:
    """What the record iianet-two-stages holds of one small network's ways through training (`STAGES`).

    Returns:
        way -> (examples seen, of those that it began with too; SI-SNRi of the validation items then, dB); and
        way -> how far "first without, then with lips" is ahead on the frozen test set, for each of the other ways.
    """
    record = _summary("iianet-two-stages")
    curves = {}
    for name, way in STAGES.items():
        trained = record["networks"][name]["trained"]
        begun = trained.get("began_with") or {}
        before, _ = whole_training(begun)
        steps, gains = np.array(trained["validation"]["val_si_snr_improvement"]).T
        examples = before + (steps + 1) * trained["examples"] / trained["steps"]
        if begun:  # the curve goes on from that one's end
            examples = np.append(before, examples)
            gains = np.append(begun["validation"]["val_si_snr_improvement"][-1][1], gains)
        curves[way] = examples, gains
    ahead = {STAGES[name]: Interval(**found["si_snri"]) for name, found in record["differences"].items() if name in STAGES}
    return curves, ahead


def stages_by_voices() -> dict[str, dict[str, float]]:
    """Mean SI-SNRi in dB of the same four on the frozen test set: way -> {"like pitch" … by how alike the voices are, "all": …}."""
    record = _summary("iianet-two-stages")
    means = {}
    for network, way in STAGES.items():
        means[way] = {g: record["groups"][name][network]["si_snri"]["mean"] for g, name in _voices(record["groups"]).items()}
        means[way]["all"] = record["systems"][network]["si_snri"]["mean"]
    return means


def compare(records: Records, first: str, second: str, column: str = "si_snri") -> Interval:
    """The mean of first − second over the mixtures, with its interval from resampled talkers."""
    return Resampler(records.talkers()).paired(records.means(first, column), records.means(second, column))


def alone(records: Records, system: str, column: str = "si_snri") -> Interval:
    """A system's mean with its interval."""
    return Resampler(records.talkers()).interval(records.means(system, column))


def talkers_needed(interval: Interval) -> int:
    """About how many talkers (and mixtures in proportion) it would take for the interval to leave out 0, if the difference stayed
    what it is: widths shrink with the root of the number."""
    half = (interval.high - interval.low) / 2
    return int(np.ceil(interval.talkers * (half / max(abs(interval.mean), 1e-9)) ** 2))


# Single mixtures --------------------------------------------------------------------------------------------------


def find_sample(data: str, mixture: str) -> Sample:
    """The test mixture of that name."""
    for index in range(count_samples(data)):
        sample = load_sample(data, index)
        if sample.name == mixture:
            return sample
    raise DataError(f"{data} has no test mixture {mixture}")


def ranked(records: Records, system: str, column: str = "si_snr") -> list[dict]:
    """A system's rows from the best to the worst output."""
    return sorted(records.of(system), key=lambda row: -row[column])


def heard(network: nn.Module, data: str, row: dict) -> dict[str, Tensor]:
    """What a row is about: the mixture, the network's output with this talker's lips, the talker alone, and the lips."""
    sample, talker = find_sample(data, row["mixture"]), row["talker"] - 1
    lips = sample.lips[talker]
    with torch.no_grad():
        voice = separate(sample.mixture, lips[None], model=network)[0, 0]
    return {"mixture": sample.mixture, "output": voice, "voice": sample.voices[talker], "lips": lips}


# What makes a mixture hard ----------------------------------------------------------------------------------------

FACTORS = {
    "level": "how much louder this talker is (dB)",
    "pitch": "distance of the two pitches (semitones)",
    "overlap": "what an ideal mask could still gain (dB)",
    "pace": "words per minute of this talker",
    "motion": "how much this mouth moves",
    "other motion": "how much the other mouth moves",
}


def factors(records: Records, data: str, system: str) -> dict[str, np.ndarray]:
    """For each row of a system: what might make it hard, name -> (rows,); and its scores "si_snr", "si_snri"."""
    labels, table = read_labels(data), {row["name"]: row for row in read_mixtures(data)}
    ideal = {(row["mixture"], row["talker"]): row["si_snri"] for row in records.of("irm-16ms")}
    found: dict[str, list[float]] = {name: [] for name in (*FACTORS, "si_snr", "si_snri")}
    for row in records.of(system):
        about = table[row["mixture"]]
        utterances = [about["utt1"], about["utt2"]]
        own, other = labels.index(row["utterance"]), labels.index(utterances[2 - row["talker"]])
        found["level"].append(row["level_db"])
        found["pitch"].append(about["semitones"])
        found["overlap"].append(ideal[row["mixture"], row["talker"]])
        found["pace"].append(labels.rows[own]["voice"]["words_per_minute"])
        for name, index in (("motion", own), ("other motion", other)):
            found[name].append(float(np.abs(np.diff(labels.curves[index], axis=0)).mean()))
        for name in ("si_snr", "si_snri"):
            found[name].append(row[name])
    return {name: np.array(values, float) for name, values in found.items()}


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's: the correlation of ranks, equal values sharing the mean of theirs."""
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def partial_rank_correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """The rank correlation of x and y among those with equal `given`, as far as a straight line through the ranks tells."""
    xy, xz, yz = (rank_correlation(*pair) for pair in ((x, y), (x, given), (y, given)))
    return (xy - xz * yz) / float(np.sqrt((1 - xz**2) * (1 - yz**2)))


def _ranks(x: np.ndarray) -> np.ndarray:
    return (x[:, None] > x[None]).sum(axis=1) + ((x[:, None] == x[None]).sum(axis=1) - 1) / 2


def correlations(
    records: Records, values: Mapping[str, np.ndarray], system: str, score: str = "si_snr", resamples: int = 400
) -> dict[str, tuple[float, float, float]]:
    """Rank correlation of each factor with a score: factor -> (r, low, high), 95 % intervals from resampled talkers."""
    rows = records.of(system)
    names = sorted({name for pair in records.talkers().values() for name in pair})
    number = {name: index for index, name in enumerate(names)}
    pairs = [sorted({number[name] for name in records.talkers()[row["mixture"]]}) for row in rows]
    draws = draw_counts(len(names), resamples)
    kept = []
    for counts in draws:
        times = [int(np.prod(counts[pair])) for pair in pairs]
        chosen = np.repeat(np.arange(len(rows)), times)
        if len(np.unique(chosen)) > 4:
            kept.append(chosen)
    found = {}
    for factor in FACTORS:
        x, y = values[factor], values[score]
        low, high = np.quantile([rank_correlation(x[i], y[i]) for i in kept], (0.025, 0.975))
        found[factor] = (rank_correlation(x, y), float(low), float(high))
    return found


def swapped(records: Records, network: str) -> float | None:
    """The share of outputs nearer to their own talker than to the other one; None without the scores."""
    pairs = [(row["si_snr"], row["si_snr_other"]) for row in records.of(network)]
    known = [own > other for own, other in pairs if own is not None and other is not None]
    return sum(known) / len(known) if known else None


def control_names(records: Records, network: str) -> list[str]:
    """Systems of the table that are `network` with other lips."""
    return [name for control in ("swapped", "still", "absent") if (name := control_name(network, control)) in records.systems]


def ideal(sample: Sample, name: str = "irm-16ms") -> Tensor:
    """Both voices as an ideal mask would return them, (2, T)."""
    return oracle(name, sample.voices, sample.mixture)


def verdict(interval: Interval, first: str, second: str) -> str:
    """What an interval of a difference allows to be said."""
    span = f"{interval.mean:+.1f} dB [{interval.low:+.1f}, {interval.high:+.1f}]"
    if not interval.excludes_zero:
        return f"{first} less {second}: {span}; holds 0, so on these {interval.mixtures} mixtures it may be chance"
    better = first if interval.mean > 0 else second
    return f"{first} less {second}: {span}; {better} is ahead"
