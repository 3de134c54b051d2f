"""The panel without a browser: values set, buttons pressed, threads awaited."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tiny

from stabkit import figures, precision, train, widgets
from stabkit.errors import ConfigError, StabkitError
from stabkit.presets import preset
from stabkit.store import Store
from stabkit.studies import LOOKS
from stabkit.tables import SIGNS
from stabkit.train import pin
from stabkit.widgets import answers, calibration, views
from stabkit.widgets import plan as plans
from stabkit.widgets.calibration import Speed, measure, pace
from stabkit.widgets.drawing import caption, figure
from stabkit.widgets.panel import StudyPanel
from stabkit.widgets.views import duration
from stabkit.workers import Lost

PATIENCE = 300  # seconds, for a machine that is busy
SPEED = Speed(start=1.0, step=0.5, example=0.01)
RATES = (1e-3, 2e-3)


@pytest.fixture(autouse=True)
def nothing_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(tmp_path / "published"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., StudyPanel]]:
    """Make panels on the tiny model and data whose runs are made up."""
    made: list[StudyPanel] = []

    def panel(**options: Any) -> StudyPanel:
        train, dev = tiny.data()
        given = {"model": tiny.model(), "task": train, "dev_file": dev, "batch_size": 8}
        given |= {"store": tmp_path / "store", "learning_rates": RATES, "seeds": 2}
        given |= {"max_steps": 3, "processes": 1, "run": fakes.judged}
        made.append(widgets.study_panel(**(given | options)))
        return made[-1]

    yield panel
    for one in made:
        one.end()
        assert one.wait(PATIENCE)


def known(panel: StudyPanel) -> StudyPanel:
    """Let the panel know how fast its runs are, as if they had been measured."""
    assert panel.plan is not None
    panel._speeds = dict.fromkeys(panel.plan.paces(), SPEED)
    panel._changed()
    return panel


def enter(panel: StudyPanel, **values: Any) -> None:
    for name, value in values.items():
        panel.form.fields[name].control.value = value


def beside(panel: StudyPanel, name: str) -> str:
    return str(panel.form.fields[name].message.value)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def trained(panel: StudyPanel) -> StudyPanel:
    known(panel).run.click()
    assert panel.wait(PATIENCE)
    return panel


def points(panel: StudyPanel) -> int:
    """Return how many runs the figure shows."""
    drawn = panel.stage.drawn
    return 0 if drawn is None else sum(len(t.x) for t in drawn.data if t.customdata is not None)


def test_importing_the_package_or_its_command_line_does_not_import_widgets() -> None:
    code = (
        "import sys, stabkit.cli, stabkit.pages, stabkit.figures, stabkit.explorers\n"
        "assert not {'ipywidgets', 'stabkit.widgets'} & set(sys.modules)\n"
        "import stabkit.widgets\n"
        "assert not {'ipywidgets', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_without_ipywidgets_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(widgets, "find_spec", lambda name: None)
    with pytest.raises(StabkitError, match=r"not installed; install it with pip install"):
        widgets.study_panel()


def test_in_the_built_book_a_sentence_says_how_to_get_a_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STABKIT_BOOK", "1")
    assert "needs a kernel" in widgets.study_panel().data


def test_the_plan_s_numbers_are_those_of_its_configurations(make: Any) -> None:
    panel = make()
    train, dev = tiny.data()
    base = preset("devlin", model=tiny.model(), task=train, dev_file=dev, max_steps=3, batch_size=8)
    expected = [
        pin(base).replace(learning_rate=rate, bias_correction=on, evals_per_epoch=LOOKS, seed=seed)
        for on in (False, True)
        for rate in RATES
        for seed in (0, 1)
    ]
    assert list(panel.plan.configs.values()) == expected
    enter(panel, methods=("Devlin", "Ours"), corrections="as the method has it", length="")
    configs = list(panel.plan.configs.values())
    assert {c.epochs for c in configs} == {None, 3, 20} - {None}
    steps = sum(config.steps(40) for config in configs)
    assert panel.plan.steps(configs) == steps == 4 * (3 * 5 + 20 * 5)
    assert f"8 runs, {steps:,} steps" in panel.cost.value
    known(panel)
    runs = [SPEED.seconds(config, 40, 24) for config in configs]
    assert panel.plan.seconds(configs, panel._speeds) == pytest.approx(sum(runs))
    assert duration(sum(runs)) in panel.cost.value


def test_the_precision_of_a_plan_may_be_what_the_device_does_best(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "best_precision", lambda device: "fp16")

    def planned(panel: StudyPanel) -> set[str]:
        assert panel.plan is not None
        return {config.precision for config in panel.plan.configs.values()}

    for given, found in ((None, "fp32"), ("bf16", "bf16"), ("auto", "fp16")):
        panel = make(**({"precision": given} if given else {}))
        assert panel.form.fields["precision"].control.value == (given or "fp32")
        assert planned(panel) == {found}
    for chosen, found in (("tf32", "tf32"), ("auto", "fp16")):
        enter(panel, precision=chosen)
        assert planned(panel) == {found}
    with pytest.raises(ConfigError, match="unknown precision 'fp61': did you mean 'fp16'"):
        make(precision="fp61")


def test_a_run_s_time_is_that_of_its_parts() -> None:
    config = tiny.config(epochs=2, evals_per_epoch=3)  # 10 steps of 8, scored 7 times
    assert SPEED.seconds(config, 40, 24) == pytest.approx(1 + 10 * 0.5 + (40 + 7 * 24) * 0.01)
    assert pace(config) == pace(config.replace(seed=7, learning_rate=1.0, epochs=9))
    assert pace(config) != pace(config.replace(mixout=0.9))


def test_cells_that_are_the_same_runs_are_planned_once(make: Any) -> None:
    panel = make(learning_rates=RATES[:1])
    enter(panel, methods=("Devlin", "Ours"))  # of one length they differ in the correction only
    assert [len(cell.configs) for cell in panel.plan.cells] == [2, 2]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rates", "abc", "&#x27;abc&#x27; is not a learning rate"),
        ("rates", "1e-4, -2", "&#x27;-2&#x27; is not a learning rate"),
        ("rates", "nan", "not a learning rate"),
        ("rates", " , ", "no learning rate; expected one or more"),
        (
            "rates",
            "1,5e-4",
            "&#x27;1&#x27; is not a learning rate; expected numbers between 0 and 1",
        ),
        (
            "seeds",
            "0",
            "&#x27;0&#x27; is not a valid number of seeds; expected a whole number from 1 to 1,000",
        ),
        ("seeds", "1001", "&#x27;1001&#x27; is not a valid number of seeds"),
        ("seeds", "9" * 5000, "not a valid number of seeds"),
        (
            "length",
            "10000001",
            "not a valid number of steps; expected a whole number from 1 to 10,000,000",
        ),
        ("seeds", "2.5", "not a valid number of seeds"),
        ("length", "-3", "&#x27;-3&#x27; is not a valid number of steps"),
        ("processes", "none", "not a valid number of runs at a time"),
        ("methods", (), "no method; choose one or more"),
        ("model", "mini-brt", "unknown shipped model"),
        ("model", "./nowhere", "no folder nowhere"),
        ("model", " ", "nothing chosen"),
        ("task", "mini-rta", "unknown task"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(make: Any, name: str, text: Any, said: str) -> None:
    panel = known(make(dev_file=None) if name == "task" else make())
    before = panel.form.fields[name].control.value
    assert not panel.run.disabled
    enter(panel, **{name: text})
    assert said in beside(panel, name)
    assert not any(
        beside(panel, other) for other in panel.form.fields if other not in (name, "model")
    )
    assert panel.run.disabled and panel.measure.disabled and panel.plan is None
    panel.run.click()
    assert not panel.busy
    enter(panel, **{name: before})
    assert said not in beside(panel, name) and not panel.run.disabled


def test_a_run_s_mark_says_what_became_of_it(make: Any) -> None:
    plan = make(learning_rates=RATES[:1]).plan
    results = [
        fakes.judged(config, failed=failed, flat_loss=flat, score_last=0.625)
        for config, failed, flat in zip(
            plan.configs.values(), (True, False, False), (True, True, False), strict=False
        )
    ]
    table = pd.DataFrame([{"key": r.config.key, **r.summary} for r in results])
    shown = views.progress(plan, table, {}, {})
    marks = re.findall('<i class="([a-z]+)" role="img" aria-label="seed ([0-9]+): ([^"]+)"', shown)
    flat = SIGNS["flat_loss"]
    assert marks == [
        ("failed", "0", f"failed; {flat}, 62.5"),
        ("nothing", "1", f"not failed; {flat}, 62.5"),
        ("successful", "0", "not failed, 62.5"),
        ("waiting", "1", "not done yet"),
    ]


def test_numbers_are_read_once_and_whole() -> None:
    assert plans.numbers("1e-4, 2e-4,1e-4,", "rate") == (1e-4, 2e-4)
    assert plans.count(" 12 ", "seeds") == 12
    with pytest.raises(ConfigError):
        plans.count("1e3", "seeds")


def test_runs_land_one_by_one_and_the_figure_has_each(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make()
    seen: list[tuple[int, int]] = []
    draw = panel._draw

    def watched(*arguments: Any) -> None:
        draw(*arguments)
        seen.append((points(panel), panel.marks.value.count('class="waiting" role')))

    monkeypatch.setattr(panel, "_draw", watched)
    trained(panel)
    assert {shown for shown, _ in seen} == set(range(9))
    assert seen[-1] == (8, 0)
    assert panel.marks.value.count('class="successful" role') == 8
    assert panel.status.value == '<p role="status">Finished: all 8 runs are stored.</p>'
    assert "Stored already</dt><dd>8 of 8" in panel.cost.value
    table = Store(panel.archive.store.path).table(panel.plan.configs.values())
    assert panel.stage.drawn == figure(table.assign(cell=""))


def test_stored_runs_are_drawn_at_once_and_not_done_again(make: Any, tmp_path: Path) -> None:
    trained(make(run=fakes.noted_judged))
    panel = make(run=fakes.noted_judged, seeds=3)
    assert points(panel) == 8 and "To do</dt><dd>4 runs, 12 steps" in panel.cost.value
    trained(panel)
    assert points(panel) == 12
    assert len((tmp_path / "log").read_text().splitlines()) == 12


def test_stop_keeps_what_is_finished_and_run_goes_on(make: Any) -> None:
    panel = make(learning_rates=RATES[:1], seeds=4, run=fakes.endless_judged)
    enter(panel, corrections="on")
    known(panel).run.click()
    until(lambda: points(panel) == 2 and 'class="started" role' in panel.marks.value)
    assert panel.run.disabled and panel.measure.disabled and not panel.stop.disabled
    began = time.monotonic()
    panel.stop.click()
    assert panel.wait(PATIENCE)
    assert time.monotonic() - began < 60
    assert "Stopped: 2 of 4 runs are stored; Run goes on from there." in panel.status.value
    assert points(panel) == 2 and panel.stop.disabled and not panel.run.disabled
    panel._run = fakes.judged
    assert points(trained(panel)) == 4


def test_a_later_panel_ends_the_training_of_an_earlier_one(make: Any) -> None:
    first = make(run=fakes.endless_judged, seeds=4)
    known(first).run.click()
    until(lambda: points(first) >= 2)
    make()
    assert first.wait(PATIENCE) and "Stopped: 2 of 16" in first.status.value


def test_runs_that_raise_are_counted_and_the_others_kept(make: Any) -> None:
    panel = trained(make(run=fakes.raising_judged))
    assert "4 runs ended in an error; the others are kept" in panel.notice.value
    assert "ZeroDivisionError: no such luck" in panel.notice.value
    assert panel.marks.value.count('class="raised" role') == 4
    assert not panel.run.disabled


def test_a_store_of_another_version_is_named_and_goes_on(make: Any) -> None:
    panel = trained(make())
    rows = sorted((panel.archive.store.path / "runs").glob("*.parquet"))
    table = pq.read_table(rows[0])
    pq.write_table(table.replace_schema_metadata({"stabkit": "99"}), rows[0])
    panel = make()
    assert "has schema version 99; this stabkit reads version" in panel.notice.value
    assert "counts as not run yet" in panel.notice.value
    assert "To do</dt><dd>1 run, 3 steps" in panel.cost.value


def test_without_published_runs_that_can_be_read_it_goes_on(make: Any, tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "runs.parquet").write_text("no parquet")
    panel = make()
    assert "Continuing without the published runs" in panel.notice.value
    assert known(panel).plan is not None and not panel.run.disabled


def test_an_argument_that_no_run_has_is_named(make: Any) -> None:
    panel = make(lable_column="topic")
    assert "unknown option &#x27;lable_column&#x27;: did you mean" in panel.notice.value
    assert panel.run.disabled and panel.measure.disabled


def test_an_absent_hub_and_a_missing_gpu_are_said(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    panel = make()
    enter(panel, model="some-lab/some-model")
    assert "No GPU here" in beside(panel, "model")
    assert "Press Measure" in panel.cost.value and not panel.measure.disabled
    panel.measure.click()
    assert panel.wait(PATIENCE)
    assert "the hub did not give it" in panel.notice.value
    assert "shipped models: " in panel.notice.value and "mini-bert, " in panel.notice.value
    assert panel.run.disabled
    enter(panel, model="mini-bert")
    assert "hub" not in panel.notice.value and panel.plan is not None


@pytest.mark.slow
def test_measuring_does_real_steps_and_lets_run(make: Any) -> None:
    panel = make()
    assert panel.run.disabled and panel.measure.button_style == "primary"
    panel.measure.click()
    assert panel.wait(PATIENCE)
    assert "Measured: a step takes" in panel.status.value
    (speed,) = panel._speeds.values()
    assert speed.step > 0 and speed.example > 0
    assert panel.measure.disabled and panel.run.button_style == "primary"
    panel._run = None
    panel.run.click()
    assert panel.wait(PATIENCE)
    assert "all 8 runs are stored" in panel.status.value and points(panel) == 8


@pytest.mark.parametrize("executor", ["fast", "graph"])
def test_speed_is_that_of_the_device_s_own_executor(
    monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    asked, real = [], train.trainer
    monkeypatch.setattr(train, "choose_device", lambda: tiny.CPU)
    monkeypatch.setattr(train, "best_executor", lambda device: executor)

    def watched(*arguments: Any) -> train.Trainer:
        asked.append(real(*arguments))
        return asked[-1]

    monkeypatch.setattr(train, "trainer", watched)
    speed = measure(tiny.config())
    assert isinstance(speed, Speed) and speed.step > 0 and speed.example > 0
    assert [one.executor for one in asked] == [executor]


def test_what_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    said = measure(tiny.config(max_length=4096))
    assert isinstance(said, str) and "max_length is 4096" in said


def made_up(panel: StudyPanel, **summary: Any) -> pd.DataFrame:
    """Return the table of all runs of a panel's plan, as if they had been done."""
    for config in panel.plan.configs.values():  # type: ignore[union-attr]
        panel.archive.store.put(fakes.judged(config, **summary))
    panel.archive.look()
    return panel.archive.table(panel.plan)  # type: ignore[arg-type]


