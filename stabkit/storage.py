"""Where files lie: a folder of this machine, or an object store behind an fsspec URL.

Local files are written beside their place, synced and renamed. An object store has no rename: there
an object is put whole, which shows it at once or not at all.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from stabkit.errors import StoreError, UnreachableError

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = "Path | UPath"

STALE_SECONDS = 3600  # a temporary file older than this has lost its writer
AT_ONCE = 256  # objects that are fetched together
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TAKEN = {"PreconditionFailed", "412"}  # S3's answers to a creation where something is
PASSING = {  # refusals of a store that is busy, of a folder on another machine, or of the way there
    *(errno.EBUSY, errno.EAGAIN, getattr(errno, "EREMOTEIO", errno.EIO)),
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EPIPE, errno.ETIMEDOUT),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}


def place(name: str | Place) -> Place:
    """Return the place called ``name``: a path, or a URL such as s3://bucket/runs.

    ``file://`` is a local path. Raises StoreError for a URL whose driver is not installed.
    """
    if not isinstance(name, str) or "://" not in name:
        return Path(name) if isinstance(name, str) else name
    kind, _, rest = name.partition("://")
    if kind == "file":
        return Path(url2pathname(rest))
    try:
        from upath import UPath

        found = UPath(name, use_listings_cache=False)  # others write there, too
        assert found.fs
        return found
    except ImportError as error:
        extra = EXTRAS.get(kind)
        cure = f"pip install 'stabkit[{extra}]'" if extra else "install its driver for fsspec"
        raise StoreError(f"no driver for {name} ({error}); {cure}") from None
    except Exception as error:
        raise StoreError(f"cannot open {name}: {error}") from error


def exists(path: Place) -> bool:
    """Tell whether there is a file. Raises StoreError where the store does not say."""
    with _answering(path, "read"):
        try:
            if isinstance(path, Path):
                path.stat()
            else:
                path.fs.info(path.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def files(folder: Place) -> list[Any]:
    """Return the parquet files right in a folder, sorted; none where there is no folder."""
    names: list[str] = []
    if isinstance(folder, Path):
        with _answering(folder, "read"), suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(folder)  # glob would take a folder that cannot be read for empty
    else:
        with _answering(folder, "read"), suppress(FileNotFoundError):
            names = [Path(name).name for name in folder.fs.ls(folder.path, detail=False)]
    found = sorted(name for name in names if name.endswith(".parquet") and name[0] != ".")
    return [folder / name for name in found]


def fetch(paths: Sequence[UPath]) -> Iterator[tuple[UPath, bytes]]:
    """Yield each object with its content, many fetched at a time; what is gone is left out."""
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        with _answering(some[0], "read"):
            contents = some[0].fs.cat([path.path for path in some], on_error="return")
            for content in contents.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        for path in some:
            content = contents[path.fs._strip_protocol(path.path)]
            if not isinstance(content, Exception):
                yield path, content


def content(path: Place) -> bytes:
    """Return what is in a file. Raises FileNotFoundError, or StoreError."""
    with _answering(path, "read", but=FileNotFoundError):
        found = path.read_bytes() if isinstance(path, Path) else path.fs.cat_file(path.path)
    return bytes(found)


def source(path: Place) -> dict[str, Any]:
    """Return what pyarrow's readers need to read a part of a file."""
    if isinstance(path, Path):
        return {"source": path}
    return {"source": path.path, "filesystem": path.fs}


def save(path: Place, content: Any) -> None:
    """Put bytes at ``path`` in one step: a kill leaves the old file, or none."""
    with writing(path):
        if not isinstance(path, Path):
            path.fs.pipe_file(path.path, bytes(content))
            return
        unfinished = path.with_name(f".{path.stem}.{os.getpid()}.{time.time_ns()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            with suppress(OSError):
                unfinished.unlink()


def create(path: Place, content: bytes) -> bool:
    """Put bytes at ``path`` unless something is there; tell whether they were put."""
    with writing(path):
        try:
            if isinstance(path, Path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(content)
            else:
                path.fs.pipe_file(path.path, content, mode="create")
        except OSError as error:
            if isinstance(error, FileExistsError) or _code(error) in TAKEN:
                return False
            raise
    return True


def _code(error: OSError) -> str | None:
    """Return S3's code of what its driver made an OSError of.

    The driver knows a name that is taken by a field of Amazon's answer that other stores leave out.
    """
    answer: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    return answer.get("Error", {}).get("Code")  # type: ignore[no-any-return]


def remove(path: Place) -> None:
    """Remove a file, if it is there."""
    with writing(path), suppress(FileNotFoundError):
        path.unlink() if isinstance(path, Path) else path.fs.rm_file(path.path)


def move(path: Any, target: Any) -> None:
    """Move a file within its store. Raises StoreError, also where it is missing."""
    with writing(target):
        if isinstance(path, Path):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        else:
            path.fs.cp_file(path.path, target.path)
            path.fs.rm_file(path.path)


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


def remove_stale(folder: Place) -> None:
    """Remove the temporary files of writers that were killed more than an hour ago."""
    if not isinstance(folder, Path):
        return
    with suppress(OSError):  # what is left is in nobody's way
        for path in folder.rglob(".*.tmp"):
            with suppress(FileNotFoundError):  # its writer was quicker
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()


@contextmanager
def writing(path: Place) -> Iterator[None]:
    """Turn a refusal into a StoreError that says how to go on."""
    with _answering(path, "write"):
        yield


@contextmanager
def _answering(path: Place, verb: str, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    try:
        yield
    except but:
        raise
    except StoreError:
        raise
    except OSError as error:
        if isinstance(path, Path):
            raise _refusal(path, verb, error, error.errno) from error
        raise refusal(path, verb, error) from error
    except Exception as error:
        if isinstance(path, Path):
            raise
        raise refusal(path, verb, error) from error


def refusal(path: Place, verb: str, error: Exception) -> StoreError:
    """Return the sentence for what went wrong with an object store, whoever its driver is."""
    name = type(error).__name__
    if isinstance(error, PermissionError) or any(
        word in name for word in ("Credential", "Auth", "Token", "Forbidden")
    ):
        return StoreError(
            f"cannot {verb} {path}: {error}; check the credentials that its driver reads from your "
            "environment, and what they allow"
        )
    if isinstance(error, FileNotFoundError):
        return StoreError(
            f"cannot {verb} {path}: it, or its bucket, is not there; make the bucket or name "
            "another store"
        )
    return _refusal(path, verb, error, getattr(error, "errno", None) or errno.EIO)


def _refusal(path: Place, verb: str, error: Exception, number: int | None) -> StoreError:
    words = f"cannot {verb} {path}: {getattr(error, 'strerror', None) or error or type(error)}"
    go_on = "then start again: what is finished is kept"
    if number in PASSING:
        return UnreachableError(f"{words}; make sure that the store can be reached, {go_on}")
    advice = "free some space" if number in FULL else "make the folder writable or name another"
    return StoreError(f"{words}; {advice}{'' if number in FULL else ' store'}, {go_on}")
