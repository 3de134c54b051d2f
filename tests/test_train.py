"""A run: equal bits, what is recorded of it, its verdicts, and what the switches do."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tiny import NO_DROPOUT
from torch import nn
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from stabkit import static
from stabkit.batches import encode, training_batches
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, DataError, ModelError
from stabkit.geometry import Weights
from stabkit.loop import _clip
from stabkit.mixout import apply_mixout, plain_name
from stabkit.models import build
from stabkit.optim import AdamW
from stabkit.results import RunResult
from stabkit.schedule import hidden_multiplier
from stabkit.train import ExecutorName, Learner, follow, pin, run, run_seeds, task_of, trained_model


def same(one: RunResult, two: RunResult) -> bool:
    """Say whether two results are equal in every bit, but for the clock."""
    clock = ("seconds", "date")
    summaries = [
        {name: value for name, value in result.summary.items() if name not in clock}
        for result in (one, two)
    ]
    return (
        summaries[0] == summaries[1]
        and one.config == two.config
        and one.history.equals(two.history)
        and one.gradients.equals(two.gradients)
    )


def losses(config: RunConfig, executor: str = "fast") -> NDArray[np.float64]:
    found: NDArray[np.float64] = tiny.train(config, executor).history["loss"].to_numpy()
    return found


def norms(result: RunResult) -> NDArray[np.float64]:
    found: NDArray[np.float64] = result.gradients.drop(columns="step").to_numpy()
    return found


# --- equal bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["fast", "plain"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16"}, {"mixout": 0.9, "bias_correction": False}],
    ids=["fp32", "bf16", "mixout"],
)
def test_two_equal_runs_give_equal_bits(executor: str, changes: dict[str, Any]) -> None:
    config = tiny.config(**changes)
    torch.manual_seed(1)
    first = tiny.train(config, executor)
    torch.manual_seed(2)
    assert same(first, tiny.train(config, executor))
    assert not same(first, tiny.train(config.replace(seed=1), executor))


def test_a_run_in_a_fresh_process_gives_equal_bits() -> None:
    config = pin(tiny.config())
    script = (
        f"from stabkit.config import RunConfig; import tiny; r = tiny.train({config!r});"
        "print(r.history['loss'].tolist(), r.summary['dev_predictions'], r.config.key)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True
    ).stdout
    here = tiny.train(config)
    expected = here.history["loss"].tolist(), here.summary["dev_predictions"], config.key
    assert printed.strip() == " ".join(map(str, expected))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_executors_train_alike_without_dropout(architecture: str) -> None:
    config = tiny.config(architecture, learning_rate=1e-4, **NO_DROPOUT)
    fast, plain = (tiny.train(config, executor) for executor in ("fast", "plain"))
    assert (fast.summary["executor"], plain.summary["executor"]) == ("fast", "plain")
    np.testing.assert_allclose(fast.history["loss"], plain.history["loss"], rtol=1e-5)
    np.testing.assert_allclose(norms(fast), norms(plain), rtol=1e-3, atol=1e-6)
    assert fast.summary["dev_predictions"] == plain.summary["dev_predictions"]


def test_the_trained_model_is_the_run_s_made_again() -> None:
    config = tiny.config(epochs=4, learning_rate=3e-3, mixout=0.5)
    task, result = task_of(config), tiny.train(config)
    model = trained_model(config, device=tiny.CPU)
    assert isinstance(model, PreTrainedModel)
    assert not model.training
    assert not any("parametrizations" in name for name in model.state_dict())
    batch = encode(config, task.dev).batch(np.arange(len(task.dev)))
    with torch.no_grad():
        predictions = model(**batch).logits.argmax(1)
    assert predictions.tolist() == result.summary["dev_predictions"]
    assert not result.summary["constant"]


@pytest.mark.parametrize("mixout", [0.0, 0.5])
@pytest.mark.parametrize("executor", ["fast", "plain"])
def test_a_run_that_is_followed_is_the_same_to_the_bit(
    executor: ExecutorName, mixout: float
) -> None:
    config, seen = tiny.config(mixout=mixout), dict[int, dict[str, torch.Tensor]]()

    def watch(step: int, weights: Weights) -> None:
        seen[step] = {name: x.clone() for name, x in weights.items()}

    follow(config, watch, executor, device=tiny.CPU)
    assert list(seen) == [0, 1, 2, 3, 4, 5]
    ends = {
        0: build(pin(config), 2).state_dict(),
        5: trained_model(config, executor, device=tiny.CPU).state_dict(),
    }
    for step, weights in ends.items():
        assert seen[step].keys() == weights.keys()
        assert all(torch.equal(seen[step][name], x) for name, x in weights.items())


def test_a_trained_model_is_kept_and_made_again_to_the_bit_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STABKIT_CACHE", str(tmp_path))

    def weights() -> dict[str, torch.Tensor]:
        return trained_model(config, device=tiny.CPU).state_dict()

    config = tiny.config(mixout=0.5)
    first = weights()
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert pin(config).key in kept.name
    for damage in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:1000])):
        damage(kept)
        again = weights()
        assert all(torch.equal(again[name], weight) for name, weight in first.items())
    save_file({name: weight + 1 for name, weight in first.items()}, kept)
    assert all(torch.equal(weights()[name], weight + 1) for name, weight in first.items())


def test_weights_of_other_hardware_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home may be shared by machines that do not train to the same bits."""
    monkeypatch.setenv("STABKIT_CACHE", str(tmp_path))
    config = tiny.config(max_steps=1, epochs=None)
    trained_model(config, device=tiny.CPU)
    monkeypatch.setattr("stabkit.train.hardware", lambda device: "another")
    trained_model(config, device=tiny.CPU)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_a_full_device_says_what_to_make_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("stabkit.train.fine_tune", full)
    with pytest.raises(ConfigError, match=r"batches of 8 texts.*does not fit into the memory of"):
        tiny.train(tiny.config())
    monkeypatch.setattr("stabkit.train.stacked_learner", full)
    with pytest.raises(ConfigError, match=r"for 2 seeds at once,.* or fewer seeds at once"):
        run_seeds([tiny.config(seed=seed) for seed in (0, 1)], device=tiny.CPU)


