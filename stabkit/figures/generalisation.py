"""Figures of what is left when no run fails: dev scores over training and against its loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from scipy.interpolate import make_smoothing_spline

from stabkit.effects import rank_correlation
from stabkit.errors import StabkitError
from stabkit.figures.ablation import NEEDED
from stabkit.figures.scores import (
    METRICS,
    symbol_key,
    verdicts,
)
from stabkit.figures.style import OTHERS, PALETTE, reference, translucent
from stabkit.figures.values import about
from stabkit.stats import Floats, resampler
from stabkit.tables import SIGNS, finite_scores, learned_nothing, only, require

FEW = 10  # runs of Fig. 8a
BINS = 30  # of log loss: neighbours are pooled, since failed runs end at nearly one loss
OCCUPIED = 10  # bins, below which there is no curve
CURVES = 100  # resampled; each chooses its smoothness again, which takes time


def dev_over_training(table: pd.DataFrame, histories: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Draw the dev score over the epochs of up to ten runs without a sign of failure (Fig. 8a).

    ``histories`` has a history (columns step, dev_score) per key of runs of ``table``, all of one
    cell; drawn are those with the lowest seeds and their mean.
    """
    require(table, ("key", "seed", "epochs", "steps", "metric", *SIGNS))
    if unknown := [key for key in histories if key not in set(table["key"])]:
        raise StabkitError(
            f"the table has no run {', '.join(unknown)}; take table and histories from one store"
        )
    runs = table[table["key"].isin(list(histories)) & ~learned_nothing(table)]
    runs = runs.sort_values("seed").head(FEW)
    only(runs, "model", "task", "metric", "epochs", "steps", "learning_rate", "bias_correction")
    looks = {
        run.seed: _looks(histories[run.key], run.epochs / run.steps) for run in runs.itertuples()
    }
    thin = {"color": translucent(PALETTE["successful"], 0.55), "width": 1.2}
    lines = [_score_line(look, thin, "one run", f"seed {seed}") for seed, look in looks.items()]
    lines = [line.update(showlegend=line is lines[0]) for line in lines]
    every = pd.concat(looks, axis=1)
    thick = {"color": PALETTE["Ours"], "width": 3}
    mean = _score_line(every.mean(axis=1), thick, f"mean of {len(looks)} runs", "mean")
    ends = [100 * float(end) for end in (np.nanmin(every), np.nanmax(every))]
    figure = go.Figure([*lines, mean, reference((3, 3), ends, "3 epochs")])
    metric = runs["metric"].iloc[0]
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text=METRICS.get(metric, metric))
    return figure.update_layout(template="stabkit", height=420)


def _looks(history: pd.DataFrame, epochs_per_step: float) -> pd.Series:
    """Return the dev scores by epoch."""
    require(history, ("step", "dev_score"))
    seen = history.dropna(subset="dev_score")
    return seen.set_index((seen["step"] * epochs_per_step).round(4))["dev_score"]


def _score_line(scores: pd.Series, line: dict[str, object], name: str, label: str) -> go.Scatter:
    return go.Scatter(
        x=scores.index,
        y=100 * scores,
        mode="lines",
        name=name,
        legendgroup=name,
        line=line,
        meta=about({"run": label}),
        hovertemplate=f"{label}, epoch %{{x:.2f}}: %{{y:.1f}}<extra></extra>",
    )


