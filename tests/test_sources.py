"""The paper's data sets from every place and in every layout, and the real files where present."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from stabkit.config import RunConfig
from stabkit.errors import DataError
from stabkit.metrics import Metric
from stabkit.pinned import task_of
from stabkit.sources import DATA_SETS, DATA_VARIABLE
from stabkit.tasks import load_task

Rows = list[dict[str, Any]]
ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get(DATA_VARIABLE) or ROOT.parent / "shared" / "data")

TRAIN: Rows = [
    {"sentence1": f'The "{i}" is , so', "sentence2": f"ünï {i}", "label": i % 2, "idx": i}
    for i in range(8)
]
DEV: Rows = [{"sentence1": f"a{i}", "sentence2": "NA", "label": 0, "idx": i} for i in range(3)]
RTE_FEATURES = Features(
    {
        "sentence1": Value("string"),
        "sentence2": Value("string"),
        "label": ClassLabel(names=["entailment", "not_entailment"]),
        "idx": Value("int32"),
    }
)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, no data folder in the environment, an empty hub cache; return the cache."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    return cache


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Rows) -> None:
    Dataset.from_list(rows).to_csv(path)


def write_tsv(path: Path, rows: Rows) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")


def write_parquet(path: Path, rows: Rows) -> None:
    Dataset.from_list(rows, features=RTE_FEATURES).to_parquet(path)


@pytest.mark.parametrize(
    ("name", "train", "dev", "majority"),
    [
        ("rte", 2490, 277, {"accuracy": 52.7}),
        ("mrpc", 3668, 408, {"accuracy": 68.4, "f1": 81.2, "accuracy_f1": 74.8}),
        ("cola", 8551, 1043, {"accuracy": 69.1, "mcc": 0.0}),
    ],
)
def test_real_glue_files(name: str, train: int, dev: int, majority: dict[Metric, float]) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"no {name} folder in {REAL}; {DATA_VARIABLE} may name another")
    loaded = load_task(name, data_dir=REAL)
    assert (len(loaded.train), len(loaded.dev)) == (train, dev)
    for metric, percent in majority.items():
        assert 100 * loaded.majority_baseline(metric) == pytest.approx(percent, abs=0.05)
    assert loaded.majority_accuracy == loaded.majority_baseline("accuracy")
    assert loaded.note == ""
    assert loaded.metric == DATA_SETS[name].metric


def test_real_qnli_subset_says_that_it_is_one() -> None:
    if not (REAL / "qnli").is_dir():
        pytest.skip(f"no qnli folder in {REAL}; {DATA_VARIABLE} may name another")
    loaded = load_task("qnli", data_dir=REAL)
    assert "10,475 of 104,743" in loaded.note
    assert "train_subset10475.jsonl" in loaded.source


def saved(folder: Path) -> None:
    splits = {"train": TRAIN, "validation": DEV}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(
        folder
    )


def jsonl(folder: Path) -> None:
    write_jsonl(folder / "train.jsonl", TRAIN)
    write_jsonl(folder / "dev.jsonl", DEV)


def named_subset(folder: Path) -> None:
    write_jsonl(folder / "train_subset8.jsonl", TRAIN)
    write_jsonl(folder / "validation.jsonl", DEV)


def csv_and_tsv(folder: Path) -> None:
    write_csv(folder / "train.csv", TRAIN)
    write_tsv(folder / "dev.tsv", DEV)


def hub_snapshot(folder: Path) -> None:
    write_parquet(folder / "train-00000-of-00002.parquet", TRAIN[:5])
    write_parquet(folder / "train-00001-of-00002.parquet", TRAIN[5:])
    write_parquet(folder / "validation-00000-of-00001.parquet", DEV)
    hidden = [{**row, "label": -1} for row in DEV]
    write_parquet(folder / "test-00000-of-00001.parquet", hidden)


@pytest.mark.parametrize("layout", [jsonl, named_subset, csv_and_tsv, hub_snapshot, saved])
def test_every_layout_gives_the_same_task(
    layout: Callable[[Path], None],
    tmp_path: Path,
    offline: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jsonl(tmp_path / "plain" / "rte")
    (tmp_path / "data" / "rte").mkdir(parents=True)
    layout(tmp_path / "data" / "rte")
    capsys.readouterr()
    loaded = load_task("rte", data_dir=tmp_path / "data")
    assert loaded.train.texts_a == tuple(row["sentence1"] for row in TRAIN)
    assert loaded.dev.texts_b == ("NA", "NA", "NA")
    assert loaded.train.labels.tolist() == [0, 1] * 4
    assert loaded.digest == load_task("rte", data_dir=str(tmp_path / "plain")).digest
    assert "8 of 2,490" in loaded.note
    assert not offline.exists()  # nothing is left in the user's cache
    assert capsys.readouterr().err == ""


class Glue(datasets.GeneratorBasedBuilder):  # type: ignore[misc]
    """Writes the cache that a download of GLUE from the hub leaves."""

    BUILDER_CONFIGS = [datasets.BuilderConfig("rte")]  # noqa: RUF012 (as the base class has it)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=RTE_FEATURES)

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        hidden = [{**row, "label": -1} for row in DEV]
        splits = {"train": TRAIN, "validation": DEV, "test": hidden}
        return [
            datasets.SplitGenerator(name, gen_kwargs={"rows": rows})
            for name, rows in splits.items()
        ]

    def _generate_examples(self, rows: Rows) -> Any:
        yield from enumerate(rows)


def test_the_hub_cache_is_read_offline(offline: Path, tmp_path: Path) -> None:
    builder = Glue(
        cache_dir=str(offline),
        dataset_name="glue",
        config_name="rte",
        repo_id="nyu-mll/glue",
        hash="0" * 40,
    )
    builder.download_and_prepare()
    jsonl(tmp_path / "rte")
    assert load_task("rte").digest == load_task("rte", data_dir=tmp_path).digest


def test_the_hub_is_asked_for_train_and_validation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hub(*arguments: object, **options: object) -> list[Dataset]:
        asked.append((arguments, options))
        return [Dataset.from_list(TRAIN, features=RTE_FEATURES), Dataset.from_list(DEV)]

    monkeypatch.setattr(datasets, "load_dataset", hub)
    assert load_task("rte").source == "Hugging Face hub, nyu-mll/glue (rte)"
    assert asked == [(("nyu-mll/glue", "rte"), {"split": ["train", "validation"]})]


def test_qnli_and_scitail_columns_and_label_names(tmp_path: Path) -> None:
    qnli = [{"question": "q?", "sentence": "s", "label": i % 2, "idx": i} for i in range(4)]
    snli = [
        {"sentence1_parse": "(s)", "sentence1": "p", "sentence2": "h", "gold_label": name}
        for name in ("entailment", "neutral")
    ]
    tsv = [{"premise": "p", "hypothesis": "h", "label": name} for name in ("entails", "neutral")]
    for folder, rows in (("qnli", qnli), ("snli_format", snli), ("tsv/scitail", tsv)):
        write_jsonl(tmp_path / folder / "train.jsonl", rows)
        write_jsonl(tmp_path / folder / "dev.jsonl", rows)
    assert load_task("qnli", data_dir=tmp_path).train.texts_a[0] == "q?"
    scitail = load_task("scitail", data_dir=tmp_path)
    assert scitail.train.labels.tolist() == [0, 1]
    assert scitail.labels == ("entails", "neutral")
    assert scitail.digest == load_task("scitail", data_dir=tmp_path / "tsv").digest


def test_the_environment_names_a_folder_and_an_option_overrules_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jsonl(tmp_path / "one" / "rte")
    write_jsonl(tmp_path / "two" / "rte" / "train.jsonl", TRAIN[:4])
    write_jsonl(tmp_path / "two" / "rte" / "dev.jsonl", DEV)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "one"))
    assert len(load_task("rte").train) == 8
    assert len(load_task("rte", data_dir=tmp_path / "two").train) == 4
    with pytest.raises(DataError, match="hub"):  # not in that folder: on to the hub
        load_task("mrpc")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        load_task("rte")


def test_an_unreachable_hub_says_how_to_point_to_local_files(tmp_path: Path) -> None:
    hint = rf"--data-dir.*{DATA_VARIABLE}.*cola/train.jsonl and cola/dev.jsonl.*sentence, label"
    with pytest.raises(DataError, match=f"nyu-mll/glue.*{hint}"):
        load_task("cola")
    with pytest.raises(DataError, match=f"no folder cola in .*{hint}"):
        load_task("cola", data_dir=tmp_path)


def test_hidden_labels_are_refused(tmp_path: Path) -> None:
    jsonl(tmp_path / "rte")
    write_jsonl(tmp_path / "rte" / "dev.jsonl", [{**DEV[0], "label": -1}])
    with pytest.raises(DataError, match=r"rte \(dev\): unknown label '-1' in example 1"):
        load_task("rte", data_dir=tmp_path)


def test_several_or_no_files_for_a_split_are_named(tmp_path: Path) -> None:
    named_subset(tmp_path / "rte")
    write_jsonl(tmp_path / "rte" / "train_b.jsonl", TRAIN)
    with pytest.raises(DataError, match=r"several: train_b.jsonl, train_subset8.jsonl"):
        load_task("rte", data_dir=tmp_path)
    write_jsonl(tmp_path / "mrpc" / "train.jsonl", TRAIN)
    with pytest.raises(DataError, match=r"expected one dev or validation file.*found none"):
        load_task("mrpc", data_dir=tmp_path)


def test_reading_tasks_does_not_import_torch(tmp_path: Path) -> None:
    jsonl(tmp_path / "rte")
    program = (
        "import sys; from stabkit.tasks import load_task; "
        f"load_task('rte', data_dir={str(tmp_path)!r}).majority_accuracy; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_data_folder_that_was_edited_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    write_jsonl(tmp_path / "rte" / "dev.jsonl", DEV)
    train = write_jsonl(tmp_path / "rte" / "train.jsonl", TRAIN)
    config = RunConfig(task="rte", epochs=1)
    first = task_of(config)
    assert task_of(config) is first
    write_jsonl(train, TRAIN[:6])
    assert len(task_of(config).train) == 6
