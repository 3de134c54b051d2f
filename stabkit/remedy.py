"""What section 6 of the paper would change in a recipe, and why.

Correct Adam's bias, so that the small learning rate is small from the first step; warm it up; train
for many more iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stabkit.config import RunConfig
from stabkit.schedule import hidden_multiplier, linear_schedule

EPOCHS, WARMUP = 20, 0.1  # what section 6 trains for, and warms up over
TRAINER = {  # our fields as arguments of Hugging Face's TrainingArguments
    "epochs": "num_train_epochs",
    "max_steps": "max_steps",
    "warmup": "warmup_steps",
    "learning_rate": "learning_rate",
}


@dataclass(frozen=True)
class Change:
    """One setting to change, to what, and why."""

    field: str
    value: Any
    reason: str


def remedy(config: RunConfig, steps: int, epoch_steps: int | None = None) -> list[Change]:
    """Return what section 6 would change in a recipe whose runs take ``steps`` updates.

    Where these are set as such, and not as epochs, it takes ``epoch_steps`` to tell whether they
    are few.
    """
    changes = []
    if not config.bias_correction:
        changes.append(Change("bias_correction", True, _hidden(config, steps)))
    if config.warmup < WARMUP:
        reason = "Adam's first estimates are poor; with small first steps they do no harm"
        changes.append(Change("warmup", WARMUP, reason))
    if longer := _longer(config, epoch_steps):
        changes.append(longer)
    halved = "the recipe has the whole remedy already; what is left is a smaller rate"
    return changes or [Change("learning_rate", rounded(config.learning_rate / 2), halved)]


def _longer(config: RunConfig, epoch_steps: int | None) -> Change | None:
    why = "many more iterations, until the training loss is near zero, make the seeds agree"
    if config.epochs is not None:
        return Change("epochs", EPOCHS, why) if config.epochs < EPOCHS else None
    enough = EPOCHS * (epoch_steps or 0)
    if config.max_steps is None or config.max_steps >= enough:
        return None
    return Change("max_steps", enough, f"{EPOCHS} passes over your training set: {why}")


def rounded(rate: float) -> float:
    """Return a rate as one would write it, without the dust of a division."""
    return float(f"{rate:.6g}")


def _hidden(config: RunConfig, steps: int) -> str:
    t = np.arange(1, steps + 1)
    hidden = hidden_multiplier(t, config.beta1, config.beta2)
    rate = hidden * linear_schedule(t, steps, config.warmup, config.zero_first_update)
    return (
        "without it the first updates are larger than your learning rate says: up to "
        f"{hidden.max():.1f} times at update {t[hidden.argmax()]}, and at its peak, at update "
        f"{t[rate.argmax()]}, the rate is {rate.max():.1f} times the one you set"
    )


def arguments(changes: list[Change]) -> Mapping[str, Any]:
    """Return the changes as arguments of Hugging Face's ``TrainingArguments``."""
    named = {TRAINER[c.field]: c.value for c in changes if c.field in TRAINER}
    corrects = any(c.field == "bias_correction" for c in changes)
    return named | ({"optim": "adamw_torch"} if corrects else {})
