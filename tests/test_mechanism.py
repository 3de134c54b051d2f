"""The criteria from inside the runs: scipy's intervals, verdicts that can go either way."""

from __future__ import annotations

import math

import inside
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from stabkit import mechanism, results
from stabkit.errors import StabkitError
from stabkit.mechanism import contrast

FIXED = {
    "model": "mini-bert",
    "task": "mini-rte",
    "epochs": 3,
    "mixout": 0.0,
    "multiplier": "none",
    "warmup": 0.1,
    "label_entropy": 0.69,
    "constant": False,
    "diverged": False,
}


def runs(cells: dict[tuple[float, bool], int], seeds: int = 10) -> pd.DataFrame:
    """Runs of which the first of each cell fail, at the entropy; the next one has its loss only."""
    rows = []
    for (rate, on), failures in cells.items():
        for seed in range(seeds):
            flat = seed <= failures
            cell = {"learning_rate": rate, "bias_correction": on, "seed": seed}
            loss = {"train_loss": 0.69 if flat else 0.3, "flat_loss": flat}
            rows.append(FIXED | cell | loss | {"failed": seed < failures})
    table = pd.DataFrame(rows)
    return table.assign(key=[f"{i:016x}" for i in table.index])


def test_kinds_are_of_the_first_configuration_that_has_both() -> None:
    table = runs({(2e-4, True): 2, (2e-4, False): 4, (1e-4, False): 1, (4e-4, False): 5})
    found = contrast(table)
    assert found[["learning_rate", "bias_correction"]].drop_duplicates().values.tolist() == [
        [2e-4, False]
    ]
    assert found["kind"].tolist() == ["failed"] * 4 + ["successful"] * 5
    assert found["seed"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]  # seed 4 has a sign of failure


def test_diverged_runs_are_of_no_kind() -> None:
    table = runs({(2e-4, False): 4})
    table.loc[0, "diverged"] = True
    assert contrast(table)["seed"].tolist() == [1, 2, 3, 5, 6, 7, 8, 9]


def test_without_such_a_configuration_correction_tells_the_kinds_apart() -> None:
    table = runs({(2e-4, True): 0, (2e-4, False): 10, (1e-4, True): 0, (1e-4, False): 2})
    found = contrast(table)
    assert found.groupby("kind")["bias_correction"].unique().map(list).to_dict() == {
        "failed": [False],
        "successful": [True],
    }
    assert contrast(table.query("learning_rate == 1e-4")).empty
    with pytest.raises(StabkitError, match="several values of model"):
        contrast(pd.concat([table, table.assign(model="other")]))
    with pytest.raises(StabkitError, match="no runs"):
        contrast(table[:0])


def test_layer_swap_s_interval_is_welch_s() -> None:
    table = inside.swaps(spread=0.3)
    tuned, *_ = mechanism.layer_swap(table)
    rows = table[~table["embeddings"] & (table["k"] == 0)]
    failed, successful = (rows.loc[rows["failed"] == kind, "nll"] for kind in (True, False))
    test = stats.ttest_ind(failed, successful, equal_var=False)
    low, high = np.exp(test.confidence_interval())
    expected = math.exp(failed.mean() - successful.mean())
    assert tuned.number == pytest.approx((expected, low, high))
    assert (tuned.exhibit, tuned.holds, tuned.runs) == ("Fig. 2, fine-tuned embeddings", True, 6)


def test_the_excess_that_is_gone_has_student_s_interval() -> None:
    table = inside.swaps(gone=0.8)
    _, gone, _, other = mechanism.layer_swap(table)
    assert gone.number == pytest.approx((0.8, 0.8, 0.8))
    assert gone.holds and other.holds
    assert gone.criterion.endswith("k = 5")
    deep = mechanism.layer_swap(inside.swaps(depth=24))[1]
    assert deep.criterion.endswith("k = 10")
    assert mechanism.layer_swap(inside.swaps(gone=0.4))[1].holds is False
    values = [0.2, 0.5, 0.9]
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    assert mechanism._mean(values) == pytest.approx((np.mean(values), *interval))
    assert math.isnan(mechanism._mean([0.5]).low)


def test_a_layer_swap_may_disagree_or_be_unfit_to_judge() -> None:
    table = inside.swaps(lost=-1.0)
    ratio, gone, *_ = mechanism.layer_swap(table)
    assert (ratio.holds, gone.holds) == (False, None)
    assert gone.reason == "a failed run has no excess at k = 0"
    lone = mechanism.layer_swap(table[table["seed"] < 4])
    assert {finding.holds for finding in lone} == {None}
    assert lone[0].reason == "3 failed and 1 successful runs"
    with pytest.raises(StabkitError, match="several values of model"):
        mechanism.layer_swap(pd.concat([table, table.assign(model="other")]))


