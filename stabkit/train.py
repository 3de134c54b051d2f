"""One fine-tuning run: configuration in, result out, the same bits on the same machine.

``run`` is what sweeps call. The training loop itself is ``stabkit.loop.fine_tune``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

import stabkit
from stabkit import checkpoints, models
from stabkit.batches import Encoded, encode
from stabkit.config import RunConfig
from stabkit.errors import StoreError
from stabkit.geometry import Weights
from stabkit.loop import ExecutorName, Learner, Watch, fine_tune
from stabkit.mixout import plain_name
from stabkit.pinned import pin, task_of
from stabkit.records import Records, dev_summary, gradients, history, provenance, train_summary
from stabkit.results import RunResult
from stabkit.tasks import Task, subset

__all__ = [
    "ExecutorName",
    "Learner",
    "choose_device",
    "fine_tune",
    "follow",
    "pin",
    "run",
    "task_of",
    "trained_model",
]


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run(
    config: RunConfig,
    executor: ExecutorName = "fast",
    threads: int = 1,
    device: torch.device | None = None,
) -> RunResult:
    """Fine-tune as ``config`` says and return the result with its provenance.

    A loss that is not finite is recorded (``diverged``), not raised. Raises StabkitError for
    models, data or options that cannot be used.
    """
    config = pin(config)
    torch.set_num_threads(threads)
    started = time.perf_counter()
    learner, records, task, encoded = _train(config, executor, device or choose_device())
    train, _ = encoded
    summary = {
        **dev_summary(records, task),
        **train_summary(learner.evaluate(train), records, task),
        "seconds": time.perf_counter() - started,
        **provenance(learner.device, threads, learner.executor),
    }
    return RunResult(config, summary, history(records, task), gradients(records))


def trained_model(
    config: RunConfig,
    executor: ExecutorName = "fast",
    threads: int = 1,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Return the fine-tuned classifier of a configuration, from the cache or by running it.

    A second run gives the same bits on the same machine, executor and threads, so what is missing
    in the cache (``stabkit.checkpoints``) is made again. The result is a model of transformers
    like any other, in evaluation mode, with fp32 weights and the configured dropouts; nothing of
    executor or Mixout is left in it. Raises as ``run`` does.
    """
    config, device = pin(config), device or choose_device()
    made_by = f"{device.type}-{executor}-{threads}-{stabkit.__version__}-{torch.__version__}"
    name = f"{config.key}-{made_by}"
    weights = checkpoints.load(name)
    if weights is None:
        torch.set_num_threads(threads)
        weights = _train(config, executor, device)[0].model.state_dict()
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
    executor: ExecutorName = "fast",
    threads: int = 1,
    device: torch.device | None = None,
) -> None:
    """Make a run again and show its weights to ``watch`` before the first step and after each.

    ``watch`` is called with the number of steps done and the weights, named as ``trained_model``
    has them. They are those in training: copy what is to be kept, and change nothing. The run is
    the same to the bit, watched or not. Raises as ``run`` does.
    """

    def named(step: int, model: nn.Module) -> None:
        watch(step, {plain_name(name): x for name, x in model.state_dict().items()})

    torch.set_num_threads(threads)
    _train(pin(config), executor, device or choose_device(), named)


def _train(
    config: RunConfig, executor: ExecutorName, device: torch.device, watch: Watch = lambda *_: None
) -> tuple[Learner, Records, Task, tuple[Encoded, Encoded]]:
    task = task_of(config)
    if config.train_size is not None:
        task = subset(task, config.train_size, config.subset_seed)
    train, dev = (encode(config, split) for split in (task.train, task.dev))
    learner = Learner.build(config, len(task.labels), device, executor)
    return learner, fine_tune(learner, train, dev, watch), task, (train, dev)
