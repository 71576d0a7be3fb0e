"""Separation of recordings of any length: chunks that overlap, each given to the network whole, added up smoothly.

A mixture no longer than one chunk is exactly one call of the network. Longer ones cost memory for one chunk at a time,
besides the result itself. Chunks start on lip frames, so sound and lips are cut at the same instants.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from avkit.data.reading import SLACK, read_mouth
from avkit.errors import DataError, InputError
from avkit.signal import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, resample

LIP_CONTEXT = 2  # frames on either side that the lip encoder's 3-D convolution sees

log = logging.getLogger("avkit")


@dataclass(frozen=True)
class Chunk:
    """Samples [start, stop) of the mixture, of which the first `fade` cross-fade with the chunk before."""

    start: int
    stop: int
    fade: int


def plan_chunks(samples: int, chunk_seconds: float = 4.0, overlap_seconds: float = 1.0) -> list[Chunk]:
    """Cut `samples` into overlapping chunks on frame boundaries.

    The last chunk is as long as the others and starts earlier instead: a network trained on whole clips never meets a
    stub. Up to one chunk there is a single one without a fade.

    Raises:
        InputError: chunk and overlap make no sense together.
    """
    length = round(chunk_seconds * FRAME_RATE) * SAMPLES_PER_FRAME
    overlap = round(overlap_seconds * FRAME_RATE) * SAMPLES_PER_FRAME
    if not 0 < overlap <= length // 2:
        raise InputError(
            f"chunks of {chunk_seconds} s with an overlap of {overlap_seconds} s: wanted an overlap of at least one "
            f"lip frame (0.04 s) and at most half a chunk"
        )
    if samples <= length:
        return [Chunk(0, samples, 0)]
    chunks = [Chunk(0, length, 0)]
    while chunks[-1].stop < samples:
        start = chunks[-1].stop - overlap
        if start + length > samples:  # on a frame boundary, so that at most one frame's worth reaches past the end
            frames_over = (start + length - samples) // SAMPLES_PER_FRAME
            start -= frames_over * SAMPLES_PER_FRAME
        chunks.append(Chunk(start, min(start + length, samples), overlap))
    return chunks


def separate(
    mixture: Tensor,
    lips: Tensor,
    model: nn.Module | str = "rtfs-net-tiny",
    sample_rate: int = SAMPLE_RATE,
    chunk_seconds: float = 4.0,
    overlap_seconds: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The voice of the talker whose lips are given.

    Args:
        mixture: (T,), (B, T) or (B, 1, T) float samples. Two dimensions are a batch, never stereo.
        lips: (B, 512, F) float features, or (B, F, 96, 96) uint8 mouth crops, at 25 per second; without the batch axis
            too where the mixture has none. Up to 0.2 s too short or too long is padded or trimmed.
        model: a network, or a name for `avkit.load_model`.
        sample_rate: of the mixture, in Hz; another than 16000 is resampled, and the result brought back to it.
        chunk_seconds, overlap_seconds: see `plan_chunks`.
        progress: called with (chunks done, chunks in all).

    Returns:
        (B, n_src, T) samples at `sample_rate`, on the mixture's device, at the level the network gives them.

    Raises:
        InputError: shapes, types, lengths or values that cannot be separated; the message says which.
    """
    network = _named_model(model) if isinstance(model, (str, os.PathLike)) else model
    mixture, lips = _checked(mixture, lips, sample_rate)
    given_length, given_device = mixture.shape[-1], mixture.device
    if sample_rate != SAMPLE_RATE:
        log.info("resampled from %d to %d Hz, and the result back", sample_rate, SAMPLE_RATE)
        mixture = resample(mixture, sample_rate, SAMPLE_RATE)
    lips = _fit_lips(lips, mixture.shape[-1])
    chunks = plan_chunks(mixture.shape[-1], chunk_seconds, overlap_seconds)

    was_training = network.training
    network.eval()
    try:
        output = _overlap_add(network, mixture, lips, chunks, progress)
    finally:
        network.train(was_training)
    if sample_rate != SAMPLE_RATE:
        output = resample(output, SAMPLE_RATE, sample_rate)
        output = pad(output, (0, given_length - output.shape[-1]))
    return output.to(given_device)


@functools.lru_cache(maxsize=2)
def _named_model(name: str) -> nn.Module:
    from avkit.checkpoints import load_model

    return load_model(name)


