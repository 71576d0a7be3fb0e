"""The switch between the two forms of a network's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from avkit.fast import iianet, lips, rtfs
from avkit.fast.modules import FastConvNormAct, FastInjectionSum, FastReconstruction, FastSRULayer
from avkit.fast.native import available
from avkit.layers import ConvNormAct, InjectionSum, Reconstruction
from avkit.sru import SRULayer

FORMS: dict[type[nn.Module], type[nn.Module]] = {
    ConvNormAct: FastConvNormAct,
    InjectionSum: FastInjectionSum,
    Reconstruction: FastReconstruction,
    SRULayer: FastSRULayer,
    **rtfs.FORMS,
    **iianet.FORMS,
    **lips.FORMS,
}
_READABLE = {quick: readable for readable, quick in FORMS.items()}


def use(model: nn.Module, fast: bool = True) -> nn.Module:
    """Switch a network's blocks to their fast or their readable form, in place; returns the network.

    Where the compiled operations cannot be had (`avkit.fast.why_not()` says why), nothing is changed.
    """
    if fast and not available():
        return model
    for module in model.modules():
        module.__class__ = FORMS.get(type(module), type(module)) if fast else readable_kind(module)
    return model


@contextmanager
def readable(model: nn.Module) -> Iterator[nn.Module]:
    """The network with every block in its readable form, until the end of the `with`."""
    quick = [module for module in model.modules() if type(module) in FORMS.values()]
    use(model, False)
    try:
        yield model
    finally:
        for module in quick:
            use(module)


def readable_kind(module: nn.Module) -> type[nn.Module]:
    """The class that a module has in its readable form."""
    return _READABLE.get(type(module), type(module))


def in_use(model: nn.Module) -> bool:
    """Whether any block of a network has its fast form."""
    return any(type(module) in FORMS.values() for module in model.modules())
