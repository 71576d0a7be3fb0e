"""Small trees of files named as LRS2, LRS3 and VoxCeleb2 name theirs, and the ways in which such files go wrong."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from avkit.data import mixing
from avkit.data.checking import KINDS, Layout

RATE, FPS = 16000, 25
RTFS = "{channels: 8, hidden: 8, rnn_hidden: 4, rnn_layers: 1, lip_hidden: 8, lip_heads: 2, repeats: 1}"  # as --model.overrides
CORPORA = ("lrs2", "lrs3", "vox2")
_LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def utterance_id(corpus: str, chance: np.random.Generator, number: int) -> str:
    """An id as the corpus has them: digits for LRS2; a video's 11 characters, `_` and `-` among them, for the others."""
    if corpus == "lrs2":
        return f"{chance.integers(10**18, 9 * 10**18)}_{number:05d}"
    video = "".join(chance.choice(_LETTERS, 11))
    video = f"{video[:3]}_{video[4:7]}-{video[8:]}"  # each has both, in the middle
    return f"{video}_{number:05d}" if corpus == "lrs3" else f"id{chance.integers(10**5):05d}_{video}_{number:05d}"


def speech(chance: np.random.Generator, seconds: float) -> np.ndarray:
    """(T,) int16: a tone with a changing level, in place of a voice."""
    frames = round(seconds * FPS)
    level = np.repeat(0.2 + 0.8 * chance.random(frames), RATE // FPS)
    tone = np.sin(np.arange(frames * RATE // FPS) * chance.uniform(0.05, 0.3))
    return (8000 * level * tone).astype(np.int16)


def write_mouth(path: Path, frames: int, chance: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, data=np.repeat(chance.integers(0, 255, (frames, 96, 1), dtype=np.uint8), 96, axis=2))


def make(root: Path, corpus: str, counts: dict[str, int], seconds: float = 0.4, seed: int = 0) -> Layout:
    """Mixtures of single talkers in the official layout under `root`: each utterance in one mixture."""
    chance = np.random.default_rng(seed)
    layout = Layout(root, root / "mouths")
    for split, count in counts.items():
        for kind in KINDS:
            layout.folder(split, kind).mkdir(parents=True)
        for number in range(count):
            pair = [utterance_id(corpus, chance, 2 * number + k) for k in range(2)]
            level = mixing.draw_level(chance)
            mixture = mixing.Mixture(pair[0], level, pair[1], -level)
            audio = mixing.mix(*(speech(chance, seconds) for _ in pair), level, -level)
            for kind, samples in zip(KINDS, audio, strict=True):
                mixing.write_wav(layout.audio(split, kind, mixture.name), samples)
            for utterance in pair:
                write_mouth(layout.mouth(utterance), round(seconds * FPS), chance)
    return layout


def make_recordings(folder: Path, corpus: str, count: int, nested: bool, seconds: float = 0.8, seed: int = 0) -> list[str]:
    """Single talkers' WAVs, as `{id}.wav` or in folders as the corpora ship them; returns the ids."""
    chance = np.random.default_rng(seed)
    ids = [utterance_id(corpus, chance, number) for number in range(count)]
    for utterance in ids:
        path = folder / f"{utterance}.wav"
        if nested:
            video, _, number = utterance.rpartition("_")
            path = folder / "main" / (video.replace("_", "/", 1) if corpus == "vox2" else video) / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        mixing.write_wav(path, speech(chance, seconds))
    return ids


def _edit_wav(change: Callable[[np.ndarray], tuple[np.ndarray, int]]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        samples, rate = change(soundfile.read(path, dtype="int16")[0])
        soundfile.write(path, samples, rate, subtype="PCM_16")

    return edit


def _edit_mouth(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        np.savez_compressed(path, data=change(np.load(path)["data"]))

    return edit


def cut(path: Path) -> None:
    """A copy that stopped half-way."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scratch(path: Path) -> None:
    """Some bytes in the middle of the packed frames overwritten."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(range(40))
    path.write_bytes(content)


def another_kind(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def pickled(path: Path) -> None:
    np.savez(path, data=np.array([{"frames": 1}], dtype=object))


def other_key(path: Path) -> None:
    np.savez(path, mouth=np.load(path)["data"])


def not_an_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", b"nothing of the kind")


# fault of a recording or of mouth crops -> (kind in the report, what makes it)
AUDIO_FAULTS = {
    "cut short": ("unreadable", cut),
    "empty": ("unreadable", lambda path: path.write_bytes(b"")),
    "a web page": ("unreadable", another_kind),
    "8 kHz": ("wrong rate", _edit_wav(lambda x: (x[::2], 8000))),
    "44.1 kHz": ("wrong rate", _edit_wav(lambda x: (x, 44100))),
    "stereo": ("several channels", _edit_wav(lambda x: (np.stack([x, x], 1), RATE))),
    "a frame shorter": ("unequal recordings", _edit_wav(lambda x: (x[:-640], RATE))),
}
MOUTH_FAULTS = {
    "gone": ("no lips", Path.unlink),
    "cut short": ("unreadable", cut),
    "empty": ("unreadable", lambda path: path.write_bytes(b"")),
    "scratched": ("unreadable", scratch),
    "a web page": ("unreadable", another_kind),
    "pickled": ("unreadable", pickled),
    "another key": ("unreadable", other_key),
    "not an array": ("unreadable", not_an_array),
    "120×120": ("120×120 crops", _edit_mouth(lambda x: np.zeros((len(x), 120, 120), np.float32))),
    "88×88": ("wrong crops", _edit_mouth(lambda x: x[:, 4:92, 4:92])),
    "floats": ("wrong crops", _edit_mouth(lambda x: x / np.float32(255))),
    "colour": ("wrong crops", _edit_mouth(lambda x: np.repeat(x[..., None], 3, axis=3))),
    "no frames": ("wrong crops", _edit_mouth(lambda x: x[:0])),
    "6 frames too few": ("unequal audio and video", _edit_mouth(lambda x: x[6:])),
    "6 frames too many": ("unequal audio and video", _edit_mouth(lambda x: np.concatenate([x, x[:6]]))),
}
