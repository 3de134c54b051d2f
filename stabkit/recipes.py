"""Runs by their recipe: which belong together, and which recipe is the remedy of which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd

from stabkit import diagnosis
from stabkit.config import RunConfig
from stabkit.selection import DIGESTS, SEEDS
from stabkit.tables import require

ENOUGH = 2  # seeds from which on a recipe can be diagnosed
SHOWN = 6  # characters of a digest, in a heading


class Recipe(NamedTuple):
    """A configuration without its seeds, with its runs; its remedy likewise, if it was trained."""

    config: RunConfig
    runs: pd.DataFrame
    remedy: RunConfig | None = None
    remedied: pd.DataFrame | None = None

    def blocks(self) -> dict[str, list[str]]:
        """Return the diagnosis of the runs, and whether the remedy helped: lines by their title."""
        found = [self.runs] if self.remedied is None else [self.runs, self.remedied]
        told = diagnosis.blocks(*map(diagnosis.diagnose, found))
        kinds = pd.concat(found)["hardware"].unique()
        if len(kinds) > 1:
            told["Mind"] = [f"scores and failures may differ between {' and '.join(kinds)}"]
        return told


def seedless(config: RunConfig) -> RunConfig:
    """Return what the runs of one recipe have in common."""
    return config.replace(**dict.fromkeys(SEEDS, 0))


def by_recipe(runs: pd.DataFrame) -> dict[RunConfig, pd.DataFrame]:
    """Return the runs of each recipe of a run table, in order of appearance."""
    require(runs, ("key", "hardware", *SEEDS))
    places: dict[RunConfig, list[int]] = {}
    for place, row in enumerate(runs.to_dict("records")):
        places.setdefault(seedless(RunConfig.from_row(row)), []).append(place)
    return {config: runs.iloc[found] for config, found in places.items()}


def recipes(runs: pd.DataFrame) -> list[Recipe]:
    """Return the recipes of a run table that have ``ENOUGH`` seeds, in order of appearance.

    The remedy of a recipe that fails stands with it, and on its own only where its own remedy was
    trained.
    """
    groups = {config: found for config, found in by_recipe(runs).items() if len(found) >= ENOUGH}
    remedies: dict[RunConfig, RunConfig] = {}
    for config, found in groups.items():
        told = diagnosis.diagnose(found)
        if told.changes() and (remedy := seedless(told.remedied())) in groups:
            remedies[config] = remedy
    shown = [config for config in groups if config in remedies or config not in remedies.values()]
    return [
        Recipe(config, groups[config], remedy, None if remedy is None else groups[remedy])
        for config, remedy in ((config, remedies.get(config)) for config in shown)
    ]


def names(found: list[Recipe]) -> list[str]:
    """Return for each recipe a heading: its model and task, and what the recipes differ in.

    Where that leaves some alike, the digests by which they differ stand there too.
    """
    rows = [asdict(one.config) for one in found]
    differ = [n for n in asdict(RunConfig()) if len({row[n] for row in rows}) > 1]
    settings = [n for n in differ if n not in ("model", "task", *DIGESTS)]
    headings = [_heading(row, settings) for row in rows]
    if len(set(headings)) == len(rows):
        return headings
    digests = [n for n in differ if n in DIGESTS]
    return [_heading(row, [*settings, *digests]) for row in rows]


def _heading(row: Mapping[str, Any], settings: list[str]) -> str:
    return ", ".join([f"{row['model']} on {row['task']}", *(_setting(row, n) for n in settings)])


def _setting(row: Mapping[str, Any], name: str) -> str:
    value = row[name][:SHOWN] if name in DIGESTS else row[name]
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
