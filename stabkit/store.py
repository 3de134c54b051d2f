"""A folder of finished runs; what is there is not run again.

Layout: ``runs/<key>.parquet`` (one row), ``histories/<key>.parquet`` and
``gradients/<key>.parquet`` (one row per step). A compacted store has one file of each kind,
with a ``key`` column. Files appear whole and a run's row comes last, so a run that is visible is
finished, whenever its writer was killed. The folder may be an object store's (s3://bucket/runs),
where claims are leases (``stabkit.leases``); so they are in file:///folder, for a folder shared by
machines whose file system has no locks.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from stabkit import parquet, results, storage
from stabkit.config import RunConfig
from stabkit.errors import StoreError, nearest
from stabkit.leases import lease
from stabkit.parquet import DamagedError
from stabkit.results import RunResult
from stabkit.storage import Place

KINDS = ("gradients", "histories", "runs")  # in the order of writing: the row comes last
NEEDS = {"gradients": ["key"], "histories": ["key"], "runs": results.NO_RUNS.column_names}


class Store:
    """Finished runs under ``path``, in front of those of a read-only compacted store ``base``.

    Files that are damaged, foreign or of another schema version are named in a warning, moved to
    ``set-aside/``, and their runs are pending again; in ``base`` they raise StoreError.
    """

    def __init__(self, path: str | Place, base: str | Place | None = None) -> None:
        """Open the store, a folder or an fsspec URL; its folder is made by the first write."""
        self.path = storage.place(path)
        self.base = None if base is None else storage.place(base)
        self._leased = "://" in str(path)
        if isinstance(self.path, Path) and os.path.isfile(self.path):
            raise StoreError(f"{self.path} is a file; expected a folder for runs, or a new name")
        if self.base and not storage.exists(self.base / "runs.parquet"):
            raise StoreError(
                f"{self.base} has no published runs (no runs.parquet); name a folder that stabkit "
                "publish, or Store.compact, wrote, or go without"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Name the folders such that they are found from another folder, too."""
        names = {name: getattr(self, name) for name in ("path", "base")}
        found = {n: p.absolute() if isinstance(p, Path) else p for n, p in names.items()}
        return self.__dict__ | found

    def keys(self) -> set[str]:
        """Return the keys of all finished runs."""
        tables = (*self._loose_runs(), *self._compacted("runs", columns=["key"]))
        return {key for runs in tables for key in runs["key"].to_pylist()}

    def __contains__(self, key: str) -> bool:
        """Tell whether the run ``key`` is finished."""
        only: dict[str, Any] = {"columns": ["key"], "filters": [("key", "==", key)]}
        return self._loose_run(key) is not None or any(
            runs.num_rows for runs in self._compacted("runs", **only)
        )

    def __len__(self) -> int:
        """Return the number of finished runs."""
        return len(self.keys())

    def pending(self, configs: Iterable[RunConfig]) -> list[RunConfig]:
        """Return the ``configs`` that are not finished, in order, each key once."""
        done = self.keys()
        return [c for key, c in results.by_key(configs).items() if key not in done]

    def put(self, result: RunResult) -> None:
        """Store a run for good; one that is there already is left as it is.

        Raises StoreError when the folder cannot be written or the disk is full.
        """
        run, key = result.row(), result.config.key
        gradients = results.steps(result.gradients, floats=np.float32)
        if key not in self:
            parquet.write(self._loose("gradients", key), gradients)
            parquet.write(self._loose("histories", key), results.steps(result.history))
            parquet.write(self._loose("runs", key), run)

    def table(self, configs: Iterable[RunConfig] | None = None, **equals: Any) -> pd.DataFrame:
        """Return one row per finished run whose columns equal ``equals``.

        With ``configs``: their runs in their order, under the names they give to model and data.
        Without: all runs by date. ``RunConfig.from_row`` gives a row's configuration back.
        Raises StoreError for an unknown column.
        """
        asked = None if configs is None else [*results.by_key(configs).values()]
        only: dict[str, Any] = {}
        if asked is not None:
            keys = pa.array([config.key for config in asked], pa.string())
            only["filters"] = pc.field("key").isin(keys)
        runs = results.unique([*self._loose_runs(), *self._compacted("runs", **only)])
        if asked is None:
            by = [(name, "ascending") for name in ("date", "key") if name in runs.column_names]
            frame = results.frame(runs.sort_by(by))
        else:
            frame = results.frame(results.select(runs, asked))
        for name, value in equals.items():
            if name not in frame:
                raise StoreError(f"no column {name!r} in {self.path}: {nearest(name, frame)}")
            frame = frame[np.array([cell == value for cell in frame[name]], dtype=bool)]
        return frame.reset_index(drop=True)

    def history(self, key: str) -> pd.DataFrame:
        """Return the run's history, one row per step. Raises StoreError if it is not there.

        After a thinning compaction its losses have three digits, its scores all of theirs.
        """
        return results.frame(self._steps("histories", key))

    def gradients(self, key: str) -> pd.DataFrame:
        """Return the run's gradient norms: ``step`` and one float32 column per weight matrix.

        After a thinning compaction only log-spaced steps and one column per layer are left, to
        three digits. Raises StoreError if absent.
        """
        return results.frame(self._steps("gradients", key))

    def compact(
        self,
        target: str | Place | None = None,
        gradients: Collection[str] | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        """Gather the runs into one file of each kind, here or in the folder ``target``.

        Here: loose files go once the gathered ones are in place; runs that finish meanwhile stay
        loose. In ``target``: a copy of all that this store sees, its base included, or of the runs
        named in ``only``.
        ``gradients`` names the runs whose histories are kept whole (default: all); the others
        keep their gradients at about 40 log-spaced steps and by layer, and three digits of these
        norms and of their losses. Raises StoreError rather than lose a run.
        """
        home = Store(self.path if target is None else target).path
        with self._hold(home / "compact.lock", wait=True):
            loose = list(self._loose_runs())
            compacted = self._compacted("runs", with_base=target is not None)
            runs = results.unique([*loose, *compacted]).sort_by("key")
            if only is not None:
                runs = runs.filter(pc.is_in(runs["key"], pa.array([*only], pa.string())))
            keys = runs["key"].to_pylist()
            if target is not None or only is not None:
                self._refuse_loss(Store(home), keys)
            thinned = set() if gradients is None else set(keys).difference(gradients)
            parquet.write(home / "gradients.parquet", self._gather("gradients", keys, thinned))
            parquet.write(home / "histories.parquet", self._gather("histories", keys, thinned))
            parquet.write(home / "runs.parquet", runs)
            if target is None:
                self._remove([key for run in loose for key in run["key"].to_pylist()])

    def clean(self) -> None:
        """Remove the temporary files of writers that were killed more than an hour ago."""
        storage.remove_stale(self.path)

    def claim(self, key: str, wait: bool = False) -> AbstractContextManager[bool]:
        """Hold the run ``key`` against other processes; the context tells whether it is ours.

        A claim ends with its process, however that ends; a lease soon after it. With ``wait``,
        blocks until it is ours.
        """
        return self._hold(self.path / "claims" / f"{key}.lock", wait)

    def _hold(self, path: Place, wait: bool) -> AbstractContextManager[bool]:
        if self._leased or not isinstance(path, Path):
            return lease(path, wait)
        return storage.lock(path, wait)

    def _loose(self, kind: str, key: str) -> Place:
        return self.path / kind / f"{key}.parquet"

    def _loose_runs(self) -> Iterator[pa.Table]:
        rows = storage.files(self.path / "runs")
        if isinstance(self.path, Path):
            found = (self._loose_run(row.stem) for row in rows)
        else:  # a request takes its time: few of them, and many at once
            contents = [*storage.fetch(rows)]
            listed = {path for kind in KINDS for path in storage.files(self.path / kind)}
            found = (self._loose_run(row.stem, content, listed) for row, content in contents)
        yield from (run for run in found if run is not None)

    def _loose_run(
        self, key: str, content: bytes | None = None, listed: Collection[Place] = ()
    ) -> pa.Table | None:
        """Return a run's row if it is sound; with its ``content``, the rest need be listed only."""
        gradients, history, row = paths = [self._loose(kind, key) for kind in KINDS]
        if content is None and not storage.exists(row):
            return None
        try:
            run = parquet.read(row, NEEDS["runs"], content)
            if run["key"].to_pylist() != [key]:
                raise DamagedError(f"{row} holds another run than its name says")
            for path in (gradients, history):
                if content is None:
                    parquet.check(path)
                elif path not in listed:
                    raise DamagedError(f"{path} is missing")
        except DamagedError as problem:
            self._set_aside(paths, problem)
            return None
        return run

    def _compacted(self, kind: str, with_base: bool = True, **options: Any) -> Iterator[pa.Table]:
        """Yield the file of this kind here and in the base, where the three of them are sound."""
        for folder in (self.path, self.base) if with_base and self.base else (self.path,):
            paths = [folder / f"{name}.parquet" for name in KINDS]
            if not storage.exists(paths[-1]):
                continue
            try:
                for path in paths:
                    parquet.check(path, NEEDS[path.stem])
                yield parquet.read(folder / f"{kind}.parquet", **options)
            except DamagedError as problem:
                if folder == self.base:
                    raise StoreError(f"{problem}; restore it or go without this base") from None
                self._set_aside(paths, problem)

    def _steps(self, kind: str, key: str) -> pa.Table:
        path = self._loose(kind, key)
        if storage.exists(path):
            try:
                return parquet.read(path)
            except DamagedError as problem:
                if self._set_aside([self._loose(name, key) for name in KINDS], problem):
                    raise StoreError(f"{problem}; the run has to be done again") from None
        for steps in self._compacted(kind, filters=[("key", "==", key)]):
            if steps.num_rows:  # the columns of other architectures are empty
                own = [n for n in steps.column_names if steps[n].null_count < steps.num_rows]
                return steps.select(own).drop_columns("key")
        raise StoreError(f"{self.path} has no run {key!r}; run it first")

    def _gather(self, kind: str, keys: list[str], thinned: Collection[str] = ()) -> pa.Table:
        shorten = results.thin if kind == "gradients" else results.rounded

        def part(key: str) -> pa.Table:
            steps = self._steps(kind, key)
            steps = shorten(steps) if key in thinned else steps
            return steps.add_column(0, "key", pa.array([key] * steps.num_rows, pa.string()))

        return results.concat([results.NO_RUNS.select(["key"]), *map(part, keys)])

    def _refuse_loss(self, target: Store, keys: list[str]) -> None:
        if lost := target.keys().difference(keys):
            raise StoreError(
                f"{target.path} holds {len(lost)} runs that are not among those to gather from "
                f"{self.path} and that would be lost; name another folder, or open the store with "
                "that one as its base"
            )

    def _remove(self, keys: list[str]) -> None:
        for key in keys:
            for kind in reversed(KINDS):  # the row first: it must not stand without the rest
                storage.remove(self._loose(kind, key))

    def _set_aside(self, paths: list[Place], problem: DamagedError) -> bool:
        """Move a run's files, row first; False if another process moved or compacted them."""
        folder = self.path / "set-aside"
        for path in reversed(paths):
            try:
                storage.move(path, folder / f"{time.time_ns()}-{path.parent.name}-{path.name}")
            except StoreError:
                if storage.exists(path):
                    raise
                if path == paths[-1]:
                    return False
        warnings.warn(
            f"{problem}; moved to {folder}, what it held counts as not run yet", stacklevel=2
        )
        return True
