"""On an NVIDIA GPU: a network's whole call recorded once for each shape and played back as one CUDA graph.

These networks are hundreds of small kernels; launching them one by one from Python takes longer than running them. A recorded
call has no launches to wait for, and the same arithmetic.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from avkit.errors import InputError


def record_training(network: nn.Module, *inputs: Tensor) -> nn.Module:
    """Record a network's forward and backward passes in training, in place, for inputs shaped like these; returns it.

    Calls in training mode must then keep to these shapes; in evaluation mode the network runs as it is. Chance (dropout,
    drop-path) follows PyTorch's generator as before. Not for networks that are spread over several processes.
    """
    network.train()
    buffers = [buffer.clone() for buffer in network.buffers()]  # running statistics, which the rehearsals would move
    torch.cuda.make_graphed_callables(network, inputs)
    for buffer, before in zip(network.buffers(), buffers, strict=True):
        buffer.copy_(before)
    return network


class Recorded(nn.Module):
    """A network whose calls without gradients on a GPU are recorded and played back; all other calls go to it as they are.

    The network's weights may change in place between calls (a graph reads them where they lie); a network that is moved, or
    whose parameters are exchanged, is wrapped anew. Results are copies: a later call does not touch them. One thread calls it at a
    time.

    Args:
        network: takes tensors and returns one.
        keep: how many shapes are kept; the one that was not used for longest goes first. Each holds its own memory.
    """

    def __init__(self, network: nn.Module, keep: int = 4):
        super().__init__()
        if keep < 1:
            raise InputError(f"keep is {keep}; at least one shape is recorded")
        self.network, self.keep = network, keep
        self._tapes: OrderedDict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = OrderedDict()

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the network."""
        if not self._can(inputs):
            return self.network(*inputs)
        autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = (autocast, *((x.shape, x.dtype, x.device) for x in inputs))
        if key not in self._tapes:
            self._tapes[key] = self._record(inputs)
            while len(self._tapes) > self.keep:
                self._tapes.popitem(last=False)
        self._tapes.move_to_end(key)
        graph, places, output = self._tapes[key]
        for place, x in zip(places, inputs, strict=True):
            place.copy_(x)
        graph.replay()
        return output.clone()

    def _can(self, inputs: tuple[Tensor, ...]) -> bool:
        return (
            not torch.is_grad_enabled()
            and not self.network.training
            and all(x.is_cuda for x in inputs)
            and not torch.cuda.is_current_stream_capturing()
        )

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        places = [x.clone() for x in inputs]
        graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream(inputs[0].device)
        aside.wait_stream(torch.cuda.current_stream(inputs[0].device))
        with torch.cuda.stream(aside):  # libraries set themselves up, which must not be recorded
            for _ in range(3):
                self.network(*places)
        torch.cuda.current_stream(inputs[0].device).wait_stream(aside)
        # Casts of the weights that autocast keeps belong to the call, or a later one would read freed memory.
        torch.clear_autocast_cache()
        with torch.cuda.graph(graph):
            output = self.network(*places)
        torch.clear_autocast_cache()
        return graph, places, output

    def __getstate__(self) -> dict:
        """Copies and files get the network; graphs belong to where they were recorded."""
        return self.__dict__ | {"_tapes": OrderedDict()}
