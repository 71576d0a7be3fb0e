"""Official files of weights: found in a release archive, read safely, recognised, and loaded.

What is read: IIANet's release archives (`lrs2.zip`: a `best_model.pth` and its `conf.yml`), `best_model.pth` by itself,
Lightning's `.ckpt` files of either repository, and the lip encoders that both networks were trained with.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from avkit import safe_pickle
from avkit.checkpoints import OFFICIAL, attach_lips, from_official, to_official
from avkit.errors import CheckpointError
from avkit.lips import LipEncoder
from avkit.registry import create_model

_WEIGHTS = (".pth", ".pt", ".ckpt", ".tar")
_SETTINGS = (".yml", ".yaml")
_STATE_DICTS = ("state_dict", "model_state_dict")
_NOT_INFOS = ("optimizer_states", "optimizer_state_dict", "lr_schedulers", "callbacks", "loops")
_PARTS = {"audio_model.": "network", "video_model.": "lips"}
_MARKS = {"sm.": "iianet", "refinement_module.": "rtfs-net", "frontend3D.": "lip-encoder"}


@dataclass
class OfficialFile:
    """What an official file holds.

    Attributes:
        source: the file, and the member of the archive.
        tensors: "network" and "lips", whichever are there: tensors under official names, prefixes stripped.
        infos: everything else worth keeping: settings, epoch, versions; a class that was not imported is a Placeholder.
        unused: names in the file that went into no network.
        name: which network it was read as.
    """

    source: str
    tensors: dict[str, dict[str, Tensor]] = field(repr=False)
    infos: dict[str, Any] = field(repr=False)
    unused: list[str] = field(repr=False)
    name: str = ""


def load_official(path: str | os.PathLike, name: str | None = None, member: str | None = None) -> nn.Module:
    """The network that an official file of weights belongs to, holding them. No pickled code is run.

    Args:
        path: a release archive, `best_model.pth`, a Lightning `.ckpt`, or a lip encoder's file.
        name: "iianet-fast", "rtfs-net-6", … where the file does not tell; read from the file by default.
        member: which file of an archive to read, where it holds several.

    Returns:
        The network in eval mode. `.official` is the OfficialFile without its tensors: infos, and the names that were not
        used. A network whose file holds the lip encoder too has it as `.lips`; else `.lips` is None.

    Raises:
        CheckpointError: the file cannot be read safely, or its names are not those of a network known here. Files of
            older code are told by the names that differ.
    """
    if name is not None and name not in OFFICIAL:
        raise CheckpointError(f"{name!r} is no official network; wanted one of {', '.join(OFFICIAL)}")
    file = read_official(Path(path), member)
    network = file.tensors.pop("network")
    file.name = name or recognise(network, file.infos, file.source)
    try:
        model = from_official(network, file.name)
    except CheckpointError as error:
        raise CheckpointError(f"{file.source}: {explain(network, file.name) or error}") from None
    if isinstance(model, LipEncoder):
        file.unused += [key for key in network if "tcn" in key]
    else:
        attach_lips(model, _lips(file))
    file.tensors = {}
    model.official = file
    return model


def _lips(file: OfficialFile) -> LipEncoder | None:
    """The lip encoder in the same file; one of another kind is left among the unused names."""
    tensors = file.tensors.pop("lips", None)
    if tensors is None:
        return None
    try:
        lips = from_official(tensors, "lip-encoder")
    except CheckpointError:
        file.unused += [f"video_model.{key}" for key in tensors]
        return None
    file.unused += [f"video_model.{key}" for key in tensors if "tcn" in key]
    return lips


# ------------------------------------------------------------------------------------------------- reading the file


def read_official(path: Path, member: str | None = None) -> OfficialFile:
    """Read a file without deciding what it is. Nothing is unpacked onto the disk.

    Raises:
        CheckpointError: see `load_official`.
    """
    if not path.is_file():
        inside = (
            [child.name for child in sorted(path.glob("*")) if child.suffix in _WEIGHTS]
            if path.is_dir()
            else []
        )
        hint = f"; that folder holds {', '.join(inside)}: give one of them" if inside else ""
        raise CheckpointError(f"there is no file {str(path)!r}{hint}")
    infos: dict[str, Any] = {}
    source, file = str(path), path
    with safe_pickle.damage_named(str(path)):
        archive = _is_archive(path)
        if archive:
            file, chosen, infos = _unpack(path, member)
            source = f"{path}:{chosen}"
    if member is not None and not archive:
        raise CheckpointError(f"{path} is not an archive, so there is no {member!r} in it")
    return _sort_out(safe_pickle.read(file, source), source, infos)


def _unpack(path: Path, member: str | None) -> tuple[io.BytesIO, str, dict[str, Any]]:
    """The bytes of one file of weights in an archive, its name there, and the settings beside it."""
    with zipfile.ZipFile(path) as archive:
        safe_pickle.check_size(archive.infolist())
        chosen = _choose(archive, member)
        return io.BytesIO(archive.read(chosen)), chosen.filename, _settings(archive, chosen)


def _is_archive(path: Path) -> bool:
    """A zip of files, as against the zip that `torch.save` itself writes."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return not any(Path(name).name == "data.pkl" for name in archive.namelist())


