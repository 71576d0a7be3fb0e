"""Notebook 04, compress and scan: its questions, exercises and explorer. Figures and measurements are in `lesson04_figures`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, interpolate

from avkit import layers
from avkit.layers import GlobalLayerNorm
from avkit.rtfs import DualPathScan
from avkit.teach import lesson04_answers as answers
from avkit.teach import plots
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, same_weights
from avkit.teach.quizzes import multiple_choice
from avkit.teach.widgets import Control, Explorer

# Exercises ------------------------------------------------------------------------------------------------------


def _returned(result):
    """What a reader's module returned; a stub's None counts as not answered yet."""
    if result is None:
        raise NotImplementedError("nothing was returned")
    return result


def _two(result) -> tuple:
    """A reader's levels and G, if that is what came back."""
    if not (isinstance(result, tuple | list) and len(result) == 2 and isinstance(result[1], Tensor)):
        raise TypeError("levels and G are wanted")
    return tuple(result)


def _fill(mine: nn.Module, theirs: nn.Module, draw: torch.Generator) -> None:
    """The same weights for both, drawn anew: what an answer gives must not depend on how it was initialised."""
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw))
    same_weights(mine, theirs)


def _probe_compression(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for channels, levels, frames, bins in ((3, 2, 13, 10), (2, 3, 22, 35)):
        mine = answer(channels, levels)
        _fill(mine, layers.Compression(channels, 4, levels, 2, GlobalLayerNorm), draw)
        found, merged = _two(_returned(mine(torch.randn(2, channels, frames, bins, generator=draw))))
        for number, level in enumerate(found):
            results[f"level {number} of {levels}"] = level
        results[f"G of {levels} levels"] = merged
    return results


def _probe_sru(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for steps, batch, inputs, hidden in ((7, 2, 5, 3), (1, 3, 2, 4)):
        mine = answer(inputs, hidden)
        _fill(mine, answers.OneWaySRU(inputs, hidden), draw)
        name = f"{steps} step{'s' * (steps > 1)}, {inputs} features in, {hidden} out"
        results[name] = _returned(mine(torch.randn(steps, batch, inputs, generator=draw)))
    return results


def _probe_scan(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for axis, name in ((3, "frequency"), (2, "time")):
        sizes = 3, axis, 4, 2, 2  # channels, axis, window, hidden, layers
        mine = answer(*sizes)
        _fill(mine, DualPathScan(*sizes), draw)
        x = torch.randn(2, 3, 9, 7, generator=draw)
        results[f"a scan along {name}"] = _returned(mine(x))
    return results


EXERCISES = {
    "frames_seen": Exercise(
        task="predict how many frames a point of the coarsest of three levels sees",
        reference=13,
        probe=lambda answer, draw: {"three levels": float(answer)},
        mistakes=(
            Mistake(
                "taps added",
                12,
                "you added the taps, 4 + 4 + 4. The windows overlap: a layer adds its taps *less one*, each as far apart "
                "as the points it reads.",
            ),
            Mistake(
                "taps multiplied",
                64,
                "you multiplied the taps. What a point sees grows by sums, with the strides as factors.",
            ),
            Mistake(
                "taps times strides",
                16,
                "you multiplied four taps by the strides, 4 · 2 · 2. That counts the frames as if windows lay side by side; "
                "they overlap, so each layer adds its taps *less one*, as far apart as the points it reads.",
            ),
            Mistake(
                "stride forgotten",
                10,
                "10 comes about in two ways. Without the strides: the third layer reads points that lie two frames apart, so "
                "its three further taps reach twice as far. Or with them, by stopping at d₀: each of its points reads 4 frames, "
                "which adds 3 more.",
            ),
            Mistake(
                "last layer alone",
                7,
                "that is how far the last layer reaches in points of d₀, 1 + 3 · 2. The two layers below it reach further.",
            ),
            Mistake(
                "own stride counted",
                22,
                "you multiplied each layer's reach by its own stride. A layer's taps lie as far apart as the points it "
                "*reads*, and those were thinned out only by the layers before it.",
            ),
            Mistake(
                "one layer",
                4,
                "that is what one layer sees of the layer before it. Go on down to the frames.",
            ),
        ),
    ),
    "compression": Exercise(
        task="compress a map by q levels and sum them at the coarsest size",
        reference=answers.Compression,
        probe=_probe_compression,
        mistakes=(
            Mistake(
                "not levels and G",
                answers.LevelsLast,
                "return two things, the *list of levels* first, then G.",
            ),
            Mistake(
                "all from the input",
                answers.AllFromInput,
                "every level was made from the input. Each level is made from the level before it, so that sizes halve "
                "again and again.",
            ),
            Mistake(
                "coarsest left out",
                answers.merging(
                    lambda found: sum(adaptive_avg_pool2d(level, found[-1].shape[2:]) for level in found[:-1])
                ),
                "the coarsest level itself is missing from your sum: i runs from 0 to q − 1, and pooling d₍q₋₁₎ to its own "
                "size leaves it as it is.",
            ),
            Mistake(
                "coarsest only",
                answers.merging(lambda found: found[-1]),
                "G is only your coarsest level. The finer ones are pooled to its size and added, or G would know them "
                "through their convolutions only.",
            ),
            Mistake(
                "points dropped",
                answers.merging(
                    lambda found: sum(interpolate(level, found[-1].shape[2:]) for level in found)
                ),
                "finer levels were thinned out by taking single points (nearest neighbours). Averages are wanted: every "
                "point of a fine level counts in G.",
            ),
            Mistake(
                "largest kept",
                answers.merging(
                    lambda found: sum(adaptive_max_pool2d(level, found[-1].shape[2:]) for level in found)
                ),
                "you pooled by the maximum; it is the average that is wanted.",
            ),
            Mistake(
                "summed at the finest size",
                answers.merging(lambda found: sum(interpolate(level, found[0].shape[2:]) for level in found)),
                "G has the finest level's size. Then nothing is gained: the scans would cost what they cost before. Pool "
                "to the coarsest size.",
            ),
            Mistake(
                "mean of levels",
                answers.merging(
                    lambda found: (
                        sum(adaptive_avg_pool2d(level, found[-1].shape[2:]) for level in found) / len(found)
                    )
                ),
                "you took the mean of the pooled levels; the paper takes their sum.",
            ),
        ),
    ),
    "one_way_sru": Exercise(
        task="write one layer of SRU in one direction",
        reference=answers.OneWaySRU,
        probe=_probe_sru,
        mistakes=(
            Mistake(
                "tanh",
                answers.stepping(answers.tanh),
                "there is a tanh around the memory, as an LSTM has it. This SRU has none: the memory goes out as it is.",
            ),
            Mistake(
                "tanh on the candidate",
                answers.stepping(answers.tanh_candidate),
                "the candidate U₀ passes a tanh, as in an LSTM or GRU. Here it goes into the memory as it is.",
            ),
            Mistake(
                "gates blind",
                answers.stepping(answers.blind_gates),
                "your gates do not see the memory: the terms v_f·c and v_r·c are missing. Without them all gates could be "
                "computed at once, and nothing would depend on what is remembered.",
            ),
            Mistake(
                "forget swapped",
                answers.stepping(answers.forget_swapped),
                "f weighs the candidate and 1 − f the memory. In this unit f is the share that is *kept*.",
            ),
            Mistake(
                "highway swapped",
                answers.stepping(answers.highway_swapped),
                "r weighs the highway and 1 − r the memory; it is the other way round.",
            ),
            Mistake(
                "reset sees the new memory",
                answers.stepping(answers.reset_late),
                "r was computed from the memory after this step. Both gates see the memory as it was *before* the step.",
            ),
            Mistake(
                "memory alone",
                answers.stepping(answers.memory_alone),
                "you return the memory itself. The output is a share r of it and a share 1 − r of the highway, U₃.",
            ),
            Mistake(
                "no highway",
                answers.stepping(answers.no_highway),
                "the highway is missing: where r is small, the input's own product U₃ goes out instead of the memory.",
            ),
            Mistake(
                "starts full",
                answers.StartsFull,
                "your memory starts with the first candidate; it should start with zeros.",
            ),
        ),
    ),
    "scan": Exercise(
        task="scan a map along one axis",
        reference=DualPathScan,
        probe=_probe_scan,
        mistakes=(
            Mistake(
                "axes swapped",
                answers.OtherAxis,
                "the axes are swapped: axis 3 of (B, D, T, F) is frequency, axis 2 is time. The shapes come out right all "
                "the same, so nothing but a comparison shows it.",
            ),
            Mistake(
                "no residual",
                answers.NoResidual,
                "the input is not added at the end. The scan only finds what is to be *added* to its input.",
            ),
            Mistake(
                "residual normed",
                answers.ResidualNormed,
                "you added the normalised input. The residual is the input as it came.",
            ),
            Mistake(
                "lines torn apart",
                answers.LinesReshaped,
                "channels and the other axis got mixed up: `reshape` of (B, D, other, N) to (B·other, D, N) keeps the order "
                "of numbers, not their meaning. Move the other axis next to the batch first.",
            ),
            Mistake(
                "offset first",
                answers.OffsetFirst,
                "the features of a window are in another order: offsets first, channels within. Wanted is index channel · "
                "window + offset, so the channel comes before the offset when you flatten.",
            ),
            Mistake(
                "scans the batch",
                answers.ScansTheBatch,
                "the SRU takes its first axis for the steps, and yours is the batch: it walked from line to line instead of "
                "along each line.",
            ),
        ),
    ),
}


# Quick questions before notebooks 04 to 08 ----------------------------------------------------------------------


BEFORE = [
    multiple_choice(
        "A recurrent unit keeps nine tenths of its memory at every step. How much of an input is left 22 steps later?",
        ("nothing", False, "a fixed share is lost of what is *left*, so it fades and never quite ends."),
        ("nine tenths", False, "that is what one step leaves; 22 of them multiply."),
        (
            "about a tenth",
            True,
            "0.9 to the power of 22 is 0.098: what is kept shrinks by a factor each step.",
        ),
    ),
    multiple_choice(
        "Self-attention without any positional encoding gets its input frames in shuffled order. What comes out?",
        (
            "the same outputs, shuffled likewise",
            True,
            "attention compares contents; where a frame stands does not enter.",
        ),
        (
            "different outputs",
            False,
            "neither q·k nor the weighted mean asks for a position: each frame's output stays what it was.",
        ),
        ("an error", False, "a shuffled sequence has the same shape; nothing could notice."),
    ),
    multiple_choice(
        "A mask of real numbers between 0 and 1 multiplies an STFT point by point. What can it never change?",
        ("the loudness of a point", False, "that is the one thing it does change."),
        (
            "the angle of a point",
            True,
            "a positive factor scales a complex number and leaves its angle alone.",
        ),
        ("whether a voice is heard", False, "zeros silence whatever lies where they are."),
    ),
    multiple_choice(
        "A complex mask has real and imaginary parts that are never negative. By which angles can it turn a point?",
        ("−90° to 90°", False, "that needs negative imaginary parts."),
        ("0° to 90°", True, "such numbers lie in the first quarter of the plane, and angles add."),
        ("any angle", False, "that needs numbers in all four quarters of the plane."),
    ),
    multiple_choice(
        "One block is applied four times with the same weights, instead of four blocks with weights of their own. What does "
        "that save?",
        (
            "three quarters of parameters and computation",
            False,
            "each of the four passes is computed all the same.",
        ),
        ("computation, but no parameters", False, "it is the other way round."),
        (
            "three quarters of the blocks' parameters, no computation",
            True,
            "weights are stored once, but every application has to be computed.",
        ),
    ),
]


# Explorer -------------------------------------------------------------------------------------------------------


def pulses() -> Tensor:
    """(120,) candidates: a small pulse, a large one, a large negative one; zero in between."""
    u = torch.zeros(120)
    u[10:16], u[45:51], u[80:86] = 0.3, 1.0, -1.0
    return u


def gated_memory(candidates: Tensor, b_f: float, v_f: float) -> tuple[Tensor, Tensor]:
    """(T,) candidates -> forget gate and memory after each step, (T,) each; the gate sees only bias and memory."""
    c, gates, memory = torch.zeros(()), [], []
    for candidate in candidates:
        f = torch.sigmoid(b_f + v_f * c)
        c = f * c + (1 - f) * candidate
        gates.append(f)
        memory.append(c)
    return torch.stack(gates), torch.stack(memory)


def render_memory(b_f: float, v_f: float) -> Html:
    """Candidates, memory and forget gate of one cell, for a bias and a weight on the memory."""
    u = pulses()
    gates, memory = gated_memory(u, b_f, v_f)
    fig, (above, below) = plots.figure(8, 3.4, 2, 1, sharex=True, height_ratios=(2, 1))
    above.step(range(len(u)), u, where="mid", color="0.6", lw=1.2, label="candidate U₀")
    above.plot(memory, color=plots.BLUE, lw=2, label="memory c")
    above.set(ylim=(-1.15, 1.15), ylabel="value", title=f"b_f = {b_f:g}, v_f = {v_f:g}")
    above.legend(loc="lower left", fontsize=8)
    below.plot(gates, color=plots.RED, lw=2)
    below.set(ylim=(-0.05, 1.05), ylabel="gate f", xlabel="step", xlim=(0, len(u) - 1))
    left = [float(memory[index].abs()) for index in (44, 79, 114)]  # 30 steps after the end of each pulse
    words = ", ".join(f"{value:.2f}" for value in left)
    alt = (
        f"One memory cell with forget bias {b_f:g} and memory weight {v_f:g}: 30 steps after the small, the large and the "
        f"negative pulse the memory's size is {words}."
    )
    return plots.picture(fig, alt)


EXPLORERS = {
    "memory": Explorer(
        render_memory,
        (
            Control("b_f", (-4.0, -2.0, 0.0, 2.0, 4.0), 2.0, "bias b_f"),
            Control("v_f", (-12.0, -6.0, 0.0, 6.0, 12.0), 0.0, "weight on memory v_f"),
        ),
    ),
}


INSTRUCTOR = """
## For the instructor

**Minutes** opening and quick questions 6 · 1 where we are 2 · 2 what full resolution costs 4 · 3 compression 6 + exercise 6 · 4 what a
point sees 5 + exercise 3 · 5 SRU 9 + exercise 8 · 6 the scan 5 + exercise 8 · 7 the trained scans 6 · 8 the answer 2 + open exercise 5.
The appendices are for those who ask about weights or speed.

**Where people get stuck**

- They take MACs for seconds. The scans' steps follow one another; a GPU can be idle while a small recurrence runs. Appendix B
  has timings.
- Exercise 2 is answered with 12 by most. Draw three layers of dots and follow the outermost lines down.
- "Compression" is heard as data compression. It is a smaller map beside the full one; nothing is thrown away, for d₀ is kept and
  comes back in notebook 05.
- f is the share that is *kept*, whatever its name suggests. Let somebody say aloud what f = 1 means before exercise 3.
- In exercise 4 the shapes fit for several wrong answers. That is its point: ask which lines would have raised an error if they
  were wrong, and which would not.

**Questions to ask**

- Why is the sum for G taken at the coarsest size and not at the finest? (Cost; and what would a scan gain from a finer map?)
- An LSTM multiplies a matrix by h at every step, an SRU does not. What does that allow, and what does it cost? (All products
  at once; a cell sees other cells only through the layers.)
- Two scans along frequency, no scan along time: how far does one point's influence reach? (Its own frame.)
- The last figures show a trained network without one of its scans. Why is that not the ablation in the paper's table? (The rest
  of the network did not learn to do without.)
- Why does this network lose so little without its time scan, and nearly everything without its frequency scan? (Attention reads
  along time too, and without both it loses much more; along frequency nothing else reaches further than a convolution.)
- The time scan has memories of 64 steps and loses nothing when it forgets at every step. How can both be true? (A gate says how
  long something is held, not whether anybody downstream uses it.)

**If time is short** leave out section 4's measurement and the appendices; keep exercises 1, 3 and the last section.
"""
