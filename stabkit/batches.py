"""Batches: texts tokenised once, then padded to the longest example of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stabkit import models
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, ModelError
from stabkit.tasks import Split

EVALUATION_BATCH = 64


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tokenised split: padded ids and segments (examples x longest), lengths, labels."""

    ids: Tensor
    segments: Tensor | None
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    def batch(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the model's arguments for the examples ``rows``, cut to the longest of them."""
        index = torch.from_numpy(rows)
        length = int(self.lengths[rows].max())
        places = torch.arange(length)
        mask = (places[None] < torch.from_numpy(self.lengths[rows])[:, None]).long()
        batch = {"input_ids": self.ids[index, :length], "attention_mask": mask}
        if self.segments is not None:
            batch["token_type_ids"] = self.segments[index, :length]
        return batch


def encode(config: RunConfig, split: Split) -> Encoded:
    """Tokenise a split as the run says: cut to ``max_length``, segments or none.

    Raises ConfigError for a ``max_length`` that the model has no positions for, ModelError for a
    tokenizer that cannot pad or is another model's.
    """
    tokenizer = models.load_tokenizer(config.model)
    most = models.limits(config.model)
    if config.max_length > most.tokens:
        raise ConfigError(
            f"max_length is {config.max_length}; expected at most {most.tokens}, the longest text "
            f"that {config.model} takes"
        )
    if tokenizer.pad_token is None:
        raise ModelError(
            f"the tokenizer of {config.model} has no token to pad with, which batches need; set "
            "one (tokenizer.pad_token = tokenizer.eos_token), and save it in the model's folder"
        )
    found = _encode(tokenizer, config.max_length, config.segments, split)
    if most.words is not None and int(found.ids.max()) >= most.words:
        raise ModelError(
            f"the tokenizer of {config.model} has {len(tokenizer)} tokens, its model embeddings "
            f"for {most.words}; expected the tokenizer that the model was trained with"
        )
    return found


@lru_cache(maxsize=8)
def _encode(
    tokenizer: PreTrainedTokenizerBase, max_length: int, segments: bool, split: Split
) -> Encoded:
    second = None if split.texts_b is None else list(split.texts_b)
    rows = tokenizer(
        list(split.texts_a),
        second,
        truncation=True,
        max_length=max_length,
        padding=True,
        padding_side="right",
        return_token_type_ids=segments,
        return_tensors="pt",
    )
    types = rows["token_type_ids"] if segments else None
    return Encoded(
        rows["input_ids"], types, rows["attention_mask"].sum(1).numpy(), np.array(split.labels)
    )


def training_rows(examples: int, config: RunConfig, steps: int) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of ``steps`` shuffled batches; an epoch's last may be smaller."""
    assert config.order_seed is not None, "RunConfig resolves its seeds"
    generator = torch.Generator().manual_seed(config.order_seed)
    done = 0
    while True:
        order = torch.randperm(examples, generator=generator).numpy()
        for start in range(0, examples, config.batch_size):
            if done == steps:
                return
            yield order[start : start + config.batch_size]
            done += 1


def training_batches(data: Encoded, config: RunConfig, steps: int) -> Iterator[dict[str, Tensor]]:
    """Yield the batches of ``training_rows`` with their labels."""
    for rows in training_rows(len(data), config, steps):
        yield {**data.batch(rows), "labels": torch.from_numpy(data.labels[rows])}


def evaluation_rows(data: Encoded) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of batches of all examples, shortest first: little is padded."""
    order = np.argsort(data.lengths, kind="stable")
    for start in range(0, len(order), EVALUATION_BATCH):
        yield order[start : start + EVALUATION_BATCH]


def evaluation_batches(data: Encoded) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield row numbers and batches of all examples, as ``evaluation_rows`` has them."""
    for rows in evaluation_rows(data):
        yield torch.from_numpy(rows), data.batch(rows)
