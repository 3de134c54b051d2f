"""Make what the build of the book needs: plotly.js, the pages' first cell, their .ipynb twins.

Run it after editing a page: ``python book/prepare.py``. Run twice, it changes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import yaml
from plotly.offline import get_plotlyjs

from stabkit.pages import to_notebooks

BOOK = Path(__file__).parent
TERM = re.compile(r"\{term\}`([^`<]+?)(?: <[^`>]+>)?`")  # a link to the glossary, in the book only
DOWNLOAD = re.compile(r"\{download\}`([^`<]+) <([^`>]+)>`")
DIRECTIVE = re.compile(r"^```\{([\w-]+)\}[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DEFINED = re.compile(r"^(\S.*)\n: +", re.MULTILINE)  # a list of definitions
ENTRY = re.compile(r"^(\S.*)\n  ", re.MULTILINE)  # of the glossary
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
    """Return the .ipynb text of a page: no outputs, cells named by their place, plain Markdown."""
    notebook = jupytext.read(page)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"{page.stem}-{place}"
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source)
    text: str = jupytext.writes(notebook, fmt="ipynb")
    return text.rstrip("\n") + "\n"


def plain(source: str) -> str:
    """Return a page's text without what the book alone understands."""
    source = DIRECTIVE.sub(_without_directive, source)
    source = DOWNLOAD.sub(r"[\1](\2)", TERM.sub(r"\1", source))
    return to_notebooks(DEFINED.sub(r"**\1**: ", source))


def _without_directive(found: re.Match[str]) -> str:
    kind, body = found[1], found[2].rstrip("\n")
    if kind == "glossary":
        return re.sub(r"^  ", "", ENTRY.sub(r"**\1**: ", body), flags=re.MULTILINE)
    if kind in ("note", "warning"):
        return f"> **{kind.capitalize()}.** " + body.replace("\n", "\n> ")
    if kind in ("literalinclude", "nb-exec-table"):  # beside a download; a table of the build
        return ""
    raise ValueError(f"no plain Markdown for a page's {{{kind}}}; say here what stands for it")


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
