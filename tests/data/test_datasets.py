"""Items: what they hold, chance that follows from (seed, epoch, row) alone, bad files named or passed over."""

import json
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import toy_corpus

from avkit.data import drawing
from avkit.data.cache import Cache
from avkit.data.datamodule import EpochLoader, MixtureData, evaluation_rows, training_rows
from avkit.data.datasets import ItemSettings, MixingSettings, mix_at_levels, open_split
from avkit.data.features import store_features
from avkit.data.reading import read_audio, read_mouth
from avkit.errors import DataError, InputError
from avkit.lips import LipEncoder, LipEncoderConfig, LipTransform

SMALL = LipEncoderConfig(stem=2, widths=(2, 2, 4, 4))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = toy_corpus.make(tmp_path_factory.mktemp("toy"), {"tr": 6, "cv": 3}, seconds=0.8)
    torch.manual_seed(0)
    store_features(folder, LipEncoder(SMALL), "small", variants=3)
    return folder


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "copy")


VARIETIES = {
    "fixed": (ItemSettings(segment=0.8), None),
    "fixed, both": (ItemSettings(segment=0.4, start="random", both=True), None),
    "dynamic": (ItemSettings(segment=0.4, start="random", augment=True), MixingSettings()),
    "dynamic, both": (
        ItemSettings(segment=0.4, both=True, augment=True),
        MixingSettings(items=7, same_talker=True),
    ),
    "dynamic, stored levels": (ItemSettings(segment=0.4, augment=True), MixingSettings(levels="stored")),
    "features": (ItemSettings(segment=0.4, start="random", augment=True, features="small"), MixingSettings()),
    "features, fixed": (ItemSettings(segment=0.8, both=True, features="small"), None),
}


@pytest.mark.parametrize("settings, mixing", VARIETIES.values(), ids=VARIETIES)
def test_cache_and_files_give_the_same_items(root, settings, mixing):
    data = open_split(root, "tr", settings, seed=5, mixing=mixing)
    cache = Cache(data)
    for epoch in (0, 3):
        rows = np.arange(len(data))[::-1].copy()
        batch = cache.batch(epoch, rows)
        items = torch.utils.data.default_collate([data[(epoch, int(row))] for row in rows])
        assert batch.keys() == items.keys()
        for key, value in items.items():
            assert torch.equal(batch[key], value), key


@pytest.mark.parametrize("settings, mixing", VARIETIES.values(), ids=VARIETIES)
def test_shapes(root, settings, mixing):
    item = open_split(root, "tr", settings, seed=0, mixing=mixing)[(0, 1)]
    talkers = 2 if settings.both else 1
    assert item["mixture"].shape == (settings.samples,)
    assert item["targets"].shape == (talkers, settings.samples)
    assert item["mixture"].dtype == item["targets"].dtype == torch.float32
    if settings.features:
        assert item["lips"].shape == (talkers, 512, settings.frames) and item["lips"].dtype == torch.float16
    else:
        assert item["lips"].shape == (talkers, settings.frames, 88, 88) and item["lips"].dtype == torch.uint8


def test_a_fixed_mixture_gives_an_item_for_each_talker(root):
    data = open_split(root, "cv", ItemSettings(segment=0.8), seed=0)
    assert len(data) == 6
    for number, mixture in enumerate(data.mixtures):
        for talker, source in enumerate(mixture.sources):
            item = data[(0, 2 * number + talker)]
            assert torch.equal(
                item["mixture"], torch.from_numpy(read_audio(mixture.audio) / np.float32(32768))
            )
            assert torch.equal(
                item["targets"][0], torch.from_numpy(read_audio(source.audio) / np.float32(32768))
            )
            frames = torch.from_numpy(np.load(source.mouth)["data"])
            assert torch.equal(item["lips"][0], frames[:, 4:92, 4:92])
            normalised = (item["lips"].float() / 255 - 0.421) / 0.165
            torch.testing.assert_close(normalised, LipTransform()(frames))


