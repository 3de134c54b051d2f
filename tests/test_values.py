"""The data of figures and tables as csv: what a browser saves is what Python gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import test_ablation
import test_figures
import test_layers
import test_planes
from plotly.offline import get_plotlyjs

from stabkit import figures, pages
from stabkit.explorers import mechanism
from stabkit.stats import wilson

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>test</title>
<script defer src="plotly.min.js"></script><script defer src="data.js"></script>
<body>{}</body></html>"""
DRAWN: dict[str, Callable[[], go.Figure]] = {
    "seed_scores": lambda: figures.seed_scores(test_figures.runs(("mini-rte", "mini-mrpc"))),
    "failure_curves": lambda: figures.failure_curves(test_figures.pilot(), chosen=2e-4),
    "small_data": lambda: figures.small_data(test_ablation.small(6)),
    "ablation_grid": lambda: figures.ablation_grid(test_ablation.grid(6, epochs=(3, 20))),
    "gradient_norms": lambda: figures.gradient_norms(
        test_figures.gradients(), test_figures.gradients(3)
    ),
    "gradient_map": lambda: figures.gradient_map(*[test_layers.inside.history(0.01, 1.0)] * 2),
    "layer_swap": lambda: figures.layer_swap(test_layers.inside.swaps()),
    "contours": lambda: figures.surface_contours(
        test_planes.table(), trajectory=test_planes.path()
    ),
    "relief": lambda: figures.surface_3d(test_planes.table()),
}
TABLE = pd.DataFrame(
    {"task": ["mini-rte", 'a "b", c'], "failed, %": ["1 (0 to 2)", "none"], "mean": [0.5, np.nan]}
)


def test_points_have_their_runs_and_panels() -> None:
    runs = test_figures.runs(("mini-rte", "mini-mrpc"))
    table = figures.values(figures.seed_scores(runs))
    points = table[table["seed"].notna()]
    assert len(points) == len(runs)
    found = points.set_index(["task", "method", "seed"])
    expected = runs.set_index(["task", "method", "seed"])
    assert (100 * expected["score_last"]).to_dict() == pytest.approx(found["y"].to_dict())
    failed = found["verdict"] != "not failed"
    assert failed.to_dict() == expected["failed"].to_dict()
    assert set(points["y is"]) == {"mini-rte, dev accuracy (%)", "mini-mrpc, dev accuracy (%)"}
    lines = table[table["series"] == "majority class"]
    assert lines["y"].tolist() == [52, 52, 52, 52]
    assert not table.isna().all().any()


def test_one_panel_s_columns_are_its_axes() -> None:
    table = figures.values(figures.failure_curves(test_figures.pilot()))
    curve = table[table["series"] == "without"].dropna(subset="runs")
    assert curve["peak learning rate"].tolist() == [1e-4, 2e-4, 4e-4]
    assert curve["runs that learn nothing (%)"].tolist() == pytest.approx([40, 40, 40])
    assert curve["learn nothing"].tolist() == [4, 4, 4]
    assert (curve["low"] < 40).all() and (curve["high"] > 40).all()


def test_error_bars_are_columns() -> None:
    table = figures.values(figures.small_data(test_ablation.small(6)))
    shares = table[table["learn nothing"].notna()]
    assert (shares["above"] >= 0).all() and (shares["below"] >= 0).all()
    assert set(shares["runs"]) == {6}


def test_a_mesh_has_a_row_for_every_pair() -> None:
    plane = test_planes.table()
    table = figures.values(figures.surface_contours(plane))
    mesh = table[table["loss"].notna()]
    axes = ["b: pre-trained to successful", "a: pre-trained to failed"]
    found = mesh.set_index(axes)["loss"]
    assert found.to_dict() == pytest.approx(plane.set_index(["b", "a"])["loss"].to_dict())
    assert np.log10(mesh["loss"]).tolist() == pytest.approx(mesh["log10 of the loss"].tolist())


def test_what_cannot_be_drawn_is_missing() -> None:
    figure = go.Figure(go.Scatter(x=[1, 2, 3], y=[1.5, np.nan, np.inf], name="a<br>b"))
    figure.add_scatter(x=[None], y=[None], name="a key of the legend")
    table = figures.values(figure)
    assert table["series"].tolist() == ["a, b"] * 3
    assert table["y"].isna().tolist() == [False, True, True]
    assert figures.values(go.Figure()).empty


def test_an_exhibit_writes_its_data(tmp_path: Path) -> None:
    exhibit = figures.show(DRAWN["failure_curves"](), "caption", "alt")
    exhibit.csv(tmp_path / "curves.csv")
    written = pd.read_csv(tmp_path / "curves.csv")
    shown = [value for trace in exhibit.figure.data for value in trace.y]
    assert written["runs that learn nothing (%)"].tolist() == pytest.approx(shown)
    assert written.columns.tolist() == exhibit.data().columns.tolist()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the book with all figures and two tables."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(mechanism.PAGE / "data.js", folder)
    (folder / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    shown = [figures.html(draw(), "caption", "alt") for draw in DRAWN.values()]
    shown += [pages.sheet(TABLE).data, pages.sheet(TABLE.set_index("task"), "b", index=True).data]
    (folder / "06_page.html").write_text(PAGE.format("".join(shown)), encoding="utf-8")
    return folder / "06_page.html"


def saved(browser: Any, page: Path, kind: str, place: int) -> tuple[str, str]:
    """Return the name and the text of the file that a button saves."""
    if browser.current_url != page.as_uri():
        browser.get(page.as_uri())
    name, text = browser.execute_async_script(
        "const [kind, place, done] = arguments, make = URL.createObjectURL;"
        "const link = HTMLAnchorElement.prototype, click = link.click;"
        "let text;"
        "URL.createObjectURL = (blob) => { text = blob.text(); return 'data:,'; };"
        "link.click = function () { text.then((text) => done([this.download, text])); };"
        "const figure = document.querySelectorAll(`.stabkit-${kind}`)[place];"
        "const button = figure.querySelector('.stabkit-csv');"
        "if (button.hidden) done(['hidden', '']); else button.click();"
        "URL.createObjectURL = make; link.click = click;",
        kind,
        place,
    )
    return name, text


@pytest.mark.browser
@pytest.mark.parametrize("name", DRAWN)
def test_a_browser_saves_what_python_gives(browser: Any, page: Path, name: str) -> None:
    place = list(DRAWN).index(name)
    file, text = saved(browser, page, "exhibit", place)
    assert file == f"06_page-figure-{place + 1}.csv"
    expected = pd.read_csv(StringIO(figures.values(DRAWN[name]()).to_csv(index=False)))
    found = pd.read_csv(StringIO(text))
    assert len(found) > 1
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-12)
    errors = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert errors == []


@pytest.mark.browser
def test_a_browser_saves_tables(browser: Any, page: Path) -> None:
    file, text = saved(browser, page, "sheet", 0)
    assert file == "06_page-table-1.csv"
    pd.testing.assert_frame_equal(pd.read_csv(StringIO(text)), TABLE)
    file, text = saved(browser, page, "sheet", 1)
    assert file == "06_page-table-2.csv"
    pd.testing.assert_frame_equal(pd.read_csv(StringIO(text)), TABLE)


def test_error_bars_are_the_interval_s() -> None:
    table = figures.values(figures.small_data(test_ablation.small(25)))
    first = table[table["learn nothing"].notna()].iloc[0]
    share, low, high = wilson(int(first["learn nothing"]), int(first["runs"]))
    assert first["above"] == pytest.approx(100 * (high - share))
    assert first["below"] == pytest.approx(100 * (share - low))
