"""The studies of the book: grids of configurations, by name.

Each function returns configurations without digests; ``stabkit.train.pin`` adds them. Seeds from
1000 up are for choosing, 0 to 24 for reporting, 2000 up for what the book trains afresh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from stabkit import tables
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, nearest
from stabkit.mini.tasks import RECIPES
from stabkit.presets import REAL_TEXT, preset

REPORTED = range(25)
PILOT = range(1000, 1010)
CHOOSING = PILOT[5:]  # on which each recipe's rate is chosen; the gate has some of the others
FRESH = range(2000, 2002)
GLUE = ("rte", "mrpc", "cola", "qnli")
FEW = {"qnli": 1000}  # training examples, where not all are used: QNLI has 104,743
SMALL = {"cola": "mini-cola", "mrpc": "mini-mrpc", "qnli": "mini-qnli"}  # tasks of section 4.2
PILOT_STUDY = "pilot-rte"  # the reference rate follows from it
PILOT_RATES = tuple(float(f"{rate:.2g}") for rate in np.geomspace(5e-5, 1e-3, 7))
METHODS = ("devlin", "lee", "ours")
ARCHITECTURES = ("mini-bert", "mini-roberta", "mini-albert")
SILENT: dict[str, dict[str, Any]] = {  # choices of code, unsaid in the paper, made otherwise
    "segments left out": {"segments": False},
    "first update not at rate 0": {"zero_first_update": False},
    "decay before the step": {"decay_after_step": False},
    "the last two together": {"zero_first_update": False, "decay_after_step": False},
}
USUAL = "as in all other runs"
TUNED: dict[str, tuple[str, dict[str, Any]]] = {  # recipes of 3 epochs; each gets its own rate
    "devlin": ("devlin", {}),
    "corrected": ("devlin", {"bias_correction": True}),
    "lee": ("lee", {}),
}
FACTORS = (0.125, 0.25, 0.5, 1.0)  # of the reference rate; above it corrected runs begin to fail
LOOKS = 3  # at the dev set, per epoch, about as many as in the released configurations


@dataclass(frozen=True)
class Study:
    """A named grid: what it is for and how its configurations follow from the reference rate.

    The rate follows from the runs of the study ``pilot``.
    """

    name: str
    purpose: str
    build: Callable[[float], list[RunConfig]]
    needs_rate: bool = True
    pilot: str = PILOT_STUDY


def grid(base: RunConfig, seeds: Iterable[int], **axes: Iterable[Any]) -> list[RunConfig]:
    """Return ``base`` for every combination of the values of ``axes`` and every seed."""
    configs = [base]
    for name, values in axes.items():
        options = list(values)
        configs = [config.replace(**{name: value}) for config in configs for value in options]
    return [config.replace(seed=seed) for config in configs for seed in seeds]


def pilot(task: str = "mini-rte", model: str = "mini-bert") -> list[RunConfig]:
    """Both failure curves: seven log-spaced rates, correction on and off, ten pilot seeds.

    The blind rule reads the reference rate off these runs (``reference_rate``).
    """
    base = preset("devlin", model=model, task=task)
    return grid(base, PILOT, learning_rate=PILOT_RATES, bias_correction=(True, False))


def table_1(rate: float, task: str = "mini-rte", model: str = "mini-bert") -> list[RunConfig]:
    """Fig. 1 and Table 1: the three methods at the reference rate, all reported seeds."""
    methods = [
        preset(method, model=model, task=task, learning_rate=rate, evals_per_epoch=LOOKS)
        for method in METHODS
    ]
    return [config for method in methods for config in grid(method, REPORTED)]


def gate(
    rate: float,
    models: Iterable[str] = ("mini-bert",),
    tasks: Iterable[str] = RECIPES,
    long: int = 1,
) -> list[RunConfig]:
    """What the gate asks of training: three runs of 3 epochs, and ``long`` of 20."""
    bases = [preset("ours", model=m, task=t, learning_rate=rate) for m in models for t in tasks]
    short = [run for base in bases for run in grid(base.replace(epochs=3), PILOT[:3])]
    return short + [run for base in bases for run in grid(base, PILOT[:long])]


def controls(rate: float, task: str = "mini-rte", model: str = "mini-bert") -> list[RunConfig]:
    """The hidden multiplier put back into corrected runs and taken out of uncorrected ones."""
    base = preset("devlin", model=model, task=task, learning_rate=rate, evals_per_epoch=LOOKS)
    corrected = base.replace(bias_correction=True)
    cells = (
        corrected,
        corrected.replace(multiplier="times"),
        base,
        base.replace(multiplier="divided"),
    )
    return [config for cell in cells for config in grid(cell, REPORTED)]


def figure_5(
    rate: float, models: Iterable[str] = ARCHITECTURES, task: str = "mini-rte"
) -> list[RunConfig]:
    """Fig. 5: half, one and one and a half times the rate, correction on and off, three models."""
    return [
        config for model in models for config in ablation(rate, epochs=(3,), task=task, model=model)
    ]


def ablation(
    rate: float,
    epochs: Iterable[int] = (3, 10, 20),
    task: str = "mini-rte",
    model: str = "mini-bert",
) -> list[RunConfig]:
    """Fig. 9, and 8a and 8b: epochs x learning rate x correction, 450 runs as in the paper."""
    base = preset("devlin", model=model, task=task, evals_per_epoch=LOOKS)
    rates = [_scaled(rate, factor) for factor in (0.5, 1.0, 1.5)]
    axes = {"epochs": epochs, "learning_rate": rates, "bias_correction": (False, True)}
    return grid(base, REPORTED, **axes)


def _scaled(rate: float, factor: float) -> float:
    return float(f"{rate * factor:.3g}")


def small_data(rate: float, task: str, model: str = "mini-bert") -> list[RunConfig]:
    """Fig. 3: the full set for 3 epochs; 1,000 examples for 3 epochs; for as many steps as it.

    The full set's number of steps is that of ``stabkit.mini.tasks``.
    """
    base = preset("devlin", model=model, task=task, learning_rate=rate, evals_per_epoch=LOOKS)
    steps = base.steps(RECIPES[task].size)
    few = base.replace(train_size=1000)
    same_steps = few.replace(epochs=None, max_steps=steps)
    return [config for cell in (base, few, same_steps) for config in grid(cell, REPORTED)]


def warmup(rate: float, task: str = "mini-rte", model: str = "mini-bert") -> list[RunConfig]:
    """Section 5.1: warmup and correction, each without the other, neither and both."""
    base = preset("devlin", model=model, task=task, learning_rate=rate, evals_per_epoch=LOOKS)
    return grid(base, REPORTED, warmup=(0.0, 0.1), bias_correction=(False, True))


def long_warmup(rate: float) -> list[RunConfig]:
    """Section 7.4: 3 and 20 epochs, each with its own warmup and with that of the other in steps.

    Warmup is a share of the steps, so that who trains longer warms up for longer, too. At half the
    rate, without correction.
    """
    base = preset("devlin", learning_rate=_scaled(rate, 0.5), evals_per_epoch=LOOKS)
    short, long = base, base.replace(epochs=20)
    ratio = long.steps(RECIPES[base.task].size) / short.steps(RECIPES[base.task].size)
    slow = short.replace(warmup=base.warmup * ratio)
    quick = long.replace(warmup=base.warmup / ratio)
    return [config for cell in (short, slow, long, quick) for config in grid(cell, REPORTED)]


def candidates(rate: float, recipe: str) -> list[RunConfig]:
    """One of the TUNED recipes at four rates on five pilot seeds, for ``tables.best_rate``."""
    name, changed = TUNED[recipe]
    rates = [_scaled(rate, factor) for factor in FACTORS]
    return grid(preset(name, **changed), CHOOSING, learning_rate=rates)


def tuned(rate: float, recipe: str) -> list[RunConfig]:
    """One of the TUNED recipes at a rate of its own, all reported seeds."""
    name, changed = TUNED[recipe]
    return grid(preset(name, **changed, learning_rate=rate, evals_per_epoch=LOOKS), REPORTED)


def silent(rate: float) -> list[RunConfig]:
    """Section 7.3: a cell of Fig. 5 as it is, then with each of the SILENT choices made otherwise.

    At half the rate without correction some seeds fail and some do not, so that a change either way
    can be seen. Without correction there is one place for eps only.
    """
    cell = [c for c in ablation(rate, epochs=(3,)) if not c.bias_correction][: len(REPORTED)]
    return [config.replace(**changed) for changed in ({}, *SILENT.values()) for config in cell]


def choices(runs: pd.DataFrame) -> pd.Series:
    """Return which of the SILENT choices each run makes otherwise, else USUAL."""
    found = pd.Series(USUAL, index=runs.index)
    for name, changed in SILENT.items():  # the last holds two of the others
        found[np.logical_and.reduce([runs[field] == to for field, to in changed.items()])] = name
    return found


def real(model: str, tasks: Iterable[str] = ("rte", "mrpc"), seeds: int = 5) -> list[RunConfig]:
    """The paper's rate on real tasks with a real encoder, correction on and off, 3 epochs."""
    base = preset("devlin", model=model, learning_rate=2e-5, precision="bf16")
    return grid(base, REPORTED[:seeds], task=tasks, bias_correction=(True, False))