def test_sound_and_lips_are_cut_together(root):
    """The toy's mouth is open by as much as its voice is loud: wherever the cut, the two agree frame by frame."""
    data = open_split(root, "tr", ItemSettings(segment=0.4, start="random"), seed=1, mixing=MixingSettings())
    starts = set()
    for row in range(len(data)):
        item = data[(0, row)]
        loudness = item["targets"][0].view(10, 640).square().mean(1).sqrt()
        opening = (item["lips"][0, :, 44:, 44].float() > 200).float().sum(1)
        starts.add(int(data.draws(0).start[row, 0]))
        assert torch.corrcoef(torch.stack([loudness, opening]))[0, 1] > 0.98
    assert len(starts) > 3


def test_levels_of_new_mixtures(root):
    data = open_split(
        root, "tr", ItemSettings(segment=0.8, both=True), seed=2, mixing=MixingSettings(items=200)
    )
    level = data.draws(0).level
    assert np.allclose(level.sum(1), 0) and 4.5 < np.abs(level).max() <= 5 and np.abs(level).min() < 0.5
    assert 0.3 < (level[:, 0] > 0).mean() < 0.7
    for row in range(10):
        item = data[(0, row)]
        power = item["targets"].square().mean(1)
        assert 10 * torch.log10(power[0] / power[1]) == pytest.approx(2 * level[row, 0], abs=1e-3)
        assert max(item["mixture"].abs().max(), item["targets"].abs().max()) == pytest.approx(0.9, abs=1e-5)
        torch.testing.assert_close(item["targets"].sum(0), item["mixture"])


def test_silence_is_mixed_without_bad_numbers():
    mixture, sources = mix_at_levels(torch.zeros(3, 2, 100), torch.tensor([[1.0, -1.0]] * 3))
    assert not mixture.any() and not sources.any()


@pytest.mark.parametrize("same_talker", [False, True])
def test_partners(root, same_talker):
    data = open_split(
        root,
        "tr",
        ItemSettings(segment=0.8),
        seed=0,
        mixing=MixingSettings(items=3600, same_talker=same_talker),
    )
    pairs = data.draws(0).clips
    names = [[(data.clips[c].talker, data.clips[c].utterance) for c in pair] for pair in pairs]
    assert all(first[1] != second[1] for first, second in names)
    assert any(first[0] == second[0] for first, second in names) is same_talker
    assert set(Counter(pairs[:, 0]).values()) == {300}, "each of the 12 clips is a target equally often"
    assert len(set(pairs[:, 1])) == 12


def test_one_talker_cannot_be_mixed():
    with pytest.raises(DataError, match="at least two different talkers"):
        drawing.draw_pairs(np.random.default_rng(0), 4, np.zeros(5, int))


def test_chance_follows_from_seed_epoch_and_row(root):
    settings = ItemSettings(segment=0.4, start="random", augment=True)

    def fresh(seed):
        return open_split(root, "tr", settings, seed, MixingSettings())

    item = fresh(1)[(4, 2)]
    data = fresh(1)
    for epoch in (0, 7, 4):
        _ = data[(epoch, 0)]
    for key, value in data[(4, 2)].items():
        assert torch.equal(value, item[key])
    assert not torch.equal(fresh(2)[(4, 2)]["mixture"], item["mixture"])
    assert not torch.equal(fresh(1)[(5, 2)]["mixture"], item["mixture"])


def test_augmentation_only_where_asked(root):
    plain = open_split(root, "tr", ItemSettings(segment=0.8), 0).draws(0)
    assert (plain.corner == 4).all() and not plain.flip.any()
    lively = open_split(
        root, "tr", ItemSettings(segment=0.8, augment=True), 0, MixingSettings(items=2000)
    ).draws(0)
    assert set(lively.corner.ravel()) == set(range(9)) and 0.4 < lively.flip.mean() < 0.6


def test_stored_features_are_the_encoders(root):
    torch.manual_seed(0)
    encoder = LipEncoder(SMALL)
    data = open_split(root, "cv", ItemSettings(segment=0.8, features="small"), 0)
    frames = torch.from_numpy(np.load(data.clips[0].mouth)["data"])
    with torch.no_grad():
        expected = encoder(LipTransform()(frames)[None])[0]
    torch.testing.assert_close(data[(0, 0)]["lips"][0].float(), expected, rtol=2e-3, atol=2e-3)
    lively = open_split(root, "cv", ItemSettings(segment=0.8, features="small", augment=True), 0)
    assert not torch.equal(lively[(0, 0)]["lips"], data[(0, 0)]["lips"]), (
        "training takes an augmented variant"
    )


