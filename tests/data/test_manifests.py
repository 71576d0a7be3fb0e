"""The lists of mixtures: both ways, and every way in which they can be wrong."""

import json
from pathlib import Path

import pytest

from avkit.data.manifests import Mixture, Source, read_manifest, talker_of, write_manifest
from avkit.errors import DataError


def example(root: Path, count: int = 3) -> list[Mixture]:
    audio = root / "audio/wav16k/min/tr"
    names = [f"t{i}_00001_2.5_u{i}_00002_-2.5.wav" for i in range(count)]
    return [
        Mixture(
            audio / "mix" / name,
            32000,
            tuple(
                Source(audio / key / name, root / f"mouths/{talker}{i}_0000{n}.npz", 32000)
                for n, (key, talker) in enumerate((("s1", "t"), ("s2", "u")), start=1)
            ),
        )
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize("relative", [True, False])
def test_round_trip(tmp_path, relative):
    write_manifest(tmp_path, "tr", example(tmp_path), relative=relative)
    assert read_manifest(tmp_path, "tr") == example(tmp_path)
    first = json.loads((tmp_path / "tr/s1.json").read_text())[0]
    assert Path(first[0]).is_absolute() is not relative
    assert sorted(path.name for path in (tmp_path / "tr").iterdir()) == ["mix.json", "s1.json", "s2.json"]


def test_relative_lists_move_with_the_corpus(tmp_path):
    write_manifest(tmp_path / "here", "tr", example(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    assert read_manifest(tmp_path / "there", "tr") == example(tmp_path / "there")


def test_rows_are_paired_by_name_not_by_place(tmp_path):
    write_manifest(tmp_path, "tr", example(tmp_path))
    path = tmp_path / "tr/s2.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    assert read_manifest(tmp_path, "tr") == example(tmp_path)


def test_a_third_talker_is_read(tmp_path):
    third = [
        Mixture(
            m.audio,
            m.samples,
            (*m.sources, Source(tmp_path / "s3" / m.audio.name, tmp_path / "mouths/w_1.npz", 9)),
        )
        for m in example(tmp_path)
    ]
    write_manifest(tmp_path, "tt", third)
    assert read_manifest(tmp_path, "tt") == third


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda d: (d / "s1.json").unlink(), "s1.json does not exist"),
        (lambda d: (d / "mix.json").write_text("[[1"), "cannot be read as JSON"),
        (lambda d: (d / "mix.json").write_text("{}"), "list of rows"),
        (lambda d: (d / "mix.json").write_text('[["a.wav", "32000"]]'), "Row 0 .* samples > 0"),
        (lambda d: (d / "mix.json").write_text('[["a.wav", 0]]'), "Row 0"),
        (lambda d: (d / "s1.json").write_text('[["a.wav", 32000]]'), "mouth path"),
        (lambda d: (d / "s1.json").write_text("[]"), "s1.json lacks 3 of the files in mix.json"),
        (lambda d: (d / "mix.json").write_text('[["a.wav", 5], ["b/a.wav", 5]]'), "names a.wav twice"),
        (lambda d: (d / "mix.json").write_text("[]"), "mix.json lacks 3"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, spoil, message):
    write_manifest(tmp_path, "tr", example(tmp_path))
    spoil(tmp_path / "tr")
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path, "tr")


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="no split 'train'"):
        read_manifest(tmp_path, "train")


@pytest.mark.parametrize(
    "utterance, talker",
    [
        ("id00012_21Uxsk56VDQ_00001", "id00012"),
        ("id00012_21Ux_k56VDQ_00001", "id00012"),
        ("6330311066473698535_00011", "6330311066473698535"),
        ("0_j9bKdiOjk_00001", "0_j9bKdiOjk"),
        ("alone", "alone"),
    ],
)
def test_talkers(utterance, talker):
    assert talker_of(utterance) == talker
