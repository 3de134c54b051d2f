"""Runs without training, for the tests of store and sweep; spawned workers import them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from stabkit.config import RunConfig
from stabkit.results import RunResult

MATRICES = ("embeddings.weight", "layer.0.query.weight", "layer.0.key.weight", "classifier.weight")
DIGESTS = {"weights": "w" * 64, "tokenizer": "t" * 64, "data": "d" * 64}


def grid(n: int, **changes: object) -> list[RunConfig]:
    """Return ``n`` configurations that differ in their seed."""
    return [RunConfig(**{**DIGESTS, **changes, "seed": seed}) for seed in range(n)]


def quick(config: RunConfig, steps: int = 60, matrices: tuple[str, ...] = MATRICES) -> RunResult:
    """Draw what a run would measure from the configuration's own random numbers."""
    rng = np.random.default_rng(int(config.key, 16))
    at = np.arange(1, steps + 1)
    score = np.where(at % 10, np.nan, rng.random(steps))
    history = pd.DataFrame({"step": at, "loss": rng.random(steps), "dev_score": score})
    norms = {name: rng.random(steps).astype(np.float32) for name in matrices}
    summary = {
        "score_last": float(rng.random()),
        "failed": bool(rng.random() < 0.5),
        "best_f1": None if config.seed % 2 else float(rng.random()),
        "best_step": None if config.seed % 3 else int(rng.integers(steps)),
        "dev_predictions": rng.integers(0, 2, 5).tolist(),
        "seconds": 0.5,
        "date": f"2026-01-01T00:00:{config.seed % 60:02d}+00:00",
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }
    return RunResult(config, summary, history, pd.DataFrame({"step": at, **norms}))


def _note(config: RunConfig) -> None:
    with Path(os.environ["FAKE_LOG"]).open("a") as log:
        log.write(f"{config.seed} {os.getpid()}\n")


def noted(config: RunConfig) -> RunResult:
    """Write seed and process to the file $FAKE_LOG, take 0.1 s."""
    _note(config)
    time.sleep(0.1)
    return quick(config)


def endless(config: RunConfig) -> RunResult:
    """Finish seeds 0 and 1; hang in the others."""
    _note(config)
    time.sleep(600 if config.seed > 1 else 0)
    return quick(config)


def on_a_gpu(config: RunConfig) -> RunResult:
    """Wait for another run to begin; say which GPU was to be seen, and from when to when."""
    began = time.time()
    _note(config)
    while len(Path(os.environ["FAKE_LOG"]).read_text().splitlines()) < 2:
        assert time.time() < began + 120, "no other run has begun"
        time.sleep(0.1)
    time.sleep(0.5)
    told = f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {began} {time.time()}"
    result = quick(config)
    return replace(result, summary=result.summary | {"executor": told})


def raising(config: RunConfig) -> RunResult:
    """Raise for seed 1."""
    if config.seed == 1:
        raise ZeroDivisionError("no such luck")
    return quick(config)


def dying(config: RunConfig) -> RunResult:
    """Die of ``kill -9`` for seed 1."""
    if config.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(config)


def at_once(configs: Sequence[RunConfig]) -> list[RunResult]:
    """Do several at once, which their rows say."""
    results = map(quick, configs)
    said = {"executor": f"{len(configs)} at once"}
    return [replace(result, summary=result.summary | said) for result in results]


def raising_at_once(configs: Sequence[RunConfig]) -> list[RunResult]:
    """Raise where seed 1 is among them."""
    return [raising(config) for config in configs]


def dying_at_once(configs: Sequence[RunConfig]) -> list[RunResult]:
    """Die of ``kill -9`` where seed 1 is among them."""
    return [dying(config) for config in configs]


def endless_at_once(configs: Sequence[RunConfig]) -> list[RunResult]:
    """Finish seeds 0 and 1; hang where others are among them."""
    for config in configs:
        _note(config)
    time.sleep(600 if max(config.seed for config in configs) > 1 else 0)
    return at_once(configs)


def judged(config: RunConfig, **summary: object) -> RunResult:
    """Return a quick run with the columns of the summary that reports need."""
    result = quick(config, steps=2)
    score = result.summary["score_last"]
    verdicts = {
        "metric": "accuracy",
        "score_best": score,
        "best_accuracy": summary.get("score_last", score),
        "majority_score": 0.5,
        "majority_accuracy": 0.5,
        "failed": False,
        "constant": False,
        "flat_loss": False,
        "diverged": False,
        "train_loss": 0.25,
        "train_accuracy": 0.75,
        "steps": 2,
        "device": "cpu",
        "hardware": "Some CPU",
    }
    return replace(result, summary=result.summary | verdicts | summary)


def raising_judged(config: RunConfig) -> RunResult:
    """Raise for seed 1."""
    raising(config)
    return judged(config)


def noted_judged(config: RunConfig) -> RunResult:
    """Write seed and process to the file $FAKE_LOG."""
    _note(config)
    return judged(config)


def endless_judged(config: RunConfig) -> RunResult:
    """Finish seeds 0 and 1; hang in the others."""
    endless(config)
    return judged(config)


def hanging(config: RunConfig) -> RunResult:
    """Finish seeds 0 and 1; hang in the others."""
    time.sleep(600 if config.seed > 1 else 0)
    return quick(config)
