"""Notebook 02, mixtures, masks and scores: its exercises, explorer, questions and notes for instructors.

Its figures are in `lesson02_figures`, the spoilt sounds in `damage`.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from avkit.baselines import ideal_mask
from avkit.data import mixing
from avkit.metrics import si_snr
from avkit.teach import damage
from avkit.teach import lesson02_figures as figures
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter
from avkit.teach.players import listen
from avkit.teach.quizzes import multiple_choice
from avkit.teach.samples import find_data, load_sample
from avkit.teach.widgets import Control, Explorer

TINY = 1e-20  # keeps a division by the power of a silent point finite

# Exercises ------------------------------------------------------------------------------------------------------


def phase_sensitive_mask(sources: Tensor, mixture: Tensor) -> Tensor:
    """(n, F, T) complex, (F, T) complex -> (n, F, T) in 0 … 1: the real multiple of the mixture nearest each source."""
    return ideal_mask("psm", sources, mixture)


def _power(mixture: Tensor) -> Tensor:
    return mixture.abs().square().clamp(min=TINY)


def _spectral_magnitude_mask(sources: Tensor, mixture: Tensor) -> Tensor:
    return (sources.abs() / _power(mixture).sqrt()).clamp(0, 1)


def _without_conjugate(sources: Tensor, mixture: Tensor) -> Tensor:
    return ((sources * mixture).real / _power(mixture)).clamp(0, 1)


def _unclipped(sources: Tensor, mixture: Tensor) -> Tensor:
    return (sources * mixture.conj()).real / _power(mixture)


def _over_length(sources: Tensor, mixture: Tensor) -> Tensor:
    return ((sources * mixture.conj()).real / _power(mixture).sqrt()).clamp(0, 1)


def _probe_mask(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for bins, frames in ((9, 7), (5, 11)):
        sources = torch.randn(2, bins, frames, generator=draw, dtype=torch.complex64)
        sources[:, 0, 0] = 0  # a point where all is silent
        results[f"two sources of {bins} bins and {frames} frames"] = answer(sources, sources.sum(0))
    return results


def _centred(signal: Tensor) -> Tensor:
    return signal - signal.mean(-1, keepdim=True)


def _energy_db(signal: Tensor, error: Tensor) -> Tensor:
    return 10 * torch.log10(signal.square().sum(-1) / error.square().sum(-1))


def _projection(estimate: Tensor, reference: Tensor) -> Tensor:
    scale = (estimate * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True)
    return scale * reference


def _si_snr_with_means(estimate: Tensor, reference: Tensor) -> Tensor:
    target = _projection(estimate, reference)
    return _energy_db(target, estimate - target)


def _over_estimate(estimate: Tensor, reference: Tensor) -> Tensor:
    target = (
        (estimate * reference).sum(-1, keepdim=True) / estimate.square().sum(-1, keepdim=True) * reference
    )
    return _energy_db(target, estimate - target)


def _over_length_of(estimate: Tensor, reference: Tensor) -> Tensor:
    target = (estimate * reference).sum(-1, keepdim=True) / reference.norm(dim=-1, keepdim=True) * reference
    return _energy_db(target, estimate - target)


def _plain_snr(estimate: Tensor, reference: Tensor) -> Tensor:
    return _energy_db(_centred(reference), _centred(estimate) - _centred(reference))


def _equal_length_snr(estimate: Tensor, reference: Tensor) -> Tensor:
    estimate, reference = _centred(estimate), _centred(reference)
    estimate = estimate / estimate.norm(dim=-1, keepdim=True)
    reference = reference / reference.norm(dim=-1, keepdim=True)
    return _energy_db(reference, estimate - reference)


def _error_from_reference(estimate: Tensor, reference: Tensor) -> Tensor:
    estimate, reference = _centred(estimate), _centred(reference)
    return _energy_db(_projection(estimate, reference), estimate - reference)


def _probe_si_snr(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for shape, noise, gain in (((1000,), 0.5, 0.3), ((2, 3, 501), 1.5, 2.0)):
        reference = torch.randn(shape, generator=draw) + 0.2
        estimate = gain * (reference + noise * torch.randn(shape, generator=draw)) + 0.4
        results[f"sounds of shape {shape}"] = answer(estimate, reference)
    return results


def best_order_loss(pairs: Tensor) -> Tensor:
    """(B, 2, 2) -> (): of each mixture the mean loss under its better order, then the mean over mixtures."""
    straight = (pairs[:, 0, 0] + pairs[:, 1, 1]) / 2
    crossed = (pairs[:, 0, 1] + pairs[:, 1, 0]) / 2
    return torch.minimum(straight, crossed).mean()


def _orders(pairs: Tensor) -> Tensor:
    """(B, 2): the mean loss of each mixture, straight and crossed."""
    return torch.stack(
        [pairs.diagonal(dim1=1, dim2=2).mean(-1), pairs.flip(2).diagonal(dim1=1, dim2=2).mean(-1)], -1
    )


def _probe_pairs(answer, draw: torch.Generator) -> dict[str, Tensor]:
    return {f"{count} mixtures": answer(8 * torch.randn(count, 2, 2, generator=draw)) for count in (9, 6)}


EXERCISES = {
    "phase_sensitive_mask": Exercise(
        task="write the phase-sensitive mask",
        reference=phase_sensitive_mask,
        probe=_probe_mask,
        mistakes=(
            Mistake(
                "angles ignored",
                _spectral_magnitude_mask,
                "this is |S| / |X|, which makes the lengths equal and ignores the angle between the two. In the picture "
                "that point lies too far out on the line; the nearest point is where the perpendicular meets it.",
            ),
            Mistake(
                "ratio mask",
                lambda s, x: s.abs() / s.abs().sum(0).clamp(min=TINY),
                "this is the ratio mask once more: only lengths go into it. The nearest point depends on the angle "
                "between source and mixture too.",
            ),
            Mistake(
                "wiener",
                lambda s, x: s.abs().square() / s.abs().square().sum(0).clamp(min=TINY),
                "this shares out the energies (Wiener's filter). That is right on average when angles are unknown; here "
                "they are known.",
            ),
            Mistake(
                "not clipped",
                _unclipped,
                "the projection is right, but not cut to 0 … 1: points where the voices cancel get masks above 1, and "
                "some are below 0.",
            ),
            Mistake(
                "only from below",
                lambda s, x: _unclipped(s, x).clamp(min=0),
                "negative masks are cut off, but those above 1 are not: the exercise asks for 0 … 1.",
            ),
            Mistake(
                "conjugate forgotten",
                _without_conjugate,
                "you multiply S by X, which adds their angles. The conjugate of X makes it the angle *between* them.",
            ),
            Mistake(
                "real part forgotten",
                lambda s, x: (s * x.conj() / _power(x)).clamp(0, 1),
                "you cut a complex number to 0 … 1, which has no meaning: take its `.real` first.",
            ),
            Mistake(
                "real parts only",
                lambda s, x: (s.real * x.real / _power(x)).clamp(0, 1),
                "you multiply the real parts alone. The real part of a product takes both: multiply S by the conjugate of X as "
                "complex numbers first, then take the real part.",
            ),
            Mistake(
                "divided by the length, not clipped",
                lambda s, x: (s * x.conj()).real / _power(x).sqrt(),
                "you divide by |X| where it should be |X|², and the result is not cut to 0 … 1.",
            ),
            Mistake(
                "divided by the length",
                _over_length,
                "you divide by |X|; that is the length of the shadow of S on X. As a multiple *of X* it has to be divided "
                "by |X| once more.",
            ),
        ),
    ),
    "si_snr": Exercise(
        task="write the scale-invariant signal-to-noise ratio",
        reference=si_snr,
        probe=_probe_si_snr,
        mistakes=(
            Mistake(
                "means left in",
                _si_snr_with_means,
                "the means were not taken away first: a constant offset, which no ear hears, counts as signal or error.",
            ),
            Mistake(
                "one mean for all",
                lambda e, r: _si_snr_with_means(e - e.mean(), r - r.mean()),
                "one mean was taken over all sounds together. Each sound has its own: `.mean(-1, keepdim=True)`.",
            ),
            Mistake(
                "plain SNR",
                _plain_snr,
                "this is the plain SNR: the estimate is compared with the reference at its own level, so making it louder "
                "changes the score. Compare it with its projection on the reference.",
            ),
            Mistake(
                "made equally loud",
                _equal_length_snr,
                "you made both equally loud and took the SNR. That too is free of scale, but it scores another error than the "
                "one that stands upright on the reference.",
            ),
            Mistake(
                "error from the reference",
                _error_from_reference,
                "the target is the projection, as it should be, but the error is what is left of the estimate after "
                "the *projection* is taken away, not the reference.",
            ),
            Mistake(
                "divided by the length",
                lambda e, r: _over_length_of(_centred(e), _centred(r)),
                "the inner product is divided by ‖s‖ once. Multiplied by s again it needs ‖s‖², or the target grows with the "
                "reference's level.",
            ),
            Mistake(
                "over the wrong energy",
                lambda e, r: _over_estimate(_centred(e), _centred(r)),
                "the inner product is divided by the estimate's energy. The projection on the reference is divided by the "
                "*reference's*.",
            ),
            Mistake(
                "20 log",
                lambda e, r: 2 * si_snr(e, r),
                "energies are squared already: 10 log10 of them, not 20 (that is for amplitudes).",
            ),
            Mistake(
                "upside down",
                lambda e, r: -si_snr(e, r),
                "error over target: the sign is that of a loss. A score is higher for a better estimate.",
            ),
            Mistake(
                "natural logarithm",
                lambda e, r: si_snr(e, r) * math.log(10),
                "torch.log is the natural logarithm; decibels are defined with base 10: torch.log10.",
            ),
        ),
    ),
    "one_late": Exercise(
        task="predict the SI-SNR of a perfect voice that comes one sample late",
        reference="c",
        probe=lambda answer, draw: {"one sample late": letter(answer)},
        mistakes=(
            Mistake(
                "inaudible, so unchanged",
                "a",
                "you expect a score to forgive what nobody hears. This one knows nothing of ears: it compares number "
                "with number, and at one sample's distance nearly all of them are different numbers.",
            ),
            Mistake(
                "small step",
                "b",
                "you expect a small shift to make a small error. For 40 dB neighbouring samples would have to agree to one "
                "per cent; where a voice hisses or clicks it swings much faster than that.",
            ),
            Mistake(
                "nothing left",
                "d",
                "that would take a shift by a good part of a swing. Most of a voice's energy swings over tens of samples, so one "
                "sample moves it little.",
            ),
        ),
    ),
    "best_order_loss": Exercise(
        task="take each mixture's loss under its better order",
        reference=best_order_loss,
        probe=_probe_pairs,
        mistakes=(
            Mistake(
                "each voice for itself",
                lambda p: p.min(dim=2).values.mean(),
                "each voice takes its best output on its own, so both may take the same one, and the other output may be "
                "anything. An order uses every output once.",
            ),
            Mistake(
                "each output for itself",
                lambda p: p.min(dim=1).values.mean(),
                "each output takes its best voice on its own, so both may give the same voice and nobody misses the "
                "other. An order uses every voice once.",
            ),
            Mistake(
                "one order for all",
                lambda p: _orders(p).mean(0).min(),
                "you chose one order for the whole batch. Each mixture has its own: take the minimum first, the mean "
                "over mixtures after it.",
            ),
            Mistake(
                "best voice",
                lambda p: p.mean(2).amin(1).mean(),
                "you average each voice over both outputs and keep the better voice. An order pairs *both* voices with one output "
                "each: the diagonal, or the other two.",
            ),
            Mistake(
                "all orders",
                lambda p: _orders(p).mean(),
                "you averaged over both orders; only the better one counts.",
            ),
            Mistake(
                "worse order",
                lambda p: _orders(p).amax(1).mean(),
                "you took the order with the *higher* loss. Lower is better here.",
            ),
            Mistake(
                "never swapped",
                lambda p: _orders(p)[:, 0].mean(),
                "only voice 1 with output 1 and voice 2 with output 2 is looked at; the crossed order never gets a chance.",
            ),
            Mistake(
                "summed",
                lambda p: 2 * best_order_loss(p),
                "you summed the two voices' losses where their mean is asked for.",
            ),
        ),
    ),
}


# Sounds ---------------------------------------------------------------------------------------------------------


def claims(voice: Tensor) -> dict[str, Tensor]:
    """The opening's three claims to be the voice: itself a millisecond late, under a hiss, and muffled."""
    return {"A": damage.late(voice, 16), "B": damage.hiss(voice, 15), "C": damage.muffled(voice, 1500)}


