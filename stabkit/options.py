"""Options of the command line, and how their text becomes fields of a configuration."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from typer import Argument, Option

from stabkit.config import RunConfig
from stabkit.errors import ConfigError

NUMBERS = {"int": (int, float), "float": (float,)}  # a seed may be longer than a float is exact
FIELDS = {field.name: str(field.type) for field in fields(RunConfig)}
RUNS = "runs"  # one's own
RECIPE, LENGTH, OWN, PLACES = "Recipe", "Length", "Your own data", "Where things are"
CLUSTER = "On a cluster"

Preset: TypeAlias = Annotated[
    str, Option(help="Recipe to start from: devlin, lee, ours or trainer (see stabkit presets).")
]
Model: TypeAlias = Annotated[
    str,
    Option(
        help="A mini model (mini-bert, ...), a folder in Hugging Face layout, or a name on the hub."
    ),
]
TaskName: TypeAlias = Annotated[
    str,
    Option(
        help="mini-rte, mini-mrpc, mini-cola, mini-qnli, mini-scitail (generated, offline); rte, "
        "mrpc, cola, qnli, scitail; or the path of your own csv, tsv, jsonl or parquet."
    ),
]
Seed: TypeAlias = Annotated[
    int, Option(help="Seed of the new head's weights, the data order and dropout.")
]
Rate: TypeAlias = Annotated[
    float | None,
    Option(
        help="Peak learning rate.  [default: 2e-5; for the mini models the reference rate, chosen "
        "by the rule of the study pilot-rte]"
    ),
]
BiasCorrection: TypeAlias = Annotated[
    bool | None,
    Option(
        "--bias-correction/--no-bias-correction",
        help="Adam's bias correction.",
        rich_help_panel=RECIPE,
    ),
]
Warmup: TypeAlias = Annotated[
    float | None, Option(help="Share of steps with a rising rate, 0 to 1.", rich_help_panel=RECIPE)
]
WeightDecay: TypeAlias = Annotated[
    float | None, Option(help="Biases and layer norms are exempt.", rich_help_panel=RECIPE)
]
Mixout: TypeAlias = Annotated[
    float | None,
    Option(
        help="Share of weights swapped for pre-trained ones, 0 to 1; 0 is off.",
        rich_help_panel=RECIPE,
    ),
]
Precision: TypeAlias = Annotated[
    Literal["fp32", "tf32", "bf16", "fp16", "auto"] | None,
    Option(
        help="Precision of the arithmetic; fp16 scales the loss. auto picks bf16 or fp16 where the "
        "device has units for it, else fp32; the run is named as if you had typed that.",
        rich_help_panel=RECIPE,
    ),
]
Epochs: TypeAlias = Annotated[
    int | None, Option(help="Passes over the training set.", rich_help_panel=LENGTH)
]
MaxSteps: TypeAlias = Annotated[
    int | None, Option(help="Number of steps, instead of epochs.", rich_help_panel=LENGTH)
]
TrainSize: TypeAlias = Annotated[
    int | None, Option(help="Use only this many training examples.", rich_help_panel=LENGTH)
]
BatchSize: TypeAlias = Annotated[
    int | None, Option(help="Examples per step.", rich_help_panel=LENGTH)
]
MaxLength: TypeAlias = Annotated[
    int | None, Option(help="Tokens per text or pair; the rest is cut.", rich_help_panel=LENGTH)
]
DevFile: TypeAlias = Annotated[
    str | None,
    Option(help="Your dev set; without it, a fifth of --task is held out.", rich_help_panel=OWN),
]
TextColumns: TypeAlias = Annotated[
    str | None,
    Option(help="One or two text columns: --text-columns title,body.", rich_help_panel=OWN),
]
LabelColumn: TypeAlias = Annotated[
    str | None, Option(help="Needed if the column names leave doubt.", rich_help_panel=OWN)
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any other setting, such as eps_placement=after or clip_norm=none; stabkit settings "
        "lists them all. May be repeated.",
    ),
]
Threads: TypeAlias = Annotated[int, Option(min=1, help="CPU threads.")]
Processes: TypeAlias = Annotated[
    int | None,
    Option(
        min=1,
        help="Runs at a time, each with one thread.  [default: 1; with ray, as many as fit]",
    ),
]
SeedsAtOnce: TypeAlias = Annotated[
    int,
    Option(
        min=1,
        help="Seeds of a recipe to train as one batched model, which pays off for a small model on "
        "a GPU. Not with Mixout or fp16. Their weights cannot be reproduced, as stabkit analyse "
        "needs.",
    ),
]
Executor: TypeAlias = Annotated[
    Literal["local", "ray"],
    Option(help="Processes on this machine, or a Ray cluster.", rich_help_panel=CLUSTER),
]
Address: TypeAlias = Annotated[
    str | None,
    Option(
        envvar="RAY_ADDRESS",
        help="HOST:PORT of the cluster's head, or auto.  [default: one on this machine alone]",
        rich_help_panel=CLUSTER,
    ),
]
Cpus: TypeAlias = Annotated[
    float, Option(min=0, help="CPU cores per run.", rich_help_panel=CLUSTER)
]
Gpus: TypeAlias = Annotated[
    float,
    Option(min=0, help="GPUs per run, such as 0.25.", rich_help_panel=CLUSTER),
]
Seeds: TypeAlias = Annotated[
    str | None, Option(metavar="A:B", help="Only the study's seeds A to B - 1.")
]
Scale: TypeAlias = Annotated[
    Literal["mini", "paper"],
    Option(
        help="paper: BERT-, RoBERTa- and ALBERT-large on the published data sets, at 2e-5, "
        "instead of the mini models and generated tasks. Needs a GPU, and the hub or local files."
    ),
]
OneModel: TypeAlias = Annotated[
    str | None, Option("--model", metavar="NAME", help="Only the study's runs of this model.")
]
HowManySeeds: TypeAlias = Annotated[
    int, Option(min=2, help="Number of seeds; more make the verdict surer.")
]
VerdictOnly: TypeAlias = Annotated[
    bool, Option("--verdict-only", help="Do not train with the remedy.")
]
Anew: TypeAlias = Annotated[
    bool,
    Option(
        "--anew",
        help="Repeat published runs here. Needed on other hardware, whose runs cannot be compared "
        "with the published ones, and for looks into their weights by another version; "
        "stabkit publish then replaces the old runs with yours.",
    ),
]
DryRun: TypeAlias = Annotated[bool, Option("--dry-run", help="Count the runs and do none.")]
StudyName: TypeAlias = Annotated[str, Argument(help="A study's name (see stabkit studies).")]
MaybeStudy: TypeAlias = Annotated[
    str | None, Argument(help="A study's name (see stabkit studies); without it, all runs.")
]
Each: TypeAlias = Annotated[bool, Option("--runs", help="One line per run, with its key.")]
Published: TypeAlias = Annotated[
    bool, Option("--published", help="Include published runs, shown alone if you have none.")
]
Best: TypeAlias = Annotated[
    bool, Option("--best", help="Score the best checkpoint instead of the last.")
]
Key: TypeAlias = Annotated[str, Argument(help="A run's key, or its beginning.")]
AnalysisName: TypeAlias = Annotated[
    Literal["layer-swap", "surface", "lines"],
    Argument(
        help="layer-swap: what failed runs have forgotten, and in which layers (Fig. 2); surface: "
        "where on the loss surface they end, and along which path (Fig. 7 and 13); lines: loss and "
        "gradient between each of three failed and each of three successful runs."
    ),
]
DataFolder: TypeAlias = Annotated[
    Path | None,
    Option(
        "--data-dir",
        envvar="STABKIT_DATA",
        help="Folder with rte/train.jsonl, rte/dev.jsonl and so on; without it the published data "
        "sets come from the hub or its cache.",
        rich_help_panel=PLACES,
    ),
]
StoreFolder: TypeAlias = Annotated[
    str,
    Option(
        "--store",
        envvar="STABKIT_STORE",
        help="Your own runs: a folder, or an object store such as s3://bucket/runs.",
        rich_help_panel=PLACES,
    ),
]
ResultsFolder: TypeAlias = Annotated[
    Path | None,
    Option(
        "--results",
        envvar="STABKIT_RESULTS",
        help="Published runs, which are read and never repeated.  [default: the first folder named "
        "results with runs in it: here, above or beside the package]",
        rich_help_panel=PLACES,
    ),
]
PublishedFolder: TypeAlias = Annotated[
    Path | None,
    Option(
        "--results",
        envvar="STABKIT_RESULTS",
        help="Where to publish; what is already there stays.  [default: the folder that the other "
        "commands read, else results here]",
        rich_help_panel=PLACES,
    ),
]


def setting(text: str) -> tuple[str, Any]:
    """Read FIELD=VALUE. Raises ConfigError where there is no equals sign."""
    name, equals, worded = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected FIELD=VALUE, such as eps_placement=after")
    return name, value(name, worded)


def value(name: str, worded: Any) -> Any:
    """Read the text of an option as its field's type says; the configuration checks the rest."""
    kind = FIELDS.get(name, "")
    if not isinstance(worded, str) or kind == "str":
        return worded
    if worded.lower() == "none" and kind.endswith("None"):
        return None
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in worded.split(","))
    if kind == "bool":
        return {"true": True, "false": False}.get(worded.lower(), worded)
    for number in NUMBERS.get(kind.split(" ")[0], ()):
        with suppress(ValueError):
            return number(worded)
    return worded
