"""What all explorers share: labelled native controls, the runs as JSON, one element for a page.

Tables in, HTML out. The scripts in the folder ``page`` draw an explorer with plotly.js whenever a
control moves; they work from a file's address. The book's pages share one copy of them; in a
notebook an explorer brings its own, in a frame.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import plotly.io as pio
from numpy.typing import ArrayLike
from plotly.offline import get_plotlyjs

from stabkit.figures.scores import GOLDEN
from stabkit.figures.style import CONFIG, CSV_BUTTON, GRID, OTHERS, PALETTE, TEXT, translucent

PAGE = Path(__file__).parent / "page"
NAMES = ("data", "numbers", "seeds", "rates", "inside", "swap", "surface", "page")
SCRIPTS = tuple(f"{name}.js" for name in NAMES)  # in this order, after plotly.js

DOCUMENT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{alt}</title>
<meta name="viewport" content="width=device-width"><style>
:root {{
  --pst-color-text-base: currentColor; --pst-color-text-muted: {text};
  --pst-color-border: {grid}; --pst-color-surface: transparent;
}}
body {{ margin: 0; display: flow-root; font: 16px/1.5 system-ui, sans-serif; }}
option {{ background: Canvas; color: CanvasText; }}
{style}</style><body>{figure}{scripts}</body></html>
"""


@dataclass(frozen=True)
class Select:
    """A list to choose from; ``options`` are pairs of what is shown and what is meant."""

    name: str
    label: str
    options: Sequence[tuple[str, Any]]

    def html(self) -> str:
        """Return a labelled <select> whose values are the options' places."""
        options = "".join(
            f'<option value="{place}">{escape(shown)}</option>'
            for place, (shown, _) in enumerate(self.options)
        )
        return _labelled(self.label, f'<select name="{self.name}">{options}</select>')


@dataclass(frozen=True)
class Slider:
    """A whole number from ``low`` to ``high``; its value is written beside it."""

    name: str
    label: str
    low: int
    high: int

    def html(self) -> str:
        """Return a labelled range with its <output>."""
        # The label around it names its first element, which is the output, so it needs its own.
        bounds = f'aria-label="{escape(self.label)}" min="{self.low}" max="{self.high}"'
        return _labelled(
            f"{self.label}",
            f'<input type="range" name="{self.name}" {bounds}>',
            "<output></output>",
        )


@dataclass(frozen=True)
class Checkbox:
    """A choice between yes and no."""

    name: str
    label: str

    def html(self) -> str:
        """Return a labelled checkbox."""
        return _labelled(self.label, f'<input type="checkbox" name="{self.name}">')


@dataclass(frozen=True)
class Button:
    """Something to be done again; its value counts how often it was."""

    name: str
    label: str

    def html(self) -> str:
        """Return a <button>."""
        return f'<button type="button" name="{self.name}">{escape(self.label)}</button>'


Control = Select | Slider | Checkbox | Button


def rounded(values: ArrayLike) -> list[float | None]:
    """Return numbers as a page keeps them; None, which JSON has, for what is not finite.

    Four significant digits are more than a screen shows, and half of the page's size.
    """
    numbers = np.asarray(values, dtype=float).tolist()
    return [float(f"{number:.3e}") if np.isfinite(number) else None for number in numbers]


def _labelled(label: str, control: str, beside: str = "") -> str:
    return f"<label><span>{escape(label)}{beside and ' ' + beside}</span>{control}</label>"


@dataclass(frozen=True)
class Explorer:
    """A figure of one ``kind`` that answers to controls, with caption and text alternative.

    ``data`` is what its script computes from and ``start`` the choices it opens with, by the
    controls' names. ``panels`` are the heights of its plots, in pixels.
    """

    kind: str
    data: Mapping[str, Any]
    start: Mapping[str, Any]
    controls: Sequence[Control]
    panels: Sequence[int]
    caption: str
    alt: str

    def html(self) -> str:
        """Return a <figure>; the page must load plotly.js, our scripts and styles."""
        island = json.dumps(self._island(), allow_nan=False, separators=(",", ":"))
        island = island.replace("<", "\\u003c")  # nothing in it may end the script element
        name = "stabkit-" + hashlib.sha256((island + self.caption).encode()).hexdigest()[:12]
        plots = (
            f'<div><p></p><div class="stabkit-panel" style="height:{height}px"></div></div>'
            for height in self.panels
        )
        controls = "".join(control.html() for control in self.controls)
        alt = escape(self.alt)
        return (
            f'<figure class="stabkit-explorer" id="{name}" data-kind="{self.kind}" '
            f'aria-label="{alt}">'
            "<noscript><p>This figure is computed in the page and needs JavaScript. "
            f"{alt}</p></noscript>"
            f'<form class="stabkit-controls" hidden>{controls}</form>'
            f'<div class="stabkit-panels">{"".join(plots)}</div>'
            '<p class="stabkit-said" role="status" aria-live="polite"></p>'
            '<div class="stabkit-numbers"></div>'
            f"<figcaption>{escape(self.caption)} {CSV_BUTTON}</figcaption>"
            f'<script type="application/json">{island}</script></figure>'
        )

    def document(self) -> str:
        """Return a page of its own (5 MB), which needs neither a network nor the book."""
        own = [(PAGE / name).read_text(encoding="utf-8") for name in ("frame.js", *SCRIPTS)]
        return DOCUMENT.format(
            alt=escape(self.alt),
            text=TEXT,
            grid=GRID,
            style=(PAGE / "explorers.css").read_text(encoding="utf-8"),
            figure=self.html(),
            scripts="".join(f"<script>{text}</script>" for text in (get_plotlyjs(), *own)),
        )

    def _island(self) -> dict[str, Any]:
        """Everything that the script needs, the book's look included."""
        selects = (control for control in self.controls if isinstance(control, Select))
        return {
            **self.data,
            "start": self.start,
            "choices": {control.name: [v for _, v in control.options] for control in selects},
            "palette": PALETTE,
            "faint": {name: translucent(tint) for name, tint in PALETTE.items()},
            "others": OTHERS,
            "faintOthers": [translucent(tint) for tint in OTHERS],
            "golden": GOLDEN,
            "template": pio.templates["stabkit"].to_plotly_json(),
            "config": CONFIG,
        }

    def _ipython_display_(self) -> None:
        notebook = import_module("IPython.display")  # there whenever a notebook asks
        if os.environ.get("STABKIT_BOOK"):
            notebook.display(notebook.HTML(self.html()))
        else:
            inside = f'srcdoc="{escape(self.document())}"'
            style = "width: 100%; height: 40rem; border: 0"  # until the page inside has its own
            frame = f'<iframe title="{escape(self.alt)}" style="{style}" {inside}></iframe>'
            notebook.display(notebook.HTML(f"<div>{frame}</div>"))
