"""How Sphinx builds this folder: ``make docs``."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

import iwlora

project = "iwlora"
author = "the iwlora developers"
copyright = author
version = release = iwlora.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"iwlora {release}"
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]

# Every reference to a name of iwlora must resolve. Names of other libraries are not looked up,
# since the build needs no network, and neither are iwlora's own types outside the public pages.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|transformers|peft|datasets|numpy|np|pathlib|pydantic|os|collections)\b.*"),
    (r"py:(class|obj|exc)", r"[A-Za-z_]+|(?!iwlora\.).*"),
    (r"py:(class|obj|func|meth|exc|data|attr|mod)", r"iwlora\..*"),
]


class CommandHelp(Directive):
    """``{command-help} measure``: what ``iwlora measure --help`` prints."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        from iwlora.cli import main

        command = self.arguments[0].split() if self.arguments else []
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main([*command, "--help"])
        return [nodes.literal_block(text=text.getvalue())]


def setup(app: Any) -> None:
    os.environ["COLUMNS"] = "95"  # argparse wraps its help to this width
    app.add_directive("command-help", CommandHelp)
