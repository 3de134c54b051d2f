"""What a store costs to plan with and to open, by the number of runs.

``python benchmarks/store.py`` plans 10,000 configurations against stores of growing size and opens
compacted stores of up to 100,000 runs, each in a process of its own; it prints seconds of
processor time, which other work on the machine does not change, and the growth of its memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from step import memory

from stabkit import parquet, results
from stabkit.config import RunConfig
from stabkit.results import RunResult
from stabkit.store import Store

DIGESTS = {"weights": "w" * 64, "tokenizer": "t" * 64, "data": "d" * 64}
SUMMARY = {
    "score_last": 0.5,
    "score_best": 0.75,
    "failed": False,
    "best_f1": None,
    "dev_predictions": [0, 1] * 100,
    "seconds": 60.0,
    "date": "2026-01-01T00:00:00+00:00",
    "hardware": "Some CPU",
}


def grid(n: int, start: int = 0) -> list[RunConfig]:
    """Return ``n`` configurations that differ in their seed."""
    return [RunConfig(**DIGESTS, seed=seed) for seed in range(start, start + n)]


def compacted(folder: Path, n: int) -> None:
    """Write a compacted store of ``n`` runs with histories of one step."""
    nothing = results.frame(pa.table({"step": pa.array([1])}))
    row = RunResult(grid(1)[0], SUMMARY, nothing, nothing).row()
    keys = pa.array([grid(1)[0].key, *(f"{i:016x}" for i in range(1, n))])
    runs = row.take(pa.array([0] * n)).set_column(row.column_names.index("key"), "key", keys)
    steps = pa.table({"key": keys, "step": pa.array([1] * n)})
    for kind, table in {"gradients": steps, "histories": steps, "runs": runs}.items():
        parquet.write(folder / f"{kind}.parquet", table)


def plan(folder: Path, n: int) -> None:
    """Plan ``n`` configurations, none of which is stored."""
    assert len(Store(folder).pending(grid(n, 10**9))) == n


def opened(folder: Path, n: int) -> None:
    """Open a store: see which runs it has, and read the rows of a study of 450."""
    store = Store(folder)
    assert len(store.keys()) == n and len(store.table(grid(450))) == 1


def whole(folder: Path, n: int) -> None:
    """Read all rows."""
    assert len(Store(folder).table()) == n


ACTIONS: dict[str, Callable[[Path, int], None]] = {"plan": plan, "open": opened, "whole": whole}


def measure(action: str, folder: Path, n: int) -> dict[str, float]:
    """Do an action in a process of its own; returns seconds and MiB above those of its imports."""
    command = [sys.executable, __file__, "--inside", action, str(folder), str(n)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def inside(action: str, folder: Path, n: int) -> None:
    """Measure in this process."""
    before, began = _peak(), time.process_time()
    ACTIONS[action](folder, n)
    print(json.dumps({"seconds": time.process_time() - began, "mib": _peak() - before}))


def _peak() -> float:
    return memory("VmHWM") / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inside", nargs=3, metavar=("ACTION", "FOLDER", "N"))
    given = parser.parse_args().inside
    if given:
        inside(given[0], Path(given[1]), int(given[2]))
        return
    print(f"{_here()}, {time.strftime('%Y-%m-%d')}; processor time\n")
    print("| | seconds | MiB |\n|---|---|---|", flush=True)
    for runs in (1_000, 10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            compacted(Path(folder), runs)
            for words, action, n in (
                (f"plan 10,000 against {runs:,} stored", "plan", 10_000),
                (f"open {runs:,} stored", "open", runs),
                (f"read the whole table of {runs:,}", "whole", runs),
            ):
                found = measure(action, Path(folder), n)
                print(f"| {words} | {found['seconds']:.2f} | {found['mib']:.0f} |", flush=True)


def _here() -> str:
    import torch  # only here: what is measured does without

    from stabkit.records import hardware

    return hardware(torch.device("cpu"))


if __name__ == "__main__":
    main()
