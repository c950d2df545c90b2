"""Whether a stored file is byte for byte what iwlora wrote, by the digest inside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import parse_mapping, read_utf8
from iwlora.results.formats import DIGEST, check_digest, fits_text_digest, parse_record

State = Literal["intact", "changed", "missing", "unknown"]

OLDER = "an older version wrote it, without a digest"


@dataclass(frozen=True)
class Check:
    """The state of one thing; ``detail`` says what is wrong with it.

    Args:
        name: A file of the run, or what was checked.
        state: Whether it is what it was; "unknown" where nothing says so.
        detail: What is wrong, or why it is unknown.
        matters: Whether the run cannot be relied on where it is not intact.
    """

    name: str
    state: State
    detail: str = ""
    matters: bool = True


def check_document(path: Path, name: str, read: Callable[[Path], Any]) -> Check:
    """A JSON file with a digest of its fields, which ``read`` raises ``IwloraError`` for."""
    try:
        read(path)
        text = read_utf8(path)
        stored = parse_mapping(text, path)
        check_digest(stored, path)
    except IwloraError as error:
        return Check(name, "changed", str(error))
    if DIGEST not in stored:
        return Check(name, "unknown", OLDER)
    written = json.dumps(stored, indent=1) + "\n"
    return Check(name, "intact") if text == written else Check(name, "changed", "it was edited")


def check_log(path: Path, name: str) -> Check:
    """A log, each line of which has a digest."""
    try:
        *lines, last = read_utf8(path).split("\n")
        for number, line in enumerate(lines, start=1):
            origin = f"line {number}"
            parse_record(line, origin)
            stored = parse_mapping(line, origin)
            if DIGEST not in stored:
                return Check(name, "unknown", OLDER)
            if line != json.dumps(stored):
                return Check(name, "changed", f"{origin} was edited")
    except IwloraError as error:
        return Check(name, "changed", str(error))
    return Check(name, "changed", "its last line was cut short") if last else Check(name, "intact")


def check_yaml(path: Path, name: str) -> Check:
    """A YAML file with a digest of its text at its end."""
    try:
        fits = fits_text_digest(read_utf8(path))
    except IwloraError as error:
        return Check(name, "changed", str(error))
    if fits is None:
        return Check(name, "unknown", OLDER)
    return Check(name, "intact") if fits else Check(name, "changed", "it was edited")
