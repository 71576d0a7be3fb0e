"""A trained lip encoder on disk: written by pre-training, read by everything that trains with it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from safetensors.torch import save_file

from avkit.checkpoints import FORMAT, read_config, read_lips, weights_digest, write_atomically
from avkit.errors import CheckpointError
from avkit.fast import use as use_fast_form
from avkit.lips import LipEncoder

PRESET = "lip-encoder"


def save_lip_encoder(folder: str | os.PathLike, encoder: LipEncoder, provenance: dict | None = None) -> Path:
    """Write a lip encoder as a folder with `model.safetensors` and `config.json`.

    provenance: what made the weights, kept under that key.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "preset": PRESET,
        "overrides": {},
        "lip_encoder": dataclasses.asdict(encoder.config),
        "provenance": provenance or {},
    }
    tensors = {
        f"lips.{key}": value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()
    }
    write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path))
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(folder / "config.json", lambda path: Path(path).write_text(text, encoding="utf-8"))
    return folder


def load_lip_encoder(name_or_path: str | os.PathLike) -> LipEncoder:
    """A trained lip encoder, frozen.

    name_or_path: a folder written by `save_lip_encoder`; a folder or bundled name of a trained network, whose
        lip encoder is taken; a file with the official encoder's weights, or its name in `avkit weights` once it was fetched.
    Raises CheckpointError when there is nothing of the kind, or its files do not fit each other.
    """
    from avkit import weights

    if weights.is_official(name_or_path):
        encoder = weights.load(str(name_or_path))
        encoder = encoder if isinstance(encoder, LipEncoder) else encoder.lips
        if encoder is None:
            raise CheckpointError(f"{name_or_path} came without a lip encoder, and none was fetched for it; see `avkit weights`.")
        return use_fast_form(encoder.freeze())
    if Path(name_or_path).is_file() and Path(name_or_path).suffix not in (".json", ".safetensors"):
        from avkit.checkpoints import load_official

        encoder = load_official(name_or_path)
        if not isinstance(encoder, LipEncoder):
            kind = type(encoder).__name__
            raise CheckpointError(f"{name_or_path} holds a {kind}; a lip encoder's weights are wanted.")
        return use_fast_form(encoder.freeze())
    folder, config = read_config(name_or_path)
    encoder = read_lips(folder, config)
    if encoder is None:
        raise CheckpointError(f"{folder} holds no lip encoder. Name a checkpoint that was trained with lips.")
    return use_fast_form(encoder.freeze())


def fingerprint(encoder: LipEncoder) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of an encoder's weights: tells whose features are stored."""
    return weights_digest(encoder)[:12]
