"""The dataflow figure of IIANet: two streams, each at several scales, and the places where they meet."""

from __future__ import annotations

from collections.abc import Iterable

from avkit.errors import InputError
from avkit.registry import find_preset
from avkit.teach.diagrams import PALE_INK, Box, Diagram, lit_names
from avkit.teach.display import Html
from avkit.teach.traces import legend, spoken, trace, written

IIANET = (
    "encoder",
    "bottleneck",
    "lip_projection",
    "audio_inter_bottom",
    "audio_bottom_up",
    "audio_intra",
    "inter_top",
    "inter_middle",
    "audio_top_down",
    "video_inter_bottom",
    "video_bottom_up",
    "video_intra",
    "video_top_down",
    "mask",
    "decoder",
)
SOUND, LIPS, TOP = 53, 16, 79  # heights of the streams and of the row above them


def iianet(lit: str | Iterable[str] = (), cycle: int | None = None, name: str = "iianet") -> Html:
    """IIANet whole, with the shapes of two seconds of sound.

    Args:
        lit: blocks to highlight, among `IIANET`.
        cycle: if given, which of the cycles (counted from 0) is shown at work: what takes no part in it is faint, and where
            the streams meet in it the arrows are thick.
        name: a preset of IIANet.

    Raises:
        InputError: an unknown block or network, or a cycle that the network does not have.
    """
    lit = lit_names(lit, IIANET, "the figure of IIANet")
    config = find_preset(name).config
    if cycle is not None and not 0 <= cycle < config.cycles:
        raise InputError(f"cycle is {cycle}; {name} has the cycles 0 to {config.cycles - 1}")
    return draw_iianet(lit, name, cycle).picture(
        f"Dataflow of {name}. Above, the sound: encoder, bottleneck, {config.levels} scales from fine to coarse, IntraA at each, "
        "back to the finest, and a mask that multiplies what the encoder gave. Below, the lips likewise. They meet in InterA-T "
        f"at the coarsest scale and in InterA-M at every scale. {config.cycles} cycles with one set of weights, the first "
        f"{config.fusion_cycles} with lips. {in_cycle(cycle, name)}{spoken(lit)}"
    )


def in_cycle(cycle: int | None, name: str) -> str:
    """What happens in a cycle, in a sentence and a space; nothing where none is given."""
    if cycle is None:
        return ""
    config = find_preset(name).config
    who = "sound and lips" if cycle < config.fusion_cycles else "the sound alone"
    start = ", from the inputs themselves" if cycle == 0 else ""
    return f"Cycle {cycle + 1} of {config.cycles}: {who}{start}. "


def draw_iianet(lit: tuple[str, ...], name: str, cycle: int | None = None) -> Diagram:
    """The sheet of `iianet`."""
    config = find_preset(name).config
    sheet = Diagram(100, 93, lit)
    lips_take_part = cycle is None or cycle < config.fusion_cycles
    if not lips_take_part:
        sheet.fade(
            {part for part in IIANET if part.startswith("video") or part == "inter_middle"}
            | {"lip_projection"}
        )
    if cycle == 0:
        sheet.fade({"audio_inter_bottom", "video_inter_bottom"})
    _draw_ends(sheet, name)
    sound = _draw_stream(sheet, name, "audio", SOUND, up=True)
    mouth = _draw_stream(sheet, name, "video", LIPS, up=False)
    _draw_meetings(sheet, name, sound, mouth, talk=cycle is not None and lips_take_part, lips=lips_take_part)
    sheet.label((1, 36.5), _schedule(name, cycle), "left", color=PALE_INK)
    return sheet


def _schedule(name: str, cycle: int | None) -> str:
    """The words at the left: which cycle, or how many."""
    config = find_preset(name).config
    if cycle is not None:
        first, _, rest = in_cycle(cycle, name).strip().rstrip(".").partition(": ")
        return f"{first}:\n" + rest.replace(", ", ",\n")
    alone = config.cycles - config.fusion_cycles
    return f"{config.cycles} cycles,\none set of weights:\n{config.fusion_cycles} with lips, then\n{alone} of sound alone"


