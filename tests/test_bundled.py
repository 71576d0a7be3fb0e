"""The networks that ship do what their records say, on the mixtures that ship."""

import json
import re

import pytest
import torch

import avkit
from avkit.checkpoints import list_bundled, read_config, whole_training
from avkit.evaluation import Settings, evaluate

NETWORKS = ("rtfs-net-tiny", "iianet-tiny")
FROZEN = "data_samples/results/rtfs-net-tiny-on-frozen/summary.json"
AT_LEAST = {"rtfs-net-tiny": 6.5, "iianet-tiny": 6.0}  # dB of SI-SNRi on the frozen set
OPENING = "rtfs-net-tiny-opening"
IIANET_TWIN = "iianet-tiny-audio-only"
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


def test_the_twin_without_lips_has_the_same_size_and_saw_as_many_examples():
    pair = avkit.load_model("rtfs-net-tiny"), avkit.load_model("rtfs-net-tiny-audio-only")
    sizes = [sum(p.numel() for p in model.parameters()) for model in pair]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[0]  # a second mask is all that differs
    further = pair[1].provenance["continued"]  # brought it nothing, so the weights before it were kept
    assert whole_training(pair[0].provenance)[0] == whole_training(pair[1].provenance)[0] + further["examples"]
    assert pair[1].provenance["val_loss"] < further["val_loss"]
    assert pair[0].provenance["data"] == pair[1].provenance["data"] == further["data"]


def test_iianets_twin_without_lips_has_its_size_and_saw_as_many_examples_of_the_same_corpus():
    pair = avkit.load_model("iianet-tiny"), avkit.load_model("iianet-tiny-audio-only")
    sizes = [sum(p.numel() for p in model.parameters()) for model in pair]
    assert abs(sizes[0] - sizes[1]) < 0.03 * sizes[0]
    assert whole_training(pair[0].provenance)[0] == whole_training(pair[1].provenance)[0] == 48_000
    assert pair[0].provenance["data"] == pair[1].provenance["data"]
    validated = pair[1].provenance["validation"]["val_si_snr_improvement"]
    assert len(validated) == 12 and validated[-1][1] > validated[-2][1]  # "still growing a little"


def test_both_networks_saw_as_many_examples_and_read_the_same_lips():
    first, second = (avkit.load_model(name) for name in NETWORKS)
    assert whole_training(first.provenance)[0] == whole_training(second.provenance)[0] == 48_000
    for key, tensor in first.lips.state_dict().items():
        assert torch.equal(tensor, second.lips.state_dict()[key]), key


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
    readme = (repository / "README.md").read_text()
    record = json.loads((repository / FROZEN).read_text())
    for system in (*NETWORKS, "rtfs-net-tiny-audio-only", IIANET_TWIN, OPENING, "rtfs-net-tiny (still lips)"):
        everywhere = record["systems"][system]["si_snri"]
        same_voice = record["groups"]["voices: same voice"][system]["si_snri"]
        assert f"| {_cell(everywhere)} | {_cell(same_voice)} |" in readme, system
    for name in NETWORKS:
        shipped = json.loads((repository / RECORD.format(name)).read_text())["systems"]
        assert f"{shipped[name]['si_snri']['mean']:.1f} dB" in readme
        assert f"{shipped['irm-16ms']['si_snri']['mean']:.1f} dB" == "10.4 dB"
        followed = record["swap_test"][name]["mixtures"]
        assert f"{round(followed['mean'] * followed['mixtures'])} of {followed['mixtures']}" in readme, name
        paired = json.loads((repository / FROZEN.replace(NETWORKS[0], name)).read_text())["differences"]
        ahead = paired["rtfs-net-tiny-audio-only"]["si_snri"]
        assert _in_words(ahead, readme), name
    of_iianet = json.loads((repository / FROZEN.replace(*NETWORKS)).read_text())
    by_voices = [of_iianet["differences_by_group"][f"voices: {group}"] for group in ("same voice", "like pitch", "other")]
    told = [record["differences"][OPENING], record["differences"]["iianet-tiny"]]
    for found in (*told, *(differences[IIANET_TWIN] for differences in (of_iianet["differences"], *by_voices))):
        assert _in_words(found["si_snri"], readme), found["si_snri"]
    grid = json.loads((repository / GRID).read_text())["systems"]
    for system in (*NETWORKS, "rtfs-net-tiny-audio-only"):
        assert f"{grid[system]['si_snri']['mean']:.1f} dB".replace("-", "−") in readme, system


