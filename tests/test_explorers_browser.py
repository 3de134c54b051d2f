"""In a browser, from a file, without a network: explorers show what Python computes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import drawing
import inside
import numpy as np
import pandas as pd
import pytest
import test_explorers as made

from stabkit.barriers import barrier, between, heights
from stabkit.figures.planes import lift
from stabkit.mechanism import EMBEDDINGS, given_back
from stabkit.schedule import hidden_multiplier, linear_schedule, short
from stabkit.stats import Floats, sample_std, wilson
from stabkit.tables import failure_curve

WIDTHS = (1280, 390)
STATISTICS = {
    "std": sample_std,
    "failed": lambda runs, axis: 100 * np.mean(runs, axis=axis),
    "mean": np.mean,
}
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page for each explorer and nothing else."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in made.ALL.items():
        (folder / f"{name}.html").write_text(make().document(), encoding="utf-8")
    return folder


PAINTED = "requestAnimationFrame(() => setTimeout(() => setTimeout(arguments[0])))"  # reliefs, too


class Page:
    """An explorer in a browser: its controls by name, what it says, what its plots hold."""

    def __init__(self, browser: Any, path: Path, width: int = 1280) -> None:
        self.browser = browser
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get_log("browser")
        browser.get(path.as_uri())
        self.data = self.run("return JSON.parse(document.querySelector(ISLAND).textContent)")

    def run(self, script: str, *arguments: Any) -> Any:
        head = "const ISLAND = '.stabkit-explorer script[type=\"application/json\"]';"
        return self.browser.execute_script(head + script, *arguments)

    def control(self, name: str) -> Any:
        return self.browser.find_element("css selector", f".stabkit-controls [name={name}]")

    def choose(self, name: str, value: Any) -> None:
        """Choose ``value`` as a reader would."""
        control = self.control(name)
        if name in self.data["choices"]:
            place = self.data["choices"][name].index(value)
            control.find_elements("tag name", "option")[place].click()
        elif isinstance(value, bool):
            if control.is_selected() != value:
                control.click()
        else:
            self.run(
                "arguments[0].value = arguments[1];"
                "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
                control,
                value,
            )

    def chosen(self, name: str) -> Any:
        control = self.control(name)
        if control.get_attribute("type") == "checkbox":
            return control.is_selected()
        value = int(control.get_attribute("value"))
        return self.data["choices"][name][value] if name in self.data["choices"] else value

    def click(self, x: float, y: float = 1, panel: int = 0, trace: int | str = 0) -> None:
        """Click on a point of a panel's trace: its place, its type or its name."""
        self.run(
            "const [x, y, panel, trace] = arguments;"
            "const plot = document.querySelectorAll('.stabkit-panel')[panel];"
            "const data = plot.data[trace]"
            " ?? plot.data.find(({type, name}) => [type, name].includes(trace));"
            "const xaxis = plot._fullLayout[(data.xaxis ?? 'x').replace('x', 'xaxis')];"
            "plot.emit('plotly_click', {points: [{x, y, xaxis, data}]})",
            *(x, y, panel, trace),
        )

    @property
    def said(self) -> str:
        return str(self.browser.find_element("class name", "stabkit-said").text)

    def traces(self, panel: int) -> list[dict[str, Any]]:
        self.browser.execute_async_script(PAINTED)
        script = "return document.querySelectorAll('.stabkit-panel')[arguments[0]].data"
        traces: list[dict[str, Any]] = self.run(script, panel)
        return traces

    def numbers(self) -> list[list[str]]:
        """Return the rows of the table of numbers, head included."""
        script = "return [...document.querySelectorAll('.stabkit-numbers tr')]"
        script += ".map(row => [...row.cells].map(cell => cell.textContent))"
        rows: list[list[str]] = self.run(script)
        return rows

    def csv(self) -> pd.DataFrame:
        """Return what the button offers for download."""
        text = self.browser.execute_async_script(
            "const done = arguments[0], make = URL.createObjectURL;"
            "URL.createObjectURL = (blob) => { blob.text().then(done); return 'data:,'; };"
            "document.querySelector('.stabkit-csv').click();"
            "URL.createObjectURL = make;"
        )
        return pd.read_csv(StringIO(text))

    def complaints(self) -> list[str]:
        """Return errors in the console, requests for other places, and what is too wide."""
        log = [e["message"] for e in self.browser.get_log("browser") if e["level"] == "SEVERE"]
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        asked = [name for name in self.run(script) if name.startswith("http")]
        script = "const page = document.documentElement;"
        wide = self.run(script + "return page.scrollWidth > page.clientWidth ? ['too wide'] : []")
        return [*log, *asked, *wide]


