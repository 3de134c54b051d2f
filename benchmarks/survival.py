"""Studies whose workers, nodes and driver are killed: what is lost, and what it costs.

``PYTHONPATH=tests python benchmarks/survival.py`` does 200 cheap runs three times, each disturbed
ten times by a kill -9 at a random moment: with processes of this machine on a folder, the same with
leases, and on a Ray cluster of two nodes. It prints what was killed, how many runs were begun for
the 200, and whether the table equals that of an undisturbed study. Needs the extra ``test``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import clusters
import torch
from faults import Study

from stabkit.records import hardware


def local(folder: Path, scheme: str, runs: int, kills: int) -> Study:
    """Disturb the processes of one machine."""
    study = Study(f"{scheme}{folder / 'store'}", runs, folder / "log")
    study.survive({}, kills, seed=1)
    return study


def cluster(folder: Path, runs: int, kills: int) -> Study:
    """Disturb a Ray cluster."""
    with clusters.two_nodes(folder, cores=2) as nodes:
        study = Study(f"file://{folder / 'store'}", runs, folder / "log", nodes.address)
        faults = {"node": partial(clusters.replace_worker_node, nodes, 2)}
        study.survive(faults, kills, seed=1)
    return study


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    here = hardware(torch.device("cpu"))
    print(f"{here}, {time.strftime('%Y-%m-%d')}; {given.runs} runs, {given.kills} kills\n")
    print("| | killed | stored | begun | seconds | table |\n|---|---|---|---|---|---|", flush=True)
    for name, disturb in {
        "2 processes, locks": lambda folder: local(folder, "", given.runs, given.kills),
        "2 processes, leases": lambda folder: local(folder, "file://", given.runs, given.kills),
        "Ray, 2 nodes, leases": lambda folder: cluster(folder, given.runs, given.kills),
    }.items():
        with tempfile.TemporaryDirectory() as path:
            began, folder = time.monotonic(), Path(path)
            study = disturb(folder)
            seconds = time.monotonic() - began
            stored = len(study.check(folder / "calm"))
            killed = ", ".join(f"{study.kills.count(k)} {k}" for k in sorted({*study.kills}))
            begun = study.begun()
        print(f"| {name} | {killed} | {stored} | {begun} | {seconds:.0f} | the same |", flush=True)


if __name__ == "__main__":
    main()
