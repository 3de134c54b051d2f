"""What the loop of pre-training is given: batches, and the source that they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tokenizers import Tokenizer
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows as a model is shown them, on its device, and what it is asked.

    ``inputs`` are the encoder's arguments (rows x length each), ``places`` the hidden words in the
    flattened rows, ``targets`` their true ids (-100: not asked), ``label`` the sentence-level
    labels (rows), None where nothing is asked of the rows.
    """

    inputs: dict[str, Tensor]
    places: Tensor
    targets: Tensor
    label: Tensor | None


class Source(Protocol):
    """Where rows come from; ``identity`` tells it from others that a checkpoint may be of."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the rows."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What is stored in a checkpoint, by name."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, always the same."""

    def held_out(self, step: int) -> Iterator[Batch]:
        """Yield the batches on which a model is scored after ``step`` steps."""
