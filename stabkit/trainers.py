"""What a Trainer of Hugging Face does, in this package's terms: its recipe, its model's answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    SchedulerType,
    Trainer,
    TrainingArguments,
)

from stabkit.config import RunConfig
from stabkit.errors import ConfigError, DataError
from stabkit.models import DROPOUTS
from stabkit.tasks import Split


@dataclass(frozen=True)
class Scored:
    """A model's answers on a data set in evaluation mode: logits (n, labels) and labels (n,).

    ``digest`` is of the texts as tokens, without padding; ``longest`` is in tokens; ``segments``
    tells whether a text has a second one.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    digest: str
    longest: int
    segments: bool

    def split(self) -> Split:
        """Return the labels as a split whose texts are not known."""
        return Split(("",) * len(self.labels), None, self.labels)


def check(trainer: Trainer, dev: Any) -> None:
    """Raise ConfigError where a Trainer's runs cannot be judged."""
    args, settings = trainer.args, getattr(trainer.model, "config", None)
    for name, data in (("train_dataset", trainer.train_dataset), ("eval_dataset", dev)):
        if data is None or isinstance(data, dict) or not isinstance(data, Sized):
            raise ConfigError(
                f"the Trainer's {name} is {_kind(data)}; expected one data set with a length "
                "(StabilityCallback(dev=...) stands for eval_dataset)"
            )
    if args.world_size > 1 or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ConfigError("the Trainer is one of several processes; expected a single one")
    if settings is None:
        raise ConfigError(
            f"{type(trainer.model).__name__} has no config; expected a classifier of transformers"
        )
    if settings.problem_type not in (None, "single_label_classification"):
        raise ConfigError(f"the model is for {settings.problem_type}; expected one label a text")
    if settings.num_labels < 2:
        raise ConfigError("the model has one output; expected one for each of two labels or more")
    optimizer = optimizer_of(trainer)
    if not {"betas", "eps"} <= optimizer.param_groups[0].keys():
        raise ConfigError(
            f"the optimizer is {type(optimizer).__name__}; expected Adam or AdamW: what the paper "
            "says of failed runs is about them"
        )


def _kind(data: Any) -> str:
    return "missing" if data is None else f"of type {type(data).__name__}"


def doubts(trainer: Trainer) -> list[str]:
    """Return what may make every seed fail whatever the recipe, as sentences."""
    kinds = {p.dtype for p in model_of(trainer).parameters() if p.requires_grad}
    halves = sorted(str(kind).removeprefix("torch.") for kind in kinds if kind.itemsize < 4)
    if not halves:
        return []
    return [
        f"the model's weights are {' and '.join(halves)}, as their file is: updates get lost in "
        f"rounding, and Adam's eps of {_eps(trainer):g} may be 0 in it; load it with "
        "from_pretrained(..., dtype=torch.float32), and let TrainingArguments(bf16=True) or "
        "fp16=True make it quick"
    ]


def _eps(trainer: Trainer) -> float:
    return float(optimizer_of(trainer).param_groups[0]["eps"])


def model_of(trainer: Trainer) -> PreTrainedModel:
    """Return a Trainer's model; one of another kind must have a ``config`` all the same."""
    found: Any = trainer.model
    return found  # type: ignore[no-any-return]


def optimizer_of(trainer: Trainer) -> torch.optim.Optimizer:
    """Return a Trainer's optimizer without what accelerate wraps around it."""
    found: Any = trainer.optimizer
    return getattr(found, "optimizer", found)  # type: ignore[no-any-return]


def recipe(trainer: Trainer, task: str, train: Scored, dev: Scored) -> RunConfig:
    """Return what a Trainer that has trained does, as a configuration.

    Fields that its user's code decides, such as a new pooler, have their defaults. What no field
    has a place for, such as another schedule, stands beside the model's name. The digests are of
    that, of the model's kind and size, and of the data as they reach it: weights may be drawn anew.
    """
    args, model, groups = trainer.args, model_of(trainer), optimizer_of(trainer).param_groups
    first, size = groups[0], sum(p.numel() for p in model.parameters())
    kind, special = type(model).__name__, _special(trainer)
    whole = args.max_steps <= 0 and float(args.num_train_epochs).is_integer()
    fields: dict[str, Any] = {
        "model": ", ".join([model.config.name_or_path or kind, *special]),
        "task": task,
        "weights": _sha(f"{kind} {size} {special}"),
        "tokenizer": _sha("of whoever made the data sets"),
        "data": _sha(train.digest + dev.digest),
        "seed": args.seed,
        "epochs": int(args.num_train_epochs) if whole else None,
        "max_steps": None if whole else trainer.state.max_steps,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps,
        "max_length": max(train.longest, dev.longest),
        "learning_rate": max(group.get("initial_lr", group["lr"]) for group in groups),
        "warmup": _warmup(args, trainer.state.max_steps),
        "beta1": first["betas"][0],
        "beta2": first["betas"][1],
        "eps": first["eps"],
        # Optimizers that know ``correct_bias`` are of the paper's time and do as its code does.
        "eps_placement": "before" if "correct_bias" in first else "after",
        "decay_after_step": "correct_bias" in first,
        "bias_correction": corrects_bias(first),
        "weight_decay": max(group.get("weight_decay", 0.0) for group in groups),
        "clip_norm": args.max_grad_norm or None,
        "segments": train.segments,
        "precision": _precision(args),
        "evals_per_epoch": 0,
    }
    return RunConfig(**(fields | _dropouts(model.config)))


