"""The papers' alternatives are the functions that they claim to be, drop in, learn, and have the papers' sizes."""

import itertools

import pytest
import torch
from torch import nn

import avkit
from avkit.ablations import (
    AttentionScan,
    ConcatenationFusion,
    GatedMask,
    IIANetChanges,
    PlainReconstruction,
    RealMask,
    RecurrentScan,
    Regression,
    RTFSNetChanges,
    Sum,
    changes_for,
    counts,
    create,
)
from avkit.checkpoints import load_model, save_model
from avkit.errors import CheckpointError, InputError
from avkit.losses import negative_snr
from avkit.rtfs import RTFSBlock

SMALL = {"rnn_hidden": 8, "channels": 16, "hidden": 16, "attention_heads": 2, "lip_hidden": 8}
RTFS = [
    *(RTFSNetChanges(scan=scan) for scan in ("rnn", "gru", "lstm", "attention")),
    *(RTFSNetChanges(separation=separation) for separation in ("regression", "mask", "gated-mask")),
    RTFSNetChanges(fusion="concatenation"),
    RTFSNetChanges(reconstruction="plain"),
    RTFSNetChanges(blocks="unshared"),
    RTFSNetChanges(
        scan="gru", fusion="concatenation", separation="mask", reconstruction="plain", blocks="unshared"
    ),
]
IIA = [IIANetChanges(**{name: False}) for name in ("inter_top", "inter_middle", "inter_bottom", "intra")]
ALL = [("rtfs-net-tiny", changes, SMALL) for changes in RTFS] + [
    ("iianet-tiny", changes, {"hidden": 32, "lip_hidden": 16}) for changes in [*IIA, IIANetChanges(False, False, False, False)]
]  # fmt: skip


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "changes", "sizes"), ALL)
def test_changed_network_takes_the_same_input_and_every_parameter_learns(name, changes, sizes):
    torch.manual_seed(0)
    model = create(name, changes, **sizes)
    assert model.changes == changes
    mixture, lips = torch.randn(2, 9001), torch.randn(2, 512, 14)
    output = model(mixture, lips)
    assert output.shape == (2, 1, 9001) and output.isfinite().all()
    output.square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    regression = isinstance(changes, RTFSNetChanges) and changes.separation == "regression"
    deaf = isinstance(changes, IIANetChanges) and not changes.inter_top and not changes.inter_middle
    assert not without or (deaf and all("video" in n or "lip" in n for n in without)) and not regression, (
        without
    )


@pytest.mark.parametrize("changes", [RTFSNetChanges(), IIANetChanges()])
def test_no_change_is_the_published_network(changes):
    name = "rtfs-net-4" if isinstance(changes, RTFSNetChanges) else "iianet"
    assert create(name, changes).state_dict().keys() == avkit.create_model(name).state_dict().keys()


