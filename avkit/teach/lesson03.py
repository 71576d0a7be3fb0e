"""Notebook 03, watching lips: its exercises, explorer and questions. What it measures is in `lesson03_lab`."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from avkit import load_model
from avkit.lips import CROP_SIZE, MEAN, STD, LipEncoder, LipEncoderConfig, LipTransform
from avkit.teach import lip_figures, probes
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, same_weights
from avkit.teach.lesson03_lab import correlation, envelope, late
from avkit.teach.quizzes import multiple_choice
from avkit.teach.samples import find_data
from avkit.teach.widgets import Control, Explorer

NETWORK = "rtfs-net-tiny"  # the trained network that comes with the course

# Exercises ------------------------------------------------------------------------------------------------------


def lip_transform(frames: Tensor) -> Tensor:
    """(F, 96, 96) uint8 -> (1, F, 88, 88) float: centre crop, gray values as the encoder knows them."""
    return LipTransform()(frames)


def _crop(frames: Tensor, top: int = 4) -> Tensor:
    return frames[None, :, top : top + CROP_SIZE, top : top + CROP_SIZE]


def _resized(frames: Tensor) -> Tensor:
    small = nn.functional.interpolate(frames[:, None].float(), size=(CROP_SIZE, CROP_SIZE), mode="bilinear")
    return (small.transpose(0, 1) / 255 - MEAN) / STD


def _own_statistics(frames: Tensor) -> Tensor:
    crop = _crop(frames).float() / 255
    return (crop - crop.mean()) / crop.std()


def _probe_transform(answer, draw: torch.Generator) -> dict[str, Tensor]:
    shape = {"seven frames": (7, 96, 96), "one frame": (1, 96, 96)}
    return {
        name: answer(torch.randint(256, size, generator=draw, dtype=torch.uint8))
        for name, size in shape.items()
    }


def make_frontend(channels: int) -> nn.Sequential:
    """The encoder's front end with `channels` channels, as in `avkit.LipEncoder`: (B, 1, F, 88, 88) -> (B, C, F, 22, 22)."""
    return LipEncoder(LipEncoderConfig(stem=channels, widths=(8, 8, 8, 8))).frontend.requires_grad_(True)


def _frontend(
    channels: int, kernel=(5, 7, 7), stride=(1, 2, 2), padding=(2, 3, 3), bias=False, slopes=None, pool=None
):
    return nn.Sequential(
        nn.Conv3d(1, channels, kernel, stride, padding, bias=bias),
        nn.BatchNorm3d(channels),
        nn.PReLU(slopes or channels),
        pool or nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    )


def _probe_frontend(answer, draw: torch.Generator) -> dict[str, Tensor | int]:
    """Sizes first: with other weights than the reference's there is nothing to compare."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw.initial_seed())  # so that the reference starts alike in every run
        reference = make_frontend(6)
    mine = answer(6)
    results, wanted = _sizes(mine), _sizes(reference)
    if all(torch.equal(size, wanted[name]) for name, size in results.items()):
        same_weights(mine, reference, seed=1)
        for count in (9, 6):
            clip = torch.randn(2, 1, count, 88, 88, generator=draw)
            results[f"two clips of {count} frames"] = mine(clip)
    return results


def _sizes(module: nn.Module) -> dict[str, Tensor]:
    weights = list(module.parameters())
    return {
        "the number of weights": torch.tensor(sum(weight.numel() for weight in weights)),
        "the axes of the convolution's weights": torch.tensor(weights[0].shape),
    }


def lag_curve(opening: Tensor, loudness: Tensor, furthest: int) -> Tensor:
    """(F,), (F,) -> (2·furthest + 1,): correlation of opening[k + lag] with loudness[k] for lag = −furthest … furthest."""
    count = len(opening)
    curve = []
    for lag in range(-furthest, furthest + 1):
        lips = opening[max(0, lag) : count + min(0, lag)]
        curve.append(correlation(lips, loudness[max(0, -lag) : count - max(0, lag)]))
    return torch.tensor(curve)


def mean_lag_curve(openings: Tensor, loudness: Tensor, furthest: int) -> Tensor:
    """(N, F), (N, F) -> (2·furthest + 1,): the mean of the clips' lag curves."""
    pairs = zip(openings, loudness, strict=True)
    return torch.stack([lag_curve(opening, voice, furthest) for opening, voice in pairs]).mean(0)


def _one_formula(opening: Tensor, loudness: Tensor, furthest: int) -> Tensor:
    lags, count = range(-furthest, furthest + 1), len(opening)
    return torch.tensor([correlation(opening[lag:], loudness[: count - lag]) for lag in lags])