def test_a_learner_that_does_not_fit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    tiny.train(tiny.config(max_steps=1, epochs=None), "graph")
    assert static._kept
    monkeypatch.setattr("stabkit.graph.Captured.prepare", full)
    with pytest.raises(ConfigError, match="does not fit into the memory of"):
        tiny.train(tiny.config(max_steps=1, epochs=None, seed=1), "graph")
    assert not static._kept


def test_a_cache_that_cannot_be_written_loses_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STABKIT_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"not kept for next time: cannot write "):
        model = trained_model(tiny.config(max_steps=1, epochs=None), device=tiny.CPU)
    assert isinstance(model, PreTrainedModel)


def test_another_data_folder_is_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for name in ("one", "two"):
        folder = tmp_path / name / "rte"
        folder.mkdir(parents=True)
        for split in ("train", "dev"):
            rows = [{"sentence1": name, "sentence2": "the dog .", "label": i % 2} for i in range(4)]
            text = "\n".join(json.dumps(row) for row in rows)
            (folder / f"{split}.jsonl").write_text(text)
        monkeypatch.setenv("STABKIT_DATA", str(tmp_path / name))
        digests.append(task_of(tiny.config(task="rte", dev_file=None)).digest)
    assert digests[0] != digests[1]


# --- seeds --------------------------------------------------------------------------------------


def test_the_head_seed_sets_the_first_loss() -> None:
    config = tiny.config(**NO_DROPOUT, batch_size=40)
    first = losses(config)[0]
    assert losses(config.replace(head_seed=1))[0] != first
    assert losses(config.replace(order_seed=1, dropout_seed=1))[0] == pytest.approx(first, rel=1e-6)


