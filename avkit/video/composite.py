"""Videos whose truth is known: portraits that speak with the synthetic talkers' mouths.

One public-domain portrait (a NASA picture that scikit-image ships), mirrored, stretched and lit anew, makes several persons; a
talker's mouth crops are laid over its mouth where the alignment of `avkit.video.crops` will look for them. Where every face is
in every frame, which crops it speaks with and what its voice is are known exactly. Everything made here is synthetic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from avkit._extras import require
from avkit.errors import InputError
from avkit.lips import FRAME_SIZE
from avkit.signal import FRAME_RATE, SAMPLE_RATE
from avkit.video import crops, detection
from avkit.video.writing import Mp4Writer

_FACE = 150  # pixels across the face box in a portrait


@dataclass(frozen=True)
class Look:
    """How a person differs from the portrait: mirrored; width, eyes and chin as factors; light and colour."""

    mirrored: bool = False
    width: float = 1.0
    eyes: float = 0.0  # pixels by which the upper face is moved outwards
    chin: float = 0.0  # pixels by which the lower face is drawn down
    brightness: float = 1.0
    gamma: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


LOOKS = (
    Look(),
    Look(mirrored=True, width=0.9, eyes=-4, chin=8, brightness=0.85, gamma=1.15, tint=(1.05, 0.95, 0.85)),
    Look(width=1.05, eyes=2, chin=-2, brightness=0.95, gamma=0.85, tint=(0.88, 0.95, 1.08)),
)


@dataclass(frozen=True)
class Person:
    """A portrait: rgb (H, W, 3) float 0 … 255, alpha (H, W) 0 … 1, box (4,) of the face, landmarks (68, 2)."""

    rgb: np.ndarray
    alpha: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray


@functools.cache
def person(index: int) -> Person:
    """One of the `LOOKS`, as a portrait with a face of about 150 pixels."""
    require("skimage", "Making composite videos")
    from skimage import data

    look = LOOKS[index]
    rgb = data.astronaut()[0:240, 110:340].astype(np.float64)
    height, width = 480, round(460 * look.width)
    rows, columns = np.mgrid[0:height, 0:width]
    y, x = rows / 2.0, columns / (2.0 * look.width)
    eyes, chin = (
        np.exp(-(((y - 95) / 22) ** 2)),
        1 / (1 + np.exp(-(y - 125) / 12)) * np.exp(-(((y - 150) / 60) ** 4)),
    )
    x = x - look.eyes / 2 * eyes * np.tanh((x - 113) / 25)
    y = y - look.chin / 2 * chin
    warped = np.stack([map_coordinates(rgb[..., c], [y, x], order=1, mode="nearest") for c in range(3)], -1)
    if look.mirrored:
        warped = warped[:, ::-1]
    warped = 255 * look.brightness * (warped / 255) ** look.gamma * np.array(look.tint)
    gray = warped.mean(-1).clip(0, 255).astype(np.uint8)
    box, _ = max(detection.find_faces(gray), key=lambda found: found[1])
    found = detection.find_again(gray, box)
    centre, size = (found.box[:2] + found.box[2:]) / 2, found.box[2] - found.box[0]
    across, down = (columns - centre[0]) / size, (rows - centre[1] + 0.12 * size) / size
    alpha = 1 / (1 + np.exp((np.hypot(across / 0.88, down / 1.08) - 1) / 0.05))
    return Person(warped.clip(0, 255), alpha, found.box, found.landmarks)


@dataclass(frozen=True)
class Motion:
    """Where a face is in each frame, (F,) each: centre and width of its box in pixels, tilt in radians, turn and presence.

    turn: 0 … 1, how far it has turned away (its width shrinks to a quarter); shown: False where it is not in the scene.
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    tilt: np.ndarray
    turn: np.ndarray
    shown: np.ndarray


