"""A corpus of noise bursts in the layout of LRS2-2Mix, made in a moment: for tests of reading and training."""

import wave
from pathlib import Path

import numpy as np

from avkit.data.manifests import Mixture, Source, write_manifest

RATE, FPS = 16000, 25


def write_wav(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def make(root: Path, counts: dict[str, int], seconds: float = 0.4, seed: int = 0, talkers: int = 4) -> Path:
    """Write `counts[split]` mixtures for each split under `root`.

    A talker is a pitch; a talker's mouth opens (a bright block of that many rows) where it sounds.
    """
    chance = np.random.default_rng(seed)
    frames = round(seconds * FPS)
    time = np.arange(frames * RATE // FPS) / RATE
    for split, count in counts.items():
        rows = []
        for number in range(count):
            pair = chance.permutation(talkers)[:2]
            utterances = [f"{split}t{talker}_{2 * number + k:05d}" for k, talker in enumerate(pair)]
            name = f"{utterances[0]}_1.5_{utterances[1]}_-1.5.wav"
            sources, sounds = [], []
            for key, talker, utterance in zip(("s1", "s2"), pair, utterances, strict=True):
                envelope = chance.random(frames)
                sound = (
                    6000 * np.repeat(envelope, RATE // FPS) * np.sin(2 * np.pi * (150 + 90 * talker) * time)
                )
                mouth = chance.integers(0, 60, (frames, 96, 96), dtype=np.uint8)
                for frame, opening in zip(mouth, envelope, strict=True):
                    frame[48 : 48 + round(30 * opening), 20:76] = 220
                audio = root / f"audio/wav16k/min/{split}/{key}/{name}"
                write_wav(audio, sound)
                (root / "mouths").mkdir(exist_ok=True)
                np.savez_compressed(root / f"mouths/{utterance}.npz", data=mouth)
                sounds.append(sound.astype("<i2"))
                sources.append(Source(audio, root / f"mouths/{utterance}.npz", len(sound)))
            audio = root / f"audio/wav16k/min/{split}/mix/{name}"
            write_wav(audio, sounds[0] + sounds[1])
            rows.append(Mixture(audio, len(sounds[0]), tuple(sources)))
        write_manifest(root, split, rows)
    return root
