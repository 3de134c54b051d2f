"""The verdict on a recipe, its reasons, the remedy, and whether it helped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fakes
import pandas as pd
import pytest

from stabkit import diagnosis
from stabkit.diagnosis import comparison, diagnose
from stabkit.errors import StabkitError
from stabkit.presets import preset
from stabkit.remedy import arguments, remedy
from stabkit.store import Store

UNLEARNED = {"failed": True, "flat_loss": True, "score_last": 0.5, "train_accuracy": 0.5}
GOOD = {"failed": False, "score_last": 0.9, "train_accuracy": 0.99}


def table(folder: Path, *outcomes: dict[str, Any], recipe: str = "devlin") -> pd.DataFrame:
    store = Store(folder / recipe)
    base = preset(recipe, learning_rate=1e-4).replace(**fakes.DIGESTS)
    configs = [base.replace(seed=seed) for seed in range(len(outcomes))]
    for config, outcome in zip(configs, outcomes, strict=True):
        store.put(fakes.judged(config, **{"steps": 468, **outcome}))
    return store.table(configs)


def test_failures_are_counted_and_told_apart(tmp_path: Path) -> None:
    overfitted = {"failed": True, "score_last": 0.5, "train_accuracy": 1.0}
    diverged = {"failed": True, "diverged": True, "flat_loss": True, "score_last": 0.5}
    found = diagnose(table(tmp_path, GOOD, UNLEARNED, UNLEARNED, overfitted, diverged))
    assert str(found.failures) == "4 of 5"
    assert (found.unlearned, found.overfitted, found.diverged) == (2, 1, 1)
    told = "\n".join(found.verdict() + found.reasons())
    assert "unstable: 4 of 5 runs fail (80.0 (37.6 to 96.4) %" in told
    assert "2 of the 4 failed runs end at the training loss of guessing\n" in told
    assert "1 of the 4 failed runs fit the training set but guess on the dev set" in told
    assert "1 of the 4 failed runs diverged" in told


def test_who_lost_what_it_had_learned_is_told_from_who_never_learned(tmp_path: Path) -> None:
    lost = UNLEARNED | {"best_accuracy": 0.82}
    never = UNLEARNED | {"best_accuracy": 0.52}
    found = diagnose(table(tmp_path, GOOD, never, lost, lost))
    assert (found.unlearned, found.forgetful) == (3, 2)
    assert found.reasons() == [
        "3 of the 3 failed runs end at the training loss of guessing; 2 of them had learned, and "
        "lost it"
    ]


def test_older_transformers_have_another_name_for_warmup(tmp_path: Path) -> None:
    found = diagnose(table(tmp_path, UNLEARNED, GOOD, recipe="trainer"))
    (line,) = diagnosis.blocks(found)["In transformers"]
    assert "warmup_steps=0.1" in line and line.endswith("(before transformers 5: warmup_ratio)")


def test_no_failure_is_no_proof(tmp_path: Path) -> None:
    found = diagnose(table(tmp_path, *[GOOD] * 5))
    assert "no run of 5 fails; the true share may still be as high as 43 %" in found.verdict()[0]
    assert found.reasons() == []
    assert list(diagnosis.blocks(found)) == ["As you train", "So"]
    assert "more seeds" in diagnosis.conclusion(found)


def test_a_loss_near_guessing_is_no_failure_of_a_run_that_has_learned(tmp_path: Path) -> None:
    """A cautious classifier: right on most of the training set, sure of nothing."""
    cautious = GOOD | {"flat_loss": True, "train_loss": 0.687}
    found = diagnose(table(tmp_path, GOOD, cautious))
    assert (found.failures.failures, found.unlearned) == (0, 0)


def test_no_recipe_mends_data(tmp_path: Path) -> None:
    guessing = {"failed": True, "score_last": 0.5, "train_accuracy": 1.0}
    found = diagnose(table(tmp_path, GOOD, guessing))
    assert found.changes() == []
    told = diagnosis.blocks(found)
    assert "What to change" not in told and "In transformers" not in told
    assert "texts that occur in both sets" in told["So"][0]


def test_where_every_seed_fails_it_is_not_the_seed(tmp_path: Path) -> None:
    told = diagnose(table(tmp_path, UNLEARNED, UNLEARNED)).verdict()[0]
    assert told.startswith("2 of 2 runs fail") and "not a matter of the seed" in told


def test_a_loss_that_is_lost_asks_for_a_smaller_rate_first(tmp_path: Path) -> None:
    lost = {"failed": True, "diverged": True, "flat_loss": True, "score_last": 0.5}
    first = diagnose(table(tmp_path, lost, GOOD)).changes()[0]
    assert (first.field, first.value) == ("learning_rate", pytest.approx(1e-5))


def test_the_remedy_of_devlin_s_recipe_is_the_paper_s(tmp_path: Path) -> None:
    found = diagnose(table(tmp_path, UNLEARNED, GOOD))
    changes = {change.field: change.value for change in found.changes()}
    assert changes == {"bias_correction": True, "epochs": 20}
    assert found.remedied() == preset("ours", learning_rate=1e-4).replace(**fakes.DIGESTS)
    # The closed form: 6.57 at update 12 with beta2 = 0.999.
    assert "up to 6.6 times at update 12" in found.changes()[0].reason
    assert arguments(found.changes()) == {"num_train_epochs": 20, "optim": "adamw_torch"}


def test_the_remedy_of_the_trainer_s_recipe_warms_up() -> None:
    changes = remedy(preset("trainer"), steps=468)
    assert [(c.field, c.value) for c in changes] == [("warmup", 0.1), ("epochs", 20)]
    assert arguments(changes) == {"warmup_steps": 0.1, "num_train_epochs": 20}


def test_steps_are_few_or_many_by_the_size_of_the_training_set(tmp_path: Path) -> None:
    runs = table(tmp_path, UNLEARNED | {"train_examples": 100}, UNLEARNED, recipe="trainer")
    runs = runs.assign(epochs=None, max_steps=30)  # of 8 examples; 13 are a pass
    changes = diagnose(runs).changes()
    assert [(c.field, c.value) for c in changes] == [("warmup", 0.1), ("max_steps", 260)]
    assert arguments(changes) == {"warmup_steps": 0.1, "max_steps": 260}
    remedied = diagnose(runs).remedied()
    assert (remedied.epochs, remedied.max_steps) == (None, 260)
    done = diagnose(runs.assign(max_steps=260, warmup=0.1)).changes()
    assert [c.field for c in done] == ["learning_rate"]
    earlier = diagnose(runs.drop(columns="train_examples")).changes()
    assert [c.field for c in earlier] == ["warmup"]


@pytest.mark.parametrize("length", [{}, {"max_steps": 900}])
def test_where_all_is_done_the_rate_is_halved(length: dict[str, int]) -> None:
    (change,) = remedy(preset("ours", learning_rate=4e-5, **length), steps=900)
    assert (change.field, change.value) == ("learning_rate", 2e-5)


def test_a_remedy_s_seed_and_randomness_stay(tmp_path: Path) -> None:
    runs = table(tmp_path, UNLEARNED, GOOD).iloc[::-1]
    assert diagnose(runs).remedied().seed == 0


def test_a_clear_difference_needs_no_more_seeds(tmp_path: Path) -> None:
    before = diagnose(table(tmp_path, *[UNLEARNED] * 5))
    after = diagnose(table(tmp_path, *[GOOD] * 5, recipe="ours"))
    lines = comparison(before, after)
    assert "5 of 5 as you train, 0 of 5 with the remedy" in lines[0]
    assert "difference 100.0 (38.6 to 100.0) points" in lines[0] and "p = 0.0079" in lines[0]
    assert len(lines) == 2
    found = diagnosis.blocks(before, after)
    assert found["With the remedy"] == lines
    assert found["So"] == ["the remedy helps: train with it"]
    told = diagnosis.text(found)
    assert all(title in told for title in found) and max(map(len, told.splitlines())) <= 88


def test_a_difference_that_may_be_chance_says_how_many_seeds_it_takes(tmp_path: Path) -> None:
    before = diagnose(table(tmp_path, UNLEARNED, UNLEARNED, GOOD, GOOD, GOOD))
    after = diagnose(table(tmp_path, *[GOOD] * 5, recipe="ours"))
    assert comparison(before, after)[-1].endswith("would need 16 seeds each")
    assert "too few to be sure" in diagnosis.conclusion(before, after)
    assert "does not help here: try half" in diagnosis.conclusion(before, before)


def test_two_recipes_at_once_are_refused(tmp_path: Path) -> None:
    runs = pd.concat([table(tmp_path, GOOD), table(tmp_path, GOOD, recipe="ours")])
    with pytest.raises(StabkitError, match="several values of method"):
        diagnose(runs)


@pytest.mark.parametrize("name", ["diverged", "flat_loss", "best_accuracy"])
def test_a_table_without_a_column_that_decides_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StabkitError, match=f"no column {name}"):
        diagnose(table(tmp_path, GOOD).drop(columns=name))


def test_a_foreign_table_is_refused() -> None:
    with pytest.raises(StabkitError, match="no column"):
        diagnose(pd.DataFrame({"a": [1]}))


def test_a_failed_run_that_has_not_fitted_is_no_fault_of_the_data(tmp_path: Path) -> None:
    halfway = {"failed": True, "score_last": 0.5, "train_accuracy": 0.7}
    found = diagnose(table(tmp_path, GOOD, halfway))
    assert (found.failures.failures, found.overfitted, found.unlearned) == (1, 0, 0)
    assert [change.field for change in found.changes()] == ["bias_correction", "epochs"]
    (reason,) = found.reasons()
    assert reason.startswith("1 of the 1 failed runs learned part of the training set, but")


def test_the_hidden_rate_is_that_of_the_recipe_s_own_schedule() -> None:
    told = [
        remedy(preset("devlin", zero_first_update=zero), steps=468)[0].reason
        for zero in (True, False)
    ]
    peaks = [int(reason.split("at its peak, at update ")[1].split(",")[0]) for reason in told]
    assert peaks == [47, 46]
