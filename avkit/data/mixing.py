"""Two utterances to one mixture, as the 2Mix corpora do it: names, levels, and audio that follows from a list.

A mixture's name `{utt1}_{snr1}_{utt2}_{snr2}` says everything: the two utterances and their levels in decibels, +x and
-x with x uniform in [0, 5]. Both are brought to the same power, then to their levels, then scaled together so that
the loudest sample of mixture and sources is 0.9. The same list gives the same bytes in every run.
"""

import re
import wave
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avkit.errors import DataError, InputError

RATE = 16000
PEAK = 0.9
MAX_LEVEL = 5.0  # dB

Noise = Callable[[np.ndarray], np.ndarray]

_LEVEL = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_IDS = {  # corpora by the shape of an utterance's id; LRS3's and VoxCeleb2's may hold any number of underscores
    "vox2": r"id\d{5}_.{11}_\d{5}",
    "lrs3": r".{11}_\d{5}",
    "lrs2": r"[^_]+_[^_]+",  # and the synthetic talkers: t017_00042
    "grid": r"[^_]+_[^_]+",  # s12_bbaf2n
}
_NAMES = {
    corpus: re.compile(rf"(?P<utt1>{utt})_(?P<snr1>{_LEVEL})_(?P<utt2>{utt})_(?P<snr2>{_LEVEL})", re.DOTALL)
    for corpus, utt in _IDS.items()
}


@dataclass(frozen=True)
class Mixture:
    """Two utterance ids and their levels in dB; `name` is the file name without `.wav`."""

    utt1: str
    snr1: float
    utt2: str
    snr2: float

    @property
    def name(self) -> str:
        return f"{self.utt1}_{format_level(self.snr1)}_{self.utt2}_{format_level(self.snr2)}"


def format_level(level: float) -> str:
    """A level in dB as it stands in names: five decimals, trailing zeros and a negative zero dropped."""
    text = f"{round(level, 5):.5f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def parse_name(name: str, corpus: str | None = None) -> Mixture:
    """The `Mixture` that a file name (with or without folders and `.wav`) of LRS2, LRS3, VoxCeleb2 or ours stands for.

    Args:
        name: '{utt1}_{snr1}_{utt2}_{snr2}'. Ids may contain '_' and '-' themselves, as LRS3's and VoxCeleb2's do.
        corpus: 'vox2', 'lrs3', 'lrs2' (which serves the synthetic talkers too) or 'grid'; None tries them in this order.

    Raises:
        InputError: the name fits no corpus, or not the one that was named.
    """
    if corpus is not None and corpus not in _NAMES:
        raise InputError(f"Unknown corpus {corpus!r}: wanted one of {sorted(_NAMES)}.")
    stem = re.sub(r"\.wav$", "", str(name).replace("\\", "/").rsplit("/", 1)[-1])
    for kind in [corpus] if corpus else _NAMES:
        match = _NAMES[kind].fullmatch(stem)
        if match:
            return Mixture(match["utt1"], float(match["snr1"]), match["utt2"], float(match["snr2"]))
    wanted = f"of {corpus}" if corpus else "of LRS2, LRS3, VoxCeleb2 or the synthetic talkers"
    raise InputError(f"{stem!r} is not the name of a mixture {wanted}: wanted utt1_snr1_utt2_snr2, e.g. "
                     "t017_00042_1.25_t080_00007_-1.25. Rename the file or name its corpus.")  # fmt: skip


def utterance_of(path: str, corpus: str) -> str | None:
    """The utterance's id in a path of its recording: the file's name, or with the folders that complete it.

    Both `6330311066473698535_00011.wav` and `main/6330311066473698535/00011.wav` are LRS2's
    `6330311066473698535_00011`. None where neither fits.
    """
    *folders, name = str(path).replace("\\", "/").split("/")
    stem = re.sub(r"\.(wav|flac|m4a|npz|mp4|m4v|mpg|mpeg|avi|mov|mkv|webm)$", "", name)
    for depth in range(3):
        candidate = "_".join([*folders[len(folders) - depth :], stem])
        if depth <= len(folders) and re.fullmatch(_IDS[corpus], candidate):
            return candidate
    return None


def by_utterance(paths: Iterable[Path], folder: Path, corpus: str) -> dict[str, Path]:
    """The files below a folder whose paths in it end in an id of a corpus, by that id; others are left out.

    Raises:
        DataError: two files claim one id.
    """
    found: dict[str, Path] = {}
    for path in paths:
        utterance = utterance_of(path.relative_to(folder).as_posix(), corpus)
        if utterance is None:
            continue
        if utterance in found:
            raise DataError(f"{found[utterance]} and {path} both are the utterance {utterance}: keep one of them.")
        found[utterance] = path
    return found


def mix(
    first: np.ndarray, second: np.ndarray, snr1: float, snr2: float, noise: Noise | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mixture and both sources, each (T,) int16; without noise the mixture is exactly the sum of the sources.

    Args:
        first, second: (T,) int16 or float samples of equal length.
        snr1, snr2: levels in dB over the common power.
        noise: makes noise (T,) from the sum of the sources, to be added to the mixture only.

    Raises:
        InputError: different lengths, or a source that is silent.
    """
    if np.shape(first) != np.shape(second) or np.ndim(first) != 1:
        raise InputError(f"Sources of shapes {np.shape(first)} and {np.shape(second)}: wanted two of one length (T,).")
    sources = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    power = np.sqrt((sources**2).mean(1))
    if not (power > 0).all():
        raise InputError("A silent utterance has no level to mix at: leave it out of the list.")
    sources *= (10 ** (np.array([snr1, snr2]) / 20) / power)[:, None]
    added = np.zeros(sources.shape[1]) if noise is None else noise(sources.sum(0))
    loudest = max(np.abs(sources.sum(0) + added).max(), np.abs(sources).max())
    whole = np.round(np.stack([*sources, added]) * (PEAK * 32767 / loudest)).astype(np.int16)
    return whole.sum(0, dtype=np.int16), whole[0], whole[1]


def read_wav(path: Path | str) -> np.ndarray:
    """(T,) int16 samples of a mono 16 kHz 16-bit WAV. Raises `DataError` for a missing file or any other kind."""
    try:
        with wave.open(str(path), "rb") as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(f"{path} cannot be read as WAV ({error}): make or copy the file again.") from error
    if kind != (1, 2, RATE):
        raise DataError(f"{path} has (channels, bytes, Hz) {kind}, wanted (1, 2, {RATE}): convert it first.")
    return np.frombuffer(data, dtype="<i2")


def write_wav(path: Path | str, samples: np.ndarray) -> None:
    """Write (T,) int16 samples as a mono 16 kHz WAV, under a temporary name first, then moved into place."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with wave.open(str(part), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.ascontiguousarray(samples, dtype="<i2").tobytes())
    part.replace(path)


def draw_level(rng: np.random.Generator) -> float:
    """x of the pair +x, -x dB: uniform in [0, 5], rounded to the five decimals that names hold."""
    return round(float(rng.uniform(0.0, MAX_LEVEL)), 5)
