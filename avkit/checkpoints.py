"""Weights on disk: our own format, and the names of the official networks' weights, both ways.

Our format is a folder with `model.safetensors` (the network's tensors, and the lip encoder's under `lips.`) and
`config.json` (the preset, its overrides, the lip encoder's configuration, and where the weights come from). It holds
no code, so reading one runs none. In place of a lip encoder of its own, a folder may name the bundled network whose
encoder it was trained with, so that networks that travel together carry it once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from avkit.errors import CheckpointError
from avkit.fast import readable_kind
from avkit.fast import use as use_form
from avkit.iianet import IIANet
from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.official_names import IIANET, LIP_ENCODER, RTFS_NET, NameTable
from avkit.registry import create_model, list_models
from avkit.rtfs import RTFSNet, sinusoid

BUNDLED = Path(__file__).parent / "bundled"  # checkpoints that travel with the package
FORMAT = 1

TABLES = {RTFSNet: NameTable(RTFS_NET), IIANet: NameTable(IIANET), LipEncoder: NameTable(LIP_ENCODER)}
OFFICIAL = ("rtfs-net-4", "rtfs-net-6", "rtfs-net-12", "iianet", "iianet-fast", "lip-encoder")

# Official tensors that hold no learnt number: they may be absent, and must have this value where they are present.
_SINUSOID = "pos_enc.pe"
_SCALE = "scale_x"
_COUNTER = "num_batches_tracked"
_SINUSOID_LENGTH = 10_000


# ------------------------------------------------------------------------------------------------- official weights


def from_official(state_dict: dict[str, Tensor], name: str) -> nn.Module:
    """A network holding an official state dict.

    Args:
        state_dict: tensors under the official modules' names.
        name: one of "rtfs-net-4", "rtfs-net-6", "rtfs-net-12", "iianet", "iianet-fast", "lip-encoder".

    Returns:
        The network in eval mode; a lip encoder for "lip-encoder".

    Raises:
        CheckpointError: names that are unknown or missing, or shapes that differ; each is listed. Lip-encoder names
            that contain `tcn` are ignored; `pos_enc.pe`, `scale_x` and `num_batches_tracked` may be absent.
    """
    if name not in OFFICIAL:
        raise CheckpointError(f"{name!r} is no official network; wanted one of {', '.join(OFFICIAL)}")
    model = LipEncoder() if name == "lip-encoder" else create_model(name)
    table, wanted = TABLES[readable_kind(model)], model.state_dict()
    found, unknown = {}, []
    for official, tensor in state_dict.items():
        if isinstance(model, LipEncoder) and "tcn" in official:
            continue
        if official.endswith((_SINUSOID, _SCALE)):
            _check_constant(official, tensor)
            continue
        ours = table.to_ours(official)
        if ours in wanted:
            found[ours] = tensor
        else:
            unknown.append(official)
    missing = [ours for ours in wanted if ours not in found and not ours.endswith(_COUNTER)]
    _refuse(name, unknown, [table.to_official(ours) for ours in missing])
    wrong = [
        f"{table.to_official(k)} is {tuple(v.shape)}, wanted {tuple(wanted[k].shape)}"
        for k, v in found.items()
        if v.shape != wanted[k].shape
    ]
    if wrong:
        raise CheckpointError(f"these weights do not fit {name}: {_some(wrong, '; ')}")
    model.load_state_dict(wanted | found)
    return model.eval()


def to_official(model: nn.Module) -> dict[str, Tensor]:
    """The official state dict of a network: what `from_official` reads, with the constants that it lets be absent."""
    table = TABLES.get(readable_kind(model))
    if table is None:
        raise CheckpointError(f"{readable_kind(model).__name__} has no official form; RTFSNet, IIANet and LipEncoder have")
    state = {table.to_official(ours): tensor for ours, tensor in model.state_dict().items()}
    if isinstance(model, RTFSNet):
        for ours in [name for name in state if name.endswith("weight_c")]:
            state[ours.removesuffix("weight_c") + _SCALE] = torch.ones(1)
        attention = "refinement_module.video_net.blocks.globalatt.0.MHSA."
        table_like = torch.zeros((), dtype=torch.float32)
        state[attention + _SINUSOID] = sinusoid(_SINUSOID_LENGTH, model.config.lip_hidden, table_like)[None]
    return state


def load_official(path: str | os.PathLike, name: str | None = None, member: str | None = None) -> nn.Module:
    """The network in an official file of weights, with `.official` and `.lips`: see `avkit.official.load_official`."""
    from avkit.official import load_official as load  # which builds on this module

    return load(path, name, member)


def _check_constant(name: str, tensor: Tensor) -> None:
    if name.endswith(_SCALE):
        same = bool((tensor == 1).all())
    else:
        same = torch.allclose(tensor[0], sinusoid(tensor.shape[1], tensor.shape[2], tensor), atol=1e-3)
    if not same:
        raise CheckpointError(f"{name} is not the constant that the official network computes with; wanted its own")


def _refuse(name: str, unknown: list[str], missing: list[str]) -> None:
    if unknown or missing:
        parts = [f"unknown: {_some(unknown)}"] * bool(unknown) + [f"missing: {_some(missing)}"] * bool(missing)
        raise CheckpointError(
            f"these are not the weights of {name} ({len(unknown)} names unknown, {len(missing)} missing). "
            + "; ".join(parts)
        )


def _some(names: list[str], separator: str = ", ", count: int = 8) -> str:
    more = f"{separator}… and {len(names) - count} more" if len(names) > count else ""
    return separator.join(names[:count]) + more


# ----------------------------------------------------------------------------------------------------- our own format


def save_model(
    folder: str | os.PathLike,
    model: nn.Module,
    preset: str,
    lips: LipEncoder | None = None,
    provenance: dict | None = None,
    lips_of: str | None = None,
) -> Path:
    """Write a network, and its lip encoder, as a folder that `load_model` reads.

    Args:
        folder: made if need be; the two files appear under their names only when complete.
        model: made by `create_model(preset, …)` or by `avkit.ablations.create(preset, …)`.
        preset: the name it was made from.
        lips: the encoder whose features it was trained on.
        provenance: what made the weights (command, data, seed, minutes, …), kept under that key.
        lips_of: a bundled network that holds the same encoder; the folder then names it instead of holding the encoder
            again. None: the folder is complete in itself.

    Raises:
        CheckpointError: the encoder of `lips_of` is not `lips`, bit for bit, or is not its own.
    """
    folder = Path(folder)
    encoder = _lips_entry(folder, lips, lips_of)
    folder.mkdir(parents=True, exist_ok=True)
    default = dataclasses.asdict(create_model(preset).config)
    settings = dataclasses.asdict(model.config)
    config = {
        "format": FORMAT,
        "preset": preset,
        "overrides": {key: value for key, value in settings.items() if value != default[key]},
        "changes": dataclasses.asdict(model.changes) if hasattr(model, "changes") else None,
        "lip_encoder": encoder,
        "provenance": provenance or {},
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if lips is not None and lips_of is None:
        tensors |= {f"lips.{key}": value.detach().cpu().contiguous() for key, value in lips.state_dict().items()}
    write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path))
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(folder / "config.json", lambda path: Path(path).write_text(text, encoding="utf-8"))
    return folder


def _lips_entry(folder: Path, lips: LipEncoder | None, lips_of: str | None) -> dict | None:
    """What config.json says of the lip encoder: its configuration, or the bundled network that holds it."""
    if lips_of is None:
        return None if lips is None else dataclasses.asdict(lips.config)
    if folder.resolve() == (BUNDLED / lips_of).resolve():
        raise CheckpointError(f"{lips_of} cannot take its lip encoder from itself: name another network")
    theirs = _bundled_lips(lips_of, f"the network for {folder}")
    if lips is None or lips.config != theirs.config or weights_digest(lips) != weights_digest(theirs):
        held = "holds none" if lips is None else "has another one"
        raise CheckpointError(
            f"the lip encoder of {lips_of} cannot stand for that of the network for {folder}, which {held}: "
            "write it without lips_of"
        )
    return {"of": lips_of, "sha256": weights_digest(lips)}


def weights_digest(*parts: nn.Module) -> str:
    """SHA-256, in hexadecimal digits, of the tensors of modules, their names included."""
    digest = hashlib.sha256()
    for part in parts:
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_atomically(path: Path, write) -> None:
    """Call `write` on a temporary name beside `path`, then move it there: never a half-written file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def list_bundled() -> list[str]:
    """Names of the checkpoints that travel with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def read_config(name_or_path: str | os.PathLike) -> tuple[Path, dict]:
    """The folder of a checkpoint and what its config.json says.

    Raises:
        CheckpointError: no such checkpoint, or no readable configuration in it.
    """
    bundled = BUNDLED / str(name_or_path)
    folder = bundled if str(name_or_path) in list_bundled() else Path(name_or_path)
    if folder.is_file():
        folder = folder.parent
    path = folder / "config.json"
    if not path.is_file():
        untrained = ""
        if str(name_or_path) in list_models():
            untrained = f"{name_or_path} is a network that comes without trained weights: train it, or see `avkit weights`; "
        raise CheckpointError(
            f"no checkpoint at {str(name_or_path)!r}: {untrained}wanted a folder with config.json and model.safetensors, one of "
            f"the bundled names {', '.join(list_bundled()) or '(none)'}, or an official file of weights"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); write the checkpoint again") from None
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {config.get('format')!r}; this version of avkit reads format {FORMAT}"
        )
    return folder, config


def load_model(name_or_path: str | os.PathLike, *, fast: bool = True) -> nn.Module:
    """A trained network in eval mode.

    Args:
        name_or_path: a bundled name such as "rtfs-net-tiny", a folder written by `save_model`, or a name of `avkit
            weights` whose file was fetched before (nothing is downloaded here).
        fast: give the network's blocks their fast form where it can be had (see `avkit.fast`).

    Returns:
        What `create_model` returns, with `.config`, `.lips` (its lip encoder, or None; not among `parameters()`) and
        `.provenance`.

    Raises:
        CheckpointError: no such checkpoint, or its files do not fit each other.
    """
    from avkit import weights

    if weights.is_official(name_or_path):
        return use_form(weights.load(str(name_or_path)), fast)
    folder, config = read_config(name_or_path)
    model = _build(config, fast)
    _load_exactly(model, _tensors(folder, lips=False), folder)
    lips = read_lips(folder, config)
    attach_lips(model, lips if lips is None else use_form(lips, fast))
    model.provenance = config["provenance"]
    return model.eval()


def whole_training(provenance: dict) -> tuple[int, float]:
    """Examples and minutes of all the runs that made a network's weights, each of which began with the one before it."""
    examples, minutes = 0, 0.0
    while provenance:
        examples, minutes = examples + provenance["examples"], minutes + provenance["minutes"]
        provenance = provenance.get("began_with") or {}
    return examples, minutes


