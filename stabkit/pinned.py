"""What a configuration names, read from its files: its task, and the digests of all of them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from stabkit import models, sources
from stabkit.config import RunConfig
from stabkit.errors import ConfigError
from stabkit.files import Stamp, stamp
from stabkit.sources import DATA_VARIABLE
from stabkit.tasks import Task, load_task


def task_of(config: RunConfig) -> Task:
    """Return the task of a configuration; its files are read once, and again when they change."""
    arguments = (config.task, None, config.dev_file, config.text_columns, config.label_column)
    named = os.environ.get(DATA_VARIABLE)
    folders = (Path(named, name) for name in sources.folders(config.task)) if named else ()
    files = (config.task, config.dev_file, *folders)
    return _load_task(arguments, named, *map(stamp, files))


@lru_cache
def _load_task(arguments: tuple[Any, ...], _folder: str | None, *_stamps: Stamp) -> Task:
    return load_task(*arguments)


def pin(config: RunConfig) -> RunConfig:
    """Return the configuration with the digests of its weights, tokenizer and data.

    Raises ConfigError when it names other digests than the files now have.
    """
    weights, tokenizer = models.digests(config.model)
    found = {"weights": weights, "tokenizer": tokenizer, "data": task_of(config).digest}
    for name, digest in found.items():
        if getattr(config, name) not in ("", digest):
            raise ConfigError(
                f"the {name} of {config.model} and {config.task} changed: digest "
                f"{digest[:12]}, but the configuration expects {getattr(config, name)[:12]}; "
                "restore the files, or clear the digest to run on the new ones"
            )
    return config.replace(**found)