def score_against_loss(table: pd.DataFrame) -> go.Figure:
    """Draw each run's dev score against its training loss, with a smoothing spline (Fig. 8b).

    The spline is over log loss, its smoothness chosen by generalised cross-validation; the band
    holds 95 % of the splines of resampled runs. Spearman's rank correlation
    has its interval. Runs whose loss is not finite cannot be drawn; the figure says how many.
    """
    require(table, (*NEEDED, "train_loss", "epochs"))
    only(table, "model", "task", "metric", "majority_score")
    finite_scores(table, "score_last")
    losses = table["train_loss"]
    runs = table[np.isfinite(losses) & (losses > 0)]
    require(runs, ("train_loss",))
    figure = go.Figure()
    for position, (epochs, group) in enumerate(runs.groupby("epochs")):
        figure.add_trace(_loss_points(group, f"{epochs} epochs", OTHERS[position % len(OTHERS)]))
    figure.add_traces([*_curve(runs), *symbol_key()])
    level = 100 * runs["majority_score"].iloc[0]
    ends = runs["train_loss"].min(), runs["train_loss"].max()
    figure.add_trace(reference(ends, (level, level), "majority class"))
    note = _correlation(runs, len(table) - len(runs))
    place = {"xref": "paper", "yref": "paper", "x": 0.01, "y": 0.01, "yanchor": "bottom"}
    figure.add_annotation(text=note, align="left", showarrow=False, **place)
    metric, title = runs["metric"].iloc[0], "loss on the training set (nats)"
    figure.update_xaxes(type="log", exponentformat="power", title_text=title)
    figure.update_yaxes(title_text=METRICS.get(metric, metric))
    return figure.update_layout(template="stabkit", height=480, margin_t=105)


def _loss_points(runs: pd.DataFrame, name: str, tint: str) -> go.Scatter:
    runs = runs.sort_values("failed")  # the first run's symbol stands in the legend
    symbols = np.where(runs["failed"], "x", "circle-open")
    return go.Scatter(
        x=runs["train_loss"],
        y=100 * runs["score_last"],
        mode="markers",
        name=name,
        marker={"color": tint, "size": 7, "symbol": symbols, "opacity": 0.8},
        customdata=np.column_stack([runs["seed"].to_numpy(dtype=object), verdicts(runs)]),
        meta=about(customdata=["seed", "verdict"]),
        hovertemplate="loss %{x:.2e}: %{y:.1f} · seed %{customdata[0]}<br>%{customdata[1]}",
    )


def _correlation(runs: pd.DataFrame, lost: int) -> str:
    lines = [f"{lost} runs without a finite loss not drawn"] if lost else []
    if len(runs) > 2:
        rho = rank_correlation(runs["train_loss"], runs["score_last"])
        lines.insert(0, "rank correlation {:.2f} ({:.2f} to {:.2f})".format(*rho))
    return "<br>".join(lines)


def _curve(runs: pd.DataFrame) -> list[go.Scatter]:
    """Return band and line, or nothing where the losses are too few or too alike."""
    x, y = np.log(runs["train_loss"].to_numpy()), 100 * runs["score_last"].to_numpy()
    edges = np.linspace(x.min(), x.max(), BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    bins = np.searchsorted(edges[1:-1], x)
    if len(np.unique(bins)) < OCCUPIED:
        return []
    draws = resampler().integers(len(x), size=(CURVES, len(x)))
    drawn = [_spline(centres, bins[rows], y[rows]) for rows in draws]
    low, high = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    losses, tint = np.exp(centres), OTHERS[0]
    band = go.Scatter(
        x=np.concatenate([losses, losses[::-1]]),
        y=np.concatenate([low, high[::-1]]),
        fill="toself",
        fillcolor=translucent(tint, 0.35),
        line={"width": 0},
        mode="lines",
        name="95 % of resampled splines",
        showlegend=False,
        hoverinfo="skip",
    )
    line = {"color": tint, "width": 3}
    values = _spline(centres, bins, y)
    return [band, go.Scatter(x=losses, y=values, mode="lines", line=line, name="spline, 95 % band")]


def _spline(centres: Floats, bins: NDArray[np.int64], scores: Floats) -> Floats:
    """Return the smoothing spline through the bins' mean scores, at all centres.

    Beyond the outermost runs it goes on level; of fewer than five bins scipy makes none (NaN).
    """
    counts = np.bincount(bins, minlength=len(centres))
    seen = counts > 0
    if seen.sum() < 5:
        return np.full_like(centres, np.nan)
    means = np.bincount(bins, weights=scores, minlength=len(centres))[seen] / counts[seen]
    spline = make_smoothing_spline(centres[seen], means, w=counts[seen].astype(np.float64))
    return np.asarray(spline(np.clip(centres, centres[seen][0], centres[seen][-1])))
