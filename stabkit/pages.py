"""What the book's pages share: the published runs, and how tables and claims look on a page.

A page draws what is published and says what is not, so that it can be built at any time. Reading
published runs needs no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from stabkit import report, selection
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.figures.style import CSV_BUTTON
from stabkit.mini.tasks import RECIPES
from stabkit.paper import CLAIMS
from stabkit.places import RUNS_FILE, has_runs, results_folder
from stabkit.presets import is_organism
from stabkit.shelf import Shelf
from stabkit.store import Store
from stabkit.studies import GLUE, PILOT_STUDY, Study, study

PLACES = {task: place for place, task in enumerate((*RECIPES, *GLUE))}
UNKNOWN = 1.0  # in place of a reference rate; no run is made at it
PAGE = re.compile(r"\]\(([\w-]+)(?:\.md)?(?:#[\w-]*)?\)")  # in a link; a notebook knows no anchors


def published() -> Store:
    """Return the store of the published runs, empty where there are none.

    Nothing is written to it: where a file is damaged or of another version, a StoreError says so,
    and the file stays where it is.
    """
    folder = results_folder()
    return Store(folder / "none", base=folder if has_runs(folder) else None)


def everything() -> pd.DataFrame:
    """Return the table of all published runs, which is read once while its file is the same."""
    return _table(*_stamp())


def rate(pilot: str = PILOT_STUDY) -> float | None:
    """Return the mini models' "2e-5", None while the pilot it follows from is incomplete."""
    return _rate(pilot, *_stamp())


def _stamp() -> tuple[Path, int | None]:
    """Return the folder of the published runs, and what changes with their file."""
    folder = results_folder()
    return folder, (folder / RUNS_FILE).stat().st_mtime_ns if has_runs(folder) else None


@lru_cache(maxsize=1)
def _table(_folder: Path, _changed: int | None) -> pd.DataFrame:
    return published().table()


@lru_cache
def _rate(pilot: str, _folder: Path, _changed: int | None) -> float | None:
    try:
        return selection.rate_from(everything(), pilot)
    except StabkitError:
        return None


def runs(*studies: str) -> pd.DataFrame:
    """Return the published runs of some studies, one table, with the column ``method``.

    While there is no reference rate, a study that needs one has no runs. Raises ConfigError for
    an unknown study.
    """
    return runs_of(config for configs in _grids(studies).values() for config in configs)


def by_study(*studies: str) -> dict[str, pd.DataFrame]:
    """Return the published runs of each of some studies; quicker than one after the other."""
    return selection.by_grid(everything(), _grids(studies))


def _grids(studies: Iterable[str]) -> dict[str, tuple[RunConfig, ...]]:
    found = [study(name) for name in studies]
    rates = {pilot: rate(pilot) for pilot in {one.pilot for one in found if one.needs_rate}}
    return {one.name: _built(one, rates.get(one.pilot) or UNKNOWN) for one in found}


@lru_cache
def _built(study: Study, rate: float) -> tuple[RunConfig, ...]:
    return tuple(study.build(rate))


def runs_of(configs: Iterable[RunConfig]) -> pd.DataFrame:
    """Return the published runs of ``configs`` (digests do not count), with ``method``."""
    found = selection.matching(everything(), configs)
    return found.assign(method=[report.method(run) for run in found.to_dict("records")])


def shelf(kind: str, run: str = "run", real: bool = False) -> pd.DataFrame:
    """Return the published tables of an analysis of weights as one, empty where there are none.

    ``model`` and ``task`` are those of the published run that the column ``run`` names: models of
    the organism, or with ``real`` the others, task by task in the paper's order. What is about no
    published run is left out.
    """
    table = Shelf(results_folder(), base=results_folder()).table(kind)
    if table.empty:
        return table
    about = everything().set_index("key")
    table = table[table[run].isin(about.index)]
    table = table.assign(**{name: table[run].map(about[name]) for name in ("model", "task")})
    table = table[table["model"].map(is_organism) != real]
    return table.sort_values("task", key=_place, kind="stable", ignore_index=True)


def _place(tasks: pd.Series) -> pd.Series:
    return tasks.map(PLACES).fillna(len(PLACES))


