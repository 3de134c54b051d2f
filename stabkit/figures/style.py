"""One look for all figures: colours, template, captions, and how a figure gets onto a page."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from plotly.io.json import to_json_plotly

from stabkit.errors import StabkitError
from stabkit.figures.values import values
from stabkit.tables import require

# Okabe and Ito's colours (but for the red of failed runs and the grey), told apart in every common
# form of colour blindness; a thing keeps its colour throughout the book, and what has none of its
# own takes those of no method first. Failed runs differ in symbol or dash too, not in colour alone.
PALETTE = {
    "Devlin": "#D55E00",
    "Lee": "#E69F00",
    "Ours": "#0072B2",
    "failed": "#CC3311",
    "successful": "#009E73",
    "baseline": "#999999",
}
OTHERS = ("#CC79A7", "#56B4E9", "#E69F00", "#0072B2", "#D55E00", "#009E73")

# A grey with the same contrast (4.2) to the book's light and dark pages, for hosts whose style
# sheet we do not write; in the book the text takes the page's own colour (STYLE).
TEXT = "#767676"
GRID = "rgba(128, 128, 128, 0.25)"
CLEAR = "rgba(0, 0, 0, 0)"
STYLE = (
    ".stabkit-exhibit .infolayer text,.stabkit-exhibit .cartesianlayer text"
    "{fill:currentColor!important}"
)
CSV_BUTTON = '<button type="button" class="stabkit-csv" hidden>Data as csv</button>'  # data.js
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "resetScale2d"]],
}

AXIS = {
    "gridcolor": GRID,
    "zeroline": False,
    "automargin": True,
    "title": {"font": {"size": 14}},  # no larger than the numbers
}
pio.templates["stabkit"] = go.layout.Template(
    layout={
        "font": {"family": "system-ui, sans-serif", "size": 14, "color": TEXT},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "colorway": OTHERS,
        "margin": {"l": 56, "r": 12, "t": 80, "b": 52},  # t: modebar, two lines of legend
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"},
        "dragmode": False,  # a finger on the figure scrolls the page
        "hovermode": "closest",
        "modebar": {"bgcolor": CLEAR, "color": TEXT, "activecolor": PALETTE["Ours"]},
        "xaxis": AXIS,
        "yaxis": AXIS,
    }
)


def colour(name: str, position: int = 0) -> str:
    """Return the fixed colour of ``name``, or the ``position``-th of the others."""
    return PALETTE.get(head(name), OTHERS[position % len(OTHERS)])


def head(name: str) -> str:
    """Return what a name has before its comma or line break: the method, of "Lee, 1e-4"."""
    return re.split(",|<br>", name)[0]


def translucent(hexadecimal: str, opacity: float = 0.18) -> str:
    """Return ``#RRGGBB`` as an rgba colour of the given opacity."""
    red, green, blue = (int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def reference(x: Sequence[float], y: Sequence[float], name: str, first: bool = True) -> go.Scatter:
    """Return a dashed grey line to compare with; only the ``first`` of a name is in the legend."""
    return go.Scatter(
        x=list(x),
        y=list(y),
        mode="lines",
        name=name,
        legendgroup=name,
        showlegend=first,
        line={"color": PALETTE["baseline"], "dash": "dash"},
        hovertemplate=f"{name}<extra></extra>",
    )


def caption(
    table: pd.DataFrame,
    finding: str,
    scale: str,
    cell: Sequence[str] = ("task", "method"),
    comparison: Sequence[str] = ("model", "task"),
) -> str:
    """Return the finding, then the runs' scale, number, hardware class and dates.

    ``cell`` names the columns within which runs differ by seed only; ``comparison`` those whose
    groups are compared inside, where hardware classes must not mix: StabkitError names them if
    they do. A hardware class is a device and its model name.
    """
    require(table, (*cell, *comparison, "device", "hardware", "date"))
    classes = table["device"].astype(str) + ", " + table["hardware"].astype(str)
    for names, found in classes.groupby([table[name] for name in comparison]):
        if found.nunique() > 1:
            raise StabkitError(
                f"{' on '.join(map(str, names))} mixes hardware classes "
                f"({'; '.join(found.unique())}); compare runs of one class only"
            )
    sizes = table.groupby(list(cell), dropna=False).size()
    low, high = sizes.min(), sizes.max()
    each = f"{low}" if low == high else f"{low} to {high}"
    noun = "runs" if high > 1 else "run"
    where = f" in each of {len(sizes)} cells" if len(sizes) > 1 else ""
    days = sorted(table["date"].astype(str).str[:10])
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return (
        f"{finding.rstrip('.')}. Scale: {scale}; n = {each} {noun}{where}; "
        f"{' and '.join(classes.unique())}; {when}."
    )


@dataclass(frozen=True)
class Exhibit:
    """A figure with its caption and a text alternative, drawn wherever a notebook is shown.

    While the book is built (environment variable STABKIT_BOOK) it becomes HTML that draws with
    the one plotly.js of the book, so that pages work offline; elsewhere plotly's own renderer for
    JupyterLab, Colab and others is used; caption, data and text alternative follow.
    """

    figure: go.Figure
    caption: str
    alt: str

    def html(self) -> str:
        """Return a <figure> element; the page must load plotly.js, before or after it."""
        return html(self.figure, self.caption, self.alt)

    def data(self) -> pd.DataFrame:
        """Return the points that the figure shows, one row each (``figures.values``)."""
        return values(self.figure)

    def csv(self, path: str | Path) -> None:
        """Write the points that the figure shows, as the book's button does."""
        self.data().to_csv(path, index=False)

    def _ipython_display_(self) -> None:
        notebook = import_module("IPython.display")  # there whenever a notebook asks
        if os.environ.get("STABKIT_BOOK"):
            notebook.display(notebook.HTML(self.html()))
        else:
            notebook.display(self.figure)
            notebook.display(notebook.HTML(self._below()))

    def _below(self) -> str:
        """Return what stands under the figure in a notebook: caption, data, text alternative."""
        return (
            f"<p>{escape(self.caption)} {csv_link(self.figure)}</p>"
            f"<details><summary>In words</summary>{escape(self.alt)}</details>"
        )


def csv_link(figure: go.Figure) -> str:
    """Return a link that saves the points that a figure shows, where our scripts are not."""
    data = base64.b64encode(values(figure).to_csv(index=False).encode()).decode()
    return f'<a download="figure.csv" href="data:text/csv;base64,{data}">Data as csv</a>'


def show(figure: go.Figure, caption: str, alt: str) -> Exhibit:
    """Return what a notebook's cell ends with; ``alt`` says what the figure shows, for the ear."""
    if not (caption.strip() and alt.strip()):
        raise StabkitError("a figure needs a caption and a text alternative; one of them is empty")
    return Exhibit(figure, caption, alt)


def html(figure: go.Figure, caption: str, alt: str) -> str:
    """Return ``figure`` as a <figure> element without plotly.js; equal figures give equal text."""
    spec = to_json_plotly({**figure.to_plotly_json(), "config": CONFIG})
    name = "stabkit-" + hashlib.sha256((spec + caption).encode()).hexdigest()[:12]
    height = figure.layout.height or 450
    return (
        f'<figure class="stabkit-exhibit" aria-label="{escape(alt)}"><style>{STYLE}</style>'
        f'<div id="{name}" style="min-height:{height}px"></div>'
        f"<noscript><p>{escape(alt)}</p></noscript>"
        f"<figcaption>{escape(caption)} {CSV_BUTTON}</figcaption>"
        f'<script>(() => {{const draw = () => Plotly.newPlot("{name}", {spec});'
        'document.readyState === "complete" ? draw() : window.addEventListener("load", draw);'
        "})()</script></figure>"
    )
