"""The logits of a whole split in few shapes, by CUDA graphs where there is a GPU.

The graph executor's evaluations are this, and those of several seeds at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stabkit.batches import EVALUATION_BATCH, Encoded, evaluation_rows
from stabkit.graph import Captured
from stabkit.walk import Walk

Forward = Callable[[dict[str, Tensor]], Tensor]  # arguments, seeds first; logits, seeds first


class Scoring:
    """A split on the device and the graphs that score it by what weights ``model`` has then.

    ``model`` must be in evaluation mode from now on. ``forward`` applies it, or ``seeds`` models
    of its form. ``limit`` is the number of tokens that it has positions for, ``half`` the type of
    its products where that is not fp32.
    """

    def __init__(
        self,
        data: Encoded,
        forward: Forward,
        model: PreTrainedModel,
        limit: int,
        half: torch.dtype | None = None,
        seeds: int = 1,
    ) -> None:
        """Record the graphs."""
        rows, device = list(evaluation_rows(data)), model.device
        padding = model.config.pad_token_id or 0
        self.forward, self.dtype = forward, half or torch.float32
        self.walk = Walk(data, len(rows), EVALUATION_BATCH, limit, padding, device)
        self.walk.restart([rows])
        labels = int(model.config.num_labels or 0)
        self.found = torch.zeros(seeds, len(data), labels, device=device)
        self._captured = Captured(self._score, device, self.walk.at.zero_)
        self._captured.prepare(self.walk.shapes)

    def logits(self) -> Tensor:
        """Return the logits (seeds x examples x labels); the next call overwrites them."""
        self.walk.at.zero_()
        for shape in self.walk.shapes:
            self._captured(shape)
        return self.found

    @torch.no_grad()
    def _score(self, size: int, length: int) -> None:
        batch = self.walk.batch(size, length, self.dtype)
        self.found.index_copy_(1, batch.rows[0], self.forward(batch.inputs))
        self.walk.at.add_(1)
