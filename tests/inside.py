"""Tables from inside runs, made up: layer swaps, gradient histories, a plane of the loss."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from stabkit.stats import Floats

DEPTH = 12
WEIGHTS = ("attention.self.query.weight", "output.dense.weight", "attention.output.dense.weight")


def swaps(
    lost: float = 6.0, spread: float = 0.1, gone: float = 0.8, depth: int = DEPTH
) -> pd.DataFrame:
    """Return swaps of three failed and three successful runs of two choices of the embeddings.

    ``lost`` is the failed runs' excess at k = 0 in nats, of which a share ``gone`` goes by
    10/24 of the depth; successful runs lose a tenth of it.
    """
    k, top = np.arange(depth + 1), round(10 / 24 * depth)
    left = np.interp(k, [0, top, depth], [1, 1 - gone, 0])
    tables = []
    for seed in range(6):
        failed = seed < 3
        excess = (lost if failed else lost / 10) + spread * (seed % 3)
        for embeddings in (False, True):
            nll = 0.5 + excess * left + (0 if embeddings else 0.05 * (seed + 1))
            about = {"run": f"{seed:016x}", "seed": seed, "failed": failed}
            rows = pd.DataFrame({"k": k, "nll": nll, "perplexity": np.exp(nll), "tokens": 100})
            tables.append(rows.assign(**about, embeddings=embeddings))
    return pd.concat(tables, ignore_index=True).assign(model="mini-bert")


def history(
    bottom: float, end: float, steps: int = 468, depth: int = DEPTH, wobble: float | Floats = 1.0
) -> pd.DataFrame:
    """Return gradients whose top layer goes from 1 to ``end``, the bottom one ``bottom`` of it."""
    step = np.arange(1, steps + 1)
    top = wobble * np.where(step <= steps / 2, 1.0, end)
    shares = np.geomspace(bottom, 1, depth)
    norms = {
        f"bert.encoder.layer.{i}.{weight}": (top * share).astype(np.float32)
        for i, share in enumerate(shares)
        for weight in WEIGHTS
    }
    return pd.DataFrame({"step": step, **norms, "classifier.weight": 1.0})


def plane(height: float = 0.4, side: int = 21) -> pd.DataFrame:
    """Return a plane with 0.7 at the failed corner, 0.1 at the other, and a barrier between."""
    axis = np.linspace(-0.5, 1.5, side).round(12)
    a, b = (part.ravel() for part in np.meshgrid(axis, axis, indexing="ij"))
    loss = 0.7 * a**2 + 0.1 * b**2 + 4 * (height + 0.5) * np.clip(a * b, 0, None) + 0.001
    columns = {"a": a, "b": b, "loss": loss, "gradient_norm": 2 * loss, "examples": 512}
    return pd.DataFrame(columns)


def lines(failed: list[str], successful: list[str]) -> pd.DataFrame:
    """Return lines from each failed run to each successful one, some of them with a barrier."""
    a, tables = np.linspace(0, 1, 21), []
    for place, (first, second) in enumerate(product(failed, successful)):
        loss = 0.7 - 0.6 * a**4 + 0.05 * (place % 3) * np.sin(np.pi * a)
        rows = pd.DataFrame({"a": a, "loss": loss, "gradient_norm": 0.1 + 2 * a * (1 - a)})
        tables.append(rows.assign(failed_run=first, successful_run=second, examples=512))
    return pd.concat(tables, ignore_index=True)


def trajectories(failed: str, successful: str) -> pd.DataFrame:
    """Return how two runs get from near the origin of their plane to its corners, in 480 steps."""
    share = np.linspace(0, 1, 31) ** 2
    tables = []
    for run, (a, b) in ((failed, (1.0, 0.0)), (successful, (0.0, 1.0))):
        places = {"a": a * share, "b": b * share, "residual": 3 * share * (1 - share)}
        rows = pd.DataFrame({"step": np.round(480 * share).astype(int), **places})
        tables.append(rows.assign(distance=4 * share + 0.5 * a, run=run))
    return pd.concat(tables, ignore_index=True).assign(failed_run=failed, successful_run=successful)
