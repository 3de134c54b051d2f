"""The book: every page runs whatever is published, has its twin, and draws in a browser."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import published
import pytest
import yaml  # type: ignore[import-untyped]
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output
from safetensors.numpy import load_file
from test_explorers_browser import Page, chosen_cells, enough, found

from stabkit import exhibits, pages, stats, studies
from stabkit.barriers import between, heights
from stabkit.config import RunConfig
from stabkit.schedule import short as written
from stabkit.studies import fresh
from stabkit.tables import failure_curve

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "book").glob("*.md"))
MODELS = ROOT / "stabkit" / "mini" / "weights"
NAMES = [page.stem for page in PAGES]
PROSE = ("01_introduction", "02_related_work", "glossary", "references")
WITHOUT_RUNS = (*PROSE, "03_background", "your_runs", "cluster", "organism")


def prepare() -> ModuleType:
    return script("prepare")


@cache
def script(name: str, folder: str = "book") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_contents_has_every_page_once() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [contents["root"], *(c["file"] for p in contents["parts"] for c in p["chapters"])]
    assert sorted(listed) == [f"book/{name}" for name in NAMES]


def test_the_readme_counts_what_is_published() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    if pages.everything().empty:
        pytest.skip("no runs are published")
    for study in ("ablation", "long-warmup"):
        left = pages.planned(study) - len(pages.runs(study))
        assert (f"{left} of the {pages.planned(study)} runs of `{study}`" in text) == (left > 0)
    assert pages.runs("wiki-pilot").empty and "everything of `mini-wiki`" in text
    for name, words in (
        ("table1-cola", "{} of 25 runs of *Ours* fails on the CoLA-like task"),
        ("table1-scitail", "and {} of 25 on the SciTail-like one"),
    ):
        ours = pages.runs(name).query("method == 'Ours'")
        assert len(ours) == 25 and words.format(ours["failed"].sum()) in text


@pytest.mark.parametrize(
    "file", ["README.md", "book/index.md", "book/01_introduction.md"], ids=lambda file: file
)
def test_the_organism_is_as_large_as_is_written(file: str) -> None:
    folder = MODELS / "mini-bert"
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    encoder = sum(array.size for name, array in weights.items() if not name.startswith("cls."))
    size = f"{shape['num_hidden_layers']} layers, {shape['hidden_size']} wide, "
    size += f"{encoder / 1e6:.2f} million parameters"
    assert size in " ".join((ROOT / file).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_has_its_twin_for_colab(page: Path) -> None:
    twin = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert twin == prepare().twin(page), "run python book/prepare.py"
    notebook = json.loads(twin)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not [cell for cell in notebook["cells"] if cell.get("outputs")]


def test_links_to_the_glossary_are_plain_words_in_the_twin(tmp_path: Path) -> None:
    text = "A {term}`seed`, a {term}`failed run`; it {term}`fails <failed run>`, `{term}`.\n"
    page = tmp_path / "page.md"
    page.write_text(PAGES[0].read_text(encoding="utf-8").split("\n# ")[0] + "\n" + text)
    (cell,) = json.loads(prepare().twin(page))["cells"]
    assert cell["source"] == ["A seed, a failed run; it fails, `{term}`."]


def test_what_the_book_alone_understands_is_plain_markdown_in_the_twin() -> None:
    plain = prepare().plain
    assert plain("```{note}\nOne\ntwo.\n```") == "> **Note.** One\n> two."
    assert plain("```{glossary}\nseed\n  A number\n  or so.\n```") == "**seed**: A number\nor so."
    assert plain("term\n: what it is") == "**term**: what it is"
    assert plain("{download}`Take it <_static/a.sh>`") == "[Take it](_static/a.sh)"
    assert plain("[a](index.md#x), [b](verdicts), [c](https://d.org/e)") == (
        "[a](index.ipynb), [b](verdicts.ipynb), [c](https://d.org/e)"
    )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_of_a_twin_lead_to_notebooks_and_files_that_are_there(page: Path) -> None:
    cells = json.loads(page.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert not re.search(r"^```\{|\{\w+\}`", text.replace("`{term}`", ""), re.MULTILINE)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert ":" in link or link[0] == "#" or (page.parent / link).is_file(), link


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
    runs = pages.runs("table1-half")
    if runs.empty:
        pytest.skip("no runs of table1-half are published yet")
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


def complaints(browser: Any) -> list[str]:
    """Return errors in the console, requests that left the machine, and what is too wide."""
    found = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    wide = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    found += [address for address in fetched if address.startswith("http")]
    return found + [f"{wide} pixels too wide"] * (wide > 0)


def opened(browser: Any, page: Path, width: int = 1280) -> None:
    """Open a built page and wait until all of its figures are drawn and no colour is changing."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser")  # what was said before this page is not its own
    browser.get(page.as_uri())
    waited(browser, lambda b: b.execute_script(DRAWN))


