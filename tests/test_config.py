"""The configuration: its key, its row in a table, and what it refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stabkit.config import LOCATIONS, RunConfig
from stabkit.errors import ConfigError
from stabkit.results import RunResult, frame

SEEDS = st.integers(0, 2**63 - 1)
COUNTS = st.integers(1, 10**9)
POSITIVE = st.floats(1e-300, 1e300)
SHARES = st.floats(0, 1)
BELOW_ONE = st.floats(0, 1, exclude_max=True)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.text("abcXYZ-_/. 0", min_size=1, max_size=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": NAMES,
    "task": NAMES,
    "dev_file": st.none() | NAMES,
    "text_columns": st.lists(NAMES, max_size=2).map(tuple),
    "label_column": st.none() | NAMES,
    "weights": DIGESTS,
    "tokenizer": DIGESTS,
    "data": DIGESTS,
    **dict.fromkeys(("seed", "head_seed", "order_seed", "dropout_seed", "subset_seed"), SEEDS),
    "epochs": st.none() | COUNTS,
    "max_steps": st.none() | COUNTS,
    "train_size": st.none() | COUNTS,
    "batch_size": COUNTS,
    "max_length": COUNTS,
    "learning_rate": POSITIVE,
    "warmup": SHARES,
    "zero_first_update": st.booleans(),
    "multiplier": st.sampled_from(["none", "times", "divided"]),
    "beta1": BELOW_ONE,
    "beta2": BELOW_ONE,
    "eps": POSITIVE,
    "eps_placement": st.sampled_from(["before", "after"]),
    "bias_correction": st.booleans(),
    "weight_decay": st.floats(-0.0, 1e300),
    "decay_after_step": st.booleans(),
    "clip_norm": st.none() | POSITIVE,
    "hidden_dropout": BELOW_ONE,
    "attention_dropout": BELOW_ONE,
    "classifier_dropout": BELOW_ONE,
    "init_std": POSITIVE,
    "segments": st.booleans(),
    "pooler": st.sampled_from(["pretrained", "new"]),
    "pooler_dropout": st.booleans(),
    "mixout": SHARES,
    "mixout_mask": st.sampled_from(["column", "element"]),
    "mixout_rescale_gradient": st.booleans(),
    "precision": st.sampled_from(["fp32", "tf32", "bf16", "fp16"]),
    "evals_per_epoch": st.integers(0, 10**9),
}
few = settings(max_examples=50)
FIELDS = [field.name for field in dataclasses.fields(RunConfig)]
PINNED = RunConfig(weights="w" * 64, tokenizer="t" * 64, data="d" * 64)


def content(config: RunConfig) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in LOCATIONS}


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    values = draw(st.fixed_dictionaries(VALUES))
    if (values["epochs"] is None) == (values["max_steps"] is None):
        values["epochs"], values["max_steps"] = draw(
            st.sampled_from([(values["epochs"] or 3, None), (None, values["max_steps"] or 7)])
        )
    if values["multiplier"] != "none":
        values["bias_correction"] = values["multiplier"] == "times"
    return RunConfig(**values)


def test_every_field_has_a_strategy_here() -> None:
    assert set(VALUES) == set(FIELDS)
    assert set(LOCATIONS) < set(FIELDS)


@few
@given(configs(), st.randoms(use_true_random=False))
def test_the_key_does_not_depend_on_the_order_of_the_fields(config: RunConfig, random: Any) -> None:
    items = list(dataclasses.asdict(config).items())
    random.shuffle(items)
    again = RunConfig(**dict(items))
    assert again == config
    assert again.key == config.key
    text = json.dumps(content(config), sort_keys=True)  # whatever the order of declaration
    assert config.key == hashlib.sha256(text.encode()).hexdigest()[:16]


@few
@given(configs(), st.sampled_from(FIELDS), st.data())
def test_a_changed_field_changes_the_key_unless_it_is_a_location(
    config: RunConfig, name: str, data: st.DataObject
) -> None:
    try:
        other = dataclasses.replace(config, **{name: data.draw(VALUES[name])})
    except ConfigError:
        assume(False)
    assert (other.key == config.key) == (content(other) == content(config))
    if name in LOCATIONS:
        assert other.key == config.key


@few
@given(configs(), configs())
def test_two_configurations_share_a_key_only_if_they_say_the_same(
    one: RunConfig, two: RunConfig
) -> None:
    assert (one.key == two.key) == (content(one) == content(two))


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in LOCATIONS])
def test_no_field_is_forgotten_in_the_key(name: str) -> None:
    other: dict[str, dict[str, Any]] = {
        "epochs": {"epochs": 4},
        "max_steps": {"epochs": None, "max_steps": 3},
        "multiplier": {"multiplier": "times"},
        "eps_placement": {"eps_placement": "after"},
        "pooler": {"pooler": "new"},
        "mixout_mask": {"mixout_mask": "element"},
        "precision": {"precision": "bf16"},
        "train_size": {"train_size": 9},
        "clip_norm": {"clip_norm": None},
    }
    value = getattr(PINNED, name)
    simple: Any = not value if isinstance(value, bool) else value * 2 if value else 1
    simple = 0.5 if isinstance(value, float) and name != "learning_rate" else simple
    assert PINNED.replace(**other.get(name, {name: simple})).key != PINNED.key


def test_the_key_is_the_same_in_every_process() -> None:
    script = (
        "import sys; from stabkit.config import RunConfig;"
        "print(RunConfig(weights='w'*64, tokenizer='t'*64, data='d'*64).key);"
        "assert not {'torch', 'pandas', 'transformers'} & sys.modules.keys()"
    )
    for hash_seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        printed = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True
        )
        assert printed.stdout.decode().strip() == PINNED.key


def test_a_configuration_without_digests_has_no_key() -> None:
    for name in ("weights", "tokenizer", "data"):
        with pytest.raises(ConfigError, match=r"call stabkit\.train\.pin\(config\) first"):
            _ = PINNED.replace(**{name: ""}).key


@few
@given(configs())
def test_a_row_of_the_run_table_gives_the_configuration_back(config: RunConfig) -> None:
    nothing = pd.DataFrame({"step": [0]})
    table = RunResult(config, {"score_last": 0.5}, nothing, nothing).row()
    assert RunConfig.from_row(table.to_pylist()[0]) == config
    assert RunConfig.from_row(frame(table).iloc[0].to_dict()) == config
    assert RunConfig.from_row(frame(table).iloc[0].to_dict()).key == config.key


def test_numpy_scalars_and_paths_become_python_values() -> None:
    config = PINNED.replace(
        seed=np.int64(3), warmup=np.float64(0.5), segments=np.bool_(True), task=Path("a", "b.csv")
    )
    assert config == PINNED.replace(
        seed=3, warmup=0.5, segments=True, task=os.fspath(Path("a/b.csv"))
    )
    assert isinstance(config.segments, bool)
    assert isinstance(PINNED.replace(warmup=0).warmup, float)
    assert PINNED.replace(epochs=3.0).key == PINNED.key
    assert PINNED.replace(weight_decay=-0.0).key == PINNED.replace(weight_decay=0.0).key


def test_a_row_without_a_column_is_refused() -> None:
    row = dataclasses.asdict(PINNED)
    del row["epochs"], row["mixout"]
    with pytest.raises(ConfigError, match=r"not a row of a run table: no column epochs, mixout"):
        RunConfig.from_row(row)


def test_one_seed_sets_the_seeds_that_are_not_set_apart() -> None:
    def seeds(config: RunConfig) -> tuple[Any, ...]:
        return config.head_seed, config.order_seed, config.dropout_seed

    assert seeds(RunConfig(seed=7)) == (7, 7, 7)
    apart = RunConfig(seed=7, order_seed=1)
    assert seeds(apart) == (7, 1, 7)
    assert seeds(apart.replace(epochs=5)) == (7, 1, 7)
    assert seeds(apart.replace(seed=8)) == (8, 8, 8)
    assert seeds(apart.replace(seed=8, head_seed=2)) == (2, 8, 8)
    assert (
        PINNED.replace(seed=7).key == PINNED.replace(head_seed=7, order_seed=7, dropout_seed=7).key
    )


def test_steps_count_the_last_smaller_batch() -> None:
    """Section 7.2: 156, 230, 535 and 6,547 steps an epoch."""
    config = RunConfig()
    for examples, steps in ((2490, 156), (3668, 230), (8551, 535), (104743, 6547)):
        assert config.steps_per_epoch(examples) == steps
        assert config.steps(examples) == 3 * steps
    assert config.replace(train_size=1000).steps(8551) == 3 * 63
    assert config.replace(epochs=None, max_steps=10).steps(8551) == 10


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"learning_rate": 0}, r"learning_rate is 0.*; expected a number above 0"),
    ({"learning_rate": -1e-5}, r"learning_rate is -1e-05; expected a number above 0"),
    ({"learning_rate": float("nan")}, "learning_rate is nan; expected a finite float"),
    ({"learning_rate": float("inf")}, "learning_rate is inf; expected a finite float"),
    ({"learning_rate": "2e-5"}, "learning_rate is '2e-5'; expected a finite float"),
    ({"learning_rate": None}, "learning_rate is None; expected a finite float"),
    ({"batch_size": 0}, "batch_size is 0; expected a number above 0"),
    ({"batch_size": 1.5}, r"batch_size is 1\.5; expected a finite int"),
    ({"batch_size": True}, "batch_size is True; expected a finite int"),
    ({"max_length": -1}, "max_length is -1; expected a number above 0"),
    ({"epochs": 0}, "epochs is 0; expected a number above 0"),
    ({"epochs": None}, "epochs is None and max_steps is None; set exactly one"),
    ({"max_steps": 5}, "epochs is 3 and max_steps is 5; set exactly one"),
    ({"train_size": 0}, "train_size is 0; expected a number above 0"),
    ({"warmup": 1.1}, r"warmup is 1\.1; expected a share from 0 to 1"),
    ({"warmup": -0.1}, r"warmup is -0\.1; expected a share from 0 to 1"),
    ({"mixout": 2}, r"mixout is 2\.0; expected a share from 0 to 1"),
    ({"beta2": 1}, r"beta2 is 1\.0; expected a number from 0 to below 1"),
    ({"hidden_dropout": 1}, r"hidden_dropout is 1\.0; expected a number from 0 to below 1"),
    ({"weight_decay": -0.1}, r"weight_decay is -0\.1; expected 0 or more"),
    ({"clip_norm": 0}, r"clip_norm is 0\.0; expected a number above 0"),
    ({"evals_per_epoch": -1}, "evals_per_epoch is -1; expected 0 or more"),
    ({"seed": -1}, r"seed is -1; expected a whole number from 0 to 2\*\*63 - 1"),
    ({"order_seed": 2**63}, r"order_seed is 9223372036854775808; expected a whole number from 0"),
    ({"precision": "fp8"}, "precision is 'fp8'; expected one of fp32, tf32, bf16, fp16"),
    ({"pooler": "old"}, "pooler is 'old'; expected one of pretrained, new"),
    ({"eps_placement": None}, "eps_placement is None; expected Literal"),
    ({"segments": 1}, "segments is 1; expected bool"),
    ({"segments": "no"}, "segments is 'no'; expected bool"),
    ({"model": None}, "model is None; expected str"),
    ({"task": 5}, "task is 5; expected str"),
    ({"text_columns": "text"}, "text_columns is 'text'; expected a tuple of names"),
    ({"text_columns": (1,)}, r"text_columns is \(1,\); expected a tuple of names"),
    ({"text_columns": None}, "text_columns is None; expected a tuple of names"),
    ({"multiplier": "times", "bias_correction": False}, "needs bias_correction=True"),
    ({"multiplier": "divided"}, "needs bias_correction=False"),
    ({"learnin_rate": 1}, "unknown option 'learnin_rate': did you mean 'learning_rate'"),
    ({"dropout": 0.2, "xyz": 1}, "unknown option 'dropout': did you mean"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(changes) for changes, _ in WRONG])
def test_what_cannot_be_run_is_refused_by_name_and_expectation(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig().replace(**changes)
