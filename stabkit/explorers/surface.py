"""Planes through three checkpoints: from above, as a relief, along the line between two runs."""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.io.json import to_json_plotly

from stabkit.barriers import barrier, between, both, heights, paths
from stabkit.errors import StabkitError
from stabkit.explorers.mechanism import Checkbox, Control, Explorer, Select, Slider, rounded
from stabkit.figures import barrier_line, surface_3d, surface_contours
from stabkit.figures.planes import NAMES, PATHS, TITLES, Value, lift
from stabkit.figures.style import caption
from stabkit.tables import require

CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
VIEWS = (("contours", "contours"), ("relief in 3-D", "relief"))
STEP = ("step", "a", "b", "residual", "distance")
ALT = (
    "Above, loss or gradient norm over the plane through the pre-trained, the failed and the "
    "successful weights, as contours or as a relief; below, along the line from the failed to the "
    "successful run, with a mark at the chosen place."
)


def surface(
    planes: pd.DataFrame,
    finding: str,
    scale: str,
    trajectories: pd.DataFrame | None = None,
) -> Explorer:
    """Let readers look at planes from above and from the side, and walk from run to run.

    ``planes`` are tables of the analysis "surface" with model and task, told apart by ``key``, all
    on one grid; ``trajectories`` its tables of that kind, where there are any. Raises StabkitError
    for other tables.
    """
    require(planes, ("model", "task", "key", *TITLES))
    values = _values(planes)
    found = [_plane(plane, values, trajectories) for _, plane in planes.groupby("key", sort=False)]
    places = {tuple(plane["places"]) for plane in found}
    if len(places) > 1:
        raise StabkitError("the planes lie on several grids; give planes on one grid")
    return Explorer(
        kind="surface",
        data={"planes": found, "values": values, "titles": TITLES, "paths": PATHS, "step": STEP},
        start={
            "plane": 0,
            "value": values[0],
            "view": "contours",
            "trajectories": True,
            "at": len(places.pop()) // 2,
            "picked": None,
        },
        controls=_controls(found, values),
        panels=(580, 330),
        caption=caption(both(planes), finding, scale, cell=("model", "task")),
        alt=ALT,
    )


def _values(planes: pd.DataFrame) -> list[Value]:
    """Return what is measured on all planes: the loss, and as a rule the gradient norm."""
    counts = planes.groupby("key")[list(TITLES)].count()
    found: list[Value] = [value for value in get_args(Value) if counts[value].all()]
    if not found:
        raise StabkitError("neither loss nor gradient norm is measured on all of the planes")
    return found


def _controls(planes: list[dict[str, Any]], values: list[Value]) -> list[Control]:
    found: list[Control] = [
        Slider("at", "From failed to successful", 0, len(planes[0]["places"]) - 1)
    ]
    if any(plane["paths"] for plane in planes):
        found.insert(0, Checkbox("trajectories", "Paths of both runs"))
    found.insert(0, Select("view", "As", VIEWS))
    if len(values) > 1:
        found.insert(0, Select("value", "Show the", [(TITLES[value], value) for value in values]))
    if len(planes) > 1:
        names = [(plane["name"], place) for place, plane in enumerate(planes)]
        found.insert(0, Select("plane", "Model and task", names))
    return found


def _plane(
    plane: pd.DataFrame, values: list[Value], trajectories: pd.DataFrame | None
) -> dict[str, Any]:
    """Return what the page knows of a plane: its figures, its numbers, its runs' paths."""
    ways, line = paths(plane, trajectories), between(plane)
    kept = plane.assign(**{value: np.array(rounded(plane[value]), float) for value in values})
    walked = between(kept).query("0 <= a <= 1")
    points = kept.drop_duplicates(["a", "b"]).set_index(["a", "b"])[list(values)]
    return {
        "name": f"{plane['model'].iloc[0]}, {plane['task'].iloc[0]}",
        "figures": {value: _figures(kept, value, ways) for value in values},
        "lift": {value: lift(kept, value) for value in values},
        "barrier": {v: rounded([*heights(line, v), barrier(line, v)]) for v in values},
        "places": walked["a"].tolist(),
        "heights": {value: rounded(walked[value]) for value in values},
        "points": [[a, b, *rounded(row)] for (a, b), *row in points.itertuples()],
        "corners": [
            [name, *corner, *rounded(points.loc[corner])]
            for name, corner in zip(NAMES, CORNERS, strict=True)
            if corner in points.index
        ],
        "paths": _steps(ways),
    }


def _figures(plane: pd.DataFrame, value: Value, ways: pd.DataFrame | None) -> dict[str, Any]:
    """Return the plane seen from above, from the side, and its line between the runs."""
    return {
        "contours": _spec(surface_contours(plane, value=value, trajectory=ways)),
        "relief": _spec(surface_3d(plane, value=value, trajectory=ways)),
        "line": _spec(barrier_line(between(plane), value=value)),
    }


def _spec(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as JSON has it, without height and template, which are the explorer's.

    Its numbers have five digits, for the page's size.
    """
    text = to_json_plotly(figure.to_plotly_json())
    spec: dict[str, Any] = json.loads(
        text, parse_float=lambda number: float(f"{float(number):.5g}")
    )
    layout = spec["layout"].items()
    return spec | {"layout": {n: part for n, part in layout if n not in ("height", "template")}}


def _steps(ways: pd.DataFrame | None) -> dict[str, list[list[float | None]]]:
    """Return the STEPs of each kind of run, none without trajectories."""
    if ways is None:
        return {}
    kinds = ways.groupby("kind", sort=False)
    return {
        str(kind): [rounded(row) for row in rows[list(STEP)].to_numpy()] for kind, rows in kinds
    }
