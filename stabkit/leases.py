"""Claims where there are no locks: a lease, which its holder renews and which lapses without it.

A lease is a small file with its holder's token and a count that the holder raises. Who finds it
unchanged for LAPSE seconds, on a clock of their own, takes it over: no two clocks are compared. Two
may hold it at once on a store that cannot create a file only if there is none, after a pause of the
holder's whole machine, or where both take it over and the write of one takes longer than SETTLE.
Then a run is done twice, and stored under its one name.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stabkit import storage
from stabkit.errors import StoreError
from stabkit.storage import Place

LAPSE = 60.0  # seconds without a sign of life
RENEW = 15.0
LOOK = 2.0  # between two looks at another's lease
SETTLE = 5.0  # for two that take over at the same time: the last one has it


@contextmanager
def lease(path: Place, wait: bool) -> Iterator[bool]:
    """Hold ``path`` against others; yields whether it is ours (always, with ``wait``)."""
    token = uuid.uuid4().hex
    ours = _take(path, token, wait)
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, token, done), daemon=True)
    if ours:
        renewal.start()
    try:
        yield ours
    finally:
        done.set()
        if ours:
            renewal.join()
            with suppress(StoreError):  # it lapses by itself
                if _holder(path) == token:
                    storage.remove(path)


def _take(path: Place, token: str, wait: bool) -> bool:
    """Take a lease that is free or lapses; tell whether it is ours."""
    if storage.create(path, _words(token, 0)):
        return True
    seen, since = b"", time.monotonic()
    while wait:
        try:
            found = storage.content(path)
        except FileNotFoundError:
            if storage.create(path, _words(token, 0)):
                return True
            continue
        if found != seen:
            seen, since = found, time.monotonic()
        elif time.monotonic() - since > LAPSE:
            storage.save(path, _words(token, 0))
            time.sleep(SETTLE)
            if _holder(path) == token:
                return True
            continue
        time.sleep(LOOK)
    return False


def _renew(path: Place, token: str, done: threading.Event) -> None:
    count = 0
    while not done.wait(RENEW):
        count += 1
        with suppress(StoreError):  # the next time, perhaps
            if _holder(path) == token:
                storage.save(path, _words(token, count))


def _words(token: str, count: int) -> bytes:
    return f"{token} {count}\n".encode()


def _holder(path: Place) -> str:
    with suppress(FileNotFoundError):
        return storage.content(path).decode(errors="replace").partition(" ")[0]
    return ""
