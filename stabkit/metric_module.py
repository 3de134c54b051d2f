"""The project's metric module for Hugging Face ``evaluate``: ``evaluate.load`` takes its path.

``evaluate.load("glue", ...)`` fetches a script from the hub; this one needs no network.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from stabkit.metrics import Metric, classification_scores


class Classification(evaluate.Metric):  # type: ignore[misc]
    """Accuracy, F1, their mean and MCC in one pass; ``n_labels`` tells binary from multi-class."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=classification_scores.__doc__ or "",
            citation="",
            inputs_description=(
                "\npredictions, references: label indices; n_labels: how many labels there are"
            ),
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
            format="numpy",
        )

    def _compute(self, predictions: Any, references: Any, n_labels: int = 2) -> dict[Metric, float]:
        return classification_scores(predictions, references, n_labels)
