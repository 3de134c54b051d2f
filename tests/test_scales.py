"""Studies at the paper's scale: the large models, the published data, the paper's rate."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from stabkit import scales, selection, studies
from stabkit.errors import ConfigError
from stabkit.presets import FAMILIES, preset
from stabkit.scales import study_grid
from stabkit.store import Store
from stabkit.studies import STUDIES

REFUSED = {  # studies without a counterpart, and why
    "pilot-rte": "chooses the mini models' learning rate; at the paper's scale that is 2e-05",
    "wiki-pilot": "chooses the mini models' learning rate",
    "wiki-rates": "follows from wiki-pilot",
    "wiki-table1": "follows from wiki-pilot",
    "shallow": "mini-bert-shallow stands for no model of the paper; those that do are mini-bert,",
    **{f"best-{name}": f"follows from rates-{name}" for name in studies.TUNED},
    **{f"best-small-{name}": "follows from rates-devlin" for name in studies.SMALL},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store: nothing at the paper's scale follows from a pilot."""
    return Store(tmp_path)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_one_of_large_models_and_published_data_or_says_why_not(
    name: str, store: Store
) -> None:
    if name in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[name]):
            study_grid(name, store, scale="paper")
        return
    found = study_grid(name, store, scale="paper")
    assert len(found) == len(set(found)) == len(STUDIES[name].build(1e-4))
    assert {config.model for config in found} <= set(scales.MODELS.values())
    assert {config.task for config in found} <= {"rte", "mrpc", "cola", "qnli", "scitail"}


def test_table_1_is_the_presets_at_the_paper_s_rate(store: Store) -> None:
    found = study_grid("table1-rte", store, scale="paper")
    for name in studies.METHODS:
        wanted = preset(name, model="bert-large-uncased", task="rte", learning_rate=2e-5)
        assert wanted.replace(evals_per_epoch=studies.LOOKS, seed=7) in found
    assert Counter(config.learning_rate for config in found) == {2e-5: 75}


def test_each_model_has_the_settings_of_its_family(store: Store) -> None:
    found = study_grid("figure5", store, scale="paper")
    assert Counter(config.model for config in found) == dict.fromkeys(scales.MODELS.values(), 150)
    assert {config.learning_rate for config in found} == {1e-5, 2e-5, 3e-5}
    for config in found:
        family = next(f for f in ("roberta", "albert", "bert") if f in config.model)
        assert all(getattr(config, name) == value for name, value in FAMILIES[family].items())
        assert not config.segments


def test_segments_are_the_choice_that_a_study_makes_otherwise(store: Store) -> None:
    found = study_grid("silent", store, scale="paper")
    assert Counter(config.segments for config in found) == {False: 100, True: 25}


@pytest.mark.parametrize(("task", "epoch"), [("cola", 535), ("mrpc", 230), ("qnli", 6547)])
def test_few_examples_are_trained_for_the_steps_of_the_published_set(
    task: str, epoch: int, store: Store
) -> None:
    found = study_grid(f"small-{task}", store, scale="paper")
    lengths = Counter((c.train_size, c.epochs, c.max_steps) for c in found)
    assert lengths == {(None, 3, None): 25, (1000, 3, None): 25, (1000, None, 3 * epoch): 25}


def test_a_rate_may_be_given_and_the_mini_scale_is_as_before(store: Store) -> None:
    assert {c.learning_rate for c in study_grid("best-lee", store, 1e-5, "paper")} == {1e-5}
    assert study_grid("warmup", store, 3e-4) == selection.study_grid("warmup", store, 3e-4)
