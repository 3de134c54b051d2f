"""Files by content, for the names of runs, and by change, for what is kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = tuple[tuple[str, int, int], ...]


def digest(paths: Iterable[Path]) -> str:
    """Return the sha256 of the files' names and contents, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode())
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                total.update(block)
    return total.hexdigest()


def stamp(place: str | Path | None) -> Stamp:
    """Return name, time (ns) and size (bytes) of a file, or of each file in a folder.

    What is not on this disk, such as a name on the hub, has the empty stamp.
    """
    path = Path(place or "").expanduser()
    if not place or not path.exists():
        return ()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [(file.name, file.stat()) for file in files if file.is_file()]
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)
