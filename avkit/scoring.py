"""One mixture of a test set: read, separated by every system, scored; a row per system and talker.

`avkit.evaluation` runs this over a whole test set, on several processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from avkit import baselines, metrics
from avkit.data.manifests import OPENING, Mixture, mouths_in
from avkit.data.reading import as_float, fit_frames, read_audio, read_mouth
from avkit.errors import AvkitError, InputError, MissingPackageError
from avkit.lips import LipTransform
from avkit.losses import PermutationInvariant, negative_si_snr, reorder
from avkit.signal import frames_for

# What --metrics can name -> its columns.
METRICS = {
    "si_snr": ("si_snr", "si_snri"),
    "snr": ("snr", "snri"),
    "sdr": ("sdr", "sdri"),
    "pesq": ("pesq_wb", "pesq_nb", "pesq_nb_raw"),
    "stoi": ("stoi",),
    "estoi": ("estoi",),
}
PACKAGES = {"pesq": "pesq", "stoi": "pystoi", "estoi": "pystoi"}
DESCRIPTION = ("mixture", "talker", "speaker", "utterance", "group", "level_db", "system")
COLUMNS = (
    *DESCRIPTION,
    *(column for columns in METRICS.values() for column in columns),
    "si_snr_other",
    "note",
)


@dataclass
class Item:
    """A mixture as read. A talker whose lips could not be read has a `lip_problems` entry and no frames."""

    mixture: Tensor  # (T,)
    sources: Tensor  # (n, T)
    frames: list[Tensor | None]  # (F, 96, 96) uint8 per talker
    lip_problems: list[str | None]
    digest: str  # of all that was read
    opening: tuple[list[Tensor | None], list[str | None]] = ((), ())  # frames and problems of lips drawn from their opening


@dataclass
class Systems:
    """The systems that a run compares: networks and what stands beside them.

    Args:
        networks: name -> network that takes lips and returns one voice, with its lip encoder as ``.lips``.
        audio_only: name -> network that returns every voice and is given zeros instead of lips.
        opening: name -> network like those in `networks`, given lips that only open and shut (`avkit.data.opening`).
        oracles: names from `baselines.ORACLES`.
        controls: names from `baselines.CONTROLS`, applied to the first network.
    """

    networks: dict[str, nn.Module]
    audio_only: dict[str, nn.Module] = field(default_factory=dict)
    oracles: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    opening: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self):
        for name, model in (self.networks | self.opening).items():
            if getattr(model, "lips", None) is None:
                raise InputError(
                    f"The network {name} has no lip encoder (no .lips, or None), and mouth crops cannot "
                    "become features. Give one with --lip-encoder; networks without lips go to --audio-only."
                )
        for model in self.models.values():
            model.eval()

    @property
    def models(self) -> dict[str, nn.Module]:
        """Every network of the run."""
        return self.networks | self.audio_only | self.opening

    @property
    def names(self) -> tuple[str, ...]:
        """Every system of the run, in the order of the tables; the first one is the network in question."""
        first = next(iter(self.networks))
        controls = (control_name(first, control) for control in self.controls)
        return (*self.networks, "mixture", *self.audio_only, *self.opening, *self.oracles, *controls)


def control_name(network: str, control: str) -> str:
    """What a network under a lip control is called in the tables."""
    return f"{network} ({control} lips)"


# --- reading ---


def read_item(mixture: Mixture) -> Item:
    """Read a mixture's sound and lips.

    Raises:
        DataError: the mixture or a source is missing, damaged, not mono at 16 kHz, or shorter than its list
            says. Lips that cannot be read are noted in the item instead.
    """
    digest = hashlib.sha256()
    signals = []
    for path in (mixture.audio, *(source.audio for source in mixture.sources)):
        audio = read_audio(path, samples=mixture.samples)
        digest.update(np.ascontiguousarray(audio).data)
        signals.append(torch.from_numpy(as_float(audio)))
    frames, problems = read_lips(mixture, digest.update)
    return Item(signals[0], torch.stack(signals[1:]), frames, problems, digest.hexdigest())


def read_lips(mixture: Mixture, note: Callable[[memoryview], None]) -> tuple[list[Tensor | None], list[str | None]]:
    """Mouth crops (F, 96, 96) uint8 of each talker, or None and what is wrong with them; `note` gets all that was read."""
    found, problems = [], []
    for source in mixture.sources:
        frames, problem = None, None
        try:
            crops = read_mouth(source.mouth)
            note(np.ascontiguousarray(crops).data)
            frames = torch.from_numpy(fit_frames(crops, frames_for(mixture.samples), source.mouth))
        except AvkitError as error:
            problem = str(error)
        found.append(frames)
        problems.append(problem)
    return found, problems


# --- separating ---


@torch.no_grad()
def separate_item(item: Item, systems: Systems) -> Iterator[tuple[str, list[Tensor | str]]]:
    """Each system's name with one entry per talker: the estimate (T,), or what went wrong."""
    talkers = range(len(item.sources))
    followed = {}
    for name, model in systems.networks.items():
        followed[name] = _with_lips(model, item, item.frames, item.lip_problems)
        yield name, followed[name]
    yield "mixture", [item.mixture for _ in talkers]
    for name, model in systems.audio_only.items():
        yield name, _attempt(lambda model=model: _without_lips(model, item), len(item.sources))
    for name, model in systems.opening.items():
        yield name, _with_lips(model, item, *item.opening)
    for name in systems.oracles:
        yield (
            name,
            _attempt(lambda name=name: baselines.oracle(name, item.sources, item.mixture), len(item.sources)),
        )
    if systems.controls:
        first = next(iter(systems.networks))
        model = systems.networks[first]
        for control in systems.controls:
            yield control_name(first, control), _controlled(model, item, control, followed[first])


