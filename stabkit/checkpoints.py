"""Fine-tuned weights, kept outside of results and repository: a cache that may vanish at any time.

What is missing is trained again, to the same bits (``stabkit.train.trained_model``).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from stabkit import storage

CACHE = "STABKIT_CACHE"  # the environment variable that names another folder


def folder() -> Path:
    """Return the folder of the cache; it need not exist."""
    named = os.environ.get(CACHE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "stabkit"


def load(name: str) -> dict[str, Tensor] | None:
    """Return the weights kept as ``name``, None where there are none or the file is damaged."""
    path = _path(name)
    if path.is_file():
        with suppress(SafetensorError, OSError):  # damaged, or gone by now
            return safetensors.torch.load_file(path)
    return None


def keep(name: str, weights: dict[str, Tensor]) -> None:
    """Keep ``weights`` as ``name``, whole or not at all.

    Raises StoreError when the folder cannot be written or the disk is full.
    """
    whole = {n: x.detach().cpu().contiguous() for n, x in weights.items()}
    storage.save(_path(name), safetensors.torch.save(whole))


def _path(name: str) -> Path:
    return folder() / "checkpoints" / f"{name}.safetensors"
