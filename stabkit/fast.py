"""The fast executor: the plain loop's mathematics at less cost on a CPU.

Savings, all behind the interfaces of the model as it is: dropouts are cut from large blocks of
cheap random bits (torch's draw costs several times more), a layer is one autograd function
(``stabkit.fused``) whose products are those of the quickest library (``stabkit.products``), and the
encoder works on the real tokens of a padded batch only. Beside the model, the loop then has its
parameters laid out for the optimizer (``stabkit.optim.laid_out``). The distribution of every
dropout, the batches and the formulas are those of the plain executor; the random draws differ, so
results are equal in distribution, not in bits.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.albert.modeling_albert import AlbertLayer
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.roberta.modeling_roberta import RobertaLayer

from stabkit.fused import GELU, Drawn, Formula, Layer, Layout, Parts

FAMILIES = ("bert", "roberta", "albert")
LAYERS = (BertLayer, RobertaLayer, AlbertLayer)


class DropoutFactors:
    """Seeded factors of dropouts, 0 or 1 / (1 - p), cut from blocks of 15-bit draws.

    One source serves all dropouts of a model. Factors stay valid as long as they are referenced.
    """

    def __init__(self, seed: int, block: int = 1 << 19) -> None:
        """Start the stream of ``seed``; ``block`` is the number of draws made at once."""
        self._block = block
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start the stream of another seed."""
        self._rng = np.random.Generator(np.random.SFC64(seed))
        self._pools: dict[float, tuple[Tensor, int]] = {}

    def take(self, shape: torch.Size, p: float) -> Tensor:
        """Return factors (fp32) of ``shape``, of which one is 0 with probability ``p``."""
        count = shape.numel()
        pool, start = self._pools.get(p, (None, 0))
        if pool is None or start + count > pool.numel():
            pool, start = self._draw(max(count, self._block), p), 0
        self._pools[p] = (pool, start + count)
        return pool[start : start + count].view(shape)

    def _draw(self, count: int, p: float) -> Tensor:
        words = self._rng.integers(0, 2**64, -(-count // 4), dtype=np.uint64)
        bits = words.view(np.int16)
        # In place, without a detour through booleans: the sign of (draw - threshold) is spread
        # over the word (-1 where dropped), inverted, and cut to the bits of bfloat16's 1.0.
        np.right_shift(bits, 1, out=bits)
        np.subtract(bits, np.int16(round(p * 32768) - 16384), out=bits)
        np.right_shift(bits, 15, out=bits)
        np.invert(bits, out=bits)
        np.bitwise_and(bits, np.int16(0x3F80), out=bits)
        return torch.from_numpy(bits).view(torch.bfloat16).float().mul_(1.0 / (1.0 - p))


class _Multiplied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(factors)
        return torch.mul(x, factors).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return torch.mul(grad, factors).to(grad.dtype), None


class DrawnDropout(nn.Dropout):
    """``nn.Dropout`` that takes its factors from a shared source."""

    def __init__(self, p: float, source: DropoutFactors) -> None:
        """Drop with probability ``p``, by what ``source`` draws."""
        super().__init__(p)
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        """Return x with entries dropped and the rest scaled by 1 / (1 - p), in training mode."""
        if not self.training or self.p == 0.0:
            return x
        factors = self.source.take(x.shape, self.p)
        return _Multiplied.apply(x, factors)  # type: ignore[no-untyped-call,no-any-return]


class FastExecutor:
    """A model's fast dropout and layers; ``inputs`` prepares each batch.

    The encoder's input (batch, length, hidden) is packed to real tokens, (1, rows, hidden), on
    its way in and unpacked on its way out. Works on encoders of the BERT family (BERT, RoBERTa,
    ALBERT and what shares their interface): ``supports`` says whether a model is one.
    """

    layout: Layout
    formula: Formula

    def __init__(self, model: PreTrainedModel, seed: int) -> None:
        """Change ``model`` in place; ``seed`` starts the stream of dropouts."""
        self.source, self.settings = DropoutFactors(seed), model.config
        encoder = model.base_model.get_submodule("encoder")
        encoder.register_forward_pre_hook(self._pack)
        encoder.register_forward_hook(self._unpack)
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if type(child) is nn.Dropout:
                    setattr(module, name, DrawnDropout(child.p, self.source).train(child.training))
        for module in encoder.modules():
            if isinstance(module, LAYERS):
                module.forward = partial(self._layer, Parts.of(module))  # type: ignore[method-assign]
        model.fast = self  # type: ignore[assignment]

    def inputs(self, batch: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor | None]:
        """Return the model's arguments for a padded batch; needed before every forward pass.

        Products are taken in ``dtype``. Attention knows the padding without the model's help.
        """
        self.formula = Formula.of(self.settings, dtype)
        self.layout = Layout.of(batch["attention_mask"], self.formula.heads, dtype)
        return {**batch, "attention_mask": None}

    def _pack(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0].flatten(0, 1)
        if self.layout.padded:
            hidden = hidden.index_select(0, self.layout.rows)
        return (hidden[None], *args[1:])

    def _unpack(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        full, layout = output.last_hidden_state[0], self.layout
        if layout.padded:
            empty = full.new_zeros(layout.batch * layout.length, full.shape[1])
            full = empty.index_copy(0, layout.rows[: layout.tokens], full[: layout.tokens])
        output.last_hidden_state = full.view(layout.batch, layout.length, -1)
        return output

    def _layer(self, parts: Parts, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Do what a layer's ``forward`` does."""
        layout, formula, rows = self.layout, self.formula, x.shape[:-1].numel()
        square = torch.Size((layout.batch * formula.heads, layout.length, layout.length))
        shape = torch.Size((rows, x.shape[-1]))
        drawn = Drawn(
            self._factors(parts.attention_dropout, square),
            self._factors(parts.output_dropout, shape),
            self._factors(parts.dropout, shape),
        )
        return Layer.apply(x, layout, drawn, formula, *parts.weights())  # type: ignore[no-untyped-call,no-any-return]

    def _factors(self, dropout: nn.Dropout | None, shape: torch.Size) -> Tensor | None:
        if dropout is None or not dropout.training or dropout.p == 0.0:
            return None
        return self.source.take(shape, dropout.p)


def supports(model: PreTrainedModel) -> bool:
    """Say whether the fast executor knows how to run ``model``."""
    settings = model.config
    return settings.model_type in FAMILIES and settings.hidden_act in GELU
