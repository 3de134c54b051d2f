"""Figures show every run they are given, refuse what they cannot draw, and look alike."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from stabkit import figures
from stabkit.errors import StabkitError
from stabkit.schedule import correction_factor
from stabkit.stats import wilson


def runs(tasks: tuple[str, ...] = ("mini-rte",), seeds: int = 25) -> pd.DataFrame:
    draws, rows = np.random.default_rng(0), []
    for task in tasks:
        for method, share in (("Ours", 0.0), ("Devlin", 0.6), ("Lee", 0.3)):
            for seed in range(seeds):
                failed = bool(draws.random() < share)
                rows.append(
                    {
                        "task": task,
                        "method": method,
                        "seed": seed,
                        "failed": failed,
                        "constant": failed,
                        "flat_loss": False,
                        "diverged": False,
                        "score_last": 0.5 if failed else draws.normal(0.87, 0.01),
                    }
                )
    table = pd.DataFrame(rows).assign(
        model="mini-bert",
        metric="accuracy",
        majority_score=0.52,
        label_entropy=0.693,
        device="cpu",
        hardware="Some CPU",
        date="2026-01-02T03:04:05",
    )
    return table.assign(key=[f"{i:016x}" for i in table.index])


def pilot() -> pd.DataFrame:
    cells = [(rate, on) for rate in (1e-4, 2e-4, 4e-4) for on in (True, False)]
    table = pd.DataFrame(
        [
            {"learning_rate": rate, "bias_correction": on, "failed": not on and seed < 4}
            for rate, on in cells
            for seed in range(10)
        ]
    )
    verdicts = {"constant": table["failed"], "flat_loss": table["failed"], "diverged": False}
    cells_of = {"model": "mini-bert", "task": "mini-rte", "epochs": 3, "multiplier": "none"}
    return table.assign(**verdicts, **cells_of)


def gradients(columns: int = 12) -> pd.DataFrame:
    steps = np.arange(1, 469)
    norms = {
        f"bert.encoder.layer.{i}.attention.self.query.weight": 10.0 ** -(i % 5) / steps
        for i in range(columns)
    }
    return pd.DataFrame({"step": steps, **norms, "bert.pooler.dense.weight": 1.0})


def named(figure: go.Figure, name: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.name == name]


def test_seed_scores_has_as_many_points_as_runs() -> None:
    table = runs(("mini-rte", "mini-mrpc"))
    figure = figures.seed_scores(table)
    points = [trace for name in ("Devlin", "Lee", "Ours") for trace in named(figure, name)]
    assert sum(len(trace.x) for trace in points) == len(table) == 150
    crosses = sum(list(trace.marker.symbol).count("x") for trace in points)
    assert crosses == table["failed"].sum()
    assert {trace.marker.color for trace in named(figure, "Ours")} == {figures.PALETTE["Ours"]}
    assert [trace.y[0] for trace in named(figure, "majority class")] == [52, 52]
    assert figure.layout.yaxis2.title.text == "mini-mrpc<br>dev accuracy (%)"
    assert "failed; one class predicted" in {text for t in points for text in t.customdata[:, 1]}


def test_seed_scores_puts_a_seed_at_the_same_place_every_time() -> None:
    table = runs()
    shuffled = table.sample(frac=1, random_state=1)
    first, second = (
        dict(zip(trace.customdata[:, 0], trace.x, strict=True))
        for trace in (named(figures.seed_scores(t), "Lee")[0] for t in (table, shuffled))
    )
    assert first == second


def test_seed_scores_has_room_for_a_method_without_runs_on_a_task() -> None:
    table = runs(("mini-rte", "mini-mrpc"))
    part = table[(table["task"] == "mini-rte") | (table["method"] == "Ours")]
    assert sum(len(trace.x) for trace in named(figures.seed_scores(part), "Lee")) == 25


def test_seed_scores_names_what_is_missing() -> None:
    with pytest.raises(StabkitError, match="no column majority_score"):
        figures.seed_scores(runs().drop(columns="majority_score"))
    with pytest.raises(StabkitError, match="no column method"):
        figures.seed_scores(runs().drop(columns="method"))
    with pytest.raises(StabkitError, match="no runs"):
        figures.seed_scores(runs().iloc[:0])


def test_failure_curves_show_the_intervals() -> None:
    figure = figures.failure_curves(pilot(), chosen=2e-4)
    (line,) = [trace for trace in named(figure, "without") if trace.mode == "lines+markers"]
    assert list(line.y) == pytest.approx([40, 40, 40])
    interval = [100 * b for b in wilson(4, 10)[1:]]
    assert line.customdata[0] == pytest.approx([4, 10, 4, *interval])
    assert named(figure, "chosen: 2e-4")[0].x == (2e-4, 2e-4)
    with pytest.raises(StabkitError, match="several values of task"):
        figures.failure_curves(pd.concat([pilot(), pilot().assign(task="mini-mrpc")]))


def test_summary_table_stands_beside_the_preprint() -> None:
    table = figures.summary_table(runs(("mini-rte", "mini-qnli")))
    first = table.iloc[0]
    assert (first["task"], first["method"], first["failed"]) == ("mini-rte", "Ours", "0 of 25")
    assert first["preprint std"] == "2.4"
    assert table.iloc[-1]["preprint std"] == "not reported"
    assert re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", first["mean"])


def test_training_curves_draw_every_run() -> None:
    table = runs(("mini-rte", "mini-mrpc"))
    history = pd.DataFrame({"step": range(1, 469), "loss": np.linspace(0.7, 0.1, 468)})
    keys = table["key"].iloc[20:30]
    figure = figures.training_curves(table, dict.fromkeys(keys, history))
    lines = named(figure, "failed") + named(figure, "successful")
    assert len(lines) == 10
    assert sum(bool(trace.showlegend) for trace in lines) == 2
    assert all(len(trace.x) == 300 and trace.x[-1] == 468 for trace in lines)
    assert named(figure, "label entropy")[0].y == (0.693, 0.693)
    assert figure.layout.yaxis.title.text == "training loss (mean of 20 batches)"
    with pytest.raises(StabkitError, match="no runs"):
        figures.training_curves(table, {})
    with pytest.raises(StabkitError, match="no run unknown"):
        figures.training_curves(table, {"unknown": history})


def test_gradient_norms_draw_every_layer_twice() -> None:
    figure = figures.gradient_norms(gradients(), gradients())
    assert [len(named(figure, f"layer {i}")) for i in (1, 12, 13)] == [2, 2, 0]
    with pytest.raises(StabkitError, match="no column of a layer"):
        figures.gradient_norms(gradients(), gradients(), weight="unknown")


def test_gradient_norms_of_shared_layers() -> None:
    name = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight"
    shared = pd.DataFrame({"step": [1, 2], name: [0.1, 0.2]})
    figure = figures.gradient_norms(shared, shared)
    assert len(named(figure, "layer 1")) == 2
    ticks = [
        trace.marker.colorbar.dtick
        for drawn in (figure, figures.gradient_norms(gradients(), gradients()))
        for trace in drawn.data
        if trace.marker.showscale
    ]
    assert ticks == [1, 2]


def test_correction_factor_is_the_closed_form() -> None:
    figure = figures.correction_factor((0.999, 0.98), steps=500)
    for trace, beta2 in zip(figure.data, (0.999, 0.98), strict=True):
        assert trace.y == pytest.approx(correction_factor(trace.x, 0.9, beta2))
        assert (trace.x[0], trace.x[-1]) == (1, 500)


def test_caption_comes_from_the_table() -> None:
    text = figures.caption(runs(), "Ours never fails", "mini")
    assert text == (
        "Ours never fails. Scale: mini; n = 25 runs in each of 3 cells; cpu, Some CPU; 2026-01-02."
    )
    one_cell = runs().query("method == 'Ours'")
    assert "mini; n = 25 runs; cpu" in figures.caption(one_cell, "Ours never fails", "mini")
    assert "mini; n = 1 run; cpu" in figures.caption(one_cell[:1], "Ours never fails", "mini")
    later = runs().assign(task="rte", device="cuda", hardware="Some GPU", date="2026-02-01")
    both = figures.caption(pd.concat([runs(), later.iloc[:-5]]), "They differ.", "mini and paper")
    assert "n = 20 to 25 runs in each of 6 cells" in both
    assert "cpu, Some CPU and cuda, Some GPU; 2026-01-02 to 2026-02-01" in both


def test_caption_refuses_mixed_hardware() -> None:
    table = runs()
    table.loc[0, "hardware"] = "Another CPU"
    with pytest.raises(StabkitError, match=r"mini-bert on mini-rte mixes .*Another CPU"):
        figures.caption(table, "finding", "mini")


def test_html_needs_no_network_and_is_reproducible() -> None:
    figure = figures.correction_factor()
    text = figures.html(figure, "a < b", 'the "factor"')
    assert text == figures.html(figures.correction_factor(), "a < b", 'the "factor"')
    assert 'aria-label="the &quot;factor&quot;"' in text
    assert "<figcaption>a &lt; b <button" in text
    assert "http" not in text
    assert len(text) < 30_000
    spec = re.search(r'newPlot\("stabkit-\w+", (.*?)\);document', text)
    assert spec is not None
    assert json.loads(spec[1])["config"]["responsive"] is True


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_html_script_draws_once_the_page_is_loaded() -> None:
    text = figures.html(figures.correction_factor(), "caption", "alt")
    script = re.search(r"<script>(.*)</script>", text)
    assert script is not None
    page = (
        "const drawn = []; const Plotly = {newPlot: (id, s) => drawn.push(s.data.length)};"
        "const document = {readyState: process.argv[1]};"
        "const window = {addEventListener: (name, f) => name === 'load' && f()};"
        f"{script[1]}; console.log(JSON.stringify(drawn))"
    )
    for state in ("loading", "complete"):
        done = subprocess.run(["node", "-e", page, state], capture_output=True, check=True)
        assert json.loads(done.stdout) == [2]


def test_exhibit_in_the_book_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[object] = []
    monkeypatch.setattr(display, "display", shown.append)
    exhibit = figures.show(figures.correction_factor(), "caption", "alt")
    monkeypatch.setenv("STABKIT_BOOK", "1")
    exhibit._ipython_display_()
    monkeypatch.delenv("STABKIT_BOOK")
    exhibit._ipython_display_()
    assert [type(item).__name__ for item in shown] == ["HTML", "Figure", "HTML"]
    below = str(vars(shown[2])["data"])
    offered = base64.b64decode(below.split("base64,")[1].split('"')[0]).decode()
    assert offered == exhibit.data().to_csv(index=False) and "<p>caption " in below
    with pytest.raises(StabkitError, match="text alternative"):
        figures.show(exhibit.figure, "caption", " ")


def test_reading_results_does_not_import_torch() -> None:
    code = (
        "import sys, stabkit.figures, stabkit.paper, stabkit.stats\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'IPython') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


# How dichromats see linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    "all": np.eye(3).tolist(),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]  # of sRGB
WHITE = [0.9505, 1.0, 1.089]


def cielab(colour: str, seen: list[list[float]]) -> np.ndarray:
    """Return where ``#RRGGBB`` lies in CIELAB for an eye, in which 2.3 is just noticeable."""
    shares = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    ratios = np.array(XYZ) @ np.clip(np.array(seen) @ linear, 0, 1) / WHITE
    cone = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios * 841 / 108 + 4 / 29)
    return np.array(
        [116 * cone[1] - 16, 500 * (cone[0] - cone[1]), 200 * (cone[1] - cone[2])], dtype=float
    )


