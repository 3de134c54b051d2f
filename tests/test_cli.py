"""The command line as a user meets it: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import fakes
import pandas as pd
import pytest
import tiny
import torch

from stabkit import analyses, cli, options, places, scales, studies, train
from stabkit.config import RunConfig
from stabkit.errors import UnreachableError
from stabkit.presets import preset
from stabkit.records import hardware
from stabkit.results import RunResult
from stabkit.shelf import Shelf
from stabkit.store import Store
from stabkit.sweep import sweep
from stabkit.tables import SIGNS

ROOT = Path(__file__).parents[1]
PLACES = ("STABKIT_DATA", "STABKIT_STORE", "STABKIT_RESULTS")
COMMANDS = (
    "run",
    "diagnose",
    "explain",
    "study",
    "table",
    "show",
    "analyse",
    "publish",
    "presets",
    "settings",
    "studies",
)
QUICK = ("--learning-rate", "1e-3", "--max-steps", "2", "--batch-size", "8", "--max-length", "32")


class Said(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def stabkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the command line in this process, in an empty folder without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(places, "__file__", str(tmp_path / "site" / "stabkit" / "places.py"))
    for name in PLACES:
        monkeypatch.setenv(name, "to be restored as it was")
        monkeypatch.delenv(name)

    def command(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["stabkit", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return Said(int(end.value.code or 0), said.out, said.err)

    return command


def own_files() -> tuple[str, ...]:
    train_file, dev_file = tiny.data()
    return ("--model", tiny.model(), "--task", train_file, "--dev-file", dev_file)


def only_run(folder: str = "runs") -> RunConfig:
    (row,) = Store(folder).table().to_dict("records")
    return RunConfig.from_row(row)


def never(config: RunConfig, **options: object) -> RunResult:
    raise AssertionError("done again")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_says_how_to_use_it(stabkit: Command, command: tuple[str, ...]) -> None:
    said = stabkit(*command, "--help")
    assert said.status == 0 and not said.err
    assert all(name in said.out for name in (command or COMMANDS))
    assert stabkit(*command, "-h") == said


def test_reading_commands_import_neither_torch_nor_ray(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for config in fakes.grid(3):
        store.put(fakes.judged(config))
    store.compact(tmp_path / "results")
    key, damaged = fakes.grid(1)[0].key, tmp_path / "runs" / "runs" / "0123.parquet"
    damaged.write_bytes(b"PAR1")
    program = (
        "import sys\nfrom stabkit.cli import main\n"
        "read = ['--help', 'table', 'table --runs', 'explain', 'presets', 'settings', 'studies']\n"
        f"for line in [*read, 'show {key}']:\n"
        "    sys.argv = ['stabkit', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, line\n"
        "heavy = {'torch', 'transformers', 'datasets', 'ray', 's3fs', 'upath'}\n"
        "sys.exit(str(heavy & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    warning, imported = done.stderr.splitlines()
    assert imported == "set()"
    assert warning.startswith("stabkit: runs/runs/0123.parquet is truncated")
    assert key in done.stdout


def test_module_and_version() -> None:
    command = [sys.executable, "-m", "stabkit", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"stabkit {cli.__version__}\n", "")


def test_own_file_from_run_to_show(stabkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (*own_files(), "--text-columns", "sentence1,sentence2", "--label-column", "label")
    said = stabkit("run", "--preset", "devlin", "--seed", "3", *QUICK, *chosen)
    assert said.status == 0, said.err
    config = only_run()
    assert config.seed == config.head_seed == 3
    assert config.text_columns == ("sentence1", "sentence2") and config.label_column == "label"
    assert (config.epochs, config.max_steps, config.bias_correction) == (None, 2, False)
    assert f"seed 3, run {config.key}" in said.out and "after 2 steps" in said.out

    monkeypatch.setattr(train, "run", never)
    assert stabkit("run", "--preset", "devlin", "--seed", "3", *QUICK, *chosen).out == said.out
    assert config.key in stabkit("table", "--runs").out
    assert "1 runs; cpu" in stabkit("table").out.replace("cuda", "cpu")
    shown = [line.split(maxsplit=1) for line in stabkit("show", config.key[:6]).out.splitlines()]
    assert ["learning_rate", "0.001"] in shown
    assert ["text_columns", "sentence1, sentence2"] in shown


@pytest.mark.parametrize("preset", ["devlin", "lee", "ours"])
def test_every_preset_trains(stabkit: Command, preset: str) -> None:
    said = stabkit("run", "--preset", preset, *own_files(), *QUICK, "--set", "eps=1e-8")
    assert said.status == 0, said.err
    config = only_run()
    assert (config.mixout, config.bias_correction) == (0.9 * (preset == "lee"), preset == "ours")
    assert config.eps == 1e-8


@pytest.fixture(params=[True, False], ids=["bf16", "fp32"])
def best(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Pretend that this is a processor, with bf16 or without."""
    monkeypatch.setattr(train, "choose_device", lambda: tiny.CPU)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    return "bf16" if request.param else "fp32"


