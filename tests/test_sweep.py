"""Sweep: every run once, whoever is killed; faults are real signals to real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fakes
import pytest
import torch
from pandas.testing import assert_frame_equal

from stabkit import train
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, StoreError
from stabkit.results import RunResult
from stabkit.store import Store
from stabkit.sweep import SweepError, sweep
from stabkit.workers import GPUS, _idlest, spread

PATIENCE = 300  # seconds; far more than needed, for a machine that is busy

DRIVER = """
import signal
# A shell starts background jobs with SIGINT ignored, and so would be the tests run by one.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys, fakes
from stabkit.store import Store
from stabkit.sweep import sweep
n, processes, at_once = map(int, sys.argv[2:5])
sweep(fakes.grid(n), Store(sys.argv[1]), processes, getattr(fakes, sys.argv[5]), False,
      seeds_at_once=at_once, run_seeds=fakes.endless_at_once if at_once > 1 else None)
assert "torch" not in sys.modules
"""


@contextmanager
def driver(
    store: Store, n: int, processes: int, run: str, at_once: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Start a sweep in a process of its own, in a process group of its own."""
    folders = (Path(__file__).parent, Path(__file__).parents[1])
    counts = map(str, (n, processes, at_once))
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(store.path), *counts, run],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "FAKE_LOG": str(store.path.parent / "log"),
        },
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def started(store: Store) -> list[int]:
    """Return the seeds whose runs have begun, as the fake runs noted them."""
    log = store.path.parent / "log"
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def free(store: Store, config: RunConfig) -> bool:
    """Tell whether no living process is at this run."""
    with store.claim(config.key) as ours:
        return ours


def by_hand(path: Path, n: int) -> Store:
    store = Store(path)
    for config in fakes.grid(n):
        store.put(fakes.quick(config))
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_one_process_does_what_is_pending_in_order(store: Store, tmp_path: Path) -> None:
    grid = fakes.grid(4)
    store.put(fakes.quick(grid[2]))
    done: list[int] = []

    def note(config: RunConfig) -> RunResult:
        done.append(config.seed)
        return fakes.quick(config)

    table = sweep([*grid, *grid], store, run=note, progress=False)
    assert done == [0, 1, 3]
    assert_frame_equal(table, by_hand(tmp_path / "hand", 4).table(grid))
    assert_frame_equal(sweep(grid[::-1], store, run=note, progress=False), store.table(grid[::-1]))
    assert done == [0, 1, 3]


def test_spawned_processes_have_one_thread_and_give_the_same_table(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    table = sweep(fakes.grid(5), store, processes=2, run=fakes.quick, progress=False)
    hand = by_hand(tmp_path / "hand", 5).table(fakes.grid(5))
    assert set(table.threads) == {"1"} and set(hand.threads) == {"7"}
    assert_frame_equal(table.drop(columns="threads"), hand.drop(columns="threads"))
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_gpus_are_shared_out_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str | None] = []
    for _ in range(5):
        taken.append(_idlest(("0", "GPU-b"), taken))
    assert taken == ["0", "GPU-b", "0", "GPU-b", "0"] and _idlest((), taken) is None
    monkeypatch.setenv(GPUS, "0,GPU-b")
    for gpus, seen in ((("GPU-b",), "GPU-b"), ((), "0,GPU-b")):
        todo = deque([GPUS])
        found = list(spread(todo, os.getenv, lambda _: None, processes=1, gpus=gpus))
        assert found == [(GPUS, seen)]
    assert os.environ[GPUS] == "0,GPU-b"


