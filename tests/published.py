"""Published results as they will be, made up: every study of the book with plausible runs."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from fakes import judged
from inside import history, lines, plane, swaps, trajectories
from numpy.typing import NDArray

from stabkit import parquet, results, studies
from stabkit.config import RunConfig
from stabkit.mechanism import contrast
from stabkit.mini.tasks import DEV_SIZE, RECIPES, splits
from stabkit.paper import TASKS, paper_task
from stabkit.presets import REAL_TEXT
from stabkit.results import RunResult
from stabkit.studies import PILOT_RATES, RULES, STUDIES

RATE = PILOT_RATES[3]
MODEL = "models/minilm-l6"
STEPS = 20
MADE = {"executor": "fast", "version": "0.1.0", "torch": "2.13.0", "transformers": "5.24.0"}
PLANES = [
    *(("mini-bert", f"mini-{task}") for task in TASKS),
    *((REAL_TEXT, task) for task in TASKS),
]
METRICS = {"mini-mrpc": "accuracy_f1", "mrpc": "accuracy_f1", "mini-cola": "mcc", "cola": "mcc"}


def publish(folder: Path) -> Path:
    """Write a compacted store with all runs of all studies; the blind rule finds RATE.

    Beside it the tables of the analyses of weights.
    """
    rates = {
        pilot: rule(results.frame(trained(STUDIES[pilot].build(RATE))))
        for pilot, rule in RULES.items()
    }
    grid = [config for study in STUDIES.values() for config in study.build(rates[study.pilot])]
    table = trained([*grid, *studies.real(MODEL)])
    frame = results.frame(table)
    files = {"runs": table, "histories": histories(frame), "gradients": gradients(frame)}
    for kind, content in (files | analyses(frame)).items():
        parquet.write(folder / f"{kind}.parquet", content)
    return folder


def trained(configs: Iterable[RunConfig]) -> pa.Table:
    """Return made-up results of runs, each once."""
    pinned = (c.replace(weights=c.model, tokenizer="t" * 64, data=c.task) for c in configs)
    return results.unique(run(config).row() for config in pinned)


def histories(runs: pd.DataFrame) -> pa.Table:
    """Return the loss and a dev score at each of the runs' STEPS, the last one at all of them."""
    names = {"score_last": "dev_score", "train_loss": "loss"}
    rows = runs[["key", *names]].rename(columns=names).loc[runs.index.repeat(STEPS)]
    step = np.tile(np.arange(1, STEPS + 1), len(runs))
    return pa.Table.from_pandas(rows.assign(step=step), preserve_index=False)


def gradients(runs: pd.DataFrame) -> pa.Table:
    """Return gradients that vanish in failed runs, whole for 3 epochs of the RTE-like task."""
    whole = (runs["task"] == "mini-rte") & (runs["epochs"] == 3)
    parts = [runs.loc[~whole, ["key"]].assign(step=1)]
    for failed, shape in ((True, (0.01, 0.001)), (False, (10.0, 0.1))):
        keys = runs.loc[whole & (runs["failed"] == failed), "key"]
        one = history(*shape, steps=STEPS)
        parts.append(pd.concat([one] * len(keys)).assign(key=np.repeat(keys.to_numpy(), STEPS)))
    return pa.Table.from_pandas(pd.concat(parts), preserve_index=False)


def analyses(runs: pd.DataFrame) -> dict[str, pa.Table]:
    """Return a plane for each task of Fig. 7, generated and real; layer swaps and paths on RTE."""
    made = {"device": "cpu", "hardware": "Some CPU", "date": "2026-01-01", **MADE}
    cell = (runs["mixout"] == 0) & (runs["multiplier"] == "none") & (runs["warmup"] == 0.1)
    plain = runs[cell & (runs["epochs"] == 3) & ~runs["seed"].isin(studies.PILOT)]
    planes, swapped, ways, pairs = [], [], [], []
    for model, task in PLANES:
        of_task = plain[(plain["task"] == task) & plain["train_size"].isna()]
        found = contrast(of_task[of_task["model"] == model], each=1).groupby("kind").head(3)
        pair = found.groupby("kind")["key"].first()
        about = {"failed_run": pair["failed"], "successful_run": pair["successful"], "key": task}
        planes.append(plane().assign(**about, **made))
        if paper_task(task) == "rte":
            way = trajectories(pair["failed"], pair["successful"])
            ways.append(way.assign(key=task, **made))
            three = found.groupby("kind")["key"].agg(list)
            between = lines(three["failed"], three["successful"])
            pairs.append(between.assign(key=task + between["failed_run"], **made))
            names = dict(enumerate(found["key"]))
            table = swaps().drop(columns="model").assign(**made)
            swapped.append(table.assign(run=table["seed"].map(names), key=table["seed"].map(names)))
    return {
        "layer-swaps": results.steps(pd.concat(swapped)),
        "loss-surfaces": results.steps(pd.concat(planes)),
        "loss-lines": results.steps(pd.concat(pairs)),
        "trajectories": results.steps(pd.concat(ways)),
    }


def run(config: RunConfig) -> RunResult:
    """Return a run that fails more often without correction and beyond RATE."""
    draws = np.random.default_rng(zlib.crc32(config.key.encode()))
    safe = config.bias_correction != (config.multiplier != "none")
    chance = 0.0 if config.learning_rate <= RATE and safe else 0.3 if config.mixout else 0.7
    failed = bool(draws.random() < chance) or (safe and config.learning_rate > RATE)
    accuracy = 0.502 if failed else float(draws.normal(0.9 if config.epochs == 20 else 0.85, 0.01))
    answers = labels(config.task)
    right = draws.random(len(answers)) < accuracy
    return judged(
        config,
        metric=METRICS.get(config.task, "accuracy"),
        score_last=accuracy,
        score_best=accuracy + 0.01,
        dev_accuracy=float(right.mean()),
        dev_predictions=np.where(right, answers, 1 - answers).tolist(),
        steps=STEPS,
        failed=failed,
        constant=failed,
        flat_loss=failed,
        majority_score=0.502,
        label_entropy=0.693,
        train_accuracy=0.5 if failed else 0.995,
        train_loss=0.69 if failed else 0.01,
        **MADE,
    )


def labels(task: str) -> NDArray[np.int64]:
    """Return a generated task's dev labels; zeros for another task, whose files are not here."""
    return splits(task)[1].labels if task in RECIPES else np.zeros(DEV_SIZE, dtype=np.int64)
