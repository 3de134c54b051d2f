"""Draw the README's picture: every run of three recipes on the RTE-like task at half the rate.

``python book/picture.py`` writes book/_static/figure1.svg.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stabkit import pages
from stabkit.errors import StabkitError
from stabkit.figures import PALETTE
from stabkit.figures.scores import GOLDEN
from stabkit.tables import require

TARGET = Path(__file__).parent / "_static" / "figure1.svg"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 330, 60, 46, 54, 16
RECIPES = {
    "Devlin": "the usual recipe",
    "Lee": "Mixout",
    "Ours": "corrected, 20 epochs",
}


def height(accuracy: float) -> float:
    """Return where an accuracy (0.4 to 1) lies."""
    return HEIGHT - BOTTOM - (accuracy - 0.4) / 0.6 * (HEIGHT - BOTTOM - TOP)


def mark(x: float, y: float, tint: str, failed: bool) -> str:
    """Return a run: a ring, or a cross where it failed."""
    if failed:
        path = f"M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8"
        return f'<path d="{path}" stroke="{tint}" stroke-width="2.2"/>'
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="none" stroke="{tint}" stroke-width="2"/>'
    )


def column(runs: pd.DataFrame, name: str, centre: float) -> str:
    """Return the runs of one recipe above its name and its count of failures."""
    marks = "".join(
        mark(centre + 150 * ((GOLDEN * seed) % 1 - 0.5), height(score), PALETTE[name], lost)
        for seed, score, lost in zip(runs["seed"], runs["score_last"], runs["failed"], strict=True)
    )
    floor = HEIGHT - BOTTOM
    return (
        f'{marks}<text x="{centre:.0f}" y="{floor + 19}" text-anchor="middle" '
        f'fill="{PALETTE[name]}" font-weight="600">{name}: {RECIPES[name]}</text>'
        f'<text x="{centre:.0f}" y="{floor + 37}" text-anchor="middle">'
        f"{runs['failed'].sum()} of {len(runs)} runs fail</text>"
    )


def picture(runs: pd.DataFrame) -> str:
    """Return the picture of the runs of Table 1 on one task as SVG text."""
    require(runs, ("method", "seed", "score_last", "failed", "majority_score"))
    if missing := RECIPES.keys() - set(runs["method"]):
        raise StabkitError(f"no runs of {', '.join(sorted(missing))}; finish table1-half first")
    inner, majority = WIDTH - LEFT - RIGHT, runs["majority_score"].iloc[0]
    columns = "".join(
        column(runs[runs["method"] == name], name, LEFT + inner * (i + 0.5) / len(RECIPES))
        for i, name in enumerate(RECIPES)
    )
    ticks = "".join(
        f'<path d="M{LEFT},{height(share):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>'
        f'<text x="{LEFT - 8}" y="{height(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        for share in (0.4, 0.6, 0.8, 1.0)
    )
    line = height(majority)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="#555">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff" rx="6"/>'
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="600" fill="#222">Within a '
        f"column only the seed differs</text>"
        f'<text x="{LEFT}" y="41">dev accuracy after fine-tuning: one model (mini-bert), one task '
        f"(RTE-like), one learning rate</text>{ticks}"
        f'<path d="M{LEFT},{line:.1f}H{WIDTH - RIGHT}" stroke="#999" stroke-dasharray="5 4"/>'
        f'<text x="{WIDTH - RIGHT}" y="{line - 7:.1f}" text-anchor="end">majority class</text>'
        f"{columns}</svg>\n"
    )


if __name__ == "__main__":
    TARGET.write_text(picture(pages.runs("table1-half")), encoding="utf-8")
