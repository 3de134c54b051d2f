"""What stands between a failed run and a good minimum, and whether it agrees: Fig. 7 and 13.

Tables are those of the analysis "surface". As in ``stabkit.agreement``, criteria were fixed before
the runs and the number itself decides.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from stabkit.errors import StabkitError
from stabkit.findings import Finding
from stabkit.stats import Estimate
from stabkit.tables import require

VALUES = {"loss": ("Fig. 7", "loss"), "gradient_norm": ("Fig. 13", "gradient norm")}


def both(planes: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each of the two runs of each plane: its ``run``, ``kind``, provenance.

    ``planes`` is the table of the analysis "surface", its tables told apart by ``key``.
    """
    require(planes, ("key", "failed_run", "successful_run"))
    once = planes.drop_duplicates("key")
    ends = [once.assign(run=once[f"{kind}_run"], kind=kind) for kind in ("failed", "successful")]
    return pd.concat(ends, ignore_index=True)


def paths(plane: pd.DataFrame, trajectories: pd.DataFrame | None) -> pd.DataFrame | None:
    """Return the trajectories of a plane's two runs by ``kind`` and step, None without any.

    ``trajectories`` are the tables of that kind which the analysis "surface" makes beside planes.
    """
    if trajectories is None or trajectories.empty:
        return None
    require(trajectories, ("failed_run", "successful_run", "run", "step", "a", "b"))
    failed, successful = plane["failed_run"].iloc[0], plane["successful_run"].iloc[0]
    on_plane = (trajectories["failed_run"] == failed) & (
        trajectories["successful_run"] == successful
    )
    found = trajectories[on_plane].drop_duplicates(["run", "step"])
    kind = np.where(found["run"] == failed, "failed", "successful")
    return None if found.empty else found.assign(kind=kind).sort_values(["kind", "step"])


def between(plane: pd.DataFrame) -> pd.DataFrame:
    """Return the points of a plane that lie on the line from its first checkpoint to its second.

    As a line's: a is 0 at the first (failed), 1 at the second (successful); other columns stay.
    Raises StabkitError for a plane without such points.
    """
    require(plane, ("a", "b"))
    line = plane[np.isclose(plane["a"] + plane["b"], 1)]
    if line.empty:
        raise StabkitError(
            "no point of the plane has a + b = 1; expected a grid from 0 to 1 or more"
        )
    return line.assign(a=line["b"]).drop(columns="b").sort_values("a")


def barrier(line: pd.DataFrame, value: str = "loss") -> float:
    """Return by how much ``value`` between the ends of a line rises above both of them.

    In the unit of ``value``; at most 0 where there is no barrier. Raises StabkitError unless the
    table has both ends, a = 0 and a = 1, and a point between them.
    """
    return float(np.subtract(*heights(line, value)))


def heights(line: pd.DataFrame, value: str = "loss") -> tuple[float, float]:
    """Return the largest value between the ends, and the larger one of the ends.

    Raises as ``barrier`` does, which is their difference.
    """
    require(line, ("a", value))
    a, values = (line[name].to_numpy(dtype=float) for name in ("a", value))
    ends, inside = (a == 0) | (a == 1), (a > 0) & (a < 1)
    if not (inside.any() and {0.0, 1.0} <= set(a)):
        raise StabkitError("a barrier needs both ends, a = 0 and a = 1, and a point between them")
    return float(values[inside].max()), float(values[ends].max())


def beside(lines: pd.DataFrame, plane: pd.DataFrame) -> pd.DataFrame:
    """Return the lines between runs of a plane's model and task, none of an empty table."""
    if lines.empty:
        return lines
    require(lines, ("model", "task"))
    return lines[(lines[["model", "task"]] == plane[["model", "task"]].iloc[0]).all(axis=1)]


def rises(lines: pd.DataFrame, value: str = "loss") -> pd.Series:
    """Return how far ``value`` rises above the higher end of each line, as a share of that.

    ``lines`` is the table of the analysis "lines"; the result, one number for each pair of
    failed_run and successful_run, is at most 0 where there is no barrier. Lines to a diverged run
    are left out. Raises as ``barrier`` does.
    """
    require(lines, ("failed_run", "successful_run", "a", value))
    pairs = lines.groupby(["failed_run", "successful_run"], sort=False)
    tops = {pair: heights(line, value) for pair, line in pairs}
    index = pd.MultiIndex.from_tuples(tops, names=["failed_run", "successful_run"])
    found = [highest / end - 1 for highest, end in tops.values()]
    return pd.Series(found, index, float, value).dropna()


def summary(rises: pd.Series) -> str:
    """Say of how many pairs of runs the line has a barrier, and how high their lines rise."""
    failed, successful = (rises.index.unique(level).size for level in rises.index.names)
    least, most = (round(100 * rise, 1) + 0.0 for rise in (rises.min(), rises.max()))  # no "-0.0"
    return (
        f"{int((rises > 0).sum())} of {len(rises)} lines between {failed} failed and {successful} "
        f"successful runs have a barrier (highest point between the ends, beside the higher end: "
        f"{least:+.1f} to {most:+.1f} %)"
    )


def surface(line: pd.DataFrame, where: str, lines: pd.DataFrame | None = None) -> list[Finding]:
    """Judge Fig. 7 and 13 on the line from a failed to a successful run: a barrier of each value?

    ``where`` names the model and task. One pair of runs has no interval; with the ``lines`` of
    further pairs (see ``rises``) the verdict is clear if they all agree with it, else doubtful.
    """
    found = []
    for value, (exhibit, name) in VALUES.items():
        highest, end = heights(line, value)
        over = Estimate(highest / end - 1, np.nan, np.nan)
        head = f"{exhibit}, {where}", f"a maximum of the {name} above both ends of the line"
        if not np.isfinite(over.value):
            found.append(Finding(*head, 2, "a run has diverged: there is nothing to compare"))
            continue
        told = f"highest between the ends: {highest:.3g}; at the higher end: {end:.3g}; one pair"
        holds, doubtful = highest > end, None
        others = pd.Series() if lines is None or lines.empty else rises(lines, value)
        if len(others):
            told += f"; {summary(others)}"
            doubtful = bool(((others > 0) != holds).any())
        found.append(Finding(*head, 2, told, holds, over, "%", doubtful=doubtful))
    return found