def found(text: str) -> list[float]:
    """Return the numbers of a text, in order; a comma parts thousands."""
    text = re.sub(r"(\d),(\d{3})", r"\1\2", text)
    return [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text)]


def near(numbers: Any) -> Any:
    """Equal to ``numbers`` as written with one decimal."""
    return pytest.approx(numbers, abs=0.0501)


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("name", made.ALL)
def test_every_choice_of_every_control_is_drawn_without_complaint(
    browser: Any, folder: Path, name: str, width: int
) -> None:
    page = Page(browser, folder / f"{name}.html", width)
    before = page.said
    for control in made.ALL[name]().controls:
        changed = set()
        for value in values(page, control.name):
            page.choose(control.name, value)
            changed.add(page.said)
        if not changed:
            page.control(control.name).click()
            changed = {page.said, before}
        before = page.said
        assert len(changed) > 1, f"{control.name} changes nothing that is said"
        drawn = page.run(
            "return [...document.querySelectorAll('.stabkit-panel')]"
            ".map(panel => panel.querySelector('svg.main-svg').clientWidth)"
        )
        assert all(200 < across <= width for across in drawn)
    assert page.complaints() == []


def values(page: Page, name: str) -> Iterator[Any]:
    """Yield all values of a control, of a range its ends and middle, of a button none."""
    control = page.control(name)
    kind = control.get_attribute("type")
    if kind == "checkbox":
        yield from (not page.chosen(name), page.chosen(name))
    elif kind == "range":
        low, high = (int(control.get_attribute(end)) for end in ("min", "max"))
        yield from (low, (low + high) // 2, high)
    elif kind != "button":
        yield from page.data["choices"][name]


class Cell:
    """A cell of the seeds explorer as Python sees it."""

    def __init__(self, cell: dict[str, Any], place: int) -> None:
        self.name = f"{cell['name']} at {short(cell['learning_rate'])}"
        self.place = place
        self.scores = np.array([run[1] for run in cell["runs"]])
        self.failed = np.array([run[2] for run in cell["runs"]])

    def drawn(self, sample: int, number: int) -> Any:
        return drawing.drawn(
            drawing.SAMPLES * sample + self.place, number, len(self.scores)
        ).ravel()

    def repeats(self, statistic: str, number: int) -> Floats:
        places = drawing.drawn(
            drawing.REPEATS + self.place, number, len(self.scores), drawing.DRAWS
        )
        values = self.failed if statistic == "failed" else self.scores
        return np.asarray(STATISTICS[statistic](values[places], axis=1))

    def row(self, places: Any) -> list[float]:
        """Failures, runs, failure rate, std with their intervals, mean; in percent."""
        scores, failures = self.scores[places], int(self.failed[places].sum())
        rate = [100 * number for number in wilson(failures, len(scores))]
        spread = [float(sample_std(scores)), *drawing.std_interval(scores)]
        return [failures, len(scores), *rate, *spread, float(scores.mean())]


def chosen_cells(page: Page) -> list[Cell]:
    """Return the cell that the controls name and, if there is one, that to compare with."""
    axes, compare = page.data["axes"], page.chosen("compare")
    at = {name: page.chosen(name) for name in axes}
    (cell,) = (c for c in page.data["cells"] if all(c[name] == at[name] for name in axes))
    others = [c for c in page.data["cells"] if c["task"] == cell["task"] and c is not cell]
    if compare == "switched":
        same = "learning_rate", "epochs", "adamw"  # all other axes but the recipe
        like = [c for c in others if all(c[name] == cell[name] for name in same)]
    else:
        like = [c for c in others if c["recipe"] == compare]
    return [Cell(c, place) for place, c in enumerate([cell, *like[:1]])]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("statistic", "number", "presses"), [("std", 5, 0), ("failed", 3, 1), ("mean", 25, 2)]
)
def test_seeds_compute_what_python_computes(
    browser: Any, folder: Path, statistic: str, number: int, presses: int, width: int
) -> None:
    page = Page(browser, folder / "seeds.html", width)
    choices = {"recipe": "Lee", "compare": "Ours", "statistic": statistic, "number": number}
    for name, value in choices.items():
        page.choose(name, value)
    for _ in range(presses):
        page.control("sample").click()
    cells = chosen_cells(page)
    assert [cell.name for cell in cells] == ["Lee at 3e-4", "Ours at 3e-4"]
    rows, wanted = page.numbers()[1:], []
    for cell in cells:
        everyone, sample = np.arange(len(cell.scores)), cell.drawn(1 + presses, number)
        wanted += [cell.row(everyone), cell.row(sample)]
        points = [t for t in page.traces(0) if t.get("mode") == "markers"][2 * cell.place + 1]
        assert points["y"] == cell.scores[sample].tolist()
        crosses = [symbol == "x" for symbol in points["marker"]["symbol"]]
        assert crosses == cell.failed[sample].tolist()
    for row, numbers in zip(rows, wanted, strict=True):
        assert found(" ".join(row[1:])) == near(numbers)
    repeats = [cell.repeats(statistic, number) for cell in cells]
    for bars, values in zip(page.traces(1), repeats, strict=True):
        edges = np.append(bars["x"], bars["x"][-1] + bars["width"]) - bars["width"] / 2
        assert sum(bars["y"]) == drawing.DRAWS
        assert np.abs(bars["y"] - np.histogram(values, edges)[0]).sum() <= 4  # on an edge
    sentences = page.said.split(". ")
    for cell, values, row, told in zip(cells, repeats, wanted[1::2], sentences, strict=False):
        ends = np.quantile(values, (0.025, 0.975))
        assert told.startswith(f"{cell.name}: {row[0]} of {number} drawn runs fail")
        assert found(told)[-2:] == near(list(ends))
    larger, equal, _ = pairs(*repeats)
    (pair,) = (sentence for sentence in sentences if sentence.startswith("In "))
    told = found(pair.replace("3e-4", ""))
    assert [told[0], told[-1]] == [larger, equal]
    numbers = enough(cells, statistic)
    assert found(sentences[-1])[0] == (25 if numbers is None else numbers)
    assert ("too few" in sentences[-1]) == (numbers is None)


