"""The paper's recipes, against its table of hyperparameters (section 7.3)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from stabkit import models
from stabkit.config import RunConfig
from stabkit.errors import ConfigError
from stabkit.presets import RECIPES, family, is_mini, is_organism, preset

# BERT-large, RoBERTa-large, ALBERT-large-v2: the authors' configuration files.
HYPERPARAMETERS: dict[str, tuple[Any, Any, Any]] = {
    "batch_size": (16, 16, 16),
    "max_length": (128, 128, 128),
    "learning_rate": (2e-5, 2e-5, 2e-5),
    "warmup": (0.1, 0.1, 0.1),
    "beta1": (0.9, 0.9, 0.9),
    "beta2": (0.999, 0.98, 0.999),
    "eps": (1e-6, 1e-6, 1e-6),
    "weight_decay": (0.01, 0.1, 0.0),
    "clip_norm": (1.0, None, 1.0),
    "hidden_dropout": (0.1, 0.1, 0.0),
    "attention_dropout": (0.1, 0.1, 0.0),
    "classifier_dropout": (0.1, 0.1, 0.0),
    "init_std": (0.02, 0.02, 0.02),
    "pooler": ("pretrained", "new", "pretrained"),
    "precision": ("fp32", "fp32", "fp32"),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("column", range(3))
def test_hyperparameters_are_the_paper_s(recipe: str, column: int) -> None:
    model = ("bert-large-uncased", "roberta-large", "albert/albert-large-v2")[column]
    config = preset(recipe, model=model, task="rte")
    for name, values in HYPERPARAMETERS.items():
        assert getattr(config, name) == values[column], name
    assert config.model == model
    assert config.task == "rte"


def test_the_recipes_differ_as_the_paper_says() -> None:
    devlin, lee, ours = (preset(name) for name in ("devlin", "lee", "ours"))
    assert (devlin.epochs, devlin.bias_correction, devlin.mixout) == (3, False, 0.0)
    assert lee == devlin.replace(mixout=lee.mixout)
    assert 0.7 <= lee.mixout <= 0.9
    assert ours == devlin.replace(epochs=20, bias_correction=True)


def test_the_released_code_s_silent_choices_are_the_defaults() -> None:
    config = preset("devlin", model="bert-large-uncased")
    assert not config.segments
    assert config.eps_placement == "before"
    assert config.decay_after_step
    assert config.zero_first_update
    assert not config.pooler_dropout
    assert config.mixout_mask == "column"


def test_the_organism_gets_the_segments_that_it_was_trained_with() -> None:
    assert preset("ours").segments and preset("lee", model="mini-albert").segments
    assert preset("ours", model="mini-roberta").segments
    assert not preset("ours", segments=False).segments
    assert preset("ours", model=str(models.locate("mini-bert"))).segments
    assert not preset("ours", model="models/mini-bert").segments  # somebody's own


def test_options_win_and_max_steps_replaces_the_epochs() -> None:
    config = preset("ours", model="albert-base", hidden_dropout=0.2, max_steps=9, seed=4)
    assert (config.epochs, config.max_steps, config.hidden_dropout) == (None, 9, 0.2)
    assert config.head_seed == 4
    assert preset("ours", max_steps=None).epochs == 20
    with pytest.raises(ConfigError, match="epochs is 2 and max_steps is 9"):
        preset("ours", epochs=2, max_steps=9)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'devlyn': did you mean 'devlin'"):
        preset("devlyn")
    with pytest.raises(ConfigError, match="unknown option 'warmpu': did you mean 'warmup'"):
        preset("devlin", warmpu=0.2)


def test_the_family_is_read_from_the_folder_else_from_the_name(tmp_path: Path) -> None:
    assert family("mini-roberta") == family("FacebookAI/roberta-large") == "roberta"
    assert family("mini-albert") == "albert"
    assert family("mini-bert-shallow") == family("google/electra-base") == "bert"
    assert family("/home/albert/bert-large") == "bert"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "albert"}))
    assert family(str(tmp_path)) == family(tmp_path) == "albert"
    assert preset("devlin", model=tmp_path).model == str(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_config_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json names no model_type"):
        preset("devlin", model=str(tmp_path))


def test_every_recipe_is_a_valid_configuration() -> None:
    assert all(isinstance(preset(name), RunConfig) for name in RECIPES)


def test_the_model_of_real_text_is_a_mini_model_and_no_organism(tmp_path: Path) -> None:
    assert is_mini("mini-wiki") and not is_organism("mini-wiki")
    assert is_organism("mini-bert") and not is_mini("somebody/mini-bert")
    own = tmp_path / "mini-bert-shallow"
    own.mkdir()
    assert not is_mini(own)
    (own / "pretraining.json").write_text("{}", encoding="utf-8")
    assert is_organism(own)
    assert not is_mini("bert-large-uncased")
    assert preset("devlin", model="mini-wiki").segments


def test_the_trainer_s_recipe_is_its_defaults() -> None:
    theirs = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    names = {
        "epochs": "num_train_epochs",
        "learning_rate": "learning_rate",
        "warmup": "warmup_steps",
        "batch_size": "per_device_train_batch_size",
        "beta2": "adam_beta2",
        "eps": "adam_epsilon",
        "weight_decay": "weight_decay",
        "clip_norm": "max_grad_norm",
    }
    config = preset("trainer")
    assert {name: getattr(config, name) for name in names} == {
        name: theirs[theirs_name] for name, theirs_name in names.items()
    }
    assert theirs["optim"].startswith("adamw_torch") and theirs["lr_scheduler_type"] == "linear"