def _choose(archive: zipfile.ZipFile, member: str | None) -> zipfile.ZipInfo:
    found = {
        i.filename: i
        for i in archive.infolist()
        if i.filename.endswith(_WEIGHTS) and "__MACOSX" not in i.filename
    }
    if member is not None:
        if member not in found:
            raise CheckpointError(
                f"the archive holds no {member!r}; its weights: {', '.join(found) or 'none'}"
            )
        return found[member]
    best = [name for name in found if Path(name).name == "best_model.pth"]
    names = best if len(best) == 1 else list(found)
    if len(names) != 1:
        listed = ", ".join(found) or "none"
        raise CheckpointError(
            f"the archive holds {len(names)} files of weights ({listed}); wanted one: name it by member=…"
        )
    return found[names[0]]


def _settings(archive: zipfile.ZipFile, chosen: zipfile.ZipInfo) -> dict[str, Any]:
    """The training settings that lie beside the chosen weights in an archive."""
    folder = Path(chosen.filename).parent
    for info in archive.infolist():
        path = Path(info.filename)
        if path.parent == folder and path.suffix in _SETTINGS and info.file_size < 2**20:
            try:
                return {path.name: yaml.safe_load(archive.read(info))}
            except (yaml.YAMLError, UnicodeDecodeError):
                return {path.name: "unreadable"}
    return {}


