"""RTFS-Net: recurrent time–frequency separation guided by lips (Pegg, Li and Hu, ICLR 2024, arXiv 2309.17189).

Read it from the top: the blocks stand in the order in which a mixture meets them, `RTFSNet.forward` at the end puts
them together. Letters as in the paper: B batch, C channels, D channels inside a block, T frames, F frequencies,
V lip frames, q levels of compression, R repeats. Where the authors' public code departs from the paper, this file
follows the code (their weights need it) and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avkit.layers import (
    ChannelScale,
    Compression,
    ConvActNorm,
    ConvNormAct,
    DepthwiseConv1d,
    DropPath,
    GlobalLayerNorm,
    LayerNorm4D,
    PReLU,
    Reconstruction,
    upsample,
)
from avkit.lips import check_lips
from avkit.signal import STFT
from avkit.sru import SRU


@dataclass(frozen=True)
class RTFSNetConfig:
    """Sizes of an RTFS-Net; the defaults are RTFS-Net-4's. The 6- and 12-block networks differ in `repeats` alone."""

    repeats: int = 4  # R, audio RTFS blocks with shared weights
    n_src: int = 1  # voices returned; the published networks return the one whose lips they watch
    n_fft: int = 256  # samples of the STFT's window
    hop: int = 128  # samples between frames
    channels: int = 256  # C, of encoder, fusion and mask
    hidden: int = 64  # D, inside the audio block
    levels: int = 2  # q, levels of compression in the audio block
    window: int = 8  # positions unfolded together before the recurrence
    rnn_hidden: int = 32  # SRU features per direction
    rnn_layers: int = 4
    attention_heads: int = 4
    attention_dim: int = 4  # E, channels of queries and keys per head
    lip_channels: int = 512  # width of the lip features
    lip_hidden: int = 64  # D, inside the visual block
    lip_levels: int = 4  # q, in the visual block
    lip_heads: int = 8
    lip_dropout: float = 0.1  # dropout and drop-path in the visual block's transformer layer
    fusion_heads: int = 4  # h, of CAF


# ---------------------------------------------------------------------------------------------- encoder, section 3.1


class AudioEncoder(nn.Module):
    """STFT, then a 3×3 convolution from (real, imaginary) to C channels (section 3.1)."""

    def __init__(self, config: RTFSNetConfig):
        super().__init__()
        self.stft = STFT(config.n_fft, config.hop)
        self.conv = nn.Conv2d(2, config.channels, 3, padding=1, bias=False)
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, L) -> E, (B, C, T, F)."""
        return self.conv(self.stft(waveform))


class Bottleneck(nn.Module):
    """gLN, ReLU, 1×1 convolution. (In the code only; the paper has none.)"""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = GlobalLayerNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, encoded: Tensor) -> Tensor:
        """(B, C, T, F) -> a₀, the same shape."""
        return self.conv(torch.relu(self.norm(encoded)))


# ---------------------------------------------------------------------------------------- RTFS block, section 3.2


class DualPathScan(nn.Module):
    """An SRU along one axis, the other folded into the batch, with a residual (section 3.2.2).

    Windows of `window` positions are unfolded with stride 1, so that the recurrence sees a neighbourhood at each step;
    a transposed convolution brings the N − window + 1 steps back to N positions.

    Args:
        axis: 3 scans frequency, 2 scans time.
    """

    def __init__(self, channels: int, axis: int, window: int, rnn_hidden: int, rnn_layers: int):
        super().__init__()
        self.axis, self.window = axis, window
        self.norm = LayerNorm4D((1, channels, 1, 1))
        self.rnn = SRU(channels * window, rnn_hidden, rnn_layers, bidirectional=True)
        self.fold = nn.ConvTranspose1d(2 * rnn_hidden, channels, window)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T, F) -> the same shape. The scanned axis has at least `window` positions."""
        y = self.norm(x).movedim(self.axis, 3)  # (B, D, other, N)
        batch, channels, other, _ = y.shape
        y = y.transpose(1, 2).flatten(0, 1)  # (B·other, D, N)
        y = y.unfold(2, self.window, 1)  # (B·other, D, N − window + 1, window)
        y = y.permute(2, 0, 1, 3).flatten(2)  # (N − window + 1, B·other, D·window)
        y = self.rnn(y)  # (N − window + 1, B·other, 2·rnn_hidden)
        y = self.fold(y.permute(1, 2, 0))  # (B·other, D, N)
        y = y.view(batch, other, channels, -1).transpose(1, 2).movedim(3, self.axis)
        return y + x


