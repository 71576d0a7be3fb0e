"""Notebook 13's workbench: a clip in memory, its faces followed, what is known of the clip that ships, an upload."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avkit.data import mixing
from avkit.errors import DataError, InputError, MissingPackageError
from avkit.metrics import si_snr
from avkit.signal import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avkit.teach.display import Html
from avkit.teach.players import listen
from avkit.teach.samples import find_data, load_sample
from avkit.video import activity, detection, reading, sample_clip, tracking
from avkit.video.crops import Aligner
from avkit.video.models import hog_detector
from avkit.video.people import LONGEST
from avkit.video.sample_clip import Truth
from avkit.video.tracks import Stretch, Track, find_people, read_tracks
from avkit.video.writing import Mp4Writer

RECORD = "tiny-networks-on-grid"  # figures of the networks that ship on mixtures of real clips


def bundled() -> str:
    """The path of the clip that ships."""
    return str(find_data("video") / f"{sample_clip.NAME}.mp4")


@dataclass(frozen=True)
class Shown:
    """The beginning of a video.

    Attributes:
        video: what the file holds.
        frames: (F, H, W) uint8 gray at 25 per second, as large as faces are followed in.
        sound: (T,) float32 at 16 kHz, as long as the frames.
    """

    video: reading.Video
    frames: np.ndarray
    sound: Tensor


def load(clip: str, seconds: float) -> Shown:
    """The first seconds of a video with sound, on one clock."""
    video = reading.probe(clip, need_audio=True)
    frames = []
    for k, frame in reading.frames(video):
        if k >= round(seconds * FRAME_RATE):
            break
        frames.append(reading.picture(frame, video, tracking.LONGEST))
    with tempfile.TemporaryDirectory() as folder:
        reading.write_sound(video, Path(folder) / "sound.bin")
        sound = np.fromfile(Path(folder) / "sound.bin", np.float32)
    wanted = len(frames) * SAMPLES_PER_FRAME
    sound = np.pad(sound[:wanted], (0, max(0, wanted - len(sound))))
    return Shown(video, np.stack(frames), torch.from_numpy(sound))


def play(shown: Shown, label: str) -> Html:
    """The clip with its sound, gray and at most 480 pixels wide."""
    step = -(-shown.frames.shape[2] // 240)
    height, width = (n // step * step for n in shown.frames.shape[1:])
    small = shown.frames[:, :height, :width].reshape(len(shown.frames), height // step, step, width // step, step)
    return listen({label: (shown.sound, small.mean((2, 4)).round().astype(np.uint8))})


def known(clip: str, data: str) -> Truth | None:
    """What the clip that ships is made of; None for any other clip."""
    path = Path(clip)
    ours = find_data("video") / path.name
    if path.name != f"{sample_clip.NAME}.mp4" or path.read_bytes() != ours.read_bytes():
        return None
    return sample_clip.truth(Path(data))


# --------------------------------------------------------------------------------------------------------------- clocks

UNEVEN = (0.0, 0.03, 0.07, 0.20, 0.23, 0.41, 0.44, 0.47, 0.60)  # seconds at which a clip's nine pictures appear


def uneven_clip() -> reading.Video:
    """A file without a steady frame rate whose pictures tell their number by their gray level."""
    path = workplace() / "uneven.mp4"
    with Mp4Writer(path, 64, 48, None, quality=5) as file:
        for number, time in enumerate(UNEVEN):
            file.picture(np.full((48, 64, 3), 20 * number + 30, np.uint8), time)
    return reading.probe(path)


def numbers_shown(video: reading.Video) -> list[int]:
    """The number of the picture that avkit takes for each frame of the grid of 25 per second."""
    grays = (reading.picture(frame, video, 64).mean() for _, frame in reading.frames(video))
    return [round((float(gray) - 30) / 20) for gray in grays]


@functools.cache
def workplace() -> Path:
    """A temporary folder, the same for the whole session, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="avkit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# ---------------------------------------------------------------------------------------------------------------- faces


def detect(gray: np.ndarray, threshold: float) -> list[tuple[np.ndarray, float]]:
    """(box (4,), score) of everything in a picture that looks like a face to the gradients, down to a threshold."""
    boxes, scores, _ = hog_detector().run(np.ascontiguousarray(gray), 0, threshold)
    found = [np.array([b.left(), b.top(), b.right() + 1, b.bottom() + 1], float) for b in boxes]
    return list(zip(found, map(float, scores), strict=True))


def all_boxes(frames: np.ndarray) -> list[Tensor]:
    """For each frame the boxes of its faces, (n, 4) float64 each, found anew in every frame."""
    return [torch.from_numpy(np.array([box for box, _ in detection.find_faces(f)]).reshape(-1, 4)) for f in frames]


@functools.cache
def follow(clip: str, seconds: float) -> tuple[tuple[Track, ...], tuple[int, ...]]:
    """avkit's tracks of a clip's first seconds, and the frames with which a new shot begins."""
    folder = Path(tempfile.mkdtemp(dir=workplace()))
    tracking.track_faces(reading.probe(clip), folder, stop=round(seconds * FRAME_RATE))
    tracks, cuts = read_tracks(folder)
    if not tracks:
        count = json.loads((folder / "tracking.json").read_text())["frames"]
        raise InputError(f"in the first {count / FRAME_RATE:.1f} s of {clip} there is no face; choose another clip")
    return tuple(tracks), tuple(cuts)


