"""What a run leaves behind, and the columns it is stored in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from stabkit.config import LOCATIONS, RunConfig
from stabkit.tables import LAYER

_ARROW = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
_ARROW["tuple[str, ...]"] = pa.list_(pa.string())
_TYPES = {  # of the configuration's columns; a Literal is text
    field.name: _ARROW.get(str(field.type).removesuffix(" | None"), pa.string())
    for field in dataclasses.fields(RunConfig)
}
NO_RUNS = pa.schema([*_TYPES.items(), ("key", pa.string())]).empty_table()
BITS = 11  # of a rounded number: it is off by at most 2^-11, or 0.05 %


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    ``summary`` holds the run's other columns in the run table (scalars, lists of numbers, None).
    ``history`` has one row per step: ``step`` and numeric columns (NaN where not measured).
    ``gradients`` has ``step`` and one column per weight matrix: the L2 norm before clipping.
    """

    config: RunConfig
    summary: dict[str, Any]
    history: pd.DataFrame
    gradients: pd.DataFrame

    def row(self) -> pa.Table:
        """Return the run's row of the run table: configuration, key, summary.

        Raises ValueError when the summary reuses a column of the configuration.
        """
        cells = {name: getattr(self.config, name) for name in _TYPES} | {"key": self.config.key}
        if taken := sorted(cells.keys() & self.summary.keys()):
            raise ValueError(f"the summary reuses columns of the configuration: {taken}")
        cells |= self.summary
        return pa.table({n: pa.array([cell], type=_TYPES.get(n)) for n, cell in cells.items()})


def steps(frame: pd.DataFrame, floats: type[np.floating[Any]] = np.float64) -> pa.Table:
    """Return a history as stored: its float columns as ``floats``, NaN kept apart from missing."""
    columns = {str(name): frame[name].to_numpy() for name in frame}
    return pa.table({n: c.astype(floats) if c.dtype.kind == "f" else c for n, c in columns.items()})


def frame(table: pa.Table) -> pd.DataFrame:
    """Return stored columns as pandas ones, such that every cell is what was put in.

    A column of the configuration or of non-floats with missing cells holds Python objects and
    None; a missing float of the summary is NaN. Lists stay lists.
    """
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        optional = name in _TYPES or not pa.types.is_floating(column.type)
        if _TYPES.get(name) == _ARROW["tuple[str, ...]"]:
            columns[name] = pd.Series([tuple(cell) for cell in column.to_pylist()], dtype=object)
        elif pa.types.is_nested(column.type) or (column.null_count and optional):
            columns[name] = pd.Series(column.to_pylist(), dtype=object)
        else:
            columns[name] = column.to_pandas()
    return pd.DataFrame(columns)


def concat(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of all ``tables``; a column that one of them lacks is missing there.

    The order of columns agrees with that of each table, unless two of them contradict each other.
    """
    tables = list(tables)
    order: TopologicalSorter[str] = TopologicalSorter()
    for names in dict.fromkeys(tuple(table.column_names) for table in tables):
        for before, after in pairwise(names):
            order.add(after, before)
    rows = pa.concat_tables(tables, promote_options="permissive")
    with suppress(CycleError):
        rows = rows.select(list(order.static_order()) or rows.column_names)
    return rows


def select(runs: pa.Table, configs: Iterable[RunConfig]) -> pa.Table:
    """Return the rows of ``configs`` in their order, those that are there, each key once.

    The same run may have been stored under another folder or file name (only digests count), so
    the names are those of ``configs``.
    """
    place = {key: i for i, key in enumerate(runs["key"].to_pylist())}
    asked = {key: config for key, config in by_key(configs).items() if key in place}
    runs = runs.take(pa.array([place[key] for key in asked], pa.int64()))
    for name in LOCATIONS:
        cells = pa.array([getattr(c, name) for c in asked.values()], type=_TYPES[name])
        runs = runs.set_column(runs.column_names.index(name), name, cells)
    return runs


def unique(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of several run tables, the first one of each key."""
    runs = concat([NO_RUNS, *tables])
    place: dict[str, int] = {}
    for i, key in enumerate(runs["key"].to_pylist()):
        place.setdefault(key, i)
    return runs.take(pa.array(place.values(), pa.int64()))


def by_key(configs: Iterable[RunConfig]) -> dict[str, RunConfig]:
    """Return the first configuration of each key, in order."""
    first: dict[str, RunConfig] = {}
    for config in configs:
        first.setdefault(config.key, config)
    return first


def thin(gradients: pa.Table, points: int = 40) -> pa.Table:
    """Return a gradient history at about ``points`` log-spaced steps, one column per layer.

    A layer's norm is that of all its matrices together; what stands outside of the layers keeps
    its own column. First and last step are among those kept. Norms are rounded (``rounded``).
    """
    at = gradients["step"].to_numpy()
    if len(at) == 0:
        return gradients
    keep = np.isin(at, np.geomspace(1, max(at[-1], 1), points).round())
    keep[[0, -1]] = True
    rows = gradients.filter(pa.array(keep))
    parts: dict[str, list[pa.ChunkedArray]] = {}
    for name in rows.column_names:
        layer = LAYER.search(name)
        whole = name[: layer.start(2) - 1] if layer and layer[2] else name
        parts.setdefault(whole, []).append(rows[name])
    return rounded(pa.table({name: _together(columns) for name, columns in parts.items()}))


def rounded(history: pa.Table) -> pa.Table:
    """Return a history with all floats but the dev scores to BITS bits, in less than half the room.

    Scores stay as they are, for runs are judged by them.
    """
    for i, field in enumerate(history.schema):
        if pa.types.is_floating(field.type) and field.name != "dev_score":
            mantissa, exponent = np.frexp(history[i].to_numpy())
            short = np.ldexp(np.round(np.ldexp(mantissa, BITS)), exponent - BITS)
            missing = history[i].is_null().to_numpy()
            history = history.set_column(i, field.name, pa.array(short, field.type, mask=missing))
    return history


def _together(norms: list[pa.ChunkedArray]) -> Any:
    """Return the norm of several matrices, given the norm of each."""
    if len(norms) == 1:
        return norms[0]
    squares = [np.square(column.to_numpy(), dtype=np.float64) for column in norms]
    return pa.array(np.sqrt(np.sum(squares, axis=0)).astype(np.float32))
