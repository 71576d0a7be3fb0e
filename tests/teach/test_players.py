"""Players: lossless, labelled, at one stated gain; clips in step."""

from __future__ import annotations

import base64
import io
import re

import av
import numpy as np
import pytest
import soundfile
import torch

from avkit import teach
from avkit.errors import InputError
from avkit.teach import players

RATE = 16000


def _sources(html: str) -> list[bytes]:
    return [
        base64.b64decode(data) for data in re.findall(r'src="data:[a-z]+/[a-z0-9]+;base64,([^"]+)"', html)
    ]


def _decode(data: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), dtype="int16")[0]


def _blink(frames: int, at: int) -> np.ndarray:
    """Black mouth frames with one white frame."""
    made = np.zeros((frames, 96, 96), np.uint8)
    made[at] = 255
    return made


def test_sound_is_lossless():
    wave = torch.rand(5000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    heard = _decode(_sources(teach.listen({"noise": wave}).html)[0])
    np.testing.assert_array_equal(heard, np.round(wave.numpy() * 32767).astype(np.int16))


def test_one_gain_for_all_and_it_is_told():
    loud, faint = 2.0 * torch.ones(100), 0.5 * torch.ones(100)
    shown = teach.listen({"loud": loud, "faint": faint})
    first, second = (_decode(data) for data in _sources(shown.html))
    assert abs(first[0] / second[0] - 4) < 1e-3
    assert abs(first[0] / 32767 - 0.98) < 1e-3
    assert "one gain for all: ×0.49" in shown.html and "×0.49" in shown.text


def test_quiet_sounds_are_left_alone():
    shown = teach.listen({"quiet": torch.full((100,), 0.01)})
    assert _decode(_sources(shown.html)[0])[0] == round(0.01 * 32767)
    assert "gain ×1<" in shown.html


def test_label_is_text_and_escaped():
    shown = teach.listen({"a < b": torch.zeros(10)})
    assert "<figcaption>a &lt; b</figcaption>" in shown.html and 'aria-label="a &lt; b"' in shown.html


def test_clip_has_its_lips_in_step_and_its_sound_lossless():
    """A click and a white frame at the same moment come out within 40 ms of each other; here, exactly together."""
    at = 20
    wave = torch.zeros(2 * RATE)
    wave[at * 640] = 0.9
    data = _sources(teach.listen({"click": (wave, _blink(50, at))}).html)[0]
    with av.open(io.BytesIO(data)) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    with av.open(io.BytesIO(data)) as container:
        pictures = [
            (float(f.pts * f.time_base), f.to_ndarray(format="gray").mean())
            for f in container.decode(video=0)
        ]
    np.testing.assert_array_equal(sound, np.round(wave.numpy() * 32767).astype(np.int16))
    brightest = max(pictures, key=lambda picture: picture[1])[0]
    assert len(pictures) == 50
    assert abs(brightest - np.abs(sound).argmax() / RATE) < 1e-6


def test_clips_are_the_same_bytes_every_time():
    wave, lips = torch.zeros(RATE), _blink(25, 3)
    assert teach.listen({"a": (wave, lips)}).html == teach.listen({"a": (wave, lips)}).html


@pytest.mark.parametrize(
    "sounds,words",
    [
        ({}, "no sounds"),
        ({" ": torch.zeros(10)}, "label"),
        ({"two": torch.zeros(2, 10)}, "shape"),
        ({"none": torch.zeros(0)}, "shape"),
        ({"nan": torch.tensor([float("nan")])}, "NaN"),
        ({"late": (torch.zeros(2 * RATE), np.zeros((47, 96, 96), np.uint8))}, "40 ms"),
        ({"floats": (torch.zeros(RATE), np.zeros((25, 96, 96), np.float32))}, "uint8"),
    ],
)
def test_bad_input_is_named(sounds, words):
    with pytest.raises(InputError, match=words):
        teach.listen(sounds)


def test_a_gain_that_clips_is_refused():
    with pytest.raises(InputError, match="clip"):
        teach.listen({"a": torch.ones(10)}, gain=2.0)


def test_webm_codec_is_used_where_h264_is_missing(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"libvpx-vp9", "flac"})
    data = players.movie(np.zeros(RATE, np.float32), _blink(25, 3), RATE)
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].codec_context.name == "vp9"