def test_features_of_another_encoder_are_refused(root):
    torch.manual_seed(1)
    with pytest.raises(DataError, match="holds features made with"):
        store_features(root, LipEncoder(SMALL), "small", variants=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(root, workers):
    data = open_split(root, "tr", ItemSettings(segment=0.4, augment=True), 3, MixingSettings())
    rows = training_rows(3, 1, len(data), 4, 0, 1)
    before = torch.get_rng_state()
    batches = list(EpochLoader(data, 1, rows, np.ones(rows.shape, np.float32), workers))
    assert torch.equal(torch.get_rng_state(), before), "reading draws nothing from the training's own chance"
    assert len(batches) == 3
    for batch, expected in zip(batches, rows, strict=True):
        assert batch["row"].tolist() == expected.tolist()
        assert torch.equal(batch["mixture"][1], data[(1, int(expected[1]))]["mixture"])


def test_devices_share_an_epoch_as_one_would_take_it():
    one = training_rows(0, 2, 23, 4, 0, 1)
    two = [training_rows(0, 2, 23, 2, rank, 2) for rank in (0, 1)]
    assert np.array_equal(np.concatenate(two, axis=1), one)
    assert one.shape == (5, 4) and len(set(one.ravel())) == 20
    with pytest.raises(InputError, match="An epoch has 3 items and a batch 4"):
        training_rows(0, 0, 3, 2, 0, 2)


@pytest.mark.parametrize("items, batch, world", [(5, 2, 2), (8, 2, 2), (1, 4, 3), (7, 3, 1)])
def test_validation_counts_each_item_once(items, batch, world):
    parts = [evaluation_rows(items, batch, rank, world) for rank in range(world)]
    assert len({rows.shape for rows, _ in parts}) == 1, "every device takes the same number of batches"
    counted = Counter()
    for rows, weight in parts:
        for row, w in zip(rows.ravel(), weight.ravel(), strict=True):
            counted[int(row)] += float(w)
    assert counted == {item: 1 for item in range(items)}


def spoil_audio(root):
    path = next(iter(sorted((root / "audio/wav16k/min/tr/s1").glob("*.wav"))))
    path.write_bytes(path.read_bytes()[:3000])
    return path


def spoil_mouth(root):
    path = sorted((root / "mouths").glob("tr*.npz"))[3]
    path.write_bytes(b"PK\x03\x04 nothing")
    return path


@pytest.mark.parametrize("spoil", [spoil_audio, spoil_mouth])
@pytest.mark.parametrize("mixing", [None, MixingSettings()], ids=["fixed", "dynamic"])
def test_bad_files_stop_or_are_passed_over(copy, spoil, mixing):
    path = spoil(copy)
    strict = open_split(copy, "tr", ItemSettings(segment=0.8), 0, mixing)
    with pytest.raises(DataError, match=path.name):
        for row in range(len(strict)):
            _ = strict[(0, row)]
    with pytest.raises(DataError, match=path.name):
        Cache(strict)
    lenient = open_split(copy, "tr", ItemSettings(segment=0.8, on_bad="skip"), 0, mixing)
    items = [lenient[(0, row)] for row in range(len(lenient))]
    skipped = [int(item["skipped"]) for item in items]
    assert len(items) == 12 and 0 < sum(skipped)
    first = next(row for row, count in enumerate(skipped) if count)
    good = items[(first + skipped[first]) % 12]
    assert torch.equal(items[first]["mixture"], good["mixture"]) and good["skipped"] == 0


@pytest.mark.parametrize("spoil", [spoil_audio, spoil_mouth])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("mixing", [None, MixingSettings()], ids=["fixed", "dynamic"])
def test_the_cache_passes_over_the_same_items(copy, spoil, both, mixing):
    spoil(copy)
    data = open_split(copy, "tr", ItemSettings(segment=0.8, on_bad="skip", both=both), 0, mixing)
    batch = Cache(data).batch(0, np.arange(len(data)))
    items = torch.utils.data.default_collate([data[(0, row)] for row in range(len(data))])
    assert int(batch["skipped"].sum()) > 0
    for key, value in items.items():
        assert torch.equal(batch[key], value), key


def test_short_recordings_are_left_out_before_counting(copy):
    path = copy / "tr/mix.json"
    rows = json.loads(path.read_text())
    rows[2][1] = 6400
    path.write_text(json.dumps(rows))
    data = open_split(copy, "tr", ItemSettings(segment=0.8), 0)
    assert (len(data), data.too_short) == (10, 1)
    assert all(data[(0, row)]["mixture"].shape == (12800,) for row in range(10))
    with pytest.raises(DataError, match="None of the 6 mixtures lasts 2.0 s"):
        open_split(copy, "tr", ItemSettings(), 0)


def test_segments_end_at_frames():
    with pytest.raises(InputError, match="whole number of frames"):
        ItemSettings(segment=1.01)


def test_lips_of_another_length(copy):
    mouth = open_split(copy, "cv", ItemSettings(segment=0.8), 0).clips[0].mouth
    frames = np.load(mouth)["data"]
    np.savez(mouth, data=frames[:16])
    item = open_split(copy, "cv", ItemSettings(segment=0.8), 0)[(0, 0)]
    assert torch.equal(item["lips"][0, 16:], item["lips"][0, 15:16].expand(4, -1, -1)), (
        "the last frame is held"
    )
    np.savez(mouth, data=frames[:14])
    with pytest.raises(DataError, match=r"14 frames where their recording lasts 20"):
        _ = open_split(copy, "cv", ItemSettings(segment=0.8), 0)[(0, 0)]


@pytest.mark.parametrize(
    "content, message",
    [
        ({"data": np.zeros((20, 120, 120), np.float32)}, "120×120 crops come from another, unaligned recipe"),
        ({"data": np.zeros((20, 96, 96), np.float32)}, "uint8 gray is wanted"),
        ({"mouth": np.zeros((20, 96, 96), np.uint8)}, "lack the key 'data'"),
    ],
)
def test_other_peoples_mouths(copy, content, message):
    mouth = open_split(copy, "cv", ItemSettings(segment=0.8), 0).clips[0].mouth
    np.savez(mouth, **content)
    with pytest.raises(DataError, match=message):
        _ = open_split(copy, "cv", ItemSettings(segment=0.8), 0)[(0, 0)]


@pytest.mark.parametrize("mistakes, read", [(4, True), (5, False)])
def test_a_mistaken_error_of_the_interpreter_is_outlived(copy, monkeypatch, mistakes, read):
    mouth = open_split(copy, "cv", ItemSettings(segment=0.8), 0).clips[0].mouth
    expected, load, left = read_mouth(mouth), np.load, [mistakes]

    def flawed(*args, **kwargs):
        left[0] -= 1
        if left[0] >= 0:
            raise SystemError("AST constructor recursion depth mismatch")
        return load(*args, **kwargs)

    monkeypatch.setattr(np, "load", flawed)
    if read:
        assert np.array_equal(read_mouth(mouth), expected)
    else:
        with pytest.raises(SystemError):
            read_mouth(mouth)


def test_other_sound_files(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    signal = np.sin(np.arange(1600) / 10).astype(np.float32)
    soundfile.write(tmp_path / "float.wav", signal, 16000, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "float.wav", 100, 640), signal[100:740])
    soundfile.write(tmp_path / "rate.wav", signal, 8000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([signal, signal], 1), 16000)
    for name, message in (("rate", "at 8000 Hz"), ("stereo", r"2 channel\(s\)"), ("none", "does not exist")):
        with pytest.raises(DataError, match=message):
            read_audio(tmp_path / f"{name}.wav")
    with pytest.raises(DataError, match="ends 500 samples too early"):
        read_audio(tmp_path / "float.wav", 1000, 1100)


def test_a_corpus_that_is_not_there(tmp_path):
    module = MixtureData(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="does not exist"):
        module.setup("fit")


@pytest.mark.parametrize("mixing", [None, MixingSettings()])
def test_a_worker_that_starts_afresh_reads_the_same(root, mixing):
    """Where processes are spawned, not forked, the dataset itself goes to them."""
    data = open_split(root, "tr", ItemSettings(segment=0.4, augment=True), 3, mixing)
    expected = data[(1, 2)]
    again = pickle.loads(pickle.dumps(data))[(1, 2)]
    assert all(torch.equal(torch.as_tensor(again[key]), torch.as_tensor(value)) for key, value in expected.items())
