"""Training runs: they learn, go on bit for bit after being killed, stop on bad numbers, leave a model behind."""

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_corpus
import yaml
from safetensors.torch import load_file, save_file

import avkit
from avkit import cli, training
from avkit.callbacks import AtomicCheckpointIO, TrainingError
from avkit.curves import read_curves
from avkit.errors import CheckpointError, DataError, InputError
from avkit.learner import Separation, begin_with
from avkit.lip_weights import save_lip_encoder
from avkit.lips import LipEncoder, LipEncoderConfig

HERE = Path(__file__).parent
SMALL = {
    "cycles": 3,
    "fusion_cycles": 2,
    "filters": 16,
    "channels": 8,
    "hidden": 16,
    "lip_hidden": 8,
    "levels": 2,
}
WITHOUT_CHANCE = {"dropout": 0.0, "drop_path": 0.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = toy_corpus.make(tmp_path_factory.mktemp("toy"), {"tr": 10, "cv": 3}, seconds=0.4)
    torch.manual_seed(0)
    save_lip_encoder(root / "lips", LipEncoder(LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))))
    return root


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory):
    """Uses everything a resumed run must keep: plateau, average, dropout, mixing, augmentation."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    model = {
        "network": "iianet-tiny",
        "overrides": SMALL,
        "lip_encoder": str(corpus / "lips"),
        "learning_rate": 0.01,
        "patience": 0,
        "average": 0.9,
        "warmup": 2,
    }
    data = {"root": str(corpus), "segment": 0.4, "batch_size": 4, "mixing": "dynamic", "cache": "memory"}
    trainer = {"max_epochs": 3, "accelerator": "cpu", "gradient_clip_val": 5.0, "log_every_n_steps": 1}
    content = {
        "model": {"class_path": "avkit.learner.Separation", "init_args": model},
        "data": {"class_path": "avkit.data.datamodule.MixtureData", "init_args": data},
        "trainer": trainer,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def start(config: Path, out: Path, *settings: str, where: str = "never") -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, HERE / "training_run.py", where, "--config", config, "--out", out, *settings]
    return subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def state(out: Path) -> dict:
    checkpoint = torch.load(out / "last.ckpt", weights_only=True)
    checkpoint["callbacks"].pop("Speed")  # seconds differ
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "callbacks", "plateau")}


def assert_same(one, other, path="") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{number}")
    else:
        assert one == other, path


def assert_same_run(out: Path, reference: Path) -> None:
    assert_same(state(out), state(reference))
    assert (out / "model/model.safetensors").read_bytes() == (
        reference / "model/model.safetensors"
    ).read_bytes()
    one, other = (json.loads((folder / "run.json").read_text()) for folder in (out, reference))
    assert (one["val_loss"], one["examples"]) == (other["val_loss"], other["examples"])


@pytest.fixture(scope="module")
def unbroken(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    done = start(config, out, "--every", "2")
    assert done.returncode == 0, done.stderr
    assert "litlogger" not in done.stdout + done.stderr, "Lightning advertises other services"
    return out


def test_a_run_leaves_what_it_promises(unbroken, corpus):
    for name in (
        "config.yaml",
        "last.ckpt",
        "best.ckpt",
        "run.json",
        "model/config.json",
        "csv/version_0/metrics.csv",
    ):
        assert (unbroken / name).exists(), name
    assert list((unbroken / "tensorboard").iterdir())
    run = json.loads((unbroken / "run.json").read_text())
    assert run["steps"] == 15 and run["examples"] == 60 and run["seed"] == 0 and run["minutes"] > 0
    validated = run["validation"]["val_loss"]
    assert validated[-1][0] >= 14 and min(value for _, value in validated) == pytest.approx(run["val_loss"], abs=1e-3)
    model = avkit.load_model(unbroken / "model")
    assert model.provenance["command"].startswith("avkit train --config small")
    assert model.lips is not None and model(torch.zeros(1, 6400), torch.zeros(1, 512, 10)).shape == (
        1,
        1,
        6400,
    )
    best = torch.load(unbroken / "best.ckpt", weights_only=True)["state_dict"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, best[f"average.{key}"]), "the average of the best epoch is what is kept"
    rows = list(csv.DictReader((unbroken / "csv/version_0/metrics.csv").open()))
    assert {
        "train_loss",
        "val_loss",
        "val_si_snr_improvement",
        "learning_rate",
        "examples_per_second",
        "share_data",
    } <= set(rows[0])
    assert (
        sum(bool(row["val_loss"]) for row in rows) == 3 and sum(bool(row["train_loss"]) for row in rows) == 15
    )


def test_killed_runs_go_on_bit_for_bit(config, unbroken, tmp_path):
    """Killed before a step, while writing a checkpoint, and in a validation; then left in peace."""
    for where in ("step:4", "writing:3", "validation:1", "never"):
        done = start(config, tmp_path, "--every", "2", where=where)
        assert done.returncode == (0 if where == "never" else -9), done.stderr
    assert "Going on from" in done.stdout
    assert_same_run(tmp_path, unbroken)
    assert not list(tmp_path.glob(".*")), "what was half written is gone"


RTFS = {
    "repeats": 1, "channels": 8, "hidden": 8, "rnn_hidden": 4, "rnn_layers": 1, "attention_heads": 2,
    "lip_hidden": 8, "lip_heads": 2, "n_fft": 256, "hop": 128,
}  # fmt: skip
VARIETIES = {
    "iianet": [],
    "rtfs-net, accumulated, from files": [
        "--model.network=rtfs-net-tiny",
        f"--model.overrides={json.dumps(RTFS)}",
        "--trainer.accumulate_grad_batches=2",
        "--data.cache=none",
        "--data.workers=1",
    ],
}


KILLS = int(os.environ.get("AVKIT_KILLS", "10"))  # for each of two networks: at least 20 in `make soak`


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("settings", VARIETIES.values(), ids=VARIETIES)
def test_random_kills(config, settings, tmp_path, capsys):
    """Killed at random moments, for each of two networks; runs left to end must equal the unbroken one. Prints a line a kill."""
    reference, out = tmp_path / "unbroken", tmp_path / "broken"
    assert start(config, reference, *settings).returncode == 0
    began = float((reference / "config.yaml").stat().st_mtime)
    lasted = (reference / "last.ckpt").stat().st_mtime - began
    chance = random.Random(0)
    kills = 0
    for _ in range(6 * KILLS):
        moment = chance.uniform(0, 0.4 * lasted)
        done = start(config, out, "--every", "1", *settings, where=f"after:{moment:.3f}")
        if done.returncode == 0:
            assert_same_run(out, reference)
            with capsys.disabled():
                print(f"\nleft to end after {kills} kills: equal to the unbroken run, bit for bit")
            if kills >= KILLS:
                return
            for path in ("last.ckpt", "best.ckpt"):
                (out / path).unlink()
        else:
            assert done.returncode == -9, done.stderr
            kills += 1
            at = torch.load(out / "last.ckpt", weights_only=True)["global_step"] if (out / "last.ckpt").exists() else 0
            half = sum(path.name.startswith(".") for path in out.iterdir())
            with capsys.disabled():
                print(f"\nkill {kills}: {moment:.2f} s after training began, step {at} saved, {half} half-written files", end="")
    pytest.fail(f"no run ended in {6 * KILLS} attempts with {kills} kills")


def test_the_same_command_again_after_the_end_changes_nothing(config, unbroken):
    before = state(unbroken)
    again = start(config, unbroken, "--every", "2")
    assert again.returncode == 0, again.stderr
    assert_same(state(unbroken), before)


def test_other_settings_are_refused_and_fresh_starts_anew(config, unbroken, tmp_path):
    first = start(config, tmp_path, "--trainer.max_epochs=1")
    assert first.returncode == 0, first.stderr
    other = start(config, tmp_path, "--trainer.max_epochs=2", "--model.learning_rate=0.001")
    assert other.returncode == 2 and "model.learning_rate: 0.01 became 0.001" in other.stderr
    longer = start(config, tmp_path, "--trainer.max_epochs=2")
    assert longer.returncode == 0 and json.loads((tmp_path / "run.json").read_text())["steps"] == 10
    fresh = start(config, tmp_path, "--fresh", "--every", "7")
    assert fresh.returncode == 0 and "A new run" in fresh.stdout
    assert_same_run(tmp_path, unbroken)


def test_early_stopping_holds_after_the_end(config, tmp_path):
    """No validation is 1000 dB better than the first: patience 1 ends the run after two, and for good."""
    stop = {"monitor": "val_loss", "patience": 1, "min_delta": 1000.0}
    stop = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": stop}
    extra = tmp_path / "stop.yaml"
    extra.write_text(yaml.safe_dump({"trainer": {"callbacks": [stop]}}))
    for _ in range(2):
        trainer = training.train([config, extra], tmp_path / "run")
        assert trainer.global_step == 10


def test_a_run_of_so_many_steps_ends_with_a_validation(config, tmp_path):
    trainer = training.train(
        [config], tmp_path, ["--trainer.max_steps=7", "--trainer.max_epochs=-1", "--model.schedule=cosine"]
    )
    assert trainer.global_step == 7 and len(read_curves(tmp_path)["val_loss"][0]) == 2
    rates = read_curves(tmp_path)["learning_rate"][1]
    assert rates[0] < 0.01 and rates[-1] < 0.2 * max(rates), "warm-up, then down to the end of the steps"
    assert (tmp_path / "model/config.json").exists()


@pytest.mark.parametrize("wanted, used", [(None, 6), (4, 4), (50, 6)])
def test_the_first_line_counts_the_validation_items_that_are_used(config, tmp_path, capsys, wanted, used):
    """The corpus has three validation mixtures of two talkers."""
    some = [] if wanted is None else [f"--data.validation_items={wanted}"]
    trainer = training.train([config], tmp_path, ["--trainer.max_steps=1", *some])
    assert f" {used} validation items." in capsys.readouterr().out
    assert sum(float(batch["weight"].sum()) for batch in trainer.datamodule.val_dataloader()) == used


def curve(out: Path, key: str) -> list[float]:
    rows = csv.DictReader((out / "csv/version_0/metrics.csv").open())
    return [float(row[key]) for row in rows if row[key]]


def test_two_processes_train_as_one(config, tmp_path):
    """Two processes with half the batch each: the same curves within 1e-4 dB, an uneven validation included."""
    overrides = yaml.safe_dump(SMALL | WITHOUT_CHANCE, default_flow_style=True, width=10_000).strip()
    shared = [f"--model.overrides={overrides}", "--trainer.max_epochs=2"]
    one = start(config, tmp_path / "one", *shared)
    assert one.returncode == 0, one.stderr
    two = start(
        config,
        tmp_path / "two",
        *shared,
        "--data.batch_size=2",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
    )
    assert two.returncode == 0, two.stderr
    for key, count in (("train_loss", 10), ("val_loss", 2), ("val_si_snr_improvement", 2)):
        expected, found = curve(tmp_path / "one", key), curve(tmp_path / "two", key)
        assert len(found) == count
        assert found == pytest.approx(expected, abs=1e-4), key
    assert json.loads((tmp_path / "two/run.json").read_text())["examples"] == 40


def test_bad_numbers_stop_the_run_and_save_the_batch(config, tmp_path, monkeypatch):
    step = Separation.training_step

    def spoilt(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.trainer.global_step == 3 else loss

    monkeypatch.setattr(Separation, "training_step", spoilt)
    with pytest.raises(TrainingError, match="The loss of step 4") as error:
        training.train([config], tmp_path, every=1)
    saved = torch.load(next(tmp_path.glob("bad-batch-step-*.pt")), weights_only=True)
    assert saved["batch"]["mixture"].shape == (4, 6400) and not torch.isfinite(saved["loss"])
    assert str(tmp_path) in str(error.value)
    weights = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values()), (
        "the last checkpoint is from before"
    )


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": torch.tensor(1)}, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device.*unharmed"):
        io.save_checkpoint({"step": torch.tensor(2)}, path)
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_frozen_lip_encoder_stays_frozen(corpus):
    module = Separation("iianet-tiny", SMALL, lip_encoder=str(corpus / "lips"))
    before = {key: value.clone() for key, value in module.lips.state_dict().items()}
    module.train()
    module.embed(torch.randint(0, 255, (2, 1, 10, 88, 88), dtype=torch.uint8))
    assert all(not part.training for part in module.lips.modules())
    for key, value in module.lips.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not {id(p) for p in module.lips.parameters()} & {id(p) for p in module.parameters()}


def test_audio_only_sees_no_lips(corpus):
    module = Separation("rtfs-net-tiny-audio-only", audio_only=True).eval()
    mixture, targets = torch.randn(1, 9600), torch.randn(1, 2, 9600)
    outputs = []
    for _ in range(2):
        lips = torch.randint(0, 255, (1, 2, 15, 88, 88), dtype=torch.uint8)
        with torch.no_grad():
            outputs.append(
                module.estimate(module.network, {"mixture": mixture, "targets": targets, "lips": lips})[0]
            )
    assert torch.equal(*outputs) and outputs[0].shape == (1, 2, 9600)
    with pytest.raises(InputError, match="two outputs needs --data.both true"):
        module.estimate(module.network, {"mixture": mixture, "targets": targets[:, :1], "lips": lips[:, :1]})


def weights_of(network: torch.nn.Module) -> list[torch.Tensor]:
    return list(network.state_dict().values())


def test_a_run_begins_with_trained_weights_and_says_so(config, unbroken, tmp_path):
    """A rate of 0 keeps what it began with; a run that goes on reads its checkpoint, wherever the first weights are by then."""
    trained = tmp_path / "trained"
    shutil.copytree(unbroken / "model", trained)
    settings = [f"--model.weights={trained}", "--model.learning_rate=0.0", "--model.average=null"]
    training.train([config], tmp_path / "run", [*settings, "--trainer.max_epochs=1"])
    began, kept = avkit.load_model(unbroken / "model"), avkit.load_model(tmp_path / "run/model")
    assert kept.provenance["began_with"] == began.provenance and "began_with" not in began.provenance
    assert all(map(torch.equal, weights_of(kept), weights_of(began)))
    settings = [f"--model.weights={trained}", "--trainer.max_epochs=1"]
    training.train([config], tmp_path / "whole", settings)
    assert start(config, tmp_path / "broken", *settings, "--every", "1", where="step:4").returncode == -9
    lost = load_file(trained / "model.safetensors")
    save_file({key: torch.zeros_like(value) for key, value in lost.items()}, trained / "model.safetensors")
    training.train([config], tmp_path / "broken", settings, every=1)
    assert_same(state(tmp_path / "broken"), state(tmp_path / "whole"))


def test_averaged_weights_get_batch_norms_of_their_own(config, tmp_path):
    """Without lips RTFS-Net's visual block sees a constant: its norms' variance is 0, and a mean that lags behind is blown up."""
    overrides = RTFS | {"n_src": 2}
    settings = ["--model.network=rtfs-net-tiny-audio-only", f"--model.overrides={json.dumps(overrides)}", "--model.lip_encoder=null"]
    settings += ["--model.audio_only=true", "--data.both=true", "--trainer.max_epochs=2", "--model.average=0.7"]
    training.train([config], tmp_path / "whole", settings)
    network = avkit.load_model(tmp_path / "whole/model", fast=False)
    norm, seen = network.visual_block.projection.norm, []
    norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        network(torch.randn(1, 6400), torch.zeros(1, 512, 10))
    assert float(norm.running_var.max()) < 1e-6
    torch.testing.assert_close(seen[0], norm.running_mean[:, None].expand_as(seen[0]))
    assert start(config, tmp_path / "broken", *settings, "--every", "1", where="step:3").returncode == -9
    training.train([config], tmp_path / "broken", settings, every=1)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


RTFS = {"channels": 8, "hidden": 8, "rnn_hidden": 4, "rnn_layers": 1, "levels": 2, "lip_hidden": 8, "lip_heads": 2}
RTFS |= {"lip_dropout": 0.0, "repeats": 1}


@pytest.mark.parametrize("network", ["iianet-tiny", "rtfs-net-tiny"])
def test_bfloat16_trains_beside_float32(network, config, tmp_path):
    """`--trainer.precision bf16-mixed`: losses within half a decibel with weights that are still random, and weights that stay float32."""
    overrides = SMALL | WITHOUT_CHANCE if network == "iianet-tiny" else RTFS
    settings = [f"--model.network={network}", f"--model.overrides={json.dumps(overrides)}"]
    settings += ["--trainer.max_epochs=1", "--model.average=null", "--model.learning_rate=0.001"]
    begun = avkit.create_model(network, **overrides)
    for precision in ("32-true", "bf16-mixed"):
        training.train([config], tmp_path / precision, [*settings, f"--trainer.precision={precision}"])
    runs = {p: json.loads((tmp_path / p / "run.json").read_text()) for p in ("32-true", "bf16-mixed")}
    curves = {p: read_curves(tmp_path / p)["train_loss"][1] for p in runs}
    assert curves["bf16-mixed"][0] == pytest.approx(curves["32-true"][0], abs=0.5)
    assert list(curves["bf16-mixed"]) != list(curves["32-true"]), "nothing was rounded"
    assert runs["bf16-mixed"]["val_loss"] == pytest.approx(runs["32-true"]["val_loss"], abs=0.5)
    kept = avkit.load_model(tmp_path / "bf16-mixed/model")
    assert {value.dtype for value in kept.state_dict().values()} <= {v.dtype for v in begun.state_dict().values()}


def test_weights_of_another_network_are_refused(corpus, unbroken):
    lips = str(corpus / "lips")
    module = Separation("iianet-tiny", SMALL, weights=str(unbroken / "model"), lip_encoder=lips)
    assert module.began["steps"] == 15
    with pytest.raises(CheckpointError, match="those of another network"):
        Separation("iianet-tiny", SMALL | {"hidden": 24}, weights=str(unbroken / "model"), lip_encoder=lips)


@pytest.mark.parametrize("network", ["iianet-tiny", "rtfs-net-tiny"])
def test_a_network_begins_with_the_first_voice_of_its_twin_without_lips(network):
    twin, begun = avkit.load_model(f"{network}-audio-only", fast=False), avkit.create_model(network, fast=False).eval()
    assert begin_with(begun, f"{network}-audio-only") == twin.provenance
    mixture, lips = torch.randn(2, 16000), torch.zeros(2, 512, 25)
    with torch.no_grad():
        assert torch.equal(begun(mixture, lips)[:, 0], twin(mixture, lips)[:, 0])
    with pytest.raises(CheckpointError, match="those of another network"):
        begin_with(avkit.create_model(f"{network}-audio-only"), network)  # one voice has no second one in it


def test_a_run_without_a_lip_encoder_says_how_to_get_one():
    with pytest.raises(InputError, match="avkit train --config lip-encoder-tiny"):
        Separation("iianet-tiny", SMALL)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([], "avkit train --config lip-encoder-tiny"),
        (["--model.lip_encoder", "nowhere"], "nowhere"),
        (["--model.lip_encoder", "rtfs-net-tiny", "--model.weights=nowhere"], "no checkpoint at 'nowhere'"),
        (["--model.network=rtfs-net-5"], "did you mean rtfs-net-"),
        (["--model.lip_encoder", "rtfs-net-tiny", "--model.overrides.blub", "3"], "no setting blub"),
        (["--model.lip_encoder", "rtfs-net-tiny", "--data.batch_size=0"], "batch_size"),
        (["--data.roott", "x"], "--data: Option 'roott' is not accepted"),
        (["--model.learning_rate", "fast"], "learning_rate"),
    ],
    ids=["no lips", "lips", "weights", "network", "override", "batch", "option", "type"],
)
def test_a_mistake_in_a_setting_is_told_in_a_sentence(settings, told, tmp_path, capsys):
    """Not in a traceback: our own error is found inside the parser's, whose own is cut to what concerns the setting."""
    data = ["--data.root", str(tmp_path), "--out", str(tmp_path / "run")]
    assert cli.main(["train", "--config", "rtfs-net-tiny", *data, *settings]) != 0
    shown = capsys.readouterr().err
    assert told in shown and "Union" not in shown and len(shown.splitlines()) < 6