def _wrapped(opening: Tensor, loudness: Tensor, furthest: int) -> Tensor:
    lags = range(-furthest, furthest + 1)
    return torch.tensor([correlation(opening.roll(-lag), loudness) for lag in lags])


def _filled(opening: Tensor, loudness: Tensor, furthest: int) -> Tensor:
    curve = []
    for lag in range(-furthest, furthest + 1):
        moved = torch.zeros_like(opening)
        moved[max(0, -lag) : len(opening) - max(0, lag)] = opening[max(0, lag) : len(opening) + min(0, lag)]
        curve.append(correlation(moved, loudness))
    return torch.tensor(curve)


def _probe_lags(answer, draw: torch.Generator) -> dict[str, Tensor]:
    long, short = torch.randn(2, 50, generator=draw), torch.rand(2, 13, generator=draw) + 1
    return {
        "50 frames, lags to 6": answer(long[0], long[1], 6),
        "13 frames, lags to 3": answer(short[0], short[1], 3),
    }


EXERCISES = {
    "lip_transform": Exercise(
        task="crop and normalise a lip stream",
        reference=lip_transform,
        probe=_probe_transform,
        mistakes=(
            Mistake(
                "corner",
                lambda frames: (_crop(frames, 0).float() / 255 - MEAN) / STD,
                "you cut from the top left corner. The centre crop leaves (96 − 88) / 2 = 4 pixels on every side.",
            ),
            Mistake(
                "not divided by 255",
                lambda frames: (_crop(frames).float() - MEAN) / STD,
                "0.421 and 0.165 belong to gray values between 0 and 1; yours still run to 255. Divide by 255 first.",
            ),
            Mistake(
                "shrunk",
                _resized,
                "you shrink the frame to 88×88, so the mouth becomes smaller. Cropping keeps its size and cuts off the rim.",
            ),
            Mistake(
                "shrunk, pixels picked",
                lambda frames: (nn.functional.interpolate(frames[None].float(), (88, 88)) / 255 - MEAN) / STD,
                "you shrink the frame to 88×88 by leaving pixels out. Cropping keeps the mouth's size and cuts off the rim.",
            ),
            Mistake(
                "times the spread",
                lambda frames: (_crop(frames).float() / 255 - MEAN) * STD,
                "you multiply by 0.165. It is the spread: divide by it, so that what comes out has a spread of about 1.",
            ),
            Mistake(
                "its own mean",
                _own_statistics,
                "you normalise each clip by its own mean and spread. The encoder was trained with two fixed numbers, the same "
                "for every clip: with its own, a dark clip and a bright one would look alike, and a clip would look "
                "different when it is cut.",
            ),
            Mistake(
                "frames first",
                lambda frames: lip_transform(frames).transpose(0, 1),
                "frames and channels are swapped: one gray channel comes first, then the frames, (1, F, 88, 88).",
            ),
        ),
    ),
    "make_frontend": Exercise(
        task="build the encoder's front end",
        reference=make_frontend,
        probe=_probe_frontend,
        mistakes=(
            Mistake(
                "frames alone",
                lambda channels: _frontend(channels, (1, 7, 7), padding=(0, 3, 3)),
                "your convolution looks at each frame alone. Its kernel is (5, 7, 7): five frames, seven by seven pixels.",
            ),
            Mistake(
                "time last",
                lambda channels: _frontend(channels, (7, 7, 5), (2, 2, 1), (3, 3, 2)),
                "your kernel has its axes in another order: they are time, height, width, so five is the first.",
            ),
            Mistake(
                "every second frame lost",
                lambda channels: _frontend(channels, stride=(2, 2, 2)),
                "your stride halves the number of frames too. Only the pixels are thinned out: time keeps stride 1, for each "
                "frame has to leave a column.",
            ),
            Mistake(
                "no padding in time",
                lambda channels: _frontend(channels, padding=(0, 3, 3)),
                "four frames are lost: a kernel of five needs two frames of padding at either end of the clip.",
            ),
            Mistake(
                "bias",
                lambda channels: _frontend(channels, bias=True),
                "your convolution has a bias. Batch norm subtracts the mean right after it, so a bias would be taken away again.",
            ),
            Mistake(
                "one slope",
                lambda channels: _frontend(channels, slopes=1),
                "your PReLU has one slope for all channels; here each channel has its own: nn.PReLU(channels).",
            ),
            Mistake(
                "PReLU before the norm",
                lambda channels: nn.Sequential(*(_frontend(channels)[layer] for layer in (0, 2, 1, 3))),
                "your PReLU comes before the batch norm; in the table the norm is second and the PReLU third.",
            ),
            Mistake(
                "pool for pictures",
                lambda channels: _frontend(channels, pool=nn.MaxPool2d(3, 2, 1)),
                "nn.MaxPool2d takes single pictures, and here comes a whole clip, (B, C, F, H, W): nn.MaxPool3d, with a kernel "
                "of 1 over time.",
            ),
            Mistake(
                "averages",
                lambda channels: _frontend(channels, pool=nn.AvgPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))),
                "you average 3×3 pixels; a max-pool keeps the largest of them: nn.MaxPool3d.",
            ),
            Mistake(
                "pools over time",
                lambda channels: _frontend(channels, pool=nn.MaxPool3d(3, (1, 2, 2), 1)),
                "your max-pool takes the largest of three *frames* as well. It pools 3×3 pixels within a frame: (1, 3, 3).",
            ),
        ),
    ),
    "changed_columns": Exercise(
        task="predict how many feature columns one spoilt frame changes",
        reference=5,
        probe=lambda answer, draw: {"the number of columns": float(answer)},
        mistakes=(
            Mistake(
                "each frame alone",
                1,
                "you expect each column to come from its own frame alone. The trunk works like that, but which layer saw more "
                "than one frame?",
            ),
            Mistake(
                "kernel of pixels",
                7,
                "seven is the size of the kernel across the picture; along time it reaches over another number of frames.",
            ),
            Mistake(
                "half a kernel",
                3,
                "you count the frame, one before and one after, as a kernel of three would have it. The kernel in time is wider.",
            ),
            Mistake(
                "twice",
                9,
                "you count two convolutions over time, one after another. There is one; everything behind it takes each frame "
                "alone.",
            ),
            Mistake(
                "all",
                50,
                "you expect the whole clip to change. Nothing in this encoder runs through time from end to end; the networks "
                "that use it do that later.",
            ),
        ),
    ),
    "lag_curve": Exercise(
        task="correlate lips and loudness at every lag",
        reference=lag_curve,
        probe=_probe_lags,
        mistakes=(
            Mistake(
                "sign",
                lambda opening, loudness, furthest: lag_curve(opening, loudness, furthest).flip(0),
                "your lags have the other sign: at a positive lag, `opening[k + lag]` meets `loudness[k]`, so lips that come "
                "late have their peak at a positive lag.",
            ),
            Mistake(
                "negative slices",
                _one_formula,
                "one pair of slices serves the lags from 0 upwards only; a negative index counts from the end. For negative lags "
                "the two curves change roles: opening[: count + lag] meets loudness[-lag:].",
            ),
            Mistake(
                "wrapped",
                _wrapped,
                "what leaves the clip at one end comes back at the other (`roll` does that): the end of the sentence is "
                "compared with its beginning. Keep only the frames where both curves exist.",
            ),
            Mistake(
                "filled with zeros",
                _filled,
                "you fill the gap with zeros and correlate all frames. A zero is a shut mouth that nobody has seen: keep only "
                "the frames where both curves exist.",
            ),
            Mistake(
                "absolute",
                lambda opening, loudness, furthest: lag_curve(opening, loudness, furthest).abs(),
                "you drop the sign of the correlation. A mouth that shuts when the voice is loud is strong evidence too, "
                "but against.",
            ),
        ),
    ),
}


