"""Weights and inputs that anyone can rebuild from names alone, for the fixtures in tests/parity.

The fixtures hold what the two official implementations compute with every tensor drawn from NumPy's RandomState (whose
streams are frozen for good), seeded with the CRC-32 of the tensor's official name and scaled by the tensor's kind.
"""

from __future__ import annotations

import collections
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

PARITY = Path(__file__).parent / "parity"
CONSTRUCTED = ("pos_enc.pe", "scale_x")  # left as the network makes them


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers (float64) that belong to a name."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(
        tuple(int(size) for size in shape)
    )


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one official tensor."""
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    z = normal(name, shape)
    if leaf == "running_var":
        value = np.exp(0.1 * z)
    elif leaf in ("bias", "beta", "in_proj_bias", "running_mean"):
        value = 0.1 * z
    elif leaf == "gamma" or (leaf == "weight" and len(shape) == 1 and shape[0] > 1):
        value = 1 + 0.1 * z
    elif leaf == "weight" and len(shape) == 1:  # the slope of a PReLU
        value = 0.25 + 0.05 * z
    elif leaf == "weight_c":
        value = 0.5 * z
    elif leaf == "weight" and ".rnn.rnn_lst." in name:
        value = z / math.sqrt(shape[0])
    else:
        value = z / math.sqrt(max(1, math.prod(shape[1:])))
    return value.astype(np.float32)


def official_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Official tensor names and shapes: "RTFS-Net", "IIANet", "lip encoder (IIANet repo)", "… (RTFS-Net repo)"."""
    table = json.loads((PARITY / "official_keys.json").read_text())[network]
    return {name: tuple(shape) for name, shape in table.items()}


def official_state_dict(network: str) -> dict[str, torch.Tensor]:
    """A filled official state dict, without the tensors that keep their constructed value."""
    shapes = official_shapes(network).items()
    return {
        name: torch.from_numpy(fill(name, shape)) for name, shape in shapes if not name.endswith(CONSTRUCTED)
    }


def load(fixture: str) -> dict[str, np.ndarray]:
    """The arrays of tests/parity/FIXTURE.npz."""
    with np.load(PARITY / f"{fixture}.npz") as arrays:
        return dict(arrays)


def inputs(case: str, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixture (B, L) and lip features (B, 512, V) of a case, from its `shapes` record (B, L, V)."""
    batch, samples, frames = (int(size) for size in shape)
    mixture = normal(f"audio/{case}", (batch, samples)) * 0.1
    lips = normal(f"video/{case}", (batch, 512, frames))
    return torch.from_numpy(mixture.astype(np.float32)), torch.from_numpy(lips.astype(np.float32))


def record_calls(model: torch.nn.Module, wanted=bool) -> dict:
    """From now on, keep what every module of the model returns, under "name@call" (calls count from 0).

    wanted: says of a module's name whether it is kept. (All of IIANet's, for 2 s, take 15 GB.)
    """
    outputs, calls = {}, collections.Counter()

    def keep(name):
        def hook(module, args, output):
            outputs[f"{name}@{calls[name]}"] = output
            calls[name] += 1

        return hook

    for name, module in model.named_modules():
        if wanted(name):
            module.register_forward_hook(keep(name))
    return outputs


def record(x: torch.Tensor) -> np.ndarray:
    """The 67 numbers kept of an intermediate: mean, standard deviation, largest magnitude, 64 evenly spaced elements."""
    flat = x.detach().double().flatten()
    picked = flat[np.linspace(0, flat.numel() - 1, 64).round().astype(int)]
    return torch.cat((torch.stack((flat.mean(), flat.std(), flat.abs().max())), picked)).numpy()


def relative_error(ours: np.ndarray | torch.Tensor, reference: np.ndarray) -> float:
    """‖ours − reference‖ / ‖reference‖."""
    reference = np.asarray(reference, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(ours, dtype=np.float64) - reference) / np.linalg.norm(reference))