def _controlled(
    model: nn.Module, item: Item, control: str, followed: list[Tensor | str]
) -> list[Tensor | str]:
    """The network's outputs under one lip control; `followed` are those with the talkers' own lips."""
    if control == "swapped":  # the next talker's lips: that output exists already
        return followed[1:] + followed[:1]
    if control == "absent":
        frames = frames_for(item.mixture.shape[-1])
        return _with_features(model, item, [torch.zeros(512, frames) for _ in item.sources])
    changed = [None if frames is None else baselines.lip_control(control, frames) for frames in item.frames]
    return _with_lips(model, item, changed, item.lip_problems)


def _with_lips(
    model: nn.Module, item: Item, crops: list[Tensor | None], problems: list[str | None]
) -> list[Tensor | str]:
    """The network's output for every talker, from mouth crops (F, 96, 96)."""
    transform, device = LipTransform(training=False), device_of(model)
    features = [
        problem if frames is None else model.lips(transform(frames)[None].to(device))[0].cpu()
        for frames, problem in zip(crops, problems, strict=True)
    ]
    return _with_features(model, item, features)


def _with_features(model: nn.Module, item: Item, features: list[Tensor | str]) -> list[Tensor | str]:
    """The network's output for every talker that has lip features (512, F), in one batch; equal lips are run once."""
    outputs: list[Tensor | str] = [entry if isinstance(entry, str) else "" for entry in features]
    different: list[Tensor] = []
    place = {}  # talker -> row of the batch
    for index, entry in enumerate(features):
        if isinstance(entry, Tensor):
            same = (row for row, lips in enumerate(different) if torch.equal(lips, entry))
            place[index] = next(same, len(different))
            different += [entry] if place[index] == len(different) else []
    if different:
        mixtures = item.mixture.expand(len(different), -1)
        lips = torch.stack(different)
        estimates = _attempt(lambda: _call(model, mixtures, lips, voices=1)[:, 0], len(different))
        for index, row in place.items():
            outputs[index] = estimates[row]
    return outputs