def _sort_out(content: Any, source: str, infos: dict[str, Any]) -> OfficialFile:
    """Tell tensors of the network, tensors of the lip encoder, and the rest apart."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{source} holds a {type(content).__name__}; wanted a dictionary of weights")
    key = next((key for key in _STATE_DICTS if isinstance(content.get(key), dict)), None)
    state = content if key is None else content[key]
    unused = []
    if key is not None:
        unused = [str(name) for name in content if name in _NOT_INFOS]
        infos = infos | {str(k): v for k, v in content.items() if k != key and k not in _NOT_INFOS}
    tensors: dict[str, dict[str, Tensor]] = {}
    parted = any(_strip_module(str(name)).startswith("audio_model.") for name in state)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            unused.append(str(name))
            continue
        part, short = _part(str(name), parted)
        if part is None:
            unused.append(str(name))
        else:
            tensors.setdefault(part, {})[short] = value.detach()
    if "network" not in tensors:
        raise CheckpointError(
            f"{source} holds no weights; its entries: {', '.join(map(str, content)) or 'none'}"
        )
    return OfficialFile(source, tensors, infos, unused)


def _strip_module(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _part(name: str, parted: bool) -> tuple[str | None, str]:
    """Which network an official tensor belongs to, and its name there."""
    name = _strip_module(name)
    if not parted:
        return "network", name
    for prefix, part in _PARTS.items():
        if name.startswith(prefix):
            return part, _strip_module(name.removeprefix(prefix))
    return None, name


# ------------------------------------------------------------------------------------------------- which network it is


def recognise(tensors: dict[str, Tensor], infos: dict[str, Any], source: str) -> str:
    """The name for `from_official`: told by the tensors' names, and the repeats or cycles by the settings beside them."""
    kinds = {kind for mark, kind in _MARKS.items() for name in tensors if name.startswith(mark)}
    if len(kinds) != 1:
        some = ", ".join(list(tensors)[:5])
        raise CheckpointError(
            f"{source} is of no network known here: its {len(tensors)} tensors are named {some}, …; wanted IIANet (sm.…), "
            "RTFS-Net (refinement_module.…) or a lip encoder (frontend3D.…). If it is one of them, in the names of other "
            f"code, say which by name=… (one of {', '.join(OFFICIAL)}) to see which names differ"
        )
    kind = kinds.pop()
    if kind == "lip-encoder":
        return kind
    if kind == "iianet":
        cycles = _setting(infos, "audionet_config_num_blocks") or 16
        return _known({16: "iianet", 10: "iianet-fast"}, cycles, source, "cycles")
    repeats = _setting(infos, "audio_params_repeats")
    if repeats is None:
        raise CheckpointError(
            f"{source} is an RTFS-Net, but does not say with how many blocks: they share their weights. "
            "Say it: name='rtfs-net-4', 'rtfs-net-6' or 'rtfs-net-12'"
        )
    return _known({r: f"rtfs-net-{r}" for r in (4, 6, 12)}, repeats, source, "repeats")


def _known(names: dict[int, str], count: int, source: str, what: str) -> str:
    if count not in names:
        published = ", ".join(map(str, names))
        raise CheckpointError(
            f"{source} was trained with {count} {what}; published: {published}. Read it as name={names[min(names)]!r}, "
            f"then set {what}={count} by create_model(…, {what}={count}).load_state_dict(model.state_dict())"
        )
    return names[count]


def _setting(infos: dict[str, Any], ending: str) -> int | None:
    """A number among settings, nested or flattened with underscores, by the end of its path."""
    values = {int(v) for path, v in _flat(infos) if path.endswith(ending) and isinstance(v, (int, float))}
    return values.pop() if len(values) == 1 else None


def _flat(settings: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(settings, dict) and depth < 8:
        for key, value in settings.items():
            yield from _flat(value, f"{path}_{key}", depth + 1)
    else:
        yield path, settings


def explain(tensors: dict[str, Tensor], name: str) -> str | None:
    """In words, how the names in a file differ from the network's; None where they do not."""
    wanted = set(to_official(LipEncoder() if name == "lip-encoder" else create_model(name)))
    optional = ("pos_enc.pe", "scale_x", "num_batches_tracked")
    missing = {key for key in wanted - set(tensors) if not key.endswith(optional)}
    unknown = {key for key in set(tensors) - wanted if not (name == "lip-encoder" and "tcn" in key)}
    if not missing and not unknown:
        return None
    return (
        f"these are not today's names of {name}, so the file is of other code, perhaps older: {len(wanted & set(tensors))} "
        f"names agree, {len(unknown)} are in the file only, {len(missing)} are wanted and not there. "
        f"In the file only: {_patterns(unknown)}. Not there: {_patterns(missing)}. "
        "Weights of other code compute another function; train again, or ask the authors for a file of the newest code"
    )


def _patterns(names: set[str], most: int = 12) -> str:
    """Names of modules with their numbers as *, each once."""
    patterns = sorted({re.sub(r"\.\d+(?=\.)", ".*", name.rpartition(".")[0] or name) for name in names})
    more = f", … and {len(patterns) - most} more" if len(patterns) > most else ""
    return ", ".join(patterns[:most]) + more or "none"