def _checked(mixture: Tensor, lips: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Mixture as (B, T) float32 or float64 and lips with a batch axis; or an InputError that says why not."""
    mixture, lips = torch.as_tensor(mixture), torch.as_tensor(lips)
    if not mixture.is_floating_point():
        raise InputError(
            f"the mixture holds {mixture.dtype}; wanted float samples, usually within ±1: "
            "divide 16-bit integers by 32768"
        )
    if mixture.dtype not in (torch.float32, torch.float64):
        mixture = mixture.float()
    if int(sample_rate) != sample_rate or not 1000 <= sample_rate <= 384_000:
        raise InputError(f"sample_rate is {sample_rate}; wanted a whole number of hertz from 1000 to 384000")
    batched = mixture.dim() > 1
    if mixture.dim() == 3 and mixture.shape[1] == 1:
        mixture = mixture[:, 0]
    elif mixture.dim() == 1:
        mixture = mixture[None]
    if mixture.dim() != 2:
        raise InputError(
            f"the mixture has shape {tuple(mixture.shape)}; wanted (T,), (B, T) or (B, 1, T): "
            "mix channels down to one first"
        )
    if mixture.shape[0] == 0 or mixture.shape[1] == 0:
        raise InputError(f"the mixture is empty: its shape is {tuple(mixture.shape)}")
    if not mixture.isfinite().all():
        raise InputError("the mixture holds NaN or infinite samples; wanted finite ones")
    kind = "frames" if lips.dtype == torch.uint8 else "features"
    if not batched and lips.dim() == (3 if kind == "frames" else 2):
        lips = lips[None]
    if kind == "frames":
        if lips.dim() != 4 or lips.shape[2:] != (96, 96):
            raise InputError(f"lips are frames of shape {tuple(lips.shape)}; wanted (B, F, 96, 96) uint8")
    elif not lips.is_floating_point():
        raise InputError(f"lips hold {lips.dtype}; wanted uint8 frames or float features")
    elif lips.dim() == 4:
        raise InputError(
            "lips are float frames; give the uint8 crops instead (their scale is then known), or features (B, 512, F)"
        )
    elif lips.dim() != 3:
        raise InputError(f"lips have shape {tuple(lips.shape)}; wanted (B, 512, F) features or (B, F, 96, 96) frames")
    elif not lips.isfinite().all():
        raise InputError("the lip features hold NaN or infinite values; wanted finite ones")
    if lips.shape[0] != mixture.shape[0]:
        raise InputError(f"{mixture.shape[0]} mixtures came with {lips.shape[0]} sets of lips; wanted one set each")
    return mixture, lips


def _frame_axis(lips: Tensor) -> int:
    return 1 if lips.dtype == torch.uint8 else 2


def _fit_lips(lips: Tensor, samples: int) -> Tensor:
    """Pad (by repeating the last frame) or trim up to 0.2 s; refuse more."""
    axis = _frame_axis(lips)
    have, wanted = lips.shape[axis], max(1, round(samples / SAMPLES_PER_FRAME))
    if have == 0 or abs(have - wanted) > SLACK:
        raise InputError(
            f"{have} lip frames are {have / FRAME_RATE:.2f} s, the mixture is {samples / SAMPLE_RATE:.2f} s: wanted "
            f"{wanted} frames at 25 per second, give or take {SLACK}"
        )
    if have >= wanted:
        return lips.narrow(axis, 0, wanted)
    last = lips.narrow(axis, have - 1, 1)
    return torch.cat([lips] + [last] * (wanted - have), dim=axis)


@torch.no_grad()
def _overlap_add(
    network: nn.Module,
    mixture: Tensor,
    lips: Tensor,
    chunks: list[Chunk],
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    parameter = next(network.parameters())
    output = None
    for done, chunk in enumerate(chunks, start=1):
        piece = mixture[:, chunk.start : chunk.stop].to(parameter)
        voices = network(piece, _features(network, lips, chunk, parameter)).to(mixture)  # (B, n_src, samples)
        if output is None:
            output = mixture.new_zeros(*voices.shape[:2], mixture.shape[1])
        if chunk.fade:
            before = output[:, :, chunk.start : chunk.start + chunk.fade]
            voices = _same_order(voices, before, chunk.fade)
            rise = torch.linspace(0, torch.pi, chunk.fade + 2, device=voices.device, dtype=voices.dtype)[1:-1]
            rise = (1 - rise.cos()) / 2  # the two weights add up to 1, so a level is kept
            voices[..., : chunk.fade] = rise * voices[..., : chunk.fade] + (1 - rise) * before
        output[:, :, chunk.start : chunk.stop] = voices
        if progress is not None:
            progress(done, len(chunks))
    return output


def _same_order(voices: Tensor, before: Tensor, fade: int) -> Tensor:
    """Order the voices of a network that returns several as in the chunk before, by their overlap's correlation."""
    n_src = voices.shape[1]
    if n_src == 1:
        return voices
    similarity = before @ voices[..., :fade].transpose(1, 2)  # (B, before, now)
    orders = list(itertools.permutations(range(n_src)))
    score = torch.stack([sum(similarity[:, i, j] for i, j in enumerate(order)) for order in orders])
    best = [orders[index] for index in score.argmax(dim=0).tolist()]
    return torch.stack([item[list(order)] for item, order in zip(voices, best, strict=True)])


def _features(network: nn.Module, lips: Tensor, chunk: Chunk, parameter: Tensor) -> Tensor:
    """Lip features of one chunk, (B, 512, frames); frames are encoded with the neighbours that the encoder looks at."""
    axis = _frame_axis(lips)
    start = chunk.start // SAMPLES_PER_FRAME
    stop = min(lips.shape[axis], max(start + 1, round(chunk.stop / SAMPLES_PER_FRAME)))
    if axis == 2:
        return lips[:, :, start:stop].to(parameter)
    encoder = getattr(network, "lips", None)
    if encoder is None:
        raise InputError(
            "this network came without a lip encoder, so it cannot read frames: pass features (B, 512, F), or attach "
            "an encoder with avkit.checkpoints.attach_lips"
        )
    from avkit.lips import LipTransform

    left = min(LIP_CONTEXT, start)
    frames = lips[:, start - left : stop + LIP_CONTEXT].to(parameter.device)
    encoder.to(parameter)
    return encoder(LipTransform()(frames).to(parameter))[:, :, left : left + stop - start]


# ------------------------------------------------------------------------------------------------------------- files


def read_audio(path: str | os.PathLike) -> tuple[Tensor, int]:
    """Any sound file (WAV, FLAC, OGG, MP3; any rate) as (T,) float32 and its sample rate; channels are mixed down with a note.

    Raises:
        DataError: the file is missing, unreadable or empty.
    """
    import soundfile

    if not Path(path).is_file():
        raise DataError(f"there is no file {os.fspath(path)!r}")
    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"cannot read {os.fspath(path)!r} as sound ({error})") from None
    if len(data) == 0:
        raise DataError(f"{os.fspath(path)!r} holds no samples")
    if data.shape[1] > 1:
        log.info("%s: %d channels mixed down to one", os.fspath(path), data.shape[1])
    return torch.from_numpy(data.mean(axis=1)), rate


