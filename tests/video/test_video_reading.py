"""Reading video: any frame rate, rotation, sample rate; sound that is late, long or absent; files that are no video."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avkit.errors import DataError, InputError
from avkit.video import reading
from avkit.video.writing import Mp4Writer

WIDTH, HEIGHT = 64, 48


def numbered(k: int) -> np.ndarray:
    """A picture that says its number by its gray level; the left upper corner is white."""
    picture = np.full((HEIGHT, WIDTH, 3), 4 * k + 10, np.uint8)
    picture[:16, :16] = 250
    return picture


def write(
    path: Path,
    times: list[float],
    sound: np.ndarray | None = None,
    start: int | None = None,
    rotation: int = 0,
) -> Path:
    rate = 16000 if sound is not None else None
    turned = rotation // 90 % 4
    width, height = (HEIGHT, WIDTH) if turned % 2 else (WIDTH, HEIGHT)
    with Mp4Writer(path, width, height, rate, rotation=rotation, quality=5) as file:
        for k, time in enumerate(times):
            file.picture(np.rot90(numbered(k), -turned), time)
        if sound is not None:
            file.sound(sound, start)
    return path


def numbers(video: reading.Video, start: int = 0) -> dict[int, int]:
    """Frame of the grid -> number of the picture shown."""
    return {
        k: round((float(reading.picture(frame, video, 640)[-8:, -8:].mean()) - 10) / 4)
        for k, frame in reading.frames(video, start)
    }


@pytest.mark.parametrize("rate", [12, 24, 25, 29.97, 50])
def test_the_grid_shows_what_a_player_shows(tmp_path, rate):
    count = round(rate)  # one second
    shown = numbers(reading.probe(write(tmp_path / "x.mp4", [n / rate for n in range(count)])))
    assert list(shown) == list(range(len(shown)))
    assert abs(len(shown) - 25) <= 1
    for k, number in shown.items():
        assert number == min(int((k + 0.5) / 25 * rate + 1e-6), count - 1)


def test_a_variable_frame_rate_keeps_time(tmp_path):
    times = [0.0, 0.02, 0.05, 0.4, 0.44, 0.9, 1.0]
    shown = numbers(reading.probe(write(tmp_path / "x.mp4", times)))
    for k, number in shown.items():
        assert number == max(n for n, time in enumerate(times) if time <= (k + 0.5) / 25 + 1e-6)


def test_reading_goes_on_at_any_frame(tmp_path):
    video = reading.probe(write(tmp_path / "x.mp4", [n / 25 for n in range(60)]))
    whole = numbers(video)
    assert numbers(video, 37) == {k: number for k, number in whole.items() if k >= 37}


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("pixels", ["gray", "rgb24"])
def test_pictures_have_no_gap_between_their_rows(tmp_path, monkeypatch, pixels, rotation):
    monkeypatch.setattr(f"{__name__}.WIDTH", 52)  # FFmpeg's rows are multiples of 32 bytes
    video = reading.probe(write(tmp_path / "x.mp4", [0, 0.04], rotation=rotation))
    for _, frame in reading.frames(video):
        picture = reading.picture(frame, video, 640, pixels)
        assert picture.shape[:2] == (HEIGHT, 52)
        assert picture.flags.c_contiguous and picture.flags.owndata and picture.flags.writeable


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_pictures_are_turned_as_the_file_says(tmp_path, rotation):
    video = reading.probe(write(tmp_path / "x.mp4", [0, 0.04], rotation=rotation))
    assert (video.width, video.height) == (WIDTH, HEIGHT)
    _, frame = next(reading.frames(video))
    gray = reading.picture(frame, video, 640)
    assert gray.shape == (HEIGHT, WIDTH)
    assert gray[:12, :12].mean() > 200 > gray[20:].mean()
    assert reading.picture(frame, video, 640, "rgb24").shape == (HEIGHT, WIDTH, 3)


def click(rate: int, at: float, seconds: float = 1.0) -> np.ndarray:
    """Silence with a short tone from `at` on."""
    t = np.arange(round(seconds * rate)) / rate
    return np.where((t >= at) & (t < at + 0.1), np.sin(2 * np.pi * 440 * t), 0.0)


def heard(video: reading.Video, folder: Path) -> tuple[np.ndarray, float]:
    """The sound at 16 kHz, and when it begins to be loud."""
    count = reading.write_sound(video, folder / "sound.bin")
    sound = np.fromfile(folder / "sound.bin", np.float32)
    assert len(sound) == count
    return sound, float(np.flatnonzero(np.abs(sound) > 0.2)[0]) / 16000


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (44100, 2), (96000, 1)])
def test_sound_of_any_rate_keeps_time_and_level(tmp_path, rate, channels):
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as file:
        pictures = file.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sounds = file.add_stream("pcm_s16le", rate=rate, layout="mono" if channels == 1 else "stereo")
        for k in range(25):
            frame = av.VideoFrame.from_ndarray(numbered(k), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            file.mux(pictures.encode(frame))
        samples = (click(rate, 0.5) * 0.5 * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.repeat(samples, channels)[None], format="s16", layout=sounds.layout.name
        )
        frame.sample_rate = rate
        file.mux(sounds.encode(frame))
        file.mux(pictures.encode(None))
        file.mux(sounds.encode(None))
    video = reading.probe(path, need_audio=True)
    assert (video.sample_rate, video.channels) == (rate, channels)
    sound, begins = heard(video, tmp_path)
    assert abs(len(sound) - 16000) <= 80
    assert begins == pytest.approx(0.5, abs=0.002)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.03)


def test_sound_that_starts_late_is_heard_late(tmp_path):
    path = write(tmp_path / "x.mp4", [n / 25 for n in range(50)], click(16000, 0.2), start=8000)
    video = reading.probe(path, need_audio=True)
    assert video.audio_start == pytest.approx(0.5, abs=0.03)
    sound, begins = heard(video, tmp_path)
    assert begins == pytest.approx(0.7, abs=0.01)
    assert np.abs(sound[: int(0.45 * 16000)]).max() < 0.01


def test_sound_may_be_longer_than_the_pictures(tmp_path):
    video = reading.probe(write(tmp_path / "x.mp4", [0, 0.04, 0.08], click(16000, 1.5, 2.0)), need_audio=True)
    assert video.frames <= 4
    sound, begins = heard(video, tmp_path)
    assert len(sound) >= 31000
    assert begins == pytest.approx(1.5, abs=0.01)


def test_paths_that_are_no_video_are_told(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        reading.probe(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="is a folder"):
        reading.probe(tmp_path)
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    with pytest.raises(DataError, match="cannot be read as video"):
        reading.probe(tmp_path / "text.mp4")


def test_a_file_cut_short_is_told(tmp_path):
    whole = write(tmp_path / "x.mp4", [n / 25 for n in range(50)]).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match=r"damaged|cut short|cannot be read"):
        video = reading.probe(tmp_path / "half.mp4")
        list(reading.frames(video))


def test_a_file_without_sound_is_refused_where_sound_is_needed(tmp_path):
    path = write(tmp_path / "x.mp4", [0, 0.04])
    assert reading.probe(path).sample_rate == 0
    with pytest.raises(InputError, match="no sound"):
        reading.probe(path, need_audio=True)


def test_a_file_without_pictures_is_refused(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "x.wav", np.zeros(16000), 16000)
    with pytest.raises(InputError, match="no pictures"):
        reading.probe(tmp_path / "x.wav")


def test_an_mp4_that_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), Mp4Writer(tmp_path / "x.mp4", WIDTH, HEIGHT) as file:
        file.picture(numbered(0), 0.0)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