def status(*studies: str) -> Any:
    """Return how many runs of each study are published, and how to make the others."""
    lines = []
    for name, found in by_study(*studies).items():
        done, total = len(found), planned(name)
        line = f"- `{name}`: {done} of {total} runs are published"
        lines.append(line + ("." if done == total else f"; `stabkit study {name}` makes the rest."))
    return markdown("\n".join(lines))


def planned(*studies: str) -> int:
    """Return how many runs some studies have when they are complete; shared ones count once."""
    return len({config for configs in _grids(studies).values() for config in configs})


def exhibit(table: pd.DataFrame, draw: Callable[[pd.DataFrame], Any]) -> Any:
    """Return ``draw(table)``, or a sentence in its place while the table has no runs."""
    return markdown("*No runs to show yet.*") if table.empty else draw(table)


def claim(name: str) -> Any:
    """Return a finding of the paper (a key of ``stabkit.paper.CLAIMS``), for the page's margin.

    The book's style sheet sets it beside the text where there is room, else between paragraphs.
    """
    found = CLAIMS[name]
    return _ipython().HTML(
        '<div class="admonition paper margin" role="note"><p class="admonition-title">The paper</p>'
        f"<p>{escape(found.text)} <cite>{escape(found.source)}</cite></p></div>"
    )


def sheet(table: pd.DataFrame, caption: str = "", index: bool = False) -> Any:
    """Return a table as HTML that scrolls where it is wider than the page.

    Below it stand the caption and, in the book, a button that saves it as csv.
    """
    body = table.to_html(index=index, border=0, justify="left", na_rep="")
    return _sheet(f'<div tabindex="0">{body}</div>', caption)


def verdicts(table: pd.DataFrame, caption: str, links: Mapping[str, str] | None = None) -> Any:
    """Return findings as cards, one below the other; to a reader of its rows it is a table still.

    ``table`` is that of ``stabkit.agreement.as_table``; it may have a further column, ``on``. In
    the book cells with a text of ``links`` lead to the page that it names.
    """
    pages = (links or {}) if os.environ.get("STABKIT_BOOK") else {}
    names = [str(name).split(" (")[0] for name in table.columns]  # as the style sheet knows them
    head = "".join(f'<th role="columnheader">{escape(str(name))}</th>' for name in table.columns)
    rows = "".join(
        f'<tr role="row" class="{_outcome(row[names.index("verdict")])}">'
        + "".join(map(_cell, names, row, [pages.get(text) for text in row]))
        + "</tr>"
        for row in table.astype(str).to_numpy().tolist()
    )
    body = (
        f'<table role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>'
    )
    return _sheet(body, caption, "stabkit-sheet stabkit-verdicts")


def _cell(name: str, text: str, page: str | None) -> str:
    shown = f'<a href="{page}.html">{escape(text)}</a>' if page else escape(text)
    return f'<td role="cell" class="{name}">{shown}</td>'


def _outcome(verdict: str) -> str:
    return "for" if "holds" in verdict else "against" if "not hold" in verdict else "unjudged"


def _sheet(body: str, caption: str, kind: str = "stabkit-sheet") -> Any:
    below = f"<figcaption>{escape(caption)} {CSV_BUTTON}</figcaption>"
    return _ipython().HTML(f'<figure class="{kind}">{body}{below}</figure>')


def markdown(text: str) -> Any:
    """Return ``text`` as a notebook shows it; outside the book its links lead to notebooks."""
    linked = text if os.environ.get("STABKIT_BOOK") else to_notebooks(text)
    return _ipython().Markdown(linked)


def to_notebooks(text: str) -> str:
    """Let links to the book's pages, which name a page with or without .md, lead to notebooks."""
    return PAGE.sub(r"](\1.ipynb)", text)


def lists(found: Mapping[str, Iterable[str]], caption: str) -> Any:
    """Return lines as lists, each under its title, with the caption below."""
    parts = ["\n- ".join([f"**{title}**\n", *lines]) for title, lines in found.items()]
    return markdown("\n\n".join([*parts, f"*{caption}*"]))


def _ipython() -> Any:
    return import_module("IPython.display")  # there whenever a notebook asks
