"""What the runs of a panel answer: how many seeds tell its cells apart, and why runs fail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pandas as pd

from stabkit import diagnosis, explorers, figures, pages
from stabkit.errors import StabkitError
from stabkit.presets import is_organism

if TYPE_CHECKING:
    from stabkit.widgets.panel import StudyPanel

ON_ONE_MACHINE = ("model", "task", "device", "hardware")  # what a caption lets be compared
WITHOUT_KERNEL = "*In a notebook, the answer appears here, from the runs of the panel above.*"
NONE_YET = "*No runs yet: press Run in the panel above, then run this cell again.*"


def explored(panel: StudyPanel) -> Any:
    """Return the seeds explorer of the runs that a panel shows; a sentence while they are too few.

    The runs are those of the panel's plan that are stored or published by now.
    """
    return _answered(panel, _explorer)


def diagnosed(panel: StudyPanel) -> Any:
    """Return the diagnosis of each cell that a panel shows; a sentence while there is no run."""
    return _answered(panel, _diagnoses)


def with_care(table: pd.DataFrame, finding: str) -> str:
    """Return a finding, with a word of care where published or stored runs are of other machines.

    The book refuses such a comparison (``figures.caption``); of their own runs readers judge.
    """
    machines = table[["device", "hardware"]].drop_duplicates()
    care = "; compare with care: the runs are of several hardware classes"
    return finding + care if len(machines) > 1 else finding


def _answered(panel: StudyPanel, answer: Any) -> Any:
    if os.environ.get("STABKIT_BOOK"):
        return pages.markdown(WITHOUT_KERNEL)
    runs = panel.runs()
    try:
        return pages.markdown(NONE_YET) if runs.empty else answer(runs)
    except StabkitError as problem:
        return pages.markdown(f"*{problem}*")


def _explorer(runs: pd.DataFrame) -> Any:
    told = with_care(runs, "The runs of the panel above")
    return explorers.seeds(runs, told, _scale(runs), comparison=ON_ONE_MACHINE)


def _diagnoses(runs: pd.DataFrame) -> Any:
    found = {
        f"{name.replace('<br>', ', ')}. {title}": lines
        for name, cell in runs.groupby("cell", sort=False)
        for title, lines in diagnosis.blocks(diagnosis.diagnose(cell)).items()
    }
    told = with_care(runs, "Verdict and remedy for each cell of the panel above")
    shown = figures.caption(runs, told, _scale(runs), cell=("cell",), comparison=ON_ONE_MACHINE)
    return pages.lists(found, shown)


def _scale(runs: pd.DataFrame) -> str:
    return "mini" if is_organism(runs["model"].iloc[0]) else "your model"