def _without_lips(model: nn.Module, item: Item) -> Tensor:
    """An audio-only network's outputs in the order that suits the talkers best: (n, T)."""
    lips = torch.zeros(1, 512, frames_for(item.mixture.shape[-1]))
    estimates = _call(model, item.mixture[None], lips, voices=len(item.sources))
    _, order = PermutationInvariant(negative_si_snr).best_order(estimates, item.sources[None])
    return reorder(estimates, order)[0]


def _call(model: nn.Module, mixtures: Tensor, lips: Tensor, voices: int) -> Tensor:
    """(N, T) and (N, 512, F) -> (N, voices, T) on the CPU, in float32."""
    device = device_of(model)
    estimates = model(mixtures.to(device), lips.to(device)).float().cpu()
    wanted = (len(mixtures), voices, mixtures.shape[-1])
    if estimates.shape != wanted:
        raise InputError(
            f"The network returned shape {tuple(estimates.shape)} where {wanted} was wanted: one voice for "
            "each pair of lips, or one for each talker where it works without lips (--audio-only)."
        )
    return estimates


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters are."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _attempt(make: Callable[[], Tensor], count: int) -> list[Tensor | str]:
    """The estimates, or for every talker what went wrong. Errors that no file or user caused pass through."""
    try:
        return list(make())
    except (AvkitError, torch.OutOfMemoryError) as error:
        return [str(error)] * count


# --- scoring ---


def score_item(
    mixture: Mixture, systems: Systems, chosen: tuple[str, ...], group: str = "", known: dict | None = None
) -> dict:
    """Every row of one mixture.

    Args:
        mixture: from a manifest.
        systems: what to compare.
        chosen: keys of `METRICS`.
        group: the mixture's group, where its corpus has one.
        known: what this function returned for the mixture with other networks; rows of the mixture and of oracle masks
            are taken from it where the same was read.

    Returns:
        ``{"mixture": name, "digest": SHA-256 of what was read or "", "readable": whether all of it was,
        "rows": [row, …]}``; rows have the keys of `COLUMNS` that apply. A file that cannot be read gives rows
        without scores whose note says so.
    """
    talkers = range(len(mixture.sources))
    try:
        item = read_item(mixture)
    except AvkitError as error:
        rows = [
            _describe(mixture, index, group, None) | {"system": system, "note": str(error)}
            for system in systems.names
            for index in talkers
        ]
        return {"mixture": mixture.name, "digest": "", "readable": False, "rows": rows}
    if systems.opening:
        item.opening = read_lips(mouths_in([mixture], OPENING)[0], lambda read: None)
    kept = _kept(known, item, systems)
    left = replace(systems, oracles=tuple(name for name in systems.oracles if name not in kept))
    estimates = {name: found for name, found in separate_item(item, left) if name not in kept}
    scores = []
    for index in talkers:
        done = {name: found[index] for name, found in kept.items()}
        scores.append(_scores({name: found[index] for name, found in estimates.items()}, item, index, chosen, done))
    rows = [
        _describe(mixture, index, group, item) | {"system": system} | scores[index][system]
        for system in systems.names
        for index in talkers
    ]
    readable = not any((*item.lip_problems, *item.opening[1]))
    return {"mixture": mixture.name, "digest": item.digest, "readable": readable, "rows": rows}


def _kept(known: dict | None, item: Item, systems: Systems) -> dict[str, list[dict]]:
    """System -> its scores per talker, of those systems that a network has no part in, where the same was read before."""
    kept: dict[str, list[dict]] = {}
    if known is not None and known["digest"] == item.digest:
        for row in known["rows"]:
            if row["system"] == "mixture" or row["system"] in systems.oracles:
                scores = {key: value for key, value in row.items() if key not in DESCRIPTION}
                kept.setdefault(row["system"], []).append(scores)
    return kept


