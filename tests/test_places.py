"""Where published runs are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabkit import places


def test_the_results_are_found_here_or_above_or_beside_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STABKIT_RESULTS", raising=False)
    monkeypatch.setattr(places, "__file__", str(tmp_path / "site" / "stabkit" / "places.py"))
    here = tmp_path / "project" / "book"
    (here / "results").mkdir(parents=True)  # without runs
    monkeypatch.chdir(here)
    assert places.results_folder() == Path("results")
    for folder in (tmp_path / "site" / "results", tmp_path / "project" / "results"):
        folder.mkdir(parents=True)
        (folder / "runs.parquet").touch()
        assert places.results_folder() == folder
    (here / "results" / "runs.parquet").touch()
    assert places.results_folder() == Path("results")
    monkeypatch.setenv("STABKIT_RESULTS", "elsewhere")
    assert places.results_folder() == Path("elsewhere")
