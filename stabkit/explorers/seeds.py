"""How much a number of seeds tells: every run of a cell, and samples drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from stabkit.config import LOCATIONS, RunConfig
from stabkit.errors import StabkitError
from stabkit.explorers.mechanism import Button, Checkbox, Control, Explorer, Select, Slider
from stabkit.figures.scores import METRICS, verdicts
from stabkit.figures.style import PALETTE, caption
from stabkit.report import method
from stabkit.schedule import short
from stabkit.selection import PLAIN, SEEDS, departures
from stabkit.studies import PILOT
from stabkit.tables import finite_scores, require

NUMBERS = (3, 25)  # of seeds: the fewest whose spread says anything, and the paper's number
ANOTHER = "neither"  # the recipe of runs that follow none of the paper's
SWITCHED = "switched"  # compared with the same but for bias correction
AXES: dict[
    str, tuple[str, Callable[[Any], str]]
] = {  # that tell cells apart: the control's label, how a value is written
    "model": ("Model", str),
    "task": ("Task", str),
    "recipe": ("Recipe", str),
    "learning_rate": ("Learning rate", short),
    "epochs": ("Epochs", str),
    "bias_correction": ("Bias correction", str),
}
WORDS = {True: "corrected", False: "uncorrected"}
SETTINGS = tuple(field.name for field in fields(RunConfig))  # which tell a run's recipe
OTHERS = [name for name in SETTINGS if name not in (*AXES, *SEEDS, *LOCATIONS)]
STATISTICS = (("standard deviation", "std"), ("share that fails", "failed"), ("mean", "mean"))
ALT = (
    "Left, the dev score of every run of the chosen cell as a point, failed runs as crosses, and "
    "beside them a sample drawn from them; right, how a statistic varies over 1,000 such draws."
)


def seeds(
    table: pd.DataFrame,
    finding: str,
    scale: str,
    start: Mapping[str, Any] | None = None,
    compare: str = "",
    comparison: Sequence[str] = ("model", "task"),
) -> Explorer:
    """Let readers choose a cell and a number of seeds, and draw so many of its runs again.

    ``table`` is a run table; a column ``method`` is heeded, else settings tell the recipe. A
    cell's runs differ by seed only; pilot seeds count where there are no others. It opens where
    about half of the runs fail, reported seeds first, among the cells with the values of ``start``
    (by AXES), and beside it shows the recipe ``compare``, if there are runs of it, or for SWITCHED
    the same cell with bias correction switched. ``comparison`` is that of the caption
    (``figures.caption``), which refuses runs of several hardware classes.
    Raises StabkitError when no cell has three runs.
    """
    runs = _comparable(_named(table))
    cells = [_cell(dict(zip(AXES, at, strict=True)), cell) for at, cell in _by_axes(runs)]
    axes = [name for name in AXES if len({cell[name] for cell in cells}) > 1]
    wanted = start or {}
    fitting = [cell for cell in cells if all(cell[name] == value for name, value in wanted.items())]
    half = min(
        fitting or cells,
        key=lambda cell: (cell["pilot"], abs(cell["failures"] / len(cell["runs"]) - 0.5)),
    )
    rivals = _rivals(cells)
    return Explorer(
        kind="seeds",
        data={"cells": cells, "axes": axes},
        start={name: half[name] for name in axes}
        | {"compare": compare if compare in dict(rivals).values() else ""}
        | {"statistic": "failed", "number": 5, "sample": 1},
        controls=[*(_control(name, cells) for name in axes), *_questions(rivals, cells)],
        panels=(380, 380),
        caption=caption(runs, finding, scale, list(AXES), comparison),
        alt=ALT,
    )


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with a column ``method``, which a store's table does not have."""
    require(table, ("metric", "majority_score", "seed", *SETTINGS))
    if "method" in table:
        return table
    return table.assign(method=[method(run) for run in table.to_dict("records")])


