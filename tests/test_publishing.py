"""The workflows: what is published is what `make book` builds; changes are tested by .ci/run."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
BOOK, TEST = (
    yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8"))
    for name in ("book", "test")
)
JOBS = BOOK["jobs"]


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


def test_a_proposed_change_is_tested_as_everywhere_else() -> None:
    assert "pull_request" in TEST[True]  # YAML 1.1 reads the key "on" as true
    (job,) = TEST["jobs"].values()
    assert job["permissions"] == {"contents": "read"}
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "make book" in script and "exec make test" in script
