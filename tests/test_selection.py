"""Which stored runs are meant by a study, its seeds, or configurations without digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fakes
import pandas as pd
import pytest

from stabkit import results, selection, studies
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, StabkitError
from stabkit.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store with a small pilot: failures above 2e-4, and without correction."""
    monkeypatch.setattr(studies, "PILOT", range(1000, 1002))
    monkeypatch.setattr(studies, "PILOT_RATES", (1e-4, 2e-4, 4e-4))
    store = Store(tmp_path / "runs")
    for config in studies.pilot():
        failed = config.learning_rate > 2e-4 or not config.bias_correction
        store.put(fakes.judged(config.replace(**fakes.DIGESTS), failed=failed))
    return store


def test_runs_match_whatever_their_digests_in_the_order_asked_for(store: Store) -> None:
    pilot = studies.pilot()
    again = pilot[3].replace(**{**fakes.DIGESTS, "weights": "other"})
    store.put(fakes.judged(again))
    asked = [pilot[5], pilot[3], pilot[0], RunConfig(seed=99)]
    found = selection.matching(store.table(), asked)
    wanted = [pilot[i].replace(**fakes.DIGESTS).key for i in (5, 3, 0)]
    assert sorted(found["key"]) == sorted([*wanted, again.key])
    assert found["key"].iloc[0] == wanted[0] and found["key"].iloc[-1] == wanted[-1]
    assert selection.matching(Store(store.path / "none").table(), asked).empty


def test_several_grids_are_matched_as_each_alone(store: Store) -> None:
    pilot, runs = studies.pilot(), store.table()
    grids = {"some": pilot[2:5], "shared": pilot[:3], "none": [RunConfig(seed=99)]}
    for name, found in selection.by_grid(runs, grids).items():
        pd.testing.assert_frame_equal(found, selection.matching(runs, grids[name]))
        assert len(found) == {"some": 3, "shared": 3, "none": 0}[name]


def test_the_reference_rate_needs_the_whole_pilot(store: Store) -> None:
    assert selection.reference_rate(store) == 2e-4
    key = studies.pilot()[0].replace(**fakes.DIGESTS).key
    (store.path / "runs" / f"{key}.parquet").unlink()
    with pytest.raises(StabkitError, match="1 of its 12 runs are not in"):
        selection.reference_rate(store)


def test_a_study_takes_the_reference_rate_or_the_one_given(store: Store) -> None:
    assert {config.learning_rate for config in selection.study_grid("table1-rte", store)} == {2e-4}
    chosen = selection.study_grid("table1-rte", store, 5e-4)
    assert {config.learning_rate for config in chosen} == {5e-4}
    assert selection.study_grid("pilot-rte", store) == studies.pilot()
    with pytest.raises(ConfigError, match="did you mean 'pilot-rte'"):
        selection.study_grid("pilot-rt", store)


def test_a_rate_may_be_chosen_at_rates_that_follow_from_another_pilot(store: Store) -> None:
    with pytest.raises(StabkitError, match="the study rates-lee, and 20 of its 20 runs are not in"):
        selection.study_grid("best-lee", store)
    scores = {2.5e-5: 0.6, 5e-5: 0.8, 1e-4: 0.7, 2e-4: 0.5}
    for config in selection.study_grid("rates-lee", store):
        score = scores[config.learning_rate]
        store.put(fakes.judged(config.replace(**fakes.DIGESTS), score_last=score))
    found = selection.study_grid("best-lee", store)
    assert {config.learning_rate for config in found} == {5e-5}
    assert {config.mixout for config in found} == {0.9}


def failing(counts: dict[float, int], seeds: int = 5) -> pd.DataFrame:
    """Return a run table in which the highest seeds of each learning rate fail."""
    configs = [c for rate in counts for c in fakes.grid(seeds, learning_rate=rate)]
    failed = [c.seed >= seeds - counts[c.learning_rate] for c in configs]
    runs = [fakes.judged(c, failed=f).row() for c, f in zip(configs, failed, strict=True)]
    return results.frame(results.concat(runs))


def test_specimens_are_the_lowest_seeds_of_the_first_rate_that_has_both_kinds() -> None:
    table = failing({1e-4: 0, 2e-4: 2, 4e-4: 3})
    found = selection.specimens(table, each=2)
    assert found["learning_rate"].unique().tolist() == [2e-4]
    assert found["seed"].tolist() == [3, 4, 0, 1]
    long = table.assign(epochs=20, failed=table["seed"] < 3)
    mixed = pd.concat([table[table["failed"]], long[~long["failed"]]])
    with pytest.raises(StabkitError, match="no configuration has 1 failed and 1 successful"):
        selection.specimens(mixed, each=1)
    with pytest.raises(StabkitError, match="no configuration has 3 failed and 3 successful"):
        selection.specimens(table)


def test_specimens_are_of_plain_recipes_and_successful_without_any_sign_of_failure() -> None:
    table = failing({2e-4: 2})
    for settings in ({"mixout": 0.9}, {"multiplier": "times"}):
        with pytest.raises(StabkitError, match="no configuration"):
            selection.specimens(table.assign(**settings), each=2)
    flat = table.assign(flat_loss=table["seed"] == 0)
    assert selection.specimens(flat, each=2)["seed"].tolist() == [3, 4, 1, 2]


