"""Where published runs are looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stabkit import places, storage
from stabkit.errors import StoreError


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


def refuse(path: Path, *arguments: object, **named: object) -> object:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_folder_above_that_may_not_be_looked_into_has_no_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STABKIT_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("exists", "is_file", "stat"):  # as of a folder of somebody else
        monkeypatch.setattr(Path, name, refuse)
    assert places.results_folder().name == "results"


def test_a_store_that_may_not_be_looked_into_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    for look in (storage.exists, storage.files):
        with pytest.raises(StoreError, match=f"cannot read {tmp_path}: Permission denied"):
            look(tmp_path)


def test_a_file_url_is_a_path_of_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    assert storage.place(folder.as_uri()) == folder
