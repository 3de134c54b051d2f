"""Every figure of the book: run tables in, plotly figures out, one look for all."""

from stabkit.figures.ablation import (
    ablation_grid,
    arms,
    effective_rates,
    small_data,
)
from stabkit.figures.dynamics import correction_factor, gradient_norms, training_curves
from stabkit.figures.generalisation import dev_over_training, score_against_loss
from stabkit.figures.layers import gradient_map, layer_swap
from stabkit.figures.planes import barrier_line, barrier_lines, surface_3d, surface_contours
from stabkit.figures.scores import failure_curves, seed_scores, summary_table
from stabkit.figures.style import PALETTE, Exhibit, caption, html, show
from stabkit.figures.values import values
from stabkit.schedule import short

__all__ = [
    "PALETTE",
    "Exhibit",
    "ablation_grid",
    "arms",
    "barrier_line",
    "barrier_lines",
    "caption",
    "correction_factor",
    "dev_over_training",
    "effective_rates",
    "failure_curves",
    "gradient_map",
    "gradient_norms",
    "html",
    "layer_swap",
    "score_against_loss",
    "seed_scores",
    "short",
    "show",
    "small_data",
    "summary_table",
    "surface_3d",
    "surface_contours",
    "training_curves",
    "values",
]
