"""The list of exhibits: complete, each on a page, judged as far as runs are published."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from published import publish

from stabkit import exhibits, pages
from stabkit.exhibits import EXHIBITS
from stabkit.studies import RULES as PILOTS
from stabkit.studies import SMALL, STUDIES, TUNED
from stabkit.three_sources import SOURCES

BOOK = Path(__file__).parents[1] / "book"
NAMES = [exhibit.name for exhibit in EXHIBITS]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("results"))


def test_every_exhibit_has_a_page_that_names_it() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for exhibit in EXHIBITS:
        text = (BOOK / f"{exhibit.page}.md").read_text(encoding="utf-8")
        first = exhibit.name.split(",")[0].removeprefix("Sections ").removeprefix("Section ")
        assert re.search(rf"\b{re.escape(first)}\b", text), first


def test_every_study_of_a_reported_run_serves_an_exhibit() -> None:
    used = {study for exhibit in EXHIBITS for study in exhibit.studies}
    assert used <= STUDIES.keys()
    of_real_text = {study for source in SOURCES if source.real for study in source.studies}
    assert STUDIES.keys() - used == {
        *PILOTS,
        "gate",
        "gate-models",
        "silent",
        "table1-half",
        "long-warmup",
        "warmup-half",
        *(f"best-{name}" for name in TUNED),
        *(f"best-small-{name}" for name in SMALL),
        *of_real_text,
    }


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=NAMES)
def test_without_runs_nothing_but_the_closed_form_is_judged(
    exhibit: exhibits.Exhibit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(tmp_path / "none"))
    for finding in exhibit.findings():
        assert (finding.holds is None) == (exhibit.name != "Fig. 6")
        assert finding.reason


@pytest.mark.slow
@pytest.mark.parametrize("exhibit", EXHIBITS, ids=NAMES)
def test_with_all_runs_every_criterion_is_judged(
    exhibit: exhibits.Exhibit, monkeypatch: pytest.MonkeyPatch, full: Path
) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(full))
    found = exhibit.findings()
    assert bool(found) == (exhibit.judge is not None)
    undecided = [finding.reason for finding in found if finding.holds is None]
    assert undecided in ([], ["all layers share their weights"])  # ALBERT has no bottom layer


def test_a_task_without_all_its_seeds_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, full: Path
) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(full))
    whole = pages.runs("table1-rte", "table1-mrpc")
    part = whole[(whole["task"] != "mini-mrpc") | (whole["seed"] > 0)]
    monkeypatch.setattr(pages, "runs", lambda *_: part)
    (first,) = [exhibit for exhibit in EXHIBITS if exhibit.name == "Fig. 1, Table 1"]
    judged = {finding.exhibit for finding in first.findings() if finding.holds is not None}
    assert judged == {"rte"}


def test_reading_the_verdicts_does_not_import_torch() -> None:
    script = (
        "import sys; from stabkit import exhibits; [e.findings() for e in exhibits.EXHIBITS];"
        "assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_turns_by_accuracy_alone_is_told(monkeypatch: pytest.MonkeyPatch, full: Path) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(full))
    real = pages.runs

    def flatter(*studies: str) -> pd.DataFrame:
        """Let every corrected run of a study show a sign of failure that is not the paper's."""
        runs = real(*studies)
        return runs.assign(flat_loss=runs["bias_correction"]) if "warmup" in studies else runs

    def turned() -> list[tuple[str, exhibits.Finding]]:
        return [(e.name, f) for e in EXHIBITS for f in exhibits.turned(e, e.findings())]

    assert turned() == []
    monkeypatch.setattr(pages, "runs", flatter)
    ((name, finding),) = turned()
    assert (name, finding.exhibit, finding.holds) == ("Section 5.1", "Section 5.1", True)
