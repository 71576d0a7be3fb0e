"""`avkit weights`: which trained weights can be had, with licence, size and source; `avkit weights get NAME` fetches them.

Nothing but this command ever asks the network for anything. What it fetches lies in one folder
(`$AVKIT_CACHE/weights`, or `~/.cache/avkit/weights`), is read once to see that it is what its name promises, and has its
SHA-256 noted there, so that a later copy that differs is noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from avkit.checkpoints import BUNDLED, attach_lips, list_bundled, load_official, read_config, write_atomically
from avkit.download import PATIENT, Patience, fetch, sha256
from avkit.errors import CheckpointError, DownloadError, InputError
from avkit.iianet import IIANet
from avkit.lips import LipEncoder

_IIANET = "https://github.com/JusperLee/IIANet"
_RELEASES = f"{_IIANET}/releases/download"
_RTFS_NET = "https://github.com/spkgyk/RTFS-Net"


@dataclass(frozen=True)
class Weights:
    """One row of the catalogue.

    Attributes:
        name: what `avkit weights get` takes.
        network: what it is read as (a name of `avkit.checkpoints.from_official`); None leaves that to the file.
        what: in one line.
        licence: as stated by the source; "none stated" where it states none.
        url: where the file itself lies; empty where it has to be fetched by hand.
        page: where a person finds it.
        size: bytes; None where it is not known.
    """

    name: str
    network: str | None
    what: str
    licence: str
    page: str
    url: str = ""
    size: int | None = None

    @property
    def file_name(self) -> str:
        """The name of its file in the cache."""
        return f"{self.name}{Path(self.url).suffix or '.pth'}"


OFFICIAL = (
    Weights(
        "iianet-lrs2",
        "iianet",
        "IIANet trained on LRS2-2Mix, official release v1.0.0",
        "Apache-2.0, as its repository",
        f"{_IIANET}/releases",
        f"{_RELEASES}/v1.0.0/lrs2.zip",
    ),
    Weights(
        "iianet-lrs3",
        "iianet",
        "IIANet trained on LRS3-2Mix, official release v1.0.0",
        "Apache-2.0, as its repository",
        f"{_IIANET}/releases",
        f"{_RELEASES}/v1.0.0/lrs3.zip",
    ),
    Weights(
        "iianet-vox2",
        "iianet",
        "IIANet trained on VoxCeleb2-2Mix, official release v1.0.1",
        "Apache-2.0, as its repository",
        f"{_IIANET}/releases",
        f"{_RELEASES}/v1.0.1/vox2.zip",
    ),
    Weights(
        "lip-encoder-iianet",
        "lip-encoder",
        "IIANet's lip encoder, lrw_resnet18_mstcn_adamw_s3.pth.tar: a drive link in issues 1 and 8",
        "none stated",
        f"{_IIANET}/issues/1",
    ),
    Weights(
        "lip-encoder-rtfs-net",
        "lip-encoder",
        "RTFS-Net's lip encoder, frcnn_128_512.backbone.pth.tar: linked in CTCNet's repository",
        "none stated",
        "https://github.com/JusperLee/CTCNet",
    ),
    Weights(
        "rtfs-net-lrs2",
        None,
        "RTFS-Net trained on LRS2-2Mix: a drive link in pull request 5 (not tried here)",
        "none stated (its repository: MIT)",
        f"{_RTFS_NET}/pull/5",
    ),
)


# ---------------------------------------------------------------------------------------------------- the catalogue


def catalogue() -> list[Weights]:
    """Every row: what travels with the package, then what others publish."""
    return [*(_bundled(name) for name in list_bundled()), *OFFICIAL]


def _bundled(name: str) -> Weights:
    folder, config = read_config(name)
    size = sum(path.stat().st_size for path in folder.iterdir())
    shared = (config["lip_encoder"] or {}).get("of")
    lips = f", with the lip encoder of {shared}" if shared else ""
    recipe = (re.search(r"--config (\S+)", config["provenance"].get("command", "")) or ["", ""])[1]  # a twin has its own
    trained = f" by the recipe {recipe}" if recipe not in ("", config["preset"]) else ""
    what = f"{config['preset']} trained on synthetic talkers{trained}{lips}, in the package: avkit.load_model({name!r})"
    return Weights(name, config["preset"], what, "MIT, as avkit", str(folder), size=size)


def find(name: str) -> Weights:
    """The row of a name. Raises InputError, with the names there are, where there is none."""
    for row in catalogue():
        if row.name == name:
            return row
    raise InputError(f"no weights are named {name!r}; there are {', '.join(row.name for row in catalogue())}")


def is_official(name_or_path: str | os.PathLike) -> bool:
    """Whether this names weights that others publish, and not a file or folder that happens to be called so."""
    return str(name_or_path) in {row.name for row in OFFICIAL} and not Path(name_or_path).exists()


def cache_folder() -> Path:
    """Where fetched weights lie: $AVKIT_CACHE/weights, else $XDG_CACHE_HOME/avkit/weights, else ~/.cache/avkit/weights."""
    if os.environ.get("AVKIT_CACHE"):
        return Path(os.environ["AVKIT_CACHE"]).expanduser() / "weights"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "avkit" / "weights"


def cached(row: Weights) -> Path | None:
    """The file of a row, if it was fetched; the folder of one that travels with the package."""
    if Path(row.page).parent == BUNDLED:
        return Path(row.page)
    path = cache_folder() / row.file_name
    return path if path.is_file() else None


def load(name: str) -> nn.Module:
    """Fetched weights as a network in eval mode; nothing is downloaded.

    An IIANet or RTFS-Net whose file has no lip encoder gets the fetched lip encoder of its own repository as `.lips`.

    Raises:
        InputError: no such name.
        CheckpointError: not fetched yet, or damaged since.
    """
    row = find(name)
    path = cached(row)
    if path is None:
        raise CheckpointError(f"{name} is not on this machine yet: avkit weights get {name}")
    if path.is_dir():
        raise InputError(f"{name} travels with the package: avkit.load_model({name!r})")
    model = load_official(path, row.network)
    if not isinstance(model, LipEncoder) and model.lips is None:
        family = "lip-encoder-iianet" if isinstance(model, IIANet) else "lip-encoder-rtfs-net"
        encoder = cached(find(family))
        if encoder is not None:
            attach_lips(model, load_official(encoder, "lip-encoder"))
    return model


# ----------------------------------------------------------------------------------------------------- fetching them


def get(
    name: str,
    source: str | os.PathLike | None = None,
    again: bool = False,
    patience: Patience = PATIENT,
    quiet: bool = False,
) -> tuple[Path, str]:
    """Fetch weights into the cache, or take them from a file fetched by hand.

    Args:
        name: of the catalogue.
        source: a file on this machine; by default the network is asked.
        again: fetch even what is there.
        patience: with a slow server.
        quiet: no progress bar.

    Returns:
        The file in the cache (for what travels with the package: its folder), and what is known of its checksum.

    Raises:
        InputError: no such name.
        DownloadError: it could not be fetched; the message says what to do without a network.
        CheckpointError: what arrived is not these weights; it is not kept.
    """
    row = find(name)
    there = cached(row)
    if there is not None and there.is_dir():
        return there, "it travels with the package"
    target = cache_folder() / row.file_name
    if there is not None and source is None and not again:
        return target, _compare(row, target)
    arrived = target.with_name(f"{target.name}.new")
    if source is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not Path(source).is_file():
            raise InputError(f"there is no file {str(source)!r}")
        shutil.copyfile(source, arrived)
    elif not row.url:
        raise DownloadError(
            f"{name} cannot be fetched by a program: {row.what}. Open {row.page} in a browser, fetch the file, then run "
            f"avkit weights get {name} --from FILE"
        )
    else:
        try:
            fetch(row.url, arrived, patience, quiet)
        except DownloadError as error:
            raise DownloadError(f"{error}\n{_by_hand(row)}") from None
    return target, _accept(row, arrived, target)


def _by_hand(row: Weights) -> str:
    return (
        f"Without a network here: fetch {row.url} on another machine (its page is {row.page}), carry the file over, "
        f"and run avkit weights get {row.name} --from FILE"
    )


def _accept(row: Weights, arrived: Path, target: Path) -> str:
    """Move what arrived to its place if it is what its name promises; else remove it."""
    try:
        try:
            load_official(arrived, row.network)
        except CheckpointError as error:
            raise CheckpointError(f"what arrived for {row.name} is not these weights. {error}") from None
        said = _compare(row, arrived)
    except CheckpointError:
        arrived.unlink(missing_ok=True)
        raise
    os.replace(arrived, target)
    return said


def _compare(row: Weights, path: Path) -> str:
    """Compare with the checksum noted when the file first came; note it if it is the first time."""
    noted = _notes().get(row.name)
    found = sha256(path)
    if noted is None:
        _write_notes(_notes() | {row.name: found})
        return f"sha256 {found} (noted at first use: its authors publish none to compare with)"
    if noted != found:
        raise CheckpointError(
            f"{row.name} has sha256 {found}; when it first came it had {noted}. Its source has changed, or one of the two "
            f"was damaged. To accept the new one, remove its line from {_notes_path()}"
        )
    return f"sha256 {found} (the same as when it first came)"


def _notes_path() -> Path:
    return cache_folder() / "checksums.json"


def _notes() -> dict[str, str]:
    try:
        return json.loads(_notes_path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{_notes_path()} is not readable ({error}); remove it to note checksums anew"
        ) from None


def _write_notes(notes: dict[str, str]) -> None:
    text = json.dumps(notes, indent=2, sort_keys=True) + "\n"
    write_atomically(_notes_path(), lambda path: Path(path).write_text(text, encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------- the command


def main(argv: list[str]) -> int:
    """`avkit weights [get NAME]`."""
    arguments = _parser().parse_args(argv)
    if arguments.action == "get":
        path, checksum = get(arguments.name, arguments.source, arguments.again)
        if arguments.json:
            print(json.dumps({"name": arguments.name, "path": str(path), "checksum": checksum}))
        else:
            print(f"{arguments.name}: {path}\n{checksum}\nLicence: {find(arguments.name).licence}")
        return 0
    rows = catalogue()
    if arguments.json:
        print(json.dumps([asdict(row) | {"path": _where(row)} for row in rows], indent=2))
    else:
        print(table(rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avkit weights",
        description="List trained weights with licence, size and source; fetch one.",
        epilog="example: avkit weights get iianet-lrs2",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(metavar="get")
    one = actions.add_parser("get", help="fetch weights into the cache, and check what arrived")
    one.set_defaults(action="get")
    one.add_argument("name", metavar="NAME")
    one.add_argument("--from", dest="source", metavar="FILE", help="take a file fetched by hand")
    one.add_argument("--again", action="store_true", help="fetch even if it is there")
    one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    return parser


def table(rows: list[Weights]) -> str:
    """The catalogue as text, a few lines a row."""
    lines = []
    for row in rows:
        where = _where(row)
        lines += [
            f"{row.name}  ({_size(row)}, licence: {row.licence}, {'on this machine' if where else _how(row)})",
            f"    {row.what}",
            f"    {where or row.url or row.page}",
        ]
    return "\n".join([*lines, "", "avkit weights get NAME fetches one. Files go to " + str(cache_folder())])


def _where(row: Weights) -> str:
    path = cached(row)
    return str(path) if path else ""


def _how(row: Weights) -> str:
    return "can be fetched" if row.url else "to be fetched by hand"


def _size(row: Weights) -> str:
    path = cached(row)
    size = path.stat().st_size if path and path.is_file() else row.size
    return "size unknown" if size is None else f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
