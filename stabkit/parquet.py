"""Parquet files that are written whole or not at all, and read with suspicion."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stabkit import storage
from stabkit.errors import StoreError
from stabkit.storage import Place

SCHEMA = 1  # raise it when the meaning of a stored column changes
ROWS_PER_GROUP = 16384  # small enough to read one run of many, big enough for a short footer


class DamagedError(Exception):
    """A file that does not hold what a store writes; the message names it."""


def write(path: Place, table: pa.Table) -> None:
    """Put ``table`` at ``path`` in one step: a kill leaves the old file, or none.

    The bytes depend on the content alone. Raises StoreError when they cannot be written.
    """
    buffer = pa.BufferOutputStream()
    # What is measured at every step never repeats, but its bytes are alike, place by place.
    stepwise = "step" in table.column_names
    floats = {field.name for field in table.schema if pa.types.is_floating(field.type)}
    measured = dict.fromkeys(floats, "BYTE_STREAM_SPLIT") | {"step": "DELTA_BINARY_PACKED"}
    pq.write_table(
        table.combine_chunks().replace_schema_metadata({"stabkit": str(SCHEMA)}),
        buffer,
        compression="zstd",
        column_encoding=measured if stepwise else None,
        use_dictionary=sorted({*table.column_names}.difference(measured)) if stepwise else True,
        row_group_size=ROWS_PER_GROUP,
        write_statistics=["key"],
        write_page_checksum=True,
    )
    storage.save(path, buffer.getvalue())


def check(path: Place, needs: Collection[str] = (), content: bytes | None = None) -> None:
    """Raise DamagedError unless ``path`` is whole, ours, of this schema, with columns ``needs``.

    With ``content``, its bytes, nothing is read.
    """
    with _suspicion(path):
        place = storage.source(path) if content is None else {"source": pa.BufferReader(content)}
        schema = pq.read_schema(place.pop("source"), **place)
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


def read(
    path: Place, needs: Collection[str] = (), content: bytes | None = None, **options: Any
) -> pa.Table:
    """Return the table at ``path`` (``options`` as in pyarrow's read_table), checked as above.

    Raises DamagedError, or StoreError when the operating system or the object store refuses.
    """
    check(path, needs, content)
    with _suspicion(path):
        place = storage.source(path) if content is None else {"source": pa.BufferReader(content)}
        return pq.read_table(**place, partitioning=None, page_checksum_verification=True, **options)


@contextmanager
def _suspicion(path: Place) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if getattr(error, "errno", None):  # a refusal says nothing about the file
            raise storage.refusal(path, "read", error) from error
        raise DamagedError(f"{path} is truncated, damaged or no parquet file") from error
    except (DamagedError, StoreError):
        raise
    except Exception as error:
        if isinstance(path, Path):
            raise
        raise storage.refusal(path, "read", error) from error
