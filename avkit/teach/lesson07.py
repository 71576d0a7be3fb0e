"""Notebook 07, S³: its exercises, its explorer, ideal masks on STFT bins, and angles of a trained network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avkit.baselines import ideal_mask
from avkit.metrics import si_snr
from avkit.rtfs import S3
from avkit.signal import STFT
from avkit.teach import lesson07_figures as figures
from avkit.teach.display import Html
from avkit.teach.exercises import Exercise, Mistake, letter, same_weights
from avkit.teach.players import listen
from avkit.teach.samples import Sample
from avkit.teach.widgets import Control, Explorer

N_FFT, HOP = 512, 256  # samples; the STFT of rtfs-net-tiny, for ideal masks too, so that scores compare

# Ideal masks on STFT bins -----------------------------------------------------------------------------------------


def spectra(sample: Sample) -> tuple[Tensor, Tensor]:
    """Complex STFTs of a sample: both voices (2, T, F), and the mixture (T, F)."""
    parts = STFT(N_FFT, HOP)(torch.cat((sample.voices, sample.mixture[None])))  # (3, 2, T, F)
    *_, mixture = spectrum = torch.complex(parts[:, 0], parts[:, 1])
    return spectrum[:2], mixture


def to_sound(spectrum: Tensor, length: int) -> Tensor:
    """Complex STFTs (n, T, F) -> (n, length) samples."""
    return STFT(N_FFT, HOP).inverse(torch.stack((spectrum.real, spectrum.imag), dim=1), length)


def ideal_ratio(voices: Tensor, mixture: Tensor) -> Tensor:
    """By which complex number each bin has to be multiplied: voices (2, T, F) over mixture (T, F); 0 where it is silent."""
    return voices * mixture.conj() / mixture.abs().square().clamp_min(1e-20)


MASKS = ("ratio", "phase-sensitive", "turns by 0–90°", "complex, up to 2")


def bin_mask(kind: str, voices: Tensor, mixture: Tensor) -> Tensor:
    """One of `MASKS`, from the clean voices: (2, T, F). The complex ones are at most 2 long, as in `avkit.baselines`."""
    if kind in MASKS[:2]:
        return ideal_mask({"ratio": "irm", "phase-sensitive": "psm"}[kind], voices, mixture)
    free = ideal_mask("crm", voices, mixture)
    return free if kind == MASKS[3] else torch.complex(free.real.clamp_min(0), free.imag.clamp_min(0))


def bin_scores(sample: Sample) -> dict[str, Tensor]:
    """SI-SNR in dB of both voices, (2,), under each of `MASKS`."""
    voices, mixture = spectra(sample)
    length = len(sample.mixture)
    sounds = {kind: to_sound(bin_mask(kind, voices, mixture) * mixture, length) for kind in MASKS}
    return {kind: si_snr(sound, sample.voices) for kind, sound in sounds.items()}


def ask(sample: Sample) -> Html:
    """The opening: the first voice under ideal masks of three kinds, heard, and the numbers that they should hit, seen."""
    voices, mixture = spectra(sample)
    words = ("only scales", "turns by 0–90°", "turns freely")
    masked = [bin_mask(kind, voices, mixture) * mixture for kind in MASKS[1:]]
    sounds = {
        f"ideal mask that {word}": to_sound(spectrum, len(sample.mixture))[0]
        for word, spectrum in zip(words, masked, strict=True)
    }
    dots = figures.draw_question(ideal_ratio(voices, mixture)[0], voices[0].abs().square())
    return listen({"the mixture": sample.mixture, **sounds}) + dots


# What a trained network does -----------------------------------------------------------------------------------------


def kinds_of_angle(mask: Tensor) -> dict[str, float]:
    """Shares of the points of a mask (B, C, T, F), halves real and imaginary, by where the ReLU left them."""
    real, imag = (part > 0 for part in mask.chunk(2, dim=1))
    cases = {
        "both parts zero, no angle": ~real & ~imag,
        "exactly 0°": real & ~imag,
        "exactly 90°": ~real & imag,
        "between": real & imag,
    }
    return {name: float(case.float().mean()) for name, case in cases.items()}


def angles(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each complex channel of a mask (B, C, T, F), (C/2,) each: the share of its points with both parts above 0; the mean
    angle of its points, and their spread about it, in degrees, a point counted by its length squared."""
    real, imag = mask.chunk(2, dim=1)
    angle, weight = torch.rad2deg(torch.atan2(imag, real)), real.square() + imag.square()
    weight = weight / weight.sum((0, 2, 3), keepdim=True).clamp_min(1e-20)
    mean = (weight * angle).sum((0, 2, 3), keepdim=True)
    spread = (weight * (angle - mean).square()).sum((0, 2, 3)).sqrt()
    return ((real > 0) & (imag > 0)).float().mean((0, 2, 3)), mean.flatten(), spread


