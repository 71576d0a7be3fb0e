"""Pre-training of a lip encoder: it learns what a mouth does, its record adds up, its weights come back."""

import json
import shutil

import numpy as np
import pytest
import torch
import toy_corpus
import yaml

from avkit import training
from avkit.data.features import check_features, store_features
from avkit.data.labels import LABELS
from avkit.data.manifests import read_manifest
from avkit.data.visemes import CURVES, VISEMES
from avkit.errors import CheckpointError, DataError
from avkit.learner import RECALIBRATION
from avkit.lip_weights import fingerprint, load_lip_encoder, save_lip_encoder
from avkit.lips import LipEncoder, LipEncoderConfig
from avkit.pretraining import LabelledMouths, VisemeReader

SMALL = LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The toy's mouths, labelled by what was drawn: a bright block of 0…30 rows; three visemes by its height."""
    root = toy_corpus.make(tmp_path_factory.mktemp("toy"), {"tr": 12, "cv": 4}, seconds=0.8)
    rows = []
    for split in ("tr", "cv"):
        for source in (source for mixture in read_manifest(root, split) for source in mixture.sources):
            opening = (np.load(source.mouth)["data"][:, 44:, 44] > 200).sum(1) / 30
            curves = {
                name: (1000 * opening).tolist() if name == "opening" else [0] * len(opening)
                for name in CURVES
            }
            viseme = np.digitize(opening, [1 / 3, 2 / 3]).tolist()
            rows.append(
                {
                    "id": source.utterance,
                    "split": split,
                    "talker": source.talker,
                    "viseme": viseme,
                    "curves": curves,
                }
            )
    (root / LABELS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    content = {
        "model": {
            "class_path": "avkit.pretraining.VisemeReader",
            "init_args": {"stem": 4, "widths": [4, 4, 8, 8], "learning_rate": 0.01, "warmup": 5},
        },
        "data": {
            "class_path": "avkit.pretraining.MouthData",
            "init_args": {"root": str(corpus), "batch_size": 4},
        },
        "trainer": {"max_epochs": 15, "accelerator": "cpu", "gradient_clip_val": 5.0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    training.train([folder / "config.yaml"], folder / "out")
    return folder / "out"


def test_it_learns_what_a_mouth_does(run):
    record = json.loads((run / "model/visemes.json").read_text())
    assert record["accuracy"] > record["chance"] + 0.2
    assert record["explained_variance"]["opening"] > 0.6
    confusion = np.array(record["confusion"])
    assert confusion.shape == (len(VISEMES),) * 2 and confusion.sum() == 8 * 20, (
        "every frame of the validation once"
    )
    assert record["accuracy"] == pytest.approx(np.trace(confusion) / confusion.sum(), abs=1e-4)
    assert record["chance"] == pytest.approx(confusion.sum(1).max() / confusion.sum(), abs=1e-4)
    assert record["talkers"] and all(name.startswith("cvt") for name in record["talkers"])


def test_the_encoder_comes_back_frozen(run):
    encoder = load_lip_encoder(run / "model").train()
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    assert encoder.config.widths == (4, 4, 8, 8)
    best = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, best[f"network.encoder.{key}"]), key


def test_pretraining_moves_batch_norms_and_training_does_not(run):
    reader = VisemeReader(stem=2, widths=(2, 2, 4, 4))
    frames = torch.randint(0, 255, (1, 5, 88, 88), dtype=torch.uint8)
    before = reader.network.encoder.frontend[1].running_mean.clone()
    reader.train()
    reader.network(frames)
    assert not torch.equal(reader.network.encoder.frontend[1].running_mean, before)
    frozen = load_lip_encoder(run / "model").train()
    before = frozen.frontend[1].running_mean.clone()
    frozen((frames.float() / 255)[:, None])
    assert torch.equal(frozen.frontend[1].running_mean, before)


def test_an_averaged_encoder_is_kept_with_batch_norms_of_its_own(run, tmp_path):
    """Measured anew over the first batches, not those that followed the latest weights."""
    training.train([run.parent / "config.yaml"], tmp_path, ["--model.average=0.9", "--trainer.max_epochs=2"])
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    counts = {key: int(value) for key, value in kept.items() if key.endswith("num_batches_tracked")}
    assert {n for key, n in counts.items() if key.startswith("average.")} == {RECALIBRATION}
    assert min(n for key, n in counts.items() if key.startswith("network.")) > RECALIBRATION


def test_augmented_clips_keep_their_labels(corpus):
    plain = LabelledMouths(corpus, "tr", seed=0, augment=False, device="cpu")
    lively = LabelledMouths(corpus, "tr", seed=0, augment=True, device="cpu")
    rows = np.array([5, 2])
    one, other = plain.batch(3, rows), lively.batch(3, rows)
    assert torch.equal(one["viseme"], other["viseme"]) and torch.equal(one["curves"], other["curves"])
    assert torch.equal(one["frames"], plain.frames[[5, 2], :, 4:92, 4:92])
    assert not torch.equal(one["frames"], other["frames"])
    assert torch.equal(lively.batch(3, rows)["frames"], other["frames"])


def test_weights_round_trip(tmp_path):
    torch.manual_seed(3)
    encoder = LipEncoder(SMALL)
    save_lip_encoder(tmp_path, encoder, {"made": "here"})
    again = load_lip_encoder(tmp_path)
    assert fingerprint(again) == fingerprint(encoder)
    assert json.loads((tmp_path / "config.json").read_text())["provenance"] == {"made": "here"}
    assert fingerprint(LipEncoder(SMALL)) != fingerprint(encoder)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_lip_encoder(tmp_path / "nothing")


def test_stored_features_must_be_the_encoders(corpus, tmp_path):
    root = shutil.copytree(corpus, tmp_path / "copy")
    torch.manual_seed(0)
    encoder, other = LipEncoder(SMALL), LipEncoder(SMALL)
    with pytest.raises(DataError, match="There are no lip features"):
        check_features(root, "small", encoder)
    assert store_features(root, encoder, "small", variants=2, splits=["cv"]) == 8
    assert store_features(root, encoder, "small", variants=2, splits=["cv"]) == 0, "what is there is kept"
    check_features(root, "small", encoder)
    with pytest.raises(DataError, match="were computed by encoder"):
        check_features(root, "small", other)
