"""What a run depends on: one frozen, validated, hashed configuration.

Derived numbers are methods, never fields. The hash covers everything that decides the result;
where and on what a run was computed (executor, hardware, library versions) are columns of its
result and no part of its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from stabkit.errors import ConfigError, nearest

# Labels for people, no part of the hash: where weights and data lie (their digests are hashed) and
# the seed that sets the other three (those are hashed).
LOCATIONS = ("model", "task", "dev_file", "text_columns", "label_column", "seed")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One fine-tuning run, whole.

    Lengths are in examples, steps and tokens; ``warmup`` and all dropouts are shares (0..1).
    Raises ConfigError when a value is out of range or two fields contradict each other.
    """

    # Model and data. The digests (sha256) are filled in by ``stabkit.train.pin``.
    model: str = "mini-bert"
    task: str = "mini-rte"
    dev_file: str | None = None
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    weights: str = ""
    tokenizer: str = ""
    data: str = ""

    # Randomness (Dodge et al. 2020 vary head and order apart); ``seed`` sets what is left None.
    seed: int = 0
    head_seed: int | None = None
    order_seed: int | None = None
    dropout_seed: int | None = None

    # How long. ``max_steps`` replaces ``epochs``; one of them is None.
    epochs: int | None = 3
    max_steps: int | None = None
    train_size: int | None = None
    subset_seed: int = 0
    batch_size: int = 16
    max_length: int = 128

    # Optimizer (section 3.2, 5.1). ``multiplier`` is the control of the bias-correction chapter:
    # the learning rate times, or divided by, the hidden multiplier of the missing correction.
    learning_rate: float = 2e-5
    warmup: float = 0.1
    zero_first_update: bool = True
    multiplier: Literal["none", "times", "divided"] = "none"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    eps_placement: Literal["before", "after"] = "before"
    bias_correction: bool = True
    weight_decay: float = 0.01
    decay_after_step: bool = True
    clip_norm: float | None = 1.0

    # Model (section 7.3 and what the released code does silently).
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float = 0.1
    init_std: float = 0.02
    segments: bool = False
    pooler: Literal["pretrained", "new"] = "pretrained"
    pooler_dropout: bool = False
    mixout: float = 0.0
    mixout_mask: Literal["column", "element"] = "column"
    mixout_rescale_gradient: bool = True

    # Numerics and recording.
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    evals_per_epoch: int = 1

    def __post_init__(self) -> None:
        """Resolve the three seeds and refuse what cannot be run."""
        for name in ("head_seed", "order_seed", "dropout_seed"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.seed)
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if type(value) is not _EXACT[name]:  # most are, and studies make many configurations
                object.__setattr__(self, name, _typed(name, value, kinds))
        _check_ranges(self)
        _check_contradictions(self)

    @cached_property
    def key(self) -> str:
        """The run's name: 16 hexadecimal digits of the sha256 of all that decides its result."""
        if not (self.weights and self.tokenizer and self.data):
            raise ConfigError(
                "this configuration has no digests of its weights, tokenizer and data yet; "
                "call stabkit.train.pin(config) first"
            )
        content = {name: getattr(self, name) for name in _KINDS if name not in LOCATIONS}
        text = json.dumps(content, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def replace(self, **changes: Any) -> RunConfig:
        """Return a copy with ``changes``; a new ``seed`` moves the seeds not named with it."""
        _check_names(changes)
        if "seed" in changes:
            unset = dict.fromkeys(("head_seed", "order_seed", "dropout_seed"))
            changes = {**unset, **changes}
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RunConfig:
        """Build the configuration from a row of the run table (further columns are ignored)."""
        names = [f.name for f in dataclasses.fields(cls)]
        missing = [name for name in names if name not in row]
        if missing:
            raise ConfigError(f"not a row of a run table: no column {', '.join(missing)}")
        return cls(**{name: row[name] for name in names})

    def steps(self, train_examples: int) -> int:
        """Optimizer steps of the run; the last, smaller batch of an epoch counts as one."""
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None
        return self.epochs * self.steps_per_epoch(train_examples)

    def steps_per_epoch(self, train_examples: int) -> int:
        """Batches in one pass over the training set (or over the fixed subset of it)."""
        return math.ceil((self.train_size or train_examples) / self.batch_size)


_KINDS = {field.name: str(field.type) for field in dataclasses.fields(RunConfig)}
_EXACT = {  # the types that need no further look: not floats, which must be finite, nor tuples
    name: {"int": int, "bool": bool, "float": None, "tuple[str, ...]": None}.get(kind, str)
    for name, kind in ((name, kinds.split(" | ")[0]) for name, kinds in _KINDS.items())
}
_POSITIVE = ("batch_size", "max_length", "learning_rate", "eps", "init_std")
_OPTIONAL_POSITIVE = ("epochs", "max_steps", "train_size", "clip_norm")
_SHARES = ("warmup", "mixout")
_BELOW_ONE = ("beta1", "beta2", "hidden_dropout", "attention_dropout", "classifier_dropout")
_NOT_NEGATIVE = ("weight_decay", "evals_per_epoch")
_SEEDS = ("seed", "head_seed", "order_seed", "dropout_seed", "subset_seed")
CHOICES: dict[str, tuple[str, ...]] = {
    "multiplier": ("none", "times", "divided"),
    "eps_placement": ("before", "after"),
    "pooler": ("pretrained", "new"),
    "mixout_mask": ("column", "element"),
    "precision": ("fp32", "tf32", "bf16", "fp16"),
}


def _check_names(changes: Mapping[str, Any]) -> None:
    names = [f.name for f in dataclasses.fields(RunConfig)]
    for name in changes:
        if name not in names:
            raise ConfigError(f"unknown option {name!r}: {nearest(name, names)}")


def _typed(name: str, value: Any, kinds: str) -> Any:
    """Return ``value`` as its annotation ``kinds`` has it; paths and NumPy scalars as Python's."""
    if getattr(value, "shape", None) == ():
        value = value.item()
    kind, *optional = kinds.split(" | ")
    if value is None and optional:
        return None
    if kind == "int" or kind == "float":
        return _number(name, value, int if kind == "int" else float)
    if kind.startswith("tuple"):
        return _texts(name, value)
    if kind == "str" and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, bool if kind == "bool" else str):
        raise ConfigError(f"{name} is {value!r}; expected {kinds}")
    return value


