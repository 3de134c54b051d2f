"""Lines between runs: where they lie on a plane, and when something rises on them."""

from __future__ import annotations

import math

import inside
import numpy as np
import pandas as pd
import pytest

from stabkit import barriers
from stabkit.barriers import barrier, between, both, paths
from stabkit.errors import StabkitError


def test_the_line_between_two_runs_lies_on_their_plane() -> None:
    line = between(inside.plane())
    assert line["a"].tolist() == pytest.approx(np.linspace(-0.5, 1.5, 21))
    assert (line.loc[line["a"] == 0, "loss"].item(), line.loc[line["a"] == 1, "loss"].item()) == (
        pytest.approx((0.701, 0.101))
    )
    with pytest.raises(StabkitError, match="no point of the plane has a"):
        between(inside.plane().query("a + b < 0"))
    with pytest.raises(StabkitError, match="no column b"):
        between(line)


def test_a_barrier_is_judged_for_loss_and_gradient_norm() -> None:
    loss, norm = barriers.surface(between(inside.plane()), "mini-bert on mini-rte")
    assert loss.holds and norm.holds
    assert (loss.exhibit, norm.exhibit) == (
        "Fig. 7, mini-bert on mini-rte",
        "Fig. 13, mini-bert on mini-rte",
    )
    line = between(inside.plane())
    assert loss.number.value == pytest.approx(barrier(line) / 0.701)
    assert "(" not in loss.shown()
    flat = barriers.surface(between(inside.plane(height=-0.5)), "m")
    assert [finding.holds for finding in flat] == [False, False]


def lines(*heights: float) -> pd.DataFrame:
    """Return lines from two failed runs to successful ones: their ends at 1 and 0.5, a height."""
    rows = []
    for place, height in enumerate(heights):
        pair = {"failed_run": f"f{place % 2}", "successful_run": f"s{place // 2}"}
        for a, loss in ((0, 1.0), (0.5, height), (1, 0.5)):
            rows.append({**pair, "a": a, "loss": loss, "gradient_norm": 1.0})
    return pd.DataFrame(rows)


def test_lines_between_further_pairs_say_how_clear_the_verdict_is() -> None:
    table = lines(1.2, 1.5, 0.9, 1.01)
    found = barriers.rises(table)
    assert found.to_dict() == pytest.approx(
        {("f0", "s0"): 0.2, ("f1", "s0"): 0.5, ("f0", "s1"): -0.1, ("f1", "s1"): 0.01}
    )
    told = "3 of 4 lines between 2 failed and 2 successful runs have a barrier "
    assert barriers.summary(found).startswith(told)
    assert barriers.summary(found).endswith("higher end: -10.0 to +50.0 %)")
    assert barriers.summary(found * 1e-4).endswith("higher end: +0.0 to +0.0 %)")
    line = between(inside.plane())  # it has a barrier
    plain, mixed, alike, against = (
        barriers.surface(line, "m", others)[0]
        for others in (None, table, lines(1.2, 1.5), lines(0.9, 0.8))
    )
    assert [f.certain for f in (plain, mixed, alike, against)] == [None, False, True, False]
    assert told in mixed.reason and "lines" not in plain.reason
    assert mixed.holds and mixed.number.value == plain.number.value
    diverged = barriers.surface(line, "m", lines(math.nan, math.nan))[0]
    assert (diverged.certain, diverged.reason) == (None, plain.reason)
    assert barriers.rises(lines(math.nan, 1.2)).to_dict() == pytest.approx({("f1", "s0"): 0.2})


def test_lines_stand_beside_planes_of_their_model_and_task() -> None:
    plane = pd.DataFrame({"model": ["m"] * 2, "task": ["t"] * 2})
    table = pd.concat([lines(1.2).assign(model=m, task=t) for m in "mn" for t in "tu"])
    found = barriers.beside(table, plane)
    assert len(found) == 3 and set(found["model"]) == {"m"} and set(found["task"]) == {"t"}
    assert barriers.beside(pd.DataFrame({"key": []}), plane).empty


def test_a_barrier_rises_above_both_ends() -> None:
    table = pd.DataFrame({"a": [-0.5, 0, 0.25, 0.75, 1, 2], "loss": [9, 0.7, 1.5, 0.1, 0.9, 9]})
    assert barrier(table) == pytest.approx(0.6)
    assert barrier(table.sample(frac=1, random_state=0)) == pytest.approx(0.6)
    norms = table.assign(gradient_norm=-table["loss"])
    assert barrier(norms, "gradient_norm") == pytest.approx(0.6)
    assert barrier(table.assign(loss=[0, 1, 0.5, 0.6, 0, 0])) == pytest.approx(-0.4)
    assert math.isnan(barrier(table.assign(loss=[0, 1, math.nan, 3, 1, 0])))
    for rows in (table[1:2], table[table["a"] != 1], table[table["a"].isin([0, 1])]):
        with pytest.raises(StabkitError, match="both ends, a = 0 and a = 1, and a point between"):
            barrier(rows)
    with pytest.raises(StabkitError, match="no column gradient_norm"):
        barrier(table, "gradient_norm")


def test_a_plane_has_two_runs() -> None:
    planes = [
        inside.plane(side=5).assign(failed_run=f"f{key}", successful_run=f"s{key}", key=key)
        for key in "xy"
    ]
    found = both(pd.concat(planes))
    assert found["run"].tolist() == ["fx", "fy", "sx", "sy"]
    assert found["kind"].tolist() == ["failed", "failed", "successful", "successful"]


def test_the_paths_of_a_plane_are_those_of_its_two_runs() -> None:
    plane = inside.plane(side=5).assign(failed_run="f", successful_run="s", key="x")
    ways = [inside.trajectories(*runs) for runs in (("f", "s"), ("f", "other"))]
    found = paths(plane, pd.concat(ways + ways[:1]).sample(frac=1, random_state=0))
    assert found is not None
    for kind, run, axis in (("failed", "f", "a"), ("successful", "s", "b")):
        path = found[found["kind"] == kind]
        assert set(path["run"]) == {run} and path["step"].is_monotonic_increasing
        assert (len(path), path[axis].iloc[-1]) == (31, 1)
    assert paths(plane, ways[1]) is None
    assert paths(plane, pd.DataFrame({"key": []})) is None
    assert paths(plane, None) is None


@pytest.mark.parametrize(
    "use", [between, both, barriers.rises, lambda table: barriers.surface(table, "here")]
)
def test_empty_and_foreign_tables_are_refused(use: object) -> None:
    assert callable(use)
    for table in (pd.DataFrame({"score": [1.0]}), pd.DataFrame()):
        with pytest.raises(StabkitError, match="no column"):
            use(table)


def test_a_level_line_has_no_barrier() -> None:
    line = between(inside.plane()).assign(loss=0.7, gradient_norm=2.0)
    assert [finding.holds for finding in barriers.surface(line, "m")] == [False, False]


def test_each_value_is_judged_on_its_own_line() -> None:
    rising = between(inside.plane()).assign(gradient_norm=lambda line: 1 + line["a"])
    loss, norm = barriers.surface(rising, "m")
    assert (loss.holds, norm.holds) == (True, False)
    assert norm.number.value == pytest.approx(1.9 / 2 - 1)


def test_a_line_to_a_diverged_run_is_not_judged() -> None:
    plane = inside.plane()
    plane.loc[plane["a"] != 0, ["loss", "gradient_norm"]] = math.nan
    found = barriers.surface(between(plane), "m")
    assert [finding.holds for finding in found] == [None, None]
    assert {finding.reason for finding in found} == {
        "a run has diverged: there is nothing to compare"
    }
