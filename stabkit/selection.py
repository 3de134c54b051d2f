"""Which stored runs are meant, told without the digests of models and data.

Digests are made from the files themselves, which takes torch; whoever reads results has neither.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from stabkit import studies
from stabkit.config import LOCATIONS, RunConfig
from stabkit.errors import ConfigError, StabkitError
from stabkit.presets import is_mini, preset
from stabkit.store import Store
from stabkit.tables import learned_nothing, only, require

SHOWN = 3  # runs of a kind, as in Fig. 2 and 4
DIGESTS = ("weights", "tokenizer", "data")
IDENTITY = tuple(f.name for f in fields(RunConfig) if f.name not in DIGESTS)
SEEDS = ("seed", "head_seed", "order_seed", "dropout_seed")
Cells = tuple[Hashable, ...]
PLAIN = {"mixout": 0.0, "multiplier": "none"}  # a recipe of AdamW alone


def without_seeds(names: Iterable[str]) -> None:
    """Raise ConfigError where a seed is among the fields that all runs of a comparison share."""
    if named := [name for name in names if name in SEEDS]:
        raise ConfigError(
            f"{', '.join(named)} cannot be set for all runs: they differ by their seed. A single "
            "run takes it: stabkit run --set"
        )


def matching(runs: pd.DataFrame, configs: Iterable[RunConfig]) -> pd.DataFrame:
    """Return the runs of ``configs``, in their order, whichever digests the two have."""
    return by_grid(runs, {"": configs})[""]


def by_grid(
    runs: pd.DataFrame, grids: Mapping[str, Iterable[RunConfig]]
) -> dict[str, pd.DataFrame]:
    """Return the runs of each of several grids, as ``matching`` does; rows are read once."""
    grids = {name: list(configs) for name, configs in grids.items()}
    asked = {(config.model, config.task) for configs in grids.values() for config in configs}
    pairs = zip(runs["model"], runs["task"], strict=True)
    runs = runs[np.array([pair in asked for pair in pairs], dtype=bool)]  # most are others'
    rows = _cells(runs, IDENTITY)
    return {name: _in_order(runs, rows, configs) for name, configs in grids.items()}


def _in_order(
    runs: pd.DataFrame, rows: Sequence[Cells], configs: Iterable[RunConfig]
) -> pd.DataFrame:
    """Return those of ``runs``, whose identities are ``rows``, that ``configs`` ask for."""
    place = {identity: i for i, identity in enumerate(map(attrgetter(*IDENTITY), configs))}
    order = sorted((place[asked], row) for row, asked in enumerate(rows) if asked in place)
    return runs.iloc[[row for _, row in order]].reset_index(drop=True)


def _cells(runs: pd.DataFrame, names: Sequence[str]) -> list[Cells]:
    """Return the cells of some columns, row by row, as a configuration has them."""
    if len(runs):
        require(runs, names)
    rows = runs.reindex(columns=list(names)).itertuples(index=False, name=None)
    return [tuple(None if cell != cell else cell for cell in row) for row in rows]


def reference_rate(store: Store, pilot: str = studies.PILOT_STUDY) -> float:
    """Return the learning rate that takes the place of the paper's 2e-5, or one recipe's own.

    Raises StabkitError when ``store`` lacks a run of the study ``pilot``, from which it follows.
    """
    return rate_from(store.table(), pilot, str(store.path))


def rate_from(
    runs: pd.DataFrame, pilot: str = studies.PILOT_STUDY, place: str = "the table"
) -> float:
    """Return ``reference_rate`` from a run table; ``place`` says in an error where it is from."""
    study = studies.study(pilot)
    asked = study.build(rate_from(runs, study.pilot, place) if study.needs_rate else 0.0)
    found = matching(runs, asked)
    for _, of_task in found.groupby("task"):
        only(of_task, *DIGESTS)  # runs of other weights or data are other runs
    if missing := len(asked) - len(found):
        raise StabkitError(
            f"the learning rate follows from the study {pilot}, and "
            f"{missing} of its {len(asked)} runs are not in {place}; do them, name the "
            "folder of the published runs with --results, or choose a --learning-rate"
        )
    return studies.RULES[pilot](found)


def study_grid(name: str, store: Store, rate: float | None = None) -> list[RunConfig]:
    """Return a study's configurations, at ``rate`` or else at the reference rate, if it has one.

    Raises StabkitError for an unknown study or when the rate cannot be told.
    """
    study = studies.study(name)
    if rate is None and study.needs_rate:
        rate = reference_rate(store, study.pilot)
    return study.build(rate or 0.0)


def studied(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that belong to the grid of a study, whatever their learning rate.

    The study ``real`` is one of any model that is not a mini one.
    """
    grid = [config for study in studies.STUDIES.values() for config in study.build(1.0)]
    for model in runs["model"].unique():
        if not is_mini(model):
            grid += studies.real(model, seeds=len(studies.REPORTED))
    names = [name for name in IDENTITY if name != "learning_rate"]
    known = set(map(attrgetter(*names), grid))
    return runs[np.array([row in known for row in _cells(runs, names)], dtype=bool)]


