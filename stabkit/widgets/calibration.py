"""How fast runs go on this device: a few real steps, timed in a process like those of a sweep."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from stabkit import train
from stabkit.batches import Encoded, encode
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.records import provenance
from stabkit.tasks import subset
from stabkit.workers import Lost, spread

TIMED = 10  # steps
T = TypeVar("T")
SCORED = 128  # dev examples
MOST = 4  # runs at a time, unless asked for: each has a model in memory


def device() -> str:
    """Return what the runs are done on."""
    found = provenance(train.choose_device(), 1, "")
    return f"{'GPU' if found['device'] == 'cuda' else 'processor'}: {found['hardware']}"


def usable_processes() -> int:
    """Return how many runs to do at a time: one on a GPU, else one on each core, up to MOST."""
    if torch.cuda.is_available():
        return 1
    usable = getattr(os, "sched_getaffinity", None)  # not on every system
    return min(MOST, len(usable(0)) if usable else os.cpu_count() or 1)


@dataclass(frozen=True)
class Speed:
    """Seconds that building a model, a training step and scoring an example take."""

    start: float
    step: float
    example: float

    def seconds(self, config: RunConfig, train: int, dev: int) -> float:
        """Return about how long a run takes on so many training and dev examples."""
        steps = config.steps(train)
        looks = 1 + steps * config.evals_per_epoch / config.steps_per_epoch(train)
        scored = (config.train_size or train) + looks * dev
        return self.start + steps * self.step + scored * self.example


def pace(config: RunConfig) -> RunConfig:
    """Return the configuration that stands for all runs of the same speed."""
    same = config.replace(seed=0, learning_rate=1e-4, warmup=0.1)
    same = same.replace(bias_correction=True, multiplier="none")
    return same.replace(epochs=1, max_steps=None)


def calibrate(
    paces: Iterable[RunConfig], stop: threading.Event
) -> Iterator[tuple[RunConfig, Speed]]:
    """Measure one after the other in a spawned process, of one thread as runs have it.

    Raises StabkitError when steps cannot be done.
    """
    for config, found in spread(deque(paces), measure, lambda _: None, stop, processes=1):
        if isinstance(found, Lost):
            raise StabkitError(
                f"nothing was measured, because {found.how}; choose a smaller model, batch_size or "
                "max_length if memory ran out"
            )
        if isinstance(found, str):
            raise StabkitError(found)
        yield config, found


def measure(config: RunConfig) -> Speed | str:
    """Return the speed of a configuration's runs here, or what stands in the way."""
    try:
        return _measured(config)
    except Exception as error:  # a worker's task must not raise
        return f"{'' if isinstance(error, StabkitError) else type(error).__name__ + ': '}{error}"


def _measured(config: RunConfig) -> Speed:
    torch.set_num_threads(1)
    task = train.task_of(config)
    few = subset(task, min(TIMED * config.batch_size, len(task.train)), seed=0).train
    scored = task.dev.take(np.arange(min(SCORED, len(task.dev))))
    texts = encode(config, few), encode(config, scored)
    return _timed(config, *texts, len(task.labels))


def _timed(config: RunConfig, few: Encoded, scored: Encoded, labels: int) -> Speed:
    """Time a run of some steps at its second go: the first is slower, on a GPU by far."""
    short = config.replace(epochs=None, max_steps=TIMED, evals_per_epoch=0)
    start, trainer = _seconds(lambda: train.trainer(short, labels, train.choose_device(), few))
    trainer.fine_tune(scored, train.unwatched)
    trained, _ = _seconds(lambda: trainer.fine_tune(scored, train.unwatched))  # scores them once
    scoring, _ = _seconds(lambda: trainer.evaluate(scored))
    return Speed(start, max(trained - scoring, 0.0) / TIMED, scoring / len(scored))


def _seconds(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done
