"""The fast executor: the plain loop's mathematics at less cost on a CPU.

Three savings, all behind the interfaces of the model as it is: dropout masks are cut from large
blocks of cheap random bits (torch's draw costs several times more), attention is one autograd
function without copies, and the encoder works on the real tokens of a padded batch only. The
distribution of every mask, the batches and the formulas are those of the plain executor; the
random draws differ, so results are equal in distribution, not in bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.masking_utils import eager_mask

ATTENTION = "stabkit_fast"
FAMILIES = ("bert", "roberta", "albert")
MASKED = -1e4  # added to the scores of padding; exp of it is 0 in every precision used


class DropoutMasks:
    """Seeded keep (1) and drop (0) masks, cut from blocks of 15-bit draws.

    One source serves all dropouts of a model. Masks stay valid as long as they are referenced.
    """

    def __init__(self, seed: int, block: int = 1 << 19) -> None:
        """Start the stream of ``seed``; ``block`` is the number of draws made at once."""
        self._block = block
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start the stream of another seed."""
        self._rng = np.random.Generator(np.random.SFC64(seed))
        self._pools: dict[tuple[float, torch.dtype], tuple[Tensor, int]] = {}

    def take(self, shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
        """Return a mask of ``shape`` in which an entry is 0 with probability ``p``."""
        count = shape.numel()
        pool, start = self._pools.get((p, dtype), (None, 0))
        if pool is None or start + count > pool.numel():
            pool, start = self._draw(max(count, self._block), p, dtype), 0
        self._pools[p, dtype] = (pool, start + count)
        return pool[start : start + count].view(shape)

    def _draw(self, count: int, p: float, dtype: torch.dtype) -> Tensor:
        words = self._rng.integers(0, 2**64, -(-count // 4), dtype=np.uint64)
        bits = words.view(np.int16)
        # In place, without a detour through booleans: the sign of (draw - threshold) is spread
        # over the word (-1 where dropped), inverted, and cut to the bits of bfloat16's 1.0.
        np.right_shift(bits, 1, out=bits)
        np.subtract(bits, np.int16(round(p * 32768) - 16384), out=bits)
        np.right_shift(bits, 15, out=bits)
        np.invert(bits, out=bits)
        np.bitwise_and(bits, np.int16(0x3F80), out=bits)
        return torch.from_numpy(bits).view(torch.bfloat16).to(dtype)


class _MaskedScale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return torch.mul(x, mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return torch.mul(grad, mask).mul_(ctx.scale), None, None


class MaskedDropout(nn.Dropout):
    """``nn.Dropout`` that cuts its masks from a shared source."""

    def __init__(self, p: float, masks: DropoutMasks) -> None:
        """Drop with probability ``p``, by ``masks``."""
        super().__init__(p)
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        """Return x with entries dropped and the rest scaled by 1 / (1 - p), in training mode."""
        if not self.training or self.p == 0.0:
            return x
        mask = self.masks.take(x.shape, self.p, x.dtype)
        scale = 1.0 / (1.0 - self.p)
        return _MaskedScale.apply(x, mask, scale)  # type: ignore[no-untyped-call,no-any-return]


class Packing:
    """Lets an encoder work on the real tokens of a padded batch; attention sees padded rows.

    ``begin`` takes the batch's attention mask (batch x length, 0 or 1) before each forward pass and
    returns the mask to give to the model. The encoder's input (batch, length, hidden) is packed to
    (1, tokens, hidden) on its way in and unpacked on its way out.
    """

    def __init__(self, encoder: nn.Module, heads: int) -> None:
        """Hook into ``encoder``, whose first argument is the hidden states."""
        self.heads = heads
        self.layout: tuple[int, int] | None = None
        encoder.register_forward_pre_hook(self._pack)
        encoder.register_forward_hook(self._unpack)

    def begin(self, mask: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Prepare for one batch; ``dtype`` is that of the attention scores."""
        self.layout = None
        if bool(mask.all()):
            return None
        batch, length = mask.shape
        self.layout = (batch, length)
        flat, heads = mask.reshape(-1), torch.arange(self.heads)
        self.rows = flat.nonzero().squeeze(1)
        place = ((flat.cumsum(0) - 1) * flat).view(batch, 1, length) * self.heads
        self.gather = (place + heads[:, None]).reshape(-1)  # (batch, head, time) from (row, head)
        where = (self.rows // length * self.heads * length + self.rows % length)[:, None]
        self.scatter = (where + heads * length).reshape(-1)  # and back
        return ((1 - mask) * MASKED).to(dtype)[:, None, None]

    def spread(self, x: Tensor) -> Tensor:
        """Return (1, heads, tokens, dim) as (batch * heads, length, dim); padding repeats a row."""
        assert self.layout is not None
        rows = x.transpose(1, 2).reshape(-1, x.shape[-1])
        return rows.index_select(0, self.gather).view(-1, self.layout[1], x.shape[-1])

    def collect(self, x: Tensor) -> Tensor:
        """Return (batch * heads, length, dim) as (1, tokens, heads, dim)."""
        rows = x.reshape(-1, x.shape[-1]).index_select(0, self.scatter)
        return rows.view(1, -1, self.heads, x.shape[-1])

    def spread_gradient(self, grad: Tensor) -> Tensor:
        """Return the gradient of ``collect``'s input; padding gets 0."""
        assert self.layout is not None
        batch, length = self.layout
        full = grad.new_zeros(batch * self.heads * length, grad.shape[-1])
        full.index_copy_(0, self.scatter, grad.reshape(-1, grad.shape[-1]))
        return full.view(batch * self.heads, length, -1)

    def _pack(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.layout is None:
            return None
        hidden = args[0].flatten(0, 1).index_select(0, self.rows)[None]
        return (hidden, *args[1:])

    def _unpack(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self.layout is not None:
            packed = output.last_hidden_state[0]
            full = packed.new_zeros(self.layout[0] * self.layout[1], packed.shape[1])
            full = full.index_copy(0, self.rows, packed)
            output.last_hidden_state = full.view(*self.layout, -1)
        return output


class _Padded:
    """The layout of attention when nothing is packed: the same three moves as ``Packing``."""

    def __init__(self, shape: torch.Size) -> None:
        self.batch, self.heads = shape[:2]

    def spread(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *x.shape[2:])

    def collect(self, x: Tensor) -> Tensor:
        return x.view(self.batch, self.heads, *x.shape[1:]).transpose(1, 2).contiguous()

    def spread_gradient(self, grad: Tensor) -> Tensor:
        return grad.transpose(1, 2).reshape(-1, grad.shape[1], grad.shape[-1])


class _Attention(torch.autograd.Function):
    """softmax(q k' * scale + bias), dropout, times v, for all heads at once."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        layout: Packing | _Padded,
        scale: float,
        keep: Tensor | None,
        keep_scale: float,
    ) -> Tensor:
        q, k, v = (layout.spread(x) for x in (query, key, value))
        scores = torch.bmm(q, k.transpose(1, 2))
        if bias is None:
            scores = scores.mul_(scale)
        else:
            by_head = scores.view(bias.shape[0], -1, *scores.shape[1:])
            scores = torch.add(bias, by_head, alpha=scale).view(scores.shape)
        shares = torch.softmax(scores, -1)
        dropped = shares if keep is None else (shares * keep).mul_(keep_scale)
        ctx.save_for_backward(q, k, v, shares, dropped, keep)
        ctx.layout, ctx.scale, ctx.keep_scale = layout, scale, keep_scale
        return layout.collect(torch.bmm(dropped, v))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, shares, dropped, keep = ctx.saved_tensors
        grad = ctx.layout.spread_gradient(grad)
        grad_v = torch.bmm(dropped.transpose(1, 2), grad)
        grad_p = torch.bmm(grad, v.transpose(1, 2))
        if keep is not None:
            grad_p = grad_p.mul_(keep).mul_(ctx.keep_scale)
        grad_s = torch._softmax_backward_data(grad_p, shares, -1, shares.dtype).mul_(ctx.scale)
        grads = torch.bmm(grad_s, k), torch.bmm(grad_s.transpose(1, 2), q), grad_v
        return *(ctx.layout.collect(g).transpose(1, 2) for g in grads), *(None,) * 5


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (batch, heads, length, dim) in, heads third out."""
    fast: FastExecutor = module.fast  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    bias = None if attention_mask is None else attention_mask.to(query.dtype)
    packing = fast.packing
    packed = packing if packing is not None and packing.layout is not None else None
    batch, length = packed.layout if packed else (query.shape[0], key.shape[2])  # type: ignore[misc]
    keep = None
    if dropout > 0.0:
        shape = torch.Size((batch * query.shape[1], length, length))
        keep = fast.masks.take(shape, dropout, query.dtype)
    layout = packed or _Padded(query.shape)
    output = _Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, bias, layout, scale, keep, 1.0 / (1.0 - dropout)
    )
    return output, None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)


class FastExecutor:
    """A model's fast dropout, attention and packing; ``inputs`` prepares each batch.

    Works on encoders of the BERT family (BERT, RoBERTa, ALBERT and what shares their interface):
    ``supports`` says whether a model is one.
    """

    def __init__(self, model: PreTrainedModel, seed: int) -> None:
        """Change ``model`` in place; ``seed`` starts the stream of dropout masks."""
        self.masks = DropoutMasks(seed)
        encoder = model.base_model.get_submodule("encoder")
        self.packing = Packing(encoder, model.config.num_attention_heads)
        for module in list(model.modules()):
            module.fast = self  # type: ignore[assignment]
            for name, child in list(module.named_children()):
                if type(child) is nn.Dropout:
                    setattr(module, name, MaskedDropout(child.p, self.masks).train(child.training))
                elif type(child) is NewGELUActivation:  # ALBERT's: eight operations, here one
                    setattr(module, name, nn.GELU("tanh"))
        model.set_attn_implementation(ATTENTION)

    def inputs(self, batch: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor | None]:
        """Return the model's arguments for a padded batch; needed before every forward pass."""
        return {**batch, "attention_mask": self.packing.begin(batch["attention_mask"], dtype)}


def supports(model: PreTrainedModel) -> bool:
    """Say whether the fast executor knows how to run ``model``."""
    return model.config.model_type in FAMILIES
