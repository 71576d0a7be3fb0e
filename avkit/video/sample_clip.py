"""The short video that ships, `data_samples/video/two_faces.mp4`: two faces, two shots, a truth that is known.

In the first two seconds both speak, a test mixture of the synthetic talkers. Then the shot changes, the two have changed places,
one goes on alone and the other rests. Made by

    python -m avkit.video.sample_clip data_samples/video

The portrait is scikit-image's astronaut, a NASA picture in the public domain; mouths and voices are synthetic. Beside the video
lies `two_faces.json`, which says who is where and speaks with whose mouth and voice.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from avkit.checkpoints import write_atomically
from avkit.data.manifests import read_manifest
from avkit.data.reading import as_float, read_audio, read_mouth
from avkit.errors import DataError
from avkit.signal import SAMPLES_PER_FRAME
from avkit.video.composite import Actor, Scene, sway, write_composite

NAME = "two_faces"
MIXTURE = "t111_00000_2.6163_t181_00000_-2.6163"  # of the test mixtures the one that rtfs-net-tiny separates best
ALONE = "t111_00001"  # what the first talker says after the cut
CUT, REST = 50, 50  # frames of the first and of the second shot
WIDTH, HEIGHT = 480, 270
PLACES = (((130, 130, 105), (350, 135, 100)), ((345, 140, 120), (125, 130, 105)))  # shot -> talker -> x, y, width of the face


@dataclass(frozen=True)
class Truth:
    """What is known of the clip.

    Attributes:
        mouths: (2, F, 96, 96) uint8, the crops that the two speak with.
        voices: (2, T) float32 at 16 kHz.
        mixture: (T,) their sum.
        scene: where the faces are.
    """

    mouths: np.ndarray
    voices: np.ndarray
    mixture: np.ndarray
    scene: Scene


def truth(talkers: Path) -> Truth:
    """Everything that the clip is made of, from the corpus that ships. Raises DataError where it is not that corpus."""
    mixtures = {mixture.name: mixture for mixture in read_manifest(talkers, "tt")}
    if MIXTURE not in mixtures:
        raise DataError(f"{talkers} lacks the test mixture {MIXTURE}; wanted data_samples/talkers")
    first = mixtures[MIXTURE]
    alone = next(s for mixture in mixtures.values() for s in mixture.sources if s.utterance == ALONE)
    voices = [as_float(read_audio(source.audio)) for source in first.sources]
    more = as_float(read_audio(alone.audio))[: REST * SAMPLES_PER_FRAME]
    more = more * np.sqrt(np.mean(voices[0] ** 2) / np.mean(more**2))
    voices = np.stack([np.concatenate([voices[0], more]), np.concatenate([voices[1], np.zeros_like(more)])])
    crops = [read_mouth(source.mouth) for source in first.sources]
    noise = np.random.default_rng(3).normal(0, 2, (REST, 96, 96))  # of the camera, on a mouth at rest
    rest = np.clip(crops[1][:1] + noise, 0, 255).round().astype(np.uint8)
    mouths = np.stack([np.concatenate([crops[0], read_mouth(alone.mouth)[:REST]]), np.concatenate([crops[1], rest])])
    voices = voices.astype(np.float32)
    return Truth(mouths, voices, voices.sum(0), _scene(mouths))


def _scene(mouths: np.ndarray) -> Scene:
    frames = mouths.shape[1]
    late = np.arange(frames) >= CUT
    actors = []
    for who in (0, 1):
        before, after = (sway(frames, *PLACES[shot][who], seed=2 * shot + who) for shot in (0, 1))
        moved = {name: np.where(late, getattr(after, name), getattr(before, name)) for name in ("x", "y", "size", "tilt")}
        actors.append(Actor(who, mouths[who], replace(before, **moved)))
    return Scene(actors, WIDTH, HEIGHT, late.astype(int))


def make(folder: Path, talkers: Path) -> Path:
    """Write the clip and its description; returns the path of the clip."""
    known = truth(talkers)
    folder.mkdir(parents=True, exist_ok=True)
    path = write_composite(folder / f"{NAME}.mp4", known.scene, known.mixture)
    described = {
        "made_by": "python -m avkit.video.sample_clip data_samples/video",
        "synthetic": "voices by eSpeak NG, mouths drawn; the portrait is scikit-image's astronaut (NASA, public domain)",
        "mixture": MIXTURE,
        "alone": ALONE,
        "cut": CUT,
        "frames": CUT + REST,
        "faces": [[list(PLACES[shot][who]) for shot in (0, 1)] for who in (0, 1)],
    }
    text = json.dumps(described, indent=1) + "\n"
    write_atomically(folder / f"{NAME}.json", lambda to: Path(to).write_text(text, encoding="utf-8"))
    return path


def main(argv: list[str]) -> int:
    """`python -m avkit.video.sample_clip OUT`."""
    parser = argparse.ArgumentParser(prog="python -m avkit.video.sample_clip", description="Make the video that ships.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the video and its description")
    parser.add_argument("--talkers", type=Path, default=Path("data_samples/talkers"), help="the corpus that ships (%(default)s)")
    args = parser.parse_args(argv)
    print(make(args.out, args.talkers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
