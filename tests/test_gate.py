"""The gate: no shortcut solves a generated task, and the probe sees what an encoder looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny

from stabkit import models, pages
from stabkit.errors import DataError, StabkitError
from stabkit.mini import gate
from stabkit.mini.probe import SLOTS, gaps, probe
from stabkit.presets import is_organism
from stabkit.tables import SIGNS
from stabkit.tasks import GENERATED, Split

RESULTS = Path(__file__).parents[1] / "results" / "runs.parquet"
PAIRS = ("mini-rte", "mini-mrpc", "mini-qnli", "mini-scitail")


@pytest.mark.parametrize("task", GENERATED)
def test_no_baseline_stands_five_points_above_the_majority(task: str) -> None:
    found = gate.baselines(task)
    assert found["passes"].all(), found.to_string()
    assert (found["above"] <= gate.LIMIT).all()
    assert found["auc"].between(0.45, 0.55).all(), found.to_string()
    assert set(found["task"]) == {task}
    assert len(found) == (6 if task in PAIRS else 3)


def test_a_shortcut_is_found_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def leaky(size: int) -> Split:
        labels = rng.integers(0, 2, size)
        words = [f"the cat {'never' if label else 'often'} slept" for label in labels]
        return Split(tuple(words), tuple("a cat slept" for _ in labels), labels)

    monkeypatch.setattr(gate, "splits", lambda *_: (leaky(300), leaky(50), leaky(200)))
    found = gate.baselines.__wrapped__("leaky").set_index("baseline")
    assert found.loc["words", "accuracy"] == found.loc["words", "auc"] == 1
    assert not found.loc["words", "passes"]
    assert found.loc["words of the second text", "passes"]


def test_a_gate_without_examples_or_task_is_refused() -> None:
    with pytest.raises(StabkitError, match="held_out is 0"):
        gate.baselines("mini-rte", 0)
    with pytest.raises(DataError, match="did you mean 'mini-rte'"):
        gate.baselines("mini-rt")


@pytest.mark.parametrize("task", GENERATED)
def test_the_overlap_with_the_corpus_is_reported_and_small(task: str) -> None:
    found = gate.overlap(task, sample=300)
    assert found["sentences"] > 5_000
    assert 0 <= found["train"] < 0.02
    assert 0 <= found["dev"] < 0.02


def runs(**changes: Any) -> pd.DataFrame:
    columns = {
        "model": "mini-bert",
        "task": "mini-rte",
        "epochs": [3] * 4 + [20] * 4,
        "bias_correction": True,
    }
    signs = dict.fromkeys(SIGNS, False)
    scores = {"dev_accuracy": 0.85, "train_accuracy": [0.9] * 4 + [0.995] * 4}
    return pd.DataFrame(columns | signs | scores | changes, index=range(8))


def checks(table: pd.DataFrame) -> list[bool]:
    shortcuts = pd.DataFrame({"task": ["mini-rte", "mini-rte"], "accuracy": [0.5, 0.55]})
    return list(gate.training(table, shortcuts)["holds"])


def test_the_gate_tells_how_many_runs_it_leaves_out() -> None:
    table = runs(failed=[True, True] + [False] * 6)
    short, long = gate.training(table, gate.baselines("mini-rte", 100))["numbers"]
    assert "n = 2" in short and short.endswith("; 2 more with a sign of failure")
    assert "n = 4" in long and "failure" not in long


def test_training_is_judged_by_distance_and_by_fit() -> None:
    assert checks(runs()) == [True, True]
    assert checks(runs(dev_accuracy=0.69)) == [False, True]
    assert checks(runs(train_accuracy=0.98)) == [True, False]
    failed = [True] + [False] * 7
    assert checks(runs(failed=failed, dev_accuracy=[0.1] + [0.85] * 7)) == [True, True]
    assert checks(runs(bias_correction=False)) == []
    assert checks(runs(failed=True)) == [False, True]
    assert checks(runs(epochs=20, train_accuracy=[0.995] * 8)) == [True]


def test_each_model_is_judged_by_its_own_runs() -> None:
    table = runs(model=["mini-bert", "mini-albert"] * 4, train_accuracy=[0.995, 0.9] * 4)
    found = gate.training(table, gate.baselines("mini-rte", 100)).set_index(["model", "check"])
    assert found.loc[("mini-bert", "20 epochs, training accuracy"), "holds"]
    assert not found.loc[("mini-albert", "20 epochs, training accuracy"), "holds"]


@pytest.mark.skipif(not RESULTS.exists(), reason="no runs are published")
def test_the_published_runs_pass_the_gate() -> None:
    published = pages.runs("pilot-rte", "table1-rte")
    judged = published[published["learning_rate"] == pages.rate()]
    found = gate.training(judged, gate.baselines("mini-rte"))
    assert found["check"].tolist() == ["3 epochs, dev accuracy", "20 epochs, training accuracy"]
    assert found["holds"].all(), found.to_string()


def test_a_gap_hides_the_right_word_behind_both_sentences() -> None:
    found = gaps(5, "[MASK]")
    assert len(found) == 5 * len(SLOTS) * 2
    for related, unrelated in zip(found[::2], found[1::2], strict=True):
        assert (related.second, related.words) == (unrelated.second, unrelated.words)
        assert related.second.split().count("[MASK]") == 1
        assert related.words & set(related.first.split())
        assert related.related
        assert not unrelated.related


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_an_encoder_without_training_sees_nothing(architecture: str) -> None:
    found = probe(tiny.model(architecture), events=10)
    assert list(found.columns) == ["slot", "related", "unrelated", "gaps"]
    assert list(found["slot"]) == list(SLOTS)
    np.testing.assert_allclose(found["related"], found["unrelated"], atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("model", list(filter(is_organism, models.mini_models())))
def test_the_shipped_encoders_use_the_first_sentence(model: str) -> None:
    found = probe(model, events=100)
    assert (found["related"] > 3 * found["unrelated"]).all(), found.to_string()
