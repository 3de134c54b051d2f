"""What a Trainer's model answers on a data set, and what the data set is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer

from stabkit.errors import DataError
from stabkit.tasks import Split


@dataclass(frozen=True)
class Scored:
    """A model's answers on a data set in evaluation mode: logits (n, labels) and labels (n,).

    ``digest`` is of the texts as tokens, without padding, and their labels, in any order;
    ``longest`` is in tokens; ``segments`` tells whether a text has a second one.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    digest: str
    longest: int
    segments: bool

    def split(self) -> Split:
        """Return the labels as a split whose texts are not known."""
        return Split(("",) * len(self.labels), None, self.labels)


def model_of(trainer: Trainer) -> PreTrainedModel:
    """Return a Trainer's model; one of another kind must have a ``config`` all the same."""
    found: Any = trainer.model
    return found  # type: ignore[no-any-return]


@torch.no_grad()
def scored(trainer: Trainer, data: Any) -> Scored:
    """Return the answers of a Trainer's model on all examples, in their order.

    The model keeps its mode, torch's random numbers are as before. Raises DataError where an
    example is no text with one label, or the model gives not one number for each label.
    """
    model, logits, labels, texts = model_of(trainer), [], [], []
    longest, segments, training = 0, False, model.training
    model.train(False)
    try:
        with torch.random.fork_rng(devices=[]):
            for inputs in _in_order(trainer, data):
                _, answer, label = trainer.prediction_step(
                    model, inputs, prediction_loss_only=False
                )
                logits.append(_logits(answer, int(model.config.num_labels or 0)).float().cpu())
                labels.append(_labels(label).cpu())
                texts += (found := _tokens(inputs))
                longest = max(longest, *map(len, found))
                segments |= bool(inputs.get("token_type_ids", torch.zeros(1)).any())
    finally:
        model.train(training)
    known = torch.cat(labels).numpy()
    pairs = (sha(f"{text} {label}") for text, label in zip(texts, known, strict=True))
    digest = sha(" ".join(sorted(pairs)))
    return Scored(torch.cat(logits).numpy(), known, digest, longest, segments)


def _in_order(trainer: Trainer, data: Any) -> DataLoader[Any]:
    """Return batches of all examples; a Trainer's own may be sorted, shuffled, or lack the last."""
    own = trainer.get_test_dataloader(data)
    size = trainer.args.eval_batch_size
    return DataLoader(own.dataset, batch_size=size, collate_fn=own.collate_fn)


def _logits(found: Any, labels: int) -> Tensor:
    several = found if isinstance(found, (tuple, list)) else (found,)
    for one in several:
        if isinstance(one, Tensor) and one.ndim == 2 and one.shape[1] == labels:
            return one
    raise DataError(
        f"the model's outputs are {', '.join(map(_form, several))}; expected logits of shape "
        f"(texts, {labels})"
    )


def _labels(found: Any) -> Tensor:
    one = found[0] if isinstance(found, (tuple, list)) and found else found
    if not isinstance(one, Tensor) or one.ndim != 1 or one.is_floating_point():
        raise DataError(f"the labels are {_form(one)}; expected one whole number per text")
    return one


def _form(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"of shape {tuple(found.shape)} and type {found.dtype}"
    return "missing" if found is None else f"of type {type(found).__name__}"


def _tokens(inputs: dict[str, Any]) -> list[list[int]]:
    """Return the tokens of each text of a batch, without padding."""
    if "input_ids" not in inputs:
        raise DataError(f"the data have fields {', '.join(inputs)}; expected texts as input_ids")
    tokens: Tensor = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    real = (torch.ones_like(tokens) if mask is None else mask).bool()
    return [row[kept].tolist() for row, kept in zip(tokens, real, strict=True)]


def sha(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