# Explorer -------------------------------------------------------------------------------------------------------

WHOSE = ("the mouth of this voice", "another mouth", "a mouth that stands still")
SHIFTS = (-10, -5, -3, -2, -1, 0, 1, 2, 3, 5, 10)
FURTHEST = 12  # frames, of the lag curves that are drawn
_SHOWN = "t058_00000", "t058_00001"  # two sentences of one voice: nothing but their timing differs


@functools.cache
def readings() -> tuple[probes.Clips, Tensor]:
    """The test clips, and each mouth's opening (N, F) read from the trained encoder's features by a held-out probe."""
    clips = probes.load_clips(find_data("talkers"))
    features = probes.encode(load_model(NETWORK).lips, clips.frames)
    return clips, probes.held_out(probes.ridge, features, clips.curves, clips.talkers, 1.0)[..., 0]


def render_shift(shift: int, whose: str) -> Html:
    """A voice's loudness and a mouth's opening, the mouth moved by `shift` frames; their correlation at every lag."""
    clips, opening = readings()
    own, other = (clips.ids.index(name) for name in _SHOWN)
    lips = opening[other if whose == WHOSE[1] else own]
    if whose == WHOSE[2]:
        lips = lips.median().expand_as(lips)
    lips, loudness = late(lips, shift), envelope(clips.voices[own])
    return lip_figures.draw_shift(lips, loudness, lag_curve(lips, loudness, FURTHEST), shift, whose)


EXPLORERS = {
    "shift": Explorer(
        render_shift,
        (Control("shift", SHIFTS, 5, "lips late by (frames)"), Control("whose", WHOSE, WHOSE[0], "mouth")),
    ),
}


# Questions after notebooks 02 and 03 ----------------------------------------------------------------------------


