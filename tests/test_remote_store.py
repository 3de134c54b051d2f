"""Stores behind a URL: the same promises as in a folder, over S3's own protocol and in memory."""

from __future__ import annotations

import errno
import os
import pickle
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import objects
import pytest
from botocore.exceptions import ClientError
from pandas.testing import assert_frame_equal
from s3fs.errors import translate_boto_error

from stabkit import leases, storage
from stabkit import sweep as sweeps
from stabkit.errors import StoreError, UnreachableError
from stabkit.shelf import Shelf
from stabkit.storage import Place
from stabkit.store import Store
from stabkit.sweep import sweep

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with objects.s3() as url:
        yield url


@pytest.fixture(params=["s3", "memory", "file"])
def url(request: pytest.FixtureRequest, bucket: str, tmp_path: Path) -> str:
    name = uuid.uuid4().hex
    if request.param == "file":
        return f"file://{tmp_path / name}"
    return f"{bucket if request.param == 's3' else 'memory:/'}/{name}"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass faster for leases and for those who wait for a store."""
    for name, seconds in {"LAPSE": 2.0, "RENEW": 0.3, "LOOK": 0.1, "SETTLE": 0.2}.items():
        monkeypatch.setattr(leases, name, seconds)
    monkeypatch.setattr(sweeps, "PAUSES", (0.01,) * 5)
    monkeypatch.setattr(sweeps, "GLANCES", (0.0, 0.01))


def filled(url: str | Path, n: int = 3) -> Store:
    store = Store(url)
    for config in fakes.grid(n):
        store.put(fakes.quick(config))
    return store


@pytest.mark.slow
def test_what_is_put_comes_back_loose_and_compacted(url: str, tmp_path: Path) -> None:
    grid, local, store = fakes.grid(5), filled(tmp_path / "local"), filled(url)
    assert_frame_equal(Store(url).table(), local.table())
    assert Store(url).pending(grid) == grid[3:] and len(store) == 3
    for _ in range(2):
        for config in grid[:3]:
            assert config.key in store
            assert_frame_equal(store.history(config.key), local.history(config.key))
            assert_frame_equal(store.gradients(config.key), local.gradients(config.key))
        assert grid[4].key not in store
        store.compact()
    assert not storage.files(store.path / "runs")
    assert_frame_equal(Store(url).table(), local.table())


def test_a_remote_store_is_in_front_of_a_base_and_is_published(url: str, tmp_path: Path) -> None:
    filled(tmp_path / "other", 2).compact(tmp_path / "results")
    store = Store(url, base=tmp_path / "results")
    store.put(fakes.quick(fakes.grid(3)[2]))
    assert store.pending(fakes.grid(4)) == fakes.grid(4)[3:]
    store.compact(tmp_path / "results")
    assert len(Store(tmp_path / "results")) == 3
    assert len(Store(f"{url}/other", base=tmp_path / "results")) == 3


@pytest.mark.parametrize("kind", ["runs", "gradients"])
def test_a_damaged_run_is_named_set_aside_and_done_again(url: str, kind: str) -> None:
    store, grid = filled(url), fakes.grid(3)
    before, bad = store.table(), store.path / kind / f"{grid[1].key}.parquet"
    storage.save(bad, b"no parquet") if kind == "runs" else storage.remove(bad)
    with pytest.warns(UserWarning, match="damaged or no parquet|is missing") as caught:
        assert store.pending(grid) == [grid[1]]
    assert str(bad) in str(caught[0].message) and "set-aside" in str(caught[0].message)
    assert any(grid[1].key in path.name for path in storage.files(store.path / "set-aside"))
    store.put(fakes.quick(grid[1]))
    assert_frame_equal(store.table(), before)


def test_a_lease_holds_is_renewed_and_lapses_without_its_holder(url: str) -> None:
    mine, theirs = Store(url), Store(url)
    with mine.claim("k") as ours:
        assert ours
        time.sleep(leases.LAPSE + 1)  # it is renewed
        with theirs.claim("k") as second, theirs.claim("other") as other:
            assert other and not second
        threading.Timer(0.5, storage.remove, [mine.path / "claims" / "k.lock"]).start()
        with theirs.claim("k", wait=True) as third:
            assert third
    storage.save(mine.path / "claims" / "k.lock", b"dead 7")
    began = time.monotonic()
    with theirs.claim("k", wait=True) as fourth:
        assert fourth and time.monotonic() - began > leases.LAPSE
    with mine.claim("k") as fifth:
        assert fifth


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, seconds in {"LAPSE": 0.6, "RENEW": 0.1, "LOOK": 0.05, "SETTLE": 0.2}.items():
        monkeypatch.setattr(leases, name, seconds)
    return storage.place(f"memory://{uuid.uuid4().hex}/k.lock")


def test_a_lease_that_another_has_taken_over_is_left_to_them(claimed: Place) -> None:
    with leases.lease(claimed, wait=False) as ours:
        assert ours
        storage.save(claimed, b"another 0")
        time.sleep(3 * leases.RENEW)
        assert storage.content(claimed) == b"another 0"
    assert storage.content(claimed) == b"another 0"


def hold(claimed: Place, held: list[tuple[float, float]]) -> threading.Thread:
    """Wait for a lease in a thread that notes from when till when it has it."""

    def work() -> None:
        with leases.lease(claimed, wait=True):
            began = time.monotonic()
            time.sleep(2 * leases.SETTLE)
            held.append((began, time.monotonic()))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_lease_is_its_holder_s_however_long_another_waits(claimed: Place) -> None:
    held: list[tuple[float, float]] = []
    with leases.lease(claimed, wait=False):
        waiting = hold(claimed, held)
        time.sleep(3 * leases.LAPSE)
        given_back = time.monotonic()
    waiting.join()
    assert held[0][0] > given_back


def test_of_two_that_take_a_dead_lease_at_once_one_has_it(
    claimed: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[float, float]] = []
    together, save = threading.Barrier(2), storage.save

    def at_once(path: Any, content: bytes) -> None:
        if content.endswith(b" 0\n") and not held:
            together.wait(timeout=20)
        save(path, content)

    storage.save(claimed, b"dead 7")
    monkeypatch.setattr(storage, "save", at_once)
    for thread in [hold(claimed, held) for _ in range(2)]:
        thread.join()
    (_, first), (second, _) = held
    assert first < second


@pytest.mark.slow
def test_two_sweeps_on_one_store_share_the_work_and_outlive_a_dead_one(url: str) -> None:
    grid, done = fakes.grid(8), []
    storage.create(Store(url).path / "claims" / f"{grid[3].key}.lock", b"dead 0")

    def slow(config: Any) -> Any:
        done.append(config.seed)
        time.sleep(0.05)
        return fakes.quick(config)

    def drive() -> None:
        sweep(grid, Store(url), run=slow, progress=False)

    other = threading.Thread(target=drive)
    other.start()
    drive()
    other.join()
    assert sorted(done) == list(range(8))
    assert Store(url).table(grid)["seed"].tolist() == list(range(8))


@pytest.mark.slow
def test_spawned_workers_write_to_s3(bucket: str) -> None:
    store = Store(f"{bucket}/{uuid.uuid4().hex}")
    assert len(sweep(fakes.grid(3), store, 2, fakes.quick, progress=False)) == 3


def test_a_store_in_another_folder_is_found_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    filled("runs", 1)
    shipped = pickle.dumps(Store("runs"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(pickle.loads(shipped)) == 1


def test_analyses_are_kept_beside_remote_runs(url: str, tmp_path: Path) -> None:
    shelf, table = Shelf(url), fakes.quick(fakes.grid(1)[0]).history
    shelf.put("swaps", "k", table)
    assert Shelf(url).keys("swaps") == {"k"}
    assert shelf.publish(tmp_path / "results") == ["swaps"]
    assert len(Shelf(tmp_path, base=tmp_path / "results").table("swaps")) == len(table)


def failing(monkeypatch: pytest.MonkeyPatch, times: int, error: Exception) -> list[int]:
    """Let the next writes of rows fail."""
    left, save = [0] * times, storage.save

    def refuse(path: Any, content: Any) -> None:
        with storage.writing(path):
            if left and path.parent.name == "runs":
                left.pop()
                raise error
        save(path, content)

    monkeypatch.setattr(storage, "save", refuse)
    return left


class EndpointConnectionError(Exception):
    """As botocore names it."""


@pytest.mark.parametrize(
    "error", [EndpointConnectionError("no route"), OSError(errno.ESTALE, "stale")]
)
def test_a_store_that_does_not_answer_for_a_while_costs_no_run(
    error: Exception, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    store = Store(f"{bucket}/{uuid.uuid4().hex}")
    done: list[int] = []

    def note(config: Any) -> Any:
        done.append(config.seed)
        return fakes.quick(config)

    left = failing(monkeypatch, 4, error)
    with pytest.warns(UserWarning, match=r"can be reached.*trying again in"):
        sweep(
            fakes.grid(3),
            store,
            run=lambda c: done.append(c.seed) or fakes.quick(c),
            progress=False,
        )
    assert done == [0, 1, 2] and not left and len(store) == 3


def test_a_store_that_does_not_come_back_ends_the_sweep_and_keeps_what_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = filled(tmp_path / "store", 1)
    failing(monkeypatch, 100, OSError(errno.EIO, "broken"))
    with pytest.warns(UserWarning), pytest.raises(StoreError, match="what is finished is kept"):
        sweep(fakes.grid(3), store, run=fakes.quick, progress=False)
    assert len(store) == 1


@pytest.mark.parametrize("code", ["SlowDown", "ServiceUnavailable", "InternalError", "503", "500"])
def test_a_busy_store_is_asked_again(code: str) -> None:
    answer = {"Error": {"Code": code, "Message": "later"}}
    error = translate_boto_error(ClientError(answer, "PutObject"))
    refused = storage.refusal(storage.place("s3://bucket/runs"), "write", error)
    assert isinstance(refused, UnreachableError)


@pytest.mark.parametrize("code", ["PreconditionFailed", "412"])
def test_a_claim_is_taken_whatever_the_store_says_beside_the_code(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = storage.place("s3://bucket/runs/claims/k.lock")
    answer = {"Error": {"Code": code, "Message": "At least one of the pre-conditions failed"}}

    def refuse(*_: Any, **__: Any) -> None:
        raise translate_boto_error(ClientError(answer, "PutObject"))

    monkeypatch.setattr(path.fs, "pipe_file", refuse)
    assert storage.create(path, b"mine") is False
    answer["Error"]["Code"] = "AccessDenied"
    with pytest.raises(StoreError, match="credentials"):
        storage.create(path, b"mine")


def test_runs_that_are_stored_elsewhere_end_the_sweep_with_the_reason(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")

    def on_another_machine(
        todo: Any, work: Any, started: Any, stop: Any = None
    ) -> Iterator[tuple[Any, Any]]:
        while todo:
            task = todo.popleft()
            there.put(fakes.quick(task.configs[0]))
            yield task, [sweeps.Outcome("stored")]

    with pytest.raises(StoreError, match=r"1 of 1 runs were stored but cannot be seen in .*here"):
        sweep(fakes.grid(3), here, run=fakes.quick, launcher=on_another_machine, progress=False)
    assert len(there) == 1


def test_a_folder_that_cannot_be_read_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, 1)

    def refuse(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StoreError, match=r"cannot read .*runs: Permission denied"):
        store.pending(fakes.grid(2))


def test_a_full_disk_ends_the_sweep_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = filled(tmp_path / "store", 1)
    failing(monkeypatch, 1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(StoreError, match=r"No space.*free some space"):
        sweep(fakes.grid(3), store, run=fakes.quick, progress=False)
    assert len(sweep(fakes.grid(3), store, run=fakes.quick, progress=False)) == 3


def test_what_is_wrong_with_a_remote_store_is_named(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"no-such-bucket.* is not there; make the bucket"):
        Store("s3://no-such-bucket/runs").put(fakes.quick(fakes.grid(1)[0]))
    with pytest.raises(StoreError, match="cannot open nonsense://x: Unsupported"):
        Store("nonsense://x")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(StoreError, match=r"no driver for s3://b/runs .*stabkit\[s3\]"):
        Store("s3://b/runs")


def test_nobody_at_the_address_is_unreachable(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UnreachableError, match="make sure that the store can be reached"):
        Store("s3://bucket/runs").keys()
    s3fs.S3FileSystem.clear_instance_cache()
