"""The pages of the documentation: their fenced blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def read_pages() -> dict[str, str]:
    """{path: text} of every page that a reader sees."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(paths)}


def blocks(pages: dict[str, str], language: str | None = None) -> list[Block]:
    """The fenced blocks of all pages, or those in one language; Sphinx directives are none."""
    found = [
        Block(page, match[1], match[2])
        for page, text in pages.items()
        for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        if not match[1].startswith("{")
    ]
    return [block for block in found if language in (None, block.language)]


def commands(block: Block) -> list[list[str]]:
    """The commands of a block in sh, as lists of words; a loop's variable gets its first value."""
    text = block.text.replace("\\\n", " ")
    for name, values in re.findall(r"^for (\w+) in ([^;]+); do$", text, re.MULTILINE):
        text = text.replace(f"${name}", values.split()[0])
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    # The test prints what a shell would write into a file.
    lines = [line[: line.index(">")] if ">" in line else line for line in lines]
    return [line for line in lines if line and line[0] not in ("for", "done")]


def inline_commands(pages: dict[str, str]) -> list[tuple[str, list[str]]]:
    """(page, words) of the iwlora commands within sentences."""
    return [
        (page, shlex.split(command))
        for page, text in pages.items()
        for command in re.findall(r"(?<!`)`(iwlora [^`]+)`", re.sub(r"\s*\n\s*", " ", text))
    ]
