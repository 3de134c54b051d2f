"""Ray: a study on a cluster of two nodes, of which one does runs; workers are really killed."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import clusters
import fakes
import pytest
from pandas.testing import assert_frame_equal

from stabkit import cluster as launchers
from stabkit.cluster import ClusterError, RayCluster
from stabkit.store import Store
from stabkit.sweep import SweepError, sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:the cluster has GPUs"),
]

PATIENCE = 300  # seconds; far more than needed, for a machine that is busy


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("ray")
    with clusters.two_nodes(folder, 2, gpus=1) as cluster, RayCluster(cluster.address).connected():
        yield cluster


@pytest.fixture
def on(nodes: Any) -> RayCluster:
    return RayCluster(nodes.address)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def undisturbed(path: Path, n: int) -> Any:
    store = Store(path)
    for config in fakes.grid(n):
        store.put(fakes.quick(config))
    return store.table(fakes.grid(n)).drop(columns="threads")


def test_a_study_on_two_nodes_gives_the_table_of_one_process(
    store: Store, on: RayCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    table = sweep(
        fakes.grid(8),
        store,
        run=fakes.quick,
        progress=False,
        watch=lambda config, state: seen.append(state),
        launcher=on,
    )
    assert set(table.threads) == {"1"}
    assert_frame_equal(table.drop(columns="threads"), undisturbed(tmp_path / "hand", 8))
    assert sorted(seen) == ["started"] * 8 + ["stored"] * 8
    assert capfd.readouterr() == ("", "")


def test_seeds_are_done_at_once_on_nodes_too(store: Store, on: RayCluster) -> None:
    options = {"progress": False, "launcher": on, "seeds_at_once": 2}
    table = sweep(fakes.grid(4), store, run=fakes.quick, run_seeds=fakes.at_once, **options)
    assert list(table["executor"]) == ["2 at once"] * 4
    with pytest.raises(SweepError, match="2 of 6") as caught:
        sweep(
            fakes.grid(6),
            Store(store.path / "2"),
            run=fakes.dying,
            run_seeds=fakes.dying_at_once,
            **options,
        )
    assert caught.value.problems.keys() == {config.key for config in fakes.grid(2)}


def test_gpus_that_no_run_asks_for_are_told_of(on: RayCluster) -> None:
    with on.connected() as ray, pytest.warns(UserWarning, match=r"done on a CPU.*--gpus 0\.25"):
        on._tell_of_what_there_is(ray)


def test_a_run_that_asks_for_no_gpu_sees_none(store: Store, on: RayCluster) -> None:
    table = sweep(fakes.grid(2), store, run=fakes.on_a_gpu, progress=False, launcher=on)
    assert [seen.split(" ")[0] for seen in table["executor"]] == ["", ""]  # not None: none to see


def test_a_gpu_is_shared_by_as_many_runs_as_its_shares(store: Store, on: RayCluster) -> None:
    halves = replace(on, cpus=0.25, gpus=0.5)
    table = sweep(fakes.grid(6), store, run=fakes.on_a_gpu, progress=False, launcher=halves)
    seen, begun, ended = zip(*table["executor"].str.split(), strict=True)
    assert set(seen) == {"0"}
    spans = [(float(a), float(b)) for a, b in zip(begun, ended, strict=True)]
    at_once = [sum(a <= moment < b for a, b in spans) for moment, _ in spans]
    assert max(at_once) == 2


LOCAL = """
import sys

import fakes
from stabkit.cluster import ClusterError, RayCluster
from stabkit.store import Store
from stabkit.sweep import sweep

store, options = Store(sys.argv[1]), {"run": fakes.quick, "progress": False}
table = sweep(fakes.grid(3), store, launcher=RayCluster(at_a_time=2), **options)
print(len(table), *set(table.threads))
try:
    sweep(fakes.grid(4), store, launcher=RayCluster(gpus=99), **options)
except ClusterError as error:
    print(error)
"""


def test_without_an_address_this_machine_is_the_cluster(nodes: Any, store: Store) -> None:
    """In a process of its own, since this one is connected to the two nodes."""
    command = [sys.executable, "-W", "ignore", "-c", LOCAL, str(store.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.splitlines() == [
        "3 1",
        "no node has room for a run, which takes 1 cores and 99 GPUs, on this machine; ask for "
        "less, or name a cluster",
    ], done.stderr
    assert len(store) == 3


def test_a_run_that_kills_its_workers_is_named_and_the_others_go_on(
    store: Store, on: RayCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    grid = fakes.grid(4)
    with pytest.raises(SweepError, match="1 of 4") as caught:
        sweep(grid, store, run=fakes.dying, progress=False, launcher=on)
    (problem,) = caught.value.problems.values()
    assert problem == "its worker died each time, as one does that is killed for want of memory"
    assert store.pending(grid) == [grid[1]]
    assert capfd.readouterr() == ("", "")


def test_a_run_that_raises_is_named(store: Store, on: RayCluster) -> None:
    with pytest.raises(SweepError, match="ZeroDivisionError: no such luck"):
        sweep(fakes.grid(3), store, run=fakes.raising, progress=False, launcher=on)


def test_a_stop_ends_the_runs_at_work(store: Store, on: RayCluster) -> None:
    stop, grid = threading.Event(), fakes.grid(5)

    def watch(config: Any, state: str) -> None:
        if len(store) == 2:
            stop.set()

    timer = threading.Timer(PATIENCE, stop.set)
    timer.start()
    table = sweep(
        grid, store, run=fakes.hanging, progress=False, stop=stop, launcher=on, watch=watch
    )
    timer.cancel()
    assert list(table["seed"]) == [0, 1] and store.pending(grid) == grid[2:]


def test_what_is_asked_of_a_cluster_in_vain_is_named(
    on: RayCluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"not installed here.*stabkit\[ray\]"):
        sweep(fakes.grid(1), store, run=fakes.quick, progress=False, launcher=on)


@pytest.mark.parametrize(
    ("address", "says"),
    [("somewhere", "names no port; expected HOST:PORT"), ("127.0.0.1:1", "no Ray cluster answers")],
)
def test_an_address_that_does_not_answer_is_named(address: str, says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        launchers._check_answer(address)


@pytest.mark.parametrize(
    ("error", "told", "tries"),
    [
        ("OutOfMemoryError", "ran out of memory", launchers.LOSSES),
        ("WorkerCrashedError", "its worker died each time", launchers.LOSSES),
        ("NodeDiedError", f"{launchers.NODE_LOSSES} nodes died", launchers.NODE_LOSSES),
        ("ObjectLostError", r"Ray lost it \(ObjectLostError\)", launchers.LOSSES),
    ],
)
def test_a_lost_run_is_tried_again_as_often_as_what_took_it_allows(
    error: str, told: str, tries: int
) -> None:
    ray = pytest.importorskip("ray")
    raised = ray.exceptions.__dict__[error].__new__(ray.exceptions.__dict__[error])

    class Cluster:
        exceptions = ray.exceptions

        @staticmethod
        def get(_: object) -> None:
            raise raised

    loss = launchers._result(Cluster, None)
    assert re.search(told, loss.how)
    assert -(-launchers.LOSSES * launchers.NODE_LOSSES // loss.weight) == tries
