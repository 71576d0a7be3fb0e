"""One voice from a long recording and a person's mouth crops, with one chunk in memory at a time.

The same chunks and cross-fades as `avkit.separate`; samples are handed on as soon as they are final.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from avkit.lips import LipTransform
from avkit.separation import LIP_CONTEXT, Chunk, plan_chunks
from avkit.signal import SAMPLES_PER_FRAME


def stream_voice(
    network: nn.Module, mixture: np.ndarray, crops: np.ndarray, gain: float = 1.0, begun: int = 0
) -> Iterator[tuple[np.ndarray, int]]:
    """The voice, piece after piece.

    Args:
        network: with `.lips`, one voice per set of lips.
        mixture: (T,) float32 at 16 kHz; may be memory-mapped.
        crops: (F, 96, 96) uint8 at 25 per second; may be memory-mapped.
        gain: what the mixture is multiplied by for the network; the voice is divided by it again.
        begun: samples that an earlier, stopped run has given already: a value that this generator gave as position.

    Yields:
        (n,) float32 samples, and the position reached: the number of samples of the voice that are final.
    """
    chunks = plan_chunks(len(mixture))
    first = next(i for i in range(len(chunks)) if _final(chunks, i) > begun)
    position, tail = begun, None
    for index in range(max(0, first - 2), len(chunks)):  # two chunks again, for what the next ones fade from
        chunk = chunks[index]
        voice = _voice(network, mixture, crops, chunk, gain)
        if tail is not None:
            rise = torch.linspace(0, torch.pi, chunk.fade + 2)[1:-1]
            rise = (1 - rise.cos()) / 2
            voice[: chunk.fade] = rise * voice[: chunk.fade] + (1 - rise) * tail
        stop = _final(chunks, index)
        if index >= first:
            yield voice[position - chunk.start : stop - chunk.start].numpy() / gain, stop
            position = stop
        if index + 1 < len(chunks):
            following = chunks[index + 1]
            tail = voice[following.start - chunk.start :][: following.fade].clone()


def _final(chunks: list[Chunk], index: int) -> int:
    """Samples of the voice that no later chunk changes once chunk `index` is done."""
    return chunks[index + 1].start if index + 1 < len(chunks) else chunks[index].stop


@torch.no_grad()
def _voice(network: nn.Module, mixture: np.ndarray, crops: np.ndarray, chunk: Chunk, gain: float) -> Tensor:
    """(samples,) of one chunk, before any cross-fade."""
    parameter = next(network.parameters())
    start = chunk.start // SAMPLES_PER_FRAME
    stop = min(len(crops), max(start + 1, round(chunk.stop / SAMPLES_PER_FRAME)))
    left = min(LIP_CONTEXT, start)
    frames = torch.from_numpy(np.array(crops[start - left : stop + LIP_CONTEXT]))[None]
    network.lips.to(parameter)
    features = network.lips(LipTransform()(frames).to(parameter))[:, :, left : left + stop - start]
    piece = torch.from_numpy(np.array(mixture[chunk.start : chunk.stop], np.float32))[None] * gain
    return network(piece.to(parameter), features)[0, 0].float().cpu()
