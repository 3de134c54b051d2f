"""What a figure shows, as a table: one row per point, as the book's "Data as csv" gives it.

``stabkit/explorers/page/data.js`` makes the same columns in a page. A trace says in its ``meta``,
made by ``about``, what it is one of and how its columns are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

Columns = dict[str, Sequence[Any]]
SOLID = ("surface", "scatter3d")


def about(
    rows: Mapping[str, object] | None = None, **columns: object
) -> dict[str, dict[str, object]]:
    """Return a trace's ``meta``: what holds for all of its ``rows``, such as a seed; names.

    ``customdata`` is the list of names of its columns, ``z`` the name of that axis.
    """
    return {"rows": dict(rows or {}), "columns": columns}


def values(figure: go.Figure) -> pd.DataFrame:
    """Return all points that ``figure`` shows but the boxes, whose points stand beside them.

    Columns: the trace's name (``series``) and what its ``meta`` says, the axes by their titles
    (x and y, where panels have several), error bars, texts, what belongs to the points. What no
    point has is left out; what is not finite is missing.
    """
    traces = [trace for trace in figure.data if trace.type != "box"]
    names = {letter: _name(figure, traces, letter) for letter in "xy"}
    found = [_columns(figure, trace, names) for trace in traces]
    kept = [one for one in found if any(_cell(value) is not None for value in one[1][names["y"]])]
    if not kept:
        return pd.DataFrame()
    order = [name for group in range(3) for groups in kept for name in groups[group]]
    tables = [pd.DataFrame(_even(groups[0] | groups[1] | groups[2])) for groups in kept]
    stacked = pd.concat(tables, ignore_index=True).reindex(columns=list(dict.fromkeys(order)))
    return stacked.replace("", None).dropna(axis=1, how="all")


def _name(figure: go.Figure, traces: Iterable[Any], letter: str) -> str:
    """Return the title of an axis where all panels agree, or its letter."""
    titles = {_title(figure, trace, letter) for trace in traces} - {""}
    return titles.pop() if len(titles) == 1 else letter


def _title(figure: go.Figure, trace: Any, letter: str) -> str:
    if trace.type in SOLID:
        axis = figure.layout[trace.scene or "scene"][f"{letter}axis"]
    elif letter == "z":
        return ""
    else:
        axis = figure.layout[f"{letter}axis{(trace[f'{letter}axis'] or letter)[1:]}"]
    return str(_cell(axis.title.text) or "")


def _columns(figure: go.Figure, trace: Any, names: Mapping[str, str]) -> list[Columns]:
    """Return a trace's columns in three groups: what it is, its axes, what its points have."""
    meta: dict[str, dict[str, Any]] = trace.meta or about()
    x, y, z, text, custom = (_list(trace, name) for name in ("x", "y", "z", "text", "customdata"))
    if _nested(z):  # a mesh: a value for every pair of y and x
        z, custom = _flat(z), _flat(custom)
        text = _flat(text) if _nested(text) else text
        x, y = x * len(y), [value for value in y for _ in x]
    heads = {"series": trace.name, **meta["rows"]}
    axes: Columns = {}
    for letter, found in (("x", x), ("y", y)):
        if names[letter] == letter:
            axes[f"{letter} is"] = [_title(figure, trace, letter)] * len(found)
        axes[names[letter]] = found
    axes[meta["columns"].get("z") or _title(figure, trace, "z") or "z"] = z
    bars = trace["error_y"] if "error_y" in trace else go.scatter.ErrorY()
    points: Columns = {
        "above": _list(bars, "array"),
        "below": _list(bars, "arrayminus"),
        "text": text,
    }
    for place, name in enumerate(meta["columns"].get("customdata", ())):
        points[name] = [row[place] if _nested([row]) else row for row in custom]
    head: Columns = {name: [value] * len(x) for name, value in heads.items()}
    return [head, axes, points]


def _list(holder: Any, name: str) -> list[Any]:
    """Return what a trace holds for its points; [] where it has nothing, or one for all."""
    found = getattr(holder, name, None)
    return [] if found is None or isinstance(found, str) else list(found)


def _nested(found: Sequence[Any]) -> bool:
    return len(found) > 0 and isinstance(found[0], (list, tuple, np.ndarray))


def _flat(found: Iterable[Iterable[Any]]) -> list[Any]:
    return [value for row in found for value in row]


def _even(columns: Columns) -> dict[str, list[object]]:
    """Return the columns that have any values, as cells."""
    return {name: [_cell(value) for value in found] for name, found in columns.items() if found}


def _cell(value: Any) -> object:
    """Return text without its markup, None for what is not finite."""
    if isinstance(value, str):
        return re.sub("<[^>]+>", "", value.replace("<br>", ", "))
    return value if value is not None and np.isfinite(value) else None
