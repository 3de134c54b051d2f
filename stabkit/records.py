"""What a run measures on the way and at its end, and the tables and numbers made of it."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

import stabkit
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.metrics import score
from stabkit.tasks import Task

FLAT = 0.95  # a training loss within 5 % of the label entropy: nothing was learned


@dataclass
class Records:
    """What is measured on the way; tensors stay on the device until the end."""

    names: list[str]
    losses: Tensor
    norms: Tensor
    rates: NDArray[np.float64]
    evaluations: dict[int, NDArray[np.int64]] = field(default_factory=dict)


def dev_summary(records: Records, task: Task) -> dict[str, Any]:
    """Score the last and the best dev predictions (the first best by the task's metric)."""
    scores = {
        step: score(predictions, task.dev.labels, len(task.labels))
        for step, predictions in records.evaluations.items()
    }
    last, majority = max(scores), task.majority_accuracy
    best = max(scores, key=lambda step: (scores[step][task.metric], -step))
    return {
        "steps": last,
        "metric": task.metric,
        "score_last": scores[last][task.metric],
        "score_best": scores[best][task.metric],
        "best_step": best,
        **{f"dev_{name}": value for name, value in scores[last].items()},
        **{f"best_{name}": value for name, value in scores[best].items()},
        "majority_accuracy": majority,
        "majority_score": task.majority_baseline(task.metric),
        "failed": scores[last]["accuracy"] <= majority,
        "constant": len(np.unique(records.evaluations[last])) == 1,
        "dev_predictions": records.evaluations[last].tolist(),
        "dev_steps": list(records.evaluations),
        "dev_predictions_by_step": [found.tolist() for found in records.evaluations.values()],
    }


def train_summary(logits: NDArray[np.float32], records: Records, task: Task) -> dict[str, Any]:
    """Judge the finished model on the whole training set: loss (nats), accuracy, two verdicts.

    ``logits`` (examples x labels) are those of evaluation mode. A loss that is not a number is
    flat too.
    """
    labels = task.train.labels
    loss = nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(labels.copy())
    ).item()
    return {
        "train_examples": len(labels),
        "train_loss": loss,
        "train_accuracy": float((logits.argmax(1) == labels).mean()),
        "label_entropy": task.label_entropy,
        "flat_loss": not loss < FLAT * task.label_entropy,
        "diverged": not bool(torch.isfinite(records.losses).all()),
    }


def history(records: Records, task: Task) -> pd.DataFrame:
    """Return step, loss, learning rate and the dev metric (NaN where it was not measured)."""
    steps = len(records.losses)
    dev = np.full(steps, np.nan)
    for step, predictions in records.evaluations.items():
        if step:
            dev[step - 1] = score(predictions, task.dev.labels, len(task.labels))[task.metric]
    return pd.DataFrame(
        {
            "step": np.arange(1, steps + 1),
            "loss": records.losses.cpu().numpy(),
            "learning_rate": records.rates,
            "dev_score": dev,
        }
    )


def gradients(records: Records) -> pd.DataFrame:
    """Return step and, for each weight matrix, the L2 norm of its gradient before clipping."""
    norms = pd.DataFrame(records.norms.cpu().numpy(), columns=records.names)
    norms.insert(0, "step", np.arange(1, len(norms) + 1))
    return norms


def provenance(device: torch.device, threads: int, executor: str) -> dict[str, Any]:
    """Return on what, with what and when a run was made."""
    return {
        "device": device.type,
        "hardware": hardware(device),
        "threads": threads,
        "executor": executor,
        "version": stabkit.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def hardware(device: torch.device) -> str:
    """Return the name of the device's hardware class; figures compare runs of one class only."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def check_hardware(pending: Iterable[RunConfig], runs: pd.DataFrame, device: torch.device) -> None:
    """Raise StabkitError if ``pending`` on ``device`` would be compared with other hardware's.

    ``runs`` are a run table; compared are those of one model on one task, as in every figure.
    """
    here = hardware(device)
    pairs = {(config.model, config.task) for config in pending}
    compared = [run for run in runs.to_dict("records") if (run["model"], run["task"]) in pairs]
    elsewhere = [run["hardware"] for run in compared if run["hardware"] != here]
    if elsewhere:
        made_on = ", ".join(dict.fromkeys(elsewhere))
        raise StabkitError(
            f"{len(elsewhere)} runs that these would be compared with were made on {made_on}, and "
            f"this is {here}: scores and failures differ between the two; go on where they were "
            "made, or do all of them here with --anew"
        )


@lru_cache
def _processor() -> str:
    """Return the processor's name and the widest vector unit that torch uses on it."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    except OSError:
        pass
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
