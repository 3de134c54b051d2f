"""The figure of a panel: the book's own for the runs that are stored, drawn anew as others land."""

from __future__ import annotations

import uuid
from html import escape
from typing import Any

import ipywidgets
import pandas as pd
import plotly.graph_objects as go
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from stabkit import figures
from stabkit.figures.style import CONFIG, csv_link
from stabkit.widgets.answers import ON_ONE_MACHINE, with_care

ALT = "The dev score of every stored run of the chosen settings; failed runs are crosses."


def figure(table: pd.DataFrame) -> go.Figure:
    """Return the figure of the table of a plan's runs (``Archive.table``).

    Learning rates and bias correction are compared as in Fig. 5, and so is the share of failures;
    where methods differ in more than these, every setting has its box as in Fig. 1.
    """
    plain = (table["mixout"] == 0).all()
    lengths = table[["epochs", "max_steps"]].astype(object).drop_duplicates()
    if plain and len(lengths) == 1:
        return figures.arms(table)
    return figures.seed_scores(table, group="cell")


def caption(table: pd.DataFrame) -> str:
    """Return what the figure's caption says: failures, number, hardware, dates."""
    failures = int(table["failed"].sum())
    finding = with_care(table, f"{failures} of {len(table)} runs failed")
    scale = str(table["model"].iloc[0])
    return figures.caption(table, finding, scale, cell=["cell"], comparison=ON_ONE_MACHINE)


def summary(table: pd.DataFrame) -> str:
    """Return failures, spread and mean of every setting as an HTML table."""
    told = figures.summary_table(table, by=("cell",))
    told["cell"] = told["cell"].str.replace("<br>", ", ")
    told = told[["cell", "failed", "failed, %", "std", "mean", "max"]]
    told = told.rename(columns={"cell": "setting"})
    return (
        f'<div class="stabkit-scroll">{told.to_html(index=False, border=0, justify="left")}</div>'
    )


class Stage(ipywidgets.VBox):  # type: ignore[misc]
    """A place where a plotly figure is drawn, and drawn over without a flicker.

    FigureWidget needs anywidget in kernel and page alike, plotly's renderers an extension of the
    page or a CDN. HTML with plotly.js in it needs neither, in JupyterLab, Notebook, Colab and
    JupyterHub: one output brings plotly.js and an empty figure, a second one, small, a script that
    draws there. Outputs may be set from any thread, and are there again in a page that is reloaded.
    """

    def __init__(self) -> None:
        self._name = f"stabkit-{uuid.uuid4().hex[:12]}"
        self._library, self._script = ipywidgets.Output(), ipywidgets.Output()
        self._below = ipywidgets.HTML()
        super().__init__([self._library, self._script, self._below])
        self.drawn: go.Figure | None = None

    def draw(self, table: pd.DataFrame) -> None:
        """Draw a plan's stored runs (``Archive.table``), with caption and table of numbers."""
        if table.empty:
            return self._clear()
        self.drawn = figure(table)
        text = caption(table)
        spec = to_json_plotly({**self.drawn.to_plotly_json(), "config": CONFIG})
        if not self._library.outputs:
            self._library.outputs = (_html(self._empty_figure()),)
        self._script.outputs = (_html(self._drawing(spec, self.drawn.layout.height)),)
        told = f'<p class="stabkit-hint">{escape(text)} {csv_link(self.drawn)}</p>'
        self._below.value = told + summary(table)

    def _clear(self) -> None:
        self._library.outputs = self._script.outputs = ()
        self._below.value, self.drawn = "", None

    def _empty_figure(self) -> str:
        # Scripts after this one may run before it: theirs wait for window.Plotly.
        return (
            f'<figure class="stabkit-exhibit" aria-label="{escape(ALT)}" style="margin: 0">'
            f'<div id="{self._name}"></div></figure><script>{get_plotlyjs()}</script>'
        )

    def _drawing(self, spec: str, height: float) -> str:
        return (
            "<script>(function draw() {"
            f'const place = document.getElementById("{self._name}");'
            "if (!(window.Plotly && place)) return void setTimeout(draw, 100);"
            f'place.style.minHeight = "{height:.0f}px";'
            f"Plotly.react(place, {spec});"
            "})()</script>"
        )


def _html(text: str) -> dict[str, Any]:
    """Return an output that a page shows as HTML and in which it runs scripts."""
    data = {"text/html": text, "text/plain": "a plotly figure"}
    return {"output_type": "display_data", "data": data, "metadata": {}}
