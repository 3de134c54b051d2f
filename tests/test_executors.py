"""Executors draw their dropout each in its own way: what comes of 25 seeds is distributed alike."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from stabkit.train import run_seeds

LEVEL = 0.01  # of a two-sample Kolmogorov-Smirnov test
DROPOUT = 0.25
EXECUTORS = ("plain", "fast", "graph", "together")
MEASURES = ("loss of all steps", "loss of the last steps", "final loss", "score")


def measures(executor: str, dropout: float) -> dict[str, NDArray[np.float64]]:
    """Train 25 seeds of a recipe; return the MEASURES of each."""
    recipe = tiny.config(
        **dict.fromkeys(tiny.NO_DROPOUT, dropout), init_std=0.5, epochs=4, evals_per_epoch=0
    )
    configs = [recipe.replace(seed=seed) for seed in range(25)]
    if executor == "together":
        results = run_seeds(configs, device=tiny.CPU)
    else:
        results = [tiny.train(config, executor) for config in configs]
    assert {result.summary["executor"] for result in results} == {executor}
    rows = [
        (
            result.history["loss"].mean(),
            result.history["loss"].tail(5).mean(),
            result.summary["train_loss"],
            result.summary["score_last"],
        )
        for result in results
    ]
    return dict(zip(MEASURES, np.array(rows, dtype=np.float64).T, strict=True))


@pytest.mark.slow
def test_executors_have_one_distribution_and_a_wrong_dropout_another() -> None:
    found = {executor: measures(executor, DROPOUT) for executor in EXECUTORS}
    for one, other in combinations(EXECUTORS, 2):
        for measure in MEASURES:
            p = ks_2samp(found[one][measure], found[other][measure]).pvalue
            assert p > LEVEL, (one, other, measure, p)
    wrong = measures("fast", 2 * DROPOUT)
    for executor in EXECUTORS:
        for measure in MEASURES[:2]:
            p = ks_2samp(found[executor][measure], wrong[measure]).pvalue
            assert p < LEVEL, (executor, measure, p)
