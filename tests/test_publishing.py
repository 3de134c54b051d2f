"""The workflow that publishes the book: the README's command, and the folder that it fills."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
JOBS = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text(encoding="utf-8"))["jobs"]


def test_what_is_published_is_what_make_book_builds() -> None:
    steps = JOBS["build"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make book"]
    (upload,) = (step for step in steps if "upload-pages-artifact" in step.get("uses", ""))
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    output = recipe.split("--path-output ")[1].split()[0]
    assert upload["with"]["path"] == f"{output}/_build/html"


def test_only_the_job_that_publishes_may_write() -> None:
    assert JOBS["build"]["permissions"] == {"contents": "read"}
    assert JOBS["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert JOBS["publish"]["needs"] == "build"