class TFAttention(nn.Module):
    """Self-attention over time in which every frame is one token of all its channels and frequencies
    (section 3.2.2; Wang et al. 2023, TF-GridNet).

    Args:
        n_freqs: F of the input, fixed by the norms' gains.
        dim: E, channels of queries and keys per head.
    """

    def __init__(self, channels: int, n_freqs: int, heads: int, dim: int):
        super().__init__()

        def embed(width: int) -> ConvActNorm:
            return ConvActNorm(nn.Conv2d(channels, width, 1), PReLU(), LayerNorm4D((1, width, 1, n_freqs)))

        self.queries = nn.ModuleList(embed(dim) for _ in range(heads))
        self.keys = nn.ModuleList(embed(dim) for _ in range(heads))
        self.values = nn.ModuleList(embed(channels // heads) for _ in range(heads))
        self.output = embed(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T, F) -> the same shape."""
        heads = []
        for query, key, value in zip(self.queries, self.keys, self.values, strict=True):
            q = query(x).transpose(1, 2).flatten(2)  # (B, T, E·F)
            k = key(x).transpose(1, 2).flatten(2)  # (B, T, E·F)
            v = value(x).transpose(1, 2)  # (B, T, D / heads, F)
            attention = torch.softmax(q @ k.transpose(1, 2) / q.shape[2] ** 0.5, dim=2)  # (B, T, T)
            heads.append((attention @ v.flatten(2)).view_as(v).transpose(1, 2))
        return self.output(torch.cat(heads, dim=1)) + x


class RTFSBlock(nn.Module):
    """Compress, scan frequency, scan time, attend, reconstruct (section 3.2).

    The gateway before the projection, and the projection's norm and activation, are in the code only.
    """

    def __init__(self, config: RTFSNetConfig):
        super().__init__()
        c, d = config.channels, config.hidden
        self.gateway = ConvNormAct(ChannelScale(c), act=PReLU())
        self.projection = ConvNormAct(nn.Conv2d(c, d, 1), GlobalLayerNorm(d), PReLU())
        self.compression = Compression(d, kernel=4, levels=config.levels, dims=2, norm=GlobalLayerNorm)
        scan = (config.window, config.rnn_hidden, config.rnn_layers)
        self.scan_frequency = DualPathScan(d, 3, *scan)
        self.scan_time = DualPathScan(d, 2, *scan)
        n_freqs = compressed_size(config.n_fft // 2 + 1, config.levels)
        self.attention = TFAttention(d, n_freqs, config.attention_heads, config.attention_dim)
        self.reconstruction = Reconstruction(d, kernel=4, levels=config.levels, dims=2, norm=GlobalLayerNorm)
        self.expansion = nn.Conv2d(d, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, F) -> the same shape."""
        residual = self.gateway(x)  # (B, C, T, F)
        y = self.projection(residual)  # (B, D, T, F)
        levels, g = self.compression(y)  # G: (B, D, T / 2^(q−1), F / 2^(q−1))
        g = self.scan_frequency(g)
        g = self.scan_time(g)
        g = self.attention(g)
        u = self.reconstruction(levels, g)  # (B, D, T, F)
        return self.expansion(u) + residual


def compressed_size(size: int, levels: int) -> int:
    """Positions left of `size` at the coarsest of q levels: every level after the first halves, rounding down."""
    for _ in range(levels - 1):
        size = size // 2
    return size


# -------------------------------------------------------------------------------------- visual block, section 3.3


def sinusoid(length: int, channels: int, like: Tensor) -> Tensor:
    """The positional table of Vaswani et al. 2017, (length, channels): even channels sine, odd ones cosine."""
    position = torch.arange(length, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2, device=like.device) * (-torch.log(torch.tensor(1e4)) / channels))
    angle = position * rate
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1).to(like.dtype)


