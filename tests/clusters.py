"""A Ray cluster of two nodes on this machine, for the tests and for benchmarks/survival.py."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


def pids(node: Any) -> list[int]:
    """Return the processes that Ray started for a node, its workers not among them."""
    return [info.process.pid for kind in node.all_processes.values() for info in kind]


def kill(node: Any) -> None:
    """End all processes of a node at once, as a power cut would; its workers go with them."""
    for pid in pids(node):
        os.kill(pid, signal.SIGKILL)


def replace_worker_node(cluster: Any, cores: int) -> None:
    """Kill the node that does runs; another comes in its place."""
    (victim,) = cluster.worker_nodes
    kill(victim)
    cluster.worker_nodes.clear()
    cluster.add_node(num_cpus=cores, wait=False)


@contextmanager
def two_nodes(folder: Path, cores: int = 1, gpus: int = 0) -> Iterator[Any]:
    """Yield a cluster whose head has no cores for runs and whose first node has ``cores``.

    GPUs are said to be there, which Ray believes.
    """
    with environment(folder):
        from ray.cluster_utils import Cluster

        logging.getLogger("ray").setLevel(logging.ERROR)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            cluster.add_node(num_cpus=cores, num_gpus=gpus)
            yield cluster
        finally:
            cluster.shutdown()


@contextmanager
def environment(folder: Path) -> Iterator[None]:
    """Set what Ray's processes inherit; runs on nodes note themselves in ``folder / "log"``.

    Ray gives its helpers 15 seconds to start. Each imports jsonschema, which in turn imports
    rfc3987_syntax where JupyterLab has brought it: seconds of work. So that a busy machine starts
    in time, it is not to be found.
    """
    (folder / "rfc3987_syntax.py").write_text("raise ImportError\n")
    paths = (str(folder), str(TESTS), str(TESTS.parent))
    values = {
        "PYTHONPATH": os.pathsep.join(paths),
        "RAY_USAGE_STATS_ENABLED": "0",
        "FAKE_LOG": str(folder / "log"),
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
