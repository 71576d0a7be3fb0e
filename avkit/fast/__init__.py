"""The same networks, several times faster on a CPU: compiled operations in place of the readable ones, equal outputs.

`use(model)` switches a network's blocks to their fast forms (`modules`, `rtfs`, `iianet`, `lips`), `use(model, False)` switches
back; weights, names and results stay what they were. Where no gradient is wanted, norms are put off and memory is worked on in
place (`pending`). `create_model` and `load_model` do it by themselves (`fast=False`: they do not).
`avkit.fast.available()` says whether the compiled operations can be had, `why_not()` what is missing.

On an NVIDIA GPU there is nothing to switch: SRU and gLN run as Triton kernels by themselves (`avkit.sru_gpu`, `avkit.norm_gpu`).
`Recorded(model)` adds that a whole call is one CUDA graph; `--model.graphs true` does that for the steps of a training run.
"""

from avkit.fast.graphs import Recorded, record_training
from avkit.fast.native import available, why_not
from avkit.fast.switch import in_use, readable, readable_kind, use

__all__ = ["Recorded", "available", "in_use", "readable", "readable_kind", "record_training", "use", "why_not"]
