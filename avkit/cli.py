"""The `avkit` command: finds the subcommand's module, runs it, and prints errors that a user can mend in one line.

Each subcommand is a module with `main(argv) -> exit status` and an argument parser of its own. Modules are
imported when they are called, so that `avkit --help` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys

import avkit
from avkit._extras import EXTRA_OF, install_line
from avkit.errors import AvkitError

# name -> (module, what it does)
COMMANDS = {
    "doctor": ("avkit.doctor", "what works here, what is missing, and the command that mends it"),
    "corpus": ("avkit.data.corpus", "make synthetic talkers in the layout of LRS2-2Mix"),
    "prepare": ("avkit.data.prepare", "check LRS2, LRS3, VoxCeleb2 or GRID mixtures, or make them from clips"),
    "train": ("avkit.training", "train a network, or go on where a run stopped"),
    "evaluate": ("avkit.evaluation", "score a network on every mixture of a test set"),
    "separate": ("avkit.separation", "separate a recording of any length, given its talkers' lips"),
    "separate-video": ("avkit.video.separating", "a video in, one voice and one video per person out"),
    "faces": ("avkit.video.finding", "who is in a video and when, with mouth crops"),
    "bench": ("avkit.bench", "speed, memory and equality of the networks' forms, in one run"),
    "reproduce": ("avkit.reproduction.command", "the papers' numbers, each with its command"),
    "weights": ("avkit.weights", "list and download trained weights, with licence and size"),
    "course": ("avkit.teach.course", "run the notebooks, derive student versions, mark answers"),
}


def usage() -> str:
    """The overview that `avkit --help` prints."""
    lines = [
        "usage: avkit COMMAND [arguments]",
        "",
        "Audio-visual speech separation: RTFS-Net and IIANet, to learn, to reproduce, and to build on.",
        "",
        "commands:",
        *(f"  {name:<15} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "avkit COMMAND --help explains one of them, with an example. avkit --version prints the version.",
    ]
    return "\n".join(lines)


def unknown(name: str) -> str:
    """What to say to a command that does not exist."""
    close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f"Did you mean `avkit {close[0]}`?" if close else f"Commands: {', '.join(COMMANDS)}."
    return f"avkit: there is no command {name!r}. {hint}"


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit status: 0 done, 2 the user can mend it, 130 interrupted."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name in ("-V", "--version"):
        print(f"avkit {avkit.__version__}")
        return 0
    if name not in COMMANDS:
        print(unknown(name), file=sys.stderr)
        return 2
    try:
        return importlib.import_module(COMMANDS[name][0]).main(rest)
    except AvkitError as error:
        print(f"avkit {name}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        print(f"avkit {name}: the package {package} is not installed. "
              f"Install it with: {install_line(EXTRA_OF[package])}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"avkit {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
