"""Which network reads a video: bundled, official with the user's own lip encoder, or refused with a reason."""

import pytest
import torch

import avkit
from avkit import weights
from avkit.checkpoints import to_official, weights_digest
from avkit.errors import CheckpointError, InputError
from avkit.lip_weights import load_lip_encoder
from avkit.lips import LipEncoder
from avkit.video import network
from avkit.weights import find


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of weights."""
    monkeypatch.setenv("AVKIT_CACHE", str(tmp_path))
    return tmp_path / "weights"


def fetch(cache, name: str) -> None:
    """Random weights in the official file format, taken in as a user does who has the file."""
    cache.mkdir(exist_ok=True)
    source = cache.parent / f"{name}.file.pth"
    torch.manual_seed(0)
    if name.startswith("lip-encoder"):
        torch.save({"model_state_dict": to_official(LipEncoder())}, source)
    else:
        torch.save(
            {"model_name": "IIANet", "state_dict": to_official(avkit.create_model("iianet")), "infos": {}},
            source,
        )
    row = weights.find(name)
    if row.url.endswith(".zip"):
        import zipfile

        with zipfile.ZipFile(cache.parent / "release.zip", "w") as archive:
            archive.write(source, "best_model.pth")
        source = cache.parent / "release.zip"
    weights.get(name, source, quiet=True)


def test_without_official_weights_the_bundled_network_is_taken_and_cautioned(cache):
    model, name, caution = network.load_network()
    assert name == "rtfs-net-tiny"
    assert model.lips is not None
    assert "synthetic talkers only" in caution
    assert "avkit weights get iianet-lrs2" in caution


def test_official_weights_alone_say_how_to_get_a_lip_encoder(cache):
    fetch(cache, "iianet-lrs2")
    assert network.automatic() == "rtfs-net-tiny"
    with pytest.raises(CheckpointError, match="avkit weights get lip-encoder-iianet"):
        network.load_network("iianet-lrs2")


def test_official_weights_with_their_lip_encoder_are_taken_without_being_asked_for(cache):
    fetch(cache, "iianet-lrs2")
    fetch(cache, "lip-encoder-iianet")
    model, name, caution = network.load_network()
    assert (name, caution) == ("iianet-lrs2", "")
    assert isinstance(model.lips, LipEncoder)
    by_file, _, caution = network.load_network(cache / "iianet-lrs2.zip")
    assert isinstance(by_file.lips, LipEncoder)
    assert caution == ""


def test_networks_that_read_no_faces_are_refused(cache):
    with pytest.raises(InputError, match="2 voices without regard to lips"):
        model = avkit.load_model("rtfs-net-tiny")
        two = avkit.create_model("rtfs-net-tiny-audio-only")
        object.__setattr__(two, "lips", model.lips)
        network.load_network(two)
    with pytest.raises(CheckpointError, match="without a lip encoder"):
        network.load_network(avkit.create_model("iianet-tiny"))
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        network.load_network("no-such-network")


def test_a_network_of_unknown_origin_is_marked(cache):
    model = avkit.load_model("rtfs-net-tiny")
    assert "unknown origin" in network.load_network(model)[2]


@pytest.mark.soak
def test_official_weights_separate_a_video(cache, short, tmp_path):
    """The whole path of someone who has both official files; the weights are random here, so only the form is looked at."""
    import numpy as np
    import soundfile

    fetch(cache, "iianet-lrs2")
    fetch(cache, "lip-encoder-iianet")
    report = avkit.separate_video(short.path, tmp_path / "out")
    assert (report["model"], report["caution"]) == ("iianet-lrs2", "")
    assert len(report["people"]) == 2
    for entry in report["people"]:
        voice, rate = soundfile.read(tmp_path / "out" / entry["voice"])
        assert rate == 16000
        assert np.isfinite(voice).all()
        assert np.abs(voice[2000:30000]).max() > 0


def test_a_lip_encoder_is_known_by_the_name_of_its_weights(cache):
    with pytest.raises(CheckpointError, match="avkit weights get lip-encoder-iianet"):
        load_lip_encoder("lip-encoder-iianet")
    fetch(cache, "lip-encoder-iianet")
    by_name, by_file = load_lip_encoder("lip-encoder-iianet"), load_lip_encoder(cache / find("lip-encoder-iianet").file_name)
    assert not by_name.training and weights_digest(by_name) == weights_digest(by_file)
    fetch(cache, "iianet-lrs2")
    assert weights_digest(load_lip_encoder("iianet-lrs2")) == weights_digest(by_name)
