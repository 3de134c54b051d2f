"""The training loop: ``fine_tune`` is the readable reference for every executor, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from stabkit import models
from stabkit.batches import Encoded, evaluation_batches, training_batches
from stabkit.config import RunConfig
from stabkit.fast import FastExecutor, supports
from stabkit.geometry import Weights
from stabkit.mixout import apply_mixout, plain_name, plain_state, remove_mixout
from stabkit.optim import AdamW, laid_out, parameter_groups
from stabkit.precision import HALF, set_precision
from stabkit.records import Records
from stabkit.schedule import hidden_multiplier, linear_schedule

ExecutorName = Literal["graph", "together", "fast", "plain"]
Watch: TypeAlias = Callable[[int, nn.Module], None]  # is told the steps done and the model


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
        set_precision(config)
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
        half = HALF.get(self.config.precision)
        inputs: dict[str, Any] = {name: x.to(self.device) for name, x in batch.items()}
        if self.fast:
            inputs = self.fast.inputs(inputs, half or torch.float32)
        with torch.autocast(self.device.type, half, enabled=half is not None):
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

    def weights(self) -> Weights:
        """Return the model's weights as they are now, under their plain names."""
        return plain_state(self.model)


def rates(config: RunConfig, steps: int) -> NDArray[np.float64]:
    """Return the learning rate of each step (section 3.2; the control of section 5.1)."""
    t = np.arange(1, steps + 1)
    shares = linear_schedule(t, steps, config.warmup, config.zero_first_update)
    if config.multiplier == "none":
        return config.learning_rate * shares
    hidden = hidden_multiplier(t, config.beta1, config.beta2)
    factor = hidden if config.multiplier == "times" else 1 / hidden
    return config.learning_rate * shares * factor


def _optimizer(learner: Learner) -> AdamW:
    config = learner.config
    groups = parameter_groups(learner.model, config.weight_decay)
    return AdamW(
        laid_out(groups) if learner.fast else groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        bias_correction=config.bias_correction,
        eps_placement=config.eps_placement,
        decay_after_step=config.decay_after_step,
    )


def evaluation_steps(config: RunConfig, examples: int) -> set[int]:
    """Return the steps after which the dev set is scored: evenly in each epoch, and the last."""
    steps = config.steps(examples)
    if not config.evals_per_epoch:
        return {steps}
    every = config.steps_per_epoch(examples) / config.evals_per_epoch
    count = math.floor(steps / every + 1e-9)
    return {0, steps, *(round(every * i) for i in range(1, count + 1))}


def unwatched(steps: int, model: nn.Module) -> None:
    """Watch nothing."""


def fine_tune(learner: Learner, train: Encoded, dev: Encoded, watch: Watch = unwatched) -> Records:
    """Train the model in place and return what was measured.

    Nothing is asked of the device but in fp16: its losses are scaled up, and a step whose gradients
    then overflow is left out. A GPU is waited for as each batch is copied, which "graph" avoids.
    """
    config, model = learner.config, learner.model
    steps = config.steps(len(train))
    optimizer, schedule = _optimizer(learner), rates(config, steps)
    scaler = torch.amp.GradScaler(learner.device.type, enabled=config.precision == "fp16")
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    parameters = [p for _, p in named]
    matrices = [i for i, p in enumerate(parameters) if p.ndim > 1]
    kept = torch.tensor(matrices, device=learner.device)  # a list would be copied at every step
    records = Records(
        names=[plain_name(named[i][0]) for i in matrices],
        losses=torch.zeros(steps, device=learner.device),
        norms=torch.zeros(steps, len(matrices), device=learner.device),
        rates=schedule,
    )
    evaluate_at = evaluation_steps(config, len(train))
    if 0 in evaluate_at:
        records.evaluations[0] = learner.evaluate(dev).argmax(1)
    model.train()
    watch(0, model)
    for step, batch in enumerate(training_batches(train, config, steps)):
        labels = batch.pop("labels").to(learner.device)
        loss = nn.functional.cross_entropy(learner.logits(batch), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norms = _clip(parameters, optimizer, config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = float(schedule[step])
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=learner.fast is None)  # laid-out ones keep their places
        records.losses[step] = loss.detach()
        records.norms[step] = norms.index_select(0, kept)
        if step + 1 in evaluate_at:
            records.evaluations[step + 1] = learner.evaluate(dev).argmax(1)
        watch(step + 1, model)
    model.zero_grad()
    if config.mixout:
        remove_mixout(model)
    return records


@torch.no_grad()
def _clip(parameters: list[nn.Parameter], optimizer: AdamW, limit: float | None) -> Tensor:
    """Clip the gradients by their global norm and return each one's norm before clipping.

    The optimizer has the same gradients, where they are laid out in fewer tensors.
    """
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    norms = torch.stack(torch._foreach_norm(gradients))
    if limit is not None:
        scale = (limit / (norms.norm() + 1e-6)).clamp(max=1.0)
        updated = [p.grad for group in optimizer.param_groups for p in group["params"]]
        torch._foreach_mul_([grad for grad in updated if grad is not None], scale)
    return norms
