"""Draw the README's picture: the learning rate you set, and the one you get without correction.

``python book/picture.py`` writes book/_static/figure1.svg. A closed form (section 5.1), no runs:
the paper's schedule on RTE, 468 steps at 2e-5, and the same times the hidden multiplier.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stabkit.figures import PALETTE
from stabkit.schedule import hidden_multiplier, linear_schedule

TARGET = Path(__file__).parent / "_static" / "figure1.svg"
STEPS, RATE = 468, 2e-5
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 300, 56, 44, 40


def _path(rates: NDArray[np.float64], top: float) -> str:
    """Return an SVG path through the rates of all steps."""
    x = LEFT + np.arange(STEPS) / STEPS * (WIDTH - LEFT - 16)
    y = HEIGHT - BOTTOM - rates / top * (HEIGHT - BOTTOM - TOP)
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def picture() -> str:
    """Return the picture as SVG text."""
    t = np.arange(1, STEPS + 1)
    scheduled = RATE * linear_schedule(t, STEPS)
    hidden = hidden_multiplier(t, 0.9, 0.999)
    effective = scheduled * hidden
    top = float(effective.max()) * 1.05
    lines = [
        (_path(effective, top), PALETTE["Devlin"]),
        (_path(scheduled, top), PALETTE["Ours"]),
    ]
    curves = "".join(
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        for path, colour in lines
    )
    floor = HEIGHT - BOTTOM
    ratio = float((effective / np.where(scheduled > 0, scheduled, np.inf)).max())
    ticks = "".join(
        f'<text x="{LEFT - 8}" y="{floor - rate / top * (floor - TOP) + 4:.1f}" '
        f'text-anchor="end">{rate * 1e5:g}e-5</text>'
        for rate in np.arange(0, top, 2e-5)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="#666">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff" rx="6"/>'
        f'<path d="M{LEFT},{TOP}V{floor}H{WIDTH - 16}" fill="none" stroke="#bbb"/>{ticks}{curves}'
        f'<text x="{LEFT + 150}" y="{TOP + 4}" fill="{PALETTE["Devlin"]}">without bias correction: '
        f"the step you get, up to {ratio:.1f} times the one you set</text>"
        f'<text x="{LEFT + 150}" y="{TOP + 26}" fill="{PALETTE["Ours"]}">with bias correction: '
        f"the learning rate you set</text>"
        f'<text x="{(LEFT + WIDTH) // 2}" y="{HEIGHT - 12}" text-anchor="middle">step of '
        f"fine-tuning (RTE, 3 epochs)</text></svg>\n"
    )


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8")
