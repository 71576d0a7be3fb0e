"""The networks that ship do what their records say, on the mixtures that ship."""

import json
import re

import pytest
import torch

import avkit
from avkit.checkpoints import list_bundled, read_config, whole_training
from avkit.evaluation import Settings, evaluate, read_rows

NETWORKS = ("rtfs-net-tiny", "iianet-tiny")
FROZEN = "data_samples/results/rtfs-net-tiny-on-frozen/summary.json"
AT_LEAST = {"rtfs-net-tiny": 6.5, "iianet-tiny": 6.0}  # dB of SI-SNRi on the frozen set
OPENING = "rtfs-net-tiny-opening"
IIANET_TWIN = "iianet-tiny-audio-only"
TWINS = tuple(f"{name}-audio-only" for name in NETWORKS)
LATE = "data_samples/results/tiny-networks-late-lips"
GRID = "data_samples/results/tiny-networks-on-grid/summary.json"
RECORD = "data_samples/results/{}-on-talkers/summary.json"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_bundled_network_comes_with_its_lips_and_its_history(name):
    model = avkit.load_model(name)
    assert not model.training and not model.lips.training
    assert not {id(p) for p in model.lips.parameters()} & {id(p) for p in model.parameters()}
    assert 100_000 < sum(p.numel() for p in model.parameters()) < 1_000_000
    assert sum(p.numel() for p in model.lips.parameters()) < 1_500_000
    for key in ("command", "seed", "data", "minutes", "examples", "device"):
        assert model.provenance[key] is not None, key


@pytest.mark.parametrize("name", list_bundled())
def test_every_bundled_checkpoint_loads_and_separates(name):
    model = avkit.load_model(name)
    assert read_config(name)[1]["provenance"]["examples"] > 0
    with torch.no_grad():
        output = model(torch.randn(1, 32000), torch.randn(1, 512, 50))
    assert output.shape == (1, model.config.n_src, 32000) and output.isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_twin_without_lips_has_the_same_size_and_saw_as_many_examples(name):
    network, twin = avkit.load_model(name), avkit.load_model(f"{name}-audio-only")
    sizes = [sum(p.numel() for p in model.parameters()) for model in (network, twin)]
    assert abs(sizes[0] - sizes[1]) < {"rtfs-net-tiny": 0.01, "iianet-tiny": 0.03}[name] * sizes[0]  # a second mask is all that differs
    assert whole_training(network.provenance)[0] == whole_training(twin.provenance)[0] == 68_000
    assert network.provenance["began_with"] == twin.provenance["began_with"], "both went on from the same weights"
    for key in ("data", "examples", "steps", "seed"):
        assert network.provenance[key] == twin.provenance[key], key
    assert twin.provenance["val_loss"] < twin.provenance["began_with"]["val_loss"], "what it saw since brought it something"


def test_both_networks_saw_as_many_examples_and_read_the_same_lips():
    first, second = (avkit.load_model(name) for name in NETWORKS)
    assert whole_training(first.provenance)[0] == whole_training(second.provenance)[0] == 68_000
    for key, tensor in first.lips.state_dict().items():
        assert torch.equal(tensor, second.lips.state_dict()[key]), key


def test_the_validations_that_are_told_are_those_of_the_runs(repository):
    """data_samples/README.md tells of the gain after every thousand steps, and at the end."""
    told = " ".join((repository / "data_samples/README.md").read_text().split())
    runs = [avkit.load_model(f"{name}{kind}").provenance for kind in ("", "-audio-only") for name in reversed(NETWORKS)]
    said = (
        "{} dB after the first thousand steps, then {}, {}, {} and {}.",
        "{}, {}, {}, {}, {}, {}, {} and, at the end, {}.",
        "iianet-tiny's {}, {}, {}, {} and {};",
        "rtfs-net-tiny's {} at the end.",
    )
    for words, run in zip(said, runs, strict=True):
        gains = [f"{gain:.1f}" for _, gain in run["validation"]["val_si_snr_improvement"]]
        assert words.format(*gains) in told, words.format(*gains)
    listening = runs[0]["began_with"]["validation"]["val_si_snr_improvement"]
    first, last = (f"{listening[place][1]:.1f}" for place in (0, 11))
    assert len(listening) == 12 and f"{first} dB on 160 validation items after the first thousand steps, {last} after the twelfth" in told


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_on_the_shipped_mixtures_are_those_of_the_record(repository, name):
    record = json.loads((repository / RECORD.format(name)).read_text())
    settings = Settings(metrics=("si_snr",))
    data = repository / "data_samples/talkers"
    fresh = evaluate({name: name}, data, settings=settings, progress=False).summary
    ours, recorded = (found["systems"][name]["si_snri"]["mean"] for found in (fresh, record))
    assert ours == pytest.approx(recorded, abs=0.05)
    assert ours > 3


