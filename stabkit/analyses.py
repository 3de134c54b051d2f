"""Analyses of trained weights: which runs they look at, and their tables on the shelf.

As with runs, what is there is not made again: an analysis is named by the runs it looks at and its
settings, and the weights come from the cache or are trained anew (``stabkit.checkpoints``). What is
looked at, and what is there already, is told on stderr.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

import stabkit
from stabkit.batches import Encoded, encode
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.geometry import Plane, Weights, grid, project
from stabkit.masking import MaskedText, held_out_text, wikitext
from stabkit.mlm import layer_swap
from stabkit.models import build
from stabkit.presets import is_organism
from stabkit.records import hardware, provenance
from stabkit.schedule import short
from stabkit.selection import SHOWN, specimens
from stabkit.shelf import Shelf
from stabkit.store import Store
from stabkit.surface import line, surface
from stabkit.tasks import subset
from stabkit.train import ExecutorName, follow, pin, task_of, trained_model

EXAMPLES, SIDE, LOW, HIGH = 512, 21, -0.5, 1.5  # of a surface
POINTS = 21  # of a line between two runs, ends included
MOMENTS = 31  # of a run at which its trajectory is recorded, start and end included


def layer_swaps(runs: pd.DataFrame, shelf: Shelf) -> None:
    """Fig. 2: perplexity of specimens with their top k layers pre-trained again.

    ``runs`` is a run table of one model and task. Rows: run, seed, failed, embeddings, k, nll,
    perplexity, tokens, provenance.
    """
    for row in _alone(runs, SHOWN):
        for embeddings in (False, True):
            key = _key("layer swap", row["key"], embeddings)
            words = f"{_told(row)}, {'pre-trained' if embeddings else 'its own'} embeddings"
            if _lacks(shelf, "layer-swaps", key, words):
                shelf.put("layer-swaps", key, _swapped(row, embeddings))


def loss_surface(runs: pd.DataFrame, shelf: Shelf) -> None:
    """Fig. 7 and 13: loss and gradient norm around the first failed and successful specimens.

    The origin is the pre-trained model under the head that the successful run started with. Rows:
    failed_run, successful_run, a, b, loss, gradient_norm, examples, provenance. Beside them, of
    the kind "trajectories", how each of the two runs gets to its end: failed_run, successful_run,
    run, step, a, b, residual, distance (``stabkit.geometry.project``), provenance.
    """
    failed, successful = _alone(runs, 1)
    ends = _ends(failed, successful)
    key = _key("surface", *ends.values(), EXAMPLES, SIDE, LOW, HIGH)
    words = f"{SIDE} x {SIDE} points around {_told(failed)} and {_told(successful)}"
    if _lacks(shelf, "loss-surfaces", key, words):
        table = _surface(failed, successful, Store(shelf.path))
        shelf.put("loss-surfaces", key, table.assign(**ends))
    for row in (failed, successful):
        key = _key("trajectory", *ends.values(), row["key"], MOMENTS)
        if _lacks(shelf, "trajectories", key, f"{MOMENTS} moments of {_told(row)}"):
            table = _trajectory(row, _plane(failed, successful)[0])
            shelf.put("trajectories", key, table.assign(**ends))


def loss_lines(runs: pd.DataFrame, shelf: Shelf) -> None:
    """Fig. 7 and 13 for more pairs of runs: the line from each failed specimen to each successful.

    Rows: failed_run, successful_run, a (0 at the failed one), loss, gradient_norm, examples,
    provenance.
    """
    rows = _alone(runs, SHOWN)
    kinds = ([row for row in rows if bool(row["failed"]) is failed] for failed in (True, False))
    for failed, successful in product(*kinds):
        ends = _ends(failed, successful)
        key = _key("line", *ends.values(), EXAMPLES, POINTS)
        words = f"{POINTS} points from {_told(failed)} to {_told(successful)}"
        if _lacks(shelf, "loss-lines", key, words):
            table = _line(failed, successful, Store(shelf.path))
            shelf.put("loss-lines", key, table.assign(**ends))


ANALYSES: dict[str, Callable[[pd.DataFrame, Shelf], None]] = {
    "layer-swap": layer_swaps,
    "surface": loss_surface,
    "lines": loss_lines,
}


def _alone(runs: pd.DataFrame, each: int) -> list[dict[str, Any]]:
    """Return the specimens among runs that can be made again one by one."""
    at_once = runs["executor"] == "together"
    left_out = (
        f"{at_once.sum()} runs that were trained several at once cannot be made again one by one, "
        "and do not count: do their seeds anew (--anew, without --seeds-at-once)"
    )
    try:
        found: list[dict[str, Any]] = specimens(runs[~at_once], each).to_dict("records")
        return found
    except StabkitError as problem:
        if not at_once.any():
            raise
        raise StabkitError(left_out if at_once.all() else f"{problem}; {left_out}") from None


def _swapped(row: dict[str, Any], embeddings: bool) -> pd.DataFrame:
    model = str(row["model"])
    table = layer_swap(_made_again(row), model, _text(model), embeddings)
    about = {"run": row["key"], "seed": row["seed"], "failed": row["failed"]}
    return _signed(row, table.assign(**about, embeddings=embeddings))


@lru_cache(1)
def _text(model: str) -> MaskedText:
    return held_out_text(model) if is_organism(model) else wikitext(model)


def _surface(failed: dict[str, Any], successful: dict[str, Any], points: Store) -> pd.DataFrame:
    """Return the surface; what is measured of it by the time of a kill is kept in ``points``."""
    plane, start = _plane(failed, successful)
    data, mesh = _examples(successful), grid(LOW, HIGH, SIDE)
    return _signed(successful, surface(plane, start, data, mesh, gradient=True, store=points))


def _line(failed: dict[str, Any], successful: dict[str, Any], points: Store) -> pd.DataFrame:
    """Return the line; what is measured of it by the time of a kill is kept in ``points``."""
    start, end = (_made_again(row) for row in (failed, successful))
    data, at = _examples(successful), np.linspace(0, 1, POINTS)
    ways = start.state_dict(), end.state_dict()
    return _signed(successful, line(*ways, end, data, at, gradient=True, store=points))


def _examples(row: dict[str, Any]) -> Encoded:
    """Return the training examples, the same for all runs on a task, that surfaces are over."""
    config = pin(RunConfig.from_row(row))
    task = task_of(config)
    return encode(config, subset(task, min(EXAMPLES, len(task.train)), seed=0).train)


def _plane(failed: dict[str, Any], successful: dict[str, Any]) -> tuple[Plane, PreTrainedModel]:
    """Return the plane of two runs and the model at its origin."""
    config = pin(RunConfig.from_row(successful))
    start = build(config, len(task_of(config).labels))
    start.to(torch.device(successful["device"]))  # type: ignore[arg-type]
    ends = (_made_again(row).state_dict() for row in (failed, successful))
    return Plane(start.state_dict(), *ends), start


def _trajectory(row: dict[str, Any], plane: Plane) -> pd.DataFrame:
    """Return where on the plane a run is at MOMENTS of its steps: run, step and a projection.

    They lie closer together at the start, where a run goes furthest in a step.
    """
    moments = set(np.round(row["steps"] * np.linspace(0, 1, MOMENTS) ** 2).astype(int))
    places: list[pd.DataFrame] = []

    def watch(step: int, weights: Weights) -> None:
        if step in moments:
            places.append(project(plane, [weights]).assign(run=row["key"], step=step))

    follow(pin(RunConfig.from_row(row)), watch, *_as_made(row))
    return _signed(row, pd.concat(places, ignore_index=True))


def _ends(failed: dict[str, Any], successful: dict[str, Any]) -> dict[str, str]:
    return {"failed_run": failed["key"], "successful_run": successful["key"]}


def _told(row: dict[str, Any]) -> str:
    verdict = "failed" if row["failed"] else "successful"
    rate = f"learning rate {short(row['learning_rate'])}"
    return f"{verdict} run {row['key']} (seed {row['seed']}, {rate})"


def _lacks(shelf: Shelf, kind: str, key: str, words: str) -> bool:
    """Say whether a table is still to be made, and tell so."""
    there = key in shelf.keys(kind)
    print(f"{kind}: {words}{': is there' if there else ''}", file=sys.stderr)
    return not there


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _made_again(row: dict[str, Any]) -> PreTrainedModel:
    return trained_model(pin(RunConfig.from_row(row)), *_as_made(row))


def _as_made(row: dict[str, Any]) -> tuple[ExecutorName, int, torch.device]:
    """Return how to make a run again: executor, threads, device.

    Raises StabkitError where this would give other bits, which may be another outcome: on other
    hardware, or with a version of this package or of torch that trains otherwise.
    """
    device = torch.device(row["device"])
    made = _circumstances(row["hardware"], row["version"], row["torch"])
    if (here := _circumstances(hardware(device), stabkit.__version__, torch.__version__)) != made:
        raise StabkitError(
            f"the weights of run {row['key']} have to be made again as they were made, {made}, and "
            f"this would be {here}: the run might end otherwise; do the analysis there, or do the "
            "study here (stabkit study --anew)"
        )
    return row["executor"], int(row["threads"]), device


def _circumstances(device: str, version: str, torch_version: str) -> str:
    """Name what the bits of a run depend on."""
    return f"on {device} with stabkit {version.rpartition('.')[0]} and torch {torch_version}"


def _signed(row: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with columns that say on what, with what and when it was made."""
    made_on = provenance(torch.device(row["device"]), int(row["threads"]), row["executor"])
    return table.assign(**made_on)
