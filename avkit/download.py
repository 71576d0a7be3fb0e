"""Fetching one file over HTTP: with progress, resumed where it broke off, and whole or not at all.

A download grows in `NAME.part`, beside a note of which version of the file it is (the server's ETag or date). The next
call goes on from there if the server still has that version, and else starts anew. Only a complete file gets its name.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import avkit
from avkit.errors import DownloadError

CHUNK = 2**18  # bytes read at a time, at most
MAX_BYTES = 4 * 2**30  # nothing here is larger


@dataclass(frozen=True)
class Patience:
    """How long to put up with a server."""

    stall: float = 30.0  # seconds without a byte before a connection is given up
    attempts: int = 4  # connections in a row that may bring nothing new
    pause: float = 1.0  # seconds before the next connection; doubled each time


PATIENT = Patience()


class _Broken(Exception):
    """A connection that ended early, and may be tried again."""


def fetch(url: str, target: Path, patience: Patience = PATIENT, quiet: bool = False) -> Path:
    """Download `url` to `target`.

    Args:
        url: http or https.
        target: the file to write; what is there is replaced when the new one is complete.
        patience: limits.
        quiet: no progress bar.

    Raises:
        DownloadError: no network, refused, no longer there, stalled, or never whole. What has arrived is kept for the
            next call, unless the server's answers contradict each other.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is no web address; wanted http:// or https://")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    fruitless, pause, most = 0, patience.pause, _size(part)
    while True:
        try:
            _connect(url, part, patience, quiet)
            break
        except _Broken as error:
            fruitless = 0 if _size(part) > most else fruitless + 1
            most = max(most, _size(part))
            if fruitless >= patience.attempts:
                raise DownloadError(
                    f"{url}: {error}, {fruitless} times in a row. {_size(part):,} bytes are kept in {part}: the same "
                    "command goes on from there"
                ) from None
        if fruitless:
            time.sleep(pause)
            pause *= 2
    _note(part).unlink(missing_ok=True)
    os.replace(part, target)
    return target


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _connect(url: str, part: Path, patience: Patience, quiet: bool) -> None:
    """One connection: what it brings is added to `part`. Raises _Broken if the file is not complete afterwards."""
    start, version = _size(part), _version(part)
    if not version:
        start = 0
    request = urllib.request.Request(
        url, headers={"User-Agent": f"avkit/{avkit.__version__}", "Accept": "*/*"}
    )
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        with urllib.request.urlopen(request, timeout=patience.stall) as answer:
            _receive(answer, url, part, start, quiet)
    except urllib.error.HTTPError as error:
        _refused(error, url, part)
    except TimeoutError:
        raise _Broken(f"the server sent nothing for {patience.stall:g} s") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _Broken(f"no connection within {patience.stall:g} s") from None
        if isinstance(error.reason, ConnectionResetError):
            raise _Broken("the connection was reset") from None
        raise DownloadError(f"{url} cannot be reached ({error.reason}): is there a network?") from None
    except (http.client.HTTPException, ConnectionError) as error:
        raise _Broken(f"the connection broke ({type(error).__name__})") from None
    except OSError as error:
        raise DownloadError(f"{part} cannot be written ({error.strerror}): is the disk full?") from None


def _refused(error: urllib.error.HTTPError, url: str, part: Path) -> None:
    if error.code == 416 or error.code >= 500 or error.code == 429:
        if error.code == 416:  # what is there does not fit the file on the server: start anew
            part.unlink(missing_ok=True)
        raise _Broken(f"the server answered {error.code} {error.reason}") from None
    raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from None


def _receive(answer: http.client.HTTPResponse, url: str, part: Path, start: int, quiet: bool) -> None:
    version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    version = "" if version.startswith("W/") else version  # a weak tag does not vouch for the bytes
    if answer.status != 206:
        start = 0  # the server sends the file from its beginning: it has another version, or cannot resume
    else:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not start or not found or int(found[1]) != start or version != _version(part):
            part.unlink(missing_ok=True)
            raise _Broken("the server went on at another place or in another file")
    promised = _number(answer.headers.get("Content-Length"))
    total = None if promised is None else start + promised
    if total is not None and total > MAX_BYTES:
        raise DownloadError(f"{url} has {total:,} bytes; at most {MAX_BYTES:,} are fetched")
    _note(part).write_text(json.dumps({"version": version}), encoding="utf-8")
    with part.open("ab" if start else "wb") as file:
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=quiet or None
        )
        with bar:
            while chunk := answer.read1(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > MAX_BYTES:
                    raise DownloadError(f"{url} goes on after {MAX_BYTES:,} bytes; stopped")
    if total is not None and _size(part) < total:
        raise _Broken(f"the server promised {total:,} bytes and stopped at {_size(part):,}")


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _version(part: Path) -> str:
    """The server's mark of the version that `part` is of; empty where there is none to go on from."""
    try:
        return str(json.loads(_note(part).read_text(encoding="utf-8"))["version"]) if part.is_file() else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
