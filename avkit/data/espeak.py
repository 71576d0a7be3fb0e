"""Speech with phoneme times from the eSpeak NG library, the same bytes for the same request.

eSpeak NG keeps state between sentences, so repeats within one process differ. Here a small server process loads the
library once and never speaks itself: every request is spoken by a fresh fork of it, which starts from the same state.
The server is this very file, run as a script; it imports nothing of avkit, so it stays small and forks in a millisecond.

The library and its data come from the package `espeakng-loader` (GPL-3.0, like eSpeak NG), which avkit does not depend
on: `pip install "avkit[corpus]"`. Needs `os.fork`: Linux or macOS.
"""

import ctypes
import json
import os
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Self

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: to the callback, no sound device
_PHONEME_EVENTS, _DONT_EXIT = 1, 0x8000  # espeak_Initialize options
_UTF8, _RATE, _VOLUME = 1, 1, 2  # espeakCHARS_UTF8; espeakRATE, espeakVOLUME
_LIST_END, _WORD, _PHONEME = 0, 1, 7  # espeak_EVENT_TYPE
_HEADER = struct.Struct("<II")  # bytes of JSON, bytes of samples


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Speech:
    """What was spoken: 16-bit samples (bytes), their rate in Hz, and events at sample positions."""

    samples: bytes
    rate: int
    phonemes: tuple[tuple[str, int], ...]  # (eSpeak mnemonic, first sample), in time order
    words: tuple[tuple[str, int], ...]  # (word, or words run together as in 'from the'; first sample)

    @property
    def length(self) -> int:
        return len(self.samples) // 2


class Synthesiser:
    """eSpeak NG behind a pipe. Use as a context manager, or call `close`.

    Raises `MissingPackageError` when `espeakng-loader` is not installed, `AvkitError` where a process cannot fork.
    """

    def __init__(self) -> None:
        from avkit.errors import AvkitError, MissingPackageError

        if not hasattr(os, "fork"):
            raise AvkitError("Synthetic speech needs os.fork, which this system lacks: use Linux, macOS or WSL.")
        try:
            import espeakng_loader
        except ImportError as error:
            raise MissingPackageError(
                'Synthetic speech needs the package espeakng-loader: pip install "avkit[corpus]"'
            ) from error
        self.data = espeakng_loader.get_data_path()
        command = [sys.executable, "-S", "-E", __file__, espeakng_loader.get_library_path(), self.data]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        info = json.loads(self._receive()[0])
        self.version, self.rate = info["version"], info["rate"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server process."""
        if self._server.poll() is None:
            self._server.stdin.close()
            self._server.wait()
        self._server.stdout.close()

    def speak(self, text: str, definition: str, accent_file: str, words_per_minute: float) -> Speech:
        """Speak `text` with a voice given as lines of an eSpeak NG voice file.

        Args:
            text: plain English; commas and full stops become pauses.
            definition: lines that follow those of the accent (`pitch`, `formant`, `tone`, …).
            accent_file: the accent's file in eSpeak NG's own data, under lang/gmw, e.g. 'en-US'.
            words_per_minute: 80 to 450.
        """
        with open(os.path.join(self.data, "lang", "gmw", accent_file), encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip() and not line.startswith(("name", "//", "maintainer"))]
        request = {"text": text, "voice": "\n".join(["name talker", *lines, definition]), "wpm": round(words_per_minute)}
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        head, samples = self._receive()
        reply = json.loads(head)
        if "error" in reply:
            from avkit.errors import AvkitError

            raise AvkitError(f"eSpeak NG could not speak {text!r}: {reply['error']}. Is espeakng-loader intact?")
        # eSpeak NG runs some words together ('from the'), and then may place the next one inside them ('for a while').
        begun = [(start, sample) for start, sample in reply["words"] if start == 0 or text[start - 1] == " "]
        ends = [start for start, _ in begun[1:]] + [len(text)]
        words = tuple((text[a:b].strip(" ,."), sample) for (a, sample), b in zip(begun, ends, strict=True))
        return Speech(samples, self.rate, tuple(map(tuple, reply["phonemes"])), words)

    def _receive(self) -> tuple[bytes, bytes]:
        header = self._server.stdout.read(_HEADER.size)
        if len(header) < _HEADER.size:
            from avkit.errors import AvkitError

            raise AvkitError("The eSpeak NG process ended unexpectedly: reinstall espeakng-loader and try again.")
        n_json, n_samples = _HEADER.unpack(header)
        return self._server.stdout.read(n_json), self._server.stdout.read(n_samples)


def _load(library_path: str, data_path: str) -> tuple[ctypes.CDLL, dict]:
    """The initialised library, not yet used, and {'version', 'rate'}."""
    library = ctypes.CDLL(library_path)
    library.espeak_Info.restype = ctypes.c_char_p
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), _PHONEME_EVENTS | _DONT_EXIT)
    if rate <= 0:
        raise SystemExit(f"eSpeak NG found no data in {data_path}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else the clock seeds what flutter and aspiration draw
    return library, {"version": library.espeak_Info(None).decode(), "rate": rate}


def _speak(library: ctypes.CDLL, request: dict) -> tuple[dict, bytes]:
    """Speak one request in this process: events as a dictionary, samples as bytes."""
    samples: list[bytes] = []
    phonemes: list[tuple[str, int]] = []
    words: list[tuple[int, int]] = []

    def take(wave, count, events):  # called by the library with each buffer
        if wave and count > 0:
            samples.append(ctypes.string_at(wave, 2 * count))
        i = 0
        while events[i].type != _LIST_END:
            event = events[i]
            if event.type == _PHONEME:
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0].decode("utf-8", "replace")
                phonemes.append((name, event.sample))
            elif event.type == _WORD:
                words.append((event.text_position - 1, event.sample))
            i += 1
        return 0

    callback = _Callback(take)
    library.espeak_SetSynthCallback(callback)
    with tempfile.NamedTemporaryFile("w", prefix="avkit-voice-", encoding="utf-8") as file:
        file.write(request["voice"])
        file.flush()
        status = library.espeak_ng_SetVoiceByFile(file.name.encode())
    library.espeak_SetParameter(_RATE, int(request["wpm"]), 0)
    library.espeak_SetParameter(_VOLUME, 50, 0)  # the usual 100 clips some voices
    text = request["text"].encode()
    if status == 0:
        status = library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None)
    if status != 0 or not samples:
        return {"error": f"status {status}, {len(samples)} buffers of samples"}, b""
    return {"phonemes": phonemes, "words": words}, b"".join(samples)


def _send(reply: dict, samples: bytes = b"") -> None:
    head = json.dumps(reply).encode()
    parts = _HEADER.pack(len(head), len(samples)) + head + samples
    view = memoryview(parts)
    while view:
        view = view[os.write(1, view) :]


def _serve(library_path: str, data_path: str) -> None:
    """Answer requests, one JSON object a line, each in a fork, until standard input ends."""
    library, info = _load(library_path, data_path)
    _send(info)
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            _send(*_speak(library, json.loads(line)))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            _send({"error": f"its process ended with status {status}"})


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2])
