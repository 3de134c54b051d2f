"""Several seeds at once: each as if it had run alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_static import GPU, config
from tiny import NO_DROPOUT

from stabkit import train
from stabkit.config import RunConfig
from stabkit.errors import ConfigError
from stabkit.results import RunResult
from stabkit.together import Stacked
from stabkit.train import run, run_seeds, trained_model


@pytest.fixture(params=["cpu", *GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def seeds(recipe: RunConfig, count: int = 3) -> list[RunConfig]:
    return [recipe.replace(seed=seed) for seed in range(count)]


def agree(one: RunResult, other: RunResult, tolerance: float = 1e-5) -> None:
    assert one.config == other.config
    np.testing.assert_allclose(one.history["loss"], other.history["loss"], atol=tolerance)
    assert list(one.gradients.columns) == list(other.gradients.columns)
    np.testing.assert_allclose(one.gradients, other.gradients, rtol=1e-3, atol=tolerance)
    for name in ("dev_predictions_by_step", "dev_steps", "failed", "best_step", "train_accuracy"):
        assert one.summary[name] == other.summary[name]
    assert one.summary["train_loss"] == pytest.approx(other.summary["train_loss"], abs=tolerance)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("bert", {"init_std": 0.5}),
        ("roberta", {"init_std": 0.5}),
        ("albert", {"init_std": 0.5}),
        ("bert", {"clip_norm": 0.1, "bias_correction": False, "segments": True}),
        ("bert", {"eps_placement": "after", "decay_after_step": False, "clip_norm": None}),
    ],
)
def test_20_steps_of_3_seeds_agree_with_3_plain_runs(
    architecture: str, changes: dict[str, Any], device: torch.device
) -> None:
    recipes = seeds(config(architecture, **changes))
    together = run_seeds(recipes, device=device)
    assert [result.summary["executor"] for result in together] == ["together"] * 3
    for recipe, result in zip(recipes, together, strict=True):
        agree(result, run(recipe, "plain", device=device))


def test_heads_orders_and_dropouts_are_each_seed_s_own(device: torch.device) -> None:
    """Three times the same head and order: with dropout they differ, without they do not."""
    recipe = tiny.config(head_seed=0, order_seed=0)
    for changes, differ in (({}, True), (NO_DROPOUT, False)):
        runs = [recipe.replace(dropout_seed=seed, **changes) for seed in range(3)]
        losses = [result.history["loss"] for result in run_seeds(runs, device=device)]
        assert all((losses[0] != other).any() == differ for other in losses[1:])


def test_dropout_has_the_plain_executor_s_mean_and_spread(device: torch.device) -> None:
    """The first loss of 64 dropout seeds: the same head, batch and weights."""
    drop = dict.fromkeys(NO_DROPOUT, 0.3)
    recipe = tiny.config(
        epochs=None, max_steps=1, evals_per_epoch=0, head_seed=0, order_seed=0, init_std=0.5, **drop
    )
    runs = [recipe.replace(dropout_seed=seed) for seed in range(64)]
    ours = np.array([r.history["loss"].iloc[0] for r in run_seeds(runs, device=device)])
    theirs = np.array([run(c, device=device).history["loss"].iloc[0] for c in runs[:32]])
    error = np.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    assert abs(ours.mean() - theirs.mean()) < 4 * error
    assert 0.6 < ours.std() / theirs.std() < 1.6


def test_a_seed_that_diverges_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = seeds(config())
    sound = run_seeds(recipes, device=tiny.CPU)
    load = Stacked.load

    def break_one(self: Stacked, *args: Any) -> None:
        load(self, *args)
        self.weights["classifier.bias"].detach()[1, 0] = float("inf")

    monkeypatch.setattr(Stacked, "load", break_one)
    results = run_seeds(recipes, device=tiny.CPU)
    assert [result.summary["diverged"] for result in results] == [False, True, False]
    for i in (0, 2):
        assert results[i].history.equals(sound[i].history)


def test_runs_again_give_the_same_bits_on_what_others_left(device: torch.device) -> None:
    recipe = tiny.config(epochs=2, batch_size=12)
    first = run_seeds(seeds(recipe), device=device)
    run_seeds([recipe.replace(seed=s, learning_rate=1e30) for s in (5, 6, 7)], device=device)
    for one, two in zip(first, run_seeds(seeds(recipe), device=device), strict=True):
        assert one.history.equals(two.history)
        assert one.summary["dev_predictions"] == two.summary["dev_predictions"]


@pytest.mark.parametrize("changes", [{"mixout": 0.5}, {"precision": "fp16"}], ids=str)
def test_what_cannot_be_stacked_is_run_one_after_the_other(changes: dict[str, Any]) -> None:
    recipes = seeds(tiny.config(epochs=None, max_steps=2, **changes), 2)
    results = run_seeds(recipes, device=tiny.CPU)
    assert [result.summary["executor"] for result in results] == ["fast", "fast"]
    assert results[0].history.equals(tiny.train(recipes[0]).history)


def test_bf16_runs_at_once_too(device: torch.device) -> None:
    full, half = (
        run_seeds(seeds(config(precision=p), 2), device=device)[1].history["loss"]
        for p in ("fp32", "bf16")
    )
    np.testing.assert_allclose(half, full, rtol=0.05)
    assert (half != full).any()


def test_a_run_of_several_is_not_made_again_alone() -> None:
    with pytest.raises(ConfigError, match=r"made together .*; name another executor"):
        trained_model(tiny.config(), "together", device=tiny.CPU)


def test_recipes_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match="2 recipes among 2 configurations; expected some that"):
        run_seeds([tiny.config(), tiny.config(learning_rate=1e-4)], device=tiny.CPU)


def test_seconds_are_a_run_s_share_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 30.0))
    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    results = run_seeds(seeds(tiny.config(epochs=None, max_steps=1)), device=tiny.CPU)
    assert [result.summary["seconds"] for result in results] == [10.0] * 3
