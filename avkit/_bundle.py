"""Puts a trained network among those that travel with the package: for maintainers.

    python -m avkit._bundle FOLDER NAME [--lips-of OTHER]

FOLDER is what `avkit train` leaves as DIR/model. A network that was trained with the lip encoder of a bundled one names
that one (`--lips-of`), so that the encoder travels once; the two encoders are compared bit for bit first.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from avkit import checkpoints
from avkit.errors import AvkitError, CheckpointError, InputError


def bundle(trained: str | os.PathLike, name: str, lips_of: str | None = None) -> Path:
    """Write a trained network as the bundled network `name`, in place of an earlier one; returns its folder.

    Args:
        trained: a folder written by `avkit.checkpoints.save_model`, or a bundled name, to write that one anew.
        name: small letters, digits and hyphens.
        lips_of: the bundled network whose lip encoder it was trained with; None stores its own.

    Raises:
        InputError: the name cannot be one.
        CheckpointError: the folder cannot be read; the encoder of `lips_of` is another one; or other bundled networks
            name `name` for its encoder, and it would get another one or none of its own.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InputError(f"{name!r} is no name for a network; wanted small letters, digits and single hyphens")
    folder, config = checkpoints.read_config(trained)
    model = checkpoints.load_model(folder, fast=False)
    digest = None if model.lips is None or lips_of is not None else checkpoints.weights_digest(model.lips)
    spoilt = [other for other, named in _depending(name).items() if named != digest]
    if spoilt:
        raise CheckpointError(
            f"{name} would no longer hold the lip encoder that is taken from it by {', '.join(spoilt)}: bundle those "
            "first, without --lips-of"
        )
    target = checkpoints.BUNDLED / name
    return checkpoints.save_model(target, model, config["preset"], model.lips, model.provenance, lips_of)


def _depending(name: str) -> dict[str, str]:
    """Bundled networks that name `name` for its lip encoder, with that encoder's digest."""
    found = {}
    for other in checkpoints.list_bundled():
        entry = checkpoints.read_config(other)[1]["lip_encoder"] or {}
        if other != name and entry.get("of") == name:
            found[other] = entry["sha256"]
    return found


def main(argv: list[str]) -> int:
    """Bundle, and print what lies there now; 0 done, 1 refused."""
    parser = argparse.ArgumentParser(prog="python -m avkit._bundle", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", metavar="FOLDER", help="a trained network: the folder DIR/model of a run")
    parser.add_argument("name", metavar="NAME", help="what avkit.load_model shall know it by")
    parser.add_argument("--lips-of", metavar="OTHER", help="the bundled network that holds the same lip encoder")
    wanted = parser.parse_args(argv)
    try:
        folder = bundle(wanted.folder, wanted.name, wanted.lips_of)
    except AvkitError as error:
        print(f"Not bundled: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB" + (f", lip encoder of {wanted.lips_of}" if wanted.lips_of else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
