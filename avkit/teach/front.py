"""The picture at the top of README: a mixture, two mouths, and the voice that the network returns for each.

`python -m avkit.teach.front data_samples/separation.png` draws it from the shipped mixtures and the shipped network.
"""

import sys

import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

import avkit
from avkit.metrics import si_snr_improvement
from avkit.teach.plots import draw_spectrogram, spectrogram_db
from avkit.teach.samples import Sample, find_data, load_sample

NETWORK = "rtfs-net-tiny"
INDEX = 1  # of the shipped test mixtures
RANGE_DB = 60.0
FRAMES = (8, 18, 28, 38)  # of 50: which pictures of each mouth are shown


def draw(sample: Sample, voices: torch.Tensor, gains: torch.Tensor) -> Figure:
    """The figure. voices: (2, T), what the network returned for each mouth. gains: (2,) SI-SNRi in dB."""
    sounds = [sample.mixture, *voices, *sample.voices]
    mixture, *estimates = (spectrogram_db(sound, 512, 128) for sound in sounds)
    top = max(float(level.max()) for level in (mixture, *estimates))
    limits = (top - RANGE_DB, top)
    fig = Figure(figsize=(11, 4.2), layout="constrained")
    grid = fig.add_gridspec(2, 4, width_ratios=(1.25, 1.0, 1.25, 1.25))
    first = fig.add_subplot(grid[:, 0])
    draw_spectrogram(first, mixture, limits, "the mixture: two talkers at once")
    for row in range(2):
        mouth = fig.add_subplot(grid[row, 1])
        strip = torch.cat([sample.lips[row, frame] for frame in FRAMES], dim=1)
        mouth.imshow(strip.numpy(), cmap="gray", vmin=0, vmax=255)
        mouth.set(title=f"watch mouth {row + 1}", xticks=[], yticks=[])
        heard, true = fig.add_subplot(grid[row, 2]), fig.add_subplot(grid[row, 3])
        draw_spectrogram(heard, estimates[row], limits, f"returned: {gains[row]:+.1f} dB SI-SNR")
        draw_spectrogram(true, estimates[2 + row], limits, f"what talker {row + 1} said")
        for axes in (heard, true):
            axes.set(ylabel="", yticks=[])
            axes.set_xlabel("time (s)" if row else "")
        for start, end in ((first, mouth), (mouth, heard)):
            middle = 0.5 if start is mouth else (0.8, 0.2)[row]
            ends = {"coordsA": "axes fraction", "coordsB": "axes fraction", "axesA": start, "axesB": end}
            fig.add_artist(ConnectionPatch((1.0, middle), (0.0, 0.5), **ends, arrowstyle="->", color="0.3"))
    return fig


def main(path: str) -> None:
    """Separate the mixture, draw it, and write the picture."""
    sample = load_sample(find_data("talkers"), INDEX)
    with torch.no_grad():
        voices = avkit.separate(sample.mixture.expand(2, -1), sample.lips, model=avkit.load_model(NETWORK))[:, 0]
    gains = si_snr_improvement(voices, sample.voices, sample.mixture.expand(2, -1))
    draw(sample, voices, gains).savefig(path, dpi=90, metadata={"Software": None})
    print(f"{path}: {sample.name}, SI-SNRi {gains[0]:.1f} and {gains[1]:.1f} dB")


if __name__ == "__main__":
    main(*sys.argv[1:])
