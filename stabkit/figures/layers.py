"""Figures that look into the layers: what failed runs have forgotten, where gradients vanish."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from stabkit.figures.dynamics import DEPTH
from stabkit.figures.style import PALETTE, reference
from stabkit.figures.values import about
from stabkit.mechanism import EMBEDDINGS, FORGETFUL
from stabkit.tables import layer_norms, layer_weights, only, require

COLUMNS = 60  # of a map: groups of steps, so that single batches do not speckle it
KINDS = ("failed", "successful")


def layer_swap(table: pd.DataFrame) -> go.Figure:
    """Draw perplexity against the number of top layers given back, one line per run (Fig. 2a, 2b).

    One panel per choice of the embeddings, one scale. ``table`` is that of the analysis
    "layer-swap" for one model: run, seed, failed, embeddings, k, perplexity.
    """
    require(table, ("run", "seed", "failed", "embeddings", "k", "perplexity"))
    only(table, "model")
    choices = list(dict.fromkeys(table["embeddings"].astype(bool)))
    titles = [EMBEDDINGS[choice] for choice in choices]
    figure = make_subplots(
        rows=len(choices), subplot_titles=titles, shared_xaxes=True, vertical_spacing=0.1
    )
    shown: set[str] = set()
    for row, choice in enumerate(choices, 1):
        panel = table[table["embeddings"] == choice]
        for (_, seed), run in panel.sort_values("k").groupby(["run", "seed"], sort=False):
            name = KINDS[0] if run["failed"].iloc[0] else KINDS[1]
            figure.add_trace(_swap_line(run, name, seed, name not in shown), row=row, col=1)
            shown.add(name)
        finite = panel["perplexity"][np.isfinite(panel["perplexity"])]
        at, ends = FORGETFUL * panel["k"].max(), (finite.min(), finite.max())
        line = reference((at, at), ends, "10/24 of the depth", first=row == 1)
        figure.add_trace(line, row=row, col=1)
    figure.update_xaxes(title_text="top layers given back, k", row=len(choices), col=1)
    figure.update_yaxes(type="log", exponentformat="power", title_text="perplexity", matches="y")
    height = 150 + 260 * len(choices)
    return figure.update_layout(template="stabkit", height=height, margin_t=130, legend_y=1.06)


def _swap_line(run: pd.DataFrame, name: str, seed: int, in_legend: bool) -> go.Scatter:
    symbol, dash = ("x", "dot") if name == "failed" else ("circle-open", "solid")
    return go.Scatter(
        x=run["k"],
        y=run["perplexity"],
        mode="lines+markers",
        name=name,
        legendgroup=name,
        showlegend=in_legend,
        line={"color": PALETTE[name], "dash": dash, "width": 1.5},
        marker={"symbol": symbol, "size": 7},
        meta=about({"seed": int(seed), "embeddings": EMBEDDINGS[bool(run["embeddings"].iloc[0])]}),
        hovertemplate=f"seed {seed}, k = %{{x}}: %{{y:.3g}}",
    )


def gradient_map(
    failed: pd.DataFrame, successful: pd.DataFrame, weights: Sequence[str] | None = None
) -> go.Figure:
    """Draw gradient norms as layer x step maps, a failed run beside a successful one (Fig. 10).

    One row per weight matrix of a layer, one colour scale, in decimal logarithms: a cell is the
    geometric mean over a group of steps. Arguments are gradient histories of one run each, as
    ``Store.gradients`` returns them; ``weights`` are those to draw (``layer_weights``), all by
    default, and all of a layer together in histories that are thinned.
    """
    rows: list[str | None] = [*(weights or layer_weights(failed))] or [None]
    figure = make_subplots(
        rows=len(rows),
        cols=2,
        column_titles=[f"{kind} run" for kind in KINDS],
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.12 / len(rows),
        horizontal_spacing=0.04,
    )
    for row, weight in enumerate(rows, 1):
        for col, gradients in enumerate((failed, successful), 1):
            cells = _map(layer_norms(gradients, weight))
            shown = {"run": KINDS[col - 1], "weights": _short(weight)}
            cells.meta = about(shown, z="log10 of the gradient norm")
            figure.add_trace(cells, row=row, col=col)
        figure.update_yaxes(title_text=_short(weight), row=row, col=1)
    figure.update_xaxes(title_text="step", row=len(rows))
    height = 200 + 130 * len(rows)
    axis = {"colorscale": DEPTH, "colorbar": _powers(below=-75 / (height - 150))}
    return figure.update_layout(template="stabkit", height=height, coloraxis=axis, margin_b=110)


def _powers(below: float) -> dict[str, object]:
    """Return a colour bar for decimal logarithms, at a height in units of the plot's."""
    place = {"orientation": "h", "y": below, "yanchor": "top", "thickness": 10, "tickangle": 0}
    ticks = {"dtick": 1, "tickprefix": "10<sup>", "ticksuffix": "</sup>", "outlinewidth": 0}
    return place | ticks | {"title": {"text": "gradient norm", "side": "bottom"}}


def _map(norms: pd.DataFrame) -> go.Heatmap:
    with np.errstate(divide="ignore"):
        logarithms = np.log10(norms.to_numpy())
    groups = np.array_split(np.arange(len(norms)), min(COLUMNS, len(norms)))
    steps = norms.index.to_numpy(dtype=float)
    cells = np.stack([logarithms[group].mean(axis=0) for group in groups], axis=1)
    return go.Heatmap(
        x=[steps[group].mean() for group in groups],
        y=list(norms.columns),
        z=np.where(np.isfinite(cells), cells, np.nan).round(3),
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate="layer %{y}, step %{x:.0f}: 10<sup>%{z:.1f}</sup><extra></extra>",
    )


def _short(weight: str | None) -> str:
    """Return a matrix's name as an axis shows it."""
    if weight is None:
        return "all weights"
    parts = [part for part in weight.split(".") if part not in ("self", "weight", "dense")]
    return "<br>".join(parts)
