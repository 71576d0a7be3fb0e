"""The first separation that `make lab` shows: a bundled mixture, its talkers' lips, a bundled network.

    python -m avkit._first_light OUT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

import avkit
from avkit._extras import checkout
from avkit.data.manifests import Mixture, read_manifest
from avkit.errors import AvkitError, DataError
from avkit.metrics import si_snr

NETWORK = "rtfs-net-tiny"


def bundled_mixture() -> Mixture:
    """The first test mixture of data_samples whose two talkers are not the same voice."""
    root = checkout()
    if root is None:
        raise DataError("The sample mixtures come with a clone of the repository, not with the installed package.")
    mixtures = read_manifest(root / "data_samples" / "talkers", "tt")
    return next(mixture for mixture in mixtures if len({source.talker for source in mixture.sources}) == 2)


def read_wave(path: Path) -> torch.Tensor:
    """A mono 16 kHz file as (T,) floats."""
    samples, _ = soundfile.read(path, dtype="float32")
    return torch.from_numpy(samples)


def separate_first(out: Path) -> str:
    """Separate the bundled mixture once per talker, write the WAV files to `out`, and say how it went."""
    chosen = bundled_mixture()
    model = avkit.load_model(NETWORK)
    mixture = read_wave(chosen.audio)
    talkers = torch.stack([read_wave(source.audio) for source in chosen.sources])  # (2, T)
    lips = torch.stack([torch.from_numpy(np.load(source.mouth)["data"]) for source in chosen.sources])
    started = time.perf_counter()
    # One talker is separated at a time, the one whose lips are given: the mixture goes in twice.
    voices = avkit.separate(mixture.expand(2, -1), lips, model=model)[:, 0]  # (2, T)
    seconds = time.perf_counter() - started
    before, after = si_snr(mixture.expand(2, -1), talkers), si_snr(voices, talkers)

    out.mkdir(parents=True, exist_ok=True)
    soundfile.write(out / "mixture.wav", mixture.numpy(), 16000, subtype="FLOAT")
    length = mixture.numel() / 16000
    lines = [f"A first separation by {NETWORK}: {length:.0f} s of two synthetic talkers, in {seconds:.1f} s."]
    for number, voice in enumerate(voices):
        file = out / f"talker_{number + 1}.wav"
        soundfile.write(file, voice.numpy(), 16000, subtype="FLOAT")
        lines.append(f"  talker {number + 1}   SI-SNR {before[number]:6.2f} dB -> {after[number]:6.2f} dB   "
                     f"SI-SNRi {after[number] - before[number]:+6.2f} dB   {file}")
    return "\n".join([*lines, f"  what was heard, unseparated: {out / 'mixture.wav'}"])


def main(argv: list[str]) -> int:
    try:
        print(separate_first(Path(argv[0])))
    except AvkitError as error:
        print(f"The first separation did not work: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
