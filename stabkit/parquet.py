"""Parquet files that are written whole or not at all, and read with suspicion."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from stabkit.errors import StoreError

SCHEMA = 1  # raise it when the meaning of a stored column changes
STALE_SECONDS = 3600  # a temporary file older than this has lost its writer
ROWS_PER_GROUP = 16384  # small enough to read one run of many, big enough for a short footer


class DamagedError(Exception):
    """A file that does not hold what a store writes; the message names it."""


def write(path: Path, table: pa.Table) -> None:
    """Put ``table`` at ``path`` in one step: a kill leaves the old file, or none.

    The bytes depend on the content alone. Raises StoreError when they cannot be written.
    """
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks().replace_schema_metadata({"stabkit": str(SCHEMA)}),
        buffer,
        compression="zstd",
        row_group_size=ROWS_PER_GROUP,
        write_statistics=["key"],
        write_page_checksum=True,
    )
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.{time.time_ns()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as file:
                file.write(buffer.getvalue())
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            with suppress(OSError):
                unfinished.unlink()


def check(path: Path, needs: Collection[str] = ()) -> None:
    """Raise DamagedError unless ``path`` is whole, ours, of this schema, with columns ``needs``."""
    with _suspicion(path):
        schema = pq.read_schema(path)
        version = (schema.metadata or {}).get(b"stabkit")
        if version is None:
            raise DamagedError(f"{path} was not written by stabkit")
        if version != str(SCHEMA).encode():
            raise DamagedError(
                f"{path} has schema version {version.decode(errors='replace')}; "
                f"this stabkit reads version {SCHEMA}"
            )
        if missing := [name for name in needs if name not in schema.names]:
            raise DamagedError(f"{path} has no column {', '.join(missing)}")


def read(path: Path, needs: Collection[str] = (), **options: Any) -> pa.Table:
    """Return the table at ``path`` (``options`` as in pyarrow's read_table), checked as above.

    Raises DamagedError, or StoreError when the operating system refuses.
    """
    check(path, needs)
    with _suspicion(path):
        return pq.read_table(path, partitioning=None, page_checksum_verification=True, **options)


@contextmanager
def _suspicion(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if getattr(error, "errno", None):  # a refusal says nothing about the file
            raise StoreError(f"cannot read {path}: {error}") from error
        raise DamagedError(f"{path} is truncated, damaged or no parquet file") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a refusal of the operating system into a StoreError that says how to go on."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space" if full else "make the folder writable or name another store"
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; {advice}, then start again: "
            "finished runs are kept"
        ) from error


@contextmanager
def lock(path: Path, wait: bool) -> Iterator[bool]:
    """Hold ``path`` against other processes; yields whether it is ours (always, with ``wait``).

    The operating system frees the lock when its process ends, however it ends.
    """
    held = FileLock(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):
            held.acquire(blocking=wait)
    try:
        yield held.is_locked
    finally:
        if held.is_locked:
            with suppress(OSError):  # those who wait notice that the file is gone and start over
                path.unlink()
            held.release()


def remove_stale(folder: Path) -> None:
    """Remove the temporary files of writers that were killed more than an hour ago."""
    for path in folder.rglob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
