"""The graph executor's steps, uncaptured on a CPU, against the plain loop; captured on a GPU."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny import NO_DROPOUT
from torch.utils._python_dispatch import TorchDispatchMode

from stabkit.config import RunConfig
from stabkit.graph import WARM, Captured
from stabkit.loop import rates
from stabkit.static import (
    GROW_AFTER,
    START_SCALE,
    StaticLearner,
    forget,
    static_learner,
    supported,
)
from stabkit.train import _texts, _train, best_executor, follow, pin, run, run_seeds, trained_model

GPU = [pytest.param("cuda", marks=pytest.mark.gpu)]
STEPS = {"epochs": None, "max_steps": 20, "evals_per_epoch": 2, "learning_rate": 1e-4}


@pytest.fixture(params=["cpu", *GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def config(architecture: str = "bert", **changes: Any) -> RunConfig:
    """Return 20 steps with warm-up and clipping that bites, the last batch of an epoch smaller."""
    return tiny.config(architecture, **{**STEPS, "batch_size": 12, **NO_DROPOUT, **changes})


def agree(config: RunConfig, device: torch.device, tolerance: float = 1e-5) -> None:
    """Compare all that is recorded of 20 steps, and the model after them."""
    torch.set_num_threads(1)
    graph, plain = (_train(pin(config), name, device) for name in ("graph", "plain"))
    assert (graph.trainer.executor, plain.trainer.executor) == ("graph", "plain")
    ours, theirs = graph.records, plain.records
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=0, atol=tolerance)
    assert ours.names == theirs.names
    torch.testing.assert_close(ours.norms, theirs.norms, rtol=100 * tolerance, atol=tolerance)
    np.testing.assert_array_equal(ours.rates, theirs.rates)
    assert list(ours.evaluations) == list(theirs.evaluations)
    for step, found in theirs.evaluations.items():
        np.testing.assert_array_equal(ours.evaluations[step], found)
    logits = (done.trainer.evaluate(done.train) for done in (graph, plain))
    np.testing.assert_allclose(*logits, atol=tolerance)
    ends = graph.trainer.weights(), plain.trainer.weights()
    assert ends[0].keys() == ends[1].keys()
    for name, weight in ends[1].items():
        torch.testing.assert_close(ends[0][name], weight, rtol=0, atol=tolerance)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_20_steps_agree_with_the_plain_loop(architecture: str, device: torch.device) -> None:
    agree(config(architecture, init_std=0.5), device)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias_correction": False},
        {"eps_placement": "after"},
        {"eps_placement": "after", "bias_correction": False},
        {"decay_after_step": False, "weight_decay": 0.5},
        {"weight_decay": 0.0},
        {"clip_norm": None},
        {"clip_norm": 0.1, "warmup": 0.5},
        {"multiplier": "times", "zero_first_update": False},
        {"segments": True},
        {"train_size": 30, "max_length": 20},
        {"eps": 1e-3, "beta2": 0.9},
    ],
    ids=str,
)
def test_every_switch_agrees_with_the_plain_loop(
    changes: dict[str, Any], device: torch.device
) -> None:
    agree(config(**changes), device)


@pytest.mark.parametrize("changes", [{}, {"mixout_mask": "element"}, {"bias_correction": False}])
def test_mixout_draws_the_plain_loop_s_masks(changes: dict[str, Any]) -> None:
    """Uncaptured, the two draw the same numbers from the run's own generator."""
    agree(config(mixout=0.5, mixout_rescale_gradient=not changes, **changes), tiny.CPU)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_agrees_as_far_as_it_goes(precision: str, device: torch.device) -> None:
    """The scale of fp16 starts too high, so first steps are left out by both alike."""
    half = config(precision=precision, init_std=0.5)
    graph, plain, full = (
        run(half.replace(precision=kind), name, device=device).history["loss"]
        for kind, name in ((precision, "graph"), (precision, "plain"), ("fp32", "plain"))
    )
    np.testing.assert_allclose(graph, plain, rtol=0.02)
    np.testing.assert_allclose(graph, full, rtol=0.05)
    assert (graph != full).any()


