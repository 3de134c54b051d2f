"""Figures and tables of finished runs: Fig. 1, Table 1, failure curves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from stabkit.figures.style import PALETTE, colour, head, reference, translucent
from stabkit.figures.values import about
from stabkit.paper import reported
from stabkit.schedule import short
from stabkit.stats import Floats
from stabkit.tables import SIGNS, describe_groups, failure_curve, finite_scores, only, require

Score = Literal["score_last", "score_best"]
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, spread evenly for any number of seeds
METRICS = {
    "accuracy": "dev accuracy (%)",
    "f1": "dev F1 (%)",
    "accuracy_f1": "mean of dev accuracy and F1 (%)",
    "mcc": "100 times dev MCC",
}
ARMS = ((True, "with bias correction", "Ours", "solid"), (False, "without", "Devlin", "dash"))


def seed_scores(
    table: pd.DataFrame, group: str = "method", score: Score = "score_last"
) -> go.Figure:
    """Draw every run as a point beside its group's box, one panel per task (Fig. 1).

    ``table`` is a run table of one model with the column ``group`` and ``majority_score``, the
    score of always predicting the most frequent class. Failed runs are crosses.
    """
    require(table, ("task", "metric", "seed", group, "majority_score", *SIGNS))
    only(table, "model")
    finite_scores(table, score)
    tasks, groups = list(table["task"].unique()), _in_order(table[group])
    figure = make_subplots(rows=len(tasks), vertical_spacing=0.2 / len(tasks))
    for row, task in enumerate(tasks, 1):
        runs = table[table["task"] == task]
        only(runs, "metric", "majority_score")
        for position, name in enumerate(groups):
            chosen = runs[runs[group].astype(str) == name]
            figure.add_traces(box_and_points(chosen, name, position, score), rows=row, cols=1)
        majority = 100 * runs["majority_score"].iloc[0]
        ends = (-0.5, len(groups) - 0.5)
        line = reference(ends, (majority, majority), "majority class", first=row == 1)
        figure.add_trace(line, row=row, col=1)
        metric = runs["metric"].iloc[0]
        figure.update_yaxes(title_text=f"{task}<br>{METRICS.get(metric, metric)}", row=row, col=1)
    figure.add_traces(symbol_key())
    ticks = [name.replace(", ", ",<br>") for name in groups]
    figure.update_xaxes(tickvals=list(range(len(groups))), ticktext=ticks, showgrid=False)
    return figure.update_layout(template="stabkit", height=110 + 290 * len(tasks))


def _in_order(values: pd.Series) -> list[str]:
    """Unique names, the paper's methods ("Devlin", "Devlin, half the rate") first, in its order."""
    places = {name: place for place, name in enumerate(PALETTE)}
    return sorted(values.astype(str).unique(), key=lambda name: places.get(head(name), len(places)))


def box_and_points(
    runs: pd.DataFrame, name: str, position: int, score: str
) -> tuple[go.Box, go.Scatter]:
    """Return a group's box and, beside it at ``position``, a point for each of its runs."""
    scores, tint = 100 * runs[score].to_numpy(dtype=float), colour(name, position)
    box = go.Box(
        x=np.full(len(runs), position - 0.25),
        y=scores,
        width=0.3,
        boxpoints=False,
        line_color=tint,
        fillcolor=translucent(tint),
        showlegend=False,
        hoverinfo="skip",
    )
    return box, _points(runs, scores, name, position)


def _points(runs: pd.DataFrame, scores: Floats, name: str, position: int) -> go.Scatter:
    jitter = 0.36 * ((GOLDEN * runs["seed"].to_numpy(dtype=float)) % 1)
    return go.Scatter(
        x=position + jitter,
        y=scores,
        mode="markers",
        name=name,
        showlegend=False,
        marker={
            "color": colour(name, position),
            "size": 8,
            "symbol": np.where(runs["failed"], "x", "circle-open"),
        },
        customdata=np.column_stack([runs["seed"].to_numpy(dtype=object), verdicts(runs)]),
        meta=about(what(runs), customdata=["seed", "verdict"]),
        hovertemplate="%{y:.1f} · seed %{customdata[0]}<br>%{customdata[1]}",
    )


def what(runs: pd.DataFrame) -> dict[str, object]:
    """Return what some runs of one point on an axis are, for a trace's ``meta``."""
    names = ("model", "task", "method", "setting", "arm")
    return {name: str(runs[name].iloc[0]) for name in names if name in runs and len(runs)}


