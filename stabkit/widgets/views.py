"""What a panel says, as HTML: the plan and its cost, a mark for each run, what is wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd

from stabkit.config import RunConfig
from stabkit.figures.scores import verdicts
from stabkit.figures.style import PALETTE, STYLE
from stabkit.storage import Place
from stabkit.tables import learned_nothing
from stabkit.widgets.plan import Plan

MARKS = {
    "waiting": ("·", "not done yet"),
    "started": ("▸", "in training"),
    "claimed": ("…", "another process is training it"),
    "raised": ("!", "ended in an error"),
    "lost": ("!", "its process was lost"),
    "refused": ("!", "could not be stored"),
    "successful": ("○", "successful"),
    "nothing": ("○", "not failed, but learned nothing"),
    "failed": ("\u00d7", "failed"),  # a cross, as in the figures
}
LOOK = f"""<style>
.stabkit-study {{ max-width: 60rem; }}
.stabkit-study .stabkit-group > .widget-label, .stabkit-study h4 {{ margin: 0; }}
.stabkit-study h4 {{ font-size: 0.95rem; font-weight: 600; line-height: 2; }}
.stabkit-study .stabkit-rule {{
  border-top: 1px solid rgba(128, 128, 128, 0.35); margin-top: 0.5rem; padding-top: 0.25rem;
}}
.stabkit-study p {{ margin: 0; line-height: 1.45; }}
.stabkit-study .stabkit-wrong {{
  color: var(--jp-error-color1, {PALETTE["failed"]}); font-weight: 600;
}}
.stabkit-study .stabkit-hint {{ opacity: 0.75; }}
.stabkit-study .stabkit-cost {{
  display: grid; grid-template-columns: 9rem 1fr; gap: 0.15rem 0.5rem; margin: 0;
  font-variant-numeric: tabular-nums; line-height: 1.45;
}}
.stabkit-study .stabkit-cost dt {{ float: none; width: auto; font-weight: 400; opacity: 0.75; }}
.stabkit-study .stabkit-cost dd {{ margin: 0; overflow-wrap: anywhere; }}
.stabkit-study .stabkit-runs {{ line-height: 1.7; }}
.stabkit-study .stabkit-runs > div {{ display: flex; gap: 0.5rem; align-items: baseline; }}
.stabkit-study .stabkit-runs b {{ flex: 0 1 15rem; font-weight: 400; }}
.stabkit-study .stabkit-runs span {{ display: flex; flex-wrap: wrap; gap: 0.2rem; }}
.stabkit-study .stabkit-scroll {{ overflow-x: auto; margin-top: 0.5rem; }}
.stabkit-study .stabkit-scroll :is(th, td) {{
  padding: 0.1rem 1.25rem 0.1rem 0; text-align: left; line-height: 1.45;
}}
.stabkit-study .stabkit-key {{ display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; }}
.stabkit-study .stabkit-key span {{ gap: 0.4rem; opacity: 0.85; }}
.stabkit-study .stabkit-runs i {{
  font-style: normal; text-align: center; min-width: 1.5rem; line-height: 1.4; border-radius: 3px;
  background-color: rgba(128, 128, 128, 0.15);
}}
.stabkit-study .stabkit-runs .successful {{
  color: #fff; background-color: {PALETTE["successful"]};
}}
.stabkit-study .stabkit-runs :is(.failed, .raised, .lost, .refused) {{
  color: #fff; background-color: {PALETTE["failed"]};
}}
.stabkit-study .stabkit-runs .started {{
  background: linear-gradient(rgba(0, 114, 178, 0.55) 0 0) no-repeat rgba(128, 128, 128, 0.2);
  background-size: 0% 100%; animation: stabkit-fill linear forwards;
}}
@keyframes stabkit-fill {{ to {{ background-size: 95% 100%; }} }}
{STYLE}
</style>"""


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 60:
        return "less than a minute"
    minutes = seconds / 60
    if minutes < 90:
        return f"about {minutes:.0f} minute{'s' if round(minutes) > 1 else ''}"
    return f"about {minutes / 60:.1f} hours"


def minutes(pending: int, seconds: float | None, processes: int) -> str:
    """Return how long so many runs take, if they take so many seconds one after the other."""
    if not pending:
        return "none: every run is stored already"
    if seconds is None:
        return "not known yet; press Measure to time a few real steps"
    at_a_time = min(processes, pending)
    return f"{duration(seconds / at_a_time)}, {plural(at_a_time, 'run')} at a time"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: 1 run, 1,200 runs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def wrong(sentence: object) -> str:
    """Return a message that says what to mend; nothing for an empty one."""
    return f'<p class="stabkit-wrong" role="alert">{escape(str(sentence))}</p>' if sentence else ""


def hint(sentence: str) -> str:
    """Return a sentence in the background."""
    return f'<p class="stabkit-hint">{escape(sentence)}</p>'


def cost(plan: Plan, pending: list[RunConfig], takes: str, place: str, folder: Place) -> str:
    """Return what a plan would cost: runs, those stored, steps, minutes, and where they go."""
    total = len(plan.configs)
    each = plural(max(len(cell.configs) for cell in plan.cells), "seed")
    rows = {
        "Runs": f"{plural(len(plan.cells), 'setting')} x {each} = {plural(total, 'run')}",
        "Stored already": f"{total - len(pending):,} of {total:,}; stored runs are not repeated",
        "To do": f"{plural(len(pending), 'run')}, {plural(plan.steps(pending), 'step')}",
        "Time": takes,
        "Device": place,
        "Runs are kept in": str(folder.absolute()),
    }
    lines = (f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    return f'<dl class="stabkit-cost">{"".join(lines)}</dl>'


def progress(
    plan: Plan,
    runs: pd.DataFrame,
    states: Mapping[str, tuple[str, float]],
    expected: Mapping[str, float],
) -> str:
    """Return a mark for each run of a plan, a line per cell.

    ``runs`` are the stored ones, ``states`` says of others what became of them and since when
    (seconds of time.monotonic), ``expected`` how many seconds those in training take.
    """
    said: dict[str, tuple[str, str]] = {}
    if not runs.empty:
        words = zip(verdicts(runs), runs["score_last"], strict=True)
        told = zip(_outcomes(runs), [f"{w}, {100 * score:.1f}" for w, score in words], strict=True)
        said = dict(zip(runs["key"], told, strict=True))
    lines = []
    for cell in plan.cells:
        marks = "".join(_mark(config, said, states, expected) for config in cell.configs)
        name = escape(cell.name.replace("<br>", ", "))
        lines.append(f"<div><b>{name}</b><span>{marks}</span></div>")
    return f'<div class="stabkit-runs">{"".join(lines)}{_key()}</div>'


def _outcomes(runs: pd.DataFrame) -> list[str]:
    nothing = np.where(learned_nothing(runs), "nothing", "successful")
    return list(np.where(runs["failed"].astype(bool), "failed", nothing))


def _mark(
    config: RunConfig,
    said: Mapping[str, tuple[str, str]],
    states: Mapping[str, tuple[str, float]],
    expected: Mapping[str, float],
) -> str:
    state, since = states.get(config.key, ("waiting", 0.0))
    words, style = MARKS.get(state, MARKS["waiting"])[1], ""
    if config.key in said:
        state, words = said[config.key]
    elif state == "started" and config.key in expected:
        # The browser fills the mark by itself; where it is by now is said as a negative delay.
        gone = time.monotonic() - since
        style = (
            f'style="animation-duration:{expected[config.key]:.0f}s;animation-delay:-{gone:.0f}s"'
        )
    title = escape(f"seed {config.seed}: {words}")
    return (
        f'<i class="{state}" role="img" aria-label="{title}" title="{title}" {style}>'
        f"{MARKS.get(state, MARKS['waiting'])[0]}</i>"
    )


def _key() -> str:
    shown = ("successful", "nothing", "failed", "started", "waiting")
    marks = (f'<i class="{name}">{MARKS[name][0]}</i> {MARKS[name][1]}' for name in shown)
    return f'<p class="stabkit-key">{"".join(f"<span>{mark}</span>" for mark in marks)}</p>'
