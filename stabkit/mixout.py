"""Mixout (Lee, Cho and Kang, ICLR 2020): the "Lee" recipe of Fig. 1 and Table 1.

Dropout swaps weights for 0; Mixout swaps them for the pre-trained ones, with probability p:

    W_mix = (M * W_0 + (1 - M) * W - p * W_0) / (1 - p),   M ~ Bernoulli(p),   E[W_mix] = W.

That is W_0 plus inverted dropout of W - W_0. At p = 0 it is W, at p = 1 we take W_0.

The text mixes the layers that follow a dropout; the released code (bloodwass/mixout, its example
for Hugging Face models) takes every Linear, heads too, and sets every Dropout to 0. We do what the
code does:

- an untrained head is mixed with its own random initial weight;
- biases, embeddings and LayerNorm are never mixed;
- the mask is drawn anew at each use of a layer, and there is one draw per input neuron, shared by
  all output rows ("column", the only mask of that code); "element" draws for every weight;
- its backward pass multiplies the gradient by the mask and forgets 1 / (1 - p). The true gradient
  is our default, theirs is ``rescale_gradient=False``.

In their own BERT experiments the authors left out the first feed-forward layer, which has no
dropout beside it; they say that later work saw no significant difference (their issue 4 and pull
request 13). The ``skip`` argument of ``apply_mixout`` does that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stabkit.errors import ConfigError, ModelError, nearest

Mask = Literal["column", "element"]
Model = TypeVar("Model", bound=nn.Module)

_MASKS = ("column", "element")


class Mixout(nn.Module):
    """Parametrization of a weight: mixed with its value at construction while training.

    Takes and returns a tensor of the weight's shape (out_features, in_features). The pre-trained
    copy moves with the module and stays out of its ``state_dict``. Draws come from ``generator``,
    which must be on the weight's device.
    """

    pretrained: Tensor

    def __init__(
        self,
        weight: Tensor,
        p: float,
        generator: torch.Generator,
        mask: Mask = "column",
        rescale_gradient: bool = True,
    ) -> None:
        """Remember ``weight`` as pre-trained; ``p`` is the share of weights swapped for it."""
        super().__init__()
        self.register_buffer("pretrained", weight.detach().clone(), persistent=False)
        self.p, self.generator = p, generator
        self.mask, self.rescale_gradient = mask, rescale_gradient

    def forward(self, weight: Tensor) -> Tensor:
        """Return the mixed weight; in evaluation mode and at p = 0 the plain one."""
        if not self.training or self.p == 0:
            return weight
        kept = self._draw(weight)
        if self.p == 1:  # nothing is kept, and 1 / (1 - p) has no value
            return torch.lerp(self.pretrained, weight, kept)
        mixed = torch.lerp(self.pretrained, weight, kept / (1 - self.p))
        if not self.rescale_gradient and mixed.requires_grad:
            mixed.register_hook(lambda g: g * (1 - self.p))  # type: ignore[no-untyped-call]
        return mixed

    def _draw(self, weight: Tensor) -> Tensor:
        shape = (1, weight.shape[1]) if self.mask == "column" else weight.shape
        return weight.new_empty(shape).bernoulli_(1 - self.p, generator=self.generator)

    def extra_repr(self) -> str:
        """Show the settings when the model is printed."""
        return f"p={self.p}, mask={self.mask}, rescale_gradient={self.rescale_gradient}"


def apply_mixout(
    model: Model,
    p: float,
    generator: torch.Generator,
    mask: Mask = "column",
    rescale_gradient: bool = True,
    skip: Collection[str] = (),
) -> Model:
    """Replace dropout by Mixout in ``model``, in place, and return it.

    Every ``nn.Linear`` is mixed with the weight it has now, so call this after the weights are
    loaded and the head is initialised; every ``nn.Dropout`` is set to 0, also for p = 0. Modules
    whose dotted name matches a shell pattern in ``skip`` are left as they are, for instance
    ``("*.intermediate.dense", "dropout", "classifier")`` for BERT. Parameters stay the same
    objects under a longer name, see ``plain_name``.

    Raises ConfigError for p outside 0..1, an unknown mask, or a generator on another device than
    the weights; ModelError when there is no Linear to mix or the model has Mixout already.
    """
    if not 0 <= p <= 1:
        raise ConfigError(f"mixout is {p!r}; expected a probability from 0 to 1")
    if mask not in _MASKS:
        raise ConfigError(f"unknown mixout mask {mask!r}: {nearest(mask, _MASKS)}")
    chosen = [
        module
        for name, module in model.named_modules()
        if not any(fnmatchcase(name, pattern) for pattern in skip)
    ]
    linears = [module for module in chosen if isinstance(module, nn.Linear)]
    _check(model, linears, generator)
    for module in chosen:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for linear in linears:
        mixout = Mixout(linear.weight, p, generator, mask, rescale_gradient)
        # unsafe: torch's check of shape and type would run the module and use up draws.
        parametrize.register_parametrization(linear, "weight", mixout, unsafe=True)
    return model


def remove_mixout(model: Model) -> Model:
    """Take Mixout off ``model``, in place, and return it: plain weights under their plain names.

    The dropouts stay at 0; a model built anew from its configuration has them back.
    """
    for module in list(_mixed(model)):
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    return model


def plain_name(name: str) -> str:
    """Return the name that a parameter has without Mixout; other names come back unchanged."""
    return name.replace(".parametrizations.weight.original", ".weight")


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's tensors as they are now, under the names that they have without Mixout."""
    return {plain_name(name): x for name, x in model.state_dict().items()}


def _mixed(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrizations = module.get_submodule("parametrizations.weight")
            if any(isinstance(part, Mixout) for part in parametrizations.children()):
                yield module


def _check(model: nn.Module, linears: list[nn.Linear], generator: torch.Generator) -> None:
    if any(_mixed(model)):
        raise ModelError("the model has Mixout already; call remove_mixout(model) first")
    if not linears:
        raise ModelError("the model has no nn.Linear to mix; expected at least one, check skip")
    device = linears[0].weight.device
    if generator.device.type != device.type:
        raise ConfigError(
            f"the Mixout generator is on {generator.device}, the weights on {device}; make it "
            f"with torch.Generator({str(device)!r})"
        )
