"""Who speaks with whom: the list of utterances and mixtures of a split, in groups of known difficulty."""

import hashlib
from dataclasses import dataclass

import numpy as np

from avkit.data import voices
from avkit.data.mixing import Mixture, draw_level

GROUPS = {"same voice": 1 / 6, "like pitch": 1 / 3, "other": 1 / 2}
LIKE = 1.5  # semitones: two voices no farther apart are of like pitch
_APART = 3.0  # semitones between the two of the group 'other', where there is such a pair


@dataclass(frozen=True)
class Pair:
    """A mixture, its split, its group, and how many semitones lie between the two voices."""

    mixture: Mixture
    split: str
    group: str
    semitones: float

    def row(self) -> dict:
        """The mixture's row in mixtures.jsonl."""
        m = self.mixture
        return {"name": m.name, "split": self.split, "utt1": m.utt1, "snr1": m.snr1, "utt2": m.utt2, "snr2": m.snr2,
                "group": self.group, "semitones": self.semitones}  # fmt: skip


def pitch_of(talker: str) -> float:
    """A voice's usual pitch in semitones over 1 Hz: its floor and 0.6 of the way to the top of its range, as measured."""
    voice = voices.voice(talker)
    return 12 * float(np.log2(voice.pitch * (1 + 0.6 * (voice.range - 1))))


def plan_split(split: str, n_mixtures: int, seed: int, reuse: int) -> tuple[list[str], list[Pair]]:
    """Ids of the utterances that a split needs, and its mixtures.

    Every talker gets at least two utterances, so that a voice can meet itself; utterances are used as evenly as the
    groups allow, about `reuse` times each, and no two mixtures hold the same pair.
    """
    if n_mixtures == 0:
        return [], []
    rng = np.random.default_rng(list(hashlib.sha256(f"pairs {split} {seed}".encode()).digest()))
    total = max(4, -(-2 * n_mixtures // reuse))
    everyone = voices.talkers(split)
    chosen = [everyone[i] for i in rng.permutation(len(everyone))[: total // 2]]
    ids = [f"{chosen[i % len(chosen)]}_{i // len(chosen):05d}" for i in range(total)]
    talker = np.array([i % len(chosen) for i in range(total)])
    pitch = np.array([pitch_of(chosen[i]) for i in talker])
    counts = [round(share * n_mixtures) for share in GROUPS.values()]
    counts[-1] = n_mixtures - sum(counts[:-1])
    groups = rng.permutation(np.repeat(list(GROUPS), counts))
    used, partners = np.zeros(total, dtype=int), [set() for _ in range(total)]
    pairs = []
    for group in groups:
        first = _least(used, np.arange(total), rng)
        second = _partner(group, first, talker, pitch, used, partners[first], rng)
        used[[first, second]] += 1
        partners[first].add(second)
        partners[second].add(first)
        level = draw_level(rng)
        apart = round(float(abs(pitch[first] - pitch[second])), 2)
        same = talker[first] == talker[second]
        label = "same voice" if same else "like pitch" if apart <= LIKE else "other"
        order = (first, second) if rng.random() < 0.5 else (second, first)
        pairs.append(Pair(Mixture(ids[order[0]], level, ids[order[1]], -level), split, label, apart))
    return [ids[i] for i in np.flatnonzero(used)], pairs


def _least(used: np.ndarray, among: np.ndarray, rng: np.random.Generator) -> int:
    """One of the least used utterances of `among`, drawn at random."""
    least = among[used[among] == used[among].min()]
    return int(least[rng.integers(len(least))])


def _partner(
    group: str,
    first: int,
    talker: np.ndarray,
    pitch: np.ndarray,
    used: np.ndarray,
    taken: set[int],
    rng: np.random.Generator,
) -> int:
    """An utterance to mix with `first` as the group asks; where there is none, the nearest thing to it."""
    free = np.ones(len(talker), dtype=bool)
    free[[first, *taken]] = False
    apart, same = np.abs(pitch - pitch[first]), talker == talker[first]
    wishes = {
        "same voice": [same],
        "like pitch": [~same & (apart <= LIKE)],
        "other": [~same & (apart >= _APART), ~same & (apart > LIKE)],
    }[group]
    for wish in [*wishes, ~same, np.ones_like(same)]:
        among = np.flatnonzero(wish & free)
        if len(among):
            return _least(used, among, rng)
    raise AssertionError("every utterance has met every other: more mixtures than pairs")