def sway(frames: int, x: float, y: float, size: float, seed: int = 0) -> Motion:
    """A head that moves a little, as talking heads do."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) / FRAME_RATE

    def wander(amount: float) -> np.ndarray:
        return amount * sum(
            np.sin(2 * np.pi * rng.uniform(0.1, 0.7) * t + rng.uniform(0, 7)) for _ in range(2)
        )

    shown = np.ones(frames, bool)
    moved = (x + wander(0.04 * size), y + wander(0.03 * size), size * (1 + wander(0.01)), wander(0.03))
    return Motion(*moved, np.zeros(frames), shown)


@dataclass(frozen=True)
class Actor:
    """Who (index of `LOOKS`), with which mouth crops (F, 96, 96) uint8, where."""

    look: int
    mouths: np.ndarray
    motion: Motion


@dataclass(frozen=True)
class Scene:
    """A video to be.

    Attributes:
        actors: later ones are in front.
        width, height: even numbers of pixels.
        background: for each frame a number; another number is another room (a shot change).
        bars: (first frame, last frame, actor) of a dark bar that passes over a face.
    """

    actors: list[Actor]
    width: int = 640
    height: int = 360
    background: np.ndarray | None = None
    bars: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.actors[0].mouths)


# ------------------------------------------------------------------------------------------------------------- drawing


def render(scene: Scene) -> Iterator[np.ndarray]:
    """The frames of a scene, (height, width, 3) uint8 each, with the noise of a camera."""
    noise = np.random.default_rng(0)
    rooms: dict[int, np.ndarray] = {}
    for k in range(scene.frames):
        number = 0 if scene.background is None else int(scene.background[k])
        room = rooms.setdefault(number, _room(scene.width, scene.height, number))
        image = room.copy()
        for actor in scene.actors:
            if actor.motion.shown[k]:
                _paint(image, actor, k)
        for first, last, index in scene.bars:
            if first <= k <= last:
                _bar(image, scene.actors[index].motion, k, (k - first) / max(1, last - first))
        image += noise.normal(0, 2.0, (scene.height, scene.width, 1))
        yield np.clip(np.round(image), 0, 255).astype(np.uint8)


def _room(width: int, height: int, number: int) -> np.ndarray:
    """A blurred background of its own for each number."""
    rng = np.random.default_rng([7, number])
    tone = rng.uniform(40, 190, 3)
    pattern = gaussian_filter(rng.standard_normal((height, width)), 24)
    slope = np.linspace(-1, 1, width) * rng.uniform(-30, 30)
    return (tone + (pattern / np.abs(pattern).max() * 40 + slope)[..., None]).clip(0, 255)


def _paint(image: np.ndarray, actor: Actor, k: int) -> None:
    """Lay one actor over the image, in place."""
    from PIL import Image

    who, motion = person(actor.look), actor.motion
    to_scene, shift = _placement(who, motion, k)
    rgb = _speaking(actor.look, actor.mouths[k])
    height, width = who.alpha.shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ to_scene.T + shift
    x0, y0 = np.floor(corners.min(0)).astype(int).clip(0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), [image.shape[1], image.shape[0]])
    if x0 >= x1 or y0 >= y1:
        return
    back = np.linalg.inv(to_scene)
    offset = back @ (np.array([x0, y0]) - shift)
    coefficients = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    layers = Image.fromarray(
        np.concatenate([rgb, who.alpha[..., None] * 255], -1).round().clip(0, 255).astype(np.uint8), "RGBA"
    )
    moved = layers.transform(
        (int(x1 - x0), int(y1 - y0)), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    pixels = np.asarray(moved).astype(np.float64)
    region = image[y0:y1, x0:x1]
    region += pixels[..., 3:] / 255 * (pixels[..., :3] * (1 - 0.6 * motion.turn[k]) - region)


def _placement(who: Person, motion: Motion, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The (2, 2) matrix and the shift that bring a portrait's pixels to the scene's in frame k."""
    scale = motion.size[k] / (who.box[2] - who.box[0])
    cos, sin = np.cos(motion.tilt[k]), np.sin(motion.tilt[k])
    narrow = 1 - 0.75 * motion.turn[k]
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([narrow, 1.0])
    centre = (who.box[:2] + who.box[2:]) / 2
    return matrix, np.array([motion.x[k], motion.y[k]]) - matrix @ centre


def _speaking(look: int, mouth: np.ndarray) -> np.ndarray:
    """A portrait with the mouth crop in place of its own mouth."""
    who = person(look)
    x, y, weight, skin, low, high = _seat(look)
    drawn = map_coordinates(mouth.astype(np.float64), [y, x], order=1, mode="nearest")
    edge = np.concatenate([mouth[:, :8].ravel(), mouth[:, -8:].ravel()]).astype(np.float64)
    contrast = min(1.0, 0.8 * skin.mean() / max(np.median(edge), 1.0) + 0.2)
    gray = skin.mean(-1) + contrast * (drawn - np.median(edge))
    shade = gray[..., None] * skin / np.maximum(skin.mean(-1, keepdims=True), 1.0)
    rgb = who.rgb.copy()
    region = rgb[low[1] : high[1], low[0] : high[0]]
    region += weight[..., None] * (shade.clip(0, 255) - region)
    return rgb


