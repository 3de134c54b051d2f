"""Figures of the grids of runs: Fig. 3, 5, 8 and 9; the rates that a missing correction makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from stabkit.agreement import SETTINGS, settings
from stabkit.figures.scores import (
    ARMS,
    METRICS,
    box_and_points,
    symbol_key,
    what,
)
from stabkit.figures.style import OTHERS, PALETTE, colour, reference, translucent
from stabkit.figures.values import about
from stabkit.schedule import hidden_multiplier, linear_schedule, short
from stabkit.stats import wilson
from stabkit.tables import SIGNS, failure_curve, finite_scores, learned_nothing, only, require

NEEDED = ("seed", "metric", "majority_score", *SIGNS)
LINE = 21  # pixels of a label's line, with air
LINES = ("solid", "dash", "dot", "dashdot")


def arms(table: pd.DataFrame) -> go.Figure:
    """Draw every run by learning rate and bias correction, one panel per model (Fig. 5).

    Above each panel stands the share of runs that learn nothing, with Wilson's 95 % interval.
    Failed runs are crosses. ``table`` is a run table of one task and number of epochs.
    """
    require(table, (*NEEDED, "model", "learning_rate", "bias_correction"))
    only(table, "task", "epochs", "multiplier", "warmup")
    corrected = table["bias_correction"].astype(bool)
    named = table.assign(arm=[*map(_arm, table["learning_rate"], corrected)])
    tints = {on: tint for on, _, tint, _ in ARMS}
    rates = sorted(table["learning_rate"].unique())
    colours = {_arm(rate, on): tints[on] for rate in rates for on in (False, True)}
    figure = _panels(named, "model", "arm", colours)
    title = "peak learning rate; bias correction off or on"
    return figure.update_xaxes(title_text=title, row=2 * named["model"].nunique(), col=1)


def _arm(rate: float, corrected: bool) -> str:
    return f"{short(rate)}<br>{'on' if corrected else 'off'}"


def effective_rates(
    steps: int, beta2s: Sequence[float] = (0.999, 0.98), beta1: float = 0.9, warmup: float = 0.1
) -> go.Figure:
    """Draw a run's learning rate over its steps, as scheduled and without bias correction.

    In units of the peak that is set; a closed form (section 5.1).
    """
    t = np.arange(1, steps + 1)
    scheduled = linear_schedule(t, steps, warmup)
    figure = go.Figure()
    rates = {f"without, β2 = {b:g}": scheduled * hidden_multiplier(t, beta1, b) for b in beta2s}
    rates = {"with bias correction": scheduled, **rates}
    tints = [PALETTE["Ours"], PALETTE["Devlin"], *OTHERS]
    for (name, rate), tint, dash in zip(rates.items(), tints, LINES, strict=False):
        line = {"color": tint, "dash": dash}
        figure.add_scatter(x=t, y=rate, name=name, line=line, hovertemplate="step %{x}: %{y:.2f}")
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text="learning rate / peak that is set", rangemode="tozero")
    return figure.update_layout(template="stabkit", height=400)


def small_data(table: pd.DataFrame) -> go.Figure:
    """Draw the three settings of the small-data study as ``arms`` does, a panel per task (Fig. 3).

    ``table`` is a run table of one model.
    """
    require(table, (*NEEDED, "task"))
    only(table, "model", "multiplier", "bias_correction")
    lines = {name: "<br>".join(wrap(name, 10)) for name in SETTINGS}  # as narrow as on a phone
    named = table.assign(setting=settings(table).map(lines))
    return _panels(named, "task", "setting", dict.fromkeys(lines.values(), ""))


def _panels(table: pd.DataFrame, panel: str, group: str, colours: Mapping[str, str]) -> go.Figure:
    """Draw two rows for each value of ``panel``; ``colours`` has the name of each group's colour.

    A group without a colour of that name gets the next of the others.
    """
    finite_scores(table, "score_last")
    names = list(table[panel].unique())
    gap = max(50, 20 + LINE * max(label.count("<br>") + 1 for label in colours))
    height = 130 + (330 + gap) * len(names)
    heights, spacing = [1, 3] * len(names), gap / height
    figure = make_subplots(rows=2 * len(names), row_heights=heights, vertical_spacing=spacing)
    for row, name in zip(range(1, 2 * len(names), 2), names, strict=True):
        runs = table[table[panel] == name]
        only(runs, "metric", "majority_score")
        for position, (label, tint) in enumerate(colours.items()):
            chosen = runs[runs[group] == label]
            if len(chosen):
                figure.add_trace(_share(chosen, position, colour(tint, position)), row=row, col=1)
                marks = box_and_points(chosen, tint, position, "score_last")
                figure.add_traces([mark.update(name="") for mark in marks], row + 1, 1)
        level, metric = 100 * runs["majority_score"].iloc[0], runs["metric"].iloc[0]
        ends = (-0.5, len(colours) - 0.5)
        line = reference(ends, (level, level), "majority class", first=row == 1)
        figure.add_trace(line, row=row + 1, col=1)
        _label(figure, row, f"{name}<br>{METRICS.get(metric, metric)}", list(colours))
    figure.add_traces(symbol_key())
    places = list(range(len(colours)))
    figure.update_xaxes(tickvals=places, range=[-0.5, len(colours) - 0.5], showgrid=False)
    return figure.update_layout(template="stabkit", height=height)


def _label(figure: go.Figure, row: int, title: str, groups: Sequence[str]) -> None:
    figure.update_yaxes(title_text="learn<br>nothing (%)", range=[-8, 108], row=row)
    figure.update_yaxes(title_text=title, row=row + 1)
    figure.update_xaxes(ticktext=[""] * len(groups), row=row)
    figure.update_xaxes(ticktext=groups, row=row + 1)


def _share(runs: pd.DataFrame, position: int, tint: str) -> go.Scatter:
    failures = int(learned_nothing(runs).sum())
    share, low, high = (100 * number for number in wilson(failures, len(runs)))
    bounds = {"array": [high - share], "arrayminus": [share - low]}
    return go.Scatter(
        x=[position],
        y=[share],
        error_y={"type": "data", "symmetric": False, **bounds, "thickness": 1.5, "width": 5},
        mode="markers",
        marker={"color": tint, "symbol": "square", "size": 8},
        showlegend=False,
        meta=about({**what(runs), "learn nothing": failures, "runs": len(runs)}),
        hovertemplate=f"{failures} of {len(runs)} learn nothing"
        f"<br>95 % interval {low:.0f} to {high:.0f} %<extra></extra>",
    )


def ablation_grid(table: pd.DataFrame) -> go.Figure:
    """Draw epochs x learning rate, without and with correction: failures, mean score (Fig. 9).

    The stronger a cell's colour, the more of its runs learn nothing. It says how many of how many
    and the mean score of all, in percent. ``table`` is a run table of one model and task.
    """
    only(table, "model", "task", "metric", "multiplier", "warmup")
    finite_scores(table, "score_last")
    by = ["epochs", "learning_rate", "bias_correction"]
    cells = failure_curve(table, by).set_index(by)
    cells = cells.assign(score=100 * table.groupby(by)["score_last"].mean()).reset_index()
    titles = ["without bias correction", "with bias correction"]
    figure = make_subplots(rows=2, subplot_titles=titles, vertical_spacing=0.16)
    for row, corrected in enumerate((False, True), 1):
        arm = cells[cells["bias_correction"] == corrected]
        if len(arm):
            figure.add_trace(_cells(arm), row=row, col=1)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_xaxes(title_text="peak learning rate", row=2, col=1)
    figure.update_yaxes(title_text="epochs", type="category", showgrid=False)
    return figure.update_layout(template="stabkit", height=600)


def _cells(arm: pd.DataFrame) -> go.Heatmap:
    strength = [translucent(PALETTE["failed"], opacity) for opacity in (0.03, 0.6)]
    return go.Heatmap(
        x=[short(rate) for rate in arm["learning_rate"]],
        y=[f"{epochs}" for epochs in arm["epochs"]],
        z=100 * arm["rate"],
        text=[f"{c.failures} of {c.runs}<br>mean {c.score:.1f}" for c in arm.itertuples()],
        texttemplate="%{text}",
        customdata=100 * arm[["low", "high"]].to_numpy(),
        meta=about(
            {"bias correction": "on" if arm["bias_correction"].iloc[0] else "off"},
            z="learn nothing (%)",
            customdata=["low", "high"],
        ),
        hovertemplate="%{y} epochs at %{x}: %{z:.0f} % learn nothing"
        "<br>95 % interval %{customdata[0]:.0f} to %{customdata[1]:.0f} %<extra></extra>",
        colorscale=list(enumerate(strength)),  # over the page: the text is readable in the dark too
        zmin=0,
        zmax=100,
        showscale=False,
        xgap=2,
        ygap=2,
    )