def corrects_bias(group: dict[str, Any]) -> bool:
    """Tell whether an optimizer of Adam's kind corrects its bias; torch's always do."""
    return bool(group.get("correct_bias", group.get("bias_correction", True)))


def _special(trainer: Trainer) -> list[str]:
    """Return what a Trainer does that no field of a configuration has a place for."""
    args, optimizer = trainer.args, type(optimizer_of(trainer)).__name__
    schedule = SchedulerType(args.lr_scheduler_type)
    sizes = [(p.numel(), p.requires_grad) for p in model_of(trainer).parameters()]
    every, trained = sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
    found = {
        f"{schedule.value} schedule": schedule != SchedulerType.LINEAR,
        f"label smoothing {args.label_smoothing_factor:g}": args.label_smoothing_factor > 0,
        "a loss of its own": trainer.compute_loss_func is not None,
        optimizer: optimizer not in ("Adam", "AdamW"),
        f"{trained:,} of {every:,} parameters trained": trained < every,
        "best checkpoint": args.load_best_model_at_end,
    }
    return [words for words, present in found.items() if present]


def _warmup(args: TrainingArguments, steps: int) -> float:
    if args.lr_scheduler_type == SchedulerType.CONSTANT:  # without warmup, whatever is asked
        return 0.0
    asked = args.warmup_steps
    return asked if asked < 1 else min(1.0, asked / steps)


def _precision(args: TrainingArguments) -> str:
    names = ("bf16", "fp16", "tf32")
    return next((name for name in names if getattr(args, name)), "fp32")


def _dropouts(settings: PreTrainedConfig) -> dict[str, float]:
    """Return the model's dropouts; a head without one of its own has that of hidden layers."""
    found: dict[str, float] = {}
    for field, names in DROPOUTS.items():
        values = [getattr(settings, name, None) for name in names]
        default = found.get("hidden_dropout", 0.0)
        found[field] = next((value for value in values if value is not None), default)
    return found


@torch.no_grad()
def scored(trainer: Trainer, data: Any) -> Scored:
    """Return the answers of a Trainer's model, which keeps its mode; random numbers are as before.

    Raises DataError where a text has not one label, or the model gives not one number for each.
    """
    model, logits, labels, digest = model_of(trainer), [], [], hashlib.sha256()
    longest, segments, training = 0, False, model.training
    model.train(False)
    try:
        with torch.random.fork_rng(devices=[]):
            for inputs in trainer.get_test_dataloader(data):
                _, answer, label = trainer.prediction_step(
                    model, inputs, prediction_loss_only=False
                )
                logits.append(_checked(answer, "logits", 2).float().cpu())
                labels.append(_checked(label, "labels", 1).cpu())
                tokens, lengths = _tokens(inputs)
                digest.update(tokens.cpu().numpy().tobytes())
                longest = max(longest, int(lengths.max()))
                segments |= bool(inputs.get("token_type_ids", torch.zeros(1)).any())
    finally:
        model.train(training)
    found = torch.cat(labels).numpy()
    digest.update(found.tobytes())
    return Scored(torch.cat(logits).numpy(), found, digest.hexdigest(), longest, segments)


def _checked(found: Any, what: str, dimensions: int) -> Tensor:
    if isinstance(found, tuple) and found:
        found = found[0]
    whole = dimensions > 1 or (isinstance(found, Tensor) and not found.is_floating_point())
    if not isinstance(found, Tensor) or found.ndim != dimensions or not whole:
        raise DataError(
            f"the model's {what} are {_form(found)}; expected one whole number a text as labels "
            "and a number for each label as logits"
        )
    return found


def _form(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"of shape {tuple(found.shape)} and type {found.dtype}"
    return "missing" if found is None else f"of type {type(found).__name__}"


def _tokens(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the tokens of a batch without padding, one after the other, and the texts' lengths."""
    tokens: Tensor = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    real = torch.ones_like(tokens) if mask is None else mask
    return tokens[real.bool()], real.sum(1)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
