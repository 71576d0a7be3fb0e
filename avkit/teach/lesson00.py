"""Notebook 00, listen first: its exercises, questions, explorer and figures."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import torch
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from avkit import load_model, separate
from avkit.metrics import si_snr
from avkit.teach import plots
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.players import listen
from avkit.teach.quizzes import multiple_choice
from avkit.teach.samples import Sample, count_samples, find_data, load_sample
from avkit.teach.widgets import Control, Explorer

NETWORK = "rtfs-net-tiny"  # the trained network that comes with the course

# Exercises ------------------------------------------------------------------------------------------------------


def complex_product(a_real: Tensor, a_imag: Tensor, b_real: Tensor, b_imag: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of (a_real + i a_imag) (b_real + i b_imag)."""
    return a_real * b_real - a_imag * b_imag, a_real * b_imag + a_imag * b_real


def _probe_product(answer, draw: torch.Generator) -> dict[str, Tensor]:
    parts = torch.randn(4, 3, 5, generator=draw)
    result = answer(*parts)
    real, imaginary = (
        (result, result) if isinstance(result, Tensor) else result
    )  # one tensor: told as not right
    return {"the real part": real, "the imaginary part": imaginary}


def remember(x: Tensor, keep: float) -> Tensor:
    """(T,) -> (T,): c[t] = keep · c[t-1] + (1 − keep) · x[t], with c = 0 before the start."""
    memory, out = torch.zeros(()), []
    for value in x:
        memory = keep * memory + (1 - keep) * value
        out.append(memory)
    return torch.stack(out)


def _remember_last_input(x: Tensor, keep: float) -> Tensor:
    before = torch.cat([torch.zeros(1), x[:-1]])
    return keep * before + (1 - keep) * x


