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
from torch.utils.data import DataLoader
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

    ``digest`` is of the texts as tokens, without padding, and their labels, in any order;
    ``longest`` is in tokens; ``segments`` tells whether a text has a second one.
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
    problem = getattr(settings, "problem_type", None)
    if problem not in (None, "single_label_classification"):
        raise ConfigError(f"the model is for {problem}; expected one label a text")
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
    """Return what may make every seed fail, or a remedy do nothing, as sentences."""
    found = []
    if halves := _halves(trainer):
        found.append(
            f"the model's weights are {' and '.join(halves)}, as their file is: updates get lost "
            f"in rounding, and Adam's eps of {_eps(trainer):g} may be 0 in it; load it with "
            "from_pretrained(..., dtype=torch.float32), and let TrainingArguments(bf16=True) or "
            "fp16=True make it quick"
        )
    if trainer.args.lr_scheduler_type == SchedulerType.CONSTANT:
        found.append(
            "a constant schedule has no warmup, whatever warmup_steps says; where a warmup is "
            "advised, set lr_scheduler_type='linear' as well"
        )
    return found


def _halves(trainer: Trainer) -> list[str]:
    kinds = {p.dtype for p in model_of(trainer).parameters() if p.requires_grad}
    return sorted(str(kind).removeprefix("torch.") for kind in kinds if kind.itemsize < 4)


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


def peak_rate(trainer: Trainer) -> float:
    """Return the learning rate of a Trainer that begins; of several, the largest."""
    return float(max(g.get("initial_lr", g["lr"]) for g in optimizer_of(trainer).param_groups))


def recipe(trainer: Trainer, task: str, rate: float, train: Scored, dev: Scored) -> RunConfig:
    """Return what a Trainer that has trained does, as a configuration.

    Fields that its user's code decides, such as a new pooler, have their defaults. What no field
    has a place for, such as another schedule, stands beside the model's name. The digests are of
    that, of the model's kind and size, and of the data as they reach it, in whatever order:
    weights may be drawn anew, and texts shuffled.
    """
    args, model, groups = trainer.args, model_of(trainer), optimizer_of(trainer).param_groups
    first, size = groups[0], sum(p.numel() for p in model.parameters())
    kind = type(model).__name__
    name = ", ".join([model.config.name_or_path or kind, *_special(trainer)])
    whole = args.max_steps <= 0 and float(args.num_train_epochs).is_integer()
    per_pass = trainer.state.train_batch_size or args.train_batch_size
    fields: dict[str, Any] = {
        "model": name,
        "task": task,
        "weights": _sha(f"{kind} {size} {name}"),
        "tokenizer": _sha("of whoever made the data sets"),
        "data": _sha(train.digest + dev.digest),
        "seed": args.seed,
        "order_seed": args.data_seed,
        "epochs": int(args.num_train_epochs) if whole else None,
        "max_steps": None if whole else trainer.state.max_steps,
        "batch_size": per_pass * args.gradient_accumulation_steps,
        "max_length": max(train.longest, dev.longest),
        "learning_rate": rate,
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
    args, optimizer = trainer.args, optimizer_of(trainer)
    kind, groups = type(optimizer).__name__, optimizer.param_groups
    schedule, options = SchedulerType(args.lr_scheduler_type), args.lr_scheduler_kwargs
    sizes = [(p.numel(), p.requires_grad) for p in model_of(trainer).parameters()]
    every, trained = sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
    rates = sorted({group.get("initial_lr", group["lr"]) for group in groups})
    own_loss = type(trainer).compute_loss is not Trainer.compute_loss
    sampling = getattr(args, "train_sampling_strategy", "random")
    found = {
        f"{' and '.join(_halves(trainer))} weights": _halves(trainer),
        f"{schedule.value} schedule": schedule != SchedulerType.LINEAR,
        f"schedule with {options}": options,
        "a schedule of its own": not getattr(trainer, "_created_lr_scheduler", True),
        f"rates {rates[0]:g} to {rates[-1]:g}": len(rates) > 1,
        f"label smoothing {args.label_smoothing_factor:g}": args.label_smoothing_factor > 0,
        "a loss of its own": own_loss or trainer.compute_loss_func is not None,
        kind: kind not in ("Adam", "AdamW"),
        "amsgrad": groups[0].get("amsgrad"),
        f"noise of {args.neftune_noise_alpha} in embeddings": args.neftune_noise_alpha,
        f"{sampling} sampling": sampling != "random",
        f"{trained:,} of {every:,} parameters trained": trained < every,
        "best checkpoint": args.load_best_model_at_end,
    }
    return [words for words, present in found.items() if present]


def _warmup(args: TrainingArguments, steps: int) -> float:
    if args.lr_scheduler_type == SchedulerType.CONSTANT:  # without warmup, whatever is asked
        return 0.0
    asked = args.warmup_steps
    return asked if asked < 1 else min(1.0, asked / max(steps, 1))


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
    """Return the answers of a Trainer's model on all examples, in their order.

    The model keeps its mode, torch's random numbers are as before. Raises DataError where an
    example is no text with one label, or the model gives not one number for each label.
    """
    model, logits, labels, texts = model_of(trainer), [], [], []
    longest, segments, training = 0, False, model.training
    model.train(False)
    try:
        with torch.random.fork_rng(devices=[]):
            for inputs in _in_order(trainer, data):
                _, answer, label = trainer.prediction_step(
                    model, inputs, prediction_loss_only=False
                )
                logits.append(_logits(answer, int(model.config.num_labels or 0)).float().cpu())
                labels.append(_labels(label).cpu())
                texts += (found := _tokens(inputs))
                longest = max(longest, *map(len, found))
                segments |= bool(inputs.get("token_type_ids", torch.zeros(1)).any())
    finally:
        model.train(training)
    known = torch.cat(labels).numpy()
    pairs = (_sha(f"{text} {label}") for text, label in zip(texts, known, strict=True))
    digest = _sha(" ".join(sorted(pairs)))
    return Scored(torch.cat(logits).numpy(), known, digest, longest, segments)


def _in_order(trainer: Trainer, data: Any) -> DataLoader[Any]:
    """Return batches of all examples; a Trainer's own may be sorted, shuffled, or lack the last."""
    own = trainer.get_test_dataloader(data)
    size = trainer.args.eval_batch_size
    return DataLoader(own.dataset, batch_size=size, collate_fn=own.collate_fn)


def _logits(found: Any, labels: int) -> Tensor:
    several = found if isinstance(found, (tuple, list)) else (found,)
    for one in several:
        if isinstance(one, Tensor) and one.ndim == 2 and one.shape[1] == labels:
            return one
    raise DataError(
        f"the model's answers are {', '.join(map(_form, several))}; expected logits, of shape "
        f"(texts, {labels})"
    )


def _labels(found: Any) -> Tensor:
    one = found[0] if isinstance(found, (tuple, list)) and found else found
    if not isinstance(one, Tensor) or one.ndim != 1 or one.is_floating_point():
        raise DataError(f"the labels are {_form(one)}; expected one whole number a text")
    return one


def _form(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"of shape {tuple(found.shape)} and type {found.dtype}"
    return "missing" if found is None else f"of type {type(found).__name__}"


def _tokens(inputs: dict[str, Any]) -> list[list[int]]:
    """Return the tokens of each text of a batch, without padding."""
    if "input_ids" not in inputs:
        raise DataError(f"the data have {', '.join(inputs)}; expected texts as input_ids")
    tokens: Tensor = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    real = (torch.ones_like(tokens) if mask is None else mask).bool()
    return [row[kept].tolist() for row, kept in zip(tokens, real, strict=True)]


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
