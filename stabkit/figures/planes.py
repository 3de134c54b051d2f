"""Figures of planes and lines through checkpoints: contours, relief, barrier (Fig. 7 and 13).

The tables are those of ``stabkit.surface``: ``surface`` on a ``grid``, ``line``; and
``project`` for a trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.interpolate import RegularGridInterpolator

from stabkit.errors import StabkitError
from stabkit.figures.style import PALETTE, TEXT, colour, reference
from stabkit.figures.values import about
from stabkit.stats import Floats
from stabkit.tables import require

Value = Literal["loss", "gradient_norm"]
TITLES = {"loss": "loss", "gradient_norm": "gradient norm"}
NAMES = ("pre-trained", "failed", "successful")  # where a plane's origin, a and b lead in the paper
SYMBOLS = ("circle", "x", "diamond")
SOLID = {"x": "square", "diamond": "diamond"}  # for three dimensions, whose x few fonts have
SCALE = "Viridis"  # even in lightness, so also for the colour-blind; it hides the page behind it
PATHS = " run's path"  # ends the names of several runs' trajectories
PATH = "#222222"  # with white around, seen on every colour of the scale and on both pages


class Mesh(NamedTuple):
    """Axes a (n,) and b (m,), values (m x n) with NaN for what cannot be drawn, their logarithm."""

    a: Floats
    b: Floats
    values: Floats
    heights: Floats


def surface_contours(
    table: pd.DataFrame,
    log: bool = True,
    value: Value = "loss",
    names: Sequence[str] = NAMES,
    trajectory: pd.DataFrame | None = None,
) -> go.Figure:
    """Draw a plane as filled contours with its three checkpoints (Fig. 7; Fig. 13).

    ``table`` has one row per point of a whole mesh (a, b, ``value``), ``trajectory`` one per
    checkpoint of a run (a, b; step, residual and distance are told where it has them) or of
    several, told apart by a column ``kind``. With ``log``, levels are even in the logarithm; what
    has none, and what is not finite, stays blank. Raises StabkitError for other tables.
    """
    mesh = _mesh(table, value, log)
    figure = go.Figure(_contours(mesh, log, value))
    figure.add_traces([go.Scatter(**trace) for trace in _overlays(names, trajectory)])
    for axis, end in ((figure.update_xaxes, 1), (figure.update_yaxes, 2)):
        axis(title_text=f"{'ab'[end - 1]}: {names[0]} to {names[end]}", showgrid=False)
    return figure.update_layout(template="stabkit", height=580)


def _mesh(table: pd.DataFrame, value: str, log: bool) -> Mesh:
    require(table, ("a", "b", value))
    points = table.drop_duplicates(["a", "b"])
    sheet = points.pivot(index="b", columns="a", values=value)
    if sheet.size != len(points) or min(sheet.shape) < 2:
        raise StabkitError(
            f"{len(points)} points for {sheet.shape[1]} values of a and {sheet.shape[0]} of b; "
            "expected one for every pair, as surface() gives on a grid()"
        )
    values = sheet.to_numpy(dtype=float)
    shown = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
    if np.isnan(shown).all():
        raise StabkitError(
            f"no {value} that can be drawn; a gradient norm needs surface(..., gradient=True)"
        )
    a, b = (axis.to_numpy(dtype=float) for axis in (sheet.columns, sheet.index))
    return Mesh(a, b, shown, np.log10(shown) if log else shown)


def _contours(mesh: Mesh, log: bool, value: str) -> go.Contour:
    ticks = _round_numbers(mesh.heights) if log else np.array([])
    return go.Contour(
        x=mesh.a,
        y=mesh.b,
        z=mesh.heights,
        customdata=mesh.values.tolist(),
        meta=about(z=f"log10 of the {TITLES[value]}" if log else "z", customdata=[TITLES[value]]),
        colorscale=SCALE,
        ncontours=24,
        line={"width": 0.5, "color": "rgba(255, 255, 255, 0.5)"},
        hovertemplate=f"a %{{x:.2f}}, b %{{y:.2f}}<br>{TITLES[value]} %{{customdata:.3g}}"
        "<extra></extra>",
        hoverongaps=False,
        colorbar={
            "title": {"text": TITLES[value], "side": "bottom"},
            "orientation": "h",  # below, for a phone has no width to spare
            "tickangle": 0,
            "y": -0.16,
            "yanchor": "top",
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": np.log10(ticks) if log else None,
            "ticktext": [f"{tick:.4g}" for tick in ticks] if log else None,
        },
    )


def _round_numbers(heights: Floats) -> Floats:
    """Round numbers in a range of decimal logarithms, nine at most; its ends where it is narrow."""
    low, high = np.nanmin(heights), np.nanmax(heights)
    decades = 10 ** np.arange(np.floor(low), np.ceil(high) + 1)
    for digits in (range(100, 1000), range(10, 100), range(1, 10), (1, 2, 5), (1,)):
        found: Floats = np.outer(decades, np.divide(digits, digits[0])).ravel()
        found = found[(np.log10(found) >= low) & (np.log10(found) <= high)]
        if len(found) <= 9:
            break
    return found if len(found) > 1 else 10 ** np.unique([low, high])


def _overlays(names: Sequence[str], trajectory: pd.DataFrame | None) -> list[dict[str, Any]]:
    """What is drawn over a plane, as arguments of a scatter trace of two or three dimensions."""
    ends = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    marks = [
        {"x": [a], "y": [b], **_mark(name, place)}
        for place, ((a, b), name) in enumerate(zip(ends, names, strict=True))
    ]
    if trajectory is None:
        return marks
    require(trajectory, ("a", "b"))
    if "kind" not in trajectory:
        return [_path(trajectory, "trajectory", PATH), *marks]
    kinds = trajectory.groupby("kind", sort=False)
    return [*(_path(rows, f"{kind}{PATHS}", colour(kind)) for kind, rows in kinds), *marks]


def _path(rows: pd.DataFrame, name: str, tint: str) -> dict[str, Any]:
    return {
        "x": rows["a"].to_numpy(dtype=float),
        "y": rows["b"].to_numpy(dtype=float),
        "mode": "lines+markers",
        "name": name,
        "line": {"color": "white", "width": 2},
        "marker": {"color": tint, "size": 6, "line": {"color": "white", "width": 1}},
        "text": _told(rows),
        "hovertemplate": "%{text}<br>a %{x:.2f}, b %{y:.2f}<extra></extra>",
    }


def _told(rows: pd.DataFrame) -> list[str]:
    """Return what is said of each checkpoint of a trajectory."""
    if "step" not in rows:
        return [f"checkpoint {i} of {len(rows)}" for i in range(1, len(rows) + 1)]
    words = [f"step {step}" for step in rows["step"]]
    if not {"residual", "distance"} <= set(rows):
        return words
    off = zip(words, rows["residual"], rows["distance"], strict=True)
    return [
        f"{word}<br>{residual:.3g} off the plane, {distance:.3g} from its origin"
        for word, residual, distance in off
    ]


def _mark(name: str, place: int) -> dict[str, Any]:
    return {
        "mode": "markers",
        "name": name,
        "marker": {
            "symbol": SYMBOLS[place],
            "color": colour(name, place),
            "size": 12,
            "line": {"color": "white", "width": 1.5},
        },
        "hovertemplate": f"{name}<extra></extra>",
    }


def surface_3d(
    table: pd.DataFrame,
    log: bool = True,
    value: Value = "loss",
    names: Sequence[str] = NAMES,
    trajectory: pd.DataFrame | None = None,
) -> go.Figure:
    """Draw a plane as a relief that can be turned; arguments and errors as ``surface_contours``."""
    mesh, figure = _mesh(table, value, log), go.Figure()
    figure.add_surface(
        x=mesh.a,
        y=mesh.b,
        z=mesh.values,
        surfacecolor=mesh.heights,
        colorscale=SCALE,
        showscale=False,  # the height says it
        hovertemplate=f"a %{{x:.2f}}, b %{{y:.2f}}<br>{TITLES[value]} %{{z:.3g}}<extra></extra>",
    )
    for trace in _overlays(names, trajectory):
        mark = trace["marker"]
        solid = SOLID.get(mark.get("symbol"), "circle")
        trace["marker"] = mark | {"size": 0.6 * mark["size"], "symbol": solid}
        figure.add_scatter3d(z=_above(mesh, log, trace["x"], trace["y"]), **trace)
    return figure.update_layout(template="stabkit", height=560, scene=_scene(mesh, log, value))


def _above(mesh: Mesh, log: bool, a: Sequence[float], b: Sequence[float]) -> Floats:
    """Values just over points (n,) of the relief, so that it hides no mark; NaN outside of it."""
    heights = RegularGridInterpolator((mesh.b, mesh.a), mesh.heights, bounds_error=False)
    found: Floats = heights(np.column_stack([b, a])) + _lift(mesh)
    return 10**found if log else found


def lift(table: pd.DataFrame, value: Value = "loss", log: bool = True) -> float:
    """Return how far over the relief of a plane marks lie; with ``log`` in decimal logarithms."""
    return _lift(_mesh(table, value, log))


def _lift(mesh: Mesh) -> float:
    return float(0.05 * (np.nanmax(mesh.heights) - np.nanmin(mesh.heights)))


def _scene(mesh: Mesh, log: bool, value: str) -> dict[str, Any]:
    style = {"gridcolor": PALETTE["baseline"], "color": TEXT, "showbackground": False}
    height = {"type": "log", "tickvals": _round_numbers(mesh.heights)} if log else {}
    return {
        "xaxis": style | {"title": "a"},
        "yaxis": style | {"title": "b"},
        "zaxis": style | {"title": TITLES[value], "tickformat": ".4~g"} | height,
        "dragmode": "turntable",  # the template's would forbid turning
        "camera": {"eye": {"x": -1.5, "y": -1.5, "z": 1.6}},
        "aspectmode": "cube",
    }


def barrier_line(
    table: pd.DataFrame,
    log: bool = False,
    value: Value = "loss",
    names: Sequence[str] = NAMES[1:],
) -> go.Figure:
    """Draw ``value`` along a ``line``, its two ends and the higher one's level.

    What rises above that level between the ends is the barrier. Raises StabkitError for a table
    without a, ``value`` or one of the ends, a = 0 and a = 1.
    """
    require(table, ("a", value))
    rows = table.sort_values("a")
    a, values = (rows[name].to_numpy(dtype=float) for name in ("a", value))
    if not {0.0, 1.0} <= set(a):
        raise StabkitError("the line lacks an end; it must have the points a = 0 and a = 1")
    ends = [values[a == end][0] for end in (0, 1)]
    figure = go.Figure(reference((a[0], a[-1]), [max(ends)] * 2, "higher end"))
    figure.add_trace(_profile(a, values, value))
    for place, (name, height) in enumerate(zip(names, ends, strict=True)):
        figure.add_scatter(x=[place], y=[height], **_mark(name, place + 1))
    figure.update_xaxes(title_text=f"a: {names[0]} (0) to {names[1]} (1)")
    figure.update_yaxes(title_text=TITLES[value], type="log" if log else "linear")
    return figure.update_layout(template="stabkit", height=400)


def barrier_lines(table: pd.DataFrame, value: Value = "loss") -> go.Figure:
    """Draw ``value`` along the lines of several pairs of runs, failed (a = 0) to successful (1).

    ``table`` is that of the analysis "lines"; failed_run and successful_run are shown as they are.
    One colour for each failed run. Raises StabkitError for a table without these columns or rows.
    """
    require(table, ("failed_run", "successful_run", "a", value))
    figure = go.Figure()
    for place, (failed, ways) in enumerate(table.groupby("failed_run", sort=False)):
        for number, (successful, rows) in enumerate(ways.groupby("successful_run", sort=False)):
            line = rows.sort_values("a")
            trace = _profile(line["a"].to_numpy(float), line[value].to_numpy(float), value)
            trace.update(
                name=f"from {failed}",
                legendgroup=str(failed),
                showlegend=number == 0,
                line={"color": colour("", place), "width": 1.5},
                hovertemplate=f"{failed} to {successful}, a %{{x:.2f}}: %{{y:.3g}}<extra></extra>",
            )
            figure.add_trace(trace)
    figure.update_xaxes(title_text=f"a: {NAMES[1]} (0) to {NAMES[2]} (1)")
    figure.update_yaxes(title_text=TITLES[value])
    return figure.update_layout(template="stabkit", height=400)


def _profile(a: Floats, values: Floats, value: str) -> go.Scatter:
    return go.Scatter(
        x=a,
        y=values,
        mode="lines+markers",
        name=TITLES[value],
        line={"color": colour("", 0)},
        marker={"size": 4},
        hovertemplate="a %{x:.2f}: %{y:.3g}<extra></extra>",
    )