def turned(estimate: Tensor, mixture: Tensor) -> tuple[Tensor, Tensor]:
    """What became of each bin of a mixture (L,) in an estimate (L,): ratios (T, F) complex, and their weights.

    Weights are the estimate's power, so that loud bins count.
    """
    parts = STFT(N_FFT, HOP)(torch.stack((estimate, mixture)))
    spectrum = torch.complex(parts[:, 0], parts[:, 1])
    return ideal_ratio(spectrum[:1], spectrum[1])[0], spectrum[0].abs().square()


def with_angles_of(estimate: Tensor, mixture: Tensor) -> Tensor:
    """The estimate's magnitudes with the mixture's angles, (n, L) and (L,) -> (n, L)."""
    parts = STFT(N_FFT, HOP)(torch.cat((estimate, mixture[None])))
    spectrum = torch.complex(parts[:, 0], parts[:, 1])
    return to_sound(
        torch.polar(spectrum[:-1].abs(), spectrum[-1].angle().expand_as(spectrum[:-1])), len(mixture)
    )


# Exercises ------------------------------------------------------------------------------------------------------


def complex_mask(mask: Tensor, encoded: Tensor) -> Tensor:
    """(B, C, T, F) twice -> (B, C, T, F): the complex product, real parts in the first half of the channels."""
    real_m, imag_m = mask.chunk(2, dim=1)
    real_e, imag_e = encoded.chunk(2, dim=1)
    return torch.cat((real_e * real_m - imag_e * imag_m, real_e * imag_m + imag_e * real_m), dim=1)


def _wrong_sign(mask: Tensor, encoded: Tensor) -> Tensor:
    (a, b), (c, d) = mask.chunk(2, dim=1), encoded.chunk(2, dim=1)
    return torch.cat((c * a + d * b, c * b + d * a), dim=1)


def _conjugate(mask: Tensor, encoded: Tensor) -> Tensor:
    real, imag = mask.chunk(2, dim=1)
    return complex_mask(torch.cat((real, -imag), dim=1), encoded)


def _interleaved(mask: Tensor, encoded: Tensor) -> Tensor:
    def pairs_first(x: Tensor) -> Tensor:
        return torch.cat((x[:, 0::2], x[:, 1::2]), dim=1)

    return complex_mask(pairs_first(mask), pairs_first(encoded))


def _split_batch(mask: Tensor, encoded: Tensor) -> Tensor:
    (a, b), (c, d) = mask.chunk(2), encoded.chunk(2)
    return torch.cat((c * a - d * b, c * b + d * a))


def _parts_alike(mask: Tensor, encoded: Tensor) -> Tensor:
    (m_r, m_i), (e_r, e_i) = mask.chunk(2, dim=1), encoded.chunk(2, dim=1)
    return torch.cat((e_r * m_r - e_i * m_i, e_r * m_r + e_i * m_i), dim=1)


def _halves_to_complex(x: Tensor) -> Tensor:
    return torch.complex(*x.chunk(2, dim=1))


def _probe_product(answer, draw: torch.Generator) -> dict[str, Tensor]:
    shapes = ((2, 6, 5, 7), (4, 8, 3, 9))
    return {
        f"mask and encoding {shape}": answer(
            torch.rand(shape, generator=draw), torch.randn(shape, generator=draw)
        )
        for shape in shapes
    }


class MaskNetwork(nn.Module):
    """PReLU, 1×1 convolution, ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.act = nn.PReLU()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, a: Tensor) -> Tensor:
        """(B, C, T, F) -> the mask, (B, C, T, F), no part of it negative."""
        return torch.relu(self.conv(self.act(a)))


class _NoPReLU(MaskNetwork):
    def forward(self, a: Tensor) -> Tensor:
        return torch.relu(self.conv(a))


class _NoReLU(MaskNetwork):
    def forward(self, a: Tensor) -> Tensor:
        return self.conv(self.act(a))


class _TwoReLUs(MaskNetwork):
    def forward(self, a: Tensor) -> Tensor:
        return torch.relu(self.conv(torch.relu(a)))


class _TwoPReLUs(MaskNetwork):
    def forward(self, a: Tensor) -> Tensor:
        return self.act(self.conv(self.act(a)))


class _Sigmoid(MaskNetwork):
    def forward(self, a: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(self.act(a)))


def _probe_mask_network(answer, draw: torch.Generator) -> dict[str, Tensor]:
    seed = int(torch.randint(1000, (), generator=draw))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mine, reference = answer(6), S3(6, n_src=1)
    same_weights(mine, reference, seed)
    return {
        f"features {shape}": mine(torch.randn(shape, generator=draw))
        for shape in ((2, 6, 5, 7), (1, 6, 3, 9))
    }


def two_masks(wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Complex masks without negative parts whose difference is `wanted`."""
    first = torch.complex(wanted.real.clamp_min(0), wanted.imag.clamp_min(0))
    second = torch.complex((-wanted.real).clamp_min(0), (-wanted.imag).clamp_min(0))
    return first, second


