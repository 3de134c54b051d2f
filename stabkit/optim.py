"""AdamW with the paper's silent choices as switches, on torch's own kernels.

The correction is not re-implemented. torch computes it from the count of updates in its state, so
a count that starts where beta^t has long underflowed to 0 makes both corrections exactly 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stabkit.errors import ConfigError

# beta^t underflows to 0 here for any beta below 1 - 1e-5, and 1e8 + 1 is 1e8 in float32.
LONG_AGO = 1e8


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trainable parameters as two groups: decayed, and biases and LayerNorm weights.

    The second group has weight decay 0 (section 7.3). Shared parameters appear once.
    """
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = name.endswith("bias") or id(parameter) in norms
            (plain if exempt else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def laid_out(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups with one tensor each, of which their parameters are views from now on.

    So are the gradients: an update, clipping and zeroing are one call a group instead of one a
    parameter. That is for models that use every parameter in every step: one that a loss does not
    depend on has zeros for a gradient here, and so decays. While they are trained, gradients must
    stay where they are (``zero_grad(set_to_none=False)``).
    """
    return [{**group, "params": [_joined(group["params"])]} for group in groups if group["params"]]


def _joined(parameters: list[Tensor]) -> Tensor:
    whole = torch.cat([p.detach().flatten() for p in parameters]).requires_grad_()
    whole.grad = torch.zeros_like(whole)
    sizes = [p.numel() for p in parameters]
    values, gradients = (torch.split(x, sizes) for x in (whole.detach(), whole.grad))
    for parameter, value, gradient in zip(parameters, values, gradients, strict=True):
        parameter.data = value.view_as(parameter)
        parameter.grad = gradient.view_as(parameter)
    return whole


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), with three switches.

    ``bias_correction=False`` leaves out both corrections, as the released BERT code does.
    ``eps_placement``: "before" adds eps to sqrt(v) and corrects the quotient afterwards (the
    paper's equations, Kingma and Ba's efficient form), "after" adds it to the corrected root
    (torch). Without correction the two are the same. ``decay_after_step`` shrinks the weights
    after the update (the authors' code) instead of before it (torch), by the same lr * decay.

    ``fused`` uses torch's fused kernels (CPU and CUDA, floating-point parameters), otherwise
    torch chooses (foreach on a GPU, a plain loop on a CPU). The switches are entries of each
    parameter group, so they travel with ``state_dict``. Raises ConfigError for an
    unknown placement.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        bias_correction: bool = True,
        eps_placement: Literal["before", "after"] = "before",
        decay_after_step: bool = True,
        fused: bool = True,
    ) -> None:
        """See the class; ``lr``, ``betas``, ``eps`` and ``weight_decay`` are torch's."""
        if eps_placement not in ("before", "after"):
            raise ConfigError(f"eps_placement is {eps_placement!r}; expected 'before' or 'after'")
        super().__init__(params, lr, betas, eps, weight_decay, fused=fused or None)
        self._step_supports_amp_scaling = False  # a GradScaler then calls no step to leave out
        switches = {
            "bias_correction": bias_correction,
            "eps_placement": eps_placement,
            "decay_after_step": decay_after_step,
            "updates": 0,
        }
        self.defaults.update(switches)
        for group in self.param_groups:
            group.update(switches | group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one update and return the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        given = [
            {name: group[name] for name in ("eps", "weight_decay")} for group in self.param_groups
        ]
        for group in self.param_groups:
            group["updates"] += 1
            if not group["bias_correction"]:
                self._start_long_ago(group)
            group.update(_torch_settings(group))
        super().step()
        for group, settings in zip(self.param_groups, given, strict=True):
            group.update(settings)
            if group["decay_after_step"]:
                _decay(group)
        return loss

    def _start_long_ago(self, group: dict[str, Any]) -> None:
        for parameter in _with_gradient(group):
            if not self.state[parameter]:
                device = parameter.device if group["fused"] else "cpu"
                self.state[parameter] = {
                    "step": torch.tensor(LONG_AGO, dtype=torch.float32, device=device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }


def _with_gradient(group: dict[str, Any]) -> Iterator[Tensor]:
    return (parameter for parameter in group["params"] if parameter.grad is not None)


def _torch_settings(group: dict[str, Any]) -> dict[str, float]:
    """The eps and weight decay with which torch's step does what the switches say."""
    eps, decay = group["eps"], group["weight_decay"]
    if group["bias_correction"] and group["eps_placement"] == "before":
        # c * m / (sqrt(v) + eps) is torch's quotient with eps / sqrt(1 - beta2^t) for eps.
        eps = eps / math.sqrt(1 - group["betas"][1] ** group["updates"])
    return {"eps": eps, "weight_decay": 0.0 if group["decay_after_step"] else decay}


def _decay(group: dict[str, Any]) -> None:
    parameters = list(_with_gradient(group))
    if parameters and group["weight_decay"]:
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
