"""The GPU's form of an SRU layer equals the readable one, forwards and backwards.

Without a GPU the kernels can be tried in Triton's interpreter, where Triton is installed: TRITON_INTERPRET=1.
"""

import os

import pytest
import torch

from avkit import sru_gpu
from avkit.sru import SRU, SRULayer

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(
    not (sru_gpu.AVAILABLE and (INTERPRETED or torch.cuda.is_available())), reason="no NVIDIA GPU with Triton on this machine"
)
needs_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and sru_gpu.AVAILABLE), reason="no NVIDIA GPU with Triton on this machine"
)


def _by_kernel(layer: SRULayer, x):
    by_product = layer.weight.unflatten(1, (-1, layer.k)).transpose(1, 2).flatten(1)
    return sru_gpu.layer(x @ by_product, x if layer.k == 3 else None, layer.weight_c, layer.bias, layer.hidden_size)


LONG = (58, 65, 64, 32)  # takes the interpreter minutes


@needs_triton
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (5, 3, 7, 4), (6, 2, 8, 4), (9, 65, 64, 32), LONG, (7, 65, 512, 32)])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_and_its_gradients_equal_the_readable_form(sizes, directions, dtype):
    if INTERPRETED and DEVICE == "cpu" and sizes == LONG:
        pytest.skip("too long for the interpreter")
    length, batch, n, d = sizes
    torch.manual_seed(0)
    layer = SRULayer(n, d, directions)
    torch.nn.init.normal_(layer.bias)
    layer = layer.to(dtype)
    x, weight = torch.randn(length, batch, n).to(dtype), torch.randn(length, batch, directions * d)
    results = []
    for kind, device, function in ((torch.float64, "cpu", SRULayer.forward), (dtype, DEVICE, _by_kernel)):
        layer = layer.to(device, kind)
        layer.zero_grad()
        leaf = x.to(device, kind).detach().requires_grad_()
        output = function(layer, leaf)
        (output * weight.to(device)).sum().backward()
        found = (output.detach(), leaf.grad, *(p.grad for p in layer.parameters()))
        results.append([v.double().cpu().clone() for v in found])  # Module.to moves gradients in place
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2  # products and gradients are rounded to bfloat16
    for exact, ours in zip(*results, strict=True):
        assert (ours - exact).norm() <= tolerance * exact.norm() + 1e-7


@needs_gpu
def test_whole_sru_agrees_with_the_cpu():
    torch.manual_seed(0)
    sru = SRU(32, 16, layers=3)
    x = torch.randn(40, 9, 32)
    torch.testing.assert_close(sru.cuda()(x.cuda()).cpu(), sru.cpu()(x), rtol=1e-4, atol=1e-4)
