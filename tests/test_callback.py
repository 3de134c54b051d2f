"""A Trainer of Hugging Face that is watched: its recipe, its verdicts, what it is told."""

from __future__ import annotations

import errno
import gc
import os
import re
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny
import torch
from torch.utils.data import IterableDataset
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from stabkit import callback, figures, trainers
from stabkit.callback import StabilityCallback
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, StoreError
from stabkit.mini.tasks import splits
from stabkit.presets import PRESETS
from stabkit.store import Store

PAGE = Path(__file__).parents[1] / "book" / "your_runs.md"
# That no GPU is there for what the Trainer asks of it by default is no news.
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")


def data(first: int, last: int) -> datasets.Dataset:
    """Return examples of the RTE-like task as a Trainer takes them."""
    split = splits("mini-rte")[0].take(np.arange(first, last))
    assert split.texts_b is not None
    pairs = list(split.texts_a), list(split.texts_b)
    form: dict[str, Any] = {"padding": "max_length", "max_length": 64, "truncation": True}
    tokens = tiny.tokenizer()(*pairs, return_token_type_ids=True, **form)
    return datasets.Dataset.from_dict({**tokens, "labels": split.labels})


def classifier(seed: int = 0, **settings: Any) -> PreTrainedModel:
    folder, options = tiny.model(), {"dtype": torch.float32, **settings}
    set_seed(seed)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    return model


def trainer(
    folder: Path, model: PreTrainedModel | None = None, dev: Any = ..., **changes: Any
) -> Trainer:
    given: dict[str, Any] = {"report_to": [], "save_strategy": "no", "disable_tqdm": True}
    optimizers = changes.pop("optimizers", (None, None))
    train = changes.pop("train", None) or data(0, 40)
    model = model or classifier(changes.get("seed", 0))
    return changes.pop("kind", Trainer)(
        model,
        TrainingArguments(str(folder / "out"), **(given | changes)),
        train_dataset=train,
        eval_dataset=data(40, 60) if dev is ... else dev,
        optimizers=optimizers,
    )


def watched(folder: Path, *args: Any, **changes: Any) -> tuple[Trainer, list[str], Store]:
    """Train and watch; return the Trainer, what was told, and the store."""
    told: list[str] = []
    one = trainer(folder, *args, **changes)
    one.add_callback(StabilityCallback(one, str(folder / "watched"), tell=told.append))
    one.train()
    return one, told, Store(folder / "watched")


def test_training_is_the_same_watched_or_not(tmp_path: Path) -> None:
    plain = trainer(tmp_path, num_train_epochs=2)
    plain.train()
    after = torch.rand(3)
    seen, *_ = watched(tmp_path, num_train_epochs=2)
    assert torch.equal(torch.rand(3), after)
    assert seen.model.training == plain.model.training
    for (name, one), other in zip(
        plain.model.named_parameters(), seen.model.parameters(), strict=True
    ):
        assert torch.equal(one, other), name


STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ONE_STEP: dict[str, Any] = {"max_steps": 1, "max_grad_norm": 1e-3, "logging_steps": 1}


class Scaled(Trainer):
    """A Trainer that scales its loss, as with fp16 on a GPU."""

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)


@pytest.mark.parametrize("kind", [Trainer, Scaled])
def test_norms_are_those_of_the_matrices_before_clipping_and_scaling(
    kind: type[Trainer], tmp_path: Path
) -> None:
    few, alone = data(0, 16), classifier(**STILL).train()
    alone(**few.with_format("torch")[:]).loss.backward()
    model, whole = classifier(**STILL), {**ONE_STEP, "per_device_train_batch_size": 16}
    *_, store = watched(tmp_path, model, train=few, kind=kind, **whole)
    found = store.gradients(store.table()["key"][0]).iloc[0]
    assert found["step"] == 1
    matrices = {name: p for name, p in alone.named_parameters() if p.ndim > 1}
    assert set(found.index) - {"step"} == set(matrices)
    for name, matrix in matrices.items():
        assert found[name] == pytest.approx(float(matrix.grad.norm()), rel=1e-3, abs=1e-6), name


def test_norms_of_accumulated_gradients_are_those_of_the_whole_update(tmp_path: Path) -> None:
    model = classifier(**STILL)
    for parameter in model.parameters():
        parameter.requires_grad = parameter.ndim > 1
    halves = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    one, _, store = watched(tmp_path, model, train=data(0, 16), **ONE_STEP, **halves)
    found = store.gradients(store.table()["key"][0]).drop(columns="step").iloc[0]
    logged = next(entry["grad_norm"] for entry in one.state.log_history if "grad_norm" in entry)
    assert np.linalg.norm(found) == pytest.approx(logged, rel=1e-4)


