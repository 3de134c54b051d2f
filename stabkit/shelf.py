"""Tables of analyses, kept as runs are: a file each, written whole, not made again once there.

Layout: ``<kind>/<key>.parquet`` under the folder, beside the runs of a store; published, one file
``<kind>.parquet`` with a ``key`` column.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa

from stabkit import parquet, results, storage
from stabkit.errors import StoreError
from stabkit.parquet import DamagedError
from stabkit.storage import Place


class Shelf:
    """Tables under ``path``, in front of the published ones in ``base``.

    A damaged or foreign file raises StoreError, which says to remove it.
    """

    def __init__(self, path: str | Place, base: str | Place | None = None) -> None:
        """Open the shelf, a folder or an fsspec URL; its folder is made by the first write."""
        self.path = storage.place(path)
        self.base = None if base is None else storage.place(base)

    def keys(self, kind: str) -> set[str]:
        """Return the keys of all tables of a kind."""
        return {key for table in self._tables(kind) for key in table["key"].to_pylist()}

    def put(self, kind: str, key: str, table: pd.DataFrame) -> None:
        """Keep a table for good. Raises StoreError when the folder cannot be written."""
        rows = results.steps(table.assign(key=key))
        parquet.write(self.path / kind / f"{key}.parquet", rows)

    def table(self, kind: str) -> pd.DataFrame:
        """Return all tables of a kind as one, with the column ``key``; empty where there is none.

        A key that is here and published is taken from here.
        """
        seen, parts = set[str](), []
        for part in self._tables(kind):
            fresh = [key not in seen for key in part["key"].to_pylist()]
            parts.append(part.filter(pa.array(fresh, pa.bool_())))
            seen.update(part["key"].to_pylist())
        return results.frame(results.concat(parts)) if parts else pd.DataFrame({"key": []})

    def publish(self, target: Path, runs: Collection[str] | None = None) -> list[str]:
        """Gather each kind that is here, in front of what ``target`` has; return the kinds' names.

        ``runs`` are the keys of the runs that are published: what is about others is left out.
        Nothing that is published is lost: several may publish into one folder at a time.
        """
        kinds = sorted({path.parent.name for path in self.path.glob("*/*.parquet")} - OTHERS)
        published = []
        with storage.lock(target / "compact.lock", wait=True):
            both = Shelf(self.path, base=target)
            for kind in kinds:
                table = both.table(kind).sort_values("key", kind="stable")
                for name in table.columns.intersection(ABOUT) if runs is not None else ():
                    table = table[table[name].isin(runs)]
                if not table.empty:
                    parquet.write(target / f"{kind}.parquet", results.steps(table))
                    published.append(kind)
        return published

    def _tables(self, kind: str) -> Iterator[pa.Table]:
        files = storage.files(self.path / kind)
        if self.base is not None and storage.exists(self.base / f"{kind}.parquet"):
            files.append(self.base / f"{kind}.parquet")
        for file in files:
            try:
                yield parquet.read(file, ("key",))
            except DamagedError as problem:
                raise StoreError(f"{problem}; remove it, and what it held is made again") from None


ABOUT = ("run", "failed_run", "successful_run")  # columns that name the runs of an analysis

# What else lies in a store's folder: its runs, and the points of surfaces under way.
OTHERS = {"runs", "histories", "gradients", "surfaces", "claims", "set-aside"}
