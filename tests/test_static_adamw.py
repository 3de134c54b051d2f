"""The capture-safe AdamW against the float64 reference of ``test_optim``, and what it skips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from test_optim import SWITCHES, problem, reference
from torch import Tensor, nn

from stabkit.config import RunConfig
from stabkit.optim import AdamW
from stabkit.static_adamw import StaticAdamW


def configured(**changes: Any) -> RunConfig:
    return tiny.config(**{"eps": 1e-6, "weight_decay": 0.1, **changes})


def made(
    weight: NDArray[np.float64], dtype: torch.dtype, config: RunConfig, steps: int = 40
) -> tuple[list[Tensor], StaticAdamW]:
    parts = [torch.tensor(part, dtype=dtype) for part in np.split(weight, 2)]
    groups = [
        {"params": [nn.Parameter(part) for part in parts], "weight_decay": config.weight_decay}
    ]
    return parts, StaticAdamW(groups, config, steps)


def updated(
    parts: list[Tensor],
    optimizer: StaticAdamW,
    gradients: NDArray[np.float64],
    divisor: float | None = None,
) -> NDArray[np.float64]:
    at = torch.zeros(1, dtype=torch.long)
    for gradient in gradients:
        pieces = [torch.tensor(piece, dtype=parts[0].dtype) for piece in np.split(gradient, 2)]
        optimizer.step(pieces, at, None if divisor is None else torch.tensor(divisor))
        at += 1
    return torch.cat(parts).double().numpy()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 3e-6)])
@pytest.mark.parametrize(("correct", "placement", "decay_after"), SWITCHES)
def test_it_agrees_with_the_reference(
    dtype: torch.dtype, tolerance: float, correct: bool, placement: str, decay_after: bool
) -> None:
    weight, gradients, rates = problem()
    expected = reference(
        weight, gradients, rates, (0.9, 0.999), 1e-6, 0.1, correct, placement, decay_after
    )
    config = configured(
        bias_correction=correct, eps_placement=placement, decay_after_step=decay_after
    )
    parts, optimizer = made(weight, dtype, config)
    for _ in range(2):  # a restarted one is a new one
        optimizer.restart(config, rates)
        for part, start in zip(parts, np.split(weight, 2), strict=True):
            part.copy_(torch.tensor(start))
        got = updated(parts, optimizer, gradients)
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


def test_the_switches_that_are_data_change_at_a_restart() -> None:
    """Correction, placement, rates and decay: what one optimizer takes on from run to run."""
    weight, gradients, rates = problem()
    first = configured()
    parts, optimizer = made(weight, torch.float64, first)
    for correct, placement, decay in ((True, "after", 0.3), (False, "before", 0.2)):
        config = first.replace(bias_correction=correct, eps_placement=placement, weight_decay=decay)
        optimizer.restart(config, 2 * rates)
        for part, start in zip(parts, np.split(weight, 2), strict=True):
            part.copy_(torch.tensor(start))
        got = updated(parts, optimizer, gradients)
        expected = reference(
            weight, gradients, 2 * rates, (0.9, 0.999), 1e-6, decay, correct, placement, True
        )
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)


def test_gradients_are_divided_and_an_overflow_leaves_the_step_out() -> None:
    """As GradScaler does it: neither weights, averages nor the count of updates move."""
    weight, gradients, rates = problem(steps=12)
    for placement in ("before", "after"):
        config = configured(eps_placement=placement)
        plain, optimizer = made(weight, torch.float32, config, 12)
        optimizer.restart(config, rates)
        expected = updated(plain, optimizer, gradients)
        parts, scaled = made(weight, torch.float32, config, 12)
        scaled.restart(config, rates)
        at, bad = torch.zeros(1, dtype=torch.long), np.full_like(gradients[0], np.nan)
        for gradient in gradients:
            for pieces, overflow in ((np.split(bad, 2), 1.0), (np.split(64 * gradient, 2), 0.0)):
                tensors = [torch.tensor(piece, dtype=torch.float32) for piece in pieces]
                scaled.step(tensors, at, torch.tensor(64.0), torch.tensor(overflow))
            at += 1
        np.testing.assert_allclose(torch.cat(parts).double().numpy(), expected, atol=1e-7)
        assert scaled.updates.item() == 12


def test_parameters_without_decay_are_not_shrunk() -> None:
    """As the plain optimizer's second group."""
    config, rates = configured(), np.full(3, 1e-2)
    start = [torch.ones(3), torch.ones(2)]
    ours, theirs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
    groups = [
        [{"params": [one], "weight_decay": 0.1}, {"params": [two], "weight_decay": 0.0}]
        for one, two in (ours, theirs)
    ]
    static, plain = StaticAdamW(groups[0], config, 3), AdamW(groups[1], lr=1e-2)
    static.restart(config, rates)
    for step in range(3):
        static.step([torch.full_like(x, 0.5) for x in start], torch.tensor([step]))
        for parameter in theirs:
            parameter.grad = torch.full_like(parameter, 0.5)
        plain.step()
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=0)
    assert (ours[0] < ours[1].min()).all()
