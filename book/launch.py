"""Sphinx extension: launch buttons open the notebooks of the repository that the book is built in.

The theme makes the buttons from ``html_theme_options`` in ``_config.yml``. Three environment
variables change them for one build: STABKIT_REPOSITORY (a repository's address on GitHub) and
STABKIT_BRANCH, so that a fork's buttons open the fork's notebooks, and STABKIT_HUB, the address of
a JupyterHub. A book cannot know its reader's hub: without STABKIT_HUB the button opens the link
generator of nbgitpuller, filled in but for the hub.
"""

from __future__ import annotations

import os
from typing import Any

VARIABLES = {"STABKIT_REPOSITORY": "repository_url", "STABKIT_BRANCH": "repository_branch"}
HUB = "STABKIT_HUB"
ANY_HUB = "https://hub.example"
PULL = f"{ANY_HUB}/hub/user-redirect/git-pull"  # where the theme leads; the generator's parameters
GENERATOR = "https://nbgitpuller.readthedocs.io/en/latest/link.html"


def configure(app: Any, config: Any) -> None:
    """Put what the environment says into the theme's options."""
    options = config.html_theme_options
    options |= {name: os.environ[key] for key, name in VARIABLES.items() if os.environ.get(key)}
    options["launch_buttons"]["jupyterhub_url"] = os.environ.get(HUB) or ANY_HUB


def any_hub(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Let the button that names no hub ask for one."""
    for group in context["header_buttons"]:
        for button in group.get("buttons", ()):
            if button.get("url", "").startswith(PULL):
                button["url"] = button["url"].replace(PULL, GENERATOR)
                button["tooltip"] = "Make a link for your JupyterHub"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("config-inited", configure)
    app.connect("html-page-context", any_hub, priority=900)  # after the theme has made the buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
