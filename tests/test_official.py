"""Official files are read without running what they hold, recognised, and loaded with nothing dropped in silence."""

import argparse
import io
import os
import pathlib
import pickle
import random
import subprocess
import zipfile
from collections import OrderedDict

import pytest
import torch
import yaml
from parity_fill import inputs, load, official_state_dict, relative_error

from avkit import safe_pickle
from avkit.checkpoints import load_official, to_official
from avkit.errors import CheckpointError
from avkit.lips import LipEncoder
from avkit.official import read_official
from avkit.safe_pickle import Placeholder


class Foreign:
    """A class that a file may name and that must not be imported while it is read."""

    made = 0

    def __init__(self, value):
        type(self).made += 1
        self.value = value

    def __setstate__(self, state):
        type(self).made += 1
        self.__dict__.update(state)


class Settings(dict):
    """A dictionary of another class, as Lightning's hyper-parameters are."""


@pytest.fixture(scope="module")
def iianet():
    return official_state_dict("IIANet")


@pytest.fixture(scope="module")
def rtfs():
    return official_state_dict("RTFS-Net")


@pytest.fixture(scope="module")
def lip_weights():
    return official_state_dict("lip encoder (IIANet repo)")


def best_model(state):
    """What either repository's `serialize` makes: the version is a class of PyTorch's own, not a plain string."""
    infos = {"software_versions": {"torch_version": torch.__version__, "pytorch_lightning_version": "1.8.0"}}
    return {
        "model_name": "IIANet",
        "state_dict": OrderedDict(state),
        "model_args": {"n_src": 2},
        "infos": infos,
    }


def release(path, content, settings=None, folder="lrs2/"):
    """A release archive: the weights and conf.yml in one folder."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{folder}best_model.pth", buffer.getvalue())
        archive.writestr(f"{folder}conf.yml", yaml.safe_dump(settings or {}))
        archive.writestr("__MACOSX/._best_model.pth", b"\0")
    return path


def iianet_settings(cycles):
    return {
        "audionet": {"audionet_name": "IIANet", "audionet_config": {"num_blocks": cycles, "num_sources": 1}}
    }


def same_tensors(model, state):
    back = to_official(model)
    return all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(("cycles", "name"), [(16, "iianet"), (10, "iianet-fast")])
def test_release_archive(tmp_path, iianet, cycles, name):
    path = release(tmp_path / "lrs2.zip", best_model(iianet), iianet_settings(cycles))
    model = load_official(path)
    assert model.official.name == name and model.config.cycles == cycles and not model.training
    assert model.official.infos["model_args"] == {"n_src": 2}
    assert model.official.infos["conf.yml"] == iianet_settings(cycles)
    assert model.official.source == f"{path}:lrs2/best_model.pth"
    assert model.official.unused == [] and model.lips is None
    version = model.official.infos["infos"]["software_versions"]["torch_version"]
    assert isinstance(version, Placeholder) and version.args == (str(torch.__version__),)
    assert version.official_class == "torch.torch_version.TorchVersion"
    assert same_tensors(model, iianet)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lrs2.zip"], "nothing is unpacked"


def test_loaded_release_computes_what_the_official_network_computes(tmp_path, iianet):
    fixture = load("iianet_odd")
    model = load_official(release(tmp_path / "lrs2.zip", best_model(iianet)))
    with torch.inference_mode():
        assert relative_error(model(*inputs("odd", fixture["shapes"])), fixture["output"]) < 1e-4


def lightning(audio, video, **more):
    state = {f"audio_model.{k}": v for k, v in audio.items()} | {
        f"video_model.{k}": v for k, v in video.items()
    }
    return {
        "epoch": 150,
        "global_step": 12,
        "state_dict": OrderedDict(state),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "lr_schedulers": [],
        "callbacks": {},
    } | more


def test_lightning_checkpoint_gives_network_and_lip_encoder(tmp_path, iianet, lip_weights):
    path = tmp_path / "epoch=150.ckpt"
    extra = {"audionet_audionet_config_num_blocks": 16, "args": argparse.Namespace(nodes=1)}
    content = lightning(iianet, lip_weights | {"tcn.weight": torch.zeros(2)}, hyper_parameters=extra)
    content["state_dict"]["loss_func.scale"] = torch.ones(1)
    torch.save(content, path)
    model = load_official(path)
    assert same_tensors(model, iianet) and same_tensors(model.lips, lip_weights)
    assert not any(name.startswith("lips") for name, _ in model.named_parameters())
    assert model.official.infos["epoch"] == 150
    arguments = model.official.infos["hyper_parameters"]["args"]
    assert arguments.official_class == "argparse.Namespace" and arguments.state == {"nodes": 1}
    expected = {"optimizer_states", "lr_schedulers", "callbacks", "loss_func.scale", "video_model.tcn.weight"}
    assert set(model.official.unused) == expected


def test_lightning_checkpoint_with_a_video_network_of_another_kind(tmp_path, iianet):
    path = tmp_path / "last.ckpt"
    torch.save(lightning(iianet, {"encoder.weight": torch.zeros(2)}), path)
    model = load_official(path)
    assert model.lips is None and "video_model.encoder.weight" in model.official.unused


@pytest.mark.parametrize("repeats", [4, 6, 12])
def test_rtfs_net_says_its_repeats_in_its_settings(tmp_path, rtfs, repeats):
    arguments = {"refinement_module": {"audio_params": {"repeats": repeats}, "video_params": {"repeats": 1}}}
    nested, flat = tmp_path / "best_model.pth", tmp_path / "epoch=1-val_loss=-13.16.ckpt"
    torch.save(best_model(rtfs) | {"model_name": "AVNet", "model_args": arguments}, nested)
    torch.save(lightning(rtfs, {}, hyper_parameters={"audionet_audio_params_repeats": repeats}), flat)
    for path in (nested, flat):
        model = load_official(path)
        assert model.config.repeats == repeats and same_tensors(model, rtfs)


def test_rtfs_net_without_settings_asks_for_its_name(tmp_path, rtfs):
    path = tmp_path / "best_model.pth"
    torch.save(rtfs, path)
    with pytest.raises(CheckpointError, match="rtfs-net-4"):
        load_official(path)
    assert load_official(path, name="rtfs-net-6").config.repeats == 6


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_lip_encoder(tmp_path, lip_weights, legacy, prefix):
    path = tmp_path / "lrw_resnet18_mstcn_adamw_s3.pth.tar"
    state = {f"{prefix}{k}": v for k, v in lip_weights.items()} | {
        f"{prefix}tcn.mb_ms_tcn.weight": torch.zeros(3)
    }
    content = {"epoch_idx": 79, "model_state_dict": state, "optimizer_state_dict": {"state": {}}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    model = load_official(path)
    assert isinstance(model, LipEncoder) and same_tensors(model, lip_weights)
    assert set(model.official.unused) == {"optimizer_state_dict", "tcn.mb_ms_tcn.weight"}
    model.train()
    assert not any(module.training for module in model.modules()), "its batch norms stay as they were trained"


def test_file_of_older_code_is_told_by_the_names_that_differ(tmp_path, rtfs):
    """RTFS-Net's first public code had no norm and no activation after the projection."""
    old = {
        k: v
        for k, v in rtfs.items()
        if "audio_net" not in k or "projection.full_layer" not in k or ".2." in k
    }
    old = {k.replace("crossmodal_fusion", "fusion"): v for k, v in old.items()}
    path = tmp_path / "best_model.pth"
    torch.save(best_model(old), path)
    with pytest.raises(CheckpointError) as error:
        load_official(path, name="rtfs-net-4")
    words = str(error.value)
    assert "refinement_module.audio_net.blocks.projection.full_layer.*" in words
    assert "refinement_module.fusion.fusion_module.audio_lstm" in words
    assert "other code" in words