def test_the_run_is_judged_as_trained(tmp_path: Path) -> None:
    one, (told,), store = watched(tmp_path, learning_rate=1e-9, logging_steps=2)
    row = store.table().iloc[0]
    answers = one.predict(data(40, 60))
    assert row["dev_predictions"] == answers.predictions.argmax(1).tolist()
    assert row["dev_accuracy"] == (answers.predictions.argmax(1) == answers.label_ids).mean()
    fit = one.evaluate(data(0, 40))
    assert row["train_loss"] == pytest.approx(fit["eval_loss"], rel=1e-5)
    assert (row["steps"], row["executor"], row["metric"]) == (15, "Trainer", "accuracy")
    assert row["flat_loss"] and not row["diverged"]
    assert told.startswith(f"{tiny.model()} on my data, seed 42, run {row['key']}")
    assert "signs of failure: " in told and f"kept in {tmp_path / 'watched'}" in told
    history = store.history(row["key"])
    logged = [entry["loss"] for entry in one.state.log_history if "loss" in entry]
    assert history["loss"].dropna().tolist() == pytest.approx(logged)
    assert history["step"][history["loss"].notna()].tolist() == [2, 4, 6, 8, 10, 12, 14]
    assert history["learning_rate"][0] == 1e-9
    norms = store.gradients(row["key"])
    assert len(figures.gradient_norms(norms, norms).data) == 5  # two layers each, and their key


def test_the_recipe_is_that_of_the_arguments(tmp_path: Path) -> None:
    *_, store = watched(tmp_path)
    usual = store.table().iloc[0]
    for field, value in PRESETS["trainer"].items():
        assert usual[field] == value, field
    assert (usual["hidden_dropout"], usual["precision"], usual["segments"]) == (0.1, "fp32", True)
    assert usual["max_length"] == max(data(0, 60)["attention_mask"], key=sum).count(1)


def test_the_recipe_is_that_of_other_arguments(tmp_path: Path) -> None:
    other: dict[str, Any] = {
        "max_steps": 20,
        "warmup_steps": 5,
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 4,
        "weight_decay": 0.1,
        "max_grad_norm": 0.0,
        "adam_beta2": 0.98,
        "bf16": True,
        "use_cpu": True,
        "seed": 7,
    }
    *_, store = watched(tmp_path, **other)
    config = RunConfig.from_row(store.table().iloc[0].to_dict())
    assert (config.epochs, config.max_steps, config.warmup, config.batch_size) == (
        None,
        20,
        0.25,
        8,
    )
    assert (config.weight_decay, config.clip_norm, config.beta2) == (0.1, None, 0.98)
    assert (config.precision, config.seed) == ("bf16", 7)
    *_, store = watched(
        tmp_path, num_train_epochs=0.5, warmup_steps=0.2, lr_scheduler_type="constant"
    )
    config = RunConfig.from_row(store.table(seed=42).iloc[0].to_dict())
    assert (config.epochs, config.max_steps, config.warmup) == (None, 3, 0.0)


class OwnLoss(Trainer):
    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs)


OPTIMIZERS: dict[str, Callable[[PreTrainedModel], torch.optim.Optimizer]] = {
    "adamax": lambda model: torch.optim.Adamax(model.parameters()),
    "amsgrad": lambda model: torch.optim.AdamW(model.parameters(), amsgrad=True),
    "rates": lambda model: torch.optim.AdamW(
        [
            {"params": model.base_model.parameters(), "lr": 1e-5},
            {"params": model.classifier.parameters()},
        ]
    ),
}


