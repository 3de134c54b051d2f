"""Tables of analyses: kept once, seen through the published, gathered, suspicious of damage."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from stabkit.errors import StoreError
from stabkit.shelf import Shelf

TABLE = pd.DataFrame({"k": [0, 1], "nll": [2.0, 1.5], "name": ["a", "b"]})


def test_what_is_put_comes_back_with_its_key(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    assert shelf.table("swaps").empty and shelf.keys("swaps") == set()
    shelf.put("swaps", "one", TABLE)
    shelf.put("swaps", "two", TABLE.assign(nll=0.0))
    shelf.put("others", "three", TABLE)
    assert shelf.keys("swaps") == {"one", "two"}
    found = shelf.table("swaps")
    assert found["key"].tolist() == ["one"] * 2 + ["two"] * 2
    assert found["nll"].tolist() == [2.0, 1.5, 0.0, 0.0]


def test_published_tables_stand_behind_one_s_own(tmp_path: Path) -> None:
    mine, results = Shelf(tmp_path / "runs"), tmp_path / "results"
    mine.put("swaps", "one", TABLE)
    (mine.path / "histories").mkdir()
    (mine.path / "histories" / "run.parquet").write_bytes(b"no table of an analysis")
    assert mine.publish(results) == ["swaps"]
    other = Shelf(tmp_path / "other", base=results)
    assert other.keys("swaps") == {"one"}
    other.put("swaps", "one", TABLE.assign(nll=9.0))
    other.put("swaps", "two", TABLE)
    assert other.table("swaps").groupby("key")["nll"].sum().to_dict() == {"one": 18.0, "two": 3.5}
    assert other.publish(results) == ["swaps"]
    assert Shelf(tmp_path / "none", base=results).keys("swaps") == {"one", "two"}


def test_publishing_keeps_what_others_published(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for name in ("one", "two"):
        shelf = Shelf(tmp_path / name)
        shelf.put("swaps", name, TABLE)
        shelf.publish(results)
    assert Shelf(tmp_path / "none", base=results).keys("swaps") == {"one", "two"}


def test_analyses_of_runs_that_are_not_published_stay_where_they_are(tmp_path: Path) -> None:
    mine, results = Shelf(tmp_path / "runs"), tmp_path / "results"
    mine.put("planes", "one", TABLE.assign(run="k1"))
    mine.put("swaps", "two", TABLE.assign(failed_run="k1", successful_run="k2"))
    mine.put("swaps", "three", TABLE.assign(failed_run="k1", successful_run="k3"))
    mine.put("curves", "four", TABLE.assign(run="k3"))
    assert mine.publish(results, {"k1", "k2"}) == ["planes", "swaps"]
    assert Shelf(results, base=results).keys("swaps") == {"two"}


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put("swaps", "one", TABLE)
    file = tmp_path / "swaps" / "one.parquet"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"one\.parquet is truncated.*remove it"):
        shelf.table("swaps")