@pytest.mark.parametrize(
    "changes", [{}, {"mixout": 0.5}, {"precision": "bf16"}, {"precision": "fp16"}], ids=str
)
def test_the_next_seed_finds_no_trace_of_the_last(
    changes: dict[str, Any], device: torch.device
) -> None:
    """With dropout: a run on what other runs left behind has the bits of the first on its own."""
    recipe = tiny.config(epochs=2, batch_size=12, **changes)
    forget()
    first = run(recipe, "graph", device=device)
    task, train, _ = _texts(pin(recipe))
    learner = static_learner(pin(recipe), len(task.labels), device, train)
    for other in ({"seed": 1}, {"seed": 2, "learning_rate": 1e30}, {"bias_correction": False}):
        result = run(recipe.replace(**other), "graph", device=device)
        assert (result.history["loss"] != first.history["loss"]).any()
    assert static_learner(pin(recipe), len(task.labels), device, train) is learner
    again = run(recipe, "graph", device=device)
    assert again.history.equals(first.history)
    assert again.gradients.equals(first.gradients)
    assert again.summary["dev_predictions"] == first.summary["dev_predictions"]


def test_a_scale_that_has_grown_or_shrunk_is_the_last_seed_s_alone() -> None:
    recipe = pin(config(precision="fp16"))
    task, train, dev = _texts(recipe)
    forget()
    learner = static_learner(recipe, len(task.labels), tiny.CPU, train)
    assert learner.scale is not None
    learner.scale.fill_(8.0)
    learner.unbroken.fill_(GROW_AFTER - 1)
    learner._restart([recipe], rates(recipe, 20), dev)
    assert (learner.scale.item(), learner.unbroken.item()) == (START_SCALE, 0)


@pytest.mark.parametrize("executor", ["plain", "fast", "graph"])
def test_a_split_is_scored_whole_and_in_its_order_in_however_many_batches(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, scored = pin(config(init_std=0.5)), []
    for size in (64, 7):  # one batch; six for the 40 to train on, four for the 24 of dev
        monkeypatch.setattr("stabkit.batches.EVALUATION_BATCH", size)
        monkeypatch.setattr("stabkit.scoring.EVALUATION_BATCH", size)
        forget()
        scored.append(_train(recipe, executor, tiny.CPU))
    forget()
    whole, parts = (done.trainer.evaluate(done.train) for done in scored)
    assert len(np.unique(whole[:, 0])) == 40
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    for step, found in scored[0].records.evaluations.items():
        np.testing.assert_array_equal(scored[1].records.evaluations[step], found)


def test_a_loss_that_is_not_a_number_is_recorded(device: torch.device) -> None:
    summary = run(config(learning_rate=1e30), "graph", device=device).summary
    assert [summary[name] for name in ("diverged", "failed", "flat_loss")] == [True] * 3


def test_a_run_can_be_followed(device: torch.device) -> None:
    seen: dict[int, torch.Tensor] = {}
    name = "classifier.weight"
    recipe = config(mixout=0.5)
    follow(recipe, lambda step, now: seen.update({step: now[name].clone()}), "graph", device=device)
    assert list(seen) == list(range(21))
    end = trained_model(recipe, "graph", device=device).state_dict()[name]
    assert torch.equal(seen[20], end)
    assert not torch.equal(seen[19], end)


def test_dropout_is_drawn_by_the_dropout_seed_and_at_its_rate(device: torch.device) -> None:
    recipe = tiny.config(epochs=2)
    losses = [
        run(recipe.replace(dropout_seed=seed), "graph", device=device).history["loss"]
        for seed in (0, 1, 0)
    ]
    assert (losses[0] != losses[1]).any()
    assert losses[0].equals(losses[2])


class NoWaiting(TorchDispatchMode):
    """Refuses what waits for the device, has a shape that depends on data, or comes from the host.

    A capture refuses the same; this finds it where there is no GPU.
    """

    refused = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in self.refused, func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "changes", [{}, {"precision": "fp16"}, {"precision": "bf16"}, {"mixout": 0.5}], ids=str
)
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_step_is_fit_for_a_graph(architecture: str, changes: dict[str, Any]) -> None:
    """It waits for nothing, and all that it leaves lies where it lay before."""
    recipe = pin(tiny.config(architecture, epochs=2, batch_size=12, **changes))
    task, train, dev = _texts(recipe)
    forget()
    learner = static_learner(recipe, len(task.labels), tiny.CPU, train)
    learner._restart([recipe], rates(recipe, 8), dev)
    kept = [*learner.parameters, *learner.optimizer.averages, learner.losses, learner.walk.at]
    before = [(x.data_ptr(), x.clone()) for x in kept]
    with NoWaiting():
        for shape in learner.walk.shapes[:2]:
            learner.steps.function(*shape)
    assert [x.data_ptr() for x in kept] == [place for place, _ in before]
    assert learner.walk.at.item() == 2
    assert not torch.equal(learner.losses, before[-2][1])
    if changes.get("precision") != "fp16":  # whose first steps are left out
        assert all(not torch.equal(x, was) for x, (_, was) in zip(kept, before, strict=True))