def test_the_order_seed_sets_the_order_alone() -> None:
    whole = tiny.config(**NO_DROPOUT, batch_size=40, epochs=3, learning_rate=1e-4)
    np.testing.assert_allclose(losses(whole), losses(whole.replace(order_seed=1)), rtol=1e-4)
    parts = tiny.config(**NO_DROPOUT)
    assert abs(losses(parts)[0] - losses(parts.replace(order_seed=1))[0]) > 1e-3


@pytest.mark.parametrize("executor", ["fast", "plain"])
def test_the_dropout_seed_sets_dropout_and_mixout_alone(executor: str) -> None:
    def differs(config: RunConfig) -> bool:
        other = losses(config.replace(dropout_seed=1), executor)
        return bool((losses(config, executor) != other).any())

    assert not differs(tiny.config(**NO_DROPOUT))
    for name in NO_DROPOUT:
        assert differs(tiny.config(**{**NO_DROPOUT, name: 0.5}))
    assert differs(tiny.config(mixout=0.5))


# --- what is recorded ---------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"mixout": 0.5}], ids=["dropout", "mixout"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_gradient_norms_are_torch_s_before_clipping(
    architecture: str, changes: dict[str, Any]
) -> None:
    config = tiny.config(architecture, clip_norm=0.01, evals_per_epoch=0, **changes)
    recorded = tiny.train(config).gradients.iloc[0]
    learner = Learner.build(config, 2, tiny.CPU, "fast")
    learner.model.train()
    batch = next(training_batches(encode(config, task_of(config).train), config, 1))
    labels = batch.pop("labels")
    nn.functional.cross_entropy(learner.logits(batch), labels).backward()  # type: ignore[no-untyped-call]
    expected = {
        plain_name(name): p.grad.norm().item()
        for name, p in learner.model.named_parameters()
        if p.ndim > 1 and p.grad is not None
    }
    assert list(recorded.index) == ["step", *expected]
    assert recorded["step"] == 1
    np.testing.assert_allclose(recorded[list(expected)].to_numpy(), list(expected.values()), 1e-5)
    assert (recorded[list(expected)] ** 2).sum() > 0.01**2  # so clipping did bite
    parts = ("word_embeddings", "query", "classifier")
    assert all(any(part in name for name in expected) for part in parts)


def test_clipping_limits_the_global_norm() -> None:
    """As torch's own clipping does; a parameter without a gradient has norm 0."""

    def made() -> list[nn.Parameter]:
        parameters = [nn.Parameter(torch.ones(shape)) for shape in ((3, 4), (5,), (2,))]
        for parameter, value in zip(parameters[:2], (2.0, 3.0), strict=True):
            parameter.grad = torch.full_like(parameter, value)
        return parameters

    for limit in (1.0, 9.0, 10.0, None):  # the global norm is 9.64
        ours, torchs = made(), made()
        measured = _clip(ours, AdamW(ours, lr=1.0), limit)
        torch.testing.assert_close(measured, torch.tensor([48.0, 45.0, 0.0]).sqrt())
        torch.nn.utils.clip_grad_norm_(torchs, limit or 1e9)
        for one, two in zip(ours, torchs, strict=True):
            torch.testing.assert_close(one.grad, two.grad)


def test_steps_of_a_run_count_the_last_smaller_batch() -> None:
    result = tiny.train(tiny.config(epochs=2, batch_size=16))  # 40 pairs: 16, 16, 8
    assert result.summary["steps"] == 6
    assert result.history["step"].tolist() == list(range(1, 7))
    assert result.gradients["step"].tolist() == list(range(1, 7))


def test_max_steps_replaces_the_epochs() -> None:
    full = tiny.train(tiny.config(evals_per_epoch=0))
    cut = tiny.train(tiny.config(evals_per_epoch=0, epochs=None, max_steps=7, warmup=0.2))
    assert (full.summary["steps"], cut.summary["steps"]) == (5, 7)
    assert cut.history["loss"].iloc[0] == full.history["loss"].iloc[0]


