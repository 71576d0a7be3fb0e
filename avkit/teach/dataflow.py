"""Dataflow figures of the two networks: their blocks, the arrows between them, and the shapes that flow there.

Every shape is taken from a network that `avkit.create_model` built, by hooks on its modules while it runs on two seconds
of sound; none is typed. Blocks carry the names of the modules' attributes, so `lit="caf"` highlights `model.caf`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from avkit.registry import find_preset
from avkit.teach.dataflow_iianet import IIANET, draw_iianet, iianet
from avkit.teach.diagrams import PALE_INK, Diagram, lit_names
from avkit.teach.display import Html
from avkit.teach.traces import legend, spoken, stacked, trace, written

__all__ = [
    "CAF",
    "IIANET",
    "RTFS_BLOCK",
    "RTFS_NET",
    "S3",
    "VISUAL_BLOCK",
    "caf",
    "draw_caf",
    "draw_iianet",
    "draw_rtfs_block",
    "draw_rtfs_net",
    "draw_s3",
    "draw_visual_block",
    "iianet",
    "rtfs_block",
    "rtfs_net",
    "s3",
    "visual_block",
]

RTFS_NET = ("encoder", "bottleneck", "rtfs_block", "visual_block", "caf", "s3", "decoder")
RTFS_BLOCK = (
    "gateway",
    "projection",
    "compression",
    "scan_frequency",
    "scan_time",
    "attention",
    "reconstruction",
    "expansion",
)
VISUAL_BLOCK = (
    "gateway",
    "projection",
    "compression",
    "attention",
    "feed_forward",
    "reconstruction",
    "expansion",
)
CAF = ("value", "key", "lip_attention", "attention_weights", "lip_gate")
S3 = ("act", "conv", "mask", "product")


# ---------------------------------------------------------------------------------------------------------- RTFS-Net


def rtfs_net(lit: str | Iterable[str] = (), name: str = "rtfs-net-4") -> Html:
    """RTFS-Net whole (paper, section 3 and figure 1), with the shapes of two seconds of sound.

    Args:
        lit: blocks to highlight, among `RTFS_NET`.
        name: a preset of RTFS-Net.

    Raises:
        InputError: an unknown block or network.
    """
    lit = lit_names(lit, RTFS_NET, "the figure of RTFS-Net")
    repeats = find_preset(name).config.repeats
    return draw_rtfs_net(lit, name).picture(
        f"Dataflow of {name}. The mixture passes the encoder, which gives E, and the bottleneck, which gives a0; an RTFS "
        f"block; then CAF, where the lips join after their visual block. {repeats - 1} times a0 is added and the same RTFS "
        f"block applied again. S3 makes a mask, multiplies it with E, and the decoder returns one voice. {spoken(lit)}"
    )


def draw_rtfs_net(lit: tuple[str, ...], name: str) -> Diagram:
    """The sheet of `rtfs_net`."""
    shape = {module: found[0] for module, found in trace(name).items()}
    repeats = find_preset(name).config.repeats
    sheet = Diagram(100, 62, lit)
    top, middle, low = 52, 30, 8
    mixture = sheet.waveform((6.5, top), (11, 8), voices=2)
    encoder = sheet.box("encoder", (22, top), (14, 9), "encoder", "STFT, conv")
    bottleneck = sheet.box("bottleneck", (22, middle), (13, 9), "bottleneck")
    first = sheet.box("rtfs_block", (43, middle), (12.5, 9), "RTFS block")
    caf = sheet.box("caf", (62, middle), (8.6, 9), "CAF", flow="both")
    plus = sheet.operator((70.5, middle), "+")
    again = sheet.box("rtfs_block#2", (80.3, middle), (13, 9), "RTFS block", "same weights")
    s3 = sheet.box("s3", (80.3, top), (9, 9), "S³", "mask · E")
    decoder = sheet.box("decoder", (94, 39), (11, 9), "decoder", "conv, iSTFT")
    voice = sheet.waveform((94, 20), (10, 8), voices=1)
    mouth = sheet.lips((6.5, low), (11, 7))
    visual = sheet.box("visual_block", (43, low), (15, 9), "visual block", flow="lips")

    sheet.arrow((mixture.right[0] + 0.5, top), encoder.left)
    sheet.arrow(encoder.right, s3.left)
    sheet.arrow(encoder.bottom, bottleneck.top)
    sheet.arrow(bottleneck.right, first.left)
    sheet.arrow((30.5, middle), (30.5, 39.5), (plus.x, 39.5), plus.top)
    sheet.arrow(first.right, caf.left)
    sheet.arrow(caf.right, plus.left)
    sheet.arrow(plus.right, again.left)
    sheet.arrow(again.bottom, (again.x, 20), (plus.x, 20), plus.bottom)
    sheet.arrow(again.top, s3.bottom)
    sheet.arrow(s3.right, (decoder.x, top), decoder.top)
    sheet.arrow(decoder.bottom, (voice.x, voice.y + 5))
    sheet.arrow((mouth.right[0] + 0.5, low), visual.left)
    sheet.arrow(visual.right, (caf.x, low), caf.bottom)

    sheet.label((mixture.x, top - 7), f"mixture\n{written(shape['mixture'])}")
    sheet.label((51, top + 1.8), f"E  {written(shape['encoder'])}")
    sheet.label((21, 41), written(shape["encoder"]), "right")
    sheet.label((51, 41.3), f"$a_0$  {written(shape['bottleneck'])}")
    sheet.label((32.8, middle - 3.4), stacked(shape["bottleneck"]))
    sheet.label((53.4, middle - 3.4), stacked(shape["rtfs_block"]))
    sheet.label((62, middle + 6.3), written(shape["caf"]))
    sheet.label((79.3, 41.3), "last\ntime", "right", color=PALE_INK)
    sheet.label((81.2, 41.3), stacked(shape["rtfs_block"]), "left")
    sheet.label((75.5, 18), f"R − 1 = {repeats - 1} times", color=PALE_INK)
    sheet.label((99.3, top + 2), f"z  {written(shape['s3'])}", "right")
    sheet.label((voice.x, voice.y - 7), f"voice\n{written(shape['decoder'])}")
    sheet.label((23, low + 1.8), f"lips  {written(shape['lips'])}")
    sheet.label((63, low + 5), f"v  {written(shape['visual_block'])}", "left")
    axes = "channels × frames × frequencies; lips: channels × frames"
    sheet.label((99, 4), legend(name, axes), "right", color=PALE_INK)
    return sheet


# --------------------------------------------------------------------------------------------------- inside RTFS-Net


def rtfs_block(lit: str | Iterable[str] = (), name: str = "rtfs-net-4") -> Html:
    """One RTFS block unrolled (paper, section 3.2), with the shapes of two seconds of sound.

    Args:
        lit: parts to highlight, among `RTFS_BLOCK`.
        name: a preset of RTFS-Net.

    Raises:
        InputError: an unknown part or network.
    """
    lit = lit_names(lit, RTFS_BLOCK, "the figure of an RTFS block")
    levels = find_preset(name).config.levels
    return draw_rtfs_block(lit, name).picture(
        f"Dataflow of one RTFS block of {name}. Gateway, then projection to fewer channels; compression gives {levels} levels, "
        "each half as fine as the one before, and their sum G at the coarsest; G is scanned along frequency, then along "
        "time, then attends over time; reconstruction puts G back into every level; expansion returns to all channels, "
        f"and what left the gateway is added. {spoken(lit)}"
    )


def draw_rtfs_block(lit: tuple[str, ...], name: str) -> Diagram:
    """The sheet of `rtfs_block`."""
    coarse = {
        "scan_frequency": ("scan", "along frequency"),
        "scan_time": ("scan", "along time"),
        "attention": ("attention", "over time"),
    }
    axes = "channels ×\nframes × frequencies"
    return _draw_block("rtfs_block", RTFS_BLOCK, coarse, axes, "sound", lit, name)


def visual_block(lit: str | Iterable[str] = (), name: str = "rtfs-net-4") -> Html:
    """The visual block unrolled (paper, section 3.3): the RTFS block's plan along one axis, with the shapes of two seconds.

    Args:
        lit: parts to highlight, among `VISUAL_BLOCK`.
        name: a preset of RTFS-Net.

    Raises:
        InputError: an unknown part or network.
    """
    lit = lit_names(lit, VISUAL_BLOCK, "the figure of the visual block")
    levels = find_preset(name).config.lip_levels
    return draw_visual_block(lit, name).picture(
        f"Dataflow of the visual block of {name}, over lip frames. Gateway, then projection to fewer channels; compression gives "
        f"{levels} levels, and their sum G at the coarsest; G attends over frames and passes a feed-forward layer; "
        f"reconstruction puts G back into every level; expansion, and what left the gateway is added. {spoken(lit)}"
    )


def draw_visual_block(lit: tuple[str, ...], name: str) -> Diagram:
    """The sheet of `visual_block`."""
    coarse = {"attention": ("attention", "over frames"), "feed_forward": ("feed-forward", "1×1, conv, 1×1")}
    return _draw_block("visual_block", VISUAL_BLOCK, coarse, "channels × lip frames", "lips", lit, name)


def _draw_block(
    module: str,
    parts: tuple[str, ...],
    coarse: Mapping[str, tuple[str, str]],
    axes: str,
    flow: str,
    lit: tuple[str, ...],
    name: str,
) -> Diagram:
    """Gateway, projection, compression; below, what works on G; reconstruction, expansion, residual.

    Args:
        coarse: what works on G, attribute name -> (title, note), in the order of the flow.
        axes: what the legend calls them.
    """
    found = {part: trace(name)[f"{module}.{part}"] for part in parts}
    *levels, pooled = found["compression"]
    outer = written(found["expansion"][0])
    sheet = Diagram(100, 62, lit)
    top, low = 44, 11
    tall = max(9.0, 4.0 * len(levels))
    gateway = sheet.box("gateway", (6.5, top), (9, 9), "gateway", "1×1, PReLU", flow)
    projection = sheet.box("projection", (23.5, top), (11.2, 9), "projection", "1×1 conv", flow)
    note = f"q = {len(levels)} levels"
    compression = sheet.box("compression", (42.5, top), (13, tall), "compression", note, flow)
    restore = sheet.box("reconstruction", (69.5, top), (16.4, tall), "reconstruction", "TF-AR", flow)
    expansion = sheet.box("expansion", (90, top), (10.6, 9), "expansion", "1×1 conv", flow)
    plus = sheet.operator((90, 26), "+")
    where = np.linspace(34, 74, len(coarse))
    row = [
        sheet.box(part, (x, low), (14 if len(note) > 11 else 11.5, 9), title, note, flow)
        for x, (part, (title, note)) in zip(where, coarse.items(), strict=True)
    ]
    down, up = 39.5, 72.0  # where G leaves compression, and enters reconstruction

    sheet.arrow((gateway.x, 27), gateway.bottom)
    sheet.arrow(gateway.right, projection.left)
    sheet.arrow(projection.right, compression.left)
    sheet.arrow(gateway.top, (gateway.x, 56), (98, 56), (98, plus.y), plus.right)
    sheet.arrow((down, compression.bottom[1]), (down, row[0].top[1]))
    for before, after, part in zip(row, row[1:], coarse, strict=False):
        sheet.arrow(before.right, after.left)
        sheet.label(((before.x + after.x) / 2, low - 3.2), stacked(found[part][0]))
    sheet.arrow((up, row[-1].top[1]), (up, restore.bottom[1]))
    sheet.arrow(restore.right, expansion.left)
    sheet.arrow(expansion.bottom, plus.top)
    sheet.arrow(plus.bottom, (plus.x, 13))
    gap = (tall - 2) / len(levels)
    for index, level in enumerate(levels):
        height = top + gap * ((len(levels) - 1) / 2 - index)
        sheet.arrow((compression.right[0], height), (restore.left[0], height))
        sheet.label((55.1, height + 1.5), f"$d_{index}$ {written(level)}")

    sheet.label((gateway.x, 24.8), f"x\n{outer}")
    sheet.label((52, 58), f"residual  {written(found['gateway'][0])}")
    sheet.label((14.5, top - 3.2), stacked(found["gateway"][0]))
    sheet.label((32.6, top - 3.2), stacked(found["projection"][0]))
    sheet.label((81.3, top - 3.2), stacked(found["reconstruction"][0]))
    sheet.label((down - 1, 26), f"G  {written(pooled)}", "right")
    sheet.label((up - 1, 26), f"G  {written(found[list(coarse)[-1]][0])}", "right")
    sheet.label((plus.x - 1, 33.5), written(found["expansion"][0]), "right")
    sheet.label((plus.x, 10.7), outer)
    sheet.label((1, 8), legend(name, axes), "left", color=PALE_INK)
    return sheet


def caf(lit: str | Iterable[str] = (), name: str = "rtfs-net-4") -> Html:
    """CAF: how the lips reach the sound (paper, section 3.4), with the shapes of two seconds of sound.

    Args:
        lit: parts to highlight, among `CAF`.
        name: a preset of RTFS-Net.

    Raises:
        InputError: an unknown part or network.
    """
    lit = lit_names(lit, CAF, "the figure of CAF")
    heads = find_preset(name).config.fusion_heads
    return draw_caf(lit, name).picture(
        f"Dataflow of CAF in {name}. From the lips v: {heads} heads of attention per audio channel, averaged, softmax over lip "
        "frames, stretched to the sound's frames, times the values of the sound a; and a gate per audio channel, "
        f"stretched likewise, times the rectified keys of a. The sum of both leaves. {spoken(lit)}"
    )


def draw_caf(lit: tuple[str, ...], name: str) -> Diagram:
    """The sheet of `caf`."""
    heads = find_preset(name).config.fusion_heads
    found = {part: shapes[0] for part, shapes in trace(name).items()}
    channels, lip_frames = found["caf.lip_gate"]
    stretched = f"stretched  {written((channels, found['caf'][1], 1))}"
    sheet = Diagram(100, 62, lit)
    attention, value, middle, key, gate = 53, 39, 30, 21, 7  # heights of the rows
    embed = sheet.box("lip_attention", (36, attention), (14, 9), "lip attention", "conv, gLN", flow="lips")
    note = f"mean of {heads} heads,\nsoftmax over frames"
    weights = sheet.box(
        "attention_weights", (67, attention), (19, 10.5), "attention weights", note, flow="lips"
    )
    values = sheet.box("value", (36, value), (14, 9), "value", "scale, batch norm")
    keys = sheet.box("key", (36, key), (15.5, 9), "key", "scale, norm, ReLU")
    gates = sheet.box("lip_gate", (36, gate), (14, 9), "lip gate", "conv, gLN", flow="lips")
    weigh, open_gate = sheet.operator((81, value), "×"), sheet.operator((81, key), "×")
    plus = sheet.operator((81, middle), "+")

    sheet.arrow((5, middle + 3.5), (5, attention), embed.left)
    sheet.arrow((5, middle - 3.5), (5, gate), gates.left)
    sheet.arrow((18, middle + 3.5), (18, value), values.left)
    sheet.arrow((18, middle - 3.5), (18, key), keys.left)
    sheet.arrow(embed.right, weights.left)
    sheet.arrow(weights.right, (81, attention), weigh.top)
    sheet.arrow(gates.right, (81, gate), open_gate.bottom)
    sheet.arrow(values.right, weigh.left)
    sheet.arrow(keys.right, open_gate.left)
    sheet.arrow(weigh.bottom, plus.top)
    sheet.arrow(open_gate.top, plus.bottom)
    sheet.arrow(plus.right, (89.5, middle))

    sheet.label((6, middle), f"lips v\n{written(found['visual_block'])}")
    sheet.label((18.5, middle), f"sound a\n{written(found['caf'])}")
    sheet.label((50, attention + 1.8), written(found["caf.lip_attention"]))
    sheet.label((80, 45.5), stretched, "right")
    sheet.label((82, attention + 1.4), written((channels, lip_frames)), "left")
    sheet.label((60, value + 1.8), written(found["caf.value"]))
    sheet.label((60, key + 1.8), written(found["caf.key"]))
    sheet.label((60, gate + 1.8), written(found["caf.lip_gate"]))
    sheet.label((80, 13.5), stretched, "right")
    sheet.label((94.8, middle), f"a\n{written(found['caf'])}")
    sheet.label((99, 4), legend(name, "channels × frames\n× frequencies"), "right", color=PALE_INK)
    return sheet


def s3(lit: str | Iterable[str] = (), name: str = "rtfs-net-4") -> Html:
    """S³: a mask multiplied as a complex number (paper, section 3.5), with the shapes of two seconds of sound.

    Args:
        lit: parts to highlight, among `S3`.
        name: a preset of RTFS-Net.

    Raises:
        InputError: an unknown part or network.
    """
    lit = lit_names(lit, S3, "the figure of S³")
    return draw_s3(lit, name).picture(
        f"Dataflow of S3 in {name}. The features a pass PReLU, a 1×1 convolution and a ReLU: the mask. Mask and encoding E "
        "are each split in halves of channels, taken as real and imaginary part, and multiplied as complex numbers; the "
        f"product z goes to the decoder. {spoken(lit)}"
    )


def draw_s3(lit: tuple[str, ...], name: str) -> Diagram:
    """The sheet of `s3`."""
    found = {part: shapes[0] for part, shapes in trace(name).items()}
    features, product = found["s3.act"], found["s3"]
    half = written((product[1] // 2, *product[2:]))
    sheet = Diagram(100, 44, lit)
    row = 22
    act = sheet.box("act", (18.5, row), (8, 9), "act", "PReLU")
    conv = sheet.box("conv", (36, row), (9, 9), "conv", "1×1")
    mask = sheet.box("mask", (53, row), (9, 9), "mask", "ReLU")
    equations = "$z^r = e^r m^r - e^i m^i$\n$z^i = e^r m^i + e^i m^r$"
    multiply = sheet.box("product", (82, row), (17, 12), "product", equations, flow="both")

    sheet.arrow((11, row), act.left)
    sheet.arrow(act.right, conv.left)
    sheet.arrow(conv.right, mask.left)
    sheet.arrow((mask.right[0], row + 2), (multiply.left[0], row + 2))
    sheet.arrow((mask.right[0], row - 2), (multiply.left[0], row - 2))
    sheet.arrow((78, 36), (78, multiply.top[1]))
    sheet.arrow((86, 36), (86, multiply.top[1]))
    sheet.arrow(multiply.bottom, (multiply.x, 9))

    sheet.label((5.8, row), f"last a\n{written(features)}")
    sheet.label((27, row - 3.4), stacked(features))
    sheet.label((44.5, row - 3.4), stacked(found["s3.conv"]))
    sheet.label((65.5, row + 3.6), f"$m^r$  {half}")
    sheet.label((65.5, row - 3.6), f"$m^i$  {half}")
    sheet.label((82, 40.5), f"E  {written(found['encoder'])}")
    sheet.label((77, 34), f"$e^r$  {half}", "right")
    sheet.label((87, 34), f"$e^i$  {half}", "left")
    sheet.label((multiply.x, 6.5), f"z  {written(product)}, to the decoder")
    axes = "channels × frames × frequencies; z: voices first"
    sheet.label((1, 5), legend(name, axes), "left", color=PALE_INK)
    return sheet
