"""Planes and lines in the space of weights: through checkpoints, and back from them.

*Weights* are a state dict, or parameters by name, on any device. ``stabkit.surface`` measures a
model there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stabkit.errors import StabkitError
from stabkit.stats import Floats

Weights: TypeAlias = Mapping[str, Tensor]

DIGITS = 12  # of a grid's coordinates, so that 0, 1 and what two grids share are equal numbers


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane through three checkpoints: a leads from ``origin`` to ``first``, b to ``second``.

    Raises StabkitError for checkpoints that are equal or differ in their names or shapes.
    """

    origin: Weights
    first: Weights
    second: Weights

    def __post_init__(self) -> None:
        """Refuse what spans no plane."""
        check_apart(vars(self))


def grid(low: float, high: float, points: int) -> Floats:
    """Return a square mesh (points * points x 2), ``points`` a side, both ends included."""
    if not (points >= 2 and low < high and math.isfinite(high - low)):
        asked = f"grid({low}, {high}, {points})"
        raise StabkitError(f"{asked}: expected low < high and 2 points a side or more")
    side = np.linspace(low, high, points).round(DIGITS)
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


@torch.no_grad()
def project(plane: Plane, checkpoints: Iterable[Weights]) -> pd.DataFrame:
    """Return the nearest point of the plane for each checkpoint, in order.

    Columns: a, b, residual, distance. Least squares over all weights, in float64; ``residual`` is
    the L2 distance that is left, ``distance`` the whole one from the plane's origin. One checkpoint
    is used at a time, so a trajectory may be a generator. Raises StabkitError when names or shapes
    differ, or when the plane's own checkpoints lie on one line.
    """
    rows = []
    for weights in checkpoints:
        check_alike("origin", plane.origin, "the projected one", weights)
        parts = [_products(plane, weights, name) for name in plane.origin]
        products = torch.stack(parts).sum(0).numpy()
        axes, towards = products[:2, :2], products[:2, 2]
        if np.linalg.det(axes) <= 1e-12 * axes[0, 0] * axes[1, 1]:
            raise StabkitError(
                "the plane's checkpoints lie on one line; expected one of them off it"
            )
        found = np.linalg.solve(axes, towards)
        squares = [products[2, 2] - found @ towards, products[2, 2]]
        rows.append([*found, *np.sqrt(np.maximum(0.0, squares))])
    return pd.DataFrame(rows, columns=["a", "b", "residual", "distance"], dtype=float)


def _products(plane: Plane, weights: Weights, name: str) -> Tensor:
    """Inner products (3 x 3) of one tensor's steps from the origin to first, second, weights."""
    origin, *ends = (
        w[name].to("cpu", torch.float64).flatten()
        for w in (plane.origin, plane.first, plane.second, weights)
    )
    steps = torch.stack(ends).sub_(origin)
    return steps @ steps.T


def check_apart(checkpoints: Mapping[str, Weights]) -> None:
    """Raise StabkitError for checkpoints that are equal or do not fit each other."""
    for (name, one), (other, two) in combinations(checkpoints.items(), 2):
        check_alike(name, one, other, two)
        if all(torch.equal(one[part], two[part].to(one[part].device)) for part in one):
            raise StabkitError(
                f"the checkpoints {name} and {other} are equal; expected different ones (copy a "
                "state dict before training goes on: it shares its tensors with the model)"
            )


def check_alike(name: str, one: Weights, other: str, two: Weights) -> None:
    """Raise StabkitError for weights that differ in their names or shapes."""
    shapes, others = ({(n, tuple(x.shape)) for n, x in weights.items()} for weights in (one, two))
    if odd := sorted(shapes ^ others):
        raise StabkitError(
            f"{name} and {other} differ in names or shapes, first in {odd[0][0]}; expected "
            "weights of one architecture"
        )
