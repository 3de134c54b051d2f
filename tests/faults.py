"""Studies of cheap runs whose workers, nodes and drivers are killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakes
import pandas as pd
from pandas.testing import assert_frame_equal

from stabkit import storage
from stabkit.cluster import RayCluster
from stabkit.store import Store
from stabkit.sweep import SweepError, sweep

PATIENCE = 300  # seconds; far more than needed, for a machine that is busy
TESTS = Path(__file__).parent
WORKERS = (b"multiprocessing.spawn", b"ray::_do")  # how their command lines read


def main() -> None:
    """Be a driver: of a store, a number of runs, processes, and the address of a Ray cluster."""
    store, n, processes, address, lapse = sys.argv[1:]
    from stabkit import leases

    leases.LAPSE, leases.RENEW, leases.LOOK = float(lapse), float(lapse) / 5, 0.2
    launcher = RayCluster(address) if address else None
    try:
        sweep(
            fakes.grid(int(n)), Store(store), int(processes), fakes.noted, False, launcher=launcher
        )
    except SweepError as error:  # runs that lost their worker; this driver is started again
        print(error, file=sys.stderr)


@dataclass
class Study:
    """A study of ``n`` runs under a driver, which is started again until all are stored."""

    url: str
    n: int
    log: Path
    address: str = ""
    lapse: float = 20.0
    kills: list[str] = field(default_factory=list)

    def survive(self, faults: dict[str, Callable[[], Any]], kills: int, seed: int) -> None:
        """Finish in spite of ``kills`` faults, drawn from ``faults`` and "driver" and "worker"."""
        rng, store = random.Random(seed), Store(self.url)
        known = {"driver": self._kill_driver, "worker": self._kill_worker, **faults}
        moments = sorted(rng.sample(range(self.n // 2), kills))  # when so many runs are stored
        names = [sorted(known)[i % len(known)] for i in range(kills)]
        rng.shuffle(names)
        end, self.driver = time.monotonic() + PATIENCE + 10 * self.n, self._start()
        while (stored := len(storage.files(store.path / "runs"))) < self.n:
            said = self.said.read_text()[-2000:]
            assert time.monotonic() < end, f"waited too long, after {self.kills}: {said}"
            if self.driver.poll() is not None:
                self.driver = self._start()
            if moments and stored >= moments[0]:
                time.sleep(rng.random() / 10)
                if known[names[0]]() is not False:
                    self.kills.append(names.pop(0))
                    moments.pop(0)
            time.sleep(0.01)
        self.driver.wait(PATIENCE)

    def check(self, folder: Path) -> pd.DataFrame:
        """Compare with a study that nobody disturbed; return the table."""
        store, calm = Store(self.url), Store(folder)
        for config in fakes.grid(self.n):
            calm.put(fakes.quick(config))
        table = store.table()
        assert len(table) == table["key"].nunique() == self.n
        assert_frame_equal(*(t.drop(columns="threads") for t in (table, calm.table())))
        for key in table["key"]:
            assert_frame_equal(store.history(key), calm.history(key))
        return table

    @property
    def said(self) -> Path:
        """Where the drivers' complaints are."""
        return self.log.with_suffix(".said")

    def begun(self) -> int:
        """Return how many runs were begun, those that were killed included."""
        return len(self.log.read_text().splitlines())

    def _start(self) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join((str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")))
        processes, lapse = "1" if self.address else "2", str(self.lapse)
        with self.said.open("a") as said:
            return subprocess.Popen(
                [sys.executable, __file__, self.url, str(self.n), processes, self.address, lapse],
                env={**os.environ, "PYTHONPATH": paths, "FAKE_LOG": str(self.log)},
                stderr=said,
            )

    def _kill_driver(self) -> None:
        self.driver.kill()
        self.driver.wait()

    def _kill_worker(self) -> bool:
        """Kill one of the processes that do runs of this study; False if there is none now."""
        pids = [int(line.split()[1]) for line in self.log.read_text().splitlines()[-4:]]
        for pid in reversed(pids):
            with suppress(OSError):
                if any(name in Path(f"/proc/{pid}/cmdline").read_bytes() for name in WORKERS):
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False


if __name__ == "__main__":
    main()
