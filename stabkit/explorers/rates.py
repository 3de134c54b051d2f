"""Learning rate against bias correction: a grid of runs, and the rate that a run really has."""

from __future__ import annotations

from typing import Any

import pandas as pd

from stabkit.config import RunConfig
from stabkit.explorers.mechanism import Checkbox, Explorer, Select
from stabkit.figures.style import caption, translucent
from stabkit.presets import FAMILIES
from stabkit.schedule import short
from stabkit.tables import failure_curve, finite_scores, only, require

EPOCHS = (3, 10, 20)
AXES = ("learning_rate", "bias_correction")
ALT = (
    "Left, a grid of learning rates without and with bias correction: how many runs learn nothing, "
    "and the mean score. Right, the learning rate over the steps of a run at the chosen rate, as "
    "set and as it is in effect when the correction is missing."
)


def rates(table: pd.DataFrame, examples: int, finding: str, scale: str) -> Explorer:
    """Let readers choose a rate, correction, β2 and epochs; show runs and the effective rate.

    ``table`` is a run table of one model, task, β2 and number of epochs; ``examples`` the size of
    its training set, from which the steps follow. It opens at the smallest rate at which an
    uncorrected run fails.
    """
    require(table, ("method", *AXES))
    only(table, "model", "task", "epochs", "beta2", "warmup", "multiplier")
    config = RunConfig.from_row(table.iloc[0].to_dict())
    cells = _cells(table)
    failing = [c["learning_rate"] for c in cells if c["failures"] and not c["bias_correction"]]
    found = sorted({cell["learning_rate"] for cell in cells})
    beta2s = sorted({family["beta2"] for family in FAMILIES.values()} | {config.beta2})
    return Explorer(
        kind="rates",
        data={
            "cells": cells,
            "axes": AXES,
            "steps": {str(e): config.replace(epochs=e).steps(examples) for e in EPOCHS},
            "made": {"epochs": config.epochs, "beta2": config.beta2},
            "beta1": config.beta1,
            "warmup": config.warmup,
            "zero_first_update": config.zero_first_update,
            "strength": [translucent("#CC3311", opacity) for opacity in (0.03, 0.6)],
        },
        start={
            "learning_rate": min(failing, default=found[-1]),
            "bias_correction": False,
            "beta2": config.beta2,
            "epochs": config.epochs,
        },
        controls=[
            Select("learning_rate", "Learning rate", [(short(rate), rate) for rate in found]),
            Checkbox("bias_correction", "Bias correction"),
            Select("beta2", "Adam's β₂", [(f"{beta2:g}", beta2) for beta2 in reversed(beta2s)]),
            Select("epochs", "Epochs", [(str(epochs), epochs) for epochs in EPOCHS]),
        ],
        panels=(430, 430),
        caption=caption(table, finding, scale, cell=AXES),
        alt=ALT,
    )


def _cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return each cell's runs, how many learn nothing, and their mean score in percent."""
    finite_scores(table, "score_last")
    means = 100 * table.groupby(list(AXES))["score_last"].mean()
    return [
        {
            "learning_rate": float(cell.learning_rate),
            "bias_correction": bool(cell.bias_correction),
            "runs": int(cell.runs),
            "failures": int(cell.failures),
            "mean": float(means[cell.learning_rate, cell.bias_correction]),
        }
        for cell in failure_curve(table, by=AXES).itertuples()
    ]
