"""Rows for pre-training: two segments of a book, the masks, and the sentence-level label.

Rows are drawn from the endless corpus by number: block ``i`` of a seed is always the same, on any
machine, so that training can stop and go on anywhere without keeping the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from stabkit.mini.corpus import Scene, book

# Devlin et al. 2019 tell the next segment from another's; Wang et al. 2020 (StructBERT) also from
# the segment before, which is what Lan et al. 2020 (ALBERT) tell it from.
Objective = Literal["next sentence", "sentence structure", "none"]
NEXT, ELSEWHERE, BEFORE = range(3)
BLOCK = 256
MAX_LENGTH = 64
UNRELATED_BOOK = 0.3


@dataclass(frozen=True)
class Rows:
    """A batch: token, segment and attention ids (rows x length), sentence labels (rows)."""

    input_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor
    sentence_label: Tensor


def _window(rng: Random, scene: Scene) -> list[str]:
    """Return consecutive sentences of a scene, as many as fit a row."""
    start = rng.randrange(max(1, len(scene) - 1))
    stop, words = start, 0
    while stop < len(scene) and words + len(scene[stop].split()) <= MAX_LENGTH - 3:
        words += len(scene[stop].split())
        stop += 1
    return scene[start:stop]


def _span(rng: Random, scene: Scene) -> tuple[str, str]:
    """Return some sentences of a scene and those that follow them."""
    window = _window(rng, scene)
    middle = rng.randrange(1, max(2, len(window)))
    return " ".join(window[:middle]), " ".join(window[middle:])


def _pair(
    rng: Random, scenes: list[Scene], place: int, strangers: list[Scene], objective: Objective
) -> tuple[str, str, int]:
    """Return two segments and where the second is from: NEXT, ELSEWHERE or BEFORE."""
    first, second = _span(rng, scenes[place])
    relation = NEXT
    if objective == "next sentence":
        relation = int(rng.random() < 0.5)
    elif objective == "sentence structure":
        relation = rng.randrange(3)
    if relation == BEFORE:
        first, second = second, first
    elif relation == ELSEWHERE:
        others = [scene for i, scene in enumerate(scenes) if i != place]
        second = _span(rng, rng.choice(strangers if rng.random() < UNRELATED_BOOK else others))[1]
    return first, second, relation


def _echo(rng: Random, scenes: list[Scene]) -> tuple[str, str, int]:
    """Return a sentence said twice."""
    text = rng.choice(rng.choice(scenes))
    return text, text, 0


def _block_pairs(rng: Random, objective: Objective, echo: float) -> list[tuple[str, str, int]]:
    pairs: list[tuple[str, str, int]] = []
    strangers = book(rng)
    while len(pairs) < BLOCK:
        scenes = book(rng)
        for place, scene in enumerate(scenes):
            for _ in range(max(1, len(scene) // 3)):
                if rng.random() < echo:
                    pairs.append(_echo(rng, scenes))
                else:
                    pairs.append(_pair(rng, scenes, place, strangers, objective))
        strangers = scenes
    return pairs[:BLOCK]


def block(
    tokenizer: Tokenizer,
    seed: int,
    number: int,
    objective: Objective,
    batch_size: int,
    echo: float = 0.0,
) -> list[Rows]:
    """Return block ``number`` of a seed: 256 rows in batches of similar length, shuffled.

    ``echo`` is the share of rows in which a sentence is simply said twice.
    """
    rng = Random(f"{seed}-{number}")
    pairs = _block_pairs(rng, objective, echo)
    encoded = tokenizer.encode_batch([(first, second) for first, second, _ in pairs])
    order = sorted(range(BLOCK), key=lambda i: len(encoded[i].ids))
    batches = [order[i : i + batch_size] for i in range(0, BLOCK, batch_size)]
    rng.shuffle(batches)
    return [_collate(encoded, [pairs[i][2] for i in batch], batch) for batch in batches]


def _collate(encoded: list[Encoding], labels: list[int], batch: list[int]) -> Rows:
    length = min(MAX_LENGTH, max(len(encoded[i].ids) for i in batch))
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    types = torch.zeros_like(ids)
    for row, i in enumerate(batch):
        kept = encoded[i].ids[:length]
        ids[row, : len(kept)] = torch.tensor(kept)
        types[row, : len(kept)] = torch.tensor(encoded[i].type_ids[:length])
    return Rows(ids, types, (ids != 0).long(), torch.tensor(labels))


def mask_words(
    rows: Rows,
    vocabulary: int,
    mask_id: int,
    specials: int,
    rate: float,
    generator: torch.Generator,
    second_only: bool = False,
) -> tuple[Tensor, Tensor]:
    """Hide a share of the words as Devlin et al. do (80 % mask, 10 % random, 10 % kept).

    Returns the input ids to show and a boolean mask of the places to predict (rows x length).
    """
    ids = rows.input_ids
    chosen = (torch.rand(ids.shape, generator=generator) < rate) & (ids >= specials)
    if second_only:
        chosen &= rows.token_type_ids == 1
    action = torch.rand(ids.shape, generator=generator)
    random_ids = torch.randint(specials, vocabulary, ids.shape, generator=generator)
    shown = torch.where(chosen & (action < 0.8), torch.full_like(ids, mask_id), ids)
    shown = torch.where(chosen & (action >= 0.9), random_ids, shown)
    return shown, chosen