def pairs(one: Floats, two: Floats) -> tuple[int, int, int]:
    """Count the pairs in which the one is larger, equal, smaller, but for rounding."""
    level = np.abs(one - two) <= 1e-9
    larger = int(((one > two) & ~level).sum())
    return larger, int(level.sum()), len(one) - larger - int(level.sum())


def enough(cells: list[Cell], statistic: str) -> int | None:
    """Return the fewest seeds from which on 950 of 1,000 pairs agree with all runs."""
    one, two = ((c.failed if statistic == "failed" else c.scores) for c in cells)
    more = STATISTICS[statistic](one, axis=0) > STATISTICS[statistic](two, axis=0)
    agreed = {}
    for number in range(3, 26):
        larger, _, smaller = pairs(*(cell.repeats(statistic, number) for cell in cells))
        agreed[number] = (larger if more else smaller) >= 950
    right = [number for number in agreed if all(agreed[n] for n in range(number, 26))]
    return min(right, default=None)


def test_seeds_without_runs_lead_to_the_nearest_that_has_some(browser: Any, folder: Path) -> None:
    page = Page(browser, folder / "seeds.html")
    page.choose("recipe", "Devlin")
    page.choose("recipe", "Ours")
    assert "No runs of that choice with all else unchanged" in page.said
    assert "epochs 20" in page.said and "bias correction on" in page.said
    assert (page.chosen("epochs"), page.chosen("bias_correction")) == (20, True)
    page.choose("bias_correction", False)
    assert page.chosen("recipe") == "Devlin" and page.chosen("epochs") == 3
    page.choose("task", "mini-cola")
    page.choose("compare", "Ours")
    assert (
        "There are no runs of Ours with mini-bert on mini-cola; mini-bert has some on" in page.said
    )
    page.choose("compare", "Devlin")
    assert "The runs of Devlin are those shown; choose another" in page.said