def test_flat_losses() -> None:
    table = runs({(2e-4, False): 5})
    found = mechanism.flat_loss(table)
    assert found.holds
    assert found.number == pytest.approx((0, 0, 0))
    assert found.runs == 5
    table.loc[[0, 1], "train_loss"] = (0.69 * 0.5, np.nan)
    found = mechanism.flat_loss(table)
    assert found.holds is False  # 50 % away, mean of the four with a finite loss
    assert found.number.value == pytest.approx(0.125)
    assert found.reason.endswith("3 of 5 failed runs lie within 5 %")
    assert mechanism.flat_loss(table[5:]).holds is None


def kinds() -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    table = contrast(runs({(2e-4, False): 4}, seeds=9))
    histories = {
        run.key: inside.history(
            *((0.01, 0.001) if run.failed else (10.0, 0.1)), wobble=1 + 0.1 * run.seed
        )
        for run in table.itertuples()
    }
    return table, histories


def test_gradients_are_compared_in_orders_of_magnitude() -> None:
    table, histories = kinds()
    ratio, end = mechanism.gradients(table, histories)
    assert ratio.holds and end.holds
    assert ratio.number == pytest.approx((3, 3, 3), abs=3e-4)  # 0.01 against 10
    assert ratio.exhibit == "Fig. 4, mini-bert"
    assert end.number.low < end.number.value < end.number.high
    reverse = table.assign(kind=table["kind"].map({"failed": "successful", "successful": "failed"}))
    assert [finding.holds for finding in mechanism.gradients(reverse, histories)] == [False] * 2


def test_whole_and_thinned_gradients_are_measured_alike() -> None:
    table, histories = kinds()
    noise = np.random.default_rng(1).lognormal(size=(468, 1))
    for gradients in histories.values():
        gradients.iloc[:, 1:] *= noise
    thinned = {
        key: results.thin(pa.Table.from_pandas(found, preserve_index=False)).to_pandas()
        for key, found in histories.items()
    }
    whole, short = (mechanism.gradients(table, found) for found in (histories, thinned))
    for one, other in zip(whole, short, strict=True):
        assert one.number == pytest.approx(other.number, rel=1e-5)


def test_gradients_that_cannot_be_judged() -> None:
    table, histories = kinds()
    shared = {key: found.iloc[:, [0, 1, 2, 3]] for key, found in histories.items()}
    ratio, end = mechanism.gradients(table, shared)
    assert (ratio.holds, ratio.reason) == (None, "all layers share their weights")
    assert end.holds
    one_kind = table[table["kind"] == "failed"]
    assert {finding.holds for finding in mechanism.gradients(one_kind, histories)} == {None}
    with pytest.raises(StabkitError, match="no gradients of the runs 0000000000000000"):
        mechanism.gradients(table, {})
    dead = {
        key: found.assign(**dict.fromkeys(found.columns[1:4], 0.0))
        for key, found in histories.items()
    }
    assert np.isfinite(mechanism.gradients(table, dead)[0].number.value)


def test_what_is_given_back_is_told_at_every_k_as_it_is_judged_at_two() -> None:
    table = inside.swaps().query("not embeddings")
    ratio, gone = mechanism.layer_swap(table)
    told = mechanism.given_back(table)
    assert len(told) == inside.DEPTH + 1
    assert (told[0][0], told[5][1]) == (ratio.number, gone.number)
    shares = [share for _, share in told if share]
    assert (shares[0].value, shares[-1].value) == (0, 1)
    ends = table[table["k"] == inside.DEPTH].groupby("failed")["nll"].mean()
    assert told[-1][0] is not None
    assert told[-1][0].value == pytest.approx(np.exp(ends[True] - ends[False]))
    times, share = mechanism.given_back(table[table["seed"].isin((0, 5))])[3]
    assert times and share and math.isnan(times.low) and math.isnan(share.low)
    alone = mechanism.given_back(table[table["failed"]])
    assert {times for times, _ in alone} == {None} and alone[5][1] == gone.number
    assert mechanism.given_back(table[~table["failed"]])[0] == (None, None)


def test_a_collapse_lasts_to_the_end() -> None:
    assert mechanism.collapse(inside.history(0.01, 0.001)) == 235  # of 468: the second half
    assert mechanism.collapse(inside.history(0.01, 0.2)) is None
    assert mechanism.collapse(inside.history(0.01, 0.2), share=0.5) == 235
    assert mechanism.collapse(inside.history(0.01, 50.0)) is None
    dip = inside.history(0.01, 1.0)
    dip.iloc[100:200, 1:] *= 1e-6
    assert mechanism.collapse(dip) is None
    spike = inside.history(0.01, 1.0)
    spike.iloc[[100, 300], 1:] *= 1e6  # single batches are no peak
    assert mechanism.collapse(spike) is None
    diverged = inside.history(0.01, 1.0)
    diverged.iloc[50:, 1:] = np.nan
    assert mechanism.collapse(diverged) is None


@pytest.mark.parametrize(
    "judge",
    [
        mechanism.layer_swap,
        mechanism.flat_loss,
        lambda table: mechanism.gradients(table, {}),
    ],
)
def test_empty_and_foreign_tables_are_refused(judge: object) -> None:
    assert callable(judge)
    for table in (pd.DataFrame({"score": [1.0]}), pd.DataFrame()):
        with pytest.raises(StabkitError, match="no column"):
            judge(table)
