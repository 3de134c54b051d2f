"""Whoever is killed, and whenever: no run is lost, none stands twice, the table is the same.

``benchmarks/survival.py`` is the long form.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import clusters
import pytest
from faults import Study

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_processes_of_one_machine(scheme: str, tmp_path: Path) -> None:
    study = Study(f"{scheme}{tmp_path / 'store'}", 20, tmp_path / "log", lapse=5)
    study.survive({}, kills=3, seed=len(scheme))
    study.check(tmp_path / "calm")
    assert len(study.kills) == 3


def test_a_cluster_of_two_nodes(tmp_path: Path) -> None:
    with clusters.two_nodes(tmp_path, cores=2) as nodes:
        url = f"file://{tmp_path / 'store'}"
        study = Study(url, 20, tmp_path / "log", nodes.address, lapse=5)
        study.survive({"node": partial(clusters.replace_worker_node, nodes, 2)}, kills=3, seed=0)
    study.check(tmp_path / "calm")
    assert sorted(study.kills) == ["driver", "node", "worker"]
