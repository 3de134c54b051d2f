"""The physical floor of a training step: its arithmetic and traffic at the machine's own ceilings.

A step cannot take less than max(FLOPs / matmul rate, bytes / bandwidth), both rates measured on the
machine itself. Only what the mathematics needs is counted: real tokens, no padding, no
recomputation, weights and optimizer state touched once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Ceilings:
    """What the machine does at its best: FLOP/s of a large matrix product, B/s of a large copy.

    ``gain`` is how many times as quick as torch's own choice of a library this package's is.
    """

    flops: float
    bandwidth: float
    gain: float = 1.0


@dataclass(frozen=True)
class Cost:
    """What a step needs: floating-point operations and bytes of traffic."""

    flops: float
    traffic: float

    def seconds(self, ceilings: Ceilings) -> float:
        """Return the floor of the step's time."""
        return max(self.flops / ceilings.flops, self.traffic / ceilings.bandwidth)


def step_cost(config: Any, parameters: int, lengths: np.ndarray[Any, Any], width: int) -> Cost:
    """Return the cost of one training step on a batch of texts of these ``lengths``.

    ``config`` is an encoder's of the BERT family, ``parameters`` the number of its weights,
    ``width`` the bytes of a number in matrix products (2 for bf16, 4 for fp32).
    """
    hidden, tokens, examples = config.hidden_size, float(lengths.sum()), len(lengths)
    per_token = config.num_hidden_layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    if (embedding := getattr(config, "embedding_size", hidden)) != hidden:
        per_token += embedding * hidden  # ALBERT's projection of its narrow embeddings
    attention = 2 * config.num_hidden_layers * hidden * float((lengths.astype(float) ** 2).sum())
    head = examples * hidden * (hidden + config.num_labels)
    # A product costs 2 operations a weight and token; the backward pass is two more products.
    flops = 3 * 2 * (per_token * tokens + attention + head)
    # Per weight: read forwards and backwards; the gradient written, read for its norm, read by
    # AdamW, which reads and writes the weight and both moments (fp32).
    traffic = parameters * (2 * width + 3 * 4 + 6 * 4)
    return Cost(flops, traffic)


def ceilings(device: torch.device, dtype: torch.dtype, rounds: int = 7) -> Ceilings:
    """Measure both ceilings on ``device``: the best of some rounds, as a ceiling is.

    On a CPU products may be quicker by another library than torch's own choice.
    """
    from stabkit.products import linear

    on_gpu = device.type == "cuda"
    side, numbers = (8192, 1 << 29) if on_gpu else (1024, 1 << 25)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    usual = _best(lambda: torch.mm(a, b), rounds)
    ours = usual if on_gpu else _best(lambda: linear(a, b), rounds)
    copy = _best(lambda: target.copy_(source), rounds)
    return Ceilings(2 * side**3 / min(usual, ours), 2 * source.nbytes / copy, usual / ours)


def _best(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = now()
        work()
        times.append(now() - start)
    return min(times[1:])


def now() -> float:
    """Return seconds: the clock once the GPU has done its work, or processor time without one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
