"""What notebook 03, watching lips, measures of lips and sound: correlation, delays, crops, words that look alike."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avkit.data.corpus import Plan, make_corpus
from avkit.data.visemes import shapes_of
from avkit.errors import MissingPackageError
from avkit.lips import CROP_SIZE, FRAME_SIZE
from avkit.signal import FRAME_RATE, SAMPLE_RATE
from avkit.teach import lesson06_lab, probes
from avkit.video import crops


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two (N,) curves; 0 where one of them does not move."""
    value = float(lesson06_lab.correlation(a.double(), b.double()))
    return round(value, 6) + 0.0  # what rounding errors leave of a still curve is 0.0, and not -0.0


def envelope(voices: Tensor) -> Tensor:
    """(…, T) samples -> (…, F) loudness: the root mean square over the 640 samples of each lip frame."""
    return voices.unflatten(-1, (-1, SAMPLE_RATE // FRAME_RATE)).square().mean(-1).sqrt()


def late(stream: Tensor, by: int) -> Tensor:
    """(F, …) frames shown `by` frames later; negative: earlier. The first or last frame fills the gap."""
    shown = (torch.arange(len(stream)) - by).clamp(0, len(stream) - 1)
    return stream[shown]


def tilted_picture(mouth: Tensor, degrees: float = 14.0, size: float = 0.8):
    """A still picture in which the (96, 96) crop of a mouth appears tilted and at another size, as a camera may see it.

    Returns:
        picture: (256, 256) uint8. Around the crop it is blank: our talkers have no face beyond it.
        points: (5,) complex, where nose and eye corners lie in it, in pixels x + iy.
        centre: complex, where the mouth's middle lies in it.
    """
    side = 2 * crops.ALIGNED
    canvas = np.full((side, side), int(mouth[:8].double().mean()), np.uint8)
    canvas[256:352, 209:305] = mouth.numpy()  # below the mean face's nose, if its frame begins at 128 + 128i
    turn, begin, middle = size * np.exp(1j * np.deg2rad(degrees)), 128 + 128j, 128 + 150j
    grid = np.arange(crops.ALIGNED)
    place = (grid[None, :] + 1j * grid[:, None] - (132 + 140j)) / turn + middle + begin
    picture = crops.sample(canvas, place.real, place.imag)
    stable = crops.MEAN_FACE[:, 0] + 1j * crops.MEAN_FACE[:, 1]
    points, centre = ((z - middle) * turn + (132 + 140j) for z in (stable, 257 + 304j - begin))
    return torch.from_numpy(picture), torch.from_numpy(points), complex(centre)


def cut(picture: Tensor, a: complex, centre: complex) -> Tensor:
    """(96, 96) uint8 around `centre` of a picture that is turned and scaled by `a`; a = 1 leaves it as it is."""
    grid = np.arange(FRAME_SIZE) - FRAME_SIZE // 2
    place = centre + (grid[None, :] + 1j * grid[:, None]) / a
    return torch.from_numpy(crops.sample(picture.numpy(), place.real, place.imag))


def homophenes(rows: tuple[dict, ...]) -> list[tuple[str, ...]]:
    """Words of a label table whose sounds differ and whose mouth shapes do not, in groups."""
    groups: dict[tuple, dict[tuple, str]] = {}
    for row in rows:
        spoken = [(probes.plain(p), a, b) for p, a, b in row["phonemes"] if not p.startswith("_")]
        for word, start, end in row["words"]:
            if start < 0.001 or end > 1.999:
                continue  # cut off by the window
            sounds = tuple(p for p, a, b in spoken if a > start - 1e-3 and b < end + 1e-3)
            shapes = tuple(shape for sound in sounds for shape in shapes_of(sound))
            groups.setdefault(shapes, {}).setdefault(sounds, word)
    found = {tuple(sorted(set(words.values()))) for words in groups.values()}
    return sorted(words for words in found if len(words) > 1)


def two_way(matrix: Tensor) -> float:
    """How often a mouth correlates more with its own voice than with another: (N, N) mouths × voices -> share of pairs."""
    pairs = [(i, j) for i, j in itertools.permutations(range(len(matrix)), 2)]
    return sum(bool(matrix[i, i] > matrix[i, j]) for i, j in pairs) / len(pairs)


# Teaching an encoder ----------------------------------------------------------------------------------------------

PLAN = Plan(seed=3, tr=240, cv=0, tt=0)  # the talkers that the notebook's own encoder learns from
WINDOW = 10  # frames of an utterance that a step sees


def more_mouths(shipped: str, fast: bool) -> tuple[probes.Clips, str]:
    """Utterances to learn from and a sentence on them: made here or, in the quick version and where eSpeak NG is missing, the
    four of the training split that ships."""
    few = "the four utterances of the training split that ships"
    if fast:
        return probes.load_clips(shipped, "tr"), f"The quick version learns from {few}."
    with tempfile.TemporaryDirectory(prefix="avkit-03-") as folder:
        try:
            make_corpus(Path(folder) / "talkers", PLAN, quiet=True)
        except MissingPackageError as missing:
            return probes.load_clips(shipped, "tr"), f"{missing}\nUntil then it learns from {few}: expect little."
        clips = probes.load_clips(Path(folder) / "talkers", "tr")
    return clips, f"{len(clips)} utterances of {len(set(clips.talkers))} talkers, none of them among those of the test."


def windows(clips: probes.Clips, step: int, size: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """What one step of training sees: ten frames each of some utterances, cropped at random and in every second step mirrored.

    Returns:
        frames (size, 10, 88, 88) uint8, visemes (size, 10) int64, curves (size, 10, 6) float32.
    """
    draw = torch.Generator().manual_seed(step)
    length, free = clips.frames.shape[1], FRAME_SIZE - CROP_SIZE + 1
    rows = torch.randint(len(clips), (size,), generator=draw)
    places = torch.randint(length - WINDOW + 1, (size, 1), generator=draw) + torch.arange(WINDOW)
    top, left = torch.randint(free, (2,), generator=draw).tolist()
    rows = rows[:, None]
    frames = clips.frames[rows, places][..., top : top + CROP_SIZE, left : left + CROP_SIZE]
    frames = frames.flip(-1) if step % 2 else frames
    return frames, clips.visemes[rows, places], clips.curves[rows, places].float()


def visemes_right(reader: nn.Module, clips: probes.Clips) -> float:
    """Share of frames whose viseme a reader names, (F, 88, 88) uint8 frames -> logits first; in evaluation mode."""
    edge = (FRAME_SIZE - CROP_SIZE) // 2
    centres = clips.frames[:, :, edge : edge + CROP_SIZE, edge : edge + CROP_SIZE]
    before = reader.training
    reader.eval()
    with torch.no_grad():
        said = torch.cat([reader(clip[None])[0].argmax(-1) for clip in centres])
    reader.train(before)
    return float((said == clips.visemes).double().mean())