def exhibited(runs: pd.DataFrame) -> list[str]:
    """Return the keys of the runs whose gradients the book shows step by step.

    These are, of each model's 3-epoch runs on the RTE-like task, with bias correction and without,
    the lowest-numbered three that failed and three without any sign of failure, at each rate.
    """
    recipe = {"task": "mini-rte", "epochs": 3, "warmup": 0.1, **PLAIN}
    clear = runs[runs["failed"].astype(bool) | ~learned_nothing(runs)]
    plain = _having(clear[clear["seed"].isin(studies.REPORTED)], recipe)
    usual = [not departures(run) for run in plain.to_dict("records")]
    plain = plain[np.array(usual, dtype=bool)]  # a list without entries would name columns
    cells = ["model", "learning_rate", "bias_correction", "failed"]
    keys: list[str] = plain.sort_values("seed").groupby(cells).head(SHOWN)["key"].tolist()
    return keys


def specimens(runs: pd.DataFrame, each: int = SHOWN) -> pd.DataFrame:
    """Return ``each`` failed and ``each`` successful runs of one configuration, by lowest seed.

    It is the plain one with the smallest learning rate that has so many of both, and of several the
    one with fewest ``departures``, fewest epochs and the usual warmup; successful are runs without
    any sign of failure. Pilot seeds are for choosing and are passed over. Raises StabkitError where
    no configuration has.
    """
    judged = runs.assign(nothing=learned_nothing(runs)).sort_values("seed")
    plain = _having(judged[~judged["seed"].isin(studies.PILOT)], PLAIN)
    names = [f.name for f in fields(RunConfig) if f.name not in (*LOCATIONS, *SEEDS)]
    cells = [cell for _, cell in plain.groupby(["model", *names], dropna=False, sort=False)]
    for cell in sorted(cells, key=lambda cell: _distance(cell.iloc[0])):
        kinds = [cell[cell["failed"].astype(bool)], cell[~cell["nothing"]]]
        if min(map(len, kinds)) >= each:
            return pd.concat([kind.head(each) for kind in kinds])
    raise StabkitError(
        f"no configuration has {each} failed and {each} successful runs (without Mixout); do more "
        "seeds or other learning rates of the study first"
    )


def departures(run: Mapping[Hashable, Any]) -> int:
    """Return how many of the choices ``studies.SILENT`` a run makes otherwise than its preset."""
    usual = preset("devlin", model=run["model"])
    names = {name for changed in studies.SILENT.values() for name in changed}
    return sum(run[name] != getattr(usual, name) for name in names)


def _distance(run: pd.Series) -> tuple[float, ...]:
    """Return how far a run is from the one to look at: the first number counts most."""
    epochs = np.inf if pd.isna(run["epochs"]) else run["epochs"]
    warmup = abs(run["warmup"] - preset("devlin", model=run["model"]).warmup)
    return float(run["learning_rate"]), departures(run.to_dict()), float(epochs), float(warmup)


def _having(runs: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Return the runs whose columns have the values of ``settings``."""
    for name, value in settings.items():
        runs = runs[runs[name] == value]
    return runs


def with_model(configs: list[RunConfig], model: str) -> list[RunConfig]:
    """Return those of a model; raises ConfigError where there are none."""
    chosen = [config for config in configs if config.model == model]
    if not chosen:
        known = dict.fromkeys(config.model for config in configs)
        raise ConfigError(f"--model {model}: the study has {', '.join(known)} only")
    return chosen


def with_seeds(configs: list[RunConfig], text: str) -> list[RunConfig]:
    """Return those with a seed of the range ``A:B``, B not included, as in Python.

    Raises ConfigError for another text and where nothing is left.
    """
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal()):
        raise ConfigError(f"--seeds {text}: expected A:B, such as 0:5 for the seeds 0 to 4")
    chosen = [config for config in configs if int(first) <= config.seed < int(end)]
    if not chosen:
        seeds = sorted({config.seed for config in configs})
        raise ConfigError(f"--seeds {text}: the study has seeds {seeds[0]} to {seeds[-1]} only")
    return chosen