def _question(text: str, *answers: tuple[str, str]) -> dict:
    """A question with its answers, each with its feedback; the right one's begins with "Yes"."""
    return multiple_choice(text, *((answer, why.startswith("Yes"), why) for answer, why in answers))


AFTER = [
    _question(
        "An estimate is exactly half as loud as the voice it should be, and otherwise perfect. What does SI-SNR say?",
        ("about 6 dB", "no: that is what plain SNR would say, whose error is the missing half."),
        (
            "it is as high as for a perfect estimate",
            "Yes: SI-SNR scales the reference to fit before it looks for errors.",
        ),
        ("0 dB", "no: nothing in the estimate is error, once loudness is left out."),
    ),
    _question(
        "A network without lips returns two perfect voices in an order of its own. Why is a loss that pairs output 1 with "
        "talker 1 a bad teacher, and why do lips mend it?",
        (
            "it punishes right answers in the wrong order; lips say which voice is wanted",
            "Yes: that is the permutation problem. With lips there is one output and one right answer.",
        ),
        (
            "it is too small for quiet talkers; lips make them louder",
            "no: lips change no level. Think of what happens when the two outputs trade places.",
        ),
        (
            "it cannot be differentiated; lips can",
            "no: any of these losses can be differentiated. The trouble is what they ask for.",
        ),
    ),
    _question(
        "A perfect lip reader sees 'my' and 'by' spoken. What is left to tell them apart?",
        ("nothing", "no: nothing that is seen, but a microphone was there too."),
        (
            "the sound: whether the nose resonates is audible, and cannot be seen",
            "Yes: what the eye cannot tell (voice, nose) the ear can, and the other way round for place.",
        ),
        ("a higher frame rate", "no: the lips do the same at any rate; the nose's valve is hidden."),
    ),
    _question(
        "Which lip frame goes with second 1.01 of the sound?",
        ("frame 25", "Yes: frame 25 lasts from 1.00 to 1.04 s. Its middle is at 1.02 s."),
        ("frame 40", "no: 40 ms is how long one frame lasts; there are 25 in a second."),
        ("frame 125", "no: near there STFT frame 126 is centred; lips have 25 frames a second, not 125."),
    ),
    _question(
        "A colleague's separation network was trained with a lip encoder left in training mode. Its own weights are saved, "
        "the encoder is loaded afresh from its original file. What may differ from training?",
        (
            "nothing: the encoder's weights were frozen",
            "no: its weights were, but running means and variances are no weights, and they moved.",
        ),
        (
            "the features, for the running statistics had drifted and the drift was not saved",
            "Yes: what was learned on drifted features now meets others, with every weight as it was.",
        ),
        ("only the speed", "no: batch norm computes something else in training than in evaluation."),
    ),
]


# For instructors ------------------------------------------------------------------------------------------------

INSTRUCTOR = """
**Notes for instructors: 03, watching lips**

| section | minutes | what people get wrong there |
|---|---|---|
| opening | 3 | they choose by loudness; let them vote, write the votes down, do not tell |
| 1 a lip stream | 7 + 5 | they shrink instead of cropping; they normalise each clip by itself |
| 2 two clocks | 3 | "frame 25 shows second 1": it *starts* there, and shows 1.02 s on average |
| 3 what can be seen | 5 | they take visemes for sounds seen badly; it is a many-to-one map |
| 4 the encoder | 7 + 10 | "3-D" is read as depth; it is time. Padding in time is forgotten |
| 5 frozen | 3 | "frozen" is taken to mean "no gradient"; statistics move without any |
| 6 what it knows | 7 | a probe's score is taken for what the network uses |
| 7 synchrony | 6 + 10 | the sign of the lag; say aloud: positive is lips late |
| answer, questions | 4 + 5 | |

**Questions to ask**

- Cover the sound: which words of the opening clip could you swear to? (Those with p, b, m, f, v.)
- Why does a random encoder lose against plain pixels, though its features are made of them? (It mixes, pools and throws
  away; nothing told it what to keep.)
- Skin tone can be read from the features. Is that a fault? (Here it cannot harm: faces and voices are drawn apart. With
  real faces it could: a face tells age and sex, and so something of a voice. How would you find out?)
- The correlation falls *below zero* a few frames off. Why does that happen with speech and not with music held for
  seconds? (Syllables: some three to five a second, so half a syllable is about three frames.)
- If two videos of one corpus are cut by different programs, one 40 ms off, what will training see?

**If time is short** leave out the alignment in section 1 and all of section 5. **The drift in section 5** changes separation
little here, for corpus and encoder fit each other; say that what it did to the published weights is not known.

**The open exercise** is best done in pairs: one designs, the other looks for the clip on which it fails.
"""
