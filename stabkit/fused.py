"""A layer of an encoder as one function with a gradient of its own, for the fast executor.

The layers of BERT, RoBERTa and ALBERT are the same few products with little between them. At a
small width a good part of a step is bookkeeping: a node of autograd for every operation, views,
copies. Here a layer is one node, and its forward and backward pass are few kernels: results are
those of the separate operations to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stabkit.products import linear

GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}  # torch's names of them
ROUND = 16  # padded batches have a multiple of it as rows: oneDNN makes a kernel for every shape
MASKED = -1e4  # added to the scores of padding; exp of it is 0 in every precision used


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a padded batch lie, one after the other and by row, head and time.

    Packed are the ``tokens`` real ones and, where there is padding, some spare rows up to a
    multiple of ``ROUND``, which stand for all of it. ``rows`` are the places of all packed rows in
    the padded batch. ``split`` and ``merge`` index vectors of one head: from (packed row; query,
    key or value; head) to (query, key or value; row; head; time) and back. ``spread`` and
    ``places`` do for one of the three what these do for all. ``bias`` is added to the scores (row
    and head x 1 x time), 0 or ``MASKED``.
    """

    batch: int
    length: int
    tokens: int
    rows: Tensor
    split: Tensor
    merge: Tensor
    spread: Tensor
    places: Tensor
    bias: Tensor

    @classmethod
    def of(cls, mask: Tensor, heads: int, dtype: torch.dtype) -> Layout:
        """Return the layout of a batch's mask (batch x length, 0 or 1)."""
        batch, length = mask.shape
        flat, head, three = mask.reshape(-1), torch.arange(heads), torch.arange(3)
        rows, slots = flat.nonzero().squeeze(1), batch * heads * length
        tokens = len(rows)
        if tokens < len(flat):
            spare = flat.argmin().expand(ROUND - tokens % ROUND)
            rows = torch.cat((rows, spare))
        packed = torch.where(flat > 0, flat.cumsum(0) - 1, tokens).view(batch, 1, length)
        spread = packed * heads + head[:, None]
        split = (packed * 3 + three[:, None, None, None]) * heads + head[:, None]
        places = (rows // length * heads * length + rows % length)[:, None] + head * length
        merge = places[:, None] + three[:, None] * slots
        bias = ((1 - mask) * MASKED).to(dtype).repeat_interleave(heads, 0)[:, None]
        split, merge, spread, places = (i.reshape(-1) for i in (split, merge, spread, places))
        return cls(batch, length, tokens, rows, split, merge, spread, places, bias)

    @property
    def padded(self) -> bool:
        """Whether the batch has padding."""
        return self.tokens < self.batch * self.length


@dataclass(frozen=True)
class Parts:
    """The modules of a layer, in the order in which they are used."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_dropout: nn.Dropout
    output: nn.Linear
    output_dropout: nn.Dropout
    attention_norm: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
    dropout: nn.Dropout | None
    norm: nn.LayerNorm

    @classmethod
    def of(cls, layer: Any) -> Parts:
        """Name the parts of a layer of BERT, RoBERTa or ALBERT (which drops nothing at its end)."""
        a = layer.attention
        if hasattr(layer, "full_layer_layer_norm"):
            heads = a.query, a.key, a.value, a.attention_dropout
            first = a.dense, a.output_dropout, a.LayerNorm
            return cls(
                *heads, *first, layer.ffn, layer.ffn_output, None, layer.full_layer_layer_norm
            )
        heads = a.self.query, a.self.key, a.self.value, a.self.dropout
        first = a.output.dense, a.output.dropout, a.output.LayerNorm
        out = layer.output
        return cls(*heads, *first, layer.intermediate.dense, out.dense, out.dropout, out.LayerNorm)

    def weights(self) -> list[Tensor]:
        """Return weight and bias of every part that has them; Mixout draws here."""
        attention = self.query, self.key, self.value, self.output, self.attention_norm
        modules = *attention, self.up, self.down, self.norm
        return [tensor for module in modules for tensor in (module.weight, module.bias)]


class Drawn(NamedTuple):
    """What the dropouts of a layer multiply by in one use: 0 or 1 / (1 - p); None drops nothing."""

    attention: Tensor | None
    output: Tensor | None
    last: Tensor | None


@dataclass(frozen=True)
class Formula:
    """What a layer computes, but for its weights; products are taken in ``dtype``."""

    heads: int
    scaling: float
    gelu: str
    eps: float
    dtype: torch.dtype

    @classmethod
    def of(cls, settings: Any, dtype: torch.dtype) -> Formula:
        """Read a model's configuration."""
        heads = settings.num_attention_heads
        scaling = (settings.hidden_size // heads) ** -0.5
        return cls(heads, scaling, GELU[settings.hidden_act], settings.layer_norm_eps, dtype)


class Layer(torch.autograd.Function):
    """Post-LN attention and feed-forward: the hidden states of packed rows in and out.

    Arguments are the states (... x hidden), a Layout, what is dropped, a Formula and the tensors of
    ``Parts.weights``.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layout: Layout, drawn: Drawn, formula: Formula, *weights: Tensor
    ) -> Tensor:
        """Return the layer's output, of the shape of ``x``."""
        wq, bq, wk, bk, wv, bv, wo, bo, g1, c1, wu, bu, wd, bd, g2, c2 = weights
        half, flat = formula.dtype, x.flatten(0, -2)
        w, wo, wu, wd = (a.to(half) for a in (torch.cat((wq, wk, wv)), wo, wu, wd))
        b, bo, bu, bd = (a.to(half) for a in (torch.cat((bq, bk, bv)), bo, bu, bd))
        states = flat.to(half)
        context, *attended = _attend(linear(states, w, b), layout, drawn, formula)
        output = linear(context, wo, bo)
        first = _added(flat, output, drawn.output)
        mid, *norm_1 = torch.native_layer_norm(first, g1.shape, g1, c1, formula.eps)
        middle = mid.to(half)
        inner = linear(middle, wu, bu)
        active = nn.functional.gelu(inner, approximate=formula.gelu)
        output = linear(active, wd, bd)
        last = _added(mid, output, drawn.last)
        y, *norm_2 = torch.native_layer_norm(last, g2.shape, g2, c2, formula.eps)
        ctx.save_for_backward(
            *(states, w, *attended, context, wo, first, g1, c1, *norm_1),
            *(middle, wu, inner, active, wd, last, g2, c2, *norm_2),
        )
        ctx.layout, ctx.drawn, ctx.formula = layout, drawn, formula
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the states and of every weight."""
        saved, drawn, half = ctx.saved_tensors, ctx.drawn, ctx.formula.dtype
        states, w, *attended, context, wo, first, g1, c1, m1, r1 = saved[:-10]
        middle, wu, inner, active, wd, last, g2, c2, m2, r2 = saved[-10:]
        d_last, *d_norm_2 = _norm_back(grad.flatten(0, -2), last, m2, r2, g2, c2)
        d_output = _dropped(d_last, drawn.last).to(half)
        d_down = _linear_back(d_output, active)
        d_inner = torch.ops.aten.gelu_backward(
            linear(d_output, wd.t()), inner, approximate=ctx.formula.gelu
        )
        d_up = _linear_back(d_inner, middle)
        d_mid = d_last.add_(linear(d_inner, wu.t()))
        d_first, *d_norm_1 = _norm_back(d_mid, first, m1, r1, g1, c1)
        d_output = _dropped(d_first, drawn.output).to(half)
        d_dense = _linear_back(d_output, context)
        d_qkv = _attend_back(linear(d_output, wo.t()), ctx.layout, drawn, ctx.formula, *attended)
        d_w, d_b = _linear_back(d_qkv, states)
        d_x = d_first.add_(linear(d_qkv, w.t()))
        d_heads = [d for pair in zip(d_w.chunk(3), d_b.chunk(3), strict=True) for d in pair]
        found = *d_heads, *d_dense, *d_norm_1, *d_up, *d_down, *d_norm_2
        dtype = grad.dtype
        return d_x.view(grad.shape), None, None, None, *(d.to(dtype) for d in found)


def _attend(
    qkv: Tensor, layout: Layout, drawn: Drawn, formula: Formula
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return softmax(q k' * scaling + bias) v of all heads, and what its gradient needs."""
    width = qkv.shape[1] // (3 * formula.heads)
    heads = qkv.view(-1, width).index_select(0, layout.split)
    q, k, v = heads.view(3, -1, layout.length, width).unbind()
    scores = torch.baddbmm(layout.bias, q, k.transpose(1, 2), alpha=formula.scaling)
    shares = torch.softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), -1)
    dropped = _dropped(shares, drawn.attention).to(q.dtype)
    context = torch.bmm(dropped, v).view(-1, width).index_select(0, layout.places)
    return context.view(qkv.shape[0], -1), q, k, v, shares, dropped


