"""Analyses of trained weights: which runs they look at, and their tables on the shelf.

As with runs, what is there is not made again: an analysis is named by the runs it looks at and its
settings, and the weights come from the cache or are trained anew (``stabkit.checkpoints``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from stabkit.batches import encode
from stabkit.config import LOCATIONS, RunConfig
from stabkit.errors import StabkitError
from stabkit.geometry import Plane, grid
from stabkit.masking import held_out_text, wikitext
from stabkit.mlm import layer_swap
from stabkit.models import build
from stabkit.presets import is_organism
from stabkit.records import provenance
from stabkit.report import SEEDS
from stabkit.shelf import Shelf
from stabkit.store import Store
from stabkit.surface import surface
from stabkit.tables import learned_nothing
from stabkit.tasks import subset
from stabkit.train import pin, task_of, trained_model

SPECIMENS = 3  # runs of a kind, the lowest-numbered (Fig. 2)
EXAMPLES, SIDE, LOW, HIGH = 512, 21, -0.5, 1.5  # of a surface


@dataclass(frozen=True)
class Analysis:
    """A named analysis: what it is for, and how it fills the shelf."""

    name: str
    purpose: str
    fill: Callable[[pd.DataFrame, Store, Shelf], None]


def specimens(runs: pd.DataFrame, each: int = SPECIMENS) -> pd.DataFrame:
    """Return ``each`` failed and ``each`` successful runs of one configuration, by lowest seed.

    It is the one with the smallest learning rate that has so many of both; successful are runs
    without any sign of failure. Raises StabkitError where no configuration has.
    """
    judged = runs.assign(nothing=learned_nothing(runs)).sort_values("seed")
    names = [f.name for f in fields(RunConfig) if f.name not in (*LOCATIONS, *SEEDS)]
    cells = [cell for _, cell in judged.groupby(["model", *names], dropna=False, sort=False)]
    for cell in sorted(cells, key=lambda cell: float(cell["learning_rate"].iloc[0])):
        kinds = [cell[cell["failed"].astype(bool)], cell[~cell["nothing"]]]
        if min(map(len, kinds)) >= each:
            return pd.concat([kind.head(each) for kind in kinds])
    raise StabkitError(
        f"no configuration has {each} failed and {each} successful runs; do more seeds or other "
        "learning rates of the study first"
    )


def layer_swaps(runs: pd.DataFrame, store: Store, shelf: Shelf) -> None:
    """Fig. 2: perplexity of specimens with their top k layers pre-trained again.

    ``runs`` is a run table of one model and task. Rows: run, seed, failed, embeddings, k, nll,
    perplexity, tokens, provenance.
    """
    chosen, done = specimens(runs), shelf.keys("layer-swaps")
    model = str(chosen["model"].iloc[0])
    text = held_out_text(model) if is_organism(model) else wikitext(model)
    for row in chosen.to_dict("records"):
        for embeddings in (False, True):
            key = _key("layer swap", row["key"], embeddings)
            if key in done:
                continue
            table = layer_swap(_made_again(row), model, text, embeddings)
            about = {"run": row["key"], "seed": row["seed"], "failed": row["failed"]}
            shelf.put(
                "layer-swaps", key, _signed(row, table.assign(**about, embeddings=embeddings))
            )


def loss_surface(runs: pd.DataFrame, store: Store, shelf: Shelf) -> None:
    """Fig. 7 and 13: loss and gradient norm around the first failed and successful specimens.

    The origin is the pre-trained model under the head that the successful run started with. Rows:
    failed_run, successful_run, a, b, loss, gradient_norm, examples, provenance.
    """
    failed, successful = specimens(runs, each=1).to_dict("records")
    key = _key("surface", failed["key"], successful["key"], EXAMPLES, SIDE, LOW, HIGH)
    if key in shelf.keys("loss-surfaces"):
        return
    config = _config(successful)
    task = subset(task_of(config), EXAMPLES, seed=0)
    start = build(config, len(task.labels)).to(torch.device(successful["device"]))  # type: ignore[arg-type]
    ends = (_made_again(row).state_dict() for row in (failed, successful))
    weights = [start.state_dict(), *ends]
    data = encode(config, task.train)
    points = grid(LOW, HIGH, SIDE)
    table = surface(Plane(*weights), start, data, points, gradient=True, store=store)
    about = {"failed_run": failed["key"], "successful_run": successful["key"]}
    shelf.put("loss-surfaces", key, _signed(successful, table.assign(**about)))


ANALYSES: dict[str, Analysis] = {
    analysis.name: analysis
    for analysis in (
        Analysis("layer-swap", "what failed runs have forgotten (Fig. 2)", layer_swaps),
        Analysis("surface", "where failed runs end (Fig. 7 and 13)", loss_surface),
    )
}


def _config(row: dict[str, Any]) -> RunConfig:
    return pin(RunConfig.from_row(row))


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _made_again(row: dict[str, Any]) -> PreTrainedModel:
    """Return a run's model, made as the run was: other bits may be another outcome."""
    device = torch.device(row["device"])
    return trained_model(_config(row), row["executor"], int(row["threads"]), device)


def _signed(row: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with columns that say on what, with what and when it was made."""
    made_on = provenance(torch.device(row["device"]), int(row["threads"]), row["executor"])
    return table.assign(**made_on)
