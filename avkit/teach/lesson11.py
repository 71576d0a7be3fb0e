"""Notebook 11, training: its exercises, quick questions and explorer. Experiments are in `lesson11_lab` and
`lesson11_bench`, pictures in `lesson11_figures`."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from avkit.teach import lesson11_figures as figures
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.quizzes import multiple_choice
from avkit.teach.widgets import Control, Explorer

INSTRUCTOR = """
**Minutes.** Opening 4 · questions 4 · 1 the loop 8 + exercises 14 · 2 the package's trainer 4 · 3 a run is killed 4 · 4 five minutes 8 ·
5 clipping 6 + exercise 4 · 6 schedule 3 · 7 fixed and dynamic 4 · 8 denormal numbers 4 · 9 TensorBoard 3 · 10 eight devices 4 + exercise 6 · open
exercise 8. Start the cell of section 4 before you talk about section 3: it runs for some minutes.

**What people get wrong.**
- They clip each weight's gradient on its own, which turns the direction. Ask: what does the *direction* of a gradient tell?
- They take the fall of the loss in the first fifty steps for learning to separate. It is the volume knob. Look at SI-SNRi on other voices.
- They think a killed run goes on exactly if weights are saved. The optimiser's averages, the place in the data and the best value so far
  belong to the run as well.
- They compare two recipes by one run each. Let them look at the strokes for single seeds first.
- They keep the batch per device when they add devices, and wonder why the same learning rate behaves differently.

**Questions to ask.**
- Which random numbers of a run would have to be saved if they did not follow from seed, epoch and place?
- The training loss on fixed mixtures is lower than on dynamic ones. Which is the better network, and how would you tell?
- What would have to be true for clipping at 5 never to act? Is it then useless?
- Why is a learning rate that is too high sometimes as harmless-looking as one that is too low?