def test_seeds_are_trained_at_once_where_asked(make: Any) -> None:
    panel = known(make(run=None, max_steps=2, learning_rates=(1e-3,), seeds_at_once=2))
    assert "Trained as one batched model" in beside(panel, "at_once")
    panel.run.click()
    assert panel.wait(PATIENCE)
    assert "are stored" in panel.status.value, panel.notice.value
    assert set(panel.runs()["executor"]) == {"together"}
    enter(panel, at_once="0")
    assert "seeds at once" in beside(panel, "at_once") and panel.run.disabled


def test_what_the_panel_s_runs_answer_is_told_once_there_are_enough(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make(max_steps=None, learning_rates=(1e-3,), seeds=3)
    assert widgets.explored(panel).data == widgets.diagnosed(panel).data == answers.NONE_YET
    for config in list(panel.plan.configs.values())[:2]:
        panel.archive.store.put(fakes.judged(config))
    assert "no cell has 3 runs" in widgets.explored(panel).data
    table = made_up(panel, failed=True, flat_loss=True, train_accuracy=0.5)
    explorer = widgets.explored(panel)
    assert [len(cell["runs"]) for cell in explorer.data["cells"]] == [3, 3]
    told = widgets.diagnosed(panel).data
    for cell in table["cell"].unique():
        assert f"**{cell.replace('<br>', ', ')}. As you train**" in told
    assert told.count("3 of 3 runs fail") + told.count("3 of the 3 failed runs") >= 2
    mixed = table.assign(hardware=["Another CPU", *table["hardware"][1:]])
    monkeypatch.setattr(panel, "runs", lambda: mixed)
    for told in (widgets.explored(panel).caption, widgets.diagnosed(panel).data):
        assert "compare with care: the runs are of several hardware classes" in told
        assert "cpu, Another CPU" in told
    monkeypatch.setenv("STABKIT_BOOK", "1")
    assert widgets.explored(None).data == answers.WITHOUT_KERNEL  # type: ignore[arg-type]


def test_rates_and_correction_are_drawn_as_in_figure_5_methods_as_in_figure_1(make: Any) -> None:
    panel = make()
    assert figure(made_up(panel)) == figures.arms(made_up(panel))
    enter(panel, methods=("Devlin", "Lee"), corrections="as the method has it")
    table = made_up(panel)
    assert figure(table) == figures.seed_scores(table, group="cell")
    assert [*table["cell"].unique()] == [
        f"{method}<br>{rate}" for method in ("Devlin", "Lee") for rate in ("1e-3", "2e-3")
    ]
    tints = {
        trace.name: trace.marker.color
        for trace in figure(table).data
        if trace.name in {*table["cell"]}
    }
    assert tints == {name: figures.PALETTE[name.split("<br>")[0]] for name in table["cell"]}


def test_runs_of_several_machines_are_drawn_with_a_word_of_care(make: Any) -> None:
    table = made_up(make())
    assert caption(table).startswith("0 of 8 runs failed. Scale: ")
    table.loc[0, "hardware"] = "Another CPU"
    assert "compare with care: the runs are of several hardware classes" in caption(table)


def test_cells_are_called_what_they_are(make: Any) -> None:
    panel = make(first_seed=7)
    assert [
        (cell.name, cell.configs[0].bias_correction, cell.configs[0].learning_rate)
        for cell in panel.plan.cells
    ] == [
        (f"Devlin<br>{name}<br>{rate}", on, float(rate))
        for name, on in (("uncorrected", False), ("corrected", True))
        for rate in ("1e-3", "2e-3")
    ]
    assert [config.seed for config in panel.plan.cells[0].configs] == [7, 8]
    for chosen, on in (("on", True), ("off", False)):
        enter(panel, corrections=chosen)
        assert {config.bias_correction for config in panel.plan.configs.values()} == {on}


def test_as_many_runs_are_trained_at_a_time_as_asked(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def swept(configs: Any, store: Store, processes: int, *_: Any, **options: Any) -> Any:
        asked.extend((processes, options["seeds_at_once"]))
        return configs

    monkeypatch.setattr("stabkit.widgets.panel.sweep", swept)
    panel = known(make(processes=3, seeds_at_once=7))
    assert "3 runs at a time" in panel.cost.value
    trained(panel)
    assert asked == [3, 7] and "Finished" in panel.status.value


def test_a_speed_is_that_of_one_step_and_one_example(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((2.0, 6.0, 1.0))  # to build, to train and score, to score
    monkeypatch.setattr(calibration, "_seconds", lambda work: (next(clock), work()))
    assert measure(tiny.config()) == Speed(2.0, (6.0 - 1.0) / calibration.TIMED, 1.0 / 24)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Lost("its process was killed"), "nothing was measured, because its process was killed"),
        ("max_length is 4096", "^max_length is 4096$"),
    ],
)
def test_what_ends_a_measurement_is_raised(
    found: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "spread", lambda todo, *_, **__: [(todo[0], found)])
    with pytest.raises(StabkitError, match=said):
        list(calibration.calibrate([tiny.config()], threading.Event()))


