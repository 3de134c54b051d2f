"""Whoever is killed, and whenever: no run is lost, none stands twice, the table is the same.

``benchmarks/survival.py`` is the long form.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import Study

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_processes_of_one_machine(scheme: str, tmp_path: Path) -> None:
    study = Study(f"{scheme}{tmp_path / 'store'}", 20, tmp_path / "log", lapse=5)
    study.survive({}, kills=3, seed=len(scheme))
    study.check(tmp_path / "calm")
    assert len(study.kills) == 3