@pytest.mark.parametrize("eye", SEEN)
def test_things_with_a_colour_of_their_own_are_told_apart_by_every_eye(eye: str) -> None:
    places = {name: cielab(colour, SEEN[eye]) for name, colour in figures.PALETTE.items()}
    for one, other in combinations(places, 2):
        assert np.linalg.norm(places[one] - places[other]) > 4 * 2.3, (one, other)


def test_failure_curves_are_of_any_sign_of_failure() -> None:
    table = pilot()
    table.loc[table.index % 10 == 9, "flat_loss"] = True
    figure = figures.failure_curves(table)
    for name, share in (("without", 50), ("with bias correction", 10)):
        (line,) = [trace for trace in named(figure, name) if trace.mode == "lines+markers"]
        assert list(line.y) == pytest.approx([share] * 3)


def test_points_stand_beside_their_box() -> None:
    figure = figures.seed_scores(runs())
    boxes = [trace for trace in figure.data if trace.type == "box"]
    for box, name in zip(boxes, ("Devlin", "Lee", "Ours"), strict=True):
        (points,) = named(figure, name)
        assert min(points.x) >= box.x[0] + box.width / 2


def test_failed_runs_are_dotted_and_bear_their_name() -> None:
    table = runs().iloc[25:35]
    history = pd.DataFrame({"step": range(1, 4), "loss": 0.5})
    figure = figures.training_curves(table, dict.fromkeys(table["key"], history))
    seeds = table.groupby("failed")["seed"].agg(set)
    for name, failed, dash in (("failed", True, "dot"), ("successful", False, "solid")):
        lines = named(figure, name)
        assert {line.meta["rows"]["seed"] for line in lines} == seeds[failed]
        assert {line.line.dash for line in lines} == {dash}


