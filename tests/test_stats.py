"""Statistics against scipy, closed forms and the properties that define them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from stabkit.errors import StabkitError
from stabkit.findings import Finding
from stabkit.paper import METHODS, TABLE_1, complete, hopeless, reported, table_1_verdict
from stabkit.stats import Estimate, bootstrap, describe, sample_std, wilson
from stabkit.tables import (
    best_rate,
    describe_groups,
    each_change,
    failure_curve,
    failures,
    fitting_rate,
    in_every_cell,
    learning_rate_rule,
    misfits,
    only,
    require,
    training_fit,
)

scores = st.lists(st.floats(-1, 1), min_size=3, max_size=30)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_within_0_and_1(counts: tuple[int, int]) -> None:
    share, low, high = wilson(*counts)
    assert 0 <= low <= share <= high <= 1
    assert high - low > 0


def test_wilson_closed_form() -> None:
    n, share, z = 25, 6 / 25, norm.ppf(0.975)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert wilson(6, n) == pytest.approx((share, centre - half, centre + half))


@pytest.mark.parametrize("counts", [(1, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(StabkitError, match="failures of"):
        wilson(*counts)


@settings(max_examples=15, deadline=None)
@given(scores)
def test_bootstrap_is_deterministic_ordered_and_inside_the_data(values: list[float]) -> None:
    first, second = (bootstrap(order, np.mean) for order in (values, values[::-1]))
    assert first == second
    assert min(values) - 1e-12 <= first.low <= first.high <= max(values) + 1e-12


def test_bootstrap_covers_the_mean_of_two_peaks() -> None:
    draws = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        runs = np.where(draws.random(25) < 0.4, 0.5, draws.normal(0.87, 0.015, 25))
        interval = bootstrap(runs, np.mean)
        hits += interval.low <= 0.4 * 0.5 + 0.6 * 0.87 <= interval.high
    assert hits >= 34


@pytest.mark.parametrize("statistic", [np.mean, np.median, sample_std])
def test_equal_runs_give_the_point_without_a_warning(statistic: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = bootstrap(np.full(25, 0.527), statistic)  # type: ignore[arg-type]
        assert estimate.low == estimate.value == estimate.high
        lonely = bootstrap([0.5], statistic)  # type: ignore[arg-type]
    assert np.isnan([lonely.low, lonely.high]).all()


def test_describe() -> None:
    values, failed = [0.5, 0.8, 0.9, 0.5], [True, False, False, True]
    found = describe(values, failed)
    assert (found.runs, found.failures, found.min, found.max) == (4, 2, 0.5, 0.9)
    assert found.failure_rate == wilson(2, 4)
    assert found.mean.value == pytest.approx(0.675)
    assert found.median.value == pytest.approx(0.65)
    assert found.std.value == pytest.approx(pd.Series(values).std())
    assert found.std_successful.value == pytest.approx(np.sqrt(0.005))
    assert found.std.low < found.std.value < found.std.high


def test_describe_refuses_nan_and_unequal_lengths() -> None:
    with pytest.raises(StabkitError, match="positions 1"):
        describe([0.5, np.nan], [False, True])
    with pytest.raises(StabkitError, match="one of each"):
        describe([0.5], [])
    with pytest.raises(StabkitError, match="shape"):
        describe([[0.5]], [True])


def test_all_failed_has_no_std_of_successful_runs() -> None:
    found = describe([0.4, 0.5, 0.5], [True] * 3)
    assert np.isnan(found.std_successful.value)
    assert found.std_successful.percent() == "none"


def pilot(failures: dict[tuple[float, bool], int], runs: int = 10) -> pd.DataFrame:
    rows = [
        {
            "learning_rate": rate,
            "bias_correction": corrected,
            "failed": seed < count - 1,
            "constant": False,
            "flat_loss": seed == count - 1,  # one that only its training loss gives away
            "diverged": False,
        }
        for (rate, corrected), count in failures.items()
        for seed in range(runs)
    ]
    return pd.DataFrame(rows)


def test_failure_curve_counts() -> None:
    curve = failure_curve(pilot({(1e-4, True): 0, (1e-4, False): 4, (3e-4, True): 2}))
    assert curve["failures"].tolist() == [4, 0, 2]  # sorted: 1e-4 off, 1e-4 on, 3e-4 on
    assert curve["failed"].tolist() == [3, 0, 1]
    assert curve["runs"].tolist() == [10] * 3
    assert tuple(curve.loc[0, ["rate", "low", "high"]]) == pytest.approx(wilson(4, 10))


def test_failures_are_told_by_group() -> None:
    table = pilot({(2e-4, True): 0, (1e-4, True): 4})
    assert failures(table, "learning_rate") == "0.0002 0 of 10, 0.0001 4 of 10"
    assert failures(table, "learning_rate", "failed") == "0.0002 0 of 10, 0.0001 3 of 10"
    with pytest.raises(StabkitError, match="no column method"):
        failures(table, "method")


def test_seeds_that_every_cell_has() -> None:
    whole = pd.DataFrame([(epochs, seed) for epochs in (3, 10) for seed in range(4)])
    whole.columns = pd.Index(["epochs", "seed"])
    under_way = whole.drop(index=[2, 7])  # seeds 2 of 3 epochs and 3 of 10
    shared = in_every_cell(under_way, ["epochs"])
    assert shared.to_numpy().tolist() == [[3, 0], [3, 1], [10, 0], [10, 1]]
    assert in_every_cell(whole, ["epochs"]).equals(whole)
    assert in_every_cell(whole.iloc[3:5], ["epochs"]).empty
    with pytest.raises(StabkitError, match="no column epochs"):
        in_every_cell(whole.drop(columns="epochs"), ["epochs"])


def test_each_change_stands_beside_both_and_neither() -> None:
    """The middle length is no arm; columns as from a store, runs in any order."""
    cells = {(3, False): 9, (3, True): 0, (20, False): 2, (20, True): 1, (10, True): 5}
    tables = [
        pilot({(rate, on): lost}).assign(epochs=epochs, score_last=epochs / 100 + on)
        for rate in (2e-4, 1e-4)
        for (epochs, on), lost in cells.items()
    ]
    found = each_change(pd.concat(tables).sample(frac=1, random_state=0))
    size = len(tables[0])
    wanted = [
        ("neither", size, 9, 0.03),
        ("correction alone", size, 0, 1.03),
        ("long training alone", size, 2, 0.2),
        ("both", size, 1, 1.2),
    ]
    columns = ["change", "runs", "failures", "mean"]
    for rate in (1e-4, 2e-4):
        rows = found.loc[found["learning_rate"] == rate, columns]
        assert [tuple(row[:3]) for row in rows.to_numpy()] == [row[:3] for row in wanted]
        assert rows["mean"].tolist() == pytest.approx([row[3] for row in wanted])
    assert found["learning_rate"].is_monotonic_increasing
    with pytest.raises(StabkitError, match="no column epochs"):
        each_change(pd.DataFrame({"bias_correction": [True]}))


def test_learning_rate_rule() -> None:
    failures = {(1e-4, True): 0, (2e-4, True): 0, (4e-4, True): 1, (1e-4, False): 9}
    assert learning_rate_rule(failure_curve(pilot(failures))) == 2e-4
    with pytest.raises(StabkitError, match="every learning rate"):
        learning_rate_rule(failure_curve(pilot({(1e-4, True): 1})))
    unequal = pd.concat([pilot({(1e-4, True): 0}), pilot({(2e-4, True): 0}, runs=1)])
    with pytest.raises(StabkitError, match="unequal"):
        learning_rate_rule(failure_curve(unequal))


def test_tables_are_checked() -> None:
    with pytest.raises(
        StabkitError, match="no column learning_rate, bias_correction, failed, constant, flat"
    ):
        failure_curve(pd.DataFrame({"score": [1]}))
    with pytest.raises(StabkitError, match="no runs"):
        require(pd.DataFrame({"key": []}), ["key"])
    with pytest.raises(StabkitError, match="several values of task"):
        only(pd.DataFrame({"task": ["rte", "mrpc"]}), "task")


def table_1(spreads: dict[str, float], task: str = "mini-rte", model: str = "m") -> pd.DataFrame:
    """Normal scores around the preprint's means with the spreads given; half of Devlin fails."""
    draws, frames = rng(), []
    for method, spread in spreads.items():
        mean = TABLE_1[task.removeprefix("mini-"), method].mean / 100
        frame = pd.DataFrame({"score_last": draws.normal(mean, spread, 25), "seed": range(25)})
        failed = (frame["seed"] % 2 == 0) & (method == "Devlin")
        frames.append(frame.assign(method=method, task=task, model=model, failed=failed))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(key=[f"{i:016x}" for i in table.index])