def test_shape_that_differs_is_named(tmp_path, iianet):
    path = tmp_path / "best_model.pth"
    torch.save(iianet | {"pre_v.weight": torch.zeros(64, 256, 3)}, path)
    with pytest.raises(CheckpointError, match=r"pre_v.weight is \(64, 256, 3\)"):
        load_official(path)


@pytest.mark.parametrize("cycles", [4, 20])
def test_unpublished_number_of_cycles_is_named(tmp_path, iianet, cycles):
    path = release(tmp_path / "own.zip", best_model(iianet), iianet_settings(cycles))
    with pytest.raises(CheckpointError, match=f"{cycles} cycles"):
        load_official(path)
    assert load_official(path, name="iianet").config.cycles == 16


# ------------------------------------------------------------------------------------------------------ hostile files


class Attack:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def canary(path):
    pathlib.Path(path).touch()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "attack",
    [
        lambda target: Attack(os.system, f"touch {target}"),
        lambda target: Attack(eval, f"__import__('pathlib').Path({str(target)!r}).touch()"),
        lambda target: Attack(exec, f"open({str(target)!r}, 'w')"),
        lambda target: Attack(subprocess.check_call, ["touch", str(target)]),
        lambda target: Attack(open, str(target), "w"),
    ],
    ids=["os.system", "eval", "exec", "subprocess", "open"],
)
def test_malicious_file_is_refused_by_name_and_runs_nothing(tmp_path, iianet, attack, legacy):
    path, target = tmp_path / "best_model.pth", tmp_path / "canary"
    torch.save(
        best_model(iianet) | {"model_args": attack(target)}, path, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(CheckpointError, match="Do not trust"):
        load_official(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the file is as dangerous as it claims: a plain reader runs it"


def test_call_of_an_unknown_function_becomes_a_placeholder(tmp_path, iianet):
    path, target = tmp_path / "best_model.pth", tmp_path / "canary"
    torch.save(best_model(iianet) | {"model_args": Attack(canary, str(target)), "own": Foreign(3)}, path)
    made = Foreign.made
    model = load_official(path)
    assert not target.exists() and Foreign.made == made
    assert model.official.infos["model_args"].official_class.endswith("canary")
    assert model.official.infos["model_args"].args == (str(target),)
    assert model.official.infos["own"].state == {"value": 3}
    assert "not imported" in repr(model.official.infos["own"])


def test_containers_of_other_classes_keep_their_content(tmp_path, iianet):
    path = tmp_path / "last.ckpt"
    torch.save(best_model(iianet) | {"hyper_parameters": Settings(rate=16000)}, path)
    settings = load_official(path).official.infos["hyper_parameters"]
    assert settings.items == [("rate", 16000)]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read_or_refused_without_running(tmp_path, protocol):
    path, target = tmp_path / "w.pth", tmp_path / "canary"
    torch.save({"a": Attack(os.system, f"touch {target}")}, path, pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match="Do not trust"):
        safe_pickle.read(path, "w.pth")
    assert not target.exists()


def test_rebuilding_functions_cannot_be_altered(tmp_path):
    """A pickle may set the state of what it names: here the defaults of one of PyTorch's functions."""
    name = b"ctorch._utils\n_rebuild_tensor_v2\n"
    hostile = b"\x80\x02" + name + b"(N}(X\x0c\x00\x00\x00__defaults__)utb."
    with pytest.raises((CheckpointError, pickle.UnpicklingError)):
        safe_pickle._loads(hostile)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None,)


def test_archive_that_would_unpack_to_too_much_is_refused(tmp_path, iianet, monkeypatch):
    path = release(tmp_path / "lrs2.zip", best_model(iianet))
    monkeypatch.setattr(safe_pickle, "MAX_BYTES", 2**20)
    with pytest.raises(CheckpointError, match="unpacks to"):
        load_official(path)


def test_archive_with_paths_that_climb_writes_nothing(tmp_path, iianet):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = release(inner / "lrs2.zip", best_model(iianet), folder="../../")
    load_official(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inner", "lrs2.zip"]


def test_several_files_in_an_archive(tmp_path, iianet):
    path = tmp_path / "weights.zip"
    buffer = io.BytesIO()
    torch.save(iianet, buffer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("4/epoch=1.ckpt", buffer.getvalue())
        archive.writestr("12/epoch=2.ckpt", buffer.getvalue())
    with pytest.raises(CheckpointError, match="4/epoch=1.ckpt, 12/epoch=2.ckpt"):
        load_official(path)
    assert load_official(path, member="12/epoch=2.ckpt").official.source.endswith(":12/epoch=2.ckpt")
    with pytest.raises(CheckpointError, match="holds no 'x.pth'"):
        load_official(path, member="x.pth")


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "best_model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for member in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"):
            archive.writestr(member, b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_official(path)


@pytest.mark.parametrize("archive", [False, True])
def test_damaged_files_are_refused_wherever_they_are_cut(tmp_path, archive):
    content = {"state_dict": {"sm.weight": torch.arange(64.0)}, "infos": {"n": 1}}
    whole = tmp_path / "whole"
    if archive:
        release(whole, content)
    else:
        torch.save(content, whole)
    data = whole.read_bytes()
    for cut in range(0, len(data) - 1, max(1, len(data) // 60)):
        path = tmp_path / "cut.pth"
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError):
            read_official(path)
    read_official(whole)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_with_wrong_bytes_are_read_or_refused(tmp_path, legacy):
    rng = random.Random(legacy)
    content = {"state_dict": {"sm.weight": torch.arange(4.0)}, "args": argparse.Namespace(n=1)}
    torch.save(content, tmp_path / "whole", _use_new_zipfile_serialization=not legacy)
    whole, refused = (tmp_path / "whole").read_bytes(), 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "wrong.pth").write_bytes(data)
        try:
            read_official(tmp_path / "wrong.pth")
        except CheckpointError:
            refused += 1
    assert refused > 20


def test_files_that_are_no_weights_are_refused_in_words(tmp_path):
    (tmp_path / "page.html").write_text("<!doctype html>")
    with pytest.raises(CheckpointError, match="get it again"):
        load_official(tmp_path / "page.html")
    with pytest.raises(CheckpointError, match="no file"):
        load_official(tmp_path / "none.pth")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "best_model.pth").touch()
    with pytest.raises(CheckpointError, match=r"best_model\.pth"):
        load_official(tmp_path / "folder")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="a list"):
        load_official(tmp_path / "list.pth")
    torch.save({"state_dict": {}}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="no weights"):
        load_official(tmp_path / "empty.pth")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no network known here"):
        load_official(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no official network"):
        load_official(tmp_path / "other.pth", name="convtasnet")
