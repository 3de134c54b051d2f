"""Reading of examples with Hugging Face ``datasets``: files, folders and the hub.

Every reader returns ``datasets.Dataset`` tables and raises DataError that names the file. Files are
parsed by the library's generic builders in memory, with a cache folder that is removed at once, so
nothing stale is ever read and a read-only home does no harm.
"""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import datasets
import pandas as pd
from datasets import Dataset, Features, Value

from stabkit.errors import DataError

Splits: TypeAlias = tuple[Dataset, Dataset, str]  # train, dev, where they come from

BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
FORMATS = ", ".join(suffix[1:] for suffix in BUILDERS)
TRAIN = ("train",)
DEV = ("dev", "validation")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def read_hub(repo: str, config: str) -> Splits:
    """Return train and validation split of a data set on the hub, or of the hub's local cache."""
    try:
        train, dev = datasets.load_dataset(repo, config, split=["train", "validation"])
    except Exception as error:  # the hub client's, HTTP client's and cache's errors share no base
        raise DataError(
            f"the data set {repo} ({config}) could not be loaded from the Hugging Face hub or its "
            f"cache: {_reason(error)}"
        ) from error
    return train, dev, f"Hugging Face hub, {repo} ({config})"


def read_folder(folder: Path) -> Splits:
    """Return the training and the dev split that lie in ``folder``.

    Known layouts: ``train`` and ``dev`` (or ``validation``) files, such as train.jsonl or a hub
    snapshot's train-00000-of-00001.parquet, and what ``datasets`` writes with ``save_to_disk``.
    A longer name such as train_subset.jsonl is taken when it is the only one.
    """
    if (folder / "dataset_dict.json").is_file():
        return _read_saved(folder)
    train, dev = _split_files(folder, TRAIN), _split_files(folder, DEV)
    return read_files(train), read_files(dev), f"{train[0].name} and {dev[0].name} in {folder}"


def read_files(paths: list[Path]) -> Dataset:
    """Return the examples of one file, or of the shards of one split, as a table.

    Text is UTF-8. The cells of csv and tsv files stay text, whatever they look like; tsv is read
    without quoting, as GLUE's own files are written. Raises DataError for a file that is missing,
    empty, in another encoding or malformed.
    """
    for path in paths:
        _check_file(path)
    first = paths[0]
    # Shell patterns in a file's own name are no patterns here.
    names = [glob.escape(str(path.resolve())) for path in paths]
    try:
        with TemporaryDirectory(prefix="stabkit-") as cache, _quietly():
            return datasets.load_dataset(
                BUILDERS[first.suffix.lower()],
                data_files=names,
                split="train",
                cache_dir=cache,
                keep_in_memory=True,
                **_csv_options(first),
            )
    except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
        message = f"{first} cannot be read as {first.suffix[1:]}: {_reason(error)}"
        raise DataError(message) from error


def _read_saved(folder: Path) -> Splits:
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read as a saved data set: {error}") from error
    dev = next((name for name in DEV if name in saved), None)
    if "train" not in saved or dev is None:
        raise DataError(f"{folder} holds the splits {', '.join(saved)}; expected train and dev")
    return saved["train"], saved[dev], f"saved data set {folder}"


def _split_files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Find the file of a split: by exact name, else one longer name, else the shards of one."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in BUILDERS]
    exact = [path for path in files if path.stem in names]
    longer = [path for path in files if re.match(rf"({'|'.join(names)})[-_.]", path.stem)]
    found = exact or longer
    if len(found) == 1 or (found and all(_SHARD.search(path.stem) for path in found)):
        return found
    problem = f"several: {', '.join(path.name for path in found)}" if found else "none"
    raise DataError(
        f"expected one {' or '.join(names)} file ({FORMATS}) in {folder}, found {problem}"
    )


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"file not found: {path}")
    if path.suffix.lower() not in BUILDERS:
        raise DataError(f"{path} is of no known format; expected one of {FORMATS}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not content.strip():
        raise DataError(f"{path} is empty")
    if path.suffix.lower() != ".parquet":
        _check_text(path, content)


def _check_text(path: Path, content: bytes) -> None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}); "
            "save it as UTF-8"
        ) from error
    if BUILDERS[path.suffix.lower()] == "csv" and "\n" not in text.strip():
        raise DataError(f"{path} is empty but for its first line, the column names")


def _csv_options(path: Path) -> dict[str, Any]:
    """Read every cell as text: no NA, no number (007 stays 007) is guessed from its looks."""
    if BUILDERS[path.suffix.lower()] != "csv":
        return {}
    options: dict[str, Any] = (
        {"sep": "\t", "quoting": csv.QUOTE_NONE} if path.suffix.lower() == ".tsv" else {"sep": ","}
    )
    names = list(pd.read_csv(path, nrows=0, **options).columns)
    if len(names) == 1 and (marks := [mark for mark in ";\t|" if mark in names[0]]):
        raise DataError(
            f"{path} has one column, {names[0]!r}; its fields seem to be separated by "
            f"{marks[0]!r}: save it with commas"
        )
    first = pd.read_csv(path, nrows=1, dtype=str, **options)
    if not isinstance(first.index, pd.RangeIndex):  # pandas takes a field too many for a name
        raise DataError(
            f"{path} has more fields in its first row than column names, "
            f"{', '.join(map(repr, first.columns))}; put texts that contain the separator in "
            "quotes, or name every column"
        )
    return {
        **options,
        "keep_default_na": False,
        "features": Features({name: Value("string") for name in first.columns}),
    }


def _reason(error: BaseException) -> str:
    """Return the innermost cause's own words; the library wraps them in a general sentence."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    shown = datasets.utils.is_progress_bar_enabled()
    told = datasets.logging.get_verbosity()
    datasets.utils.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(told)
        if shown:
            datasets.utils.enable_progress_bars()
