"""What notebook 03 measures of lips and sound."""

from __future__ import annotations

import pytest
import torch

from avkit.teach import lesson03_lab as lab


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
