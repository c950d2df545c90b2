"""The methods that the package of the study declares, whether it is installed or not."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import iwlora_study
from iwlora.methods import Method

PROJECT = Path(iwlora_study.__file__).parents[2] / "pyproject.toml"
_DECLARED = '[project.entry-points."iwlora.methods"]'


def declared() -> dict[str, str]:
    """{method: module:class}, as in the file. Python 3.10 has no ``tomllib``."""
    lines = PROJECT.read_text("utf-8").split(_DECLARED)[1].split("\n[")[0].splitlines()
    pairs = (line.split(" = ") for line in lines if " = " in line)
    return {name.strip('"'): value.strip('"') for name, value in pairs}


def load(name: str) -> type[Method]:
    """A declared method."""
    method: type[Method] = EntryPoint(name, declared()[name], "iwlora.methods").load()
    return method