def frozen() -> PreTrainedModel:
    model = classifier()
    for parameter in model.base_model.parameters():
        parameter.requires_grad = False
    return model


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr_scheduler_type": "cosine"}, "cosine schedule"),
        ({"label_smoothing_factor": 0.1}, "label smoothing 0.1"),
        ({"model": frozen}, "parameters trained"),
        ({"optim": "adamax"}, "Adamax"),
        ({"optim": "amsgrad"}, "amsgrad"),
        ({"optim": "rates"}, "rates 1e-05 to 0.001"),
        ({"model": partial(classifier, dtype=torch.bfloat16)}, "bfloat16 weights"),
        ({"kind": OwnLoss}, "a loss of its own"),
    ],
)
def test_what_no_field_holds_makes_another_recipe(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    model = changes.pop("model", classifier)()
    if optim := changes.pop("optim", None):
        changes["optimizers"] = OPTIMIZERS[optim](model), None
    watched(tmp_path, max_steps=1)
    *_, store = watched(tmp_path, model, max_steps=1, **changes)
    plain, special = sorted(store.table()["model"], key=len)
    assert special.startswith(f"{plain}, ") and told in special


def test_a_training_that_was_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

    one, told = trainer(tmp_path, max_steps=3), []
    one.add_callback(StabilityCallback(one, str(tmp_path / "watched"), tell=told.append))
    one.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        one.train()
    one.remove_callback(Stop)
    one.train()
    assert len(told) == 1 and "after 3 steps" in told[0]
    assert not any(p._post_accumulate_grad_hooks for p in one.model.parameters())


def test_the_second_seed_brings_a_diagnosis_and_the_remedy_a_comparison(tmp_path: Path) -> None:
    usual: dict[str, Any] = {"learning_rate": 1e-9, "num_train_epochs": 1}
    remedy = usual | {"num_train_epochs": 20, "warmup_steps": 0.1}
    _, (first,), _ = watched(tmp_path, seed=0, **usual)
    _, (second,), _ = watched(tmp_path, seed=1, **usual)
    assert "As you train" not in first
    assert "2 of 2 runs fail" in second and "num_train_epochs=20" in second
    _, (third,), _ = watched(tmp_path, seed=0, **remedy)
    _, (fourth,), store = watched(tmp_path, seed=1, **remedy)
    assert "As you train" not in third
    assert "failures: 2 of 2 as you train, 2 of 2 with the remedy" in fourth
    assert len(store) == 4


def test_a_missing_correction_is_found_in_the_optimizer(tmp_path: Path) -> None:
    for seed in range(2):
        model = classifier(seed)
        old = torch.optim.AdamW(model.parameters(), lr=1e-9, eps=1e-6)
        old.param_groups[0]["correct_bias"] = False
        _, (told,), store = watched(tmp_path, model, seed=seed, optimizers=(old, None))
    row = store.table().iloc[0]
    assert not row["bias_correction"] and row["eps_placement"] == "before"
    assert row["learning_rate"] == 1e-9
    assert "bias_correction = True: without it the first updates are larger" in told
    assert "optim='adamw_torch'" in told


def test_the_same_run_again_stays_as_it_was(tmp_path: Path) -> None:
    watched(tmp_path, max_steps=2)
    _, (told,), store = watched(tmp_path, max_steps=2)
    assert "not kept" in told and "and seed 42, which" in told and len(store) == 1
    *_, store = watched(tmp_path, max_steps=2, dev=data(40, 61))  # other data are another run
    assert len(store) == 2


def test_a_lost_loss_is_told_apart(tmp_path: Path) -> None:
    model = classifier()
    with torch.no_grad():
        model.classifier.weight.fill_(torch.nan)
    _, (told,), store = watched(tmp_path, model, max_steps=2)
    assert "loss not finite" in told and store.table()["diverged"][0]


def test_a_resumed_training_has_no_numbers_for_what_was_before(tmp_path: Path) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1}
    trainer(tmp_path, max_steps=4, **saving).train()
    told: list[str] = []
    one = trainer(tmp_path, max_steps=4, **saving)
    one.add_callback(StabilityCallback(one, str(tmp_path / "watched"), tell=told.append))
    one.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    store = Store(tmp_path / "watched")
    row = store.table().iloc[0]
    history = store.history(row["key"])
    assert row["steps"] == 4 and not row["diverged"]
    assert history["learning_rate"].isna().tolist() == [True, True, False, False]
    assert history["loss"].isna().tolist() == [True, True, False, False]


def test_half_weights_are_doubted(tmp_path: Path) -> None:
    _, told, _ = watched(tmp_path, classifier(dtype=torch.float16), max_steps=1)
    assert len(told) == 2
    assert told[0].startswith("Mind: the model's weights are float16") and "1e-08" in told[0]
    assert "dtype=torch.float32" in told[0]


