"""Rows of real text: windows of a stream of tokens, in two segments, with words hidden.

A row is [CLS] A [SEP] B [SEP], 128 tokens, never padded. A begins anywhere and ends with the
sentence that ends nearest to the row's middle (in its middle half; else at the middle). B is what
follows in the text, or, in half of the rows, what follows the A of another row of the batch: the
sentence-level label says which (0: follows, 1: another's). Windows run on from one document into
the next, across the [SEP] between them; that makes few labels wrong (an article of this project's
text fills about thirty windows).

An epoch goes through all windows once, in a new order and from a new offset. In each row the same
number of words is hidden, so that shapes never change: that is what a GPU is fast at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from stabkit.errors import DataError
from stabkit.mini.anatomy import MAX_POSITIONS, SPECIALS, Anatomy
from stabkit.mini.batch import Batch
from stabkit.mini.text import Tokens, name_of

LENGTH, BODY = MAX_POSITIONS, MAX_POSITIONS - 3  # of a row; without its three special tokens
MIDDLE, NEAR = BODY // 2, BODY // 4
AS_MASK, AS_ANOTHER = 0.8, 0.1  # Devlin et al. (2019): how the hidden words are shown
HELD_OUT_ROWS, HELD_OUT_SEED = 512, 7
IGNORED = -100


class Windows:
    """A text as a source of rows (``stabkit.mini.batch.Source``), whole on the model's device."""

    def __init__(
        self,
        plan: Anatomy,
        tokenizer: Tokenizer,
        text: tuple[Tokens, str],
        held_out: tuple[Tokens, str],
        device: torch.device,
    ) -> None:
        """Take the streams of ``stabkit.mini.text.stream``.

        Raises DataError for a text too short for a batch, and for one held out that has no row.
        """
        self.plan, self.tokenizer, self.device = plan, tokenizer, device
        self.identity: dict[str, Any] = {
            "vocabulary": name_of(tokenizer),
            "text": text[1],
            "held-out text": held_out[1],
        }
        self._check("the text", text[0], plan.batch_size)
        self._check("the held-out text", held_out[0], 2)
        self.text, self.other = (torch.from_numpy(t).to(device) for t in (text[0], held_out[0]))
        self.hidden = round(plan.mask_rate * BODY)
        self.cls, self.sep, self.mask = map(SPECIALS.index, ("[CLS]", "[SEP]", "[MASK]"))
        self.stop: int = tokenizer.token_to_id(".") or -1
        self._order = lru_cache(maxsize=1)(self._new_order)

    def _check(self, name: str, tokens: Tokens, rows: int) -> None:
        if (found := count(len(tokens))) < rows:
            raise DataError(
                f"{name} has {len(tokens):,} tokens, enough for {found} rows of {LENGTH}; expected "
                f"{rows} or more: give more text, or a smaller --batch-size"
            )

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        size = self.plan.batch_size
        epoch, number = divmod(step, count(len(self.text)) // size)
        generator = torch.Generator(self.device)
        generator.manual_seed(self.plan.seed * self.plan.steps + step)
        starts = self._order(epoch)[number * size : (number + 1) * size]
        return self._hidden(*self.rows(self.text, starts, generator), generator)

    def _new_order(self, epoch: int) -> Tensor:
        """Return where the windows of an epoch begin, in its order."""
        rng = np.random.default_rng((self.plan.seed, epoch))
        places = rng.permutation(count(len(self.text))) * BODY + rng.integers(BODY)
        return torch.from_numpy(places).to(self.device)

    def held_out(self, step: int) -> Iterator[Batch]:
        """Yield the first rows of the held-out text, with fixed masks, whatever the step."""
        generator = torch.Generator(self.device).manual_seed(HELD_OUT_SEED)
        starts = torch.arange(min(HELD_OUT_ROWS, count(len(self.other))), device=self.device) * BODY
        size = min(self.plan.batch_size, len(starts))
        for some in torch.split(starts[: len(starts) // size * size], size):
            yield self._hidden(*self.rows(self.other, some, generator), generator)

    def rows(
        self, text: Tensor, starts: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the token ids and segments (rows x 128) and labels (rows) of the windows."""
        first = self._first_segment(text, starts)
        follows = starts + first
        label = (torch.rand(starts.shape, generator=generator, device=self.device) < 0.5).long()
        second = torch.where(label == 1, follows.roll(1), follows)
        place = torch.arange(LENGTH, device=self.device)[None]
        a, b = starts[:, None] + place - 1, (second - first)[:, None] + place - 2
        segments = (place > first[:, None] + 1).long()
        ids = text[torch.where(segments == 1, b, a).clamp(0, len(text) - 1)].long()
        ids[:, 0] = self.cls
        ends = (place == first[:, None] + 1) | (place == LENGTH - 1)
        return ids.masked_fill(ends, self.sep), segments, label

    def _first_segment(self, text: Tensor, starts: Tensor) -> Tensor:
        """Return how many words of each window its first segment has."""
        place = torch.arange(BODY, device=self.device)
        distance = (place + 1 - MIDDLE).abs()
        stops = torch.eq(text[starts[:, None] + place], self.stop)
        nearest, where = distance.expand_as(stops).masked_fill(~stops, BODY).min(1)
        return torch.where(nearest <= NEAR, where + 1, MIDDLE)

    def _hidden(
        self, ids: Tensor, segments: Tensor, label: Tensor, generator: torch.Generator
    ) -> Batch:
        """Hide the same number of words in each row; special tokens and unknown words never."""
        score = torch.rand(ids.shape, generator=generator, device=self.device)
        best, places = score.masked_fill(ids < len(SPECIALS), -1.0).topk(self.hidden)
        true = ids.gather(1, places)
        action = torch.rand(true.shape, generator=generator, device=self.device)
        words = (len(SPECIALS), self.tokenizer.get_vocab_size())
        others = torch.randint(*words, true.shape, generator=generator, device=self.device)
        asked = best >= 0
        new = torch.where(asked & (action >= 1 - AS_ANOTHER), others, true)
        new = new.masked_fill(asked & (action < AS_MASK), self.mask)
        inputs = {"input_ids": ids.scatter(1, places, new), "token_type_ids": segments}
        row = torch.arange(len(ids), device=self.device)[:, None]
        targets = true.masked_fill(~asked, IGNORED)
        return Batch(inputs, (row * LENGTH + places).flatten(), targets.flatten(), label)


def count(tokens: int) -> int:
    """Return how many windows an epoch has: any offset and any second segment must fit."""
    return max(0, (tokens - 2 * BODY) // BODY)
