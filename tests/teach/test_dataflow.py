"""The course's dataflow figures: shapes are the network's, blocks light up, nothing overlaps."""

from __future__ import annotations

import re

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

import avkit
from avkit.errors import InputError
from avkit.teach import dataflow
from avkit.teach.diagrams import LIT_EDGE, LIT_FILL, Diagram

FIGURES = {  # figure -> its drawing, its blocks, presets it is drawn for
    dataflow.rtfs_net: (
        dataflow.draw_rtfs_net,
        dataflow.RTFS_NET,
        ("rtfs-net-4", "rtfs-net-12", "rtfs-net-tiny"),
    ),
    dataflow.rtfs_block: (dataflow.draw_rtfs_block, dataflow.RTFS_BLOCK, ("rtfs-net-4", "rtfs-net-tiny")),
    dataflow.visual_block: (
        dataflow.draw_visual_block,
        dataflow.VISUAL_BLOCK,
        ("rtfs-net-4", "rtfs-net-tiny"),
    ),
    dataflow.caf: (dataflow.draw_caf, dataflow.CAF, ("rtfs-net-4", "rtfs-net-tiny")),
    dataflow.s3: (dataflow.draw_s3, dataflow.S3, ("rtfs-net-4", "rtfs-net-tiny")),
    dataflow.iianet: (dataflow.draw_iianet, dataflow.IIANET, ("iianet", "iianet-tiny")),
}
CASES = [(figure, preset) for figure, (*_, presets) in FIGURES.items() for preset in presets]
each_figure = pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
each_case = pytest.mark.parametrize(("figure", "preset"), CASES, ids=[f"{f.__name__}-{p}" for f, p in CASES])


def drawn(figure, lit: tuple[str, ...], preset: str) -> Diagram:
    return FIGURES[figure][0](lit, preset)


def words(sheet: Diagram) -> str:
    return "\n".join(text.get_text() for text in sheet.axes.texts)


@each_case
def test_names_are_those_of_the_network(figure, preset):
    """Every block is an attribute of the module that the figure shows (S³'s product alone is a line of its forward)."""
    model = avkit.create_model(preset)
    owners = [getattr(model, figure.__name__, model)] + (
        [model.separation] if figure is dataflow.iianet else []
    )
    missing = [name for name in FIGURES[figure][1] if not any(hasattr(owner, name) for owner in owners)]
    assert missing == (["product"] if figure is dataflow.s3 else [])


@pytest.fixture(scope="module")
def tiny_shapes() -> dict[str, list[tuple[int, ...]]]:
    """What the modules of the tiny networks give out, by hooks of this test's own; IIANet's separation without its name."""
    seen = {}

    def watch(name: str):
        def hook(module, inputs, output):
            parts = (
                [*output[0], output[1]]
                if isinstance(output, tuple) and isinstance(output[0], list)
                else output
            )
            parts = [parts] if isinstance(parts, torch.Tensor) else parts
            seen.setdefault(name, [tuple(part.shape[1:]) for part in parts if part is not None])

        return hook

    for preset in ("rtfs-net-tiny", "iianet-tiny"):
        model = avkit.create_model(preset, fast=False).eval()
        for name, module in model.named_modules():
            key = name if preset.startswith("rtfs") else f"iianet.{name.removeprefix('separation.')}"
            module.register_forward_hook(watch(key))
        with torch.no_grad():
            model(torch.randn(1, 32_000), torch.randn(1, 512, 50))
    return seen


NOT_SHOWN = {
    "audio_top_down",
    "video_top_down",
    "audio_inter_bottom",
    "video_inter_bottom",
}  # of IIANet: as its inputs


@each_figure
def test_shapes_on_the_figure_are_the_networks(figure, tiny_shapes):
    preset = "iianet-tiny" if figure is dataflow.iianet else "rtfs-net-tiny"
    text = words(drawn(figure, (), preset)).replace("×\n", "×").replace(",", "")
    prefix = "" if figure is dataflow.rtfs_net else f"{figure.__name__}."
    named = [
        name for name in FIGURES[figure][1] if prefix + name in tiny_shapes
    ]  # a method has none of its own
    assert len(named) >= 2
    for name in set(named) - NOT_SHOWN - {"lip_projection", "inter_top"}:
        for shape in tiny_shapes[prefix + name]:
            assert "×".join(map(str, shape)) in text, (name, shape)


def test_cycles_of_iianet_show_who_takes_part():
    both, alone, first = (drawn_cycle(cycle) for cycle in (1, 4, 0))
    assert not both.faint and first.faint == {"audio_inter_bottom", "video_inter_bottom"}
    assert alone.faint == {"lip_projection", "inter_middle"} | {
        n for n in dataflow.IIANET if n.startswith("video")
    }
    thick = [sum(line.get_linewidth() > 2 for line in sheet.axes.lines) for sheet in (both, alone, first)]
    assert thick == [5, 0, 5]
    for sheet in (both, alone, first):
        check_layout(sheet)
    assert "Cycle 5 of 6: the sound alone." in dataflow.iianet(cycle=4, name="iianet-tiny").text
    with pytest.raises(InputError, match="has the cycles 0 to 5"):
        dataflow.iianet(cycle=6, name="iianet-tiny")


