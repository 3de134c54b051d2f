"""Do the executors give the same distribution of results? 25 seeds by each, and tests.

``python benchmarks/executors.py --processes 2`` trains the same 25 seeds by each executor: "plain",
the readable reference; "fast", the one of a CPU; "graph", the one of a GPU, which without one runs
its kernels uncaptured; and "together", several seeds as one model. The recipe is Devlin's at a
learning rate at which about half of the runs learn nothing, so that a difference would show; the
seeds are none that the book reports. Each executor is held against "plain": its failed runs by
Fisher's exact test, scores and training losses by Kolmogorov and Smirnov's. Stop it at any time;
the same command goes on.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
from scipy.stats import fisher_exact, ks_2samp
from workloads import here

from stabkit import stats, train
from stabkit.config import RunConfig
from stabkit.presets import preset
from stabkit.store import Store
from stabkit.studies import grid
from stabkit.sweep import sweep
from stabkit.tables import learned_nothing

EXECUTORS: tuple[train.ExecutorName, ...] = ("plain", "fast", "graph", "together")
SEEDS = range(1000, 1025)
RATE = 2.2e-4  # of the pilot's rates, the one without correction at which about half learn nothing


def trained(
    configs: list[RunConfig], executor: train.ExecutorName, folder: Path, processes: int
) -> pd.DataFrame:
    """Return the runs of an executor, which are kept in a folder of its own."""
    configs = [train.pin(config) for config in configs]
    store, run = Store(folder / executor), partial(train.run, executor=executor)
    if executor == "together":
        at_once = -(-len(configs) // processes)
        return sweep(configs, store, processes, seeds_at_once=at_once)
    return sweep(configs, store, processes, run)


def row(name: str, runs: pd.DataFrame, plain: pd.DataFrame) -> str:
    """Return a line of the table."""
    failed, reference = learned_nothing(runs), learned_nothing(plain)
    share = stats.wilson(int(failed.sum()), len(runs))
    cells = [name, f"{failed.sum()} of {len(runs)}", share.percent()]
    cells += [f"{100 * runs['score_last'].mean():.1f}", f"{runs['train_loss'].median():.3f}"]
    if runs is plain:
        cells += [""] * 3
    else:
        counts = [[int(found.sum()), int((~found).sum())] for found in (failed, reference)]
        cells.append(f"{fisher_exact(counts).pvalue:.2f}")
        for column in ("score_last", "train_loss"):
            cells.append(f"{ks_2samp(runs[column], plain[column]).pvalue:.2f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/executors"))
    given = parser.parse_args()
    configs = grid(preset("devlin", learning_rate=RATE), SEEDS)
    tables = {one: trained(configs, one, given.folder, given.processes) for one in EXECUTORS}
    print(f"{here()}\n")
    heads = ["executor", "learn nothing", "%, Wilson 95 %", "mean score, %"]
    heads += ["median training loss", "p, failures", "p, scores", "p, losses"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, runs in tables.items():
        print(row(name, runs, tables["plain"]))


if __name__ == "__main__":
    main()
