"""Runs by their recipe, and remedies beside what they are to mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fakes
import pandas as pd
import pytest

from stabkit.errors import StabkitError
from stabkit.presets import preset
from stabkit.recipes import by_recipe, names, recipes, seedless
from stabkit.store import Store

BASE = preset("trainer", learning_rate=1e-4).replace(**fakes.DIGESTS)
MENDED = BASE.replace(epochs=20, warmup=0.1)
HALVED = MENDED.replace(learning_rate=5e-5)


def table(folder: Path, *cells: tuple[Any, int, bool]) -> pd.DataFrame:
    """Return the runs of recipes: so many seeds each, failed or not."""
    store, asked = Store(folder), []
    for config, seeds, failed in cells:
        score = 0.5 if failed else 0.9
        judged = {"failed": failed, "flat_loss": failed, "score_last": score, "steps": 468}
        for seed in range(seeds):
            asked.append(config.replace(seed=seed))
            store.put(fakes.judged(asked[-1], **judged, train_accuracy=score))
    return store.table(asked)


def test_runs_of_one_recipe_differ_by_their_seeds_alone(tmp_path: Path) -> None:
    runs = table(tmp_path, (BASE, 3, True), (MENDED, 2, False))
    found = by_recipe(runs.sample(frac=1, random_state=0))
    assert {config: sorted(group["seed"]) for config, group in found.items()} == {
        seedless(BASE): [0, 1, 2],
        seedless(MENDED): [0, 1],
    }


def test_a_remedy_stands_with_what_it_is_to_mend(tmp_path: Path) -> None:
    (one,) = recipes(table(tmp_path, (BASE, 3, True), (MENDED, 2, False)))
    assert (one.config, one.remedy) == (seedless(BASE), seedless(MENDED))
    told = one.blocks()["With the remedy"][0]
    assert "3 of 3 as you train, 0 of 2 with the remedy" in told
    assert names([one]) == ["mini-bert on mini-rte"]


def test_a_remedy_with_a_remedy_of_its_own_is_shown_with_it(tmp_path: Path) -> None:
    cells = (HALVED, 2, False), (BASE, 2, True), (MENDED, 2, True)
    found = recipes(table(tmp_path, *cells))
    pairs = [(one.config, one.remedy) for one in found]
    assert pairs == [
        (seedless(BASE), seedless(MENDED)),
        (seedless(MENDED), seedless(HALVED)),
    ]


def test_a_recipe_without_failures_has_no_remedy(tmp_path: Path) -> None:
    found = recipes(table(tmp_path, (BASE, 2, False), (MENDED, 2, False)))
    assert [one.remedy for one in found] == [None, None]
    assert [list(one.blocks()) for one in found] == [["As you train", "So"]] * 2
    assert names(found) == [
        "mini-bert on mini-rte, epochs 3, warmup 0",
        "mini-bert on mini-rte, epochs 20, warmup 0.1",
    ]


def test_recipes_that_differ_in_their_data_alone_have_headings_of_their_own(tmp_path: Path) -> None:
    cells = (BASE.replace(data="a" * 64), 2, False), (BASE.replace(data="b" * 64), 2, False)
    assert names(recipes(table(tmp_path, *cells))) == [
        "mini-bert on mini-rte, data aaaaaa",
        "mini-bert on mini-rte, data bbbbbb",
    ]


def test_runs_of_several_kinds_of_hardware_are_told(tmp_path: Path) -> None:
    runs = table(tmp_path, (BASE, 2, True), (MENDED, 2, False))
    (one,) = recipes(runs)
    assert "Mind" not in one.blocks()
    (one,) = recipes(runs.assign(hardware=["Some CPU"] * 2 + ["Another CPU"] * 2))
    told = one.blocks()["Mind"]
    assert told == ["scores and failures may differ between Some CPU and Another CPU"]


def test_one_seed_is_no_recipe_yet(tmp_path: Path) -> None:
    assert recipes(table(tmp_path, (BASE, 1, True), (MENDED, 1, False))) == []


def test_a_foreign_table_is_refused() -> None:
    with pytest.raises(StabkitError, match="the table has no column key"):
        recipes(pd.DataFrame({"seed": [1]}))
