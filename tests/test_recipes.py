"""The configurations that come with the package: what they say, and that every full-size network takes a step by them."""

from pathlib import Path

import corpus_trees
import pytest
import torch
import yaml

import avkit
from avkit import training
from avkit.data.prepare import main as prepare
from avkit.lip_weights import save_lip_encoder
from avkit.lips import LipEncoder

NETWORKS = ("rtfs-net-4", "rtfs-net-6", "rtfs-net-12", "iianet", "iianet-fast")


def resolved(*names: str) -> dict:
    return yaml.safe_load(training.resolve(list(names), []))


TINY = ("rtfs-net-tiny", "iianet-tiny")


@pytest.mark.parametrize("name", [*NETWORKS, *TINY, *(f"{name}-audio-only" for name in TINY)])
def test_every_network_has_its_configuration(name):
    config = resolved(name)
    assert config["model"]["init_args"]["network"] == name
    assert config["trainer"]["gradient_clip_val"] == 5.0


@pytest.mark.parametrize("name", TINY)
def test_twins_differ_from_their_network_in_the_lips_alone(name):
    whole, opening, alone = (resolved(name + suffix) for suffix in ("", "-opening", "-audio-only"))
    assert opening["data"]["init_args"].pop("mouths") == "mouths-opening"
    assert whole["data"]["init_args"].pop("mouths") is alone["data"]["init_args"].pop("mouths") is None
    assert opening == whole | {"base": name}
    changed = {"network": f"{name}-audio-only", "audio_only": True}
    assert alone["model"]["init_args"] == whole["model"]["init_args"] | changed
    assert alone["data"]["init_args"] == whole["data"]["init_args"] | {"both": True}
    assert alone["trainer"] == whole["trainer"]


@pytest.mark.parametrize("corpus", ["lrs2", "lrs3", "vox2", "grid"])
def test_official_recipes(corpus):
    """RTFS-Net: AdamW 1e-3, decay 0.1, batch 4, 200 epochs, stop after 15. IIANet: Adam, batch 3, 500, 20."""
    for name, expected in {
        "rtfs-net-12": ("adamw", 0.1, 4, "fixed", 200, 15),
        "iianet-fast": ("adam", 0.0, 3, "dynamic", 500, 20),
    }.items():
        config = resolved(name, corpus)
        model, data, trainer = config["model"]["init_args"], config["data"]["init_args"], config["trainer"]
        stop = trainer["callbacks"][0]["init_args"]["patience"]
        found = (
            model["optimizer"],
            model["weight_decay"],
            data["batch_size"],
            data["mixing"],
            trainer["max_epochs"],
            stop,
        )
        assert found == expected
        assert (model["learning_rate"], model["train_loss"], model["schedule"], model["patience"]) == (
            0.001,
            "snr",
            "plateau",
            10,
        )
        assert (data["root"], data["segment"], data["start"]) == (f"data/{corpus}", 2.0, "first")


def test_the_papers_recipe_is_a_second_file():
    model = resolved("rtfs-net-6", "rtfs-net-paper", "lrs2")["model"]["init_args"]
    assert (model["network"], model["train_loss"], model["patience"]) == ("rtfs-net-6", "si-snr", 5)
    model = resolved("iianet-fast", "iianet-paper", "lrs2")["model"]["init_args"]
    assert (model["network"], model["train_loss"], model["patience"]) == ("iianet-fast", "si-snr", 10)


def test_every_configuration_says_what_it_is():
    for name in training.config_names():
        assert training.summary_of(name).endswith("."), name


# --- one step each, on generated trees ---


@pytest.fixture(scope="module")
def lip_encoder(tmp_path_factory):
    """The published encoder's shape, random weights."""
    torch.manual_seed(0)
    return save_lip_encoder(tmp_path_factory.mktemp("lips") / "full", LipEncoder())


def one_step(configs: list[str], corpus: str, seconds: float, lips: Path, folder: Path) -> torch.nn.Module:
    """`--trainer.fast_dev_run true` with a batch of 1 on a tree named as the corpus names its files: the network after it."""
    corpus_trees.make(folder / corpus, corpus, {"tr": 2, "cv": 2, "tt": 2}, seconds)
    assert prepare([corpus, str(folder / corpus), str(folder / corpus), "--quiet"]) == 0
    settings = [
        f"--data.root={folder / corpus}",
        f"--data.segment={seconds}",
        "--data.batch_size=1",
        "--data.workers=0",
        f"--model.lip_encoder={lips}",
        "--trainer.fast_dev_run=true",
        "--trainer.accelerator=cpu",
    ]
    trainer = training.train([*configs, corpus], folder / "run", settings)
    assert trainer.global_step == 1 and trainer.callback_metrics["val_loss"].isfinite()
    return avkit.load_model(folder / "run/model", fast=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_full_size_network_takes_a_step(name, lip_encoder, tmp_path):
    """Validated, kept, and as large as published; all weights are numbers."""
    network = one_step([name], "lrs2", 0.4, lip_encoder, tmp_path)
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert sum(p.numel() for p in network.parameters()) == {"r": 740_210, "i": 3_036_670}[name[0]]
    assert network.lips.config.widths == (64, 128, 256, 512)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("corpus", corpus_trees.CORPORA)
@pytest.mark.parametrize("configs", [*([name] for name in NETWORKS), ["rtfs-net-12", "rtfs-net-paper"]], ids="+".join)
def test_every_recipe_takes_a_step_on_every_corpus(configs, corpus, lip_encoder, tmp_path):
    one_step(configs, corpus, 2.0, lip_encoder, tmp_path)