def write_audio(path: Path, samples: Tensor, sample_rate: int) -> None:
    """Write (T,) samples as 16-bit WAV, or as float WAV where they exceed ±1, so that nothing is clipped."""
    import soundfile

    from avkit.checkpoints import write_atomically

    loud = float(samples.abs().max()) > 1
    if loud:
        log.info("%s: peak above 1, written as 32-bit float", path.name)
    subtype = "FLOAT" if loud else "PCM_16"
    data = samples.cpu().numpy()
    write_atomically(path, lambda name: soundfile.write(name, data, sample_rate, subtype=subtype, format="WAV"))


def main(argv: list[str]) -> int:
    """`avkit separate`: files in, one WAV per set of lips out."""
    parser = argparse.ArgumentParser(
        prog="avkit separate",
        description="Separate the talker whose lips are given from a recording of any length.",
        epilog="example: avkit separate mix.wav mouths/t017_00042.npz --out voices",
    )
    parser.add_argument("mixture", metavar="MIX.wav", help="WAV, FLAC, OGG or MP3; any sample rate, mixed down to mono")
    parser.add_argument("lips", metavar="LIPS.npz", nargs="+", help="mouth crops (F, 96, 96) uint8 under key `data`")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the voices")
    parser.add_argument("--model", default="rtfs-net-tiny", help="bundled name or checkpoint folder (%(default)s)")
    parser.add_argument("--chunk", type=float, default=4.0, help="seconds given to the network at once (%(default)s)")
    parser.add_argument("--overlap", type=float, default=1.0, help="seconds that chunks share (%(default)s)")
    parser.add_argument("--plan", action="store_true", help="print the chunks and stop")
    args = parser.parse_args(argv)

    logging.basicConfig(format="note: %(message)s", level=logging.INFO)
    mixture, rate = read_audio(args.mixture)
    chunks = plan_chunks(round(len(mixture) * SAMPLE_RATE / rate), args.chunk, args.overlap)
    if args.plan:
        for number, chunk in enumerate(chunks, start=1):
            print(f"{number:4d}  {chunk.start / SAMPLE_RATE:9.2f} s … {chunk.stop / SAMPLE_RATE:9.2f} s")
        return 0
    from tqdm.auto import tqdm

    args.out.mkdir(parents=True, exist_ok=True)
    written = []
    for path in args.lips:
        with tqdm(total=1, unit="chunk", desc=Path(path).stem, disable=None) as bar:

            def show(done: int, total: int, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            voice = separate(
                mixture, torch.from_numpy(read_mouth(path))[None], args.model, rate, args.chunk, args.overlap, progress=show
            )[0]
        for source in range(len(voice)):
            suffix = f"_{source + 1}" if len(voice) > 1 else ""
            name = args.out / f"{Path(args.mixture).stem}__{Path(path).stem}{suffix}.wav"
            write_audio(name, voice[source], rate)
            written.append({"lips": str(path), "voice": str(name), "seconds": len(mixture) / rate})
            print(f"wrote {name}")
    record = {
        "mixture": str(args.mixture),
        "model": str(args.model),
        "sample_rate": rate,
        "voices": written,
        "chunks": [asdict(chunk) for chunk in chunks],
    }
    report = args.out / f"{Path(args.mixture).stem}.json"
    report.write_text(json.dumps(record, indent=2) + "\n")
    return 0
