"""Make what the build of the book needs: plotly.js, the pages' first cell, their .ipynb twins.

Run it after editing a page: ``python book/prepare.py``. Run twice, it changes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import yaml
from plotly.offline import get_plotlyjs

BOOK = Path(__file__).parent
TERM = re.compile(r"\{term\}`([^`<]+?)(?: <[^`>]+>)?`")  # a link to the glossary, in the book only
CONFIG = BOOK.parent / "_config.yml"
FIRST_CELL = """\
```{{code-cell}} ipython3
:tags: [remove-cell, first-cell]

# Where nothing is installed yet (Colab, a hub): take the package, and torch as the host has it.
try:
    from stabkit import host
except ImportError:
    import subprocess
    import sys
    from pathlib import Path

    places = [Path.cwd(), *Path.cwd().parents, Path.cwd() / "stabkit-book"]
    clone = next((p for p in places if (p / "stabkit" / "host.py").exists()), places[-1])
    if not clone.exists():
        source = "{repository}"
        subprocess.run(["git", "clone", "--depth=1", source, clone], check=True)
    sys.modules.pop("stabkit", None)  # a folder of that name may have passed for it
    sys.path.insert(0, str(clone))
    from stabkit import host

host.prepare()  # host.prepare("a folder") keeps your own runs there
```

"""
OLD_CELL = re.compile(
    r"```\{code-cell\} ipython3\n:tags: \[remove-cell, first-cell\]\n.*?\n```\n\n", re.DOTALL
)
TITLE = re.compile(r"^# .+\n\n", re.MULTILINE)


def pages() -> list[Path]:
    """Return the pages' text notebooks."""
    return sorted(path for path in BOOK.glob("*.md"))


def repository() -> str:
    """Return the repository's address, of which _config.yml is the one place."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    return str(config["sphinx"]["config"]["html_theme_options"]["repository_url"])


def with_first_cell(text: str) -> str:
    """Return a page's text with the first cell below its title, where the page has any code."""
    bare = OLD_CELL.sub("", text)
    if "```{code-cell}" not in bare:
        return bare
    cell = FIRST_CELL.format(repository=repository())
    return TITLE.sub(lambda title: title[0] + cell, bare, count=1)


def twin(page: Path) -> str:
    """Return the .ipynb text of a page: no outputs, cells named by their place, terms as words."""
    notebook = jupytext.read(page)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"{page.stem}-{place}"
        if cell.cell_type == "markdown":
            cell.source = TERM.sub(r"\1", cell.source)
    text: str = jupytext.writes(notebook, fmt="ipynb")
    return text.rstrip("\n") + "\n"


def _write(path: Path, text: str) -> None:
    """Write a file unless it is as it should be."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(BOOK.parent)}")


def main() -> None:
    """Bring plotly.js, the pages' first cells and all twins up to date."""
    _write(BOOK / "_static" / "plotly.min.js", get_plotlyjs())
    for page in pages():
        _write(page, with_first_cell(page.read_text(encoding="utf-8")))
        _write(page.with_suffix(".ipynb"), twin(page))


if __name__ == "__main__":
    main()
