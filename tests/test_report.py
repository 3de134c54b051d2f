"""Run tables as text: every run once, cells that differ in more than the seed apart."""

from __future__ import annotations

from pathlib import Path

import fakes
import pandas as pd
import pytest

from stabkit import report
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.presets import RECIPES, preset
from stabkit.store import Store


def runs(tmp_path: Path, *configs: RunConfig, **summary: object) -> pd.DataFrame:
    store = Store(tmp_path)
    for config in configs:
        store.put(fakes.judged(config.replace(**fakes.DIGESTS), **summary))
    return store.table(config.replace(**fakes.DIGESTS) for config in configs)


def methods(seeds: int = 2) -> list[RunConfig]:
    return [preset(name).replace(seed=seed) for name in RECIPES for seed in range(seeds)]


def test_recipes_are_called_by_their_authors_names(tmp_path: Path) -> None:
    table, by = report.cells(runs(tmp_path, *methods()))
    assert by == ["method", "model", "task"]
    assert list(table["method"]) == ["Devlin"] * 2 + ["Lee"] * 2 + ["Ours"] * 2


def test_other_settings_are_shown_as_they_are(tmp_path: Path) -> None:
    table, by = report.cells(runs(tmp_path, *methods(), preset("lee", mixout=0.7)))
    assert by == ["model", "task", "epochs", "bias_correction", "mixout"]
    assert report.method(table.iloc[-1].to_dict()) is None
    assert report.method(preset("ours", multiplier="times").__dict__) is None


def test_runs_on_other_data_are_never_pooled(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for digest in ("one", "two"):
        store.put(fakes.judged(RunConfig(**{**fakes.DIGESTS, "data": digest})))
    assert report.cells(store.table())[1] == ["model", "task", "data"]


def test_summary_has_a_line_for_each_cell_and_says_on_what(tmp_path: Path) -> None:
    table = runs(tmp_path, *methods(), failed=True, score_last=0.5, score_best=0.75)
    table = table.assign(constant=False, failed=table["seed"] == 0, diverged=True)
    lines = report.summary(table).splitlines()
    assert lines[0].split()[:5] == ["method", "model", "task", "runs", "failed"]
    assert lines[0].split()[5:7] == ["learn", "nothing"]
    assert lines[0].split()[7:] == ["failed,", "%", "std", "mean", "median", "max"]
    assert lines[1].split()[:5] == ["Devlin", "mini-bert", "mini-rte", "2", "1"]
    assert lines[1].split()[5] == "2"  # one of them by its loss alone
    assert lines[1].endswith("50.0")
    assert lines[4:] == [
        "",
        "dev accuracy of the last checkpoint, percent, with 95 % intervals",
        "6 runs; cpu, Some CPU; 2026-01-01",
    ]
    best = report.summary(table, "score_best")
    assert "75.0" in best and "of the best checkpoint" in best
    with pytest.raises(StabkitError, match="no runs"):
        report.summary(table.iloc[:0])


def test_listing_has_a_line_for_each_run(tmp_path: Path) -> None:
    table = runs(tmp_path, *methods())
    lines = report.listing(table).splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(table["key"])
    assert not any("failed" in line for line in lines)


def test_outcome_names_every_sign_of_failure(tmp_path: Path) -> None:
    (_, good), (_, bad) = (
        *runs(tmp_path / "a", RunConfig(), score_last=0.9).iterrows(),
        *runs(tmp_path / "b", RunConfig(), failed=True, diverged=True).iterrows(),
    )
    assert "dev accuracy 90.0 %, majority class 50.0 %" in report.outcome(good)
    assert report.outcome(good).endswith("no sign of failure")
    assert report.outcome(bad).endswith(
        "signs of failure: accuracy at or below the majority class; loss not finite"
    )


def test_details_and_recipes_show_every_field(tmp_path: Path) -> None:
    table = runs(tmp_path, RunConfig(text_columns=("a", "b")))
    lines = dict(
        line.split(maxsplit=1) for line in report.details(table.iloc[0]).splitlines() if line
    )
    assert set(lines) == set(table.columns)
    assert (lines["text_columns"], lines["learning_rate"]) == ("a, b", "2e-05")
    assert lines["dev_predictions"] == "5 values"
    assert "lee            epochs=3  bias_correction=False  mixout=0.9\n" in report.recipes()
    assert "roberta models beta2=0.98" in report.recipes()