def drawn_cycle(cycle: int) -> Diagram:
    return dataflow.draw_iianet((), "iianet-tiny", cycle)


def test_figures_leave_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    dataflow.caf(name="rtfs-net-tiny-audio-only")
    assert torch.equal(torch.rand(2), expected)


def test_figures_follow_the_preset():
    assert "R − 1 = 11 times" in words(drawn(dataflow.rtfs_net, (), "rtfs-net-12"))
    assert "q = 3 levels" in words(drawn(dataflow.rtfs_block, (), "rtfs-net-tiny"))
    assert "256×251×129" in words(drawn(dataflow.rtfs_net, (), "rtfs-net-4"))


@each_figure
def test_every_block_lights_and_is_named_in_the_alt_text(figure):
    names = FIGURES[figure][1]
    for name in names:
        sheet = drawn(figure, (name,), FIGURES[figure][2][0])
        lit = {
            box.partition("#")[0]
            for box, patch in sheet.boxes.items()
            if to_hex(patch.get_facecolor()) == LIT_FILL.lower() and to_hex(patch.get_edgecolor()) == LIT_EDGE
        }
        assert lit == {name}
        edges = {box.partition("#")[0]: patch.get_linewidth() for box, patch in sheet.boxes.items()}
        assert all(edges[name] > 2 * width for other, width in edges.items() if other != name)
    assert f"Highlighted: {names[0]}, {names[2]}." in figure((names[2], names[0])).text
    assert f"Highlighted: {names[1]}." in figure(names[1]).text
    assert "No block is highlighted." in figure().text


@each_figure
def test_unknown_names_are_refused_with_the_known_ones(figure):
    with pytest.raises(InputError, match=f"no block named cfa; its blocks are {FIGURES[figure][1][0]}, "):
        figure(("cfa", FIGURES[figure][1][0]))


@each_case
@pytest.mark.parametrize("all_lit", [False, True], ids=["pale", "lit"])
def test_nothing_overlaps(figure, preset, all_lit):
    """Words lie inside their box or clear of every box, line and other word; nothing leaves the sheet."""
    check_layout(drawn(figure, FIGURES[figure][1] if all_lit else (), preset))


def check_layout(sheet: Diagram) -> None:
    renderer = FigureCanvasAgg(sheet.figure).get_renderer()
    page = sheet.figure.bbox

    def extent(artist, margin: float = 0.0):
        return artist.get_window_extent(renderer).padded(-margin)

    holder = {id(text): patch for text, patch in sheet.inside}
    texts = sheet.axes.texts
    for text in texts:
        box, said = extent(text), text.get_text()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, said
        if id(text) in holder:
            around = extent(holder[id(text)])
            assert around.x0 < box.x0 and box.x1 < around.x1 and around.y0 < box.y0 and box.y1 < around.y1, (
                said
            )
        else:
            assert not [p for p in (*sheet.boxes.values(), *holder.values()) if extent(p).overlaps(box)], said
            crossing = [
                line
                for line in sheet.axes.lines
                if _path(line).intersects_bbox(extent(text, 1), filled=False)
            ]
            assert not crossing, said
        others = [
            other.get_text()
            for other in texts
            if other is not text and extent(other, 0.5).overlaps(extent(text, 0.5))
        ]
        assert not others, (said, others)


def _path(line):
    return line.get_path().transformed(line.get_transform())


def test_layout_check_sees_overlaps():
    sheet = Diagram(40, 20)
    sheet.box("block", (10, 10), (12, 8), "block")
    sheet.arrow((16, 10), (39, 10))
    sheet.label((28, 12), "clear")
    check_layout(sheet)
    for at in ((28, 10), (17, 12), (39.5, 5)):
        spoiled = Diagram(40, 20)
        spoiled.box("block", (10, 10), (12, 8), "block")
        spoiled.arrow((16, 10), (39, 10))
        spoiled.label(at, "over")
        with pytest.raises(AssertionError):
            check_layout(spoiled)
    spoiled = Diagram(40, 20)
    spoiled.box("block", (10, 10), (4, 8), "too long a title")
    with pytest.raises(AssertionError):
        check_layout(spoiled)


def test_pictures_are_legible_and_small():
    """At a page's 800 pixels no letter is set below 10 px, and a figure costs a notebook little."""
    for figure in FIGURES:
        sheet = drawn(figure, (), FIGURES[figure][2][0])
        pixels_per_point = 800 / (72 * sheet.figure.get_figwidth())
        assert min(text.get_fontsize() for text in sheet.axes.texts) * pixels_per_point >= 10
        encoded = re.search(r"base64,([^\"]+)", figure().html).group(1)
        assert len(encoded) < 120_000
