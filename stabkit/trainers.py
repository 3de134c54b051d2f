"""What a Trainer of Hugging Face does, in this package's terms."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from transformers import PreTrainedConfig, SchedulerType, Trainer, TrainingArguments

from stabkit.answers import Scored, model_of, sha
from stabkit.config import RunConfig
from stabkit.errors import ConfigError
from stabkit.models import DROPOUTS

DECODERS = {  # what GPT-2 and T5 call their dropouts
    "hidden_dropout": ("resid_pdrop", "dropout_rate"),
    "attention_dropout": ("attn_pdrop", "dropout_rate"),
}


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


def optimizer_of(trainer: Trainer) -> torch.optim.Optimizer:
    """Return a Trainer's optimizer without what accelerate wraps around it."""
    found: Any = trainer.optimizer
    return getattr(found, "optimizer", found)  # type: ignore[no-any-return]


def peak_rate(trainer: Trainer) -> float:
    """Return the learning rate of a Trainer that begins; of several, the largest."""
    return _rates(trainer)[-1]


def _rates(trainer: Trainer) -> list[float]:
    groups = optimizer_of(trainer).param_groups
    return sorted({float(group.get("initial_lr", group["lr"])) for group in groups})


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
        "weights": sha(f"{kind} {size} {name}"),
        "tokenizer": sha("of whoever made the data sets"),
        "data": sha(train.digest + dev.digest),
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
    rates = _rates(trainer)
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
        values = [getattr(settings, name, None) for name in (*names, *DECODERS.get(field, ()))]
        default = found.get("hidden_dropout", 0.0)
        found[field] = next((value for value in values if value is not None), default)
    return found
