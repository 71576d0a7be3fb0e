"""The GPU's recurrence equals the readable one, forwards and backwards."""

import pytest
import torch

from avkit import sru_gpu
from avkit.sru import SRU, scan

needs_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and sru_gpu.AVAILABLE), reason="no NVIDIA GPU with Triton on this machine"
)


@needs_gpu
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (118, 130, 64), (57, 65, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scan_and_its_gradients_equal_the_readable_form(shape, dtype):
    torch.manual_seed(0)
    inputs = [torch.randn(s, device="cuda").to(dtype) for s in (shape, shape, shape[-1:])]
    weight = torch.randn(shape, device="cuda")
    results = []
    for function, kind in ((scan, torch.float64), (sru_gpu.scan, dtype)):
        leaves = [x.to(kind).detach().requires_grad_() for x in inputs]
        cells = function(*leaves)
        (cells * weight).sum().backward()
        results.append([cells.double(), *(leaf.grad.double() for leaf in leaves)])
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # bfloat16 gradients are rounded when they are stored
    for exact, ours in zip(*results, strict=True):
        assert (ours - exact).norm() <= tolerance * exact.norm() + 1e-7


@needs_gpu
def test_whole_sru_agrees_with_the_cpu():
    torch.manual_seed(0)
    sru = SRU(32, 16, layers=3)
    x = torch.randn(40, 9, 32)
    torch.testing.assert_close(sru.cuda()(x.cuda()).cpu(), sru.cpu()(x), rtol=1e-4, atol=1e-4)
