"""How the official networks name their weights, and how we do: one readable table per network.

Each row is (official module, our module); `{i}` stands for any number, in both. What follows the module (`weight`,
`bias`, `gamma`, `running_mean`, …) is the same on both sides. A row may also name one tensor whole.
"""

from __future__ import annotations

import re

_AUDIO = "refinement_module.audio_net.blocks"
_VIDEO = "refinement_module.video_net.blocks"
_FUSION = "refinement_module.crossmodal_fusion.fusion_module.audio_lstm"


def _conv_norm_act(official: str, ours: str, norm: str | None = ".norm", act: bool = False) -> list[tuple[str, str]]:
    """Rows of one official "full layer": 2 is its convolution, 3 its norm (gLN wraps a GroupNorm), 4 its PReLU."""
    rows = [(f"{official}.full_layer.2", f"{ours}.conv")]
    if norm is not None:
        rows.append((f"{official}.full_layer.3{norm}", f"{ours}.norm"))
    if act:
        rows.append((f"{official}.full_layer.4", f"{ours}.act"))
    return rows


def _injection_sums(official: str, ours: str, norm: str) -> list[tuple[str, str]]:
    rows = []
    for theirs, name in (("local_embedding", "local"), ("global_gate", "gate"), ("global_embedding", "embedding")):
        rows += _conv_norm_act(f"{official}.{theirs}", f"{ours}.{name}", norm)
    return rows