def _build(config: dict, fast: bool) -> nn.Module:
    """The network that a configuration names, random weights; alternatives of `avkit.ablations` included."""
    if not config.get("changes"):
        return create_model(config["preset"], fast=fast, **config["overrides"])
    from avkit.ablations import changes_for, create

    model = create(config["preset"], changes_for(config["preset"], config["changes"]), **config["overrides"])
    return use_form(model, fast)


def read_lips(folder: Path, config: dict) -> LipEncoder | None:
    """The lip encoder of a checkpoint that `read_config` found: its own, or that of the bundled network it names.

    Raises:
        CheckpointError: the named network is missing, or has another encoder than the one this checkpoint was trained
            with; or the files do not fit each other.
    """
    entry = config["lip_encoder"]
    if entry is None:
        return None
    if "of" not in entry:
        lips = LipEncoder(LipEncoderConfig(**entry | {"widths": tuple(entry["widths"])}))
        _load_exactly(lips, _tensors(folder, lips=True), folder)
        return lips
    lips = _bundled_lips(entry["of"], str(folder))
    if weights_digest(lips) != entry.get("sha256"):
        raise CheckpointError(
            f"{folder} was trained with the lip encoder of {entry['of']}, which has other weights by now: take both "
            "networks from the same version of avkit"
        )
    return lips