def _attend_back(
    grad: Tensor,
    layout: Layout,
    drawn: Drawn,
    formula: Formula,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shares: Tensor,
    dropped: Tensor,
) -> Tensor:
    """Return the gradient of ``_attend``'s queries, keys and values (rows x 3 hidden)."""
    grad_context = grad.view(-1, q.shape[-1]).index_select(0, layout.spread).view(q.shape)
    d_dropped = torch.bmm(grad_context, v.transpose(1, 2)).to(shares.dtype)
    d_shares = _dropped(d_dropped, drawn.attention)
    d_scores = torch._softmax_backward_data(d_shares, shares, -1, shares.dtype)
    d_scores = d_scores.mul_(formula.scaling).to(q.dtype)
    heads = q.new_empty(3, *q.shape)
    torch.bmm(d_scores, k, out=heads[0])
    torch.bmm(d_scores.transpose(1, 2), q, out=heads[1])
    torch.bmm(dropped.transpose(1, 2), grad_context, out=heads[2])
    merged = heads.view(-1, q.shape[-1]).index_select(0, layout.merge)
    return merged.view(grad.shape[0], -1)


def _norm_back(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
        grad, x, weight.shape, mean, rstd, weight, bias, [True, True, True]
    )
    return found


def _linear_back(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a linear part's weight and bias."""
    return linear(grad.t(), x.t()), grad.sum(0)


def _dropped(x: Tensor, factors: Tensor | None) -> Tensor:
    """Return x, or its gradient, with entries dropped and the rest scaled."""
    return x if factors is None else torch.mul(x, factors)


def _added(x: Tensor, output: Tensor, factors: Tensor | None) -> Tensor:
    """Return x + dropout(output), the residual connection."""
    output = output.to(x.dtype)
    return x + output if factors is None else torch.addcmul(x, output, factors)