@pytest.mark.parametrize("width", WIDTHS)
def test_seeds_stand_beside_the_same_with_correction_switched(
    browser: Any, folder: Path, width: int
) -> None:
    page = Page(browser, folder / "seeds.html", width)
    for name, value in {"recipe": "Devlin", "learning_rate": 1e-4, "compare": "switched"}.items():
        page.choose(name, value)
    cells = chosen_cells(page)
    assert [cell.name for cell in cells] == ["Devlin at 1e-4", "3 epochs, with correction at 1e-4"]
    for cell, row in zip(cells, page.numbers()[1::2], strict=True):
        assert found(" ".join(row[1:])) == near(cell.row(np.arange(len(cell.scores))))
    assert "In 1,000 pairs" not in page.said and "pairs of draws of 5 runs" in page.said
    tints = {trace["line"]["color"] for trace in page.traces(0) if trace.get("type") == "box"}
    assert len(tints) == 2
    page.choose("recipe", "neither")
    assert [cell.name for cell in chosen_cells(page)][1] == "Devlin at 1e-4"
    page.choose("recipe", "Lee")
    assert (
        "No runs have bias correction on and all else as Lee; "
        "the nearest are of 3 epochs, with correction at 3e-4." in page.said
    )
    page.choose("recipe", "Ours")
    assert "correction off and all else as Ours; the nearest are of Devlin at 3e-4." in page.said
    page.choose("task", "mini-cola")
    assert "No runs with mini-bert on mini-cola have bias correction on." in page.said
    assert page.complaints() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_cell_of_the_seeds_is_what_python_makes_of_it(
    browser: Any, folder: Path, width: int
) -> None:
    page = Page(browser, folder / "seeds.html", width)
    page.choose("compare", "")
    for wanted in page.data["cells"]:
        for _ in range(2):  # a choice without runs moves other axes along, at most once
            for axis in page.data["axes"]:
                page.choose(axis, wanted[axis])
        (cell,) = chosen_cells(page)
        everyone, sample = np.arange(len(cell.scores)), cell.drawn(1, page.chosen("number"))
        for row, places in zip(page.numbers()[1:], (everyone, sample), strict=True):
            assert found(" ".join(row[1:])) == near(cell.row(places))
        assert cell.name == f"{wanted['name']} at {short(wanted['learning_rate'])}"
    assert page.complaints() == []


def test_few_runs_do_not_say_how_many_seeds_are_enough(browser: Any, tmp_path: Path) -> None:
    table = made.everything().query("seed < 12 and learning_rate == 3e-4")
    (tmp_path / "few.html").write_text(made.seeds(table, compare="Ours").document())
    page = Page(browser, tmp_path / "few.html")
    page.choose("recipe", "Lee")
    assert "is not said: that takes 25 runs of each, and of Lee at 3e-4 there are 12." in page.said
    assert "of all runs is larger" not in page.said


@pytest.mark.parametrize(
    ("number", "shown"),
    [("3.2e-8", "3.20e-8"), ("0.0123", "0.0123"), ("16555", "16,600"), ("2e6", "2.00e+6")],
)
def test_three_digits_of_any_size(browser: Any, folder: Path, number: str, shown: str) -> None:
    page = Page(browser, folder / "surface.html")
    assert page.run(f"return stabkit.significant({number})") == shown