def test_describe_groups_names_runs_without_a_score() -> None:
    table = table_1({"Ours": 0.01, "Lee": 0.05})
    described = describe_groups(table)
    assert described["method"].tolist() == ["Ours", "Lee"]
    assert described["std"][0].value < described["std"][1].value
    table.loc[3, "score_last"] = np.nan
    with pytest.raises(StabkitError, match="0000000000000003"):
        describe_groups(table)


def verdicts(table: pd.DataFrame, **options: Any) -> dict[str, Finding]:
    """Return what is judged of one task, by criterion."""
    return {finding.criterion: finding for finding in table_1_verdict(table, **options)}


def test_verdict_agrees_when_the_runs_are_like_the_papers() -> None:
    spreads = {"Devlin": 0.072, "Lee": 0.079, "Ours": 0.01}
    found = table_1_verdict(table_1(spreads))
    assert [finding.holds for finding in found] == [True] * 5
    assert {finding.runs for finding in found} == {75}
    # Neither Lee nor Ours has a failed run, which may be chance.
    assert [finding.certain for finding in found] == [True, False, None, None, True]


def test_a_verdict_of_table_1_is_in_doubt_where_intervals_overlap() -> None:
    found = verdicts(table_1({"Devlin": 0.013, "Lee": 0.3, "Ours": 0.01}))
    (means,) = (finding for name, finding in found.items() if name.startswith("means"))
    assert found["Ours has the smallest std"].told == "holds, perhaps by chance"
    less = verdicts(table_1({"Devlin": 0.001, "Lee": 0.01, "Ours": 0.01}))  # than Devlin for sure
    assert less["Ours has the smallest std"].told == "clearly does not hold"
    assert means.told.endswith("perhaps by chance")
    assert all(found[name].certain is None for name in found if "Levene" in name)
    assert Estimate(0.2, 0.1, 0.3).overlaps(Estimate(0.4, 0.3, 0.5))
    assert not Estimate(0.2, 0.1, 0.3).overlaps(Estimate(0.4, 0.31, 0.5))
    assert Estimate(0.2, 0.1, 0.3).covers(0.3) and not Estimate(0.2, 0.1, 0.3).covers(0.31)