def test_what_is_tried_before_a_capture_stays_within_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU: every new shape is tried, in later seeds too, after whole runs."""
    recipes = [tiny.config(epochs=5, batch_size=4, max_length=40, seed=seed) for seed in range(4)]
    forget()
    expected = [run(recipe, "graph", device=tiny.CPU).history["loss"] for recipe in recipes]
    tried: list[tuple[int, int]] = []

    def prepare(captured: Captured, shapes: Any) -> None:
        for shape in sorted(set(shapes) - set(tried)):
            tried.append(shape)
            for _ in range(WARM):
                captured.rewind()
                captured.function(*shape)

    monkeypatch.setattr(Captured, "prepare", prepare)
    forget()
    found = [run(recipe, "graph", device=tiny.CPU).history["loss"] for recipe in recipes]
    assert len(tried) > 1
    for loss, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(loss, wanted)


def test_the_last_learner_is_gone_before_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[StaticLearner]] = []
    others: list[int] = []
    build = StaticLearner.__init__

    def counted(learner: StaticLearner, *arguments: Any) -> None:
        others.append(sum(made() is not None for made in alive))
        alive.append(weakref.ref(learner))
        build(learner, *arguments)

    monkeypatch.setattr(StaticLearner, "__init__", counted)
    forget()
    for size in (4, 8, 12):
        run(tiny.config(epochs=1, batch_size=size), "graph", device=tiny.CPU)
    run_seeds([tiny.config(epochs=1, batch_size=12, seed=seed) for seed in range(2)])
    assert others == [0, 0, 0, 0]


def test_what_waits_is_found() -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        torch.ones(1).item()


def test_batches_have_few_shapes() -> None:
    """Multiples of 16 tokens, at most as long as the run's texts may be."""
    recipe = pin(tiny.config(epochs=3, batch_size=4, max_length=24))
    _train(recipe, "graph", tiny.CPU)
    _, train, _ = _texts(recipe)
    shapes = static_learner(recipe, 2, tiny.CPU, train).walk.shapes
    assert len(shapes) == 30
    assert {size for size, _ in shapes} == {4}
    assert {length for _, length in shapes} <= {16, 24}


def test_the_executor_is_by_default_the_quickest_of_the_device() -> None:
    assert best_executor(torch.device("cuda")) == "graph"
    assert best_executor(tiny.CPU) == "fast"


def test_another_family_of_models_is_run_by_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny.config(epochs=None, max_steps=1)
    assert supported(recipe)
    monkeypatch.setattr("stabkit.fast.FAMILIES", ())
    monkeypatch.setattr("stabkit.static.FAMILIES", ())
    for executor in ("graph", "fast"):
        assert run(recipe, executor, device=tiny.CPU).summary["executor"] == "plain"


def test_subsets_find_what_was_made_for_them() -> None:
    recipe = pin(tiny.config(epochs=1, train_size=16))
    _, one, dev = _texts(recipe)
    _, two, again = _texts(recipe.replace(seed=1))
    assert one is two
    assert dev is again


def on_gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.mark.gpu
def test_a_gpu_replays_one_graph_for_each_shape() -> None:
    device, recipe = on_gpu(), pin(tiny.config(epochs=2, batch_size=12))
    forget()
    assert run(recipe).summary["executor"] == "graph"
    task, train, _ = _texts(recipe)
    learner = static_learner(recipe, len(task.labels), device, train)
    assert learner.steps._graphs.keys() == set(learner.walk.shapes)


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, {"precision": "fp16"}, {"mixout": 0.5}], ids=str)
def test_a_step_on_a_gpu_waits_for_nothing(changes: dict[str, Any]) -> None:
    """The step as it is, not its graph, with torch told to fail where it waits."""
    device, recipe = on_gpu(), pin(tiny.config(epochs=2, batch_size=12, **changes))
    run(recipe)
    task, train, _ = _texts(recipe)
    learner = static_learner(recipe, len(task.labels), device, train)
    learner._rewind()
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings():  # it says that it is a prototype
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
        learner.steps.function(*learner.walk.shapes[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert learner.walk.at.item() == 1


@pytest.mark.gpu
def test_dropout_in_a_graph_is_new_at_every_replay() -> None:
    """One row at learning rate 0: without new masks every loss would be the same."""
    on_gpu()
    recipe = tiny.config(epochs=None, max_steps=8, train_size=2, batch_size=2, warmup=1.0)
    losses = run(recipe.replace(learning_rate=1e-30)).history["loss"]
    assert losses.nunique() == 8
