"""What notebook 03 measures of lips and sound."""

from __future__ import annotations

import pytest
import torch

from avkit.errors import MissingPackageError
from avkit.teach import lesson03_lab as lab
from avkit.teach import probes


def test_correlation_of_moving_curves():
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert lab.correlation(a, 3 * a + 1) == pytest.approx(1)
    assert lab.correlation(a, -a) == pytest.approx(-1)
    assert lab.correlation(a, b) == pytest.approx(float(torch.corrcoef(torch.stack((a, b)))[0, 1]), abs=1e-5)


def test_a_curve_that_does_not_move_correlates_with_nothing():
    """Not even by the rounding errors of its mean, and with no minus sign when it is printed."""
    curve, *heights = torch.rand(41, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = {f"{lab.correlation(still.mean().expand(50), curve):.2f}" for still in heights}
    assert found == {"0.00"}


@pytest.fixture(scope="module")
def clips(repository):
    return probes.load_clips(repository / "data_samples/talkers", "tr")


def test_windows_are_parts_of_utterances_with_what_their_mouths_do(clips):
    """Found again in the utterances, by their pixels: the place of the crop, the mirror, and the labels that belong to them."""
    for step in (0, 1):
        frames, visemes, curves = lab.windows(clips, step, size=3)
        assert frames.shape == (3, 10, 88, 88) and visemes.shape == (3, 10) and curves.shape == (3, 10, 6)
        seen = frames.flip(-1) if step else frames
        places = [
            (clip, start)
            for clip in range(len(clips))
            for start in range(41)
            for top in range(9)
            for left in range(9)
            if torch.equal(clips.frames[clip, start : start + 10, top : top + 88, left : left + 88], seen[0])
        ]
        assert len(places) == 1
        ((clip, start),) = places
        assert torch.equal(visemes[0], clips.visemes[clip, start : start + 10])
        assert torch.equal(curves[0], clips.curves[clip, start : start + 10].float())
    assert torch.equal(lab.windows(clips, 4)[0], lab.windows(clips, 4)[0])
    assert not torch.equal(lab.windows(clips, 4)[0], lab.windows(clips, 6)[0])


def test_visemes_right_counts_frames(clips):
    """One that always says the commonest, and one that knows."""
    commonest = int(clips.visemes.flatten().bincount().argmax())
    share = float((clips.visemes == commonest).double().mean())
    answers = iter(torch.nn.functional.one_hot(clips.visemes, 15).float())

    class Says(torch.nn.Module):
        def forward(self, frames):
            assert not self.training and frames.shape == (1, 50, 88, 88)
            return torch.eye(15)[commonest].expand(1, 50, 15), None

    class Knows(torch.nn.Module):
        def forward(self, frames):
            return next(answers)[None], None

    assert lab.visemes_right(Says(), clips) == pytest.approx(share)
    assert lab.visemes_right(Knows(), clips) == 1


def test_without_espeak_the_shipped_utterances_have_to_do(repository, monkeypatch):
    def missing(*args, **kwargs):
        raise MissingPackageError("espeakng-loader is not installed")

    monkeypatch.setattr(lab, "make_corpus", missing)
    clips, about = lab.more_mouths(str(repository / "data_samples/talkers"), fast=False)
    assert len(clips) == 4 and about.startswith("espeakng-loader is not installed")