def test_levene_is_told_with_the_side_that_spreads_more() -> None:
    found = verdicts(table_1({"Devlin": 0.002, "Lee": 0.08, "Ours": 0.012}))
    devlin, lee = (found[f"Ours spreads less than {one} (Levene)"] for one in METHODS[:2])
    assert devlin.reason.endswith("; Ours spreads more") and not devlin.holds
    assert lee.reason.endswith("; Ours spreads less") and lee.holds
    assert all(p < 0.05 for p in map(levene_p, (devlin, lee)))


def levene_p(finding: Finding) -> float:
    """Return the adjusted p of one of Levene's tests."""
    return float(finding.reason.removeprefix("p = ").split()[0])


def test_verdict_disagrees_and_says_where() -> None:
    found = verdicts(table_1(dict.fromkeys(METHODS, 0.05)))
    assert not any(found[name].holds for name in found if "Levene" in name)
    assert found["means in the order Devlin < Lee < Ours"].holds


def test_verdict_corrects_over_all_tasks() -> None:
    spreads = {"Devlin": 0.02, "Lee": 0.021, "Ours": 0.01}
    alone = table_1_verdict(table_1(spreads))
    both = table_1_verdict(pd.concat([table_1(spreads), table_1(spreads, "mrpc")]))
    assert [finding.exhibit for finding in both] == ["mini-rte"] * 5 + ["mrpc"] * 5
    one, more = (
        [levene_p(finding) for finding in found[:5] if "Levene" in finding.criterion]
        for found in (alone, both)
    )
    assert all(p < q for p, q in zip(one, more, strict=True))  # twice as many tests


def test_verdict_on_a_task_beyond_table_1() -> None:
    spreads = {"Devlin": 0.072, "Lee": 0.079, "Ours": 0.01}
    table = pd.concat([table_1(spreads), table_1(spreads).assign(task="mini-scitail")])
    found = table_1_verdict(table, exhibited=("scitail", "qnli"))
    assert {finding.exhibit for finding in found} == {"mini-scitail"}
    assert {finding.exhibit for finding in table_1_verdict(table)} == {"mini-rte"}


def test_the_methods_are_in_the_order_of_their_means_on_every_task() -> None:
    for task in ("rte", "mrpc", "cola"):
        means = [TABLE_1[task, method].mean for method in METHODS]
        assert means == sorted(means)


def test_verdict_needs_all_methods_and_one_model() -> None:
    with pytest.raises(StabkitError, match="no runs of Devlin, Lee on mini-rte"):
        table_1_verdict(table_1({"Ours": 0.01}))
    mixed = pd.concat([table_1({"Ours": 0.01}), table_1({"Ours": 0.01}, model="n")])
    with pytest.raises(StabkitError, match="several values of model"):
        table_1_verdict(mixed)


def test_reported_numbers() -> None:
    ours = reported("mini-rte", "Ours")
    assert ours is not None
    assert ours.std == 2.4
    assert reported("mini-qnli", "Ours") is None
    assert all(row.median <= row.max for row in TABLE_1.values())