@pytest.mark.parametrize(("epochs", "warmup"), [(2, 0.1), (4, 0.1), (3, 0.0), (3, 1.0)])
def test_learning_rates_are_transformers_linear_schedule(epochs: int, warmup: float) -> None:
    rates = tiny.train(tiny.config(epochs=epochs, warmup=warmup)).history["learning_rate"]
    steps = 5 * epochs
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = get_linear_schedule_with_warmup(  # type: ignore[no-untyped-call]
        optimizer, int(warmup * steps), steps
    )
    expected = []
    for _ in range(steps):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_the_multiplier_is_part_of_the_learning_rate() -> None:
    config = tiny.config(epochs=2)
    plain = tiny.train(config).history["learning_rate"]
    hidden = hidden_multiplier(np.arange(1, 11), config.beta1, config.beta2)
    times = tiny.train(config.replace(multiplier="times")).history["learning_rate"]
    np.testing.assert_allclose(times, plain * hidden)
    divided = config.replace(multiplier="divided", bias_correction=False)
    np.testing.assert_allclose(tiny.train(divided).history["learning_rate"], plain / hidden)


def test_the_multiplier_stands_for_the_missing_correction() -> None:
    """Up to eps, uncorrected is corrected times the multiplier: the same run (section 5.1)."""
    config = tiny.config(epochs=2, eps=1e-20, weight_decay=0.0, learning_rate=1e-4, **NO_DROPOUT)
    missing = losses(config.replace(bias_correction=False))
    np.testing.assert_allclose(losses(config.replace(multiplier="times")), missing, rtol=1e-3)
    assert np.abs(losses(config) / missing - 1).max() > 1e-3


def test_the_dev_set_is_scored_before_in_and_after_training() -> None:
    """Three times an epoch and once before: 61 looks in 20 epochs, as in the authors' code."""
    result = tiny.train(tiny.config(epochs=20, train_size=24, evals_per_epoch=3))
    scores = result.history["dev_score"]
    assert scores.notna().sum() == 60
    assert scores.iloc[-1] == result.summary["score_last"]
    assert result.summary["score_best"] >= scores.max()
    best = result.summary["best_step"]
    assert best == 0 or scores.iloc[best - 1] == result.summary["score_best"]
    two = tiny.train(tiny.config(epochs=2, evals_per_epoch=2)).history
    assert two["step"][two["dev_score"].notna()].tolist() == [2, 5, 8, 10]
    once = tiny.train(tiny.config(epochs=2, evals_per_epoch=0)).history
    assert once["step"][once["dev_score"].notna()].tolist() == [10]


def test_looking_more_often_changes_nothing_else() -> None:
    often, once = (tiny.train(tiny.config(evals_per_epoch=n)) for n in (5, 0))
    assert often.history["loss"].equals(once.history["loss"])
    assert often.summary["dev_predictions"] == once.summary["dev_predictions"]


def test_the_summary_says_on_what_and_when() -> None:
    result = tiny.train(pin(tiny.config()))
    summary = result.summary
    assert summary["device"] == "cpu"
    assert summary["threads"] == 1
    assert summary["seconds"] > 0
    assert summary["date"].endswith("+00:00")
    assert all(summary[name] for name in ("hardware", "version", "python", "torch", "transformers"))
    assert len(summary["dev_predictions"]) == 24
    assert result.row().num_rows == 1  # nothing collides with the configuration's columns


# --- verdicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"mixout": 0.9}])
def test_a_loss_that_is_not_a_number_is_recorded(changes: dict[str, Any]) -> None:
    result = tiny.train(tiny.config(learning_rate=1e30, **changes))
    assert not np.isfinite(result.history["loss"].iloc[-1])
    assert result.summary["steps"] == len(result.history) == 5
    for verdict in ("diverged", "failed", "constant", "flat_loss"):
        assert result.summary[verdict] is True
    assert result.row().num_rows == 1