def _bundled_lips(name: str, whose: str) -> LipEncoder:
    """The encoder that a bundled network holds itself, for a checkpoint that names it."""
    if name not in list_bundled():
        raise CheckpointError(
            f"{whose} takes its lip encoder from the bundled network {name!r}, which this copy of avkit lacks "
            f"(it has {', '.join(list_bundled()) or 'none'}): install avkit again, or the version that wrote it"
        )
    folder, config = read_config(name)
    if config["lip_encoder"] is None or "of" in config["lip_encoder"]:
        raise CheckpointError(
            f"{whose} takes its lip encoder from the bundled network {name!r}, which holds none of its own: name the "
            "network that holds it"
        )
    return read_lips(folder, config)


def _tensors(folder: Path, lips: bool) -> dict[str, Tensor]:
    """The tensors of a checkpoint: its network's, or its lip encoder's, which are stored under `lips.`."""
    path = folder / "model.safetensors"
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            wanted = [name for name in names if name.startswith("lips.") == lips]
            return {name.removeprefix("lips."): file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None


def attach_lips(model: nn.Module, lips: LipEncoder | None) -> None:
    """Give a network its lip encoder without making it a submodule: it is frozen, and moves and trains on its own."""
    object.__setattr__(model, "lips", lips)


def _load_exactly(module: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()
        raise CheckpointError(
            f"the tensors in {folder} do not fit their configuration: {' '.join(line.strip() for line in first[1:4])}"
        ) from None