def distances(tracks: Sequence[Track]) -> np.ndarray:
    """(n, n) distances between the descriptions of tracks' faces."""
    described = np.stack([track.identity for track in tracks])
    return np.linalg.norm(described[:, None] - described[None], axis=-1)


# ------------------------------------------------------------------------------------------------------- mouths, voices


def cut_mouths(clip: str, stretch: Stretch) -> np.ndarray:
    """(F, 96, 96) uint8, the crops of a person in one stretch of time."""
    video, crops = reading.probe(clip), []
    aligner = Aligner(stretch.landmarks, stretch.breaks)
    for k, frame in reading.frames(video, stretch.start):
        if k >= stretch.stop:
            break
        gray = reading.picture(frame, video, LONGEST)
        crops.append(aligner.crop(k - stretch.start, gray, gray.shape[1] / video.width))
    return np.stack(crops)


@functools.cache
def bundled_crops() -> tuple[np.ndarray, ...]:
    """The crops of everyone in the clip that ships, found as in the notebook."""
    tracks, _ = follow(bundled(), 4.0)
    people, _ = find_people(list(tracks))
    return tuple(cut_mouths(bundled(), person.stretches[0]) for person in people)


def gains(outputs: Tensor, truth: Truth, seconds: float) -> Tensor:
    """(n, T) outputs -> (n, 2) SI-SNRi in dB against both talkers, over the first seconds."""
    count = round(seconds * SAMPLE_RATE)
    voices, mixture = torch.from_numpy(truth.voices[:, :count]), torch.from_numpy(truth.mixture[:count])
    before = si_snr(mixture.expand(2, -1), voices)
    return torch.stack([si_snr(output[:count].expand(2, -1), voices) - before for output in outputs])


def activity_of(motion: np.ndarray, around: int = FRAME_RATE) -> np.ndarray:
    """(F,) -> (F,) how much lips move within a second to either side: what nine in ten of those frames do not exceed."""
    frames = range(len(motion))
    return np.array([np.percentile(motion[max(0, k - around) : k + around + 1], 90) for k in frames])


def loudness(sound: Tensor) -> np.ndarray:
    """(T,) -> (F,) level of each frame in dB, 60 dB below the loudest at the least."""
    return activity.envelope(sound.numpy(), FRAME_RATE)


def offset_of(tracks: Sequence[Track], sound: Tensor, late: float) -> activity.Offset:
    """What the lips of tracks tell of a sound that comes `late` seconds later than in the file."""
    shift = round(late * SAMPLE_RATE)
    moved = np.pad(sound.numpy(), (max(0, shift), 0))[max(0, -shift) :]
    return activity.measure_offset([(t.start, activity.opening(t.landmarks)) for t in tracks], moved)


def offset_of_many(data: str, count: int, late: float) -> activity.Offset:
    """The same for `count` test mixtures of the corpus one after the other, lips as the corpus drew them."""
    rows = [json.loads(line) for line in (Path(data) / "labels.jsonl").read_text().splitlines()]
    curves = {row["id"]: np.array(row["curves"]["opening"]) / 4000 for row in rows}
    lips, sounds = [], []
    for n in range(count):
        sample = load_sample(data, n)
        names = mixing.parse_name(sample.name)
        lips += [(len(curves[u]) * n, curves[u]) for u in (names.utt1, names.utt2)]
        sounds.append(sample.mixture.numpy())
    sound = np.pad(np.concatenate(sounds), (round(late * SAMPLE_RATE), 0))
    return activity.measure_offset(lips, sound)


def on_real_clips() -> dict:
    """The record of the networks that ship on mixtures of real talkers: scores of each system, and the swap test."""
    path = find_data("results") / RECORD / "summary.json"
    if not path.is_file():
        raise DataError(f"{path} is missing; it comes with the repository")
    return json.loads(path.read_text())


# --------------------------------------------------------------------------------------------------------------- upload


class Upload:
    """A button that takes a video from the reader's computer; `path` is where it was put, "" before."""

    def __init__(self):
        try:
            import ipywidgets
        except ImportError as error:
            raise MissingPackageError("the button needs ipywidgets; install it with: pip install ipywidgets") from error
        self.path = ""
        self.button = ipywidgets.FileUpload(accept="video/*", multiple=False, description="Choose a video")
        self.words = ipywidgets.HTML("<em>Nothing was chosen: the clip of the course is taken.</em>")
        self.button.observe(self._take, names="value")
        self.box = ipywidgets.VBox([self.button, self.words])

    def _take(self, _change) -> None:
        (file,) = self.button.value[:1] or (None,)
        if file is None:
            return
        path = workplace() / Path(file["name"]).name
        path.write_bytes(bytes(file["content"]))
        self.path = str(path)
        self.words.value = f"<em>{path.name}, {path.stat().st_size / 1e6:.1f} MB. Run the next cells.</em>"


def upload() -> Upload:
    """Display the button, with words in its place where no kernel runs."""
    from IPython.display import display

    made = Upload()
    bundle = made.box._repr_mimebundle_()
    bundle["text/html"] = "<em>Run this cell for a button that takes a video from your computer.</em>"
    bundle["text/plain"] = "[button: choose a video]"
    display(bundle, raw=True)
    return made
