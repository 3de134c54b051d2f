"""Where a notebook runs: what must be installed, the GPU, the scale, the folder of one's own runs.

The first cell of the book's pages imports this module before anything is installed, so at import
it needs nothing but Python itself.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stabkit.errors import StabkitError

STORE = "STABKIT_STORE"  # the environment variable that the command line reads, too
ROOT = Path(__file__).parents[1]  # of the checkout, where the package lies in one
DRIVE = Path("/content/drive/MyDrive")  # Google Drive, where Colab mounts it
KEPT = ("torch", "ipywidgets")  # as the host has them
FRONT_END = "jupyterlab_widgets"  # what draws ipywidgets in a JupyterLab or Notebook page
UNDRAWN = (
    "The page that you look at was loaded without ipywidgets, which draw the panel: save the "
    "notebook, reload the page in your browser once, and run the cells again."
)
LOST = {
    "COLAB_RELEASE_TAG": "This folder is lost with the runtime; to keep your runs, mount Google "
    "Drive (from google.colab import drive; drive.mount('/content/drive')) and rerun this cell.",
    "BINDER_LAUNCH_HOST": "This folder is lost with the session: download what you want to keep.",
}


@dataclass(frozen=True)
class Host:
    """The name of the GPU, None without one, and the folder of one's own runs."""

    gpu: str | None
    folder: Path

    @property
    def scales(self) -> tuple[str, ...]:
        """The scales that are possible, the one to begin with first."""
        return ("mini", "paper") if self.gpu else ("mini",)

    def __str__(self) -> str:
        """In words, with a way on where the folder is not there for long."""
        paper = f"{self.gpu}: mini scale by default; paper (BERT-large on GLUE) is possible"
        scale = paper if self.gpu else f"no GPU, {os.cpu_count()} cores: mini scale"
        kept = self.folder.is_relative_to(DRIVE)
        warned = [told for host, told in LOST.items() if host in os.environ and not kept]
        return " ".join([f"Found {scale}.", f"Your runs are kept in {self.folder}.", *warned])


def prepare(folder: str | os.PathLike[str] | None = None) -> None:
    """Install what is missing, choose the folder of one's own runs, and say what was found.

    The folder is ``folder`` or that of ``runs_folder``; it is made, and STABKIT_STORE names it from
    here on. While the book is built (STABKIT_BOOK) nothing of this is done. Raises StabkitError
    where pip fails, or where the kernel must start again.
    """
    if os.environ.get("STABKIT_BOOK"):
        return
    if not installed():
        install(ROOT)
    found = Host(_gpu(), Path(folder).expanduser().absolute() if folder else runs_folder())
    found.folder.mkdir(parents=True, exist_ok=True)
    os.environ[STORE] = str(found.folder)
    print(found)


def runs_folder() -> Path:
    """Return where runs last: a mounted Google Drive, what STABKIT_STORE names, a hub's home.

    Elsewhere it is ``runs``, in the checkout or, without one, in the working directory.
    """
    if DRIVE.is_dir():
        return DRIVE / "stabkit-runs"
    if named := os.environ.get(STORE):
        return Path(named).absolute()
    if "JUPYTERHUB_USER" in os.environ:
        return Path.home() / "stabkit-runs"
    return (ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()) / "runs"


def installed() -> bool:
    """Whether the package and all that it needs are installed, in the versions that it asks for."""
    try:
        needs = metadata.requires("stabkit") or []
    except metadata.PackageNotFoundError:
        return False
    parse = importlib.import_module("packaging.requirements").Requirement  # every kernel has it
    wanted = [need for need in map(parse, needs) if need.marker is None or need.marker.evaluate()]
    return all(need.specifier.contains(_version(need.name) or "0", True) for need in wanted)


def install(checkout: Path) -> None:
    """Install the package from ``checkout`` with what it needs, but keep the host's torch.

    A host's torch fits its GPU and is gigabytes large, so pip may not replace it; nor its
    ipywidgets, whose version its pages draw. What the host has none of, pip brings. Raises
    StabkitError where pip fails, or where it replaced what this kernel has loaded.
    """
    torch, widgets, before = _version("torch"), _version(FRONT_END), _loaded()
    print(f"Installing stabkit from {checkout}, with {_torch(torch)}; this takes a minute or more.")
    with TemporaryDirectory() as folder:
        kept = Path(folder, "constraints.txt")
        here = {name: version for name in KEPT if (version := _version(name))}
        lines = (f"{name}=={version}\n" for name, version in here.items())
        kept.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", "--constraint", str(kept)]
        command += ["--editable", f"{checkout}[widgets]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StabkitError(
            f"pip could not install stabkit from {checkout} with {_torch(torch)}; it says: "
            f"{done.stderr.strip()[-1000:]}"
        )
    importlib.invalidate_caches()
    if replaced := [name for name, version in before.items() if _version(name) != version]:
        raise StabkitError(
            f"everything is installed, but pip replaced {', '.join(replaced)}, which this kernel "
            "had loaded: restart the kernel once, then run this cell again"
        )
    if widgets is None:
        print(UNDRAWN)


def _torch(version: str | None) -> str:
    return f"this host's torch {version}" if version else "a torch of its own (none was here)"


def _version(package: str) -> str | None:
    """Return the version of an installed package, None for one that is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _loaded() -> dict[str, str | None]:
    """Return the packages whose modules this process has imported, with their versions."""
    owners = metadata.packages_distributions()
    names = {owner for module in list(sys.modules) for owner in owners.get(module, ())}
    return {name: _version(name) for name in sorted(names)}


def _gpu() -> str | None:
    """Return the name of the GPU that runs would use."""
    if util.find_spec("torch") is None:
        return None
    torch: Any = importlib.import_module("torch")
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
