"""A tokenised split on the device, and batches of it that are known before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stabkit.batches import Encoded
from stabkit.fused import MASKED
from stabkit.graph import Shape

BUCKET = 16  # tokens: batches are padded to a multiple of it, so few shapes occur

Rows = Sequence[NDArray[np.int64]]  # the row numbers of each batch


@dataclass(frozen=True, eq=False)
class Batch:
    """Row numbers (seeds x examples), the model's arguments (seeds x examples x ...), labels."""

    rows: Tensor
    inputs: dict[str, Tensor]
    labels: Tensor


class Walk:
    """The way through a split: ``batch`` is the next one, found by a counter on the device.

    Each of ``seeds`` models goes its own way, in batches of one shape. ``limit`` is the number of
    tokens that the model has positions for, ``padding`` the id of its padding.
    """

    def __init__(
        self,
        data: Encoded,
        batches: int,
        size: int,
        limit: int,
        padding: int,
        device: torch.device,
        seeds: int = 1,
    ) -> None:
        """Put the split on the device; ``restart`` says in which order it is walked."""
        self.data, self.limit = data, limit
        missing = max(0, self._padded(data.ids.shape[1]) - data.ids.shape[1])
        pad = torch.nn.functional.pad
        self.ids = pad(data.ids, (0, missing), value=padding).to(device)
        segments = data.segments
        self.segments = None if segments is None else pad(segments, (0, missing)).to(device)
        self.lengths = torch.from_numpy(data.lengths).to(device)
        self.labels = torch.tensor(data.labels, device=device)
        self.places = torch.arange(self.ids.shape[1], device=device)
        self.order = torch.zeros(batches, seeds, size, dtype=torch.long, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.shapes: list[Shape] = []

    def restart(self, ways: Sequence[Rows]) -> None:
        """Begin again, with the batches of each seed."""
        order = np.zeros(self.order.shape, dtype=np.int64)
        self.shapes = []
        for number, batch in enumerate(zip(*ways, strict=True)):
            rows = np.stack(batch)
            order[number, :, : rows.shape[1]] = rows
            longest = int(self.data.lengths[rows].max())
            self.shapes.append((rows.shape[1], self._padded(longest)))
        self.order.copy_(torch.from_numpy(order))
        self.at.zero_()

    def batch(self, size: int, length: int, dtype: torch.dtype) -> Batch:
        """Return the batch at the counter, cut to a shape; ``dtype`` is that of the scores."""
        rows = self.order.index_select(0, self.at)[0, :, :size]
        flat = rows.flatten()
        inputs = {"input_ids": self.ids[:, :length].index_select(0, flat)}
        if self.segments is not None:
            inputs["token_type_ids"] = self.segments[:, :length].index_select(0, flat)
        beyond = self.places[:length] >= self.lengths.index_select(0, flat)[:, None]
        inputs["attention_mask"] = (beyond.to(dtype) * MASKED)[:, None, None]
        by_seed = {name: x.view(*rows.shape, *x.shape[1:]) for name, x in inputs.items()}
        return Batch(rows, by_seed, self.labels.index_select(0, flat).view(rows.shape))

    def _padded(self, length: int) -> int:
        return min(-(-length // BUCKET) * BUCKET, self.limit)