@pytest.mark.parametrize("name", NETWORKS)
def test_lips_are_worth_something_on_the_frozen_test_set(repository, name):
    record = json.loads((repository / FROZEN.replace(NETWORKS[0], name)).read_text())
    frozen = json.loads((repository / "data_samples/frozen_test.json").read_text())
    assert record["data"]["corpus_checksum"] == frozen["checksum"]
    assert record["systems"][name]["si_snri"]["mean"] >= AT_LEAST[name]
    assert record["swap_test"][name]["mixtures"]["mean"] >= 0.95
    same_voice, paired = (record[key]["voices: same voice"] for key in ("groups", "differences_by_group"))
    for control in ("rtfs-net-tiny-audio-only", f"{name} (still lips)", f"{name} (swapped lips)", "mixture"):
        assert record["differences"][control]["si_snri"]["low"] > 0, control
        assert paired[control]["si_snri"]["low"] > 0, control
        assert same_voice[name]["si_snri"]["low"] > same_voice[control]["si_snri"]["high"], control


def test_iianet_is_ahead_of_its_own_twin_where_a_voice_is_mixed_with_itself(repository):
    """Over all mixtures the twin without lips is no worse; README.md says so."""
    record = json.loads((repository / FROZEN.replace(NETWORKS[0], NETWORKS[1])).read_text())
    assert record["differences"][IIANET_TWIN]["si_snri"]["low"] < 0 < record["differences"][IIANET_TWIN]["si_snri"]["high"]
    assert record["differences_by_group"]["voices: same voice"][IIANET_TWIN]["si_snri"]["low"] > 0


def test_first_separate_then_watch_is_told_as_the_record_has_it(repository):
    """Begun with its twin's weights: what README.md and data_samples/README.md say of it."""
    record = json.loads((repository / "data_samples/results/iianet-two-stages/summary.json").read_text())
    readme, samples = ((repository / name).read_text() for name in ("README.md", "data_samples/README.md"))
    frozen = json.loads((repository / "data_samples/frozen_test.json").read_text())
    assert record["data"]["corpus_checksum"] == frozen["checksum"]
    ahead, same_voice = record["differences"], record["differences_by_group"]["voices: same voice"]
    told = (ahead["iianet-twin-more"], same_voice["iianet-twin-more"], ahead["iianet-one-run"])
    for found in (record["systems"]["iianet-two-stages"], *told):
        assert _in_words(found["si_snri"], readme), found["si_snri"]
    assert min(found["si_snri"]["low"] for found in (ahead[IIANET_TWIN], *told)) > 0
    lips, more, one_run = (record["networks"][f"iianet-{name}"]["trained"] for name in ("two-stages", "twin-more", "one-run"))
    twin = avkit.load_model(IIANET_TWIN).provenance
    assert lips["began_with"] == more["began_with"] == twin
    assert lips["examples"] == more["examples"] == 20_000 and one_run["examples"] == 48_000
    gains, control, single = (
        [f"{gain:.1f}" for _, gain in run["validation"]["val_si_snr_improvement"]] for run in (lips, more, one_run)
    )
    samples = " ".join(samples.split())
    assert "{} dB after the first thousand steps, then {}, {}, {} and {}:".format(*gains) in samples
    assert "`): {}, {}, {}, {} and {}.".format(*control) in samples and f"it had {single[-1]}, so" in samples


def test_the_twin_on_the_opening_alone_had_more_examples_and_is_behind_all_the_same(repository):
    pair = [avkit.load_model(name) for name in (NETWORKS[0], OPENING)]
    assert whole_training(pair[1].provenance)[0] == whole_training(pair[0].provenance)[0] + 10_000
    record = json.loads((repository / FROZEN).read_text())
    assert record["differences"][OPENING]["si_snri"]["low"] > 0
    assert record["differences_by_group"]["voices: same voice"][OPENING]["si_snri"]["low"] > 0
    same_voice = record["groups"]["voices: same voice"]
    assert same_voice[NETWORKS[0]]["si_snri"]["low"] > same_voice[OPENING]["si_snri"]["high"]


def _in_words(found: dict, readme: str) -> bool:
    interval = rf"\[{found['low']:.1f}, {found['high']:.1f}\]".replace("-", "−")
    mean = f"{found['mean']:.1f} dB".replace("-", "−")
    return re.search(rf"{mean}[^.]*\s{interval}", readme) is not None


def _cell(found: dict) -> str:
    return f"{found['mean']:.1f} [{found['low']:.1f}, {found['high']:.1f}]".replace("-", "−")
