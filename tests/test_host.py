"""The first cell of a page: on hosts with and without the package, torch, a GPU, a lasting folder.

A fake host is a Python without site-packages, in which ``pip`` and ``git`` are ours.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from stabkit import host

ROOT = Path(__file__).parents[1]
# What stands in for pip: it notes its arguments and the constraints, and "installs" nothing.
PIP = """
import json, os, pathlib, sys
kept = pathlib.Path(sys.argv[sys.argv.index("--constraint") + 1]).read_text()
pathlib.Path(os.environ["NOTED"]).write_text(json.dumps([sys.argv[1:], kept]))
sys.exit(os.environ.get("REFUSED"))
"""
GIT = """#!/bin/sh
[ "$1 $2" = "clone --depth=1" ] && mkdir -p "$4" && echo "$3" > "$4/from" &&
cp -r "$CHECKOUT/stabkit" "$CHECKOUT/pyproject.toml" "$4"
"""


def first_cell() -> str:
    """The code of the first cell, as prepare.py puts it onto every page."""
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "book" / "prepare.py")
    assert spec and spec.loader
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    page: str = prepare.with_first_cell("# Title\n\n```{code-cell} ipython3\n1\n```\n")
    return page.split("first-cell]\n", 1)[1].split("\n```", 1)[0]


class Bare:
    """A host on which only Python's own library is installed, and what happened on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site, self.noted = folder, folder / "site", folder / "noted.json"
        self.work = folder / "work"
        for made in (self.site / "pip", self.work, folder / "bin"):
            made.mkdir(parents=True)
        (self.site / "pip" / "__init__.py").touch()
        (self.site / "pip" / "__main__.py").write_text(PIP)
        (folder / "bin" / "git").write_text(GIT)
        (folder / "bin" / "git").chmod(0o755)

    def has(self, name: str, version: str, module: str = "") -> None:
        """Install a package that has nothing but a version and, maybe, some code."""
        about = self.site / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (about / "top_level.txt").write_text(name)
        if module:
            (self.site / f"{name}.py").write_text(module)

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``code`` as a kernel in the folder ``work`` would."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        fixed = {"PATH": path, "PYTHONPATH": str(self.site), "NOTED": str(self.noted)}
        fixed |= {"CHECKOUT": str(ROOT), "HOME": str(self.folder)}
        command = [sys.executable, "-S", "-c", code]
        return subprocess.run(
            command, cwd=self.work, env=fixed | environment, capture_output=True, text=True
        )

    def pip(self) -> tuple[list[str], str]:
        """Return what pip was asked for, and the constraints."""
        arguments, constraints = json.loads(self.noted.read_text())
        return arguments, constraints


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path)


NO_GPU = (
    "class cuda:\n    is_available = staticmethod(bool)\n"
    "    get_device_name = staticmethod(lambda: 'Some GPU')\n"
)
GPU = NO_GPU.replace("bool", "lambda: True")


def test_colab_gets_a_clone_of_the_repository_and_keeps_its_torch(bare: Bare) -> None:
    bare.has("torch", "2.9.0+cu126", GPU)
    done = bare.run(first_cell(), COLAB_RELEASE_TAG="release")
    assert done.returncode == 0, done.stderr
    clone = bare.work / "stabkit-book"
    assert (clone / "from").read_text() == "https://github.com/stabkit/stabkit\n"
    arguments, constraints = bare.pip()
    assert arguments[-2:] == ["--editable", f"{clone}[widgets]"]
    assert constraints == "torch==2.9.0+cu126\n"
    assert "this host's torch 2.9.0+cu126" in done.stdout
    assert "Some GPU: mini scale by default; paper" in done.stdout
    assert "mount Google Drive" in done.stdout


def test_a_host_without_torch_gets_one(bare: Bare) -> None:
    done = bare.run(first_cell())
    assert done.returncode == 0, done.stderr
    assert bare.pip()[1] == ""
    assert "a torch of its own" in done.stdout
    assert f"no GPU, {os.cpu_count()} cores: mini scale." in done.stdout


def test_a_host_keeps_the_ipywidgets_that_its_page_draws(bare: Bare) -> None:
    bare.has("ipywidgets", "7.7.1")
    done = bare.run(first_cell())
    assert done.returncode == 0, done.stderr
    assert bare.pip()[1] == "ipywidgets==7.7.1\n"
    bare.has("torch", "2.9.0", NO_GPU)
    assert bare.run(first_cell()).returncode == 0
    assert bare.pip()[1] == "torch==2.9.0\nipywidgets==7.7.1\n"


@pytest.mark.parametrize("there", [False, True])
def test_a_page_loaded_without_widgets_is_to_be_reloaded(bare: Bare, there: bool) -> None:
    if there:
        bare.has("jupyterlab_widgets", "3.0.15")
    done = bare.run(first_cell())
    assert done.returncode == 0, done.stderr
    assert ("reload the page in your browser once" in done.stdout) != there