**In the room.** The run of section 4 uses every core. On shared machines set OMP_NUM_THREADS before Jupyter starts.
"""

# Exercises ------------------------------------------------------------------------------------------------------


def clip(gradients: list[Tensor], limit: float) -> list[Tensor]:
    """All gradients times one factor, so that together they are no longer than `limit`."""
    length = sum(g.square().sum() for g in gradients).sqrt()
    factor = (limit / length).clamp(max=1.0)
    return [factor * g for g in gradients]


def _each_on_its_own(gradients, limit):
    return [g * (limit / g.norm()).clamp(max=1.0) for g in gradients]


def _always_scaled(gradients, limit):
    length = sum(g.square().sum() for g in gradients).sqrt()
    return [g * limit / length for g in gradients]


def _sum_of_lengths(gradients, limit):
    length = sum(g.norm() for g in gradients)
    return [g * (limit / length).clamp(max=1.0) for g in gradients]


def _thrown_away(gradients, limit):
    length = sum(g.square().sum() for g in gradients).sqrt()
    return [g * float(length <= limit) for g in gradients]


def _energy(gradients):
    return sum(g.square().sum() for g in gradients)


def _times(gradients, factor):
    return [g * factor.clamp(max=1.0) for g in gradients]


def _root_mean_square(gradients, limit):
    return _times(gradients, limit / (_energy(gradients) / sum(g.numel() for g in gradients)).sqrt())


def _to_length_one(gradients, limit):
    length = _energy(gradients).sqrt()
    return [g / length if length > limit else g for g in gradients]


def _only_longer(gradients, limit):
    return [g * (limit / _energy(gradients).sqrt()).clamp(min=1.0) for g in gradients]


def _probe_clip(answer, draw: torch.Generator) -> dict[str, Tensor]:
    found = {}
    for name, scale in (("gradients that are too long", 3.0), ("gradients that are short enough", 0.01)):
        given = [scale * torch.randn(4, 3, generator=draw), 5 * scale * torch.randn(7, generator=draw)]
        for number, result in enumerate(answer([g.clone() for g in given], 2.0), 1):
            found[f"{name} (tensor {number} of 2)"] = result
    return found


def rate_at(step: int, steps: int, top: float, warmup: int) -> float:
    """Up in a straight line over `warmup` steps, times a cosine from 1 at step 0 down to 1 % at the end."""
    rise = min(1.0, (step + 1) / warmup)
    return top * rise * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)


def _from_nothing(step, steps, top, warmup):
    return top * min(1.0, step / warmup) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)


def _to_nothing(step, steps, top, warmup):
    return top * min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2


def _whole_turn(step, steps, top, warmup):
    rise = min(1.0, (step + 1) / warmup)
    return top * rise * (0.01 + 0.99 * (1 + math.cos(2 * math.pi * step / steps)) / 2)


def _straight(step, steps, top, warmup):
    return top * min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * (1 - step / steps))


def _never_warm(step, steps, top, warmup):
    return top * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)


def _cosine_later(step, steps, top, warmup):
    later = 0.01 + 0.99 * (1 + math.cos(math.pi * max(0, step - warmup) / (steps - warmup))) / 2
    return top * min(1.0, (step + 1) / warmup) * later


def _one_or_the_other(step, steps, top, warmup):
    return top * (step + 1) / warmup if step < warmup else _never_warm(step, steps, top, warmup)


def _max(step, steps, top, warmup):
    return max(1.0, (step + 1) / warmup) * _never_warm(step, steps, top, warmup)


def _degrees(step, steps, top, warmup):
    return top * min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * (1 + math.cos(180 * step / steps)) / 2)


def _probe_rate(answer, draw: torch.Generator) -> dict[str, float]:
    steps = int(torch.randint(90, 200, (1,), generator=draw))
    places = {"the first step": 0, "a step in the warm-up": 6, "the middle": steps // 2, "the last step": steps - 1}
    return {f"{name} of {steps}": answer(place, steps, 0.002, 10) for name, place in places.items()}


def share(order: Tensor, batch: int, rank: int, world: int) -> Tensor:
    """The items of device `rank`: the order cut into global batches of batch · world, a part of each for every device."""
    whole = batch * world
    kept = order[: len(order) // whole * whole]
    return kept.reshape(-1, world, batch)[:, rank]


def _blocks(order, batch, rank, world):
    whole = batch * world
    kept = order[: len(order) // whole * whole]
    return kept.reshape(world, -1, batch)[rank]


def _dealt(order, batch, rank, world):
    whole = batch * world
    kept = order[: len(order) // whole * whole]
    return kept.reshape(-1, batch, world)[:, :, rank]


def _everything(order, batch, rank, world):
    return order[: len(order) // batch * batch].reshape(-1, batch)


def _probe_share(answer, draw: torch.Generator) -> dict[str, Tensor]:
    found = {}
    for items, batch, world in ((50, 4, 3), (37, 2, 2), (16, 1, 8)):
        order = torch.randperm(items, generator=draw)
        for rank in (0, world - 1):
            found[f"{items} items, {world} devices with {batch} each, device {rank}"] = answer(order, batch, rank, world)
    return found


EXERCISES = {
    "clip": Exercise(
        task="shorten the gradients of all weights together",
        reference=clip,
        probe=_probe_clip,
        mistakes=(
            Mistake(
                "each on its own",
                _each_on_its_own,
                "you shorten each tensor by its own length. Then the long ones are shortened and the short ones are not, and the "
                "step points somewhere else. One factor for all keeps the direction.",
            ),
            Mistake(
                "always scaled",
                _always_scaled,
                "you bring every gradient to the limit, short ones too. Clipping only ever shortens: the factor is at most 1.",
            ),
            Mistake(
                "clamped",
                lambda gradients, limit: [g.clamp(-limit, limit) for g in gradients],
                "you cut each number off at the limit. That changes the direction; what is limited here is the length of the whole.",
            ),
            Mistake(
                "sum of lengths",
                _sum_of_lengths,
                "you add the lengths of the tensors. All weights form one vector: its length is the root of the sum of all squares.",
            ),
            Mistake(
                "thrown away",
                _thrown_away,
                "you drop a gradient that is too long. Its direction is still worth something: shorten it.",
            ),
            Mistake(
                "no root",
                lambda gradients, limit: _times(gradients, limit / _energy(gradients)),
                "you divide by the sum of the squares. The length is its root.",
            ),
            Mistake(
                "largest entry",
                lambda gradients, limit: _times(gradients, limit / max(g.abs().max() for g in gradients)),
                "you bring the largest single number to the limit. Limited is the length of all numbers together, the root of the sum of squares.",
            ),
            Mistake(
                "mean of squares",
                _root_mean_square,
                "you take the root of the *mean* of the squares. A length is the root of their sum; the mean would let a large network take longer steps.",
            ),
            Mistake(
                "length one",
                _to_length_one,
                "you bring long gradients to length 1. They should be as long as the limit: the factor is limit / length.",
            ),
            Mistake(
                "min and max",
                _only_longer,
                "you lengthen gradients that are short and leave long ones. The factor is at *most* 1: min, not max.",
            ),
        ),
    ),
    "rate_at": Exercise(
        task="compute the learning rate of a step",
        reference=rate_at,
        probe=_probe_rate,
        mistakes=(
            Mistake(
                "from nothing",
                _from_nothing,
                "at step 0 your rate is 0, so the first batch is wasted. Step 0 is the first of the warm-up: (step + 1) / warmup.",
            ),
            Mistake(
                "to nothing",
                _to_nothing,
                "your cosine falls to 0. It should fall from 1 to 0.01: stretch it over 0.99 and add 0.01.",
            ),
            Mistake(
                "whole turn",
                _whole_turn,
                "your cosine comes up again in the second half. Over the whole run it goes through half a turn: π, not 2π.",
            ),
            Mistake(
                "straight",
                _straight,
                "your rate falls in a straight line. A cosine stays high longer at first and low longer at the end.",
            ),
            Mistake(
                "never warm",
                _never_warm,
                "the warm-up is missing: over the first `warmup` steps the rate rises in a straight line to its full height.",
            ),
            Mistake(
                "cosine after the warm-up",
                _cosine_later,
                "your cosine begins where the warm-up ends. Here it runs from step 0 on, over all steps, and the warm-up is a second factor.",
            ),
            Mistake(
                "one or the other",
                _one_or_the_other,
                "you take the warm-up alone first and the cosine alone afterwards. The rate is the product of both at every step.",
            ),
            Mistake(
                "min and max exchanged",
                _max,
                "your warm-up never ends: it is capped at 1 by min(1, (step + 1) / warmup), not held above it by max.",
            ),
            Mistake(
                "degrees",
                _degrees,
                "math.cos takes radians: half a turn is π, not 180.",
            ),
            Mistake(
                "top left out",
                lambda step, steps, top, warmup: rate_at(step, steps, 1.0, warmup),
                "both factors are there, but the rate is their share of `top`: multiply by it.",
            ),
            Mistake(
                "one step less",
                lambda step, steps, top, warmup: rate_at(step, steps - 1, 1.0, 1) * top * min(1.0, (step + 1) / warmup),
                "your half turn is over one step early: the formula has k / n with n steps in all, so the last step is not quite at the bottom.",
            ),
        ),
    ),
    "accident": Exercise(
        task="predict what one gradient that is far too long does to AdamW",
        reference="c",
        probe=lambda answer, draw: {"your prediction": letter(answer)},
        mistakes=(
            Mistake(
                "flies off",
                "a",
                "that is what plain gradient descent does. Adam divides by a running root mean square, and the long gradient is in it at "
                "once: the step is longer than usual by a small factor only.",
            ),
            Mistake(
                "nothing",
                "b",
                "Adam divides by an *average* length, in which a new gradient has a weight of 0.001, not by the length of this one. So the "
                "step grows; and the average remembers.",
            ),
            Mistake(
                "for good",
                "d",
                "the average forgets too, if slowly: 0.999 a step, so that after some thousand steps the accident is gone.",
            ),
        ),
    ),
    "share": Exercise(
        task="find the items of one device",
        reference=share,
        probe=_probe_share,
        mistakes=(
            Mistake(
                "blocks",
                _blocks,
                "you give each device a block of the epoch. Then a step of all devices together holds other items than a step of one "
                "device with the whole batch: cut the order into global batches first.",
            ),
            Mistake(
                "dealt out",
                _dealt,
                "you deal items out like cards. The global batches are right, so the sums are; but device 0 should have the first "
                "`batch` items of each: the axes are (step, device, item).",
            ),
            Mistake(
                "everything",
                _everything,
                "every device gets all items here: eight devices would do the same work eight times.",
            ),
            Mistake(
                "last ones kept",
                lambda order, batch, rank, world: order.reshape(-1, world, batch)[:, rank],
                "the items at the end that fill no global batch are still there. Leave them out first: keep a multiple of batch · world.",
            ),
            Mistake(
                "only the first batch",
                lambda order, batch, rank, world: order[rank * batch : (rank + 1) * batch][None],
                "that is the device's part of the *first* global batch. Every global batch has one: return a row for each step.",
            ),
            Mistake(
                "in one row",
                lambda order, batch, rank, world: share(order, batch, rank, world).flatten(),
                "the items are right, but all in one row: return (steps, batch), a row for each step.",
            ),
            Mistake(
                "next device",
                lambda order, batch, rank, world: share(order, batch, (rank + 1) % world, world),
                "you give each device its neighbour's part: devices are counted from 0, and device 0 has the first items.",
            ),
        ),
    ),
}


# Quick questions --------------------------------------------------------------------------------------------------


BEFORE = [
    multiple_choice(
        "The training loss falls for days, the loss on other talkers rises. What do you have?",
        ("A network that learns its training mixtures by heart", True, "The gap between the two is the sign of it."),
        ("A network that needs more time", False, "More time of this makes it worse on other talkers."),
        ("A mistake in the loss", False, "Possible, but a loss that falls on one set and rises on another is no sign of it."),
    ),
    multiple_choice(
        "You have 1000 recordings of single voices. How many mixtures of two can you train on?",
        ("500", False, "Only if each recording may be used once."),
        ("1000", False, "Corpora often fix about so many, but nothing forces you to."),
        ("About half a million, and each at any level", True, "1000 · 999 / 2 pairs: mixing on the fly draws from all of them."),
    ),
    multiple_choice(
        "Two systems differ by 0.3 dB on 30 test mixtures. Which one is better?",
        ("The one with the higher mean", False, "Of these 30. On 30 others it may be the other way round."),
        ("That cannot be said without the spread of the differences", True, "An interval of the paired differences tells."),
        ("Neither: 0.3 dB cannot be heard", False, "Whether it is real and whether it is audible are two questions."),
    ),
    multiple_choice(
        "A training run is killed and goes on from saved weights alone. Will it end where the unbroken run would have?",
        ("Yes: the weights are all there is", False, "The optimiser has averages, the schedule a place, the data an order."),
        ("No: other things belong to a run's state", True, "Optimiser, schedule, data order and random numbers as well."),
        ("Only on a GPU", False, "Where it runs makes no difference to what must be saved."),
    ),
    multiple_choice(
        "Somebody exchanges the two faces in your video, one for the other. What should a separator for two voices do?",
        ("Swap the voices", True, "What is meant by 'first voice' is: the one whose lips are shown first."),
        ("Nothing, the sound is the same", False, "Then it would not be listening to the lips at all."),
        ("Refuse", False, "Each face still belongs to one of the voices."),
    ),
]


# Explorer ---------------------------------------------------------------------------------------------------------

_AT, _STEPS, _WEIGHTS = 60, 300, 20


@functools.cache
def accident(optimizer: str, factor: float, clipping: str) -> tuple[np.ndarray, np.ndarray]:
    """Loss and length of the weights' step over a small training: linear regression on noisy batches, with one gradient `factor` times
    too long at step 60."""
    draw = torch.Generator().manual_seed(0)
    goal = torch.randn(_WEIGHTS, generator=draw)
    weights = torch.zeros(_WEIGHTS, requires_grad=True)
    kind, rate = (torch.optim.SGD, 0.05) if optimizer == "gradient descent" else (torch.optim.AdamW, 0.02)
    optimiser = kind([weights], lr=rate)
    losses, lengths = np.zeros(_STEPS), np.zeros(_STEPS)
    with torch.enable_grad():
        for step in range(_STEPS):
            x = torch.randn(16, _WEIGHTS, generator=draw)
            loss = (x @ (weights - goal) + 0.1 * torch.randn(16, generator=draw)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            weights.grad.mul_(factor if step == _AT else 1.0)
            if clipping == "on":
                torch.nn.utils.clip_grad_norm_([weights], 5.0)
            before = weights.detach().clone()
            optimiser.step()
            losses[step] = float((weights.detach() - goal).square().sum()) + 1e-6
            lengths[step] = float((weights.detach() - before).norm())
    return losses, lengths


def render_accident(optimizer: str, factor: int, clipping: str) -> Html:
    """One gradient too long, beside the same training without."""
    runs = {"as it should be": accident(optimizer, 1, clipping), "one gradient too long": accident(optimizer, factor, clipping)}
    title = f"{optimizer}, gradient {factor} times too long at step {_AT}, clipping {clipping}"
    return figures.draw_accident(
        {name: run[0] for name, run in runs.items()}, {name: run[1] for name, run in runs.items()}, _AT, title
    )


EXPLORERS = {
    "accident": Explorer(
        render_accident,
        (
            Control("optimizer", ("gradient descent", "AdamW"), "AdamW", "optimiser"),
            Control("factor", (3, 30, 1000), 1000, "times too long"),
            Control("clipping", ("off", "on"), "off", "clipping at 5"),
        ),
    )
}