def wiki_pilot() -> list[RunConfig]:
    """Seven log-spaced rates on the four GLUE tasks, with correction, ten pilot seeds."""
    axes = {"learning_rate": PILOT_RATES, "bias_correction": (True,)}
    bases = [preset("devlin", model=REAL_TEXT, task=t, train_size=FEW.get(t)) for t in GLUE]
    return [run for base in bases for run in grid(base, PILOT, **axes)]


def wiki_rates(rate: float) -> list[RunConfig]:
    """Fig. 5 on GLUE: half, one and one and a half times the rate, correction on and off."""
    runs = [run for task in GLUE for run in ablation(rate, (3,), task, REAL_TEXT)]
    return [run.replace(train_size=FEW.get(run.task)) for run in runs]


def wiki_table_1(rate: float) -> list[RunConfig]:
    """Fig. 1 and Table 1 on GLUE itself."""
    return [run for task in GLUE[:3] for run in table_1(rate, task, REAL_TEXT)]


def fresh(rate: float) -> list[RunConfig]:
    """What the book trains while it is built: Devlin, and Devlin with correction, on new seeds."""
    base = preset("devlin", learning_rate=rate)
    return grid(base, FRESH, bias_correction=(False, True))


def reference_rate(runs: pd.DataFrame) -> float:
    """Return the organism's "2e-5": the largest pilot rate at which every corrected run learns."""
    return tables.learning_rate_rule(tables.failure_curve(runs))


STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Study(PILOT_STUDY, "failure curves; chooses the learning rate", lambda _: pilot(), False),
        Study("gate", "every task is learned: 3 epochs, 20 epochs", gate),
        Study(
            "gate-models",
            "the other architectures learn the RTE-like task",
            lambda r: gate(r, ARCHITECTURES[1:], ("mini-rte",), 3),
        ),
        Study("table1-rte", "Fig. 1 and Table 1, RTE-like task", table_1),
        Study(
            "table1-half",
            "the same at half the rate, where seeds part",
            lambda rate: table_1(_scaled(rate, 0.5)),
        ),
        Study("controls-rte", "the hidden multiplier as a learning rate", controls),
        Study("table1-mrpc", "Fig. 1 and Table 1, MRPC-like", lambda r: table_1(r, "mini-mrpc")),
        Study("table1-cola", "Fig. 1 and Table 1, CoLA-like", lambda r: table_1(r, "mini-cola")),
        Study("table1-scitail", "another domain", lambda r: table_1(r, "mini-scitail")),
        Study("figure5", "three models, three rates, correction on and off", figure_5),
        Study("ablation", "450 runs: epochs, rates, correction", ablation),
        Study("warmup", "warmup and correction, two by two", warmup),
        Study(
            "warmup-half",
            "the same at half the rate, where seeds part",
            lambda rate: warmup(_scaled(rate, 0.5)),
        ),
        Study("long-warmup", "long training or long warmup, two by two", long_warmup),
        Study("silent", "what the released code does unsaid", silent),
        *(
            Study(f"rates-{name}", f"chooses a rate for {name}", partial(candidates, recipe=name))
            for name in TUNED
        ),
        *(
            Study(
                f"best-{name}",
                f"{name} at the rate chosen for it",
                partial(tuned, recipe=name),
                pilot=f"rates-{name}",
            )
            for name in TUNED
        ),
        Study("shallow", "the shallow control", lambda r: figure_5(r, ("mini-bert-shallow",))),
        *(
            Study(f"small-{name}", f"1,000 examples, {name}", partial(small_data, task=task))
            for name, task in SMALL.items()
        ),
        *(
            Study(
                f"best-small-{name}",
                "the same at the rate chosen for Devlin",
                partial(small_data, task=task),
                pilot="rates-devlin",
            )
            for name, task in SMALL.items()
        ),
        Study("wiki-pilot", "real text: chooses the rate", lambda _: wiki_pilot(), False),
        Study("wiki-rates", "real text: rates, correction", wiki_rates, pilot="wiki-pilot"),
        Study("wiki-table1", "real text: Fig. 1, Table 1", wiki_table_1, pilot="wiki-pilot"),
    )
}
RULES: dict[str, Callable[[pd.DataFrame], float]] = {  # by which a rate follows from a study
    PILOT_STUDY: reference_rate,
    "wiki-pilot": tables.fitting_rate,
    **{f"rates-{name}": tables.best_rate for name in TUNED},
}


def study(name: str) -> Study:
    """Return a study by name; raises ConfigError that names the nearest."""
    if name not in STUDIES:
        raise ConfigError(f"unknown study {name!r}: {nearest(name, STUDIES)}")
    return STUDIES[name]