def _draw_ends(sheet: Diagram, name: str) -> None:
    """From the mixture to the first cycle, and from the last to the voice."""
    shape = {module: found[0] for module, found in trace(name).items()}
    mixture = sheet.waveform((6, TOP), (11, 7), voices=2)
    encoder = sheet.box("encoder", (21.5, TOP), (11, 8), "encoder", "conv")
    bottleneck = sheet.box("bottleneck", (7.5, SOUND), (13, 8), "bottleneck", "norm, 1×1")
    voice = sheet.waveform((40, TOP), (11, 7), voices=1)
    decoder = sheet.box("decoder", (57, TOP), (11, 8), "decoder", "conv")
    times = sheet.operator((73, TOP), "×")
    mask = sheet.box("mask", (88, TOP), (11, 8), "mask", "1×1, ReLU")
    mouth = sheet.lips((7.5, 4.5), (10, 6))
    project = sheet.box("lip_projection", (7.5, LIPS), (13, 8), "lip projection", "conv", "lips")

    sheet.arrow((mixture.right[0] + 0.5, TOP), encoder.left)
    sheet.arrow((18.5, encoder.bottom[1]), (18.5, 65), (bottleneck.x, 65), bottleneck.top)
    sheet.arrow(encoder.top, (encoder.x, 87), (times.x, 87), times.top)
    sheet.arrow((98.5, SOUND + 15), (98.5, TOP), mask.right)
    sheet.arrow(mask.left, times.right)
    sheet.arrow(times.left, decoder.right)
    sheet.arrow(decoder.left, (voice.right[0] + 0.5, TOP))
    sheet.arrow((mouth.x, mouth.top[1] + 0.4), project.bottom)

    sheet.label((mixture.x, TOP - 6.5), f"mixture\n{written(shape['mixture'])}")
    sheet.label((47, 88.8), f"s  {written(shape['encoder'])}")
    sheet.label((6.5, 67), f"s  {written(shape['encoder'])}")
    sheet.label((78.6, TOP - 2.2), written(shape["mask"]))
    sheet.label((67.3, TOP - 2.2), written(shape["mask"]))
    sheet.label((97.5, 71.8), f"last time  {written(shape['bottleneck'])}", "right")
    sheet.label((voice.x, TOP - 6.5), f"voice\n{written(shape['decoder'])}")
    sheet.label((mouth.x + 6, 2), f"lips {written(shape['lips'])}", "left")
    sheet.label((99, 90.5), legend(name, "channels × positions"), "right", color=PALE_INK)


def _draw_stream(sheet: Diagram, name: str, stream: str, y: float, up: bool) -> dict[str, Box]:
    """One stream, from its input to the sum that closes a cycle; its loops run above it (`up`) or below it."""
    flow = "sound" if stream == "audio" else "lips"
    found, side = trace(name), 1 if up else -1
    levels = found[f"separation.{stream}_bottom_up"][:-1]
    titles = {
        "inter_bottom": ((23, y), (11, 9), "InterA-B", "add, weigh"),
        "bottom_up": ((39, y), (10, 22), "bottom\nup", ""),
        "intra": ((60, y), (9, 22), "IntraA", "each scale"),
        "top_down": ((86, y), (8.5, 22), "top\ndown", "IntraA"),
    }
    boxes = {part: sheet.box(f"{stream}_{part}", *where, flow) for part, where in titles.items()}
    plus = boxes["plus"] = sheet.operator((94.2, y), "+")
    faint = sheet.is_faint(f"{stream}_bottom_up")
    sheet.arrow((14, y), boxes["inter_bottom"].left, faint=faint)
    sheet.arrow(boxes["inter_bottom"].right, boxes["bottom_up"].left, faint=faint)
    spacing = 20 / len(levels)
    for index, level in enumerate(levels):
        height = y + side * spacing * ((len(levels) - 1) / 2 - index) - 0.9
        sheet.arrow((44, height), (55.5, height), faint=faint)
        sheet.label((49.6, height + 1.4), written(level))
        if stream == "audio":
            sheet.arrow((64.5, height), (68, height), faint=faint)
            sheet.arrow((78, height), (81.75, height), faint=faint)
        else:
            sheet.arrow((64.5, height), (81.75, height), faint=faint)
            sheet.dot((73, height), faint=faint)
    sheet.arrow(boxes["top_down"].right, plus.left, faint=faint)
    near, far = y + side * 12.7, y + side * 15
    start = boxes["inter_bottom"].top if up else boxes["inter_bottom"].bottom
    end = plus.top if up else plus.bottom
    sheet.arrow((30.5, y), (30.5, near), (plus.x, near), end, faint=faint)
    sheet.arrow(plus.right, (98.5, y), (98.5, far), (23, far), start, faint=faint)
    return boxes


def _draw_meetings(
    sheet: Diagram, name: str, sound: dict[str, Box], mouth: dict[str, Box], talk: bool, lips: bool
) -> None:
    """InterA-T between the streams, InterA-M in the sound."""
    found = trace(name)
    a_global, v_global = (found[f"separation.{stream}_bottom_up"][-1] for stream in ("audio", "video"))
    y = (SOUND + LIPS) / 2
    top = sheet.box("inter_top", (47, y), (11, 9), "InterA-T", "coarsest", "both")
    middle = sheet.box("inter_middle", (73, SOUND), (10, 22), "InterA-M", "each scale", "both")
    faint = not lips
    sheet.arrow(
        (sound["bottom_up"].x, SOUND - 11), (sound["bottom_up"].x, y + 2), (top.left[0], y + 2), lit=talk
    )
    sheet.arrow((top.right[0], y + 2), (sound["intra"].x, y + 2), (sound["intra"].x, SOUND - 11), lit=talk)
    sheet.arrow(
        (mouth["bottom_up"].x, LIPS + 11),
        (mouth["bottom_up"].x, y - 2),
        (top.left[0], y - 2),
        lit=talk,
        faint=faint,
    )
    sheet.arrow(
        (top.right[0], y - 2), (mouth["intra"].x, y - 2), (mouth["intra"].x, LIPS + 11), lit=talk, faint=faint
    )
    sheet.arrow((73, LIPS - 8.9), middle.bottom, lit=talk, faint=faint)
    sheet.label((38, 38.6), written(a_global), "right")
    sheet.label((38, 30.4), written(v_global), "right")
    sheet.label((74.5, y), "the lips'\nscales", "left", color=PALE_INK)
