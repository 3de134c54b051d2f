"""A study of 25 seeds from start to finish, on all of a machine, beside what one would do else.

``python benchmarks/study.py`` fine-tunes the organism on mini-RTE for 25 seeds, each contestant in
turn and from the start of its process to the last dev score on disk or in hand:

- this package's sweep, one process for each core; on a GPU instead seed after seed, in several
  processes that share the GPU, and all seeds at once as one model;
- Hugging Face's Trainer at its defaults, seed after seed in one process, with torch's threads;
- the Trainer with what helps it (``step.py`` tries its settings), one process for each core, or
  several that share the GPU, one thread each, the seeds shared out among them.

These processes train in fp32, and again in the half precision that the device has.

Runs are cut to ``--steps``, a quarter of their 468, so that what each of them costs beside its
steps counts for more than it does in a whole study. With ``--cpu`` a GPU is left alone. The machine
has to be idle; only ratios mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from workloads import BATCH, here

MODEL, TASK = "mini-bert", "mini-rte"
SEEDS = 25
FIRST = 3000  # of seeds that are reported nowhere
RATE = 2e-4
SHARING = 4  # processes on one GPU


def _stabkit(
    seeds: Sequence[int], steps: int, processes: int, at_once: int = 1, precision: str = "fp32"
) -> list[float]:
    """Return the scores of a sweep, whose store is thrown away."""
    from stabkit import train
    from stabkit.presets import preset
    from stabkit.store import Store
    from stabkit.studies import grid
    from stabkit.sweep import sweep

    recipe = {"learning_rate": RATE, "bias_correction": True, "epochs": None, "max_steps": steps}
    config = preset("devlin", model=MODEL, task=TASK, **recipe, precision=precision)
    config = train.pin(config)
    with tempfile.TemporaryDirectory() as folder:
        store, options = Store(Path(folder)), {"progress": False, "seeds_at_once": at_once}
        runs = sweep(grid(config, seeds), store, processes, **options)
    scores: list[float] = runs["score_last"].tolist()
    return scores


def _rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """Return the training and dev sets, tokenised once, and their tokenizer."""
    from stabkit import models, train
    from stabkit.batches import encode
    from stabkit.presets import preset

    config = train.pin(preset("ours", model=MODEL, task=TASK))
    task = train.task_of(config)
    splits = []
    for split in (task.train, task.dev):
        data = encode(config, split)
        names = ["input_ids"] if data.segments is None else ["input_ids", "token_type_ids"]
        tensors = [data.ids] if data.segments is None else [data.ids, data.segments]
        splits.append(
            [
                {name: rows[i, :length].tolist() for name, rows in zip(names, tensors, strict=True)}
                | {"labels": int(data.labels[i])}
                for i, length in enumerate(data.lengths)
            ]
        )
    return splits[0], splits[1], models.load_tokenizer(MODEL)


def _trainer(seeds: Sequence[int], steps: int, precision: str | None = None) -> list[float]:
    """Return the scores of Trainers, one after the other, in this process.

    They are at their defaults, or have what helps them in a given precision.
    """
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from stabkit.models import MINI_WEIGHTS

    rows, dev, tokenizer = _rows()
    settings = {"optim": "adamw_torch_fused"} if precision else {}
    scores = []
    for seed in seeds:
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as output:
            trainer = Trainer(
                model=AutoModelForSequenceClassification.from_pretrained(
                    MINI_WEIGHTS / MODEL,
                    num_labels=2,
                    dtype=torch.float32,
                    attn_implementation="eager" if precision else "sdpa",
                ),
                args=TrainingArguments(
                    output_dir=output,
                    seed=seed,
                    per_device_train_batch_size=BATCH,
                    per_device_eval_batch_size=64,
                    max_steps=steps,
                    learning_rate=RATE,
                    weight_decay=0.01,
                    use_cpu=not torch.cuda.is_available(),
                    bf16=precision == "bf16",
                    fp16=precision == "fp16",
                    **settings,
                    report_to=[],
                    save_strategy="no",
                    logging_steps=10**6,
                    disable_tqdm=True,
                ),
                train_dataset=rows,  # type: ignore[arg-type]
                eval_dataset=dev,  # type: ignore[arg-type]
                data_collator=DataCollatorWithPadding(tokenizer),
            )
            trainer.train()
            found = trainer.predict(dev)  # type: ignore[arg-type]
            scores.append(float((found.predictions.argmax(1) == found.label_ids).mean()))
    return scores


def _trainers(seeds: Sequence[int], steps: int, processes: int, precision: str) -> list[float]:
    """Share the seeds out among processes of one thread each."""
    shares = [share for i in range(processes) if (share := list(seeds[i::processes]))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = [_start(f"{SHARE}, {precision}", share, steps, environment) for share in shares]
    return [score for process in begun for score in _scores(process)]


Train = Callable[[Sequence[int], int], list[float]]
SHARE = "a share of the seeds"
DEFAULTS = "Trainer, defaults, one seed after the other"
TUNED = "Trainer, eager attention, fused AdamW, "


def contestants(gpu: bool, half: str | None) -> dict[str, Train]:
    """Return who trains, and how, on all cores or on a GPU; ``half`` is its half precision."""
    cores = os.cpu_count() or 1
    each = f"{SHARING} processes that share the GPU" if gpu else "a process per core"
    processes = SHARING if gpu else cores
    precisions = [precision for precision in ("fp32", half) if precision]
    ours: dict[str, Train] = {
        f"stabkit, {precision}, {each}": partial(_stabkit, processes=processes, precision=precision)
        for precision in precisions
    }
    if gpu:
        ours["stabkit, fp32, one seed after the other"] = partial(_stabkit, processes=1)
        ours["stabkit, fp32, all seeds at once"] = partial(_stabkit, processes=1, at_once=SEEDS)
    tuned = {
        f"{TUNED}{precision}, {each}": partial(_trainers, processes=processes, precision=precision)
        for precision in precisions
    }
    return {**ours, DEFAULTS: _trainer, **tuned}


def shares(half: str | None) -> dict[str, Train]:
    """Return how a process trains its share of the seeds."""
    precisions = [precision for precision in ("fp32", half) if precision]
    return {f"{SHARE}, {name}": partial(_trainer, precision=name) for name in precisions}


def _start(
    name: str, seeds: Sequence[int], steps: int, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--one", name, "--steps", str(steps)]
    command += ["--seeds", *map(str, seeds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _scores(process: subprocess.Popen[str]) -> list[float]:
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit("a contestant failed; its message stands above")
    scores: list[float] = json.loads(told.splitlines()[-1])
    return scores


def main() -> None:
    """Run all contestants in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=117, help="of each run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(FIRST, FIRST + SEEDS))
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the contestants, too
    names = contestants(*_device())
    if options.one:
        train = {**names, **shares(_device()[1])}[options.one]
        print(json.dumps(train(list(options.seeds), options.steps)))
        return
    seconds: dict[str, list[float]] = {name: [] for name in names}
    means: dict[str, float] = {}
    for _ in range(options.rounds):
        for name in names:
            began = time.perf_counter()
            scores = _scores(_start(name, options.seeds, options.steps))
            seconds[name].append(time.perf_counter() - began)
            means[name] = statistics.mean(scores)
    _print(seconds, means, options)


def _device() -> tuple[bool, str | None]:
    """Say whether there is a GPU, and name the half precision that is native here."""
    from stabkit.precision import best_precision
    from stabkit.train import choose_device

    device = choose_device()
    half = best_precision(device)
    return device.type == "cuda", None if half == "fp32" else half


def _print(
    seconds: dict[str, list[float]], means: dict[str, float], options: argparse.Namespace
) -> None:
    print(
        f"{here()}; medians of {options.rounds} rounds, {len(options.seeds)} seeds of "
        f"{options.steps} steps\n"
    )
    print("| | seconds | x Trainer's defaults | x Trainer's best | mean dev score, % |")
    print("|---|---|---|---|---|")
    tuned = [name for name in seconds if name.startswith(TUNED)]
    best = min(tuned, key=lambda name: statistics.median(seconds[name]))
    for name, times in seconds.items():
        ratios = [
            statistics.median(a / b for a, b in zip(seconds[of], times, strict=True))
            for of in (DEFAULTS, best)
        ]
        label = f"**{name}** (the best of them)" if name == best else name
        cells = [label, f"{statistics.median(times):.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        print(f"| {' | '.join([*cells, f'{100 * means[name]:.1f}'])} |")


if __name__ == "__main__":
    main()
