"""Where the published runs lie: one rule for the command line and the book's pages."""

from __future__ import annotations

import os
from pathlib import Path

RESULTS = "STABKIT_RESULTS"  # the environment variable that names another folder
RUNS_FILE = "runs.parquet"  # of a compacted store


def has_runs(folder: Path) -> bool:
    """Tell whether a folder is a compacted store; one that may not be looked into is none."""
    return os.path.isfile(folder / RUNS_FILE)  # where Path.is_file() raises


def results_folder() -> Path:
    """Return the folder of the published runs; it need not exist.

    It is the one that STABKIT_RESULTS names, else the first ``results`` that holds runs: in the
    working directory, above it, beside the package. Where none does, it is the first of these.
    """
    if named := os.environ.get(RESULTS):
        return Path(named)
    roots = (Path(), *Path.cwd().parents, Path(__file__).parents[1])
    folders = [root / "results" for root in roots]
    return next(filter(has_runs, folders), folders[0])
