"""The studies: which runs they ask for, and the blind rule for the learning rate."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pandas as pd
import pytest

from stabkit import studies
from stabkit.config import RunConfig
from stabkit.errors import ConfigError
from stabkit.mini.tasks import RECIPES
from stabkit.studies import PILOT, PILOT_RATES, REPORTED, STUDIES, grid, reference_rate, study

PINNED = RunConfig(weights="w" * 64, tokenizer="t" * 64, data="d" * 64)
RATE = 5e-4


def test_a_grid_is_every_combination_with_every_seed_once() -> None:
    made = grid(PINNED, range(3), learning_rate=(1e-5, 2e-5), bias_correction=iter((True, False)))
    assert len({config.key for config in made}) == len(made) == 12
    assert Counter(config.learning_rate for config in made) == {1e-5: 6, 2e-5: 6}
    assert [config.seed for config in made[:3]] == [0, 1, 2]
    assert all(config.head_seed == config.order_seed == config.seed for config in made)
    assert grid(PINNED, range(2)) == [PINNED, PINNED.replace(seed=1)]


def test_seeds_for_choosing_reporting_and_the_book_are_apart() -> None:
    assert list(REPORTED) == list(range(25))
    assert list(PILOT) == list(range(1000, 1010))
    assert min(studies.FRESH) >= 2000


def test_the_pilot_draws_both_failure_curves() -> None:
    runs = studies.pilot()
    assert len(runs) == 7 * 2 * 10
    assert {config.seed for config in runs} == set(PILOT)
    assert {(c.learning_rate, c.bias_correction) for c in runs} == {
        (rate, correction) for rate in PILOT_RATES for correction in (True, False)
    }
    assert all(config.epochs == 3 for config in runs)
    ratios = [high / low for low, high in pairwise(PILOT_RATES)]
    assert max(ratios) / min(ratios) < 1.1  # log-spaced, but for the rounding


def test_table_1_compares_the_three_methods_on_the_reported_seeds() -> None:
    runs = studies.table_1(RATE)
    assert len(runs) == 75
    assert {config.learning_rate for config in runs} == {RATE}
    cells = Counter((c.epochs, c.bias_correction, c.mixout > 0) for c in runs)
    assert cells == {(3, False, False): 25, (3, False, True): 25, (20, True, False): 25}
    assert all(config.evals_per_epoch == 3 for config in runs)
    assert {config.task for config in study("table1-cola").build(RATE)} == {"mini-cola"}


def test_the_controls_move_the_hidden_multiplier_alone() -> None:
    runs = studies.controls(RATE)
    assert Counter((c.bias_correction, c.multiplier) for c in runs) == dict.fromkeys(
        [(True, "none"), (True, "times"), (False, "none"), (False, "divided")], 25
    )
    base = {config.replace(bias_correction=True, multiplier="none", seed=0) for config in runs}
    assert len(base) == 1


def test_the_ablation_has_450_runs_and_shares_cells_with_the_other_studies() -> None:
    runs = studies.ablation(RATE)
    assert len(runs) == 450
    assert sorted({c.learning_rate for c in runs}) == pytest.approx(
        [f * RATE for f in (0.5, 1, 1.5)]
    )
    assert {c.epochs for c in runs} == {3, 10, 20}
    methods = [c for c in studies.table_1(RATE) if not c.mixout]
    plain = [c for c in studies.controls(RATE) if c.multiplier == "none"]
    bert = [c for c in studies.figure_5(RATE) if c.model == "mini-bert"]
    half = [c for c in study("table1-half").build(RATE) if not c.mixout]
    assert {c.learning_rate for c in half} == {RATE / 2}
    assert {*methods, *plain, *bert, *half} <= {*runs}
    assert len(studies.figure_5(RATE)) == 450


def test_lengths_of_warmup_are_exchanged_between_short_and_long_runs_of_the_ablation() -> None:
    runs = studies.long_warmup(RATE)
    assert {*runs[:25], *runs[50:75]} <= {*studies.ablation(RATE)}
    assert {(c.learning_rate, c.bias_correction, c.mixout) for c in runs} == {(RATE / 2, False, 0)}
    steps = [int(c.warmup * c.steps(RECIPES["mini-rte"].size)) for c in runs[::25]]
    assert [c.epochs for c in runs[::25]] == [3, 3, 20, 20]
    assert steps == [46, 312, 312, 46]


def test_three_recipes_are_tried_at_four_rates_on_pilot_seeds_and_reported_at_one() -> None:
    expected = {
        "devlin": (3, False, None),
        "corrected": (3, True, None),
        "lee": (3, False, 0.9),
    }
    for name, recipe in expected.items():
        tried, shown = study(f"rates-{name}").build(4e-4), study(f"best-{name}").build(1e-4)
        assert Counter(c.learning_rate for c in tried) == dict.fromkeys((5e-5, 1e-4, 2e-4, 4e-4), 5)
        assert [*dict.fromkeys(c.seed for c in tried)] == [1005, 1006, 1007, 1008, 1009]
        assert [c.seed for c in shown] == list(REPORTED)
        assert {c.learning_rate for c in shown} == {1e-4}
        for run in (*tried, *shown):
            assert (run.epochs, run.bias_correction, run.mixout or None) == recipe
        assert study(f"best-{name}").pilot == f"rates-{name}"
    half = {config for name in expected for config in studies.tuned(RATE / 2, name)}
    shared = [c for c in study("table1-half").build(RATE) if c.epochs == 3]
    assert set(shared) < half  # what is there already is not run again


def test_silent_choices_are_switched_one_by_one_in_a_cell_of_figure_5() -> None:
    runs = studies.silent(RATE)
    cell = [c for c in studies.figure_5(RATE) if c in runs]
    assert len(runs) == 125 and runs[:25] == cell
    assert {(c.model, c.learning_rate, c.bias_correction) for c in runs} == {
        ("mini-bert", RATE / 2, False)
    }
    for start, changed in zip(range(25, 125, 25), studies.SILENT.values(), strict=True):
        assert runs[start : start + 25] == [config.replace(**changed) for config in cell]
        assert all(getattr(RunConfig(segments=True), name) != to for name, to in changed.items())
    table = pd.DataFrame([vars(config) for config in runs])
    names = [studies.USUAL, *studies.SILENT]
    assert studies.choices(table).tolist() == [name for name in names for _ in range(25)]


@pytest.mark.parametrize(("task", "steps"), [("mini-cola", 750), ("mini-qnli", 1875)])
def test_small_data_runs_have_the_full_set_s_steps_or_its_epochs(task: str, steps: int) -> None:
    full, few, long = (studies.small_data(RATE, task)[i] for i in (0, 25, 50))
    assert full.steps(RECIPES[task].size) == steps
    assert (few.train_size, few.steps(RECIPES[task].size)) == (1000, 189)
    assert (long.train_size, long.steps(RECIPES[task].size)) == (1000, steps)
    assert not full.bias_correction
    named = next(name for name, one in studies.SMALL.items() if one == task)
    gentle = study(f"best-small-{named}")
    assert gentle.pilot == "rates-devlin"  # the same runs at the rate chosen for their recipe
    assert gentle.build(1e-4) == study(f"small-{named}").build(1e-4)


def test_the_gate_asks_every_task_on_pilot_seeds_with_correction() -> None:
    runs = studies.gate(RATE)
    cells = Counter((c.task, c.epochs) for c in runs)
    assert cells == {(task, epochs): n for task in RECIPES for epochs, n in ((3, 3), (20, 1))}
    others = studies.study("gate-models").build(RATE)
    assert {(c.model, c.task) for c in others} == {
        (model, "mini-rte") for model in ("mini-roberta", "mini-albert")
    }
    assert all(c.bias_correction and c.seed in PILOT for c in runs + others)


def test_warmup_and_correction_are_crossed() -> None:
    cells = Counter((c.warmup, c.bias_correction) for c in studies.warmup(RATE))
    assert cells == {(w, b): 25 for w in (0.0, 0.1) for b in (False, True)}
    half = study("warmup-half").build(RATE)
    assert {config.learning_rate for config in half} == {RATE / 2}
    assert len({*half} & {*study("figure5").build(RATE)}) == 50  # those with warmup are there


def test_real_runs_use_the_paper_s_rate() -> None:
    runs = studies.real("somewhere/model")
    assert len(runs) == 2 * 2 * 5
    assert {config.task for config in runs} == {"rte", "mrpc"}
    assert {config.learning_rate for config in runs} == {2e-5}
    assert {config.model for config in runs} == {"somewhere/model"}


def test_the_pilot_of_real_text_asks_the_four_tasks_on_pilot_seeds() -> None:
    runs = studies.wiki_pilot()
    assert {config.model for config in runs} == {"mini-wiki"}
    assert Counter((c.task, c.train_size) for c in runs) == {
        ("rte", None): 70,
        ("mrpc", None): 70,
        ("cola", None): 70,
        ("qnli", 1000): 70,
    }
    assert {config.seed for config in runs} == set(PILOT)
    assert all(config.bias_correction and config.segments for config in runs)


def test_real_text_has_three_rates_with_and_without_correction_and_the_three_methods() -> None:
    rates = studies.wiki_rates(RATE)
    cells = Counter((c.task, c.learning_rate, c.bias_correction) for c in rates)
    assert set(cells.values()) == {25} and len(cells) == 4 * 3 * 2
    assert {c.train_size for c in rates if c.task == "qnli"} == {1000}
    assert all(c.epochs == 3 and c.precision == "fp32" for c in rates)
    methods = studies.wiki_table_1(RATE)
    assert Counter(c.task for c in methods) == {"rte": 75, "mrpc": 75, "cola": 75}
    plain = {c for c in methods if c.epochs == 3 and not c.mixout}
    assert plain <= set(rates)  # Devlin is a cell of both


def test_the_blind_rule_takes_the_largest_rate_at_which_every_corrected_run_learns() -> None:
    failing = {(1e-4, True): 0, (2e-4, True): 0, (4e-4, True): 1, (1e-4, False): 3}
    rows = [
        {"learning_rate": rate, "bias_correction": correction, "failed": i < failures}
        for (rate, correction), failures in failing.items()
        for i in range(10)
    ]
    runs = pd.DataFrame(rows).assign(constant=False, flat_loss=False, diverged=False)
    assert reference_rate(runs) == 2e-4
    flat = (runs["learning_rate"] == 2e-4) & (runs.index % 10 == 9)
    assert reference_rate(runs.assign(flat_loss=flat)) == 1e-4


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_builds_runs_without_double_ones(name: str) -> None:
    found = study(name)
    runs = found.build(RATE)
    assert found.name == name
    assert found.purpose
    assert len(set(runs)) == len(runs) > 0
    pinned = [c.replace(weights=c.model, tokenizer="t" * 64, data=c.task) for c in runs]
    assert len({config.key for config in pinned}) == len(runs)
    assert found.needs_rate == (runs != found.build(2 * RATE))
    first = study(found.pilot)
    assert found.pilot in studies.RULES and not (first.needs_rate and study(first.pilot).needs_rate)
    assert {c.model for c in study(found.pilot).build(RATE)} & {c.model for c in runs} or (
        found.pilot == "pilot-rte"
    )


def test_an_unknown_study_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown study 'table1-rt': did you mean 'table1-rte'"):
        study("table1-rt")
