"""AdamW without a decision on the host: the updates of ``stabkit.optim.AdamW`` in a CUDA graph.

A captured step must be the same calls on the same tensors every time. So rates, corrections and
decays are tables on the device, read by the counters of steps and of updates, and what differs
between configurations is data: with eps "before", c(t) m / (sqrt(v) + eps) is torch's uncorrected
kernel at the rate times c(t); with eps "after", torch corrects by the count of updates; and
without correction this count starts long ago, as in ``stabkit.optim``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stabkit.config import RunConfig
from stabkit.optim import LONG_AGO
from stabkit.schedule import correction_factor


class StaticAdamW:
    """AdamW on tensors that keep their places; ``restart`` starts another run on them.

    ``groups`` are those of ``stabkit.optim.parameter_groups``. Betas, eps and whether decay comes
    after the update are taken from ``config`` once; rates, correction and decay at each restart.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], config: RunConfig, steps: int) -> None:
        """Allocate the state of up to ``steps`` updates."""
        self.parameters: list[Tensor] = [p.detach() for g in groups for p in g["params"]]
        self.decayed: list[Tensor] = [
            p.detach() for g in groups if g["weight_decay"] for p in g["params"]
        ]
        self.betas, self.eps = (config.beta1, config.beta2), config.eps
        self.decay_after_step = config.decay_after_step
        self.averages = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        like = self.parameters[0]
        self.rates, self.factors, self.shrinks = (like.new_zeros(steps) for _ in range(3))
        self.updates = torch.zeros(1, dtype=torch.long, device=like.device)
        self.count = torch.zeros((), dtype=torch.float32, device=like.device)  # torch's own

    def restart(self, config: RunConfig, rates: NDArray[np.float64]) -> None:
        """Forget all gradients and take on the rates, correction and decay of a run."""
        corrected, before = config.bias_correction, config.eps_placement == "before"
        t = np.arange(1, len(rates) + 1)
        factors = correction_factor(t, config.beta1, config.beta2)
        if not (corrected and before):
            factors = np.ones(len(rates))
        shrinks = 1 - rates * config.weight_decay
        tables = ((self.rates, rates), (self.factors, factors), (self.shrinks, shrinks))
        for table, values in tables:
            table.copy_(torch.from_numpy(values))
        for tensor in (*self.averages, *self.squares, self.updates):
            tensor.zero_()
        self.count.fill_(0.0 if corrected and not before else LONG_AGO)

    @torch.no_grad()
    def step(
        self,
        gradients: Sequence[Tensor],
        at: Tensor,
        divisor: Tensor | None = None,
        overflow: Tensor | None = None,
    ) -> None:
        """Do update number ``at`` (a count from 0, of shape (1,)).

        The gradients, which are used up, are divided by ``divisor`` first. Where ``overflow`` (a
        float32 number) is 1, nothing is done. Both are fp16's; clipping divides, too.
        """
        shrink = self.shrinks.index_select(0, at).squeeze(0)
        rate = self.rates.index_select(0, at) * self.factors.index_select(0, self.updates)
        done = torch.ones_like(self.updates)
        if overflow is not None:
            done = done - overflow.long()
            shrink = torch.where(overflow > 0, torch.ones_like(shrink), shrink)
        if self.decayed and not self.decay_after_step:
            torch._foreach_mul_(self.decayed, shrink)
        self.count.add_(done.squeeze(0))
        torch._fused_adamw_(
            self.parameters,
            list(gradients),
            self.averages,
            self.squares,
            [],
            [self.count] * len(self.parameters),
            lr=rate.squeeze(0),
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
            found_inf=overflow,
        )
        if self.decayed and self.decay_after_step:
            torch._foreach_mul_(self.decayed, shrink)
        self.updates.add_(done)