@pytest.mark.parametrize(
    ("named", "there", "expected"),
    [
        (None, 2, ["0", "1"]),
        ("3, GPU-b", 2, ["3", "GPU-b"]),
        ("-1", 0, []),
        ("", 0, []),
        (None, 0, []),
    ],
)
def test_the_gpus_of_this_process_are_named_as_it_sees_them(
    named: str | None, there: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(GPUS, raising=False)
    if named is not None:
        monkeypatch.setenv(GPUS, named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert train.visible_gpus() == expected


def test_a_run_that_raises_is_named_and_the_others_go_on(store: Store) -> None:
    grid = fakes.grid(4)
    with pytest.raises(SweepError) as caught:
        sweep(grid, store, run=fakes.raising, progress=False)
    assert str(caught.value).startswith("1 of 4 runs ended in an error")
    assert f"{grid[1].key} (mini-bert, mini-rte, seed 1): ZeroDivisionError: no such luck" in str(
        caught.value
    )
    assert "Traceback" in caught.value.problems[grid[1].key]
    assert store.pending(grid) == [grid[1]]
    assert len(sweep(grid, store, run=fakes.quick, progress=False)) == 4


def test_many_errors_are_counted_and_the_first_are_listed(store: Store) -> None:
    with pytest.raises(SweepError, match="9 of 9 runs") as caught:
        sweep(fakes.grid(9), store, run=lambda config: 1 / 0, progress=False)
    assert str(caught.value).count("ZeroDivisionError") == 5
    assert str(caught.value).endswith("and 4 more")
    assert len(caught.value.problems) == 9


def test_kill_9_of_a_worker_costs_its_run_alone(store: Store) -> None:
    grid = fakes.grid(6)
    with pytest.raises(SweepError, match="1 of 6") as caught:
        sweep(grid, store, processes=2, run=fakes.dying, progress=False)
    assert caught.value.problems == {
        grid[1].key: "its process was killed (signal SIGKILL), often for want of memory"
    }
    assert grid[1].key in str(caught.value)
    assert store.pending(grid) == [grid[1]]


def test_a_run_function_that_workers_cannot_import_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost = types.ModuleType("ghost")
    exec("def run(config): pass", ghost.__dict__)
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    with pytest.raises(SweepError, match=r"exit code 1 before its first task.*importable"):
        sweep(fakes.grid(3), store, processes=2, run=ghost.run, progress=False)


def test_ctrl_c_stops_at_once_keeps_what_is_done_and_says_how_to_go_on(store: Store) -> None:
    grid = fakes.grid(5)
    with driver(store, 5, 2, "endless") as process:
        until(lambda: {2, 3} <= set(started(store)))
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert f"stopped: 2 of 5 runs are in {store.path}; start the same again" in said
    assert said.count("Traceback") == 1  # the workers are silent
    assert free(store, grid[2]) and free(store, grid[3])
    assert store.pending(grid) == grid[2:]


def test_kill_9_of_the_sweep_ends_its_workers_and_a_restart_completes_the_table(
    store: Store, tmp_path: Path
) -> None:
    grid = fakes.grid(5)
    with driver(store, 5, 2, "endless") as process:
        until(lambda: {2, 3} <= set(started(store)))
        assert not free(store, grid[2])
        process.kill()
        until(lambda: free(store, grid[2]) and free(store, grid[3]))
    assert store.pending(grid) == grid[2:]
    table = sweep(grid, store, run=fakes.quick, progress=False)
    undisturbed = by_hand(tmp_path / "hand", 5).table(grid)
    assert_frame_equal(table.drop(columns="threads"), undisturbed.drop(columns="threads"))


def test_two_sweeps_on_one_store_share_the_work(store: Store) -> None:
    grid = fakes.grid(12)
    with driver(store, 12, 1, "noted") as one, driver(store, 12, 1, "noted") as other:
        for process in (one, other):
            assert process.communicate(timeout=PATIENCE)[1] == ""
            assert process.returncode == 0
    assert sorted(started(store)) == list(range(12))
    assert not store.pending(grid)


def test_a_claimed_run_is_awaited_after_the_others(store: Store, tmp_path: Path) -> None:
    """The other sweep dies over seed 2: this one, that waited for it, does the run."""
    grid = fakes.grid(4)
    done: list[int] = []

    def note(config: RunConfig) -> RunResult:
        done.append(config.seed)
        if config.seed == 3:
            process.kill()
        return fakes.quick(config)

    with driver(store, 3, 1, "endless") as process:
        until(lambda: 2 in started(store))
        sweep(grid, store, run=note, progress=False)
    assert done == [3, 2]


def test_a_store_that_cannot_be_written_stops_the_sweep_before_the_first_run(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    runs: list[RunConfig] = []
    with pytest.raises(StoreError, match="cannot write"):
        sweep(fakes.grid(3), Store(tmp_path / "file" / "s"), run=runs.append, progress=False)
    assert not runs


# --- several seeds at once ----------------------------------------------------------------------


def test_seeds_of_a_recipe_are_done_at_once_and_the_rest_one_by_one(store: Store) -> None:
    """Two recipes seed by seed, one of which cannot be stacked, and one seed stored already."""
    stacked, mixed = fakes.grid(6), fakes.grid(2, mixout=0.5)
    store.put(fakes.quick(stacked[1]))
    done: list[tuple[int, ...]] = []

    def alone(config: RunConfig) -> RunResult:
        done.append((config.seed,))
        return fakes.quick(config)

    def together(configs: Sequence[RunConfig]) -> list[RunResult]:
        done.append(tuple(config.seed for config in configs))
        return fakes.at_once(configs)

    grid = [stacked[0], mixed[0], *stacked[1:], mixed[1]]
    table = sweep(grid, store, run=alone, progress=False, seeds_at_once=2, run_seeds=together)
    assert done == [(0, 2), (3, 4), (5,), (0,), (1,)]
    assert list(table["seed"]) == [config.seed for config in grid]
    at_once = [name == "2 at once" for name in table["executor"]]
    assert at_once == [True, False, False, True, True, True, False, False]


@pytest.mark.parametrize("processes", [1, 2])
def test_each_of_the_seeds_at_once_is_watched_and_its_error_is_that_of_all(
    store: Store, processes: int
) -> None:
    grid, seen = fakes.grid(4), dict[int, list[str]]()

    def watch(config: RunConfig, state: str) -> None:
        seen.setdefault(config.seed, []).append(state)

    options = {"progress": False, "watch": watch, "seeds_at_once": 2}
    with pytest.raises(SweepError, match="2 of 4 runs ended in an error") as caught:
        sweep(grid, store, processes, fakes.raising, run_seeds=fakes.raising_at_once, **options)
    assert caught.value.problems.keys() == {grid[0].key, grid[1].key}
    failed, stored = ["started", "raised"], ["started", "stored"]
    assert seen == {0: failed, 1: failed, 2: stored, 3: stored}
    with pytest.raises(SweepError, match="2 of 4") as caught:
        sweep(grid, store, 2, fakes.dying, run_seeds=fakes.dying_at_once, **options)
    assert all("SIGKILL" in problem for problem in caught.value.problems.values())
    assert seen[0] == seen[1] == [*failed, "started", "lost"]
    assert store.pending(grid) == grid[:2]


def test_of_seeds_at_once_those_that_others_are_at_are_awaited(store: Store) -> None:
    """The other sweep dies over seed 2: this one, that waited for it, does the run."""
    done: list[list[int]] = []

    def together(configs: Sequence[RunConfig]) -> list[RunResult]:
        done.append([config.seed for config in configs])
        assert not free(store, configs[0]) and not free(store, configs[1])
        process.kill()
        return fakes.at_once(configs)

    def alone(config: RunConfig) -> RunResult:
        done.append([config.seed])
        return fakes.quick(config)

    with driver(store, 3, 1, "endless") as process:
        until(lambda: 2 in started(store))
        sweep(fakes.grid(5), store, run=alone, progress=False, seeds_at_once=5, run_seeds=together)
    assert done == [[3, 4], [2]]


@pytest.mark.parametrize("processes", [1, 2])
def test_kill_9_costs_the_seeds_in_flight_alone(
    store: Store, tmp_path: Path, processes: int
) -> None:
    grid = fakes.grid(6)
    with driver(store, 6, processes, "endless", at_once=2) as process:
        until(lambda: {2, 3} <= set(started(store)) and len(store) == 2)
        assert not free(store, grid[2]) and not free(store, grid[3])
        process.kill()
        until(lambda: free(store, grid[2]) and free(store, grid[3]))
    assert store.pending(grid) == grid[2:]
    options = {"progress": False, "seeds_at_once": 2}
    sweep(grid, store, run=fakes.quick, run_seeds=fakes.at_once, **options)
    differ = ["threads", "executor"]
    table = store.table(grid).drop(columns=differ)
    assert_frame_equal(table, by_hand(tmp_path / "hand", 6).table(grid).drop(columns=differ[:1]))


@pytest.mark.parametrize("count", [0, -1])
def test_no_seed_at_once_is_a_mistake(store: Store, count: int) -> None:
    with pytest.raises(ConfigError, match=f"seeds_at_once is {count}; expected 1 or more"):
        sweep(fakes.grid(1), store, seeds_at_once=count)


def test_one_s_own_runs_and_the_package_s_are_not_mixed(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"only run is given.*give both or neither"):
        sweep(fakes.grid(2), store, run=fakes.quick, seeds_at_once=2)
    with pytest.raises(ConfigError, match="only run_seeds is given"):
        sweep(fakes.grid(2), store, run_seeds=fakes.at_once, seeds_at_once=2)


def test_no_process_is_a_mistake(store: Store) -> None:
    with pytest.raises(ConfigError, match="processes is 0; expected 1 or more"):
        sweep(fakes.grid(1), store, processes=0)


@pytest.mark.parametrize("progress", [False, True])
def test_the_progress_bar_goes_to_stderr_or_nowhere(
    progress: bool, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put(fakes.quick(fakes.grid(1)[0]))
    sweep(fakes.grid(3), store, run=fakes.quick, progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("3/3" in err) if progress else (err == "")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_sweep_can_be_watched(store: Store, processes: int) -> None:
    grid = fakes.grid(3)
    store.put(fakes.quick(grid[2]))
    seen: dict[int, list[str]] = {}

    def watch(config: RunConfig, state: str) -> None:
        seen.setdefault(config.seed, []).append(state)

    with pytest.raises(SweepError):
        sweep(grid, store, processes, fakes.raising, progress=False, watch=watch)
    assert seen == {0: ["started", "stored"], 1: ["started", "raised"]}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_sweep_can_be_stopped_from_another_thread_and_keeps_what_is_done(
    store: Store, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LOG", str(store.path.parent / "log"))
    grid, stop = fakes.grid(5), threading.Event()
    tables = []

    def target() -> None:
        tables.append(sweep(grid, store, processes, fakes.endless, progress=False, stop=stop))

    thread = threading.Thread(target=target)
    thread.start()
    until(lambda: len(started(store)) >= 2 + processes)
    stop.set()
    thread.join(PATIENCE)
    assert [list(table["seed"]) for table in tables] == [[0, 1]]
    assert store.pending(grid) == grid[2:] and free(store, grid[2])


def test_a_stop_before_the_start_does_nothing(store: Store) -> None:
    stop = threading.Event()
    stop.set()
    assert sweep(fakes.grid(2), store, run=fakes.endless, progress=False, stop=stop).empty
