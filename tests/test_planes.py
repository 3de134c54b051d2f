"""Figures of planes and lines: every value at its place, checkpoints marked, others refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from numpy.typing import ArrayLike

from stabkit.errors import StabkitError
from stabkit.figures import planes
from stabkit.figures.planes import barrier_line, barrier_lines, surface_3d, surface_contours
from stabkit.figures.style import CLEAR, PALETTE, html

DRAWINGS = [surface_contours, surface_3d]


def table() -> pd.DataFrame:
    """Return a plane that is not symmetric: loss 10^(a + 2 b), on 5 x 3 points, shuffled."""
    a, b = (axis.ravel() for axis in np.meshgrid(np.linspace(-0.5, 1.5, 5), (0.0, 0.5, 1.0)))
    loss = 10 ** (a + 2 * b)
    rows = pd.DataFrame({"a": a, "b": b, "loss": loss, "gradient_norm": 3 * loss, "examples": 8})
    return rows.sample(frac=1, random_state=0)


def path() -> pd.DataFrame:
    return pd.DataFrame({"a": [0.0, 0.2, 9.0], "b": [0.0, 0.3, 9.0], "residual": [0.0, 1.0, 2.0]})


def named(figure: go.Figure, name: str) -> Any:
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


def cells(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> dict[tuple[float, float], float]:
    columns, rows, values = (np.asarray(part, dtype=float) for part in (x, y, z))
    return {(a, b): values[j, i] for i, a in enumerate(columns) for j, b in enumerate(rows)}


def test_contours_have_every_value_at_its_place() -> None:
    sheet = surface_contours(table()).data[0]
    assert len(sheet.x) * len(sheet.y) == 15
    for (a, b), height in cells(sheet.x, sheet.y, sheet.z).items():
        assert height == pytest.approx(a + 2 * b)
    for (a, b), loss in cells(sheet.x, sheet.y, sheet.customdata).items():
        assert loss == pytest.approx(10 ** (a + 2 * b))
    plain = surface_contours(table(), log=False, value="gradient_norm").data[0]
    for (a, b), norm in cells(plain.x, plain.y, plain.z).items():
        assert norm == pytest.approx(3 * 10 ** (a + 2 * b))
    assert plain.colorbar.title.text == "gradient norm"
    assert plain.colorbar.tickvals is None


def test_a_relief_has_every_value_at_its_place() -> None:
    figure = surface_3d(table())
    sheet = figure.data[0]
    for (a, b), loss in cells(sheet.x, sheet.y, sheet.z).items():
        assert loss == pytest.approx(10 ** (a + 2 * b))
    for (a, b), height in cells(sheet.x, sheet.y, sheet.surfacecolor).items():
        assert height == pytest.approx(a + 2 * b)
    assert figure.layout.scene.zaxis.type == "log"
    assert surface_3d(table(), log=False).layout.scene.zaxis.type is None
    assert figure.layout.scene.dragmode == "turntable"


def test_the_scale_is_labelled_with_round_numbers() -> None:
    bar = surface_contours(table()).data[0].colorbar
    assert list(bar.ticktext) == ["1", "10", "100", "1000"]
    assert list(10.0**bar.tickvals) == pytest.approx([float(text) for text in bar.ticktext])
    assert surface_3d(table()).layout.scene.zaxis.tickvals == pytest.approx(10.0**bar.tickvals)

    def labels(low: float, high: float) -> list[str]:
        shares = (table()["a"] + 0.5) / 2
        drawn = surface_contours(table().assign(loss=low + (high - low) * shares))
        return list(drawn.data[0].colorbar.ticktext)

    assert labels(0.02, 0.95) == ["0.02", "0.05", "0.1", "0.2", "0.5"]
    assert labels(0.45, 0.95) == ["0.5", "0.6", "0.7", "0.8", "0.9"]
    assert labels(0.665, 0.695) == ["0.67", "0.68", "0.69"]
    assert labels(0.69313, 0.69321) == ["0.6931", "0.6932"]
    assert labels(0.7, 0.7) == ["0.7"]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_the_checkpoints_are_marked(draw: Any) -> None:
    figure = draw(table())
    places = {"pre-trained": (0, 0), "failed": (1, 0), "successful": (0, 1)}
    for name, place in places.items():
        trace = named(figure, name)
        assert (trace.x[0], trace.y[0]) == place
    assert named(figure, "failed").marker.color == PALETTE["failed"]
    assert len({named(figure, name).marker.symbol for name in places}) == 3
    renamed = draw(table(), names=("start", "one", "two"))
    assert named(renamed, "two").y[0] == 1
    assert "trajectory" not in {trace.name for trace in figure.data}


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_trajectory_is_drawn_over_the_plane(draw: Any) -> None:
    trace = named(draw(table(), trajectory=path()), "trajectory")
    assert (list(trace.x), list(trace.y)) == ([0.0, 0.2, 9.0], [0.0, 0.3, 9.0])
    assert trace.text[0] == "checkpoint 1 of 3"
    with pytest.raises(StabkitError, match="no column b"):
        draw(table(), trajectory=path().drop(columns="b"))
    with pytest.raises(StabkitError, match="no runs"):
        draw(table(), trajectory=path()[:0])


@pytest.mark.parametrize("draw", DRAWINGS)
def test_trajectories_of_several_kinds_are_drawn_each_in_its_colour(draw: Any) -> None:
    ways = pd.concat([path().assign(kind=kind) for kind in ("failed", "successful")])
    figure = draw(table(), trajectory=ways.assign(step=[0, 1, 9] * 2, distance=4.0))
    for kind in ("failed", "successful"):
        trace = named(figure, f"{kind} run's path")
        assert (list(trace.x), trace.marker.color) == ([0.0, 0.2, 9.0], PALETTE[kind])
        assert trace.text[2] == "step 9<br>2 off the plane, 4 from its origin"
    short = draw(table(), trajectory=path().drop(columns="residual").assign(step=[0, 1, 9]))
    assert named(short, "trajectory").text[2] == "step 9"


def test_marks_lie_just_over_the_relief() -> None:
    figure = surface_3d(table(), trajectory=path())
    lift = 0.05 * 4  # of the heights from -0.5 to 3.5
    assert planes.lift(table()) == pytest.approx(lift)
    heights = np.log10(named(figure, "trajectory").z)
    assert heights == pytest.approx([0 + lift, 0.8 + lift, np.nan], nan_ok=True)
    assert np.log10(named(figure, "successful").z[0]) == pytest.approx(2 + lift)
    flat = surface_3d(table(), log=False)
    assert named(flat, "failed").z[0] == pytest.approx(10 + 0.05 * (10**3.5 - 10**-0.5))


@pytest.mark.parametrize("draw", DRAWINGS)
def test_what_is_no_number_stays_blank(draw: Any) -> None:
    odd = table().reset_index(drop=True)
    odd.loc[:2, "loss"] = (np.nan, np.inf, 0.0)
    sheet = draw(odd).data[0]
    assert np.isnan(np.asarray(sheet.z, dtype=float)).sum() == 3
    assert np.isnan(np.asarray(draw(odd, log=False).data[0].z, dtype=float)).sum() == 2
    assert "NaN" not in html(draw(odd), "caption", "alt")


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_table_that_is_no_plane_is_refused(draw: Any) -> None:
    with pytest.raises(StabkitError, match="no column b"):
        draw(table().drop(columns="b"))
    with pytest.raises(StabkitError, match="no runs"):
        draw(table()[:0])
    with pytest.raises(StabkitError, match="14 points for 5 values of a and 3 of b; expected one"):
        draw(table()[1:])
    with pytest.raises(StabkitError, match="5 points for 5 values of a and 1 of b"):
        draw(table()[table()["b"] == 0])
    with pytest.raises(StabkitError, match=r"no gradient_norm .* surface\(..., gradient=True\)"):
        draw(table().assign(gradient_norm=np.nan), value="gradient_norm")
    twice = pd.concat([table(), table()[:3]])
    assert len(draw(twice).data[0].x) == 5


def test_a_line_shows_its_ends_and_the_higher_one_s_level() -> None:
    a = np.linspace(-0.5, 1.5, 9)
    rows = pd.DataFrame({"a": a, "loss": 1 + a * (1 - a) - 0.5 * a, "gradient_norm": a**2 + 1})
    figure = barrier_line(rows.sample(frac=1, random_state=0))
    line = named(figure, "loss")
    assert list(line.x) == a.tolist()
    assert list(line.y) == rows["loss"].tolist()
    assert (named(figure, "failed").x[0], named(figure, "failed").y[0]) == (0, 1.0)
    assert (named(figure, "successful").x[0], named(figure, "successful").y[0]) == (1, 0.5)
    assert list(named(figure, "higher end").y) == [1.0, 1.0]
    norms = barrier_line(rows, log=True, value="gradient_norm", names=("one", "two"))
    assert list(named(norms, "higher end").y) == [2.0, 2.0]
    assert norms.layout.yaxis.type == "log"
    assert norms.layout.xaxis.title.text == "a: one (0) to two (1)"
    with pytest.raises(StabkitError, match="lacks an end; it must have the points a = 0 and a = 1"):
        barrier_line(rows[rows["a"] != 1])
    with pytest.raises(StabkitError, match="no column loss"):
        barrier_line(rows[["a"]])


def test_lines_of_several_pairs_have_a_colour_for_each_failed_run() -> None:
    pairs = [(f, s) for f in ("seed 1", "seed 2") for s in ("seed 3", "seed 4")]
    rows = [
        LINE.assign(failed_run=f, successful_run=s, loss=LINE["loss"] + i)
        for i, (f, s) in enumerate(pairs)
    ]
    table = pd.concat(rows).sample(frac=1, random_state=0).sort_values("failed_run", kind="stable")
    figure = barrier_lines(table)
    assert len(figure.data) == 4
    drawn = {tuple(one.hovertemplate.split(",")[0].split(" to ")): one for one in figure.data}
    assert {*drawn} == {*pairs}
    for place, pair in enumerate(pairs):
        assert list(drawn[pair].x) == [0, 0.5, 1]
        assert list(drawn[pair].y) == pytest.approx(LINE["loss"] + place)
    colours = {pair: one.line.color for pair, one in drawn.items()}
    assert len({*colours.values()}) == 2
    assert colours[pairs[0]] == colours[pairs[1]] != colours[pairs[2]]
    assert sorted(one.name for one in figure.data if one.showlegend) == [
        "from seed 1",
        "from seed 2",
    ]
    assert "successful (1)" in figure.layout.xaxis.title.text


def test_the_figures_are_of_the_house() -> None:
    """Clear on light and dark pages, equal tables give equal text, and it is small."""
    for figure in (*(draw(table(), trajectory=path()) for draw in DRAWINGS), barrier_line(LINE)):
        assert figure.layout.template.layout.paper_bgcolor == CLEAR
        assert figure.layout.paper_bgcolor is None
        text = html(figure, "caption", "alt")
        assert text == html(figure, "caption", "alt")
        assert len(text) < 20_000
        assert "http" not in text
        assert json.loads(text.split('newPlot("')[1].split('", ', 1)[1].split(");document")[0])


LINE = pd.DataFrame({"a": [0.0, 0.5, 1.0], "loss": [0.7, 0.9, 0.1]})


def test_a_line_s_ends_have_the_marks_of_the_plane_s_corners() -> None:
    a = np.linspace(0, 1, 5)
    figure, plane = barrier_line(pd.DataFrame({"a": a, "loss": 1 + a})), surface_contours(table())
    for name in ("failed", "successful"):
        mark, corner = named(figure, name).marker, named(plane, name).marker
        assert (mark.symbol, mark.color) == (corner.symbol, corner.color)
