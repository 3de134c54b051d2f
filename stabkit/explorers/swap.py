"""Layers given back: what failed and successful runs still know, layer by layer."""

from __future__ import annotations

from typing import Any

import pandas as pd

from stabkit.explorers.mechanism import Checkbox, Explorer, Slider, rounded
from stabkit.figures.style import OTHERS, caption, colour, translucent
from stabkit.mechanism import EMBEDDINGS, FORGETFUL, given_back
from stabkit.stats import Estimate
from stabkit.tables import only, require

TINTS = {"pre-trained": colour("pre-trained"), "fine-tuned": OTHERS[1]}  # as on the planes
ALT = (
    "Left, perplexity against the number of top layers given back, one line per run, failed runs "
    "dotted, with a mark at the chosen number; right, which layers are then pre-trained and which "
    "fine-tuned."
)


def swap(table: pd.DataFrame, finding: str, scale: str) -> Explorer:
    """Let readers give back layer after layer, with or without the embeddings (Fig. 2a, 2b).

    ``table`` is that of the analysis "layer-swap" for one model, as ``figures.layer_swap`` takes
    it. It opens at the paper's 10/24 of the depth. Ratio and share at each k are those of
    ``mechanism.given_back``.
    """
    require(table, ("run", "seed", "failed", "embeddings", "k", "nll", "task"))
    only(table, "model")
    depth = int(table["k"].max())
    choices = {bool(choice): rows for choice, rows in table.groupby("embeddings")}
    asked = Checkbox("embeddings", "Give back the embeddings too")
    return Explorer(
        kind="swap",
        data={
            "depth": depth,
            "share": FORGETFUL,
            "tints": {name: translucent(tint, 0.4) for name, tint in TINTS.items()},
            "words": {str(choice).lower(): words for choice, words in EMBEDDINGS.items()},
            "runs": [_run(rows) for _, rows in table.groupby(["embeddings", "run"], sort=False)],
            "told": {str(choice).lower(): _told(rows) for choice, rows in choices.items()},
        },
        start={"embeddings": next(iter(choices)), "k": round(FORGETFUL * depth)},
        controls=[
            *([asked] if len(choices) > 1 else []),
            Slider("k", "Top layers given back", 0, depth),
        ],
        panels=(430, 430),
        caption=caption(table.drop_duplicates("run"), finding, scale, cell=("model", "failed")),
        alt=ALT,
    )


def _run(rows: pd.DataFrame) -> dict[str, Any]:
    """Return what the page knows of a run: its nats per token for each k."""
    run = rows.iloc[0]
    return {
        "seed": int(run["seed"]),
        "failed": bool(run["failed"]),
        "embeddings": bool(run["embeddings"]),
        "nll": rounded(rows.sort_values("k")["nll"]),
    }


def _told(rows: pd.DataFrame) -> list[dict[str, list[float | None] | None]]:
    """Return ratio and share for each k, with their intervals."""

    def kept(estimate: Estimate | None) -> list[float | None] | None:
        return None if estimate is None else rounded(estimate)

    return [{"times": kept(times), "gone": kept(gone)} for times, gone in given_back(rows)]
