"""The book: every page runs whatever is published, has its twin, and draws in a browser."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext  # type: ignore[import-untyped]
import published
import pytest
import yaml  # type: ignore[import-untyped]
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output

from stabkit import pages, studies
from stabkit.config import RunConfig
from stabkit.studies import fresh

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "book").glob("*.md"))
HTML = ROOT / "book" / "_build" / "html"
NAMES = [page.stem for page in PAGES]
PROSE = ("01_introduction", "02_related_work", "references")
WITHOUT_RUNS = (*PROSE, "03_background", "organism")


def prepare() -> ModuleType:
    return script("prepare")


@cache
def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_contents_has_every_page_once() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [contents["root"], *(c["file"] for p in contents["parts"] for c in p["chapters"])]
    assert sorted(listed) == [f"book/{name}" for name in NAMES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_has_its_twin_for_colab(page: Path) -> None:
    twin = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert twin == prepare().twin(page), "run python book/prepare.py"
    notebook = json.loads(twin)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not [cell for cell in notebook["cells"] if cell.get("outputs")]


def test_preparing_twice_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PAGES[0], tmp_path)
    monkeypatch.setattr(prepare(), "BOOK", tmp_path)
    prepare().main()
    assert "plotly.min.js" in capsys.readouterr().out
    prepare().main()
    assert capsys.readouterr().out == ""


def test_the_readme_s_picture_draws_the_published_runs() -> None:
    runs = pages.runs("table1-rte")
    if runs.empty:
        pytest.skip("no runs of table1-rte are published yet")
    drawn = script("picture")
    assert drawn.TARGET.read_text(encoding="utf-8") == drawn.picture(runs), "run book/picture.py"
    assert drawn.picture(runs).count("<circle") + drawn.picture(runs).count("l8,8") == len(runs)


def test_pages_name_no_place_of_the_machine_they_were_written_on() -> None:
    for path in [*PAGES, ROOT / "_config.yml", ROOT / "_toc.yml"]:
        assert not re.search(r"/(home|root|tmp|work|opt|usr|Users)/", path.read_text())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.publish(tmp_path_factory.mktemp("results"))


@pytest.fixture(params=["none", "all", "ours"])
def results(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Point pages at no results, at made-up ones of every study, and at the published ones."""
    if request.param == "ours" and not (ROOT / "results" / "runs.parquet").exists():
        pytest.skip("no runs are published yet")
    places = {"none": tmp_path / "none", "ours": ROOT / "results"}
    place = places.get(request.param) or request.getfixturevalue("full")
    monkeypatch.setenv("STABKIT_RESULTS", str(place))
    return str(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_runs_whatever_is_published(
    page: Path, results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STABKIT_BOOK", "1")
    monkeypatch.delenv("STABKIT_DATA", raising=False)
    monkeypatch.setattr(studies, "fresh", short)
    # The shell puts a module of its own there, from which no worker could be spawned later.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    shown = "\n".join(executed(page))
    assert "Traceback" not in shown
    if results == "none":
        assert "runs are published" in shown or page.stem in WITHOUT_RUNS
    if results == "all":
        assert "No runs to show yet" not in shown
        assert page.stem in WITHOUT_RUNS or "n = " in shown


def short(rate: float) -> list[RunConfig]:
    """Return what the book trains while it is built, at 2 steps."""
    return [config.replace(epochs=None, max_steps=2) for config in fresh(rate)]


def executed(page: Path) -> Iterator[str]:
    """Run a page's code cells in this process (imports are shared, so it is quick); its outputs."""
    shell: Any = InteractiveShell.instance()
    shell.reset()
    shell.user_module.__spec__ = None  # as a kernel's has: workers are spawned from it
    for cell in jupytext.read(page).cells:
        if cell.cell_type == "code":
            with capture_output(stdout=False, stderr=True) as captured:
                outcome = shell.run_cell(cell.source)
                if outcome.result is not None:
                    display(outcome.result)  # type: ignore[no-untyped-call]
            outcome.raise_error()
            yield from (_text(output.data) for output in captured.outputs)


def _text(data: dict[str, Any]) -> str:
    return str(data.get("text/html") or data.get("text/markdown") or data.get("text/plain"))


@pytest.fixture(scope="module")
def built() -> Path:
    if not (HTML / "index.html").exists():
        pytest.skip(f"no built book in {HTML.relative_to(ROOT)}: make book")
    return HTML / "book"


@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_a_built_page_draws_its_figures_offline_and_without_complaint(
    browser: Any, name: str
) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get((HTML / "book" / f"{name}.html").as_uri())
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(DRAWN))
    severe = [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"
    ]
    assert not severe
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert not [address for address in fetched if address.startswith("http")]
    wide = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide <= 0


DRAWN = """
const figures = [...document.querySelectorAll(".stabkit-exhibit > div")];
return document.readyState === "complete"
    && figures.every(figure => figure.querySelectorAll("svg.main-svg").length > 0);
"""
