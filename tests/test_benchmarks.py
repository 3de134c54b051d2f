"""The benchmarks' own arithmetic: lengths, floor, table; and that their loops still run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, BertConfig

from stabkit.presets import preset
from stabkit.studies import grid

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def load(name: str) -> ModuleType:
    return __import__(name)


@pytest.mark.parametrize(
    ("task", "mean", "longest"),
    [
        ("RTE", 66.6, 126.6),
        ("MRPC", 53.2, 76.4),
        ("CoLA", 11.3, 20.6),
        ("mini-RTE", 22.0, 28.1),
    ],
)
def test_lengths_are_those_of_the_tasks(task: str, mean: float, longest: float) -> None:
    lengths = load("workloads").LENGTHS[task].draw(32_000)
    assert lengths.mean() == pytest.approx(mean, rel=0.02)
    assert lengths.reshape(-1, 16).max(1).mean() == pytest.approx(longest, rel=0.02)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_floor_counts_the_operations_that_torch_does(layers: int) -> None:
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        attn_implementation="eager",
    )
    model = AutoModelForSequenceClassification.from_config(config)
    ids = torch.randint(5, 50, (4, 16))
    with FlopCounterMode(display=False) as counted:
        model(input_ids=ids, labels=torch.zeros(4, dtype=torch.long)).loss.backward()
    weights = sum(p.numel() for p in model.parameters())
    cost = load("floor").step_cost(config, weights, np.full(4, 16), 4)
    assert cost.flops == pytest.approx(counted.get_total_flops(), rel=1e-3)
    assert cost.traffic == weights * 44


def test_the_floor_is_the_slower_of_arithmetic_and_traffic() -> None:
    floor = load("floor")
    cost = floor.Cost(flops=6.0, traffic=8.0)
    assert cost.seconds(floor.Ceilings(flops=2.0, bandwidth=4.0)) == 3.0
    assert cost.seconds(floor.Ceilings(flops=6.0, bandwidth=4.0)) == 2.0


def test_ceilings_are_positive_rates() -> None:
    found = load("floor").ceilings(torch.device("cpu"), torch.float32, rounds=2)
    assert found.flops > 1e8 and found.bandwidth > 1e8 and found.gain > 0.5


def test_ratios_are_taken_round_by_round() -> None:
    step, workloads = load("step"), load("workloads")
    seconds: dict[str, list[float]] = {
        "stabkit, fast, fp32": [1.0, 2.0, 3.0],
        step.DEFAULTS: [2.0, 4.0, 6.0],
        "Trainer, eager attention, fused AdamW": [1.5, 3.0, 4.5],
        step.PAPER: [4.0, 8.0, 12.0],
        "floor, fp32": [0.5, 1.0, 1.5],
    }
    found = {
        name: [
            {"seconds": s, "peak": 1.0, "start": 2.0, "gain": 2.0, "onednn": True} for s in times
        ]
        for name, times in seconds.items()
    }
    table = step.table(found, workloads.WORKLOADS["mini, mini-RTE"])
    assert table[2] == "| stabkit, fast, fp32 | 0.5 | 2.00 | 1.50 | 4.00 | 50% | 1 | 2.0 | 23400 |"
    assert "**Trainer, eager attention, fused AdamW** (its best)" in table[4]
    assert "| 100% |" in table[-3]
    assert " 2.0 times " in table[-1]


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_everyone_is_timed_in_the_precisions_that_the_device_has(gpu: bool, bf16: bool) -> None:
    step = load("step")
    half = step.half_of(gpu, bf16)
    assert half == {(True, True): "bf16", (True, False): "fp16", (False, True): "bf16"}.get(
        (gpu, bf16)
    )
    found = step.contestants(gpu, half, small=True)
    for loop in ("stabkit", "trainer"):
        precisions = {one.precision for one in found.values() if one.loop == loop}
        assert precisions == {"fp32", half} - {None}
    compiled = {one.loop for one in found.values() if one.compiled}
    assert compiled == ({"stabkit", "trainer"} if gpu else set())
    assert (step.TOGETHER in found) == gpu
    assert step.TOGETHER not in step.contestants(gpu, half, small=False)


@pytest.mark.parametrize(
    ("executor", "seeds"), [("fast", 1), ("plain", 1), ("graph", 1), ("together", 2)]
)
def test_the_loop_that_is_timed_runs(executor: str, seeds: int, tmp_path: Path) -> None:
    step, workloads = load("step"), load("workloads")
    mini = workloads.WORKLOADS["mini, mini-RTE"]

    def shallow() -> Any:
        config = mini.model()
        config.num_hidden_layers = 1
        return config

    work, clock = replace(mini, model=shallow), step.Clock(step.WARM_UP + 2)
    work.save(tmp_path)
    one = step.Contestant("stabkit", executor=executor, seeds=seeds)
    step._stabkit(one, str(tmp_path), work, clock)
    assert 0 < clock.seconds < 60 and 0 < clock.start < 300


def test_executors_are_held_against_the_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stabkit.train.choose_device", lambda: torch.device("cpu"))
    executors = load("executors")
    configs = [
        config.replace(model="mini-bert-shallow", epochs=None, max_steps=2, train_size=32)
        for config in grid(preset("devlin", learning_rate=1e-4), (1000, 1001))
    ]
    found = {one: executors.trained(configs, one, tmp_path, 1) for one in executors.EXECUTORS}
    assert [set(runs["executor"]) for runs in found.values()] == [{one} for one in found]
    assert executors.row("plain", found["plain"], found["plain"]).endswith("|  |  |  |")
    other = found["plain"].assign(train_loss=found["plain"]["train_loss"] + 1.0)
    line = executors.row("other", other, found["plain"])
    assert line.strip("| ").split(" | ")[-3:] == ["1.00", "1.00", "0.33"]


def test_a_study_shares_its_seeds_out_and_trains_them_by_each_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = load("study")
    for train in (study._trainer, *study.shares("bf16").values()):
        assert all(0.3 < score < 0.8 for score in train([3000, 3001], 1))
    shares: list[list[int]] = []

    def start(name: str, seeds: list[int], steps: int, environment: dict[str, str]) -> list[float]:
        assert name in study.shares("bf16")
        assert (steps, environment["OMP_NUM_THREADS"]) == (1, "1")
        shares.append(seeds)
        return [seed / 100 for seed in seeds]

    monkeypatch.setattr(study, "_start", start)
    monkeypatch.setattr(study, "_scores", lambda scores: scores)
    assert sorted(study._trainers(range(5), 1, 2, "bf16")) == [0.0, 0.01, 0.02, 0.03, 0.04]
    assert shares == [[0, 2, 4], [1, 3]]
    shares.clear()
    study._trainers(range(1), 1, 2, "fp32")
    assert shares == [[0]]


def test_a_gpu_is_shared_by_processes_or_has_all_seeds_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study, swept = load("study"), []

    def sweep(configs: list[Any], store: Any, processes: int, **options: Any) -> pd.DataFrame:
        swept.append((len(configs), processes, options["seeds_at_once"], configs[0].precision))
        return pd.DataFrame({"score_last": [0.5] * len(configs)})

    monkeypatch.setattr("stabkit.sweep.sweep", sweep)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for gpu, half in ((False, None), (True, "bf16")):
        named = study.contestants(gpu, half)
        ours = [one for name, one in named.items() if name.startswith("stabkit")]
        assert all(one(range(3), 1) == [0.5] * 3 for one in ours)
        assert len([name for name in named if name.startswith(study.TUNED)]) == 1 + gpu
    assert swept == [
        (3, 2, 1, "fp32"),
        *((3, study.SHARING, 1, precision) for precision in ("fp32", "bf16")),
        (3, 1, 1, "fp32"),
        (3, 1, study.SEEDS, "fp32"),
    ]