def test_a_precision_that_the_device_chooses_is_part_of_the_run_s_name(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch, best: str
) -> None:
    asked = ("run", *own_files(), *QUICK)
    said = stabkit(*asked, "--precision", "auto")
    assert said.status == 0 and f"precision: {best}\n" in said.err
    assert only_run().precision == best
    monkeypatch.setattr(train, "run", never)
    for same in (("--precision", best), ("--set", "precision=auto")):
        assert stabkit(*asked, *same).out == said.out


def test_a_diagnosis_takes_a_precision(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch, best: str
) -> None:
    monkeypatch.setattr(train, "run", unstable)
    for given, found in (("auto", best), ("fp16", "fp16")):
        command = ("diagnose", *own_files(), "--seeds", "2", "--precision", given)
        assert stabkit(*command, "--store", given).status == 0
        assert set(Store(given).table()["precision"]) == {found}


def test_a_diagnosis_trains_seeds_at_once(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[list[int]] = []

    def together(configs: Sequence[RunConfig]) -> list[RunResult]:
        groups.append([config.seed for config in configs])
        return [unstable(config) for config in configs]

    monkeypatch.setattr(train, "run", unstable)
    monkeypatch.setattr(train, "run_seeds", together)
    asked = ("diagnose", *own_files(), "--preset", "devlin", "--seeds", "4")
    said = stabkit(*asked, "--seeds-at-once", "2")
    assert said.status == 0 and groups[:2] == [[0, 1], [2, 3]]
    assert "The same seeds with the remedy" in said.err and len(groups) == 4


def test_published_task_from_a_local_folder(stabkit: Command, tmp_path: Path) -> None:
    (tmp_path / "glue" / "rte").mkdir(parents=True)
    for name in ("train", "dev"):
        (tmp_path / "glue" / "rte" / f"{name}.jsonl").write_text(
            '{"sentence1": "a", "sentence2": "b", "label": 0}\n'
            '{"sentence1": "c", "sentence2": "d", "label": 1}\n'
        )
    asked = ("run", "--task", "rte", "--model", tiny.model(), *QUICK)
    said = stabkit(*asked, "--data-dir", "glue", "--store", "other")
    assert said.status == 0, said.err
    assert only_run("other").task == "rte"


def test_the_shipped_model_trains_without_network(stabkit: Command) -> None:
    said = stabkit("run", "--preset", "devlin", "--train-size", "16", *QUICK)
    assert said.status == 0, said.err
    assert only_run().model == "mini-bert"


def test_mini_models_take_the_rate_of_the_pilot(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "PILOT", range(1000, 1002))
    monkeypatch.setattr(studies, "PILOT_RATES", (1e-4, 2e-4, 4e-4))
    done: list[RunConfig] = []

    def stop(config: RunConfig, **options: object) -> RunResult:
        done.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", stop)
    monkeypatch.setattr(train, "pin", lambda config: config.replace(**fakes.DIGESTS))
    asked = ("run", "--preset", "devlin")
    assert "12 of its 12 runs are not in runs" in stabkit(*asked).err
    store = Store("published")
    for config in studies.pilot():
        failed = config.learning_rate > 2e-4 or not config.bias_correction
        store.put(fakes.judged(config.replace(**fakes.DIGESTS), failed=failed))
    store.compact()
    shown = stabkit("table", "--results", "published")
    assert "12 runs" in shown.out
    assert shown.err == "no runs in runs yet; these are the published ones\n"
    assert stabkit("table", "--results", "published", "--published") == shown._replace(err="")
    said = stabkit(*asked, "--results", "published")
    assert said.status == 130
    assert "start the same again" in said.err and "Traceback" not in said.err
    assert [config.learning_rate for config in done] == [2e-4]


def test_publishing_gathers_all_runs_and_keeps_the_gradients_that_are_shown(
    stabkit: Command,
) -> None:
    assert "no folder runs" in stabkit("publish").err
    Path("runs").mkdir()
    assert "no runs of a study in runs" in stabkit("publish").err
    of_no_study = preset("devlin", seed=1, learning_rate=2e-4, **fakes.DIGESTS)
    Store("runs").put(fakes.judged(of_no_study))
    recipe = studies.table_1(2e-4)[0].replace(**fakes.DIGESTS)
    for part in (range(3), range(3, 6)):
        for seed in part:
            Store("runs").put(fakes.judged(recipe.replace(seed=seed), failed=seed < 5))
        Shelf("runs").put("layer-swaps", f"{part.stop}", pd.DataFrame({"k": [0]}))
        said = stabkit("publish")
        assert (said.status, said.out) == (0, f"{part.stop} runs, layer-swaps are in results\n")
        assert said.err == "left out: 1 runs of no study\n"
    assert Shelf("none", base="results").keys("layer-swaps") == {"3", "6"}
    published = Store("results").table()
    assert published.sort_values("seed")["failed"].tolist() == [True] * 5 + [False]
    whole = {
        seed: "layer.0.query.weight" in Store("results").gradients(key)
        for key, seed in zip(published["key"], published["seed"], strict=True)
    }
    assert whole == {0: True, 1: True, 2: True, 3: False, 4: False, 5: True}


def test_an_analysis_is_made_once(stabkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyses, "SIDE", 2)
    for seed in range(2):
        result = tiny.train(tiny.config(max_steps=1, epochs=None, seed=seed))
        verdicts = dict.fromkeys(SIGNS, seed == 1)
        Store("runs").put(replace(result, summary=result.summary | verdicts))
    which = ("--model", tiny.model(), "--task", tiny.data()[0])
    said = stabkit("analyse", "layer-swap", *which)
    assert said.status == 2
    assert "no configuration has 3 failed and 3 successful runs" in said.err
    first = stabkit("analyse", "surface", *which)
    assert (first.status, first.out) == (0, "kept in runs\n"), first.err
    assert "(seed 1, learning rate 1e-3)" in first.err
    monkeypatch.setattr(analyses, "trained_model", never)
    again = stabkit("analyse", "surface", *which)
    assert (again.status, again.err) == (0, first.err.replace("\n", ": is there\n"))
    found = Shelf("runs").table("loss-surfaces")
    assert found["examples"].tolist() == [40] * 4  # all that there are


def test_a_study_from_dry_run_to_table(stabkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny.config(max_steps=2, epochs=None)

    def grid(rate: float) -> list[RunConfig]:
        runs = studies.grid(base.replace(learning_rate=rate), range(4))
        return runs + [run.replace(model=base.model + "-none") for run in runs]

    study = studies.Study("few", "a few runs", grid)
    monkeypatch.setitem(studies.STUDIES, "few", study)
    asked = ("study", "few", "--model", base.model, "--seeds", "1:3", "--learning-rate", "1e-3")
    said = stabkit(*asked, "--dry-run")
    assert (said.status, said.out) == (0, "")
    assert said.err.endswith("few: 2 runs, 0 done, 2 to do\n")
    said = stabkit(*asked)
    assert said.status == 0, said.err
    assert set(Store("runs").table()["seed"]) == {1, 2}
    monkeypatch.setattr(train, "run", never)
    assert stabkit(*asked).out == said.out == stabkit("table", "few", *asked[-2:]).out

    monkeypatch.setattr(train, "run", lambda config: (_ for _ in ()).throw(KeyboardInterrupt))
    said = stabkit("study", "few", "--model", base.model, "--learning-rate", "1e-3")
    assert said.status == 130
    assert "stopped: 2 of 4 runs are in runs; start the same again" in said.err


def test_a_study_trains_seeds_at_once_where_asked(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.config(max_steps=2, epochs=None)
    study = studies.Study("few", "", lambda rate: studies.grid(base, range(3)), needs_rate=False)
    monkeypatch.setitem(studies.STUDIES, "few", study)
    said = stabkit("study", "few", "--seeds-at-once", "2")
    assert said.status == 0, said.err
    here = train.best_executor(train.choose_device())
    trained = Store("runs").table(studies.grid(train.pin(base), range(3)))
    assert list(trained["executor"]) == ["together", "together", here]


def test_a_study_at_the_paper_s_scale_takes_large_models_and_published_data(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = stabkit("study", "table1-rte", "--scale", "paper", "--dry-run")
    assert said.status == 2 and "'bert-large-uncased'" in said.err
    lines = [json.dumps({"sentence1": "a", "sentence2": "b", "label": n % 2}) for n in range(32)]
    (tmp_path / "rte").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "rte" / f"{split}.jsonl").write_text("\n".join(lines))
    monkeypatch.setitem(scales.MODELS, "mini-bert", tiny.model())
    asked = ("table1-rte", "--scale", "paper", "--learning-rate", "1e-4")
    done = ("--seeds", "0:1", "--precision", "bf16", "--data-dir", str(tmp_path))
    said = stabkit("study", *asked, *done)
    assert said.status == 0, said.err
    assert "table1-rte: 3 runs, 0 done, 3 to do" in said.err
    table = Store("runs").table()
    assert set(table["task"]) == {"rte"} and set(table["precision"]) == {"bf16"}
    assert stabkit("table", *asked).out == said.out
    cluster = ("--executor", "ray", "--address", "head:1", "--precision", "auto")
    assert "name a precision: bf16" in stabkit("study", *asked, *cluster).err


def test_a_study_does_not_mix_hardware(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = tiny.config(max_steps=2, epochs=None)
    study = studies.Study("few", "", lambda rate: studies.grid(base, range(2)), needs_rate=False)
    monkeypatch.setitem(studies.STUDIES, "few", study)
    here = train.run(base)
    elsewhere = replace(here, summary=here.summary | {"hardware": "Another CPU"})
    results = tmp_path / "published"
    Store(results).put(elsewhere)
    Store(results).compact()
    asked = ("study", "few", "--results", str(results))
    assert stabkit(*asked, "--dry-run").err == "few: 2 runs, 1 done, 1 to do\n"
    said = stabkit(*asked)
    assert said.status == 2
    assert "1 runs that these would be compared with were made on Another CPU" in said.err
    assert not Path("runs/runs").exists()
    said = stabkit(*asked, "--anew")
    assert said.status == 0, said.err
    assert stabkit("publish", "--results", str(results)).status == 0
    published = Store(results).table()
    assert len(published) == 2
    assert set(published["hardware"]) == {here.summary["hardware"]}


MISTAKES = {
    "run --task mini-rtee": "did you mean 'mini-rte'",
    "run --preset devil": "did you mean 'devlin'",
    "run --model mini-brt": "unknown shipped model 'mini-brt'",
    "run --model ./nowhere": "no folder nowhere",
    "run --task nowhere.csv": "file not found: nowhere.csv",
    "run --learning-rate 0": "learning_rate is 0.0; expected a number above 0",
    "run --batch-size -1": "batch_size is -1; expected a number above 0",
    "run --warmup 1.5": "warmup is 1.5; expected a share from 0 to 1",
    "run --epochs 3 --max-steps 5": "set exactly one of them",
    "run --set eps_placment=after": "did you mean 'eps_placement'",
    "run --set eps": "--set eps: expected FIELD=VALUE",
    "run --set eps=tiny": "eps is 'tiny'; expected a finite float",
    "run --set segments=maybe": "segments is 'maybe'; expected bool",
    "run --lerning-rate 1": "--learning-rate",
    "run --precision fp8": "fp16",
    "run --set precision=8": "unknown precision '8': choose from auto, bf16",
    "run --task mrpc --data-dir nowhere": "no folder nowhere (data folder)",
    "diagnose --epochs 3 --max-steps 5": "set exactly one of them (--epochs or --max-steps)",
    "diagnose --set head_seed=5": "head_seed cannot be set for all runs",
    "runn": "run",
    "study table-rte": "did you mean 'table1-rte'",
    "study table1-rte": "140 of its 140 runs are not in runs",
    "study pilot-rte --seeds 0:5": "the study has seeds 1000 to 1009 only",
    "study pilot-rte --seeds 5": "expected A:B",
    "study pilot-rte --processes 0": "--processes",
    "study pilot-rte --seeds-at-once 0": "--seeds-at-once",
    "study pilot-rte --seeds-at-once -3": "--seeds-at-once",
    "study pilot-rte --seeds-at-once many": "--seeds-at-once",
    "study pilot-rte --gpus 1": "--gpus without a cluster; add --executor ray",
    "study pilot-rte --address h:1 --cpus 2": "--address and --cpus without a cluster",
    "analyse surface": "no runs of mini-bert on mini-rte in runs",
    "analyse swap": "'swap' is not one of 'layer-swap', 'surface'",
    "table": "no runs in runs",
    "explain": "no runs in runs; --store names another folder",
    "table --results nowhere": "nothing is published in nowhere yet",
    "table pilot-rte": "no runs of pilot-rte in runs",
    "show 0123": "0 of the 0 runs in runs and among the published ones",
    "run --task semi.csv": "its fields seem to be separated by ';': save it with commas",
    "run --task both.csv --text-columns text,label": "'label' is a text column and the label",
    "table --store semi.csv": "semi.csv is a file; expected a folder for runs",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_named_in_a_sentence(stabkit: Command, line: str) -> None:
    Path("semi.csv").write_text("text;label\na, b;1\n", encoding="utf-8")
    Path("both.csv").write_text("text,label\na,1\nb,0\n" * 3, encoding="utf-8")
    said = stabkit(*line.split())
    assert said.status == 2 and not said.out
    assert MISTAKES[line] in said.err
    assert "Traceback" not in said.err


def test_a_store_that_cannot_be_written_is_named(stabkit: Command) -> None:
    Path("file").write_text("in the way")
    said = stabkit("run", *own_files(), *QUICK, "--store", "file/runs")
    assert said.status == 2
    assert said.err.splitlines()[-1].startswith("stabkit: cannot write file/runs")


def test_a_store_that_does_not_answer_for_a_while_loses_no_run(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, asked = Store.put, []

    def late(store: Store, result: RunResult) -> None:
        asked.append(result)
        if len(asked) == 1:
            raise UnreachableError("nobody answers")
        put(store, result)

    monkeypatch.setattr(Store, "put", late)
    monkeypatch.setattr("stabkit.sweep.PAUSES", (0,))
    with pytest.warns(UserWarning, match="nobody answers"):
        assert stabkit("run", *own_files(), *QUICK).status == 0
    assert len(asked) == 2 and only_run()


def test_a_damaged_run_is_named_and_done_again(stabkit: Command) -> None:
    asked = ("run", "--preset", "devlin", *own_files(), *QUICK)
    first = stabkit(*asked)
    path = Path("runs", "runs", f"{only_run().key}.parquet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=f"{path} is truncated"):
        said = stabkit(*asked)
    assert said.status == 0 and said.out.splitlines()[:2] == first.out.splitlines()[:2]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("clip_norm", "none", None),
        ("clip_norm", "0.5", 0.5),
        ("epochs", "None", None),
        ("batch_size", "none", "none"),
        ("zero_first_update", "False", False),
        ("text_columns", "a,b", ("a", "b")),
        ("label_column", "none", None),
        ("model", "12", "12"),
        ("pooler", "new", "new"),
        ("no_field", "x", "x"),
        ("head_seed", "9007199254740993", 9007199254740993),
        ("warmup", "0", 0.0),
    ],
)
def test_texts_become_values_of_their_field(name: str, text: str, value: object) -> None:
    assert options.setting(f"{name}={text}") == (name, value)


def unstable(config: RunConfig, **_: object) -> RunResult:
    """Fail without bias correction."""
    failed = not config.bias_correction
    score = 0.5 if failed else 0.8 + config.seed / 100
    here = hardware(torch.device("cpu"))
    judged = {"failed": failed, "flat_loss": failed, "score_last": score, "train_accuracy": score}
    result = fakes.judged(config, **judged, steps=100)
    return replace(result, summary={**result.summary, "hardware": here})


def test_a_diagnosis_trains_tells_and_mends(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", unstable)
    command = ("diagnose", *own_files(), "--preset", "devlin", "--seeds", "4")
    said = stabkit(*command)
    assert said.status == 0
    assert "4 of 4 runs fail" in said.out and "unstable" not in said.out
    assert "TrainingArguments(num_train_epochs=20, optim='adamw_torch')" in said.out
    assert "4 of 4 as you train, 0 of 4 with the remedy" in said.out
    assert "the remedy helps: train with it" in said.out
    assert "4 runs of" in said.err and "4 to do" in said.err
    monkeypatch.setattr(train, "run", never)
    assert stabkit(*command).out == said.out


def test_a_verdict_alone_trains_no_remedy(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", unstable)
    command = ("diagnose", *own_files(), "--preset", "devlin", "--seeds", "2", "--verdict-only")
    assert "With the remedy" not in stabkit(*command).out
    assert len(Store("runs")) == 2


def test_stored_runs_are_explained_recipe_by_recipe(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", unstable)
    told = stabkit("diagnose", *own_files(), "--preset", "devlin", "--seeds", "4").out
    slower = ("run", *own_files(), "--preset", "devlin", "--learning-rate", "1e-5", "--seed")
    assert [stabkit(*slower, seed).status for seed in ("0", "1")] == [0, 0]
    monkeypatch.setattr(train, "run", never)
    explained = stabkit("explain").out
    first, second = explained.split("# ")[1:]
    assert first.partition("\n\n")[2] == f"{told}\n"
    assert "learning_rate 2e-05" in first.splitlines()[0]
    assert "learning_rate 1e-05" in second.splitlines()[0]
    assert "2 of 2 runs fail" in second and "With the remedy" not in second


def test_what_has_one_seed_alone_is_not_explained(stabkit: Command) -> None:
    assert stabkit("run", *QUICK, *own_files()).status == 0
    said = stabkit("explain")
    assert said.status == 2
    assert "runs has 1 runs and no two that differ by their seed alone" in said.err


def test_a_stable_recipe_is_left_alone(stabkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "run", unstable)
    said = stabkit("diagnose", *own_files(), "--seeds", "3")
    assert "no run of 3 fails" in said.out and "What to change" not in said.out
    assert len(Store("runs")) == 3


def test_a_diagnosis_needs_two_seeds(stabkit: Command) -> None:
    said = stabkit("diagnose", "--seeds", "1")
    assert said.status == 2 and "greater than or equal to 2" in said.err


def test_a_diagnosis_compares_on_one_hardware_only(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", lambda config: fakes.judged(config, failed=True))
    command = ("diagnose", *own_files(), "--preset", "devlin", "--seeds", "2")
    assert stabkit(*command, "--verdict-only").status == 0
    said = stabkit(*command)
    # The runs of the fakes were made on "Some CPU", which this machine is not.
    assert said.status == 2 and "were made on Some CPU" in said.err and "--anew" in said.err


def test_a_diagnosis_looks_as_often_as_the_studies_or_as_it_is_told(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", unstable)
    asked = ("diagnose", *own_files(), "--preset", "devlin", "--seeds", "2", "--verdict-only")
    for given, looks in (((), studies.LOOKS), (("--set", "evals_per_epoch=1"), 1)):
        assert stabkit(*asked, *given, "--store", f"looks-{looks}").status == 0
        assert set(Store(f"looks-{looks}").table()["evals_per_epoch"]) == {looks}


def test_a_diagnosis_is_made_anew_where_asked(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", unstable)
    asked = ("diagnose", *own_files(), "--preset", "devlin", "--seeds", "2", "--verdict-only")
    assert stabkit(*asked).status == 0
    Store("runs").compact("published")
    again = (*asked, "--store", "mine", "--results", "published")
    assert ", 0 to do" in stabkit(*again).err
    assert ", 2 to do" in stabkit(*again, "--anew").err
    assert len(Store("mine")) == 2


def test_further_seeds_of_a_recipe_are_trained_on_the_hardware_of_the_first(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", lambda config: fakes.judged(config, failed=True))
    asked = ("diagnose", *own_files(), "--preset", "devlin", "--verdict-only", "--seeds")
    assert stabkit(*asked, "2").status == 0
    said = stabkit(*asked, "3")
    assert said.status == 2 and "2 runs that these would be compared with" in said.err
    assert len(Store("runs")) == 2


def test_threads_and_processes_reach_those_who_train(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def run(config: RunConfig, threads: int = 1) -> RunResult:
        asked.append(("threads", threads))
        return unstable(config)

    def swept(configs: Any, runs: Store, processes: int, **options: Any) -> pd.DataFrame:
        asked.append(("processes", processes))
        return sweep(configs, runs, **options)

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr("stabkit.sweep.sweep", swept)
    assert stabkit("run", *own_files(), *QUICK, "--threads", "3").status == 0
    several = ("--seeds", "2", "--processes", "2", "--verdict-only")
    assert stabkit("diagnose", *own_files(), *several).status == 0
    assert asked[:2] == [("threads", 3), ("processes", 2)]


def test_a_published_run_is_said_to_be_where_it_is(
    stabkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", lambda config, threads: unstable(config))
    asked = ("run", *own_files(), *QUICK)
    assert "kept in runs;" in stabkit(*asked).out
    Store("runs").compact("published")
    again = stabkit(*asked, "--store", "mine", "--results", "published")
    assert "kept in published;" in again.out and len(Store("mine")) == 0
