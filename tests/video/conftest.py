"""A short composite video, and what comes out of it; made once."""

from types import SimpleNamespace

import pytest
from video_scenes import Talk, scene

import avkit
from avkit.video.composite import write_composite


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    """Two talkers for two seconds: .talk, .scene, .path."""
    talk = Talk(1)
    people = scene(talk.crops)
    path = write_composite(tmp_path_factory.mktemp("composite") / "two talkers.mp4", people, talk.mix)
    return SimpleNamespace(talk=talk, scene=people, path=path)


@pytest.fixture(scope="session")
def separated(short, tmp_path_factory):
    """The same, separated, working files kept: .out, .report."""
    out = tmp_path_factory.mktemp("separated")
    report = avkit.separate_video(short.path, out, model="rtfs-net-tiny", keep=True)
    return SimpleNamespace(out=out, report=report, **vars(short))