def test_the_examples_configurations_exist_and_a_misspelt_one_is_guessed():
    named = re.findall(r"--config ([\w-]+)", training.EXAMPLES.partition("\n\n")[0])
    assert len(named) >= 4 and all(training.find_config(name) for name in named)
    with pytest.raises(InputError, match=r"Did you mean rtfs-net-tiny\b"):
        training.find_config("rtfs-net-tny")
    with pytest.raises(InputError, match="data alone"):
        training.resolve(["lrs2"], [])


def test_mistakes_on_the_command_line(config, tmp_path, capsys):
    with pytest.raises(InputError, match="neither a file nor one that comes"):
        training.main(["--config", "nothing", "--out", str(tmp_path)])
    with pytest.raises(InputError, match="learning_rat"):
        training.main(["--config", str(config), "--out", str(tmp_path), "--model.learning_rat=1"])
    with pytest.raises(InputError, match="items_per_epoch"):
        training.train([config], tmp_path, ["--trainer.limit_train_batches=2"])
    with pytest.raises(SystemExit):
        training.main(["--help"])
    shown = capsys.readouterr().out
    assert "rtfs-net-tiny" in shown and "examples:" in shown


def test_curves_of_an_interrupted_run(tmp_path):
    for number, text in enumerate(
        ("step,epoch,a,b\n0,0,1.0,\n1,0,2.0,\n2,0,3.0,9.0\n", "step,epoch,a\n2,0,7.0\n3,1,8.0\n4,1,5")
    ):
        folder = tmp_path / f"csv/version_{number}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(text)
    curves = read_curves(tmp_path)
    assert [part.tolist() for part in curves["a"]] == [[0, 1, 2, 3], [1.0, 2.0, 7.0, 8.0]]
    assert "b" not in curves, "what came after the point of return is gone"
    with pytest.raises(DataError, match="no curves"):
        read_curves(tmp_path / "elsewhere")
