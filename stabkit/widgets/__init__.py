"""Live widgets for notebooks: a panel that plans, costs and trains a study of one's own.

Nothing but the book's pages imports this. ``ipywidgets`` is loaded only when a panel is made, since
it is an optional dependency.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stabkit import pages, scales
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.options import RUNS
from stabkit.presets import is_organism
from stabkit.reading import open_store
from stabkit.selection import reference_rate
from stabkit.store import Store
from stabkit.studies import PILOT_RATES
from stabkit.widgets.answers import diagnosed, explored

__all__ = ["diagnosed", "explored", "study_panel"]

FACTORS = (0.5, 1.0, 1.5)  # of the reference rate, as in the paper's ablation
WITHOUT_KERNEL = (
    "**In a notebook, the panel appears here.** It trains models, so it needs a kernel, which a "
    "published page does not have. To get one, open this page as a notebook, with the buttons at "
    "its top or, on your own machine, with `pip install -e '.[book]' jupyterlab` and "
    "`jupyter lab book/your_runs.ipynb` in a copy of the repository."
)
_panels: weakref.WeakSet[Any] = weakref.WeakSet()


def study_panel(
    model: str = "mini-bert",
    task: str = "mini-rte",
    store: str | Path | None = None,
    results: str | Path | None = None,
    learning_rates: Sequence[float] = (),
    seeds: int = 5,
    first_seed: int = 0,
    max_steps: int | None = None,
    processes: int | None = None,
    seeds_at_once: int = 1,
    run: Any = None,
    **fields: Any,
) -> Any:
    """Return a panel that plans a study, says what it costs, trains it and draws it.

    The arguments are what its controls start from; the learning rates, by default, are half, once
    and one and a half times the model's reference rate. Runs go to the folder ``store`` (default:
    the environment variable STABKIT_STORE, else ``runs``); those already there, or published in
    ``results``, are not done again. With ``max_steps`` the length of runs is in steps, not epochs.
    ``seeds_at_once`` and ``run`` are as in ``stabkit.sweep.sweep``; the ``precision`` may be
    "auto", the best that the device has; any other field of ``RunConfig``, such as
    ``label_column``, is the same for all runs. A panel made later in the same kernel stops the
    training of this one.

    While the book is built, it is a sentence that says how to get a kernel. Raises StabkitError
    where ipywidgets is not installed or the precision is none.
    """
    if os.environ.get("STABKIT_BOOK"):
        return pages.markdown(WITHOUT_KERNEL)
    if find_spec("ipywidgets") is None:
        raise StabkitError(
            "the panel needs ipywidgets, which is not installed; install it with "
            "pip install 'ipywidgets>=8.1' and restart the kernel"
        )
    from stabkit.precision import resolved
    from stabkit.train import choose_device
    from stabkit.widgets.calibration import usable_processes
    from stabkit.widgets.form import Form
    from stabkit.widgets.panel import StudyPanel

    precision = fields.pop("precision", RunConfig().precision)
    resolved(precision, choose_device())  # names a wrong one, which the control could not show
    runs = open_store(
        str(store or os.environ.get("STABKIT_STORE") or RUNS),
        None if results is None else Path(results),
    )
    rates = learning_rates or _rates(model, runs)
    at_a_time = processes or usable_processes()
    form = Form(model, task, rates, seeds, at_a_time, precision, max_steps, seeds_at_once)
    for panel in _panels:
        panel.end()
    panel = StudyPanel(form, runs, first_seed, run, fields)
    _panels.add(panel)
    return panel


def _rates(model: str, runs: Store) -> list[float]:
    """Return the rates of the paper's ablation for a model; mini models have their own."""
    try:
        reference = reference_rate(runs) if is_organism(model) else scales.RATE
    except StabkitError:  # the pilot study is not there
        return list(PILOT_RATES[1:4])
    return [float(f"{reference * factor:.3g}") for factor in FACTORS]