class SelfAttention(nn.Module):
    """LayerNorm, sinusoid, multi-head self-attention over lip frames, LayerNorm, residual."""

    def __init__(self, channels: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm_in = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.norm_out = nn.LayerNorm(channels)
        self.dropout_attention = nn.Dropout(dropout)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, V) -> the same shape."""
        y = self.norm_in(x.transpose(1, 2))  # (B, V, D)
        y = y + sinusoid(y.shape[1], y.shape[2], y)
        q, k, v = self.qkv(y).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, V, D / heads)
        attention = torch.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=3)  # (B, heads, V, V)
        attended = (self.dropout_attention(attention) @ v).transpose(1, 2).flatten(2)  # (B, V, D)
        y = self.norm_out(y + self.dropout(self.output(attended)))
        return x + self.drop_path(y.transpose(1, 2))


class FeedForward(nn.Module):
    """1×1 convolution to twice the width, depthwise convolution, ReLU, 1×1 convolution back, residual."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        wide = 2 * channels
        self.widen = ConvNormAct(nn.Conv1d(channels, wide, 1, bias=False), GlobalLayerNorm(wide))
        self.depthwise = DepthwiseConv1d(wide, 3)
        self.narrow = ConvNormAct(nn.Conv1d(wide, channels, 1, bias=False), GlobalLayerNorm(channels))
        self.drop_middle = DropPath(dropout)
        self.drop_narrow = DropPath(dropout)
        self.drop_path = DropPath(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, V) -> the same shape."""
        y = self.drop_middle(torch.relu(self.depthwise(self.widen(x))))
        return x + self.drop_path(self.drop_narrow(self.narrow(y)))


class VisualBlock(nn.Module):
    """The RTFS block's plan along one axis: compress, attend over lip frames, reconstruct (section 3.3)."""

    def __init__(self, config: RTFSNetConfig):
        super().__init__()
        c, d, q = config.lip_channels, config.lip_hidden, config.lip_levels
        self.gateway = ConvNormAct(DepthwiseConv1d(c, 1), act=PReLU())
        self.projection = ConvNormAct(nn.Conv1d(c, d, 1), nn.BatchNorm1d(d), PReLU())
        self.compression = Compression(d, kernel=3, levels=q, dims=1, norm=nn.BatchNorm1d)
        self.attention = SelfAttention(d, config.lip_heads, config.lip_dropout)
        self.feed_forward = FeedForward(d, config.lip_dropout)
        self.reconstruction = Reconstruction(d, kernel=3, levels=q, dims=1, norm=nn.BatchNorm1d)
        self.expansion = nn.Conv1d(d, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 512, V) -> the same shape."""
        residual = self.gateway(x)
        levels, g = self.compression(self.projection(residual))  # G: (B, D, V / 8)
        g = self.feed_forward(self.attention(g))
        return self.expansion(self.reconstruction(levels, g)) + residual


# ------------------------------------------------------------------------------------------------ CAF, section 3.4


class CAF(nn.Module):
    """Cross-dimensional attention fusion: lips weigh and gate every audio channel over time (section 3.4).

    Attention path: h heads of weights per channel, averaged, softmax over lip frames, times the audio values.
    Gated path: the lips, resized to C channels, times the rectified audio keys. The sum of both leaves.
    The paper normalises the audio paths by gLN; the code, and so this file, by batch norm.
    """

    def __init__(self, channels: int, lip_channels: int, heads: int):
        super().__init__()
        self.heads = heads

        def audio(act: nn.Module | None) -> ConvNormAct:
            return ConvNormAct(ChannelScale(channels, bias=False), nn.BatchNorm2d(channels), act)

        def lips(width: int) -> ConvNormAct:
            return ConvNormAct(nn.Conv1d(lip_channels, width, 1, groups=channels), GlobalLayerNorm(width))

        self.value = audio(act=None)
        self.key = audio(act=nn.ReLU())
        self.lip_attention = lips(heads * channels)
        self.lip_gate = lips(channels)

    def attention_weights(self, v: Tensor) -> Tensor:
        """(B, 512, V) -> (B, C, V): per channel, how much of the audio values each lip frame lets in; sums to 1."""
        return self.lip_attention(v).unflatten(1, (-1, self.heads)).mean(dim=2).softmax(dim=-1)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        """a (B, C, T, F), v (B, 512, V) -> (B, C, T, F)."""
        frames = a[..., 0]  # (B, C, T): the positions that lip features are resampled to
        attention = upsample(self.attention_weights(v), frames)[..., None]  # (B, C, T, 1)
        gate = upsample(self.lip_gate(v), frames)[..., None]  # (B, C, T, 1)
        return attention * self.value(a) + gate * self.key(a)


# ------------------------------------------------------------------------------------------------- S³, section 3.5


class S3(nn.Module):
    """Spectral source separation: a mask multiplied as a complex number (section 3.5).

    Mask and encoding are split in halves of channels, real and imaginary: zʳ = eʳ·mʳ − eⁱ·mⁱ, zⁱ = eʳ·mⁱ + eⁱ·mʳ.
    The mask leaves a ReLU, so both its parts are ≥ 0.
    """

    def __init__(self, channels: int, n_src: int):
        super().__init__()
        self.act = PReLU()
        self.conv = nn.Conv2d(channels, n_src * channels, 1)

    def mask(self, a: Tensor) -> Tensor:
        """(B, C, T, F) -> (B, n_src, 2, C / 2, T, F), real and imaginary part along the third axis."""
        return torch.relu(self.conv(self.act(a))).unflatten(1, (-1, 2, a.shape[1] // 2))

    def forward(self, a: Tensor, encoded: Tensor) -> Tensor:
        """Features (B, C, T, F) and the encoder's output E of the same shape -> z, (B, n_src, C, T, F)."""
        real_m, imag_m = self.mask(a).unbind(2)  # (B, n_src, C / 2, T, F)
        real_e, imag_e = encoded[:, None].chunk(2, dim=2)  # (B, 1, C / 2, T, F)
        real = real_e * real_m - imag_e * imag_m
        imag = real_e * imag_m + imag_e * real_m
        return torch.cat((real, imag), dim=2)