def test_a_run_can_learn() -> None:
    """Two words tell the label: the loss falls, nothing is called a failure."""
    texts = tuple(f"the {word} left ." for word in ("dog", "king") * 20)
    folder = Path(tiny.data()[0]).parent
    path = folder / "easy.csv"
    pd.DataFrame({"text": texts, "label": ["a", "b"] * 20}).to_csv(path, index=False)
    config = tiny.config(task=str(path), dev_file=str(path), epochs=6, **NO_DROPOUT)
    summary = tiny.train(config).summary
    assert summary["score_last"] == summary["train_accuracy"] == 1
    assert summary["train_loss"] < 0.5
    verdicts = ("failed", "constant", "flat_loss", "diverged")
    assert [summary[name] for name in verdicts] == [False] * 4


# --- switches -----------------------------------------------------------------------------------


def test_bf16_is_fp32_less_precisely() -> None:
    half, full = (losses(tiny.config(precision=p, **NO_DROPOUT)) for p in ("bf16", "fp32"))
    assert (half != full).any()
    np.testing.assert_allclose(half, full, rtol=0.05)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("executor", ["fast", "plain"])
def test_mixout_runs_and_leaves_plain_names(architecture: str, executor: str) -> None:
    config = tiny.config(architecture, mixout=0.9)
    result = tiny.train(config, executor)
    plain = tiny.train(config.replace(mixout=0.0), executor)
    assert list(result.gradients.columns) == list(plain.gradients.columns)
    assert np.isfinite(result.history["loss"]).all()
    assert (result.history["loss"][2:] != plain.history["loss"][2:]).all()


def test_mixout_of_0_is_a_run_without_any_dropout() -> None:
    """Lee et al. replace dropout; the switch at 0 leaves it, so compare with none."""
    config = tiny.config(**NO_DROPOUT)
    learner = Learner.build(config, 2, tiny.CPU, "fast")
    apply_mixout(learner.model, 0.0, torch.Generator().manual_seed(0))
    learner.model.train()
    batch = next(training_batches(encode(config, task_of(config).train), config, 1))
    labels = batch.pop("labels")
    loss = nn.functional.cross_entropy(learner.logits(batch), labels)
    assert loss.item() == losses(config)[0]


def test_segments_change_the_inputs() -> None:
    with_segments, without = (losses(tiny.config(segments=s, **NO_DROPOUT)) for s in (True, False))
    assert with_segments[0] != without[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"pooler": "new"},
        {"eps": 1e-2},
        {"bias_correction": False},
        {"decay_after_step": False, "weight_decay": 0.9},
        {"eps_placement": "after", "eps": 1e-2},
        {"clip_norm": 0.001, "eps": 1e-2},
        {"zero_first_update": False},
        {"max_length": 10},
        {"init_std": 0.3},
        {"mixout": 0.5, "mixout_mask": "element"},
        {"mixout": 0.5, "mixout_rescale_gradient": False, "eps": 1e-2},
    ],
    ids=str,
)
def test_every_switch_changes_the_run(changes: dict[str, Any]) -> None:
    base = tiny.config(epochs=2, learning_rate=1e-2, **NO_DROPOUT)
    if "mixout" in changes:
        base = base.replace(mixout=0.5)
    if "eps" in changes and len(changes) > 1:
        base = base.replace(eps=changes["eps"])
    assert (losses(base) != losses(base.replace(**changes))).any()


def test_roberta_s_second_dropout_is_a_switch() -> None:
    config = tiny.config("roberta", classifier_dropout=0.5, hidden_dropout=0, attention_dropout=0)
    one, two = (losses(config.replace(pooler_dropout=p)) for p in (False, True))
    assert (one != two).any()


# --- data ---------------------------------------------------------------------------------------


