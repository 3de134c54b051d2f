"""The grids' figures show every run of every cell, and the statistics they say; 7.1 by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy.stats import spearmanr

from stabkit import figures
from stabkit.agreement import SETTINGS
from stabkit.errors import StabkitError
from stabkit.figures import generalisation
from stabkit.figures.generalisation import BINS, _spline
from stabkit.schedule import hidden_multiplier, linear_schedule
from stabkit.stats import point_stability, wilson

RATES = (1e-4, 2e-4, 3e-4)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def grid(seeds: int = 25, **axes: tuple[object, ...]) -> pd.DataFrame:
    """Runs of every combination: with correction seed 0 fails, without it seeds 0 to 9."""
    axes = {"epochs": (3,), "learning_rate": RATES, "bias_correction": (False, True)} | axes
    cells = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    table = pd.DataFrame([cell | {"seed": seed} for cell in cells for seed in range(seeds)])
    failed = table["seed"] < np.where(table["bias_correction"].astype(bool), 1, 10)
    noise = rng().normal(0, 0.01, len(table))
    loss = 0.5 * np.exp(-table["epochs"] * (0.2 + 0.3 * rng().random(len(table))))
    steps = 156 * table["epochs"]
    fixed = {"task": "mini-rte", "model": "mini-bert", "multiplier": "none", "warmup": 0.1}
    fixed |= {"metric": "accuracy", "majority_score": 0.52, "diverged": False}
    fixed |= {"train_size": None, "max_steps": None}
    table = pd.DataFrame({**fixed, "steps": steps} | dict(table.items()))
    return table.assign(
        key=[f"{i:016x}" for i in table.index],
        failed=failed,
        constant=failed,
        flat_loss=failed,
        score_last=np.where(failed, 0.5, 0.87 + noise),
        train_loss=np.where(failed, 0.693, loss),
    )


def small(seeds: int = 25) -> pd.DataFrame:
    axes: dict[str, tuple[object, ...]] = {
        "task": ("mini-cola", "mini-mrpc"),
        "learning_rate": (2e-4,),
        "bias_correction": (False,),
    }
    full, few, as_long = (grid(seeds, **axes) for _ in SETTINGS)
    few["train_size"] = as_long["train_size"] = 1000
    as_long["max_steps"] = 750
    as_long["epochs"] = None
    return pd.concat([full, few, as_long], ignore_index=True)


def history(epochs: int = 20, looks: int = 3) -> pd.DataFrame:
    steps = np.arange(1, 156 * epochs + 1)
    score = np.where(steps % (156 // looks), np.nan, 0.9 - 1 / (10 + steps))
    return pd.DataFrame({"step": steps, "dev_score": score})


def points(figure: go.Figure) -> list[go.Scatter]:
    scatters = figure.select_traces({"type": "scatter", "mode": "markers"})
    return [trace for trace in scatters if trace.x[0] is not None]


def shares(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in points(figure) if trace.error_y.array is not None]


def test_arms_draw_every_run_and_the_interval_of_every_group() -> None:
    table = grid(model=("mini-bert", "mini-roberta"))
    figure = figures.arms(table)
    above = shares(figure)
    runs = [trace for trace in points(figure) if trace not in above]
    assert sum(len(trace.x) for trace in runs) == len(table) == 300
    assert sum(list(trace.marker.symbol).count("x") for trace in runs) == table["failed"].sum()
    assert len(above) == 2 * 6
    first, high = above[0], 100 * wilson(10, 25).high
    assert first.y[0] + first.error_y.array[0] == pytest.approx(high)
    assert first.hovertemplate.startswith("10 of 25 learn nothing")
    assert {first.marker.color, above[1].marker.color} == {
        figures.PALETTE["Devlin"],
        figures.PALETTE["Ours"],
    }
    assert figure.layout.yaxis4.title.text == "mini-roberta<br>dev accuracy (%)"
    assert figure.layout.xaxis2.ticktext[:2] == ("1e-4<br>off", "1e-4<br>on")
    assert [line.showlegend for line in figure.data if line.name == "majority class"] == [
        True,
        False,
    ]


def test_arms_of_half_a_study() -> None:
    table = grid(seeds=3).iloc[:4]
    assert len(shares(figures.arms(table))) == 2


def test_effective_rates_are_the_schedule_times_the_hidden_multiplier() -> None:
    corrected, bert, roberta = figures.effective_rates(468).data
    t = np.arange(1, 469)
    assert corrected.y == pytest.approx(linear_schedule(t, 468))
    assert bert.y == pytest.approx(linear_schedule(t, 468) * hidden_multiplier(t, 0.9, 0.999))
    assert roberta.name == "without, β2 = 0.98"
    assert len({trace.line.dash for trace in (corrected, bert, roberta)}) == 3


def test_small_data_has_three_settings_per_task() -> None:
    figure = figures.small_data(small())
    assert len(shares(figure)) == 2 * 3
    labels = figure.layout.xaxis2.ticktext
    assert [label.replace("<br>", " ") for label in labels] == list(SETTINGS)
    assert max(len(line) for label in labels for line in label.split("<br>")) <= 10
    assert figure.layout.yaxis4.title.text.startswith("mini-mrpc")
    above, below = figure.layout.yaxis2.domain[0], figure.layout.yaxis3.domain[1]
    assert (above - below) * figure.layout.height > 4 * 17 + 10, "labels have room below a panel"


def test_the_ablation_grid_says_the_numbers_of_each_cell() -> None:
    table = grid(epochs=(3, 10, 20))
    figure = figures.ablation_grid(table.iloc[:-25])  # the last cell is not there yet
    without, corrected = figure.data
    assert (len(without.z), len(corrected.z)) == (9, 8)
    assert set(without.z) == {40.0}
    mean = 100 * table["score_last"][:25].mean()
    assert without.text[0] == f"10 of 25<br>mean {mean:.1f}"
    assert without.customdata[0] == pytest.approx([100 * bound for bound in wilson(10, 25)[1:]])
    assert (without.x[0], without.y[0], without.zmin, without.zmax) == ("1e-4", "3", 0, 100)
    assert [note.text for note in figure.layout.annotations] == [
        "without bias correction",
        "with bias correction",
    ]
    only = figures.ablation_grid(table[table["bias_correction"].astype(bool)])
    assert len(only.data) == 1


def test_dev_over_training_draws_ten_successful_runs_and_their_mean() -> None:
    table = grid(epochs=(20,), learning_rate=(2e-4,), bias_correction=(True,))
    figure = figures.dev_over_training(table, dict.fromkeys(table["key"], history()))
    *runs, mean, mark = figure.data
    assert len(runs) == 10
    assert runs[0].hovertemplate.startswith("seed 1,")  # seed 0 failed
    assert [trace.showlegend for trace in runs] == [True] + [False] * 9
    assert mean.name == "mean of 10 runs"
    assert len(mean.x) == 60
    assert (mean.x[-1], mean.y[-1]) == pytest.approx((20, 100 * (0.9 - 1 / 3130)))
    assert mark.x == (3, 3)


def test_dev_over_training_refuses_what_is_not_of_one_cell() -> None:
    table = grid(epochs=(20,))
    with pytest.raises(StabkitError, match="several values of learning_rate"):
        figures.dev_over_training(table, dict.fromkeys(table["key"], history()))
    with pytest.raises(StabkitError, match="no run unknown"):
        figures.dev_over_training(table, {"unknown": history()})
    with pytest.raises(StabkitError, match="no column dev_score"):
        one = table.iloc[[5]].assign(failed=False, constant=False, flat_loss=False)
        figures.dev_over_training(one, {one["key"].iloc[0]: history()[["step"]]})
    failed = table[table["failed"].astype(bool)]
    with pytest.raises(StabkitError, match="no runs"):
        figures.dev_over_training(failed, dict.fromkeys(failed["key"], history()))


def test_score_against_loss_draws_points_curve_band_and_correlation() -> None:
    table = grid(epochs=(3, 10, 20))
    table.loc[[0, 1], "train_loss"] = np.nan
    figure = figures.score_against_loss(table)
    assert sum(len(trace.x) for trace in points(figure)) == len(table) - 2
    band, line = (trace for trace in figure.data if trace.name and "spline" in trace.name)
    low, high = np.array(band.y[:BINS]), np.array(band.y[BINS:])[::-1]
    assert np.all(low <= high)
    assert np.mean((low - 0.1 <= line.y) & (line.y <= high + 0.1)) > 0.9
    assert figure.layout.xaxis.type == "log"
    runs = table[table["train_loss"].notna()]
    rho = spearmanr(runs["train_loss"], runs["score_last"]).statistic
    note = figure.layout.annotations[0].text
    assert note.startswith(f"rank correlation {rho:.2f} (")
    assert note.endswith("<br>2 runs without a finite loss not drawn")
    assert figures.score_against_loss(table) == figure


def test_score_against_loss_of_few_runs_has_no_curve() -> None:
    figure = figures.score_against_loss(grid(seeds=1).iloc[:2])
    assert not [trace for trace in figure.data if trace.name and "spline" in trace.name]
    assert figure.layout.annotations[0].text == ""
    with pytest.raises(StabkitError, match="no runs"):
        figures.score_against_loss(grid(seeds=1).assign(train_loss=np.inf))


def test_the_spline_follows_a_line_and_ends_level() -> None:
    centres = np.linspace(0, 1, 20)
    bins = np.repeat(np.arange(2, 18), 3)
    found = _spline(centres, bins, 2 * centres[bins])
    assert found[2:18] == pytest.approx(2 * centres[2:18], abs=1e-6)
    assert found[0] == pytest.approx(found[2])
    assert np.isnan(_spline(centres, bins[:9], centres[bins[:9]])).all()


@pytest.mark.parametrize("name", ["arms", "small_data", "ablation_grid", "score_against_loss"])
def test_empty_and_foreign_tables_are_refused(name: str) -> None:
    draw = getattr(figures, name)
    with pytest.raises(StabkitError, match="no runs"):
        draw(grid().iloc[:0])
    with pytest.raises(StabkitError, match="no column"):
        draw(pd.DataFrame({"score": [1.0]}))
    two = "model" if name == "small_data" else "task"
    other = grid().assign(**{two: "other"})
    with pytest.raises(StabkitError, match=f"several values of {two}"):
        draw(pd.concat([grid(), other], ignore_index=True))


def test_figures_get_onto_a_page() -> None:
    for figure in (figures.arms(grid()), figures.ablation_grid(grid())):
        assert len(figures.html(figure, "caption", "alt")) < 100_000


def test_point_stability_by_hand() -> None:
    correct = [[True, True, False], [True, False, False], [True, True, True]]
    found = point_stability(correct)
    variances = np.var(np.array(correct, dtype=float), axis=0, ddof=1)
    assert found.per_point.value == pytest.approx(variances.mean()) == pytest.approx(2 / 9)
    assert found.of_mean.value == pytest.approx(np.var([2 / 3, 1 / 3, 1], ddof=1))
    assert found == point_stability(np.array(correct, dtype=int))


def test_seeds_that_err_at_random_points_are_stable_in_the_mean_only() -> None:
    draws = rng()
    at_random = point_stability(draws.random((25, 500)) < 0.8)
    assert at_random.per_point.low < at_random.per_point.value < at_random.per_point.high
    assert at_random.per_point.low < 0.16 < at_random.per_point.high
    assert at_random.of_mean.high < 0.001
    whole = np.repeat(
        draws.random((25, 1)) < 0.8, 500, axis=1
    )  # a run is right or wrong throughout
    found = point_stability(whole)
    assert found.per_point == pytest.approx(found.of_mean)


def test_point_stability_of_equal_runs_is_exactly_nothing() -> None:
    alike = np.tile(np.random.default_rng(0).random(500) < 0.685, (25, 1))
    assert point_stability(alike) == ((0, 0, 0), (0, 0, 0))
    nearly = alike.copy()
    nearly[0, 0] = not nearly[0, 0]
    assert min(bound for found in point_stability(nearly) for bound in found) >= 0


def test_point_stability_needs_runs_by_points() -> None:
    assert np.isnan(point_stability([[True, False]]).per_point).all()
    for wrong in ([True, False], [[0.5, 1.0]], np.empty((3, 0))):
        with pytest.raises(StabkitError, match=r"expected \(runs, points\)"):
            point_stability(wrong)


def test_the_interval_of_point_stability_by_hand() -> None:
    # Half of the resamples of two runs hold one of them twice, the others both.
    assert point_stability([[True], [False]]) == ((0.5, 0, 1), (0.5, 0, 1))
    right = rng().random((25, 50)) < 0.8
    wide, narrow = (point_stability(right, level).of_mean for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_long_line_is_the_mean_of_different_runs() -> None:
    table = grid(epochs=(20,), learning_rate=(2e-4,), bias_correction=(True,)).iloc[1:4]
    shifts = zip(table["key"], (0.0, 0.0, -0.3), strict=True)
    looks = {key: history().assign(dev_score=history()["dev_score"] + by) for key, by in shifts}
    *runs, mean, _ = figures.dev_over_training(table, looks).data
    assert mean.y == pytest.approx(np.mean([run.y for run in runs], axis=0))


def test_score_against_loss_crosses_failed_runs_out() -> None:
    table = grid(epochs=(3, 10))
    for trace in points(figures.score_against_loss(table)):
        told = [verdict.split(";")[0] for verdict in trace.customdata[:, 1]]
        assert [{"x": "failed"}.get(mark, "not failed") for mark in trace.marker.symbol] == told


def test_the_band_holds_95_percent_of_the_resampled_splines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[np.ndarray] = []

    def noted(*of: np.ndarray) -> np.ndarray:
        made.append(_spline(*of))
        return made[-1]

    monkeypatch.setattr(generalisation, "_spline", noted)
    figure = figures.score_against_loss(grid(epochs=(3, 10, 20)))
    (band,) = (trace for trace in figure.data if trace.fill == "toself")
    low, high = np.array(band.y[:BINS]), np.array(band.y[BINS:])[::-1]
    resampled = np.array(made[:-1])  # the last one is the line
    assert np.mean((low <= resampled) & (resampled <= high)) == pytest.approx(0.95, abs=0.02)


def test_arms_have_the_colours_of_off_and_on() -> None:
    off, on, *_ = shares(figures.arms(grid()))
    assert off.hovertemplate.startswith("10 of 25") and on.hovertemplate.startswith("1 of 25")
    assert (off.marker.color, on.marker.color) == (
        figures.PALETTE["Devlin"],
        figures.PALETTE["Ours"],
    )
