"""What was read of one's own data, in a sentence, and what about it may spoil the runs.

A wrong column or a cut text raises nothing: runs train on it, and their scores look like a model's
fault. So a command that trains on a file of one's own says first what it found there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabkit import models
from stabkit.config import RunConfig
from stabkit.pinned import task_of
from stabkit.presets import is_mini
from stabkit.tasks import NAMES, Split, Task

SAMPLE = 500  # training texts whose tokens are looked at
MANY, FEW = 0.1, 0.01  # shares of tokens unknown, and of texts cut, that are worth a word
SHOWN = 10  # labels that are counted


def found(config: RunConfig) -> list[str]:
    """Return what a configuration's own data are, as a line, and a line for each doubt about them.

    Nothing for data sets that are known by name.
    """
    if config.task in NAMES:
        return []
    task = task_of(config)
    counts = np.bincount(task.train.labels, minlength=len(task.labels))
    labels = [f"{name} {n}" for name, n in zip(task.labels, counts, strict=True)]
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    line = (
        f"{task.source}: {len(task.train):,} training examples "
        f"({', '.join(labels[:SHOWN])}{more}), {len(task.dev):,} dev examples"
    )
    return [line, *_of_texts(task), *_of_tokens(config, task.train)]


def _of_texts(task: Task) -> Iterator[str]:
    train, dev = (set(_examples(split)) for split in (task.train, task.dev))
    if shared := sum(example in train for example in _examples(task.dev)):
        yield (
            f"{shared} of the {len(task.dev)} dev examples are also training examples, "
            "so scores are too high"
        )
    if empty := sum(not any(map(str.strip, example)) for example in train | dev):
        yield f"{empty} examples have no text at all"
    folded = [name.casefold() for name in task.labels]
    if alike := [name for name in task.labels if folded.count(name.casefold()) > 1]:
        yield f"the labels {', '.join(alike)} differ in capitals only, but count as different"


def _examples(split: Split) -> Iterator[tuple[str, ...]]:
    return zip(*(texts for texts in (split.texts_a, split.texts_b) if texts), strict=True)


def _of_tokens(config: RunConfig, train: Split) -> Iterator[str]:
    tokenizer = models.load_tokenizer(config.model)
    examples = list(_examples(train))[:SAMPLE]
    ids = [tokenizer(*example, verbose=False)["input_ids"] for example in examples]
    cut = np.mean([len(tokens) > config.max_length for tokens in ids])
    if cut > FEW:
        yield (
            f"{100 * cut:.0f} % of the texts are longer than max_length, {config.max_length} "
            "tokens, and are cut"
        )
    unknown = np.mean(np.concatenate(ids) == tokenizer.unk_token_id)
    if unknown > MANY:
        cure = "; it knows only generated English: choose another" if is_mini(config.model) else ""
        yield f"{100 * unknown:.0f} % of the tokens are unknown to {config.model}{cure}"
