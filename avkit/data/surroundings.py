"""What can lie between a talker and the microphone: a room's reverberation and noise. Both are options, off by default.

Rooms are shoeboxes by the image-source method of pyroomacoustics (MIT; `pip install "avkit[room]"`). Each talker's
impulse response is cut so that the direct sound comes at once: lips and sound stay in step.
"""

from dataclasses import dataclass

import numpy as np

from avkit.data.mixing import RATE
from avkit.errors import InputError, MissingPackageError

RT60 = (0.15, 1.0)  # seconds that --room may ask for


@dataclass(frozen=True)
class Surroundings:
    """Reverberation time in seconds and level of speech over noise in dB for one mixture; None where there is none."""

    rt60: float | None
    noise_db: float | None

    def row(self) -> dict:
        """Entries of mixtures.jsonl: those that apply."""
        entries = {"rt60": self.rt60, "noise_db": self.noise_db}
        return {name: value for name, value in entries.items() if value is not None}


def check_range(name: str, values: tuple[float, float] | None, low: float, high: float) -> None:
    """Raises `InputError` unless `values` is None or an ordered pair within low … high."""
    if values is not None and not (low <= values[0] <= values[1] <= high):
        raise InputError(f"--{name} {values[0]:g},{values[1]:g}: wanted two numbers in order, {low:g} to {high:g}.")


def draw_surroundings(
    room: tuple[float, float] | None, noise: tuple[float, float] | None, rng: np.random.Generator
) -> Surroundings:
    """One mixture's surroundings, uniform in the given ranges, rounded to 0.01."""
    rt60, level = (None if limits is None else round(float(rng.uniform(*limits)), 2) for limits in (room, noise))
    return Surroundings(rt60, level)


def load_rooms():
    """The package pyroomacoustics, computing in one thread. Raises `MissingPackageError`."""
    try:
        import pyroomacoustics
    except ImportError as error:
        raise MissingPackageError('Reverberation needs pyroomacoustics: pip install "avkit[room]"') from error
    pyroomacoustics.constants.set("num_threads", 1)
    return pyroomacoustics


def reverberate(sources: list[np.ndarray], rt60: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Two or more (T,) dry sources as one microphone hears them in a room drawn at random, each (T,) float.

    Talkers stand 0.5 to 2 m from the microphone, at least 0.4 m from the walls. `rt60` is Sabine's, 0.15 to 1 s.
    """
    rooms = load_rooms()
    size = rng.uniform([3.0, 3.0, 2.4], [6.5, 5.0, 3.0])
    absorption, order = rooms.inverse_sabine(rt60, size)
    room = rooms.ShoeBox(size, fs=RATE, materials=rooms.Material(absorption), max_order=min(order, 25))
    microphone = rng.uniform(1.0, size - 1.0)
    room.add_microphone(microphone)
    distances = []
    for _ in sources:
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.0)
        step = distance * np.array([np.cos(angle), np.sin(angle), 0.0])
        place = np.clip(microphone + step, 0.4, size - 0.4)
        place[2] = np.clip(rng.uniform(1.2, 1.8), 0.4, size[2] - 0.4)
        room.add_source(place)
        distances.append(np.linalg.norm(place - microphone))
    room.compute_rir()
    out = []
    for source, response, distance in zip(sources, room.rir[0], distances, strict=True):
        direct = int(distance / rooms.constants.get("c") * RATE + rooms.constants.get("frac_delay_length") // 2)
        length = len(source) + len(response)
        heard = np.fft.irfft(np.fft.rfft(source, length) * np.fft.rfft(response, length), length)
        out.append(heard[direct : direct + len(source)])
    return out


def speech_shaped_noise(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) steady noise with the long-term spectrum of `speech` (T,), smoothed over about 60 Hz, of the same power."""
    spectrum = np.abs(np.fft.rfft(np.asarray(speech, dtype=np.float64)))
    width = max(1, round(60 * len(speech) / RATE))
    smooth = np.convolve(spectrum, np.ones(width) / width, mode="same")
    phases = rng.uniform(0, 2 * np.pi, len(smooth))
    noise = np.fft.irfft(smooth * np.exp(1j * phases), len(speech))
    return noise * np.sqrt((np.asarray(speech, dtype=np.float64) ** 2).mean() / (noise**2).mean())
