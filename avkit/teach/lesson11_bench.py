"""A bench for recipes: a network so small that a whole training takes seconds, on the notebook's real task.

It looks at one frame of the mixture's spectrum and at the lip features of that moment, and returns a mask for that frame. No
frame knows of its neighbours, so it separates poorly; but its loss, its optimiser and its data behave as the large
networks' do, and many whole trainings can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from avkit.data.datasets import feature_path, mix_at_levels
from avkit.data.manifests import Mixture, read_manifest
from avkit.data.reading import as_float, read_audio, read_features, read_mouth
from avkit.layers import upsample
from avkit.lips import LipEncoder, LipTransform
from avkit.metrics import si_snr
from avkit.signal import STFT

N_FFT, HOP = 512, 256
HIGHEST = 5.0  # dB: a pair is mixed at +x and -x


@dataclass(frozen=True)
class Clips:
    """The recordings of a split, and which of them its list mixes."""

    audio: Tensor  # (N, T)
    lips: Tensor  # (N, 512, F)
    talkers: list[str]
    pairs: Tensor  # (M, 2) clips as the list mixes them
    sources: Tensor  # (M, 2, T) at the levels of the list


def read_clips(root: str, split: str, encoder: LipEncoder, stored: str = "lips") -> Clips:
    """Every clip of a split once, with its lip features (the centre crop's), those under features/`stored` where there are any."""
    mixtures = read_manifest(root, split)
    clips = {source.utterance: source for mixture in mixtures for source in mixture.sources}
    rows = {utterance: row for row, utterance in enumerate(clips)}
    transform, features = LipTransform(), []
    for source in clips.values():
        path = feature_path(root, stored, source.utterance)
        if path.is_file():
            features.append(torch.from_numpy(read_features(path)[0].astype("float32").T))
            continue
        with torch.no_grad():
            features.append(encoder(transform(torch.from_numpy(read_mouth(source.mouth)))[None])[0])
    return Clips(
        torch.stack([_audio(source.audio) for source in clips.values()]),
        torch.stack(features),
        [source.talker for source in clips.values()],
        torch.tensor([[rows[source.utterance] for source in mixture.sources] for mixture in mixtures]),
        torch.stack([_sources(mixture) for mixture in mixtures]),
    )


def first_mixtures(clips: Clips, count: int) -> Clips:
    """The first mixtures of a list, and the recordings that stand in them."""
    pairs = clips.pairs[:count]
    kept = pairs.unique()  # sorted
    return replace(
        clips,
        audio=clips.audio[kept],
        lips=clips.lips[kept],
        talkers=[clips.talkers[row] for row in kept.tolist()],
        pairs=torch.searchsorted(kept, pairs),
        sources=clips.sources[:count],
    )


def _audio(path) -> Tensor:
    return torch.from_numpy(as_float(read_audio(path)))


def _sources(mixture: Mixture) -> Tensor:
    return torch.stack([_audio(source.audio) for source in mixture.sources])


@dataclass(frozen=True)
class Items:
    """Items of a batch, ready for the bench: mixture and target as (B, T, F) magnitudes, lip features (B, T, 512)."""

    mixture: Tensor
    target: Tensor
    lips: Tensor


def _items(sources: Tensor, lips: Tensor) -> Items:
    """sources (B, 2, T), the first one wanted; lips (B, 512, F) of the first one."""
    stft = STFT(N_FFT, HOP)
    mixture, target = (stft(sound).norm(dim=1) for sound in (sources.sum(1), sources[:, 0]))
    return Items(mixture, target, upsample(lips, mixture[:, None, :, 0]).transpose(1, 2))


def fixed_items(clips: Clips, rows: Tensor) -> Items:
    """The list's own mixtures; row 2·m + k asks for voice k of mixture m."""
    mixture, wanted = rows // 2, rows % 2
    order = torch.stack([wanted, 1 - wanted], dim=1)
    sources = clips.sources[mixture].gather(1, order[..., None].expand(-1, -1, clips.audio.shape[1]))
    return _items(sources, clips.lips[clips.pairs[mixture, wanted]])


def dynamic_items(clips: Clips, count: int, draw: torch.Generator) -> Items:
    """New mixtures: any two clips of different talkers, at levels drawn anew."""
    chosen = []
    while len(chosen) < count:
        one, other = torch.randint(len(clips.talkers), (2,), generator=draw).tolist()
        if clips.talkers[one] != clips.talkers[other]:
            chosen.append((one, other))
    rows = torch.tensor(chosen)
    level = HIGHEST * (2 * torch.rand(count, generator=draw) - 1)
    _, sources = mix_at_levels(clips.audio[rows], torch.stack([level, -level], dim=1))
    return _items(sources, clips.lips[rows[:, 0]])


class FrameNetwork(nn.Module):
    """(B, T, F) magnitudes and (B, T, 512) lip features -> mask (B, T, F), each frame on its own."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.sound, self.lips = nn.Linear(N_FFT // 2 + 1, width), nn.Linear(512, width)
        self.norm = nn.LayerNorm(512)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, N_FFT // 2 + 1))

    def forward(self, mixture: Tensor, lips: Tensor) -> Tensor:
        level = mixture.mean(dim=(1, 2), keepdim=True).clamp_min(1e-8)
        sound = torch.log1p(10 * mixture / level)
        return self.rest(self.sound(sound) + self.lips(self.norm(lips))).sigmoid()


def loss_of(network: nn.Module, items: Items) -> Tensor:
    """Energy of what the mask leaves wrong over that of the target, in dB, mean over the batch: lower is better."""
    wrong = network(items.mixture, items.lips) * items.mixture - items.target
    return 10 * (wrong.square().sum((1, 2)) / items.target.square().sum((1, 2))).log10().mean()


@torch.no_grad()
def validate(network: nn.Module, clips: Clips) -> float:
    """SI-SNRi in dB over all mixtures and talkers of a split, with the mixture's angles."""
    rows = torch.arange(2 * len(clips.pairs))
    items, mixture, stft = fixed_items(clips, rows), clips.sources.sum(1)[rows // 2], STFT(N_FFT, HOP)
    masked = network(items.mixture, items.lips)[:, None] * stft(mixture)
    voices = stft.inverse(masked, mixture.shape[1])
    target = clips.sources[rows // 2, rows % 2]
    return float((si_snr(voices, target) - si_snr(mixture, target)).mean())


@dataclass(frozen=True)
class Recipe:
    """How the bench is trained."""

    mixing: str = "dynamic"  # or "fixed"
    top: float = 2e-3  # the highest learning rate
    rate: Callable[[int, int], float] = lambda step, steps: 1.0  # share of it at a step
    clip: float | None = 5.0
    accident: tuple[int, float] | None = None  # at this step, the gradient comes so many times too long
    optimizer: str = "adamw"
    batch: int = 4


@dataclass
class Course:
    """How a training went: loss (dB) and learning rate at each step; and now and then the SI-SNRi (dB) on other voices."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    validated: list[tuple[int, float]] = field(default_factory=list)


def learn(
    recipe: Recipe, train: Clips, other: Clips | None, steps: int, seed: int = 0, looks: int = 4
) -> tuple[FrameNetwork, Course]:
    """A whole training from random weights. looks: validations on `other`, evenly spread."""
    torch.manual_seed(seed)
    network, draw, course = FrameNetwork(), torch.Generator().manual_seed(seed), Course()
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[recipe.optimizer]
    optimiser = kind(network.parameters(), lr=recipe.top)
    with torch.enable_grad():
        for step in range(steps):
            if recipe.mixing == "fixed":
                rows = torch.randint(2 * len(train.pairs), (recipe.batch,), generator=draw)
                items = fixed_items(train, rows)
            else:
                items = dynamic_items(train, recipe.batch, draw)
            loss = loss_of(network, items)
            optimiser.zero_grad()
            loss.backward()
            course.losses.append(float(loss.detach()))
            if recipe.accident and step == recipe.accident[0]:
                for parameter in network.parameters():
                    parameter.grad.mul_(recipe.accident[1])
            limit = float("inf") if recipe.clip is None else recipe.clip
            course.norms.append(float(nn.utils.clip_grad_norm_(network.parameters(), limit)))
            optimiser.param_groups[0]["lr"] = recipe.top * recipe.rate(step, steps)
            optimiser.step()
            if other is not None and (step + 1) % max(1, steps // looks) == 0:
                course.validated.append((step + 1, validate(network, other)))
    return network, course


def compare(
    recipes: dict[str, Recipe], train: Clips, other: Clips | None, steps: int, seeds: Sequence[int], looks: int = 4
) -> dict[str, list[Course]]:
    """Every recipe with every seed: name -> courses."""
    return {
        name: [learn(recipe, train, other, steps, seed, looks)[1] for seed in seeds] for name, recipe in recipes.items()
    }