def test_readme_gives_the_records_figures(repository):
    readme = " ".join((repository / "README.md").read_text().split())
    record = json.loads((repository / FROZEN).read_text())
    for system in (*NETWORKS, *TWINS, OPENING, *(f"{name} (still lips)" for name in NETWORKS)):
        of = record if system in record["systems"] else _frozen(repository, NETWORKS[1])
        everywhere, same_voice = of["systems"][system]["si_snri"], of["groups"]["voices: same voice"][system]["si_snri"]
        assert f"| {_cell(everywhere)} | {_cell(same_voice)} |" in readme, system
    for name in NETWORKS:
        shipped = json.loads((repository / RECORD.format(name)).read_text())["systems"]
        assert f"{shipped[name]['si_snri']['mean']:.1f} dB" in readme
        assert f"{shipped['irm-16ms']['si_snri']['mean']:.1f} dB" == "10.4 dB"
        followed = record["swap_test"][name]["mixtures"]
        assert f"{round(followed['mean'] * followed['mixtures'])} of {followed['mixtures']}" in readme, name
        paired, by_voices = (_frozen(repository, name)[key] for key in ("differences", "differences_by_group"))
        for differences in (paired, *(by_voices[f"voices: {group}"] for group in ("same voice", "like pitch", "other"))):
            found = differences[f"{name}-audio-only"]["si_snri"]
            assert _in_words(found, readme), (name, found)
    for other in (OPENING, "iianet-tiny"):
        assert _in_words(record["differences"][other]["si_snri"], readme), other
    late = [row for row in read_rows(repository / LATE) if row["system"].startswith("rtfs-net-tiny (late-")]
    for frames, nearer_to_the_other in ((1, False), (2, True)):
        found = [row for row in late if row["system"] == f"rtfs-net-tiny (late-{frames} lips)"]
        gain = sum(row["si_snri"] for row in found) / len(found)
        assert f"{gain:.1f} dB".replace("-", "−") in readme, frames
        assert (sum(row["si_snr_other"] > row["si_snr"] for row in found) > len(found) / 2) == nearer_to_the_other
    grid = json.loads((repository / GRID).read_text())["systems"]
    for system in (*NETWORKS, *TWINS):
        assert f"{grid[system]['si_snri']['mean']:.1f} dB".replace("-", "−") in readme, system


@pytest.mark.parametrize("name", NETWORKS)
def test_lips_are_worth_something_on_the_frozen_test_set(repository, name):
    record = _frozen(repository, name)
    frozen = json.loads((repository / "data_samples/frozen_test.json").read_text())
    assert record["data"]["corpus_checksum"] == frozen["checksum"]
    assert record["systems"][name]["si_snri"]["mean"] >= AT_LEAST[name]
    assert record["swap_test"][name]["mixtures"]["mean"] >= 0.95
    same_voice, paired = (record[key]["voices: same voice"] for key in ("groups", "differences_by_group"))
    lips = (f"{name} ({which} lips)" for which in ("still", "absent", "swapped"))
    for control in {f"{name}-audio-only", "rtfs-net-tiny-audio-only", *lips, "mixture"}:
        assert record["differences"][control]["si_snri"]["low"] > 0, control
        assert paired[control]["si_snri"]["low"] > 0, control
        assert same_voice[name]["si_snri"]["low"] > same_voice[control]["si_snri"]["high"], control


def test_first_separate_then_watch_is_told_as_the_record_has_it(repository):
    """Both ways with lips and both without, on the frozen test set: what README.md and data_samples/README.md say of it."""
    record = json.loads((repository / "data_samples/results/iianet-two-stages/summary.json").read_text())
    readme, samples = (" ".join((repository / name).read_text().split()) for name in ("README.md", "data_samples/README.md"))
    shipped = _frozen(repository, "iianet-tiny")
    assert record["data"]["corpus_checksum"] == shipped["data"]["corpus_checksum"]
    for name, stored in (("iianet-two-stages", "iianet-tiny"), ("iianet-twin-more", IIANET_TWIN)):
        assert record["networks"][name]["weights"] == shipped["networks"][stored]["weights"], "another network by now"
        assert record["systems"][name]["si_snri"] == shipped["systems"][stored]["si_snri"]
    ahead, one_run = record["differences"]["iianet-one-run"]["si_snri"], record["networks"]["iianet-one-run"]["trained"]
    assert _in_words(ahead, readme) and ahead["low"] > 0
    assert one_run["examples"] == 48_000 and f"{one_run['validation']['val_si_snr_improvement'][-1][1]:.1f} dB at the end" in samples


def test_the_twin_on_the_opening_alone_had_more_examples_and_is_behind_all_the_same(repository):
    pair = [avkit.load_model(name) for name in (NETWORKS[0], OPENING)]
    assert whole_training(pair[1].provenance)[0] == whole_training(pair[0].provenance)[0] + 10_000
    record = json.loads((repository / FROZEN).read_text())
    assert record["differences"][OPENING]["si_snri"]["low"] > 0
    assert record["differences_by_group"]["voices: same voice"][OPENING]["si_snri"]["low"] > 0


def _frozen(repository, name: str) -> dict:
    """The record of the frozen test set with `name` as the network that the others are compared with."""
    return json.loads((repository / FROZEN.replace(NETWORKS[0], name)).read_text())


def _in_words(found: dict, readme: str) -> bool:
    interval = rf"\[{found['low']:.1f}, {found['high']:.1f}\]".replace("-", "−")
    mean = f"{found['mean']:.1f} dB".replace("-", "−")
    return re.search(rf"{mean}[^.]*\s{interval}", readme) is not None


def _cell(found: dict) -> str:
    return f"{found['mean']:.1f} [{found['low']:.1f}, {found['high']:.1f}]".replace("-", "−")