CUT = """
return [...document.querySelectorAll(".stabkit-panel")].flatMap(panel => {
    const box = panel.getBoundingClientRect();
    const words = panel.querySelectorAll(".annotation-text, .xtick text, .ytick text");
    return [...words].filter(text => {
        const { left, right } = text.getBoundingClientRect();
        return left < box.left - 1 || right > box.right + 1;
    }).map(text => text.textContent);
});
"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["seeds", "rates", "inside", "swap"])
def test_no_word_is_cut_off_by_the_edge_of_its_plot(
    browser: Any, folder: Path, name: str, width: int
) -> None:
    page = Page(browser, folder / f"{name}.html", width)
    for control in made.ALL[name]().controls:
        for value in values(page, control.name):
            page.choose(control.name, value)
            assert page.run(CUT) == [], (control.name, value)


def test_paper_shows_no_controls(browser: Any, folder: Path) -> None:
    page = Page(browser, folder / "rates.html")
    shown = "return getComputedStyle(document.querySelector('.stabkit-controls')).display"
    assert page.run(shown) == "flex"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert page.run(shown) == "none"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("width", WIDTHS)
def test_rates_compute_what_python_computes(browser: Any, folder: Path, width: int) -> None:
    page = Page(browser, folder / "rates.html", width)
    curve = failure_curve(made.pilot()).set_index(["learning_rate", "bias_correction"])
    runs = made.pilot().groupby(["learning_rate", "bias_correction"])[["score_last"]].mean()
    names = ("learning_rate", "bias_correction", "beta2", "epochs")
    options = [made.RATES, (False, True), (0.999, 0.98), (3, 20)]
    for rate, corrected, beta2, epochs in itertools.product(*options):
        for name, value in zip(names, (rate, corrected, beta2, epochs), strict=True):
            page.choose(name, value)
        steps = epochs * 100
        t = np.arange(1, steps + 1)
        scheduled = rate * linear_schedule(t, steps)
        wanted = scheduled * (1 if corrected else hidden_multiplier(t, 0.9, beta2))
        real, given = page.traces(1)
        assert real["y"] == pytest.approx(wanted.tolist(), rel=1e-12, abs=1e-18)
        assert given["y"] == pytest.approx(scheduled.tolist(), rel=1e-12, abs=1e-18)
        row = curve.loc[(rate, corrected)]
        told = found(page.said.replace("95 % interval", ""))
        shares = [100 * row[name] for name in ("rate", "low", "high")]
        mean = 100 * runs.loc[(rate, corrected), "score_last"]
        assert told[:7] == near([rate, row["failures"], row["runs"], *shares, mean])
        (grid,) = (trace for trace in page.traces(0) if trace["type"] == "heatmap")
        place = made.RATES.index(rate), int(corrected)
        assert grid["z"][place[0]][place[1]] == pytest.approx(100 * row["rate"])
        shown = found(grid["text"][place[0]][place[1]])
        assert shown == near([row["failures"], row["runs"], mean])
        top = int(wanted.argmax())
        ratios = [wanted[top] / rate, wanted.sum() / scheduled.sum()]
        assert told[7:12] == pytest.approx([wanted[top], top + 1, steps, *ratios], rel=0.005)
        assert ("There are no runs at" in page.said) == ((beta2, epochs) != (0.999, 3))
    assert page.complaints() == []


def test_a_cell_of_the_grid_can_be_clicked(browser: Any, folder: Path) -> None:
    page = Page(browser, folder / "rates.html")
    page.choose("learning_rate", made.RATES[0])
    page.click(1)
    assert page.chosen("learning_rate") == made.RATES[1]
    assert page.chosen("bias_correction") is True
    assert page.said.startswith("At 3e-4 with correction")


@pytest.mark.parametrize("width", WIDTHS)
def test_inside_says_what_the_runs_did_at_each_step(browser: Any, folder: Path, width: int) -> None:
    page = Page(browser, folder / "inside.html", width)
    runs = made.kinds().to_dict("records")
    kinds = {
        "failed": page.data["choices"]["failed"],
        "successful": page.data["choices"]["successful"],
    }
    for at, weight, place in ((0, "query", 0), (50, "feed-forward, out", 1), (104, "query", 1)):
        for name, value in {
            "at": at,
            "weight": weight,
            **{k: v[place] for k, v in kinds.items()},
        }.items():
            page.choose(name, value)
        step = page.data["step"][at]
        for kind, told in zip(kinds, page.said.split(". "), strict=True):
            key = runs[kinds[kind][place]]["key"]
            loss = made.histories([key])[key]["loss"].rolling(20, min_periods=1).mean()
            column = made.QUERY if weight == "query" else made.OUT
            norms = made.gradients([key])[key].set_index("step").loc[step]
            assert told.startswith(f"Step {step}, {kind} run: ")
            wanted = [step, loss[step - 1], norms[column.format(0)], 1, norms[column.format(2)], 3]
            assert found(told) == pytest.approx(wanted, rel=0.051, abs=6e-4)
            profile = {trace["name"]: trace["y"] for trace in page.traces(1)}[f"{kind} run"]
            assert profile[0] == pytest.approx(norms[column.format(0)], rel=1e-3)
            assert profile[2] == pytest.approx(norms[column.format(2)], rel=1e-3)


def test_inside_draws_both_runs_on_linked_axes_and_goes_to_a_step_by_a_click(
    browser: Any, folder: Path
) -> None:
    page = Page(browser, folder / "inside.html")
    page.choose("weight", "query")
    steps = page.data["step"]
    runs = made.kinds().to_dict("records")
    traces = page.traces(0)
    for column, kind in enumerate(("failed", "successful")):
        key = runs[page.chosen(kind)]["key"]
        losses = made.histories([key])[key]["loss"].rolling(20, min_periods=1).mean()
        norms = made.gradients([key])[key].set_index("step")
        loss, *layers = traces[4 * column : 4 * column + 4]
        assert loss["x"] == steps and len(layers) == 3
        assert loss["y"] == pytest.approx([losses[step - 1] for step in steps], rel=0.01)
        for layer, trace in enumerate(layers):
            wanted = norms[made.QUERY.format(layer)].loc[steps]
            assert trace["y"] == pytest.approx(wanted.tolist(), rel=0.01)
    layout = page.run("return document.querySelector('.stabkit-panel').layout")
    assert {layout[f"xaxis{key}"]["matches"] for key in (2, 3, 4)} == {"x"}
    assert (layout["yaxis3"]["matches"], layout["yaxis4"]["matches"]) == ("y", "y2")
    for trace, place in ((0, 10), (7, 20)):
        page.click(steps[place], trace=trace)
        assert page.chosen("at") == place
    page.click(1, panel=1)  # a layer is no step
    assert page.chosen("at") == 20


def test_a_click_on_a_swap_s_curve_gives_back_so_many_layers(browser: Any, folder: Path) -> None:
    page = Page(browser, folder / "swap.html")
    page.click(5)
    assert page.chosen("k") == 5
    page.click(2, panel=1, trace="bar")  # the bars below are layers, not numbers of them
    assert page.chosen("k") == 5


@pytest.mark.parametrize("width", WIDTHS)
def test_swap_tells_what_python_judges(browser: Any, folder: Path, width: int) -> None:
    page = Page(browser, folder / "swap.html", width)
    for embeddings, k in itertools.product((True, False), (0, 3, 12)):
        page.choose("embeddings", embeddings)
        page.choose("k", k)
        table = made.swaps().query("embeddings == @embeddings")
        times, gone = given_back(table)[k]
        assert times and gone
        first, second = page.said.split(". Of ")
        assert first.startswith(f"k = {k} of 12, {EMBEDDINGS[embeddings]}: ")
        told = found(first.replace("95 %", ""))
        assert told[2:] == pytest.approx(list(times), rel=6e-3)
        assert found(second.replace("95 %", ""))[1:] == near([100 * part for part in gone])
        means = np.exp(table.groupby(["failed", "k"])["nll"].mean())
        for failed, row in zip((True, False), page.numbers()[1:], strict=True):
            wanted = [means[failed, at] for at in (0, k, 12)]
            assert [float(cell) for cell in row[1:]] == pytest.approx(wanted, rel=6e-3)
        curves = page.traces(0)
        for curve, (_, rows) in zip(curves, table.groupby("run", sort=False), strict=True):
            assert curve["y"] == pytest.approx(rows["perplexity"].tolist(), rel=5e-3)
        states = page.traces(1)[0]["text"]
        given = 12 * ["fine-tuned"] + k * ["pre-trained"]
        wanted = [["fine-tuned", "pre-trained"][embeddings], *given[k:], "pre-trained"]
        assert states == wanted
    assert page.complaints() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_walk_over_a_plane_says_what_python_measures(
    browser: Any, folder: Path, width: int
) -> None:
    page = Page(browser, folder / "surface.html", width)
    for key, value, at in itertools.product((0, 1), ("loss", "gradient_norm"), (0, 3, 10)):
        for name, choice in {"plane": key, "value": value, "at": at}.items():
            page.choose(name, choice)
        plane = made.planes().query(f"key == 'plane{key}'")
        line = between(plane)
        (here,) = line.loc[np.isclose(line["a"], at / 10), value]
        told = found(page.said.split(" The path")[0])
        assert told[0] == near(at / 10) and told[3] == pytest.approx(here, rel=6e-3)
        rise, end = heights(line, value)
        assert told[4:6] == pytest.approx([rise, end], rel=6e-3)
        assert ("no barrier" in page.said) == (barrier(line, value) <= 0)
        if barrier(line, value) > 0:
            assert told[6] == pytest.approx(barrier(line, value), rel=6e-3)
        above, along = (page.traces(panel)[-1] for panel in (0, 1))
        assert [above["x"][0], above["y"][0]] == pytest.approx([1 - at / 10, at / 10])
        assert (along["x"], along["y"]) == ([at / 10], [pytest.approx(here, rel=1e-3)])
        assert ("The paths of these two runs are not recorded" in page.said) == (key == 1)
        columns = ["loss", "gradient_norm"]
        for row, place in zip(page.numbers()[1:4], ((0, 0), (1, 0), (0, 1)), strict=True):
            wanted = plane.query(f"a == {place[0]} and b == {place[1]}")[columns].to_numpy()[0]
            assert [float(cell) for cell in row[1:]] == pytest.approx([*place, *wanted], rel=6e-3)
    assert page.complaints() == []


def test_the_relief_carries_the_mark_and_paths_can_be_put_away(browser: Any, folder: Path) -> None:
    page = Page(browser, folder / "surface.html")
    page.choose("view", "relief")
    page.choose("at", 2)
    sheet, *_, mark = page.traces(0)
    (here,) = between(made.planes().query("key == 'plane0'")).query("a == 0.2")["loss"]
    above = here * 10 ** lift(made.planes().query("key == 'plane0'"))
    assert (sheet["type"], mark["type"]) == ("surface", "scatter3d")
    assert mark["z"][0] == pytest.approx(above, rel=2e-3)
    panel = browser.find_element("class name", "stabkit-panel")
    assert "WebGL" not in panel.text
    shown = panel.screenshot_as_png
    page.run("document.querySelector('.stabkit-panel canvas').style.visibility = 'hidden'")
    assert len(shown) > 2 * len(panel.screenshot_as_png)  # colours and grid are painted there
    paths = {"failed run's path", "successful run's path"}
    assert paths < {trace.get("name") for trace in page.traces(0)}
    ways = inside.trajectories("f0", "s0").assign(share=lambda t: t["residual"] / t["distance"])
    far = ways.loc[ways.query("run == 'f0'")["residual"].idxmax()]
    (told,) = re.findall(r"path of the failed run .*?origin", page.said)
    assert found(told) == pytest.approx([far["step"], far["residual"], far["distance"]], rel=6e-3)
    page.choose("trajectories", False)
    assert not paths & {trace.get("name") for trace in page.traces(0)}
    assert "path" not in page.said


def test_words_do_not_wait_for_a_relief_and_what_is_drawn_is_the_last_choice(
    browser: Any, folder: Path
) -> None:
    page = Page(browser, folder / "surface.html")
    turn = (
        "const form = document.querySelector('.stabkit-controls');"
        "const panel = document.querySelector('.stabkit-panel');"
        "return arguments[0].map(([name, value]) => {"
        "  form.elements[name].value = value;"
        "  const kind = form.elements[name].type === 'range' ? 'input' : 'change';"
        "  form.elements[name].dispatchEvent(new Event(kind, {bubbles: true}));"
        "  return [document.querySelector('.stabkit-said').textContent, panel.data[0].type];"
        "})"
    )
    ((told, drawn),) = page.run(turn, [["view", 1]])
    assert ("Drag the relief" in told, drawn) == (True, "contour")
    assert page.traces(0)[0]["type"] == "surface"
    first, second = page.run(turn, [["at", 2], ["at", 7]])
    assert ("At 0.20 of the way" in first[0], "At 0.70 of the way" in second[0]) == (True, True)
    assert page.traces(0)[-1]["y"] == [pytest.approx(0.7)]
    page.run(turn, [["at", 3], ["view", 0]])
    assert page.traces(0)[0]["type"] == "contour"
    assert page.traces(0)[-1]["y"] == [pytest.approx(0.3)]


def test_points_of_a_plane_are_read_off_by_a_click(browser: Any, folder: Path) -> None:
    page = Page(browser, folder / "surface.html")
    page.click(1.5, -0.3, trace="contour")
    wanted = made.planes().query("key == 'plane0' and a == 1.5 and b == -0.3")["loss"].item()
    (told,) = re.findall(r"You picked .*?\. ", page.said)
    assert found(told) == pytest.approx([1.5, -0.3, wanted], rel=6e-3)
    page.click(0.3, panel=1, trace="loss")
    assert page.chosen("at") == 3
    page.click(-0.5, panel=1, trace="loss")  # beyond the failed run
    assert page.chosen("at") == 3


ANSWERS = """
const [control, values, done] = arguments, times = [];
function next() {
  if (!values.length) return done(times);
  const start = performance.now();
  control.value = values.shift();
  control.dispatchEvent(new Event(control.type === "range" ? "input" : "change", {bubbles: true}));
  requestAnimationFrame(() => { times.push(performance.now() - start); setTimeout(next); });
}
next();
"""


def spent(browser: Any) -> float:
    """Return the page's processor time so far, in milliseconds; it does not count waiting."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