# Explorer -------------------------------------------------------------------------------------------------------

LEVELS = (-10, -5, 0, 5, 10)  # dB, first voice over second
MASKS = ("binary", "ratio", "phase-sensitive", "complex, up to 2")
_NAMES = dict(zip(MASKS[1:], ("irm", "psm", "crm"), strict=True))


def mask_named(name: str, sources: Tensor, mixture: Tensor) -> Tensor:
    """The ideal mask by the name the explorer shows, (n, F, T); see `avkit.baselines.ideal_mask`."""
    if name == "binary":
        return (sources.abs() >= sources.abs().amax(0)).to(mixture.real.dtype)
    return ideal_mask(_NAMES[name], sources, mixture)


@functools.lru_cache(maxsize=64)
def _masked(difference: int, mask: str, window_ms: int) -> tuple[Tensor, Tensor, Tensor, float, float]:
    """Mixture, first voice masked, its mask (F, T), and its SI-SNR before and after."""
    first, second = load_sample(find_data("talkers"), 1).voices.double().numpy()
    mixed, *voices = mixing.mix(first, second, difference / 2, -difference / 2)
    sounds = torch.stack([torch.from_numpy(sound).double() / 32768 for sound in (mixed, *voices)])
    n_fft = 16 * window_ms
    window = torch.hann_window(n_fft, dtype=sounds.dtype)
    spectra = torch.stft(sounds, n_fft, n_fft // 4, window=window, return_complex=True)
    chosen = mask_named(mask, spectra[1:], spectra[0])[0]
    estimate = torch.istft(chosen * spectra[0], n_fft, n_fft // 4, window=window, length=sounds.shape[-1])
    before, after = (float(si_snr(sound, sounds[1])) for sound in (sounds[0], estimate))
    return sounds[0], estimate, chosen, before, after


def render_level(difference: int, mask: str, window: str) -> Html:
    """Two voices at a level difference, the first one cut out by an ideal mask: to hear, to see, and scored."""
    window_ms = int(window.split()[0])
    mixture, estimate, shown, *_ = _masked(difference, mask, window_ms)
    scored = [_masked(level, mask, window_ms)[3:] for level in LEVELS]
    before, after = torch.tensor(scored).T
    title = f"{mask}, {window} window"
    picture = figures.draw_levels(shown, 4 * window_ms, title, LEVELS, before, after, difference)
    heard = {f"mixture, first voice {difference:+d} dB": mixture, f"masked: {mask}, {window}": estimate}
    return listen(heard) + picture


EXPLORERS = {
    "level": Explorer(
        render_level,
        (
            Control("difference", LEVELS, 0, "first over second (dB)"),
            Control("mask", MASKS, "ratio", "mask"),
            Control("window", ("16 ms", "64 ms"), "16 ms", "window"),
        ),
    )
}


# Questions before part I ----------------------------------------------------------------------------------------


BEFORE = [
    multiple_choice(
        "A machine knows the best factor between 0 and 1 for every point of the mixture's spectrogram and keeps the "
        "mixture's angles. What comes out?",
        (
            "the voice itself, exactly",
            False,
            "only if the mixture's angles were the voice's, and they are not.",
        ),
        (
            "nothing useful",
            False,
            "most points belong to one voice; choosing well among them goes a long way.",
        ),
        (
            "a better voice, but not the voice itself",
            True,
            "lengths can be put right, angles stay those of the mixture, and where voices cancel no factor up to 1 is enough.",
        ),
    ),
    multiple_choice(
        "A voice is separated perfectly but comes out half as loud. Which score minds?",
        (
            "SNR",
            True,
            "half of the voice is missing from every sample: about 6 dB. SI-SNR allows for any level.",
        ),
        ("SI-SNR", False, "SI stands for scale-invariant: the level is fitted first."),
        ("both", False, "one of the two was made so that it does not."),
    ),
    multiple_choice(
        "A network without lips has two outputs. In the training data it is chance who is called talker 1. Output 1 "
        "is always compared with talker 1. What does it learn to return?",
        (
            "one talker on each output",
            False,
            "it would be punished for that in half of the cases: nothing tells which is 1.",
        ),
        (
            "the mixture, twice",
            True,
            "half of the time either voice is the one wanted, and the safest bet between two voices is some of both.",
        ),
        (
            "the louder talker first",
            False,
            "that would be a fine rule, but nothing in this training rewards it.",
        ),
    ),
    multiple_choice(
        "In the synthetic corpus faces are drawn independently of voices. What in a mouth tells which voice it belongs to?",
        ("how it looks", False, "looks and voices were drawn apart: one still picture tells nothing here."),
        ("how it moves", True, "opening and closing go with the sound, moment by moment; nothing else does."),
        ("both", False, "in life looks may tell age or sex; in this corpus only motion goes with the voice."),
    ),
    multiple_choice(
        "Which words can even a perfect lip reader, who hears nothing, not tell apart?",
        ("pan and man", True, "p, b and m are all made by closed lips; what differs goes on behind them."),
        ("pan and fan", False, "f shows the upper teeth on the lower lip, p shows closed lips."),
        ("pan and wan", False, "closed lips and rounded ones look quite different."),
    ),
]


INSTRUCTOR = """\
**Minutes** (75 in all): opening and quick questions 8; mixing 7; masks 20 with exercise 1; scores 20 with exercises 2 and
3; the permutation problem 15 with exercise 4; answer and exercise 5, 5.

**Before class.** Play the opening on loudspeakers and take a vote for the best of A, B and C before anybody runs on; write
the votes up. The table at the end puts A last in one column and first in another, so the class has the question "whom do
we believe?" for the whole session.

**What people get wrong**

- *Masks*: that "ideal" means "best possible". The ratio mask is neither the best real mask nor a strict ceiling. Let them find
  the point in the arrows' picture where it is wrong.
- *Complex masks*: that perfection with an unlimited complex mask is a result. It divides by what it multiplies with; ask what
  was learnt about voices by it (nothing).
- *SI-SNR*: that projecting on the estimate instead of the reference would give another value. It does not: both depend on the
  correlation alone. Worth two minutes at the board.
- *Decibels*: 20 for amplitudes and 10 for energies; a level difference of 2x for ±x.
- *Permutations*: each voice taking its own best output. Ask for a batch in which both then take the same one.

**Questions to ask**

- Which of your own pictures or models was judged by a score that misses what you care about?
- The training without permutation invariance is *stuck at zero*: why there, and not at some other value? (In any blend of the
  two voices, what is target for one is error for the other: what the SI-SNR gains against one voice it loses against the other, and
  the two average about 0 dB. Anything else in the output only adds error, and an even blend bears that best.)
- With lips, why does nobody need permutation invariance? (And why does the papers' code have it? With one target it is idle.)

**If time is short**: leave out the window curve and the before/after figure, and give exercise 2 as homework.

**Marking exercise 5**: the rubric gives two points for each rule; insist on a mixture in which it fails.
"""