def _probe_remember(answer, draw: torch.Generator) -> dict[str, Tensor]:
    return {
        "nine numbers, keep 0.8": answer(torch.randn(9, generator=draw), 0.8),
        "four numbers, keep 0.3": answer(torch.randn(4, generator=draw), 0.3),
    }


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(N, E), (M, E), (M, D) -> (N, D): softmax over keys of q·k / √E, then a weighted mean of the values."""
    weights = torch.softmax(queries @ keys.T / math.sqrt(keys.shape[-1]), dim=-1)
    return weights @ values


def _probe_attend(answer, draw: torch.Generator) -> dict[str, Tensor]:
    shapes = ((5, 16), (5, 16), (5, 3)), ((4, 9), (7, 9), (7, 2))
    cases = [[torch.randn(shape, generator=draw) for shape in group] for group in shapes]
    names = "5 queries, 5 keys of width 16", "4 queries, 7 keys of width 9"
    return {name: answer(*case) for name, case in zip(names, cases, strict=True)}


def _softmax_over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / math.sqrt(k.shape[-1]), dim=0) @ v


EXERCISES = {
    "swapped": Exercise(
        task="predict what the network returns for swapped lips",
        reference="b",
        probe=lambda answer, draw: {"swapped lips": letter(answer)},
        mistakes=(
            Mistake(
                "loudest wins",
                "a",
                "you expect the network to prefer a voice, say the louder or the first. It hears both, but in training each was "
                "wanted as often as the other: nothing but the lips tells it which.",
            ),
            Mistake(
                "refuses",
                "c",
                "you expect it to notice that lips were swapped. There is nothing to notice: both pairs of lips belong "
                "to a voice in this mixture, and the network is told nothing else.",
            ),
            Mistake(
                "garbage",
                "d",
                "you expect a breakdown outside of what it was trained for. But a mixture with the lips of either of its "
                "talkers is exactly what it was trained on.",
            ),
        ),
    ),
    "complex_product": Exercise(
        task="multiply complex numbers given by their parts",
        reference=complex_product,
        probe=_probe_product,
        mistakes=(
            Mistake(
                "part by part",
                lambda a, b, c, d: (a * c, b * d),
                "real times real and imaginary times imaginary is not the product: multiply out (a + ib)(c + id), all "
                "four terms.",
            ),
            Mistake(
                "sign",
                lambda a, b, c, d: (a * c + b * d, a * d + b * c),
                "the sign of one term is off: i times i is −1, so the product of the imaginary parts is subtracted.",
            ),
            Mistake(
                "conjugate of the first",
                lambda a, b, c, d: (a * c + b * d, a * d - b * c),
                "this multiplies by the conjugate of the first number: angles are subtracted where they should add.",
            ),
            Mistake(
                "conjugate",
                lambda a, b, c, d: (a * c + b * d, b * c - a * d),
                "this multiplies by the conjugate of the second number: angles are subtracted where they should add.",
            ),
        ),
    ),
    "remember": Exercise(
        task="write a recurrence with a memory",
        reference=remember,
        probe=_probe_remember,
        mistakes=(
            Mistake(
                "remembers the input",
                _remember_last_input,
                "you mix each input with the input before it, so nothing is remembered for longer than one step. The "
                "memory is the last *output*.",
            ),
            Mistake(
                "keep swapped",
                lambda x, keep: remember(x, 1 - keep),
                "`keep` weighs the new input and 1 − keep the memory; it should be the other way round.",
            ),
            Mistake(
                "input in full",
                lambda x, keep: remember(x / (1 - keep), keep),
                "the input is added in full; only its share 1 − keep enters, so that the memory is a mean and cannot grow.",
            ),
            Mistake(
                "first input skipped",
                lambda x, keep: remember(torch.cat([0 * x[:1], x[1:]]), keep),
                "your first step is missing: the input x₀ enters the memory too, which is 0 before it.",
            ),
            Mistake(
                "starts full",
                lambda x, keep: remember(torch.cat([x[:1] / (1 - keep), x[1:]]), keep),
                "your memory starts with the first input; it should start with 0.",
            ),
        ),
    ),
    "attend": Exercise(
        task="write attention",
        reference=attend,
        probe=_probe_attend,
        mistakes=(
            Mistake(
                "no scale",
                lambda q, k, v: torch.softmax(q @ k.T, dim=-1) @ v,
                "the scale is missing: products of long vectors are large, and the softmax turns all but hard. Divide by "
                "the root of the width.",
            ),
            Mistake(
                "scaled by width",
                lambda q, k, v: torch.softmax(q @ k.T / k.shape[-1], dim=-1) @ v,
                "you divide by the width itself; it is its square root that keeps the spread of q·k at one.",
            ),
            Mistake(
                "scaled by the number of queries",
                lambda q, k, v: torch.softmax(q @ k.T / math.sqrt(len(q)), dim=-1) @ v,
                "you divide by the root of the number of queries. E is the width of a query, its second axis.",
            ),
            Mistake(
                "divided by the sum",
                lambda q, k, v: (q @ k.T) / (q @ k.T).sum(-1, keepdim=True) @ v,
                "you divide by the sum of the products, which may be negative or nearly 0. The softmax takes exponentials first.",
            ),
            Mistake(
                "keys ask",
                lambda q, k, v: torch.softmax(k @ q.T / math.sqrt(k.shape[-1]), dim=-1) @ v,
                "here the keys ask and the queries are asked. The products are queries @ keys.T, a row for each query.",
            ),
            Mistake(
                "wrong axis",
                _softmax_over_queries,
                "your softmax runs over the queries. Each query shares out its attention among the keys, so each *row* of "
                "weights sums to 1.",
            ),
            Mistake(
                "no softmax",
                lambda q, k, v: q @ k.T / math.sqrt(k.shape[-1]) @ v,
                "the softmax is missing: the weights must be positive and sum to 1 for each query.",
            ),
        ),
    ),
}


QUIZZES = {
    "needed": [
        multiple_choice(
            "A complex number has length 2 and angle 30°. It is multiplied by i. What comes out?",
            (
                "length 2, angle 30°",
                False,
                "multiplying by i turns by 90°; only multiplying by 1 changes nothing.",
            ),
            ("length 2, angle 120°", True, "i has length 1 and angle 90°: lengths multiply, angles add."),
            ("length −2, angle 30°", False, "a length is never negative. You may be thinking of i² = −1."),
        ),
        multiple_choice(
            "A convolution with a kernel of 5 and no padding runs over 100 samples. How many come out?",
            ("96", True, "The kernel fits at 100 − 5 + 1 places."),
            ("95", False, "count the places: with a kernel of 1 there would be 100, not 99."),
            ("100", False, "that needs padding by 2 samples at either side."),
        ),
        multiple_choice(
            "Two stacked convolutions with kernels of 3 and stride 1: how many input samples does an output see?",
            ("9", False, "that would be a product; fields grow by addition while the stride is 1."),
            ("6", False, "the two fields overlap: sizes do not add up, sizes less one do."),
            ("5", True, "Each layer adds kernel − 1 = 2 to what is seen, starting from 1."),
        ),
        multiple_choice(
            "Why can a recurrent network not compute all time steps at once?",
            ("each step needs the one before", True, "Its state at t is computed from its state at t − 1."),
            (
                "its weights differ from step to step",
                False,
                "a recurrent network uses the same weights at every step.",
            ),
            (
                "memory would not suffice",
                False,
                "speed is not bound by memory here but by waiting for the step before.",
            ),
        ),
        multiple_choice(
            "Attention over a sequence twice as long: how many products of queries and keys are there?",
            (
                "twice as many",
                False,
                "that is how a convolution grows; here every element meets every other.",
            ),
            ("four times as many", True, "Every query meets every key, so the count is the length squared."),
            ("as many as before", False, "the count depends on the length, not on the width alone."),
        ),
    ],
}


# Explorer -------------------------------------------------------------------------------------------------------

WHOSE = ("the first talker's lips", "the second talker's lips", "lips that stand still", "a stranger's lips")


@functools.cache
def _network() -> nn.Module:
    return load_model(NETWORK)


def stranger_to(data: str | Path, index: int) -> Sample:
    """A mixture of other talkers than those of mixture `index`: the one half the set further on."""
    count = count_samples(data)
    return load_sample(data, (index + count // 2) % count)


def lips_of(whose: str, sample: Sample, stranger: Sample) -> Tensor:
    """(F, 96, 96) uint8 frames to give to the network."""
    first, second, still, _ = WHOSE
    if whose in (first, second):
        return sample.lips[WHOSE.index(whose)]
    if whose == still:
        return sample.lips[0, :1].expand_as(sample.lips[0])
    return stranger.lips[0]


def render_whose(whose: str, mixture: int) -> Html:
    """What the network returns for one mixture and the lips chosen, to see, hear and score."""
    data = find_data("talkers")
    sample, stranger = load_sample(data, mixture), stranger_to(data, mixture)
    lips = lips_of(whose, sample, stranger)
    voice = separate(sample.mixture, lips, model=_network())[0, 0]
    closeness = [float(si_snr(voice, talker)) for talker in sample.voices]
    fig, axes = plots.figure(6, 1.6)
    axes.barh(["first voice", "second voice"], closeness, color=[plots.BLUE, plots.ORANGE])
    axes.invert_yaxis()
    axes.set(xlabel="SI-SNR of the output against … (dB)", xlim=(-30, 20))
    axes.axvline(0, color="black", lw=0.8)
    alt = f"With {whose}: SI-SNR {closeness[0]:.0f} dB against the first voice, {closeness[1]:.0f} dB against the second."
    heard = listen(
        {f"mixture {mixture}": sample.mixture, f"output, given {whose}": (voice, lips.numpy())}
    )
    return heard + plots.picture(fig, alt)


EXPLORERS = {
    "whose": Explorer(
        render_whose, (Control("whose", WHOSE, WHOSE[0], "lips"), Control("mixture", (1, 4, 22), 1, "mixture"))
    ),
}


# Figures --------------------------------------------------------------------------------------------------------

COURSE = (
    (
        "sound and sight",
        plots.BLUE,
        ("00 listen first", "01 sound to\nspectrogram", "02 mixtures,\nmasks, scores", "03 watching lips"),
    ),
    (
        "RTFS-Net, block by block",
        plots.ORANGE,
        (
            "04 compress\nand scan",
            "05 attend\nand restore",
            "06 CAF fusion",
            "07 S³\nseparation",
            "08 RTFS-Net",
        ),
    ),
    ("IIANet", plots.GREEN, ("09 intra-\nattention", "10 inter-\nattention")),
    (
        "at work",
        plots.PURPLE,
        ("11 training", "12 evaluation", "13 your own\nvideo", "14 reproducing\nthe papers"),
    ),
)


def _box(
    axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    width: float = 1.0,
    height: float = 0.62,
    bold: bool = False,
) -> None:
    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0.03",
        fc=colour + "33",
        ec=colour,
        lw=3 if bold else 1.2,
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5)


def _arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "->", "color": "black", "lw": 1})


def draw_map(here: str = "00") -> Html:
    """The course: four rows of notebooks in reading order; the one at hand has a thick edge."""
    fig, axes = plots.figure(8.5, 4.4)
    for row, (title, colour, names) in enumerate(COURSE):
        axes.text(-0.75, -row + 0.42, title, fontsize=9, weight="bold", va="bottom")
        for column, name in enumerate(names):
            _box(axes, column * 1.3, -row, name, colour, 1.12, bold=name.startswith(here))
    axes.set(xlim=(-0.8, 5.9), ylim=(-3.5, 0.75))
    axes.axis("off")
    return plots.picture(
        fig,
        "Map of the course in four rows: 00 to 03 sound and sight, 04 to 08 RTFS-Net block by block, 09 and 10 IIANet, "
        "11 to 14 training, evaluation, your own video and the papers' numbers.",
    )


def draw_network() -> Html:
    """The way from a mixture and lips to one voice, box by box."""
    fig, axes = plots.figure(9.8, 2.9)
    path = (
        "mixture",
        "STFT\n(01)",
        "compress,\nscan, attend\n(04, 05)",
        "fuse\n(06)",
        "refine, again\nand again\n(08)",
        "S³ mask\n(07)",
        "back to sound\n(01)",
        "one voice",
    )
    for index, text in enumerate(path):
        _box(axes, index * 1.35, 0, text, plots.BLUE if 0 < index < 7 else plots.ORANGE, 1.1)
        if index:
            _arrow(axes, (index * 1.35 - 0.77, 0), (index * 1.35 - 0.58, 0))
    for index, text in enumerate(("lips", "lip encoder\n(03)", "compress,\nattend\n(08)")):
        _box(axes, index * 1.35, -1.2, text, plots.ORANGE if index == 0 else plots.GREEN, 1.1)
        if index:
            _arrow(axes, (index * 1.35 - 0.77, -1.2), (index * 1.35 - 0.58, -1.2))
    _arrow(axes, (2 * 1.35 + 0.58, -1.05), (3 * 1.35 - 0.2, -0.36))
    axes.set(xlim=(-0.7, 10.15), ylim=(-1.7, 0.5))
    axes.axis("off")
    return plots.picture(
        fig,
        "Dataflow of RTFS-Net: the mixture passes the STFT and blocks that compress, scan and attend; lips pass their encoder "
        "and a block that compresses and attends, and join at the fusion; from there the way goes on through repeated "
        "refinement, the S³ mask and the way back to sound to one voice.",
    )


def draw_improvements(improvements: list[float], names: list[str]) -> Html:
    """SI-SNRi of each output, as bars."""
    fig, axes = plots.figure(6, 1.6)
    axes.barh(names, improvements, color=[plots.BLUE, plots.ORANGE][: len(names)])
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlabel("SI-SNRi: gain over the mixture (dB)")
    values = ", ".join(f"{name} {value:.1f} dB" for name, value in zip(names, improvements, strict=True))
    return plots.picture(fig, f"Gain of each separated voice over the mixture: {values}.")


def draw_mouths(frames: Tensor) -> Html:
    """(F, 96, 96) uint8 frames in a row."""
    fig, axes = plots.figure(1.05 * len(frames), 1.2, 1, len(frames), squeeze=False)
    for axis, frame in zip(axes[0], frames.numpy(), strict=True):
        axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
    return plots.picture(
        fig, f"{len(frames)} frames of one mouth in a row, opening and closing as it speaks."
    )


INSTRUCTOR = """
**Plan, 50 minutes.** Question and sections 1–2: 10 minutes, with loudspeakers good enough to hear both voices. Section 3: 10.
Sections 4–5: 5. The check of what is needed (6): 25; those who pass it quickly can begin with the open exercise.

**What people get wrong**

- They expect the wrong lips to give noise or silence. The network follows whichever talker's lips it is shown; that is the point of the
  course. Lips of nobody in the mixture are another matter: there it often returns one of the voices, for it was never taught not to.
- They take the two voices for real people. Everything here is synthetic: a speech synthesiser and drawn mouths.
- *Complex numbers*: real parts multiplied with real and imaginary with imaginary. Ask for i · i.
- *Recurrence*: the weights of old and new swapped, or a state that does not start at 0.
- *Attention*: softmax along the wrong axis. Ask which numbers have to add up to 1.

**Questions to ask**

- How would you know that the network uses the lips at all? (Swap them; hold them still; take them away.)
- What could be heard in the output that an SI-SNR does not show, and the other way round?
- Who could misuse such a network, and how?
"""