@functools.cache
def _seat(look: int) -> tuple[np.ndarray, ...]:
    """Where a crop lies on a portrait: for each pixel of a region its place (x, y) in the crop, weight, and skin below."""
    who = person(look)
    a = crops.similarity(who.landmarks[None, list(crops.STABLE)])[0][0]
    mouth = who.landmarks[crops.MOUTH].mean(0)
    half = FRAME_SIZE / 2
    reach = int(np.ceil(half / abs(a))) + 4
    low, high = (np.round(mouth).astype(int) + s * reach for s in (-1, 1))
    high = np.minimum(high, who.alpha.shape[::-1])
    rows, columns = np.mgrid[low[1] : high[1], low[0] : high[0]]
    here = a * ((columns - mouth[0]) + 1j * (rows - mouth[1]))
    x, y = here.real + half, here.imag + half
    distance = np.hypot((x - half) / 40, (y - half - 2) / 31)
    weight = 1 / (1 + np.exp((distance - 1) / 0.06))
    skin = _skin(who.rgb[low[1] : high[1], low[0] : high[0]], distance)
    return x, y, weight, skin, low, high


def _skin(region: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The portrait's skin without its mouth: tones from the rim of the region, carried inwards."""
    rim = ((distance > 0.95) & (distance < 1.15)).astype(np.float64)
    weights = gaussian_filter(rim, 12) + 1e-6
    return np.stack([gaussian_filter(region[..., c] * rim, 12) / weights for c in range(3)], -1)


def _bar(image: np.ndarray, motion: Motion, k: int, share: float) -> None:
    """A dark bar, most of a face wide, on its way over a face from left to right."""
    size = motion.size[k]
    left = motion.x[k] - 1.9 * size + share * 2.8 * size
    x0, x1 = (int(np.clip(v, 0, image.shape[1])) for v in (left, left + size))
    image[:, x0:x1] = [38, 30, 34]


# --------------------------------------------------------------------------------------------------- truth and the file


def true_landmarks(actor: Actor, k: int) -> np.ndarray | None:
    """The face's landmarks (68, 2) in frame k of the scene; None where it is not shown."""
    if not actor.motion.shown[k]:
        return None
    who = person(actor.look)
    matrix, shift = _placement(who, actor.motion, k)
    return who.landmarks @ matrix.T + shift


def write_composite(
    path: Path,
    scene: Scene,
    sound: np.ndarray | None,
    channels: int = 1,
    sound_delay: float = 0.0,
    times: Callable[[int], float] | None = None,
    rotation: int = 0,
) -> Path:
    """Render a scene to an MP4 file with its sound.

    Args:
        sound: (T,) float samples at 16 kHz, or None for a silent file.
        sound_delay: seconds by which the sound comes late (its time stamps say so not: the file is wrong by that much).
        times: the time at which each frame is shown, for files with a variable frame rate; k / 25 s by default.
        rotation: pictures are stored turned, with a flag that turns them back (a multiple of 90).
    """
    if scene.frames == 0:
        raise InputError("the scene has no frames")
    turned = rotation // 90 % 4
    width, height = (scene.height, scene.width) if turned % 2 else (scene.width, scene.height)
    rate = SAMPLE_RATE if sound is not None else None
    if sound is not None:
        silence = round(abs(sound_delay) * SAMPLE_RATE)
        sound = np.concatenate([np.zeros(silence), sound]) if sound_delay > 0 else sound[silence:]
    with Mp4Writer(
        path, width, height, rate, channels, "synthetic: made by avkit.video.composite", rotation, 20
    ) as file:
        for k, rgb in enumerate(render(scene)):
            file.picture(np.rot90(rgb, -turned), k / FRAME_RATE if times is None else times(k))
            if sound is not None:
                first = k * SAMPLE_RATE // FRAME_RATE
                last = len(sound) if k == scene.frames - 1 else (k + 1) * SAMPLE_RATE // FRAME_RATE
                if first < len(sound):
                    file.sound(sound[first:last])
    return path
