"""Schedule and bias correction against transformers and against closed-form numbers."""

import numpy as np
import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from stabkit.errors import ConfigError
from stabkit.schedule import correction_factor, hidden_multiplier, linear_schedule


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.29, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 468])
def test_schedule_is_that_of_transformers(steps, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, int(steps * warmup), steps).lr_lambdas[0]
    ours = linear_schedule(np.arange(1, steps + 1), steps, warmup)
    np.testing.assert_allclose(ours, [theirs(k) for k in range(steps)], rtol=1e-15)


def test_without_an_idle_first_update_the_curve_starts_one_update_later():
    step = np.arange(1, 100)
    ours = linear_schedule(step, 100, 0.1, zero_first_update=False)
    np.testing.assert_array_equal(ours, linear_schedule(step + 1, 100, 0.1))
    assert linear_schedule(1, 100, 0.1) == 0
    assert linear_schedule(1, 100, 0.1, zero_first_update=False) == pytest.approx(0.1)
    assert linear_schedule(100, 100, 0.1, zero_first_update=False) == 0


def test_schedule_peaks_at_the_end_of_the_warmup():
    share = linear_schedule(np.arange(1, 469), 468, 0.1)
    assert share.argmax() == 46
    assert share.max() == 1


@pytest.mark.parametrize(
    ("beta2", "t", "multiplier"),
    [(0.999, 1, 3.16), (0.999, 12, 6.57), (0.999, 312, 1.93), (0.98, 1, 0.71), (0.98, 14, 1.55)],
)
def test_hidden_multiplier_has_its_closed_form_values(beta2, t, multiplier):
    assert float(hidden_multiplier(t, 0.9, beta2)) == pytest.approx(multiplier, abs=0.005)


@pytest.mark.parametrize(("beta2", "peak", "near_one"), [(0.999, 12, 2375), (0.98, 14, 118)])
def test_hidden_multiplier_peaks_and_fades(beta2, peak, near_one):
    t = np.arange(1, 5001)
    multiplier = hidden_multiplier(t, 0.9, beta2)
    assert t[multiplier.argmax()] == peak
    assert t[multiplier > 1.05].max() == pytest.approx(near_one, abs=1)


def test_correction_factor_is_the_inverse():
    t = np.arange(1, 1000).reshape(-1, 3)
    product = correction_factor(t, 0.9, 0.999) * hidden_multiplier(t, 0.9, 0.999)
    assert product.shape == t.shape
    np.testing.assert_allclose(product, 1, rtol=1e-15)


@pytest.mark.parametrize(
    "call",
    [
        lambda: linear_schedule(0, 10),
        lambda: linear_schedule([1, 11], 10),
        lambda: linear_schedule(1, 10, warmup=1.5),
        lambda: hidden_multiplier(0, 0.9, 0.999),
        lambda: correction_factor(1, 0.9, 1.0),
        lambda: correction_factor(1, -0.1, 0.9),
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ConfigError, match="expected"):
        call()
