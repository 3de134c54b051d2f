"""One fine-tuning run: configuration in, result out, the same bits on the same machine.

``run`` is what sweeps call. ``fine_tune`` is the training loop itself: read it top to bottom.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

import stabkit
from stabkit import checkpoints, models
from stabkit.batches import Encoded, encode, evaluation_batches, training_batches
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, StoreError
from stabkit.fast import FastExecutor, supports
from stabkit.files import Stamp, stamp
from stabkit.geometry import Weights
from stabkit.mixout import apply_mixout, plain_name, remove_mixout
from stabkit.optim import AdamW, parameter_groups
from stabkit.records import Records, dev_summary, gradients, history, provenance, train_summary
from stabkit.results import RunResult
from stabkit.schedule import hidden_multiplier, linear_schedule
from stabkit.sources import DATA_VARIABLE
from stabkit.tasks import Task, load_task, subset

ExecutorName = Literal["fast", "plain"]
Watch: TypeAlias = Callable[[int, nn.Module], None]  # is told the steps done and the model


def task_of(config: RunConfig) -> Task:
    """Return the task of a configuration; its files are read once, and again when they change."""
    arguments = (config.task, None, config.dev_file, config.text_columns, config.label_column)
    named = os.environ.get(DATA_VARIABLE)
    return _load_task(arguments, named, stamp(config.task), stamp(config.dev_file))


@lru_cache
def _load_task(arguments: tuple[Any, ...], _folder: str | None, *_stamps: Stamp) -> Task:
    return load_task(*arguments)


def pin(config: RunConfig) -> RunConfig:
    """Return the configuration with the digests of its weights, tokenizer and data.

    Raises ConfigError when it names other digests than the files now have.
    """
    weights, tokenizer = models.digests(config.model)
    found = {"weights": weights, "tokenizer": tokenizer, "data": task_of(config).digest}
    for name, digest in found.items():
        if getattr(config, name) not in ("", digest):
            raise ConfigError(
                f"the {name} of {config.model} and {config.task} changed: digest "
                f"{digest[:12]}, but the configuration expects {getattr(config, name)[:12]}; "
                "restore the files, or clear the digest to run on the new ones"
            )
    return config.replace(**found)


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class Learner:
    """A model in training with all that its steps need."""

    config: RunConfig
    model: PreTrainedModel
    labels: int
    device: torch.device
    fast: FastExecutor | None

    @classmethod
    def build(
        cls, config: RunConfig, labels: int, device: torch.device, executor: ExecutorName
    ) -> Learner:
        """Build the classifier; the fast executor is for CPUs and models that it supports."""
        model = models.build(config, labels)
        model.to(device)  # type: ignore[arg-type]
        assert config.dropout_seed is not None
        torch.manual_seed(config.dropout_seed)
        use_fast = executor == "fast" and device.type == "cpu" and supports(model)
        fast = FastExecutor(model, config.dropout_seed) if use_fast else None
        if config.mixout:
            generator = torch.Generator(device).manual_seed(config.dropout_seed)
            apply_mixout(
                model, config.mixout, generator, config.mixout_mask, config.mixout_rescale_gradient
            )
        return cls(config, model, labels, device, fast)

    @property
    def executor(self) -> ExecutorName:
        """Which executor runs the model."""
        return "fast" if self.fast else "plain"

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Return fp32 logits (batch x labels) for token ids, mask and (where used) segments."""
        half = self.config.precision == "bf16"
        inputs: dict[str, Any] = {name: x.to(self.device) for name, x in batch.items()}
        if self.fast:
            inputs = self.fast.inputs(inputs, torch.bfloat16 if half else torch.float32)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits: Tensor = self.model(**inputs).logits
        return logits.float()

    @torch.no_grad()
    def evaluate(self, data: Encoded) -> NDArray[np.float32]:
        """Return the logits (examples x labels) in evaluation mode."""
        self.model.eval()  # type: ignore[no-untyped-call]
        logits = torch.zeros(len(data), self.labels)
        for rows, batch in evaluation_batches(data):
            logits[rows] = self.logits(batch).cpu()
        self.model.train()
        return logits.numpy()


def _rates(config: RunConfig, steps: int) -> NDArray[np.float64]:
    """Return the learning rate of each step (section 3.2; the control of section 5.1)."""
    t = np.arange(1, steps + 1)
    shares = linear_schedule(t, steps, config.warmup, config.zero_first_update)
    if config.multiplier == "none":
        return config.learning_rate * shares
    hidden = hidden_multiplier(t, config.beta1, config.beta2)
    factor = hidden if config.multiplier == "times" else 1 / hidden
    return config.learning_rate * shares * factor


def _optimizer(config: RunConfig, model: nn.Module) -> AdamW:
    return AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        bias_correction=config.bias_correction,
        eps_placement=config.eps_placement,
        decay_after_step=config.decay_after_step,
    )


def _evaluation_steps(config: RunConfig, per_epoch: int, steps: int) -> set[int]:
    """Return the steps after which the dev set is scored: evenly in each epoch, and the last."""
    if not config.evals_per_epoch:
        return {steps}
    every = per_epoch / config.evals_per_epoch
    count = math.floor(steps / every + 1e-9)
    return {0, steps, *(round(every * i) for i in range(1, count + 1))}


def fine_tune(
    learner: Learner, train: Encoded, dev: Encoded, watch: Watch = lambda *_: None
) -> Records:
    """Train the model in place and return what was measured; no step waits for the device."""
    config, model = learner.config, learner.model
    per_epoch = config.steps_per_epoch(len(train))
    steps = config.steps(len(train))
    optimizer, rates = _optimizer(config, model), _rates(config, steps)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    parameters = [p for _, p in named]
    matrices = [i for i, p in enumerate(parameters) if p.ndim > 1]
    kept = torch.tensor(matrices, device=learner.device)  # a list would be copied at every step
    records = Records(
        names=[plain_name(named[i][0]) for i in matrices],
        losses=torch.zeros(steps, device=learner.device),
        norms=torch.zeros(steps, len(matrices), device=learner.device),
        rates=rates,
    )
    evaluate_at = _evaluation_steps(config, per_epoch, steps)
    if 0 in evaluate_at:
        records.evaluations[0] = learner.evaluate(dev).argmax(1)
    model.train()
    watch(0, model)
    for step, batch in enumerate(training_batches(train, config, steps)):
        labels = batch.pop("labels").to(learner.device)
        loss = nn.functional.cross_entropy(learner.logits(batch), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        norms = _clip(parameters, config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = float(rates[step])
        optimizer.step()
        optimizer.zero_grad()
        records.losses[step] = loss.detach()
        records.norms[step] = norms.index_select(0, kept)
        if step + 1 in evaluate_at:
            records.evaluations[step + 1] = learner.evaluate(dev).argmax(1)
        watch(step + 1, model)
    if config.mixout:
        remove_mixout(model)
    return records


@torch.no_grad()
def _clip(parameters: list[nn.Parameter], limit: float | None) -> Tensor:
    """Clip the gradients by their global norm and return each one's norm before clipping."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    norms = torch.stack(torch._foreach_norm(gradients))
    if limit is not None:
        scale = (limit / (norms.norm() + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, scale)
    return norms


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