def waited(browser: Any, until: Callable[[Any], Any]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 60).until(until)


DRAWN = """
const marks = [".scatterlayer .trace path", ".boxlayer .trace path", ".barlayer .trace path",
    ".heatmaplayer image", ".contourlayer path", "canvas"].join();
const figures = [...document.querySelectorAll(".stabkit-exhibit > div, .stabkit-panel")];
return document.readyState === "complete"
    && document.getAnimations().every(animation => animation.playState !== "running")
    && figures.every(figure => figure.querySelector("svg.main-svg") && figure.querySelector(marks));
"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", [*NAMES, "../index", "../search", "../genindex"])
def test_a_built_page_draws_its_figures_offline_and_without_complaint(
    browser: Any, built: Path, name: str, width: int
) -> None:
    opened(browser, built / f"{name}.html", width)
    assert complaints(browser) == []


LISTED = """
return [...document.querySelectorAll(".stabkit-list tbody tr")].map(row => {
    const cells = [...row.cells].filter(cell => cell.textContent.trim());
    return cells.map(cell => [getComputedStyle(cell, "::before").content.slice(1, -1),
        cell.getBoundingClientRect().top, cell.getAttribute("role")]);
});
"""


@pytest.mark.browser
@pytest.mark.parametrize("name", ["03_background", "organism", "status"])
def test_a_table_of_many_columns_is_a_list_on_a_phone(browser: Any, built: Path, name: str) -> None:
    opened(browser, built / f"{name}.html", 390)
    rows = browser.execute_script(LISTED)
    assert rows
    for row in rows:
        names, tops, roles = zip(*row, strict=True)
        assert len(set(names) - {""}) >= len(names) - 1, "each cell says what it is"
        assert sorted(set(tops)) == list(tops), "one below the other"
        assert set(roles) <= {"cell", "rowheader"}
    inner = "return [...document.querySelectorAll('.stabkit-list > div')].map(one => "
    overflow = browser.execute_script(inner + "one.scrollWidth - one.clientWidth)")
    assert max(overflow) <= 0
    opened(browser, built / f"{name}.html", 1280)
    _, tops, _ = zip(*browser.execute_script(LISTED)[0], strict=True)
    assert len(set(tops)) == 1


@pytest.mark.browser
def test_explorers_of_the_book_show_what_is_published(browser: Any, built: Path) -> None:
    runs = pages.runs("table1-rte")
    if runs.empty:
        pytest.skip("no runs of table1-rte are published yet")
    opened(browser, built / "06_baseline.html")
    rows = browser.execute_script(
        "return [...document.querySelectorAll('[data-kind=seeds] tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    for name, shown in (("Lee", rows[0]), ("Ours", rows[2])):
        found = runs[runs["method"] == name]
        failures, scores = int(found["failed"].sum()), 100 * found["score_last"]
        rate = stats.wilson(failures, len(found)).percent()
        assert shown[0].startswith(name)
        assert shown[1:3] == [f"{failures} of {len(found)}", rate]
        assert float(shown[3].split()[0]) == pytest.approx(scores.std(), abs=0.0501)
        assert float(shown[4]) == pytest.approx(scores.mean(), abs=0.0501)


@pytest.mark.browser
def test_the_first_page_says_how_many_seeds_tell_devlin_from_ours(
    browser: Any, built: Path
) -> None:
    runs = pages.runs("table1-half")
    if runs.empty:
        pytest.skip("no runs of table1-half are published")
    opened(browser, built / "index.html")
    page = Page(browser, built / "index.html")
    cells = chosen_cells(page)
    assert [cell.name.split()[0] for cell in cells] == ["Devlin", "Ours"]
    for cell, name in zip(cells, ("Devlin", "Ours"), strict=True):
        published = runs[runs["method"] == name].sort_values("seed")["score_last"]
        assert cell.scores.tolist() == pytest.approx((100 * published).tolist(), abs=0.051)
    numbers = enough(cells, page.chosen("statistic"))
    assert numbers is not None and f"From {numbers} seeds of each on" in page.said


def explorer(browser: Any, page: Path, kind: str, place: int = 0, width: int = 390) -> Page:
    """Open a built page and leave one of its explorers alone, so that its controls are found."""
    opened(browser, page, width)
    found = Page(browser, page, width)
    waited(browser, lambda b: b.execute_script(DRAWN))
    browser.execute_script(
        "const all = [...document.querySelectorAll('.stabkit-explorer')];"
        "const [kind, place] = arguments;"
        "const one = all.filter(({dataset}) => dataset.kind === kind)[place];"
        "for (const other of all) if (other !== one) other.remove();",
        *(kind, place),
    )
    found.data = found.run("return JSON.parse(document.querySelector(ISLAND).textContent)")
    return found


def published_or_skip(table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        pytest.skip("what this page shows is not published")
    return table


@pytest.mark.browser
def test_rates_of_the_book_are_those_published(browser: Any, built: Path) -> None:
    runs = published_or_skip(pages.runs("pilot-rte"))
    page = explorer(browser, built / "051_bias_correction.html", "rates")
    cells = list(failure_curve(runs).itertuples())
    assert len(cells) == len(page.data["cells"])
    for cell in cells[::5]:
        page.choose("learning_rate", cell.learning_rate)
        page.choose("bias_correction", cell.bias_correction)
        of_cell = runs.query(
            "learning_rate == @cell.learning_rate and bias_correction == @cell.bias_correction"
        )
        counts, score = f"{cell.failures} of {cell.runs} runs", 100 * of_cell["score_last"].mean()
        arm = "with" if cell.bias_correction else "without"
        assert f"At {written(cell.learning_rate)} {arm} correction, " in page.said
        assert f"{counts} learn nothing: {100 * cell.rate:.1f} %" in page.said
        told = re.search(r"mean score ([\d.]+) %", page.said)
        assert told and float(told[1]) == pytest.approx(score, abs=0.0501)


@pytest.mark.browser
@pytest.mark.parametrize("place", [0, 1])
def test_swaps_of_the_book_are_those_published(browser: Any, built: Path, place: int) -> None:
    table = published_or_skip(pages.shelf("layer-swaps"))
    models = [rows for _, rows in table.groupby(["model", "task"], sort=False)]
    page = explorer(browser, built / "041_forgetting.html", "swap", place, 1280)
    for embeddings, k in ((True, 3), (False, 7)):
        page.choose("embeddings", embeddings)
        page.choose("k", k)
        rows = models[place].query("embeddings == @embeddings")
        means = np.exp(rows.groupby(["failed", "k"])["nll"].mean())
        for failed, shown in zip((True, False), page.numbers()[1:], strict=True):
            wanted = [means[failed, at] for at in (0, k, rows["k"].max())]
            shown = [float(cell.replace(",", "")) for cell in shown[1:]]
            assert shown == pytest.approx(wanted, rel=6e-3)


@pytest.mark.browser
def test_runs_of_the_book_can_be_looked_into_step_by_step(browser: Any, built: Path) -> None:
    runs = published_or_skip(exhibits.usual())
    page = explorer(browser, built / "041_forgetting.html", "inside")
    page.choose("at", 40)
    step = page.data["step"][40]
    for kind, told in zip(("failed", "successful"), page.said.split(". "), strict=True):
        name = page.data["runs"][page.chosen(kind)]["name"]
        seed, corrected, rate = re.findall(r"seed (\d+), (with|without) correction, (.+)", name)[0]
        (run,) = runs[
            (runs["seed"] == int(seed))
            & (runs["bias_correction"] == (corrected == "with"))
            & (runs["learning_rate"].map(written) == rate)
            & (runs["model"] == "mini-bert")
        ].to_dict("records")
        assert run["failed"] == (kind == "failed")
        loss = pages.published().history(run["key"])["loss"].rolling(20, min_periods=1).mean()
        assert found(told)[:2] == [step, pytest.approx(loss[step - 1], abs=6e-4)]


@pytest.mark.browser
def test_planes_of_the_book_are_those_published(browser: Any, built: Path) -> None:
    table = published_or_skip(pages.shelf("loss-surfaces", "failed_run"))
    planes = [plane for _, plane in table.groupby("key", sort=False)]
    page = explorer(browser, built / "052_surfaces.html", "surface")
    assert len(planes) == len(page.data["planes"]) > 1
    for place, plane in enumerate(planes):
        for value in ("loss", "gradient_norm"):
            page.choose("plane", place)
            page.choose("value", value)
            told = found(page.said.split(" The path")[0])
            assert told[4:6] == pytest.approx(list(heights(between(plane), value)), rel=6e-3)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("seeds", "index"),
        ("rates", "051_bias_correction"),
        ("inside", "041_forgetting"),
        ("swap", "041_forgetting"),
        ("surface", "052_surfaces"),
    ],
)
def test_explorers_of_the_book_answer(
    browser: Any, built: Path, kind: str, page: str, width: int
) -> None:
    if pages.everything().empty:
        pytest.skip("no runs are published")
    opened(browser, built / f"{page}.html", width)
    figure = browser.find_element("css selector", f"[data-kind={kind}]")
    said = figure.find_element("class name", "stabkit-said")
    before = said.text
    if selects := figure.find_elements("css selector", "select:has(option + option)"):
        selects[-1].find_element("css selector", "option:not(:checked)").click()
    else:
        browser.execute_script(SLIDE, figure.find_element("css selector", "input[type=range]"))
    assert before and said.text != before
    assert complaints(browser) == []


SLIDE = """
arguments[0].value = Number(arguments[0].value) === 0 ? 3 : 0;
arguments[0].dispatchEvent(new Event("input", {bubbles: true}));
"""


@pytest.mark.browser
def test_search_works_from_a_file(browser: Any, built: Path) -> None:
    browser.get_log("browser")
    browser.get((built.parent / "search.html").as_uri() + "?q=seeds")
    waited(browser, lambda b: b.find_elements("css selector", "#search-results li a"))
    assert complaints(browser) == []


def test_built_pages_name_nothing_outside_of_their_folder_but_links(built: Path) -> None:
    fetched = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^\s>]*"""
        r"""|<link\b[^>]*\bhref=["']?(?:https?:)?//[^\s>]*"""
        r"""|(?:@import|url\()\s*["']?(?:https?:)?//[^\s)]*"""
    )
    for path in [*built.parent.rglob("*.html"), *built.parent.rglob("*.css")]:
        assert fetched.findall(path.read_text(encoding="utf-8")) == [], path


def test_a_page_weighs_little_beside_what_all_share(built: Path) -> None:
    own, shared = script("pages", "benchmarks").weights(built)
    assert own.keys() == set(NAMES) and "plotly.min.js" in shared
    assert {name: size for name, size in own.items() if size >= 1.5e6} == {}


@pytest.mark.parametrize("name", NAMES)
def test_no_output_is_shown_by_the_name_of_its_type(built: Path, name: str) -> None:
    text = (built / f"{name}.html").read_text(encoding="utf-8")
    assert "IPython.core.display" not in re.sub(r"<[^>]+>", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_and_picture_has_a_text_alternative(built: Path, name: str) -> None:
    text = (built / f"{name}.html").read_text(encoding="utf-8")
    for element in re.findall(r"<figure\b[^>]*>", text):
        assert re.search(r'aria-label="[^"]+"|class="stabkit-sheet\b', element), element
    for element in re.findall(r"<img\b[^>]*>", text):
        assert re.search(r'alt="[^"]+"', element), element
