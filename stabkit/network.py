"""What a static step works on: the weights of one model, in places that they keep."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stabkit import models
from stabkit.config import RunConfig
from stabkit.mixout import Mixout, apply_mixout, plain_name
from stabkit.optim import parameter_groups


class Network(Protocol):
    """One model or several of one shape: what a static step needs of it."""

    model: PreTrainedModel
    names: list[str]
    groups: list[dict[str, Any]]
    generators: list[torch.Generator]

    def load(self, configs: Sequence[RunConfig]) -> None:
        """Take on the weights with which the runs start, and reseed what is random."""

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return logits (seeds x examples x labels) for arguments with seeds first, or 1."""

    def norms(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the L2 norm of each gradient (seeds x parameters)."""

    def divide(self, gradients: Sequence[Tensor], divisor: Tensor) -> Tensor | None:
        """Divide each seed's gradients by its divisor, or return what the optimizer divides by."""


class Single:
    """One model, with Mixout where the run has it."""

    def __init__(self, config: RunConfig, labels: int, device: torch.device) -> None:
        """Build a model of the run's shape on the device; ``load`` gives it its weights."""
        self.origin = models.Origin(config, labels)
        self.model = deepcopy(self.origin.start(config))
        self.model.to(device)  # type: ignore[arg-type]
        self.generators: list[torch.Generator] = []
        if config.mixout:
            self.generators = [torch.Generator(device)]
            masks = (config.mixout_mask, config.mixout_rescale_gradient)
            apply_mixout(self.model, config.mixout, self.generators[0], *masks)
        self.groups = parameter_groups(self.model, config.weight_decay)
        names = {id(p): plain_name(name) for name, p in self.model.named_parameters()}
        self.names = [names[id(p)] for group in self.groups for p in group["params"]]

    @torch.no_grad()
    def load(self, configs: Sequence[RunConfig]) -> None:
        """See ``Network``."""
        (config,) = configs
        fresh = self.origin.start(config).state_dict()
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(fresh[plain_name(name)])
        for name, module in self.model.named_modules():
            if isinstance(module, Mixout):
                linear = name.partition(".parametrizations.")[0]
                module.pretrained.copy_(fresh[f"{linear}.weight"])
        for generator in self.generators:
            generator.manual_seed(dropout_seed(config))

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """See ``Network``."""
        arguments: dict[str, Any] = {name: x[0] for name, x in inputs.items()}
        found: Tensor = self.model(**arguments).logits
        return found[None]

    def norms(self, gradients: Sequence[Tensor]) -> Tensor:
        """See ``Network``."""
        return torch.stack(torch._foreach_norm(list(gradients)))[None]

    def divide(self, gradients: Sequence[Tensor], divisor: Tensor) -> Tensor | None:
        """See ``Network``; torch's AdamW kernel divides on its way."""
        return divisor[0]


def dropout_seed(config: RunConfig) -> int:
    """Return the seed of a run's dropout."""
    assert config.dropout_seed is not None, "RunConfig resolves its seeds"
    return config.dropout_seed