def test_runs_that_depart_from_the_released_code_are_specimens_last_and_not_exhibited() -> None:
    table = failing({2e-4: 2}).assign(segments=True)  # as the presets of mini models have it
    for changed in studies.SILENT.values():
        other = table.assign(**changed, key=[f"other-{key}" for key in table["key"]])
        both = pd.concat([other, table], ignore_index=True)
        assert selection.specimens(both, each=2)["key"].tolist() == (
            selection.specimens(table, each=2)["key"].tolist()
        )
        assert selection.specimens(other, each=2)["key"].str.startswith("other-").all()
        assert selection.exhibited(both) == selection.exhibited(table)
        assert len(selection.exhibited(table)) == 5
        assert selection.departures(other.iloc[0]) == len(changed)


def test_specimens_are_not_taken_from_the_seeds_that_were_chosen_on() -> None:
    table = failing({2e-4: 2})
    pilot = failing({1e-4: 2}).assign(seed=lambda runs: runs["seed"] + 1000)
    both = pd.concat([pilot, table], ignore_index=True)
    assert selection.specimens(both, each=2)["key"].tolist() == (
        selection.specimens(table, each=2)["key"].tolist()
    )


def test_runs_of_a_study_are_told_from_others_at_any_rate() -> None:
    mine = [*studies.table_1(3e-4)[:1], *studies.pilot()[:1], *studies.ablation(1e-3)[-1:]]
    mine += studies.real("some/model", seeds=1)
    mine += [*studies.figure_5(1e-4, ["mini-roberta"])[:1], *studies.small_data(1e-4, "mini-qnli")]
    others = [
        mine[0].replace(seed=2000),
        mine[0].replace(evals_per_epoch=1),
        mine[0].replace(model="some/model"),
        studies.real("mini-bert")[0],
    ]
    configs = [config.replace(**fakes.DIGESTS) for config in (*mine, *others)]
    runs = results.frame(results.concat(fakes.judged(config).row() for config in configs))
    assert selection.studied(runs)["key"].tolist() == [c.key for c in configs[: len(mine)]]


def test_runs_that_fail_by_a_lesser_sign_are_not_exhibited() -> None:
    configs = [c.replace(**fakes.DIGESTS) for c in studies.table_1(2e-4)[:8]]
    table = results.frame(results.concat(fakes.judged(config).row() for config in configs))
    table = table.assign(failed=table["seed"] > 4, flat_loss=table["seed"].isin([0, 2, 7]))
    shown = table[table["key"].isin(selection.exhibited(table))]
    assert sorted(shown["seed"]) == [1, 3, 4, 5, 6, 7]


def test_seeds_are_a_range_as_in_python() -> None:
    configs = fakes.grid(5)
    assert selection.with_seeds(configs, "1:3") == configs[1:3]
    for text in ("3", "a:b", ":", "-1:3", "1:2:3"):
        with pytest.raises(ConfigError, match="expected A:B"):
            selection.with_seeds(configs, text)
    for text in ("5:9", "3:3"):
        with pytest.raises(ConfigError, match="seeds 0 to 4 only"):
            selection.with_seeds(configs, text)


def test_one_model_of_a_study_may_be_chosen() -> None:
    one, other = fakes.grid(2), fakes.grid(2, model="mini-roberta")
    assert selection.with_model(one + other, "mini-roberta") == other
    with pytest.raises(ConfigError, match="the study has mini-bert, mini-roberta only"):
        selection.with_model(one + other, "bert-large")


def test_real_text_has_a_pilot_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StabkitError, match="follows from the study wiki-pilot, and 24 of its 24"):
        selection.study_grid("wiki-rates", store)
    for config in studies.wiki_pilot():
        digests = {**fakes.DIGESTS, "data": config.task}
        misfit = config.task == "rte" or config.learning_rate > 1e-4
        store.put(fakes.judged(config.replace(**digests), flat_loss=misfit, failed=False))
    assert {c.learning_rate for c in selection.study_grid("wiki-table1", store)} == {1e-4}
    assert selection.reference_rate(store) == 2e-4
    assert len(selection.studied(store.table())) == len(store.table())


def test_exhibited_are_the_lowest_seeds_however_the_table_lies() -> None:
    configs = [c.replace(**fakes.DIGESTS) for c in studies.table_1(2e-4)[:8]]
    table = results.frame(results.concat(fakes.judged(config).row() for config in configs))
    shown = table[table["key"].isin(selection.exhibited(table.iloc[::-1]))]
    assert sorted(shown["seed"]) == [0, 1, 2]
    assert selection.exhibited(table.assign(epochs=7)) == []


def test_specimens_are_the_lowest_seeds_however_the_table_lies() -> None:
    table = failing({2e-4: 3}, seeds=6)
    assert selection.specimens(table.iloc[::-1], each=2)["seed"].tolist() == [3, 4, 0, 1]


OTHERS: dict[str, Any] = {"warmup": 0.0, "task": "mini-cola", "mixout": 0.9, "seed": 1000}


@pytest.mark.parametrize(("name", "value"), [*OTHERS.items(), ("multiplier", "times")])
def test_exhibited_are_reported_runs_of_the_recipe_on_the_rte_like_task(
    name: str, value: Any
) -> None:
    configs = [config.replace(**fakes.DIGESTS) for config in studies.table_1(2e-4)[:3]]
    table = results.frame(results.concat(fakes.judged(config).row() for config in configs))
    assert len(selection.exhibited(table)) == 3
    assert selection.exhibited(table.assign(**{name: value})) == []


def test_a_pilot_of_two_weights_tells_no_rate(store: Store) -> None:
    pilot = studies.pilot()[0]
    (store.path / "runs" / f"{pilot.replace(**fakes.DIGESTS).key}.parquet").unlink()
    store.put(fakes.judged(pilot.replace(**{**fakes.DIGESTS, "weights": "other"})))
    with pytest.raises(StabkitError, match="several values of weights"):
        selection.reference_rate(store)
