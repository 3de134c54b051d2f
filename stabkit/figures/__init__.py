"""Every figure of the book: run tables in, plotly figures out, one look for all."""

from stabkit.figures.ablation import (
    ablation_grid,
    arms,
    effective_rates,
    small_data,
)
from stabkit.figures.dynamics import correction_factor, gradient_norms, training_curves
from stabkit.figures.generalisation import dev_over_training, score_against_loss
from stabkit.figures.scores import failure_curves, seed_scores, summary_table
from stabkit.figures.style import PALETTE, Exhibit, caption, html, show

__all__ = [
    "PALETTE",
    "Exhibit",
    "ablation_grid",
    "arms",
    "caption",
    "correction_factor",
    "dev_over_training",
    "effective_rates",
    "failure_curves",
    "gradient_norms",
    "html",
    "score_against_loss",
    "seed_scores",
    "show",
    "small_data",
    "summary_table",
    "training_curves",
]
