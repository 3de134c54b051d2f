"""Every figure of the book: run tables in, plotly figures out, one look for all."""

from stabkit.figures.dynamics import correction_factor, gradient_norms, training_curves
from stabkit.figures.scores import failure_curves, seed_scores, summary_table
from stabkit.figures.style import PALETTE, Exhibit, caption, html, show

__all__ = [
    "PALETTE",
    "Exhibit",
    "caption",
    "correction_factor",
    "failure_curves",
    "gradient_norms",
    "html",
    "seed_scores",
    "show",
    "summary_table",
    "training_curves",
]
