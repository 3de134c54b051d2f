"""Several seeds at once: one batched model over the seeds of a recipe.

For models too small to fill a GPU: every kernel then works on all seeds. Weights, gradients and
optimizer state have the seed as their first axis; each seed has its own head, order of batches,
dropout masks, clipping and records, and nothing that one does reaches another. At a step all seeds
are padded alike. What cannot be batched (Mixout, whose masks come from a generator, and fp16, one
scale for all) is run one after the other instead, see ``stabkit.train.run_seeds``. ``groups`` finds
in a grid what can be run at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from stabkit import models
from stabkit.batches import Encoded
from stabkit.config import RunConfig
from stabkit.errors import ConfigError
from stabkit.optim import parameter_groups
from stabkit.static import StaticLearner, kept, structure, supported


class Stacked:
    """The models of several seeds as one; ``model`` gives it its form, its weights are unused."""

    def __init__(self, config: RunConfig, labels: int, device: torch.device, seeds: int) -> None:
        """Build ``seeds`` models of the run's shape; ``load`` gives them their weights."""
        self.origin = models.Origin(config, labels)
        self.model = deepcopy(self.origin.start(config))
        self.model.set_attn_implementation("eager")  # sdpa's kernels are not batched over weights
        self.model.to(device)  # type: ignore[arg-type]
        self.generators: list[torch.Generator] = []
        self.weights = {
            name: torch.zeros(seeds, *p.shape, device=device, requires_grad=p.requires_grad)
            for name, p in self.model.named_parameters()
        }
        names = {id(p): name for name, p in self.model.named_parameters()}
        alone = parameter_groups(self.model, config.weight_decay)
        self.names = [names[id(p)] for group in alone for p in group["params"]]
        self.groups = [
            {**group, "params": [self.weights[names[id(p)]] for p in group["params"]]}
            for group in alone
        ]

    @torch.no_grad()
    def load(self, configs: Sequence[RunConfig]) -> None:
        """See ``stabkit.network.Network``."""
        for i, config in enumerate(configs):
            for name, parameter in self.origin.start(config).named_parameters():
                self.weights[name][i].copy_(parameter)

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """See ``stabkit.network.Network``."""

        def one(weights: dict[str, Tensor], arguments: dict[str, Tensor]) -> Tensor:
            found: Tensor = functional_call(self.model, weights, kwargs=arguments).logits
            return found

        seeds = next(iter(self.weights.values())).shape[0]
        each = {name: x.expand(seeds, *x.shape[1:]) for name, x in inputs.items()}
        batched: Any = vmap(one, randomness="different")
        logits: Tensor = batched(self.weights, each)
        return logits

    def norms(self, gradients: Sequence[Tensor]) -> Tensor:
        """See ``stabkit.network.Network``."""
        return torch.stack([g.flatten(1).norm(dim=1) for g in gradients], 1)

    def divide(self, gradients: Sequence[Tensor], divisor: Tensor) -> Tensor | None:
        """See ``stabkit.network.Network``; the kernel knows one divisor, here are several."""
        for gradient in gradients:
            gradient.div_(divisor.view(-1, *[1] * (gradient.ndim - 1)))
        return None


def can_stack(config: RunConfig) -> bool:
    """Say whether the seeds of a recipe can be run at once."""
    return not config.mixout and config.precision != "fp16" and supported(config)


def groups(configs: Iterable[RunConfig], size: int) -> Iterator[tuple[RunConfig, ...]]:
    """Yield the runs recipe by recipe: up to ``size`` at once, or one by one if not stackable."""
    recipes: dict[RunConfig, list[RunConfig]] = {}
    for config in configs:
        recipes.setdefault(_recipe(config), []).append(config)
    for recipe, seeds in recipes.items():
        most = size if can_stack(recipe) else 1
        yield from (tuple(seeds[i : i + most]) for i in range(0, len(seeds), most))


def _recipe(config: RunConfig) -> RunConfig:
    """Return the configuration that stands for all that differ from it in their seeds only."""
    return config.replace(seed=0)


def check_one_recipe(configs: Sequence[RunConfig]) -> None:
    """Raise ConfigError where configurations differ in more than their seeds."""
    recipes = {_recipe(config) for config in configs}
    if len(recipes) != 1:
        raise ConfigError(
            f"{len(recipes)} recipes among {len(configs)} configurations; expected some that "
            "differ in their seeds only: call once for each recipe"
        )


def stacked_learner(
    config: RunConfig, labels: int, device: torch.device, train: Encoded, seeds: int
) -> StaticLearner:
    """Return a learner for ``seeds`` runs at once, the last one where it fits."""
    config = structure(config)
    return kept(
        (config, labels, device, train, seeds),
        lambda: StaticLearner(config, Stacked(config, labels, device, seeds), train, seeds),
    )