def test_three_labels_of_the_user_s_own_file() -> None:
    train, dev = tiny.data(labels=3)
    result = tiny.train(pin(tiny.config(task=train, dev_file=dev)))
    assert result.summary["label_entropy"] == pytest.approx(np.log(3), rel=1e-2)
    assert result.summary["majority_accuracy"] == pytest.approx(1 / 3)
    assert set(result.summary["dev_predictions"]) <= {0, 1, 2}
    assert result.gradients.shape[0] == 5
    model = trained_model(tiny.config(task=train, dev_file=dev), device=tiny.CPU)
    assert model.config.num_labels == 3


def test_a_training_subset_is_fixed_by_its_seed() -> None:
    config = tiny.config(train_size=20, **NO_DROPOUT)
    result = tiny.train(config)
    assert result.summary["steps"] == 3
    assert same(result, tiny.train(config))
    assert losses(config)[0] != losses(config.replace(subset_seed=1))[0]
    with pytest.raises(DataError, match="a subset of 41 examples: train has 40"):
        tiny.train(config.replace(train_size=41))


def test_pinning_fills_the_digests_and_keeps_the_rest() -> None:
    config = tiny.config(seed=3, order_seed=5)
    pinned = pin(config)
    assert pinned == config.replace(
        weights=pinned.weights, tokenizer=pinned.tokenizer, data=pinned.data, order_seed=5
    )
    assert pin(pinned) == pinned
    assert tiny.train(config).config == pinned
    assert pin(config.replace(precision="bf16")).data == pinned.data


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    files = [tmp_path / "train.csv", tmp_path / "dev.csv"]
    for copy, path in zip(files, tiny.data(), strict=True):
        copy.write_bytes(Path(path).read_bytes())
    config = pin(tiny.config(task=str(files[0]), dev_file=str(files[1])))
    assert config.key == pin(tiny.config()).key  # content counts, not place
    with files[1].open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(["the dog left .", "the dog stayed .", "no"])
    for use in (pin, tiny.train, trained_model):
        with pytest.raises(ConfigError, match=r"the data of .* changed: digest \w{12}, but the"):
            use(config)
    again = pin(config.replace(data=""))
    assert again.key != config.key
    assert len(tiny.train(again).summary["dev_predictions"]) == 25


def test_a_wrong_digest_of_the_model_is_noticed() -> None:
    for name in ("weights", "tokenizer"):
        with pytest.raises(ConfigError, match=f"the {name} of .* changed"):
            pin(tiny.config(**{name: "0" * 64}))


def test_a_folder_without_weights_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has no config\.json; expected a model folder"):
        tiny.train(tiny.config(model=str(tmp_path)))


def test_the_first_look_is_before_the_first_step_and_the_last_at_the_end() -> None:
    def looks(**changes: Any) -> list[int]:
        found: list[int] = tiny.train(tiny.config(**changes)).summary["dev_steps"]
        return found

    assert looks(epochs=2, evals_per_epoch=2) == [0, 2, 5, 8, 10]
    assert looks(epochs=None, max_steps=7, evals_per_epoch=1) == [0, 5, 7]
    assert looks(epochs=2, evals_per_epoch=0) == [10]


def test_threads_are_set_told_and_part_of_a_checkpoint_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STABKIT_CACHE", str(tmp_path))
    config, used = tiny.config(max_steps=1, epochs=None), list[int]()
    assert run(config, threads=2, device=tiny.CPU).summary["threads"] == 2
    used.append(torch.get_num_threads())
    for threads in (1, 2):
        trained_model(config, threads=threads, device=tiny.CPU)
        used.append(torch.get_num_threads())
    follow(config, lambda *_: used.append(torch.get_num_threads()), threads=1, device=tiny.CPU)
    assert used == [2, 1, 2, 1, 1]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    monkeypatch.setattr("stabkit.__version__", "0")
    trained_model(config, device=tiny.CPU)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3
