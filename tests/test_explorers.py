"""Explorers hold the runs they are given, thinned where said, in HTML that works by itself."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterable
from html import unescape
from pathlib import Path
from typing import Any

import drawing
import inside as inside_runs
import numpy as np
import pandas as pd
import pytest
import yaml  # type: ignore[import-untyped]
from fakes import DIGESTS, judged

from stabkit import explorers, report, results
from stabkit.barriers import barrier, between, heights
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.explorers import mechanism
from stabkit.mechanism import given_back
from stabkit.presets import preset
from stabkit.stats import bootstrap, sample_std
from stabkit.studies import PILOT, REPORTED, grid
from stabkit.tables import failure_curve

ROOT = Path(__file__).parents[1]
RATES = (1e-4, 3e-4)
STEPS = 312
MADE = {"device": "cpu", "hardware": "Some CPU", "date": "2026-01-01"}
QUERY = "bert.encoder.layer.{}.attention.self.query.weight"
OUT = "bert.encoder.layer.{}.output.dense.weight"


def run_table(configs: Iterable[RunConfig]) -> pd.DataFrame:
    """Return made-up runs of ``configs``; those without correction fail in two cases of five."""
    rows, draws = [], np.random.default_rng(0)
    for config in configs:
        failed = bool(draws.random() < (0.0 if config.bias_correction else 0.4))
        score = 0.52 if failed else float(draws.normal(0.8 + 0.005 * config.epochs, 0.013))
        verdicts = dict.fromkeys(("failed", "constant", "flat_loss"), failed)
        more = {"majority_score": 0.52, "label_entropy": 0.692, "steps": STEPS}
        pinned = config.replace(**DIGESTS | {"data": config.task})
        rows.append(judged(pinned, score_last=score, **verdicts, **more).row())
    table = results.frame(results.unique(rows))
    return table.assign(method=[report.method(run) for run in table.to_dict("records")])


def pilot() -> pd.DataFrame:
    axes = {"learning_rate": RATES, "bias_correction": (False, True)}
    return run_table(grid(preset("devlin"), PILOT, **axes))


def methods() -> pd.DataFrame:
    recipes = [preset(name, learning_rate=RATES[1]) for name in ("devlin", "lee", "ours")]
    other = recipes[0].replace(task="mini-cola")
    return run_table(config for one in (*recipes, other) for config in grid(one, REPORTED))


def everything() -> pd.DataFrame:
    return pd.concat([pilot(), methods()], ignore_index=True)


def histories(keys: Iterable[str]) -> dict[str, pd.DataFrame]:
    found = {}
    for key in keys:
        draws = np.random.default_rng(int(key, 16))
        found[key] = pd.DataFrame({"step": np.arange(1, STEPS + 1), "loss": draws.random(STEPS)})
    return found


def gradients(keys: Iterable[str], layers: int = 3) -> dict[str, pd.DataFrame]:
    found = {}
    for key in keys:
        draws = np.random.default_rng(int(key, 16))
        names = [name.format(layer) for name in (QUERY, OUT) for layer in range(layers)]
        norms = {name: 10.0 ** draws.uniform(-6, 0, STEPS) for name in names}
        found[key] = pd.DataFrame({"step": np.arange(1, STEPS + 1), **norms, "pooler.weight": 1.0})
    return found


def kinds(each: int = 2) -> pd.DataFrame:
    runs = pilot().query("learning_rate == 1e-4")
    return runs.groupby("failed").head(each)


def seeds(table: pd.DataFrame, **options: Any) -> explorers.Explorer:
    return explorers.seeds(table, "A finding", "made up", **options)


def rates(table: pd.DataFrame) -> explorers.Explorer:
    return explorers.rates(table, 1_600, "A finding", "made up")


def inside(runs: pd.DataFrame, layers: int = 3) -> explorers.Explorer:
    keys = list(runs["key"])
    return explorers.inside(runs, histories(keys), gradients(keys, layers), "A finding", "made up")


def island(explorer: explorers.Explorer) -> dict[str, Any]:
    found = re.search(r'<script type="application/json">(.*?)</script>', explorer.html(), re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def swap(table: pd.DataFrame) -> explorers.Explorer:
    return explorers.swap(table, "A finding", "made up")


def swaps() -> pd.DataFrame:
    return inside_runs.swaps().assign(task="mini-rte", **MADE)


def planes() -> pd.DataFrame:
    """Return a plane of each of two tasks; on the second there is no barrier."""
    parts = [
        inside_runs.plane(height).assign(
            key=f"plane{i}", failed_run=f"f{i}", successful_run=f"s{i}", task=task, **MADE
        )
        for i, (task, height) in enumerate((("mini-rte", 0.4), ("mini-cola", -0.5)))
    ]
    return pd.concat(parts, ignore_index=True).assign(model="mini-bert")


def surface(table: pd.DataFrame, trajectories: pd.DataFrame | None = None) -> explorers.Explorer:
    return explorers.surface(table, "A finding", "made up", trajectories)


def with_paths() -> explorers.Explorer:
    """Return an explorer of planes with paths on the first of them only."""
    return surface(planes(), inside_runs.trajectories("f0", "s0"))


ALL = {"seeds": lambda: seeds(everything()), "rates": lambda: rates(pilot())}
ALL |= {"inside": lambda: inside(kinds()), "swap": lambda: swap(swaps()), "surface": with_paths}


@pytest.mark.parametrize("name", ALL)
def test_an_explorer_says_what_it_shows_where_from_and_what_without_javascript(name: str) -> None:
    explorer = ALL[name]()
    html = explorer.html()
    assert re.search(r"<figcaption>A finding\. Scale: made up; n = .* cpu, Some CPU; ", html)
    assert html.count(f'aria-label="{explorer.alt}"') == 1
    assert re.search(r"<noscript><p>[^<]*needs JavaScript\. " + re.escape(explorer.alt), html)
    assert html == ALL[name]().html()
    assert not re.search(r"(src|href)=", html)


@pytest.mark.parametrize("name", ALL)
def test_every_control_is_labelled_and_opens_with_a_choice_that_it_has(name: str) -> None:
    explorer, data = ALL[name](), island(ALL[name]())
    assert [control.name for control in explorer.controls] == list(
        dict.fromkeys(re.findall(r'name="(\w+)"', explorer.html()))
    )
    for control in explorer.controls:
        assert f">{control.label}" in unescape(control.html())
        if control.name in data["choices"]:
            assert data["start"][control.name] in data["choices"][control.name]


def test_nothing_in_the_data_ends_its_script_or_becomes_markup() -> None:
    table = pilot().assign(task="</script><b>&")
    explorer = seeds(table)
    assert explorer.html().count("</script>") == 1
    assert "<b>" not in explorer.html()
    assert {cell["task"] for cell in island(explorer)["cells"]} == {"</script><b>&"}


def test_seeds_keep_every_run_of_every_cell_and_pilot_seeds_only_where_there_are_no_others() -> (
    None
):
    table = everything()
    found = {
        (cell["task"], cell["recipe"], cell["learning_rate"]): {run[0] for run in cell["runs"]}
        for cell in island(seeds(table))["cells"]
        if not cell["bias_correction"]
    }
    assert found == {
        ("mini-rte", "Devlin", RATES[0]): set(PILOT),
        ("mini-rte", "Devlin", RATES[1]): set(REPORTED),
        ("mini-rte", "Lee", RATES[1]): set(REPORTED),
        ("mini-cola", "Devlin", RATES[1]): set(REPORTED),
    }
    scores = table.query("task == 'mini-rte' and method == 'Ours'").set_index("seed")["score_last"]
    (ours,) = (cell for cell in island(seeds(table))["cells"] if cell["recipe"] == "Ours")
    assert {run[0]: run[1] for run in ours["runs"]} == (100 * scores).to_dict()


def test_seeds_name_the_recipes_of_a_store_s_table_themselves() -> None:
    table = everything()
    assert island(seeds(table.drop(columns="method"))) == island(seeds(table))
    with pytest.raises(StabkitError, match="no column epochs"):
        seeds(table.drop(columns=["method", "epochs"]))


def test_as_many_seeds_can_be_drawn_as_the_largest_cell_has_and_25_at_least() -> None:
    for count in (10, 40):
        table = run_table(grid(preset("devlin", learning_rate=RATES[0]), range(count)))
        (number,) = (one for one in seeds(table).controls if one.name == "number")
        assert isinstance(number, mechanism.Slider)
        assert (number.low, number.high) == (3, max(count, 25))


def test_seeds_leave_out_controls_subsets_and_other_warmups() -> None:
    base = preset("devlin", learning_rate=RATES[0])
    others = (
        base.replace(multiplier="divided"),
        base.replace(warmup=0.0),
        base.replace(train_size=100),
        base.replace(epochs=None, max_steps=7),
    )
    table = run_table([*grid(base, REPORTED[:4]), *(grid(o, REPORTED)[0] for o in others[:3])])
    (cell,) = island(seeds(table))["cells"]
    assert len(cell["runs"]) == 4
    with pytest.raises(StabkitError, match="no cell has 3 runs"):
        seeds(table.head(2))


def test_seeds_do_not_mix_runs_that_differ_in_more_than_the_seed() -> None:
    table = pilot().query("not bias_correction")
    (usual, *_) = island(seeds(table))["cells"]
    for changed in ({"segments": False}, {"weight_decay": 0.1}):
        other = table.assign(**changed, score_last=0.99, key="of-" + table["key"])
        both = pd.concat([other.query("seed != 1000"), table], ignore_index=True)
        assert usual in island(seeds(both))["cells"]  # the larger group
    assert island(seeds(pd.concat([table, table])))["cells"] == island(seeds(table))["cells"]
    silent = table.assign(segments=False, score_last=0.99, key="of-" + table["key"])
    both = pd.concat([silent, table], ignore_index=True)
    assert usual in island(seeds(both))["cells"]  # as the presets have it


def test_seeds_offer_only_what_tells_cells_apart_and_open_as_asked() -> None:
    assert "task" not in island(seeds(pilot()))["choices"]
    start = island(seeds(everything(), start={"recipe": "Lee"}, compare="Ours"))["start"]
    assert (start["recipe"], start["compare"], start["number"]) == ("Lee", "Ours", 5)
    start = island(seeds(everything(), compare="of another table"))["start"]
    assert start["compare"] == ""
    assert not start["bias_correction"]  # about half of those fail


def test_seeds_offer_the_correction_switched_where_both_have_runs() -> None:
    data = island(seeds(everything(), compare="switched"))
    assert data["start"]["compare"] == "switched"
    labels = {(cell["recipe"], cell["label"], cell["adamw"]) for cell in data["cells"]}
    assert labels == {
        ("Devlin", "Devlin", True),
        ("Lee", "Lee", False),
        ("Ours", "Ours", True),
        ("neither", "corrected", True),
    }
    uncorrected = island(seeds(everything().query("not bias_correction")))
    assert "switched" not in uncorrected["choices"]["compare"]


def test_rates_count_as_the_failure_curve_does() -> None:
    table = pilot()
    curve = failure_curve(table)
    data = island(rates(table))
    found = pd.DataFrame(data["cells"])
    for name in ("learning_rate", "bias_correction", "runs", "failures"):
        assert found[name].tolist() == curve[name].tolist()
    means = table.groupby(["learning_rate", "bias_correction"])["score_last"].mean()
    assert found["mean"].to_numpy() == pytest.approx(100 * means.to_numpy())
    assert data["steps"] == {"3": 300, "10": 1_000, "20": 2_000}
    with pytest.raises(StabkitError, match="several values of epochs"):
        rates(everything().query("task == 'mini-rte'"))


def test_inside_thins_steps_and_digits_alone() -> None:
    runs = kinds()
    data = island(inside(runs))
    assert data["step"] == [*range(1, STEPS, 3), STEPS]
    for run, row in zip(data["runs"], runs.to_dict("records"), strict=True):
        kept = np.array(data["step"]) - 1
        loss = histories([row["key"]])[row["key"]]["loss"].rolling(20, min_periods=1).mean()
        assert run["loss"] == pytest.approx(loss.to_numpy()[kept], rel=1e-3)
        assert run["kind"] == ("failed" if row["failed"] else "successful")
        norms = gradients([row["key"]])[row["key"]]
        for name, columns in (("query", QUERY), ("feed-forward, out", OUT)):
            for layer in range(3):
                wanted = norms[columns.format(layer)].to_numpy()[kept]
                assert run["norms"][name][layer] == pytest.approx(wanted, rel=1e-3)
    assert len(data["tints"]) == 3
    assert data["entropy"] == 0.692
    assert data["start"]["at"] == len(data["step"]) - 1  # where the runs have ended


def test_inside_refuses_runs_that_cannot_be_set_side_by_side() -> None:
    runs = kinds()
    with pytest.raises(StabkitError, match="no successful run"):
        inside(runs[runs["failed"]])
    keys = list(runs["key"])
    mixed = gradients(keys[:1], 3) | gradients(keys[1:], 4)
    with pytest.raises(StabkitError, match=r"\[3, 4\] layers"):
        explorers.inside(runs, histories(keys), mixed, "A finding", "made up")
    thinned = {key: pd.DataFrame({"step": [1], "bert.encoder.layer.0": [1.0]}) for key in keys}
    with pytest.raises(StabkitError, match="kept whole"):
        explorers.inside(runs, histories(keys), thinned, "A finding", "made up")


@pytest.mark.parametrize("embeddings", [False, True])
def test_swap_knows_every_run_and_what_is_judged_at_every_k(embeddings: bool) -> None:
    table = swaps().query("embeddings == @embeddings")
    data = island(swap(swaps()))
    runs = [run for run in data["runs"] if run["embeddings"] == embeddings]
    for run, (_, rows) in zip(runs, table.groupby("run"), strict=True):
        assert (run["seed"], run["failed"]) == (rows["seed"].iloc[0], rows["failed"].iloc[0])
        assert run["nll"] == pytest.approx(rows["nll"].tolist(), rel=1e-3)
    told = data["told"][str(embeddings).lower()]
    for found, (times, gone) in zip(told, given_back(table), strict=True):
        assert times and found["times"] == pytest.approx(list(times), rel=1e-3)
        assert gone and found["gone"] == pytest.approx(list(gone), rel=1e-3, abs=1e-6)
    assert data["start"] == {"embeddings": False, "k": 5}
    shuffled = swaps().sample(frac=1, random_state=0).sort_values("run", kind="stable")
    mixed = {(run["seed"], run["embeddings"]): run["nll"] for run in island(swap(shuffled))["runs"]}
    assert mixed == {(run["seed"], run["embeddings"]): run["nll"] for run in data["runs"]}


def test_swap_says_what_too_few_runs_cannot_tell() -> None:
    failed = swaps().query("failed and not embeddings")
    explorer = swap(failed)
    assert [control.name for control in explorer.controls] == ["k"]
    (told,) = island(explorer)["told"].values()
    assert {one["times"] for one in told} == {None}
    lost = failed.assign(nll=np.where(failed["seed"] == 0, np.nan, failed["nll"]))
    assert island(swap(lost))["runs"][0]["nll"] == [None] * 13


def test_surface_has_the_numbers_of_its_planes() -> None:
    data = island(surface(planes()))
    for found, (_, plane) in zip(data["planes"], planes().groupby("key"), strict=True):
        rows = plane[["a", "b", "loss", "gradient_norm"]].to_numpy()
        np.testing.assert_allclose(found["points"], rows, rtol=1e-3)
        walked = between(plane).query("0 <= a <= 1")
        assert found["places"] == walked["a"].tolist()
        for value in data["values"]:
            assert found["heights"][value] == pytest.approx(walked[value].tolist(), rel=1e-3)
            wanted = [*heights(between(plane), value), barrier(between(plane), value)]
            assert found["barrier"][value] == pytest.approx(wanted, rel=1e-3)
            mesh = plane.pivot(index="b", columns="a", values=value).to_numpy()
            relief = found["figures"][value]["relief"]["data"][0]["z"]
            drawn = np.frombuffer(b64decode(relief["bdata"]), relief["dtype"])
            np.testing.assert_allclose(drawn, mesh.ravel(), rtol=1e-3)
        names = [name for name, *_ in found["corners"]]
        assert names == ["pre-trained", "failed", "successful"]
        assert found["corners"][1][1:4] == pytest.approx([1, 0, 0.701], rel=1e-3)
    assert len(with_paths().html()) < 150_000


def test_surface_offers_only_what_there_is() -> None:
    def controls(explorer: explorers.Explorer) -> list[str]:
        return [control.name for control in explorer.controls]

    everything = ["plane", "value", "view", "trajectories", "at"]
    assert controls(with_paths()) == everything
    paths = [list(plane["paths"]) for plane in island(with_paths())["planes"]]
    assert paths == [["failed", "successful"], []]
    assert "trajectories" not in controls(surface(planes(), pd.DataFrame({"key": []})))
    one = planes().query("key == 'plane0'").assign(gradient_norm=np.nan)
    assert controls(surface(one)) == ["view", "at"]
    other = inside_runs.plane(side=5).assign(
        key="other", failed_run="f", successful_run="s", model="mini-bert", task="mini-rte", **MADE
    )
    with pytest.raises(StabkitError, match="several grids"):
        surface(pd.concat([planes(), other]))
    with pytest.raises(StabkitError, match="neither loss nor gradient norm"):
        surface(one.assign(loss=np.nan))


def test_outside_of_the_book_an_explorer_is_a_page_in_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.delenv("STABKIT_BOOK", raising=False)
    explorer = rates(pilot())
    explorer._ipython_display_()
    monkeypatch.setenv("STABKIT_BOOK", "1")
    explorer._ipython_display_()
    framed, drawn = (html.data for html in shown)
    (inside,) = re.findall(r'<iframe title="[^"]+" style="[^"]+" srcdoc="([^"]*)">', framed)
    assert unescape(inside) == explorer.document()
    assert explorer.html() in explorer.document()
    assert drawn == explorer.html()


def test_the_book_and_a_notebook_read_the_same_scripts_in_the_same_order() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    names = [name for name, _ in config["html_js_files"]]
    assert names[0] == "plotly.min.js"
    assert [name for name in names if name in mechanism.SCRIPTS] == [*mechanism.SCRIPTS]
    assert {path.name for path in mechanism.PAGE.iterdir()} == {
        *mechanism.SCRIPTS,
        "frame.js",
        "explorers.css",
    }
    assert mechanism.PAGE.relative_to(ROOT).as_posix() in config["html_static_path"]


def test_the_reference_draws_evenly_and_its_interval_is_the_bootstrap_s() -> None:
    assert drawing.uniform(1, 3) == pytest.approx(
        [0.6270739405881613, 0.002735721180215478, 0.5274470399599522]
    )
    counts = np.bincount(drawing.drawn(5, 1, 4, times=40_000).ravel(), minlength=4)
    assert counts / 10_000 == pytest.approx(np.ones(4), abs=0.04)
    values = np.random.default_rng(3).normal(size=25)
    wanted = bootstrap(values, sample_std)
    assert drawing.std_interval(values) == pytest.approx((wanted.low, wanted.high), rel=0.02)


def test_rates_open_at_the_smallest_rate_at_which_an_uncorrected_run_fails() -> None:
    table = pilot()
    assert island(rates(table))["start"]["learning_rate"] == RATES[0]
    learned = (table["learning_rate"] == RATES[0]) & ~table["bias_correction"].astype(bool)
    table.loc[learned, ["failed", "constant", "flat_loss"]] = False
    table.loc[~learned, ["failed", "constant", "flat_loss"]] = True
    assert island(rates(table))["start"]["learning_rate"] == RATES[1]


def test_seeds_know_the_score_of_the_majority_class() -> None:
    (cell,) = island(seeds(methods().query("method == 'Ours'")))["cells"]
    assert cell["majority"] == pytest.approx(52)  # not its accuracy, here 50