def test_gradient_norms_have_the_failed_run_above() -> None:
    figure = figures.gradient_norms(gradients() / 2, gradients())
    above, below = named(figure, "layer 3")
    assert [note.text for note in figure.layout.annotations] == ["failed run", "successful run"]
    assert (above.yaxis, below.yaxis) == ("y", "y2")
    assert above.y == pytest.approx(below.y / 2)


def test_summary_table_has_each_statistic_under_its_name() -> None:
    table = runs()
    shown = figures.summary_table(table).set_index("method")
    scores = 100 * table.set_index("method").loc["Devlin", "score_last"]
    kept = scores[~table.set_index("method").loc["Devlin", "failed"]]
    expected = {"std": scores.std(), "std, not failed": kept.std(), "mean": scores.mean()}
    for name, value in (expected | {"median": scores.median(), "max": scores.max()}).items():
        assert shown.loc["Devlin", name].split(" ")[0] == f"{value:.1f}"


OF_A_TABLE = (
    "ablation_grid",
    "arms",
    "barrier_line",
    "barrier_lines",
    "failure_curves",
    "layer_swap",
    "score_against_loss",
    "seed_scores",
    "small_data",
    "summary_table",
    "surface_3d",
    "surface_contours",
)
OF_TWO: dict[str, Any] = {  # tables of two runs, or a table and its runs' histories
    "dev_over_training": {},
    "gradient_map": pd.DataFrame({"step": [1], "layer.0.query.weight": [1.0]}),
    "gradient_norms": pd.DataFrame({"step": [1], "layer.0.query.weight": [1.0]}),
    "training_curves": {},
}
OF_NONE = {"caption", "correction_factor", "effective_rates", "html", "short", "show", "values"}


def test_every_figure_of_a_table_is_among_those_that_refuse() -> None:
    functions = {name for name in figures.__all__ if name.islower()}
    assert functions == {*OF_A_TABLE, *OF_TWO, *OF_NONE}


@pytest.mark.parametrize("name", [*OF_A_TABLE, *OF_TWO])
def test_an_empty_or_foreign_table_is_refused(name: str) -> None:
    more = [OF_TWO[name]] if name in OF_TWO else []
    for table in (pd.DataFrame(), pd.DataFrame({"colour": ["blue"]})):
        with pytest.raises(StabkitError, match="the table has no column"):
            getattr(figures, name)(table, *more)