@pytest.mark.parametrize(
    ("name", "control", "view"),
    [
        ("seeds", "number", None),
        ("rates", "beta2", None),
        ("inside", "at", None),
        ("swap", "k", None),
        ("surface", "at", "contours"),
        ("surface", "at", "relief"),
    ],
)
def test_a_control_answers_at_once(
    browser: Any, folder: Path, name: str, control: str, view: str | None
) -> None:
    page = Page(browser, folder / f"{name}.html")
    if view:
        page.choose("view", view)
    asked = page.control(control)
    values = [1, 0, 1, 0, 1, 0, 1] if name == "rates" else [3, 4, 5, 6, 7, 8, 9]
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before = spent(browser)
    times = browser.execute_async_script(ANSWERS, asked, values)
    median, busy = np.median(times), (spent(browser) - before) / len(times)
    shown = " ".join(filter(None, (name, view)))
    print(f"{shown}: a control answers within {median:.0f} ms, of which {busy:.0f} ms computing")
    # On a slow machine; 100 ms are the aim. What software draws of a relief comes after the answer.
    assert busy < (500 if name == "surface" else 200)


def test_what_is_shown_can_be_downloaded(browser: Any, folder: Path) -> None:
    page = Page(browser, folder / "seeds.html")
    for name, value in {"recipe": "Lee", "compare": "Ours", "number": 10}.items():
        page.choose(name, value)
    table, cells = page.csv(), chosen_cells(page)
    runs = table[table["of"] == "runs"]
    assert runs["score_percent"].tolist() == pytest.approx(
        np.concatenate([cell.scores for cell in cells])
    )
    assert runs["times_drawn"].sum() == 10 * len(cells)
    draws = table[table["of"] == "share that fails of 10 runs (%)"]
    assert len(runs) + len(draws) == len(table)
    for cell, (_, rows) in zip(cells, draws.groupby("recipe", sort=False), strict=True):
        centres = np.linspace(0, 100, 11)
        assert rows["bin_centre"].tolist() == pytest.approx(centres)
        counts, _ = np.histogram(cell.repeats("failed", 10), np.append(centres - 5, 105))
        assert rows["draws"].tolist() == counts.tolist()
    page = Page(browser, folder / "rates.html")
    for name, value in {"learning_rate": 1e-4, "beta2": 0.98, "epochs": 10}.items():
        page.choose(name, value)
    table = page.csv()
    grid, curve = table[table["of"] == "grid"], table[table["of"] == "curve"]
    assert len(grid) + len(curve) == len(table)
    assert grid["learn_nothing"].sum() == failure_curve(made.pilot())["failures"].sum()
    assert set(zip(grid["beta2"], grid["epochs"], strict=True)) == {(0.999, 3)}
    names = ["learning_rate", "bias_correction", "beta2", "epochs"]
    assert curve[names].drop_duplicates().to_numpy().tolist() == [[1e-4, False, 0.98, 10]]
    t = np.arange(1, 1_001)
    scheduled = 1e-4 * linear_schedule(t, 1_000)
    assert curve["step"].tolist() == t.tolist()
    assert curve["rate_as_set"].tolist() == pytest.approx(scheduled.tolist(), rel=1e-12)
    wanted = scheduled * hidden_multiplier(t, 0.9, 0.98)
    assert curve["rate_in_effect"].tolist() == pytest.approx(wanted.tolist(), rel=1e-12)
    page = Page(browser, folder / "inside.html")
    table = page.csv()
    assert len(table) == 2 * len(page.data["step"])
    table = Page(browser, folder / "swap.html").csv()
    assert table["nats_per_token"].tolist() == pytest.approx(made.swaps()["nll"], rel=1e-3)
    table = Page(browser, folder / "surface.html").csv()
    plane = made.planes().query("key == 'plane0'")
    assert table.loc[table["of"] == "plane", "loss"].tolist() == pytest.approx(
        plane["loss"].tolist(), rel=1e-3
    )
    assert (table["of"] == "path of failed run").sum() == 31