def _comparable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs on full sets with the usual warmup that fall into cells of three or more."""
    finite_scores(table, "score_last")
    named = table["method"].notna() | (table["mixout"] == PLAIN["mixout"])
    usual = (table["warmup"] == RunConfig().warmup) & (table["multiplier"] == PLAIN["multiplier"])
    runs = table[named & usual & table["train_size"].isna() & table["epochs"].notna()]
    runs = runs.assign(recipe=runs["method"].fillna(ANOTHER)).drop_duplicates("key")
    kept = [_preferred(cell) for _, cell in _by_axes(runs)]
    kept = [cell for cell in kept if len(cell) >= NUMBERS[0]]
    if not kept:
        raise StabkitError(f"no cell has {NUMBERS[0]} runs; run more seeds of the study first")
    return pd.concat(kept, ignore_index=True)


def _by_axes(runs: pd.DataFrame) -> Any:
    return runs.groupby(list(AXES), sort=False)


def _preferred(cell: pd.DataFrame) -> pd.DataFrame:
    """Return a cell's runs but those of pilot seeds, or these where it has no others.

    Where runs differ in more than the seed they are of the largest group that does not, and of
    several such of the one with fewest ``departures``.
    """
    others = cell[~cell["seed"].isin(PILOT)]
    runs = cell if others.empty else others
    groups = [group for _, group in runs.groupby(OTHERS, dropna=False, sort=False)]
    return min(groups, key=lambda group: (-len(group), departures(group.iloc[0].to_dict())))


def _cell(at: dict[str, Any], runs: pd.DataFrame) -> dict[str, Any]:
    """Return what the page knows of a cell; a run is its seed, score, verdict and its wording."""
    epochs, corrected = int(at["epochs"]), bool(at["bias_correction"])
    other = f"{epochs} epochs, {'with' if corrected else 'without'} correction"
    metric = str(runs["metric"].iloc[0])
    told = zip(runs["seed"], runs["score_last"], runs["failed"], verdicts(runs), strict=True)
    return at | {
        "epochs": epochs,
        "bias_correction": corrected,
        "name": other if at["recipe"] == ANOTHER else at["recipe"],
        "label": at["recipe"] if at["recipe"] != ANOTHER else WORDS[corrected],
        "adamw": bool((runs["mixout"] == PLAIN["mixout"]).all()),
        "metric": METRICS.get(metric, metric),
        "majority": 100 * float(runs["majority_score"].iloc[0]),
        "failures": int(runs["failed"].sum()),
        "pilot": bool(runs["seed"].isin(PILOT).all()),
        "runs": [[int(s), 100 * float(score), bool(f), words] for s, score, f, words in told],
    }


def _control(name: str, cells: list[dict[str, Any]]) -> Control:
    label, worded = AXES[name]
    if name == "bias_correction":
        return Checkbox(name, label)
    values = {cell[name] for cell in cells}
    found = _recipes(values) if name == "recipe" else sorted(values)
    return Select(name, label, [(worded(value), value) for value in found])


def _recipes(found: set[str]) -> list[str]:
    """The paper's recipes in its order, then others that a table names, then what has no name."""
    others = sorted(found - {*PALETTE, ANOTHER})
    return [name for name in (*PALETTE, *others, ANOTHER) if name in found]


def _rivals(cells: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What a cell can be compared with, as the options of a control."""
    recipes = [name for name in _recipes({cell["recipe"] for cell in cells}) if name != ANOTHER]
    found = [("nothing", ""), *((name, name) for name in recipes)]
    if len({cell["bias_correction"] for cell in cells}) > 1:
        found.append(("the same, with correction switched", SWITCHED))
    return found


def _questions(rivals: list[tuple[str, str]], cells: list[dict[str, Any]]) -> list[Control]:
    fewest, most = NUMBERS
    most = max(most, *(len(cell["runs"]) for cell in cells))
    return [
        Select("compare", "Compare with", rivals),
        Select("statistic", "Over many draws, show the", STATISTICS),
        Slider("number", "Number of seeds", fewest, most),
        Button("sample", "Draw another sample of seeds"),
    ]