def _absolute(wanted: Tensor) -> tuple[Tensor, Tensor]:
    return torch.complex(wanted.real.abs(), wanted.imag.abs()), torch.zeros_like(wanted)


def _probe_two_masks(answer, draw: torch.Generator) -> dict[str, Tensor]:
    results = {}
    for shape in ((5, 7), (40,)):
        wanted = torch.complex(torch.randn(shape, generator=draw), torch.randn(shape, generator=draw))
        first, second = answer(wanted)
        for name, mask in (("first", first), ("second", second)):
            results[f"the {name} mask, one number for each of {wanted.numel()} ratios"] = torch.zeros(
                torch.as_tensor(mask).shape
            )
        if not all(torch.as_tensor(mask).shape == shape for mask in (first, second)):
            return results  # the comparison says which shape is wrong
        parts = torch.view_as_real(torch.stack((first + 0j, second + 0j)))
        results[f"first − second, {wanted.numel()} ratios"] = first - second
        results["the lowest part of either mask, which must not be negative"] = parts.min().clamp(max=0)
    return results


EXERCISES = {
    "quarter": Exercise(
        task="predict what turns of 0 to 90 degrees are worth",
        reference="b",
        probe=lambda answer, draw: {"the quarter": letter(answer)},
        mistakes=(
            Mistake(
                "worthless",
                "a",
                "you expect that a mask which turns one way only is as good as none that turns. But each bin is judged by "
                "itself: those that need a turn to the left get exactly the one they need.",
            ),
            Mistake(
                "amplitude",
                "c",
                "6 dB would be half the *amplitude* of the error, which is a quarter of its energy. Here half of the bins "
                "are repaired: count what share of the energy is left.",
            ),
            Mistake(
                "everything",
                "d",
                "you expect that nothing is left to do. Look at the dots below the horizontal axis: they need a turn to the "
                "right, and the nearest point of the shaded quarter is on its edge, no nearer than before.",
            ),
        ),
    ),
    "complex_mask": Exercise(
        task="multiply mask and encoding as complex numbers, halves of channels as their parts",
        reference=complex_mask,
        probe=_probe_product,
        mistakes=(
            Mistake(
                "part by part",
                lambda mask, encoded: mask * encoded,
                "you multiply number by number. That is a real mask for each channel: real and imaginary parts never mix, and "
                "nothing turns.",
            ),
            Mistake(
                "sign",
                _wrong_sign,
                "the sign of one term is off: i times i is −1, so the product of the two imaginary parts is subtracted.",
            ),
            Mistake(
                "imaginary part",
                _parts_alike,
                "your real part is right. The imaginary part of the product is made of the mixed terms: real times imaginary and "
                "imaginary times real.",
            ),
            Mistake(
                "conjugate",
                _conjugate,
                "you multiply by the conjugate of the mask: it turns clockwise where it should turn counterclockwise.",
            ),
            Mistake(
                "neighbours paired",
                _interleaved,
                "you pair channels 0 and 1, 2 and 3, … The block pairs channel c with channel c + C/2: the first half of the "
                "channels are real parts, the second half imaginary ones.",
            ),
            Mistake(
                "left complex",
                lambda mask, encoded: _halves_to_complex(mask) * _halves_to_complex(encoded),
                "the product is right, but it is left as C/2 complex numbers. Lay its real parts and its imaginary parts side by "
                "side again: `torch.cat((z.real, z.imag), dim=1)`.",
            ),
            Mistake(
                "batch split",
                _split_batch,
                "your halves are halves of the batch: `chunk` and `cat` work along axis 0 unless told otherwise. Channels are "
                "axis 1.",
            ),
            Mistake(
                "halves swapped",
                lambda mask, encoded: complex_mask(mask, encoded).roll(encoded.shape[1] // 2, dims=1),
                "real and imaginary half of the result have changed places: real parts come first.",
            ),
        ),
    ),
    "MaskNetwork": Exercise(
        task="turn features into a mask",
        reference=MaskNetwork,
        probe=_probe_mask_network,
        mistakes=(
            Mistake(
                "no PReLU",
                _NoPReLU,
                "the PReLU before the convolution is missing, or stands behind it, where it changes nothing: the ReLU sets to "
                "zero whatever a PReLU has scaled. It belongs in front.",
            ),
            Mistake(
                "no ReLU",
                _NoReLU,
                "the ReLU at the end is missing, so your mask has negative parts. RTFS-Net's has none, and that is what this "
                "notebook is about.",
            ),
            Mistake(
                "two ReLUs",
                _TwoReLUs,
                "your first activation is a ReLU: all that is negative in the features is lost before it is weighed. A PReLU keeps "
                "it, scaled by a slope that is learned; only the second activation is a ReLU.",
            ),
            Mistake(
                "two PReLUs",
                _TwoPReLUs,
                "a PReLU ends your block, so some of what is negative comes through. Only the first activation is a PReLU; the "
                "last is a ReLU, and no part of the mask is negative.",
            ),
            Mistake(
                "sigmoid",
                _Sigmoid,
                "a sigmoid keeps both parts between 0 and 1. Here a ReLU ends the block: a mask may amplify, and it may be "
                "exactly zero.",
            ),
        ),
    ),
    "two_masks": Exercise(
        task="reach any complex number with two masks that have no negative part",
        reference=two_masks,
        probe=_probe_two_masks,
        mistakes=(
            Mistake(
                "negative mask",
                lambda wanted: (wanted, torch.zeros_like(wanted)),
                "the difference is right, but the first mask has negative parts, and no ReLU would let them through. What is "
                "negative has to come from the channel that carries −x.",
            ),
            Mistake(
                "negative as it is",
                lambda wanted: (two_masks(wanted)[0], -two_masks(wanted)[1]),
                "your second mask holds the negative parts as they are. It is *subtracted*, so that would add them once more "
                "with the wrong sign; and no part of it may be negative. Turn its sign round.",
            ),
            Mistake(
                "first alone",
                lambda wanted: (two_masks(wanted)[0], torch.zeros_like(wanted)),
                "this is the quarter again: with the second mask at zero everything negative is lost. Let the second channel, "
                "−x, bring it.",
            ),
            Mistake(
                "signs lost",
                _absolute,
                "you took absolute values, so every ratio is reflected into the quarter. The sign decides *which* of the two "
                "masks a part goes to.",
            ),
            Mistake(
                "roles swapped",
                lambda wanted: two_masks(wanted)[::-1],
                "the masks have changed places: the first belongs to x and takes what is positive, the second to −x.",
            ),
        ),
    ),
}


# Explorers ------------------------------------------------------------------------------------------------------


def render_turn(modulus: float, angle: int, encoded: int) -> Html:
    """A mask of this modulus and angle (degrees), times an encoded number of length 1 at `encoded` degrees."""
    return figures.draw_turn(modulus, angle, encoded)


EXPLORERS = {
    "turn": Explorer(
        render_turn,
        (
            Control("modulus", (0.5, 1.0, 1.5), 1.0, "length of the mask"),
            Control("angle", (0, 30, 60, 90), 60, "angle of the mask (°)"),
            Control("encoded", (20, 140), 140, "angle of what is masked (°)"),
        ),
    ),
}


INSTRUCTOR = """
## For the instructor

**Minutes** opening 3 · 1 where we are 2 · 2 masks on bins 8 + 4 · 3 the product 6 + 6 · 4 the mask network 4 + 6 · 5 back to sound
5 · 6 the trained mask 8 · 7 what the ReLU costs 9 + 7 · 8 alternatives 3 · open question 8.

**Where people get stuck**

- They take "complex channels" for STFT bins. Ask of every statement about angles: whose angle? There are three planes in this
  notebook: of a bin, of a channel pair, of the decoded bin.
- Exercise 1 is answered with 0 by those who think of one mask for all bins, and with 6 by those who think in amplitudes.
- `chunk` without a `dim` splits the batch. With a batch of two nothing complains; the check does.
- In exercise 3 a PReLU between convolution and ReLU is a favourite. Let somebody compute relu(prelu(−3)).
- Exercise 4 has more than one right answer: any number may be added to both masks. The check takes them all. Ask which one a
  network with weight decay would prefer.

**Questions to ask**

- Nobody told the encoder that channel c and channel c + C/2 belong together. What makes them a pair? (The product alone.)
- Taking the angle away ruins the sound, a constant angle does not. What had we shown after the first experiment, and what had we
  not? (That the decoder leans on it; not that it tells anything.)
- Two pairs lie inside the quarter, on a ray each. Could you have told from the dots of one mixture that their angles carry nothing?
  (Nearly. The spread is small, not zero; what a few degrees are worth only the control measures.)
- A fitted mask of a million numbers hits 32,000 samples. Is that impressive? (No. It shows that the form of the mask forbids
  nothing. It says nothing about whether a network could find it.)
- What would you have to train, how often, to believe the half decibel between S³ and a real mask in the paper's table?

**If time is short** leave out the sweep over channels at the end of section 7.

**After a retraining** of the bundled network read sections 6 and 7 again. The text says what this network's mask looks like (two pairs
open both parts, at an angle that hardly changes; the others one or neither), and an assertion stops the notebook where another's does
not; how far the output turns its bins is printed.
"""