def _describe(mixture: Mixture, index: int, group: str, item: Item | None) -> dict:
    source = mixture.sources[index]
    level = None if item is None else level_difference(item.sources, index)
    return {
        "mixture": mixture.name,
        "talker": index + 1,
        "speaker": source.talker,
        "utterance": source.utterance,
        "group": group,
        "level_db": level,
    }


def level_difference(sources: Tensor, index: int) -> float | None:
    """Energy of one source (n, T) over that of all others, in dB; None where one of the two is silent."""
    energy = sources.double().square().sum(-1)
    own, others = energy[index], energy.sum() - energy[index]
    return float(10 * torch.log10(own / others)) if own > 0 and others > 0 else None


def _scores(
    estimates: dict[str, Tensor | str], item: Item, index: int, chosen: tuple[str, ...], done: dict[str, dict]
) -> dict[str, dict]:
    """System -> scores against one talker, improvements, and a note on what could not be scored; `done` stay as they are.

    All estimates of a talker are scored at once, so that what depends on the talker alone is computed once.
    """
    table = dict(done)
    usable = {}
    for name, estimate in estimates.items():
        if isinstance(estimate, str):
            table[name] = {"note": estimate}
        elif not estimate.isfinite().all():
            table[name] = {"note": "The output holds NaN or infinite samples."}
        else:
            usable[name] = estimate
    if usable:
        signals = torch.stack(list(usable.values())).double()
        notes: list[list[str]] = [[] for _ in usable]
        columns = _columns(signals, item.sources.double(), index, chosen, notes)
        for row, (name, signal) in enumerate(usable.items()):
            if not (signal - signal.mean()).any():
                notes[row].append("The output is silent: every score is at its floor.")
            scores = {column: values[row] for column, values in columns.items()}
            table[name] = scores | {"note": " ".join(dict.fromkeys(notes[row]))}
    for name in usable:
        for ratio in {"si_snr", "snr", "sdr"} & set(chosen):
            pair = table[name][ratio], table["mixture"].get(ratio)
            table[name][f"{ratio}i"] = None if None in pair else pair[0] - pair[1]
    return table


def _columns(
    signals: Tensor, sources: Tensor, index: int, chosen: tuple[str, ...], notes: list[list[str]]
) -> dict[str, list[float | None]]:
    """Column -> a score for each of the signals (N, T) against one of the sources (n, T), improvements apart."""
    clean = sources[index]
    columns = {}
    for name in ("si_snr", "snr", "sdr", "stoi", "estoi"):
        if name in chosen:
            columns[name] = _try(getattr(metrics, name), signals, clean, notes)
    if "si_snr" in chosen:
        rivals = [_try(metrics.si_snr, signals, other, notes) for i, other in enumerate(sources) if i != index]
        rivals = list(zip(*rivals, strict=True))
        columns["si_snr_other"] = [None if None in found else max(found) for found in rivals]
    if "pesq" in chosen:  # row by row: whether an utterance is found may depend on the estimate too
        for column, mode in (("pesq_wb", "wb"), ("pesq_nb", "nb")):
            score = partial(metrics.pesq, mode=mode)
            found = [_try(score, signals[i : i + 1], clean, notes[i : i + 1])[0] for i in range(len(signals))]
            columns[column] = found
        columns["pesq_nb_raw"] = [
            None if narrow is None else float(metrics.raw_pesq(torch.tensor(narrow).double())) for narrow in found
        ]
    return columns


def _try(score: Callable, signals: Tensor, clean: Tensor, notes: list[list[str]]) -> list[float | None]:
    """A score for each of (N, T) against (T,), or None and a note to each where they have none."""
    try:
        return score(signals, clean.expand_as(signals)).tolist()
    except MissingPackageError:
        raise
    except InputError as error:
        for found in notes:
            found.append(str(error))
        return [None] * len(signals)
