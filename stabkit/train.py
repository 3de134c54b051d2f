"""One fine-tuning run: configuration in, result out, the same bits on the same machine.

``run`` is what sweeps call. The training loop itself is ``stabkit.loop.fine_tune``.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

import stabkit
from stabkit import checkpoints, models
from stabkit.batches import Encoded, encode
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, StoreError
from stabkit.geometry import Weights
from stabkit.loop import ExecutorName, Learner, Watch, fine_tune, unwatched
from stabkit.mixout import plain_state
from stabkit.pinned import pin, task_of
from stabkit.precision import best_precision
from stabkit.records import (
    Records,
    dev_summary,
    gradients,
    hardware,
    history,
    provenance,
    train_summary,
)
from stabkit.results import RunResult
from stabkit.static import forget, static_learner, supported
from stabkit.tasks import Task, subset
from stabkit.together import can_stack, check_one_recipe, stacked_learner

__all__ = [
    "ExecutorName",
    "Learner",
    "Trainer",
    "best_executor",
    "best_precision",
    "choose_device",
    "fine_tune",
    "follow",
    "pin",
    "run",
    "run_seeds",
    "task_of",
    "trained_model",
    "trainer",
    "unwatched",
    "visible_gpus",
]


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, each as CUDA_VISIBLE_DEVICES would name it."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else map(str, range(count))
    return [name.strip() for name in names][:count]


def best_executor(device: torch.device) -> ExecutorName:
    """Return the executor that is quickest on a device."""
    return "graph" if device.type == "cuda" else "fast"


def run(
    config: RunConfig,
    executor: ExecutorName | None = None,
    threads: int = 1,
    device: torch.device | None = None,
) -> RunResult:
    """Fine-tune as ``config`` says and return the result with its provenance.

    The executor is by default the quickest that the device has: "graph" on a GPU, "fast" on a
    CPU. A model of another family than it knows is run by "plain", the reference. A loss that is
    not finite is recorded (``diverged``), not raised. Raises StabkitError for models, data or
    options that cannot be used.
    """
    config, device = pin(config), device or choose_device()
    torch.set_num_threads(threads)
    started = time.perf_counter()
    done = _train(config, executor, device)
    logits = done.trainer.evaluate(done.train)
    made = provenance(device, threads, done.trainer.executor)
    return _result(config, done.task, done.records, logits, time.perf_counter() - started, made)


def _result(
    config: RunConfig,
    task: Task,
    records: Records,
    logits: NDArray[np.float32],
    seconds: float,
    made: dict[str, Any],
) -> RunResult:
    summary = {
        **dev_summary(records, task),
        **train_summary(logits, records, task),
        "seconds": seconds,
        **made,
    }
    return RunResult(config, summary, history(records, task), gradients(records))


def run_seeds(
    configs: Sequence[RunConfig], threads: int = 1, device: torch.device | None = None
) -> list[RunResult]:
    """Run the seeds of one recipe at once and return their results, in order.

    Each is what the seed's run alone would have given: equal to rounding without dropout, equal
    in distribution with it. That pays for models too small to fill a GPU; memory is that of all
    runs together. ``seconds`` is a run's share of the whole. What cannot be run at once (see
    ``stabkit.together``) is run one after the other. Raises ConfigError where configurations
    differ in more than their seeds, and what ``run`` raises.
    """
    check_one_recipe(configs)
    configs, device = [pin(config) for config in configs], device or choose_device()
    if not can_stack(configs[0]):
        return [run(config, threads=threads, device=device) for config in configs]
    torch.set_num_threads(threads)
    started = time.perf_counter()
    task, train, dev = _texts(configs[0])
    with _within_memory(configs[0], device, f", for {len(configs)} seeds at once,"):
        learner = stacked_learner(configs[0], len(task.labels), device, train, len(configs))
        records = learner.fine_tune(configs, dev)
        logits = learner.evaluate(train)
    seconds = (time.perf_counter() - started) / len(configs)
    made = provenance(device, threads, "together")
    return [
        _result(config, task, records[i], logits[i], seconds, made)
        for i, config in enumerate(configs)
    ]


def trained_model(
    config: RunConfig,
    executor: ExecutorName | None = None,
    threads: int = 1,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Return the fine-tuned classifier of a configuration, from the cache or by running it.

    A second run gives the same bits on the same machine, executor and threads, so what is missing
    in the cache (``stabkit.checkpoints``) is made again. (On a GPU not beyond 128 tokens, where
    attention's backward pass adds in no fixed order; up to there torch promises nothing, and it has
    not been measured.) The result is a model of transformers like any other, in evaluation mode,
    with fp32 weights and the configured dropouts; nothing of executor or Mixout is left in it.
    Raises as ``run`` does.
    """
    config, device = pin(config), device or choose_device()
    executor = executor or best_executor(device)
    unit = hashlib.sha256(hardware(device).encode()).hexdigest()[:8]
    made_by = f"{device.type}-{unit}-{executor}-{threads}-{stabkit.__version__}-{torch.__version__}"
    name = f"{config.key}-{made_by}"
    weights = checkpoints.load(name)
    if weights is None:
        torch.set_num_threads(threads)
        weights = dict(_train(config, executor, device).trainer.weights())
        try:
            checkpoints.keep(name, weights)
        except StoreError as problem:  # what is trained is worth more than the cache
            warnings.warn(f"the weights are not kept for next time: {problem}", stacklevel=2)
    model = models.build(config, len(task_of(config).labels))
    model.load_state_dict(weights)
    model.to(device)  # type: ignore[arg-type]
    return model


