"""The measurements that notebook 05 draws: who is heard in which frame, what attention reads, how striped maps are."""

import pytest
import torch

from avkit.teach import lesson05_figures as figures


@pytest.fixture
def kinds():
    """Eight frames: two with the first voice alone, four with both, two with the second alone."""
    noise = torch.randn(2, 8, 100, generator=torch.Generator().manual_seed(0))
    noise[0, 6:] = noise[1, :2] = 0
    return figures.situations(noise.flatten(1), frames=8)


def test_situations_are_told_apart_for_either_talker(kinds):
    first, second = kinds.unbind(1)  # (3, 8): the other alone, both, the wanted one alone
    assert first.tolist() == [[0] * 6 + [1, 1], [0, 0, 1, 1, 1, 1, 0, 0], [1, 1] + [0] * 6]
    assert second.tolist() == first.flip(0).tolist()


def test_weights_are_multiples_of_an_equal_share(kinds):
    equal = torch.full((2, 5, 8, 8), 1 / 8)
    torch.testing.assert_close(figures.weight_by_situation(equal, kinds), torch.ones(3, 5))
    on_last = torch.zeros(2, 1, 8, 8)
    on_last[..., 7] = 1  # every frame reads the last one only, in which the second voice is alone
    torch.testing.assert_close(
        figures.weight_by_situation(on_last, kinds), torch.tensor([[2.0], [0.0], [2.0]])
    )
    on_last[1] = 1 / 8
    torch.testing.assert_close(
        figures.weight_by_situation(on_last, kinds), torch.tensor([[2.5], [0.5], [0.5]])
    )


def test_stripes():
    striped = torch.softmax(torch.randn(3, 1, 9, generator=torch.Generator().manual_seed(0)), -1).expand(
        -1, 9, -1
    )
    assert figures.stripes([striped]) == pytest.approx(1)
    assert figures.stripes([torch.eye(9)[None]]) == pytest.approx(0, abs=1e-6)
    assert figures.stripes([striped, torch.eye(9)[None]]) == pytest.approx(0.5)
