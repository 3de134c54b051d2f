"""Store: what is put comes back, whatever happens to the files meanwhile."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from stabkit import config as config_module
from stabkit import parquet, results
from stabkit.config import RunConfig
from stabkit.errors import StoreError
from stabkit.results import RunResult
from stabkit.store import Store

KINDS = ("runs", "histories", "gradients")

whole = st.integers(0, 2**63 - 1)
positive = st.integers(1, 2**63 - 1)
share = st.floats(0, 1, exclude_max=True)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    length = {"epochs": None, "max_steps": None}
    length[draw(st.sampled_from(sorted(length)))] = draw(positive)
    optional = {
        name: draw(st.none() | values)
        for name, values in {
            "dev_file": text,
            "label_column": text,
            "head_seed": whole,
            "dropout_seed": whole,
            "train_size": positive,
            "clip_norm": st.floats(1e-300, 1e300),
        }.items()
    }
    return RunConfig(
        **{**fakes.DIGESTS, **length, **optional},
        model=draw(text),
        text_columns=tuple(draw(st.lists(text, max_size=2))),
        seed=draw(whole),
        learning_rate=draw(st.floats(5e-324, 1e308)),
        hidden_dropout=draw(share),
        bias_correction=draw(st.booleans()),
        precision=draw(st.sampled_from(["fp32", "bf16"])),
    )


grids = st.lists(configs(), min_size=1, max_size=4, unique_by=lambda config: config.key)
few = settings(max_examples=15, deadline=None)


def filled(path: Path, grid: list[RunConfig]) -> Store:
    store = Store(path)
    for config in grid:
        store.put(fakes.quick(config))
    return store


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def three(folder: Path) -> tuple[Store, list[str]]:
    grid = fakes.grid(3)
    return filled(folder / "store", grid), [config.key for config in grid]


def same_runs(ours: Store, theirs: Store, keys: list[str]) -> None:
    assert_frame_equal(ours.table(), theirs.table())
    for key in keys:
        assert_frame_equal(ours.history(key), theirs.history(key))
        assert_frame_equal(ours.gradients(key), theirs.gradients(key))


@few
@given(grids)
def test_what_is_put_comes_back_exactly_from_loose_and_compacted_files(
    grid: list[RunConfig],
) -> None:
    with tempfile.TemporaryDirectory() as path:
        store = filled(Path(path), grid)
        for _ in range(2):
            rows = store.table(grid).to_dict("records")
            assert [RunConfig.from_row(row) for row in rows] == grid
            for config, row in zip(grid, rows, strict=True):
                expected = fakes.quick(config)
                for name, value in expected.summary.items():
                    lost = value is None and isinstance(row[name], float)
                    assert np.isnan(row[name]) if lost else row[name] == value
                    assert lost or type(row[name]) is type(value)
                assert_frame_equal(store.history(config.key), expected.history)
                assert_frame_equal(store.gradients(config.key), expected.gradients)
            store.compact()


@few
@given(grids, st.data())
def test_the_table_depends_neither_on_order_nor_on_compaction(
    grid: list[RunConfig], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as path:
        shuffled = data.draw(st.permutations(grid))
        early = data.draw(st.integers(0, len(grid)))
        plain, other = filled(Path(path, "a"), grid), filled(Path(path, "b"), shuffled[:early])
        other.compact()
        for config in shuffled[early:]:
            other.put(fakes.quick(config))
        keys = [config.key for config in grid]
        same_runs(plain, other, keys)
        other.compact()
        same_runs(plain, other, keys)
        assert_frame_equal(plain.table(shuffled), other.table(shuffled))


@few
@given(grids, st.data())
def test_pending_is_grid_minus_store_in_order(grid: list[RunConfig], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as path:
        done = data.draw(st.sets(st.sampled_from(range(len(grid)))))
        store = filled(Path(path), [grid[i] for i in done])
        assert store.pending([*grid, *grid]) == [c for i, c in enumerate(grid) if i not in done]
        assert len(store) == len(done)
        assert all((c.key in store) == (i in done) for i, c in enumerate(grid))


def test_planning_hashes_each_configuration_once_and_reads_no_more_for_more_of_them(
    three: tuple[Store, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = three
    store.compact()
    costs = []
    for n in (20, 2000):
        calls: list[str] = []
        count_calls(monkeypatch, config_module.hashlib, "sha256", calls)
        count_calls(monkeypatch, parquet, "read", calls)
        grid = fakes.grid(n)
        assert len(store.pending(grid)) == n - 3
        assert len(store.pending(grid)) == n - 3
        assert len(store.table(grid)) == 3
        monkeypatch.undo()
        costs.append((calls.count("sha256") / n, calls.count("read")))
    assert costs == [(1, 3), (1, 3)]


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, calls: list[str]) -> None:
    function = getattr(module, name)

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return function(*args, **options)

    monkeypatch.setattr(module, name, counted)


def test_no_configurations_have_an_empty_table(three: tuple[Store, list[str]]) -> None:
    store, _ = three
    for _ in range(2):
        assert store.table([]).empty and not store.pending([])
        store.compact()


def test_an_empty_store_has_an_empty_table_with_the_columns_of_a_configuration(
    folder: Path,
) -> None:
    table = Store(folder / "none yet").table()
    assert len(table) == 0
    assert {"key", "model", "learning_rate"} <= set(table)
    assert not (folder / "none yet").exists()


def test_a_second_put_changes_nothing(three: tuple[Store, list[str]]) -> None:
    store, _ = three
    before = store.table()
    again = fakes.quick(fakes.grid(1)[0])
    again.summary["seconds"] = 99.0
    store.put(again)
    assert_frame_equal(store.table(), before)


def test_table_selects_rows_and_names_unknown_columns(three: tuple[Store, list[str]]) -> None:
    store, keys = three
    assert store.table(seed=1).key.tolist() == [keys[1]]
    assert store.table(seed=1, model="other").empty
    assert store.table(max_steps=None).key.tolist() == keys
    with pytest.raises(StoreError, match=r"no column 'sed'.*did you mean 'seed'"):
        store.table(sed=1)


def test_a_run_found_by_its_digests_bears_the_names_asked_for(
    three: tuple[Store, list[str]],
) -> None:
    moved = [config.replace(model="elsewhere/model", dev_file="d.csv") for config in fakes.grid(3)]
    table = three[0].table([*reversed(moved), *fakes.grid(5)[3:]])
    assert table.seed.tolist() == [2, 1, 0]
    assert [RunConfig.from_row(row) for row in table.to_dict("records")] == moved[::-1]


def test_a_summary_may_not_reuse_a_column_of_the_configuration(folder: Path) -> None:
    result = fakes.quick(fakes.grid(1)[0])
    clash = RunResult(result.config, {"seed": 1}, result.history, result.gradients)
    with pytest.raises(ValueError, match=r"reuses.*seed"):
        Store(folder).put(clash)


def test_compacted_bytes_depend_on_content_alone(folder: Path) -> None:
    grid = fakes.grid(4)
    stores = filled(folder / "a", grid), filled(folder / "b", grid[::-1])
    for store in stores:
        store.compact()
    files = [[(s.path / f"{kind}.parquet").read_bytes() for kind in KINDS] for s in stores]
    assert files[0] == files[1]
    stores[0].compact()
    assert [(stores[0].path / f"{kind}.parquet").read_bytes() for kind in KINDS] == files[0]
    assert not any(path.is_file() for kind in KINDS for path in (stores[0].path / kind).iterdir())


def test_what_is_measured_at_every_step_is_stored_tightly(folder: Path) -> None:
    """The same numbers in little more than half of what they would take."""
    losses = np.random.default_rng(0).normal(0.69, 0.01, 5000).astype("float32").astype("float64")
    rates = np.linspace(0, 1e-3, 5000)
    table = pa.table({"step": np.arange(5000), "loss": losses, "learning_rate": rates})
    parquet.write(folder / "tight.parquet", table)
    pq.write_table(table, folder / "plain.parquet", compression="zstd")
    assert parquet.read(folder / "tight.parquet").equals(table)
    sizes = [(folder / f"{name}.parquet").stat().st_size for name in ("tight", "plain")]
    assert sizes[0] < 0.6 * sizes[1]


def test_compaction_thins_all_gradients_but_the_named(three: tuple[Store, list[str]]) -> None:
    store, keys = three
    before = store.gradients(keys[1])
    store.compact(gradients=keys[:1])
    assert len(store.gradients(keys[0])) == 60
    for _ in range(2):  # thinning twice is thinning once
        thin = store.gradients(keys[1])
        assert thin.step.tolist()[:4] == [1, 2, 3, 4]
        assert 20 < len(thin) < 40 and thin.step.iloc[-1] == 60
        kept = before[before.step.isin(thin.step)].reset_index(drop=True)
        layers = {name: "layer.0" if "layer" in name else name for name in fakes.MATRICES}
        assert list(thin) == ["step", *dict.fromkeys(layers.values())]
        for layer in set(layers.values()):
            mine = kept[[name for name in fakes.MATRICES if layers[name] == layer]]
            together = np.sqrt((mine.astype(float) ** 2).sum(axis=1))
            np.testing.assert_allclose(thin[layer], together, rtol=2**-11)
        store.compact(gradients=[])
    assert len(store.gradients(keys[0])) < 40


def test_compaction_rounds_the_losses_of_all_runs_but_the_named(
    three: tuple[Store, list[str]],
) -> None:
    """Scores, by which runs are judged, and what no number can be measured at stay exact."""
    store, keys = three
    before = [store.history(key) for key in keys[:2]]
    store.compact(gradients=keys[:1])
    assert_frame_equal(store.history(keys[0]), before[0])
    for _ in range(2):  # rounding twice is rounding once
        after = store.history(keys[1])
        assert after["step"].tolist() == before[1]["step"].tolist()
        assert_frame_equal(after[["dev_score"]], before[1][["dev_score"]])
        assert not after["loss"].equals(before[1]["loss"])
        np.testing.assert_allclose(after["loss"], before[1]["loss"], rtol=2**-11)
        mantissa = np.frexp(after["loss"])[0] * 2**11
        assert (mantissa == mantissa.round()).all()
        store.compact(gradients=keys[:1])


def test_rounding_leaves_what_is_no_number() -> None:
    odd = [float("nan"), float("inf"), -float("inf"), 0.0, None, 1e-300]
    table = pa.table({"step": range(6), "loss": odd})
    assert results.rounded(table)["loss"].to_pylist()[1:5] == odd[1:5]
    assert np.isnan(results.rounded(table)["loss"].to_pylist()[0])
    assert results.rounded(table)["loss"].to_pylist()[5] == pytest.approx(1e-300, rel=2**-11)


@pytest.mark.parametrize("order", [1, -1])
def test_runs_of_two_architectures_keep_their_own_matrices_in_order(
    order: int, folder: Path
) -> None:
    store = Store(folder)
    bert, albert = sorted(fakes.grid(2), key=lambda config: config.key)[::order]
    store.put(fakes.quick(bert))
    store.put(fakes.quick(albert, matrices=("shared.query", "classifier.weight")))
    store.compact()
    assert list(store.gradients(bert.key)) == ["step", *fakes.MATRICES]
    assert list(store.gradients(albert.key)) == ["step", "shared.query", "classifier.weight"]
    assert store.gradients(albert.key).dtypes.iloc[1] == np.float32


def test_columns_without_a_number_survive_compaction(folder: Path) -> None:
    store, config = Store(folder), fakes.grid(1)[0]
    result = fakes.quick(config)
    result.history["loss"] = np.nan
    result.gradients["classifier.weight"] = np.float32("inf")
    store.put(result)
    store.compact()
    assert_frame_equal(store.history(config.key), result.history)
    assert_frame_equal(store.gradients(config.key), result.gradients)


def test_matrices_in_contradicting_orders_are_kept_too(folder: Path) -> None:
    store = Store(folder)
    for config, names in zip(fakes.grid(2), (("a", "b"), ("b", "a")), strict=True):
        store.put(fakes.quick(config, matrices=names))
    store.compact()
    assert all(set(store.gradients(c.key)) == {"step", "a", "b"} for c in fakes.grid(2))


def test_a_base_counts_as_present_and_stays_as_it_is(
    three: tuple[Store, list[str]], folder: Path
) -> None:
    published, keys = three
    published.compact(folder / "results", gradients=[])
    bytes_before = (folder / "results" / "runs.parquet").read_bytes()
    assert (published.path / "runs" / f"{keys[0]}.parquet").exists()
    store = Store(folder / "own", base=folder / "results")
    grid = fakes.grid(5)
    assert store.pending(grid) == grid[3:]
    store.put(fakes.quick(grid[4]))
    store.compact()
    assert len(store) == 4 and len(Store(folder / "own")) == 1
    assert_frame_equal(store.history(keys[2]), published.history(keys[2]), rtol=2**-11)
    assert (folder / "results" / "runs.parquet").read_bytes() == bytes_before
    store.compact(folder / "results")
    assert len(Store(folder / "results")) == 4


def test_compaction_refuses_to_lose_the_runs_of_its_target(
    three: tuple[Store, list[str]], folder: Path
) -> None:
    other = filled(folder / "other", fakes.grid(1, learning_rate=1e-3))
    other.compact(folder / "results")
    with pytest.raises(StoreError, match=r"holds 1 runs that .* would be lost"):
        three[0].compact(folder / "results")
    assert len(Store(folder / "results")) == 1


def test_only_named_runs_are_gathered_and_none_is_lost(
    three: tuple[Store, list[str]], folder: Path
) -> None:
    store, keys = three
    store.compact(folder / "results", only=keys[:2])
    assert Store(folder / "results").keys() == set(keys[:2])
    for target in (None, folder / "results"):
        with pytest.raises(StoreError, match=r"holds \d runs that .* would be lost"):
            store.compact(target, only=keys[2:])
    assert store.keys() == set(keys)


def test_a_run_that_finishes_during_compaction_is_kept(
    three: tuple[Store, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keys = three
    late, write = fakes.grid(4)[3], parquet.write

    def put_in_between(path: Path, table: pa.Table) -> None:
        write(path, table)
        if path == store.path / "gradients.parquet":
            store.put(fakes.quick(late))

    monkeypatch.setattr(parquet, "write", put_in_between)
    store.compact()
    assert store.keys() == {*keys, late.key}
    assert [p.stem for p in (store.path / "runs").iterdir()] == [late.key]


@pytest.mark.parametrize("writes", range(3))
def test_compaction_that_breaks_off_loses_nothing(
    writes: int, three: tuple[Store, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keys = three
    before, write, left = store.table(), parquet.write, [None] * writes

    def break_off(path: Path, table: pa.Table) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        write(path, table)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(parquet, "write", break_off)
        store.compact(gradients=[])
    assert_frame_equal(store.table(), before)
    assert all(len(store.gradients(key)) == 60 for key in keys)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def flip_data(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 10 : len(content) // 5] = bytes(len(content) // 5 - len(content) // 10)
    path.write_bytes(content)


def make_foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def age(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata({"stabkit": "0"}), path)


def garble_name(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"warmup", b"\xffarmup"))


def lose_column(path: Path) -> None:
    parquet.write(path, pq.read_table(path).drop_columns("warmup"))


def swap_content(path: Path) -> None:
    other = next(p for p in sorted(path.parent.iterdir()) if p != path)
    shutil.copy(other, path)


DAMAGES = [
    ("runs", truncate, "truncated, damaged or no parquet"),
    ("runs", flip_data, "truncated, damaged or no parquet"),
    ("runs", lambda path: path.write_text("no parquet"), "truncated, damaged or no parquet"),
    ("runs", lambda path: path.write_bytes(b""), "truncated, damaged or no parquet"),
    ("runs", garble_name, "truncated, damaged or no parquet"),
    ("runs", make_foreign, "not written by stabkit"),
    ("runs", age, "schema version 0; this stabkit reads version 1"),
    ("runs", lose_column, "has no column warmup"),
    ("runs", swap_content, "holds another run"),
    ("histories", truncate, "truncated, damaged or no parquet"),
    ("gradients", age, "schema version 0"),
    ("gradients", Path.unlink, "is missing"),
]


@pytest.mark.parametrize(("kind", "damage", "says"), DAMAGES)
def test_a_damaged_run_is_named_set_aside_and_done_again(
    kind: str, damage: Callable[[Path], object], says: str, three: tuple[Store, list[str]]
) -> None:
    store, keys = three
    grid, before = fakes.grid(3), store.table()
    bad = store.path / kind / f"{keys[1]}.parquet"
    damage(bad)
    with pytest.warns(UserWarning, match=says) as caught:
        assert store.pending(grid) == [grid[1]]
    assert str(bad) in str(caught[0].message) and "set-aside" in str(caught[0].message)
    assert any(keys[1] in path.name for path in (store.path / "set-aside").iterdir())
    assert store.table().key.tolist() == [keys[0], keys[2]]
    store.put(fakes.quick(grid[1]))
    assert_frame_equal(store.table(), before)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_noticed(kind: str, part: float) -> None:
    with tempfile.TemporaryDirectory() as path:
        store = filled(Path(path), fakes.grid(1))
        (file,) = (store.path / kind).iterdir()
        os.truncate(file, int(file.stat().st_size * part))
        with pytest.warns(UserWarning, match="set-aside"):
            assert store.keys() == set()


def test_a_history_damaged_inside_is_noticed_when_it_is_read(
    three: tuple[Store, list[str]],
) -> None:
    store, keys = three
    flip_data(store.path / "histories" / f"{keys[0]}.parquet")
    with pytest.warns(UserWarning, match="set-aside"), pytest.raises(StoreError, match="again"):
        store.history(keys[0])
    assert store.keys() == set(keys[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_compacted_store_is_set_aside_but_a_base_raises(
    kind: str, three: tuple[Store, list[str]], folder: Path
) -> None:
    store, keys = three
    store.compact()
    truncate(store.path / f"{kind}.parquet")
    with pytest.raises(StoreError, match=rf"{kind}\.parquet .*restore it"):
        Store(folder / "own", base=store.path).keys()
    with pytest.warns(UserWarning, match=rf"{kind}\.parquet .*set-aside"):
        assert keys[0] not in store
    assert len(store.pending(fakes.grid(3))) == 3
    assert len(list((store.path / "set-aside").iterdir())) == 3


def test_a_base_that_is_none_and_a_run_that_is_not_there_are_named(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"has no published runs \(no runs\.parquet\)"):
        Store(folder, base=folder / "results")
    with pytest.raises(StoreError, match="has no run 'abc'"):
        Store(folder).history("abc")


def test_temporary_files_are_ignored_and_cleaned_when_old(three: tuple[Store, list[str]]) -> None:
    store, _ = three
    old, young = (store.path / "runs" / f".{name}.1.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.write_text("half a row")
    os.utime(old, (time.time() - 4000,) * 2)
    assert len(store) == 3
    store.clean()
    assert young.exists() and not old.exists() and len(store) == 3


def test_a_full_disk_is_named_and_leaves_nothing_half_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, config = Store(folder), fakes.grid(1)[0]

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(StoreError, match=r"No space.*free some"):
        patch.setattr(os, "fsync", full)
        store.put(fakes.quick(config))
    assert not [path for path in folder.rglob("*") if path.is_file()]
    store.put(fakes.quick(config))
    assert len(store) == 1


def test_a_write_that_the_system_cuts_short_leaves_the_old_state(folder: Path) -> None:
    store, config = Store(folder), fakes.grid(1)[0]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*free some space"):
            store.put(fakes.quick(config, steps=5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(store) == 0
    assert not list(folder.rglob("*.tmp"))


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*name another store"):
        Store(folder / "file" / "store").put(fakes.quick(fakes.grid(1)[0]))


def test_a_claim_holds_until_it_is_released(folder: Path) -> None:
    mine, theirs = Store(folder), Store(folder)
    with mine.claim("k") as ours:
        assert ours
        with theirs.claim("k") as second, theirs.claim("other") as other:
            assert other and not second
    with theirs.claim("k", wait=True) as third:
        assert third
    assert not list((folder / "claims").iterdir())


def test_a_missing_float_is_nan_and_other_missing_cells_are_none(folder: Path) -> None:
    table = filled(folder, fakes.grid(4)).table()
    assert table.best_f1.dtype == np.float64 and table.best_f1.isna().tolist() == [0, 1, 0, 1]
    assert [cell is None for cell in table.best_step] == [False, True, True, False]
    assert table.failed.dtype == bool and table.epochs.dtype == np.int64
    assert isinstance(table, pd.DataFrame) and table.text_columns.tolist() == [()] * 4


def test_a_run_of_one_s_own_goes_before_the_published_one(folder: Path) -> None:
    grid = fakes.grid(2)
    filled(folder / "published", grid).compact(folder / "results")
    mine = fakes.quick(grid[0])
    Store(folder / "own").put(replace(mine, summary=mine.summary | {"threads": "9"}))
    store = Store(folder / "own", base=folder / "results")
    assert store.table(grid)["threads"].tolist()[0] == "9"
    assert len(store.table()) == 2