@pytest.mark.parametrize(("scan", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_recurrences_have_the_size_of_their_equations(scan, gates):
    model = create("rtfs-net-4", RTFSNetChanges(scan=scan))
    for axis in (model.rtfs_block.scan_frequency, model.rtfs_block.scan_time):
        assert isinstance(axis.rnn, RecurrentScan)
        first = 2 * gates * 32 * (512 + 32 + 2)
        later = 3 * 2 * gates * 32 * (64 + 32 + 2)
        assert parameters(axis.rnn) == first + later


def test_recurrent_scan_sees_both_directions_of_its_own_axis_only():
    scan = RecurrentScan(nn.GRU, 6, 4, layers=2)
    x = torch.randn(5, 3, 6)
    y = scan(x)
    assert y.shape == (5, 3, 8)
    later = x.clone()
    later[4, 1] += 1
    difference = (scan(later) - y).abs().amax(-1)
    assert difference[0, 1] > 0, "the last step reaches the first"
    assert not difference[:, [0, 2]].any(), "other lanes do not hear of it"


def test_attention_scan_mixes_steps_and_knows_their_order():
    scan = AttentionScan(16).eval()
    x = torch.randn(7, 3, 16)
    with torch.no_grad():
        y = scan(x)
        assert y.shape == x.shape
        torch.testing.assert_close(scan(x[:, [2, 0, 1]]), y[:, [2, 0, 1]])
        assert not torch.allclose(scan(x.flip(0)), y.flip(0), atol=1e-3)


def test_concatenation_is_a_convolution_of_sound_and_lips_laid_side_by_side():
    fusion = ConcatenationFusion(4, 6)
    a, v = torch.randn(2, 4, 5, 3), torch.randn(2, 6, 2)
    weight = fusion.mix.conv.weight[:, :, 0, 0]
    lips = v[:, :, [0, 0, 0, 1, 1]]
    mixed = (
        torch.einsum("oc,bctf->botf", weight[:, :4], a)
        + torch.einsum("oc,bct->bot", weight[:, 4:], lips)[..., None]
    )
    expected = nn.functional.group_norm(mixed + fusion.mix.conv.bias[:, None, None], 1)
    torch.testing.assert_close(fusion(a, v), expected)


def test_masks_by_their_formulas():
    a, encoded = torch.randn(2, 6, 5, 3), torch.randn(2, 6, 5, 3)
    assert torch.equal(Regression()(a, encoded), a[:, None])
    plain = RealMask(6, n_src=2)
    z = plain(a, encoded)
    assert z.shape == (2, 2, 6, 5, 3)
    mask = z / encoded[:, None]
    assert (mask > -1e-6).all()
    torch.testing.assert_close(z[:, 1], plain.mask(a)[:, 6:] * encoded)
    gated = GatedMask(6, n_src=1)
    m = torch.relu(gated.conv(gated.act(a)))
    expected = torch.tanh(gated.output(m)) * torch.sigmoid(gated.gate(m)) * encoded
    torch.testing.assert_close(gated(a, encoded)[:, 0], expected)


def test_plain_reconstruction_adds_what_there_is():
    fine, coarse, g = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2), torch.randn(1, 2, 2, 2)
    expected = fine + (coarse + g).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(PlainReconstruction()([fine, coarse], g), expected)


def test_unshared_blocks_with_the_same_weights_compute_the_shared_network():
    torch.manual_seed(0)
    shared = avkit.create_model("rtfs-net-tiny", **SMALL).eval()
    unshared = create("rtfs-net-tiny", RTFSNetChanges(blocks="unshared"), **SMALL).eval()
    assert len(unshared.rtfs_block) == shared.config.repeats
    assert sum(isinstance(m, RTFSBlock) for m in unshared.modules()) == shared.config.repeats
    for name, tensor in shared.state_dict().items():
        block = name.startswith("rtfs_block.")
        names = (
            [name.replace("rtfs_block.", f"rtfs_block.{i}.") for i in range(shared.config.repeats)]
            if block
            else [name]
        )
        for copy in names:
            unshared.state_dict()[copy].copy_(tensor)
    mixture, lips = torch.randn(1, 8000), torch.randn(1, 512, 12)
    with torch.no_grad():
        torch.testing.assert_close(unshared(mixture, lips), shared(mixture, lips))


def test_unshared_blocks_take_every_other_change():
    model = create(
        "rtfs-net-tiny", RTFSNetChanges(blocks="unshared", scan="lstm", reconstruction="plain"), **SMALL
    )
    blocks = [m for m in model.modules() if isinstance(m, RTFSBlock)]
    assert all(isinstance(b.scan_time.rnn, RecurrentScan) for b in blocks)
    assert all(isinstance(b.reconstruction, PlainReconstruction) for b in blocks)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_any_depth_of_compression_is_a_setting(levels):
    model = avkit.create_model("rtfs-net-4", levels=levels, repeats=1).eval()
    samples = max(model.shortest, 16000)
    with torch.no_grad():
        assert model(torch.randn(1, samples), torch.randn(1, 512, 25)).shape == (1, 1, samples)


def heard(changes, mixture, *lips):
    torch.manual_seed(0)
    model = create("iianet-tiny", changes, hidden=32, lip_hidden=16).eval()
    with torch.no_grad():
        return [model(mixture, one) for one in lips]


def test_lips_reach_the_sound_at_the_top_and_in_the_middle_and_nowhere_else():
    mixture, lips = torch.randn(1, 8000), torch.randn(2, 1, 512, 13)
    for top, middle in itertools.product((True, False), repeat=2):
        one, other = heard(IIANetChanges(inter_top=top, inter_middle=middle), mixture, *lips)
        assert torch.equal(one, other) == (not top and not middle)


def test_iianet_without_its_blocks_loses_their_parameters_and_no_others():
    full = avkit.create_model("iianet").separation
    total = 3_036_670
    top = sum(parameters(full.inter_top.get_submodule(n)) for n in
              ("audio_gate", "audio_update", "video_gate", "video_update"))  # fmt: skip
    intra = [full.audio_intra, full.video_intra, full.audio_top_down.merge, full.video_top_down.merge]
    lost = {
        "inter_top": top,
        "inter_middle": parameters(full.inter_middle),
        "inter_bottom": parameters(full.audio_inter_bottom) + parameters(full.video_inter_bottom),
        "intra": sum(parameters(module) for module in intra),
    }
    for name, count in lost.items():
        model = create("iianet", IIANetChanges(**{name: False}))
        assert parameters(model) == total - count, name
    bare = create("iianet", IIANetChanges(False, False, False, False))
    assert parameters(bare) == total - sum(lost.values())
    assert sum(isinstance(m, Sum) for m in bare.modules()) == 10 + 8 + 2


def test_sizes_beside_the_papers():
    """Where no reason for a difference is given, the paper's figure is ours, rounded or cut off at its last digit."""
    rows = counts()
    for row in rows:
        digits = len(str(row.paper).partition(".")[2])
        step = 10.0**-digits if isinstance(row.paper, float) else 1.0
        agrees = -0.5 * step <= row.ours - row.paper < step
        assert agrees or row.why, row
    by_name = {(row.what, row.unit): row.ours for row in rows}
    assert by_name["blocks that share weights", "K parameters"] == 740.21
    assert by_name["blocks of their own", "K parameters"] == 2183.999
    assert by_name["fusion by CAF", "K parameters"] == 7.936
    assert round(by_name["fusion by concatenation", "K parameters"]) == 197
    assert round(by_name["fusion by concatenation", "G MACs, 2 s"], 1) == 6.4
    deeper = [by_name[f"q = {q}", "G MACs, 2 s"] for q in (1, 2, 3, 4, 5)]
    assert deeper == sorted(deeper, reverse=True) and round(deeper[1], 1) == 21.9
    assert all(abs(row.ours / row.paper - 1) < 0.05 for row in rows if row.what != "fusion by CAF")
    assert round(10 * 256 * 251 * 129 / 1e9, 3) == 0.083, "the reason given for CAF's MACs"
    attention = 4 * 251 * 251 * 129 * (4 * 4 + 64)
    assert round(attention / 1e9, 1) == 2.6, "the reason given for q = 1"


def test_typos_and_foreign_changes_are_refused():
    with pytest.raises(InputError, match="gru"):
        RTFSNetChanges(scan="gnu")
    with pytest.raises(InputError, match="intra"):
        IIANetChanges(intra="no")
    with pytest.raises(InputError, match="RTFSNet"):
        create("iianet-tiny", RTFSNetChanges())
    with pytest.raises(InputError, match="n_src"):
        create("rtfs-net-tiny", RTFSNetChanges(separation="regression"), n_src=2)
    with pytest.raises(InputError, match="repeat"):
        create("rtfs-net-4", RTFSNetChanges(), repeat=2)


def test_changed_networks_do_not_pass_for_official_ones():
    model = create("rtfs-net-tiny", RTFSNetChanges(blocks="unshared"), **SMALL)
    with pytest.raises(CheckpointError, match="UnsharedRTFSNet"):
        avkit.checkpoints.to_official(model)


@pytest.mark.parametrize(
    "changes", [RTFSNetChanges(scan="lstm", fusion="concatenation"), IIANetChanges(intra=False)]
)
def test_changed_networks_learn(changes):
    torch.manual_seed(0)
    name = "rtfs-net-tiny" if isinstance(changes, RTFSNetChanges) else "iianet-tiny"
    model = create(name, changes)
    target = torch.sin(torch.arange(8000) * 0.15)[None] * 0.1
    mixture = target + 0.1 * torch.randn(1, 8000)
    lips = torch.randn(1, 512, 13)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        loss = negative_snr(model(mixture, lips)[:, 0], target).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 2


def test_an_altered_network_is_saved_with_its_changes_and_comes_back(tmp_path):
    changes = changes_for("rtfs-net-tiny", {"fusion": "concatenation", "scan": "gru"})
    model = create("rtfs-net-tiny", changes, repeats=2).eval()
    save_model(tmp_path, model, "rtfs-net-tiny")
    loaded = load_model(tmp_path)
    assert loaded.changes == changes and loaded.config.repeats == 2
    mixture, lips = torch.randn(1, 8000), torch.randn(1, 512, 12)
    with torch.no_grad():
        torch.testing.assert_close(loaded(mixture, lips), model(mixture, lips))


@pytest.mark.parametrize(
    ("settings", "words"), [({"fuse": "caf"}, "no part fuse"), ({"fusion": "sum"}, "fusion is 'sum'")]
)
def test_changes_that_do_not_exist_are_named(settings, words):
    with pytest.raises(InputError, match=words):
        changes_for("rtfs-net-tiny", settings)
