"""IIANet: intra- and inter-modality attention for audio-visual speech separation (Li, Yang, Sun and Hu, ICML 2024,
arXiv 2308.08143).

Two streams, sound and lips, each run at several time scales. A coarse global feature gates every scale of its own stream
(IntraA); at the top, in the middle and at the bottom the streams meet (InterA-T, -M, -B). What the paper calls attention
is a sigmoid gate here: no query meets a key. Where the paper and its public code depart, this file follows the code
(released weights need it) and says so.

Letters: B batch, L samples, T encoder frames, V lip frames; C and H channels of the sound outside and inside a cycle, D
channels of the lips. Level i of a stream has about T / 2ⁱ (V / 2ⁱ) positions; level q − 1 is the coarsest. Every norm is a
gLN with eps 1e-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from avkit.errors import InputError
from avkit.layers import (
    Compression,
    ConvNormAct,
    DepthwiseConv1d,
    DropPath,
    GlobalLayerNorm,
    InjectionSum,
    PReLU,
    upsample,
)
from avkit.lips import check_lips

Norm = partial(GlobalLayerNorm, eps=1e-8)


@dataclass(frozen=True)
class IIANetConfig:
    """Sizes of an IIANet; the defaults are the published network's. IIANet-fast has `cycles=10`."""

    cycles: int = 16  # N_B, passes through the separation network, with shared weights
    fusion_cycles: int = 4  # the first of them, in which the lips take part; the others hear only
    n_src: int = 1  # voices returned; the published networks return the one whose lips they watch
    filters: int = 9  # learned filters of encoder and decoder
    window: int = 16  # samples per filter, a multiple of 4; they start every window / 4 samples
    channels: int = 128  # C, of the sound between cycles
    hidden: int = 512  # H, of the sound inside a cycle
    levels: int = 5  # q, time scales of either stream
    lip_channels: int = 512  # width of the lip features
    lip_hidden: int = 64  # D, of the lips between and inside cycles
    dropout: float = 0.1  # in InterA-T's perceptron
    drop_path: float = 0.1  # of InterA-T's residual branches

    def __post_init__(self):
        if self.window < 4 or self.window % 4:
            raise InputError(f"window is {self.window}; wanted a multiple of 4 samples")
        if self.levels < 2:
            raise InputError(f"levels is {self.levels}; wanted at least 2, or there is nothing to merge")
        if not 1 <= self.fusion_cycles <= self.cycles:
            raise InputError(
                f"fusion_cycles is {self.fusion_cycles} of {self.cycles} cycles; wanted at least 1, at most all"
            )


# --------------------------------------------------------------------------------------------- encoder and decoder


class AudioEncoder(nn.Module):
    """A learned filter bank: one convolution, its stride a quarter of its window."""

    def __init__(self, config: IIANetConfig):
        super().__init__()
        self.window, self.hop = config.window, config.window // 4
        self.conv = nn.Conv1d(1, config.filters, self.window, self.hop, padding=self.window // 2, bias=False)
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, L) -> s, (B, filters, T)."""
        # Whole windows cover the signal: zeros at its end, then a margin on either side.
        rest = self.window - (self.hop + waveform.shape[-1]) % self.window
        margin = self.window - self.hop
        return self.conv(pad(waveform[:, None], (margin, rest + margin)))


class AudioDecoder(nn.Module):
    """The transposed convolution, and the encoder's margins cut off."""

    def __init__(self, config: IIANetConfig):
        super().__init__()
        self.window, self.hop = config.window, config.window // 4
        half = self.window // 2
        self.conv = nn.ConvTranspose1d(config.filters, 1, self.window, self.hop, padding=half, bias=False)
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, masked: Tensor, length: int) -> Tensor:
        """(B, n_src, filters, T) -> (B, n_src, length)."""
        waveform = self.conv(masked.flatten(0, 1)).view(*masked.shape[:2], -1)
        margin = self.window - self.hop
        return waveform[..., margin : margin + length]


# ------------------------------------------------------------------------------------------------ one stream alone


class BottomUp(nn.Module):
    """A stream seen at q time scales, each half as fine as the one before, and their sum at the coarsest."""

    def __init__(self, channels: int, hidden: int, kernel: int, levels: int, act: nn.Module):
        super().__init__()
        self.projection = ConvNormAct(nn.Conv1d(channels, hidden, 1), Norm(hidden), act)
        self.compression = Compression(hidden, kernel, levels, dims=1, norm=Norm)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, C, T) -> levels [(B, H, T), (B, H, T / 2), …], and the global feature (B, H, T / 2^(q−1))."""
        return self.compression(self.projection(x))


class IntraA(InjectionSum):
    """Intra-modality attention: a coarse feature of the same stream gates and shifts a finer one.

        IntraA(m, n) = W₁(m) · up(σ(W₂(n))) + up(W₃(n))

    Each W is a depthwise convolution without bias, then gLN; `up` is nearest-neighbour. The same block, with a wider
    kernel, merges two neighbouring levels on the way down.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__(channels, kernel, dims=1, norm=Norm)


