"""Figures of what happens inside runs: training loss, gradient norms, the correction factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from stabkit.errors import StabkitError
from stabkit.figures.style import PALETTE, colour, reference
from stabkit.figures.values import about
from stabkit.schedule import correction_factor as factor
from stabkit.stats import Floats
from stabkit.tables import LAYER, only, require

POINTS = 300  # per line: more than a phone has columns for, and pages stay small
DEPTH = sample_colorscale("Viridis", list(np.linspace(0.15, 0.85, 8)))  # seen on white and black


def training_curves(
    table: pd.DataFrame, histories: Mapping[str, pd.DataFrame], window: int = 20
) -> go.Figure:
    """Draw the training loss of runs, failed ones dotted, and the label entropy (Fig. 2c).

    ``histories`` has one history (columns step, loss) per key of a run of ``table``, all of one
    task. Losses, in nats, are means over the last ``window`` batches.
    """
    require(table, ("key", "seed", "failed"))
    if unknown := [key for key in histories if key not in set(table["key"])]:
        raise StabkitError(
            f"the table has no run {', '.join(unknown)}; take table and histories from one store"
        )
    runs = table[table["key"].isin(list(histories))].set_index("key")
    only(runs, "task", "label_entropy")
    figure, shown = go.Figure(), set()
    for key, history in histories.items():
        require(history, ("step", "loss"))
        name = "failed" if runs.loc[key, "failed"] else "successful"
        figure.add_trace(
            _loss_line(history, name, runs.loc[key, "seed"], window, name not in shown)
        )
        shown.add(name)
    entropy = float(runs["label_entropy"].iloc[0])
    last = max(int(history["step"].max()) for history in histories.values())
    figure.add_trace(reference((1, last), (entropy, entropy), "label entropy"))
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text=f"training loss (mean of {window} batches)", rangemode="tozero")
    return figure.update_layout(template="stabkit", height=400)


def _loss_line(
    history: pd.DataFrame, name: str, seed: int, window: int, in_legend: bool
) -> go.Scatter:
    loss = history["loss"].rolling(window, min_periods=1).mean().to_numpy()
    kept = _thin(len(loss))
    dash = "dot" if name == "failed" else "solid"
    return go.Scatter(
        x=history["step"].to_numpy()[kept],
        y=loss[kept],
        mode="lines",
        name=name,
        legendgroup=name,
        showlegend=in_legend,
        line={"color": PALETTE[name], "dash": dash, "width": 1.5},
        meta=about({"seed": int(seed)}),
        hovertemplate=f"seed {seed}, step %{{x}}: %{{y:.3f}}",
    )


def _thin(length: int) -> NDArray[np.int64]:
    """Positions of at most POINTS of ``length`` values, evenly spaced, both ends kept."""
    return np.unique(np.linspace(0, length - 1, min(length, POINTS)).round().astype(np.int64))


def gradient_norms(
    failed: pd.DataFrame, successful: pd.DataFrame, weight: str = "query.weight"
) -> go.Figure:
    """Draw one weight's L2 gradient norm in every layer over the steps, log scale (Fig. 4).

    ``failed`` and ``successful`` are gradient histories of one run each: ``step`` and one column
    per weight matrix, as ``Store.gradients(key)`` returns them. ``weight`` is how the names of
    the columns to draw end.
    """
    titles = ("failed run", "successful run")
    figure = make_subplots(rows=2, subplot_titles=titles, shared_xaxes=True, vertical_spacing=0.1)
    for row, gradients in enumerate((failed, successful), 1):
        layers = _layers(gradients, weight)
        for layer, column in layers.items():
            line = _norm_line(gradients, column, layer, max(layers))
            figure.add_trace(line.update(meta=about({"run": titles[row - 1]})), row=row, col=1)
    figure.add_trace(_layer_key(max(layers)), row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure.update_yaxes(type="log", exponentformat="power", title_text="gradient norm")
    figure.update_yaxes(matches="y", row=2, col=1)  # one scale, so that the two can be compared
    return figure.update_layout(template="stabkit", height=620, showlegend=False)


def _layers(gradients: pd.DataFrame, weight: str) -> dict[int, str]:
    """The columns to draw by layer, counted from 1 at the bottom."""
    require(gradients, ("step",))
    found = {name: LAYER.search(name) for name in gradients.columns if name.endswith(weight)}
    layers = {int(match[1]) + 1: name for name, match in found.items() if match}
    if not layers:
        raise StabkitError(
            f"no column of a layer ends in {weight!r}; the columns are "
            f"{', '.join(gradients.columns[:5])}, ..."
        )
    return dict(sorted(layers.items()))


def _norm_line(gradients: pd.DataFrame, column: str, layer: int, top: int) -> go.Scatter:
    kept = _thin(len(gradients))
    share = (layer - 1) / max(1, top - 1)
    return go.Scatter(
        x=gradients["step"].to_numpy()[kept],
        y=gradients[column].to_numpy()[kept],
        mode="lines",
        name=f"layer {layer}",
        line={"color": sample_colorscale(DEPTH, [share])[0], "width": 1.5},
        hovertemplate="step %{x}: %{y:.2e}",
    )


def _layer_key(top: int) -> go.Scatter:
    """An empty trace that carries the colour bar."""
    marker = {
        "color": [1],
        "cmin": 1,
        "cmax": max(2, top),
        "colorscale": DEPTH,
        "showscale": True,
        "colorbar": {
            "title": "layer",
            "thickness": 10,
            "outlinewidth": 0,
            "dtick": max(1, round(top / 6)),
        },
    }
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, hoverinfo="skip")


def correction_factor(
    beta2s: Sequence[float] = (0.999, 0.98), beta1: float = 0.9, steps: int = 3_000
) -> go.Figure:
    """Draw Adam's bias correction sqrt(1 - beta2^t) / (1 - beta1^t) over ``steps`` (Fig. 6)."""
    t: Floats = np.unique(np.geomspace(1, steps, POINTS).round())
    figure = go.Figure()
    for position, beta2 in enumerate(beta2s):
        figure.add_scatter(
            x=t,
            y=factor(t, beta1, beta2),
            mode="lines",
            name=f"β2 = {beta2:g}",
            line={"color": colour("", position), "dash": ("solid", "dash", "dot")[position % 3]},
            hovertemplate="step %{x}: %{y:.3f}",
        )
    figure.update_xaxes(type="log", title_text="step t")
    figure.update_yaxes(title_text="correction factor", rangemode="tozero")
    return figure.update_layout(template="stabkit", height=380)
