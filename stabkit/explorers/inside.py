"""Inside a run: the training loss and every layer's gradients, step by step, of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from plotly.colors import sample_colorscale

from stabkit.errors import StabkitError
from stabkit.explorers.mechanism import Explorer, Select, Slider, rounded
from stabkit.figures.dynamics import DEPTH
from stabkit.figures.style import caption
from stabkit.schedule import short
from stabkit.tables import layer_norms, layer_weights, only, require

POINTS = 150  # kept of a run's steps, each with the norms of every weight in every layer
WINDOW = 20  # batches over which the loss is averaged
NAMES = {
    "attention.self.query.weight": "query",
    "attention.self.key.weight": "key",
    "attention.self.value.weight": "value",
    "attention.output.dense.weight": "attention output",
    "intermediate.dense.weight": "feed-forward, in",
    "output.dense.weight": "feed-forward, out",
}
ALT = (
    "A failed run on the left and a successful one on the right: training loss above, below it the "
    "gradient norm of every layer on a logarithmic scale, and at the bottom the norms of both "
    "runs by layer at the chosen step."
)


def inside(
    table: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    gradients: Mapping[str, pd.DataFrame],
    finding: str,
    scale: str,
) -> Explorer:
    """Let readers set a failed beside a successful run and walk through their steps.

    ``table`` has the runs of one model, task and number of steps; ``histories`` (step, loss) and
    ``gradients`` (step and a column per weight matrix), as Store gives them, are of every run of
    it, by key. Shown are about POINTS steps. Raises StabkitError without a run of each kind.
    """
    require(table, ("key", "seed", "failed", "learning_rate", "bias_correction", "label_entropy"))
    only(table, "model", "task", "steps", "label_entropy")
    steps = int(table["steps"].iloc[0])
    kept = np.unique(np.append(np.arange(0, steps, -(-steps // POINTS)), steps - 1))
    runs = [
        _run(run, histories[run["key"]], gradients[run["key"]], kept)
        for run in table.to_dict("records")
    ]
    kinds, weights = _kinds(runs), _weights(runs)
    return Explorer(
        kind="inside",
        data={
            "runs": runs,
            "step": (kept + 1).tolist(),
            "entropy": float(table["label_entropy"].iloc[0]),
            "tints": _tints(runs),
            "window": WINDOW,
        },
        start={kind: at[0][1] for kind, at in kinds.items()}
        | {"weight": weights[0], "at": len(kept) - 1},
        controls=[
            *(Select(kind, f"A {kind} run", options) for kind, options in kinds.items()),
            Select("weight", "Weights", [(name, name) for name in weights]),
            Slider("at", "Step", 0, len(kept) - 1),
        ],
        panels=(560, 300),
        caption=caption(table, finding, scale, cell=("failed", "bias_correction")),
        alt=ALT,
    )


def _run(
    run: Mapping[Any, Any], history: pd.DataFrame, gradients: pd.DataFrame, kept: NDArray[np.int64]
) -> dict[str, Any]:
    """Return what the page knows of a run, at the ``kept`` of its steps."""
    corrected = "with" if run["bias_correction"] else "without"
    loss = history["loss"].rolling(WINDOW, min_periods=1).mean()
    return {
        "kind": "failed" if run["failed"] else "successful",
        "name": f"seed {run['seed']}, {corrected} correction, {short(run['learning_rate'])}",
        "loss": rounded(loss.to_numpy()[kept]),
        "norms": {
            NAMES.get(weight, weight): [
                rounded(norms.to_numpy()[kept])
                for _, norms in layer_norms(gradients, weight).items()
            ]
            for weight in layer_weights(gradients)
        },
    }


def _weights(runs: list[dict[str, Any]]) -> list[str]:
    """Return the weights whose norms all runs have."""
    shared = [name for name in runs[0]["norms"] if all(name in run["norms"] for run in runs)]
    if not shared:
        raise StabkitError(
            "the runs' gradient histories share no weight of a layer; use runs of one model whose "
            "histories are kept whole (stabkit.selection.exhibited)"
        )
    return shared


def _kinds(runs: list[dict[str, Any]]) -> dict[str, list[tuple[str, int]]]:
    """Return the failed and the successful runs as options: name and place."""
    kinds: dict[str, list[tuple[str, int]]] = {"failed": [], "successful": []}
    for place, run in enumerate(runs):
        kinds[run["kind"]].append((run["name"], place))
    if missing := [kind for kind, options in kinds.items() if not options]:
        raise StabkitError(
            f"no {missing[0]} run in the table; give at least one failed and one successful run"
        )
    return kinds


def _tints(runs: list[dict[str, Any]]) -> list[str]:
    """Return a colour for each layer, from the bottom up."""
    layers = {len(norms) for run in runs for norms in run["norms"].values()}
    if len(layers) > 1:
        raise StabkitError(
            f"the runs are of models with {sorted(layers)} layers; give runs of one model"
        )
    colours: list[str] = sample_colorscale(DEPTH, list(np.linspace(0, 1, layers.pop())))
    return colours