def test_controls_answer_to_the_keyboard(browser: Any, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, folder / "seeds.html")
    page.run("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        element = browser.switch_to.active_element
        reached.append(element.get_attribute("name") or element.get_attribute("class"))
        if element.get_attribute("name") == "number":
            element.send_keys(Keys.ARROW_RIGHT)
            assert page.chosen("number") == 6 and "of 6 drawn" in page.said
        if element.get_attribute("name") == "sample":
            before = page.traces(0)
            element.send_keys(Keys.SPACE)
            assert page.traces(0) != before
        if element.get_attribute("class") == "stabkit-csv":
            break
    names = [control.name for control in made.ALL["seeds"]().controls]
    assert [name for name in reached if name in (*names, "stabkit-csv")] == [*names, "stabkit-csv"]


def test_without_javascript_the_page_says_what_is_missing(browser: Any, folder: Path) -> None:
    command = "Emulation.setScriptExecutionDisabled"
    browser.execute_cdp_cmd(command, {"value": True})
    try:
        browser.get((folder / "rates.html").as_uri())
        text = browser.find_element("tag name", "figure").text
    finally:
        browser.execute_cdp_cmd(command, {"value": False})
    assert "needs JavaScript" in text and "A finding" in text
    assert "Learning rate" not in text.split("needs JavaScript")[0]
