"""What a panel's choices mean: which runs, how many are stored, how many steps and minutes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stabkit import train
from stabkit.config import RunConfig
from stabkit.errors import ConfigError
from stabkit.models import locate
from stabkit.presets import preset
from stabkit.results import by_key
from stabkit.schedule import short
from stabkit.selection import without_seeds
from stabkit.studies import METHODS
from stabkit.tasks import PUBLISHED
from stabkit.widgets.calibration import Speed, pace

RECIPES = {name.capitalize(): name for name in METHODS}
CORRECTIONS: dict[str, tuple[bool | None, ...]] = {
    "off and on": (False, True),
    "as the method has it": (None,),
    "off": (False,),
    "on": (True,),
}
MOST = {
    "seeds": 1000,
    "epochs": 1000,
    "steps": 10_000_000,
    "runs at a time": 256,
    "seeds at once": 1000,
}
FURTHER = ("dev_file", "text_columns", "label_column")  # what the data depend on


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Read numbers from above 0 to below 1 with commas between.

    Raises ConfigError that names the first other, such as the 1 of 1,5e-4.
    """
    found = []
    for word in filter(None, map(str.strip, text.split(","))):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not 0 < value < 1:
            raise ConfigError(
                f"{word!r} is not a {what}; expected numbers between 0 and 1, such as 1e-4, 2e-4"
            )
        found.append(value)
    if not found:
        raise ConfigError(f"no {what}; expected one or more, such as 1e-4, 2e-4")
    return tuple(dict.fromkeys(found))


def named(text: str) -> str:
    """Read a name, a folder or a file. Raises ConfigError for none."""
    if not text.strip():
        raise ConfigError("nothing chosen; expected a name, a folder or a file")
    return text.strip()


def count(text: str, what: str) -> int:
    """Read a whole number from 1 to MOST[what]. Raises ConfigError for anything else."""
    word, most = text.strip(), MOST[what]
    if not (word.isascii() and word.isdecimal() and len(word) < 10 and 0 < int(word) <= most):
        raise ConfigError(
            f"{word!r} is not a valid number of {what}; expected a whole number from 1 to {most:,}"
        )
    return int(word)


@dataclass(frozen=True)
class Subject:
    """A model and a task that are here: what all runs of a plan share, and the sizes of its sets.

    ``fields`` are those of ``RunConfig`` that say what is trained on what, digests included.
    """

    fields: Mapping[str, Any]
    train: int
    dev: int

    @classmethod
    def load(cls, model: str, task: str, **fields: Any) -> Subject:
        """Read the files; hub names are fetched. Raises StabkitError where that cannot be done."""
        data = {name: value for name, value in fields.items() if name in FURTHER}
        config = train.pin(RunConfig(model=model, task=task, **data))
        names = ("model", "task", "weights", "tokenizer", "data", *data)
        found = train.task_of(config)
        sizes = len(found.train), len(found.dev)
        return cls({name: getattr(config, name) for name in names}, *sizes)


def fetched(model: str, task: str) -> bool:
    """Tell whether a model or a task may have to come from the hub, which takes its time.

    Raises ModelError for the name of no model.
    """
    return task in PUBLISHED or not Path(locate(model)).is_dir()


@dataclass(frozen=True)
class Cell:
    """Runs that differ by their seed only, and what they are called."""

    name: str
    configs: tuple[RunConfig, ...]


@dataclass(frozen=True)
class Plan:
    """The runs of some cells, each once."""

    subject: Subject
    cells: tuple[Cell, ...]

    @classmethod
    def of(
        cls,
        subject: Subject,
        methods: Iterable[str],
        corrections: Iterable[bool | None],
        rates: Collection[float],
        seeds: Iterable[int],
        **fields: Any,
    ) -> Plan:
        """Cross methods, corrections (None: the method's own) and learning rates with seeds.

        ``fields`` of ``RunConfig`` are the same for all. Raises ConfigError where they contradict
        each other or are seeds, or there is no method.
        """
        without_seeds(fields)
        seeds = list(seeds)
        bases: dict[RunConfig, str] = {}
        for method in methods:
            for correction in corrections:
                for rate in rates:
                    given: dict[str, Any] = {**fields, **subject.fields, "learning_rate": rate}
                    if correction is not None:
                        given["bias_correction"] = correction
                    base = preset(RECIPES[method], **given)
                    name = _name(method, correction) + (
                        f"<br>{short(rate)}" if len(rates) > 1 else ""
                    )
                    bases.setdefault(base, name)
        if not bases:
            raise ConfigError("no method; choose one or more")
        cells = ((n, [base.replace(seed=seed) for seed in seeds]) for base, n in bases.items())
        return cls(subject, tuple(Cell(name, tuple(configs)) for name, configs in cells))

    @cached_property
    def configs(self) -> dict[str, RunConfig]:
        """Return the runs by key, in order."""
        return by_key(config for cell in self.cells for config in cell.configs)

    def pending(self, stored: Collection[str]) -> list[RunConfig]:
        """Return the runs that are not among the keys ``stored``."""
        return [config for key, config in self.configs.items() if key not in stored]

    def steps(self, configs: Iterable[RunConfig]) -> int:
        """Return the optimizer steps of some runs together."""
        return sum(config.steps(self.subject.train) for config in configs)

    def paces(self) -> list[RunConfig]:
        """Return one configuration for each speed at which the plan's runs go."""
        return list(dict.fromkeys(pace(cell.configs[0]) for cell in self.cells))

    def seconds(
        self, configs: Iterable[RunConfig], speeds: Mapping[RunConfig, Speed]
    ) -> float | None:
        """Return how long some runs take one after the other; None where a speed is not known."""
        sizes = self.subject.train, self.subject.dev
        found = [(speeds.get(pace(config)), config) for config in configs]
        if any(speed is None for speed, _ in found):
            return None
        return sum(speed.seconds(config, *sizes) for speed, config in found if speed)


def _name(method: str, correction: bool | None) -> str:
    if correction is None:
        return method
    return f"{method}<br>{'corrected' if correction else 'uncorrected'}"
