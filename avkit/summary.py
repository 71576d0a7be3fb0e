"""From rows, one per system, mixture and talker, to tables: means, intervals, differences, groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

from avkit.intervals import Interval, Resampler

# What is called what on paper, with the decimals to print.
TITLES = {
    "si_snr": ("SI-SNR", 2),
    "si_snri": ("SI-SNRi", 2),
    "snr": ("SNR", 2),
    "snri": ("SNRi", 2),
    "sdr": ("SDR", 2),
    "sdri": ("SDRi", 2),
    "pesq_wb": ("PESQ wb", 2),
    "pesq_nb": ("PESQ nb", 2),
    "pesq_nb_raw": ("raw nb", 2),
    "stoi": ("STOI", 3),
    "estoi": ("ESTOI", 3),
}
SHOWN = ("si_snri", "snri", "sdri", "pesq_wb", "pesq_nb_raw", "stoi", "estoi")  # in the printed table
LEVELS = ((0, 2), (2, 5), (5, None))  # dB between the talkers


def mixture_means(rows: Iterable[dict], system: str, column: str) -> dict[str, float]:
    """Mixture -> mean of a column over its talkers, for one system; left out where a talker has no score."""
    values: dict[str, list] = {}
    for row in rows:
        if row["system"] == system:
            values.setdefault(row["mixture"], []).append(row.get(column))
    return {mixture: sum(found) / len(found) for mixture, found in values.items() if None not in found}


def talkers_of(rows: Iterable[dict]) -> dict[str, tuple[str, ...]]:
    """Mixture -> its talkers, as `Resampler` takes them."""
    found: dict[str, dict] = {}
    for row in rows:
        found.setdefault(row["mixture"], {})[row["talker"]] = row["speaker"]
    return {mixture: tuple(speakers.values()) for mixture, speakers in found.items()}


def groups_of(rows: Iterable[dict]) -> dict[str, Callable[[dict], bool]]:
    """The groups that figures are given for: by voices (where the corpus says so), by level, by talker."""
    voices = sorted({row["group"] for row in rows if row["group"]})
    groups = {voice: (lambda row, voice=voice: row["group"] == voice) for voice in voices}
    for low, high in LEVELS:
        name = f"levels {low} to {high} dB apart" if high else f"levels {low} dB apart or more"
        groups[name] = lambda row, low=low, high=high: (
            row["level_db"] is not None and low <= abs(row["level_db"]) < (high or float("inf"))
        )
    groups["louder talker"] = lambda row: row["level_db"] is not None and row["level_db"] >= 0
    groups["softer talker"] = lambda row: row["level_db"] is not None and row["level_db"] < 0
    return groups


def follows_lips(rows: Iterable[dict], system: str) -> tuple[dict[str, float], dict[str, float]]:
    """The swap test: is the output for a talker's lips closer, by SI-SNR, to that talker than to the other
    one?

    Equivalently: with the other talker's lips, does the output score higher against the other talker?

    Returns:
        mixture -> share of its outputs that are; mixture -> 1.0 where all are, else 0.0. A network that heeds
        only the sound, the louder voice say, follows the lips in half of the outputs and in none of the
        mixtures.
    """
    closer: dict[str, list] = {}
    for row in rows:
        if row["system"] == system:
            pair = row.get("si_snr"), row.get("si_snr_other")
            closer.setdefault(row["mixture"], []).append(None if None in pair else float(pair[0] > pair[1]))
    known = {mixture: found for mixture, found in closer.items() if None not in found}
    return {key: sum(v) / len(v) for key, v in known.items()}, {
        key: float(all(v)) for key, v in known.items()
    }


def summarise(
    rows: list[dict], systems: tuple[str, ...], networks: tuple[str, ...], columns: tuple[str, ...]
) -> dict:
    """Means with intervals of every system, overall and by group, differences from the first one, and the
    swap test.

    Args:
        rows: as `avkit.scoring.score_item` makes them.
        systems: their names, the network in question first.
        networks: those among them that follow lips.
        columns: of the rows, which to summarise.
    """
    resampler = Resampler(talkers_of(rows))
    by_system = {system: [row for row in rows if row["system"] == system] for system in systems}

    def means(chosen: dict[str, list[dict]], system: str) -> dict:
        values = {column: mixture_means(chosen[system], system, column) for column in columns}
        return {column: _plain(resampler.interval(found)) for column, found in values.items()}

    def differences(chosen: dict[str, list[dict]]) -> dict:
        """The first system minus each other one, over the mixtures that both have."""
        return {other: difference(chosen, other) for other in systems[1:]}

    def difference(chosen: dict[str, list[dict]], other: str) -> dict:
        pairs = {c: [mixture_means(chosen[s], s, c) for s in (systems[0], other)] for c in columns}
        return {column: _plain(resampler.paired(*pair)) for column, pair in pairs.items()}

    groups, differences_by_group = {}, {}
    for name, belongs in groups_of(rows).items():
        part = {system: [row for row in found if belongs(row)] for system, found in by_system.items()}
        if part[systems[0]]:
            groups[name] = {system: means(part, system) for system in systems}
            differences_by_group[name] = differences(part)
    swap = {}
    for network in networks:
        outputs, mixtures = follows_lips(by_system[network], network)
        swap[network] = {
            "outputs": _plain(resampler.interval(outputs)),
            "mixtures": _plain(resampler.interval(mixtures)),
        }
    return {
        "systems": {system: means(by_system, system) for system in systems},
        "differences": differences(by_system),
        "swap_test": swap,
        "groups": groups,
        "differences_by_group": differences_by_group,
        "rows_with_notes": {s: sum(bool(r.get("note")) for r in found) for s, found in by_system.items()},
    }


def _plain(interval: Interval | None) -> dict | None:
    return None if interval is None else asdict(interval)


# --- as text ---


def as_table(summary: dict) -> str:
    """The summary as lines of text: a row per system, differences, the swap test, and SI-SNRi by group."""
    systems = summary["systems"]
    first = next(iter(systems))
    shown = [column for column in SHOWN if any(found.get(column) for found in systems.values())]
    if not shown:
        return "No row could be scored; the notes in rows.csv say why."
    lines = _aligned(
        [["", *(TITLES[column][0] for column in shown)]]
        + [
            [system, *(_cell(found.get(column), column) for column in shown)]
            for system, found in systems.items()
        ]
    )
    lines.append("mean over mixtures ± half the width of its 95 % interval (talkers resampled)")
    leading = shown[0]
    lines += ["", f"{TITLES[leading][0]} of {first}, less that of …"]
    lines += _aligned(
        [
            [f"  {name}", _signed(found.get(leading), leading)]
            for name, found in summary["differences"].items()
        ]
    )
    for network, found in summary["swap_test"].items():
        if found["outputs"]:
            share, both = found["outputs"]["mean"], found["mixtures"]["mean"]
            lines.append(
                f"swap test: {network} follows the lips in {share:.0%} of outputs, {both:.0%} of mixtures"
            )
    if summary["groups"]:
        lines += ["", f"{TITLES[leading][0]} of {first} by group"]
        rows = [(name, found[first].get(leading)) for name, found in summary["groups"].items()]
        lines += _aligned(
            [[f"  {name}", _cell(found, leading), _count(found)] for name, found in rows if found is not None]
        )
    return "\n".join(lines)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _cell(found: dict | None, column: str) -> str:
    if found is None:
        return "–"
    decimals = TITLES[column][1]
    half = "" if found["low"] is None else f" ± {(found['high'] - found['low']) / 2:.{decimals}f}"
    return f"{found['mean']:.{decimals}f}{half}"


def _signed(found: dict | None, column: str) -> str:
    if found is None:
        return "–"
    decimals = TITLES[column][1]
    if found["low"] is None:
        return f"{found['mean']:+.{decimals}f}"
    return f"{found['mean']:+.{decimals}f}  [{found['low']:+.{decimals}f}, {found['high']:+.{decimals}f}]"


def _count(found: dict) -> str:
    return f"({found['mixtures']} mixtures)"