def test_a_dev_accuracy_on_the_way_is_kept(tmp_path: Path) -> None:
    one = trainer(tmp_path, max_steps=4, eval_strategy="steps", eval_steps=2)
    scores = iter((0.9, 0.6))
    one.compute_metrics = lambda _: {"accuracy": next(scores)}
    one.add_callback(StabilityCallback(one, str(tmp_path / "watched"), tell=lambda _: None))
    one.train()
    row = Store(tmp_path / "watched").table().iloc[0]
    assert row["best_accuracy"] == 0.9 and row["score_last"] != 0.9


def test_the_accuracy_on_other_data_than_the_dev_set_does_not_count(tmp_path: Path) -> None:
    one = trainer(tmp_path, max_steps=4, eval_strategy="steps", eval_steps=2, dev=data(0, 8))
    one.compute_metrics = lambda _: {"accuracy": 1.0}
    folder, dev = str(tmp_path / "watched"), data(40, 60)
    one.add_callback(StabilityCallback(one, folder, dev=dev, tell=lambda _: None))
    one.train()
    row = Store(folder).table().iloc[0]
    assert row["best_accuracy"] == row["dev_accuracy"] < 1


def test_of_several_rates_the_largest_is_the_run_s(tmp_path: Path) -> None:
    model = classifier()
    *_, store = watched(tmp_path, model, max_steps=2, optimizers=(OPTIMIZERS["rates"](model), None))
    row = store.table().iloc[0]
    rates = store.history(row["key"])["learning_rate"].tolist()
    assert (row["learning_rate"], rates) == (1e-3, pytest.approx([1e-3, 5e-4]))


def test_the_longest_text_may_be_one_of_either_set(tmp_path: Path) -> None:
    lengths = [sum(mask) for mask in data(0, 60)["attention_mask"]]
    short = [at for at, length in enumerate(lengths) if length < max(lengths)][:16]
    long = [*short[:15], lengths.index(max(lengths))]
    short_one, long_one = (data(0, 60).select(rows) for rows in (short, long))
    for train, dev in ((short_one, long_one), (long_one, short_one)):
        *_, store = watched(tmp_path, train=train, dev=dev, max_steps=1)
    assert store.table()["max_length"].tolist() == [max(lengths)] * 2


