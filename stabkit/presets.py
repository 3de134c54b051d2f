"""Recipes by name: the paper's Devlin, Lee (Mixout) and Ours, and that of most users today.

Values are those of section 7.3 and of the authors' configuration files. What their code does
without saying so (no segments, eps before the correction, first update 0, ...) is the default of
``RunConfig`` and can be switched field by field. One of these choices does not carry over to the
mini models: trained with segments at a small width, they tell no sentence from the other without.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stabkit.config import RunConfig
from stabkit.errors import ConfigError, nearest

FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"beta2": 0.999, "weight_decay": 0.01, "clip_norm": 1.0},
    "roberta": {"beta2": 0.98, "weight_decay": 0.1, "clip_norm": None, "pooler": "new"},
    "albert": {
        "beta2": 0.999,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "classifier_dropout": 0.0,
    },
}
MINI = "mini-"  # the shipped models; a rate of their own takes the place of 2e-5
REAL_TEXT = "mini-wiki"  # the one of them that has read real text (``stabkit.mini.wiki``)
RECIPES: dict[str, dict[str, Any]] = {
    "devlin": {"epochs": 3, "bias_correction": False},
    "lee": {"epochs": 3, "bias_correction": False, "mixout": 0.9},
    "ours": {"epochs": 20, "bias_correction": True},
}
PRESETS: dict[str, dict[str, Any]] = {
    **RECIPES,
    # What Hugging Face's Trainer does where its arguments say nothing else (transformers 5).
    "trainer": {
        "epochs": 3,
        "bias_correction": True,
        "learning_rate": 5e-5,
        "warmup": 0.0,
        "batch_size": 8,
        "beta2": 0.999,
        "eps": 1e-8,
        "eps_placement": "after",
        "weight_decay": 0.0,
        "decay_after_step": False,
        "clip_norm": 1.0,
    },
}


def family(model: str | Path) -> str:
    """Return the architecture whose hyperparameters ``model`` gets: bert, roberta or albert.

    A folder says so in its config.json, other names by containing it; the rest is bert.
    """
    settings = Path(model).expanduser() / "config.json"
    name = Path(model).name.lower()
    if settings.is_file():
        try:
            name = json.loads(settings.read_text(encoding="utf-8"))["model_type"]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{settings} names no model_type; expected JSON with one") from error
    return next((known for known in ("roberta", "albert") if known in name), "bert")


def is_mini(model: str | Path) -> bool:
    """Say whether a name or folder is that of a model of this project, shipped or made anew."""
    path = Path(model).expanduser()
    made = path.parent == Path() or (path / "pretraining.json").is_file()
    return made and path.name.startswith(MINI)


def is_organism(model: str | Path) -> bool:
    """Say whether a name or folder is that of a mini model of the generated language."""
    return is_mini(model) and not Path(model).name.startswith(REAL_TEXT)


def preset(name: str, **options: Any) -> RunConfig:
    """Return the configuration of a recipe; ``options`` are fields of ``RunConfig`` and win.

    ``max_steps`` replaces the recipe's epochs. Raises ConfigError for an unknown recipe or option.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}: {nearest(name, PRESETS)}")
    if options.get("max_steps") is not None:
        options = {"epochs": None, **options}
    model = options.get("model", RunConfig().model)
    return RunConfig().replace(
        **{"segments": is_mini(model), **FAMILIES[family(model)], **PRESETS[name], **options}
    )
