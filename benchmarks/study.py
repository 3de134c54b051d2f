"""A study of 25 seeds from start to finish, on all cores: seconds, beside what one would do else.

``python benchmarks/study.py`` fine-tunes the organism on mini-RTE for 25 seeds, each contestant in
turn and from the start of its process to the last dev score on disk or in hand:

- this package's sweep, one process for each core;
- Hugging Face's Trainer at its defaults, seed after seed in one process, with torch's threads;
- the Trainer at its best here (``step.py`` finds its settings), one process for each core, one
  thread each, the seeds shared out among them.

Runs are cut to ``--steps``, a quarter of their 468, so that what each of them costs beside its
steps counts for more than it does in a whole study. Nobody uses a GPU. The machine has to be idle;
only ratios mean anything.
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
from pathlib import Path
from typing import Any

from workloads import BATCH, here

MODEL, TASK = "mini-bert", "mini-rte"
SEEDS = 25
FIRST = 3000  # of seeds that are reported nowhere
RATE = 2e-4


def _stabkit(seeds: Sequence[int], steps: int) -> list[float]:
    """Return the scores of a sweep over all cores, whose store is thrown away."""
    from stabkit import train
    from stabkit.presets import preset
    from stabkit.store import Store
    from stabkit.studies import grid
    from stabkit.sweep import sweep

    recipe = {"learning_rate": RATE, "bias_correction": True, "epochs": None, "max_steps": steps}
    config = train.pin(preset("devlin", model=MODEL, task=TASK, **recipe))
    with tempfile.TemporaryDirectory() as folder:
        runs = sweep(grid(config, seeds), Store(Path(folder)), os.cpu_count() or 1, progress=False)
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


def _trainer(seeds: Sequence[int], steps: int, best: bool) -> list[float]:
    """Return the scores of Trainers, one after the other, in this process."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from stabkit.models import MINI_WEIGHTS

    rows, dev, tokenizer = _rows()
    scores = []
    for seed in seeds:
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as output:
            trainer = Trainer(
                model=AutoModelForSequenceClassification.from_pretrained(
                    MINI_WEIGHTS / MODEL,
                    num_labels=2,
                    dtype=torch.float32,
                    attn_implementation="eager" if best else "sdpa",
                ),
                args=TrainingArguments(
                    output_dir=output,
                    seed=seed,
                    per_device_train_batch_size=BATCH,
                    per_device_eval_batch_size=64,
                    max_steps=steps,
                    learning_rate=RATE,
                    weight_decay=0.01,
                    use_cpu=True,
                    **({"optim": "adamw_torch_fused"} if best else {}),
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


def _trainers(seeds: Sequence[int], steps: int) -> list[float]:
    """Share the seeds out among processes of one thread each."""
    cores = os.cpu_count() or 1
    shares = [share for core in range(cores) if (share := list(seeds[core::cores]))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = [_start(SHARE, share, steps, environment) for share in shares]
    return [score for process in begun for score in _scores(process)]


SHARE = "a share of the seeds"
STABKIT, DEFAULTS = "stabkit", "Trainer, defaults, one seed after the other"
BEST = "Trainer, eager attention, fused AdamW, a process per core"
CONTESTANTS: dict[str, Callable[[Sequence[int], int], list[float]]] = {
    STABKIT: _stabkit,
    DEFAULTS: lambda seeds, steps: _trainer(seeds, steps, best=False),
    BEST: _trainers,
    SHARE: lambda seeds, steps: _trainer(seeds, steps, best=True),
}


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
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if options.one:
        print(json.dumps(CONTESTANTS[options.one](list(options.seeds), options.steps)))
        return
    names = [STABKIT, DEFAULTS, BEST]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    means: dict[str, float] = {}
    for _ in range(options.rounds):
        for name in names:
            began = time.perf_counter()
            scores = _scores(_start(name, options.seeds, options.steps))
            seconds[name].append(time.perf_counter() - began)
            means[name] = statistics.mean(scores)
    _print(seconds, means, options)


def _print(
    seconds: dict[str, list[float]], means: dict[str, float], options: argparse.Namespace
) -> None:
    print(
        f"{here()}; medians of {options.rounds} rounds, {len(options.seeds)} seeds of "
        f"{options.steps} steps\n"
    )
    print("| | seconds | x Trainer's defaults | x Trainer's best | mean dev score, % |")
    print("|---|---|---|---|---|")
    for name, times in seconds.items():
        ratios = [
            statistics.median(a / b for a, b in zip(seconds[of], times, strict=True))
            for of in (DEFAULTS, BEST)
        ]
        cells = [name, f"{statistics.median(times):.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        print(f"| {' | '.join([*cells, f'{100 * means[name]:.1f}'])} |")


if __name__ == "__main__":
    main()
