"""The paper's own scale: a study of mini models as runs of the large ones on the published data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from stabkit import selection, studies
from stabkit.config import CHOICES, RunConfig
from stabkit.errors import ConfigError
from stabkit.mini.tasks import RECIPES
from stabkit.presets import MINI
from stabkit.store import Store

Scale: TypeAlias = Literal["mini", "paper"]
RATE = 2e-5  # section 7.3
MODELS = {  # section 3; what each of the mini models stands for
    "mini-bert": "bert-large-uncased",
    "mini-roberta": "roberta-large",
    "mini-albert": "albert-large-v2",
}


def study_grid(
    name: str, store: Store, rate: float | None = None, scale: Scale = "mini"
) -> list[RunConfig]:
    """Return a study's configurations at a scale, at ``rate`` or else at that scale's own.

    Raises ConfigError for a study that has no meaning at the paper's scale, else as
    ``stabkit.selection.study_grid``.
    """
    if scale == "mini":
        return selection.study_grid(name, store, rate)
    study = studies.study(name)
    if not study.needs_rate:
        raise ConfigError(
            f"{name} chooses the mini models' learning rate; at the paper's scale that is {RATE:g}"
        )
    if rate is None and study.pilot != studies.PILOT_STUDY:
        raise ConfigError(
            f"the learning rate of {name} follows from {study.pilot}; do that at the paper's "
            "scale, and give the rate that you choose (--learning-rate)"
        )
    return at_paper_scale(study.build(rate or RATE))


def in_every_precision(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Return the runs in each precision in which they may have been done."""
    return [config.replace(precision=one) for config in configs for one in CHOICES["precision"]]


def at_paper_scale(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Return runs of the large models on the published data in the place of mini models' runs.

    Segments are left out, as the released code does, and given where a study leaves them out.
    Steps in the place of epochs are as many epochs of the published set. Raises ConfigError for a
    model that stands for none of the paper's.
    """
    return [_enlarged(config) for config in configs]


def _enlarged(config: RunConfig) -> RunConfig:
    if config.model not in MODELS:
        raise ConfigError(
            f"{config.model} stands for no model of the paper; those that do are "
            f"{', '.join(MODELS)}, and --model of stabkit run takes any other"
        )
    task = config.task.removeprefix(MINI)
    return config.replace(
        model=MODELS[config.model],
        task=task,
        segments=not config.segments,
        max_steps=None if config.max_steps is None else _steps(config, config.max_steps, task),
    )


def _steps(config: RunConfig, steps: int, task: str) -> int:
    """Return the steps of as many epochs of the full published set."""
    from stabkit.sources import DATA_SETS  # here, because reading results must not import datasets

    whole = config.replace(train_size=None)
    mini, published = RECIPES[config.task].size, DATA_SETS[task].sizes[0]
    return round(steps / whole.steps_per_epoch(mini)) * whole.steps_per_epoch(published)
