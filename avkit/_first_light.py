"""The first separation that `make lab` shows: a bundled mixture, its talkers' lips, a bundled network.

    python -m avkit._first_light OUT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

import avkit
from avkit._extras import checkout
from avkit.data.manifests import Mixture, read_manifest
from avkit.data.reading import read_mouth
from avkit.errors import AvkitError, DataError
from avkit.metrics import si_snr
from avkit.separation import read_audio, write_audio

NETWORK = "rtfs-net-tiny"


def bundled_mixture() -> Mixture:
    """The first test mixture of data_samples whose talkers are two different ones."""
    root = checkout()
    if root is None:
        raise DataError("the sample mixtures come with a clone of the repository, not with the installed package")
    mixtures = read_manifest(root / "data_samples" / "talkers", "tt")
    return next(mixture for mixture in mixtures if len({source.talker for source in mixture.sources}) == 2)


def separate_first(out: Path) -> str:
    """Separate the bundled mixture once per talker, write the WAV files to `out`, and say how it went."""
    chosen = bundled_mixture()
    model = avkit.load_model(NETWORK)
    mixture, rate = read_audio(chosen.audio)
    talkers = torch.stack([read_audio(source.audio)[0] for source in chosen.sources])  # (2, T)
    lips = torch.stack([torch.from_numpy(read_mouth(source.mouth)) for source in chosen.sources])
    twice = mixture.expand(2, -1)  # one talker at a time is separated, the one whose lips are given
    started = time.perf_counter()
    voices = avkit.separate(twice, lips, model=model, sample_rate=rate)[:, 0]  # (2, T)
    seconds = time.perf_counter() - started
    before, after = si_snr(twice, talkers), si_snr(voices, talkers)

    out.mkdir(parents=True, exist_ok=True)
    write_audio(out / "mixture.wav", mixture, rate)
    lines = [f"A first separation by {NETWORK}: {len(mixture) / rate:.0f} s of two synthetic talkers, in {seconds:.1f} s."]
    for number, voice in enumerate(voices):
        file = out / f"talker_{number + 1}.wav"
        write_audio(file, voice, rate)
        lines.append(
            f"  talker {number + 1}: SI-SNR {before[number]:6.2f} dB -> {after[number]:6.2f} dB, "
            f"SI-SNRi {after[number] - before[number]:+6.2f} dB   {file}"
        )
    return "\n".join([*lines, f"  the mixture as it was:{'':<35}{out / 'mixture.wav'}"])


def main(argv: list[str]) -> int:
    """Print the report; 0 done, 1 the separation did not work."""
    try:
        print(separate_first(Path(argv[0])))
    except AvkitError as error:
        print(f"The first separation did not work: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
