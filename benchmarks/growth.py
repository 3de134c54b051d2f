"""How the cost of a study grows: with its seeds, the model's layers, the texts' length, workers.

``python benchmarks/growth.py`` prints four tables. Layers and lengths are steps of ``step.py``'s
loop; seeds and workers are whole studies through ``stabkit.sweep``, start-up included. A growth of
1 is in proportion; more workers than idle cores cannot help.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from floor import now
from step import Clock, Contestant, _stabkit
from workloads import LENGTHS, WORKLOADS, Lengths, Workload, here

LAYERS, TOKENS, SEEDS = (3, 6, 12, 24), (16, 32, 64, 128), (1, 2, 4, 8)
SHORT_RUN = {"epochs": None, "max_steps": 20, "train_size": 320}  # of the studies


def _step(work: Workload, steps: int) -> float:
    import torch

    torch.set_num_threads(1)
    executor = "graph" if torch.cuda.is_available() else "fast"
    clock = Clock(steps)
    with tempfile.TemporaryDirectory() as folder:
        work.save(Path(folder))
        _stabkit(Contestant("stabkit", executor=executor), folder, work, clock)
    return clock.seconds


def _deep(layers: int) -> Any:
    config = WORKLOADS["mini, mini-RTE"].model()
    config.num_hidden_layers = layers
    return config


def layers(count: int, steps: int) -> float:
    """Return the seconds of a step of the mini model with so many layers."""
    return _step(Workload(partial(_deep, count), "mini-RTE", 468), steps)


def length(tokens: int, steps: int) -> float:
    """Return the seconds of a step on texts of exactly so many tokens."""
    import math

    LENGTHS["even"] = Lengths(math.log(tokens), 0.0, 1)
    return _step(Workload(WORKLOADS["mini, mini-RTE"].model, "even", 468), steps)


def study(seeds: int, processes: int, clock: Callable[[], float]) -> float:
    """Return the seconds, by ``clock``, of a study of so many short runs, from an empty store."""
    from stabkit.presets import preset
    from stabkit.store import Store
    from stabkit.sweep import sweep
    from stabkit.train import pin

    base = preset("devlin", learning_rate=1e-4).replace(**SHORT_RUN)
    configs = [pin(base.replace(seed=2000 + seed)) for seed in range(seeds)]
    with tempfile.TemporaryDirectory() as folder:
        start = clock()
        sweep(configs, Store(folder), processes, progress=False)
        return clock() - start


def show(what: str, values: tuple[int, ...], measure: Callable[[int], float], rounds: int) -> None:
    """Print the growth from each value to the next: 1 where the cost is in proportion."""
    found = {value: statistics.median(measure(value) for _ in range(rounds)) for value in values}
    first = values[0]
    print(f"\n| {what} | x the cost of {first} | growth |\n|---|---|---|")
    for value, seconds in found.items():
        times = seconds / found[first]
        print(f"| {value} | {times:.2f} | {times / (value / first):.2f} |")


def main() -> None:
    """Print the four tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{here()}; medians of {options.rounds} rounds")
    show("layers", LAYERS, partial(layers, steps=options.steps), options.rounds)
    show("tokens a text", TOKENS, partial(length, steps=options.steps), options.rounds)
    show("seeds", SEEDS, partial(study, processes=1, clock=now), options.rounds)
    cores = os.cpu_count() or 1
    workers = tuple(2**i for i in range(cores.bit_length()) if 2**i <= cores)
    print(
        "\nThe work grows with the workers: were their scaling perfect, the cost would stay at 1."
    )
    show(
        "workers with 2 runs each",
        workers,
        lambda n: study(2 * n, n, time.perf_counter),
        options.rounds,
    )


if __name__ == "__main__":
    main()
