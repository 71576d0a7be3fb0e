"""gLN on a GPU equals PyTorch's group norm of one group, forwards and backwards.

Without a GPU the kernels can be tried in Triton's interpreter, where Triton is installed: TRITON_INTERPRET=1.
"""

import os

import pytest
import torch
from torch.nn.functional import group_norm

from avkit import norm_gpu
from avkit.layers import GlobalLayerNorm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(
    not (norm_gpu.AVAILABLE and (os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available())),
    reason="no NVIDIA GPU with Triton on this machine",
)
SHAPES = [(2, 3, 5), (1, 7, 300), (3, 4, 9, 65), (1, 2, 2048), (2, 5, 4111)]


def exact(x, weight, bias, eps, grad):
    leaves = [v.detach().double().clone().requires_grad_() for v in (x, weight, bias)]
    y = group_norm(leaves[0], 1, leaves[1], leaves[2], eps)
    y.backward(grad.double())
    return [y.detach(), *(leaf.grad for leaf in leaves)]


def drawn(shape, offset=0.0):
    torch.manual_seed(0)
    return torch.randn(shape) + offset, torch.randn(shape[1]), torch.randn(shape[1]), torch.randn(shape)


@needs_triton
@pytest.mark.parametrize("shape", [*SHAPES, pytest.param((1, 512, 8001), id="more parts than one sum holds")])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_kernels_equal_group_norm(shape, offset):
    if DEVICE == "cpu" and len(shape) == 3 and shape[2] > 8000:
        pytest.skip("too large for the interpreter")
    x, weight, bias, grad = drawn(shape, offset)
    leaves = [v.to(DEVICE).clone().requires_grad_() for v in (x, weight, bias)]
    y = norm_gpu.global_norm(*leaves, 1e-5)
    y.backward(grad.to(DEVICE))
    ours = [y.detach(), *(leaf.grad for leaf in leaves)]
    tolerance = 1e-5 if offset == 0 else 1e-3  # float32 holds a value near 100 to 8e-6
    for one, other in zip(ours, exact(x, weight, bias, 1e-5, grad), strict=True):
        assert (one.double().cpu() - other).norm() <= tolerance * other.norm()


@needs_triton
def test_bfloat16_is_normalised_in_float32():
    x, weight, bias, grad = drawn((2, 4, 500))
    y = norm_gpu.global_norm(x.to(DEVICE, torch.bfloat16), weight.to(DEVICE), bias.to(DEVICE), 1e-5)
    assert y.dtype == torch.float32
    wanted = exact(x.to(torch.bfloat16), weight, bias, 1e-5, grad)[0]
    assert (y.double().cpu() - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradients_formula_is_that_of_group_norm(shape):
    x, weight, bias, grad = drawn(shape)
    x, weight, grad = x.double(), weight.double(), grad.double()
    mean = x.flatten(1).mean(1)
    scale = (x.flatten(1).var(1, correction=0) + 1e-5).rsqrt()
    for one, other in zip(
        norm_gpu.backward(grad, x, weight, mean, scale), exact(x, weight, bias, 1e-5, grad)[1:], strict=True
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


def test_on_the_processor_the_norm_is_pytorchs():
    norm, x = GlobalLayerNorm(3), torch.randn(2, 3, 10)
    assert torch.equal(norm(x), group_norm(x, 1, norm.weight, norm.bias, norm.eps))