def follow(
    config: RunConfig,
    watch: Callable[[int, Weights], None],
    executor: ExecutorName | None = None,
    threads: int = 1,
    device: torch.device | None = None,
) -> None:
    """Make a run again and show its weights to ``watch`` before the first step and after each.

    ``watch`` is called with the number of steps done and the weights, named as ``trained_model``
    has them. They are those in training: copy what is to be kept, and change nothing, gradients
    included. The run is the same to the bit, watched or not. Raises as ``run`` does.
    """

    def named(step: int, model: nn.Module) -> None:
        watch(step, plain_state(model))

    torch.set_num_threads(threads)
    _train(pin(config), executor, device or choose_device(), named)


class Trainer(NamedTuple):
    """How one run is trained, whoever does it: ``executor``, by its name.

    ``fine_tune`` takes the dev examples and who is to watch, and trains from the start where the
    executor is "graph", else from where the model is; ``evaluate`` returns the logits (examples x
    labels) in evaluation mode.
    """

    executor: ExecutorName
    fine_tune: Callable[[Encoded, Watch], Records]
    evaluate: Callable[[Encoded], NDArray[np.float32]]
    weights: Callable[[], Weights]


def trainer(
    config: RunConfig,
    labels: int,
    device: torch.device,
    train: Encoded,
    executor: ExecutorName | None = None,
) -> Trainer:
    """Return what trains a configuration on a device, by default its quickest executor."""
    executor = executor or best_executor(device)
    if executor == "together":
        raise ConfigError(
            "a run that was made together with others cannot be made again alone to the bit; name "
            "another executor for a run that is equal in distribution"
        )
    if executor == "graph" and supported(config):
        static = static_learner(config, labels, device, train)
        return Trainer(
            "graph",
            lambda dev, watch: static.fine_tune([config], dev, watch)[0],
            lambda data: static.evaluate(data)[0],
            static.weights,
        )
    learner = Learner.build(config, labels, device, executor)
    return Trainer(
        learner.executor,
        lambda dev, watch: fine_tune(learner, train, dev, watch),
        learner.evaluate,
        learner.weights,
    )


class _Done(NamedTuple):
    """A run at its end."""

    trainer: Trainer
    task: Task
    train: Encoded
    records: Records


def _train(
    config: RunConfig,
    executor: ExecutorName | None,
    device: torch.device,
    watch: Watch = unwatched,
) -> _Done:
    task, train, dev = _texts(config)
    with _within_memory(config, device):
        made = trainer(config, len(task.labels), device, train, executor)
        return _Done(made, task, train, made.fine_tune(dev, watch))


@contextmanager
def _within_memory(config: RunConfig, device: torch.device, also: str = "") -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        forget()  # the learner that was too large: its graphs may be half recorded
        raise ConfigError(
            f"{config.model} with batches of {config.batch_size} texts of up to "
            f"{config.max_length} tokens{also} does not fit into the memory of {hardware(device)}; "
            f"expected a smaller batch_size or max_length{', or fewer seeds at once' * bool(also)}"
        ) from error


def _texts(config: RunConfig) -> tuple[Task, Encoded, Encoded]:
    task = task_of(config)
    if config.train_size is not None:
        task = _subset(task, config.train_size, config.subset_seed)
    return task, encode(config, task.train), encode(config, task.dev)


_subset = lru_cache(maxsize=8)(subset)  # the same object, so what is made for it is found again