def _number(name: str, value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number != value:
        raise ConfigError(f"{name} is {value!r}; expected a finite {kind.__name__}")
    return number + 0  # -0.0 becomes 0.0: equal configurations have one key


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        texts = tuple(value)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise ConfigError(f"{name} is {value!r}; expected a tuple of names, such as ('text',)")


def _check_ranges(config: RunConfig) -> None:
    def refuse(name: str, expected: str) -> None:
        raise ConfigError(f"{name} is {getattr(config, name)!r}; expected {expected}")

    for name in (*_POSITIVE, *_OPTIONAL_POSITIVE):
        value = getattr(config, name)
        if value is not None and not value > 0:
            refuse(name, "a number above 0")
    for name in _SHARES:
        if not 0 <= getattr(config, name) <= 1:
            refuse(name, "a share from 0 to 1")
    for name in _BELOW_ONE:
        if not 0 <= getattr(config, name) < 1:
            refuse(name, "a number from 0 to below 1")
    for name in _NOT_NEGATIVE:
        if getattr(config, name) < 0:
            refuse(name, "0 or more")
    for name in _SEEDS:
        if not 0 <= getattr(config, name) < 2**63:
            refuse(name, "a whole number from 0 to 2**63 - 1")
    for name, options in CHOICES.items():
        if getattr(config, name) not in options:
            refuse(name, f"one of {', '.join(options)}")


def _check_contradictions(config: RunConfig) -> None:
    if (config.epochs is None) == (config.max_steps is None):
        raise ConfigError(
            f"epochs is {config.epochs} and max_steps is {config.max_steps}; set exactly one of "
            "them (--epochs or --max-steps) and the other to None"
        )
    if config.multiplier == "times" and not config.bias_correction:
        raise ConfigError(
            "multiplier='times' imitates a missing bias correction, so it needs "
            "bias_correction=True; for an uncorrected run use 'divided' or 'none'"
        )
    if config.multiplier == "divided" and config.bias_correction:
        raise ConfigError(
            "multiplier='divided' imitates a bias correction, so it needs "
            "bias_correction=False; for a corrected run use 'times' or 'none'"
        )
