"""The fixed criteria: what agrees, what does not, and what cannot be judged yet."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from stabkit import agreement
from stabkit.agreement import SETTINGS, as_table, settings, wants_steps
from stabkit.errors import StabkitError
from stabkit.findings import Finding, outcome
from stabkit.stats import Estimate, wilson
from stabkit.tables import by_accuracy, learned_nothing

RATES = (1e-4, 2e-4, 3e-4)
FIXED = {
    "model": "mini-bert",
    "task": "mini-rte",
    "hardware": "Some CPU",
    "epochs": 3,
    "learning_rate": 2e-4,
    "bias_correction": False,
    "warmup": 0.1,
    "multiplier": "none",
    "train_size": None,
    "max_steps": None,
    "steps": 468,
}


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def cell(failures: int, seeds: int = 25, **changes: object) -> pd.DataFrame:
    """Runs that differ in their seed, of which the first ``failures`` fail."""
    table = pd.DataFrame([FIXED | changes | {"seed": seed} for seed in range(seeds)])
    failed = table["seed"] < failures
    table = table.assign(failed=False, constant=False, flat_loss=failed, diverged=False)
    draws = np.random.default_rng(failures)
    return table.assign(score_last=np.where(failed, 0.52, draws.normal(0.87, 0.01, seeds)))


def together(*tables: pd.DataFrame) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    return table.assign(key=[f"{i:016x}" for i in table.index])


def arms(off: int, on: int, model: str = "mini-bert", **changes: object) -> pd.DataFrame:
    counts = {False: off, True: on}
    return together(
        *(
            cell(counts[on], model=model, learning_rate=rate, bias_correction=on, **changes)
            for rate, on in product(RATES, counts)
        )
    )


def small(full: int, few: int, as_long: int, seeds: int = 25) -> pd.DataFrame:
    return together(
        cell(full),
        cell(few, train_size=1000),
        cell(as_long, seeds, train_size=1000, epochs=None, max_steps=750),
    )


def ablation(failures: dict[tuple[int, float, bool], int] | None = None) -> pd.DataFrame:
    """All 18 cells; by default more failures at fewer epochs, higher rates, without correction."""
    tables = []
    for epochs, rate, on in product((3, 10, 20), RATES, (False, True)):
        usual = round(20 * rate / RATES[-1] * 3 / epochs * (0.2 if on else 1))
        count = (failures or {}).get((epochs, rate, on), usual)
        tables.append(
            cell(count, epochs=epochs, learning_rate=rate, bias_correction=on, steps=156 * epochs)
        )
    table = together(*tables)
    nothing = table["flat_loss"].astype(bool)
    loss = np.exp(-table["epochs"] * rng().uniform(0.4, 0.5, len(table)))
    return table.assign(train_loss=np.where(nothing, 0.69, loss))


def test_a_finding_says_verdict_number_and_reason() -> None:
    found = [
        Finding("Fig. 1", "less", 50, "why", True, Estimate(-0.4, -0.6, -0.1), line=0),
        Finding("Fig. 2", "more", 25, "because", False, Estimate(-0.5, -0.6, -0.4), "", -0.6),
        Finding("Fig. 3", "same", 3, "too few", line=0),
        Finding("Fig. 4", "all", 3, "two numbers decide", True, Estimate(-0.5, -0.6, -0.4)),
        Finding("Fig. 5", "one", 2, "one pair", True, Estimate(0.1, np.nan, np.nan), line=0),
    ]
    rows = as_table(found)
    assert list(rows.columns) == list(agreement.COLUMNS)
    assert [finding.verdict for finding in found[:3]] == [
        "holds",
        "does not hold",
        "not judged yet",
    ]
    assert [finding.certain for finding in found] == [True, False, None, None, None]
    verdicts = ["clearly holds", "does not hold, perhaps by chance", "not judged yet", "holds"]
    assert list(rows["verdict"]) == [*verdicts, "holds"]
    shown = ["-40.0 (-60.0 to -10.0) points", "-0.50 (-0.60 to -0.40)", ""]
    assert list(rows["number (95 % interval)"][:3]) == shown
    assert list(rows["n"][:3]) == [50, 25, 3]
    with pytest.raises(AttributeError):
        found[0].holds = False  # type: ignore[misc]


def test_large_numbers_are_shown_without_decimals() -> None:
    wide = Finding("Fig. 2", "more", 6, "", True, Estimate(81.88, 0.03, 259880.99), "", 1)
    assert wide.shown() == "81.88 (0.03 to 259,881)"
    assert wide.told == "holds, perhaps by chance"


def test_steps_are_wanted_where_they_help_and_the_full_set_does_not_fail() -> None:
    assert wants_steps(small(0, 11, 0))
    assert not wants_steps(small(0, 1, 0)), "perhaps by chance"
    assert not wants_steps(small(0, 0, 11)) and not wants_steps(small(20, 25, 5))
    table = small(0, 11, 0)
    assert not wants_steps(table[table["max_steps"].isna()]), "no runs of as many steps"


def test_settings_of_small_data() -> None:
    assert settings(small(0, 0, 0)).value_counts().to_dict() == dict.fromkeys(SETTINGS, 25)


@pytest.mark.parametrize(
    ("failures", "holds"),
    [((2, 12, 2), True), ((2, 12, 12), False), ((10, 12, 2), False), ((2, 2, 2), False)],
)
def test_small_data(failures: tuple[int, int, int], holds: bool) -> None:
    found = agreement.figure_3(small(*failures))
    assert found.holds is holds
    assert found.number == wilson(failures[2], 25)
    assert (found.exhibit, found.runs, found.unit) == ("Fig. 3, mini-rte", 25, "%")
    assert f"as many steps: {failures[2]} of 25" in found.reason
    alike = len(set(failures)) == 1
    assert ("all three intervals overlap" in found.reason) is alike
    assert found.told.endswith(", perhaps by chance") is alike


def test_small_data_is_not_judged_before_all_runs_are_there() -> None:
    found = agreement.figure_3(small(2, 12, 2, seeds=24))
    assert (found.verdict, found.shown()) == ("not judged yet", "")
    assert found.reason == "2 of 3 cells have all their 25 runs"
    with pytest.raises(StabkitError, match="several values of task"):
        agreement.figure_3(together(cell(0), cell(0, task="mini-cola")))


def test_the_correction_helps_wherever_a_run_fails() -> None:
    table = together(
        arms(20, 2, "mini-bert"), arms(3, 1, "mini-roberta"), arms(12, 2, "mini-albert")
    )
    *models, least = agreement.figure_5(table)
    assert [found.exhibit for found in models] == [
        f"Fig. 5, mini-{name}" for name in ("bert", "roberta", "albert")
    ]
    assert all(found.holds for found in models)
    assert models[0].number.value == pytest.approx(18 / 25)
    assert models[0].reason.startswith("1e-4: 20 of 25 without, 2 of 25 with; 2e-4")
    assert [found.certain for found in models] == [True, False, True]  # 3 against 1 may be chance
    assert least.holds
    assert least.number.value == pytest.approx(2 / 25)
    assert least.certain is True
    close = together(
        arms(8, 1, "mini-bert"), arms(7, 1, "mini-roberta"), arms(12, 2, "mini-albert")
    )
    assert agreement.figure_5(close)[-1].told == "holds, perhaps by chance"
    assert "hardware" not in least.reason
    table.loc[table["model"] == "mini-albert", "hardware"] = "Another CPU"
    mixed = agreement.figure_5(table)[-1]
    assert mixed.holds is None and "the runs are of 2 hardware classes" in mixed.reason


def test_the_correction_must_help_at_every_rate() -> None:
    table = arms(20, 2)
    top = table["learning_rate"] == RATES[-1]
    table.loc[top, "flat_loss"] = True  # both fail throughout
    (model, least) = agreement.figure_5(table)
    assert model.holds is False
    assert least.holds is None
    assert least.reason == "the runs of roberta, albert are missing"


def test_where_nothing_fails_there_is_nothing_to_judge() -> None:
    names = ("mini-bert", "mini-roberta", "mini-albert")
    findings = agreement.figure_5(together(*(arms(0, 0, name) for name in names)))
    assert {found.holds for found in findings} == {None}
    assert {found.reason for found in findings} == {"no run fails in any setting"}
    assert agreement.figure_5(cell(3))[0].reason == "1 of 6 cells have all their 25 runs"


@pytest.mark.parametrize(
    ("failures", "holds"),
    [((20, 10, 8, 1), True), ((20, 10, 0, 1), False), ((3, 3, 3, 2), False)],
)
def test_warmup_and_correction(failures: tuple[int, ...], holds: bool) -> None:
    cells = product((0.0, 0.1), (False, True))
    table = together(
        *(
            cell(count, warmup=warm, bias_correction=on)
            for count, (warm, on) in zip(failures, cells, strict=True)
        )
    )
    found = agreement.warmup(table)
    assert found.holds is holds
    assert found.number.value == pytest.approx((failures[0] - failures[3]) / 25)
    neither, alone, warm, both = failures
    assert f"both {both} of 25, warmup alone {warm} of 25" in found.reason
    assert f"correction alone {alone} of 25, neither {neither} of 25; p = " in found.reason
    assert agreement.warmup(table.iloc[:60]).holds is None


def test_the_shallow_control() -> None:
    deep, control = arms(20, 5), arms(2, 0, "mini-bert-shallow")
    found = agreement.shallow(together(deep, control))
    assert found.holds
    assert found.reason == "shallow: 6 of 150; deep: 75 of 150"
    assert agreement.shallow(together(arms(0, 0), control)).holds is False
    assert agreement.shallow(control).reason == "deep: no runs"
    partly = together(deep, control.iloc[:-1])
    assert agreement.shallow(partly).reason == "shallow: 5 of 6 cells have all their 25 runs"
    with pytest.raises(StabkitError, match="several values of model"):
        agreement.shallow(together(deep, control, arms(1, 1, "mini-roberta")))


def test_the_ablation_s_trends() -> None:
    table = ablation()
    epochs, rate, correction = agreement.figure_9(table)
    assert epochs.holds and rate.holds and correction.holds
    assert epochs.number.value < 0 < rate.number.value
    assert correction.number.high < 0
    assert [found.certain for found in (epochs, rate, correction)] == [None, None, True]
    steps = zip((3, 10, 20), (5, 4, 4), strict=True)
    few = {(n, r, on): count for n, count in steps for r in RATES for on in (False, True)}
    assert agreement.figure_9(ablation(few))[0].told == "holds, perhaps by chance"
    assert epochs.reason.startswith("3: ")
    assert correction.reason.startswith("off: ")
    assert {found.runs for found in (epochs, rate, correction)} == {450}


def test_a_trend_must_not_turn() -> None:
    worse = dict.fromkeys(product((10,), RATES, (False, True)), 24)
    epochs, *_ = agreement.figure_9(ablation(worse))
    assert epochs.number.value < 0
    assert epochs.holds is False
    level = dict.fromkeys(product((3, 10, 20), RATES, (False, True)), 5)
    assert [found.holds for found in agreement.figure_9(ablation(level))] == [False] * 3
    for found in agreement.figure_9(ablation().iloc[:-1]):
        assert found.reason == "17 of 18 cells have all their 25 runs"


def long_runs(gain: float, failures: int = 3) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    table = together(cell(failures, epochs=20, steps=3120, bias_correction=True))
    histories = {}
    for run in table.to_dict("records"):
        steps = np.arange(52, 3121, 52)
        score = np.where(steps <= 468, run["score_last"] - gain, run["score_last"])
        score[:8] = 0.5  # what matters is the last look within 3 epochs
        gaps = pd.DataFrame({"step": [469], "dev_score": [np.nan]})
        history = pd.DataFrame({"step": steps, "dev_score": score})
        histories[run["key"]] = pd.concat([history, gaps]).sort_values("step")
    return table, histories


@pytest.mark.parametrize(("gain", "holds"), [(0.01, True), (-0.01, False)])
def test_long_training_does_not_degrade(gain: float, holds: bool) -> None:
    found = agreement.figure_8a(*long_runs(gain))
    assert found.holds is holds
    assert found.number == pytest.approx((gain, gain, gain), abs=1e-9)
    assert found.runs == 22


def test_long_training_needs_all_runs_and_their_looks() -> None:
    table, histories = long_runs(0.01)
    assert agreement.figure_8a(table.iloc[:-1], histories).holds is None
    all_failed = long_runs(0.01, failures=25)
    assert agreement.figure_8a(*all_failed).reason == "every run fails"
    late = {key: history[history["step"] > 468] for key, history in histories.items()}
    with pytest.raises(StabkitError, match="no dev score within 3 epochs"):
        agreement.figure_8a(table, late)
    with pytest.raises(StabkitError, match="no history of the run"):
        agreement.figure_8a(table, {})


def test_dev_score_against_training_loss() -> None:
    table = ablation()
    rising, lasting = agreement.figure_8b(table)
    assert rising.holds
    assert rising.number.high < 0
    assert rising.shown().startswith("-0.")
    learned = table[~table["flat_loss"].astype(bool)]
    assert lasting.runs == pytest.approx(len(learned) / 2, abs=1)
    assert lasting.number.low <= lasting.number.value <= lasting.number.high
    assert lasting.holds  # level


def test_overfitting_is_seen_at_the_lowest_losses_only() -> None:
    table = ablation()
    learned = table[~table["flat_loss"].astype(bool)].sort_values("train_loss")
    table.loc[learned.index[: len(learned) // 4], "score_last"] -= 0.03
    _, lasting = agreement.figure_8b(table)
    assert lasting.holds is False
    assert lasting.number.high < 0


def test_dev_score_against_training_loss_leaves_diverged_runs_out() -> None:
    table = ablation()
    table.loc[0, "train_loss"] = np.nan
    rising, _ = agreement.figure_8b(table)
    assert rising.runs == len(table) - 1
    hopeless = ablation(dict.fromkeys(product((3, 10, 20), RATES, (False, True)), 25))
    rising, lasting = agreement.figure_8b(hopeless)
    assert (rising.holds, lasting.holds) == (False, None)
    assert lasting.reason == "fewer than 2 runs learn"
    unfinished = agreement.figure_8b(table.iloc[:-1])
    assert {found.holds for found in unfinished} == {None}


@pytest.mark.parametrize("name", ["figure_3", "figure_5", "figure_9", "warmup", "shallow"])
def test_empty_and_foreign_tables_are_refused(name: str) -> None:
    judge = getattr(agreement, name)
    with pytest.raises(StabkitError, match="no runs"):
        judge(cell(0).iloc[:0])
    with pytest.raises(StabkitError, match="no column"):
        judge(pd.DataFrame({"score": [1.0]}))


def test_an_exhibit_agrees_by_all_of_its_criteria_that_can_be_judged() -> None:
    def found(*verdicts: bool | None) -> str:
        return outcome([Finding("Fig. 1", "one", 1, "so", holds) for holds in verdicts])

    assert found(True, True) == "agrees: 2 of 2 criteria hold"
    assert found(True, None) == "agrees: 1 of 1 criteria hold; 1 not judged yet"
    assert found(True, False) == "agrees in part: 1 of 2 criteria hold"
    assert found(False) == "does not agree: 0 of 1 criteria hold"
    assert found(None) == "not judged yet"
    assert outcome([]) == "states nothing testable"


def test_a_plateau_is_no_turn() -> None:
    cells = product((3, 10, 20), RATES, (False, True))
    counts = {at: 9 if at[0] == 3 else 4 for at in cells}
    epochs, rate, _ = agreement.figure_9(ablation(counts))
    assert epochs.holds and rate.holds is False


def test_equal_numbers_are_none_for_the_paper() -> None:
    names = ("mini-bert", "mini-roberta", "mini-albert")
    *_, least = agreement.figure_5(together(*(arms(12, 2, name) for name in names)))
    assert least.holds is False
    control = arms(2, 0, "mini-bert-shallow")
    assert agreement.shallow(together(arms(2, 0), control)).holds is False


def test_a_criterion_can_be_read_by_accuracy_alone() -> None:
    table = ablation()
    hidden = table.assign(flat_loss=True)  # by this sign every run fails
    strict = by_accuracy(hidden)
    assert learned_nothing(hidden).all()
    assert learned_nothing(strict).equals(table["failed"].astype(bool))
    assert agreement.figure_9(strict)[0].reason != agreement.figure_9(hidden)[0].reason
