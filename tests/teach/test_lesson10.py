"""Notebook 10: lesions and what is heard under them, InterA-M's factors, counts of cycles, the trail, the moving picture."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
import torch
from PIL import Image

import avkit
from avkit import ablations
from avkit.complexity import measure
from avkit.teach import lesson10
from avkit.teach import lesson10_lab as lab
from avkit.teach import lesson10_moving as moving
from avkit.teach.lesson08_lab import find_recordings
from avkit.teach.samples import Sample

SMALL = {"channels": 12, "hidden": 16, "lip_hidden": 8, "filters": 10, "cycles": 4, "fusion_cycles": 2}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return avkit.create_model("iianet-tiny", **SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    return torch.randn(1, 12_000).expand(2, -1), torch.randn(2, 512, 19)


def test_each_lesion_changes_the_output_and_leaves_nothing_behind(model, inputs):
    before = model(*inputs)
    for part in lab.LESIONS:
        with lab.without(model, part):
            assert not torch.allclose(model(*inputs), before, rtol=1e-3), part
        torch.testing.assert_close(model(*inputs), before)


@pytest.mark.parametrize("part", ["inter_top", "inter_middle", "inter_bottom"])
def test_lesions_put_in_what_the_ablations_train_with(model, inputs, part):
    changed = ablations.create("iianet-tiny", ablations.IIANetChanges(**{part: False}), **SMALL).eval()
    changed.load_state_dict(model.state_dict(), strict=False)
    with lab.without(model, part), torch.no_grad():
        torch.testing.assert_close(model(*inputs), changed(*inputs), atol=1e-5, rtol=1e-3)


def test_without_both_meeting_places_no_lips_are_heard(model, inputs):
    for part in lab.LESIONS:
        with lab.without(model, part):
            one, other = model(*inputs)
        assert torch.equal(one, other) == (part == "both"), part


def test_with_both_messages_held_both_talkers_get_the_same(model, inputs):
    with lab.without(model, "top_constant"), lab.without(model, "middle_constant"):
        one, other = model(*inputs)
    torch.testing.assert_close(one, other)
    for part in ("top_constant", "middle_constant"):
        with lab.without(model, part):
            one, other = model(*inputs)
        assert not torch.allclose(one, other, rtol=1e-3), part


def test_half_of_the_exchange_is_left(model):
    top = model.separation.inter_top
    a, v = torch.randn(2, 16, 30), torch.randn(2, 8, 5)
    whole = top(a, v)
    for part, deaf, hearing in (("top_to_sound", 0, 1), ("top_to_lips", 1, 0)):
        with lab.without(model, part):
            cut = top(a, v)
        torch.testing.assert_close(cut[hearing], whole[hearing])
        perceptron = (top.audio_perceptron, top.video_perceptron)[deaf]
        torch.testing.assert_close(cut[deaf], perceptron((a, v)[deaf]))


def test_factors_are_those_applied(model, inputs, monkeypatch):
    monkeypatch.setattr(lab, "both_voices", lambda model, sample, features: model(inputs[0], features))
    found = lab.factors(model, None, inputs[1])
    assert len(found) == 2 and [x.shape[2] for x in found[0]] == [19, 10, 5, 3, 2]
    assert all(1 <= x.min() and x.max() <= 2 for cycle in found for x in cycle)
    assert lab.order_by_mouth(torch.tensor([[1.0, 2], [2, 1], [1, 1]]), torch.tensor([0.0, 1])).tolist() == [
        1,
        2,
        0,
    ]


def test_cycles_add_up_to_the_whole_network():
    once, with_lips, alone = lab.cycle_macs("iianet-tiny", 0.5).values()
    config = avkit.create_model("iianet-tiny").config
    whole = once + config.fusion_cycles * with_lips + (config.cycles - config.fusion_cycles) * alone
    assert measure(avkit.create_model("iianet-tiny"), 0.5).macs / 1e9 == pytest.approx(whole, rel=1e-9)
    costs = lab.part_costs("iianet-tiny", 0.5)
    assert sum(macs for _, macs in costs.values()) == pytest.approx(with_lips, rel=1e-9)
    published = sum(p.numel() for p in avkit.create_model("iianet-tiny").separation.parameters())
    assert sum(params for params, _ in costs.values()) == published


def test_exercise_has_the_published_counts(repository):
    """34.145 and 21.465 G for 2 s, as the ledger has them; four cycles with lips take what is left."""
    once, with_lips, alone = lab.cycle_macs("iianet", 2.0).values()
    assert once + 4 * with_lips + 12 * alone == pytest.approx(lesson10.WITH_12, abs=6e-4)
    assert once + 4 * with_lips + 6 * alone == pytest.approx(lesson10.WITH_6, abs=6e-4)
    assert once + 4 * with_lips == pytest.approx(lesson10.FOUR_CYCLES, abs=5e-3)


def test_trail_follows_the_official_network_and_finds_a_mistake(repository):
    recordings = find_recordings(repository / "data_samples" / "talkers")
    official = recordings.official_state_dict("IIANet")
    network = avkit.checkpoints.from_official(official, "iianet")
    with lab.without(network, "x0"):
        wrong = lab.trail(recordings, network)
        begun = lab.trail(recordings, network, cycles=2)
    assert begun == {name: wrong[name] for name in list(wrong)[:5]} and list(begun)[-1] == "cycle 2"
    assert max(wrong[name] for name in ("encoder", "bottleneck", "lip projection", "cycle 1")) < 1e-4
    assert min(wrong[f"cycle {number}"] for number in range(2, 17)) > 1e-3 and wrong["output"] > 1e-3


def test_runtime_is_quiet_and_positive(capfd):
    found = lab.runtime("iianet-tiny", 0.2)
    assert found.params == 356_323 and found.macs > 0 and found.seconds >= 0 and found.megabytes > 0.1
    print("heard")
    assert capfd.readouterr() == ("heard\n", "")


def test_strangers_lips_are_those_of_another_mixture(model):
    mixtures = [lab.Watched(None, torch.full((2, 512, 3), float(index))) for index in range(3)]
    mixtures[0].features[1] = 7
    assert lab.lips_for("own", model, mixtures, 0) is mixtures[0].features
    assert lab.lips_for("the other talker's", model, mixtures, 0)[0].unique().item() == 7
    assert lab.lips_for("a stranger's", model, mixtures, 2).unique().tolist() == [0, 7]
    assert lab.lips_for("absent", model, mixtures, 1).abs().max() == 0


def test_outputs_are_measured_against_the_voice_wanted_and_the_other(model, monkeypatch):
    torch.manual_seed(2)
    voices = torch.randn(2, 4000)
    frames = torch.zeros(2, 3, 96, 96, dtype=torch.uint8)
    sample = Sample("two noises", voices.sum(0), voices, frames, ("", ""))
    mixed = lab.Watched(sample, torch.zeros(2, 512, 3))
    noise = 0.1 * torch.randn(2, 4000)
    for outputs, right in ((voices, 4), (voices.flip(0), 0), (voices[:1].expand(2, -1), 2)):
        monkeypatch.setattr(lab, "both_voices", lambda *_, outputs=outputs: outputs + noise)
        wanted, other = lab.gains_against_either(model, [mixed] * 2, "absent")
        assert torch.maximum(wanted, other).tolist() == pytest.approx([20] * 4, abs=1)
        assert int((wanted > other).sum()) == right


def test_retrained_ablation_is_read_or_its_command_named(tmp_path):
    data, ledger = tmp_path / "talkers", tmp_path / "results" / "ledger"
    ledger.mkdir(parents=True)
    assert lab.retrained(data) is None and "avkit reproduce trend.inter-middle" in lab.say_retrained(None)
    for without_it, warned in ((1.0, False), (-0.1, True)):
        record = {"note": "+0.25 dB over five", "examples": 1600, "pairs": [{"first": 1.2, "second": without_it}] * 5}
        (ledger / "trend.inter-middle.json").write_text(json.dumps(record))
        told = lab.say_retrained(lab.retrained(data))
        assert f"1.2 and {without_it} dB SI-SNRi (+0.25 dB over five)" in told and "1600 examples" in told
        assert ("how much sooner" in told) == warned


def test_moving_picture_moves_and_says_what_it_shows():
    shown = moving.moving_picture()
    image = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", shown.html)[1])))
    assert image.n_frames == 16 and len(shown.html) < 200_000
    stills = set()
    for step in range(16):
        image.seek(step)
        stills.add(image.convert("RGB").tobytes())
    assert len(stills) == 16
    assert (
        "first 4 of 16 cycles" in shown.text
        and "first of 12 passes" in shown.text
        and "alone for 12 cycles" in shown.text
    )


def test_steps_light_who_takes_part():
    def words(step):
        return " ".join(text.get_text() for axes in moving.draw_step(step).axes for text in axes.texts)

    assert "CAF: lips → sound" in words(0) and "InterA-T" in words(3) and "CAF" not in words(1)
    assert words(12).count("the sound alone") == 1 and "finished" in words(12)
