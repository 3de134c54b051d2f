"""What pages share: which runs are published, what stands in the place of missing ones."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import fakes
import pandas as pd
import pyarrow.parquet as pq
import pytest
from IPython.core.interactiveshell import InteractiveShell
from published import MODEL, RATE, publish

from stabkit import pages, studies
from stabkit.agreement import COLUMNS, as_table
from stabkit.errors import ConfigError, StoreError
from stabkit.findings import Finding
from stabkit.stats import Estimate
from stabkit.store import Store


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("results"))


@pytest.fixture
def none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(tmp_path / "none"))


@pytest.fixture
def all_studies(monkeypatch: pytest.MonkeyPatch, full: Path) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(full))


@pytest.mark.usefixtures("none")
def test_nothing_published_is_no_error() -> None:
    assert pages.rate() is None
    assert pages.runs("pilot-rte", "table1-rte").empty
    assert "No runs" in pages.exhibit(pages.runs("table1-rte"), len).data
    assert "`stabkit study table1-rte`" in pages.status("table1-rte").data


def test_published_runs_of_another_version_are_refused_and_left_where_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(tmp_path))
    store = Store(tmp_path)
    store.put(fakes.judged(fakes.grid(1)[0]))
    store.compact()
    assert len(pages.published()) == 1
    file = tmp_path / "runs.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({b"stabkit": b"0"}), file)
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"runs\.parquet"):
        pages.published().table()
    assert file.read_bytes() == before
    assert not (tmp_path / "set-aside").exists()


def test_published_runs_are_read_again_only_when_their_file_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(tmp_path))
    assert pages.everything().empty and pages.rate() is None
    store = Store(tmp_path)
    for config in fakes.grid(2):
        store.put(fakes.judged(config))
        store.compact()
        first = pages.everything()
        assert list(first["seed"]) == list(range(config.seed + 1))
        assert pages.everything() is first


@pytest.mark.usefixtures("none")
def test_no_published_analysis_is_no_error() -> None:
    assert pages.shelf("layer-swaps").empty


@pytest.mark.usefixtures("all_studies")
def test_published_analyses_name_runs_that_are_published() -> None:
    runs = set(pages.published().keys())
    swaps = pages.shelf("layer-swaps")
    planes = pages.shelf("loss-surfaces", "failed_run")
    assert set(swaps["run"]) | set(planes["failed_run"]) | set(planes["successful_run"]) <= runs
    assert len(swaps) == 6 * 2 * 13
    assert set(swaps["model"]) == {"mini-bert"}
    assert list(planes["task"].unique()) == ["mini-rte", "mini-mrpc", "mini-cola"]
    ways = pages.shelf("trajectories")
    assert set(ways["run"]) == {ways["failed_run"].iloc[0], ways["successful_run"].iloc[0]} <= runs
    assert pages.shelf("runs-of-another-kind").empty


def test_runs_that_studies_share_are_planned_once() -> None:
    assert pages.planned("table1-cola") == pages.planned("small-cola") == 75
    assert pages.planned("table1-cola", "small-cola") == 125  # Devlin's are in both


@pytest.mark.usefixtures("all_studies")
def test_the_runs_of_studies_are_told_apart() -> None:
    assert pages.rate() == RATE
    table = pages.runs("table1-rte", "table1-cola")
    assert table.groupby(["task", "method"]).size().to_dict() == {
        (task, method): 25
        for task in ("mini-cola", "mini-rte")
        for method in ("Devlin", "Lee", "Ours")
    }
    assert len(pages.runs_of(studies.real(MODEL))) == len(studies.real(MODEL))
    assert pages.exhibit(table, len) == len(table)
    assert pages.status("pilot-rte").data == "- `pilot-rte`: 140 of 140 runs are published."


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pilot-rte'"):
        pages.runs("pilot-rt")


def test_tables_and_claims_are_escaped_html() -> None:
    table = pages.sheet(pd.DataFrame({"a": ["<b>"], "b": [float("nan")]}), "x < y").data
    assert "&lt;b&gt;" in table
    assert "x &lt; y" in table
    assert "nan" not in table.lower()
    assert "section 6" in pages.claim("baseline").data
    with pytest.raises(KeyError):
        pages.claim("nothing")


def test_cells_lead_to_pages_in_the_built_book_only(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"exhibit": ["Fig. 1 <2>", "Fig. 3"], "verdict": "holds"})
    monkeypatch.setenv("STABKIT_BOOK", "1")
    body = pages.verdicts(table, "", {"Fig. 1 <2>": "06_baseline"}).data
    assert 'class="exhibit"><a href="06_baseline.html">Fig. 1 &lt;2&gt;</a></td>' in body
    assert 'class="exhibit">Fig. 3</td>' in body
    monkeypatch.delenv("STABKIT_BOOK")
    assert "<a " not in pages.verdicts(table, "", {"Fig. 3": "042_small_data"}).data


def test_verdicts_are_a_table_whose_rows_are_for_against_or_unjudged() -> None:
    found = [
        Finding("Fig. 2, <k>", "less", 5, "a & b", True, Estimate(0.4, 0.3, 0.6), line=0.5),
        Finding("Fig. 3", "more", 5, "why", False, Estimate(0.4, 0.3, 0.6), line=0.2),
        Finding("Fig. 4", "same", 0, "no runs"),
    ]
    body = pages.verdicts(as_table(found), "n < 6").data
    assert re.findall(r'<tr role="row" class="(\w+)">', body) == ["for", "against", "unjudged"]
    table = ElementTree.fromstring(re.findall("<table.*</table>", body)[0])
    read = [[cell.text or "" for cell in row] for row in table.iter("tr")]
    assert read == [list(COLUMNS), *as_table(found).astype(str).to_numpy().tolist()]
    assert "n &lt; 6" in body


def test_lists_stand_under_their_titles() -> None:
    found = pages.lists({"Why": ["one", "two"], "What": ["three"]}, "n = 3.")
    assert found.data == "**Why**\n\n- one\n- two\n\n**What**\n\n- three\n\n*n = 3.*"


def test_in_a_notebook_an_error_is_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    cell = "from stabkit import studies\nstudies.study('tabel1-rte')"
    InteractiveShell.instance().run_cell(cell)
    shown = capsys.readouterr().out
    assert shown.startswith("ConfigError: unknown study 'tabel1-rte': did you mean")
    assert "Traceback" not in shown and shown.count("\n") == 1
