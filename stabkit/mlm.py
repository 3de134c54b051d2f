"""Masked-LM perplexity of encoders, and layer swap (Fig. 2a and 2b of the paper).

How far has fine-tuning damaged what an encoder knew, and in which layers? Its top k layers are
replaced by the pre-trained ones, k = 0 to L, and each of the L + 1 encoders is scored under the
pre-trained masked-LM head. ``stabkit.masking`` has the texts.

The head is always the pre-trained one, and so is its decoder, although tied to the embeddings.
What enters the layers is a choice: with the fine-tuned embeddings at every k, k = 0 is the whole
fine-tuned encoder; with the pre-trained ones, k = L is the pre-trained model. What else an encoder
has outside of its layers goes with the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from stabkit import models
from stabkit.errors import ModelError
from stabkit.masking import IGNORED, MaskedText


def masked_lm(model: str) -> PreTrainedModel:
    """Return a pre-trained model under its own masked-LM head, fp32, in evaluation mode.

    ``model`` is a name or folder as in ``RunConfig``. Raises ModelError where there is no model,
    or none with such a head.
    """
    models.digests(model)
    try:
        with models.quiet():
            found, report = AutoModelForMaskedLM.from_pretrained(
                models.locate(model), dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"no masked LM can be made of {model}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{model} has no masked-LM head: it lacks {', '.join(missing)}; expected the "
            "pre-trained model as it was published, not a fine-tuned one"
        )
    return found.eval()  # type: ignore[no-any-return]


@torch.no_grad()
def perplexity(model: PreTrainedModel, text: MaskedText) -> float:
    """Return exp of the mean negative log-likelihood (nats) of the hidden tokens of ``text``.

    Evaluated without dropout; the model comes back in the mode in which it came. Raises ModelError
    for a text that was prepared for another vocabulary.
    """
    _check(text, model)
    with _evaluating(model):
        total = sum(_nll(model, *batch) for batch in text.batches(model.device))
    return _perplexity(total / text.tokens)


@torch.no_grad()
def layer_swap(
    finetuned: PreTrainedModel, pretrained: str, text: MaskedText, embeddings: bool = False
) -> pd.DataFrame:
    """Return the perplexity of an encoder whose top k layers are the pre-trained ones again.

    Columns: k (0 to the depth L), nll (nats per hidden token), perplexity, tokens (hidden ones;
    the same in each row). ``finetuned`` is a classifier as ``stabkit.train.trained_model`` returns
    it and stays untouched: the swap is made on copies. ``pretrained`` is the name or folder of the
    model that it started from.

    With ``embeddings`` the pre-trained ones enter the layers at every k, else the fine-tuned ones.

    Raises ModelError where a swap has no meaning: an encoder whose layers share weights (ALBERT)
    or that has no list of layers, another architecture or depth, no masked-LM head.
    """
    _refuse_shared_layers(finetuned)
    model = masked_lm(pretrained)
    _check(text, model)
    encoder = model.base_model
    tuned = _tuned_copy(encoder, finetuned, pretrained)
    if not embeddings:
        setattr(model, model.base_model_prefix, tuned)
    for part in (model, encoder, tuned):
        part.to(finetuned.device)
    nll = _swapped(model, list(_layers(tuned)), list(_layers(encoder)), text) / text.tokens
    columns = {"k": range(len(nll)), "nll": nll, "perplexity": [_perplexity(x) for x in nll]}
    return pd.DataFrame(columns).assign(tokens=text.tokens)


def _swapped(
    model: PreTrainedModel, bottom: list[nn.Module], top: list[nn.Module], text: MaskedText
) -> NDArray[np.float64]:
    """Return the negative log-likelihood of the whole text (nats) for each k, in one pass."""
    layers, seen = _layers(model.base_model), _remember(bottom)
    totals = np.zeros(len(layers) + 1)
    for batch in text.batches(model.device):
        seen.clear()
        for k in range(len(layers) + 1):
            kept = len(layers) - k
            for i, layer in enumerate([*bottom[:kept], *top[kept:]]):
                layers[i] = layer
            totals[k] += _nll(model, *batch)
    return totals


def _perplexity(nll: float) -> float:
    with np.errstate(over="ignore"):  # a diverged model's may be infinite
        return float(np.exp(nll))


def _nll(model: PreTrainedModel, batch: dict[str, Tensor], targets: Tensor) -> float:
    """Return the negative log-likelihood (nats) of all hidden tokens of a batch.

    The head sees their places alone, which saves most of its work and of its memory.
    """
    hidden = targets != IGNORED

    def select(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[hidden][None]
        return output

    with model.base_model.register_forward_hook(select):
        logits = model(**batch).logits[0]
    loss = nn.functional.cross_entropy(logits.float(), targets[hidden], reduction="sum")
    return loss.item()


def _remember(layers: list[nn.Module]) -> dict[nn.Module, Any]:
    """Let layers compute once and repeat their output until the dictionary returned is cleared.

    Below the swapped layers every k sees the same hidden states: that saves nearly half the work.
    """
    seen: dict[nn.Module, Any] = {}

    def once(layer: nn.Module, compute: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if layer not in seen:
                seen[layer] = compute(*args, **kwargs)
            return seen[layer]

        return forward

    for layer in layers:
        layer.forward = once(layer, layer.forward)
    return seen


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _tuned_copy(encoder: Any, finetuned: PreTrainedModel, pretrained: str) -> Any:
    """Return a copy of the pre-trained encoder with the fine-tuned weights."""
    kind = finetuned.config.model_type
    if kind != encoder.config.model_type:
        raise ModelError(
            f"the fine-tuned model is a {kind}, {pretrained} a {encoder.config.model_type}; "
            "expected the model from which fine-tuning started"
        )
    depths = [len(_layers(model)) for model in (finetuned.base_model, encoder)]
    if depths[0] != depths[1]:
        raise ModelError(
            f"the fine-tuned encoder has {depths[0]} layers, {pretrained} {depths[1]}; expected "
            "the model from which fine-tuning started"
        )
    copy, weights = deepcopy(encoder), finetuned.base_model.state_dict()
    own = copy.state_dict()  # without the pooler that a classifier's encoder may have
    if misfits := [n for n, x in own.items() if n not in weights or weights[n].shape != x.shape]:
        raise ModelError(
            f"the fine-tuned encoder lacks weights that {pretrained} has, or has them in another "
            f"shape: {', '.join(misfits)}; expected the model from which fine-tuning started"
        )
    copy.load_state_dict({name: weights[name] for name in own})
    return copy


def _layers(encoder: Any) -> nn.ModuleList:
    depth = encoder.config.num_hidden_layers
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ModelError(
        f"{type(encoder).__name__} has no list of {depth} layers to swap; expected an encoder "
        "such as BERT's or RoBERTa's"
    )


def _refuse_shared_layers(model: PreTrainedModel) -> None:
    depth = model.config.num_hidden_layers
    groups = getattr(model.config, "num_hidden_groups", depth)
    if groups < depth:
        raise ModelError(
            f"{type(model).__name__} applies {groups} set(s) of weights {depth} times: its layers "
            "share them, so to replace the top k would replace all, and to run the fine-tuned "
            f"weights {depth} - k times and the pre-trained ones k times would be another "
            "experiment. Compare whole encoders with perplexity, or choose an encoder such as "
            "BERT's or RoBERTa's"
        )


def _check(text: MaskedText, model: PreTrainedModel) -> None:
    largest = max(int(text.input_ids.max()), int(text.targets.max()))
    known = model.config.vocab_size
    if largest >= known:
        raise ModelError(
            f"the text has the token id {largest}, {type(model).__name__} knows {known}; prepare "
            "it with the model's own tokenizer"
        )