def test_a_hub_uses_the_clone_it_has_and_keeps_runs_at_home(bare: Bare) -> None:
    bare.has("torch", "2.9.0", NO_GPU)
    clone = bare.folder / "stabkit"  # as nbgitpuller names it
    shutil.copytree(ROOT / "stabkit", clone / "stabkit")
    bare.work = clone / "book"
    bare.work.mkdir()
    done = bare.run(first_cell(), JUPYTERHUB_USER="ann")
    assert done.returncode == 0, done.stderr
    assert bare.pip()[0][-1] == f"{clone}[widgets]"
    assert (bare.folder / "stabkit-runs").is_dir()
    assert f"Your runs are kept in {bare.folder / 'stabkit-runs'}.\n" in done.stdout


def test_a_folder_named_as_the_package_is_not_taken_for_it(bare: Bare) -> None:
    (bare.work / "stabkit").mkdir()
    done = bare.run(first_cell())
    assert done.returncode == 0, done.stderr
    assert (bare.work / "stabkit-book" / "runs").is_dir()


def test_what_pip_says_reaches_the_reader(bare: Bare) -> None:
    bare.has("torch", "1.0")
    done = bare.run(first_cell(), REFUSED="stabkit needs torch>=2.6")
    assert done.returncode == 1
    assert "with this host's torch 1.0; it says: stabkit needs torch>=2.6" in done.stderr


def test_a_kernel_that_loaded_what_pip_replaces_must_start_again(bare: Bare) -> None:
    bare.has("plotly", "5.0", "old = True")
    swap = (
        "import os, pathlib\nsite = pathlib.Path(os.environ['PYTHONPATH'])\n"
        "old = site / 'plotly-5.0.dist-info'\n"
        "(old / 'METADATA').write_text((old / 'METADATA').read_text().replace('5.0', '7.1'))\n"
        "old.rename(site / 'plotly-7.1.dist-info')\n"
    )
    (bare.site / "pip" / "__main__.py").write_text(swap + PIP)
    done = bare.run("import plotly\n" + first_cell())
    assert done.returncode == 1
    assert "plotly, which this kernel had loaded: restart the kernel once" in done.stderr
    (bare.site / "pip" / "__main__.py").write_text(PIP)
    assert bare.run(first_cell()).returncode == 0


def test_where_all_is_installed_nothing_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STABKIT_BOOK", raising=False)
    monkeypatch.setenv("STABKIT_STORE", "")
    monkeypatch.setattr(host, "install", pytest.fail)
    host.prepare(tmp_path / "mine")
    assert os.environ["STABKIT_STORE"] == str(tmp_path / "mine")
    assert f"Your runs are kept in {tmp_path / 'mine'}." in capsys.readouterr().out


def test_the_book_is_built_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STABKIT_BOOK", "1")
    monkeypatch.setattr(host, "installed", pytest.fail)
    exec(first_cell(), {})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "version"),
    [("torch", None), ("torch", "1.13.1"), ("plotly", "5.24"), ("evaluate", None)],
)
def test_a_missing_or_old_requirement_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str, version: str | None
) -> None:
    assert host.installed()
    real = host._version
    monkeypatch.setattr(host, "_version", lambda one: version if one == name else real(one))
    assert not host.installed()


def test_a_package_that_is_only_on_the_path_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert not host.installed()


def test_where_runs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STABKIT_STORE", "JUPYTERHUB_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(host, "DRIVE", tmp_path / "MyDrive")
    assert host.runs_folder() == ROOT / "runs"
    monkeypatch.setenv("JUPYTERHUB_USER", "ann")
    assert host.runs_folder() == tmp_path / "stabkit-runs"
    monkeypatch.setenv("STABKIT_STORE", str(tmp_path / "named"))
    assert host.runs_folder() == tmp_path / "named"
    (tmp_path / "MyDrive").mkdir()
    assert host.runs_folder() == tmp_path / "MyDrive" / "stabkit-runs"


def test_a_host_says_what_is_possible_and_what_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BINDER_LAUNCH_HOST", "somewhere")
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    assert host.Host(None, tmp_path).scales == ("mini",)
    assert host.Host("Some GPU", tmp_path).scales == ("mini", "paper")
    assert "lost with the session" in str(host.Host(None, tmp_path))
    assert "lost" not in str(host.Host(None, host.DRIVE / "stabkit-runs"))


def test_no_torch_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setattr("stabkit.host.util.find_spec", lambda name: None)
    assert host._gpu() is None


def test_importing_it_needs_nothing_but_python() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import stabkit.host"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT)], check=True)