def test_what_may_come_from_the_hub_is_told_from_what_is_here() -> None:
    assert plans.fetched(tiny.model(), "rte")
    assert plans.fetched("some-lab/some-model", "mini-rte")
    assert not plans.fetched(tiny.model(), "mini-rte")


def test_a_gpu_has_one_run_at_a_time_and_each_core_one_up_to_four(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for cores, runs in ((1, 1), (3, 3), (64, 4)):
        usable = set(range(cores))
        monkeypatch.setattr("os.sched_getaffinity", lambda _, found=usable: found, raising=False)
        assert calibration.usable_processes() == runs
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert calibration.usable_processes() == 1


def test_a_control_that_moves_while_measuring_does_no_harm(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make()

    def calibrated(paces: Any, stop: threading.Event) -> Iterator[Any]:
        for one in paces:
            enter(panel, methods=("Lee",))  # whose runs go at another speed
            yield one, SPEED

    monkeypatch.setattr("stabkit.widgets.panel.calibrate", calibrated)
    panel.measure.click()
    assert panel.wait(PATIENCE)
    assert "Measured: a step takes 500 ms" in panel.status.value
    assert not panel.measure.disabled


def test_runs_whose_rate_is_divided_by_the_multiplier_have_a_pace(make: Any) -> None:
    panel = make(multiplier="divided")
    enter(panel, corrections="off")
    assert not panel.measure.disabled
    assert {config.multiplier for config in panel.plan.configs.values()} == {"divided"}
