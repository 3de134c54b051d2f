"""The files to copy for Slurm and Kubernetes, checked as far as a machine without either can."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from stabkit import cli
from stabkit.storage import place

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book" / "cluster.md"
FILES = ROOT / "book" / "_static" / "cluster"
SCRIPTS = sorted(FILES.glob("*.sh"))
NAMES = {"SLURM_CPUS_PER_TASK": "16", "address": "node1:6379", "SLURM_JOB_NUM_NODES": "4"}


def commands() -> list[list[str]]:
    """Return all command lines of stabkit in the files and on the page."""
    job = yaml.safe_load((FILES / "job.yaml").read_text())
    found = [shlex.join(job["spec"]["template"]["spec"]["containers"][0]["command"])]
    found.append(yaml.safe_load((FILES / "rayjob.yaml").read_text())["spec"]["entrypoint"])
    for file in (*SCRIPTS, PAGE):
        text = file.read_text().replace("\\\n", " ")
        found += re.findall(r"^ *(stabkit study .*)$", text, re.MULTILINE)
        found += re.findall(r"-- +(stabkit study .*)$", text, re.MULTILINE)
    return [shlex.split(filled(line)) for line in found]


def filled(line: str) -> str:
    line = re.sub(r"\$\{1:\?[^}]*\}", "table1-rte", line)
    return re.sub(r"\$(\w+)", lambda name: NAMES[name[1]], line)


def test_every_file_is_on_the_page_to_read_and_to_take_away() -> None:
    for kind in ("literalinclude}", "download}"):
        named = re.findall(rf"{re.escape(kind)}.*?_static/cluster/([\w.]+)", PAGE.read_text())
        assert sorted(named) == sorted(file.name for file in FILES.iterdir())


def test_command_lines_are_stabkit_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is read by the command line itself, which is kept from doing anything."""
    given: list[dict[str, Any]] = []
    assert len(commands()) == 6
    monkeypatch.chdir(tmp_path)
    group = typer.main.get_command(cli.app)
    study = group.commands["study"]  # type: ignore[attr-defined]
    monkeypatch.setattr(study, "callback", lambda **options: given.append(options))
    for line in commands():
        assert line[:2] == ["stabkit", "study"]
        group.main(line[1:], standalone_mode=False)
    assert {options["name"] for options in given} == {"table1-rte"}
    assert [options["executor"] for options in given].count("ray") == 4
    assert [options["scale"] for options in given].count("paper") == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.name))
def test_scripts_are_bash_with_slurm_s_options_before_the_first_command(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    first, *lines = script.read_text().splitlines()
    head = [line for line in lines[: lines.index("")] if line.startswith("#SBATCH")]
    assert first == "#!/bin/bash" and lines[lines.index("") + 1] == "set -euo pipefail"
    assert len(head) >= 5 and head == [line for line in lines if line.startswith("#SBATCH")]
    for line in head:
        assert re.fullmatch(r"#SBATCH --[a-z-]+=[\w:%.-]+", line)
    store = re.search(r'STABKIT_STORE="(file://)\$\{SCRATCH:-\$HOME\}(.*)"', script.read_text())
    assert store and place(store[1] + "/scratch" + store[2]) == Path("/scratch/stabkit-runs")


def test_ray_s_command_on_slurm_has_ray_s_options() -> None:
    pytest.importorskip("ray")
    from ray.scripts import scripts, symmetric_run

    text = (FILES / "slurm_ray.sh").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"ray symmetric-run (.*?) -- ", text)
    options = set(re.findall(r"--[a-z-]+", line))
    known = {
        name
        for command in (symmetric_run.symmetric_run, scripts.start)
        for parameter in command.params
        for name in parameter.opts
    }
    assert options == {"--address", "--min-nodes", "--num-cpus", "--num-gpus"} <= known


def containers(template: dict[str, Any]) -> dict[str, Any]:
    (container,) = template["spec"]["containers"]
    assert container["image"] == "registry.example.org/stabkit"
    assert set(container["resources"]) == {"requests", "limits"}
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["STABKIT_STORE"] == "s3://my-bucket/runs"
    assert container["envFrom"] == [{"secretRef": {"name": "stabkit-s3"}}]
    return dict(container)


def test_the_job_is_an_indexed_job() -> None:
    job = yaml.safe_load((FILES / "job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job") and job["metadata"]["name"]
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # backoffLimitPerIndex needs it
    containers(spec["template"])


def test_the_ray_job_is_one_of_kuberay_s() -> None:
    job = yaml.safe_load((FILES / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob") and job["metadata"]["name"]
    cluster = job["spec"]["rayClusterSpec"]
    assert f"rayproject/ray:{cluster['rayVersion']}-" in (FILES / "Dockerfile").read_text()
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["groupName"] and workers["minReplicas"] <= workers["replicas"]
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        containers(group["template"])
    assert containers(workers["template"])["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_image_has_the_extras_that_the_manifests_need() -> None:
    assert "stabkit[ray,s3]" in (FILES / "Dockerfile").read_text()