def verdicts(runs: pd.DataFrame) -> list[str]:
    """In words: failed or not, and each further sign of failure that the run shows."""
    further = {sign: words for sign, words in SIGNS.items() if sign != "failed"}
    signs = [[words for sign, words in further.items() if row[sign]] for _, row in runs.iterrows()]
    heads = np.where(runs["failed"], "failed", "not failed")
    return ["; ".join([head, *found]) for head, found in zip(heads, signs, strict=True)]


def symbol_key() -> list[go.Scatter]:
    """Return the legend's two marks, for failed runs and for others."""
    marks = (("failed run", "x"), ("other run", "circle-open"))
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "color": PALETTE["baseline"], "size": 8},
        )
        for name, symbol in marks
    ]


def failure_curves(table: pd.DataFrame, chosen: float | None = None) -> go.Figure:
    """Draw the share of runs that learned nothing by learning rate, correction on and off.

    Counted are runs with any sign of failure (``learned_nothing``); bands are Wilson's 95 %
    intervals. ``chosen`` marks a learning rate, such as that of ``learning_rate_rule``. ``table``
    is a run table of one model, task and number of epochs, without the controls (``multiplier``
    other than "none").
    """
    only(table, "model", "task", "epochs", "multiplier")
    curve, figure = failure_curve(table), go.Figure()
    for corrected, name, tint, dash in ARMS:
        arm = curve[curve["bias_correction"] == corrected]
        if not arm.empty:
            figure.add_traces(
                [_band(arm, name, PALETTE[tint]), _line(arm, name, PALETTE[tint], dash)]
            )
    if chosen is not None:
        figure.add_trace(reference((chosen, chosen), (0, 100), f"chosen: {short(chosen)}"))
    rates = curve["learning_rate"].unique()
    figure.update_xaxes(
        type="log",
        title_text="peak learning rate",
        tickvals=rates,
        ticktext=[short(rate) for rate in rates],
    )
    figure.update_yaxes(title_text="runs that learn nothing (%)", range=[-3, 103])
    return figure.update_layout(template="stabkit", height=400)


def _band(arm: pd.DataFrame, name: str, tint: str) -> go.Scatter:
    x = arm["learning_rate"].to_numpy()
    low, high = (100 * arm[bound].to_numpy() for bound in ("low", "high"))
    return go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([low, high[::-1]]),
        fill="toself",
        fillcolor=translucent(tint),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=name,
    )


def _line(arm: pd.DataFrame, name: str, tint: str, dash: str) -> go.Scatter:
    counts, bounds = arm[["failures", "runs", "failed"]], 100 * arm[["low", "high"]]
    return go.Scatter(
        x=arm["learning_rate"].to_numpy(),
        y=100 * arm["rate"],
        mode="lines+markers",
        name=name,
        legendgroup=name,
        line={"color": tint, "dash": dash},
        customdata=np.column_stack([counts, bounds]),
        meta=about(customdata=["learn nothing", "runs", "at or below majority", "low", "high"]),
        hovertemplate="%{x:.2e}: %{customdata[0]} of %{customdata[1]} learn nothing"
        "<br>95 % interval %{customdata[3]:.0f} to %{customdata[4]:.0f} %"
        "<br>at or below the majority class: %{customdata[2]}",
    )


def summary_table(
    table: pd.DataFrame,
    by: Iterable[str] = ("task", "method"),
    score: str = "score_last",
) -> pd.DataFrame:
    """Return Table 1 as text, in percent: one row per group, 95 % intervals in brackets.

    The failure share comes first, since a group that always fails has a small std. Where ``by``
    names the paper's tasks and methods, the preprint's numbers stand beside ours.
    """
    only(table, "model")
    described = describe_groups(table, by=tuple(by), score=score)
    rows = [_summary_row(row) for _, row in described.iterrows()]
    texts = pd.DataFrame(rows).fillna("not reported")
    return pd.concat([described[list(by)], texts], axis=1)


def _summary_row(row: pd.Series) -> dict[str, str]:
    ours = {
        "failed": f"{row['failures']} of {row['runs']}",
        "failed, %": row["failure_rate"].percent(),
        "std": row["std"].percent(),
        "std, not failed": row["std_successful"].percent(),
        "mean": row["mean"].percent(),
        "median": row["median"].percent(),
        "max": f"{100 * row['max']:.1f}",
    }
    theirs = reported(row.get("task", ""), row.get("method", ""))
    if theirs is None:
        return ours
    return ours | {f"preprint {name}": f"{number}" for name, number in theirs._asdict().items()}