class TopDown(nn.Module):
    """From the coarsest level to the finest: u = f₍q₋₁₎, then u ← IntraA(fᵢ, u) for i = q−2 … 0."""

    def __init__(self, channels: int, hidden: int, levels: int):
        super().__init__()
        self.merge = nn.ModuleList(IntraA(hidden, kernel=5) for _ in range(levels - 1))
        self.expansion = nn.Conv1d(hidden, channels, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels (B, H, T / 2ⁱ), finest first -> (B, C, T)."""
        return self.expansion(self.merged(levels))

    def merged(self, levels: list[Tensor]) -> Tensor:
        """The same -> u₀ (B, H, T)."""
        u = levels[-1]
        for merge, level in zip(reversed(self.merge), reversed(levels[:-1]), strict=True):
            u = merge(level, u)
        return u


# -------------------------------------------------------------------------------------- where the two streams meet


class AudioPerceptron(nn.Module):
    """What follows the exchange at the top of the sound: a convolution, then a convolutional perceptron, each on a
    residual branch."""

    def __init__(self, channels: int, dropout: float, drop_path: float):
        super().__init__()
        wide = 2 * channels
        self.mix = ConvNormAct(nn.Conv1d(channels, channels, 3, padding=1, bias=False), Norm(channels))
        self.widen = ConvNormAct(nn.Conv1d(channels, wide, 1, bias=False), Norm(wide))
        self.depthwise = DepthwiseConv1d(wide, 5)
        self.narrow = ConvNormAct(nn.Conv1d(wide, channels, 1, bias=False), Norm(channels))
        self.dropout_wide, self.dropout = nn.Dropout(dropout), nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, a: Tensor) -> Tensor:
        """(B, H, T') -> the same shape."""
        a = a + self.drop_path(self.mix(a))
        y = self.dropout_wide(torch.relu(self.depthwise(self.widen(a))))  # (B, 2·H, T')
        return a + self.drop_path(self.dropout(self.narrow(y)))


class VideoPerceptron(nn.Module):
    """What follows the exchange at the top of the lips: two convolutions, each on a residual branch."""

    def __init__(self, channels: int, drop_path: float):
        super().__init__()
        self.first = ConvNormAct(nn.Conv1d(channels, channels, 3, padding=1, bias=False), Norm(channels))
        self.second = ConvNormAct(nn.Conv1d(channels, channels, 3, padding=1, bias=False), Norm(channels))
        self.drop_path = DropPath(drop_path)

    def forward(self, v: Tensor) -> Tensor:
        """(B, D, V') -> the same shape."""
        v = v + self.drop_path(self.first(v))
        return v + self.drop_path(self.second(v))


class InterATop(nn.Module):
    """InterA-T: the global features of sound and lips, each let into the other through a gate of the receiver's.

        a ← a + W_a(v↑ · σ(M_a(a))),   v ← v + W_v(a↓ · σ(M_v(v)))   (from the old a)

    W is a 1×1 convolution with gLN, M a wider one without bias; arrows are nearest-neighbour resampling. A perceptron
    for each stream follows. Where the lips no longer take part, the sound passes its perceptron alone.
    """

    def __init__(self, config: IIANetConfig):
        super().__init__()
        h, d = config.hidden, config.lip_hidden
        self.audio_gate = ConvNormAct(nn.Conv1d(h, d, 3, padding=1, bias=False), Norm(d))
        self.audio_update = ConvNormAct(nn.Conv1d(d, h, 1), Norm(h))
        self.video_gate = ConvNormAct(nn.Conv1d(d, h, 5, padding=2, bias=False), Norm(h))
        self.video_update = ConvNormAct(nn.Conv1d(h, d, 1), Norm(d))
        self.audio_perceptron = AudioPerceptron(h, config.dropout, config.drop_path)
        self.video_perceptron = VideoPerceptron(d, config.drop_path)

    def forward(self, a: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """a (B, H, T'), v (B, D, V') or None -> the same shapes."""
        if v is None:
            return self.audio_perceptron(a), None
        seen, heard = upsample(v, a), upsample(a, v)  # (B, D, T'), (B, H, V')
        a = a + self.audio_update(seen * torch.sigmoid(self.audio_gate(a)))
        v = v + self.video_update(heard * torch.sigmoid(self.video_gate(v)))
        return self.audio_perceptron(a), self.video_perceptron(v)


class InterAMiddle(nn.Module):
    """InterA-M at one level: the lips turn up the sound that they explain, a ← a + σ(up(W(v))) · a."""

    def __init__(self, config: IIANetConfig):
        super().__init__()
        conv = nn.Conv1d(config.lip_hidden, config.hidden, 3, padding=1, bias=False)
        self.gate = ConvNormAct(conv, Norm(config.hidden))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        """a (B, H, Tᵢ), v (B, D, Vᵢ) -> the shape of a."""
        return a + upsample(torch.sigmoid(self.gate(v)), a) * a


class InterABottom(nn.Module):
    """InterA-B, where a later cycle begins: a stream's last output and its first input, weighed channel by channel.
    (In the code it keeps to its own stream.)"""

    def __init__(self, channels: int, act: nn.Module):
        super().__init__()
        self.weigh = ConvNormAct(DepthwiseConv1d(channels, 1), act=act)

    def forward(self, x: Tensor, first: Tensor) -> Tensor:
        """Two tensors (B, C, T) -> the same shape."""
        return self.weigh(x + first)


# ----------------------------------------------------------------------------------------------------- the network


class Separation(nn.Module):
    """The recurrent middle of IIANet: `cycles` passes, one set of weights."""

    def __init__(self, config: IIANetConfig):
        super().__init__()
        self.fusion_cycles, self.audio_cycles = config.fusion_cycles, config.cycles - config.fusion_cycles
        c, h, d, q = config.channels, config.hidden, config.lip_hidden, config.levels
        self.audio_bottom_up = BottomUp(c, h, kernel=5, levels=q, act=PReLU())
        self.video_bottom_up = BottomUp(d, d, kernel=3, levels=q, act=nn.GELU())
        self.inter_top = InterATop(config)
        self.audio_intra = nn.ModuleList(IntraA(h, kernel=1) for _ in range(q))
        self.video_intra = nn.ModuleList(IntraA(d, kernel=1) for _ in range(q))
        self.inter_middle = nn.ModuleList(InterAMiddle(config) for _ in range(q))
        self.audio_top_down = TopDown(c, h, q)
        self.video_top_down = TopDown(d, d, q)
        self.audio_inter_bottom = InterABottom(c, PReLU())
        self.video_inter_bottom = InterABottom(d, nn.ReLU())

    def fusion_cycle(self, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams up, together at the top and in the middle, and down: a (B, C, T), v (B, D, V)."""
        a_levels, a_global = self.audio_bottom_up(a)
        v_levels, v_global = self.video_bottom_up(v)
        a_global, v_global = self.inter_top(a_global, v_global)
        a_levels = self.attend_audio(a_levels, a_global)
        v_levels = [intra(level, v_global) for intra, level in zip(self.video_intra, v_levels, strict=True)]
        a_levels = [inter(*pair) for inter, *pair in zip(self.inter_middle, a_levels, v_levels, strict=True)]
        return self.audio_top_down(a_levels) + a, self.video_top_down(v_levels) + v

    def audio_cycle(self, a: Tensor) -> Tensor:
        """The sound alone: (B, C, T) -> the same shape."""
        levels, top = self.audio_bottom_up(a)
        top, _ = self.inter_top(top, None)
        return self.audio_top_down(self.attend_audio(levels, top)) + a

    def attend_audio(self, levels: list[Tensor], top: Tensor) -> list[Tensor]:
        """IntraA at every level. In the sound the global feature is resampled before its convolutions and norms, in
        the lips after them: with norms over all positions that makes a difference."""
        pairs = zip(self.audio_intra, levels, strict=True)
        return [intra(level, upsample(top, level)) for intra, level in pairs]

    def forward(self, a0: Tensor, v0: Tensor) -> Tensor:
        """a₀ (B, C, T), v₀ (B, D, V) -> (B, C, T)."""
        a, v = self.fusion_cycle(a0, v0)
        for _ in range(self.fusion_cycles - 1):
            a, v = self.fusion_cycle(self.audio_inter_bottom(a, a0), self.video_inter_bottom(v, v0))
        for _ in range(self.audio_cycles):
            a = self.audio_cycle(self.audio_inter_bottom(a, a0))
        return a


class IIANet(nn.Module):
    """The whole network: a mask over a learned filter bank.

    s = encoder(mixture);  a₀ = bottleneck(s);  v₀ = lips, narrowed;  output = decoder(s · mask(separation(a₀, v₀)))
    """

    config_class = IIANetConfig
    shortest = 1  # samples; any mixture is long enough

    def __init__(self, config: IIANetConfig = IIANetConfig()):
        super().__init__()
        self.config = config
        self.encoder = AudioEncoder(config)
        self.bottleneck = nn.Sequential(Norm(config.filters), nn.Conv1d(config.filters, config.channels, 1))
        self.lip_projection = nn.Conv1d(config.lip_channels, config.lip_hidden, 3, padding=1)
        self.separation = Separation(config)
        masks = nn.Conv1d(config.channels, config.n_src * config.filters, 1)
        self.mask = nn.Sequential(PReLU(), masks, nn.ReLU())
        self.decoder = AudioDecoder(config)

    def forward(self, mixture: Tensor, lips: Tensor) -> Tensor:
        """Separate the voice whose lips are given.

        Args:
            mixture: (B, L) or (B, 1, L) samples at 16 kHz.
            lips: (B, 512, V) features at 25 per second.

        Returns:
            (B, n_src, L) samples.

        Raises:
            InputError: shapes do not fit each other, or there are no samples or no lips.
        """
        mixture = check_lips(mixture, lips, self.config.lip_channels, self.shortest)
        s = self.encoder(mixture)  # (B, filters, T)
        a = self.separation(self.bottleneck(s), self.lip_projection(lips))  # (B, C, T)
        mask = self.mask(a).unflatten(1, (self.config.n_src, -1))  # (B, n_src, filters, T)
        return self.decoder(mask * s[:, None], mixture.shape[-1])