class Endless(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter(data(0, 8))


def sgd(model: PreTrainedModel) -> Any:
    return torch.optim.SGD(model.parameters(), lr=1e-3), None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dev": None}, "eval_dataset is missing; expected one data set with a length"),
        ({"dev": {"a": 1}}, "eval_dataset is of type dict; expected one data set"),
        ({"train": Endless(), "max_steps": 1}, "train_dataset is of type Endless; expected one"),
        ({"model": {"problem_type": "regression"}}, "the model is for regression; expected one"),
        ({"model": {"num_labels": 1}}, "the model has one output; expected one for each of two"),
        ({"optimizers": sgd}, "the optimizer is SGD; expected Adam or AdamW"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_it_trains(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    model = classifier(**changes.pop("model", {}))
    if "optimizers" in changes:
        changes["optimizers"] = changes["optimizers"](model)
    with pytest.raises(ConfigError, match=re.escape(message)):
        watched(tmp_path, model, **changes)


def test_an_unknown_metric_is_refused_at_once(tmp_path: Path) -> None:
    wrong: Any = "acuracy"
    with pytest.raises(ConfigError, match="unknown metric 'acuracy': did you mean 'accuracy'"):
        StabilityCallback(trainer(tmp_path), str(tmp_path / "watched"), metric=wrong)


def test_labels_of_another_kind_are_told_and_nothing_is_lost(tmp_path: Path) -> None:
    several = data(0, 16).map(lambda row: {"labels": [0.0, 1.0]})
    one, (told,), store = watched(tmp_path, train=several, dev=several, max_steps=2)
    assert "could not judge this run; the model is unharmed" in told
    assert "labels are of shape (8, 2) and type torch.float32" in told
    assert one.state.global_step == 2 and len(store) == 0


def test_what_nobody_thought_of_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(callback, "scored", full)
    one, (told,), store = watched(tmp_path, max_steps=1)
    assert told.endswith("the model is unharmed: RuntimeError: out of memory")
    assert one.state.global_step == 1 and len(store) == 0


def test_shuffled_texts_are_the_same_data(tmp_path: Path) -> None:
    for seed in range(2):
        shuffled = data(0, 40).shuffle(seed=seed)
        _, (told,), _ = watched(tmp_path, train=shuffled, seed=seed, max_steps=1)
    assert "of 2 runs" in told


def test_other_data_count_apart_and_that_is_said(tmp_path: Path) -> None:
    for seed in range(2):
        few = data(0, 40).filter(lambda row, most=50 - 22 * seed: sum(row["attention_mask"]) < most)
        _, (told,), store = watched(tmp_path, train=few, dev=few, seed=seed, max_steps=1)
    assert "Other seeds of this recipe had other data and count separately" in told
    assert "As you train" not in told and store.table()["max_length"].nunique() == 2


def test_all_examples_are_scored_in_their_order(tmp_path: Path) -> None:
    given = {"dataloader_drop_last": True, "per_device_eval_batch_size": 6}
    one, _, store = watched(tmp_path, max_steps=1, **given)
    found = store.table()["dev_predictions"][0]
    one.model.eval()
    with torch.no_grad():
        logits = one.model(**data(40, 60).with_format("torch")[:]).logits
    assert found == logits.argmax(1).tolist()


def test_a_model_scored_before_it_trains_is_no_obstacle(tmp_path: Path) -> None:
    one = trainer(tmp_path, max_steps=1)
    one.compute_metrics = lambda _: {"accuracy": 1.0}
    one.add_callback(StabilityCallback(one, str(tmp_path / "watched"), tell=lambda _: None))
    one.evaluate()
    one.log({"loss": 1.0})
    one.train()
    assert Store(tmp_path / "watched").table()["best_accuracy"][0] < 1


def test_logits_are_told_from_a_model_s_other_answers(tmp_path: Path) -> None:
    class Wordy(type(classifier())):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            found = super().forward(*args, **kwargs)
            pooled = found.logits.repeat(1, 5)
            return {"loss": found.loss, "pooled": pooled, "logits": found.logits}

    model = classifier()
    model.__class__ = Wordy
    odd: dict[str, Any] = {"remove_unused_columns": False, "label_names": ["labels"]}
    *_, store = watched(tmp_path, model, max_steps=1, **odd)
    assert store.table()["train_loss"][0] == pytest.approx(0.69, abs=0.1)


def test_gradients_of_rows_have_a_norm(tmp_path: Path) -> None:
    layer = torch.nn.Embedding(5, 3, sparse=True)
    seen = callback._Gradients(layer)
    layer(torch.tensor([1, 1, 2])).sum().backward()
    assert float(seen.take(2.0)[0]) == pytest.approx((3 * 2**2 + 3 * 1**2) ** 0.5 / 2)


def test_a_model_does_not_outlive_its_trainer(tmp_path: Path) -> None:
    one, *_ = watched(tmp_path, max_steps=1)
    model = weakref.ref(one.model)
    gc.collect()
    gc.disable()
    try:
        del one
        assert model() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (GPT2Config(resid_pdrop=0.2, attn_pdrop=0.3), (0.2, 0.3, 0.2)),
        (T5Config(dropout_rate=0.4), (0.4, 0.4, 0.0)),
        (DistilBertConfig(dropout=0.2, attention_dropout=0.3), (0.2, 0.3, 0.2)),
    ],
)
def test_dropouts_are_known_by_their_many_names(
    settings: PreTrainedConfig, wanted: tuple[float, ...]
) -> None:
    found = trainers._dropouts(settings)
    assert tuple(found.values()) == wanted


def test_a_constant_schedule_is_doubted(tmp_path: Path) -> None:
    _, told, _ = watched(tmp_path, max_steps=1, lr_scheduler_type="constant")
    assert told[0].startswith("Mind: a constant schedule has no warmup")


def test_a_full_disk_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "put", full)
    one, (told,), _ = watched(tmp_path, max_steps=1)
    assert "could not judge this run" in told and "the disk is full" in told
    assert one.state.global_step == 1


def test_a_store_that_is_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "watched").write_text("a file, where a folder is wanted")
    with pytest.raises(StoreError, match="is a file; expected a folder"):
        watched(tmp_path, max_steps=1)


def test_a_store_that_refuses_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"Permission denied; make the folder writable"):
        watched(tmp_path, max_steps=1)


def test_the_page_shows_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.read_text(encoding="utf-8").split("## Your own training script")[1]
    code = "\n".join(
        line.removeprefix("    ")
        for line in section.split("\n## ")[0].splitlines()
        if line.startswith("    ")
    )
    monkeypatch.chdir(tmp_path)
    here: dict[str, Any] = {"set_seed": set_seed}
    here["make_trainer"] = lambda seed: trainer(tmp_path, seed=seed, max_steps=1)
    exec(code, here)
    assert len(Store(tmp_path / "watched")) == 5
