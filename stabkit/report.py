"""Run tables as text, for the terminal: runs in, lines out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from stabkit import tables
from stabkit.config import RunConfig
from stabkit.presets import FAMILIES, PRESETS, RECIPES
from stabkit.selection import DIGESTS, PLAIN, SEEDS

WIDTH = 88  # columns of a terminal
NOTED = ("metric", "device", "hardware", "date")


def method(run: dict[str, Any]) -> str | None:
    """Return the paper's name of a run's recipe (Devlin, Lee, Ours), None if it has another."""
    for name, options in RECIPES.items():
        recipe = {**PLAIN, **options}
        if all(run[field] == value for field, value in recipe.items()):
            return name.capitalize()
    return None


def cells(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs with a column ``method`` and the columns by which they fall into cells.

    Within a cell, runs differ by their seeds only. If all follow a recipe of the paper, its name
    stands for its settings.
    """
    runs = runs.assign(method=[method(run) for run in runs.to_dict("records")])
    names = [field.name for field in fields(RunConfig) if field.name not in (*SEEDS, *DIGESTS)]
    by = [name for name in names if name in ("model", "task") or _varies(runs[name])]
    if runs["method"].notna().all():
        settings = {field for recipe in RECIPES.values() for field in recipe}
        by = ["method", *(name for name in by if name not in settings)]
    groups = runs.groupby(by, dropna=False)
    return runs, by + [name for name in DIGESTS if groups[name].nunique().max() > 1]


def _varies(column: pd.Series) -> bool:
    return len({*column}) > 1


def summary(runs: pd.DataFrame, score: str = "score_last") -> str:
    """Return a table like Table 1, in percent: one line per cell, 95 % intervals in brackets.

    Failed are runs at or below the majority class, as in the paper; runs that learn nothing show
    any sign of failure. Raises StabkitError for an empty or foreign table.
    """
    tables.require(runs, ("key", *tables.SIGNS, *NOTED))
    runs, by = cells(runs.assign(nothing=tables.learned_nothing(runs)))
    nothing = runs.groupby(by, sort=False, dropna=False)["nothing"].sum()
    groups = tables.describe_groups(runs, by, score)
    columns = {name: groups[name].map(plain) for name in by} | {
        "runs": groups["runs"],
        "failed": groups["failures"],
        "learn nothing": nothing.tolist(),
        "failed, %": [rate.percent() for rate in groups["failure_rate"]],
        **{name: [e.percent() for e in groups[name]] for name in ("std", "mean", "median")},
        "max": [f"{100 * value:.1f}" for value in groups["max"]],
    }
    return f"{_lines(columns)}\n\n{_note(runs, score)}"


def listing(runs: pd.DataFrame, score: str = "score_last") -> str:
    """Return one line per run: its key, cell, seed, score (percent) and verdict."""
    tables.require(runs, ("key", "seed", score, "failed", "seconds", "date"))
    runs, by = cells(runs)
    columns = {name: runs[name].map(plain) for name in ("key", *by)} | {
        "seed": runs["seed"],
        "score": [f"{100 * value:.1f}" for value in runs[score]],
        "failed": np.where(runs["failed"], "failed", ""),
        "seconds": runs["seconds"].round(1),
        "date": runs["date"],
    }
    return _lines(columns)


def outcome(run: pd.Series) -> str:
    """Return what became of one run, in four lines."""
    signs = [words for sign, words in tables.SIGNS.items() if run[sign]]
    return "\n".join(
        (
            f"{run['model']} on {run['task']}, seed {run['seed']}, run {run['key']}",
            f"  dev {run['metric']} {100 * run['score_last']:.1f} %, "
            f"majority class {100 * run['majority_score']:.1f} %",
            f"  training loss {run['train_loss']:.3g}, accuracy {100 * run['train_accuracy']:.1f} %"
            f" after {run['steps']} steps, {run['seconds']:.0f} s",
            f"  {'no sign of failure' if not signs else 'signs of failure: ' + '; '.join(signs)}",
        )
    )


def details(run: pd.Series) -> str:
    """Return all that the run table says about one run, a line per column."""
    width = max(map(len, run.index))
    return "\n".join(f"{name:<{width}}  {plain(value)}" for name, value in run.items())


def recipes() -> str:
    """Return the settings of the recipes, and of the architectures under each of them."""
    names = {**PRESETS, **{f"{name} models": options for name, options in FAMILIES.items()}}
    return "\n".join(
        f"{name:<15}" + "  ".join(f"{field}={value}" for field, value in options.items())
        for name, options in names.items()
    )


def _lines(columns: dict[str, Any]) -> str:
    return str(pd.DataFrame(columns).to_string(index=False))


def plain(value: Any) -> str:
    """Return a setting or another cell of a run table as one would write it."""
    if isinstance(value, list):
        return f"{len(value)} values"
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _note(runs: pd.DataFrame, score: str) -> str:
    hardware = (runs["device"] + ", " + runs["hardware"]).unique()
    days = runs["date"].str[:10]
    when = days.min() if days.nunique() == 1 else f"{days.min()} to {days.max()}"
    checkpoint = "last" if score == "score_last" else "best"
    return (
        f"dev {' / '.join(runs['metric'].unique())} of the {checkpoint} checkpoint, percent, with "
        f"95 % intervals\n{len(runs)} runs; {'; '.join(hardware)}; {when}"
    )
