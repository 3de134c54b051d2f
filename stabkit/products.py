"""Matrix products of the fast executor, by the library that is quick on this processor."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from stabkit.records import hardware


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.t() + bias (rows x outputs) of x (rows x inputs), in x's precision."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and by_onednn():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return nn.functional.linear(x, weight, bias)


@lru_cache
def by_onednn() -> bool:
    """Say whether fp32 products on the CPU are to be oneDNN's.

    torch leaves them to MKL, which does not use AVX-512 on AMD's processors: there oneDNN's, which
    are fp32 as well, are about twice as quick (``benchmarks/measured/step.md``). oneDNN makes a
    kernel for every shape, so ``stabkit.fused`` rounds the number of rows.
    """
    name = hardware(torch.device("cpu"))
    return "AMD" in name and "AVX512" in name and hasattr(torch.ops.mkldnn, "_linear_pointwise")