class AudioDecoder(nn.Module):
    """A 3×3 transposed convolution to (real, imaginary), then the inverse STFT (section 3.5)."""

    def __init__(self, config: RTFSNetConfig):
        super().__init__()
        self.stft = STFT(config.n_fft, config.hop)
        self.conv = nn.ConvTranspose2d(config.channels, 2, 3, padding=1, bias=False)
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, z: Tensor, length: int) -> Tensor:
        """(B, n_src, C, T, F) -> (B, n_src, length)."""
        batch, n_src = z.shape[:2]
        waveform = self.stft.inverse(self.conv(z.flatten(0, 1)), length)
        return waveform.view(batch, n_src, length)


# ----------------------------------------------------------------------------------------------------- the network


class RTFSNet(nn.Module):
    """RTFS-Net (section 3, figure 1).

        E = encoder(mixture);  a₀ = bottleneck(E);  v = VP(lips)
        a = CAF(RTFS(a₀), v);  R − 1 times a = RTFS(a + a₀), one set of weights;  output = decoder(S³(a, E))
    """

    config_class = RTFSNetConfig

    def __init__(self, config: RTFSNetConfig = RTFSNetConfig()):
        super().__init__()
        self.config = config
        self.encoder = AudioEncoder(config)
        self.bottleneck = Bottleneck(config.channels)
        self.rtfs_block = RTFSBlock(config)
        self.visual_block = VisualBlock(config)
        self.caf = CAF(config.channels, config.lip_channels, config.fusion_heads)
        self.s3 = S3(config.channels, config.n_src)
        self.decoder = AudioDecoder(config)

    @property
    def shortest(self) -> int:
        """The shortest mixture in samples: after compression the time scan needs a whole window of frames."""
        frames = self.config.window * 2 ** (self.config.levels - 1)
        return max((frames - 1) * self.config.hop, self.config.n_fft // 2 + 1)

    def separate_features(self, a0: Tensor, lips: Tensor) -> Tensor:
        """a₀ (B, C, T, F) and lips (B, 512, V) -> the features that S³ turns into a mask, (B, C, T, F)."""
        v = self.visual_block(lips)
        a = self.caf(self.rtfs_block(a0), v)
        for _ in range(self.config.repeats - 1):
            a = self.rtfs_block(a + a0)
        return a

    def forward(self, mixture: Tensor, lips: Tensor) -> Tensor:
        """Separate the voice whose lips are given.

        Args:
            mixture: (B, L) or (B, 1, L) samples at 16 kHz.
            lips: (B, 512, V) features at 25 per second.

        Returns:
            (B, n_src, L) samples.

        Raises:
            InputError: shapes do not fit each other, or the mixture is shorter than `shortest`.
        """
        mixture = check_lips(mixture, lips, self.config.lip_channels, self.shortest)
        encoded = self.encoder(mixture)  # (B, C, T, F)
        a = self.separate_features(self.bottleneck(encoded), lips)
        return self.decoder(self.s3(a, encoded), mixture.shape[-1])
