"""Networks that name the lip encoder of a bundled one: bit for bit what they were, refused where the name leads astray."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from avkit import checkpoints, create_model, load_model, weights
from avkit._bundle import bundle, main
from avkit.checkpoints import list_bundled, read_config, save_model, weights_digest
from avkit.errors import CheckpointError, InputError
from avkit.lip_weights import load_lip_encoder
from avkit.lips import LipEncoder, LipEncoderConfig

SMALL = {"cycles": 1, "fusion_cycles": 1, "filters": 8, "channels": 8, "hidden": 8, "lip_hidden": 8, "levels": 2}


def network(seed=0):
    torch.manual_seed(seed)
    return create_model("iianet-tiny", **SMALL).eval()


def encoder(seed=0):
    torch.manual_seed(seed)
    lips = LipEncoder(LipEncoderConfig(stem=2, widths=(2, 2, 4, 4)))
    lips.frontend[1].running_mean.normal_()  # what a trained one's differs in, beside its weights
    return lips


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Bundled networks of our own: `owner` with a lip encoder, `deaf` without one."""
    monkeypatch.setattr(checkpoints, "BUNDLED", tmp_path / "bundled")
    save_model(tmp_path / "bundled/owner", network(1), "iianet-tiny", encoder())
    save_model(tmp_path / "bundled/deaf", network(2), "iianet-tiny")
    return tmp_path / "bundled"


@pytest.fixture
def trained(tmp_path):
    """A run's folder: another network, the same lip encoder."""
    return save_model(tmp_path / "run/model", network(3), "iianet-tiny", encoder(), {"steps": 7})


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_trained_folder_is_complete_in_itself(trained):
    assert any(name.startswith("lips.") for name in load_file(trained / "model.safetensors"))
    assert weights_digest(load_model(trained).lips) == weights_digest(encoder())


def test_a_bundled_network_that_names_its_encoder_is_bit_for_bit_what_it_was(shelf, trained, capsys):
    assert main([str(trained), "reader", "--lips-of", "owner"]) == 0
    assert "lip encoder of owner" in capsys.readouterr().out
    stored = load_file(shelf / "reader/model.safetensors")
    assert stored.keys() == network().state_dict().keys(), "its own weights and no more"
    before, after = load_model(trained), load_model("reader")
    assert after.provenance == {"steps": 7} and after.config == before.config
    frames, mixture = torch.randn(1, 1, 13, 88, 88), torch.randn(1, 8000)
    with torch.no_grad():
        features = [model.lips(frames) for model in (before, after)]
        assert torch.equal(*features)
        assert torch.equal(before(mixture, features[0]), after(mixture, features[1]))
    assert weights_digest(load_lip_encoder("reader")) == weights_digest(encoder())


def test_writing_it_whole_again_gives_the_same_bytes(shelf, trained):
    bundle(trained, "reader", lips_of="owner")
    bundle("reader", "reader")
    for name in ("model.safetensors", "config.json"):
        assert (shelf / "reader" / name).read_bytes() == (trained / name).read_bytes()


def flip_a_bit(folder):
    """The lowest bit of one weight of the lip encoder."""
    tensors = load_file(folder / "model.safetensors")
    weight = tensors["lips.frontend.0.weight"].view(torch.int32)
    weight.view(-1)[0] ^= 1
    save_file(tensors, folder / "model.safetensors")


def test_an_encoder_that_differs_in_one_bit_is_not_dropped(shelf, trained, capsys):
    flip_a_bit(trained)
    assert main([str(trained), "reader", "--lips-of", "owner"]) == 1
    assert "which has another one" in capsys.readouterr().err
    assert "reader" not in list_bundled()


def test_a_changed_owner_is_noticed_when_the_network_is_read(shelf, trained):
    bundle(trained, "reader", lips_of="owner")
    flip_a_bit(shelf / "owner")
    for read in (load_model, load_lip_encoder):
        with pytest.raises(CheckpointError, match="lip encoder of owner, which has other weights by now"):
            read("reader")


def test_a_network_that_others_name_keeps_its_encoder(shelf, trained):
    bundle(trained, "reader", lips_of="owner")
    save_model(shelf.parent / "second", network(4), "iianet-tiny", encoder())
    bundle(shelf.parent / "second", "owner")  # the same encoder: the other network is as it was
    assert weights_digest(load_model("reader").lips) == weights_digest(encoder())
    save_model(shelf.parent / "other", network(4), "iianet-tiny", encoder(1))
    save_model(shelf.parent / "none", network(4), "iianet-tiny")
    for folder in ("other", "none"):
        with pytest.raises(CheckpointError, match="taken from it by reader: bundle those first"):
            bundle(shelf.parent / folder, "owner")
    bundle(trained, "whole")
    with pytest.raises(CheckpointError, match="taken from it by reader: bundle those first"):
        bundle(trained, "owner", lips_of="whole")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("elsewhere", "which this copy of avkit lacks .it has deaf, owner, reader."),
        ("../owner", "which this copy of avkit lacks"),
        ("deaf", "which holds none of its own"),
        ("reader", "which holds none of its own"),
    ],
)
def test_a_name_that_leads_to_no_encoder_is_refused_in_words(shelf, trained, name, words):
    bundle(trained, "reader", lips_of="owner")
    change_config(shelf / "reader", lip_encoder={"of": name, "sha256": weights_digest(encoder())})
    with pytest.raises(CheckpointError, match=words):
        load_model("reader")


@pytest.mark.parametrize(
    ("name", "lips_of", "words"),
    [
        ("reader", "elsewhere", "lacks"),
        ("reader", "deaf", "holds none of its own"),
        ("owner", "owner", "from itself"),
    ],
)
def test_references_that_cannot_be_are_not_written(shelf, trained, name, lips_of, words):
    before = (shelf / "owner/config.json").read_bytes()
    with pytest.raises(CheckpointError, match=words):
        bundle(trained, name, lips_of=lips_of)
    assert list_bundled() == ["deaf", "owner"] and (shelf / "owner/config.json").read_bytes() == before


def test_a_network_without_an_encoder_has_none_to_share(shelf):
    with pytest.raises(CheckpointError, match="which holds none"):
        bundle("deaf", "second", lips_of="owner")


@pytest.mark.parametrize("name", ["Reader", "a/b", "..", "", "two words"])
def test_names_are_plain(shelf, trained, name):
    with pytest.raises(InputError, match="no name for a network"):
        bundle(trained, name)


def test_no_lip_encoder_travels_twice():
    """Of the networks in the package, each encoder is held by one; the catalogue says whose a network reads with."""
    own = {}
    for name in list_bundled():
        entry = read_config(name)[1]["lip_encoder"]
        if entry is not None and "of" in entry:
            assert f"lip encoder of {entry['of']}" in weights.find(name).what
        elif entry is not None:
            own.setdefault(weights_digest(load_lip_encoder(name)), []).append(name)
    assert own and all(len(names) == 1 for names in own.values()), own