def _conv_act_norm(official: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{official}.{part}", f"{ours}.{part}") for part in ("conv", "act", "norm")]


def _block(official: str, ours: str, norm: str) -> list[tuple[str, str]]:
    """What the audio and the visual block have in common."""
    return [
        *_conv_norm_act(f"{official}.gateway", f"{ours}.gateway", norm=None, act=True),
        *_conv_norm_act(f"{official}.projection", f"{ours}.projection", norm, act=True),
        *_conv_norm_act(f"{official}.downsample_layers.{{i}}", f"{ours}.compression.{{i}}", norm),
        *_injection_sums(f"{official}.fusion_layers.{{i}}", f"{ours}.reconstruction.inject.{{i}}", norm),
        *_injection_sums(f"{official}.concat_layers.{{i}}", f"{ours}.reconstruction.merge.{{i}}", norm),
        (f"{official}.residual_conv.full_layer.2", f"{ours}.expansion"),
    ]


def _scan(official: str, ours: str) -> list[tuple[str, str]]:
    return [
        (f"{official}.norm", f"{ours}.norm"),
        (f"{official}.rnn.rnn_lst.{{i}}", f"{ours}.rnn.{{i}}"),
        (f"{official}.linear", f"{ours}.fold"),
    ]


RTFS_NET = [
    ("encoder.conv.full_layer.2", "encoder.conv"),
    ("audio_bottleneck.full_layer.0.norm", "bottleneck.norm"),
    ("audio_bottleneck.full_layer.2", "bottleneck.conv"),
    *_block(_AUDIO, "rtfs_block", norm=".norm"),
    *_scan(f"{_AUDIO}.globalatt.0", "rtfs_block.scan_frequency"),
    *_scan(f"{_AUDIO}.globalatt.1", "rtfs_block.scan_time"),
    *_conv_act_norm(f"{_AUDIO}.globalatt.2.Queries.{{i}}", "rtfs_block.attention.queries.{i}"),
    *_conv_act_norm(f"{_AUDIO}.globalatt.2.Keys.{{i}}", "rtfs_block.attention.keys.{i}"),
    *_conv_act_norm(f"{_AUDIO}.globalatt.2.Values.{{i}}", "rtfs_block.attention.values.{i}"),
    *_conv_act_norm(f"{_AUDIO}.globalatt.2.attn_concat_proj", "rtfs_block.attention.output"),
    *_block(_VIDEO, "visual_block", norm=""),
    (f"{_VIDEO}.globalatt.0.MHSA.norm1", "visual_block.attention.norm_in"),
    (f"{_VIDEO}.globalatt.0.MHSA.attention.in_proj_weight", "visual_block.attention.qkv.weight"),
    (f"{_VIDEO}.globalatt.0.MHSA.attention.in_proj_bias", "visual_block.attention.qkv.bias"),
    (f"{_VIDEO}.globalatt.0.MHSA.attention.out_proj", "visual_block.attention.output"),
    (f"{_VIDEO}.globalatt.0.MHSA.norm2", "visual_block.attention.norm_out"),
    *_conv_norm_act(f"{_VIDEO}.globalatt.0.FFN.encoder", "visual_block.feed_forward.widen"),
    (f"{_VIDEO}.globalatt.0.FFN.refiner.full_layer.2", "visual_block.feed_forward.depthwise"),
    *_conv_norm_act(f"{_VIDEO}.globalatt.0.FFN.decoder", "visual_block.feed_forward.narrow"),
    *_conv_norm_act(f"{_FUSION}.key_embed", "caf.key", norm=""),
    *_conv_norm_act(f"{_FUSION}.value_embed", "caf.value", norm=""),
    *_conv_norm_act(f"{_FUSION}.attention_embed", "caf.lip_attention"),
    *_conv_norm_act(f"{_FUSION}.resize", "caf.lip_gate"),
    ("mask_generator.mask_generator.0", "s3.act"),
    ("mask_generator.mask_generator.1.full_layer.2", "s3.conv"),
    ("decoder.decoder", "decoder.conv"),
]

LIP_ENCODER = [
    ("frontend3D.0", "frontend.0"),
    ("frontend3D.1", "frontend.1"),
    ("frontend3D.2", "frontend.2"),
    *((f"trunk.layer{n}.{{i}}.conv{{i}}", f"stages.{n - 1}.{{i}}.conv{{i}}") for n in (1, 2, 3, 4)),
    *((f"trunk.layer{n}.{{i}}.bn{{i}}", f"stages.{n - 1}.{{i}}.bn{{i}}") for n in (1, 2, 3, 4)),
    *((f"trunk.layer{n}.{{i}}.relu{{i}}", f"stages.{n - 1}.{{i}}.relu{{i}}") for n in (1, 2, 3, 4)),
    *((f"trunk.layer{n}.{{i}}.downsample.{{i}}", f"stages.{n - 1}.{{i}}.downsample.{{i}}") for n in (2, 3, 4)),
]



def _conv_norm(official: str, ours: str, act: bool = False) -> list[tuple[str, str]]:
    parts = ("conv", "norm", "act") if act else ("conv", "norm")
    return [(f"{official}.{part}", f"{ours}.{part}") for part in parts]


def _intra(official: str, ours: str) -> list[tuple[str, str]]:
    rows = []
    for theirs, name in (("local_embedding", "local"), ("global_act", "gate"), ("global_embedding", "embedding")):
        rows += _conv_norm(f"{official}.{theirs}", f"{ours}.{name}")
    return rows


def _stream(official: str, ours: str, act: bool) -> list[tuple[str, str]]:
    """Rows of the sound's or the lips' way up (official block 0) and down (official block 1)."""
    return [
        *_conv_norm(f"{official}.0.proj_1x1", f"{ours}_bottom_up.projection", act),
        *_conv_norm(f"{official}.0.spp_dw.{{i}}", f"{ours}_bottom_up.compression.{{i}}"),
        *_intra(f"{official}.1.loc_glo_fus.{{i}}", f"{ours}_intra.{{i}}"),
        *_intra(f"{official}.1.last_layer.{{i}}", f"{ours}_top_down.merge.{{i}}"),
        (f"{official}.1.res_conv", f"{ours}_top_down.expansion"),
    ]


_TOP = "separation.inter_top"

IIANET = [
    ("encoder", "encoder.conv"),
    ("ln", "bottleneck.0"),
    ("bottleneck", "bottleneck.1"),
    ("pre_v", "lip_projection"),
    *_stream("sm.audio_blocks", "separation.audio", act=True),
    *_stream("sm.video_blocks", "separation.video", act=False),
    *_conv_norm("sm.InterA_T.M_wav", f"{_TOP}.audio_gate"),
    *_conv_norm("sm.InterA_T.W_wav", f"{_TOP}.audio_update"),
    *_conv_norm("sm.InterA_T.M_video", f"{_TOP}.video_gate"),
    *_conv_norm("sm.InterA_T.W_video", f"{_TOP}.video_update"),
    *_conv_norm("sm.InterA_T.amlp.attn", f"{_TOP}.audio_perceptron.mix"),
    *_conv_norm("sm.InterA_T.amlp.mlp.fc1", f"{_TOP}.audio_perceptron.widen"),
    ("sm.InterA_T.amlp.mlp.dwconv", f"{_TOP}.audio_perceptron.depthwise"),
    *_conv_norm("sm.InterA_T.amlp.mlp.fc2", f"{_TOP}.audio_perceptron.narrow"),
    *_conv_norm("sm.InterA_T.vmlp.attn", f"{_TOP}.video_perceptron.first"),
    *_conv_norm("sm.InterA_T.vmlp.mlp", f"{_TOP}.video_perceptron.second"),
    *_conv_norm("sm.video_blocks.1.video_res.{i}", "separation.inter_middle.{i}.gate"),
    ("sm.InterA_B_A.0", "separation.audio_inter_bottom.weigh.conv"),
    ("sm.InterA_B_A.1", "separation.audio_inter_bottom.weigh.act"),
    ("sm.InterA_B_V.0", "separation.video_inter_bottom.weigh.conv"),
    ("mask_net.0", "mask.0"),
    ("mask_net.1", "mask.1"),
    ("decoder", "decoder.conv"),
]


class NameTable:
    """A table of rows, read in either direction."""

    def __init__(self, rows: list[tuple[str, str]]):
        self.forward = [(_pattern(official), ours) for official, ours in rows]
        self.backward = [(_pattern(ours), official) for official, ours in rows]

    def to_ours(self, name: str) -> str | None:
        """Our name of an official tensor; None where the table has no row for it."""
        return _translate(name, self.forward)

    def to_official(self, name: str) -> str | None:
        """The official name of one of our tensors; None where the table has no row for it."""
        return _translate(name, self.backward)


def _pattern(module: str) -> re.Pattern:
    return re.compile(re.escape(module).replace(r"\{i\}", r"(\d+)") + r"(\.[a-z_]+)?")


def _translate(name: str, rows: list[tuple[re.Pattern, str]]) -> str | None:
    for pattern, target in rows:
        match = pattern.fullmatch(name)
        if match:
            *numbers, leaf = match.groups()
            parts = target.split("{i}")
            return "".join(part + number for part, number in zip(parts, [*numbers, ""], strict=True)) + (leaf or "")
    return None
