"""Separates a recording of so many minutes with a network that ships, and says what it cost: a helper of test_separation.py.

    python tests/long_recording.py [MINUTES] [MODEL]        60 minutes and rtfs-net-tiny where nothing is said

The recording is the first test mixture of data_samples/talkers over and over; the frames lie in a file and are read from it
as they are needed. Prints one line of JSON: seconds of the recording and of the work, processor seconds, and memory (resident,
not backed by a file) in MB before the separation, at its highest (looked at after each chunk), and of the result itself.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import avkit
from avkit.bench import process_memory
from avkit.data.manifests import read_manifest
from avkit.data.reading import as_float, read_audio, read_mouth

TALKERS = Path(__file__).parents[1] / "data_samples" / "talkers"


def resident() -> float:
    """MB of this process' memory that no file stands behind."""
    return process_memory("RssAnon") / 2**20


def separate_long(minutes: float, name: str) -> dict:
    """What the module prints."""
    item = read_manifest(TALKERS, "tt")[0]
    times = round(minutes * 30)
    with tempfile.TemporaryDirectory() as folder:
        frames = read_mouth(item.sources[0].mouth)
        mapped = np.memmap(Path(folder) / "frames", np.uint8, "w+", shape=(1, times * len(frames), 96, 96))
        for number in range(times):
            mapped[0, number * len(frames) : (number + 1) * len(frames)] = frames
        mixture = torch.from_numpy(np.tile(as_float(read_audio(item.audio)), times))[None]
        model = avkit.load_model(name)
        avkit.separate(mixture[:, :64000], torch.from_numpy(frames).repeat(2, 1, 1)[None], model=model)  # all is loaded
        before = peak = resident()

        def look(done: int, total: int) -> None:
            nonlocal peak
            peak = max(peak, resident())

        clock, processor = time.perf_counter(), time.process_time()
        voice = avkit.separate(mixture, torch.from_numpy(mapped), model=model, progress=look)
        assert voice.shape == (1, 1, mixture.shape[1]) and voice.isfinite().all()
        return {
            "model": name,
            "recording_seconds": mixture.shape[1] / 16000,
            "seconds": round(time.perf_counter() - clock, 1),
            "processor_seconds": round(time.process_time() - processor, 1),
            "threads": torch.get_num_threads(),
            "before_mb": round(before),
            "peak_mb": round(peak),
            "result_mb": round(voice.nbytes / 2**20),
        }


if __name__ == "__main__":
    print(json.dumps(separate_long(float((sys.argv[1:] or ["60"])[0]), (sys.argv[2:] or ["rtfs-net-tiny"])[0])))