def test_the_fitting_rate_is_the_largest_at_which_fewest_runs_do_not_fit() -> None:
    counts = {1e-4: 3, 2e-4: 1, 4e-4: 1, 8e-4: 5}
    rows = [
        {"learning_rate": rate, "flat_loss": i < misfits - 1, "diverged": i == misfits - 1}
        for rate, misfits in counts.items()
        for i in range(5)
    ]
    table = pd.DataFrame(rows)
    assert fitting_rate(table) == 4e-4
    with pytest.raises(StabkitError, match=r"unequal numbers of runs .0.0001: 5, .* 0.0008: 4"):
        fitting_rate(table.iloc[:-1])


def test_the_best_rate_has_the_highest_mean_score_and_is_the_smaller_of_equals() -> None:
    scores = {1e-4: (0.5, 0.9), 2e-4: (0.75, 0.75), 4e-4: (0.9, 0.6), 8e-4: (0.95, 0.1)}
    rows = [
        {"key": f"{rate}-{score}", "learning_rate": rate, "score_last": score}
        for rate, pair in sorted(scores.items(), reverse=True)
        for score in pair
    ]
    table = pd.DataFrame(rows)
    assert best_rate(table) == 2e-4
    with pytest.raises(StabkitError, match=r"unequal numbers of runs .0.0001: 1, .* 0.0008: 2"):
        best_rate(table.iloc[:-1])
    with pytest.raises(StabkitError, match="no finite score_last"):
        best_rate(table.assign(score_last=np.nan))


def test_training_fit_stands_beside_the_dev_score_with_intervals() -> None:
    table = pd.DataFrame(
        {
            "task": ["rte"] * 4 + ["mrpc"] * 4,
            "flat_loss": [True, False, False, False] + [False] * 4,
            "diverged": [False, True, False, False] + [False] * 4,
            "failed": [True, True, True, False] + [False] * 4,
            "train_loss": [0.7, np.inf, 0.35, 0.35] + [0.14] * 4,
            "label_entropy": 0.7,
            "train_accuracy": [0.5, 0.5, 0.8, 0.8] + [0.9] * 4,
            "score_last": [0.5, 0.5, 0.5, 0.7] + [0.8] * 4,
        }
    )
    found = training_fit(table, by=["task"]).set_index("task")
    assert found["runs"].tolist() == [4, 4]
    assert found["misfit_rate"]["rte"] == wilson(2, 4)
    assert found["failure_rate"]["rte"] == wilson(3, 4)
    assert found["train_loss"]["rte"].value == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found["train_loss"]["mrpc"] == pytest.approx((0.2, 0.2, 0.2))
    assert found["score_last"]["rte"].low < found["score_last"]["rte"].value == 0.55
    assert misfits(table).tolist() == [True, True] + [False] * 6


def test_methods_that_mostly_fail_are_named_where_others_stand_beside_them() -> None:
    cells = [("a", "Lee", True), ("a", "Ours", False), ("b", "Lee", True)]
    rows = [(task, method, lost) for task, method, lost in cells for _ in range(3)]
    runs = pd.DataFrame(rows, columns=["task", "method", "failed"])
    (told,) = hopeless(runs)
    assert "majority class: Lee on a (3 of 3). The spread of" in told
    runs.loc[0, "failed"] = False
    assert "Lee on a (2 of 3)." in hopeless(runs)[0]
    more = pd.concat([runs, runs.assign(task="c")])
    assert "Lee on a (2 of 3), Lee on c (5 of 6)." in hopeless(more)[0]
    runs.loc[1, "failed"] = False
    assert hopeless(runs) == []
    assert hopeless(pd.DataFrame({"task": [], "method": []})) == []
    with pytest.raises(StabkitError, match="no column method"):
        hopeless(runs.drop(columns="method"))


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_bootstrap_has_the_coverage_that_is_asked_for(level: float) -> None:
    draws = rng().normal(size=25)
    _, low, high = bootstrap(draws, np.mean, level)
    half = norm.ppf((1 + level) / 2) * np.std(draws) / 5
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)


def test_equal_spreads_and_means_are_not_the_paper_s() -> None:
    same = table_1({"Ours": 0.01})
    found = verdicts(pd.concat([same.assign(method=method) for method in METHODS]))
    assert not found["Ours has the smallest std"].holds
    assert found["no method fails less often than Ours"].holds
    assert not found["means in the order Devlin < Lee < Ours"].holds


def test_a_method_of_which_half_the_runs_fail_does_not_mostly_fail() -> None:
    rows = [("a", method, i < 2 and method == "Lee") for method in METHODS for i in range(4)]
    runs = pd.DataFrame(rows, columns=["task", "method", "failed"])
    assert hopeless(runs) == []


def test_a_table_is_complete_with_all_seeds_of_every_method() -> None:
    table = table_1(dict.fromkeys(METHODS, 0.05))
    assert complete(table)
    assert not complete(table.iloc[1:]) and not complete(table[table["method"] != "Lee"])
